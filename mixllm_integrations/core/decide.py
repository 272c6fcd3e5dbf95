"""One decision: forecast without the lock, look up and choose under it.

Beside `router`, which makes a new `Decider` whenever the candidates or the
knowledge change; the old one is retired and decides nothing any more.
"""

import math
import os
import threading
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.errors import NoCandidateError
from mixllm_integrations.core.experience import Experience
from mixllm_integrations.core.exploring import ExplorationBudget
from mixllm_integrations.core.forecast import Forecast, Forecaster
from mixllm_integrations.core.ledger import DecisionLedger
from mixllm_integrations.core.limits import Terms, hard_limits
from mixllm_integrations.core.pending import PendingDecision
from mixllm_integrations.core.policy import (
    Choice,
    MetaDecisionMaker,
    Scoreboard,
)
from mixllm_integrations.core.predictions import N_FIELDS, Predictions
from mixllm_integrations.core.reading import Reading
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
    rng
        Draws where the policy draws.
    lock
        Guards `experience`, `ledger`, `exploration` and `rng`.

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
        rng: np.random.Generator,
    ) -> None:
        self._forecaster, self._experience = forecaster, experience
        self._policy, self._waiting = policy, waiting
        self._ledger, self._lock = ledger, lock
        self._exploration, self._rng = exploration, rng
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
            Whether each decision counts as load at once.
        remember
            Whether it awaits its outcome and feedback.

        Raises
        ------
        NoCandidateError
            If the limits exclude every candidate for one of the queries; then
            none is decided.
        RetiredError
            If another one has taken over.
        """
        if not self._names:
            raise NoCandidateError
        policy = self._policy
        if terms.willingness_to_pay is not None:
            policy = replace(policy, willingness_to_pay=terms.willingness_to_pay)
        contexts, expected = self._forecast(reading, input_tokens)
        with self._lock:
            now, uncertainty = self._online(contexts, expected)
            token_cost = expected.cost
            if terms.discounts:
                now, token_cost = self._discounted(now, token_cost, terms.discounts)
            head_start = self._by_name(terms.head_start) if terms.head_start else None
            spread = self._spread(contexts, policy)
            learned = self._experience
            novelty = learned.designs.novelty_from(uncertainty, self._names)
            limits = [
                self._excluded(
                    now.cost[row],
                    int(expected.input_tokens[row]),
                    is_given=input_tokens is not None
                    and math.isfinite(input_tokens[row]),
                    terms=terms,
                )
                for row in range(len(contexts))
            ]
            for excluded in limits:
                if len(excluded) == len(self._names):
                    raise NoCandidateError(excluded)
            decisions = []
            for row, excluded in enumerate(limits):
                waits = self._waiting.expected_seconds(self._names)
                penalties = self._waiting.penalties(
                    waits, tolerance_seconds=terms.waiting_tolerance_seconds
                )
                optimism = learned.optimism(self._names) if policy.exploration else None
                allowance = self._exploration.allowance()
                board = Scoreboard(
                    now.quality[row],
                    now.cost[row],
                    uncertainty[row],
                    penalties,
                    self._eligible(excluded),
                    head_start,
                    None if spread is None else spread[row],
                    optimism,
                    allowance if self._exploration_is_capped else math.inf,
                    allowance,  # trials are always bounded
                )
                choice = policy.choose(board, rng=self._rng)
                decision = self._decision(
                    policy, board, choice, now, row, waits, excluded, novelty
                )
                at = row, choice.index
                if remember:
                    self._remember(decision, contexts[row], expected, at, token_cost)
                    self._book(board, choice, policy.willingness_to_pay)
                if charge_load:
                    self._waiting.start(
                        decision.candidate,
                        decision.id,
                        output_tokens=float(now.output_tokens[at]),
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

    def _discounted(
        self, now: Forecast, token_cost: FloatArray, discounts: Mapping[str, float]
    ) -> tuple[Forecast, FloatArray]:
        """Return what is expected less the discounts, and what tokens then cost.

        The second is what the real cost is compared with: a discount that was
        foreseen must not pass for a candidate that is cheaper than its prices.
        """
        cost = np.maximum(now.cost - self._by_name(discounts), 0.0)
        share = np.divide(cost, now.cost, out=np.ones_like(cost), where=now.cost > 0)
        return replace(now, cost=cost), token_cost * share

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

    def _decision(
        self,
        policy: MetaDecisionMaker,
        board: Scoreboard,
        choice: Choice,
        expected: Forecast,
        row: int,
        waits: FloatArray,
        excluded: Mapping[str, str],
        novelty: FloatArray,
    ) -> Decision:
        columns = np.empty((N_FIELDS, len(self._names)))
        columns[0] = board.quality
        columns[1] = expected.output_tokens[row]
        columns[2] = board.cost
        columns[3] = board.uncertainty
        columns[4] = waits
        columns[5] = board.waiting_penalty
        columns[6] = choice.scores
        return Decision(
            id=os.urandom(16).hex(),
            candidate=self._names[choice.index],
            scores=Predictions(self._names, columns),
            willingness_to_pay=policy.willingness_to_pay,
            explored=choice.explored,
            propensity=choice.propensity,
            excluded=excluded,
            input_tokens=int(expected.input_tokens[row]),
            exploration=policy.exploration,
            waiting_weight=policy.waiting_weight,
            novelty=float(novelty[row]),
        )

    def _remember(
        self,
        decision: Decision,
        context: FloatArray,
        expected: Forecast,
        at: tuple[int, int],
        token_cost: FloatArray,
    ) -> None:
        self._ledger.put(
            PendingDecision(
                decision_id=decision.id,
                candidate=decision.candidate,
                predicted_quality=float(expected.quality[at]),
                predicted_output_tokens=float(expected.output_tokens[at]),
                input_tokens=decision.input_tokens,
                token_cost=float(token_cost[at]),
                context=context.astype(np.float32),
                version=self._experience.version,
                revision=self._experience.revision,
            )
        )
