"""What several workers learn from each other through one log of events.

A decision goes into the log with all that another worker needs to learn from it:
`SharingPool.hand_over` and `SharingPool.adopt`. Each event is learned from once.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mixllm_integrations.core.errors import StateFormatError
from mixllm_integrations.core.handing_over import prices_of, record_of, taken_over
from mixllm_integrations.core.resuming import (
    OTHER_HEADS,
    ResumablePool,
    sequence_from,
)
from mixllm_integrations.core.types import Feedback, ImplicitSignal, Outcome

__all__ = ["SharingPool"]


class SharingPool(ResumablePool):
    """Candidates of which much is learned by other workers; see `Router`."""

    def hand_over(self, decision_id: str) -> dict[str, Any] | None:
        """Return what another worker needs to learn from a decision.

        Parameters
        ----------
        decision_id
            Of one that is pending here.

        Returns
        -------
        dict or None
            What JSON can hold, about 1.5 kB, without the prompt; ``None`` if the
            decision is not pending, or its contexts mean nothing any more.
        """
        self._digests_of(self._knowledge)  # takes a while once, so before the lock
        with self._lock:
            if decision_id not in self._ledger:
                return None
            pending, known = self._ledger.get(decision_id), self._knowledge
            candidate = self._candidates.get(pending.candidate)
            if pending.version != known.version or candidate is None:
                return None
            is_of_now = pending.revision == known.revision
            record = record_of(
                pending,
                candidate,
                contexts=self._digests_of(known)[0],
                heads=self._foreseen_by(candidate.name) if is_of_now else "",
            )
            # For reports; nobody learns from it.
            (record["domain"],) = known.context.domains_of(pending.context[None])
            return record

    def adopt(
        self,
        decision_id: str,
        handed_over: Mapping[str, Any],
        *,
        outcome: Outcome | None = None,
        feedback: Iterable[Feedback] = (),
        signals: Iterable[ImplicitSignal] = (),
    ) -> bool:
        """Let a decision of another worker await its outcome and feedback here.

        Parameters
        ----------
        decision_id
            Its id.
        handed_over
            What `hand_over` gave there.
        outcome, feedback, signals
            What came of it and is known here already: it teaches nothing again.

        Returns
        -------
        bool
            False if it is pending already, or nothing can be learned from it: its
            contexts are not those of this router, or it has no such candidate.

        Raises
        ------
        StateFormatError
            If the record is damaged.
        """
        if not isinstance(handed_over, Mapping):
            raise StateFormatError(
                f"decision {decision_id!r} of another worker is a "
                f"{type(handed_over).__name__}, not what `hand_over` gives"
            )
        self._digests_of(self._knowledge)  # takes a while once, so before the lock
        with self._lock:
            read = taken_over(
                decision_id,
                handed_over,
                contexts=self._digests_of(self._knowledge)[0],
                dimension=self._experience.designs.dimension,
            )
            if read is None or read.pending.candidate not in self._candidates:
                return False
            pending, name = read.pending, read.pending.candidate
            same_heads = read.heads == self._foreseen_by(name)
            if not same_heads or read.prices != prices_of(self._candidates[name]):
                pending.token_cost = math.nan
            if not same_heads:
                pending.predicted_output_tokens = 0.0
            pending.version = self._experience.version
            pending.revision = self._experience.revision if same_heads else OTHER_HEADS
            pending.outcome = outcome
            pending.feedback = {told.kind: told for told in feedback}
            pending.signals = set(signals)
            return self._ledger.adopt(pending)

    def awaits(self, decision_id: str) -> bool:
        """Tell whether a decision is pending: feedback on it can be learned.

        Parameters
        ----------
        decision_id
            Its id.
        """
        with self._lock:
            return decision_id in self._ledger

    def learn_speed(self, decision_id: str, outcome: Outcome) -> None:
        """Learn how fast a candidate answered another worker.

        Each time that it is told: an own call teaches its speed by `record_outcome`.

        Parameters
        ----------
        decision_id
            Of a decision that was adopted; of any other nothing is learned.
        outcome
            What came of it.
        """
        with self._lock:
            if self._ledger.has_adopted(decision_id):
                name = self._ledger.get(decision_id).candidate
                self._waiting.learn(name, outcome)

    def heard(self, log: str) -> int | None:
        """Return how far a log was heard.

        Parameters
        ----------
        log
            Identity of the log.

        Returns
        -------
        int or None
            The sequence of the last event; ``None`` if it was never listened to.
        """
        with self._lock:
            return self._heard.get(log)

    @contextmanager
    def hearing(self, log: str, sequence: int) -> Iterator[bool]:
        """Hold the lock while an event is learned from, and note that it was.

        A copy of the state that is taken meanwhile has both or neither.

        Parameters
        ----------
        log
            Identity of the log.
        sequence
            Of the event, from 1 on: those before it count as heard, too.

        Yields
        ------
        bool
            Whether it is new; else it is not to be learned from again. It counts
            as heard even if learning from it fails: it would fail again.

        Raises
        ------
        ConfigurationError
            If the sequence is no whole number.
        """
        place = sequence_from(sequence)
        with self._lock:
            is_new = place > self._heard.get(log, 0)
            self._ledger.is_hearing = True
            try:
                yield is_new
            finally:
                self._ledger.is_hearing = False
                if is_new:
                    self._heard[log] = place

    def heard_own(self, decision_id: str, told: str) -> None:
        """Note that a log has what was told here of a decision; it teaches nothing.

        Parameters
        ----------
        decision_id
            Which one; it need not be pending.
        told
            ``"outcome"``, the kind of the feedback, or the signal.
        """
        with self._lock:
            self._ledger.heard(decision_id, told)

    def hear_from(self, log: str, sequence: int) -> None:
        """Begin to listen to a log, after one of its events.

        Parameters
        ----------
        log
            Identity of the log.
        sequence
            0: from its beginning.

        Raises
        ------
        ConfigurationError
            If it is no whole number.
        """
        place = sequence_from(sequence)
        with self._lock:
            self._heard[log] = place
