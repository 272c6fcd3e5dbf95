"""Beside `spending`: what a point of quality may cost now, to last the period.

`Pacer` re-solves the dual price of the budget at every decision, on what it has
seen of the queries and on how many are still to come; `DemandForecast` counts
those.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mixllm_integrations.core.errors import StateFormatError
from mixllm_integrations.core.purse import Balance
from mixllm_integrations.core.types import FloatArray

__all__ = ["DemandForecast", "Pacer", "spending_on"]

_GRID = np.logspace(-9.0, 3.0, 145)  # USD per point of quality
_LOG_GRID = np.log(_GRID)
_MEMORY = 300.0  # queries that the curve is a mean of
_BILLS = 300.0  # bills that the bias is a mean of
_TRUST = 20.0  # bills' worth of trust in the predictions, at first
_BIAS = (0.1, 10.0)  # the most that bills are taken to differ from predictions
_SLOTS = 24
_ENOUGH_SLOTS = 4  # to tell whether calls come in bursts
_CAUTION = 0.5  # standard deviations
_MOST_SCATTER = 4.0  # more haste would cost quality, and save next to nothing
_END = 1.0 - 1e-9  # of a period
_EARLY = 0.005  # of a period; one call in it is expected before any is seen
_SURPRISE = 0.05  # of a period's usual calls; these many weigh as much as the forecast
_LATEST = 0.5  # weight of the last period in what is usual


class DemandForecast:
    """How many calls are still to come in this period.

    A period is cut into 24 slots. Without an earlier one the calls so far are
    taken to go on evenly; with some, by their usual course, scaled by how today
    compares with it so far. Of that half a standard deviation is taken off, more
    where calls come in bursts: what is kept for calls that never come is lost.

    Notes
    -----
    Our choice. A forecast that is wrong shifts spending within the period and
    nothing else: it is corrected as the period goes on, and the budget holds
    without it.

    Examples
    --------
    >>> demand = DemandForecast()
    >>> demand.saw(1, calls=500, elapsed=0.5)
    >>> 450 < demand.to_come(elapsed=0.5) < 550
    True
    """

    def __init__(self) -> None:
        self._usual: FloatArray | None = None
        self._slots: FloatArray = np.zeros(_SLOTS)
        self._period: int | None = None
        self._calls = 0

    def saw(self, period: int, *, calls: int, elapsed: float) -> None:
        """Take note of how many calls there were so far.

        Parameters
        ----------
        period
            Its number.
        calls
            In this period.
        elapsed
            Share of the period that is over, in [0, 1).
        """
        if self._period is None and calls >= self._calls:  # as it was saved
            self._period = period
        if self._period != period:
            self._turn_over(period)
        self._slots[int(elapsed * _SLOTS)] += max(calls - self._calls, 0)
        self._calls = calls

    def to_come(self, *, elapsed: float) -> float:
        """Return how many calls are expected until the period ends.

        Parameters
        ----------
        elapsed
            Share of the period that is over.
        """
        if self._usual is None:
            expected = (self._calls + 1) / (elapsed + _EARLY) * (1.0 - elapsed)
            return _lower(expected, self._scatter(int(elapsed * _SLOTS)))
        total, at = float(self._usual.sum()), elapsed * _SLOTS
        slot = int(at)
        so_far = float(self._usual[:slot].sum()) + self._usual[slot] * (at - slot)
        weight = _SURPRISE * total
        today = (self._calls + weight) / (so_far + weight)
        return _lower(float((total - so_far) * today), 1.0)

    def _scatter(self, n_slots: int) -> float:
        """Return variance over mean of the calls in slots that are over; 1: random."""
        counts = self._slots[:n_slots]
        if n_slots < _ENOUGH_SLOTS or not counts.any():
            return 1.0
        return min(max(float(counts.var() / counts.mean()), 1.0), _MOST_SCATTER)

    def state(self) -> dict[str, Any]:
        """Return what was seen, as JSON can hold it."""
        return {
            "usual": None if self._usual is None else self._usual.tolist(),
            "slots": self._slots.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Parameters
        ----------
        state
            What `state` returned.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is damaged.
        """
        usual = None if state["usual"] is None else _numbers(state["usual"], _SLOTS)
        slots = _numbers(state["slots"], _SLOTS)
        if slots.min() < 0.0 or (usual is not None and usual.min() < 0.0):
            raise StateFormatError("fewer calls than none")
        if usual is not None and not usual.sum():
            raise StateFormatError("no usual calls")
        self._usual, self._slots = usual, slots
        self._period, self._calls = None, int(slots.sum())

    def _turn_over(self, period: int) -> None:
        if self._slots.any():
            usual = self._slots if self._usual is None else self._usual
            self._usual = usual + _LATEST * (self._slots - usual)
        self._slots, self._calls, self._period = np.zeros(_SLOTS), 0, period


def _lower(expected: float, scatter: float) -> float:
    """Return what to reckon with if so many calls are expected."""
    return max(expected - _CAUTION * math.sqrt(scatter * expected), 0.0)


class Pacer:
    """The willingness to pay at which the rest of the budget lasts the period.

    Of each query it notes what would be spent on it at 145 values of the
    willingness to pay, and keeps the mean of the last 300 or so: spending as a
    function of it. It returns the value at which that mean is what is left of
    the budget per call still to come, but never more than the user's own. The
    mean is corrected by how bills compare with what was predicted.

    Notes
    -----
    1 / λ = 1 / λ of the user + μ, where μ is the dual price of the constraint
    that the spending of the period is at most the budget. Re-solving for μ at
    every decision, on the sample so far and on what is left, is the
    action-history-dependent algorithm of Li and Ye (Online linear programming:
    dual convergence, new algorithms, and regret bounds, Operations Research 70,
    2022), after the dynamic one of Agrawal, Wang and Ye (2014); its regret
    against the best fixed price in hindsight is logarithmic in the number of
    queries where those are independent, while that of a dual price moved by
    gradient steps is of the order of the root (Balseiro, Lu and Mirrokni, The
    best of many worlds, Operations Research 71, 2023). Forgetting, the forecast
    and the correction are our choice.
    """

    def __init__(self) -> None:
        self._spending: FloatArray = np.zeros(len(_GRID))  # per call, by λ
        self._seen = 0.0
        self._billed = self._predicted = 0.0
        self._demand = DemandForecast()

    @property
    def bias(self) -> float:
        """What is billed, in units of what was predicted, by the last bills."""
        if not self._predicted:
            return 1.0
        return min(max(self._billed / self._predicted, _BIAS[0]), _BIAS[1])

    def price(
        self,
        balance: Balance,
        period_seconds: float,
        *,
        most: float,
        row: FloatArray | None = None,
    ) -> float:
        """Return the willingness to pay that is in force.

        Parameters
        ----------
        balance
            Of the purse.
        period_seconds
            Length of its period; infinity: nothing is paced.
        most
            The user's own willingness to pay, in USD per point of quality.
        row
            `spending_on` the query at hand, which is seen with those that were;
            ``None``: there is none.

        Returns
        -------
        float
            At most `most`; above 0.
        """
        if math.isinf(period_seconds):
            return most
        elapsed = 1.0 - balance.ends_in_seconds / period_seconds
        elapsed = min(max(elapsed, 0.0), _END)
        self._demand.saw(balance.period, calls=balance.calls, elapsed=elapsed)
        spending = self._spending
        if row is not None:
            spending = spending + (row - spending) / min(self._seen + 1.0, _MEMORY)
        elif not self._seen:
            return most
        share = balance.left / (1.0 + self._demand.to_come(elapsed=elapsed))
        return _where(spending, share / self.bias, most)

    def decided(self, row: FloatArray | float) -> None:
        """Take note of what a query costs, by the willingness to pay.

        Parameters
        ----------
        row
            `spending_on` it; one number if the pace cannot change it.
        """
        self._seen = min(self._seen + 1.0, _MEMORY)
        self._spending += (row - self._spending) / self._seen

    def settled(self, predicted: float, billed: float) -> None:
        """Learn how a bill compares with what was predicted.

        Parameters
        ----------
        predicted, billed
            In USD.
        """
        if not self._predicted:
            self._billed = self._predicted = _TRUST * predicted
        keep = 1.0 - 1.0 / _BILLS
        self._billed = keep * self._billed + billed
        self._predicted = keep * self._predicted + predicted

    def state(self) -> dict[str, Any]:
        """Return what was learned, as JSON can hold it."""
        return {
            "spending": self._spending.tolist(),
            "seen": self._seen,
            "billed": self._billed,
            "predicted": self._predicted,
            "demand": self._demand.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Parameters
        ----------
        state
            What `state` returned.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is damaged; then it is to be thrown away.
        """
        spending = _numbers(state["spending"], len(_GRID))
        names = ("seen", "billed", "predicted")
        seen, billed, predicted = _numbers([state[name] for name in names], 3).tolist()
        if min(seen, billed, predicted, float(spending.min())) < 0.0:
            raise StateFormatError("a pace that is none")
        self._demand.restore(state["demand"])
        self._spending, self._seen = spending, min(seen, _MEMORY)
        self._billed, self._predicted = billed, predicted


def spending_on(benefit: FloatArray, cost: FloatArray) -> FloatArray:
    """Return what the best choice costs, by the willingness to pay.

    Parameters
    ----------
    benefit
        What speaks for each candidate apart from its cost, in units of quality,
        shape ``(n,)``.
    cost
        In USD, shape ``(n,)``.

    Returns
    -------
    FloatArray
        In USD, one for each value of the pacer's grid.
    """
    best = (benefit - cost / _GRID[:, None]).argmax(axis=1)
    return np.asarray(cost[best], dtype=np.float64)


def _where(spending: FloatArray, share: float, most: float) -> float:
    """Return the willingness to pay at which a share is spent, at most `most`."""
    spending = np.maximum.accumulate(spending)  # but for rounding it is
    above = int(spending.searchsorted(share, side="right"))
    if above == len(_GRID):
        return most
    if not above:
        return min(float(_GRID[0]), most)
    low, high = spending[above - 1], spending[above]
    part = (share - low) / (high - low)
    step = _LOG_GRID[above] - _LOG_GRID[above - 1]
    return min(float(np.exp(_LOG_GRID[above - 1] + part * step)), most)


def _numbers(values: object, n: int) -> FloatArray:
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (n,) or not np.isfinite(found).all():
        raise StateFormatError(f"{n} numbers are expected")
    return found
