"""Stage 9, online: a budget per period that decisions keep to.

Beside `purse`, which holds the money, and `pacing`, which makes it last. What is
predicted is reserved when a call is decided, what is billed replaces it. A
candidate that costs more than what is left may not compete.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.errors import BudgetExceededError, ConfigurationError
from mixllm_integrations.core.pacing import Pacer, spending_on
from mixllm_integrations.core.policy import Choice, MetaDecisionMaker, Scoreboard
from mixllm_integrations.core.purse import LocalPurse, Purse
from mixllm_integrations.core.types import FloatArray

__all__ = ["WHEN_SPENT", "Spending", "SpendingControl", "SpendingRound", "WhenSpent"]

_LOG = logging.getLogger("mixllm_integrations")
WhenSpent = Literal["cheapest", "stop"]
WHEN_SPENT: tuple[WhenSpent, ...] = get_args(WhenSpent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """How the spending of a period stands.

    Parameters
    ----------
    budget
        USD per period; ``None``: there is no limit, and nothing is counted.
    spent
        USD that were billed in this period. A call of which nobody told what it
        has cost counts as what was predicted.
    reserved
        USD that calls without an outcome are expected to cost.
    left
        USD that are neither, at least 0.
    overrun
        By how many USD both together exceed the budget, at least 0.
    calls
        How many calls were decided in this period.
    period_seconds, period_ends_in_seconds
        Length of a period, and when this one ends; infinity: never.
    willingness_to_pay_now
        USD for one whole point of quality: the router's own, or less to make the
        budget last.
    """

    budget: float | None
    spent: float
    reserved: float
    left: float
    overrun: float
    calls: int
    period_seconds: float
    period_ends_in_seconds: float
    willingness_to_pay_now: float


class SpendingControl:
    """Keeps decisions within a budget; the router holds a lock for it.

    Parameters
    ----------
    purse
        Where the money is.
    when_spent
        What happens when what is left pays for nobody: ``"cheapest"`` goes on
        with the cheapest candidate, over the budget; ``"stop"`` refuses.

    Attributes
    ----------
    purse
        May be replaced at any time.

    Notes
    -----
    Source: METHOD §3. With ``"stop"``, what is reserved and spent exceeds the
    budget by at most what the calls under way cost more than was predicted.
    """

    def __init__(self, purse: Purse, *, when_spent: WhenSpent = "cheapest") -> None:
        self.purse = purse
        self.when_spent = when_spent
        self.pacer = Pacer()
        self._warned_in: int | None = None

    @property
    def when_spent(self) -> WhenSpent:
        """What happens when what is left pays for nobody."""
        return self._when_spent

    @when_spent.setter
    def when_spent(self, value: WhenSpent) -> None:
        if value not in WHEN_SPENT:
            raise ConfigurationError(
                f"when_spent must be one of {WHEN_SPENT}, not {value!r}"
            )
        self._when_spent = value

    def settle(self, call_id: str, billed: float | None, *, failed: bool) -> None:
        """Replace what was reserved for a call by its bill.

        Parameters
        ----------
        call_id
            Of the call.
        billed
            USD; ``None``: nobody knows.
        failed
            Whether it failed: then it has cost nothing where nobody knows.
        """
        if self.purse.budget is None:
            return
        if billed is None and failed:
            billed = 0.0
        reserved = self.purse.settle(call_id, billed)
        if reserved is not None and billed is not None:
            self.pacer.settled(reserved, billed)

    def status(self, willingness_to_pay: float) -> Spending:
        """Return how this period stands.

        Parameters
        ----------
        willingness_to_pay
            The router's own.
        """
        balance, period = self.purse.balance(), self.purse.period_seconds
        budget = self.purse.budget
        now = willingness_to_pay
        if budget is not None:
            now = self.pacer.price(balance, period, most=now)
        return Spending(
            budget=budget,
            spent=balance.spent,
            reserved=balance.reserved,
            left=balance.left,
            overrun=max(balance.spent + balance.reserved - balance.budget, 0.0),
            calls=balance.calls,
            period_seconds=period,
            period_ends_in_seconds=balance.ends_in_seconds,
            willingness_to_pay_now=now,
        )

    def state(self) -> dict[str, Any]:
        """Return what this period has seen, and the pace, as JSON can hold it."""
        return {"purse": self.purse.state(), "pacer": self.pacer.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Parameters
        ----------
        state
            What `state` returned.

        Raises
        ------
        KeyError, TypeError, ValueError, AttributeError
            If it is damaged; then nothing is changed.
        """
        pacer = Pacer()
        pacer.restore(state["pacer"])
        if isinstance(self.purse, LocalPurse):
            self.purse.restore(state["purse"])
        self.pacer = pacer

    def overran(self, name: str) -> None:
        """Say in the log, once in a period, that the budget is exceeded.

        Parameters
        ----------
        name
            Who is used all the same.
        """
        balance = self.purse.balance()
        if balance.period != self._warned_in:
            self._warned_in = balance.period
            _LOG.warning(
                "the spending budget of %g USD is used up: until the period ends in "
                "%.0f s, queries go to the cheapest candidate, %r now",
                balance.budget,
                balance.ends_in_seconds,
                name,
            )


class SpendingRound:
    """What a budget says to the decisions of one batch, one after the other.

    Parameters
    ----------
    control
        Of the router.
    names
        Of the candidates.
    cost
        What is predicted, in USD, shape ``(n_queries, n_candidates)``.
    limits
        Whom other limits exclude, for each query.
    is_fixed
        Whether the caller has set the willingness to pay, so that it is not
        lowered.

    Raises
    ------
    BudgetExceededError
        If what is left does not pay for the batch, each query answered by the
        cheapest candidate, and ``when_spent`` is ``"stop"``.
    """

    def __init__(
        self,
        control: SpendingControl,
        names: Sequence[str],
        cost: FloatArray,
        limits: Sequence[Mapping[str, str]],
        *,
        is_fixed: bool,
    ) -> None:
        self._control, self._names = control, names
        self._cost, self._limits = np.where(np.isfinite(cost), cost, np.inf), limits
        self._fixed = is_fixed
        self._row: FloatArray | None = None
        self._later = np.zeros(len(limits))
        self._is_begun = False
        if control.when_spent == "stop" and len(limits) > 1:
            self._keep_for_later()

    def excluded(self, row: int) -> Mapping[str, str]:
        """Return who may not compete for a query, the other limits included.

        Parameters
        ----------
        row
            Which query.

        Raises
        ------
        BudgetExceededError
            If what is left pays for nobody, and ``when_spent`` is ``"stop"``.
        """
        room = max(self._control.purse.left - float(self._later[row]), 0.0)
        cost, limits = self._cost[row], self._limits[row]
        if (cost <= room).all():
            return limits
        excluded = {**limits, **self._reasons(row, room)}
        if len(excluded) < len(self._names):
            return excluded
        if self._control.when_spent == "stop" and not self._is_begun:
            raise self._exceeded(excluded, room)
        able = [n not in limits for n in self._names]
        cheapest = self._names[int(np.where(able, cost, np.inf).argmin())]
        if cheapest in limits:  # nobody's cost is known
            cheapest = next(n for n in self._names if n not in limits)
        del excluded[cheapest]
        return excluded

    def paced(
        self, policy: MetaDecisionMaker, board: Scoreboard, row: int
    ) -> MetaDecisionMaker:
        """Return the policy, with the willingness to pay that makes the budget last.

        Parameters
        ----------
        policy
            Of the router.
        board
            Expectations of the query.
        row
            Which query.
        """
        if self._fixed:
            return policy
        able = np.isfinite(board.cost) & np.isfinite(board.quality)
        if self._limits[row]:
            able &= np.array([n not in self._limits[row] for n in self._names])
        self._row = None
        if able.any():
            benefit = board.quality - policy.waiting_weight * board.waiting_penalty
            if board.head_start is not None:
                benefit += board.head_start
            self._row = spending_on(benefit[able], board.cost[able])
        purse = self._control.purse
        value = self._control.pacer.price(
            purse.balance(),
            purse.period_seconds,
            most=policy.willingness_to_pay,
            row=self._row,
        )
        if value == policy.willingness_to_pay:
            return policy
        return replace(policy, willingness_to_pay=value)

    def reserve(
        self, call_id: str, board: Scoreboard, choice: Choice, row: int
    ) -> bool:
        """Set aside what a decision is expected to cost.

        Parameters
        ----------
        call_id
            Id of the decision.
        board, choice
            Of the decision.
        row
            Which query.

        Returns
        -------
        bool
            False if somebody else has taken the money meanwhile: decide again.
        """
        cost = float(self._cost[row, choice.index])
        amount = cost if cost < np.inf else 0.0
        purse = self._control.purse
        if not purse.reserve(call_id, amount):
            if not self._is_last_resort(row, board.eligible):
                return False
            purse.reserve(call_id, amount, force=True)
            self._control.overran(self._names[choice.index])
        self._is_begun = True
        if self._fixed:
            self._control.pacer.decided(amount)
        elif self._row is not None:
            usual = float(self._cost[row, choice.greedy])
            extra = amount - usual if usual < np.inf else 0.0
            self._control.pacer.decided(self._row + max(extra, 0.0))
        return True

    def _is_last_resort(self, row: int, eligible: NDArray[np.bool_]) -> bool:
        """Tell whether only one is left that the budget has not paid for."""
        if self._control.when_spent == "stop" and not self._is_begun:
            return False
        room = max(self._control.purse.left - float(self._later[row]), 0.0)
        return int(eligible.sum()) == 1 and not self._cost[row][eligible][0] <= room

    def _keep_for_later(self) -> None:
        """Note what the queries after each one will need at least."""
        able = np.array(
            [[n not in given for n in self._names] for given in self._limits]
        )
        least = np.where(able, self._cost, np.inf).min(axis=1)
        left, so_far = self._control.purse.left, list(accumulate(least.tolist()))
        for row, needed in enumerate(so_far):
            if needed > left:
                room = left - (so_far[row - 1] if row else 0.0)
                raise self._exceeded(
                    {**self._limits[row], **self._reasons(row, room)}, room
                )
        self._later = np.append(np.cumsum(least[::-1])[::-1][1:], 0.0)

    def _reasons(self, row: int, room: float) -> dict[str, str]:
        pairs = zip(self._names, self._cost[row].tolist(), strict=True)
        return {
            name: f"over the spending budget: would cost about {cost:.6f} USD, "
            f"{room:.6f} USD is left"
            for name, cost in pairs
            if not cost <= room and name not in self._limits[row]
        }

    def _exceeded(self, excluded: Mapping[str, str], room: float) -> Exception:
        balance = self._control.purse.balance()
        return BudgetExceededError(
            excluded,
            budget=balance.budget,
            left=room,
            ends_in_seconds=balance.ends_in_seconds,
        )
