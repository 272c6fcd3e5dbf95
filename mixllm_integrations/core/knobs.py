"""What one may set on a router at any time.

`pool` holds what it weighs; a setting that cannot be used raises and changes
nothing.
"""

import threading
from collections.abc import Mapping

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.policy import MetaDecisionMaker
from mixllm_integrations.core.purse import Purse
from mixllm_integrations.core.spending import Spending, SpendingControl, WhenSpent
from mixllm_integrations.core.types import number_between
from mixllm_integrations.core.waiting import WaitingModel

__all__ = ["Knobs"]


class Knobs:
    """The weights of a decision, each an attribute."""

    _policy: MetaDecisionMaker
    _waiting: WaitingModel
    _max_cost_per_query: float | None
    _spending: SpendingControl
    _lock: threading.RLock

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

    @property
    def spending_budget(self) -> float | None:
        """USD per period, or ``None``; may be set at any time.

        What was spent in the period stays spent; a first budget begins a period.
        """
        return self._spending.purse.budget

    @spending_budget.setter
    def spending_budget(self, value: float | None) -> None:
        with self._lock:
            self._spending.purse.budget = value

    @property
    def spending_period_seconds(self) -> float:
        """Length of a period of the budget; setting it begins a new one."""
        return self._spending.purse.period_seconds

    @spending_period_seconds.setter
    def spending_period_seconds(self, value: float) -> None:
        with self._lock:
            self._spending.purse.period_seconds = value

    @property
    def when_spent(self) -> WhenSpent:
        """What happens when the budget pays for nobody; may be set at any time."""
        return self._spending.when_spent

    @when_spent.setter
    def when_spent(self, value: WhenSpent) -> None:
        self._spending.when_spent = value

    @property
    def purse(self) -> Purse:
        """Where the budget is; another one may be set, for several workers to share.

        It is not saved with the router, and a copy or a router that was loaded has
        a purse of its own, of the same budget.
        """
        return self._spending.purse

    @purse.setter
    def purse(self, value: Purse) -> None:
        if not isinstance(value, Purse):
            raise ConfigurationError(
                f"a purse needs what `core.purse.Purse` lists; a "
                f"{type(value).__name__} lacks some: pass a LocalPurse"
            )
        with self._lock:
            self._spending.purse = value

    @property
    def spending(self) -> Spending:
        """How the spending of this period stands."""
        with self._lock:
            return self._spending.status(self.willingness_to_pay)

    def load_here(self) -> dict[str, tuple[int, float]]:
        """Return what this router has under way.

        Returns
        -------
        dict
            By candidate the number of calls and their predicted output tokens;
            those without any are left out.
        """
        return self._waiting.load()

    def set_load_elsewhere(self, loads: Mapping[str, tuple[int, float]]) -> None:
        """Let what other workers have under way count as load as well.

        Parameters
        ----------
        loads
            By candidate, as `load_here` returns it; whoever is not in it has none
            elsewhere. It counts until the next ones are set.
        """
        self._waiting.set_load_elsewhere(loads)
