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
from mixllm_integrations.core.thompson import chances_of_winning
from mixllm_integrations.core.types import FloatArray, number_between

__all__ = [
    "EXPLORATION_FORMS",
    "Choice",
    "ExplorationForm",
    "MetaDecisionMaker",
    "Policy",
    "Scoreboard",
]

ExplorationForm = Literal["width", "leverage", "thompson"]
EXPLORATION_FORMS: tuple[ExplorationForm, ...] = get_args(ExplorationForm)

_HIGHEST_CHARGE = 1e300  # keeps cost / tiny willingness from becoming infinite
_LOWEST_CHANCE = 1e-12  # of what did happen; its inverse is a weight in estimates
_DEVIATIONS = (1e-12, 1e3)  # less is certain, more says nothing


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
    spread
        Standard deviation of the predicted quality, by what was learned so far;
        the form ``"thompson"`` needs it.
    optimism
        What speaks for trying it, in units of quality; ``None``: nothing.
    exploration_allowance
        USD that exploring may cost more than the choice without exploration.
    optimism_allowance
        USD that it may while there is optimism, lots and draws of those apart
        that nothing but their spread speaks for.
    """

    quality: FloatArray
    cost: FloatArray
    uncertainty: FloatArray
    waiting_penalty: FloatArray
    eligible: NDArray[np.bool_]
    head_start: FloatArray | None = None
    spread: FloatArray | None = None
    optimism: FloatArray | None = None
    exploration_allowance: float = math.inf
    optimism_allowance: float = math.inf


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """Which candidate a policy chose.

    Parameters
    ----------
    index
        Its place in the scoreboard.
    scores
        What was compared, in units of quality, shape ``(n_candidates,)``;
        ``-inf`` where not eligible. The choice has the highest one unless it
        was made at random.
    greedy
        Place of the choice without exploration.
    propensity
        Probability with which the policy makes this choice, above 0.
    by_lot
        Whether a lot has made it.
    """

    index: int
    scores: FloatArray
    greedy: int
    propensity: float = 1.0
    by_lot: bool = False

    @property
    def explored(self) -> bool:
        """Whether it differs from the choice without exploration."""
        return self.index != self.greedy

    def is_a_trial(self, board: Scoreboard) -> bool:
        """Tell whether the board's `optimism_allowance` has to pay for it."""
        if board.optimism is None or self.by_lot:
            return False
        return board.spread is None or bool(board.optimism[self.index])


class Policy(Protocol):
    """Anything that can choose one candidate from a scoreboard."""

    def choose(
        self, board: Scoreboard, *, rng: np.random.Generator | None = None
    ) -> Choice:
        """Return the choice.

        Parameters
        ----------
        board
            Expectations of every candidate.
        rng
            The only source of chance; a policy without any does not touch it.

        Returns
        -------
        Choice
            An eligible candidate.

        Raises
        ------
        NoCandidateError
            If none is eligible.
        ConfigurationError
            If the policy needs chance and there is no `rng`.
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
        Weight of the uncertainty; 0 turns exploration off, the board's optimism
        included. With ``"thompson"`` it is on or off, no weight.
    waiting_weight
        Weight of the waiting penalty; 0 turns it off.
    exploration_form
        ``"width"`` adds the width, ``"leverage"`` its square; ``"thompson"``
        draws each quality from a normal around its prediction.
    exploration_spread
        Standard deviation of those draws, in units of the board's spread.
    randomisation
        Share of the decisions, in [0, 1], that are made by lot: among all that
        may be chosen, each as probably, whatever `exploration` is.

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

    Our choice: Thompson sampling, lots, optimism, and the allowances: whoever
    costs more than the choice without exploration by more than that gets no
    bonus and is not drawn, or has no optimism. Draws are not cut to [0, 1].

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
    exploration_spread: float = 1.0
    randomisation: float = 0.0

    def __setattr__(self, name: str, value: object) -> None:
        if name == "willingness_to_pay":
            value = number_between(value, name, low_is_allowed=False)
        elif name == "randomisation":
            value = number_between(value, name, high=1.0)
        elif name != "exploration_form":
            value = number_between(value, name, high_is_allowed=False)
        elif value not in EXPLORATION_FORMS:
            raise ConfigurationError(
                f"exploration_form must be one of {EXPLORATION_FORMS}, not {value!r}"
            )
        object.__setattr__(self, name, value)

    @property
    def is_random(self) -> bool:
        """Whether `choose` needs a source of chance, as it is set now."""
        return self.randomisation > 0.0 or self._samples

    @property
    def _samples(self) -> bool:
        return self.exploration_form == "thompson" and self.exploration > 0.0

    def choose(
        self, board: Scoreboard, *, rng: np.random.Generator | None = None
    ) -> Choice:
        """Return the eligible candidate with the highest score, or one by lot.

        Parameters
        ----------
        board
            Expectations of every candidate. One whose numbers give no number
            as its score loses to all others, but stays as the last resort.
        rng
            What chance comes from; only asked if `is_random`.

        Returns
        -------
        Choice
            The choice; its propensity is exact, and 1 without chance.

        Raises
        ------
        NoCandidateError
            If none is eligible.
        ConfigurationError
            If `is_random` and there is no `rng`, or a form needs what the board
            does not have.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            greedy, plain = _best(self._without_exploration(board), board)
            if self.randomisation or self.exploration_form == "thompson":
                return self._by_chance(board, plain, greedy, rng)
            if not self.exploration:
                return Choice(greedy, plain, greedy)
            index, scores = self._with_bonus(board, plain, greedy)
        return Choice(index, scores, greedy)

    def _without_exploration(self, board: Scoreboard) -> FloatArray:
        charge = np.minimum(board.cost / self.willingness_to_pay, _HIGHEST_CHARGE)
        scores = board.quality - charge
        if self.waiting_weight and np.count_nonzero(board.waiting_penalty):
            scores -= self.waiting_weight * board.waiting_penalty
        if board.head_start is not None:
            scores += board.head_start
        return scores

    def _with_bonus(
        self, board: Scoreboard, plain: FloatArray, greedy: int
    ) -> tuple[int, FloatArray]:
        """Return whom the uncertainty and the optimism speak for, and the scores."""
        bonus = board.uncertainty
        if self.exploration_form == "leverage":
            bonus = bonus * bonus
        scores = plain + self.exploration * bonus
        allowance = board.exploration_allowance
        if board.optimism is not None:
            scores += board.optimism
            allowance = min(allowance, board.optimism_allowance)
        index, scores = _best(scores, board)
        if index != greedy and allowance != math.inf:
            allowed = _allowed(board, greedy, allowance)
            index, _ = _best(np.where(allowed, scores, -np.inf), board)
            scores = np.where(allowed, scores, plain)
        return index, scores

    def _by_chance(
        self,
        board: Scoreboard,
        plain: FloatArray,
        greedy: int,
        rng: np.random.Generator | None,
    ) -> Choice:
        """Return what the form chooses, or a lot, with its exact probability."""
        if not self.is_random:
            return Choice(greedy, plain, greedy)
        if rng is None:
            raise ConfigurationError(
                f"exploration_form {self.exploration_form!r} with randomisation "
                f"{self.randomisation!r} decides by chance: pass `rng`, a "
                "numpy.random.Generator"
            )
        among = _by_price(board, plain, greedy)
        if among.size == 1:
            return Choice(greedy, plain, greedy)
        index, scores, chances = greedy, plain, np.zeros(plain.size)
        if self._samples:
            index, scores, chances[among] = self._sampled(
                board, plain, greedy, among, rng
            )
        else:
            if self.exploration:
                index, scores = self._with_bonus(board, plain, greedy)
            chances[index] = 1.0
        by_lot = False
        if self.randomisation:
            chances *= 1.0 - self.randomisation
            chances[among] += self.randomisation / among.size
            by_lot = rng.random() < self.randomisation
            if by_lot:
                index = int(among[rng.integers(among.size)])
        chance = max(float(chances[index]), _LOWEST_CHANCE)
        return Choice(index, scores, greedy, chance, by_lot)

    def _sampled(
        self,
        board: Scoreboard,
        plain: FloatArray,
        greedy: int,
        among: NDArray[np.intp],
        rng: np.random.Generator,
    ) -> tuple[int, FloatArray, FloatArray]:
        """Return who drew the highest, all scores, and the chances of `among`."""
        if board.spread is None:
            raise ConfigurationError(
                'exploration_form "thompson" needs the spread of the predictions; '
                "give the scoreboard a `spread`"
            )
        spread = self.exploration_spread * board.spread[among]
        spread[~(spread >= _DEVIATIONS[0])] = 0.0  # NaN as well
        np.minimum(spread, _DEVIATIONS[1], out=spread)
        means = plain[among] - plain[greedy]  # or the cost may drown the draws
        if board.optimism is not None:
            means += np.nan_to_num(board.optimism[among])
            # On trial, and too dear to be tried: it does not stand out any more.
            barred = ~_allowed(board, greedy, board.optimism_allowance)[among]
            barred &= board.optimism[among] > 0.0
            means[barred], spread[barred] = -_HIGHEST_CHARGE, 0.0
        drawn = means + spread * rng.standard_normal(plain.size)[among]
        scores = plain.copy()
        scores[among] = plain[greedy] + drawn
        chances = chances_of_winning(means, spread)
        return int(among[drawn.argmax()]), scores, chances


def _allowed(board: Scoreboard, greedy: int, allowance: float) -> NDArray[np.bool_]:
    """Return who may be chosen to explore; the choice without exploring always."""
    most = board.cost[greedy] + allowance
    allowed: NDArray[np.bool_] = board.eligible & (board.cost <= most)
    allowed[greedy] = True
    return allowed


def _by_price(board: Scoreboard, plain: FloatArray, greedy: int) -> NDArray[np.intp]:
    """Return who may be chosen by chance; of equals the first one wins."""
    if not math.isfinite(plain[greedy]):
        return np.array([greedy])
    allowed = _allowed(board, greedy, board.exploration_allowance)
    among = np.flatnonzero(allowed & np.isfinite(plain))
    return among[board.cost[among].argsort(kind="stable")]


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
