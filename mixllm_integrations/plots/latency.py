"""What is reached under time constraint: panels over a condition, one key.

Colours are those of Okabe and Ito; line styles and marks differ as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.plots.files import figure_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LatencyLine", "LatencyPanel", "plot_latency"]

_OURS = ("#D55E00", "#0072B2", "#009E73")
_OTHERS = ("#CC79A7", "#56B4E9", "#882255", "#999933", "#332288")
_OUR_STYLES = ("-", (0, (4, 1.5)), (0, (1.5, 1)))
_OUR_MARKS = ("o", "s", "^")
_STYLES = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (6, 2)))
_MARKS = ("v", "D", "P", "X", "*")
_GOAL = "goal"
_DARK, _GREY = "#222222", "#777777"


@dataclass(frozen=True, slots=True)
class LatencyLine:
    """One contestant.

    Parameters
    ----------
    label
        In the key; one label looks the same in every panel.
    x, y
        Condition, and what was reached there.
    role
        ``"ours"`` is drawn boldly, the first one boldest; ``"blind"`` is the same
        without what is being tested, in black; ``"peer"`` thinly.
    spread
        Standard deviation over the seeds, drawn as a band.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    role: Literal["ours", "blind", "peer"] = "peer"
    spread: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class LatencyPanel:
    """One figure of one sweep.

    Parameters
    ----------
    x_label, y_label
        Of the axes.
    lines
        At least one.
    goal
        What is aimed at, as a thin line; ``None``: nothing.
    log
        Which axes are logarithmic: ``""``, ``"x"``, ``"y"`` or ``"xy"``. On a
        logarithmic horizontal axis the conditions themselves are marked.
    diagonal
        Whether a line marks where both axes are equal.
    title
        Above it.
    """

    x_label: str
    y_label: str
    lines: Sequence[LatencyLine]
    goal: float | None = None
    log: str = "x"
    diagonal: bool = False
    title: str = ""


def plot_latency(
    panels: Sequence[Sequence[LatencyPanel]], files: Sequence[Path], *, title: str = ""
) -> None:
    """Draw rows of panels with one key below.

    Parameters
    ----------
    panels
        Rows of equal length.
    files
        Where to write; the ending tells the format.
    title
        Above the figure.

    Raises
    ------
    ConfigurationError
        If matplotlib is missing, an ending is unknown, or there is no panel.
    """
    if not panels or not panels[0]:
        raise ConfigurationError("there is no panel to draw")
    rows, columns = len(panels), len(panels[0])
    looks = _looks([line for row in panels for panel in row for line in panel.lines])
    with figure_for(files, (3.8 * columns + 0.4, 2.6 * rows + 1.1)) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        found: dict[str, Any] = {}
        for axes, panel in zip(
            grid.flat, [p for row in panels for p in row], strict=True
        ):
            _draw(axes, panel, looks)
            handles, labels = axes.get_legend_handles_labels()
            found |= dict(zip(labels, handles, strict=True))
        labels = [label for label in (*looks, _GOAL) if label in found]
        figure.suptitle(title, fontsize=11)
        figure.legend(
            [found[label] for label in labels],
            labels,
            loc="outside lower center",
            ncols=min(len(labels), 5 if columns > 2 else 3),
            fontsize=9,
        )


def _looks(lines: Sequence[LatencyLine]) -> dict[str, dict[str, Any]]:
    """Return how each label is drawn: ours first, then as they come up."""
    ours = iter(zip(_OURS, _OUR_STYLES, _OUR_MARKS, strict=True))
    others = iter(zip(_OTHERS, _STYLES, _MARKS, strict=True))
    found: dict[str, dict[str, Any]] = {}
    style: Any  # a name, or the lengths of dashes
    ranked = sorted(lines, key=lambda line: ("ours", "blind", "peer").index(line.role))
    for line in ranked:
        if line.label in found:
            continue
        plain = (_GREY, "-", "x")
        if line.role == "ours":
            colour, style, mark = next(ours, plain)
            width = 2.4 if colour == _OURS[0] else 1.7
        elif line.role == "blind":
            colour, style, mark, width = _DARK, "-", "x", 1.7
        else:
            colour, style, mark = next(others, plain)
            width = 1.2
        found[line.label] = {
            "color": colour,
            "linestyle": style,
            "marker": mark,
            "linewidth": width,
            "markersize": 4.5,
            "zorder": 5 - len(found) / 100,
        }
    return found


def _draw(axes: "Axes", panel: LatencyPanel, looks: dict[str, dict[str, Any]]) -> None:
    if "x" in panel.log:
        axes.set_xscale("log")
    if "y" in panel.log:
        axes.set_yscale("log")
    if panel.goal is not None:
        axes.axhline(panel.goal, label=_GOAL, **_AIM)
    for line in panel.lines:
        look = looks[line.label]
        axes.plot(line.x, line.y, label=line.label, **look)
        if line.spread is not None:
            middle, spread = np.asarray(line.y), np.asarray(line.spread)
            low, high = middle - spread, middle + spread
            axes.fill_between(
                line.x, low, high, color=look["color"], alpha=0.18, linewidth=0
            )
    if panel.diagonal:
        ends = [v for line in panel.lines for v in (*line.x, *line.y) if v > 0]
        if ends:
            axes.plot([min(ends), max(ends)], [min(ends), max(ends)], **_EQUAL)
    elif "x" in panel.log:
        at = sorted({x for line in panel.lines for x in line.x})
        axes.set_xticks(at, [f"{x:g}" for x in at])
        axes.set_xticks([], minor=True)
    axes.set_xlabel(panel.x_label, fontsize=9)
    axes.set_ylabel(panel.y_label, fontsize=9)
    axes.set_title(panel.title, fontsize=10)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, linewidth=0.4, alpha=0.6)


_AIM: dict[str, Any] = {
    "color": _DARK,
    "linewidth": 1.0,
    "linestyle": (0, (1, 2)),
    "zorder": 1,
}
_EQUAL: dict[str, Any] = {"color": _GREY, "linewidth": 0.9, "zorder": 1}
