"""HTML that cannot be broken by what it shows: everything is escaped when written.

The tree is the standard library's; a candidate called ``<script>`` is text.
"""

import re
from collections.abc import Iterable, Mapping
from xml.etree import ElementTree as ET

__all__ = ["Content", "element", "html_table", "written"]

Content = ET.Element | str
# What no page may hold: control characters, halves of pairs, and what turns the
# direction in which a line is written.
_UNWRITABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufffe\uffff]"
)


def element(
    tag: str,
    attributes: Mapping[str, object] | None = None,
    /,
    *content: Content,
) -> ET.Element:
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
    given = {
        name: _clean(str(value))
        for name, value in (attributes or {}).items()
        if value is not None
    }
    made = ET.Element(tag, given)
    last: ET.Element | None = None
    for part in content:
        if isinstance(part, str):
            text = _clean(part)
            if last is None:
                made.text = (made.text or "") + text
            else:
                last.tail = (last.tail or "") + text
        else:
            last = part
            made.append(part)
    return made


def html_table(
    caption: str,
    heads: Iterable[str],
    rows: Iterable[Iterable[Content]],
    *,
    attributes: Mapping[str, object] | None = None,
) -> ET.Element:
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


def written(root: ET.Element) -> str:
    """Return an element as HTML.

    Parameters
    ----------
    root
        From `element`.
    """
    return ET.tostring(root, encoding="unicode", method="html")


def _clean(text: str) -> str:
    return _UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", text)
