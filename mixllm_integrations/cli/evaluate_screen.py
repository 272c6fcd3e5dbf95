"""How `mixllm evaluate` and `mixllm calibrate` look on a terminal."""

import math

from rich import box
from rich.console import Console
from rich.table import Table

from mixllm_integrations.benchmark.judged import Judged, Way
from mixllm_integrations.core.offpolicy import Interval
from mixllm_integrations.core.types import Calibration

__all__ = ["show_calibration", "show_judged"]

_PER = 1_000.0
_ALL_OF_IT = 0.995  # of the cost of always asking the strongest


def show_judged(console: Console, found: Judged) -> None:
    """Show what a router is worth.

    Parameters
    ----------
    console
        Where to.
    found
        From `judge_router`.
    """
    console.print(
        f"{found.queries:,} queries; the willingness to pay is "
        f"{found.willingness_to_pay:.4g} USD for one right answer more; the "
        f"strongest candidate here is {found.strongest}"
    )
    ways = (found.now, *found.singles, found.random, found.oracle)
    is_timed = any(math.isfinite(way.latency_seconds) for way in ways)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("who answers", overflow="fold", min_width=12)
    heads = ["quality", "of the\nstrongest", "USD per\n1,000", "of the\nstrongest"]
    heads.append("share")
    for head in heads + ["seconds"] * is_timed:
        table.add_column(head, justify="right", no_wrap=True)
    for way in ways:
        if way is found.random:
            table.add_section()
        style = "bold" if way is found.now else None
        table.add_row(*_cells(way, found, is_timed=is_timed), style=style)
    console.print(table)
    area, mix, oracle = found.area
    console.print(
        f"at the router's cost the best random mix of two candidates has "
        f"{_or_dash(found.mix_quality)} of the strongest's quality, the router "
        f"{found.now.relative_quality.value:.1%}"
    )
    console.print(
        f"average quality over all costs (AIQ): {_span(area, '.4f')}; "
        f"mixes {mix:.4f}, oracle {oracle:.4f}"
    )
    levels = [f"{level:.4g}: {_share(cost)}" for level, cost in found.cost_at.items()]
    console.print(f"cost needed for a relative quality of {', '.join(levels)}")
    console.print(
        f"predicted quality: Brier score {found.brier:.4f}, expected calibration error "
        f"{found.calibration_error:.4f}"
    )
    console.print("In brackets: 95 % intervals over resampled queries.", style="dim")


def _cells(way: Way, found: Judged, *, is_timed: bool) -> list[str]:
    share = 1.0 if way is found.now else found.shares.get(way.name)
    cells = [
        way.name,
        f"{way.quality.value:.3f}",
        _short(way.relative_quality),
        f"{_PER * way.cost.value:.3g}",
        _short(way.relative_cost),
        "" if share is None else f"{share:.1%}",
    ]
    return cells + ([f"{way.latency_seconds:.2f}"] if is_timed else [])


def show_calibration(console: Console, found: Calibration, target: str) -> None:
    """Show a willingness to pay that meets a target, and what to expect of it.

    Parameters
    ----------
    console
        Where to.
    found
        From `Router.calibrate`.
    target
        What was asked for, in words.
    """
    reached = "reached by" if found.target_reached else "NOT reached; the nearest is"
    console.print(
        f"target {target} of {found.strongest}: {reached} a "
        f"willingness to pay of {found.willingness_to_pay:.4g} USD for one right "
        "answer more"
    )
    grid = Table.grid(padding=(0, 2))
    for name, value, share, interval in (
        (
            "quality",
            f"{found.quality:.3f}",
            found.relative_quality,
            found.relative_quality_interval,
        ),
        (
            "cost",
            f"{_PER * found.cost:.3g} USD per 1,000",
            found.relative_cost,
            found.relative_cost_interval,
        ),
    ):
        low, high = interval
        told = f"{share:.1%} of the strongest's ({low:.1%} to {high:.1%})"
        grid.add_row(name, value, told)
    console.print(grid)
    note = f"{found.n_queries:,} queries; in brackets: 95 % intervals over them."
    console.print(note, style="dim")
    if found.target_reached and found.relative_cost >= _ALL_OF_IT:
        console.print(
            f"That is no cheaper than always asking {found.strongest}: more records, "
            "or a lower target, may show where another one will do.",
            style="yellow",
        )


def _short(found: Interval) -> str:
    """Return a share with its interval, in little room."""
    value = f"{found.value:.1%}"
    if math.isnan(found.low) or found.low == found.high:
        return value
    return f"{value} ({100 * found.low:.1f}–{100 * found.high:.1f})"


def _share(found: Interval) -> str:
    return _span(found, ".1%")


def _span(found: Interval, form: str) -> str:
    if math.isnan(found.value):
        return "not reached"
    value = format(found.value, form)
    if math.isnan(found.low):
        return value
    return f"{value} ({format(found.low, form)} to {format(found.high, form)})"


def _or_dash(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"
