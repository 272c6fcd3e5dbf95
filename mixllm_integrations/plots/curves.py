"""Quality against cost, and predicted against observed quality, as PNG or SVG.

Colours are those of Okabe and Ito, which people who see colours differently
can tell apart; line styles and markers differ as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.plots.files import figure_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PlottedCurve", "PlottedPoint", "plot_curves", "plot_reliability"]

_OURS = ("#D55E00", "#CC79A7", "#E69F00", "#882255", "#AA4499", "#661100")
_OTHERS = ("#0072B2", "#009E73", "#56B4E9", "#332288", "#117733", "#88CCEE")
_GREY, _DARK = "#777777", "#222222"
_STYLES = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 4)))
_MARGIN = 0.02


@dataclass(frozen=True, slots=True)
class PlottedCurve:
    """One line of quality over cost.

    Parameters
    ----------
    label
        In the legend.
    cost, quality
        Relative to the strongest candidate; ascending in cost, NaN is left out.
    role
        ``"ours"`` is drawn boldly, the first such curve boldest and on top;
        ``"mix"`` in grey, ``"bound"`` dotted.
    spread
        Standard deviation of the quality, drawn as a band of the first curve.
    """

    label: str
    cost: Sequence[float]
    quality: Sequence[float]
    role: Literal["ours", "baseline", "mix", "bound"] = "baseline"
    spread: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class PlottedPoint:
    """One candidate by itself.

    Parameters
    ----------
    label
        Its name, written beside the point.
    cost, quality
        Relative to the strongest candidate.
    """

    label: str
    cost: float
    quality: float


def plot_curves(
    curves: Sequence[PlottedCurve],
    points: Sequence[PlottedPoint],
    files: Sequence[Path],
    *,
    title: str = "",
) -> None:
    """Draw quality against cost: all of it, and enlarged where it matters.

    Parameters
    ----------
    curves
        The routers and what they are compared with.
    points
        The single candidates, each with its name.
    files
        Where to write; the ending tells the format.
    title
        Above the figure.

    Raises
    ------
    ConfigurationError
        If matplotlib is missing, an ending is unknown, or there is no curve.
    """
    if not curves:
        raise ConfigurationError("there is no curve to draw")
    with figure_for(files, (13.0, 5.6)) as figure:
        from matplotlib.ticker import LogLocator

        whole, enlarged = figure.subplots(1, 2)
        for axes in (whole, enlarged):
            _draw_lines(axes, curves)
            axes.scatter(
                [p.cost for p in points],
                [p.quality for p in points],
                s=22,
                color=_DARK,
                zorder=5,
                label="single model",
            )
            axes.axhline(1.0, color=_GREY, linewidth=0.8, zorder=0)
            axes.set_xscale("log")
            axes.set_xlabel("mean cost, relative to the strongest model")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(lambda x, _: f"{x:.3g}")
            axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.4g} %")
            axes.grid(visible=True, linewidth=0.4, alpha=0.6)
        whole.set_ylabel("mean quality, relative to the strongest model")
        whole.set_title("all models", fontsize=10)
        enlarged.set_title("enlarged", fontsize=10)
        low, high = _enlarged_range(curves)
        enlarged.set_ylim(low, high)
        enlarged.set_xlim(left=_lowest_cost_above(curves, low))
        figure.suptitle(title)
        handles, labels = whole.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=5, fontsize=8.5
        )
        for axes in (whole, enlarged):
            _name_points(figure, axes, points, curves)


def plot_reliability(
    bins: Mapping[str, Sequence[tuple[float, float, float]]],
    files: Sequence[Path],
    *,
    title: str = "",
) -> None:
    """Draw observed over predicted quality: on the diagonal it is calibrated.

    Parameters
    ----------
    bins
        For each method the mean predicted quality, the mean observed one and
        the count of every bin; the area of a marker is its share.
    files
        Where to write; the ending tells the format.
    title
        Above the figure.

    Raises
    ------
    ConfigurationError
        If matplotlib is missing, an ending is unknown, or there is no method.
    """
    if not bins:
        raise ConfigurationError("there is no method to draw")
    colours = cycle((_OURS[0], *_OTHERS))
    markers = cycle("osD^vP")
    with figure_for(files, (5.6, 5.4)) as figure:
        from matplotlib.collections import PathCollection

        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.9, label="calibrated")
        for (label, rows), colour, marker in zip(
            bins.items(), colours, markers, strict=False
        ):
            predicted, observed, count = np.asarray(rows, dtype=float).T
            axes.plot(predicted, observed, color=colour, linewidth=1.3)
            axes.scatter(
                predicted,
                observed,
                s=12 + 240 * count / count.sum(),
                color=colour,
                marker=marker,
                alpha=0.85,
                label=label,
            )
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=title)
        axes.set_xlabel("predicted quality")
        axes.set_ylabel("observed quality")
        axes.grid(visible=True, linewidth=0.4, alpha=0.6)
        legend = axes.legend(fontsize=8.5, loc="upper left")
        for handle in legend.legend_handles[1:]:
            if isinstance(handle, PathCollection):
                handle.set_sizes([36.0])


def _draw_lines(axes: "Axes", curves: Sequence[PlottedCurve]) -> None:
    ours, others, styles = iter(_OURS), cycle(_OTHERS), cycle(_STYLES)
    main = next((c for c in curves if c.role == "ours"), None)
    for curve in curves:
        look: dict[str, Any]
        if curve is main:
            look = {"color": next(ours), "linewidth": 2.6, "zorder": 4}
        elif curve.role == "ours":
            look = {"color": next(ours, _DARK), "linewidth": 1.3, "zorder": 3}
        elif curve.role == "baseline":
            look = {"color": next(others), "linestyle": next(styles), "zorder": 3}
        else:
            style = "-" if curve.role == "mix" else ":"
            look = {"color": _GREY, "linestyle": style, "zorder": 2}
        axes.plot(curve.cost, curve.quality, label=curve.label, **look)
    if main is not None and main.spread is not None:
        middle, spread = np.asarray(main.quality), np.asarray(main.spread)
        band = (middle - spread, middle + spread)
        axes.fill_between(main.cost, *band, color=_OURS[0], alpha=0.18, linewidth=0)


def _enlarged_range(curves: Sequence[PlottedCurve]) -> tuple[float, float]:
    """Return where the curves of routers and baselines run, the bounds aside."""
    shown = [c for c in curves if c.role != "bound"] or list(curves)
    values = np.concatenate([np.asarray(c.quality, dtype=float) for c in shown])
    values = values[np.isfinite(values)]
    top = float(values.max())
    return max(0.86, float(values.min())) - _MARGIN, top + _MARGIN


def _lowest_cost_above(curves: Sequence[PlottedCurve], quality: float) -> float:
    """Return where the first of the curves enters the enlarged range."""
    entries = []
    for curve in curves:
        above = np.flatnonzero(np.asarray(curve.quality) >= quality + _MARGIN)
        if above.size:
            entries.append(curve.cost[int(above[0])])
    return 0.8 * min(entries)


def _name_points(
    figure: "Figure",
    axes: "Axes",
    points: Sequence[PlottedPoint],
    curves: Sequence[PlottedCurve],
) -> None:
    """Write each name where it covers no other name, point or line, if it can."""
    figure.canvas.draw()
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    visible = [
        p for p in points if low <= p.quality <= high and left <= p.cost <= right
    ]
    taken = _boxes(axes, [(p.cost, p.quality) for p in visible], 4.0)
    for curve in curves:
        line = _boxes(axes, list(zip(curve.cost, curve.quality, strict=True)), 1.5)
        taken = np.vstack([taken, line])
    for point in sorted(visible, key=lambda p: -p.quality):
        best: tuple[float, Any, Any] | None = None
        for dx, dy, side in _PLACES:
            text = axes.annotate(
                point.label,
                (point.cost, point.quality),
                (dx, dy),
                textcoords="offset points",
                fontsize=7,
                ha=side,
                va="center",
                zorder=6,
                bbox={"facecolor": "white", "alpha": 0.6, "lw": 0, "pad": 0.3},
            )
            box = np.array(text.get_window_extent().extents)
            covered = _covered(box, taken, np.array(axes.bbox.extents))
            if best is None or covered < best[0]:
                if best is not None:
                    best[1].remove()
                best = (covered, text, box)
            else:
                text.remove()
            if best[0] == 0:
                break
        if best is not None:
            taken = np.vstack([taken, best[2]])


_PLACES = (
    *((6, 0, "left"), (-6, 0, "right"), (5, 7, "left"), (5, -7, "left")),
    *((-5, 7, "right"), (-5, -7, "right"), (0, 10, "center"), (0, -10, "center")),
    *((5, 15, "left"), (5, -15, "left"), (-5, 15, "right"), (-5, -15, "right")),
)


def _boxes(
    axes: "Axes", spots: Sequence[tuple[float, float]], half: float
) -> NDArray[np.float64]:
    """Return squares round the spots: left, bottom, right, top, in pixels."""
    places = axes.transData.transform(np.asarray(spots, dtype=float).reshape(-1, 2))
    seen = places[np.isfinite(places).all(axis=1)]
    return np.hstack([seen - half, seen + half])


def _covered(
    box: NDArray[np.float64], taken: NDArray[np.float64], frame: NDArray[np.float64]
) -> float:
    """Return the area of a box on top of others or outside of the frame."""
    area = float(np.prod(box[2:] - box[:2]))
    return area - _overlap(box, frame[None]) + _overlap(box, taken)


def _overlap(box: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    return float(np.maximum(sides, 0.0).prod(axis=1).sum())
