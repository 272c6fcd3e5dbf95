"""A weighted mean of other kinds, weighted by what each was worth out of fold."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.predictors.base import (
    Arrays,
    Predictor,
    PredictorKind,
    column_means,
)
from mixllm_integrations.core.predictors.forest import ForestPredictor
from mixllm_integrations.core.predictors.linear import RidgePredictor
from mixllm_integrations.core.predictors.mlp import MlpPredictor
from mixllm_integrations.core.types import FloatArray

__all__ = ["MEMBERS", "EnsemblePredictor", "mixing_weights"]

MEMBERS: dict[PredictorKind, type[Predictor]] = {
    "ridge": RidgePredictor,
    "forest": ForestPredictor,
    "mlp": MlpPredictor,
}
_LEAST_WEIGHT = 0.05  # a member with less is not worth its time
_EQUAL: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)


def mixing_weights(predictions: list[FloatArray], targets: FloatArray) -> list[float]:
    """Return non-negative weights, summing to 1, of predictions out of fold.

    Parameters
    ----------
    predictions
        One array ``(n, n_candidates)`` per member.
    targets
        Labels of the same shape, NaN where unlabelled.

    Notes
    -----
    Stacking: least squares on what each member says above the candidate's
    mean; weights below 0.05 become 0. Our choice, and so are the members:
    neighbours beside them cost more time than any and added nothing.

    Examples
    --------
    >>> y = np.arange(8.0).reshape(4, 2)
    >>> [round(weight, 6) for weight in mixing_weights([y, 7.0 - y], y)]
    [1.0, 0.0]
    """
    from scipy.optimize import nnls

    labelled = np.isfinite(targets)
    means = column_means(targets)
    above = np.column_stack([(p - means)[labelled] for p in predictions])
    truth = (targets - means)[labelled]
    weights, _ = nnls(above, truth)
    weights = np.where(weights < _LEAST_WEIGHT * weights.sum(), 0.0, weights)
    total = float(weights.sum())
    if not total > 0:
        return [1 / len(predictions)] * len(predictions)
    return [float(w) / total for w in weights]


@dataclass(frozen=True, slots=True, eq=False)
class EnsemblePredictor:
    """Weighted mean of ridge, forest and network.

    Parameters
    ----------
    members
        Fitted predictors of the same candidates.
    weights
        One per member, summing to 1.
    """

    members: tuple[Predictor, ...]
    weights: tuple[float, ...]
    kind: ClassVar[PredictorKind] = "ensemble"

    @classmethod
    def fit(
        cls,
        contexts: FloatArray,
        targets: FloatArray,
        *,
        seed: int,
        weights: tuple[float, ...] = _EQUAL,
    ) -> Self:
        """Fit every member that has weight.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        targets
            Shape ``(n, n_candidates)``, NaN where unlabelled.
        seed
            Of the members.
        weights
            Of `MEMBERS`, in that order.
        """
        used = [
            (kind.fit(contexts, targets, seed=seed), weight)
            for kind, weight in zip(MEMBERS.values(), weights, strict=True)
            if weight > 0
        ]
        return cls(tuple(m for m, _ in used), tuple(w for _, w in used))

    def predict(self, contexts: FloatArray) -> FloatArray:
        """Return predictions, shape ``(n, n_candidates)``.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        """
        parts = zip(self.members, self.weights, strict=True)
        first, *others = (w * m.predict(contexts) for m, w in parts)
        for other in others:
            first += other
        return first

    def select(self, columns: NDArray[np.intp]) -> Self:
        """Return the same predictor for some of its candidates.

        Parameters
        ----------
        columns
            Which, in which order.
        """
        return type(self)(tuple(m.select(columns) for m in self.members), self.weights)

    def state(self) -> Arrays:
        """Return all that was learned as arrays by name."""
        arrays: Arrays = {"weights": np.array(self.weights)}
        for member in self.members:
            for name, array in member.state().items():
                arrays[f"{member.kind}.{name}"] = array
        return arrays

    @classmethod
    def from_state(cls, arrays: Arrays) -> Self:
        """Return the predictor that `state` described.

        Parameters
        ----------
        arrays
            What `state` returned.
        """
        members = []
        for kind, member in MEMBERS.items():
            start = f"{kind}."
            own = {
                n.removeprefix(start): a
                for n, a in arrays.items()
                if n.startswith(start)
            }
            if own:
                members.append(member.from_state(own))
        return cls(
            tuple(members), tuple(float(w) for w in np.asarray(arrays["weights"]))
        )
