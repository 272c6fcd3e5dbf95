"""What a call would have cost, had a certain model answered it."""

import logging
from collections.abc import Mapping
from typing import Any

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.langchain.callbacks.reports import CallReport
from mixllm_integrations.serving import ListPrice, list_price

__all__ = ["Reference"]

_log = logging.getLogger(__name__)


class Reference:
    """A model, or none, and what it would have cost.

    Parameters
    ----------
    name
        A candidate's, or one that genai-prices knows; ``None``: no model.
    """

    def __init__(self, name: str | None) -> None:
        self.name = name
        self._price: ListPrice | None = None
        self._is_looked_up = False

    def cost_of(self, report: CallReport, record: Mapping[str, Any]) -> float | None:
        """Return what it would have cost to have it answer.

        Parameters
        ----------
        report
            What the call took.
        record
            Its routing record, with ``predicted_costs`` by candidate.

        Returns
        -------
        float or None
            USD; ``None`` if unknown.
        """
        if self.name is None:
            return None
        if report.candidate == self.name:
            return report.cost
        expected = (record.get("predicted_costs") or {}).get(self.name)
        if expected is not None:
            return report.as_it_went(float(expected))
        price = self._list_price()
        asked = report.input_tokens or record.get("input_tokens") or 0
        answered = report.output_tokens or record.get("output_tokens") or 0
        if price is None or not (asked or answered):
            return None
        return (
            asked * price.input_cost_per_million_tokens
            + answered * price.output_cost_per_million_tokens
        ) / 1e6

    def _list_price(self) -> ListPrice | None:
        """Look the price up, once: not before a call shows that it is needed."""
        if not self._is_looked_up and self.name is not None:
            self._is_looked_up = True
            try:
                self._price = list_price(self.name)
            except ConfigurationError:
                _log.warning(
                    "reference %r is neither a candidate nor a model with a known "
                    "list price: calls are not compared with it",
                    self.name,
                )
        return self._price
