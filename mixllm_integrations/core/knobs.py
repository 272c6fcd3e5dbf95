"""What one may set on a router at any time.

`pool` holds what it weighs; a setting that cannot be used raises and changes
nothing.
"""

from mixllm_integrations.core.policy import MetaDecisionMaker
from mixllm_integrations.core.types import number_between
from mixllm_integrations.core.waiting import WaitingModel

__all__ = ["Knobs"]


class Knobs:
    """The weights of a decision, each an attribute."""

    _policy: MetaDecisionMaker
    _waiting: WaitingModel
    _max_cost_per_query: float | None

    @property
    def willingness_to_pay(self) -> float:
        """USD for one whole point of quality, above 0; may be set at any time."""
        return self._policy.willingness_to_pay

    @willingness_to_pay.setter
    def willingness_to_pay(self, value: float) -> None:
        self._policy.willingness_to_pay = value

    @property
    def exploration(self) -> float:
        """Weight of the uncertainty, at least 0; may be set at any time."""
        return self._policy.exploration

    @exploration.setter
    def exploration(self, value: float) -> None:
        self._policy.exploration = value

    @property
    def waiting_weight(self) -> float:
        """Weight of the waiting penalty, at least 0; may be set at any time."""
        return self._policy.waiting_weight

    @waiting_weight.setter
    def waiting_weight(self, value: float) -> None:
        self._policy.waiting_weight = value

    @property
    def waiting_tolerance_seconds(self) -> float:
        """How late an answer may start; may be set at any time."""
        return self._waiting.tolerance_seconds

    @waiting_tolerance_seconds.setter
    def waiting_tolerance_seconds(self, value: float) -> None:
        self._waiting.tolerance_seconds = value

    @property
    def max_cost_per_query(self) -> float | None:
        """Highest predicted cost in USD, or ``None``; may be set at any time."""
        return self._max_cost_per_query

    @max_cost_per_query.setter
    def max_cost_per_query(self, value: float | None) -> None:
        if value is not None:
            value = number_between(value, "max_cost_per_query")
        self._max_cost_per_query = value
