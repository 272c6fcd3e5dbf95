"""Shows what `mixllm benchmark latency` found: tables, goals, and figures."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mixllm_integrations.benchmark.latency.goals import COST_GOAL, QUALITY_GOAL, goals
from mixllm_integrations.benchmark.latency.results import (
    BLIND,
    CONTESTANTS,
    LatencyResult,
    Point,
)
from mixllm_integrations.benchmark.online.results import Spread
from mixllm_integrations.plots.latency import LatencyLine, LatencyPanel, plot_latency

__all__ = ["plot_result", "print_latency"]

_Shown = Callable[[Spread], str]


def _share(found: Spread) -> str:
    return f"{found[0]:.2%} ± {found[1]:.2%}"


def _seconds(found: Spread) -> str:
    return "-" if math.isnan(found[0]) else f"{found[0]:,.1f}"


# Heading, field, and how a mean and its spread are shown.
_COLUMNS: Sequence[tuple[str, str, _Shown]] = (
    ("quality", "quality", _share),
    ("cost", "cost", _share),
    ("late", "late", lambda s: f"{s[0]:.1%}"),
    ("if whole by τ:\nquality", "whole_quality", lambda s: f"{s[0]:.1%}"),
    ("first token\np50 s", "wait_p50", _seconds),
    ("p95 s", "wait_p95", _seconds),
    ("in the queue:\nforeseen s", "expected_wait", _seconds),
    ("real s", "real_wait", _seconds),
    ("apart s", "wait_error", _seconds),
)
_AXES = (
    ("rate", "queries per second"),
    ("tolerance_seconds", "tolerance τ, seconds"),
    ("factor", "willingness to pay, times the usual"),
)
_ROLES = dict.fromkeys(CONTESTANTS, "peer") | {
    name: "ours" for name in CONTESTANTS if name.startswith("ours")
}
_ROLES[BLIND] = "blind"


def print_latency(result: LatencyResult, console: Console) -> None:
    """Print a table at the paper's setting, one of each sweep, and the goals.

    Parameters
    ----------
    result
        What was measured.
    console
        Where to.
    """
    usual = result.usual
    console.print(
        f"{result.data}: {result.n_queries:,} queries, a fifth of them come; "
        f"{len(result.candidates)} candidates, {len(result.seeds)} seeds. One point of "
        f"quality is worth {result.willingness_to_pay:g} USD "
        f"({result.willingness_rule}). Quality and cost are relative to the strongest "
        "candidate without any constraint; an answer that starts later than τ counts "
        "0. Mean ± spread over the seeds. The speeds are assumed."
    )
    console.print(_table(result))
    for axis, name in _AXES:
        points = result.along(axis)
        if len(points) > 1:
            console.print(_sweep_table(result, axis, name, points))
    table = Table(
        title=f"Goals ({usual.rate:g}/s, τ = {usual.tolerance_seconds:g} s)",
        title_justify="left",
    )
    table.add_column("goal")
    for head in ("target", "measured"):
        table.add_column(head, justify="right")
    table.add_column("reached")
    for goal in goals(result):
        style = "" if goal.reached else "yellow"
        reached = "yes" if goal.reached else "no"
        table.add_row(goal.what, goal.target, goal.measured, reached, style=style)
    console.print(table)


def plot_result(result: LatencyResult, file: Path) -> list[Path]:
    """Draw quality, late answers and cost over the sweeps, and how waits were foreseen.

    Parameters
    ----------
    result
        What was measured.
    file
        Where to: ``NAME`` and ``NAME-waits`` beside each other; without an ending,
        both as PNG and SVG.

    Returns
    -------
    list of Path
        The files that were written.
    """
    endings = [file.suffix] if file.suffix else [".png", ".svg"]
    stem = file.with_suffix("") if file.suffix else file
    seeds = f"mean of {len(result.seeds)} seeds"
    written = []
    for name, title, panels in (
        (
            "",
            f"{result.data}: routing under time constraint ({seeds})",
            _sweeps(result),
        ),
        ("-waits", f"{result.data}: waits foreseen and real ({seeds})", _waits(result)),
    ):
        if panels and panels[0]:
            files = [stem.with_name(f"{stem.name}{name}{e}") for e in endings]
            plot_latency(panels, files, title=title)
            written += files
    return written


def _table(result: LatencyResult) -> Table:
    usual = result.usual
    table = Table(
        title=f"{usual.rate:g} queries per second, τ = {usual.tolerance_seconds:g} s",
        title_justify="left",
    )
    table.add_column("contestant", no_wrap=True)
    for heading, _, _ in _COLUMNS:
        table.add_column(heading, justify="right")
    for name in result.contestants:
        cells = []
        for _, field, shown in _COLUMNS:
            found = result.spread(name, usual, field)
            cells.append("-" if found is None else shown(found))
        table.add_row(name, *cells, style="bold" if _ROLES[name] == "ours" else "")
    return table


def _sweep_table(
    result: LatencyResult, axis: str, name: str, points: Sequence[Point]
) -> Table:
    table = Table(title=f"quality (cost) by {name}", title_justify="left")
    table.add_column("contestant", no_wrap=True)
    for point in points:
        table.add_column(f"{getattr(point, axis):g}", justify="right")
    for contestant in result.contestants:
        cells = []
        for point in points:
            quality = result.spread(contestant, point, "quality")
            cost = result.spread(contestant, point, "cost")
            known = quality is not None and cost is not None
            cells.append(f"{quality[0]:.1%} ({cost[0]:.1%})" if known else "-")  # type: ignore[index]
        style = "bold" if _ROLES[contestant] == "ours" else ""
        table.add_row(contestant, *cells, style=style)
    return table


def _sweeps(result: LatencyResult) -> list[list[LatencyPanel]]:
    axes = [(axis, name) for axis, name in _AXES if len(result.along(axis)) > 1]
    rows = []
    for figure, label, goal, log in (
        ("quality", "quality, relative", QUALITY_GOAL, "x"),
        ("late", "share of late answers", None, "x"),
        ("cost", "cost, relative", COST_GOAL, "xy"),
    ):
        rows.append(
            [
                LatencyPanel(name, label, list(_lines(result, axis, figure)), goal, log)
                for axis, name in axes
            ]
        )
    return rows


def _lines(result: LatencyResult, axis: str, figure: str) -> Iterator[LatencyLine]:
    for contestant in result.contestants:
        found = [
            (getattr(point, axis), spread)
            for point in result.along(axis)
            if (spread := result.spread(contestant, point, figure)) is not None
        ]
        if found:
            role = _ROLES[contestant]
            spreads = [spread[1] for _, spread in found]
            yield LatencyLine(
                contestant,
                [x for x, _ in found],
                [spread[0] for _, spread in found],
                role,  # type: ignore[arg-type]
                spreads if role == "ours" else None,
            )


def _waits(result: LatencyResult) -> list[list[LatencyPanel]]:
    """Return a panel per rate at which somebody was to wait."""
    panels = []
    for point in result.along("rate"):
        lines = []
        for contestant in result.contestants:
            tenths = [
                pair
                for run in result.of(contestant, point)
                for pair in run.foreseen
                if contestant != BLIND
            ]
            if tenths:
                tenths.sort()
                n = len(result.seeds)
                groups = [tenths[i : i + n] for i in range(0, len(tenths), n)]
                x = [sum(t[0] for t in g) / len(g) for g in groups]
                y = [sum(t[1] for t in g) / len(g) for g in groups]
                lines.append(LatencyLine(contestant, x, y, "ours"))
        if lines and point.rate >= result.usual.rate:
            panels.append(
                LatencyPanel(
                    "foreseen wait, s",
                    "real wait, s",
                    lines,
                    log="",
                    diagonal=True,
                    title=f"{point.rate:g} queries per second",
                )
            )
    return [panels]
