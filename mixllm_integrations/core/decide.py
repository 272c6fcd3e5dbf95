"""One decision: forecast without the lock, look up and choose under it.

Beside `router`, which makes a new `Decider` whenever the candidates or the
knowledge change; the old one is retired and decides nothing any more.
"""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.decisions import (
    Expectation,
    decision_of,
    discounted,
    pending_of,
)
from mixllm_integrations.core.errors import NoCandidateError
from mixllm_integrations.core.experience import Experience
from mixllm_integrations.core.exploring import ExplorationBudget
from mixllm_integrations.core.forecast import Forecast, Forecaster
from mixllm_integrations.core.ledger import DecisionLedger
from mixllm_integrations.core.limits import Terms, hard_limits
from mixllm_integrations.core.policy import (
    Choice,
    MetaDecisionMaker,
    Scoreboard,
)
from mixllm_integrations.core.reading import Reading
from mixllm_integrations.core.spending import SpendingControl, SpendingRound
from mixllm_integrations.core.types import (
    BatchPrediction,
    Decision,
    FloatArray,
    Outcome,
)
from mixllm_integrations.core.waiting import WaitingModel

__all__ = ["Decider", "RetiredError"]

# A free answer counts as spending of a hundredth point of quality; our choice.
_FREE_COUNTS = 0.01


class RetiredError(Exception):
    """A newer `Decider` has taken over since this one was asked."""


class Decider:
    """Makes decisions from one state of knowledge.

    Parameters
    ----------
    forecaster
        What is expected offline.
    experience
        What was learned online.
    policy
        Who scores and chooses.
    waiting
        Who knows the load.
    ledger
        Where decisions await their feedback.
    exploration
        What exploring may cost.
    exploration_is_capped
        Whether that holds at all times, and not only while newcomers are tried.
    spending
        What all may cost.
    rng
        Draws where the policy draws.
    lock
        Guards `experience`, `ledger`, `exploration`, `spending` and `rng`.

    Attributes
    ----------
    retired
        Whether another one has taken over; it is set under the lock.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        experience: Experience,
        policy: MetaDecisionMaker,
        waiting: WaitingModel,
        ledger: DecisionLedger,
        lock: threading.RLock,
        *,
        exploration: ExplorationBudget,
        exploration_is_capped: bool,
        spending: SpendingControl,
        rng: np.random.Generator,
    ) -> None:
        self._forecaster, self._experience = forecaster, experience
        self._policy, self._waiting = policy, waiting
        self._ledger, self._lock = ledger, lock
        self._exploration, self._spending, self._rng = exploration, spending, rng
        self._exploration_is_capped = exploration_is_capped
        self._candidates = forecaster.candidates
        self._names = tuple(c.name for c in forecaster.candidates)
        windows = (c.context_window for c in forecaster.candidates)
        self._narrowest = min((w for w in windows if w is not None), default=math.inf)
        self._everyone = np.ones(len(self._names), dtype=np.bool_)
        self._everyone.setflags(write=False)
        self.retired = False

    def predict(
        self, reading: Reading, input_tokens: FloatArray | None
    ) -> BatchPrediction:
        """Return what is expected, without deciding anything.

        Parameters
        ----------
        reading
            Of the queries.
        input_tokens
            Shape ``(n_queries,)``, NaN where unknown.

        Raises
        ------
        RetiredError
            If another one has taken over.
        """
        contexts, expected = self._forecast(reading, input_tokens)
        with self._lock:
            now, uncertainty = self._online(contexts, expected)
        return BatchPrediction(
            self._names, now.quality, now.output_tokens, now.cost, uncertainty
        )

    def decide(
        self,
        reading: Reading,
        input_tokens: FloatArray | None,
        terms: Terms,
        *,
        charge_load: bool = True,
        remember: bool = True,
    ) -> list[Decision]:
        """Return a decision per query; they are pending from now on.

        Parameters
        ----------
        reading
            Of the queries.
        input_tokens
            Shape ``(n_queries,)``, NaN where unknown.
        terms
            What all of them ask.
        charge_load
            Whether each decision counts as load, and reserves its cost, at once.
        remember
            Whether it awaits its outcome and feedback.

        Raises
        ------
        NoCandidateError
            If the limits exclude every candidate for one of the queries; then
            none is decided. `BudgetExceededError` if the spending budget does.
        RetiredError
            If another one has taken over.
        """
        if not self._names:
            raise NoCandidateError
        policy = self._policy
        if terms.willingness_to_pay is not None:
            policy = replace(policy, willingness_to_pay=terms.willingness_to_pay)
        contexts, offline = self._forecast(reading, input_tokens)
        with self._lock:
            expected = self._expectation(contexts, offline, terms, policy)
            limits = [
                self._excluded(
                    expected.now.cost[row],
                    int(offline.input_tokens[row]),
                    is_given=input_tokens is not None
                    and math.isfinite(input_tokens[row]),
                    terms=terms,
                )
                for row in range(len(contexts))
            ]
            for excluded in limits:
                if len(excluded) == len(self._names):
                    raise NoCandidateError(excluded)
            rounds = self._round(expected, limits, terms)
            decisions = []
            for row, excluded in enumerate(limits):
                decision, board, choice, weights = self._chosen(
                    expected, row, excluded, policy, terms, rounds, takes=charge_load
                )
                at = row, choice.index
                if remember:
                    self._ledger.put(
                        pending_of(decision, expected, at, self._experience)
                    )
                    self._book(board, choice, weights.willingness_to_pay)
                if charge_load:
                    self._waiting.start(
                        decision.candidate,
                        decision.id,
                        output_tokens=float(expected.now.output_tokens[at]),
                    )
                decisions.append(decision)
        return decisions

    def billed(self, name: str, outcome: Outcome) -> float | None:
        """Return what a call will have cost, in USD; ``None`` if unknown.

        Parameters
        ----------
        name
            Who answered.
        outcome
            What happened.
        """
        return self._forecaster.billed(name, outcome)

    @property
    def bases(self) -> dict[str, float]:
        """Mean quality that is expected of candidates without a head."""
        return self._forecaster.bases

    def quality_at(self, contexts: FloatArray) -> FloatArray:
        """Return what the offline heads expect, as `Forecaster.quality_at`.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        """
        return self._forecaster.quality_at(contexts)

    def _forecast(
        self, reading: Reading, input_tokens: FloatArray | None
    ) -> tuple[FloatArray, Forecast]:
        contexts = self._forecaster.knowledge.context.contexts(reading)
        return contexts, self._forecaster.forecast(
            reading, contexts, input_tokens=input_tokens
        )

    def _expectation(
        self,
        contexts: FloatArray,
        offline: Forecast,
        terms: Terms,
        policy: MetaDecisionMaker,
    ) -> Expectation:
        """Return all that is expected of a batch; the lock is held."""
        now, uncertainty = self._online(contexts, offline)
        token_cost = offline.cost
        if terms.discounts:
            saved = self._by_name(terms.discounts)
            now, token_cost = discounted(now, token_cost, saved)
        return Expectation(
            contexts,
            offline,
            now,
            uncertainty,
            self._experience.designs.novelty_from(uncertainty, self._names),
            token_cost,
            self._spread(contexts, policy),
            self._by_name(terms.head_start) if terms.head_start else None,
        )

    def _round(
        self, expected: Expectation, limits: Sequence[Mapping[str, str]], terms: Terms
    ) -> SpendingRound | None:
        """Return what the budget says to a batch; ``None`` if there is no budget."""
        if self._spending.purse.budget is None:
            return None
        is_fixed = terms.willingness_to_pay is not None
        cost = expected.now.cost
        return SpendingRound(
            self._spending, self._names, cost, limits, is_fixed=is_fixed
        )

    def _chosen(
        self,
        expected: Expectation,
        row: int,
        excluded: Mapping[str, str],
        policy: MetaDecisionMaker,
        terms: Terms,
        rounds: SpendingRound | None,
        *,
        takes: bool,
    ) -> tuple[Decision, Scoreboard, Choice, MetaDecisionMaker]:
        """Return a decision, and what made it; its money is reserved if it `takes`."""
        waits = self._waiting.expected_seconds(self._names)
        penalties = self._waiting.penalties(
            waits + self._waiting.scatter_seconds(self._names, waits),
            tolerance_seconds=terms.waiting_tolerance_seconds,
        )
        learned, spread = self._experience, expected.spread
        optimism = learned.optimism(self._names) if policy.exploration else None
        allowance = self._exploration.allowance()
        while True:
            if rounds is not None:
                excluded = rounds.excluded(row)
            board = Scoreboard(
                expected.now.quality[row],
                expected.now.cost[row],
                expected.uncertainty[row],
                penalties,
                self._eligible(excluded),
                expected.head_start,
                None if spread is None else spread[row],
                optimism,
                allowance if self._exploration_is_capped else math.inf,
                allowance,  # trials are always bounded
            )
            paced = policy if rounds is None else rounds.paced(policy, board, row)
            choice = paced.choose(board, rng=self._rng)
            decision = decision_of(
                self._names, paced, board, choice, expected, row, waits, excluded
            )
            if rounds is None or not takes:
                break
            if rounds.reserve(decision.id, board, choice, row):
                break
        return decision, board, choice, paced

    def _online(
        self, contexts: FloatArray, expected: Forecast
    ) -> tuple[Forecast, FloatArray]:
        """Return what is expected now, and uncertainty (n, n_candidates)."""
        self._check_in_office()
        learned = self._experience
        raised = expected.quality + learned.corrections(contexts, self._names)
        lengths, costs = learned.factors(self._names)
        np.maximum(raised, 0.0, out=raised)
        now = Forecast(
            np.minimum(raised, 1.0, out=raised),
            expected.output_tokens * lengths,
            expected.cost * costs,
            expected.input_tokens,
        )
        return now, learned.designs.widths(contexts, self._names)

    def _spread(
        self, contexts: FloatArray, policy: MetaDecisionMaker
    ) -> FloatArray | None:
        """Return posterior deviations, if they are drawn from."""
        if not policy.exploration or policy.exploration_form != "thompson":
            return None
        return self._experience.spreads(contexts, self._names)

    def _book(self, board: Scoreboard, choice: Choice, worth: float) -> None:
        """Charge what exploring adds to the bill, and count a newcomer's trial."""
        cost = float(board.cost[choice.index])
        extra = cost - float(board.cost[choice.greedy])
        if not self._exploration_is_capped:
            if not choice.is_a_trial(board):
                extra = 0.0
            # Where answers are free a newcomer that is not would never be tried.
            cost = cost or _FREE_COUNTS * worth
        self._exploration.book(cost, extra)
        name = self._names[choice.index]
        self._experience.trials.assigned(name)
        self._experience.looks.decided(name)

    def _by_name(self, values: Mapping[str, float]) -> FloatArray:
        return np.array([values.get(name, 0.0) for name in self._names])

    def _check_in_office(self) -> None:
        if self.retired:
            raise RetiredError

    def _eligible(self, excluded: Mapping[str, str]) -> NDArray[np.bool_]:
        if not excluded:
            return self._everyone
        return np.array([name not in excluded for name in self._names])

    def _excluded(
        self,
        cost: FloatArray,
        input_tokens: int,
        *,
        is_given: bool,
        terms: Terms,
    ) -> dict[str, str]:
        """Return who may not compete, by `hard_limits`; mostly there is nobody."""
        if not terms.excludes_by_name() and input_tokens <= self._narrowest:
            most = terms.max_cost_per_query
            if most is None or bool((cost <= most).all()):
                return {}
        return hard_limits(
            self._candidates,
            cost=cost,
            input_tokens=input_tokens,
            input_tokens_are_estimated=not is_given,
            terms=terms,
        )
