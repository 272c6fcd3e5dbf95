"""Tells a router and its log what is said of answers, whichever worker decided.

Feedback may arrive at a worker that has not made the decision. It looks the decision
up in the log; if that is away, the feedback is kept, and learned from later.
"""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mixllm_integrations.core.errors import UnknownDecisionError
from mixllm_integrations.core.types import Feedback, ImplicitSignal
from mixllm_integrations.serving.background import is_on_a_loop
from mixllm_integrations.store.events import EventKind, detail_of

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router
    from mixllm_integrations.serving.following import Follower
    from mixllm_integrations.serving.journal import Journal
    from mixllm_integrations.store import Event

__all__ = ["Teller"]

_log = logging.getLogger(__name__)

# Our choice, in seconds: a sibling writes its decision a moment after it was made.
_PAUSES = (0.1, 0.3)
_LONGEST_ID = 500  # the log takes no longer ones


class Teller:
    """Tells feedback and signals.

    Parameters
    ----------
    router
        Who learns.
    journal
        Where it is logged; ``None``: nowhere.
    follower
        Who finds decisions of other workers; ``None``: nobody, so they are unknown.
    """

    __slots__ = ("_follower", "_journal", "_router")

    def __init__(
        self,
        router: "Router",
        journal: "Journal | None",
        follower: "Follower | None",
    ) -> None:
        self._router = router
        self._journal = journal
        self._follower = follower

    def feedback(self, told: Feedback) -> bool:
        """Tell how good an answer was.

        Parameters
        ----------
        told
            By whom, and of which decision.

        Returns
        -------
        bool
            False if the decision already had feedback of this kind.

        Raises
        ------
        UnknownDecisionError
            If neither the router nor the log knows the decision.
        """

        def learn() -> bool:
            return self._router.record_feedback(
                told.decision_id, told.reward, kind=told.kind, source=told.source
            )

        new = self._told("feedback", told.decision_id, told.kind, learn)
        if new and self._journal is not None:
            self._journal.feedback(
                told.decision_id, float(told.reward), told.kind, told.source
            )
        return new

    def signal(self, decision_id: str, signal: ImplicitSignal) -> bool:
        """Tell what the traffic itself says of an answer.

        Parameters
        ----------
        decision_id
            Which decision.
        signal
            What was seen.

        Returns
        -------
        bool
            False if this was said of this decision already.

        Raises
        ------
        UnknownDecisionError
            If neither the router nor the log knows the decision.
        """

        def learn() -> bool:
            return self._router.record_signal(decision_id, signal)

        new = self._told("signal", decision_id, signal, learn)
        if new and self._journal is not None:
            self._journal.signal(decision_id, signal)
        return new

    def signal_at_once(self, decision_id: str, signal: ImplicitSignal) -> None:
        """Do what `signal` does, without waiting, of a decision that may be unknown.

        Parameters
        ----------
        decision_id
            Which decision.
        signal
            What was seen.
        """
        try:
            new = self._router.record_signal(decision_id, signal)
        except UnknownDecisionError:  # an old answer, or that of another worker
            _log.debug("decision %s is not pending any more", decision_id)
            follower = self._follower
            new = (
                follower is not None
                and signal in self._router.implicit_signals
                and _is_id(decision_id)
                and follower.teach_later("signal", decision_id, signal)
            )
        if new and self._journal is not None:
            self._journal.signal(decision_id, signal)

    def _told(
        self,
        kind: EventKind,
        decision_id: str,
        detail: str,
        learn: Callable[[], bool],
    ) -> bool:
        """Learn, and tell whether it is news for the log as well."""
        try:
            return learn()
        except UnknownDecisionError:
            follower = self._follower
            if follower is None or not _is_id(decision_id):
                raise
        events = _found(follower, decision_id)
        if not events and not self._router.awaits(decision_id):
            if events is None:
                return follower.teach_later(kind, decision_id, detail)
            raise UnknownDecisionError(decision_id)
        if (kind, detail) in [
            (e.kind, detail_of(e.kind, e.payload)) for e in events or ()
        ]:
            return False  # it is, or will be, learned from the log
        try:
            return learn()
        except UnknownDecisionError:  # others can learn from it
            return True


def _found(follower: "Follower", decision_id: str) -> "list[Event] | None":
    """Return what the log has of a decision; ``None``: the log is away."""
    if follower.is_failing:  # nobody waits for it to fail once more
        return None
    pauses = () if is_on_a_loop() else _PAUSES
    try:
        for pause in (0.0, *pauses):
            time.sleep(pause)
            if events := follower.find(decision_id):
                return events
    except Exception as error:  # noqa: BLE001 - whatever a driver raises
        if follower.is_closed:
            return []
        _log.debug("a decision cannot be looked up: %s", type(error).__name__)
        return None
    return []


def _is_id(text: str) -> bool:
    """Tell whether a log can be asked for it: what none can hold is no outage."""
    if not 0 < len(text) <= _LONGEST_ID or "\x00" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates
        return False
    return True
