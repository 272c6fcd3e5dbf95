"""Bandits from PyPI as learners: `mabwiser` (LinUCB) and `paretobandit`.

Both are fitted on the offline part with the labels of all candidates, as the
router is, then learn from the chosen answers alone. They see the embedding of
the static encoder, reduced to its principal components on the offline part,
with a constant beside them. Both explore as they do by themselves.

Notes
-----
Of 33 settings of each, those that earned most in `refined-30/70` of mmlu_pro and
llmrouter_ulab together, on a seed that is not reported (100): mabwiser with alpha
0 to 1, l2 1 to 150 and 16 to 128 components, paretobandit with alpha 0 to 0.5, 6
to 64 components, and forgetting factors of 1, 0.999 and 0.997, its default, with
which it earned much less (the embeddings and labels do not drift).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.benchmark.metrics import choose
from mixllm_integrations.benchmark.online.learners import HeldOut, Learner
from mixllm_integrations.benchmark.online.streams import Change, Stream
from mixllm_integrations.benchmark.peers import ReducedContext, installed_peers
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.core.types import FloatArray

__all__ = [
    "PEERS",
    "OnlineLinUCB",
    "OnlineParetoBandit",
    "Setting",
    "available_peers",
]

_PENALTIES = (0.0, *np.geomspace(1e-3, 1e1, 60).tolist())


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What a peer is made for.

    Parameters
    ----------
    stream
        What it will be shown.
    offline
        What is labelled beforehand.
    embeddings
        Of the offline queries, those asked, and those held out.
    willingness_to_pay
        USD for one whole point of quality.
    seed
        Of its generator.
    """

    stream: Stream
    offline: BenchmarkTable
    embeddings: Sequence[NDArray[np.float32]]
    willingness_to_pay: float
    seed: int

    def contexts(self, n_components: int, *, whiten: bool) -> list[FloatArray]:
        """Return each embedding's principal components, and a constant.

        Parameters
        ----------
        n_components
            How many; fitted on the offline part.
        whiten
            Whether all have the same variance there.
        """
        found = ReducedContext.fit(
            self.embeddings[0], n_components, self.seed, whiten=whiten
        )
        return [found.of(embedding) for embedding in self.embeddings]

    def starters(self) -> list[int]:
        """Return the columns that compete at first."""
        return np.flatnonzero(self.stream.start).tolist()


class OnlineLinUCB:
    """LinUCB of `mabwiser`: an arm's reward is its quality less its cost.

    Parameters
    ----------
    setting
        What it is made for.
    alpha
        Weight of its bonus for uncertainty.
    l2
        Its ridge penalty.
    n_components
        How many principal components it sees.

    Notes
    -----
    Reward: quality − cost / willingness to pay, in units of quality, of each
    answer. A candidate that leaves keeps its arm and is passed over meanwhile;
    `remove_arm` would forget it. A new price has to be learned.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        alpha: float = 0.02,
        l2: float = 20.0,
        n_components: int = 128,
    ) -> None:
        from mabwiser.mab import MAB, LearningPolicy

        self._setting = setting
        known, self._asked, self._test = setting.contexts(n_components, whiten=False)
        self._names = setting.stream.names
        self._present = set(setting.starters())
        arms = [self._names[c] for c in setting.starters()]
        policy = LearningPolicy.LinUCB(alpha=alpha, l2_lambda=l2)
        self._bandit = MAB(arms, policy, seed=setting.seed)
        table = setting.offline
        worth = table.quality - table.cost / setting.willingness_to_pay
        learn = self._bandit.fit
        for column in setting.starters():
            learn([self._names[column]] * len(table), worth[:, column], known)
            learn = self._bandit.partial_fit

    def choose(self, step: int) -> int:
        """Return the arm with the highest upper confidence bound."""
        return int(self._best(self._asked[step : step + 1])[0])

    def billed(self, step: int, column: int, cost: float) -> None:
        """Wait for the feedback: cost and quality make one reward."""

    def hear(self, step: int, column: int, reward: float) -> None:
        """Learn one reward."""
        cost = self._setting.stream.cost[step, column]
        worth = reward - cost / self._setting.willingness_to_pay
        context = self._asked[step : step + 1]
        self._bandit.partial_fit([self._names[column]], [worth], context)

    def change(self, change: Change) -> None:
        """Let a candidate join or leave."""
        column = self._names.index(change.candidate.name)
        if change.kind == "leave":
            self._present.discard(column)
        elif change.kind == "join":
            self._present.add(column)
            if change.candidate.name not in self._bandit.arms:
                self._bandit.add_arm(change.candidate.name)

    def pause(self, step: int) -> None:
        """Do nothing: it learns step by step."""

    def held_out(self) -> HeldOut:
        """Return its choices of the queries held out, its bonus included.

        It is so small after the stream that they hardly depend on it.
        """
        return HeldOut(self._best(self._test))

    def extra(self) -> dict[str, float]:
        """Return nothing else."""
        return {}

    def _best(self, contexts: FloatArray) -> NDArray[np.int64]:
        found = self._bandit.predict_expectations(contexts)
        rows = [found] if isinstance(found, dict) else found  # a dict for one query
        columns = sorted(self._present)
        names = [self._names[c] for c in columns]
        scores = np.array([[row[name] for name in names] for row in rows])
        return np.asarray(np.array(columns)[scores.argmax(axis=1)], dtype=np.int64)


class OnlineParetoBandit:
    """`paretobandit` by its own interface: route, then process_feedback.

    Parameters
    ----------
    setting
        What it is made for.
    alpha
        Weight of its bonus for uncertainty.
    forgetting
        Its `forgetting_factor` while the stream runs.
    n_components
        How many principal components it sees, whitened; its own default is 25.

    Notes
    -----
    It trades quality against a logarithmic price by its ``cost_penalty``, which
    is set to what earns most on the offline part at the willingness to pay. A
    candidate's price is the mean cost of its answers there, a newcomer's is in
    the ratio of the list prices. It is told of a new price. Forgetting is off
    while it learns offline, where nothing drifts: a pass over some ten thousand
    labels would be forgotten otherwise.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        alpha: float = 0.05,
        forgetting: float = 1.0,
        n_components: int = 16,
    ) -> None:
        self._setting = setting
        stream, table = setting.stream, setting.offline
        self._names = stream.names
        known, self._asked, self._test = setting.contexts(n_components, whiten=True)
        self._price = _mean_prices(setting)
        self._router = self._made(alpha, known.shape[1])
        for x, rewards in zip(known, table.quality, strict=True):
            for column in setting.starters():
                self._router.update(self._names[column], x, float(rewards[column]))
        self._router.bandit.gamma = forgetting
        self._router.cost_penalty = self._best_penalty(known)
        self._requests: dict[int, str] = {}
        self._gone: dict[str, Any] = {}

    def choose(self, step: int) -> int:
        """Return what its router chooses."""
        name, log = self._router.route(self._asked[step])
        self._requests[step] = log.request_id
        return self._names.index(name)

    def billed(self, step: int, column: int, cost: float) -> None:
        """Wait for the feedback: it learns no costs."""

    def hear(self, step: int, column: int, reward: float) -> None:
        """Pass the quality on."""
        del column
        self._router.process_feedback(self._requests.pop(step), reward)

    def change(self, change: Change) -> None:
        """Let a candidate join or leave, or have another price."""
        name = change.candidate.name
        column = self._names.index(name)
        if change.kind == "leave":
            self._gone[name] = self._router.registry.pop(name)
        elif name in self._gone:
            self._router.registry[name] = self._gone.pop(name)
        elif change.kind == "join":
            self._router.register_model(name, **_priced(self._price[column]))
        else:
            factor = self._setting.stream.price_factors()[change.step, column]
            price = _priced(self._price[column] * factor)
            self._router.update_model_pricing(name, **price)

    def pause(self, step: int) -> None:
        """Do nothing: it learns step by step."""

    def held_out(self) -> HeldOut:
        """Return its choices of the queries held out, without exploring."""
        with self._router.exploit():
            names = [self._router.route(x)[0] for x in self._test]
        return HeldOut(np.array([self._names.index(n) for n in names], np.int64))

    def extra(self) -> dict[str, float]:
        """Return its weight of the cost."""
        return {"cost_penalty": float(self._router.cost_penalty)}

    def _made(self, alpha: float, dimension: int) -> Any:  # noqa: ANN401
        from pareto_bandit import BanditRouter, FeatureService, RouterConfig

        prices = self._price
        return BanditRouter.create(
            model_registry={
                self._names[c]: _priced(prices[c]) for c in self._setting.starters()
            },
            priors="none",
            feature_service=FeatureService.for_precomputed(dimension),
            alpha=alpha,
            forgetting_factor=1.0,
            bandit_seed=self._setting.seed,
            config=RouterConfig(
                market_cost_floor=float(prices.min()) / 1e3,
                market_cost_ceiling=float(prices.max()) / 1e3,
            ),
        )

    def _best_penalty(self, known: FloatArray) -> float:
        """Return the weight of the cost that earns most on the offline part."""
        table, columns = self._setting.offline, self._setting.starters()
        theta = np.stack([self._router.bandit.theta[self._names[c]] for c in columns])
        expected = known @ theta.T
        low, high = np.log(self._price.min()), np.log(self._price.max())
        scale = (np.log(self._price[columns]) - low) / max(high - low, 1e-12)
        worth = table.quality - table.cost / self._setting.willingness_to_pay
        rows = np.arange(len(table))
        earned = []
        for penalty in _PENALTIES:
            chosen = choose(expected - penalty * scale, np.zeros_like(expected), 1.0)
            earned.append(worth[rows, np.array(columns)[chosen]].mean())
        return float(_PENALTIES[int(np.argmax(earned))])


class _Making(Protocol):
    def __call__(self, setting: Setting) -> Learner: ...


PEERS: Mapping[str, _Making] = {
    "mabwiser LinUCB": OnlineLinUCB,
    "paretobandit": OnlineParetoBandit,
}


def available_peers(names: Sequence[str]) -> tuple[str, ...]:
    """Return those of the peers whose packages are installed.

    Parameters
    ----------
    names
        Of learners; those that are no peers are left as they are.
    """
    installed = tuple(p.split()[0] for p in installed_peers())
    return tuple(n for n in names if n not in PEERS or n.split()[0] in installed)


def _mean_prices(setting: Setting) -> FloatArray:
    """Return USD per million tokens, as if an answer were one token."""
    columns = setting.starters()
    listed = np.array(
        [
            c.input_cost_per_million_tokens + c.output_cost_per_million_tokens
            for c in setting.stream.candidates
        ]
    )
    paid = np.nanmean(setting.offline.cost[:, columns], axis=0)
    ratio = paid.sum() / max(listed[columns].sum(), 1e-12)
    prices = listed * ratio
    prices[columns] = paid
    above = prices[prices > 0]
    least = above.min() if above.size else 1.0
    return np.asarray(np.maximum(prices, least) * 1e6, dtype=np.float64)


def _priced(price: float) -> dict[str, float]:
    return {"input_cost_per_m": float(price), "output_cost_per_m": float(price)}
