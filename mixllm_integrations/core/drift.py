"""Stage 6: notice that a candidate is no longer what it was.

A model may silently get worse, wordier or slower. For each candidate three
detectors of `cusum` watch what comes back: its quality against what was
expected, its length against what was predicted, its speed against its own
past. Takes no lock: the router holds one.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.cusum import LevelDetector, QualityDetector, restored
from mixllm_integrations.core.errors import (
    ConfigurationError,
    StateFormatError,
    UnknownCandidateError,
)

__all__ = ["DriftEvent", "DriftQuantity", "DriftWatch"]

DriftQuantity = Literal["quality", "output_tokens", "latency"]
_QUANTITIES: tuple[DriftQuantity, ...] = get_args(DriftQuantity)

_LIMIT, _LOG_LIMIT = 12.0, 13.0  # of the sums; our choice, see `DriftWatch`
_FIRST_TOKEN_TAKES = 30.0  # as long as so many others, as `queues` has it


@dataclass(frozen=True, slots=True)
class DriftEvent:
    """One candidate has changed.

    Parameters
    ----------
    candidate
        Whose answers.
    quantity
        What of them.
    change
        Quality: by how many points of quality, negative: worse. Length and
        latency: the factor; 1.5 is half as much again.
    n_observations
        How many observations came since the estimated change point.
    at_observation
        How many observations of this quantity the candidate had by then.

    Examples
    --------
    >>> print(DriftEvent("a", "quality", -0.314, 42, 900))
    candidate 'a': quality fell by about 0.31 over its last 42 answers
    """

    candidate: str
    quantity: DriftQuantity
    change: float
    n_observations: int
    at_observation: int

    def __str__(self) -> str:
        if self.quantity == "quality":
            way = "fell" if self.change < 0.0 else "rose"
            what = f"quality {way} by about {abs(self.change):.2f}"
        else:
            way = "fell" if self.change < 1.0 else "rose"
            noun = "length" if self.quantity == "output_tokens" else "latency"
            what = f"{noun} {way} to about {self.change:.2f} times what it was"
        since = f"over its last {self.n_observations} answers"
        return f"candidate {self.candidate!r}: {what} {since}"


@dataclass(slots=True)
class _Watched:
    """The detectors of one candidate."""

    quality: QualityDetector = field(default_factory=QualityDetector)
    output_tokens: LevelDetector = field(default_factory=LevelDetector)
    latency: LevelDetector = field(default_factory=LevelDetector)


class DriftWatch:
    """Detectors of every candidate for quality, length and latency.

    Parameters
    ----------
    sensitivity
        What the evidence asked for is divided by, in [0.1, 10].

    Attributes
    ----------
    sensitivity
        As given.
    ignored
        How many observations had a number that cannot be used.
    bad
        After `from_state`: whose detectors begin anew, and which.

    Raises
    ------
    ConfigurationError
        If `sensitivity` is out of bounds.

    Notes
    -----
    Our choice; the two-sided sums are Page's CUSUM. Simulated, rewards of 0 and
    1: a false alarm in 700,000 answers (200,000 where the head promises 0.05 too
    much); a fall from 0.72 to 0.36 is found after 44 answers, one by 0.15 after
    200 (medians). At sensitivity 1.5: 20,000, 27 and 110. Answers twice as long
    are found after 16, three times the latency (of scatter 1 in logarithms)
    after 24. A head that relearns faster than this hides a change, as one with
    fewer than 50 answers behind it often does; then no alarm is needed.

    Examples
    --------
    >>> watch = DriftWatch()
    >>> watch.add("a")
    >>> for _ in range(100):  # expected good, answers badly every time
    ...     event = watch.observe_quality("a", surprise=-0.7, variance=0.2)
    ...     if event:
    ...         break
    >>> event.n_observations  # the first above 12 / (0.7 - 0.03 - 0.35·0.2)
    21
    """

    def __init__(self, *, sensitivity: float = 1.0) -> None:
        self.sensitivity = number_between(
            sensitivity, "sensitivity", low=0.1, high=10.0
        )
        self.ignored = 0
        self.bad: dict[str, str] = {}
        self._limit = _LIMIT / self.sensitivity
        self._log_limit = _LOG_LIMIT / self.sensitivity
        self._watched: dict[str, _Watched] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates that are watched."""
        return tuple(self._watched)

    def add(self, name: str) -> None:
        """Watch a candidate; one that is watched already goes on as it was.

        Parameters
        ----------
        name
            Whom.
        """
        self._watched.setdefault(name, _Watched())

    def discard(self, name: str) -> None:
        """Forget a candidate; nothing happens if it is not watched.

        Parameters
        ----------
        name
            Whom.
        """
        self._watched.pop(name, None)

    def rename(self, old: str, new: str) -> None:
        """Go on with a candidate under another name.

        Parameters
        ----------
        old, new
            Its names.

        Raises
        ------
        UnknownCandidateError
            If nobody of the old name is watched.
        ConfigurationError
            If somebody else has the new name.
        """
        watched = self._of(old)
        if new != old and new in self._watched:
            raise ConfigurationError(f"there is a candidate {new!r} already")
        del self._watched[old]
        self._watched[new] = watched

    def reset(self, name: str, quantity: DriftQuantity | None = None) -> None:
        """Begin anew with a candidate, for example when its heads are fitted anew.

        Parameters
        ----------
        name
            Whom.
        quantity
            Of what; ``None``: of everything.

        Raises
        ------
        UnknownCandidateError
            If it is not watched.
        ConfigurationError
            If there is no such quantity.
        """
        watched = self._of(name)
        if quantity is not None and quantity not in _QUANTITIES:
            raise ConfigurationError(
                f"unknown quantity {quantity!r}; use one of {_QUANTITIES}"
            )
        fresh = _Watched()
        for which in _QUANTITIES if quantity is None else (quantity,):
            setattr(watched, which, getattr(fresh, which))

    def observe_quality(
        self, name: str, *, surprise: float, variance: float
    ) -> DriftEvent | None:
        """Take how good one answer was, against what was expected of it.

        Parameters
        ----------
        name
            Who answered.
        surprise
            Reward minus the quality expected when it was decided, in [-1, 1].
        variance
            How much such a reward scatters where the expectation is right: for
            0 and 1, p·(1-p); less for finer grades. Too much costs time only.

        Returns
        -------
        DriftEvent or None
            A change, at the observation that makes it certain enough.

        Raises
        ------
        UnknownCandidateError
            If it is not watched.
        """
        detector = self._of(name).quality
        surprise, variance = _number(surprise, low=-1e300), _number(variance)
        if math.isnan(surprise + variance):
            self.ignored += 1
            return None
        found = detector.observe(surprise, variance, self._limit)
        if found is None:
            return None
        return DriftEvent(name, "quality", *found, detector.seen)

    def observe_length(
        self, name: str, *, real_tokens: float, expected_tokens: float
    ) -> DriftEvent | None:
        """Take how long one answer was, against what was predicted.

        Parameters
        ----------
        name
            Who answered.
        real_tokens, expected_tokens
            Output tokens, both non-negative. A prediction that is wrong by a
            constant factor is no drift.

        Returns
        -------
        DriftEvent or None
            A change, at the observation that makes it certain enough.

        Raises
        ------
        UnknownCandidateError
            If it is not watched.
        """
        # One more each: an answer may have no token, and of few one more is little.
        above, below = _number(real_tokens) + 1.0, _number(expected_tokens) + 1.0
        return self._observe(name, "output_tokens", above, below)

    def observe_latency(
        self, name: str, *, latency_seconds: float, output_tokens: float
    ) -> DriftEvent | None:
        """Take how long one answer took, against those that came before.

        Parameters
        ----------
        name
            Who answered.
        latency_seconds
            Of the whole answer, above 0.
        output_tokens
            Its length; the first token is taken to last as long as 30 others.

        Returns
        -------
        DriftEvent or None
            A change, at the observation that makes it certain enough.

        Raises
        ------
        UnknownCandidateError
            If it is not watched.
        """
        above = _number(latency_seconds, low=1e-300)
        below = _number(output_tokens) + _FIRST_TOKEN_TAKES
        return self._observe(name, "latency", above, below)

    def state(self) -> dict[str, Any]:
        """Return all that is known, as JSON can hold it, for `from_state`."""
        return {
            "sensitivity": self.sensitivity,
            "ignored": self.ignored,
            "candidates": {name: asdict(w) for name, w in self._watched.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "DriftWatch":
        """Return the watch that `state` gave; what is damaged begins anew.

        Parameters
        ----------
        state
            What `state` returned.

        Returns
        -------
        DriftWatch
            With every candidate; `bad` says which detectors begin anew.

        Raises
        ------
        StateFormatError
            If it is no such state at all.
        """
        try:
            watch = cls(sensitivity=state["sensitivity"])
            watch.ignored = int(number_between(state["ignored"], "ignored", high=1e15))
            rows = dict(state["candidates"])
        except (LookupError, TypeError, ValueError) as error:
            raise StateFormatError(f"no state of drift detectors: {error}") from error
        for name, row in rows.items():
            watched = watch._watched[name] = _Watched()
            bad = [q for q in _QUANTITIES if not _put_back(watched, q, row)]
            if bad:
                watch.bad[name] = ", ".join(bad)
        return watch

    def _of(self, name: str) -> _Watched:
        try:
            return self._watched[name]
        except KeyError:
            raise UnknownCandidateError(name, self._watched) from None

    def _observe(
        self,
        name: str,
        quantity: Literal["output_tokens", "latency"],
        above: float,
        below: float,
    ) -> DriftEvent | None:
        watched = self._of(name)
        if math.isnan(above + below):
            self.ignored += 1
            return None
        detector: LevelDetector = getattr(watched, quantity)
        found = detector.observe(math.log(above) - math.log(below), self._log_limit)
        if found is None:
            return None
        change, count = found
        return DriftEvent(name, quantity, math.exp(change), count, detector.seen)


def _number(value: float, *, low: float = 0.0) -> float:
    """Return a Python float; NaN if it is infinite or too low."""
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond every float
        return math.nan
    return number if low <= number < math.inf else math.nan


def _put_back(watched: _Watched, quantity: DriftQuantity, row: object) -> bool:
    """Put a detector as its state says; tell whether it could be."""
    state = row.get(quantity) if isinstance(row, Mapping) else None
    found = restored(getattr(_Watched(), quantity), state)
    if found is not None:
        setattr(watched, quantity, found)
    return found is not None
