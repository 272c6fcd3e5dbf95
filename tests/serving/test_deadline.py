"""A blocking call is given up on when it is late."""

import contextvars
import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from mixllm_integrations.serving import deadline, run_within, threads
from mixllm_integrations.serving.deadline import first_within

LONG = 20.0  # seconds that no test should need

VARIABLE = contextvars.ContextVar("variable", default="unset")


def until(is_so):
    """Wait for what another thread is about to do."""
    end = time.monotonic() + LONG
    while not is_so() and time.monotonic() < end:
        time.sleep(0.001)
    return is_so()


class TestCall:
    def test_without_a_limit_it_stays_on_this_thread(self):
        assert run_within(None, threading.get_ident) == threading.get_ident()

    def test_in_time_it_gives_its_result_and_its_error(self):
        assert run_within(LONG, max, 1, 2, key=lambda x: -x) == 1
        with pytest.raises(ZeroDivisionError):
            run_within(LONG, lambda: 1 / 0)
        with pytest.raises(SystemExit):
            run_within(LONG, sys.exit)

    def test_it_is_given_up_on_when_it_is_late(self, gate):
        with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
            run_within(0.05, gate.wait)

    @pytest.mark.parametrize("seconds", [0.0, -1.0])
    def test_no_time_at_all_is_no_reason_to_wait_for_ever(self, gate, seconds):
        with pytest.raises(TimeoutError):
            run_within(seconds, gate.wait)

    def test_any_time_at_all_is_allowed(self):
        assert run_within(float("inf"), max, 1, 2) == 2

    def test_context_variables_are_seen_on_the_other_thread(self):
        VARIABLE.set("set")
        assert run_within(LONG, VARIABLE.get) == "set"

    def test_what_it_sets_stays_there(self):
        VARIABLE.set("mine")
        run_within(LONG, VARIABLE.set, "the call's")
        assert VARIABLE.get() == "mine"
        assert run_within(LONG, VARIABLE.get) == "mine"

    def test_a_late_error_is_silent(self, gate, caplog):
        def fail():
            gate.wait()
            raise ValueError("a secret")

        with caplog.at_level(logging.DEBUG):
            with pytest.raises(TimeoutError):
                run_within(0.0, fail)
            gate.set()
            assert until(lambda: "ended with ValueError" in caplog.text)
        assert "secret" not in caplog.text

    def test_nothing_of_it_is_kept(self):
        class Answer:
            pass

        answer = Answer()
        gone = weakref.ref(answer)
        assert run_within(LONG, lambda given: given, answer) is answer
        del answer
        assert until(lambda: gone() is None)

    def test_an_error_is_not_kept_in_a_circle(self):
        class OddError(Exception):
            pass

        def fail():
            raise OddError

        gc.collect()
        gc.disable()
        try:
            try:
                run_within(LONG, fail)
            except OddError as error:
                gone = weakref.ref(error)
            assert until(lambda: gone() is None)
        finally:
            gc.enable()


class TestThreads:
    def test_one_call_after_another_needs_one_thread(self):
        idents = {run_within(LONG, threading.get_ident) for _ in range(50)}
        assert len(idents) <= 2  # one, and perhaps one that was late before
        assert threading.get_ident() not in idents

    def test_calls_at_once_run_at_once(self):
        barrier = threading.Barrier(8)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: run_within(LONG, barrier.wait, LONG), range(8)))

    def test_not_more_threads_are_kept_than_are_useful(self, monkeypatch):
        monkeypatch.setattr(threads, "_MOST_IDLE", 2)
        monkeypatch.setattr(threads, "_IDLE", type(threads._IDLE)())
        barrier = threading.Barrier(8)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: run_within(LONG, barrier.wait, LONG), range(8)))
        assert len(threads._IDLE) <= 3  # two at once may find room for one

    def test_a_late_call_keeps_no_other_waiting_and_its_thread_is_used_again(
        self, gate
    ):
        assert until(lambda: not threads._LATE)
        with pytest.raises(TimeoutError):
            run_within(0.0, gate.wait)
        assert len(threads._LATE) == 1
        assert run_within(LONG, max, 1, 2) == 2
        gate.set()
        assert until(lambda: not threads._LATE)

    def test_many_late_calls_are_told_of(self, gate, caplog, monkeypatch):
        assert until(lambda: not threads._LATE)
        monkeypatch.setattr(threads, "_MANY_LATE", 2)
        for _ in range(5):
            with pytest.raises(TimeoutError):
                run_within(0.0, gate.wait)
        told = [record.args[0] for record in caplog.records]
        assert told == [2, 4]
        gate.set()
        assert until(lambda: not threads._LATE)

    def test_a_call_that_ends_at_the_last_moment_is_late_or_not_but_never_both(self):
        cleaned, answers = [], []
        for n in range(300):
            job = deadline._Timed(
                lambda n=n: time.sleep(0.0005) or n,
                if_late=lambda n=n: cleaned.append(n),
            )
            try:
                answers.append(job.within(0.0005))
            except TimeoutError:
                answers.append(None)
        assert until(lambda: not threads._LATE)
        late = [n for n, answer in enumerate(answers) if answer is None]
        assert until(lambda: sorted(cleaned) == late)
        assert all(answer in {n, None} for n, answer in enumerate(answers))

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_does_not_hand_work_to_its_parents_threads(self):
        script = """
            import os, warnings
            warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads
            from mixllm_integrations.serving import run_within
            assert run_within(20.0, max, 1, 2) == 2
            child = os.fork()
            if child == 0:
                os._exit(run_within(20.0, max, 3, 4))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
        """
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60
        )

    def test_a_call_that_hangs_does_not_keep_the_process_from_ending(self):
        script = """
            import threading
            from mixllm_integrations.serving import run_within
            try:
                run_within(0.0, threading.Event().wait)
            except TimeoutError:
                pass
        """
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60
        )


class Source:
    """A generator that tells what happens to it."""

    def __init__(self, gate):
        self.gate = gate
        self.closed_in = None
        self.reset_failed = None

    def items(self):
        token = VARIABLE.set("inside")
        try:
            self.gate.wait()
            yield VARIABLE.get()
            yield VARIABLE.get()
        finally:
            self.closed_in = threading.current_thread().name
            try:
                VARIABLE.reset(token)
                self.reset_failed = False
            except ValueError:
                self.reset_failed = True


class TestFirst:
    def test_without_a_limit_the_iterator_stays_what_it_is(self):
        items = iter("ab")
        first, rest = first_within(None, items, None)
        assert first == "a"
        assert rest is items

    def test_in_time_the_others_follow(self):
        first, rest = first_within(LONG, iter("abc"), None)
        assert [first, *rest] == ["a", "b", "c"]

    def test_none_at_all_is_told(self):
        end = object()
        assert first_within(LONG, iter(()), end)[0] is end

    def test_its_error_is_raised(self):
        with pytest.raises(ZeroDivisionError):
            first_within(LONG, (1 / n for n in [0]), None)

    def test_all_items_are_made_in_one_context(self, gate):
        gate.set()
        source = Source(gate)
        first, rest = first_within(LONG, source.items(), None)
        assert [first, *rest] == ["inside", "inside"]
        assert source.reset_failed is False
        assert VARIABLE.get() != "inside"

    def test_closing_early_closes_what_it_iterates_over_in_that_context(self, gate):
        gate.set()
        source = Source(gate)
        _, rest = first_within(LONG, source.items(), None)
        rest.close()
        assert source.closed_in == threading.current_thread().name
        assert source.reset_failed is False

    def test_what_cannot_be_closed_need_not_be(self):
        _, rest = first_within(LONG, iter("ab"), None)
        rest.close()

    def test_a_late_one_is_closed_as_soon_as_it_can_be(self, gate):
        source = Source(gate)
        items = source.items()
        with pytest.raises(TimeoutError):
            first_within(0.01, items, None)
        assert source.closed_in is None
        gate.set()
        assert until(lambda: source.closed_in is not None)
        assert source.closed_in == "mixllm-worker"
        assert source.reset_failed is False
        assert until(lambda: not threads._LATE)

    def test_an_error_while_a_late_one_is_closed_is_silent(self, gate, caplog):
        def items():
            try:
                gate.wait()
                yield 1
            finally:
                raise ValueError("a secret")

        with caplog.at_level(logging.DEBUG):
            with pytest.raises(TimeoutError):
                first_within(0.0, items(), None)
            gate.set()
            assert until(lambda: "then ValueError" in caplog.text)
        assert "secret" not in caplog.text
