"""The figures of a report, each in two sizes: for a desk and for a hand."""

import math
from collections.abc import Callable, Mapping, Sequence

from mixllm_integrations.core.markup import Element, element
from mixllm_integrations.core.offpolicy import Interval
from mixllm_integrations.report.details import Bin, Latency, SharesOverTime
from mixllm_integrations.report.full import RecordedCurve
from mixllm_integrations.report.page.axes import (
    Axes,
    Scale,
    linear_ticks,
    log_ticks,
    money,
)

__all__ = [
    "LETTERS",
    "MapPoint",
    "calibration_chart",
    "curve_chart",
    "latency_chart",
    "recorded_chart",
    "shares_chart",
]

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_PER = 1_000.0
_WIDE, _NARROW = 720.0, 344.0
_LOG_FROM = 6.0  # times the lowest cost, from which on factors are drawn
_AXIS = "USD per 1,000 decisions"


class MapPoint:
    """One way to decide, on the map of quality and cost.

    Parameters
    ----------
    key
        The letter that it has in the table.
    hint
        What it is, in words.
    kind
        ``"now"``, ``"worth"`` or ``"always"``.
    cost, quality
        USD per decision, and quality.
    """

    __slots__ = ("cost", "hint", "key", "kind", "quality")

    def __init__(
        self, key: str, hint: str, kind: str, cost: Interval, quality: Interval
    ) -> None:
        self.key, self.hint, self.kind = key, hint, kind
        self.cost, self.quality = cost, quality


def _both(draw: Callable[[float], Axes], label: str) -> list[Element]:
    return [
        draw(_WIDE).figure("wide", label),
        draw(_NARROW).figure("narrow", label),
    ]


def curve_chart(points: Sequence[MapPoint], label: str) -> list[Element]:
    """Return quality over cost: the line of other λ, and candidates alone.

    Parameters
    ----------
    points
        What is drawn; at least one.
    label
        What it says, for who cannot see it.
    """
    known = [p for p in points if math.isfinite(p.cost.value + p.quality.value)]
    costs = [_PER * p.cost.value for p in known]
    qualities = [p.quality.value for p in known]

    def draw(width: float) -> Axes:
        axes = _map_axes(width, costs, qualities)
        line = sorted((p for p in known if p.kind != "always"), key=_cost_of)
        axes.line("curve", *((_PER * p.cost.value, p.quality.value) for p in line))
        for point in sorted(known, key=lambda p: p.kind == "now"):
            _draw_point(axes, point)
        return axes

    return _both(draw, label)


def _cost_of(point: MapPoint) -> float:
    return point.cost.value


def _map_axes(width: float, costs: Sequence[float], qualities: Sequence[float]) -> Axes:
    paid = [c for c in costs if c > 0.0]
    is_log = (
        bool(paid) and len(paid) == len(costs) and max(paid) > _LOG_FROM * min(paid)
    )
    if is_log:
        x = Scale(min(paid) / 1.3, max(paid) * 1.3, is_log=True)
    else:
        x = Scale(0.0, 1.1 * max([*costs, 1e-9]))
    low, high = min([*qualities, 1.0]), max([*qualities, 0.0])
    room = max(0.08 * (high - low), 0.02)
    y = Scale(max(low - room, 0.0), min(high + room, 1.0))
    axes = Axes(width, min(380.0, 0.85 * width), x, y)
    most = 7 if width > _NARROW else 4
    ticks = log_ticks(x.low, x.high, most=most) if is_log else []
    axes.ticks_x(ticks or linear_ticks(x.low, x.high, most=most), money, _AXIS)
    axes.ticks_y(linear_ticks(y.low, y.high), _percent)
    axes.text(4, 10, "quality", "label")
    return axes


def _draw_point(axes: Axes, point: MapPoint) -> None:
    x, y = axes.at_x(_PER * point.cost.value), axes.at_y(point.quality.value)
    shapes = []
    if math.isfinite(point.quality.high - point.quality.low):
        low, high = axes.at_y(point.quality.low), axes.at_y(point.quality.high)
        shapes.append(_stroke(x, low, x, high, "whisker"))
    if point.kind == "always":
        shapes += _lettered_square(x, y, point.key)
    else:
        radius = 11 if point.kind == "now" else 8
        shapes.append(
            element("circle", {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": radius})
        )
        shapes.append(_letter(x, y, point.key))
    axes.mark(f"point {point.kind}", point.hint, *shapes)


def _lettered_square(x: float, y: float, key: str) -> list[Element]:
    square = {"x": f"{x - 8:.1f}", "y": f"{y - 8:.1f}", "width": 16, "height": 16}
    return [element("rect", {**square, "rx": 3}), _letter(x, y, key)]


def _letter(x: float, y: float, key: str) -> Element:
    place = {"class": "key", "x": f"{x:.1f}", "y": f"{y + 3.8:.1f}"}
    return element("text", {**place, "text-anchor": "middle"}, key)


def _stroke(x1: float, y1: float, x2: float, y2: float, kind: str) -> Element:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    places = {name: f"{value:.1f}" for name, value in ends.items()}
    return element("line", {"class": kind, **places})


def recorded_chart(
    found: RecordedCurve, series: Mapping[str, int], label: str
) -> list[Element]:
    """Return quality over cost on labelled answers.

    Parameters
    ----------
    found
        Lines and points.
    series
        Place in the palette of each candidate.
    label
        What it says.
    """
    every = [p for _, _, line in found.lines for p in line]
    every += [(cost, quality) for _, cost, quality in found.points]
    costs, qualities = [_PER * c for c, _ in every], [q for _, q in every]

    def draw(width: float) -> Axes:
        axes = _map_axes(width, costs, qualities)
        for name, role, line in found.lines:
            shown = [(_PER * cost, quality) for cost, quality in line]
            axes.line(f"line {role}", *shown)
            if shown:
                axes.parts[-1].content.append(element("title", None, name))
        for key, (name, cost, quality) in zip(LETTERS, found.points, strict=False):
            x, y = axes.at_x(_PER * cost), axes.at_y(quality)
            hint = f"{name}: {quality:.1%} for {money(_PER * cost)} {_AXIS}"
            shapes = _lettered_square(x, y, key)
            axes.mark(f"point s{series.get(name, 7)}", hint, *shapes)
        cost, quality = found.now
        x, y = axes.at_x(_PER * cost), axes.at_y(quality)
        dot = element("circle", {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": 7})
        hint = f"the router now: {quality:.1%} for {money(_PER * cost)} {_AXIS}"
        axes.mark("point now", hint, dot)
        return axes

    return _both(draw, label)


def shares_chart(
    found: SharesOverTime, series: Mapping[str, int], label: str
) -> list[Element]:
    """Return who answered, one bar per period.

    Parameters
    ----------
    found
        Counts by period and candidate.
    series
        Place in the palette of each candidate.
    label
        What it says.
    """
    n = len(found.starts)
    form = "%H:%M" if found.seconds * n < 172_800 else "%d %b"

    def draw(width: float) -> Axes:
        axes = Axes(width, 260.0, Scale(0.0, n), Scale(0.0, 1.0), top=8.0)
        axes.ticks_y([0.0, 0.25, 0.5, 0.75, 1.0], _percent)
        for period, counts in enumerate(found.counts):
            _draw_bar(axes, found, period, counts, series)
        wanted = 7 if width > _NARROW else 4
        for period in range(0, n, max(math.ceil(n / wanted), 1)):
            x = axes.at_x(period)
            at = f"{found.starts[period]:{form}}"
            axes.text(x, axes.height - axes.bottom + 15, at, "tick")
        middle = (axes.left + axes.width) / 2
        axes.text(middle, axes.height - 5, "UTC", "label", "middle")
        return axes

    return _both(draw, label)


def _draw_bar(
    axes: Axes,
    found: SharesOverTime,
    period: int,
    counts: Sequence[int],
    series: Mapping[str, int],
) -> None:
    total, done = sum(counts), 0
    left, right = axes.at_x(period) + 0.8, axes.at_x(period + 1) - 0.8
    for name, count in zip(found.names, counts, strict=True):
        if not count:
            continue
        top = axes.at_y((done + count) / total)
        height = axes.at_y(done / total) - top
        done += count
        box = {"x": left, "y": top, "width": right - left, "height": height}
        bar = element("rect", {key: f"{value:.1f}" for key, value in box.items()})
        when = f"{found.starts[period]:%d %b %H:%M}"
        hint = f"{when}: {name} {count:,} of {total:,} ({count / total:.0%})"
        axes.mark(f"s{series.get(name, 7)}", hint, bar)


def latency_chart(
    found: Sequence[Latency], series: Mapping[str, int], label: str
) -> list[Element]:
    """Return median to 95th and 99th percentile of each candidate.

    Parameters
    ----------
    found
        One row each; at least one.
    series
        Place in the palette of each candidate.
    label
        What it says.
    """
    longest = max(one.p99 for one in found) or 1.0

    def draw(width: float) -> Axes:
        height = 34.0 * len(found) + 48.0
        x = Scale(0.0, 1.04 * longest)
        axes = Axes(width, height, x, Scale(0.0, 1.0), left=10.0, right=14.0, top=6.0)
        most = 8 if width > _NARROW else 5
        ticks = linear_ticks(0.0, x.high, most=most)
        axes.ticks_x(ticks, lambda v: f"{v:g}", "seconds")
        for row, one in enumerate(found):
            y = axes.top + 34.0 * row + 22.0
            axes.text(axes.left, y - 8, one.name, "name")
            ends = [axes.at_x(v) for v in (one.p50, one.p95, one.p99)]
            dot = {"cx": f"{ends[0]:.1f}", "cy": f"{y:.1f}", "r": 5}
            hint = f"{one.name}: median {one.p50:.2f} s, 95 % within {one.p95:.2f} s, "
            axes.mark(
                f"range s{series.get(one.name, 7)}",
                f"{hint}99 % within {one.p99:.2f} s ({one.answers:,} answers)",
                _stroke(ends[0], y, ends[1], y, "thick"),
                _stroke(ends[1], y, ends[2], y, "thin"),
                _stroke(ends[2], y - 4, ends[2], y + 4, "thin"),
                element("circle", dot),
            )
        return axes

    return _both(draw, label)


def calibration_chart(bins: Sequence[Bin], label: str) -> list[Element]:
    """Return observed over expected quality.

    Parameters
    ----------
    bins
        At least one.
    label
        What it says.
    """
    most = max(one.count for one in bins)

    def draw(width: float) -> Axes:
        side = min(width, 420.0)
        axes = Axes(side, 0.9 * side, Scale(0.0, 1.0), Scale(0.0, 1.0))
        ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        axes.ticks_x(ticks, _percent, "expected quality")
        axes.ticks_y(ticks, _percent)
        axes.text(4, 10, "feedback", "label")
        axes.line("diagonal", (0.0, 0.0), (1.0, 1.0))
        for one in bins:
            x, y = axes.at_x(one.expected), axes.at_y(one.observed.value)
            ends = axes.at_y(one.observed.low), axes.at_y(one.observed.high)
            radius = 3.0 + 7.0 * math.sqrt(one.count / most)
            dot = {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": f"{radius:.1f}"}
            bar = _stroke(x, ends[0], x, ends[1], "whisker")
            known = [bar] if math.isfinite(sum(ends)) else []
            hint = f"expected {one.expected:.0%}, got {one.observed.value:.0%} "
            hint += f"on {one.count:,} answers"
            axes.mark("dot", hint, *known, element("circle", dot))
        return axes

    return _both(draw, label)


def _percent(value: float) -> str:
    return f"{100 * value:.4g} %"
