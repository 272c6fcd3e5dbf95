"""Whether a calibrated router keeps its promise on queries it has not seen.

On each split the router is fitted and calibrated on the training queries
alone; then every test query is routed by the value found, and what was reached
is put beside the target and beside what the calibration expected.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mixllm_integrations.benchmark.metrics import reference_point
from mixllm_integrations.benchmark.splits import stratified_split
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.benchmark.versions import package_versions
from mixllm_integrations.core.budget import bootstrap_ratio
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.router import Router

__all__ = [
    "CalibrationResult",
    "CalibrationRun",
    "print_calibration",
    "run_calibration",
]

_DIGITS = 6


@dataclass(frozen=True, slots=True)
class CalibrationRun:
    """One target on one split; all figures relative to the strongest candidate.

    Parameters
    ----------
    data, seed
        Which split.
    kind
        ``"quality"`` or ``"cost"``.
    target
        What was asked for.
    expected, low, high
        What the calibration expected of it, with its 95 % interval.
    reached, reached_low, reached_high
        What the test queries gave, with its bootstrap 95 % interval: test
        queries are a sample, too.
    other
        The other one of quality and cost on the test queries.
    willingness_to_pay
        The value found, in USD per point of quality.
    """

    data: str
    seed: int
    kind: str
    target: float
    expected: float
    low: float
    high: float
    reached: float
    reached_low: float
    reached_high: float
    other: float
    willingness_to_pay: float

    @property
    def miss(self) -> float:
        """How far beyond the target it came out; negative: short of it."""
        return self.reached - self.target

    @property
    def is_as_expected(self) -> bool:
        """Whether the two differ by no more than both samples let them."""
        spread = np.hypot(self.high - self.low, self.reached_high - self.reached_low)
        return bool(abs(self.reached - self.expected) <= spread / 2)


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """All runs, with what is needed to repeat them.

    Parameters
    ----------
    command
        How to repeat it.
    seeds
        Of the splits.
    versions
        Of Python and packages.
    runs
        In the order in which they were made.
    """

    command: str
    seeds: tuple[int, ...]
    versions: dict[str, str]
    runs: tuple[CalibrationRun, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        runs = [
            {
                k: round(v, _DIGITS) if isinstance(v, float) else v
                for k, v in row.items()
            }
            for row in map(asdict, self.runs)
        ]
        return {
            "command": self.command,
            "seeds": list(self.seeds),
            "versions": self.versions,
            "runs": runs,
        }


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, _DIGITS) if isinstance(v, float) else v for k, v in row.items()}


def run_calibration(
    tables: Sequence[BenchmarkTable],
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    quality_targets: Sequence[float] = (0.97,),
    cost_targets: Sequence[float] = (0.25,),
    predictor: str = "auto",
    command: str = "",
    on_run: Callable[[CalibrationRun], None] | None = None,
) -> CalibrationResult:
    """Calibrate on training queries, and see what test queries make of it.

    Parameters
    ----------
    tables
        Complete queries.
    seeds
        One split each, 80 % to fit and calibrate on.
    quality_targets, cost_targets
        Relative to the strongest candidate.
    predictor
        Kind of the router's predictors.
    command
        Noted in the result.
    on_run
        Called with each run as soon as it is there.

    Raises
    ------
    ConfigurationError
        If there is no table or no seed.
    """
    if not tables or not seeds:
        raise ConfigurationError("a benchmark needs at least one data set and one seed")
    runs = []
    for table in tables:
        for seed in seeds:
            split = _Split(table, seed, predictor)
            for kind, targets in (("quality", quality_targets), ("cost", cost_targets)):
                for target in targets:
                    runs.append(split.run(kind, target))
                    if on_run is not None:
                        on_run(runs[-1])
    return CalibrationResult(command, tuple(seeds), package_versions(), tuple(runs))


class _Split:
    def __init__(self, table: BenchmarkTable, seed: int, predictor: str) -> None:
        rows, held_out = stratified_split(table, seed=seed)
        train, self.test = table.select(rows), table.select(held_out)
        self.name, self.seed = table.name, seed
        self.reference = reference_point(
            train.quality, self.test.quality, self.test.cost
        )
        self.records = train.records()
        self.router = Router(train.candidates, predictor=predictor, seed=seed)
        self.router.fit(self.records)
        self.found = self.router.predict(list(self.test.queries))
        self.truth = {"quality": self.test.quality, "cost": self.test.cost}

    def run(self, kind: str, target: float) -> CalibrationRun:
        targets = {f"{kind}_target": target}
        said = self.router.calibrate(self.records, apply=False, **targets)
        worth = self.found.quality - self.found.cost / said.willingness_to_pay
        chosen, each = worth.argmax(axis=1), np.arange(len(worth))
        best = self.reference.strongest
        mine = {k: t[each, chosen] for k, t in self.truth.items()}
        ratio = {
            k: float(mine[k].mean() / t[:, best].mean()) for k, t in self.truth.items()
        }
        low, high = getattr(said, f"relative_{kind}_interval")
        reached = bootstrap_ratio(mine[kind], self.truth[kind][:, best], self.seed)
        return CalibrationRun(
            self.name,
            self.seed,
            kind,
            target,
            getattr(said, f"relative_{kind}"),
            low,
            high,
            ratio[kind],
            *reached,
            ratio["cost" if kind == "quality" else "quality"],
            said.willingness_to_pay,
        )


def print_calibration(result: CalibrationResult, console: Console) -> None:
    """Print a table: a row per data set and target, misses in points over the seeds.

    Parameters
    ----------
    result
        What was measured.
    console
        Where to.
    """
    table = Table(title=f"Calibration, {len(result.seeds)} seeds")
    for name in ("data", "target", "reached", "mean", "worst", "as expected"):
        table.add_column(name, justify="left" if name == "data" else "right")
    for key in dict.fromkeys((r.data, r.kind, r.target) for r in result.runs):
        runs = [r for r in result.runs if (r.data, r.kind, r.target) == key]
        reached = np.array([r.reached for r in runs])
        misses = np.array([r.miss for r in runs])
        fine = sum(r.is_as_expected for r in runs)
        table.add_row(
            key[0],
            f"{key[1]} {key[2]:.1%}",
            f"{reached.mean():.1%} ± {reached.std():.1%}",
            f"{100 * misses.mean():+.2f}",
            f"{100 * misses[np.abs(misses).argmax()]:+.2f}",
            f"{fine}/{len(runs)}",
        )
    console.print(table)
