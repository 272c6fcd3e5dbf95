"""The sections of a report on what was learned: calibration, drift, regret."""

import math
from collections.abc import Mapping

from mixllm_integrations.core.markup import Content, Element, element
from mixllm_integrations.report.full import RecordedCurve, Report
from mixllm_integrations.report.page import charts, parts

__all__ = ["calibration", "drift", "exploration", "recorded", "regrets", "small_print"]


def calibration(report: Report) -> Element:
    """Return whether as much came as was expected.

    Parameters
    ----------
    report
        What is told.
    """
    title = "Was as much expected as came?"
    if not report.bins:
        said = "Nobody has judged an answer yet, so nothing can be said."
        return parts.section("calibration", title, parts.empty(said))
    total = sum(one.count for one in report.bins)
    gap = sum(abs(b.expected - b.observed.value) * b.count for b in report.bins) / total
    label = f"Feedback over expected quality in {len(report.bins)} groups; on average "
    label += f"they are {gap:.3f} apart."
    heads = ["expected", "feedback (95 %)", "answers"]
    rows: list[list[Content]] = [
        [
            f"{one.expected:.1%}",
            parts.ratio(one.observed),
            f"{one.count:,}",
        ]
        for one in report.bins
    ]
    return parts.section(
        "calibration",
        title,
        parts.paragraph(
            f"On {total:,} judged answers expectation and feedback are {gap:.3f} apart "
            f"on average (expected calibration error); Brier score {report.brier:.3f}."
        ),
        parts.figure(
            charts.calibration_chart(report.bins, label),
            "On the dashed line expectation and feedback agree; bars are 95 % "
            "intervals, larger dots hold more answers.",
        ),
        parts.folded(
            "The same as numbers",
            parts.table("Expected and observed quality by group", heads, rows),
        ),
    )


def drift(report: Report) -> Element:
    """Return which candidates changed.

    Parameters
    ----------
    report
        What is told.
    """
    title = "Changes that were noticed"
    if not report.alarms:
        said = "No candidate was noticed to have changed."
        return parts.section("drift", title, parts.empty(said))
    rows: list[list[Content]] = [
        [f"{one.at:%Y-%m-%d %H:%M}", one.candidate, one.text]
        for one in reversed(report.alarms)
    ]
    heads = ["when (UTC)", "candidate", "what"]
    caption = "Alarms, newest first"
    return parts.section(
        "drift", title, parts.table(caption, heads, rows, texts=(0, 1, 2))
    )


def exploration(report: Report) -> Element:
    """Return what learning cost.

    Parameters
    ----------
    report
        What is told.
    """
    title, found, total = (
        "What learning cost",
        report.exploration,
        report.overview.total,
    )
    if not found.decisions:
        said = "No decision was made to learn: all were what looked best."
        return parts.section("exploration", title, parts.empty(said))
    share = found.cost / total.cost if total.cost > 0 else 0.0
    way = "more" if found.extra >= 0 else "less"
    extra = (
        f"{parts.usd(abs(found.extra))} {way} than expected of what looked best"
        if math.isfinite(found.extra)
        else "what the best-looking choice would have cost was not logged"
    )
    cards = (
        parts.card(
            "decisions to learn",
            f"{found.decisions:,}",
            f"{found.decisions / total.decisions:.1%} of all; "
            f"{found.randomised:.1%} of all might have gone elsewhere by chance",
        ),
        parts.card("they cost", parts.usd(found.cost), f"{share:.1%} of all; {extra}"),
        parts.card(
            "their quality",
            parts.number(found.quality.value, 3),
            f"of all others {parts.number(found.usual_quality.value, 3)}",
        ),
    )
    return parts.section(
        "exploration", title, element("dl", {"class": "cards"}, *cards)
    )


def regrets(report: Report) -> Element:
    """Return the decisions that another one would probably have been better than.

    Parameters
    ----------
    report
        What is told.
    """
    title = "Most regretted decisions"
    if not report.regrets:
        said = "No judged decision is expected to have had a better alternative."
        return parts.section("regret", title, parts.empty(said))
    heads = ["decision", "when (UTC)", "answered by", "feedback", "expected", "USD"]
    heads += ["looked better", "of which was expected", "regret"]
    rows: list[list[Content]] = [
        [
            element("code", None, one.decision_id[:12]),
            f"{one.at:%m-%d %H:%M}",
            one.candidate + (f" ({one.domain})" if one.domain else ""),
            parts.number(one.reward),
            parts.number(one.expected),
            parts.number(one.cost, 5),
            one.instead,
            f"{one.instead_quality:.2f} for {parts.number(one.instead_cost, 5)}",
            parts.number(one.regret, 3),
        ]
        for one in report.regrets
    ]
    note = (
        "Regret is an estimate: what the best alternative was expected to be worth, "
        "minus what this answer was worth by its feedback and its cost, in points of "
        "quality. Nobody saw the other answer."
    )
    caption = f"The {len(rows)} judged decisions with the greatest estimated regret"
    return parts.section(
        "regret",
        title,
        parts.paragraph(note, kind="note"),
        parts.table(caption, heads, rows, texts=(0, 1, 2, 6)),
    )


def recorded(found: RecordedCurve, series: Mapping[str, int]) -> Element:
    """Return quality against cost on labelled answers.

    Parameters
    ----------
    found
        Lines and points.
    series
        Place in the palette of each candidate.
    """
    label = (
        f"Quality over cost on {found.queries:,} labelled queries; the router is at "
    )
    label += f"{found.now[1]:.1%} for {parts.cents(found.now[0])} USD per 1,000."
    legend = [
        element(
            "li",
            None,
            element("span", {"class": f"stroke {role}", "aria-hidden": "true"}),
            name,
        )
        for name, role, _ in found.lines
    ]
    heads = ["candidate", "quality", "USD per 1,000"]
    rows: list[list[Content]] = [
        ["● the router now", f"{found.now[1]:.1%}", parts.cents(found.now[0])]
    ]
    keys = (*charts.LETTERS, *[""] * len(found.points))
    for key, (name, cost, quality) in zip(keys, found.points, strict=False):
        head = parts.swatch(f"{key} {name}".strip(), series.get(name, 7))
        rows.append([head, f"{quality:.1%}", parts.cents(cost)])
    return parts.section(
        "recorded",
        "On labelled answers",
        parts.paragraph(f"{found.queries:,} queries of {found.source}."),
        parts.figure(
            charts.recorded_chart(found, series, label),
            "Every answer is on record here, so nothing is estimated. Squares: always "
            "one candidate; letters: see the table.",
            element("ul", {"class": "legend"}, *legend),
        ),
        parts.table("Places on the map", heads, rows),
    )


def small_print(report: Report) -> Element:
    """Return what has to be known to read the figures.

    Parameters
    ----------
    report
        What is told.
    """
    seen = report.overview
    said = [
        (
            "Intervals hold the truth 95 times of 100: Wilson's for shares, resampled "
            "or normal ones for grades, Student's for comparisons."
        ),
        (
            "Comparisons weigh logged decisions by the chance that they had "
            "(doubly robust); where nothing was left to chance they are the router's "
            "own predictions, and say so."
        ),
        (
            "Feedback is assumed to be missing at random among the answers of one "
            "candidate: if unhappy users speak more often, quality is better than this."
        ),
        "No prompt and no answer is in the log, nor here.",
    ]
    if seen.unmatched:
        said.append(f"{seen.unmatched:,} events speak of decisions that are not here.")
    if seen.unreadable:
        said.append(f"{seen.unreadable:,} events could not be read.")
    return parts.section(
        "notes",
        "How to read this",
        element("ul", None, *(element("li", None, text) for text in said)),
    )
