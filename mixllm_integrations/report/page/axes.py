"""Axes of a figure in SVG: places, ticks, and marks on them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mixllm_integrations.core.markup import Content, Element, element

__all__ = ["Axes", "Scale", "linear_ticks", "log_ticks", "money"]

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """From a value to a share of an axis.

    Parameters
    ----------
    low, high
        Values at its ends.
    is_log
        Whether equal steps are equal factors.
    """

    low: float
    high: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Return where a value lies, 0 to 1; beyond the ends it is at the end."""
        if self.is_log:
            low, high = math.log(self.low), math.log(self.high)
            place = (math.log(max(value, self.low)) - low) / ((high - low) or 1.0)
        else:
            place = (value - self.low) / ((self.high - self.low) or 1.0)
        return min(max(place, 0.0), 1.0)


@dataclass(slots=True)
class Axes:
    """A frame that marks are put on.

    Parameters
    ----------
    width, height
        Of the whole figure, in its own units: about pixels.
    x, y
        Its scales.
    left, right, top, bottom
        Margins.
    """

    width: float
    height: float
    x: Scale
    y: Scale
    left: float = 46.0
    right: float = 12.0
    top: float = 24.0
    bottom: float = 40.0
    parts: list[Element] = field(default_factory=list)

    def at_x(self, value: float) -> float:
        """Return how far from the left a value is drawn."""
        return self.left + self.x(value) * (self.width - self.left - self.right)

    def at_y(self, value: float) -> float:
        """Return how far from the top a value is drawn."""
        height = self.height - self.top - self.bottom
        return self.height - self.bottom - self.y(value) * height

    def line(self, kind: str, *ends: tuple[float, float]) -> None:
        """Draw a line through values.

        Parameters
        ----------
        kind
            Its class in the style.
        *ends
            Pairs of values.
        """
        points = " ".join(f"{self.at_x(x):.1f},{self.at_y(y):.1f}" for x, y in ends)
        self.parts.append(element("polyline", {"class": kind, "points": points}))

    def text(self, x: float, y: float, said: str, kind: str, side: str = "") -> None:
        """Write at a place in the figure's own units.

        Parameters
        ----------
        x, y
            Where.
        said
            What.
        kind
            Its class in the style.
        side
            ``"middle"`` or ``"end"``; by default the text begins there.
        """
        place = {"class": kind, "x": f"{x:.1f}", "y": f"{y:.1f}"}
        self.parts.append(element("text", {**place, "text-anchor": side or None}, said))

    def mark(self, kind: str, hint: str, *shapes: Element) -> None:
        """Draw shapes with a hint that shows where a pointer rests.

        Parameters
        ----------
        kind
            Their class in the style.
        hint
            What they are.
        *shapes
            In the figure's own units.
        """
        told: list[Content] = [element("title", None, hint), *shapes]
        self.parts.append(element("g", {"class": kind}, *told))

    def ticks_x(
        self, values: Sequence[float], told: Callable[[float], str], label: str
    ) -> None:
        """Draw the horizontal axis.

        Parameters
        ----------
        values
            Where ticks are.
        told
            What stands at one.
        label
            Of the axis.
        """
        foot = self.height - self.bottom
        for value in values:
            x = self.at_x(value)
            self.line("grid", (value, self.y.low), (value, self.y.high))
            self.text(x, foot + 15, told(value), "tick", "middle")
        middle = (self.left + self.width - self.right) / 2
        self.text(middle, self.height - 5, label, "label", "middle")

    def ticks_y(self, values: Sequence[float], told: Callable[[float], str]) -> None:
        """Draw the vertical axis.

        Parameters
        ----------
        values
            Where ticks are.
        told
            What stands at one.
        """
        for value in values:
            self.line("grid", (self.x.low, value), (self.x.high, value))
            self.text(self.left - 6, self.at_y(value) + 4, told(value), "tick", "end")

    def figure(self, size: str, label: str) -> Element:
        """Return the drawing.

        Parameters
        ----------
        size
            ``"wide"`` or ``"narrow"``: where it is shown.
        label
            What it says, for who cannot see it.
        """
        attributes = {
            "class": f"chart {size}",
            "viewBox": f"0 0 {self.width:g} {self.height:g}",
            "role": "img",
            "aria-label": label,
        }
        return element("svg", attributes, *self.parts)


def linear_ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Return round values between two ends.

    Parameters
    ----------
    low, high
        The ends.
    most
        About how many.

    Examples
    --------
    >>> linear_ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in _STEPS if s * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float, *, most: int = 7) -> list[float]:
    """Return round values for equal factors.

    Parameters
    ----------
    low, high
        The ends, above 0.
    most
        At most so many, unless every power of ten is already more.

    Examples
    --------
    >>> log_ticks(0.08, 4.0)
    [0.1, 0.2, 0.5, 1.0, 2.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        found = [float(f"{d * 10.0**p:.10g}") for p in powers for d in digits]
        found = [value for value in found if low <= value <= high]
        if len(found) <= most:
            break
    return found


def money(value: float) -> str:
    """Return USD with three digits that matter.

    Parameters
    ----------
    value
        In USD.

    Examples
    --------
    >>> money(1234.5), money(0.01234), money(0.0)
    ('1,234', '0.0123', '0')
    """
    if not math.isfinite(value):
        return "–"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 0.0001 or size == 0.0:
        return f"{value:.3g}"
    return f"{value:.1e}"
