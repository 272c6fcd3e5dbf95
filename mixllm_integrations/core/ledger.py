"""Stage 10: decisions that await their outcome and their feedback.

Feedback is late, may never come, or may come twice. The ledger keeps what a
decision was based on until then: bounded in number and in age, so that a
process that never hears back does not grow. It takes no lock: the router
holds one.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.errors import ConfigurationError, UnknownDecisionError
from mixllm_integrations.core.pending import (
    PendingDecision,
    bit_of,
    pending_row,
    read_rows,
)
from mixllm_integrations.core.types import (
    Feedback,
    ImplicitSignal,
    Outcome,
    number_between,
)

__all__ = ["DecisionLedger"]

_OUTDATED = -1


class DecisionLedger:
    """Pending decisions, oldest first; every operation is O(1), amortised.

    Those that another worker has made are kept apart from its own, at most as many:
    they crowd out none of these. They are not saved, but where a log lacks something
    that was told here.

    Parameters
    ----------
    capacity
        How many are kept; one more drops the oldest.
    max_age_seconds
        How long one is kept; infinity: until it is crowded out.
    clock
        Seconds from any start; injected in tests and simulations.

    Attributes
    ----------
    is_hearing
        Whether what is recorded comes out of a log, and not from here.
    crowded_out, expired, unreadable
        How many decisions were dropped because newer ones needed the place,
        because they were too old, or because their saved row was damaged.
    """

    def __init__(
        self,
        *,
        capacity: int = 20_000,
        max_age_seconds: float = 7 * 86_400.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        low = number_between(
            capacity, "decision_capacity", low=1, high_is_allowed=False
        )
        self._capacity = int(low)
        self._max_age = number_between(
            max_age_seconds, "decision_max_age_seconds", low_is_allowed=False
        )
        self._clock = clock
        self._pending: OrderedDict[str, PendingDecision] = OrderedDict()
        self._adopted: OrderedDict[str, PendingDecision] = OrderedDict()
        self.is_hearing = False
        self.crowded_out = 0
        self.expired = 0
        self.unreadable = 0

    def __len__(self) -> int:
        self._expire()
        return len(self._pending)

    def __contains__(self, decision_id: object) -> bool:
        self._expire()
        return decision_id in self._pending or decision_id in self._adopted

    def put(self, pending: PendingDecision) -> None:
        """Keep a new decision, stamped with the time of now.

        Parameters
        ----------
        pending
            The decision; its id must be new.

        Raises
        ------
        ConfigurationError
            If a decision with that id is pending already.
        """
        now = self._expire()
        if pending.decision_id in self:
            raise ConfigurationError(
                f"decision {pending.decision_id!r} is pending already; every "
                "decision needs an id of its own"
            )
        pending.made_at = now
        self._pending[pending.decision_id] = pending
        self._make_room()

    def adopt(self, pending: PendingDecision) -> bool:
        """Keep a decision of another worker, stamped with the time of now.

        Parameters
        ----------
        pending
            The decision, with what was heard of it so far.

        Returns
        -------
        bool
            False if it is pending already.
        """
        now = self._expire()
        if pending.decision_id in self:
            return False
        pending.made_at = now
        self._adopted[pending.decision_id] = pending
        self._make_room()
        return True

    def take_over(self, others: Iterable[PendingDecision]) -> None:
        """Adopt decisions, as old as they are, instead of those adopted so far.

        What was heard of one that is pending already counts as heard here, too.

        Parameters
        ----------
        others
            Oldest first, of a ledger with the same clock.
        """
        self._adopted.clear()
        for other in others:
            here = self._pending.get(other.decision_id)
            if here is None:
                self._adopted[other.decision_id] = other
                continue
            here.outcome = here.outcome or other.outcome
            here.feedback = {**other.feedback, **here.feedback}
            here.signals |= other.signals
        self._make_room()

    def has_adopted(self, decision_id: str) -> bool:
        """Tell whether a decision of another worker is pending."""
        return decision_id in self._adopted

    def __iter__(self) -> Iterator[PendingDecision]:
        """Return its own decisions and then the adopted ones, each oldest first."""
        return chain(self._pending.values(), self._adopted.values())

    def get(self, decision_id: str) -> PendingDecision:
        """Return a pending decision.

        Parameters
        ----------
        decision_id
            Its id.

        Returns
        -------
        PendingDecision
            The ledger's own object, not a copy.

        Raises
        ------
        UnknownDecisionError
            If it is not pending: never made here, too old, or crowded out.
        """
        self._expire()
        try:
            return self._pending.get(decision_id) or self._adopted[decision_id]
        except KeyError:
            raise UnknownDecisionError(decision_id) from None

    def record_outcome(self, decision_id: str, outcome: Outcome) -> bool:
        """Note what happened when the chosen candidate was called.

        Parameters
        ----------
        decision_id
            Of which decision.
        outcome
            What happened.

        Returns
        -------
        bool
            Whether it was new; a second one changes nothing.

        Raises
        ------
        UnknownDecisionError
            If the decision is not pending.
        """
        pending = self.get(decision_id)
        if pending.outcome is not None:
            return False
        pending.outcome = outcome
        self._note(pending, "outcome")
        return True

    def record_feedback(self, feedback: Feedback) -> bool:
        """Note how good the answer was.

        Parameters
        ----------
        feedback
            Names its decision.

        Returns
        -------
        bool
            Whether it was the first of its kind; a second changes nothing.

        Raises
        ------
        UnknownDecisionError
            If the decision is not pending.
        """
        pending = self.get(feedback.decision_id)
        if feedback.kind in pending.feedback:
            return False
        pending.feedback[feedback.kind] = feedback
        self._note(pending, feedback.kind)
        return True

    def record_signal(self, decision_id: str, signal: ImplicitSignal) -> bool:
        """Note what the traffic tells of an answer.

        Parameters
        ----------
        decision_id
            Of which decision.
        signal
            What was seen.

        Returns
        -------
        bool
            Whether it was the first of its kind; a second changes nothing.

        Raises
        ------
        UnknownDecisionError
            If the decision is not pending.
        """
        pending = self.get(decision_id)
        if signal in pending.signals:
            return False
        pending.signals.add(signal)
        self._note(pending, signal)
        return True

    def heard(self, decision_id: str, told: str) -> None:
        """Note that a log has what was told here of a decision, pending or not.

        Parameters
        ----------
        decision_id, told
            Which one; ``"outcome"``, the kind of the feedback, or the signal.
        """
        pending = self._pending.get(decision_id) or self._adopted.get(decision_id)
        if pending is not None:
            pending.unheard &= ~bit_of(told)

    def _note(self, pending: PendingDecision, told: str) -> None:
        if not self.is_hearing:
            pending.unheard |= bit_of(told)

    def rename(self, old: str, new: str) -> None:
        """Let what is pending of one candidate be of another name.

        Parameters
        ----------
        old, new
            Its names.
        """
        for pending in self:
            if pending.candidate == old:
                pending.candidate = new

    def reprice(self, candidate: str, *, lengths: bool = False) -> None:
        """Let the expected costs of what is pending of a candidate be NaN.

        Parameters
        ----------
        candidate
            Whose bills are not what was expected any more.
        lengths
            Whether neither do the expected lengths hold: they become 0.
        """
        for pending in self:
            if pending.candidate == candidate:
                pending.token_cost = math.nan
                if lengths:
                    pending.predicted_output_tokens = 0.0

    def outdate(self, candidates: Collection[str]) -> None:
        """Note that what was predicted of some candidates was by older heads.

        Parameters
        ----------
        candidates
            Names; what is pending of them gets a version that no knowledge has.
        """
        for pending in self:
            if pending.candidate in candidates:
                pending.version = _OUTDATED

    def state(
        self, *, version: int | None = None, unheard: bool = False
    ) -> tuple[list[dict[str, Any]], NDArray[np.float32]]:
        """Return what is pending, for a restart.

        Parameters
        ----------
        version
            Of the knowledge: decisions by others teach nothing; ``None``: all.
        unheard
            Leave out those of which a log has all that was told here, too.

        Returns
        -------
        list of dict
            One row per decision that JSON can hold, oldest first. It has the
            age instead of the time, as clocks differ between processes.
        NDArray
            Context vectors in the same order, shape ``(n_pending, dimension)``.
        """
        now = self._expire()
        own: Iterable[PendingDecision] = () if unheard else self._pending.values()
        kept = {p.decision_id: p for p in own}
        kept |= {p.decision_id: p for p in self if p.unheard}
        current = [p for p in kept.values() if version in (None, p.version)]
        contexts = [p.context for p in current] or np.zeros((0, 0))
        rows = [pending_row(p, now) for p in current]
        return rows, np.asarray(contexts, dtype=np.float32)

    @classmethod
    def from_state(
        cls,
        rows: Sequence[Mapping[str, Any]],
        contexts: NDArray[np.float32],
        *,
        capacity: int = 20_000,
        max_age_seconds: float = 7 * 86_400.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> "DecisionLedger":
        """Return a ledger with the decisions that `state` gave, as old as then.

        Parameters
        ----------
        rows, contexts
            What `state` returned. A damaged row is left out and counted.
        capacity, max_age_seconds, clock
            As for the class; they may differ from those of the saved ledger.

        Raises
        ------
        StateFormatError
            If there is not one context per row.
        """
        ledger = cls(capacity=capacity, max_age_seconds=max_age_seconds, clock=clock)
        found, ledger.unreadable = read_rows(rows, contexts, clock())
        ledger._pending.update((pending.decision_id, pending) for pending in found)
        ledger._expire()
        ledger._make_room()
        return ledger

    def _expire(self) -> float:
        now = self._clock()
        for pending in (self._pending, self._adopted):
            while (
                pending and now - next(iter(pending.values())).made_at > self._max_age
            ):
                pending.popitem(last=False)
                self.expired += pending is self._pending
        return now

    def _make_room(self) -> None:
        while len(self._pending) > self._capacity:
            self._pending.popitem(last=False)
            self.crowded_out += 1
        while len(self._adopted) > self._capacity:
            self._adopted.popitem(last=False)
