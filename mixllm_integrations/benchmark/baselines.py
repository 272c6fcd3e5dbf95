"""What a router must beat: single models, mixes of two, lookups, plain regressors.

Every baseline is fitted on the training split and predicts the quality and the
cost of all candidates for the queries of the test split. The regressors see
the plain embedding of the static encoder and nothing else, and learn the cost
with the same estimator as the quality.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.benchmark.metrics import Curve, ReferencePoint
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.core.errors import NotFittedError
from mixllm_integrations.core.types import FloatArray

__all__ = [
    "Baseline",
    "CurveBaseline",
    "DomainLookup",
    "Embedded",
    "Oracle",
    "RandomChoice",
    "RegressorBaseline",
    "SingleCandidate",
    "default_baselines",
    "hull_curve",
    "hull_vertices",
]

_LEAST_RELATIVE_COST = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """A table with the embedding of its queries.

    Parameters
    ----------
    table
        The recorded answers.
    embedding
        Shape ``(n_queries, dimension)``.
    """

    table: BenchmarkTable
    embedding: NDArray[np.float32]


@runtime_checkable
class Baseline(Protocol):
    """Predicts the quality and the cost of every candidate."""

    name: str

    def fit(self, train: Embedded) -> Self:
        """Learn from the training split."""
        ...

    def predict(self, test: Embedded) -> tuple[FloatArray, FloatArray]:
        """Return quality and cost (USD), each ``(n_queries, n_candidates)``."""
        ...


@runtime_checkable
class CurveBaseline(Baseline, Protocol):
    """A baseline that chooses by a rule of its own.

    Its curve sweeps that rule's own knob in place of the willingness to pay.
    """

    def curve(self, test: Embedded, reference: ReferencePoint) -> Curve:
        """Return real quality over real cost, one point per value of the knob."""
        ...


@dataclass(slots=True)
class SingleCandidate:
    """Sends every query to one candidate.

    Parameters
    ----------
    name
        Which one.
    """

    name: str

    def fit(self, train: Embedded) -> Self:
        """Learn nothing."""
        del train
        return self

    def predict(self, test: Embedded) -> tuple[FloatArray, FloatArray]:
        """Return quality 1 for the one, 0 for the others, and no costs."""
        is_chosen = [name == self.name for name in test.table.names]
        quality = np.tile(np.array(is_chosen, dtype=float), (len(test.table), 1))
        return quality, np.zeros_like(quality)


@dataclass(slots=True)
class RandomChoice:
    """Sends every query to a candidate drawn by lot.

    Parameters
    ----------
    seed
        Of the lot.
    name
        What tables call it.
    """

    seed: int = 0
    name: str = "random"

    def fit(self, train: Embedded) -> Self:
        """Learn nothing."""
        del train
        return self

    def predict(self, test: Embedded) -> tuple[FloatArray, FloatArray]:
        """Return random qualities, and no costs."""
        shape = test.table.quality.shape
        return np.random.default_rng(self.seed).random(shape), np.zeros(shape)


@dataclass(slots=True)
class Oracle:
    """Knows what was recorded: an upper bound, inflated by lucky guesses.

    Parameters
    ----------
    name
        What tables call it.
    """

    name: str = "oracle"

    def fit(self, train: Embedded) -> Self:
        """Learn nothing."""
        del train
        return self

    def predict(self, test: Embedded) -> tuple[FloatArray, FloatArray]:
        """Return what was recorded of the test split itself."""
        return test.table.quality, test.table.cost


@dataclass(slots=True)
class DomainLookup:
    """Mean quality and cost of each candidate in the query's true domain.

    A real router does not know the true domain; this one is told.

    Parameters
    ----------
    name
        What tables call it.
    """

    name: str = "true-domain lookup"
    _means: dict[str, tuple[FloatArray, FloatArray]] = field(default_factory=dict)
    _overall: tuple[FloatArray, FloatArray] | None = None

    def fit(self, train: Embedded) -> Self:
        """Take the means of each domain."""
        table, domains = train.table, np.array(train.table.domains)
        self._overall = (table.quality.mean(axis=0), table.cost.mean(axis=0))
        self._means = {
            str(d): (table.quality[rows].mean(axis=0), table.cost[rows].mean(axis=0))
            for d in np.unique(domains)
            for rows in [domains == d]
        }
        return self

    def predict(self, test: Embedded) -> tuple[FloatArray, FloatArray]:
        """Return the means of each query's domain; overall ones if it is new."""
        if self._overall is None:
            raise NotFittedError(f"{self.name} needs fit first")
        rows = [self._means.get(d, self._overall) for d in test.table.domains]
        return np.stack([q for q, _ in rows]), np.stack([c for _, c in rows])


@dataclass(slots=True)
class RegressorBaseline:
    """A scikit-learn regressor from the embedding to all qualities and costs.

    Parameters
    ----------
    name
        What tables call it.
    make
        Returns an unfitted estimator that takes several targets at once.

    Notes
    -----
    Costs are learned relative to each candidate's mean, so that all targets are
    of one size, and are at least 5 % of it.
    """

    name: str
    make: Callable[[], Any]
    _estimator: Any = None
    _mean_cost: FloatArray | None = None

    def fit(self, train: Embedded) -> Self:
        """Fit on the embedding of the training split."""
        mean_cost = train.table.cost.mean(axis=0)
        self._mean_cost = np.where(mean_cost > 0, mean_cost, 1.0)
        target = np.hstack([train.table.quality, train.table.cost / self._mean_cost])
        self._estimator = self.make().fit(train.embedding, target)
        return self

    def predict(self, test: Embedded) -> tuple[FloatArray, FloatArray]:
        """Return clipped predictions."""
        if self._estimator is None or self._mean_cost is None:
            raise NotFittedError(f"{self.name} needs fit first")
        found = np.asarray(self._estimator.predict(test.embedding), dtype=np.float64)
        quality, cost = np.hsplit(found, 2)
        relative = np.maximum(cost, _LEAST_RELATIVE_COST)
        return np.clip(quality, 0.0, 1.0), relative * self._mean_cost


def default_baselines(*, seed: int, n_jobs: int = 1) -> list[Baseline]:
    """Return the baselines beside the single candidates and their mixes.

    Parameters
    ----------
    seed
        Of everything that draws.
    n_jobs
        How many processor cores the forest and the neighbour search may use.

    Notes
    -----
    Their settings are those that did best on the test splits of mmlu_pro and
    llmrouter_ulab together, out of a dozen tried: a baseline is given every
    advantage.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import Ridge
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.neural_network import MLPRegressor

    return [
        DomainLookup(),
        RegressorBaseline(
            "kNN",
            lambda: KNeighborsRegressor(
                n_neighbors=100, weights="distance", n_jobs=n_jobs
            ),
        ),
        RegressorBaseline("ridge", lambda: Ridge(alpha=50.0)),
        RegressorBaseline(
            "random forest",
            lambda: RandomForestRegressor(
                n_estimators=100,
                min_samples_leaf=10,
                max_features=0.25,
                n_jobs=n_jobs,
                random_state=seed,
            ),
        ),
        RegressorBaseline(
            "MLP",
            lambda: MLPRegressor(
                hidden_layer_sizes=(64,),
                alpha=1.0,
                early_stopping=True,
                max_iter=200,
                n_iter_no_change=8,
                random_state=seed,
            ),
        ),
        RandomChoice(seed),
        Oracle(),
    ]


def hull_vertices(quality: Sequence[float], cost: Sequence[float]) -> list[int]:
    """Return the candidates on the upper convex hull of quality over cost.

    Parameters
    ----------
    quality, cost
        Mean of each candidate.

    Returns
    -------
    list[int]
        Indices from the cheapest one to the best one; between two neighbours a
        random mix is better than any other candidate at its cost.

    Examples
    --------
    >>> hull_vertices([0.2, 0.3, 0.9, 0.8], [1.0, 2.0, 3.0, 5.0])
    [0, 2]
    """
    order = sorted(range(len(cost)), key=lambda i: (cost[i], -quality[i]))
    hull: list[int] = []
    for i in order:
        if hull and quality[i] <= quality[hull[-1]]:
            continue
        while len(hull) > 1 and _is_below(hull[-2], hull[-1], i, quality, cost):
            hull.pop()
        hull.append(i)
    return hull


def _is_below(
    a: int, b: int, c: int, quality: Sequence[float], cost: Sequence[float]
) -> bool:
    rise_b = (quality[b] - quality[a]) * (cost[c] - cost[a])
    rise_c = (quality[c] - quality[a]) * (cost[b] - cost[a])
    return rise_b <= rise_c


def hull_curve(
    train: BenchmarkTable,
    test: BenchmarkTable,
    reference: ReferencePoint,
    *,
    n_mixes: int = 50,
) -> Curve:
    """Return what random mixes of two candidates on the hull give.

    Parameters
    ----------
    train
        Where the hull is found.
    test
        Where the candidates are measured; the curve is the expected value of
        the random mix.
    reference
        What the curve is relative to.
    n_mixes
        How many shares between two neighbours on the hull.
    """
    hull = hull_vertices(
        train.quality.mean(axis=0).tolist(), train.cost.mean(axis=0).tolist()
    )
    quality = test.quality.mean(axis=0)[hull] / reference.quality
    cost = test.cost.mean(axis=0)[hull] / reference.cost
    position = np.linspace(0.0, len(hull) - 1.0, n_mixes * (len(hull) - 1) + 1)
    steps = np.arange(len(hull))
    return Curve(np.interp(position, steps, cost), np.interp(position, steps, quality))
