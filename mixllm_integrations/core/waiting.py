"""Stage 7: load per candidate, the wait to expect from it, and its penalty.

Counts the calls under way, measures how fast each candidate answers, and turns
both into seconds a new call would wait. Time comes from an injected clock, so
a simulation runs the very same code. The model has a lock of its own: calls
start and finish on any thread.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.types import (
    Candidate,
    FloatArray,
    Outcome,
    number_between,
)

__all__ = ["WaitingModel"]

_MOST_CALLS = 20_000  # under way; the oldest is released for one more
_FIRST_TOKEN_TAKES = 30.0  # as long as so many others: about 0.5 s at 60 tokens/s


class _Call(NamedTuple):
    name: str
    output_tokens: float
    started: float


@dataclass(slots=True)
class _Queue:
    """One candidate: the calls it has, and how fast it is (where known)."""

    concurrency: float
    first_token: float | None
    per_token: float | None
    calls: int = 0
    tokens: float = 0.0

    def wait(self) -> float:
        """Seconds until a call that comes now would be served."""
        ahead = self.calls + 1 - self.concurrency
        if ahead <= 0 or (self.first_token is None and self.per_token is None):
            return 0.0
        mean_tokens = self.tokens / self.calls
        service = (self.first_token or 0.0) + mean_tokens * (self.per_token or 0.0)
        return ahead / self.concurrency * service

    def enter(self, output_tokens: float) -> None:
        self.calls += 1
        self.tokens += output_tokens

    def leave(self, output_tokens: float) -> None:
        self.calls -= 1
        self.tokens = self.tokens - output_tokens if self.calls else 0.0

    def learn(self, outcome: Outcome, smoothing: float) -> None:
        first, per_token = self._measured(outcome)
        self.first_token = _smoothed(self.first_token, first, smoothing)
        self.per_token = _smoothed(self.per_token, per_token, smoothing)

    def _measured(self, outcome: Outcome) -> tuple[float | None, float | None]:
        """Time to first token and seconds per token of one answer."""
        first, latency = outcome.time_to_first_token_seconds, outcome.latency_seconds
        tokens = outcome.output_tokens
        if latency is None:
            return first, None
        if tokens <= 0:
            return (latency if first is None else first), None
        if first is None:
            first = self._first_share(tokens) * latency
        return first, max(latency - first, 0.0) / tokens

    def _first_share(self, tokens: float) -> float:
        """Part of a latency that was the wait for the first token (our choice).

        As the speed known so far has it; where that is not known in both its
        parts, a fixed number of other tokens takes as long as the first one.
        """
        if self.first_token is not None and self.per_token is not None:
            known = self.first_token + tokens * self.per_token
            if known > 0:
                return self.first_token / known
        return _FIRST_TOKEN_TAKES / (tokens + _FIRST_TOKEN_TAKES)


def _smoothed(
    old: float | None, measured: float | None, smoothing: float
) -> float | None:
    if measured is None or old is None:
        return old if measured is None else measured
    return old + smoothing * (measured - old)


class WaitingModel:
    """Expected waits from live load, and what they are charged.

    Parameters
    ----------
    tolerance_seconds
        τ: how late an answer may start; infinity: waiting costs nothing.
    sharpness, margin
        The penalty turns steep at ``margin · τ``, by ``sharpness`` per τ.
    exponent_cap
        Highest exponent; beyond it the penalty grows as a line.
    smoothing
        Weight of one new measurement in the speed's moving means, in (0, 1].
    assumed_concurrency
        How many calls a candidate serves at once where it does not say.
    max_age_seconds
        A call whose outcome never comes stops counting as load after this.
    clock
        Seconds from any start; a jump backwards stops time, nothing more.

    Raises
    ------
    ConfigurationError
        If a setting cannot be used.

    Notes
    -----
    Source: MixLLM Eq. 10 for a penalty that is exponential in the candidate's
    waiting time against τ. That it is 0 for an idle candidate, that the
    exponent is clipped, and the queue behind the wait are our choice: a new
    call waits for those ahead of it that exceed what the candidate serves at
    once, each a mean service time (time to first token + mean predicted
    tokens under way · seconds per token) divided by its concurrency.
    """

    def __init__(
        self,
        *,
        tolerance_seconds: float = 30.0,
        sharpness: float = 5.0,
        margin: float = 0.5,
        exponent_cap: float = 6.0,
        smoothing: float = 0.2,
        assumed_concurrency: int = 4,
        max_age_seconds: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tolerance_seconds = tolerance_seconds
        self._sharpness = number_between(
            sharpness, "sharpness", high=100.0, low_is_allowed=False
        )
        self._margin = number_between(margin, "margin", high=1.0)
        self._cap = number_between(exponent_cap, "exponent_cap", high=100.0)
        self._smoothing = number_between(
            smoothing, "smoothing", high=1.0, low_is_allowed=False
        )
        self._assumed = number_between(
            assumed_concurrency, "assumed_concurrency", low=1, high_is_allowed=False
        )
        self._max_age = number_between(
            max_age_seconds, "max_age_seconds", low_is_allowed=False
        )
        self._clock = clock
        self._last_reading = clock()
        self._elapsed = 0.0
        self._lock = threading.Lock()
        self._queues: dict[str, _Queue] = {}
        self._waits: dict[str, float] = {}  # of each queue, as it stands
        self._calls: OrderedDict[str, _Call] = OrderedDict()

    @property
    def tolerance_seconds(self) -> float:
        """τ: how late an answer may start; above 0, infinity allowed."""
        return self._tolerance

    @tolerance_seconds.setter
    def tolerance_seconds(self, value: float) -> None:
        self._tolerance = number_between(
            value, "waiting_tolerance_seconds", low_is_allowed=False
        )

    def add(self, candidate: Candidate) -> None:
        """Watch a candidate from now on, with its declared speed if it has one.

        Parameters
        ----------
        candidate
            The candidate.

        Raises
        ------
        ConfigurationError
            If one of that name is watched already.
        """
        with self._lock:
            if candidate.name in self._queues:
                raise ConfigurationError(
                    f"candidate {candidate.name!r} is watched already; remove it first"
                )
            self._queues[candidate.name] = _Queue(
                float(candidate.max_concurrency or self._assumed),
                candidate.time_to_first_token_seconds,
                candidate.seconds_per_output_token,
            )
            self._waits[candidate.name] = 0.0

    def remove(self, name: str) -> None:
        """Forget a candidate and release the calls that it has under way.

        Parameters
        ----------
        name
            Whom.

        Raises
        ------
        UnknownCandidateError
            If it is not watched.
        """
        with self._lock:
            self._queue(name)
            del self._queues[name], self._waits[name]
            for decision_id in [i for i, c in self._calls.items() if c.name == name]:
                del self._calls[decision_id]

    def start(self, name: str, decision_id: str, *, output_tokens: float) -> None:
        """Count a call as load from now on; twice the same id counts once.

        Parameters
        ----------
        name
            Who is called.
        decision_id
            For which decision.
        output_tokens
            Predicted length of the answer.

        Raises
        ------
        UnknownCandidateError
            If the candidate is not watched.
        """
        with self._lock:
            queue = self._queue(name)
            now = self._expire()
            if decision_id not in self._calls:
                self._calls[decision_id] = _Call(name, float(output_tokens), now)
                queue.enter(output_tokens)
                self._waits[name] = queue.wait()
                if len(self._calls) > _MOST_CALLS:
                    self._release_oldest()

    def finish(self, decision_id: str, outcome: Outcome | None = None) -> None:
        """Release a call; an unknown or released id changes nothing.

        Parameters
        ----------
        decision_id
            For which decision it was made.
        outcome
            What happened. A success teaches speed; an error or ``None``
            (abandoned) does not.
        """
        with self._lock:
            self._expire()
            call = self._calls.pop(decision_id, None)
            if call is None:
                return
            queue = self._queues[call.name]
            queue.leave(call.output_tokens)
            if outcome is not None and outcome.error is None:
                queue.learn(outcome, self._smoothing)
            self._waits[call.name] = queue.wait()

    def in_flight(self, name: str) -> int:
        """Return how many calls a candidate has under way.

        Parameters
        ----------
        name
            Whom.

        Returns
        -------
        int
            The count, without calls that are too old to be alive.

        Raises
        ------
        UnknownCandidateError
            If the candidate is not watched.
        """
        with self._lock:
            self._expire()
            return self._queue(name).calls

    def expected_seconds(self, names: Sequence[str]) -> FloatArray:
        """Return how long a call that comes now would wait.

        Parameters
        ----------
        names
            Of which candidates.

        Returns
        -------
        FloatArray
            Seconds, shape ``(len(names),)``. Exactly 0 at no load, and where
            no speed is declared or measured.

        Raises
        ------
        UnknownCandidateError
            If one is not watched while calls are under way.
        """
        with self._lock:
            if self._calls:
                self._expire()
            if not self._calls:
                return np.zeros(len(names))
            try:
                found = map(self._waits.__getitem__, names)
                return np.fromiter(found, np.float64, len(names))
            except KeyError as error:
                raise UnknownCandidateError(error.args[0], self._queues) from None

    def penalties(self, waits: FloatArray) -> FloatArray:
        """Return what waits are charged, before `waiting_weight`.

        Parameters
        ----------
        waits
            Seconds, any shape.

        Returns
        -------
        FloatArray
            Of the same shape: exactly 0 at no wait, growing with it.

        Notes
        -----
        exp(sharpness · (w - margin · τ) / τ) - exp(-sharpness · margin), the
        exponent clipped, written as one product so that it is exact at 0. Beyond
        the clip it grows on as a line: of two overloaded candidates the shorter
        queue is still the better one.

        Examples
        --------
        >>> model = WaitingModel(tolerance_seconds=10.0, sharpness=2.0, margin=0.5)
        >>> model.penalties(np.array([0.0, 5.0])).round(4).tolist()  # 1 - exp(-1)
        [0.0, 0.6321]
        """
        if not np.count_nonzero(waits):
            return np.zeros(waits.shape)
        head_start = self._sharpness * self._margin
        exponent = self._sharpness * waits / self._tolerance
        clipped = np.minimum(exponent, head_start + self._cap)
        beyond = np.exp(head_start + self._cap) * (exponent - clipped)
        return np.asarray(np.exp(-head_start) * (np.expm1(clipped) + beyond))

    def _queue(self, name: str) -> _Queue:
        try:
            return self._queues[name]
        except KeyError:
            raise UnknownCandidateError(name, self._queues) from None

    def _expire(self) -> float:
        """Release calls that are too old; return the time that has passed."""
        reading = self._clock()
        self._elapsed += max(reading - self._last_reading, 0.0)
        self._last_reading = reading
        while self._calls:
            oldest = next(iter(self._calls.values()))
            if self._elapsed - oldest.started <= self._max_age:
                break
            self._release_oldest()
        return self._elapsed

    def _release_oldest(self) -> None:
        _, call = self._calls.popitem(last=False)
        queue = self._queues[call.name]
        queue.leave(call.output_tokens)
        self._waits[call.name] = queue.wait()
