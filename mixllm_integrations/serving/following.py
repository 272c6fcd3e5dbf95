"""Learns from what other workers have written into the log that they share.

A thread reads the log after the last event that was heard. What this worker has
written itself is passed over; what others decided is adopted, and what came of it
learned, each once. Losing the log stops nothing: the thread waits until it is back.
"""

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, cast
from weakref import WeakValueDictionary

from mixllm_integrations.core.drift import DriftEvent
from mixllm_integrations.core.forking import survive_forks
from mixllm_integrations.serving.deafness import Deafness
from mixllm_integrations.serving.hearing import Listener
from mixllm_integrations.serving.snapshots import Snapshots
from mixllm_integrations.store import SharedStore

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router
    from mixllm_integrations.serving.journal import Journal
    from mixllm_integrations.store import Event

__all__ = ["Follower"]

# All our choice.
_POLL_SECONDS = 0.5  # so soon a sibling acts on feedback, about
_RETRY_SECONDS = 2.0
_PAGE = 500
_PAGES_AT_ONCE = 4  # while somebody waits for a decision to be found
_PATIENCE_SECONDS = 1.0  # so long it is waited for who waits for a dead log
_SNAPSHOT_EVERY = 10_000  # events: about 2 s of catching up


class _NotNowError(Exception):
    """Somebody else waits for the log already."""


class Follower:
    """Follows a log on a thread of its own, for one router.

    Parameters
    ----------
    router
        Who learns.
    store
        The log.
    worker
        What this worker puts into its own events under ``"worker"``; ``None``: it
        writes through journals, which `join`.
    poll_seconds
        How often the log is looked at.
    snapshot_every
        After how many events what was learned is put beside the log, so that a
        new worker need not hear all of it.

    Attributes
    ----------
    log
        Identity of the log.

    Notes
    -----
    Source: our choice; what is learned is additive, so the order of events of
    different workers makes no difference but for drift and forgetting.
    """

    __slots__ = (
        "__weakref__",
        "_begun",
        "_closed",
        "_deafness",
        "_is_fresh",
        "_journals",
        "_listener",
        "_lock",
        "_names",
        "_poll_seconds",
        "_router",
        "_snapshots",
        "_starting",
        "_store",
        "_thread",
        "_wake",
        "_worker",
        "log",
        "snapshot_every",
    )

    def __init__(
        self,
        router: "Router",
        store: SharedStore,
        *,
        worker: str | None = None,
        poll_seconds: float = _POLL_SECONDS,
        snapshot_every: int = _SNAPSHOT_EVERY,
    ) -> None:
        self._router = router
        self._store = store
        self.log = store.identity
        self._worker = worker
        self._poll_seconds = poll_seconds
        self.snapshot_every = snapshot_every
        self._begun = False
        self._is_fresh = not router.has_learned_online
        self._deafness = Deafness()
        self._closed = False
        self._journals: weakref.WeakSet[Journal] = weakref.WeakSet()
        self._listener = Listener(router, self.log, own=lambda: self._names)
        self._snapshots = Snapshots(router, self._listener, self.log)
        self.begin_anew()
        survive_forks(self)

    @classmethod
    def over(cls, router: "Router", journal: "Journal | None") -> "Follower | None":
        """Return who follows the log of a journal: the same as long as it is in use.

        What a snapshot knows is taken over before this returns.

        Parameters
        ----------
        router
            Who learns.
        journal
            Its events are passed over; ``None``: there is no log.

        Returns
        -------
        Follower or None
            ``None`` if there is no log that workers can share.
        """
        if journal is None or not isinstance(journal.store, SharedStore):
            return None
        key = id(router), journal.store.identity
        with _OPENING:
            found = _OPENED.get(key)
            if found is None or found.is_closed:
                found = _OPENED[key] = cls(router, journal.store)
            found.join(journal)
        found.begin()
        return found

    def join(self, journal: "Journal") -> None:
        """Pass over what a journal writes, and follow for as long as one is open.

        Parameters
        ----------
        journal
            Over the same log; not kept alive.
        """
        self._journals.add(journal)
        self._names |= {journal.worker}

    def begin_anew(self) -> None:
        """Forget the thread, and under what names journals were written.

        Both are the parent process's.
        """
        self._names: frozenset[str] = frozenset()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # one reads the log at a time
        self._starting = threading.Lock()
        self._wake = threading.Event()

    def begin(self) -> bool:
        """Choose where to listen from, and go on from a snapshot if there is one.

        Returns
        -------
        bool
            Whether the log could be read; else the thread tries it again.
        """
        return self._begun or self._tried(self._begin_once)

    def start(self) -> None:
        """Follow from now on; once it does, this costs nothing."""
        if self._thread is not None or self._closed:
            return
        with self._starting:
            if self._thread is not None:
                return
            thread = threading.Thread(
                target=_follow,
                args=(weakref.ref(self), self._wake, self._poll_seconds),
                name="mixllm-follower",
                daemon=True,
            )
            try:
                thread.start()
            except RuntimeError:  # the interpreter is going down
                self._closed = True
                return
            self._thread = thread

    def close(self) -> None:
        """Follow no more; closing twice is harmless."""
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_RETRY_SECONDS)

    @property
    def is_failing(self) -> bool:
        """Whether the log could not be read the last time."""
        return self._deafness.is_failing

    @property
    def is_closed(self) -> bool:
        """Whether it follows no more: closed itself, or nothing is left to read."""
        return self._closed or self._open_store() is None

    def catch_up(self) -> int:
        """Learn all that is in the log and was not heard yet.

        Returns
        -------
        int
            How many events there were.
        """
        self._begin_once()
        heard = 0
        while (found := self._hear_page()) is not None:
            heard += found
        return heard

    def _hear_page(self, patience: float | None = None) -> int | None:
        """Learn what comes next, and tell how much that was; ``None``: nothing."""
        if not self._lock.acquire(timeout=patience or -1):
            raise _NotNowError
        try:
            if patience is not None and self.is_failing:  # it just has
                raise _NotNowError
            store = self._open_store()
            if store is None or self._closed:
                return None
            self._names = self._own()
            after = self._listener.heard()
            events, last = store.tail(after, limit=_PAGE)
            if last == after:
                return None
            missing = self._listener.missing(events, store.of)
            self._listener.hear(events, last, missing)
            return len(events)
        finally:
            self._lock.release()

    def look(self) -> bool:
        """Do what the thread does every time; errors are logged once.

        Returns
        -------
        bool
            Whether the log could be read.
        """
        return self._tried(self._look)

    def find(self, decision_id: str) -> "list[Event]":
        """Look a decision up that this worker has not made.

        Parameters
        ----------
        decision_id
            Its id.

        Returns
        -------
        list of Event
            What the log has of it; empty if it is not there. If the router can learn
            from it, it is pending now.

        Raises
        ------
        Exception
            If the log cannot be read, or does not answer whoever reads it now.
        """
        try:
            return self._find(decision_id)
        except Exception as error:
            if not isinstance(error, _NotNowError):
                self._fails(error)
            raise

    def _find(self, decision_id: str) -> "list[Event]":
        for _ in range(_PAGES_AT_ONCE):  # mostly that is all there is to it
            if self._router.awaits(decision_id) or not self._hear_page(
                _PATIENCE_SECONDS
            ):
                break
        store = self._open_store()
        events = [] if store is None else store.of(decision_id)
        return events if self._listener.adopt(events) else []

    def teach_later(self, kind: str, decision_id: str, detail: str = "") -> bool:
        """Learn from this worker's own event when the log has it.

        Parameters
        ----------
        kind, decision_id, detail
            As for `Listener.teach_later`.
        """
        return self._listener.teach_later(kind, decision_id, detail)

    def has_raised(self, alarm: DriftEvent) -> bool:
        """Tell whether an alarm came of what another worker has logged.

        Parameters
        ----------
        alarm
            Of the router. The other worker logs it.
        """
        return any(alarm is heard for heard in self._listener.alarms)

    def before_fork(self) -> None:
        """Let the thread be in the middle of nothing while the process forks."""
        self._listener.lock.acquire()

    def after_fork(self, *, in_child: bool) -> None:
        """Go on after `before_fork`.

        Parameters
        ----------
        in_child
            Whether this is the new process.
        """
        if in_child:
            self.begin_anew()
        self._listener.lock.release()

    def _own(self) -> frozenset[str]:
        fixed = set() if self._worker is None else {self._worker}
        return self._names | fixed | {j.worker for j in list(self._journals)}

    def _open_store(self) -> SharedStore | None:
        """Return the log, through whichever connection is open."""
        if self._worker is not None:
            return self._store
        for journal in list(self._journals):
            if not journal.is_closed:
                return cast("SharedStore", journal.store)
        return None

    def _tried(self, do: Callable[[], object]) -> bool:
        try:
            do()
        except Exception as error:  # noqa: BLE001 - nobody is there to catch it
            self._fails(error)
            return False
        self._deafness.ended()
        return True

    def _fails(self, error: Exception) -> None:
        if not self.is_closed:
            self._deafness.began(error)

    def _begin_once(self) -> None:
        with self._lock:
            store = self._open_store()
            if not self._begun and store is not None:
                self._begin(store)
                self._begun = True

    def _begin(self, store: SharedStore) -> None:
        # Who has never listened to this log has learned nothing from it: decisions
        # of workers that do not listen are logged without what others need.
        heard, last = self._listener.heard(), store.last_sequence()
        is_new = heard == 0 and self._is_fresh
        found = store.newest_snapshot() if is_new else None
        with self._listener.lock:
            if heard > last:  # the log is an older copy of itself
                self._router.hear_from(self.log, last)
            if found is not None and not self._router.has_learned_online:
                self._snapshots.go_on_from(found)

    def _look(self) -> None:
        self.catch_up()
        self._put_snapshot_if_due()

    def _put_snapshot_if_due(self) -> None:
        self._snapshots.put_if_due(self._open_store(), self.snapshot_every)


def _follow(
    follower: "weakref.ref[Follower]", wake: threading.Event, poll_seconds: float
) -> None:
    pause = 0.0
    while not wake.wait(pause):
        alive = follower()
        if alive is None or alive.is_closed:
            return
        pause = poll_seconds if alive.look() else max(poll_seconds, _RETRY_SECONDS)
        del alive


_OPENING = threading.Lock()
# Each keeps its router alive, so the id of one that is found is that of no other.
_OPENED: WeakValueDictionary[tuple[int, str], Follower] = WeakValueDictionary()
