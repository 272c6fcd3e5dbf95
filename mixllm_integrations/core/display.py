"""How values show themselves in a notebook."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from mixllm_integrations.core.explain import (
    COLUMNS,
    explained,
    explained_head,
    explained_rows,
)
from mixllm_integrations.core.markup import Element, element, html_table, written

if TYPE_CHECKING:
    from mixllm_integrations.core.types import Calibration, Decision

__all__ = ["Explained", "HtmlCalibration", "notebook_table"]

_LEFT, _RIGHT = "text-align:left", "text-align:right;font-variant-numeric:tabular-nums"


class Explained:
    """A decision that says why; in a notebook it is a table."""

    __slots__ = ()

    def explain(self) -> str:
        """Return a table that says why this candidate, and why not the others.

        Returns
        -------
        str
            Plain text, one line per candidate, best score first.
        """
        return explained(cast("Decision", self))

    def _repr_html_(self) -> str:
        decision = cast("Decision", self)
        rows = explained_rows(decision)
        return notebook_table(explained_head(decision), COLUMNS, rows, texts=(0, -1))


class HtmlCalibration:
    """A calibration that is a table in a notebook."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        found = cast("Calibration", self)
        reached = "target reached" if found.target_reached else "target NOT reached"
        rows = [
            ("willingness to pay", f"{found.willingness_to_pay:.4g} USD per point", ""),
            ("mean quality", f"{found.quality:.3f}", ""),
            ("mean cost", f"{found.cost:.3g} USD", ""),
            (
                f"quality, relative to {found.strongest}",
                f"{found.relative_quality:.1%}",
                _span(found.relative_quality_interval),
            ),
            (
                f"cost, relative to {found.strongest}",
                f"{found.relative_cost:.1%}",
                _span(found.relative_cost_interval),
            ),
        ]
        caption = f"Calibration on {found.n_queries:,} queries: {reached}"
        return notebook_table(caption, ("", "value", "95 %"), rows)


def notebook_table(
    caption: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    texts: Sequence[int] = (0,),
) -> str:
    """Return a table in HTML that needs no style sheet.

    Parameters
    ----------
    caption
        Above it.
    heads
        Of the columns.
    rows
        Cells as text.
    texts
        Which columns are no numbers.
    """
    table = html_table(caption, heads, rows)
    for part in table.iter("caption"):
        part.attributes["style"] = f"{_LEFT};caption-side:top"
    left = {place % len(heads) for place in texts}
    for row in table.iter("tr"):
        for place, cell in enumerate(row.content):
            assert isinstance(cell, Element)  # noqa: S101 - `html_table` makes them
            cell.attributes["style"] = _LEFT if place in left else _RIGHT
    return written(element("div", {"style": "overflow-x:auto"}, table))


def _span(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{low:.1%} to {high:.1%}"
