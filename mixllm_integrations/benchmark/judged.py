"""A router that exists, judged on labelled answers.

`offline` fits routers anew to compare methods; here one is taken as it is, at its
own willingness to pay, beside what else could be done with the same candidates.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.benchmark.baselines import hull_curve
from mixllm_integrations.benchmark.metrics import (
    QUALITY_LEVELS,
    Curve,
    ReferencePoint,
    aiq,
    best_so_far,
    brier_score,
    choose,
    cost_at_quality,
    reference_point,
    reliability,
    sweep,
    willingness_grid,
)
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.offpolicy import Interval
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import FloatArray, RoutingRecord

__all__ = ["Judged", "Way", "judge_router"]

_RESAMPLES = 300
_FEWEST = 20  # queries
_Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to send the queries, and what came of it.

    Parameters
    ----------
    name
        What it is.
    quality, cost
        Mean per query, cost in USD.
    relative_quality, relative_cost
        As shares of the strongest candidate's.
    latency_seconds
        Mean of the answers whose latency is on record; NaN without any.
    """

    name: str
    quality: Interval
    cost: Interval
    relative_quality: Interval
    relative_cost: Interval
    latency_seconds: float


@dataclass(frozen=True, slots=True)
class Judged:
    """What a router is worth on labelled answers.

    Parameters
    ----------
    queries, incomplete
        How many were asked, and how many were left out because not every
        candidate's answer is on record.
    seen
        How many of them the router was fitted on: figures on those are too good.
    willingness_to_pay
        The router's λ in USD.
    strongest
        The candidate of the best mean quality here.
    now
        The router at its λ.
    singles
        Always one candidate, best quality first.
    random, oracle
        A candidate by lot, and the best choice by what is on record, at the same λ.
    mix_quality
        Relative quality of the best random mix of two candidates that costs as
        much as the router; NaN if that is less than the cheapest one.
    area
        Average relative quality over the range of costs (AIQ): the router, the
        mixes, the oracle.
    cost_at
        Relative cost that the router needs for some relative qualities.
    brier, calibration_error
        Of the predicted qualities.
    shares
        Of the queries, by candidate.
    curve, mix, oracle_curve
        USD per query and quality, as λ grows.
    left_out
        Candidates of the router without a record.
    """

    queries: int
    incomplete: int
    seen: int
    willingness_to_pay: float
    strongest: str
    now: Way
    singles: tuple[Way, ...]
    random: Way
    oracle: Way
    mix_quality: float
    area: tuple[Interval, float, float]
    cost_at: dict[float, Interval]
    brier: float
    calibration_error: float
    shares: dict[str, float]
    curve: _Points
    mix: _Points
    oracle_curve: _Points
    left_out: tuple[str, ...]


def judge_router(
    router: Router,
    records: Sequence[RoutingRecord],
    *,
    query_ids: Sequence[str | None] | None = None,
    seed: int = 0,
) -> Judged:
    """Return what a router is worth on labelled answers.

    Parameters
    ----------
    router
        It is asked, and learns nothing.
    records
        Those of candidates that it does not have are left out.
    query_ids
        Which query each record belongs to, where the file says so.
    seed
        Of the resampling.

    Raises
    ------
    ConfigurationError
        If fewer than 20 queries have an answer of every candidate, or a cost is
        neither recorded nor to be computed.

    Notes
    -----
    Exploration, waiting and hard limits are left out. Intervals are percentiles
    over resampled queries, the strongest candidate held fixed.
    """
    table, left_out, n_all = _table(router, records, query_ids)
    said = router.predict(list(table.queries))
    columns = [said.candidates.index(name) for name in table.names]
    quality, cost = said.quality[:, columns], said.cost[:, columns]
    reference = reference_point(table.quality, table.quality, table.cost)
    sample = _Resampled(table, reference, seed)
    chosen = choose(quality, cost, router.willingness_to_pay)
    ideal = choose(table.quality, table.cost, router.willingness_to_pay)
    lot = np.random.default_rng(seed).integers(0, len(table.names), len(table))
    singles = [
        sample.way(name, np.full(len(table), column))
        for column, name in enumerate(table.names)
    ]
    grid = willingness_grid(reference.cost)
    curve = _swept(table, quality, cost, reference, grid)
    bound = _swept(table, table.quality, table.cost, reference, grid)
    mix = hull_curve(table, table, reference)
    now = sample.way("router", chosen)
    many = sample.curves(np.stack([choose(quality, cost, float(v)) for v in grid]))
    found = reliability(quality, table.quality)
    counts = np.bincount(chosen, minlength=len(table.names)) / len(table)
    return Judged(
        queries=len(table),
        incomplete=n_all - len(table),
        seen=int(router.has_seen(table.queries).sum()),
        willingness_to_pay=router.willingness_to_pay,
        strongest=table.names[reference.strongest],
        now=now,
        singles=tuple(sorted(singles, key=lambda way: -way.quality.value)),
        random=sample.way("by lot", lot),
        oracle=sample.way("oracle", ideal),
        mix_quality=float(best_so_far(mix, np.array([now.relative_cost.value]))[0]),
        area=(
            many.interval(curve, aiq),
            aiq(mix, reference),
            aiq(bound, reference),
        ),
        cost_at={
            level: many.interval(curve, _cost_at(level)) for level in QUALITY_LEVELS
        },
        brier=brier_score(quality, table.quality),
        calibration_error=found.error,
        shares=dict(zip(table.names, counts.tolist(), strict=True)),
        curve=_absolute(curve, reference),
        mix=_absolute(mix, reference),
        oracle_curve=_absolute(bound, reference),
        left_out=left_out,
    )


def _table(
    router: Router,
    records: Sequence[RoutingRecord],
    query_ids: Sequence[str | None] | None,
) -> tuple[BenchmarkTable, tuple[str, ...], int]:
    labelled = {record.candidate for record in records}
    known = [c for c in router.candidates if c.name in labelled]
    left_out = tuple(c.name for c in router.candidates if c.name not in labelled)
    if not known:
        raise ConfigurationError(
            f"none of the router's candidates {[c.name for c in router.candidates]} "
            f"has a record; the records are of {sorted(labelled)}"
        )
    table = BenchmarkTable.from_records(records, query_ids=query_ids, candidates=known)
    whole = table.complete()
    if len(whole) < _FEWEST:
        raise ConfigurationError(
            f"only {len(whole)} of {len(table)} queries have an answer of every "
            f"candidate on record; at least {_FEWEST} are needed"
        )
    return whole, left_out, len(table)


def _swept(
    table: BenchmarkTable,
    quality: FloatArray,
    cost: FloatArray,
    reference: ReferencePoint,
    grid: FloatArray,
) -> Curve:
    return sweep(
        quality,
        cost,
        true_quality=table.quality,
        true_cost=table.cost,
        reference=reference,
        willingness=grid,
    )


def _cost_at(level: float) -> Callable[[Curve, ReferencePoint], float]:
    return lambda curve, _: cost_at_quality(curve, level)


def _absolute(curve: Curve, reference: ReferencePoint) -> _Points:
    costs, qualities = curve.cost * reference.cost, curve.quality * reference.quality
    pairs = zip(costs.tolist(), qualities.tolist(), strict=True)
    return tuple(sorted(dict.fromkeys(pairs)))


class _Resampled:
    """Means over resampled queries, everybody's over the same ones."""

    def __init__(
        self, table: BenchmarkTable, reference: ReferencePoint, seed: int
    ) -> None:
        n = len(table)
        drawn = np.random.default_rng(seed).multinomial(
            n, np.full(n, 1.0 / n), size=_RESAMPLES
        )
        self._weights = drawn / n
        self._table, self._rows = table, np.arange(n)
        self._reference = reference
        best = reference.strongest
        self._best = (
            self._weights @ table.quality[:, best],
            self._weights @ table.cost[:, best],
        )

    def way(self, name: str, chosen: NDArray[np.int64]) -> Way:
        """Return what sending each query to one candidate gives."""
        table, at = self._table, (self._rows, chosen)
        quality, cost, took = (
            table.quality[at],
            table.cost[at],
            table.latency_seconds[at],
        )
        means = self._weights @ quality, self._weights @ cost
        known = took[np.isfinite(took)]
        best = self._reference
        return Way(
            name=name,
            quality=_interval(quality.mean(), means[0]),
            cost=_interval(cost.mean(), means[1]),
            relative_quality=_interval(
                quality.mean() / best.quality,
                means[0] / np.maximum(self._best[0], 1e-12),
            ),
            relative_cost=_interval(
                cost.mean() / best.cost, means[1] / np.maximum(self._best[1], 1e-12)
            ),
            latency_seconds=float(known.mean()) if known.size else math.nan,
        )

    def curves(self, chosen: NDArray[np.int64]) -> "_Curves":
        """Return the curves of choices, one row per λ, over resampled queries."""
        table = self._table
        quality = np.take_along_axis(table.quality, chosen.T, axis=1)
        cost = np.take_along_axis(table.cost, chosen.T, axis=1)
        cheapest = int(table.cost.mean(axis=0).argmin())
        return _Curves(
            self._weights @ quality,
            self._weights @ cost,
            self._best,
            self._weights @ table.cost[:, cheapest],
            self._reference,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Curves:
    quality: FloatArray
    cost: FloatArray
    best: tuple[FloatArray, FloatArray]
    cheapest: FloatArray
    reference: ReferencePoint

    def interval(
        self, curve: Curve, figure: Callable[[Curve, ReferencePoint], float]
    ) -> Interval:
        """Return a figure of the curve with its interval over resampled queries."""
        values = []
        for quality, cost, best, paid, low in zip(
            self.quality, self.cost, *self.best, self.cheapest, strict=True
        ):
            point = ReferencePoint(
                self.reference.strongest, float(best), float(paid), float(low)
            )
            values.append(figure(Curve(cost / paid, quality / best), point))
        return _interval(figure(curve, self.reference), np.array(values))


def _interval(value: float, resampled: FloatArray) -> Interval:
    known = resampled[np.isfinite(resampled)]
    # Where a level is reached in some samples alone, its ends say nothing.
    if len(known) < 0.975 * len(resampled):
        return Interval(float(value), math.nan, math.nan)
    low, high = np.quantile(known, [0.025, 0.975]).tolist()
    return Interval(float(value), low, high)
