"""A coroutine waits for a function on another thread, never on the loop's."""

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mixllm_integrations.serving import threads
from mixllm_integrations.serving.threads import on_own_thread

LONG = 20.0  # seconds that no test should need

VARIABLE = contextvars.ContextVar("variable", default="unset")


def until(is_so):
    """Wait for what another thread is about to do."""
    end = time.monotonic() + LONG
    while not is_so() and time.monotonic() < end:
        time.sleep(0.001)
    return is_so()


async def begun(coroutine):
    """Return a task that waits for its thread."""
    task = asyncio.ensure_future(coroutine)
    await asyncio.sleep(0)
    return task


class TestCall:
    async def test_it_gives_the_result_from_another_thread(self):
        assert await on_own_thread(max, 1, 2) == 2
        assert await on_own_thread(threading.get_ident) != threading.get_ident()

    @pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit])
    async def test_it_raises_the_error(self, kind):
        def fail():
            raise kind

        with pytest.raises(kind):
            await on_own_thread(fail)

    async def test_an_error_that_no_future_takes_is_told_as_well(self):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await on_own_thread(next, iter(()))

    async def test_context_variables_are_seen_and_what_it_sets_stays_there(self):
        VARIABLE.set("mine")
        assert await on_own_thread(VARIABLE.get) == "mine"
        await on_own_thread(VARIABLE.set, "the function's")
        assert VARIABLE.get() == "mine"

    async def test_the_loop_goes_on_meanwhile(self, gate):
        task = await begun(on_own_thread(gate.wait, LONG))
        gate.set()  # the loop does this
        assert await task

    async def test_models_that_hold_the_loops_threads_do_not_hold_it_up(self, gate):
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        held = loop.run_in_executor(None, gate.wait, LONG)
        async with asyncio.timeout(LONG / 2):
            assert await on_own_thread(max, 1, 2) == 2
        gate.set()
        await held


class TestCancelling:
    async def test_the_function_ends_in_the_background_and_then_it_is_told(self, gate):
        ended, told = [], []

        def work():
            gate.wait(LONG)
            ended.append(threading.current_thread().name)

        task = await begun(on_own_thread(work, if_late=lambda: told.append(len(ended))))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not ended
        assert not told
        gate.set()
        assert until(lambda: told == [1])
        assert ended == ["mixllm-worker"]
        assert until(lambda: not threads._LATE)

    @pytest.mark.parametrize("wakes_first", [False, True])
    async def test_a_result_that_the_task_never_sees_is_told_once(
        self, wakes_first, monkeypatch
    ):
        told, seen = [], []
        woken = threading.Event()
        wake = threads._Awaited.wake
        monkeypatch.setattr(
            threads._Awaited, "wake", lambda job: (wake(job), woken.set())
        )

        async def wait():
            seen.append(await on_own_thread(max, 1, 2, if_late=lambda: told.append(1)))

        task = await begun(wait())
        assert woken.wait(LONG)  # it has ended, and the loop does not know yet
        if wakes_first:  # the future has its result, the task has not gone on
            asyncio.get_running_loop().call_soon(task.cancel)
            await asyncio.sleep(0)
        else:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert told == [1]
        assert seen == []

    async def test_what_is_waited_for_is_not_told(self):
        told = []
        await on_own_thread(max, 1, 2, if_late=lambda: told.append(1))
        assert told == []

    def test_a_loop_that_is_closed_meanwhile_is_told_once(self, gate):
        told = []
        loop = asyncio.new_event_loop()
        task = loop.create_task(
            on_own_thread(gate.wait, if_late=lambda: told.append(1))
        )
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        gate.set()
        assert until(lambda: told == [1])
        task._log_destroy_pending = False
        del task
        gc.collect()  # ends the coroutine, which hears of it too
        assert told == [1]


class TestManyAtOnce:
    async def test_not_more_run_at_once_than_allowed_and_all_are_answered(
        self, monkeypatch
    ):
        monkeypatch.setattr(threads, "_MOST_AWAITED", 3)
        running, most = set(), []

        def work(n):
            running.add(n)
            most.append(len(running))
            time.sleep(0.001)
            running.discard(n)
            return n

        answers = await asyncio.gather(*(on_own_thread(work, n) for n in range(40)))
        assert answers == list(range(40))
        assert max(most) <= 3

    async def test_one_that_is_cancelled_in_line_still_comes_to_its_turn(
        self, gate, monkeypatch
    ):
        monkeypatch.setattr(threads, "_MOST_AWAITED", 1)
        first = await begun(on_own_thread(gate.wait, LONG))
        done = []
        second = await begun(on_own_thread(done.append, 1))
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.set()
        await first
        assert until(lambda: done == [1])

    async def test_one_after_the_other_needs_hardly_more_than_one_thread(self):
        idents = {await on_own_thread(threading.get_ident) for _ in range(50)}
        assert len(idents) <= 2

    async def test_where_no_thread_can_be_started_the_next_call_is_not_in_line(
        self, monkeypatch
    ):
        monkeypatch.setattr(threads, "_MOST_AWAITED", 1)

        def refuse():
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threads, "_idle_worker", refuse)
            with pytest.raises(RuntimeError, match="start new thread"):
                await on_own_thread(max, 1, 2)
        async with asyncio.timeout(LONG):
            assert await on_own_thread(max, 1, 2) == 2

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_does_not_wait_for_its_parents_calls(self):
        script = """
            import asyncio, os, warnings
            warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads
            from mixllm_integrations.serving import threads
            assert asyncio.run(threads.on_own_thread(max, 1, 2)) == 2
            threads._AWAITED._under_way = threads._MOST_AWAITED
            child = os.fork()
            if child == 0:
                os._exit(asyncio.run(threads.on_own_thread(max, 3, 4)))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
        """
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60
        )
