"""Events are written in the background: in order, none lost, nobody held up."""

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from mixllm_integrations.serving.background import BackgroundWriter
from mixllm_integrations.serving.writer import DirectWriter
from mixllm_integrations.store import NewEvent

LONG = 20.0  # seconds that no test should need


class Log:
    """A log that can be held up, and can fail."""

    def __init__(self):
        self.kinds = []
        self.error = None
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.closed = 0
        self.threads = set()

    def append(self, kind, decision_id, payload):
        self.threads.add(threading.current_thread().name)
        self.entered.set()
        assert self.open.wait(LONG)
        if self.error is not None:
            raise self.error
        self.kinds.append(kind)

    def close(self):
        self.closed += 1


@pytest.fixture
def log():
    made = Log()
    yield made
    made.open.set()


@pytest.fixture
def writer_to(log):
    made = []

    def make(**settings):
        settings.setdefault("closing_seconds", LONG)
        settings.setdefault("retry_seconds", 0.01)
        made.append(BackgroundWriter(log.append, at_end=log.close, **settings))
        return made[-1]

    yield make
    log.open.set()
    for writer in made:
        writer.close()


def entry(kind):
    return NewEvent(str(kind), "d", {})


def numbers(count):
    return [str(n) for n in range(count)]


class TestOrder:
    def test_events_are_written_in_their_order_by_another_thread(self, log, writer_to):
        writer = writer_to()
        for n in range(500):
            writer.put(entry(n))
        assert writer.flush(LONG)
        assert log.kinds == numbers(500)
        assert log.threads == {"mixllm-journal"}
        assert writer.waiting == 0

    def test_each_thread_finds_its_events_in_order_and_none_is_lost(
        self, log, writer_to
    ):
        writer = writer_to()

        def put(thread):
            for n in range(200):
                writer.put(entry(f"{thread}-{n}"))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, range(8)))
        assert writer.flush(LONG)
        assert len(log.kinds) == 1_600
        for thread in range(8):
            mine = [kind for kind in log.kinds if kind.startswith(f"{thread}-")]
            assert mine == [f"{thread}-{n}" for n in range(200)]

    def test_without_events_there_is_no_thread_and_nothing_to_wait_for(self, writer_to):
        writer = writer_to()
        assert writer.flush()
        assert writer._thread is None

    def test_a_direct_writer_writes_on_the_callers_thread(self, log):
        writer = DirectWriter(log.append, at_end=log.close)
        writer.put(entry("decision"))
        assert log.kinds == ["decision"]
        assert log.threads == {threading.current_thread().name}
        assert writer.flush()
        writer.close()
        assert log.closed == 1


class TestWaiting:
    def test_nobody_waits_for_a_log_that_hangs(self, log, writer_to):
        writer = writer_to()
        log.open.clear()
        began = time.monotonic()
        for n in range(100):
            writer.put(entry(n))
        assert time.monotonic() - began < LONG / 2
        assert log.kinds == []
        assert not writer.flush(0.01)
        log.open.set()
        assert writer.flush(LONG)
        assert log.kinds == numbers(100)

    def test_if_too_many_wait_the_newest_is_dropped_and_counted(
        self, log, writer_to, caplog
    ):
        writer = writer_to(capacity=3, patience_seconds=0.01)
        log.open.clear()
        writer.put(entry(0))
        assert log.entered.wait(LONG)
        for n in range(1, 10):
            writer.put(entry(n))
        assert writer.lost == 7
        assert writer.waiting <= 3
        log.open.set()
        assert writer.flush(LONG)
        assert log.kinds == numbers(3)
        assert caplog.text.count("3 wait for the store already") == 1
        assert "lost so far: 7" in caplog.text

    def test_the_caller_is_held_up_before_anything_is_dropped(self, log, writer_to):
        writer = writer_to(capacity=1, patience_seconds=LONG)
        for n in range(50):
            writer.put(entry(n))
        assert writer.flush(LONG)
        assert log.kinds == numbers(50)
        assert writer.lost == 0

    def test_a_log_that_hangs_holds_up_one_caller_only(self, log, writer_to):
        writer = writer_to(capacity=1, patience_seconds=0.2)
        log.open.clear()
        began = time.monotonic()
        for n in range(50):
            writer.put(entry(n))
        assert 0.2 <= time.monotonic() - began < 5.0

    async def test_feedback_holds_an_event_loop_up_for_a_moment_at_most(
        self, log, writer_to
    ):
        writer = writer_to()
        log.open.clear()
        began = time.monotonic()
        writer.put_safely(entry("feedback"), 10 * LONG)
        assert time.monotonic() - began < LONG
        log.open.set()
        assert writer.flush(LONG)
        assert log.kinds == ["feedback"]

    async def test_on_an_event_loop_nobody_is_held_up(self, log, writer_to):
        writer = writer_to(capacity=1, patience_seconds=LONG)
        log.open.clear()
        writer.put(entry(0))
        assert log.entered.wait(LONG)
        began = time.monotonic()
        writer.put(entry(1))
        assert time.monotonic() - began < LONG / 2
        assert writer.lost == 1

    def test_room_for_a_few_is_not_told_as_the_end_of_it(self, log, writer_to, caplog):
        writer = writer_to(capacity=20, patience_seconds=0.0)
        turn = threading.Semaphore(0)
        append = writer._delivery._append
        writer._delivery._append = lambda *given: (
            turn.acquire(timeout=LONG) and append(*given)
        )
        for n in range(25):
            writer.put(entry(n))
        for n in range(1, 5):
            turn.release()
            until = time.monotonic() + LONG
            while writer._line.written < n and time.monotonic() < until:
                time.sleep(0.001)
            writer.put(entry("taken"))
            writer.put(entry("dropped"))
        turn.release(40)
        assert writer.flush(LONG)
        assert writer.lost > 0
        assert caplog.text.count("wait for the store already") == 1
        assert caplog.text.count("events are logged again") == 1

    def test_what_must_not_be_lost_is_taken_without_room(self, log, writer_to):
        writer = writer_to(capacity=2, patience_seconds=0.0)
        log.open.clear()
        writer.put(entry(0))
        assert log.entered.wait(LONG)
        writer.put(entry(1))
        writer.put(entry("dropped"))
        writer.put(entry("kept"), keep=True)
        log.open.set()
        assert writer.flush(LONG)
        assert log.kinds == ["0", "1", "kept"]


class TestFailures:
    def test_while_the_database_is_away_events_are_kept(self, log, writer_to, caplog):
        writer = writer_to()
        log.error = ConnectionRefusedError("password in here")
        for n in range(3):
            writer.put(entry(n))
        assert not writer.flush(LONG)
        assert log.kinds == []
        log.error = None
        assert writer.flush(LONG)
        assert log.kinds == numbers(3)
        assert writer.lost == 0
        assert caplog.text.count("events are not logged") == 1
        assert "the store failed with ConnectionRefusedError" in caplog.text
        assert caplog.text.count("events are logged again") == 1
        assert "password" not in caplog.text

    def test_it_is_tried_again_without_a_new_event(self, log, writer_to):
        writer = writer_to()
        log.error = TimeoutError()
        writer.put(entry("late"))
        assert not writer.flush(LONG)
        log.error = None
        until = time.monotonic() + LONG
        while not log.kinds and time.monotonic() < until:
            time.sleep(0.005)
        assert log.kinds == ["late"]

    def test_a_database_that_is_away_is_left_alone_for_a_while(self, log, writer_to):
        writer = writer_to(retry_seconds=LONG)
        tries = []

        def refuse(*entry):
            tries.append(entry)
            raise ConnectionRefusedError

        writer._delivery._append = refuse
        for n in range(100):
            writer.put(entry(n))
        assert not writer.flush(LONG)  # asking makes one more try
        assert len(tries) <= 2

    def test_an_event_that_is_refused_does_not_hold_up_the_others(
        self, log, writer_to, caplog
    ):
        writer = writer_to()
        log.error = ValueError("a string with NUL")
        writer.put(entry("bad"))
        assert writer.flush(LONG)
        log.error = None
        writer.put(entry("good"))
        assert writer.flush(LONG)
        assert log.kinds == ["good"]
        assert writer.lost == 1
        assert "NUL" not in caplog.text

    def test_the_next_outage_is_told_again(self, log, writer_to, caplog):
        writer = writer_to()
        for n in range(2):
            log.error = OSError()
            writer.put(entry(n))
            assert not writer.flush(LONG)
            log.error = None
            assert writer.flush(LONG)
        assert caplog.text.count("events are not logged") == 2
        assert caplog.text.count("events are logged again") == 2

    def test_a_direct_writer_tells_the_same(self, log, caplog):
        writer = DirectWriter(log.append)
        log.error = OSError()
        writer.put(entry("a"))
        writer.put(entry("b"))
        log.error = None
        writer.put(entry("c"))
        assert caplog.text.count("events are not logged") == 1
        assert "lost so far: 2" in caplog.text


class TestEnd:
    def test_closing_writes_what_waits_and_then_closes_the_log_once(
        self, log, writer_to
    ):
        writer = writer_to()
        log.open.clear()
        for n in range(20):
            writer.put(entry(n))
        threading.Timer(0.05, log.open.set).start()
        writer.close()
        writer.close()
        assert log.kinds == numbers(20)
        assert log.closed == 1
        assert writer.flush(LONG)

    def test_closing_does_not_wait_for_ever(self, log, writer_to, caplog):
        writer = writer_to(closing_seconds=0.05)
        log.open.clear()
        for n in range(3):
            writer.put(entry(n))
        assert log.entered.wait(LONG)
        writer.close()
        assert log.closed == 0
        assert "3 events are not logged: the store did not take them" in caplog.text

    def test_closing_while_the_database_is_away_tries_once_more(
        self, log, writer_to, caplog
    ):
        writer = writer_to(retry_seconds=LONG)
        log.error = OSError()
        for n in range(3):
            writer.put(entry(n))
        assert not writer.flush(LONG)
        writer.close()
        assert writer.lost == 3
        assert log.closed == 1
        assert "3 events are not logged: the store is away" in caplog.text

    def test_a_late_event_is_written_by_its_own_thread(self, log, writer_to):
        writer = writer_to()
        writer.put(entry("early"))
        writer.close()
        writer.put(entry("late"))
        assert log.kinds == ["early", "late"]
        assert log.closed == 1

    def test_it_may_be_closed_by_its_own_thread(self, log, writer_to):
        writer = writer_to()
        writer._delivery._append = lambda *entry: writer.close()
        writer.put(entry("last"))
        until = time.monotonic() + LONG
        while not log.closed and time.monotonic() < until:
            time.sleep(0.001)
        assert writer._thread is None
        assert writer.lost == 0
        assert log.closed == 1

    def test_a_finalizer_may_put_events_in_the_middle_of_anything(self, log, writer_to):
        writer = writer_to()

        class Stream:
            def __init__(self):
                self.itself = self

        for n in range(50):
            weakref.finalize(Stream(), writer.put, entry(n))
            with writer._lock:
                gc.collect(0)
        assert writer.flush(LONG)
        assert sorted(log.kinds, key=int) == numbers(50)


def run(script):
    """Run a script in a process of its own, and return what it wrote to its file."""
    prelude = """
        import os, sys, threading, time
        from mixllm_integrations.serving.background import BackgroundWriter
        from mixllm_integrations.store import NewEvent

        def append(kind, decision_id, payload):
            with open(sys.argv[1], "a") as file:
                file.write(f"{kind}\\n")

        def put(*kinds):
            for kind in kinds:
                writer.put(NewEvent(kind, "d", {}))
    """

    def execute(path):
        source = textwrap.dedent(prelude) + textwrap.dedent(script)
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", source, str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return path.read_text().split() if path.exists() else [], ended.stderr

    return execute


class TestProcesses:
    def test_at_the_end_of_the_process_everything_is_written(self, tmp_path):
        written, told = run("""
            import weakref
            from mixllm_integrations.serving.journal import Journal

            class Store:
                def append(self, *entry):
                    time.sleep(0.01)
                    append(*entry)
                def close(self):
                    append("closed", "", {})

            from mixllm_integrations.core.types import Outcome
            journal = Journal(Store(), owned=True)
            for n in range(20):
                journal.outcome(f"d{n}", Outcome(1, 1))
        """)(tmp_path / "log")
        assert written == ["outcome"] * 20 + ["closed"]
        assert told == ""

    def test_a_log_that_hangs_does_not_keep_the_process_from_ending(self, tmp_path):
        written, told = run("""
            import atexit
            def hang(*entry):
                threading.Event().wait()
            writer = BackgroundWriter(hang, closing_seconds=0.1)
            atexit.register(writer.close)
            put("one", "two")
        """)(tmp_path / "log")
        assert written == []
        assert "2 events are not logged" in told

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_has_a_thread_of_its_own_and_nothing_to_repeat(
        self, tmp_path
    ):
        written, _ = run("""
            import warnings
            warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads
            gate = threading.Event()
            parent = os.getpid()
            def gated(*entry):
                if os.getpid() == parent:
                    gate.wait()
                append(*entry)
            writer = BackgroundWriter(gated)
            put("parent-1", "parent-2")
            child = os.fork()
            if child == 0:
                put("child-1")
                assert writer.flush(20)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            gate.set()
            assert writer.flush(20)
        """)(tmp_path / "log")
        assert written == ["child-1", "parent-1", "parent-2"]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_child_of_multiprocessing_writes_before_it_ends(self, tmp_path):
        written, _ = run("""
            import multiprocessing, warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            def slow(*entry):
                time.sleep(0.02)
                append(*entry)
            writer = BackgroundWriter(slow)
            child = multiprocessing.get_context("fork").Process(
                target=put, args=("a", "b", "c")
            )
            child.start()
            child.join()
        """)(tmp_path / "log")
        assert written == ["a", "b", "c"]
