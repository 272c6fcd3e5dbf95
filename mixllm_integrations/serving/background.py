"""Writes events on a thread of its own, so that no answer waits for a database."""

import asyncio
import logging
import os
import queue
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

from mixllm_integrations.serving.writer import Entry, Report

__all__ = ["BackgroundWriter"]

_log = logging.getLogger(__name__)

# All our choice. So many events, of 1 or 2 kB each, may wait for the database.
_CAPACITY = 10_000
# So long a caller waits for room, while the database is at work at all.
_PATIENCE_SECONDS = 0.25
# So often a database that has gone away is tried again.
_RETRY_SECONDS = 1.0
# So long the end of the process is put off for what is still to be written.
_CLOSING_SECONDS = 5.0

# Errors of a database that is away or busy; any other is the event's own. The
# names are those of PEP 249, so no driver is imported.
_TEMPORARY = frozenset(
    {"InterfaceError", "InternalError", "OSError", "OperationalError", "TimeoutError"}
)


class _Mark:
    """Stands in the queue behind what somebody waits for."""

    __slots__ = ("_passed", "written")

    def __init__(self) -> None:
        self._passed = threading.Event()
        self.written = False

    def reached(self, *, written: bool) -> None:
        self.written = written
        self._passed.set()

    def wait(self, seconds: float | None) -> bool:
        return self._passed.wait(seconds) and self.written


class BackgroundWriter:
    """Writes events on a thread of its own, which begins with the first one.

    An event that cannot be written because the database is away is kept and
    tried again. If too many wait, the caller is held up for a moment, unless it is
    on an event loop; if there is no room even then, the newest event is dropped
    and counted. What waits is
    written when the writer is closed and when the process ends, as far as a few
    seconds go. A forked child begins with nothing waiting and a thread of its own.

    Parameters
    ----------
    append
        Writes one event; called by one thread at a time.
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
        "_again_at",
        "_append",
        "_at_end",
        "_capacity",
        "_closed",
        "_closing_seconds",
        "_held",
        "_lock",
        "_patience_seconds",
        "_queue",
        "_report",
        "_retry_seconds",
        "_stuck_at",
        "_thread",
        "_written",
    )

    def __init__(
        self,
        append: Callable[..., object],
        *,
        at_end: Callable[[], None] | None = None,
        capacity: int = _CAPACITY,
        patience_seconds: float = _PATIENCE_SECONDS,
        retry_seconds: float = _RETRY_SECONDS,
        closing_seconds: float = _CLOSING_SECONDS,
    ) -> None:
        self._append = append
        self._at_end = at_end
        self._capacity = capacity
        self._patience_seconds = patience_seconds
        self._retry_seconds = retry_seconds
        self._closing_seconds = closing_seconds
        self._report = Report()
        self._closed = False
        self._written = 0
        self._stuck_at = -1
        self.begin_anew()
        _WRITERS.add(self)

    def begin_anew(self) -> None:
        """Forget the thread and what waits: both are the parent process's."""
        # None in the queue: the end.
        self._queue: queue.SimpleQueue[Entry | _Mark | None] = queue.SimpleQueue()
        self._held: deque[Entry | _Mark] = deque()
        self._again_at = 0.0
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()

    @property
    def lost(self) -> int:
        """How many events were given up."""
        return self._report.lost

    @property
    def waiting(self) -> int:
        """About how many events wait."""
        return self._queue.qsize() + len(self._held)

    def put(self, entry: Entry, *, keep: bool = False) -> None:
        """Take an event.

        Parameters
        ----------
        entry
            The arguments of `append`; not to be changed any more.
        keep
            Whether it is taken even if there is no room.
        """
        limit = 2 * self._capacity if keep else self._capacity
        if self.waiting >= limit and not self._room_below(limit):
            self._report.lost += 1
            self._report.failed(f"{self.waiting} wait for the store already")
            return
        self._queue.put(entry)
        if self._thread is None:
            self._start()

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
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return self.waiting == 0
        mark = _Mark()
        self._queue.put(mark)
        if self._thread is None:  # it has just ended, perhaps without seeing the mark
            self._finish()
        return mark.wait(timeout_seconds)

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
            _log.warning(
                "%d events are not logged: the store did not take them within %g s",
                max(self.waiting - 1, 0),  # one is the end itself
                self._closing_seconds,
            )

    def _room_below(self, limit: int) -> bool:
        """Wait a moment for room, unless nothing was written since the last time.

        On an event loop nothing is waited for: all other calls would wait as well.
        """
        if self._stuck_at == self._written or _is_on_a_loop():
            return False
        until = time.monotonic() + self._patience_seconds
        while time.monotonic() < until:
            time.sleep(0.001)
            if self.waiting < limit:
                return True
        self._stuck_at = self._written
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
        while True:
            try:
                item = self._queue.get(timeout=self._pause())
            except queue.Empty:
                self._write_held()
                continue
            if item is None:
                break
            self._held.append(item)
            if isinstance(item, _Mark) or not self._pause():
                self._write_held()
        self._thread = None  # who comes now, finishes alone
        self._finish()

    def _pause(self) -> float | None:
        """Return how long the database is left alone; ``None`` if nothing is held."""
        if not self._held:
            return None
        return max(self._again_at - time.monotonic(), 0.0)

    def _write_held(self) -> None:
        held = self._held
        while held:
            item = held[0]
            if isinstance(item, _Mark):
                item.reached(written=True)
            elif not self._write(item):
                self._again_at = time.monotonic() + self._retry_seconds
                self._release_marks()
                return
            held.popleft()

    def _write(self, entry: Entry) -> bool:
        """Tell whether an event is done with: written, or not worth another try."""
        try:
            self._append(*entry)
        except Exception as error:  # noqa: BLE001 - a log must not stop an answer
            names = {kind.__name__ for kind in type(error).__mro__}
            self._report.failed(f"the store failed with {type(error).__name__}")
            if names & _TEMPORARY:
                return False
            self._report.lost += 1
            return True
        self._written += 1
        # Else it would be said again and again while there is room for one or two.
        if self.waiting - 1 <= self._capacity // 2:
            self._report.worked()
        return True

    def _release_marks(self) -> None:
        """Let nobody wait for a database that is away."""
        for item in [item for item in self._held if isinstance(item, _Mark)]:
            self._held.remove(item)
            item.reached(written=False)

    def _finish(self) -> None:
        """Write what is left, try nothing twice, and let go of the log."""
        with self._lock:
            while not self._queue.empty():
                item = self._queue.get()
                if item is not None:
                    self._held.append(item)
            self._write_held()
            if self._held:
                self._report.lost += len(self._held)
                _log.warning(
                    "%d events are not logged: the store is away", len(self._held)
                )
                self._held.clear()
            at_end, self._at_end = self._at_end, None
        if at_end is not None:
            at_end()


def _is_on_a_loop() -> bool:
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
