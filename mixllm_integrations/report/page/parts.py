"""Pieces that the sections of a report are made of."""

import math
from collections.abc import Iterable, Sequence

from mixllm_integrations.core.markup import Content, Element, element, html_table
from mixllm_integrations.core.offpolicy import Interval
from mixllm_integrations.report.page.axes import money

__all__ = [
    "card",
    "cents",
    "empty",
    "figure",
    "folded",
    "number",
    "paragraph",
    "per_thousand",
    "ratio",
    "seconds",
    "section",
    "swatch",
    "table",
    "usd",
]

_PER = 1_000.0


def section(name: str, title: str, *content: Content) -> Element:
    """Return a part of the page with its heading.

    Parameters
    ----------
    name
        Its anchor.
    title
        The heading.
    *content
        What is in it.
    """
    head = element("h2", {"id": f"{name}-head"}, title)
    label = {"id": name, "aria-labelledby": f"{name}-head"}
    return element("section", label, head, *content)


def paragraph(*content: Content, kind: str | None = None) -> Element:
    """Return a paragraph.

    Parameters
    ----------
    *content
        What is in it.
    kind
        Its class.
    """
    return element("p", {"class": kind}, *content)


def empty(said: str) -> Element:
    """Return what stands where there is nothing to show yet.

    Parameters
    ----------
    said
        Why.
    """
    return paragraph(said, kind="empty")


def card(title: str, value: str, note: str, *, kind: str = "") -> Element:
    """Return one figure of the first lines.

    Parameters
    ----------
    title
        What it is.
    value
        The figure.
    note
        What has to be known of it.
    kind
        A further class.
    """
    return element(
        "div",
        {"class": f"card {kind}".strip()},
        element("dt", None, title),
        element(
            "dd", None, element("strong", None, value), element("span", None, note)
        ),
    )


def figure(drawings: Iterable[Element], caption: str, *more: Content) -> Element:
    """Return a figure with its caption.

    Parameters
    ----------
    drawings
        The same one in several sizes.
    caption
        What it shows.
    *more
        What stands between, for example a legend.
    """
    return element(
        "figure", None, *drawings, *more, element("figcaption", None, caption)
    )


def folded(title: str, content: Element) -> Element:
    """Return something that is shown when asked for, and when printed.

    Parameters
    ----------
    title
        What to ask for.
    content
        What is shown then.
    """
    return element("details", None, element("summary", None, title), content)


def table(
    caption: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[Content]],
    *,
    texts: Sequence[int] = (0,),
) -> Element:
    """Return a table that a narrow screen shows row by row.

    Parameters
    ----------
    caption
        What it shows.
    heads
        Of the columns.
    rows
        Their cells.
    texts
        Which columns are no numbers.
    """
    made = html_table(caption, heads, rows)
    for row in made.iter("tr"):
        for place, cell in enumerate(row.content):
            assert isinstance(cell, Element)  # noqa: S101 - `html_table` makes them
            if place not in texts:
                cell.attributes["class"] = "number"
            if cell.tag == "td":
                cell.attributes["data-label"] = heads[place]
    label = {"class": "scroll", "role": "region", "tabindex": "0"}
    return element("div", {**label, "aria-label": caption}, made)


def swatch(name: str, place: int) -> Element:
    """Return a candidate's name with its colour.

    Parameters
    ----------
    name
        Of the candidate.
    place
        In the palette.
    """
    colour = element("span", {"class": f"swatch b{place}", "aria-hidden": "true"})
    return element("span", {"class": "named"}, colour, name)


def number(value: float | None, digits: int = 2) -> str:
    """Return a number, or a dash where there is none.

    Parameters
    ----------
    value
        The number.
    digits
        Behind the point.
    """
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.{digits}f}"


def ratio(found: Interval, *, low: float = -math.inf, high: float = math.inf) -> str:
    """Return a share with its interval.

    Parameters
    ----------
    found
        Estimate and interval.
    low, high
        What it cannot be beyond.
    """
    if not math.isfinite(found.value):
        return "–"
    value = f"{min(max(found.value, low), high):.1%}"
    if not math.isfinite(found.low + found.high):
        return value
    return f"{value} ({max(found.low, low):.1%} to {min(found.high, high):.1%})"


def cents(value: float | None) -> str:
    """Return USD for a thousand of something that costs so much.

    Parameters
    ----------
    value
        USD each.
    """
    if value is None or not math.isfinite(value):
        return "–"
    return money(_PER * value)


def per_thousand(found: Interval) -> str:
    """Return a cost for a thousand decisions with its interval.

    Parameters
    ----------
    found
        USD each.
    """
    if not math.isfinite(found.low + found.high):
        return cents(found.value)
    low = max(found.low, 0.0)
    return f"{cents(found.value)} ({cents(low)} to {cents(found.high)})"


def usd(value: float) -> str:
    """Return an amount of money.

    Parameters
    ----------
    value
        In USD.
    """
    return "–" if not math.isfinite(value) else f"{money(value)} USD"


def seconds(value: float | None) -> str:
    """Return a time.

    Parameters
    ----------
    value
        In seconds.
    """
    return "–" if value is None else f"{value:.2f}"
