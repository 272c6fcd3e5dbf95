"""Ridge regression: one matrix product for all candidates."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.parallel import map_apart
from mixllm_integrations.core.predictors.base import (
    Arrays,
    PredictorKind,
    label_groups,
)
from mixllm_integrations.core.types import FloatArray

__all__ = ["RidgePredictor"]

_PENALTIES = np.geomspace(0.1, 1e4, 21)


@dataclass(frozen=True, slots=True, eq=False)
class RidgePredictor:
    """A linear head per candidate; its penalty by generalised cross-validation.

    Parameters
    ----------
    coefficients
        Shape ``(n_features, n_candidates)``.
    intercepts
        Shape ``(n_candidates,)``.
    """

    coefficients: FloatArray
    intercepts: FloatArray
    kind: ClassVar[PredictorKind] = "ridge"

    @classmethod
    def fit(
        cls,
        contexts: FloatArray,
        targets: FloatArray,
        *,
        seed: int,  # noqa: ARG003
    ) -> Self:
        """Solve the candidates that share labelled queries together.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        targets
            Shape ``(n, n_candidates)``, NaN where unlabelled.
        seed
            Not used: nothing is drawn.
        """
        coefficients = np.zeros((contexts.shape[1], targets.shape[1]))
        intercepts = np.zeros(targets.shape[1])
        groups = label_groups(targets)
        solved = map_apart(_solve, [(contexts, targets, c) for c in groups])
        for columns, (slopes, constants) in zip(groups, solved, strict=True):
            coefficients[:, columns], intercepts[columns] = slopes, constants
        return cls(coefficients, intercepts)

    def predict(self, contexts: FloatArray) -> FloatArray:
        """Return predictions, shape ``(n, n_candidates)``.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        """
        return np.asarray(contexts @ self.coefficients + self.intercepts)

    def select(self, columns: NDArray[np.intp]) -> Self:
        """Return the same predictor for some of its candidates.

        Parameters
        ----------
        columns
            Which, in which order.
        """
        return type(self)(
            np.ascontiguousarray(self.coefficients[:, columns]),
            self.intercepts[columns],
        )

    def state(self) -> Arrays:
        """Return all that was learned as arrays by name."""
        return {"coefficients": self.coefficients, "intercepts": self.intercepts}

    @classmethod
    def from_state(cls, arrays: Arrays) -> Self:
        """Return the predictor that `state` described.

        Parameters
        ----------
        arrays
            What `state` returned.
        """
        return cls(
            np.asarray(arrays["coefficients"], dtype=np.float64),
            np.asarray(arrays["intercepts"], dtype=np.float64),
        )


def _solve(
    contexts: FloatArray, targets: FloatArray, columns: NDArray[np.intp]
) -> tuple[FloatArray, FloatArray]:
    """Return slopes and intercepts of columns that were labelled together."""
    labelled = np.isfinite(targets[:, columns[0]])
    contexts, targets = contexts[labelled], targets[labelled][:, columns]
    n = len(contexts)
    centre, means = contexts.mean(axis=0), targets.mean(axis=0)
    x, y = contexts - centre, targets - means
    values, vectors = np.linalg.eigh(x.T @ x)
    values = np.maximum(values, 0.0)
    moments = vectors.T @ (x.T @ y)
    total = np.maximum((y * y).sum(axis=0), 1e-12)

    def surprise(penalty: float) -> float:
        shrunk = moments / (values + penalty)[:, None]
        fitted = 2 * (moments * shrunk).sum(0) - (values[:, None] * shrunk**2).sum(0)
        freedom = 1 + (values / (values + penalty)).sum()
        if freedom >= n:
            return np.inf
        left = np.maximum(total - fitted, 0.0) / total
        return float(left.mean() * (n / (n - freedom)) ** 2)

    penalty = min(_PENALTIES, key=surprise) if n > 1 else _PENALTIES[-1]
    if not np.isfinite(surprise(penalty)):
        penalty = _PENALTIES[-1]
    slopes = vectors @ (moments / (values + penalty)[:, None])
    return slopes, means - centre @ slopes
