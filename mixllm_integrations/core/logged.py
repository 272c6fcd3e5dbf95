"""Beneath `offpolicy`: what was decided, and what came of it, as arrays."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import FloatArray

__all__ = ["LoggedDecisions", "require_shape"]

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class LoggedDecisions:
    """What was decided, what came of it, and what was expected of all candidates.

    Parameters
    ----------
    chosen
        Place of the candidate that was chosen, shape ``(n_decisions,)``.
    propensity
        Probability of that choice, in (0, 1], same shape.
    reward
        Feedback on the answer; NaN where none came. Same shape.
    cost
        What the answer cost in USD; NaN where unknown. Same shape.
    predicted_reward
        Predicted quality, shape ``(n_decisions, n_candidates)``.
    predicted_cost
        Predicted cost in USD, shape ``(n_decisions, n_candidates)``.
    eligible
        Who might have been chosen, shape ``(n_decisions, n_candidates)``; the
        predictions of the others are not looked at.

    Raises
    ------
    ConfigurationError
        If there is no decision, or shapes or values do not fit together.
    """

    chosen: NDArray[np.intp]
    propensity: FloatArray
    reward: FloatArray
    cost: FloatArray
    predicted_reward: FloatArray
    predicted_cost: FloatArray
    eligible: NDArray[np.bool_]

    def __post_init__(self) -> None:
        n = len(self.chosen)
        if not n:
            raise ConfigurationError("there is no decision to evaluate a policy on")
        wide = (n, self.eligible.shape[-1])
        for name in ("propensity", "reward", "cost"):
            require_shape(getattr(self, name), (n,), name)
        for name in ("predicted_reward", "predicted_cost", "eligible"):
            require_shape(getattr(self, name), wide, name)
        if not ((self.propensity > 0.0) & (self.propensity <= 1.0)).all():
            raise ConfigurationError("every propensity must be in (0, 1]")
        if self.chosen.min() < 0 or self.chosen.max() >= wide[1]:
            raise ConfigurationError(
                f"every chosen candidate must be one of the {wide[1]} columns"
            )
        if not self.of_chosen(self.eligible).all():
            raise ConfigurationError("a candidate was chosen that was not eligible")
        for name in ("predicted_reward", "predicted_cost"):
            if not np.isfinite(getattr(self, name)[self.eligible]).all():
                raise ConfigurationError(f"{name} of an eligible candidate is missing")

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def has_feedback(self) -> NDArray[np.bool_]:
        """Which decisions have a reward."""
        return np.isfinite(self.reward)

    def of_chosen(self, columns: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """Return what a matrix over all candidates says of the chosen ones.

        Parameters
        ----------
        columns
            Shape ``(n_decisions, n_candidates)``.
        """
        return columns[np.arange(len(self.chosen)), self.chosen]

    def only(self, rows: NDArray[np.bool_]) -> "LoggedDecisions":
        """Return some of the decisions.

        Parameters
        ----------
        rows
            Which, shape ``(n_decisions,)``; at least one.
        """
        return LoggedDecisions(
            self.chosen[rows],
            self.propensity[rows],
            self.reward[rows],
            self.cost[rows],
            self.predicted_reward[rows],
            self.predicted_cost[rows],
            self.eligible[rows],
        )

    @property
    def known_cost(self) -> FloatArray:
        """What each answer cost in USD; as predicted where that is unknown."""
        expected = self.of_chosen(self.predicted_cost)
        return np.where(np.isfinite(self.cost), self.cost, expected)

    def over_all(self, terms: FloatArray) -> FloatArray:
        """Let decisions with feedback stand for the others for the same candidate.

        Those without get their candidate's mean, those with it that and more of
        their own departure: so mean and spread are right for all decisions.

        Parameters
        ----------
        terms
            One per decision, looked at only where there is feedback.

        Returns
        -------
        NDArray
            One per decision. 0 for candidates that nobody ever judged.

        Notes
        -----
        Source: our choice; post-stratification by candidate, linearised.
        """
        told = self.has_feedback
        n_columns, answered = self.eligible.shape[1], self.chosen[told]
        heard = np.bincount(answered, minlength=n_columns)
        sums = np.bincount(answered, weights=terms[told], minlength=n_columns)
        means = sums / np.maximum(heard, 1)
        share = np.bincount(self.chosen, minlength=n_columns) / np.maximum(heard, 1)
        filled: FloatArray = means[self.chosen]
        filled[told] += (terms[told] - means[answered]) * share[answered]
        return filled


def require_shape(
    values: NDArray[np.generic], shape: tuple[int, ...], name: str
) -> None:
    """Check that an array has the shape it must have.

    Parameters
    ----------
    values
        The array.
    shape
        What it must be.
    name
        How to name it in the error.

    Raises
    ------
    ConfigurationError
        If it has another one.
    """
    if values.shape != shape:
        raise ConfigurationError(f"{name} must have shape {shape}, not {values.shape}")
