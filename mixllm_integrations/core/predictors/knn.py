"""Nearest neighbours: one search for all candidates, over the same queries."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.predictors.base import (
    Arrays,
    PredictorKind,
    column_means,
)
from mixllm_integrations.core.types import FloatArray

__all__ = ["KnnPredictor"]

_MOST_QUERIES = 4_096  # bounds the time of a search, whatever was fitted
_MOST_NEIGHBOURS, _FEWEST_NEIGHBOURS, _SHARE = 80, 5, 12
_SHRINKAGE = 2.0  # labels' worth of the candidate's mean among the neighbours
_CHUNK = 512


@dataclass(frozen=True, slots=True, eq=False)
class KnnPredictor:
    """Mean label of the nearest training queries.

    Parameters
    ----------
    points
        Contexts of the training queries, shape ``(n, n_features)``.
    labels
        Shape ``(n, n_candidates)``, NaN where unlabelled.
    means
        Each candidate's mean label, shape ``(n_candidates,)``.
    neighbours
        How many are asked.

    Notes
    -----
    Source: MixLLM Eq. 5 for kNN (there for length). Neighbours are found in
    the tag-enhanced context; shrinking is our choice.
    """

    points: NDArray[np.float32]
    labels: NDArray[np.float32]
    means: FloatArray
    neighbours: int
    kind: ClassVar[PredictorKind] = "knn"

    @classmethod
    def fit(cls, contexts: FloatArray, targets: FloatArray, *, seed: int) -> Self:
        """Keep the training queries, at most 4,096 of them.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        targets
            Shape ``(n, n_candidates)``, NaN where unlabelled.
        seed
            Decides which are kept.
        """
        means = column_means(targets)
        kept = np.random.default_rng(seed).permutation(len(contexts))[:_MOST_QUERIES]
        share = len(kept) // _SHARE
        neighbours = min(max(share, _FEWEST_NEIGHBOURS), _MOST_NEIGHBOURS, len(kept))
        return cls(
            np.ascontiguousarray(contexts[kept], dtype=np.float32),
            np.ascontiguousarray(targets[kept], dtype=np.float32),
            means,
            neighbours,
        )

    def predict(self, contexts: FloatArray) -> FloatArray:
        """Return predictions, shape ``(n, n_candidates)``.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        """
        lengths = np.einsum("ij,ij->i", self.points, self.points)
        found = np.empty((len(contexts), self.labels.shape[1]))
        for start in range(0, len(contexts), _CHUNK):
            x = contexts[start : start + _CHUNK].astype(np.float32)
            distance = lengths - 2.0 * (x @ self.points.T)
            last = self.neighbours - 1
            near = np.argpartition(distance, last, axis=1)[:, : self.neighbours]
            above = self.labels[near] - self.means
            known = np.isfinite(above)
            total = np.where(known, above, 0.0).sum(axis=1)
            found[start : start + _CHUNK] = self.means + total / (
                known.sum(axis=1) + _SHRINKAGE
            )
        return found

    def select(self, columns: NDArray[np.intp]) -> Self:
        """Return the same predictor for some of its candidates.

        Parameters
        ----------
        columns
            Which, in which order.
        """
        return type(self)(
            self.points,
            np.ascontiguousarray(self.labels[:, columns]),
            self.means[columns],
            self.neighbours,
        )

    def state(self) -> Arrays:
        """Return all that was learned as arrays by name."""
        labels = self.labels
        return {
            "points": self.points,
            "labels": np.nan_to_num(labels, nan=0.0),
            "labelled": np.isfinite(labels),
            "means": self.means,
            "neighbours": np.array([self.neighbours], dtype=np.int32),
        }

    @classmethod
    def from_state(cls, arrays: Arrays) -> Self:
        """Return the predictor that `state` described.

        Parameters
        ----------
        arrays
            What `state` returned.
        """
        labels = np.asarray(arrays["labels"], dtype=np.float32)
        labelled = np.asarray(arrays["labelled"], dtype=np.bool_)
        return cls(
            np.asarray(arrays["points"], dtype=np.float32),
            np.where(labelled, labels, np.float32(np.nan)),
            np.asarray(arrays["means"], dtype=np.float64),
            int(np.asarray(arrays["neighbours"])[0]),
        )
