"""Learns from events of a log what other workers decided, and what came of it.

Beside `following`, which reads the log. Nothing here waits for the database but
`Listener.missing`.
"""

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mixllm_integrations.core.drift import DriftEvent
from mixllm_integrations.core.errors import MixLLMError, UnknownDecisionError
from mixllm_integrations.core.types import Feedback, Outcome
from mixllm_integrations.serving.naming import renames_of
from mixllm_integrations.store.events import detail_of

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router
    from mixllm_integrations.store import Event

__all__ = ["Listener"]

_log = logging.getLogger(__name__)

_TOLD = (
    *("input_tokens", "output_tokens", "cost", "error"),
    *("latency_seconds", "time_to_first_token_seconds"),
)
# All our choice. So many decisions may be heard of before they are heard themselves,
# as where two workers deliver what they had to keep while the database was away.
_EARLY = 1_000
_EARLY_SECONDS = 60.0
_UNTAUGHT = 20_000
_ERRORS = (MixLLMError, LookupError, TypeError, ValueError)


class Listener:
    """Hears events of one log, for one router; one thread at a time.

    Parameters
    ----------
    router
        Who learns.
    log
        Identity of the log.
    own
        Returns what this worker puts into its own events under ``"worker"``.

    Attributes
    ----------
    lock
        Held while events are learned from, never while the database is asked: a
        process that forks then has no thread of ours in the middle of the router.
    alarms
        The last ones that came of other workers' events: these log them.
    """

    __slots__ = (
        "_early",
        "_log",
        "_own",
        "_renames",
        "_router",
        "_untaught",
        "alarms",
        "lock",
    )

    def __init__(
        self, router: "Router", log: str, *, own: Callable[[], Collection[str]]
    ) -> None:
        self._router = router
        self._log = log
        self._own = own
        self._renames = renames_of(router)
        self._untaught: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._early: OrderedDict[str, tuple[float, list[Event]]] = OrderedDict()
        self.alarms: deque[DriftEvent] = deque(maxlen=100)
        self.lock = threading.Lock()

    @property
    def is_waiting(self) -> bool:
        """Whether something was heard a moment ago of a decision still to come."""
        since = time.monotonic() - _EARLY_SECONDS
        return any(at > since for at, _ in list(self._early.values()))

    def teach_later(self, kind: str, decision_id: str, detail: str) -> bool:
        """Learn from this worker's own event when it is heard.

        Parameters
        ----------
        kind, detail
            Of the event: see `mixllm_integrations.store.events.detail_of`.
        decision_id
            Of a decision that could not be looked up.

        Returns
        -------
        bool
            False if that was said already.
        """
        if (kind, decision_id, detail) in self._untaught:
            return False
        self._untaught[kind, decision_id, detail] = None
        while len(self._untaught) > _UNTAUGHT:
            self._untaught.popitem(last=False)
        return True

    def missing(
        self, events: "Sequence[Event]", find: "Callable[[str], list[Event]]"
    ) -> "dict[str, list[Event]]":
        """Look decisions up that were made before what is being read.

        Parameters
        ----------
        events
            What comes next in the log.
        find
            Returns all events of a decision.

        Returns
        -------
        dict
            All events of each decision that is not pending here.
        """
        known = {e.decision_id for e in events if e.kind == "decision"}
        asked = [e for e in events if e.kind not in ("decision", "drift")]
        with self.lock:
            wanted = {e.decision_id for e in asked if self._is_news(e)} - known
            unknown = [one for one in wanted if not self._router.awaits(one)]
        return {decision_id: find(decision_id) for decision_id in unknown}

    def heard(self) -> int:
        """Return the sequence of the last event that was heard."""
        with self.lock:
            return self._router.heard(self._log) or 0

    def hear(
        self,
        events: "Sequence[Event]",
        last: int,
        missing: "Mapping[str, list[Event]]",
    ) -> None:
        """Learn from events.

        Parameters
        ----------
        events
            What comes next in the log.
        last
            Where the log goes on; behind the last event if some cannot be read.
        missing
            What `missing` returned for them.
        """
        with self.lock:
            for found in missing.values():
                self.adopt(found)
            for event in events:
                with self._router.hearing(self._log, event.sequence) as is_new:
                    if is_new and self._is_news(event):
                        self._learn_quietly(event, missing)
                    elif is_new:
                        self._pass_over(event)
            with self._router.hearing(self._log, last):  # rows that cannot be read
                pass

    def adopt(self, events: "Sequence[Event]") -> bool:
        """Let a decision of the log be pending here, if it can be learned from.

        Parameters
        ----------
        events
            All of the decision.

        Returns
        -------
        bool
            Whether the decision is among them.
        """
        decision = next((e for e in events if e.kind == "decision"), None)
        if decision is None:
            return False
        _, early = self._early.pop(decision.decision_id, (0.0, []))
        unlearned = {event.sequence for event in early}
        heard = self._router.heard(self._log) or 0
        known = [e for e in events if e.sequence <= heard or not self._is_news(e)]
        self._adopt(decision, [e for e in known if e.sequence not in unlearned])
        for event in early:
            self._learn_quietly(event, {})
        return True

    def _is_news(self, event: "Event") -> bool:
        if event.payload.get("worker") not in self._own():
            return True
        return _place(event) in self._untaught

    def _adopt(self, decision: "Event", known: "Iterable[Event]" = ()) -> None:
        handed_over = decision.payload.get("handed_over")
        if not isinstance(handed_over, dict):
            return
        known = list(known)
        try:
            self._router.adopt(
                decision.decision_id,
                self._called(handed_over),
                outcome=next((_outcome(e) for e in known if e.kind == "outcome"), None),
                feedback=[_feedback(e) for e in known if e.kind == "feedback"],
                signals=[e.payload["signal"] for e in known if e.kind == "signal"],
            )
        except _ERRORS as error:
            _log.warning("a decision of another worker is left out: %s", error)

    def _called(self, handed_over: dict[str, Any]) -> dict[str, Any]:
        """Return it under the name that its candidate has here by now."""
        name = handed_over.get("candidate")
        if not self._renames or not isinstance(name, str):
            return handed_over
        return {**handed_over, "candidate": self._renames.current(name)}

    def _learn_quietly(
        self, event: "Event", missing: "Mapping[str, list[Event]]"
    ) -> None:
        before = self._router.drifts[-1:]
        try:
            self._learn(event)
        except UnknownDecisionError:
            found = missing.get(event.decision_id)
            if found is not None and not any(e.kind == "decision" for e in found):
                self._keep_early(event)
            _log.debug("decision %s of another worker", event.decision_id)
        except _ERRORS as error:
            _log.warning("event %d is left out: %s", event.sequence, error)
        after = self._router.drifts[-1:]
        if after and not (before and after[0] is before[0]):
            self.alarms.append(after[0])

    def _pass_over(self, event: "Event") -> None:
        """Let a snapshot do without what the log has of this worker's own."""
        if event.kind not in ("decision", "drift"):
            told = detail_of(event.kind, event.payload) or event.kind
            self._router.heard_own(event.decision_id, told)

    def _learn(self, event: "Event") -> None:
        decision_id = event.decision_id
        self._untaught.pop(_place(event), None)
        if event.kind == "decision":
            self._adopt(event)
            for early in self._early.pop(decision_id, (0.0, []))[1]:
                self._learn_quietly(early, {})
        elif event.kind == "outcome":
            outcome = _outcome(event)
            self._router.record_outcome(decision_id, outcome)
            self._router.learn_speed(decision_id, outcome)
        elif event.kind == "feedback":
            told = _feedback(event)
            self._router.record_feedback(
                decision_id, told.reward, kind=told.kind, source=told.source
            )
        elif event.kind == "signal":
            signal: Any = event.payload["signal"]
            self._router.record_signal(decision_id, signal)

    def _keep_early(self, event: "Event") -> None:
        first: tuple[float, list[Event]] = (time.monotonic(), [])
        self._early.setdefault(event.decision_id, first)[1].append(event)
        while len(self._early) > _EARLY:
            self._early.popitem(last=False)


def _place(event: "Event") -> tuple[str, str, str]:
    return event.kind, event.decision_id, detail_of(event.kind, event.payload)


def _outcome(event: "Event") -> Outcome:
    told = {name: event.payload.get(name) for name in _TOLD}
    return Outcome(**told)  # type: ignore[arg-type]


def _feedback(event: "Event") -> Feedback:
    told = event.payload
    source = told.get("source")
    return Feedback(event.decision_id, told["reward"], told["kind"], source)
