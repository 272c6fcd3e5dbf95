"""Learns from what other workers have written into the log that they share.

A thread reads the log after the last event that was heard. What this worker has
written itself is passed over; what others decided is adopted, and what came of it
learned, each once. Losing the log stops nothing: the thread waits until it is back.
"""

import logging
import os
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mixllm_integrations.core.errors import MixLLMError, UnknownDecisionError
from mixllm_integrations.core.types import Feedback, Outcome

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router
    from mixllm_integrations.store import Event, SharedStore

__all__ = ["Follower"]

_log = logging.getLogger(__name__)

# All our choice.
_POLL_SECONDS = 0.5  # so soon a sibling acts on feedback, about
_RETRY_SECONDS = 2.0
_PAGE = 500
_SNAPSHOT_EVERY = 10_000  # events: about 2 s of catching up
_TOLD = (
    *("input_tokens", "output_tokens", "cost", "error"),
    *("latency_seconds", "time_to_first_token_seconds"),
)


class Follower:
    """Follows a log on a thread of its own, for one router.

    Parameters
    ----------
    router
        Who learns.
    store
        The log.
    worker
        What this worker puts into its own events under ``"worker"``.
    poll_seconds
        How often the log is looked at.
    snapshot_every
        After how many events what was learned is put beside the log, so that a
        new worker need not hear all of it.

    Notes
    -----
    Source: our choice; what is learned is additive, so the order of events of
    different workers makes no difference but for drift and forgetting.
    """

    __slots__ = (
        "__weakref__",
        "_begun",
        "_closed",
        "_failing",
        "_is_fresh",
        "_lock",
        "_poll_seconds",
        "_router",
        "_snapshot_at",
        "_snapshot_every",
        "_store",
        "_thread",
        "_untaught",
        "_wake",
        "_worker",
    )

    def __init__(
        self,
        router: "Router",
        store: "SharedStore",
        *,
        worker: str,
        poll_seconds: float = _POLL_SECONDS,
        snapshot_every: int = _SNAPSHOT_EVERY,
    ) -> None:
        self._router = router
        self._store = store
        self._worker = worker
        self._poll_seconds = poll_seconds
        self._snapshot_every = snapshot_every
        self._snapshot_at = 0
        self._untaught: set[str] = set()
        self._begun = False
        self._is_fresh = not router.has_learned_online
        self._failing = False
        self._closed = False
        self.begin_anew()
        _FOLLOWERS.add(self)

    def begin_anew(self) -> None:
        """Forget the thread: it is the parent process's."""
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # one reads the log at a time
        self._wake = threading.Event()

    def start(self) -> None:
        """Follow from now on; once it does, this costs nothing."""
        if self._thread is not None or self._closed:
            return
        thread = threading.Thread(
            target=_follow,
            args=(weakref.ref(self), self._wake, self._poll_seconds),
            name="mixllm-follower",
            daemon=True,
        )
        self._thread = thread
        try:
            thread.start()
        except RuntimeError:  # the interpreter is going down
            self._closed = True

    def close(self) -> None:
        """Follow no more; closing twice is harmless."""
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_RETRY_SECONDS)

    @property
    def is_closed(self) -> bool:
        """Whether it follows no more."""
        return self._closed

    def catch_up(self) -> int:
        """Learn all that is in the log and was not heard yet.

        Returns
        -------
        int
            How many events there were.
        """
        heard = 0
        with self._lock:
            if not self._begun:
                self._begin()
                self._begun = True
            while not self._closed:
                after = self._router.heard(self._log) or 0
                events, last = self._store.tail(after, limit=_PAGE)
                if last == after:
                    break
                self._hear(events, last)
                heard += len(events)
        return heard

    def look(self) -> bool:
        """Do what the thread does every time; errors are logged once.

        Returns
        -------
        bool
            Whether the log could be read.
        """
        try:
            self.catch_up()
            self._put_snapshot_if_due()
        except Exception as error:  # noqa: BLE001 - nobody is there to catch it
            if not self._failing and not self._closed:
                self._failing = True
                _log.warning(
                    "what other workers learn is not heard: the store failed with %s; "
                    "it is said when it is again",
                    type(error).__name__,
                )
            return False
        if self._failing:
            self._failing = False
            _log.warning("what other workers learn is heard again")
        return True

    def adopt(self, decision_id: str) -> bool:
        """Look a decision up that this worker has not made.

        Parameters
        ----------
        decision_id
            Its id.

        Returns
        -------
        bool
            Whether the log has it: feedback on it may be logged. If the router can
            learn from it, it is pending now.
        """
        events = self._store.of(decision_id)
        decision = next((e for e in events if e.kind == "decision"), None)
        if decision is None:
            return False
        self._adopt(decision, [e for e in events if e is not decision])
        return True

    def teach_later(self, decision_id: str) -> None:
        """Learn from this worker's own events of a decision when the log has them.

        Parameters
        ----------
        decision_id
            Of a decision that could not be looked up.
        """
        self._untaught.add(decision_id)

    @property
    def _log(self) -> str:
        return self._store.identity

    def _begin(self) -> None:
        """Choose where to listen from, where that is not known."""
        router, log = self._router, self._log
        heard, last = router.heard(log), self._store.last_sequence()
        if heard is not None and heard <= last:
            return
        if not self._is_fresh:
            # It has learned from whom nobody knows: perhaps from this very log.
            router.hear_from(log, last)
            return
        router.hear_from(log, 0)
        # Once it has learned something here, a snapshot would take that away.
        found = self._store.newest_snapshot()
        if found is None or router.has_learned_online:
            return
        try:
            resumed = router.resume(found.content)
        except MixLLMError as error:
            _log.warning("a snapshot is of no use here, the log is read: %s", error)
            return
        if resumed:
            self._snapshot_at = found.sequence
            _log.info("went on from a snapshot at event %d", found.sequence)

    def _hear(self, events: "Sequence[Event]", last: int) -> None:
        self._adopt_missing(events)
        for event in events:
            with self._router.hearing(self._log, event.sequence) as is_new:
                if is_new and self._is_news(event):
                    self._learn(event)
        with self._router.hearing(self._log, last):  # rows that cannot be read
            pass

    def _is_news(self, event: "Event") -> bool:
        if event.payload.get("worker") != self._worker:
            return True
        return event.kind == "feedback" and event.decision_id in self._untaught

    def _adopt_missing(self, events: "Sequence[Event]") -> None:
        """Look decisions up that were made before what is being read."""
        here = {e.decision_id for e in events if e.kind == "decision"}
        for event in events:
            known = event.decision_id in here or event.kind in ("decision", "drift")
            if known or not self._is_news(event):
                continue
            here.add(event.decision_id)
            if not self._router.awaits(event.decision_id):
                self.adopt(event.decision_id)

    def _adopt(self, decision: "Event", others: "Iterable[Event]" = ()) -> None:
        handed_over = decision.payload.get("handed_over")
        if not isinstance(handed_over, dict):
            return
        heard = self._router.heard(self._log) or 0
        known = [e for e in others if e.sequence <= heard or not self._is_news(e)]
        try:
            self._router.adopt(
                decision.decision_id,
                handed_over,
                outcome=next((_outcome(e) for e in known if e.kind == "outcome"), None),
                feedback=[_feedback(e) for e in known if e.kind == "feedback"],
                signals=[e.payload["signal"] for e in known if e.kind == "signal"],
            )
        except (MixLLMError, LookupError, TypeError, ValueError) as error:
            _log.warning("a decision of another worker is left out: %s", error)

    def _learn(self, event: "Event") -> None:
        try:
            if event.kind == "decision":
                self._adopt(event)
            elif event.kind == "outcome":
                outcome = _outcome(event)
                self._router.record_outcome(event.decision_id, outcome)
                self._router.learn_speed(event.decision_id, outcome)
            elif event.kind == "feedback":
                self._untaught.discard(event.decision_id)
                told = _feedback(event)
                self._router.record_feedback(
                    told.decision_id, told.reward, kind=told.kind, source=told.source
                )
            elif event.kind == "signal":
                signal: Any = event.payload["signal"]
                self._router.record_signal(event.decision_id, signal)
        except UnknownDecisionError:  # one that nothing can be learned from here
            _log.debug("decision %s of another worker", event.decision_id)
        except (MixLLMError, LookupError, TypeError, ValueError) as error:
            _log.warning("event %d is left out: %s", event.sequence, error)

    def _put_snapshot_if_due(self) -> None:
        heard = self._router.heard(self._log) or 0
        if heard - self._snapshot_at < self._snapshot_every:
            return
        newest = self._store.newest_snapshot()
        self._snapshot_at = 0 if newest is None else newest.sequence
        if heard - self._snapshot_at >= self._snapshot_every:
            self._snapshot_at, content = self._router.snapshot(self._log)
            self._store.put_snapshot(self._snapshot_at, content)


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


def _outcome(event: "Event") -> Outcome:
    told = {name: event.payload.get(name) for name in _TOLD}
    return Outcome(**told)  # type: ignore[arg-type]


def _feedback(event: "Event") -> Feedback:
    told = event.payload
    source = told.get("source")
    return Feedback(event.decision_id, told["reward"], told["kind"], source)


_FOLLOWERS: "weakref.WeakSet[Follower]" = weakref.WeakSet()


def _after_fork() -> None:
    for follower in list(_FOLLOWERS):
        follower.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
