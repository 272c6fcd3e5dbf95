"""Shows what a benchmark found: tables for the terminal, figures for files."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mixllm_integrations.benchmark.metrics import (
    COST_LEVELS,
    QUALITY_LEVELS,
    Curve,
    best_so_far,
)
from mixllm_integrations.benchmark.results import MethodRun, OfflineResult, Summary
from mixllm_integrations.plots.curves import (
    PlottedCurve,
    PlottedPoint,
    plot_curves,
    plot_reliability,
)

__all__ = ["plot_result", "print_result"]

_SIDES = {"router": "ours", "bound": "bound"}
_MIX = "convex mix of singles"
_GRID_POINTS = 240


def print_result(result: OfflineResult, console: Console) -> None:
    """Print quality against cost, accuracy, and the single candidates.

    Parameters
    ----------
    result
        What was measured.
    console
        Where to.
    """
    strongest = sorted(set(result.strongest))
    console.print(
        f"{result.data}: {result.n_queries:,} queries, "
        f"{len(result.candidates)} candidates; {len(result.seeds)} splits of "
        f"{result.n_train:,} to fit and {result.n_test:,} to test, stratified by "
        f"domain. Everything is relative to {' or '.join(strongest)}, the best on the "
        "training split; mean ± standard deviation over the splits."
    )
    summaries = [result.summary(method) for method in result.methods]
    methods = [s for s in summaries if s.role != "single"]
    console.print(_cost_table(methods))
    for line in _advantages(result, methods):
        console.print(line)
    console.print(_quality_table(methods))
    console.print(_accuracy_table(methods))
    console.print(_single_table([s for s in summaries if s.role == "single"]))


def plot_result(
    result: OfflineResult, file: Path, *, with_bound: bool = False
) -> list[Path]:
    """Draw the curves and the reliability of the predictions.

    Parameters
    ----------
    result
        What was measured.
    file
        Where to write the curves: `.png` or `.svg`. With any other or no ending
        both are written. The reliability goes beside it, ``-reliability`` added
        to the name.
    with_bound
        Whether the oracle is drawn too.

    Returns
    -------
    list[Path]
        The files written.
    """
    endings = [file.suffix] if file.suffix in (".png", ".svg") else [".png", ".svg"]
    stem = file.with_suffix("") if file.suffix in (".png", ".svg") else file
    curves = [stem.with_name(stem.name + e) for e in endings]
    calibration = [stem.with_name(f"{stem.name}-reliability{e}") for e in endings]
    shown = [
        method
        for method in result.methods
        if _is_drawn(result.of(method)[0], with_bound=with_bound)
    ]
    n = len(result.seeds)
    title = f"{result.data}: {len(result.candidates)} candidates, mean of {n} splits"
    plot_curves(
        [_plotted(result.of(method)) for method in shown],
        [_point(result.summary(m)) for m in result.candidates if m in result.methods],
        curves,
        title=title,
    )
    bins = {
        method: [row for run in result.of(method) for row in run.reliability]
        for method in shown
        if result.of(method)[0].role != "bound" and result.of(method)[0].reliability
    }
    plot_reliability(
        {method: _merged(rows) for method, rows in bins.items()},
        calibration,
        title=result.data,
    )
    return [*curves, *calibration]


def _is_drawn(run: MethodRun, *, with_bound: bool) -> bool:
    if run.role == "bound":
        return with_bound
    return run.role != "single" and run.method != "random"


def _plotted(runs: Sequence[MethodRun]) -> PlottedCurve:
    lowest = min(cost for run in runs for cost, _ in run.curve)
    highest = max(1.0, *(cost for run in runs for cost, _ in run.curve))
    grid = np.geomspace(lowest, highest, _GRID_POINTS)
    lines = [best_so_far(Curve(*np.asarray(run.curve).T), grid) for run in runs]
    quality = np.mean(lines, axis=0)  # NaN until every split's curve has begun
    first = runs[0]
    role = "mix" if first.method == _MIX else _SIDES.get(first.role, "baseline")
    return PlottedCurve(
        first.method,
        grid.tolist(),
        quality.tolist(),
        role,  # type: ignore[arg-type]
        np.std(lines, axis=0).tolist() if role == "ours" else None,
    )


def _point(summary: Summary) -> PlottedPoint:
    cost, quality = (summary.mean[f] for f in ("relative_cost", "best_quality"))
    return PlottedPoint(summary.method, cost, quality)


def _merged(
    rows: Sequence[tuple[float, float, int]], n_bins: int = 10
) -> list[tuple[float, float, float]]:
    """Return the bins of all splits as one."""
    found = []
    values = np.asarray(rows, dtype=float)
    bins = np.clip((values[:, 0] * n_bins).astype(int), 0, n_bins - 1)
    for number in np.unique(bins):
        inside = values[bins == number]
        predicted, observed = np.average(inside[:, :2], axis=0, weights=inside[:, 2])
        found.append((float(predicted), float(observed), float(inside[:, 2].sum())))
    return found


def _advantages(result: OfflineResult, methods: Sequence[Summary]) -> list[str]:
    """Say how far the first router is ahead of each baseline, split by split."""
    ours = next((s.method for s in methods if s.role == "router"), None)
    others = [s.method for s in methods if s.role == "baseline"]
    if ours is None or not others:
        return []
    gaps = {other: result.advantage(ours, other) for other in others}
    listed = ", ".join(f"{o} {m:+.3f} ± {s:.3f}" for o, (m, s) in gaps.items())
    return [f"AIQ of {ours} beyond, on the same splits: {listed}."]


def _cost_table(summaries: Sequence[Summary]) -> Table:
    table = _new_table("Average quality, and cost at a share of the quality", "method")
    names = [f"cost at {level:.2%}" for level in QUALITY_LEVELS]
    table.add_column("AIQ", justify="right", no_wrap=True)
    for level in QUALITY_LEVELS:
        table.add_column(f"{_percent(level)}", justify="right", no_wrap=True)
    for summary in summaries:
        cells = (_figure(summary.mean[name]) for name in names)
        table.add_row(
            summary.method, _with_spread(summary, "aiq"), *cells, style=_style(summary)
        )
    return table


def _quality_table(summaries: Sequence[Summary]) -> Table:
    table = _new_table("Quality within a share of the cost", "method")
    names = [f"quality at {level:.2%}" for level in COST_LEVELS]
    for level in COST_LEVELS:
        table.add_column(f"{_percent(level)}", justify="right", no_wrap=True)
    table.add_column("best", justify="right", no_wrap=True)
    for summary in summaries:
        cells = (_figure(summary.mean[name]) for name in (*names, "best_quality"))
        table.add_row(summary.method, *cells, style=_style(summary))
    return table


def _new_table(title: str, who: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(who, no_wrap=True)
    return table


def _accuracy_table(summaries: Sequence[Summary]) -> Table:
    table = _new_table("Predictions", "method")
    heads = ("squared\nerror", "Brier\nscore", "calibration\nerror")
    for head in (*heads, "cost\nratio", "fit\nseconds"):
        table.add_column(head, justify="right", no_wrap=True)
    for summary in summaries:
        if math.isnan(summary.mean["mse"]) or summary.role == "bound":
            continue
        table.add_row(
            summary.method,
            _with_spread(summary, "mse"),
            *(
                _figure(summary.mean[name])
                for name in ("brier", "calibration_error", "cost_ratio")
            ),
            f"{summary.mean['fit_seconds']:.1f}",
            style=_style(summary),
        )
    return table


def _single_table(summaries: Sequence[Summary]) -> Table:
    table = _new_table("Single candidates", "candidate")
    table.add_column("quality", justify="right")
    table.add_column("cost", justify="right")
    for summary in sorted(summaries, key=lambda s: -s.mean["best_quality"]):
        table.add_row(
            summary.method,
            _with_spread(summary, "best_quality"),
            _figure(summary.mean["relative_cost"], digits=4),
        )
    return table


def _style(summary: Summary) -> str:
    return {"router": "bold", "bound": "dim"}.get(summary.role, "")


def _percent(level: float) -> str:
    return f"{100 * level:.4g} %"


def _figure(value: float, *, digits: int = 3) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _with_spread(summary: Summary, name: str) -> str:
    mean, spread = summary.mean[name], summary.spread[name]
    return "-" if math.isnan(mean) else f"{mean:.3f} ± {spread:.3f}"
