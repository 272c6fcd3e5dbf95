"""The purse of one worker among several that share a budget.

Money is leased ahead of need, on the thread of `live`, so no decision waits for a
network.
"""

import math
import threading
import time
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.purse import Balance
from mixllm_integrations.store.live import Lease, LeaseRequest

__all__ = ["SharedPurse"]

# All our choice. A lease is used for so long after the request for it, which is less
# than the 10 s after which others may get what is left of it.
_VALID_SECONDS = 8.0
_PACE_SECONDS = 10.0  # how far back it is looked who needs money
_MOST_RESERVED = 20_000  # of calls under way; the oldest counts as spent for one more
_CENT = 1e-12  # of the budget: what rounding may take from what is left


class SharedPurse:
    """A `Purse` whose budget is that of all workers together.

    Parameters
    ----------
    budget
        USD per period, for all; ``None``: no limit. Every worker should be given
        the same.
    period_seconds
        Length of a period; infinity: there is one. Periods are those of the clock
        of the place where workers meet: days begin at midnight UTC.
    clock
        Seconds that never go backwards.

    Attributes
    ----------
    lessor
        Who leases money for it.
    ring
        Called, once after each lease, when half of it is used; it must not wait.

    Notes
    -----
    Source: our choice. Each worker leases its part of what nobody has spent or
    reserved: a quarter of it goes to all alike, the rest by what they reserved in
    the last seconds, and a twentieth to nobody, so that a new worker finds some.
    What is reserved without `force` is at most what was leased, and what all have
    leased, and spent, is at most the budget. A worker tells four times a second
    what it has spent; of one that dies, the rest of its lease goes back to the
    others after 10 s. So reservations exceed the budget by no more than what
    workers that died or were cut off have reserved and not told: calls of their
    last moment, or of 8 s at most if they were cut off and went on, and never more
    than they had leased.

    A worker that cannot reach the others goes on with what it has leased for 8 s.
    Then nothing is left, and the router does what its `when_spent` says. Between
    the end of a period and the first lease of the next one, which is 0.3 s at most,
    calls belong to the old one.
    """

    _under_way: OrderedDict[str, float]
    _outlived: OrderedDict[str, float]
    _others: Lease
    _limit: float
    _spent: float
    _reserved: float
    _calls: int
    _ring_at: float
    lessor: "weakref.ref[object] | None" = None
    ring: Callable[[], None] | None = None

    def __init__(
        self,
        budget: float | None = None,
        *,
        period_seconds: float = 86_400.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lock = threading.RLock()
        self._clock = clock
        self._number = 0
        self._budget: float | None = None
        self.period_seconds = period_seconds  # which begins anew
        self.budget = budget

    @property
    def budget(self) -> float | None:
        """USD per period, for all workers; ``None``: no limit."""
        return self._budget

    @budget.setter
    def budget(self, value: float | None) -> None:
        if value is not None:
            value = number_between(value, "spending_budget", high_is_allowed=False)
        self._budget = value

    @property
    def period_seconds(self) -> float:
        """Length of a period; workers with another one have another purse."""
        return self._length

    @period_seconds.setter
    def period_seconds(self, value: float) -> None:
        length = number_between(value, "spending_period_seconds", low_is_allowed=False)
        with self._lock:
            self._length = length
            self.begin_anew()

    def after_fork(self) -> None:
        """Be the purse of another process, whose lock nobody holds."""
        self._lock = threading.RLock()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Have spent nothing and leased nothing, as a new worker."""
        self._worker = uuid.uuid4().hex
        self._messages = 0
        self._under_way = OrderedDict()
        self._period = -1
        self._ends_at = self._clock() + self._length
        self._pace = 0.0
        self._paced_at = self._clock()
        self._valid_until = -math.inf
        self._begin_period()

    @property
    def left(self) -> float:
        """USD that a call may reserve now: leased, and not used; at least 0."""
        if self._budget is None:
            return math.inf
        with self._lock:
            if self._clock() >= self._valid_until:
                return 0.0
            left = min(self._limit, self._budget) - self._spent - self._reserved
            return left if left > _CENT * self._budget else 0.0

    def balance(self) -> Balance:
        """Return how all workers stand, the others as they were heard last."""
        with self._lock:
            others = self._others
            return Balance(
                math.inf if self._budget is None else self._budget,
                self._spent + others.spent,
                self._reserved + others.reserved,
                self._calls + others.calls,
                max(self._ends_at - self._clock(), 0.0),
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
            if not force and amount > self.left:
                return False
            self._under_way[call_id] = amount
            self._reserved += amount
            self._calls += 1
            self._pace = self._pace_now() + amount
            if self._spent + self._reserved > self._ring_at and self.ring is not None:
                self._ring_at = math.inf
                self.ring()
            if len(self._under_way) > _MOST_RESERVED:
                self._spend(self._under_way.popitem(last=False)[1], None)
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
            if call_id in self._outlived:
                return self._outlived.pop(call_id)
            reserved = self._under_way.pop(call_id, None)
            if reserved is None:
                self._spent += amount or 0.0
            else:
                self._spend(reserved, amount)
            return reserved

    def state(self) -> dict[str, Any]:
        """Return nothing: the money is kept elsewhere."""
        return {}

    def request(self) -> LeaseRequest | None:
        """Return how the money stands, for a new lease.

        Returns
        -------
        LeaseRequest or None
            ``None`` without a budget.
        """
        with self._lock:
            if self._budget is None:
                return None
            used = self._spent + self._reserved
            if self._clock() >= self._valid_until:  # it may be somebody else's by now
                self._limit = min(self._limit, used)
            others = self._others
            self._messages += 1
            return LeaseRequest(
                *(self._worker, self._messages, self._budget, self._length),
                self._period,
                *(self._spent, self._reserved, self._calls, self._limit),
                pace=self._pace_now(),
                known=used + others.spent + others.reserved,
            )

    def heard(self, lease: Lease, request: LeaseRequest, asked_at: float) -> None:
        """Take a lease.

        Parameters
        ----------
        lease
            What was answered.
        request
            To what.
        asked_at
            By the clock of this purse, when the request was made.
        """
        with self._lock:
            if request.worker != self._worker:  # a new period length, or a fork
                return
            if lease.period != self._period:
                self._period = lease.period
                self._begin_period()
            self._others = lease
            self._ends_at = self._clock() + lease.ends_in_seconds
            # What is too much is given back with the next request.
            used = self._spent + self._reserved
            self._limit = min(lease.limit, max(lease.wanted, used))
            self._ring_at = (used + self._limit) / 2.0
            self._valid_until = asked_at + _VALID_SECONDS

    def now(self) -> float:
        """Return the time by the clock of this purse."""
        return self._clock()

    @property
    def ends_in_seconds(self) -> float:
        """When the period ends, as far as is known; negative: it is over."""
        return self._ends_at - self._clock()

    def _pace_now(self) -> float:
        now = self._clock()
        self._pace *= math.exp(-max(now - self._paced_at, 0.0) / _PACE_SECONDS)
        self._paced_at = now
        return self._pace

    def _spend(self, reserved: float, amount: float | None) -> None:
        self._spent += reserved if amount is None else amount
        self._reserved = self._reserved - reserved if self._under_way else 0.0

    def _begin_period(self) -> None:
        self._number += 1
        self._outlived, self._under_way = self._under_way, OrderedDict()
        self._spent = self._reserved = self._limit = 0.0
        self._calls = 0
        self._ring_at = math.inf
        self._others = Lease(-1, math.inf, 0.0, 0.0, 0.0, 0.0, 0)
