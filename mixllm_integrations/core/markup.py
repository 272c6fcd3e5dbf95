"""HTML that cannot be broken by what it shows: everything is escaped when written.

A candidate called ``<script>`` is text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import TypeAlias

__all__ = ["Content", "Element", "element", "html_table", "written"]

# What no page may hold: control characters, halves of pairs, and what turns the
# direction in which a line is written.
_UNWRITABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufffe\uffff]"
)
_VOID = frozenset({"link", "meta"})  # they have no end; only those that are used
_RAW = frozenset({"style", "script"})  # what is in them is no text to a browser


@dataclass(slots=True)
class Element:
    """A part of a page.

    Parameters
    ----------
    tag
        Its name.
    attributes
        By name.
    content
        What is in it, in order.
    """

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    content: "list[Content]" = field(default_factory=list)

    def iter(self, tag: str) -> "Iterator[Element]":
        """Yield itself and what is in it, as far as it has a name.

        Parameters
        ----------
        tag
            The name.
        """
        if self.tag == tag:
            yield self
        for part in self.content:
            if isinstance(part, Element):
                yield from part.iter(tag)


Content: TypeAlias = Element | str


def element(
    tag: str, attributes: Mapping[str, object] | None = None, /, *content: Content
) -> Element:
    """Return an element with text and other elements in it.

    Parameters
    ----------
    tag
        Its name.
    attributes
        By name; those that are ``None`` are left out.
    content
        What is in it, in order.

    Examples
    --------
    >>> written(element("td", {"class": "name"}, "a < b"))
    '<td class="name">a &lt; b</td>'
    """
    given = {n: str(v) for n, v in (attributes or {}).items() if v is not None}
    return Element(tag, given, list(content))


def html_table(
    caption: str,
    heads: Iterable[str],
    rows: Iterable[Iterable[Content]],
    *,
    attributes: Mapping[str, object] | None = None,
) -> Element:
    """Return a table whose first column names its rows.

    Parameters
    ----------
    caption
        What it shows.
    heads
        Of the columns.
    rows
        Cells; the first of each is its head.
    attributes
        Of the table.
    """
    head = [element("th", {"scope": "col"}, name) for name in heads]
    body = []
    for first, *others in rows:
        cells = [element("td", None, cell) for cell in others]
        body.append(element("tr", None, element("th", {"scope": "row"}, first), *cells))
    return element(
        "table",
        attributes,
        element("caption", None, caption),
        element("thead", None, element("tr", None, *head)),
        element("tbody", None, *body),
    )


def written(root: Element) -> str:
    """Return an element as HTML.

    Parameters
    ----------
    root
        From `element`.

    Raises
    ------
    ValueError
        If a style or a script holds what would end it.
    """
    return "".join(_pieces(root))


def _pieces(part: Element) -> Iterator[str]:
    attributes = [f' {n}="{_quoted(v)}"' for n, v in part.attributes.items()]
    yield f"<{part.tag}{''.join(attributes)}>"
    if part.tag in _VOID:
        return
    for inner in part.content:
        if isinstance(inner, Element):
            yield from _pieces(inner)
        elif part.tag in _RAW:
            yield _raw(inner)
        else:
            yield escape(_clean(inner), quote=False)
    yield f"</{part.tag}>"


def _quoted(value: str) -> str:
    return escape(_clean(value), quote=False).replace('"', "&quot;")


def _raw(text: str) -> str:
    if "</" in text or "<!--" in text:
        raise ValueError("a style or a script must not hold '</' or '<!--'")
    return text


def _clean(text: str) -> str:
    return _UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", text)
