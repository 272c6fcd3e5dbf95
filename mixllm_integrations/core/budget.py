"""Stage 9: what one point of quality should be worth, found from a target.

Nobody knows their willingness to pay in USD per point of quality. They know
"97 % of the best model's quality" or "a quarter of its cost".
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.ngrams import fold_of_rows
from mixllm_integrations.core.records import RecordTable
from mixllm_integrations.core.types import Calibration, FloatArray, number_between

__all__ = [
    "HeldOut",
    "bootstrap_ratio",
    "calibrate",
    "checked_target",
    "held_out",
    "judged",
]

_VALUES_TRIED = 500
_DECADES_BELOW, _DECADES_ABOVE = 3, 6  # of the candidates' mean costs
_RESAMPLES = 400
_FEWEST_QUERIES = 20


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Predictions for queries that the heads have not seen, and the truth.

    Parameters
    ----------
    names
        Candidates, in the order of the columns.
    predicted_quality, predicted_cost
        Shape ``(n_queries, n_candidates)``, cost in USD.
    quality, cost
        What was recorded, of the same shape.
    """

    names: tuple[str, ...]
    predicted_quality: FloatArray
    predicted_cost: FloatArray
    quality: FloatArray
    cost: FloatArray


def held_out(
    table: RecordTable,
    forecast: Callable[[RecordTable, RecordTable], tuple[FloatArray, ...]],
    *,
    n_folds: int,
    most_queries: int,
    seed: int,
) -> HeldOut:
    """Return predictions for queries, each by a fit without it.

    Parameters
    ----------
    table
        Labels. A query that lacks a candidate's quality trains, but is not
        predicted: see `judged`.
    forecast
        Fits on the first table and returns quality and cost for the second.
    n_folds
        How many fits.
    most_queries
        A larger table is sampled, complete queries first.
    seed
        Of sample and folds.
    """
    lacking = np.asarray(np.isnan(table.quality).any(axis=1))
    order = np.random.default_rng(seed).permutation(len(lacking))
    order = order[np.argsort(lacking[order], kind="stable")][:most_queries]
    order.sort()
    sample = table.rows(order.tolist())
    complete = _complete(sample)
    folds = fold_of_rows(len(sample.queries), n_folds=n_folds, seed=seed)
    quality, cost = np.empty(sample.quality.shape), np.empty(sample.quality.shape)
    for fold in range(n_folds if complete.sum() >= _FEWEST_QUERIES else 0):
        test = np.flatnonzero((folds == fold) & complete)
        train = sample.rows(np.flatnonzero(folds != fold).tolist())
        quality[test], cost[test] = forecast(train, sample.rows(test.tolist()))
    return judged(sample, quality, cost)


def judged(table: RecordTable, quality: FloatArray, cost: FloatArray) -> HeldOut:
    """Return predictions beside the truth, for queries that can be judged.

    Parameters
    ----------
    table
        Labels. A query that lacks a candidate's quality is left out; where
        fewer than 20 are complete, none is, and what they lack is taken as
        predicted, as a missing cost always is.
    quality, cost
        Predictions, of the table's shape.
    """
    paid = np.where(np.isfinite(table.cost), table.cost, cost)
    got = np.where(np.isfinite(table.quality), table.quality, quality)
    complete = _complete(table)
    return HeldOut(table.names, *(a[complete] for a in (quality, cost, got, paid)))


def _complete(table: RecordTable) -> NDArray[np.bool_]:
    complete = np.asarray(np.isfinite(table.quality).all(axis=1))
    return complete if complete.sum() >= _FEWEST_QUERIES else np.ones_like(complete)


def checked_target(
    quality_target: float | None, cost_target: float | None
) -> tuple[float | None, float | None]:
    """Return the targets, exactly one of which must be given.

    Parameters
    ----------
    quality_target, cost_target
        Relative to the strongest candidate, above 0.

    Raises
    ------
    ConfigurationError
        If both or neither are given, or one is out of range.
    """
    if (quality_target is None) == (cost_target is None):
        raise ConfigurationError(
            "pass either quality_target or cost_target, relative to the strongest "
            f"candidate, not quality_target={quality_target!r} and "
            f"cost_target={cost_target!r}"
        )
    for name, value in (
        ("quality_target", quality_target),
        ("cost_target", cost_target),
    ):
        if value is not None:
            number_between(value, name, high=2.0, low_is_allowed=False)
    return quality_target, cost_target


def calibrate(
    held_out: HeldOut,
    *,
    quality_target: float | None,
    cost_target: float | None,
    seed: int,
) -> Calibration:
    """Return the willingness to pay that meets a target at the best price.

    Parameters
    ----------
    held_out
        Predictions and truth.
    quality_target
        Reach at least this share of the strongest candidate's quality, as
        cheaply as possible.
    cost_target
        Spend at most this share of its cost, for the best quality.
    seed
        Of the bootstrap.

    Returns
    -------
    Calibration
        If no value meets the target, the nearest one, with
        ``target_reached=False``.

    Raises
    ------
    ConfigurationError
        If there are fewer than 20 queries.

    Notes
    -----
    Our choice; exploration and waiting are left out. Of values that do equally
    well the one nearest the middle of those tried is taken. Intervals are
    bootstrap percentiles over queries, the choice of the value held fixed.
    """
    quality_target, cost_target = checked_target(quality_target, cost_target)
    n = len(held_out.quality)
    if n < _FEWEST_QUERIES:
        raise ConfigurationError(
            f"there are only {n} labelled queries; calibration needs at least "
            f"{_FEWEST_QUERIES}"
        )
    strongest = int(held_out.quality.mean(axis=0).argmax())
    best_quality = held_out.quality[:, strongest]
    best_cost = held_out.cost[:, strongest]
    values = _values(held_out.predicted_cost)
    rows = np.arange(n)
    chosen = np.stack(
        [
            (held_out.predicted_quality - held_out.predicted_cost / value).argmax(
                axis=1
            )
            for value in values
        ]
    )
    quality = held_out.quality[rows, chosen].mean(axis=1) / max(
        best_quality.mean(), 1e-12
    )
    cost = held_out.cost[rows, chosen].mean(axis=1) / max(best_cost.mean(), 1e-12)
    index, reached = _best(quality, cost, quality_target, cost_target)
    got = held_out.quality[rows, chosen[index]], held_out.cost[rows, chosen[index]]
    return Calibration(
        willingness_to_pay=float(values[index]),
        quality=float(got[0].mean()),
        cost=float(got[1].mean()),
        relative_quality=float(quality[index]),
        relative_cost=float(cost[index]),
        relative_quality_interval=bootstrap_ratio(got[0], best_quality, seed),
        relative_cost_interval=bootstrap_ratio(got[1], best_cost, seed),
        strongest=held_out.names[strongest],
        n_queries=n,
        target_reached=reached,
    )


def _values(predicted_cost: FloatArray) -> FloatArray:
    """Return values from "the cheapest" to "the best", whatever prices are."""
    means = predicted_cost.mean(axis=0)
    charged = means[means > 0] if (means > 0).any() else np.array([1e-4])
    low, high = np.log10(charged.min()), np.log10(charged.max())
    return np.logspace(low - _DECADES_BELOW, high + _DECADES_ABOVE, _VALUES_TRIED)


def _best(
    quality: FloatArray,
    cost: FloatArray,
    quality_target: float | None,
    cost_target: float | None,
) -> tuple[int, bool]:
    if quality_target is not None:
        meets = quality >= quality_target
        if meets.any():
            return _middlemost(np.where(meets, -cost, -np.inf)), True
        return _middlemost(quality), False
    meets = cost <= (cost_target or 0.0)
    if meets.any():
        return _middlemost(np.where(meets, quality, -np.inf)), True
    return _middlemost(-cost), False


def _middlemost(worth: FloatArray) -> int:
    """Return which value is best; of several, the one nearest the middle.

    At either end of what is tried, cost or else quality weighs so much that
    feedback, exploration and waiting no longer count.
    """
    best = np.flatnonzero(worth >= worth.max() - 1e-12)
    return int(best[np.abs(best - (len(worth) - 1) / 2).argmin()])


def bootstrap_ratio(
    mine: FloatArray, best: FloatArray, seed: int
) -> tuple[float, float]:
    """Return the 95 % interval of a ratio of means over resampled queries.

    Parameters
    ----------
    mine, best
        Of the same queries, shape ``(n,)``.
    seed
        Of the resampling.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(mine), size=(_RESAMPLES, len(mine)))
    ratios = mine[drawn].mean(axis=1) / np.maximum(best[drawn].mean(axis=1), 1e-12)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)
