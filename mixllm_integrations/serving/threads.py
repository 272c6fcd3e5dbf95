"""Daemon threads for calls that nobody may be able to wait for.

Threads are used again, since starting one takes longer than all the rest of a
routed call's bookkeeping. Those of `concurrent.futures` would keep the process
from ending, and those of an event loop may all be held by models that hang.
"""

import asyncio
import contextvars
import logging
import os
import queue
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar, TypeVarTuple

__all__ = ["Job", "on_own_thread"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_log = logging.getLogger(__name__)

# Our choice: so many threads without work are kept.
_MOST_IDLE = 32
# Our choice: so many functions that coroutines wait for run at once.
_MOST_AWAITED = 32
# Our choice: from so many late calls on it is said, each time they have doubled.
_MANY_LATE = 64


async def on_own_thread(
    function: Callable[[*Ts], T],
    /,
    *args: *Ts,
    if_late: Callable[[], object] | None = None,
) -> T:
    """Call a function on another thread, and wait without blocking the loop.

    Unlike those of `asyncio.to_thread` the threads are not shared with models
    that hang. Of many such calls at once some wait for others to end.

    Parameters
    ----------
    function
        What to call; context variables are visible to it.
    *args
        Its arguments.
    if_late
        Called, on whatever thread, when the function has ended although nobody
        waits for it any more. What it raises is not heard.

    Returns
    -------
    object
        What the function returned.

    Raises
    ------
    Exception
        What the function raised.
    asyncio.CancelledError
        If the waiting task is cancelled. The function goes on in the background,
        also if it has not begun, and how it ends is unheard.

    Examples
    --------
    >>> asyncio.run(on_own_thread(max, 1, 2))
    2
    """
    context = contextvars.copy_context()
    work: Callable[[], T] = partial(context.run, function, *args)
    job = _Awaited(work, asyncio.get_running_loop(), if_late=if_late)
    _AWAITED.take(job)
    try:
        await job.has_ended
    except BaseException:  # cancelled, or a loop that ended without cancelling it
        job.forsake()
        raise
    return job.result()


class Job(ABC, Generic[T]):
    """One call, made by a worker.

    Parameters
    ----------
    work
        The call.
    if_late
        Called when it has ended after it was given up on.
    """

    __slots__ = ("_error", "_if_late", "_is_late", "_results", "_settled", "_work")

    def __init__(
        self, work: Callable[[], T], *, if_late: Callable[[], object] | None = None
    ) -> None:
        self._work = work
        self._if_late = if_late
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._is_late = False
        # Who takes this one first, settles whether the call is late.
        self._settled = threading.Lock()

    def begin(self) -> None:
        """Have a worker make the call."""
        _idle_worker().jobs.put(self)

    def result(self) -> T:
        """Return what the call returned, or raise what it raised; once."""
        if self._error is None:
            return self._results.pop()
        try:
            raise self._error
        finally:
            self._error = None  # it holds this frame, which holds it

    def give_up(self) -> bool:
        """Tell whether the call is late; then nobody may wait for it."""
        _LATE.add(self)
        if not self._settled.acquire(blocking=False):
            _LATE.discard(self)
            return False
        _warn_of_many()
        return True

    def run(self) -> None:
        """Make the call; the worker's."""
        try:
            self._results.append(self._work())
        except BaseException as error:  # noqa: BLE001 - raised by who waits
            self._error = error
        if not self._settled.acquire(blocking=False):
            self._is_late = True
            self.clean_up()

    def following(self) -> "Job[Any] | None":
        """Return what the worker does next, if that is not to be idle."""
        return None

    def hand_over(self) -> None:
        """Wake who waits, if anybody does."""
        if not self._is_late:
            self.wake()

    @abstractmethod
    def wake(self) -> None:
        """Wake who waits."""

    def clean_up(self) -> None:
        """Forget a call that has ended and that nobody waits for."""
        _LATE.discard(self)
        ended_with: str = type(self._error).__name__ if self._error else "an answer"
        if_late, self._if_late = self._if_late, None
        try:
            if if_late is not None:
                if_late()
        except BaseException as error:  # noqa: BLE001 - nobody is there to hear it
            ended_with += f", then {type(error).__name__}"
        _log.debug("a call that was given up on ended with %s", ended_with)


class _Awaited(Job[T]):
    """A call that a coroutine waits for."""

    __slots__ = ("_loop", "has_ended")

    def __init__(
        self,
        work: Callable[[], T],
        loop: asyncio.AbstractEventLoop,
        *,
        if_late: Callable[[], object] | None,
    ) -> None:
        super().__init__(work, if_late=if_late)
        self._loop = loop
        # Only that it ended: a future takes no StopIteration for an error.
        self.has_ended: asyncio.Future[None] = loop.create_future()

    def following(self) -> "Job[Any] | None":
        return _AWAITED.next_one()

    def wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(_set, self.has_ended)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self.clean_up()

    def forsake(self) -> None:
        """Have it cleaned up, now if it has ended."""
        if not self.give_up():
            self.clean_up()


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


class _Line:
    """The calls that coroutines wait for: so many at once, the others in line."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what waits and what is under way."""
        self._lock = threading.Lock()
        self._under_way = 0
        self._jobs: deque[Job[Any]] = deque()

    def take(self, job: Job[Any]) -> None:
        """Begin a call, or put it in line."""
        with self._lock:
            if self._under_way >= _MOST_AWAITED:
                self._jobs.append(job)
                return
            self._under_way += 1
        try:
            job.begin()
        except BaseException:  # no more threads can be started
            with self._lock:
                self._under_way -= 1
            raise

    def next_one(self) -> Job[Any] | None:
        """Return the call that takes the place of one that has ended."""
        with self._lock:
            if self._jobs:
                return self._jobs.popleft()
            self._under_way -= 1
            return None


class _Worker(threading.Thread):
    """Makes one call after another."""

    def __init__(self) -> None:
        super().__init__(name="mixllm-worker", daemon=True)
        self.jobs: queue.SimpleQueue[Job[Any]] = queue.SimpleQueue()

    def run(self) -> None:
        goes_on = True
        while goes_on:
            job: Job[Any] | None = self.jobs.get()
            while job is not None:
                job.run()
                following = job.following()
                if following is None:
                    goes_on = len(_IDLE) < _MOST_IDLE
                    if goes_on:
                        _IDLE.append(self)  # before the next call is made
                job.hand_over()
                job = following  # and nothing of the other is kept
            del following


_IDLE: deque[_Worker] = deque()
_LATE: set[Job[Any]] = set()
_AWAITED = _Line()


def _idle_worker() -> _Worker:
    try:
        return _IDLE.pop()
    except IndexError:
        worker = _Worker()
        worker.start()
        return worker


def _warn_of_many() -> None:
    count = len(_LATE)
    if count >= _MANY_LATE and count & (count - 1) == 0:
        _log.warning(
            "%d calls that were given up on are still under way, each with a thread; "
            "give the models a timeout of their own as well",
            count,
        )


def _after_fork() -> None:
    """Forget the threads: they are the parent process's."""
    _IDLE.clear()
    _LATE.clear()
    _AWAITED.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
