"""Stage 8: the meta decision maker. After the hard limits a score, then its argmax.

Every term of the score is in units of quality, so that exploration and waiting
keep their meaning whatever one point of quality is worth.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.errors import ConfigurationError, NoCandidateError
from mixllm_integrations.core.types import FloatArray, number_between

__all__ = [
    "EXPLORATION_FORMS",
    "Choice",
    "ExplorationForm",
    "MetaDecisionMaker",
    "Policy",
    "Scoreboard",
]

ExplorationForm = Literal["width", "leverage"]
EXPLORATION_FORMS: tuple[ExplorationForm, ...] = get_args(ExplorationForm)

_HIGHEST_CHARGE = 1e300  # keeps cost / tiny willingness from becoming infinite


class Scoreboard(NamedTuple):
    """What is expected of each candidate for one query.

    Parameters
    ----------
    quality
        Predicted quality, shape ``(n_candidates,)`` like all of these.
    cost
        Predicted cost in USD.
    uncertainty
        Width sqrt(xᵀA⁻¹x) of the candidate's design matrix.
    waiting_penalty
        What its queue is charged, before the weight.
    eligible
        Whether the hard limits leave it in the competition.
    head_start
        What else speaks for it, in units of quality; ``None``: nothing.
    """

    quality: FloatArray
    cost: FloatArray
    uncertainty: FloatArray
    waiting_penalty: FloatArray
    eligible: NDArray[np.bool_]
    head_start: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """Which candidate a policy chose.

    Parameters
    ----------
    index
        Its place in the scoreboard.
    scores
        What was compared, in units of quality, shape ``(n_candidates,)``;
        ``-inf`` where not eligible.
    explored
        Whether it differs from the choice without the exploration term.
    propensity
        Probability with which the policy makes this choice.
    """

    index: int
    scores: FloatArray
    explored: bool = False
    propensity: float = 1.0


class Policy(Protocol):
    """Anything that can choose one candidate from a scoreboard."""

    def choose(self, board: Scoreboard) -> Choice:
        """Return the choice.

        Parameters
        ----------
        board
            Expectations of every candidate.

        Returns
        -------
        Choice
            An eligible candidate.

        Raises
        ------
        NoCandidateError
            If none is eligible.
        """
        ...


@dataclass(slots=True, kw_only=True)
class MetaDecisionMaker:
    """Score = quality - cost / λ + exploration · width - waiting_weight · penalty.

    The highest score wins. Ties go to the cheaper candidate, then to the one
    declared first; never to chance.

    Parameters
    ----------
    willingness_to_pay
        λ: USD for one whole point of quality, above 0. Infinity: cost decides
        ties only.
    exploration
        Weight of the uncertainty; 0 turns exploration off.
    waiting_weight
        Weight of the waiting penalty; 0 turns it off.
    exploration_form
        ``"width"`` adds the width, ``"leverage"`` its square.

    Raises
    ------
    ConfigurationError
        If a setting, at construction or later, cannot be used.

    Notes
    -----
    Source: MixLLM Eq. 7–11. Dividing the cost by λ, so that all terms are in
    units of quality, is our choice, as is the root in ``"width"``; the paper
    has the leverage xᵀA⁻¹x. Without exploration and waiting the argmax is that
    of ``λ·quality - cost``.

    Examples
    --------
    >>> board = Scoreboard(
    ...     quality=np.array([0.6, 0.9]), cost=np.array([0.001, 0.011]),
    ...     uncertainty=np.zeros(2), waiting_penalty=np.zeros(2),
    ...     eligible=np.array([True, True]))
    >>> MetaDecisionMaker(willingness_to_pay=0.02).choose(board).index
    0
    >>> MetaDecisionMaker(willingness_to_pay=0.05).choose(board).index
    1
    """

    willingness_to_pay: float = 0.01
    exploration: float = 0.01
    waiting_weight: float = 0.1
    exploration_form: ExplorationForm = "width"

    def __setattr__(self, name: str, value: object) -> None:
        if name == "willingness_to_pay":
            value = number_between(value, name, low_is_allowed=False)
        elif name in {"exploration", "waiting_weight"}:
            value = number_between(value, name, high_is_allowed=False)
        elif name == "exploration_form" and value not in EXPLORATION_FORMS:
            raise ConfigurationError(
                f"exploration_form must be one of {EXPLORATION_FORMS}, not {value!r}"
            )
        object.__setattr__(self, name, value)

    def choose(self, board: Scoreboard) -> Choice:
        """Return the eligible candidate with the highest score.

        Parameters
        ----------
        board
            Expectations of every candidate. One whose numbers give no number
            as its score loses to all others, but stays as the last resort.

        Returns
        -------
        Choice
            The choice; its propensity is 1.

        Raises
        ------
        NoCandidateError
            If none is eligible.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            greedy = self._without_exploration(board)
            if not self.exploration:
                index, greedy = _best(greedy, board)
                return Choice(index, greedy)
            bonus = board.uncertainty
            if self.exploration_form == "leverage":
                bonus = bonus * bonus
            scores = greedy + self.exploration * bonus
        index, scores = _best(scores, board)
        alone, _ = _best(greedy, board)
        return Choice(index, scores, explored=index != alone)

    def _without_exploration(self, board: Scoreboard) -> FloatArray:
        charge = np.minimum(board.cost / self.willingness_to_pay, _HIGHEST_CHARGE)
        scores = board.quality - charge
        if self.waiting_weight and np.count_nonzero(board.waiting_penalty):
            scores -= self.waiting_weight * board.waiting_penalty
        if board.head_start is not None:
            scores += board.head_start
        return scores


def _best(scores: FloatArray, board: Scoreboard) -> tuple[int, FloatArray]:
    """Return whose score is highest, and the scores, -inf where there is none."""
    if np.count_nonzero(board.eligible) < scores.size:
        scores = np.where(board.eligible, scores, -np.inf)
    if not scores.size:
        raise NoCandidateError
    best = int(scores.argmax())
    if math.isnan(scores[best]):  # argmax finds the first NaN, if there is any
        scores = np.where(np.isnan(scores), -np.inf, scores)
        best = int(scores.argmax())
    tied = scores == scores[best]
    if np.count_nonzero(tied) == 1 and board.eligible[best]:
        return best, scores
    among = np.flatnonzero(tied & board.eligible)
    if not among.size:
        raise NoCandidateError
    costs = board.cost[among]
    cheapest = np.argmin(np.where(np.isnan(costs), np.inf, costs))
    return int(among[cheapest]), scores
