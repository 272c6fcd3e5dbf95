"""A spending budget on recorded answers: what is spent, and how well.

The test queries of a split come one after the other at random moments of one
period, the first that a router sees. The router is told the budget of the period,
and of each answer its cost and its quality. Its budget is all that limits it: its
willingness to pay is infinite. What it reached stands beside the best fixed
willingness to pay in hindsight at the same spending, by the same offline heads, and
beside `paretobandit`'s pacer, which is told how many queries will come and every
bill.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mixllm_integrations.benchmark.baselines import Embedded
from mixllm_integrations.benchmark.metrics import choose, reference_point
from mixllm_integrations.benchmark.peers import ParetoBandit, installed_peers
from mixllm_integrations.benchmark.splits import stratified_split
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.benchmark.versions import package_versions
from mixllm_integrations.core.errors import ConfigurationError, NoCandidateError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import FloatArray, Outcome
from mixllm_integrations.testing import ManualClock

__all__ = ["BudgetResult", "BudgetRun", "print_budget", "run_budget"]

Arrivals = Literal["even", "bursts"]
_PERIOD = 86_400.0
_N_WILLINGNESS = 600
_N_BURSTS, _BURST_SHARE, _BURST_WIDTH = 8, 0.6, 0.003
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class BudgetRun:
    """One method on one split with one budget.

    Parameters
    ----------
    method
        ``"ours"`` with the name of how queries arrive, or the peer's.
    seed
        Of the split and the order.
    share
        The budget, in units of what the strongest candidate alone would cost.
    demand
        What the router's offline heads would spend without a budget, in units of
        the budget: below 1 there is nothing to be paced.
    spent
        In units of the budget.
    quality
        Mean quality of the answers, relative to the strongest candidate; a query
        that was refused counts 0.
    hindsight
        That of the best fixed willingness to pay at the same spending.
    refused
        How many queries nobody answered.
    n_queries
        How many there were.
    """

    method: str
    seed: int
    share: float
    demand: float
    spent: float
    quality: float
    hindsight: float
    refused: int
    n_queries: int

    @property
    def overrun(self) -> float:
        """By how much the spending exceeds the budget, in units of it."""
        return max(self.spent - 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class BudgetResult:
    """All runs, with what is needed to repeat them.

    Parameters
    ----------
    data, command
        Which data set, and how to repeat it.
    seeds
        Of the splits.
    versions
        Of Python and packages.
    runs
        In the order in which they were made.
    """

    data: str
    command: str
    seeds: tuple[int, ...]
    versions: dict[str, str]
    runs: tuple[BudgetRun, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "data": self.data,
            "command": self.command,
            "seeds": list(self.seeds),
            "versions": self.versions,
            "runs": [_rounded(asdict(run)) for run in self.runs],
        }


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, _DIGITS) if isinstance(v, float) else v for k, v in row.items()}


def run_budget(
    table: BenchmarkTable,
    *,
    shares: Sequence[float] = (0.1, 0.25, 0.5),
    seeds: Sequence[int] = (0, 1, 2),
    predictor: str = "auto",
    command: str = "",
    on_run: Callable[[BudgetRun], None] | None = None,
) -> BudgetResult:
    """Give a router budgets for the test queries of splits.

    Parameters
    ----------
    table
        Complete queries.
    shares
        Budgets, in units of what the strongest candidate alone would cost.
    seeds
        One split, one order and one draw of the arrivals each.
    predictor
        Kind of the router's predictors.
    command
        Noted in the result.
    on_run
        Called with each run as soon as it is there.

    Raises
    ------
    ConfigurationError
        If there is no seed or no budget.
    """
    if not seeds or not shares:
        raise ConfigurationError("this benchmark needs at least one seed and one share")
    runs = []
    for seed in seeds:
        for run in _Split(table, seed, predictor).runs(shares):
            runs.append(run)
            if on_run is not None:
                on_run(run)
    versions = package_versions(["paretobandit"])
    return BudgetResult(table.name, command, tuple(seeds), versions, tuple(runs))


class _Split:
    def __init__(self, table: BenchmarkTable, seed: int, predictor: str) -> None:
        rows, held_out = stratified_split(table, seed=seed)
        rng = np.random.default_rng(seed)
        self.seed, self.train = seed, table.select(rows)
        self.test = table.select(rng.permutation(held_out))
        reference = reference_point(
            self.train.quality, self.test.quality, self.test.cost
        )
        self.best_quality = reference.quality
        self.strongest_cost = reference.cost * len(self.test)
        self.clock = ManualClock()
        self.router = Router(
            self.train.candidates,
            predictor=predictor,
            prior="none",
            willingness_to_pay=float("inf"),
            seed=seed,
            clock=self.clock,
        )
        self.router.fit(self.train.records())
        self.costs, self.qualities = self._fixed()

    def runs(self, shares: Sequence[float]) -> Iterator[BudgetRun]:
        """Play all methods with all budgets."""
        peers = self._peers()
        for share in shares:
            budget = share * self.strongest_cost
            arrivals: tuple[Arrivals, ...] = ("even", "bursts")
            for kind in arrivals:
                yield self._run(f"ours, {kind}", share, self._ours(budget, kind))
            for name, play in peers.items():
                yield self._run(name, share, play(budget))

    def _run(self, method: str, share: float, chosen: NDArray[np.int64]) -> BudgetRun:
        answered = np.flatnonzero(chosen >= 0)
        spent = float(self.test.cost[answered, chosen[answered]].sum())
        quality = float(self.test.quality[answered, chosen[answered]].sum())
        return BudgetRun(
            method,
            self.seed,
            share,
            float(self.costs[-1]) / (share * self.strongest_cost),
            spent / (share * self.strongest_cost),
            quality / len(chosen) / self.best_quality,
            float(np.interp(spent, self.costs, self.qualities)) / self.best_quality,
            int(len(chosen) - len(answered)),
            len(chosen),
        )

    def _fixed(self) -> tuple[FloatArray, FloatArray]:
        """Return what fixed values spend on all queries, and the best quality by it."""
        found = self.router.predict(list(self.test.queries))
        each = np.arange(len(self.test))
        points = []
        for value in np.geomspace(1e-7, 1e3, _N_WILLINGNESS):
            chosen = choose(found.quality, found.cost, float(value))
            points.append(
                (
                    float(self.test.cost[each, chosen].sum()),
                    float(self.test.quality[each, chosen].mean()),
                )
            )
        costs, qualities = np.array(sorted(set(points))).T
        return costs, np.maximum.accumulate(qualities)

    def _ours(self, budget: float, arrivals: Arrivals) -> NDArray[np.int64]:
        """Return the candidate of each query, -1 where there was none."""
        router, names = copy.deepcopy(self.router), self.test.names
        router.spending_budget = budget
        router.when_spent = "stop"
        began, chosen = self.clock(), []
        for row, moment in enumerate(self._moments(arrivals)):
            self.clock.advance(began + moment - self.clock())
            try:
                decision = router.route(self.test.queries[row])
            except NoCandidateError:
                chosen.append(-1)
                continue
            column = names.index(decision.candidate)
            chosen.append(column)
            tokens = self.test.input_tokens[row, column]
            answered = self.test.output_tokens[row, column]
            cost = float(self.test.cost[row, column])
            outcome = Outcome(int(tokens), int(answered), cost=cost)
            router.record_outcome(decision.id, outcome)
            router.record_feedback(decision.id, float(self.test.quality[row, column]))
        return np.array(chosen, dtype=np.int64)

    def _moments(self, arrivals: Arrivals) -> list[float]:
        """Return when queries come: at random, or most of them in a few bursts."""
        rng, n = np.random.default_rng(self.seed), len(self.test)
        moments = rng.random(n)
        if arrivals == "bursts":
            centres = rng.random(_N_BURSTS)[rng.integers(0, _N_BURSTS, n)]
            burst = centres + rng.normal(0.0, _BURST_WIDTH, n)
            moments = np.where(rng.random(n) < _BURST_SHARE, burst, moments)
        clipped: list[float] = np.sort(np.clip(moments, 0.0, 1.0 - 1e-6)).tolist()
        return [_PERIOD * moment for moment in clipped]

    def _peers(self) -> dict[str, Callable[[float], NDArray[np.int64]]]:
        if "paretobandit" not in installed_peers():
            return {}
        encode = self.router.encoder.encode
        train, test = (
            Embedded(part, encode(list(part.queries)))
            for part in (self.train, self.test)
        )
        peer = _PacedParetoBandit(self.seed).fit(train)
        return {
            "paretobandit, adaptive": lambda budget: peer.play(
                test, budget, "adaptive"
            ),
            "paretobandit, soft": lambda budget: peer.play(test, budget, "soft"),
        }


class _PacedParetoBandit(ParetoBandit):
    """`paretobandit` with its `BudgetPacer`, by its own interface.

    Its router estimates what an answer costs; the real cost is put in the place
    of that before it hears of the answer, so that its pacer sees every bill.
    """

    def play(
        self, test: Embedded, budget: float, mode: Literal["adaptive", "soft"]
    ) -> NDArray[np.int64]:
        """Return the candidate that it chooses for each query.

        Parameters
        ----------
        test
            The queries, in order.
        budget
            USD for all of them.
        mode
            Of its pacer.
        """
        from pareto_bandit.budget_pacer import BudgetPacer, PacingMode

        router = copy.deepcopy(self._router)
        table, context = test.table, self._seen(test)
        mean = budget / len(table)
        router.cost_penalty = 0.0  # as in its own demo: the pacer alone steers
        router.budget_pacer = BudgetPacer(mean, mode=PacingMode(mode))
        chosen = []
        for row, x in enumerate(context):
            name, log = router.route(x)
            column = table.names.index(name)
            log.cost_usd = float(table.cost[row, column])
            router.process_feedback(log.request_id, float(table.quality[row, column]))
            chosen.append(column)
        return np.array(chosen, dtype=np.int64)

    def _seen(self, test: Embedded) -> FloatArray:
        if self._context is None:
            raise ConfigurationError("fit it first")
        return self._context.of(test.embedding)


def print_budget(result: BudgetResult, console: Console) -> None:
    """Print a table: a row per budget and method, means over the seeds.

    Parameters
    ----------
    result
        What was measured.
    console
        Where to.
    """
    table = Table(
        title=f"Budgets on {result.data}, {len(result.seeds)} seeds",
        caption="spent: in units of the budget, mean and worst; quality relative to "
        "the strongest candidate; hindsight: of the best fixed willingness to pay at "
        "the same spending",
        caption_justify="left",
    )
    for name in (
        "budget",
        "method",
        "demand",
        "spent",
        "worst",
        "quality",
        "hindsight",
    ):
        table.add_column(name, justify="left" if name == "method" else "right")
    for key in dict.fromkeys((r.share, r.method) for r in result.runs):
        runs = [r for r in result.runs if (r.share, r.method) == key]
        spent = np.array([r.spent for r in runs])
        table.add_row(
            f"{key[0]:.0%}",
            key[1],
            f"{np.mean([r.demand for r in runs]):.2f}",
            f"{spent.mean():.2%}",
            f"{spent[np.abs(spent - 1.0).argmax()]:.2%}",
            f"{np.mean([r.quality for r in runs]):.4f}",
            f"{np.mean([r.hindsight for r in runs]):.4f}",
        )
    console.print(table)
