"""A forest of random trees, walked for all candidates at once.

scikit-learn grows the trees; the walk is ours: every tree goes down one level
per step in one vectorised pass, so a decision costs no Python call per tree
and none per candidate.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.parallel import n_jobs, quietly
from mixllm_integrations.core.predictors.base import (
    Arrays,
    PredictorKind,
    column_means,
    impute,
)
from mixllm_integrations.core.types import FloatArray

__all__ = ["ForestPredictor"]

_TREES, _DEPTH, _LEAF, _FEATURES = 64, 14, 12, 0.5
_SHRINKAGE = 2.0  # labels' worth of the candidate's mean in every leaf
_WORTH_THREADS = 2_500  # queries
_CHUNK = 1_024  # queries walked at once
_UPPER_LEVELS = 5  # have so few nodes that testing all of them at once is faster


@dataclass(frozen=True, slots=True, eq=False)
class ForestPredictor:
    """Extremely randomised trees; each leaf knows all candidates.

    Parameters
    ----------
    feature, threshold
        Test of each node, shape ``(n_nodes,)``; a leaf's threshold is infinite.
    child
        Left child of each node, shape ``(n_nodes,)``; the right one is next to
        it, and a leaf is its own.
    n_trees
        How many trees there are; their roots are the first nodes.
    leaf
        Row of `values` for each node; 0 for inner nodes.
    values
        Prediction of each leaf, shape ``(n_leaves, n_candidates)``.
    depth
        Steps from a root to the deepest leaf.

    Attributes
    ----------
    n_upper
        How many nodes the upper levels of all trees have; they are the first.

    Notes
    -----
    Source: MixLLM Eq. 4 for a random forest. Random thresholds, one forest for
    the candidates that were labelled together, and leaves that shrink towards
    the candidate's mean are our choice: as accurate, and faster by the number
    of candidates. Where labels are missing, trees are grown on imputed ones
    and leaves are filled with real ones only.
    """

    feature: NDArray[np.intp]
    threshold: NDArray[np.float32]
    child: NDArray[np.intp]
    n_trees: int
    leaf: NDArray[np.intp]
    values: NDArray[np.float32]
    depth: int
    n_upper: int = field(init=False)
    kind: ClassVar[PredictorKind] = "forest"

    def __post_init__(self) -> None:
        start, end = 0, self.n_trees
        for _ in range(1, _UPPER_LEVELS):
            last = int(self.child[start:end].max(initial=0))  # a leaf is its own
            start, end = end, max(end, last + 2)
        object.__setattr__(self, "n_upper", min(end, len(self.child)))

    @classmethod
    def fit(cls, contexts: FloatArray, targets: FloatArray, *, seed: int) -> Self:
        """Grow the trees and fill their leaves.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        targets
            Shape ``(n, n_candidates)``, NaN where unlabelled.
        seed
            Of the trees.
        """
        from sklearn.ensemble import ExtraTreesRegressor

        labels = impute(targets) / (np.nanstd(targets, axis=0) + 1e-6)
        grown = ExtraTreesRegressor(
            _TREES,
            max_depth=_DEPTH,
            min_samples_leaf=_LEAF,
            max_features=_FEATURES,
            n_jobs=n_jobs(-1) if len(contexts) >= _WORTH_THREADS else 1,
            random_state=seed,
        )
        with quietly():  # its threads may leave the filters empty
            grown.fit(
                contexts.astype(np.float32),
                labels if labels.shape[1] > 1 else labels[:, 0],
            )
        trees = [estimator.tree_ for estimator in grown.estimators_]
        return cls._of_trees(trees, contexts, targets)

    @classmethod
    def _of_trees(
        cls, trees: list[Any], contexts: FloatArray, targets: FloatArray
    ) -> Self:
        """Renumber the nodes level by level over all trees, siblings side by side.

        The upper levels, which every query walks, lie together in memory.
        """
        counts = np.array([tree.node_count for tree in trees])
        first = np.cumsum(counts) - counts
        offset = np.repeat(first, counts)
        left = np.concatenate([t.children_left for t in trees])
        right = np.concatenate([t.children_right for t in trees]) + offset
        is_leaf = left < 0
        left = left + offset
        levels = [first]
        while (inner := levels[-1][~is_leaf[levels[-1]]]).size:
            levels.append(np.column_stack([left[inner], right[inner]]).ravel())
        order = np.concatenate(levels)
        number = np.empty_like(order)
        number[order] = np.arange(len(order))
        is_leaf = is_leaf[order]
        threshold = _rounded_down(np.concatenate([t.threshold for t in trees]))[order]
        feature = np.concatenate([t.feature for t in trees])[order]
        leaf = np.zeros(len(order), dtype=np.intp)
        leaf[is_leaf] = np.arange(is_leaf.sum())
        child = np.where(is_leaf, np.arange(len(order)), number[left[order]])
        forest = cls(
            np.where(is_leaf, 0, feature).astype(np.intp),
            np.where(is_leaf, np.float32(np.inf), threshold),
            child.astype(np.intp),
            len(trees),
            leaf,
            np.zeros((int(is_leaf.sum()), 0), dtype=np.float32),
            len(levels) - 1,
        )
        return forest._filled(contexts, targets)

    def _filled(self, contexts: FloatArray, targets: FloatArray) -> Self:
        labelled = np.isfinite(targets)
        means = column_means(targets)
        above = np.where(labelled, targets - means, 0.0)
        sums = np.zeros((len(self.values), targets.shape[1]))
        counts = np.zeros_like(sums)
        for start in range(0, len(contexts), _CHUNK):
            rows = slice(start, start + _CHUNK)
            for leaves in self._leaves(contexts[rows]).T:
                np.add.at(sums, leaves, above[rows])
                np.add.at(counts, leaves, labelled[rows])
        values = (means + sums / (counts + _SHRINKAGE)).astype(np.float32)
        return self._with(values)

    def _with(self, values: NDArray[np.float32]) -> Self:
        return type(self)(
            self.feature,
            self.threshold,
            self.child,
            self.n_trees,
            self.leaf,
            values,
            self.depth,
        )

    def predict(self, contexts: FloatArray) -> FloatArray:
        """Return predictions, shape ``(n, n_candidates)``.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        """
        found = np.empty((len(contexts), self.values.shape[1]))
        for start in range(0, len(contexts), _CHUNK):
            leaves = self._leaves(contexts[start : start + _CHUNK])
            total = found[start : start + _CHUNK]
            if len(leaves) == 1:
                np.add.reduce(self.values.take(leaves[0], axis=0), axis=0, out=total[0])
                continue
            total[:] = 0.0
            for tree in leaves.T:
                total += self.values.take(tree, axis=0)
        found /= self.n_trees
        return found

    def _leaves(self, contexts: FloatArray) -> NDArray[np.intp]:
        """Return the leaf of every query in every tree, shape (n, n_trees)."""
        flat = contexts.astype(np.float32).ravel()
        feature, threshold, child = self.feature, self.threshold, self.child
        if len(contexts) == 1:  # plain indexing by intp: a third of the time of take
            upper = slice(self.n_upper)
            after = child[upper] + (flat[feature[upper]] > threshold[upper])
            node = after[: self.n_trees]
            for _ in range(1, _UPPER_LEVELS):
                node = after[node]
            for _ in range(_UPPER_LEVELS, self.depth):
                node = child[node] + (flat[feature[node]] > threshold[node])
            return self.leaf[node][None]
        node = np.arange(self.n_trees)
        base = (np.arange(len(contexts)) * contexts.shape[1])[:, None]
        node = np.tile(node, (len(contexts), 1))
        for _ in range(self.depth):
            node = child[node] + (flat[feature[node] + base] > threshold[node])
        return self.leaf[node]

    def select(self, columns: NDArray[np.intp]) -> Self:
        """Return the same predictor for some of its candidates.

        Parameters
        ----------
        columns
            Which, in which order.
        """
        return self._with(np.ascontiguousarray(self.values[:, columns]))

    def state(self) -> Arrays:
        """Return all that was learned as arrays by name."""
        return {
            "feature": self.feature.astype(np.int32),
            "threshold": self.threshold,
            "child": self.child.astype(np.int32),
            "leaf": self.leaf.astype(np.int32),
            "values": self.values,
            "size": np.array([self.n_trees, self.depth], dtype=np.int32),
        }

    @classmethod
    def from_state(cls, arrays: Arrays) -> Self:
        """Return the predictor that `state` described.

        Parameters
        ----------
        arrays
            What `state` returned.
        """
        whole = {
            name: np.asarray(arrays[name], dtype=np.intp)
            for name in ("feature", "child", "leaf", "size")
        }
        return cls(
            whole["feature"],
            np.asarray(arrays["threshold"], dtype=np.float32),
            whole["child"],
            int(whole["size"][0]),
            whole["leaf"],
            np.asarray(arrays["values"], dtype=np.float32),
            int(whole["size"][1]),
        )


def _rounded_down(thresholds: FloatArray) -> NDArray[np.float32]:
    """Return the single below each double: for singles, the same comparison."""
    single = thresholds.astype(np.float32)
    below = np.nextafter(single, np.float32(-np.inf))
    return np.where(single > thresholds, below, single)
