"""What a benchmark found: one run per method and split, and their summary."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import numpy as np

from mixllm_integrations.core.errors import ConfigurationError

__all__ = ["MethodRun", "OfflineResult", "Role", "Summary"]

Role = Literal["router", "baseline", "single", "bound"]
_DIGITS = 6
_LISTS = ("candidates", "seeds", "strongest")
_SINGLE_VALUES = ("data", "n_queries", "n_train", "n_test", "command", "versions")
_LEADING = ("aiq", "best_quality", "relative_cost")


@dataclass(frozen=True, slots=True)
class MethodRun:
    """What one method reached on one split.

    Parameters
    ----------
    method, role, seed
        Who, of which sort, on which split.
    aiq
        Average relative quality over the range of costs.
    cost_at, quality_at
        Relative cost at each relative quality, and the other way round; NaN
        where the method does not get there.
    best_quality, relative_cost
        The highest relative quality of its curve, and the lowest relative cost
        at which it has that.
    mse, brier, calibration_error
        Of the predicted qualities; NaN if the method predicts none.
    cost_ratio
        Mean predicted over mean real cost, all candidates; NaN likewise.
    fit_seconds, predict_seconds
        Wall-clock time, embedding included for the router only.
    curve
        Relative cost and quality of each point of the sweep.
    reliability
        Mean predicted and mean recorded quality of each bin, and its count.
    """

    method: str
    role: Role
    seed: int
    aiq: float
    cost_at: dict[float, float]
    quality_at: dict[float, float]
    best_quality: float
    relative_cost: float
    mse: float = math.nan
    brier: float = math.nan
    calibration_error: float = math.nan
    cost_ratio: float = math.nan
    fit_seconds: float = 0.0
    predict_seconds: float = 0.0
    curve: tuple[tuple[float, float], ...] = ()
    reliability: tuple[tuple[float, float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean and spread of one method over the seeds.

    Parameters
    ----------
    method, role
        Who, and of which sort.
    mean, spread
        Mean and standard deviation of each figure by its name. A mean is NaN
        unless every seed reached the level.
    """

    method: str
    role: Role
    mean: dict[str, float]
    spread: dict[str, float]


@dataclass(frozen=True, slots=True)
class OfflineResult:
    """All runs of one benchmark, and what is needed to repeat them.

    Parameters
    ----------
    data, candidates
        What was measured.
    n_queries, n_train, n_test
        Queries altogether and in a split.
    seeds
        One split each.
    strongest
        The strongest candidate on each training split.
    command
        How it was called.
    versions
        Of Python and of the packages that matter.
    runs
        Every method on every split.
    """

    data: str
    candidates: tuple[str, ...]
    n_queries: int
    n_train: int
    n_test: int
    seeds: tuple[int, ...]
    strongest: tuple[str, ...]
    command: str
    versions: dict[str, str]
    runs: tuple[MethodRun, ...] = field(repr=False)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in the order in which they were run."""
        return tuple(dict.fromkeys(run.method for run in self.runs))

    def of(self, method: str) -> tuple[MethodRun, ...]:
        """Return the runs of one method, one per seed."""
        return tuple(run for run in self.runs if run.method == method)

    def summary(self, method: str) -> Summary:
        """Return mean and spread of one method over the seeds."""
        runs = self.of(method)
        figures = [_figures(run) for run in runs]
        columns = {name: np.array([f[name] for f in figures]) for name in figures[0]}
        return Summary(
            method,
            runs[0].role,
            {name: float(values.mean()) for name, values in columns.items()},
            {name: float(values.std()) for name, values in columns.items()},
        )

    def advantage(self, method: str, other: str) -> tuple[float, float]:
        """Return by how much one method's AIQ exceeds another's on the same split.

        Much of an AIQ's spread is how well the strongest candidate happens to
        do on the split, which is common to all methods and cancels here.

        Parameters
        ----------
        method, other
            Which two.

        Returns
        -------
        tuple[float, float]
            Mean and standard deviation of the difference over the seeds.
        """
        pairs = zip(self.of(method), self.of(other), strict=True)
        gaps = np.array([one.aiq - two.aiq for one, two in pairs])
        return float(gaps.mean()), float(gaps.std())

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Return the result that `to_json` wrote, to print or draw it again.

        Parameters
        ----------
        found
            With or without curves.

        Raises
        ------
        ConfigurationError
            If it is no such result.
        """
        try:
            runs = tuple(_run(run) for run in found["runs"])
            values: dict[str, Any] = {name: found[name] for name in _SINGLE_VALUES}
            values |= {name: tuple(found[name]) for name in _LISTS}
            return cls(**values, runs=runs)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigurationError(
                f"not a result of an offline benchmark: {type(error).__name__} {error}"
            ) from error

    def to_json(self, *, curves: bool = True) -> dict[str, Any]:
        """Return the result as plain lists, numbers and strings.

        Parameters
        ----------
        curves
            Whether the points of the curves are included.

        Returns
        -------
        dict[str, Any]
            For `json.dumps`; NaN is ``None``.
        """
        found = asdict(self)
        found["summary"] = [asdict(self.summary(method)) for method in self.methods]
        if not curves:
            for run in found["runs"]:
                del run["curve"], run["reliability"]
        plain: dict[str, Any] = _plain(found)
        return plain


def _run(found: Mapping[str, Any]) -> MethodRun:
    values: dict[str, Any] = {
        name: math.nan if v is None else v for name, v in found.items()
    }
    for levels in ("cost_at", "quality_at"):
        values[levels] = {
            float(level): math.nan if v is None else v
            for level, v in values[levels].items()
        }
    for rows in ("curve", "reliability"):
        values[rows] = tuple(tuple(row) for row in values.get(rows, ()))
    return MethodRun(**values)


def _figures(run: MethodRun) -> dict[str, float]:
    found = {name: getattr(run, name) for name in _LEADING}
    found |= {f"cost at {level:.2%}": v for level, v in run.cost_at.items()}
    found |= {f"quality at {level:.2%}": v for level, v in run.quality_at.items()}
    plain = ("mse", "brier", "calibration_error", "cost_ratio", "fit_seconds")
    return found | {name: getattr(run, name) for name in plain}


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    return value
