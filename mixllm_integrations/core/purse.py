"""Beside `spending`: the money of a period, and what of it calls have reserved.

`Purse` is the seam for several workers that share one budget; `LocalPurse` is
the purse of one process. Several routers of one process may share one.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.forking import forkable_lock

__all__ = ["Balance", "LocalPurse", "Purse"]

_MOST_RESERVED = 20_000  # of calls under way; the oldest counts as spent for one more
_CENT = 1e-12  # of the budget: what rounding may take from what is left


class Balance(NamedTuple):
    """How a purse stands, as far as its process knows.

    Parameters
    ----------
    budget
        USD per period.
    spent
        USD that were billed in this period, by all who share the purse.
    reserved
        USD that calls under way are expected to cost, of all who share it.
    calls
        How many reservations there were in this period, of all who share it.
    ends_in_seconds
        When the period ends; infinity: never.
    period
        A number that no other period of this process has.
    """

    budget: float
    spent: float
    reserved: float
    calls: int
    ends_in_seconds: float
    period: int

    @property
    def left(self) -> float:
        """USD that are neither spent nor reserved; 0 if more than all is."""
        return max(self.budget - self.spent - self.reserved, 0.0)


@runtime_checkable
class Purse(Protocol):
    """Holds the budget of a period, and lends it to calls.

    A call reserves what it is expected to cost when it is decided, and settles
    what it has cost when its outcome is there. What is neither is `left`.

    A router calls every method while it holds its lock, in the middle of a
    decision: **none may wait** for a network or a disk, and all may be called
    from several threads (routers may share a purse). An implementation over a
    shared counter therefore leases slices of the budget ahead of need, in the
    background: `left` is then what this process has leased and not yet
    reserved, while `balance` tells of everybody.

    What holds of every implementation:

    1. ``reserve(id, amount)`` succeeds if and only if ``amount <= left``, and then
       ``left`` is lower by ``amount``, at once and in one step. So all that is
       reserved without `force`, by all processes together, never exceeds the
       budget of the period.
    2. ``settle(id, amount)`` puts the real amount in the place of the reserved
       one. It may exceed it: then `left` may become 0 and `balance` may show more
       than the budget. Nobody settles an id twice: the router sees to that.
    3. An id that was never reserved can be settled: it counts as spent. One
       that was reserved with `force` is an ordinary one from then on.
    4. What is never settled stays reserved until its period ends.
    5. A call belongs to the period in which it was reserved. What is settled
       after its end changes nothing of the new period.
    6. A new period begins with nothing spent and nothing reserved. Time never
       goes back: what a clock does backwards is ignored.

    Attributes
    ----------
    budget
        USD per period; ``None``: there is no limit, and nobody asks the purse.
        May be set at any time; what was spent in the period stays spent.
    period_seconds
        Length of a period. Setting another one begins a new period.
    """

    budget: float | None
    period_seconds: float

    @property
    def left(self) -> float:
        """USD that a call may reserve now, at least 0."""
        ...

    def balance(self) -> Balance:
        """Return how the purse stands; the budget is infinite if there is none."""
        ...

    def reserve(self, call_id: str, amount: float, *, force: bool = False) -> bool:
        """Set an amount aside for a call.

        Parameters
        ----------
        call_id
            Of the call; every one has its own.
        amount
            USD, finite, at least 0.
        force
            Whether to do it even if less than that is left. It then counts as
            reserved all the same, over the budget.

        Returns
        -------
        bool
            Whether it was; never False with `force`.
        """
        ...

    def settle(self, call_id: str, amount: float | None) -> float | None:
        """Replace what was reserved for a call by what it has cost.

        Parameters
        ----------
        call_id
            Of the call.
        amount
            USD, finite, at least 0; 0 for a call that failed and was not billed;
            ``None``: nobody knows, so what was reserved is taken for it.

        Returns
        -------
        float or None
            What was reserved for it; ``None`` if nothing was, or it is too old.
        """
        ...

    def state(self) -> dict[str, Any]:
        """Return what is to be saved with the router, as JSON can hold it.

        Empty where the money is kept elsewhere.
        """
        ...


class LocalPurse:
    """The purse of one process: `Purse` on a clock.

    Parameters
    ----------
    budget
        USD per period; ``None``: no limit.
    period_seconds
        Length of a period; infinity: there is one. The first begins now.
    clock
        Seconds from any start; a jump backwards stops time, nothing more.

    Raises
    ------
    ConfigurationError
        If a setting, at construction or later, cannot be used.

    Notes
    -----
    Our choice: fixed periods, since of a window that slides nobody can say when
    there is money again. At most 20 000 calls are remembered as under way; the
    oldest then counts as spent, and its own outcome counts on top: rather too
    much than too little.

    Examples
    --------
    >>> purse = LocalPurse(1.0)
    >>> purse.reserve("a", 0.75), purse.reserve("b", 0.5)
    (True, False)
    >>> purse.settle("a", 0.25)
    0.75
    >>> purse.left
    0.75
    """

    def __init__(
        self,
        budget: float | None = None,
        *,
        period_seconds: float = 86_400.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lock = forkable_lock()
        self._clock = clock
        self._budget: float | None = None
        self._number = 0  # of the period
        self.period_seconds = period_seconds
        self.budget = budget

    @property
    def budget(self) -> float | None:
        """USD per period; ``None``: no limit. The first one begins a period."""
        return self._budget

    @budget.setter
    def budget(self, value: float | None) -> None:
        if value is not None:
            value = number_between(value, "spending_budget", high_is_allowed=False)
        with self._lock:
            if self._budget is None and value is not None:
                self._start()
            self._budget = value

    @property
    def period_seconds(self) -> float:
        """Length of a period; setting it begins a new one."""
        return self._period

    @period_seconds.setter
    def period_seconds(self, value: float) -> None:
        period = number_between(value, "spending_period_seconds", low_is_allowed=False)
        with self._lock:
            self._period = period
            self._start()

    @property
    def left(self) -> float:
        """USD that a call may reserve now, at least 0."""
        if self._budget is None:
            return math.inf
        with self._lock:
            self._turn_over()
            left = self._budget - self._spent - self._reserved
            return left if left > _CENT * self._budget else 0.0

    def balance(self) -> Balance:
        """Return how the purse stands; the budget is infinite if there is none."""
        with self._lock:
            self._turn_over()
            return Balance(
                math.inf if self._budget is None else self._budget,
                self._spent,
                self._reserved,
                self._calls,
                self._period - self._age,
                self._number,
            )

    def reserve(self, call_id: str, amount: float, *, force: bool = False) -> bool:
        """Set an amount aside for a call, as `Purse.reserve`.

        Parameters
        ----------
        call_id
            Of the call.
        amount
            USD.
        force
            Whether to do it even if less than that is left.
        """
        with self._lock:
            if not force and amount > self.left:  # it turns the period over
                return False
            self._turn_over()
            self._under_way[call_id] = amount
            self._reserved += amount
            self._calls += 1
            if len(self._under_way) > _MOST_RESERVED:
                self._spend(self._under_way.popitem(last=False)[1])
            return True

    def settle(self, call_id: str, amount: float | None) -> float | None:
        """Replace what was reserved by what it has cost, as `Purse.settle`.

        Parameters
        ----------
        call_id
            Of the call.
        amount
            USD; ``None``: nobody knows.
        """
        with self._lock:
            self._turn_over()
            if call_id in self._outlived:
                return self._outlived.pop(call_id)
            reserved = self._under_way.pop(call_id, None)
            if reserved is None:
                self._spent += amount or 0.0
            else:
                self._spend(reserved, amount)
            return reserved

    def state(self) -> dict[str, Any]:
        """Return what this period has seen, for `restore`.

        It has the age instead of the time, as clocks differ between processes.
        """
        with self._lock:
            self._turn_over()
            return {
                "spent": self._spent,
                "calls": self._calls,
                "age_seconds": self._age if self._calls or self._spent else 0.0,
                "under_way": dict(self._under_way),
            }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on in the period that a state was taken in.

        The time in between does not count.

        Parameters
        ----------
        state
            What `state` returned; an empty one changes nothing.

        Raises
        ------
        KeyError, TypeError, ValueError, AttributeError
            If it is damaged; then nothing is changed.
        """
        if not state:
            return
        spent, calls, age = (
            number_between(state[name], name, high_is_allowed=False)
            for name in ("spent", "calls", "age_seconds")
        )
        under_way = {
            str(call_id): number_between(amount, "an amount", high_is_allowed=False)
            for call_id, amount in state["under_way"].items()
        }
        with self._lock:
            self._empty()
            self._spent, self._calls, self._age = spent, int(calls), age
            self._under_way.update(under_way)
            self._reserved = math.fsum(under_way.values())

    def _spend(self, reserved: float, amount: float | None = None) -> None:
        """Count what was reserved as spent, or the real amount instead."""
        self._spent += reserved if amount is None else amount
        # A sum of what is left would keep the rounding of all that is gone.
        self._reserved = self._reserved - reserved if self._under_way else 0.0

    def _start(self) -> None:
        """Begin a period now."""
        self._last_reading, self._age = self._clock(), 0.0
        self._empty()

    def _empty(self) -> None:
        self._number += 1
        self._spent = self._reserved = 0.0
        self._calls = 0
        self._under_way: OrderedDict[str, float] = OrderedDict()
        self._outlived: OrderedDict[str, float] = OrderedDict()

    def _turn_over(self) -> None:
        """Let time pass, and begin a new period where the old one is over."""
        reading = self._clock()
        self._age += max(reading - self._last_reading, 0.0)
        self._last_reading = reading
        if self._age >= self._period:
            self._age %= self._period
            before = self._under_way
            self._empty()
            self._outlived = before
