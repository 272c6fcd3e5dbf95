"""Shows what `mixllm benchmark load` found: tables, goals, and a figure."""

import statistics
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mixllm_integrations.benchmark.call_figures import Timing
from mixllm_integrations.benchmark.load.figures import ChaosFigures
from mixllm_integrations.benchmark.load.goals import goals
from mixllm_integrations.benchmark.load.rates import RateFigures
from mixllm_integrations.benchmark.load.results import LoadResult
from mixllm_integrations.benchmark.load.soak import SoakFigures
from mixllm_integrations.plots.load import LoadBar, plot_load

__all__ = ["plot_result", "print_load"]

_SHARES = (0.1, 0.5, 1.0)


def print_load(result: LoadResult, console: Console) -> None:
    """Print a table for each part, and the goals.

    Parameters
    ----------
    result
        What was measured.
    console
        Where to.
    """
    short = " [yellow]Short form: few calls.[/]" if result.form == "short" else ""
    console.print(
        f"[bold]Load[/] on {result.machine}; {result.cores} usable cores, which all "
        "workers, PostgreSQL and Redis share. The models are scripted and answer at "
        "once; the router is the shipped one, fitted, four candidates. Each process "
        f"computes on one thread (OPENBLAS_NUM_THREADS=1).{short}"
    )
    if result.rates:
        console.print(_rates(result))
    for table in _workers(result):
        console.print(table)
    if result.soak:
        console.print(_soak(result.soak))
    if result.chaos is not None:
        console.print(_chaos(result.chaos))
    for what, why in result.skipped.items():
        console.print(f"skipped: {what} ({why})")
    console.print(_goals(result))


def plot_result(result: LoadResult, file: Path) -> list[Path]:
    """Draw calls a second and what each takes beyond the bare model.

    Parameters
    ----------
    result
        What was measured.
    file
        Where to; without an ending, both a PNG and an SVG. Nothing is drawn
        where no rates were measured.

    Returns
    -------
    list of Path
        The files that were written.
    """
    if not result.rates:
        return []
    files = [file] if file.suffix else [file.with_suffix(e) for e in (".png", ".svg")]
    bars = [
        LoadBar(
            place=one.place,
            mode=one.mode,
            per_second=one.per_second,
            p50_ms=None if one.added is None else 1e3 * one.added.p50,
            p99_ms=None if one.added is None else 1e3 * one.added.p99,
        )
        for one in result.rates
    ]
    plot_load(bars, files, title=f"Load on {result.cores} cores ({result.machine})")
    return files


def _table(title: str, caption: str, *heads: str) -> Table:
    table = Table(
        title=title, caption=caption, title_justify="left", caption_justify="left"
    )
    first, *others = heads
    table.add_column(first, no_wrap=True)
    for head in others:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _rates(result: LoadResult) -> Table:
    table = _table(
        "Calls a second, and what each takes beyond the bare model",
        "'logged': if each turn of some hundred calls lasts until its last event is "
        "in the database. Where several call at once, the time of a call has waiting "
        "for the interpreter and for a core in it. A decision's time is without what "
        "tells its outcome, its rate with it.",
        *("how", "where", "per second", "logged", "bare model"),
        *("p50 ms", "p99 ms", "added p50", "added p99"),
    )
    by_mode: dict[str, list[RateFigures]] = {}
    for one in result.rates:
        by_mode.setdefault(one.mode, []).append(one)
    for mode, found in by_mode.items():
        for one in found:
            bare = "-" if one.bare_per_second is None else f"{one.bare_per_second:,.0f}"
            table.add_row(
                mode,
                one.place,
                f"{one.per_second:,.0f}",
                f"{one.logged_per_second:,.0f}",
                bare,
                *_ms(one.seconds),
                *_ms(one.added),
            )
        table.add_section()
    return table


def _workers(result: LoadResult) -> Iterator[Table]:
    if (knew := result.siblings) is not None:
        table = _table(
            f"{knew.workers} workers that share {result.log}: seconds until all know",
            "",
            *("what", "times", "median", "slowest"),
        )
        for what, seconds in (
            ("feedback", knew.feedback_seconds),
            ("cooldown", knew.cooldown_seconds),
        ):
            if seconds:
                slow, usual = max(seconds), statistics.median(seconds)
                row = (what, str(len(seconds)), f"{usual:.2f}", f"{slow:.2f}")
                table.add_row(*row)
        yield table
    if (new := result.recovery) is not None:
        table = _table(
            f"A new worker at a log of {new.events:,} events ({result.log})",
            f"The last {new.tail_events:,} came after the snapshot.",
            *("writing the log s", "snapshot s", "MB", "open s", "restore s"),
            *("hear the rest s", "ready s", "of a core s"),
        )
        table.add_row(
            f"{new.build_seconds:,.0f}",
            f"{new.snapshot_seconds:.2f}",
            f"{new.snapshot_bytes / 1e6:.1f}",
            f"{new.open_seconds:.2f}",
            f"{new.restore_seconds:.2f}",
            f"{new.tail_seconds:.2f}",
            f"{new.ready_seconds:.2f}",
            f"{new.processor_seconds:.2f}",
        )
        yield table
    if (left := result.killing) is not None:
        table = _table(
            f"{left.workers} workers that are killed with SIGKILL ({result.log})",
            "Each that is killed is started again.",
            *("kills", "decisions", "feedback", "acknowledged", "lost", "twice"),
            *("each learned once", "s"),
        )
        table.add_row(
            str(left.kills),
            f"{left.decisions:,}",
            f"{left.feedback:,}",
            f"{left.acknowledged:,}",
            f"{left.lost:,}",
            f"{left.twice:,}",
            "yes" if left.is_exact else "no",
            f"{left.seconds:,.0f}",
        )
        yield table


def _soak(found: tuple[SoakFigures, ...]) -> Table:
    shares = [f"MB after {share:.0%}" for share in _SHARES]
    table = _table(
        "Memory of a process that calls on and on",
        "A tenth are streams that are given up after their first chunk, a quarter get "
        "feedback. The slope is a line through the second half of the calls.",
        *("where", "calls", "given up", "failed over", "feedback", *shares),
        *("bytes a call", "s"),
    )
    for one in found:
        slope = one.memory.bytes_per_call
        table.add_row(
            one.place,
            f"{one.calls:,}",
            f"{one.abandoned:,}",
            f"{one.failed:,}",
            f"{one.feedback:,}",
            *(
                "-" if s.resident_bytes is None else f"{s.resident_bytes / 1e6:,.1f}"
                for s in one.memory.at(*_SHARES)
            ),
            "-" if slope is None else f"{slope:,.0f}",
            f"{one.seconds:,.0f}",
        )
    return table


def _chaos(one: ChaosFigures) -> Table:
    table = _table(
        f"{one.callers} callers at servers that misbehave ({one.fault_share:.0%} of "
        "requests), of which one goes away",
        "Real clients of OpenAI's protocol, servers in a process of their own.",
        *("calls", "answered", "streams broken off", "lost", "failed over"),
        *("p50 s", "p95 s", "p99 s", "away s", "asked meanwhile", "back after s", "s"),
    )
    seconds = ["-"] * 3
    if one.latency_seconds is not None:
        seconds = [f"{each:.2f}" for each in one.latency_seconds[:3]]
    back = one.answered_again_after_seconds
    table.add_row(
        f"{one.calls:,}",
        f"{one.answered:,}",
        f"{one.broken_streams:,}",
        f"{sum(one.lost.values()):,}",
        f"{one.failovers:,}",
        *seconds,
        f"{one.down_seconds:.1f}",
        f"{one.asked_while_down:,}",
        "never" if back is None else f"{back:.2f}",
        f"{one.wall_seconds:,.0f}",
    )
    return table


def _goals(result: LoadResult) -> Table:
    table = Table(title=f"Goals ({result.form} form)", title_justify="left")
    table.add_column("goal")
    for head in ("target", "measured"):
        table.add_column(head, justify="right")
    table.add_column("reached")
    for goal in goals(result):
        style = "" if goal.reached else "yellow"
        reached = "yes" if goal.reached else "no"
        table.add_row(goal.what, goal.target, goal.measured, reached, style=style)
    return table


def _ms(timing: Timing | None) -> tuple[str, str]:
    if timing is None:
        return "-", "-"
    return f"{1e3 * timing.p50:.2f}", f"{1e3 * timing.p99:.2f}"
