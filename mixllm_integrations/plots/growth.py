"""How long something takes against what grows: one panel for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.plots.files import figure_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GrowthPanel", "plot_growth"]

_MEDIAN, _TAIL, _BATCH, _GREY = "#D55E00", "#0072B2", "#009E73", "#555555"


@dataclass(frozen=True, slots=True)
class GrowthPanel:
    """One panel: what grows, and what a decision takes at each size.

    Parameters
    ----------
    label
        Of the horizontal axis.
    sizes
        Ascending.
    p50, p99, batch
        Milliseconds of a decision at each size: median, 99th percentile, and
        the mean of a prediction in batch.
    goals
        ``(size, milliseconds)`` of medians to be reached, drawn as crosses.
    """

    label: str
    sizes: Sequence[float]
    p50: Sequence[float]
    p99: Sequence[float]
    batch: Sequence[float]
    goals: Sequence[tuple[float, float]] = ()


def plot_growth(
    panels: Sequence[GrowthPanel], files: Sequence[Path], *, title: str = ""
) -> None:
    """Draw the panels side by side on one scale of time.

    Sizes are on a logarithmic scale, unless 0 is among them.

    Parameters
    ----------
    panels
        At least one.
    files
        Where to write; the ending tells the format.
    title
        Above the figure.

    Raises
    ------
    ConfigurationError
        If matplotlib is missing, an ending is unknown, or there is no panel.
    """
    if not panels:
        raise ConfigurationError("there is no panel to draw")
    with figure_for(files, (3.4 * len(panels) + 0.6, 4.3)) as figure:
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        found: dict[str, Any] = {}
        for axes, panel in zip(row, panels, strict=True):
            _draw(axes, panel)
            handles, labels = axes.get_legend_handles_labels()
            found |= dict(zip(labels, handles, strict=True))
        row[0].set_ylabel("milliseconds")
        figure.suptitle(title)
        figure.legend(
            list(found.values()),
            list(found),
            loc="outside lower center",
            ncols=4,
            fontsize=9,
        )


def _draw(axes: "Axes", panel: GrowthPanel) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    for label, values, colour, look in (
        ("route, 99th percentile", panel.p99, _TAIL, "s--"),
        ("route, median", panel.p50, _MEDIAN, "o-"),
        ("predict in batch, per query", panel.batch, _BATCH, "^-."),
    ):
        axes.plot(panel.sizes, values, look, label=label, color=colour, markersize=4.5)
    if panel.goals:
        sizes, goals = zip(*panel.goals, strict=True)
        axes.plot(
            sizes,
            goals,
            linestyle="none",
            marker="x",
            markersize=9,
            markeredgewidth=2,
            color=_GREY,
            label="goal of the median",
        )
    if min(panel.sizes) > 0:
        axes.set_xscale("log")
    axes.set_xticks(panel.sizes, [f"{size:,g}" for size in panel.sizes])
    axes.set_xticks([], minor=True)
    axes.tick_params("x", rotation=45)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    axes.set_xlabel(panel.label)
    axes.grid(visible=True, linewidth=0.4, alpha=0.6)
