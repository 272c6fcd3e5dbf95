"""Bandits from PyPI beside the router: `mabwiser` (LinUCB) and `paretobandit`.

Both see what the plain baselines see: the training split with the answers of
all candidates, and the embedding of the static encoder, reduced to its principal
components with a constant beside them. Both predict a quality and no cost, so
each candidate's mean cost on the training split stands for its cost. Neither
explores while it is judged.

They are optional. What is not installed is left out, and `missing_peers` tells.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.benchmark.baselines import Baseline, Embedded
from mixllm_integrations.benchmark.metrics import Curve, ReferencePoint
from mixllm_integrations.core.errors import NotFittedError
from mixllm_integrations.core.types import FloatArray

__all__ = [
    "PEER_PACKAGES",
    "MabWiser",
    "ParetoBandit",
    "ParetoBanditByItsOwnRule",
    "ReducedContext",
    "installed_peers",
    "missing_peers",
    "peer_baselines",
]

PEER_PACKAGES = ("mabwiser", "paretobandit")
_MODULES = {"mabwiser": "mabwiser", "paretobandit": "pareto_bandit"}
# Its penalty weights a cost in [0, 1] against a quality in [0, 1]: at 0.001 no
# cost counts, at 100 nothing else does.
_PENALTIES = (0.0, *np.geomspace(1e-3, 1e2, 199).tolist())


def missing_peers() -> tuple[str, ...]:
    """Return which of `PEER_PACKAGES` are not installed."""
    return tuple(p for p in PEER_PACKAGES if find_spec(_MODULES[p]) is None)


def installed_peers() -> tuple[str, ...]:
    """Return which of `PEER_PACKAGES` are installed."""
    missing = missing_peers()
    return tuple(p for p in PEER_PACKAGES if p not in missing)


def peer_baselines(*, seed: int) -> list[Baseline]:
    """Return the baselines whose packages are installed.

    Parameters
    ----------
    seed
        Of everything that draws.
    """
    made: dict[str, list[Callable[[], Baseline]]] = {
        "mabwiser": [lambda: MabWiser(seed)],
        "paretobandit": [
            lambda: ParetoBandit(seed),
            lambda: ParetoBanditByItsOwnRule(seed),
        ],
    }
    return [make() for package in installed_peers() for make in made[package]]


@dataclass(slots=True)
class MabWiser:
    """LinUCB of `mabwiser`, fitted on every (query, candidate, quality).

    Parameters
    ----------
    seed
        Of its generator; LinUCB draws nothing.
    n_components
        How many principal components of the embedding it sees.
    l2
        Its ridge penalty.
    name
        What tables call it.

    Notes
    -----
    `alpha` is 0: its expectation of an arm is then theta·x without a bonus for
    uncertainty, which would be the same for all arms here, since all saw the same
    queries. One call per candidate learns what one call with all rows learns and
    holds fewer of them at a time. Of 12 settings, these two numbers reached 97.25 %
    at the lowest cost on test splits of mmlu_pro and llmrouter_ulab together, with
    the area within 0.001 of the best: like the other baselines, it is given every
    advantage.
    """

    seed: int = 0
    n_components: int = 64
    l2: float = 50.0
    name: str = "mabwiser LinUCB"
    _context: "ReducedContext | None" = field(default=None, init=False)
    _bandit: Any = field(default=None, init=False)
    _mean_cost: FloatArray | None = field(default=None, init=False)

    def fit(self, train: Embedded) -> Self:
        """Learn from all rewards of the training split."""
        from mabwiser.mab import MAB, LearningPolicy

        table = train.table
        self._context = ReducedContext.fit(
            train.embedding, self.n_components, self.seed
        )
        context = self._context.of(train.embedding)
        self._mean_cost = table.cost.mean(axis=0)
        policy = LearningPolicy.LinUCB(alpha=0.0, l2_lambda=self.l2)
        self._bandit = MAB(list(table.names), policy, seed=self.seed)
        learn = self._bandit.fit
        for name, reward in zip(table.names, table.quality.T, strict=True):
            learn([name] * len(table), reward, context)
            learn = self._bandit.partial_fit
        return self

    def predict(self, test: Embedded) -> tuple[FloatArray, FloatArray]:
        """Return its expectations, clipped to [0, 1], and mean costs."""
        if self._context is None or self._mean_cost is None:
            raise NotFittedError(f"{self.name} needs fit first")
        found = self._bandit.predict_expectations(self._context.of(test.embedding))
        rows = [found] if isinstance(found, dict) else found  # a dict for one query
        quality = np.array([[row[name] for name in test.table.names] for row in rows])
        return np.clip(quality, 0.0, 1.0), np.tile(self._mean_cost, (len(rows), 1))


@dataclass(slots=True)
class ParetoBandit:
    """`paretobandit`, its predictions traded against USD as everyone else's.

    Parameters
    ----------
    seed
        Of its generator, which breaks ties.
    n_components
        How many principal components of the embedding it sees, whitened; 25 is
        its own default, and did best here too.
    name
        What tables call it.

    Notes
    -----
    Its LinUCB starts without its shipped priors, which belong to other models
    and another encoder, and learns offline in the way that its documentation
    names for triples at hand: `BanditRouter.update` for every (query, candidate,
    quality) in stream order. Forgetting is off (`forgetting_factor=1`), since the
    data do not drift; its default of 0.997 would forget all but the last few
    hundred steps.
    """

    seed: int = 0
    n_components: int = 25
    name: str = "paretobandit in USD"
    _context: "ReducedContext | None" = field(default=None, init=False)
    _router: Any = field(default=None, init=False)
    _names: tuple[str, ...] = field(default=(), init=False)
    _mean_cost: FloatArray | None = field(default=None, init=False)

    def fit(self, train: Embedded) -> Self:
        """Replay the training split, all candidates of a query one by one."""
        from pareto_bandit import BanditRouter, FeatureService, RouterConfig

        table = train.table
        self._names = table.names
        self._mean_cost = table.cost.mean(axis=0)
        self._context = ReducedContext.fit(
            train.embedding, self.n_components, self.seed, whiten=True
        )
        context = self._context.of(train.embedding)
        prices = _prices(self._mean_cost)
        self._router = BanditRouter.create(
            model_registry={
                name: {"input_cost_per_m": price, "output_cost_per_m": price}
                for name, price in zip(self._names, prices.tolist(), strict=True)
            },
            priors="none",
            feature_service=FeatureService.for_precomputed(context.shape[1]),
            forgetting_factor=1.0,
            bandit_seed=self.seed,
            config=RouterConfig(
                market_cost_floor=float(prices.min()) / 1e3,
                market_cost_ceiling=float(prices.max()) / 1e3,
            ),
        )
        for x, rewards in zip(context, table.quality.tolist(), strict=True):
            for name, reward in zip(self._names, rewards, strict=True):
                self._router.update(name, x, reward)
        return self

    def predict(self, test: Embedded) -> tuple[FloatArray, FloatArray]:
        """Return its expected rewards, clipped to [0, 1], and mean costs."""
        expected = self._expected(test)
        cost = np.asarray(self._mean_cost, dtype=np.float64)
        return np.clip(expected, 0.0, 1.0), np.tile(cost, (len(expected), 1))

    def _expected(self, test: Embedded) -> FloatArray:
        if self._context is None:
            raise NotFittedError(f"{self.name} needs fit first")
        theta = np.stack([self._router.bandit.theta[name] for name in self._names])
        return np.asarray(self._context.of(test.embedding) @ theta.T, dtype=np.float64)


@dataclass(slots=True)
class ParetoBanditByItsOwnRule(ParetoBandit):
    """`paretobandit` with its own selection: reward less a penalty for cost.

    Parameters
    ----------
    seed, n_components, name
        As in `ParetoBandit`.

    Notes
    -----
    It routes to the argmax of theta·x − cost_penalty·c, where c in [0, 1] is the
    logarithm of the price between a floor and a ceiling. The curve sweeps
    ``cost_penalty`` (its budget pacer steers the same quantity over time). The
    price is the mean cost of an answer on the training split, and the bounds are
    the cheapest and the dearest candidate's: its own blend of list prices and its
    own bounds did worse on mmlu_pro and the same on llmrouter_ulab.
    """

    name: str = "paretobandit own rule"

    def choices(self, test: Embedded, cost_penalty: float) -> NDArray[np.int64]:
        """Return the column that its router chooses for each query.

        Parameters
        ----------
        test
            The queries.
        cost_penalty
            Its weight of the cost, in units of quality.

        Returns
        -------
        NDArray[np.int64]
            Shape ``(n_queries,)``; what `BanditRouter.route` returns under
            `BanditRouter.exploit`, without a call for each query.
        """
        return self._chosen(self._expected(test), cost_penalty)

    def curve(self, test: Embedded, reference: ReferencePoint) -> Curve:
        """Return real quality over real cost for each cost penalty.

        Parameters
        ----------
        test
            The queries, with what was recorded.
        reference
            What the curve is relative to.
        """
        expected, rows = self._expected(test), np.arange(len(test.table))
        chosen = [self._chosen(expected, penalty) for penalty in _PENALTIES]
        cost = np.array([test.table.cost[rows, c].mean() for c in chosen])
        quality = np.array([test.table.quality[rows, c].mean() for c in chosen])
        return Curve(cost / reference.cost, quality / reference.quality)

    def _chosen(self, expected: FloatArray, cost_penalty: float) -> NDArray[np.int64]:
        from pareto_bandit.costs import log_normalize_cost

        config = self._router.config
        bounds = (config.market_cost_floor, config.market_cost_ceiling)
        prices = _prices(np.asarray(self._mean_cost)) / 1e3
        scale = np.array([log_normalize_cost(p, *bounds) for p in prices.tolist()])
        return np.asarray((expected - cost_penalty * scale).argmax(axis=1), np.int64)


@dataclass(frozen=True, slots=True)
class ReducedContext:
    """Principal components of an embedding, and a constant after them.

    Parameters
    ----------
    projection
        That was fitted.
    """

    projection: Any

    @classmethod
    def fit(
        cls,
        embedding: NDArray[np.float32],
        n_components: int,
        seed: int,
        *,
        whiten: bool = False,
    ) -> "ReducedContext":
        """Return the components of some embeddings.

        Parameters
        ----------
        embedding
            Shape ``(n, dimension)``.
        n_components
            How many, at most as many as there can be.
        seed
            Of what is drawn.
        whiten
            Whether all have the same variance there.
        """
        from sklearn.decomposition import PCA

        n_queries, dimension = embedding.shape
        n = max(1, min(n_components, dimension, n_queries - 1))
        return cls(PCA(n, whiten=whiten, random_state=seed).fit(embedding))

    def of(self, embedding: NDArray[np.float32]) -> FloatArray:
        """Return contexts, shape ``(n, n_components + 1)``.

        Parameters
        ----------
        embedding
            Shape ``(n, dimension)``.
        """
        found = np.asarray(self.projection.transform(embedding), dtype=np.float64)
        return np.hstack([found, np.ones((len(found), 1))])


def _prices(mean_cost: FloatArray) -> FloatArray:
    """Return positive prices in the ratio of the mean costs.

    They are in USD per million tokens, as if an answer were one token: only
    their ratios count, between bounds that are in the same unit.
    """
    above = mean_cost[mean_cost > 0]
    least = above.min() if above.size else 1.0
    return np.asarray(np.maximum(mean_cost, least) * 1e6, dtype=np.float64)
