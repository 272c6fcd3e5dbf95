"""What an ablation found: figures per context, their gains, and tables of them."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mixllm_integrations.benchmark.metrics import Curve, ReferencePoint, best_so_far
from mixllm_integrations.core.types import FloatArray

__all__ = [
    "BASELINE",
    "FIGURES",
    "AblationResult",
    "AblationRun",
    "print_ablation",
    "third_quality",
]

BASELINE = "plain embedding"
FIGURES = ("aiq", "low_third", "high_third", "mse", "cost_at_9725")
_HEADS = ("AIQ", "low\nthird", "high\nthird", "squared\nerror", "cost at\n97.25 %")
_DIGITS = (4, 4, 4, 4, 3)


@dataclass(frozen=True, slots=True)
class AblationRun:
    """What one context reached on one split.

    Parameters
    ----------
    context, seed
        Which parts the heads saw, on which split.
    n_features
        Length of the context vector.
    figures
        By the names in `FIGURES`: AIQ, mean quality in the low-cost and in
        the high-cost third (`third_quality`), squared error of the predicted
        quality, relative cost at 97.25 % of the strongest's quality (NaN where
        it is not reached).
    seconds
        To fit the quality heads and predict.
    """

    context: str
    seed: int
    n_features: int
    figures: dict[str, float]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class AblationResult:
    """All contexts on all splits, and what is needed to repeat them.

    Parameters
    ----------
    data, n_queries, candidates, seeds
        What was measured.
    predictor
        Kind of the heads.
    finetuning
        Seconds that each fine-tuning took, by ``loss, seed``.
    command, versions
        How it was called, on what.
    runs
        Every context on every split.
    """

    data: str
    n_queries: int
    candidates: tuple[str, ...]
    seeds: tuple[int, ...]
    predictor: str
    finetuning: dict[str, float]
    command: str
    versions: dict[str, str]
    runs: tuple[AblationRun, ...] = field(repr=False)

    @property
    def contexts(self) -> tuple[str, ...]:
        """Names of the contexts, in the order in which they were run."""
        return tuple(dict.fromkeys(run.context for run in self.runs))

    def values(self, context: str, figure: str) -> FloatArray:
        """Return one figure of one context, shape ``(n_seeds,)``."""
        return np.array([r.figures[figure] for r in self.runs if r.context == context])

    def gain(
        self, context: str, figure: str, *, over: str = BASELINE
    ) -> tuple[float, float]:
        """Return by how much one context's figure exceeds another's, split by split.

        Parameters
        ----------
        context, over
            Which two.
        figure
            One of `FIGURES`.

        Returns
        -------
        tuple[float, float]
            Mean and standard deviation of the difference over the seeds.
        """
        gaps = self.values(context, figure) - self.values(over, figure)
        return float(gaps.mean()), float(gaps.std())

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain lists, numbers and strings; NaN is ``None``."""
        found = asdict(self)
        found["summary"] = [
            {
                "context": name,
                **{f: float(self.values(name, f).mean()) for f in FIGURES},
                "spread": {f: float(self.values(name, f).std()) for f in FIGURES},
                "gain": {f: self.gain(name, f) for f in FIGURES},
            }
            for name in self.contexts
        ]
        plain: dict[str, Any] = _plain(found)
        return plain


def third_quality(
    curve: Curve, reference: ReferencePoint, *, high: bool, n_points: int = 500
) -> float:
    """Return the mean quality in the low-cost or in the high-cost third.

    The costs are those of `aiq`: evenly spaced, on a *linear* scale, from the
    cheapest candidate's mean cost to 100 % of the strongest's. Of the
    best-so-far quality on them, the first or the last third is averaged,
    relative to the strongest candidate, where the curve reaches it.

    Parameters
    ----------
    curve
        Relative to `reference`.
    reference
        Whose costs bound the range.
    high
        The third of the highest costs, instead of the lowest.
    n_points
        How many costs.

    Notes
    -----
    Source: METHOD §6 for the grid. The paper reports gains in a low-cost and
    in a high-cost range; that they are thirds of this grid is our reading.

    Examples
    --------
    Costs 0.1, 0.55 and 1.0: the first third is 0.1, the last 1.0.

    >>> curve = Curve(np.array([0.1, 0.6]), np.array([0.7, 0.9]))
    >>> point = ReferencePoint(0, 0.8, 0.01, 0.001)
    >>> third_quality(curve, point, high=False, n_points=3)
    0.7
    >>> third_quality(curve, point, high=True, n_points=3)
    0.9
    """
    costs = np.linspace(reference.cheapest_cost / reference.cost, 1.0, n_points)
    share = n_points // 3
    reached = best_so_far(curve, costs[-share:] if high else costs[:share])
    reached = reached[np.isfinite(reached)]
    return float(reached.mean()) if reached.size else math.nan


def print_ablation(result: AblationResult, console: Console) -> None:
    """Print the figures of each context, and what it gains over the embedding.

    Parameters
    ----------
    result
        What was measured.
    console
        Where to.
    """
    console.print(
        f"{result.data}: {result.n_queries:,} queries, "
        f"{len(result.candidates)} candidates, {len(result.seeds)} splits; heads: "
        f"{result.predictor}; predicted costs the same for all. Quality is relative "
        "to the strongest candidate; the thirds are of a linear grid of costs from "
        "the cheapest candidate's to the strongest's."
    )
    table = Table(title="Means over the splits", title_justify="left")
    table.add_column("context of the heads")
    for head in _HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    for name in result.contexts:
        means = [float(result.values(name, figure).mean()) for figure in FIGURES]
        cells = (_cell(m, d) for m, d in zip(means, _DIGITS, strict=True))
        table.add_row(name, *cells)
    console.print(table)
    title = f"Beyond {BASELINE!r}, split by split (± standard deviation)"
    table = Table(title=title, title_justify="left")
    table.add_column("context of the heads")
    for head in ("AIQ, %", "low, %", "high, %", "error, 10⁻³"):
        table.add_column(head, justify="right", no_wrap=True)
    for name in result.contexts:
        if name != BASELINE:
            table.add_row(name, *_gains(result, name))
    console.print(table)


def _gains(result: AblationResult, name: str) -> Iterator[str]:
    """Say what a context gains: quality in percent, squared error in thousandths."""
    for figure in FIGURES[:3]:
        mean, spread = result.gain(name, figure)
        yield "-" if math.isnan(mean) else f"{100 * mean:+.2f} ± {100 * spread:.2f}"
    mean, spread = result.gain(name, "mse")
    yield f"{1000 * mean:+.1f} ± {1000 * spread:.1f}"


def _cell(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
