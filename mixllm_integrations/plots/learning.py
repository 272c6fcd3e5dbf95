"""What learners earn over a stream, and whom they ask: small panels, one key.

Colours are those of Okabe and Ito; line styles differ as well.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.plots.files import figure_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LearningLine", "LearningPanel", "plot_learning"]

_OURS = ("#D55E00", "#CC79A7", "#E69F00", "#882255", "#AA4499")
_OTHERS = ("#0072B2", "#009E73", "#56B4E9", "#332288")
_GREY, _DARK = "#777777", "#222222"
_OUR_STYLES = ("-", (0, (4, 1.5)), (0, (1.5, 1)), (0, (6, 1, 1, 1)), "-.")
_STYLES = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_ROLES = ("ours", "peer", "idle", "bound")
_COLUMNS = 4


@dataclass(frozen=True, slots=True)
class LearningLine:
    """One learner in one stream.

    Parameters
    ----------
    label
        In the key; one label looks the same in every panel.
    step, value
        After how many queries, and what was reached.
    role
        ``"ours"`` is drawn boldly, the first one boldest; ``"idle"`` and
        ``"bound"`` in grey.
    spread
        Standard deviation over the seeds, drawn as a band.
    """

    label: str
    step: Sequence[float]
    value: Sequence[float]
    role: Literal["ours", "peer", "idle", "bound"] = "peer"
    spread: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class LearningPanel:
    """One stream.

    Parameters
    ----------
    title
        Above it.
    unit
        Of the vertical axis.
    lines
        At least one.
    turning
        After how many queries something happens, marked; ``None``: nothing.
    zero
        Whether there is a line at 0.
    """

    title: str
    unit: str
    lines: Sequence[LearningLine]
    turning: int | None = None
    zero: bool = False


def plot_learning(
    panels: Sequence[LearningPanel], files: Sequence[Path], *, title: str = ""
) -> None:
    """Draw the panels in rows of up to four.

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
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    looks = _looks(panels)
    with figure_for(files, (3.7 * columns, 2.9 * rows + 0.9)) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        found: dict[str, Any] = {}
        for number, axes in enumerate(grid.flat):
            if number >= len(panels):
                axes.set_axis_off()
                continue
            _draw(axes, panels[number], looks)
            handles, labels = axes.get_legend_handles_labels()
            found |= dict(zip(labels, handles, strict=True))
        for axes in grid[-1]:
            axes.set_xlabel("queries")
        figure.suptitle(title)
        figure.legend(
            [found[label] for label in looks],
            list(looks),
            loc="outside lower center",
            ncols=min(len(looks), 6),
            fontsize=9,
        )


def _looks(panels: Sequence[LearningPanel]) -> dict[str, dict[str, Any]]:
    """Return how each label is drawn: ours first, then as they come up."""
    ours = iter(zip(_OURS, _OUR_STYLES, strict=True))
    others = zip(cycle(_OTHERS), cycle(_STYLES), strict=False)
    found: dict[str, dict[str, Any]] = {}
    look: dict[str, Any]
    style: Any  # a name, or the lengths of dashes
    lines = [line for panel in panels for line in panel.lines]
    for line in sorted(lines, key=lambda line: _ROLES.index(line.role)):
        if line.label in found:
            continue
        if line.role == "ours":
            colour, style = next(ours, (_DARK, "-"))
            width = 2.4 if colour == _OURS[0] else 1.4
            look = {"color": colour, "linestyle": style, "linewidth": width}
            look |= {"zorder": 5 if colour == _OURS[0] else 4}
        elif line.role == "peer":
            colour, style = next(others)
            look = {"color": colour, "linestyle": style, "linewidth": 1.4, "zorder": 3}
        else:
            plain = "-" if line.role == "idle" else ":"
            look = {"color": _GREY, "linestyle": plain, "linewidth": 1.4, "zorder": 2}
        found[line.label] = look
    return found


def _draw(axes: "Axes", panel: LearningPanel, looks: dict[str, dict[str, Any]]) -> None:
    if panel.zero:
        axes.axhline(0.0, color=_GREY, linewidth=0.8, zorder=1)
    if panel.turning is not None:
        axes.axvline(panel.turning, color=_DARK, linewidth=0.8, linestyle=":", zorder=1)
    for line in panel.lines:
        look = looks[line.label]
        axes.plot(line.step, line.value, label=line.label, **look)
        if line.spread is not None:
            middle, spread = np.asarray(line.value), np.asarray(line.spread)
            axes.fill_between(
                line.step,
                middle - spread,
                middle + spread,
                color=look["color"],
                alpha=0.18,
                linewidth=0,
            )
    axes.set_title(panel.title, fontsize=10)
    axes.set_ylabel(panel.unit, fontsize=8.5)
    axes.margins(x=0.01)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.grid(visible=True, linewidth=0.4, alpha=0.6)
