"""Sums that tell a change from chance: the detectors of `drift`.

Each adds up what deviates beyond an allowance, in both directions, begins anew
whenever a sum falls to zero, and reports a change once a sum is too high for
chance (Page's CUSUM, 1954). The last zero is when the change began. Nothing
grows with the number of observations.
"""

import math
from dataclasses import dataclass, field, fields
from statistics import median
from typing import Any, TypeAlias, TypeVar

from mixllm_integrations.core.checks import number_between

__all__ = ["Found", "LevelDetector", "QualityDetector", "restored"]

Found: TypeAlias = tuple[float, int]  # mean deviation, and over how many

# All numbers are our choice, from simulations: `DriftWatch` tells of what.
_CALM = 0.2  # of the limit: above it nothing is learned as normal
# Quality, in points: the allowance, and more of it where rewards scatter.
_ALLOWED, _ALLOWED_PER_VARIANCE = 0.03, 0.35
_LEAST_VARIANCE, _HIGHEST_VARIANCE = 0.02, 0.25  # of anything in [0, 1]
_MOST_BIAS, _BIAS_PRIOR, _BIAS_MEMORY = 0.05, 300, 3000
_SPARED_KEEPS = 0.99
# Levels, in units of their scatter.
_WARM_UP = 30  # observations from which level and scatter are first learned
_STEPS_ALLOWED, _LONGEST_STEP, _LEVEL_MEMORY = 0.4, 2.5, 1000
_LEAST_SCATTER = 0.25  # so a change by less than a tenth is none
_CLIPPED_VARIANCE = 0.9776  # of a standard normal number, clipped at ±2.5
_SCATTER_OF_MAD = 1.4826
_ECHO_PRIOR, _MOST_ECHO = 100, 0.8
_FURTHEST = 50.0  # a factor of 5e21


@dataclass(slots=True)
class _Side:
    """What deviates in one direction, added up since the sum was last at zero."""

    score: float = 0.0
    count: int = 0
    total: float = 0.0  # of the deviations themselves

    def add(self, gain: float, deviation: float) -> None:
        """Add one observation; a sum at zero begins anew."""
        score = self.score + gain
        if score > 0.0:
            self.score = score
            self.count += 1
            self.total += deviation
        else:
            self.score, self.count, self.total = 0.0, 0, 0.0

    def is_sound(self) -> bool:
        """Tell whether observations can have led to this."""
        is_counted = self.count >= (self.score > 0.0)
        is_near = abs(self.total) <= 4.0 * _FURTHEST * self.count
        return self.score >= 0.0 and is_counted and is_near


@dataclass(slots=True)
class _Detector:
    """Two sides, and a baseline that does not learn while one of them is high.

    What comes meanwhile is held back, and learned once they are low again: an
    abrupt change hardly moves the baseline, and yet nothing is selected.
    """

    seen: int = 0
    known: int = 0  # observations behind the baseline
    held: int = 0
    falls: _Side = field(default_factory=_Side)
    rises: _Side = field(default_factory=_Side)

    def _settle(self, limit: float) -> Found | None:
        """Learn what was held back if all is calm; report what is beyond chance."""
        falls, rises = self.falls, self.rises
        side = falls if falls.score > rises.score else rises
        if side.score > limit:
            found = side.total / side.count, side.count
            self.falls, self.rises, self.known, self.held = _Side(), _Side(), 0, 0
            self._restart(found[0])
            return found
        if side.score <= _CALM * limit:
            self._learn()
        return None

    def _learn(self) -> None: ...

    def _restart(self, change: float) -> None: ...

    def is_sound(self) -> bool:
        """Tell whether observations can have led to this state.

        Returns
        -------
        bool
            Not if a saved state was damaged.
        """
        counts = self.seen, self.known, self.held
        return min(counts) >= 0 and self.falls.is_sound() and self.rises.is_sound()


@dataclass(slots=True)
class QualityDetector(_Detector):
    """Surprises against 0, or against the small bias that a head may have.

    After an alarm its change is spared for a while, ever less of it: a head
    that learns anew need not be right at once, and one that does not learn at
    all is told of again later.
    """

    held_surprise: float = 0.0
    bias: float = 0.0
    spared: float = 0.0

    def observe(self, surprise: float, variance: float, limit: float) -> Found | None:
        """Take one surprise.

        Parameters
        ----------
        surprise
            Reward minus expected quality; what is beyond ±1 counts as that.
        variance
            Of such a reward, non-negative.
        limit
            Of the sums, in points of quality.

        Returns
        -------
        tuple of float and int, or None
            A change: the mean deviation, and over how many.

        Notes
        -----
        Our choice. The allowance grows with the variance, as it must for the
        same rate of false alarms at every variance; the sums stay in points of
        quality, so no surprise weighs more where rewards hardly scatter.
        """
        surprise = min(max(surprise, -1.0), 1.0)
        self.seen += 1
        self.held += 1
        self.held_surprise += surprise
        deviation = surprise - self.bias
        variance = min(max(variance, _LEAST_VARIANCE), _HIGHEST_VARIANCE)
        allowed = _ALLOWED + _ALLOWED_PER_VARIANCE * variance
        spared = self.spared
        self.falls.add(min(spared, 0.0) - deviation - allowed, deviation)
        self.rises.add(deviation - max(spared, 0.0) - allowed, deviation)
        self.spared = _SPARED_KEEPS * spared
        return self._settle(limit)

    def _learn(self) -> None:
        self.known = min(self.known + self.held, _BIAS_MEMORY)
        more = self.held_surprise - self.held * self.bias
        bias = self.bias + more / (_BIAS_PRIOR + self.known)
        self.bias = min(max(bias, -_MOST_BIAS), _MOST_BIAS)
        self.held, self.held_surprise = 0, 0.0

    def _restart(self, change: float) -> None:
        self.held_surprise, self.bias, self.spared = 0.0, 0.0, change

    def is_sound(self) -> bool:
        """Tell whether observations can have led to this state.

        Returns
        -------
        bool
            Not if a saved state was damaged.
        """
        is_near = abs(self.bias) <= _MOST_BIAS and abs(self.spared) <= 1.0 + _MOST_BIAS
        is_held = abs(self.held_surprise) <= self.held
        # Not super(): it fails in a class that slots made anew.
        return is_near and is_held and _Detector.is_sound(self)


@dataclass(slots=True)
class LevelDetector(_Detector):
    """Logarithms against their own past, in units of their own scatter.

    One answer counts as an outlier at most, so no single one alarms. Where one
    resembles the one before it, as in a busy hour, each counts less. The
    allowance is wider while the level is known from few. After an alarm the
    level is learned anew.
    """

    first: list[float] = field(default_factory=list)
    level: float = 0.0
    scatter: float = 1.0
    held_steps: float = 0.0
    held_squares: float = 0.0
    held_products: float = 0.0
    echo: float = 0.0  # correlation of a step with the one before it
    last: float = 0.0

    def observe(self, value: float, limit: float) -> Found | None:
        """Take one logarithm.

        Parameters
        ----------
        value
            Any finite number; what is beyond ±50 counts as that.
        limit
            Of the sums, in units of the scatter.

        Returns
        -------
        tuple of float and int, or None
            A change: the mean deviation, and over how many.

        Notes
        -----
        Our choice: median and median deviation of the first ones, then running
        means of clipped deviations. Sums of steps of correlation r spread by
        (1 + r) / (1 - r) more than those of independent ones: they are divided
        by the root of it.
        """
        value = min(max(value, -_FURTHEST), _FURTHEST)
        self.seen += 1
        if not self.known:
            self.first.append(value)
            if len(self.first) == _WARM_UP:
                self._begin()
            return None
        deviation = value - self.level
        step = self._hold(deviation)
        step *= math.sqrt((1.0 - self.echo) / (1.0 + self.echo))
        allowed = _STEPS_ALLOWED + 1.0 / math.sqrt(self.known)
        self.falls.add(-step - allowed, deviation)
        self.rises.add(step - allowed, deviation)
        return self._settle(limit)

    def _begin(self) -> None:
        self.level = median(self.first)
        spread = median(abs(value - self.level) for value in self.first)
        self.scatter = max(_SCATTER_OF_MAD * spread, _LEAST_SCATTER)
        for value in self.first:
            self._hold(value - self.level)
        self._learn()
        self.first = []

    def _hold(self, deviation: float) -> float:
        step = min(max(deviation / self.scatter, -_LONGEST_STEP), _LONGEST_STEP)
        self.held += 1
        self.held_steps += step
        self.held_squares += step * step
        self.held_products += step * self.last
        self.last = step
        return step

    def _learn(self) -> None:
        self.known = min(self.known + self.held, _LEVEL_MEMORY)
        self.level += self.scatter * self.held_steps / self.known
        more = self.held_squares / _CLIPPED_VARIANCE - self.held
        wider = min(max(0.5 * more / self.known, -0.5), 0.5)
        self.scatter = max(self.scatter * math.exp(wider), _LEAST_SCATTER)
        alike = self.held_products / _CLIPPED_VARIANCE - self.held * self.echo
        echo = self.echo + alike / (_ECHO_PRIOR + self.known)
        self.echo = min(max(echo, 0.0), _MOST_ECHO)
        self.held, self.held_steps = 0, 0.0
        self.held_squares, self.held_products = 0.0, 0.0

    def _restart(self, change: float) -> None:  # noqa: ARG002
        self.held_steps, self.held_squares, self.held_products = 0.0, 0.0, 0.0

    def is_sound(self) -> bool:
        """Tell whether observations can have led to this state.

        Returns
        -------
        bool
            Not if a saved state was damaged.
        """
        has_begun = self.known > 0 and not self.first
        is_filling = self.known == 0 and len(self.first) < _WARM_UP
        is_near = max(map(abs, (self.level, *self.first))) <= 2.0 * _FURTHEST
        has_scatter = _LEAST_SCATTER <= self.scatter <= 4.0 * _FURTHEST
        is_held = (
            abs(self.held_steps) <= _LONGEST_STEP * self.held
            and abs(self.held_products) <= _LONGEST_STEP**2 * self.held
            and 0.0 <= self.held_squares <= _LONGEST_STEP**2 * self.held
            and abs(self.last) <= _LONGEST_STEP
            and 0.0 <= self.echo <= _MOST_ECHO
        )
        are_numbers = is_near and has_scatter and is_held
        return are_numbers and (has_begun or is_filling) and _Detector.is_sound(self)


_AnyDetector = TypeVar("_AnyDetector", QualityDetector, LevelDetector)


def restored(fresh: _AnyDetector, state: object) -> _AnyDetector | None:
    """Return a detector as its state says.

    Parameters
    ----------
    fresh
        A new detector of that kind, which is changed.
    state
        What `dataclasses.asdict` gave of it, perhaps by way of JSON.

    Returns
    -------
    QualityDetector, LevelDetector or None
        ``None`` if the state is damaged.
    """
    try:
        _fill(fresh, state)
    except (LookupError, TypeError, ValueError):
        return None
    return fresh if fresh.is_sound() else None


def _fill(part: _Detector | _Side, state: Any) -> None:  # noqa: ANN401
    for each in fields(part):
        now, value = getattr(part, each.name), state[each.name]
        if isinstance(now, _Side):
            _fill(now, value)
        elif isinstance(now, list):
            setattr(part, each.name, [_finite(number) for number in value])
        else:
            setattr(part, each.name, type(now)(_finite(value)))


def _finite(value: object) -> float:
    return number_between(
        value,
        "a number of a detector",
        low=-math.inf,
        low_is_allowed=False,
        high_is_allowed=False,
    )
