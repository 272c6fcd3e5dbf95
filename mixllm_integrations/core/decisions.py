"""What a choice becomes: the decision that is handed out, and what is kept of it.

Beside `decide`, which makes the choice.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mixllm_integrations.core.experience import Experience
from mixllm_integrations.core.forecast import Forecast
from mixllm_integrations.core.pending import PendingDecision
from mixllm_integrations.core.policy import Choice, MetaDecisionMaker, Scoreboard
from mixllm_integrations.core.predictions import N_FIELDS, Predictions
from mixllm_integrations.core.types import Decision, FloatArray

__all__ = ["Expectation", "decision_of", "discounted", "pending_of"]


class Expectation(NamedTuple):
    """What is known of the queries of a batch before any is decided.

    Parameters
    ----------
    contexts
        Context vectors, shape ``(n_queries, n_features)``.
    offline, now
        What the offline heads expect, and what is expected with all that was
        learned since.
    uncertainty
        Shape ``(n_queries, n_candidates)``.
    novelty
        How far each query is from what was learned from, shape ``(n_queries,)``.
    token_cost
        What real costs are compared with, in USD, as `uncertainty`.
    spread
        Deviations of the qualities, as `uncertainty`; ``None``: not needed.
    head_start
        What else speaks for each candidate; ``None``: nothing.
    """

    contexts: FloatArray
    offline: Forecast
    now: Forecast
    uncertainty: FloatArray
    novelty: FloatArray
    token_cost: FloatArray
    spread: FloatArray | None = None
    head_start: FloatArray | None = None


def discounted(
    now: Forecast, token_cost: FloatArray, saved: FloatArray
) -> tuple[Forecast, FloatArray]:
    """Return what is expected less the discounts, and what tokens then cost.

    The second is what the real cost is compared with: a discount that was
    foreseen must not pass for a candidate that is cheaper than its prices.

    Parameters
    ----------
    now, token_cost
        Without them.
    saved
        The discount of each candidate in USD, shape ``(n_candidates,)``.
    """
    cost = np.maximum(now.cost - saved, 0.0)
    share = np.divide(cost, now.cost, out=np.ones_like(cost), where=now.cost > 0)
    return replace(now, cost=cost), token_cost * share


def decision_of(
    names: Sequence[str],
    policy: MetaDecisionMaker,
    board: Scoreboard,
    choice: Choice,
    expected: Expectation,
    row: int,
    waits: FloatArray,
    excluded: Mapping[str, str],
) -> Decision:
    """Return the decision that is handed out, with an id of its own.

    Parameters
    ----------
    names
        Of the candidates.
    policy, board, choice
        Who chose, from what, and whom.
    expected, row
        Of which query.
    waits
        Expected seconds, shape ``(n_candidates,)``.
    excluded
        Who was not allowed to compete, and why.
    """
    columns = np.empty((N_FIELDS, len(names)))
    columns[0] = board.quality
    columns[1] = expected.now.output_tokens[row]
    columns[2] = board.cost
    columns[3] = board.uncertainty
    columns[4] = waits
    columns[5] = board.waiting_penalty
    columns[6] = choice.scores
    return Decision(
        id=os.urandom(16).hex(),
        candidate=names[choice.index],
        scores=Predictions(tuple(names), columns),
        willingness_to_pay=policy.willingness_to_pay,
        explored=choice.explored,
        propensity=choice.propensity,
        excluded=excluded,
        input_tokens=int(expected.now.input_tokens[row]),
        # Draws are no bonus: who replays a log must not add one in their place.
        exploration=0.0
        if policy.exploration_form == "thompson"
        else policy.exploration,
        waiting_weight=policy.waiting_weight,
        novelty=float(expected.novelty[row]),
    )


def pending_of(
    decision: Decision,
    expected: Expectation,
    at: tuple[int, int],
    experience: Experience,
) -> PendingDecision:
    """Return what is kept of a decision until its outcome and feedback are there.

    Parameters
    ----------
    decision
        The decision.
    expected
        Of its batch.
    at
        Row of the query and column of the candidate.
    experience
        Whose version and revision are noted.
    """
    return PendingDecision(
        decision_id=decision.id,
        candidate=decision.candidate,
        predicted_quality=float(expected.offline.quality[at]),
        predicted_output_tokens=float(expected.offline.output_tokens[at]),
        input_tokens=decision.input_tokens,
        token_cost=float(expected.token_cost[at]),
        context=expected.contexts[at[0]].astype(np.float32),
        version=experience.version,
        revision=experience.revision,
    )
