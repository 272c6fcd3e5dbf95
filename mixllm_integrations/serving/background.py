"""Writes events on a thread of its own, so that no answer waits for a database."""

import asyncio
import contextlib
import logging
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mixllm_integrations.serving.delivery import Delivery
from mixllm_integrations.serving.line import Line, Mark
from mixllm_integrations.serving.spool import Spool
from mixllm_integrations.serving.writer import Report
from mixllm_integrations.store import NewEvent

__all__ = ["BackgroundWriter", "is_on_a_loop"]

_log = logging.getLogger(__name__)

# All our choice. So many events, of 1 or 2 kB each, may wait for the database.
_CAPACITY = 10_000
# So long a caller waits for room, while the database is at work at all.
_PATIENCE_SECONDS = 0.25
# So long an event loop is held up by somebody who waits on it, against advice.
_LOOP_SECONDS = 0.5
# So often a database that has gone away is tried again.
_RETRY_SECONDS = 1.0
# So long the end of the process is put off for what is still to be written.
_CLOSING_SECONDS = 5.0


class BackgroundWriter:
    """Writes events on a thread of its own, which begins with the first one.

    What has come meanwhile is written in one transaction, if the store can. An
    event that cannot be written because the database is away is kept, on disk if
    there is a spool, and tried again; the order stays. If too many wait in memory,
    the caller is held up for a moment, unless it is on an event loop; if there is
    no room even then, the newest event goes to disk; without a spool it is
    dropped and counted. What waits is
    written when the writer is closed and when the process ends, as far as a few
    seconds go. A forked child begins with nothing waiting and a thread of its own.

    Parameters
    ----------
    append
        Writes one event; called by one thread at a time.
    append_many
        Writes several in one transaction; ``None``: the store cannot.
    prepare
        Makes an event ready to be written, on the thread.
    spool
        Where events wait while the store is away; ``None``: in memory.
    at_end
        Called when the writer is closed, after the last event.
    capacity
        How many events may wait.
    patience_seconds, retry_seconds, closing_seconds
        How long a caller waits for room, how soon a database that has gone away
        is tried again, and how long closing takes at most.

    Notes
    -----
    Source: our choice. Finalizers may put events in the middle of anything, even
    of another `put`: so no lock is held here but a reentrant one, and the queue
    is a `queue.SimpleQueue`.
    """

    __slots__ = (
        "__weakref__",
        "_at_end",
        "_capacity",
        "_closed",
        "_closing_seconds",
        "_delivery",
        "_line",
        "_lock",
        "_patience_seconds",
        "_prepare",
        "_queue",
        "_report",
        "_retry_seconds",
        "_stuck_at",
        "_thread",
    )

    def __init__(
        self,
        append: Callable[[str, str, Mapping[str, Any]], object],
        *,
        append_many: Callable[[Sequence[NewEvent]], object] | None = None,
        prepare: Callable[[NewEvent], NewEvent] | None = None,
        spool: Spool | None = None,
        at_end: Callable[[], None] | None = None,
        capacity: int = _CAPACITY,
        patience_seconds: float = _PATIENCE_SECONDS,
        retry_seconds: float = _RETRY_SECONDS,
        closing_seconds: float = _CLOSING_SECONDS,
    ) -> None:
        self._prepare = prepare
        self._at_end = at_end
        self._capacity = capacity
        self._patience_seconds = patience_seconds
        self._retry_seconds = retry_seconds
        self._closing_seconds = closing_seconds
        self._report = Report()
        self._delivery = Delivery(
            append, append_many=append_many, spool=spool, report=self._report
        )
        self._closed = False
        self._stuck_at = -1
        self.begin_anew()
        _WRITERS.add(self)
        if spool is not None and spool.has_files:
            self._start()

    def begin_anew(self) -> None:
        """Forget the thread and what waits: both are the parent process's."""
        # None in the queue: the end.
        self._queue: queue.SimpleQueue[NewEvent | Mark | None] = queue.SimpleQueue()
        self._line = Line(
            self._delivery,
            self._report,
            prepare=self._prepare,
            retry_seconds=self._retry_seconds,
        )
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()
        self._delivery.begin_anew()

    @property
    def lost(self) -> int:
        """How many events were given up."""
        return self._report.lost + self._delivery.lost

    @property
    def waiting(self) -> int:
        """About how many events wait in memory."""
        return self._queue.qsize() + len(self._line)

    def put(self, event: NewEvent, *, keep: bool = False) -> None:
        """Take an event.

        Parameters
        ----------
        event
            What happened; not to be changed any more.
        keep
            Whether there is twice the room for it. What finds no room in memory
            goes to disk, and is given up where there is no spool.
        """
        limit = 2 * self._capacity if keep else self._capacity
        if self.waiting >= limit and not self._room_below(limit):
            self._overflow(event)
            return
        self._queue.put(event)
        if self._thread is None:
            self._start()

    def _overflow(self, event: NewEvent) -> None:
        """Put an event on disk, as there is no room for it in memory."""
        if self._delivery.spool is not None:
            ready = self._line.prepared(event)
            if ready is None:
                return
            if self._delivery.set_aside([ready]):
                if self._has_room():  # else whoever writes comes by anyhow
                    self._mark(tries=False)
                return
        self._report.lost += 1
        self._report.failed(f"{self.waiting} wait for the store already")

    def put_safely(self, event: NewEvent, seconds: float) -> None:
        """Take an event, and wait until it outlives this process.

        That is, until it is in the store, or on disk if the store is away or does
        not answer in time. Without a spool, it stays in line after that.

        Parameters
        ----------
        event
            What happened.
        seconds
            How long the store may take; on an event loop half a second at most.
        """
        self.put(event, keep=True)
        if is_on_a_loop():
            seconds = min(seconds, _LOOP_SECONDS)
        mark = self._mark(tries=self._delivery.spool is None)
        if mark is not None and not mark.wait(seconds) and not mark.passed:
            self._delivery.set_aside([event], copies=True)

    def flush(self, timeout_seconds: float | None = None) -> bool:
        """Wait until what was taken is written.

        Parameters
        ----------
        timeout_seconds
            How long; ``None``: as long as it takes.

        Returns
        -------
        bool
            False if it was not, in time or because the database is away.
        """
        mark = self._mark(tries=True)
        if mark is None:
            return self.waiting == 0 and not self._delivery.waiting
        return mark.wait(timeout_seconds)

    def _mark(self, *, tries: bool) -> Mark | None:
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return None
        mark = Mark(tries=tries)
        self._queue.put(mark)
        if self._thread is None:  # it has just ended, perhaps without seeing the mark
            self._finish()
        return mark

    def close(self) -> None:
        """Write what was taken, and let go of the log; closing twice is harmless."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread = self._thread
        if thread is None:
            self._finish()
            return
        self._queue.put(None)
        if thread is threading.current_thread():
            return  # a finalizer that ran on it; it ends after what it is doing
        thread.join(self._closing_seconds)
        if thread.is_alive():
            self._salvage()

    def _salvage(self) -> None:
        """Keep what a thread has that hangs, as it will not outlive the process."""
        waiting = max(self.waiting - 1, 0)  # one is the end itself
        with contextlib.suppress(queue.Empty):
            while True:
                self._line.take(self._queue.get_nowait())
        kept = self._delivery.set_aside(self._line.events)
        _log.warning(
            "%d events are %s: the store did not take them within %g s",
            waiting,
            f"kept in {self._report.kept_in}" if kept else "not logged",
            self._closing_seconds,
        )

    def _room_below(self, limit: int) -> bool:
        """Wait a moment for room, unless nothing was written since the last time.

        On an event loop nothing is waited for: all other calls would wait as well.
        """
        if self._stuck_at == self._line.written or is_on_a_loop():
            return False
        until = time.monotonic() + self._patience_seconds
        while time.monotonic() < until:
            time.sleep(0.001)
            if self.waiting < limit:
                return True
        self._stuck_at = self._line.written
        return False

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            if self._closed:  # nobody comes after this
                self._finish()
                return
            thread = threading.Thread(
                target=self._run, name="mixllm-journal", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the interpreter is going down
                self._finish()
                return
            self._thread = thread
        _flush_at_the_end_of_a_child(self)

    def _run(self) -> None:
        line = self._line
        line.write(self._has_room, adopt=True)
        while not line.ended:
            try:
                line.take(self._queue.get(timeout=line.pause))
            except queue.Empty:
                line.write(self._has_room)
            else:
                self._take_more()
                line.move_on(self._has_room)
            self._delivery.settle(self._is_idle)
        self._thread = None  # who comes now, finishes alone
        self._finish()

    def _take_more(self) -> None:
        """Take what else has come, for one transaction."""
        while not (self._line.is_full or self._line.ended):
            try:
                self._line.take(self._queue.get_nowait())
            except queue.Empty:
                return

    def _has_room(self) -> bool:
        # Else it would be said again and again while there is room for one or two.
        return self.waiting <= self._capacity // 2

    def _is_idle(self) -> bool:
        return self.waiting == 0

    def _finish(self) -> None:
        """Write what is left, try nothing twice, and let go of the log."""
        with self._lock:
            if self._line.is_being_written:  # by whom this finalizer interrupts
                return
            while True:
                while not self._queue.empty():
                    self._line.take(self._queue.get())
                self._line.write(self._has_room)
                if self._queue.empty():
                    break
            if lost := self._line.give_up():
                self._report.lost += lost
                _log.warning("%d events are not logged: the store is away", lost)
            self._delivery.close(self._is_idle)
            at_end, self._at_end = self._at_end, None
        if at_end is not None:
            at_end()


def is_on_a_loop() -> bool:
    """Tell whether an event loop runs on this thread: it must not be held up."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_WRITERS: "weakref.WeakSet[BackgroundWriter]" = weakref.WeakSet()


def _after_fork() -> None:
    for writer in list(_WRITERS):
        writer.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _flush_at_the_end_of_a_child(writer: BackgroundWriter) -> None:
    """Have a writer flushed where a process ends without what runs at exit.

    That is how children end which multiprocessing has forked.
    """
    process = sys.modules.get("multiprocessing.process")
    if process is None or process.parent_process() is None:
        return
    from multiprocessing import util

    util.Finalize(None, _flush_if_alive, (weakref.ref(writer),), exitpriority=0)


def _flush_if_alive(writer: "weakref.ref[BackgroundWriter]") -> None:
    alive = writer()
    if alive is not None:
        alive.flush(_CLOSING_SECONDS)
