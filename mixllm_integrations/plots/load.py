"""Calls a second, and what each takes beyond a bare model: bars by way and place.

Colours are those of Okabe and Ito; hatches differ as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.plots.files import figure_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LoadBar", "plot_load"]

_COLOURS = ("#999999", "#56B4E9", "#0072B2", "#E69F00", "#D55E00")
_HATCHES = ("", "//", "..", "\\\\", "xx")
_DARK, _WIDTH = "#222222", 0.8


@dataclass(frozen=True, slots=True)
class LoadBar:
    """What was measured of one way of calling at one place.

    Parameters
    ----------
    place, mode
        Where, and how.
    per_second
        Calls.
    p50_ms, p99_ms
        Milliseconds of a call beyond the bare model's; ``None``: there is none to
        compare with.
    """

    place: str
    mode: str
    per_second: float
    p50_ms: float | None = None
    p99_ms: float | None = None


def plot_load(bars: Sequence[LoadBar], files: Sequence[Path], *, title: str) -> None:
    """Draw calls a second above what each takes beyond the bare model.

    Parameters
    ----------
    bars
        At least one.
    files
        Where to write; the ending tells the format.
    title
        Above the figure.

    Raises
    ------
    ConfigurationError
        If matplotlib is missing, an ending is unknown, or there is no bar.
    """
    if not bars:
        raise ConfigurationError("there is no bar to draw")
    with figure_for(files, (10.0, 7.0)) as figure:
        above, below = figure.subplots(2, 1)
        _draw(above, bars, lambda bar: bar.per_second)
        above.set_ylabel("calls per second")
        added = [bar for bar in bars if bar.p50_ms is not None]
        if added:
            _draw(below, added, lambda bar: bar.p50_ms or 0.0)
            _tails(below, added)
            below.set_yscale("log")
            below.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
        below.set_ylabel("added per call, ms: median, and\n99th percentile (mark)")
        figure.suptitle(title)
        handles, labels = above.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def _draw(
    axes: "Axes", bars: Sequence[LoadBar], height: Callable[[LoadBar], float]
) -> None:
    modes, places = _names(bars)
    for number, place in enumerate(places):
        own = [bar for bar in bars if bar.place == place]
        axes.bar(
            [_at(bar, modes, places) for bar in own],
            [height(bar) for bar in own],
            _WIDTH / len(places),
            label=place,
            color=_COLOURS[number % len(_COLOURS)],
            hatch=_HATCHES[number % len(_HATCHES)],
            edgecolor="white",
        )
    axes.set_xticks(range(len(modes)), [m.replace(", ", "\n") for m in modes])
    axes.grid(visible=True, axis="y", linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)


def _tails(axes: "Axes", bars: Sequence[LoadBar]) -> None:
    modes, places = _names(bars)
    tails = [(bar, bar.p99_ms) for bar in bars if bar.p99_ms is not None]
    x = [_at(bar, modes, places) for bar, _ in tails]
    axes.plot(x, [ms for _, ms in tails], "_", color=_DARK, markersize=10)


def _names(bars: Sequence[LoadBar]) -> tuple[list[str], list[str]]:
    """Return ways and places, each once and in order."""
    modes = list(dict.fromkeys(bar.mode for bar in bars))
    return modes, list(dict.fromkeys(bar.place for bar in bars))


def _at(bar: LoadBar, modes: Sequence[str], places: Sequence[str]) -> float:
    width = _WIDTH / len(places)
    first = modes.index(bar.mode) - (_WIDTH - width) / 2
    return first + places.index(bar.place) * width
