"""One routed call under way: decision, attempts, outcome."""

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from mixllm_integrations.core.errors import NoCandidateError, UnknownDecisionError
from mixllm_integrations.core.types import Decision, Outcome, Requirement
from mixllm_integrations.serving.errors import all_failed, is_callers_mistake

if TYPE_CHECKING:
    from mixllm_integrations.serving.dispatch import Dispatcher

__all__ = ["RoutedCall"]

_log = logging.getLogger(__name__)


class RoutedCall:
    """One call under way; made by `Dispatcher.begin`.

    Attributes
    ----------
    decision
        The decision in force; a new one after each failover.
    """

    __slots__ = (
        "_among",
        "_dispatcher",
        "_failures",
        "_first_chunk_at",
        "_input_tokens",
        "_max_failovers",
        "_open",
        "_query",
        "_requires",
        "_started_at",
        "_tried",
        "_unable",
        "_willingness_to_pay",
        "decision",
    )

    decision: Decision
    _first_chunk_at: float | None
    _started_at: float

    def __init__(
        self,
        dispatcher: "Dispatcher",
        query: str,
        input_tokens: int | None,
        requires: tuple[Requirement, ...],
        among: Collection[str] | None,
        prefer: str | None,
        max_failovers: int | None,
        willingness_to_pay: float | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._query = query
        self._input_tokens = input_tokens
        self._requires = requires
        self._among = among
        self._max_failovers = max_failovers
        self._willingness_to_pay = willingness_to_pay
        self._failures: list[tuple[str, Exception]] = []
        self._unable = 0
        self._tried: list[dict[str, str]] = []
        self._open = False
        self._decide(prefer)

    @property
    def candidate(self) -> str:
        """Name of the candidate that is to answer now."""
        return self.decision.candidate

    @property
    def attempts(self) -> list[dict[str, str]]:
        """Earlier attempts: their ``decision_id``, ``candidate`` and ``error``."""
        return [dict(attempt) for attempt in self._tried]

    def first_chunk(self) -> None:
        """Note that the answer has begun to arrive; only the first call counts."""
        if self._first_chunk_at is None:
            self._first_chunk_at = self._dispatcher.clock()

    def succeed(
        self,
        *,
        input_tokens: int,
        output_tokens: int,
        cost: float | None = None,
        cached: bool = False,
    ) -> dict[str, Any]:
        """Record a whole answer.

        Parameters
        ----------
        input_tokens, output_tokens
            Lengths as the candidate reported them.
        cost
            USD; ``None``: from the tokens and the candidate's prices.
        cached
            Whether the answer came out of a cache: it cost nothing and teaches
            nothing about latency, length or cost.

        Returns
        -------
        dict
            The routing record that goes with the answer: ``decision_id``,
            ``candidate``, ``predicted_quality``, ``predicted_cost``, ``cost``
            (USD), ``willingness_to_pay`` and ``attempts``.
        """
        decision = self.decision
        if cached:
            cost = 0.0
        elif cost is None:
            cost = self._list_cost(input_tokens, output_tokens)
        if self._open:
            self._open = False
            self._dispatcher.cooldown.forgive(decision.candidate)
            if cached:
                self._release("cached")
            else:
                self._report(input_tokens, output_tokens, cost)
        return self.record(cost=cost)

    def record(self, *, cost: float | None = None) -> dict[str, Any]:
        """Return the routing record of the decision in force.

        Parameters
        ----------
        cost
            USD; ``None`` while the answer is still arriving.

        Returns
        -------
        dict
            What `succeed` returns, so that chunks can carry it before the end.
        """
        decision = self.decision
        expected = decision.prediction
        return {
            "decision_id": decision.id,
            "candidate": decision.candidate,
            "predicted_quality": float(expected.quality),
            "predicted_cost": float(expected.cost),
            "cost": cost,
            "willingness_to_pay": float(decision.willingness_to_pay),
            "attempts": self.attempts,
        }

    def fail(self, error: Exception) -> bool:
        """Record that the candidate failed, and route again among the rest.

        Parameters
        ----------
        error
            What it raised.

        Returns
        -------
        bool
            True if another candidate is to answer: see `candidate`. False if
            none is left, no more failover is allowed, or the mistake is the
            caller's own.
        """
        self._failures.append((self.candidate, error))
        self.break_off(error)
        limit = self._max_failovers
        spent = limit is not None and len(self._failures) - self._unable > limit
        if spent or is_callers_mistake(error):
            return False
        return self._hand_over("failed with", type(error).__name__)

    def decline(self, error: Exception) -> bool:
        """Record that the candidate cannot be asked, and route among the rest.

        For one that refuses the tools or the schema of this call before anything
        is sent: it does not cool down, and it counts as no failover.

        Parameters
        ----------
        error
            Why it cannot.

        Returns
        -------
        bool
            Whether another candidate is to answer: see `candidate`.
        """
        self._failures.append((self.candidate, error))
        self._unable += 1
        if self._open:
            self._open = False
            self._release(type(error).__name__)
        return self._hand_over("cannot be asked this:", type(error).__name__)

    def _hand_over(self, why: str, name: str) -> bool:
        self._tried.append(
            {
                "decision_id": self.decision.id,
                "candidate": self.candidate,
                "error": name,
            }
        )
        try:
            self._decide(None)
        except NoCandidateError:
            return False
        _log.warning(
            "candidate %r %s %s; %r answers instead",
            self._tried[-1]["candidate"],
            why,
            name,
            self.candidate,
        )
        return True

    def break_off(self, error: Exception) -> None:
        """Record that the candidate failed, and leave it at that.

        For an answer of which a part has been handed out already: another
        candidate would begin anew.

        Parameters
        ----------
        error
            What it raised.
        """
        if self._open:
            self._open = False
            self._release(type(error).__name__)
            if not is_callers_mistake(error):
                self._dispatcher.cooldown.start(self.candidate)

    def failure(self) -> Exception:
        """Return what to raise after `fail` returned False.

        Returns
        -------
        Exception
            The candidate's own error if one was tried, and the first one's if
            none could even be asked; else an `ExceptionGroup` that names each.
        """
        if self._unable == len(self._failures):
            return self._failures[0][1]
        return all_failed(self._failures)

    def abandon(self) -> None:
        """Release the load if nothing else did; for ``finally``."""
        if self._open:
            self._open = False
            self._release("abandoned")

    def _decide(self, prefer: str | None) -> None:
        allowed = self._allowed()
        self.decision = self._route(allowed, prefer)
        self._open = True
        self._first_chunk_at = None
        journal = self._dispatcher.journal
        if journal is not None:
            journal.decision(self.decision)
        self._started_at = self._dispatcher.clock()

    def _allowed(self) -> tuple[str, ...] | None:
        """Return who may answer, cooling ones included; ``None`` for all."""
        if not self._failures and self._among is None:
            return None
        names = self._among if self._among is not None else self._dispatcher.names()
        failed = {name for name, _ in self._failures}
        left = tuple(name for name in names if name not in failed)
        if not left:
            raise NoCandidateError(dict.fromkeys(names, "it failed"))
        return left

    def _route(self, allowed: tuple[str, ...] | None, prefer: str | None) -> Decision:
        cooling = self._dispatcher.cooldown.due()
        if not cooling and prefer is None:
            return self._ask(allowed)
        names = allowed if allowed is not None else self._dispatcher.names()
        ready = tuple(name for name in names if name not in cooling)
        choices = [ready] if ready else []
        if prefer in ready:
            choices.insert(0, (prefer,))
        waiting = sorted((n for n in names if n in cooling), key=cooling.__getitem__)
        choices.extend((name,) for name in waiting)
        excluded: dict[str, str] = {}
        for choice in choices:
            try:
                return self._ask(choice)
            except NoCandidateError as error:
                excluded.update((n, error.excluded.get(n, "")) for n in choice)
        raise NoCandidateError(excluded)

    def _ask(self, among: tuple[str, ...] | None) -> Decision:
        return self._dispatcher.router.route(
            self._query,
            input_tokens=self._input_tokens,
            requires=self._requires,
            among=among,
            willingness_to_pay=self._willingness_to_pay,
        )

    def _list_cost(self, input_tokens: int, output_tokens: int) -> float:
        for candidate in self._dispatcher.router.candidates:
            if candidate.name == self.candidate:
                return (
                    input_tokens * candidate.input_cost_per_million_tokens
                    + output_tokens * candidate.output_cost_per_million_tokens
                ) / 1e6
        return 0.0  # removed while it answered

    def _report(self, input_tokens: int, output_tokens: int, cost: float) -> None:
        first = self._first_chunk_at
        self._record(
            Outcome(
                input_tokens,
                output_tokens,
                cost=cost,
                latency_seconds=self._dispatcher.clock() - self._started_at,
                time_to_first_token_seconds=(
                    None if first is None else first - self._started_at
                ),
            )
        )

    def _release(self, why: str) -> None:
        self._record(Outcome(0, 0, error=why))

    def _record(self, outcome: Outcome) -> None:
        try:
            self._dispatcher.router.record_outcome(self.decision.id, outcome)
        except UnknownDecisionError:
            _log.debug("decision %s is not pending any more", self.decision.id)
        journal = self._dispatcher.journal
        if journal is not None:
            journal.outcome(self.decision.id, outcome)
