"""Shows what `mixllm benchmark overhead` found: tables for a terminal."""

from rich.console import Console
from rich.table import Table

from mixllm_integrations.benchmark.call_figures import BARE, MemorySample
from mixllm_integrations.benchmark.overhead import Overhead

__all__ = ["print_overhead"]

_SHARES = (0.1, 0.5, 1.0)


def print_overhead(found: Overhead, console: Console) -> None:
    """Print the figures as tables.

    Parameters
    ----------
    found
        What was measured.
    console
        Where to.
    """
    console.print(_parts(found))
    console.print(_calls(found))
    console.print(_memory(found))
    for what, modules in (
        ("Importing the package", found.imported),
        ("Serving", found.served_with),
    ):
        console.print(f"{what} loads of what it must not: {', '.join(modules) or '-'}")


def _table(title: str, caption: str, *heads: str) -> Table:
    table = Table(
        title=title, caption=caption, title_justify="left", caption_justify="left"
    )
    table.add_column("what", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _parts(found: Overhead) -> Table:
    title = f"Overhead, {found.n_routed} candidates, {found.route.n:,} prompts"
    table = _table(title, found.machine, "p50", "p99")
    for statement, seconds in found.import_seconds.items():
        table.add_row(
            statement.replace("from mixllm_integrations ", ""), _time(seconds)
        )
    table.add_row("Router.route", _time(found.route.p50), _time(found.route.p99))
    fitted = f"Router.fit, {found.n_fit_queries:,} x {found.n_fitted}"
    table.add_row(fitted, _time(found.fit_seconds))
    if found.resident_bytes is not None:
        table.add_row("memory of a serving process", _megabytes(found.resident_bytes))
    return table


def _calls(found: Overhead) -> Table:
    batch = found.batch
    table = _table(
        "What each adds to a call of the bare model",
        "Ratio: to what the rival adds (median); goal: below 1, at most 2. Streams: "
        "until the first chunk. "
        f"batch: {batch.n_prompts:,} prompts on {batch.n_threads} threads.",
        *("takes", "adds p50", "adds p99", "ratio"),
    )
    for kind, figures in found.calls.items():
        for who, timing in figures.seconds.items():
            row = [f"{kind} {who}", _time(timing.p50)]
            if who != BARE:
                row += [_time(figures.added[who].p50), _time(figures.added[who].p99)]
            if who in figures.to_rival:
                row.append(f"{figures.to_rival[who]:.2f}")
            table.add_row(*row)
        table.add_section()
    for who, seconds in batch.seconds.items():
        table.add_row(f"batch {who}", _time(seconds))
    return table


def _memory(found: Overhead) -> Table:
    samples = {who: f.at(*_SHARES) for who, f in found.memory.items()}
    first = next(iter(samples.values()))
    table = _table(
        "What is kept of calls",
        "Growth: over the second half, by a line through all samples.",
        *(f"{sample.calls:,} calls" for sample in first),
    )
    for who, some in samples.items():
        table.add_row(who, *(_resident(sample) for sample in some))
        growth = found.memory[who].bytes_per_call
        if growth is not None:
            table.add_row("  bytes per call", "", "", f"{growth:.1f}")
        for what in some[0].remembered:
            table.add_row(
                f"  {what}", *(f"{sample.remembered[what]:,}" for sample in some)
            )
        table.add_section()
    return table


def _resident(sample: MemorySample) -> str:
    return "" if sample.resident_bytes is None else _megabytes(sample.resident_bytes)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if abs(seconds) >= 1 else f"{1e3 * seconds:.3f} ms"
