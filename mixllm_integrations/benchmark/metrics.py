"""Quality against cost: the figures by which routers are compared.

A router predicts the quality and the cost of each candidate for each query. A
sweep over the willingness to pay turns the predictions into a curve of mean
quality over mean real cost, and the figures here are read off that curve, all
relative to the strongest candidate: the best by mean quality on the *training*
split.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import FloatArray

__all__ = [
    "COST_LEVELS",
    "QUALITY_LEVELS",
    "Curve",
    "ReferencePoint",
    "Reliability",
    "aiq",
    "best_so_far",
    "brier_score",
    "choose",
    "cost_at_quality",
    "mean_squared_error",
    "quality_at_cost",
    "reference_point",
    "reliability",
    "sweep",
    "willingness_grid",
]

QUALITY_LEVELS = (0.95, 0.9725, 0.99, 1.0)
COST_LEVELS = (0.05, 0.1679, 0.2418, 0.5)
_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class ReferencePoint:
    """What a curve is relative to, measured on the test split.

    Parameters
    ----------
    strongest
        Column of the candidate with the best mean quality on the training
        split.
    quality, cost
        Its mean quality and mean cost (USD).
    cheapest_cost
        Mean cost (USD) of the candidate with the lowest one.
    """

    strongest: int
    quality: float
    cost: float
    cheapest_cost: float


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Mean quality over mean cost, both relative to the strongest candidate.

    Parameters
    ----------
    cost, quality
        Shape ``(n_points,)``, in the order of the sweep.
    """

    cost: FloatArray
    quality: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """How often answers were good where a given quality was predicted.

    Parameters
    ----------
    predicted, observed
        Mean predicted and mean recorded quality of each bin that holds a
        prediction.
    count
        How many predictions it holds.
    error
        Mean distance of the two, weighted by the counts: the expected
        calibration error.
    """

    predicted: FloatArray
    observed: FloatArray
    count: NDArray[np.int64]
    error: float


def reference_point(
    train_quality: FloatArray, test_quality: FloatArray, test_cost: FloatArray
) -> ReferencePoint:
    """Return what curves on a test split are relative to.

    Parameters
    ----------
    train_quality
        Shape ``(n_train, n_candidates)``; NaN entries are left out.
    test_quality, test_cost
        Shape ``(n_test, n_candidates)``, cost in USD.

    Raises
    ------
    ConfigurationError
        If the strongest candidate has no quality or no cost to compare with.

    Examples
    --------
    >>> import numpy as np
    >>> train, test = np.array([[0.0, 1.0]]), np.array([[1.0, 0.5]])
    >>> point = reference_point(train, test, np.array([[0.001, 0.01]]))
    >>> point.strongest, point.quality, point.cost, point.cheapest_cost
    (1, 0.5, 0.01, 0.001)
    """
    strongest = int(np.argmax(np.nanmean(train_quality, axis=0)))
    costs = test_cost.mean(axis=0)
    quality, cost = float(test_quality[:, strongest].mean()), float(costs[strongest])
    if not (quality > 0 and cost > 0):
        raise ConfigurationError(
            "the strongest candidate must have a mean quality and a mean cost above "
            f"0 on the test split to be compared with, not {quality:g} and {cost:g}"
        )
    return ReferencePoint(strongest, quality, cost, float(costs.min()))


def willingness_grid(
    unit_cost: float, *, n_points: int = 200, decades: float = 9.0
) -> FloatArray:
    """Return the values of the willingness to pay that a sweep visits.

    Parameters
    ----------
    unit_cost
        Mean cost in USD of the strongest candidate's answer. The grid spans
        from 10⁻⁵ of it, where any saving outweighs any quality, up to 10⁴ of
        it, where cost no longer counts; so the figures do not depend on the
        currency. For an answer of 0.01 USD that is 1e-7…100.
    n_points, decades
        How many values, log-spaced over how many decades.

    Examples
    --------
    >>> grid = willingness_grid(0.01)
    >>> len(grid), f"{grid[0]:.0e} to {grid[-1]:.0e}"
    (200, '1e-07 to 1e+02')
    """
    exponents = np.linspace(-decades * 5 / 9, decades * 4 / 9, n_points)
    return np.asarray(unit_cost * 10.0**exponents, dtype=np.float64)


def choose(
    quality: FloatArray, cost: FloatArray, willingness_to_pay: float
) -> NDArray[np.int64]:
    """Return whom each query goes to: argmax of quality − cost / willingness.

    Parameters
    ----------
    quality, cost
        Predictions, shape ``(n_queries, n_candidates)``, cost in USD.
    willingness_to_pay
        USD for one whole point of quality.

    Returns
    -------
    NDArray[np.int64]
        Columns, shape ``(n_queries,)``. Ties go to the cheaper candidate, then
        to the one declared first.

    Notes
    -----
    Source: MixLLM's trade-off score in units of quality, without exploration
    and waiting.

    Examples
    --------
    >>> import numpy as np
    >>> q, c = np.array([[0.5, 0.9]]), np.array([[0.001, 0.011]])
    >>> choose(q, c, 0.02).tolist(), choose(q, c, 0.03).tolist()
    ([0], [1])
    """
    score = quality - cost / willingness_to_pay
    is_best = score == score.max(axis=1, keepdims=True)
    return np.asarray(np.where(is_best, cost, math.inf).argmin(axis=1), np.int64)


def sweep(
    quality: FloatArray,
    cost: FloatArray,
    *,
    true_quality: FloatArray,
    true_cost: FloatArray,
    reference: ReferencePoint,
    willingness: Sequence[float] | FloatArray | None = None,
) -> Curve:
    """Return mean real quality over mean real cost for each willingness to pay.

    Parameters
    ----------
    quality, cost
        Predictions, shape ``(n_queries, n_candidates)``, cost in USD.
    true_quality, true_cost
        What was recorded, same shape, complete.
    reference
        What the curve is relative to.
    willingness
        The values to visit; `willingness_grid` of the reference by default.

    Raises
    ------
    ConfigurationError
        If a shape differs, or a prediction or a recorded value is not finite.
    """
    for name, matrix in (
        ("predicted quality", quality),
        ("predicted cost", cost),
        ("recorded quality", true_quality),
        ("recorded cost", true_cost),
    ):
        if matrix.shape != true_quality.shape or not np.isfinite(matrix).all():
            raise ConfigurationError(
                f"{name} must be finite and of shape {true_quality.shape}; it has "
                f"shape {matrix.shape} and {int((~np.isfinite(matrix)).sum())} "
                "values that are not finite"
            )
    grid = willingness_grid(reference.cost) if willingness is None else willingness
    rows = np.arange(len(quality))
    points = []
    for value in grid:
        chosen = choose(quality, cost, float(value))
        points.append(
            (true_cost[rows, chosen].mean(), true_quality[rows, chosen].mean())
        )
    costs, qualities = np.asarray(points, dtype=np.float64).T
    return Curve(costs / reference.cost, qualities / reference.quality)


def best_so_far(curve: Curve, costs: FloatArray) -> FloatArray:
    """Return the best quality that a curve reaches within each cost.

    Parameters
    ----------
    curve
        In any order.
    costs
        Relative costs, any shape.

    Returns
    -------
    FloatArray
        Relative qualities, same shape; NaN below the curve's lowest cost.

    Examples
    --------
    >>> import numpy as np
    >>> curve = Curve(np.array([0.5, 0.2]), np.array([0.8, 0.9]))
    >>> best_so_far(curve, np.array([0.1, 0.3, 0.6])).tolist()
    [nan, 0.9, 0.9]
    """
    order = np.argsort(curve.cost, kind="stable")
    best = np.maximum.accumulate(curve.quality[order])
    within = np.searchsorted(curve.cost[order], costs + _TOLERANCE, side="right") - 1
    return np.where(within >= 0, best[np.maximum(within, 0)], math.nan)


def aiq(curve: Curve, reference: ReferencePoint, *, n_points: int = 500) -> float:
    """Return the average quality over the range of costs.

    The best-so-far quality on evenly spaced costs from the cheapest candidate's
    mean cost to 100 % of the strongest's, averaged over those that the curve
    reaches.

    Parameters
    ----------
    curve
        Relative to `reference`.
    reference
        Whose costs bound the range.
    n_points
        How many costs.

    Returns
    -------
    float
        1 is the strongest candidate's quality; NaN if the curve lies beyond
        the strongest candidate's cost.

    Examples
    --------
    Costs 0.2, 0.6, 1.0; the curve is at 0.5 from 0.6 on and at 1.0 from 1.0 on,
    so the average over the two costs that it reaches is 0.75.

    >>> import numpy as np
    >>> curve = Curve(np.array([0.6, 1.0]), np.array([0.5, 1.0]))
    >>> aiq(curve, ReferencePoint(0, 0.8, 0.01, 0.002), n_points=3)
    0.75
    """
    costs = np.linspace(reference.cheapest_cost / reference.cost, 1.0, n_points)
    reached = best_so_far(curve, costs)
    reached = reached[np.isfinite(reached)]
    return float(reached.mean()) if reached.size else math.nan


def cost_at_quality(curve: Curve, level: float) -> float:
    """Return the lowest relative cost at which a curve has a relative quality.

    A level of 1 is the strongest candidate's quality; NaN if no point of the
    curve reaches it.
    """
    enough = curve.cost[curve.quality >= level - _TOLERANCE]
    return float(enough.min()) if enough.size else math.nan


def quality_at_cost(curve: Curve, level: float) -> float:
    """Return the best relative quality that a curve reaches within a cost.

    A level of 1 is the strongest candidate's cost; NaN if every point of the
    curve costs more.
    """
    return float(best_so_far(curve, np.array([level]))[0])


def mean_squared_error(predicted: FloatArray, true: FloatArray) -> float:
    """Return the mean squared error over the entries that were recorded.

    Both have the same shape; `true` is NaN where nothing was recorded.
    """
    return float(np.nanmean((predicted - true) ** 2))


def brier_score(predicted: FloatArray, true: FloatArray) -> float:
    """Return the mean squared error over the answers that are right or wrong.

    Parameters
    ----------
    predicted, true
        Same shape; entries of `true` other than 0 and 1 are left out.

    Returns
    -------
    float
        NaN if there is no such answer.
    """
    decided = (true == 0.0) | (true == 1.0)
    if not decided.any():
        return math.nan
    return float(((predicted[decided] - true[decided]) ** 2).mean())


def reliability(
    predicted: FloatArray, true: FloatArray, *, n_bins: int = 10
) -> Reliability:
    """Compare predicted with recorded quality in bins of equal width.

    Parameters
    ----------
    predicted, true
        Same shape; NaN in `true` where nothing was recorded. Predictions
        outside [0, 1] count in the outer bins.
    n_bins
        How many bins between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> found = reliability(np.array([0.2, 0.4, 0.9]), np.array([0.0, 1.0, 1.0]),
    ...                     n_bins=2)
    >>> found.predicted.round(3).tolist(), found.observed.tolist()
    ([0.3, 0.9], [0.5, 1.0])
    """
    known = ~np.isnan(true)
    p, y = predicted[known], true[known]
    bins = np.clip((p * n_bins).astype(int), 0, n_bins - 1)
    count = np.bincount(bins, minlength=n_bins)
    held = count > 0
    mean_p = np.bincount(bins, p, n_bins)[held] / count[held]
    mean_y = np.bincount(bins, y, n_bins)[held] / count[held]
    error = float(np.average(np.abs(mean_p - mean_y), weights=count[held]))
    return Reliability(mean_p, mean_y, count[held], error)
