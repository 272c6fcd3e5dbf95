"""Beside `policy`: what exploring may cost, and how newcomers get a fair try.

Neither takes a lock: the router holds one.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.types import FloatArray

__all__ = ["ExplorationBudget", "Trials"]

_LEVEL_SD = 0.15  # of a newcomer's quality around what its prior says
_REWARD_VARIANCE = 0.2  # of one reward around the quality
_WIDTH = 2.0  # the bonus, in standard deviations of what is not known yet
_MOST_AT_FIRST = 60  # decisions without any reward
_MOST_SINCE = 120  # decisions since the last reward: few users may speak
_ENOUGH_REWARDS = 200
_MOST_ASSIGNED = 1_000


class ExplorationBudget:
    """How much of the spending may be the extra cost of exploring.

    Time is cut into periods, the first of which begins now. At every moment of
    each the extra cost so far is at most the share of what was spent so far;
    what is left at its end is forfeited, so a quiet night saves nothing up for
    the morning.

    Parameters
    ----------
    share
        Of the predicted spending of a period, in [0, infinity]; 0: only what
        costs nothing extra is explored, ``None`` or infinity: no bound.
    period_seconds
        Length of a period; infinity: there is one.
    clock
        Seconds from any start; a jump backwards stops time, nothing more.

    Raises
    ------
    ConfigurationError
        If a setting cannot be used.

    Notes
    -----
    Our choice. Fixed periods keep their promise exactly, each by itself and all
    together. Of a window that slides nobody can promise it: what was spent
    slips out of it before what was explored with that.

    Examples
    --------
    >>> budget = ExplorationBudget(share=0.02)
    >>> budget.book(cost=1.0, extra=0.0)
    >>> budget.allowance()
    0.02
    """

    def __init__(
        self,
        *,
        share: float | None = 0.02,
        period_seconds: float = 86_400.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share = number_between(
            math.inf if share is None else share, "exploration_budget"
        )
        self._period = number_between(
            period_seconds, "exploration_period_seconds", low_is_allowed=False
        )
        self._clock = clock
        self._began = clock()
        self._spent = self._extra = 0.0

    @property
    def spent(self) -> float:
        """Predicted spending of this period in USD, exploring included."""
        self._turn_over()
        return self._spent

    @property
    def extra(self) -> float:
        """What of it exploring has added, in USD."""
        self._turn_over()
        return self._extra

    def allowance(self) -> float:
        """Return by how much the next decision may be dearer to explore, in USD.

        Returns
        -------
        float
            0 or more; infinity without a bound.
        """
        if math.isinf(self._share):
            return math.inf
        self._turn_over()
        return max(self._share * self._spent - self._extra, 0.0)

    def book(self, cost: float, extra: float) -> None:
        """Count a decision.

        Parameters
        ----------
        cost
            Its predicted cost in USD.
        extra
            What of it exploring has added; 0 or less is free and earns nothing.
        """
        self._turn_over()
        if 0.0 < cost < math.inf:
            self._spent += cost
        if 0.0 < extra < math.inf:
            self._extra += extra

    def state(self) -> dict[str, float]:
        """Return what this period has seen, for `from_state`.

        Returns
        -------
        dict of str to float
            JSON can hold it. It has the age instead of the time, as clocks
            differ between processes.
        """
        now = self._turn_over()
        return {
            "spent": self._spent,
            "extra": self._extra,
            "age_seconds": max(now - self._began, 0.0) if self._spent else 0.0,
        }

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Any],
        *,
        share: float | None = 0.02,
        period_seconds: float = 86_400.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> "ExplorationBudget":
        """Return a budget that goes on in the period that `state` was taken in.

        Parameters
        ----------
        state
            What `state` returned; if it is damaged, a new period begins.
        share, period_seconds, clock
            As for the class; they may differ from those of the saved one.

        Returns
        -------
        ExplorationBudget
            The budget; the time in between does not count.
        """
        budget = cls(share=share, period_seconds=period_seconds, clock=clock)
        try:
            spent, extra, age = (
                number_between(state[name], name, high_is_allowed=False)
                for name in ("spent", "extra", "age_seconds")
            )
        except (KeyError, TypeError, ValueError):
            return budget
        budget._spent, budget._extra = spent, extra
        budget._began -= age
        return budget

    def _turn_over(self) -> float:
        """Begin a new period where the old one is over; return the time."""
        now = self._clock()
        passed = now - self._began
        if passed >= self._period:
            self._began += self._period * (passed // self._period)
            self._spent = self._extra = 0.0
        return now


@dataclass(slots=True)
class _Tally:
    """One newcomer: its decisions, its rewards, its decisions since the last one."""

    assigned: int = 0
    taught: int = 0
    waiting: int = 0
    active: bool = True


class Trials:
    """Newcomers that get a bonus until enough is known of them.

    Attributes
    ----------
    bad
        After `from_state`: which newcomers were left out, and why.

    Notes
    -----
    Our choice. A newcomer's quality lies around what its prior says with a
    standard deviation of 0.15, and one reward around that with a variance of 0.2.
    So after n rewards ``sd = 1 / sqrt(1 / 0.15² + n / 0.2)``, and the bonus is
    twice that. A trial ends after 200 rewards or 1,000 decisions.

    It does not flood: each decision since the last reward counts as half of one,
    and after 60 without any reward, or 120 since the last one, there is no bonus
    until the next. Nor does it starve where one user in ten answers.

    Examples
    --------
    >>> trials = Trials()
    >>> trials.begin("new")
    >>> trials.optimism(["old", "new"]).tolist()
    [0.0, 0.3]
    """

    def __init__(self) -> None:
        self._tallies: dict[str, _Tally] = {}
        self._bonus: dict[str, float] = {}  # of the active ones
        self.bad: dict[str, str] = {}

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the newcomers on trial."""
        return tuple(self._bonus)

    def __contains__(self, name: object) -> bool:
        return name in self._tallies

    def begin(self, name: str) -> None:
        """Try a newcomer from now on, or go on where its trial was ended.

        Parameters
        ----------
        name
            Whom; a trial that has run its course does not begin again.
        """
        tally = self._tallies.setdefault(name, _Tally())
        if name not in self._bonus:
            tally.waiting = 0  # what has not been heard by now will not be
        tally.active = True
        self._update(name, tally)

    def assigned(self, name: str) -> bool:
        """Note that a decision chose somebody.

        Parameters
        ----------
        name
            Whom; nothing happens if it is not on trial.

        Returns
        -------
        bool
            Whether its trial ended with this.
        """
        if name not in self._bonus:
            return False
        tally = self._tallies[name]
        tally.assigned += 1
        tally.waiting += 1
        return self._update(name, tally)

    def taught(self, name: str) -> bool:
        """Note that something was learned of somebody's answer.

        Parameters
        ----------
        name
            Of whom; nothing happens if it is not on trial.

        Returns
        -------
        bool
            Whether its trial ended with this.
        """
        if name not in self._bonus:
            return False
        tally = self._tallies[name]
        tally.taught += 1
        tally.waiting = 0
        return self._update(name, tally)

    def end(self, name: str) -> None:
        """End a trial, but keep what it has seen.

        Parameters
        ----------
        name
            Whose; nothing happens if it is not on trial.
        """
        if self._bonus.pop(name, None) is not None:
            self._tallies[name].active = False

    def rename(self, old: str, new: str) -> None:
        """Go on under another name.

        Parameters
        ----------
        old, new
            Its names; if the old one was on trial, the new one's is forgotten.
        """
        if old in self._tallies and old != new:
            self.discard(new)
            self._tallies[new] = self._tallies.pop(old)
            if old in self._bonus:
                self._bonus[new] = self._bonus.pop(old)

    def discard(self, name: str) -> None:
        """Forget a newcomer; it may be tried anew.

        Parameters
        ----------
        name
            Whom; nothing happens if it was never on trial.
        """
        self._tallies.pop(name, None)
        self._bonus.pop(name, None)

    def optimism(self, names: Sequence[str]) -> FloatArray | None:
        """Return what speaks for trying each candidate, in units of quality.

        Parameters
        ----------
        names
            The candidates.

        Returns
        -------
        FloatArray or None
            Shape ``(len(names),)``, 0 where there is no trial; ``None`` if
            nobody has a bonus.
        """
        if not self._bonus:
            return None
        bonus = np.array([self._bonus.get(name, 0.0) for name in names])
        return bonus if bonus.any() else None

    def state(self) -> dict[str, dict[str, Any]]:
        """Return what was seen of each newcomer, for `from_state`.

        Returns
        -------
        dict of str to dict
            By name; JSON can hold it.
        """
        return {name: asdict(tally) for name, tally in self._tallies.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Trials":
        """Return the trials that `state` gave, without those that are damaged.

        Parameters
        ----------
        state
            What `state` returned.

        Returns
        -------
        Trials
            The trials; `bad` says which were left out, and why.
        """
        trials = cls()
        for name, row in state.items():
            try:
                tally = _Tally(
                    _count(row, "assigned"),
                    _count(row, "taught"),
                    _count(row, "waiting"),
                    bool(row["active"]),
                )
            except (KeyError, TypeError, ValueError) as error:
                trials.bad[name] = f"{type(error).__name__}: {error}"
                continue
            trials._tallies[name] = tally
            if tally.active:
                trials._update(name, tally)
        return trials

    def _update(self, name: str, tally: _Tally) -> bool:
        """Work out an active newcomer's bonus; tell if its trial is over instead."""
        if tally.taught >= _ENOUGH_REWARDS or tally.assigned >= _MOST_ASSIGNED:
            tally.active = False
            self._bonus.pop(name, None)
            return True
        bonus = 0.0
        if tally.waiting < (_MOST_SINCE if tally.taught else _MOST_AT_FIRST):
            known = tally.taught + 0.5 * tally.waiting
            bonus = _WIDTH / math.sqrt(_LEVEL_SD**-2 + known / _REWARD_VARIANCE)
        self._bonus[name] = bonus
        return False


def _count(row: Mapping[str, Any], key: str) -> int:
    return int(number_between(row[key], key, high_is_allowed=False))
