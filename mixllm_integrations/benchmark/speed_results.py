"""Shows what `mixllm benchmark speed` found: a table and a figure."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from mixllm_integrations.benchmark.speed import FitCost, Speed
from mixllm_integrations.plots.growth import GrowthPanel, plot_growth

__all__ = ["plot_speed", "print_speed"]

_GROWN = {
    "candidates": "candidates",
    "embedding": "dimension of the embedding",
    "domains": "most domains",
    "queries": "training queries",
}
_GOALS_MS = {"candidates": ((11, 0.25), (200, 1.5))}


def print_speed(found: Speed, console: Console) -> None:
    """Print the figures as a table.

    Parameters
    ----------
    found
        What was measured.
    console
        Where to.
    """
    table = Table(
        title=f"Speed on {found.data}, {found.n_prompts:,} different prompts",
        caption=_caption(found),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("what grows")
    for head in ("size", "route p50", "route p99", "predict"):
        table.add_column(head, justify="right", no_wrap=True)
    for grown, label in _GROWN.items():
        for point in found.points:
            if point.grown == grown:
                table.add_row(
                    label,
                    f"{point.size:,}",
                    f"{1e3 * point.route.p50:.3f} ms",
                    f"{1e3 * point.route.p99:.3f} ms",
                    f"{1e6 * point.predict:.0f} µs",
                )
        table.add_section()
    console.print(table)
    console.print(_fit_line(found.fit))


def plot_speed(found: Speed, file: Path) -> list[Path]:
    """Draw a panel for each size that grew.

    Parameters
    ----------
    found
        What was measured.
    file
        Where to; without an ending, both a PNG and an SVG.

    Returns
    -------
    list of Path
        The files that were written.
    """
    files = [file] if file.suffix else [file.with_suffix(e) for e in (".png", ".svg")]
    panels = []
    for grown, label in _GROWN.items():
        points = [p for p in found.points if p.grown == grown]
        sizes = [p.size for p in points]
        if points:
            panels.append(
                GrowthPanel(
                    label,
                    sizes,
                    [1e3 * p.route.p50 for p in points],
                    [1e3 * p.route.p99 for p in points],
                    [1e3 * p.predict for p in points],
                    goals=[g for g in _GOALS_MS.get(grown, ()) if g[0] in sizes],
                )
            )
    title = f"What a decision takes, {found.data} ({found.machine})"
    plot_growth(panels, files, title=title)
    return files


def _caption(found: Speed) -> str:
    sizes = found.sizes
    return (
        f"{found.machine}. While one size grows: {sizes.usual_candidates} candidates, "
        f"{sizes.usual_queries:,} training queries. Goals: p50 0.25 ms with 11 and "
        "1.5 ms with 200 candidates, p99 1 ms with 11, predict 40 µs a query with 15. "
        f"Beyond the {found.n_recorded} recorded candidates copies stand in, at other "
        "prices and with 5 % other labels; embeddings of other than 256 dimensions "
        "have random weights."
    )


def _fit_line(fit: FitCost) -> str:
    memory = ""
    if fit.peak_bytes is not None and fit.before_bytes is not None:
        memory = (
            f", peak {fit.peak_bytes / 1e9:.2f} GB ({fit.before_bytes / 1e9:.2f} GB "
            "before, records and all)"
        )
    return (
        f"Router.fit, {fit.n_queries:,} x {fit.n_candidates}: {fit.seconds:.1f} s"
        f"{memory}; then predict in batch {1e6 * fit.predict:.0f} µs a query, route "
        f"p50 {1e3 * fit.route.p50:.3f} ms, p99 {1e3 * fit.route.p99:.3f} ms"
    )
