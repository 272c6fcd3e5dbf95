"""The sections of a report on traffic, one function each."""

import math
from collections.abc import Mapping

from mixllm_integrations.core.markup import Content, Element, element
from mixllm_integrations.core.offpolicy import Interval
from mixllm_integrations.report.comparison import Alternative, Comparison
from mixllm_integrations.report.full import Report
from mixllm_integrations.report.overview import CandidateOverview
from mixllm_integrations.report.page import charts, parts
from mixllm_integrations.report.page.axes import money

__all__ = [
    "at_a_glance",
    "candidates",
    "cost_and_quality",
    "domains",
    "latency",
    "palette",
]

_PALETTE = 7  # colours; all others share the eighth


def palette(report: Report) -> dict[str, int]:
    """Return the place in the palette of each candidate, most decisions first.

    Parameters
    ----------
    report
        Whose candidates.
    """
    names = [row.name for row in report.overview.candidates]
    return {name: min(place, _PALETTE) for place, name in enumerate(names)}


def at_a_glance(report: Report) -> Element:
    """Return the figures that everybody asks for first.

    Parameters
    ----------
    report
        What is told.
    """
    total, found = report.overview.total, report.comparison
    cards = []
    if found is not None:
        hint = " (by the router's own predictions)" if found.model_only else ""
        saves = found.saved.value >= 0
        cards += [
            parts.card(
                "saved" if saves else "spent more",
                f"{abs(found.saved.value):.0%}",
                f"{parts.usd(abs(found.saved_cost))} against always asking "
                f"{found.reference}{hint}; {_interval(found)}",
                kind="first",
            ),
            parts.card(
                "quality kept",
                f"{found.quality_kept.value:.1%}"
                if math.isfinite(found.quality_kept.value)
                else "–",
                f"of {found.reference}'s{hint}; 95 % interval "
                f"{found.quality_kept.low:.1%} to {found.quality_kept.high:.1%}",
            ),
        ]
    told = f"mean feedback on {total.feedback:,} answers"
    cards += [
        parts.card(
            "quality",
            parts.number(report.quality.value, 3),
            f"{told}; 95 % interval {parts.number(report.quality.low, 3)} to "
            f"{parts.number(report.quality.high, 3)}"
            if total.feedback
            else "nobody has judged an answer yet",
        ),
        parts.card(
            "spent",
            parts.usd(total.cost),
            f"{parts.cents(total.mean_cost)} USD per 1,000 answers",
        ),
        parts.card(
            "decisions",
            f"{total.decisions:,}",
            f"{total.errors:,} calls failed, {total.cached:,} answers from a cache",
        ),
    ]
    if report.latency:
        everyone = report.latency[0]
        cards.append(
            parts.card(
                "answers within",
                f"{_seconds(everyone.p95)} s",
                f"95 % of them; half within {_seconds(everyone.p50)} s",
            )
        )
    content: list[Content] = [element("dl", {"class": "cards"}, *cards)]
    if found is None:
        content.append(parts.empty(f"No comparison: {report.no_comparison}."))
    return parts.section("glance", "At a glance", *content)


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 0.1 else f"{value:.2g}"


def _interval(found: Comparison) -> str:
    low, high = found.saved.low, found.saved.high
    if not math.isfinite(low + high):
        return "too few decisions for an interval"
    return f"95 % interval {low:.0%} to {high:.0%}"


def cost_and_quality(report: Report) -> Element:
    """Return the map of quality over cost with the alternatives.

    Parameters
    ----------
    report
        What is told.
    """
    title, found = "Cost and quality: now, and otherwise", report.comparison
    if found is None:
        return parts.section(
            "curve", title, parts.empty(f"Nothing to compare: {report.no_comparison}.")
        )
    ways = [found.now, *found.alternatives]
    keyed = list(zip(_keys(len(ways)), ways, strict=True))
    points = [
        charts.MapPoint(key, _hint(way), way.kind, way.cost, way.quality)
        for key, way in keyed
    ]
    label = (
        f"Quality over cost. Now {parts.ratio(found.now.quality, low=0, high=1)} for "
        f"{parts.cents(found.now.cost.value)} USD per 1,000 decisions; "
        f"{len(ways) - 1} alternatives, all in the table below."
    )
    said = [element("li", None, text) for text in _sentences(found)]
    caption = (
        "Circles: the present willingness to pay (Now) and others. Squares: always one "
        "candidate. Bars: 95 % intervals of the quality. Letters: see the table."
    )
    rows: list[list[Content]] = [
        [
            element(
                "span", None, element("b", {"class": way.kind}, key), f" {_name(way)}"
            ),
            parts.ratio(way.quality, low=0.0, high=1.0),
            parts.per_thousand(way.cost),
            "" if way.kind == "now" else _signed(way.quality_change.value),
            "" if way.kind == "now" else _signed(way.cost_change.value),
        ]
        for key, way in keyed
    ]
    heads = ["", "quality (95 %)", "USD per 1,000 (95 %)", "quality changes by"]
    heads += ["cost changes by"]
    caption_of_table = f"{found.decisions:,} decisions replayed under other settings"
    return parts.section(
        "curve",
        title,
        parts.paragraph(
            f"λ, the willingness to pay, is {found.willingness_to_pay:.3g} USD for one "
            "right answer more."
        ),
        element("ul", {"class": "said"}, *said),
        parts.figure(charts.curve_chart(points, label), caption),
        parts.table(caption_of_table, heads, rows),
        *[
            parts.paragraph(f"Note: {warning}.", kind="note")
            for warning in found.warnings
        ],
    )


def _keys(n: int) -> list[str]:
    letters = [a + b for a in ("", *charts.LETTERS) for b in charts.LETTERS]
    return ["●", *letters[: n - 1]]


def _name(way: Alternative) -> str:
    if way.kind == "now":
        return "Now, as logged"
    told = f"always {way.name}" if way.kind == "always" else way.name
    return f"{told} (model only)" if way.model_only else told


def _hint(way: Alternative) -> str:
    quality = parts.ratio(way.quality, low=0.0, high=1.0)
    return f"{_name(way)}: quality {quality}, {parts.per_thousand(way.cost)} USD/1,000"


def _sentences(found: Comparison) -> list[str]:
    """Say what half and twice the willingness to pay would have done."""
    told = []
    for way in found.alternatives:
        if way.name not in ("λ × 1/2", "λ × 2"):
            continue
        cost, quality = way.cost_change, way.quality_change
        if not math.isfinite(cost.value):
            continue
        pays = f"cost {abs(cost.value):.0%} {'more' if cost.value > 0 else 'less'}"
        is_clear = math.isfinite(quality.low + quality.high) and (
            quality.low > 0 or quality.high < 0
        )
        if is_clear:
            change = "better" if quality.value > 0 else "worse"
            earns = f"be {abs(quality.value):.1%} {change}"
        else:
            earns = "show no clear change of quality"
        told.append(f"{way.name} would {pays} and {earns}.")
    return told


def _signed(value: float) -> str:
    return "–" if not math.isfinite(value) else f"{value:+,.1%}".replace("-", "−")


def candidates(report: Report, series: Mapping[str, int]) -> Element:
    """Return who answered: over time, and in all.

    Parameters
    ----------
    report
        What is told.
    series
        Place in the palette of each candidate.
    """
    title, found = "Who answered", report.over_time
    if found is None:
        return parts.section("shares", title, parts.empty("No decision yet."))
    last = {n: c for n, c in zip(found.names, found.counts[-1], strict=True) if c}
    label = (
        f"Share of the decisions over time of {', '.join(found.names)}; in the last "
    )
    label += f"period {', '.join(f'{n} {c:,}' for n, c in last.items()) or 'none'}."
    legend = [
        element("li", None, parts.swatch(name, series.get(name, _PALETTE)))
        for name in found.names
    ]
    rows = [
        _row(row, report.quality_of[row.name], series)
        for row in report.overview.candidates
    ]
    heads = ["candidate", "decisions", "share", "quality (95 %)", "judged", "expected"]
    heads += ["USD", "USD per 1,000", "failed", "to learn"]
    span = _period(found.seconds)
    return parts.section(
        "shares",
        title,
        parts.figure(
            charts.shares_chart(found, series, label),
            f"Share of each candidate, {span} a bar; from below in the order of names.",
            element("ul", {"class": "legend"}, *legend),
        ),
        parts.table("Candidates, most decisions first", heads, rows),
    )


def _row(
    row: CandidateOverview, quality: Interval, series: Mapping[str, int]
) -> list[Content]:
    return [
        parts.swatch(row.name, series.get(row.name, _PALETTE)),
        f"{row.decisions:,}",
        f"{row.share:.1%}",
        parts.ratio(quality),
        f"{row.feedback:,}",
        parts.number(row.predicted_quality, 3),
        money(row.cost),
        parts.cents(row.mean_cost),
        f"{row.errors:,}",
        f"{row.explored:.1%}",
    ]


def _period(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} seconds"


def latency(report: Report, series: Mapping[str, int]) -> Element:
    """Return how long answers took.

    Parameters
    ----------
    report
        What is told.
    series
        Place in the palette of each candidate.
    """
    title, found = "How long answers took", report.latency
    if not found:
        return parts.section("latency", title, parts.empty("No answer was timed yet."))
    everyone = found[0]
    label = f"Latency by candidate; of all answers half within {everyone.p50:.2f} s, "
    label += f"95 % within {everyone.p95:.2f} s, 99 % within {everyone.p99:.2f} s."
    heads = ["", "answers", "median", "90 %", "95 %", "99 %"]
    heads += ["first token, median", "first token, 95 %"]
    rows: list[list[Content]] = [
        [
            one.name,
            f"{one.answers:,}",
            *(parts.seconds(v) for v in (one.p50, one.p90, one.p95, one.p99)),
            parts.seconds(one.first_token_p50),
            parts.seconds(one.first_token_p95),
        ]
        for one in found
    ]
    return parts.section(
        "latency",
        title,
        parts.figure(
            charts.latency_chart(found, series, label),
            "Dot: median. Thick line: up to the 95th percentile, thin: up to the 99th.",
        ),
        parts.folded(
            "The same as numbers",
            parts.table("Seconds until the whole answer was there", heads, rows),
        ),
    )


def domains(report: Report) -> Element:
    """Return what came of the queries of each domain.

    Parameters
    ----------
    report
        What is told.
    """
    title = "By domain"
    if not report.domains:
        said = (
            "The log does not say what queries are about: decisions are logged with "
            "their domain where the router was fitted on records and hands what it "
            "learned over to other workers."
        )
        return parts.section("domains", title, parts.empty(said))
    heads = ["domain", "decisions", "quality (95 %)", "judged", "expected"]
    heads += ["USD per 1,000", "mostly answered by"]
    rows: list[list[Content]] = [
        [
            row.name,
            f"{row.decisions:,}",
            parts.ratio(row.quality),
            f"{row.feedback:,}",
            parts.number(row.expected, 3),
            parts.cents(row.mean_cost),
            f"{row.mostly} ({row.mostly_share:.0%})",
        ]
        for row in report.domains
    ]
    caption = "What the queries are about, as the router reads them"
    return parts.section(
        "domains", title, parts.table(caption, heads, rows, texts=(0, 6))
    )
