"""What contestants reached under time constraint: runs, and means over the seeds."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.benchmark.latency.simulation import Played, Traffic
from mixllm_integrations.benchmark.online.results import Spread, mean_and_spread
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.core.types import FloatArray

__all__ = [
    "BLIND",
    "CONTESTANTS",
    "MEASURED",
    "OURS",
    "REFRESHED",
    "Judge",
    "LatencyResult",
    "LatencyRun",
    "Point",
]

OURS, REFRESHED = "ours, live", "ours, refreshed"
MEASURED, BLIND = "ours, speeds measured", "ours, no penalty"
CONTESTANTS = (
    *(OURS, REFRESHED, MEASURED, BLIND),
    *("least-busy", "round-robin", "random", "cheapest", "strongest"),
)
_BINS = 10
_DIGITS = 5


class Point(NamedTuple):
    """Under what conditions traffic was routed.

    Parameters
    ----------
    rate
        Queries per second.
    tolerance_seconds
        τ.
    factor
        Multiple of the usual willingness to pay.
    """

    rate: float
    tolerance_seconds: float
    factor: float


@dataclass(frozen=True, slots=True)
class LatencyRun:
    """One contestant at one point, on one seed.

    Parameters
    ----------
    seed, contestant, rate, tolerance_seconds, factor
        Who, where.
    n_queries
        How many came.
    quality, cost
        Relative to the strongest candidate without any constraint, on the same
        queries; an answer that started later than τ counts 0 and is paid.
    late
        Share of such answers.
    unhurried_quality
        Relative quality if none counted 0.
    whole_quality, whole_late
        As `quality` and `late`, if the whole answer has to be there by τ.
    wait_p50, wait_p95
        Seconds until the first token.
    expected_wait, real_wait, wait_error
        Mean seconds in the queue: foreseen, real, and how far apart; NaN for a
        contestant that foresees nothing.
    foreseen
        Foreseen and real seconds in the queue, and how many queries, for tenths
        of those that were to wait.
    shares
        Of the traffic, by candidate.
    seconds
        What the simulation took.
    """

    seed: int
    contestant: str
    rate: float
    tolerance_seconds: float
    factor: float
    n_queries: int
    quality: float
    cost: float
    late: float
    unhurried_quality: float
    whole_quality: float
    whole_late: float
    wait_p50: float
    wait_p95: float
    expected_wait: float
    real_wait: float
    wait_error: float
    foreseen: tuple[tuple[float, float, int], ...] = field(repr=False)
    shares: dict[str, float]
    seconds: float = 0.0

    @property
    def point(self) -> Point:
        """Where it was."""
        return Point(self.rate, self.tolerance_seconds, self.factor)


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Counts what came of choices.

    Parameters
    ----------
    table
        The queries that may come.
    strongest
        Column of the candidate that all is relative to.
    seed
        Noted in the runs.
    """

    table: BenchmarkTable
    strongest: int
    seed: int

    def run(
        self, contestant: str, point: Point, traffic: Traffic, played: Played
    ) -> LatencyRun:
        """Return the figures of one contestant at one point.

        Parameters
        ----------
        contestant
            Who.
        point
            Where.
        traffic, played
            What came, and what came of it.
        """
        rows, column = traffic.rows, played.column
        quality = self.table.quality[rows, column]
        best = self.table.quality[rows, self.strongest].mean()
        most = self.table.cost[rows, self.strongest].mean()
        in_time = played.started <= point.tolerance_seconds
        wholly = played.ended <= point.tolerance_seconds
        known = np.isfinite(played.expected)
        expected, real = played.expected[known], played.queued[known]
        shares = np.bincount(column, minlength=len(self.table.names)) / len(column)
        return LatencyRun(
            self.seed,
            contestant,
            *point,
            len(traffic),
            quality=_ratio((quality * in_time).mean(), best),
            cost=_ratio(self.table.cost[rows, column].mean(), most),
            late=1.0 - float(in_time.mean()),
            unhurried_quality=_ratio(quality.mean(), best),
            whole_quality=_ratio((quality * wholly).mean(), best),
            whole_late=1.0 - float(wholly.mean()),
            wait_p50=float(np.quantile(played.started, 0.5)),
            wait_p95=float(np.quantile(played.started, 0.95)),
            expected_wait=_mean(expected),
            real_wait=_mean(real),
            wait_error=_mean(np.abs(expected - real)),
            foreseen=_tenths(expected, real),
            shares=dict(zip(self.table.names, shares.tolist(), strict=True)),
        )


@dataclass(frozen=True, slots=True)
class LatencyResult:
    """All runs on one data set.

    Parameters
    ----------
    data, candidates, n_queries
        What was measured; `n_queries` in all, a fifth of them come.
    seeds, contestants
        In order.
    strongest
        Who it was, seed by seed.
    usual
        The paper's setting, where each sweep passes through.
    willingness_to_pay, willingness_rule
        USD per point of quality, and how it was found.
    settings
        What else was assumed: the speed of each candidate, and its servers.
    command, versions
        What is needed to repeat it.
    runs
        What was found.
    """

    data: str
    candidates: tuple[str, ...]
    n_queries: int
    seeds: tuple[int, ...]
    contestants: tuple[str, ...]
    strongest: tuple[str, ...]
    usual: Point
    willingness_to_pay: float
    willingness_rule: str
    settings: dict[str, Any]
    command: str
    versions: dict[str, str]
    runs: tuple[LatencyRun, ...] = field(repr=False)

    @property
    def points(self) -> tuple[Point, ...]:
        """Where something was measured, in order."""
        return tuple(sorted({run.point for run in self.runs}))

    def of(self, contestant: str, point: Point) -> tuple[LatencyRun, ...]:
        """Return the runs of a contestant at a point, by seed.

        Parameters
        ----------
        contestant, point
            Which ones.
        """
        found = [
            run
            for run in self.runs
            if run.contestant == contestant and run.point == point
        ]
        return tuple(sorted(found, key=lambda run: run.seed))

    def spread(self, contestant: str, point: Point, figure: str) -> Spread | None:
        """Return mean and standard deviation of a figure over the seeds.

        Parameters
        ----------
        contestant, point
            Whose.
        figure
            A field of `LatencyRun`.

        Returns
        -------
        tuple of float or None
            ``None`` if it was not measured.
        """
        return mean_and_spread(
            getattr(run, figure) for run in self.of(contestant, point)
        )

    def ahead(self, contestant: str, other: str, point: Point) -> Spread | None:
        """Return how much better somebody is in quality, seed by seed.

        Parameters
        ----------
        contestant, other
            Who, and beyond whom.
        point
            Where.

        Returns
        -------
        tuple of float or None
            Mean and standard deviation of the difference.
        """
        theirs = {run.seed: run.quality for run in self.of(other, point)}
        return mean_and_spread(
            run.quality - theirs[run.seed]
            for run in self.of(contestant, point)
            if run.seed in theirs
        )

    def along(self, axis: str) -> tuple[Point, ...]:
        """Return the points of the sweep of one condition, ascending.

        Parameters
        ----------
        axis
            A field of `Point`; the others are as usual.
        """
        return tuple(
            point
            for point in self.points
            if point._replace(**{axis: getattr(self.usual, axis)}) == self.usual
        )

    def summary(self) -> list[dict[str, Any]]:
        """Return mean and spread of every contestant at every point."""
        figures = (
            *("quality", "cost", "late", "whole_quality", "whole_late"),
            *("wait_p50", "wait_p95", "expected_wait", "real_wait", "wait_error"),
        )
        rows = []
        for point in self.points:
            for contestant in self.contestants:
                if not self.of(contestant, point):
                    continue
                row: dict[str, Any] = {"contestant": contestant, **point._asdict()}
                for figure in figures:
                    found = self.spread(contestant, point, figure)
                    row[figure], row[f"{figure}_spread"] = found or (None, None)
                rows.append(row)
        return rows

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain lists, numbers and strings; NaN as null."""
        from mixllm_integrations.benchmark.latency.goals import goals

        found = asdict(replace(self, runs=()))
        found["usual"] = self.usual._asdict()
        found["summary"] = self.summary()
        found["goals"] = [asdict(goal) for goal in goals(self)]
        found["runs"] = [asdict(run) for run in self.runs]
        plain: dict[str, Any] = _plain(found)
        return plain


def _ratio(value: float, base: float) -> float:
    return float(value / base) if base else math.nan


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if values.size else math.nan


def _tenths(
    expected: FloatArray, real: FloatArray
) -> tuple[tuple[float, float, int], ...]:
    """Return mean foreseen and real waits of those that were to wait, in tenths."""
    waits: NDArray[np.intp] = np.flatnonzero(expected > 0)
    order = waits[expected[waits].argsort(kind="stable")]
    return tuple(
        (float(expected[part].mean()), float(real[part].mean()), len(part))
        for part in np.array_split(order, _BINS)
        if len(part)
    )


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    return value
