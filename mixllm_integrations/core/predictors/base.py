"""The seam between contexts and the kinds of predictors.

A predictor is fitted once and never changes. It may serve several candidates,
one per column: where they were labelled on the same queries, trees, searches
and matrix products are shared, and no column depends on which others there are
to be kept (`select`).
"""

from typing import ClassVar, Literal, Protocol, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.types import FloatArray

__all__ = [
    "PREDICTOR_KINDS",
    "Arrays",
    "Predictor",
    "PredictorKind",
    "column_means",
    "impute",
    "label_groups",
]

PredictorKind = Literal["ridge", "forest", "knn", "mlp", "ensemble"]
PREDICTOR_KINDS: tuple[PredictorKind, ...] = get_args(PredictorKind)
Arrays: TypeAlias = dict[str, NDArray[np.generic]]


class Predictor(Protocol):
    """Predicts one number per candidate from contexts."""

    kind: ClassVar[PredictorKind]

    @classmethod
    def fit(cls, contexts: FloatArray, targets: FloatArray, *, seed: int) -> Self:
        """Learn from labelled contexts.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``; the last feature is the constant 1.
        targets
            Shape ``(n, n_candidates)``, NaN where a candidate is unlabelled;
            each has at least one label.
        seed
            Decides everything that is drawn.
        """
        ...

    def predict(self, contexts: FloatArray) -> FloatArray:
        """Return predictions, shape ``(n, n_candidates)``.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        """
        ...

    def select(self, columns: NDArray[np.intp]) -> Self:
        """Return the same predictor for some of its candidates.

        Parameters
        ----------
        columns
            Which, in which order.
        """
        ...

    def state(self) -> Arrays:
        """Return all that was learned as arrays by name."""
        ...

    @classmethod
    def from_state(cls, arrays: Arrays) -> Self:
        """Return the predictor that `state` described.

        Parameters
        ----------
        arrays
            What `state` returned.
        """
        ...


def column_means(targets: FloatArray) -> FloatArray:
    """Return each candidate's mean label, shape ``(n_candidates,)``.

    Parameters
    ----------
    targets
        Shape ``(n, n_candidates)``, NaN where unlabelled.
    """
    labelled = np.isfinite(targets)
    sums = np.where(labelled, targets, 0.0).sum(axis=0)
    return np.asarray(sums / np.maximum(labelled.sum(axis=0), 1))


def impute(targets: FloatArray) -> FloatArray:
    """Return targets with the gaps filled by candidate and query effects.

    Parameters
    ----------
    targets
        Shape ``(n, n_candidates)``, NaN where unlabelled.

    Returns
    -------
    FloatArray
        The candidate's mean plus what the query's other labels differ from
        theirs on average, shrunk by one label.

    Examples
    --------
    >>> impute(np.array([[1.0, np.nan], [0.0, 1.0], [0.5, 0.0]])).tolist()[0]
    [1.0, 0.75]
    """
    labelled = np.isfinite(targets)
    if labelled.all():
        return targets
    means = column_means(targets)
    above = np.where(labelled, targets - means, 0.0)
    effect = above.sum(axis=1) / (labelled.sum(axis=1) + 1.0)
    return np.where(labelled, targets, means + effect[:, None])


def label_groups(targets: FloatArray) -> list[NDArray[np.intp]]:
    """Return the columns of candidates that were labelled on the same queries.

    Parameters
    ----------
    targets
        Shape ``(n, n_candidates)``, NaN where unlabelled.

    Examples
    --------
    >>> y = np.array([[1.0, np.nan, 0.0], [0.0, 1.0, 1.0]])
    >>> [group.tolist() for group in label_groups(y)]
    [[1], [0, 2]]
    """
    masks, group = np.unique(np.isfinite(targets), axis=1, return_inverse=True)
    return [np.flatnonzero(group.ravel() == i) for i in range(masks.shape[1])]
