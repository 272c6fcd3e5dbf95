"""Stage 7: load per candidate, the wait to expect from it, and its penalty.

Counts the calls under way, measures how fast each candidate answers, and turns
both into seconds a new call would wait. Time comes from an injected clock, so
a simulation runs the very same code. The model has a lock of its own: calls
start and finish on any thread.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.forking import forkable_lock
from mixllm_integrations.core.penalty import WaitingPenalty
from mixllm_integrations.core.queues import Place, Queue, QueueTable
from mixllm_integrations.core.types import (
    Candidate,
    FloatArray,
    Outcome,
    number_between,
)

__all__ = ["WaitingModel"]

_MOST_CALLS = 20_000  # under way; the oldest is released for one more


class _Call(NamedTuple):
    name: str
    output_tokens: float
    started: float
    place: Place


class WaitingModel(QueueTable):
    """Expected waits from live load, and what they are charged.

    Parameters
    ----------
    tolerance_seconds
        τ: how late an answer may start; infinity: waiting costs nothing.
    sharpness, margin, exponent_cap
        Of the penalty, see `WaitingPenalty`.
    smoothing
        Weight of one new measurement in the speed's moving means, in (0, 1].
    assumed_concurrency
        How many calls a candidate serves at once where it does not say, until
        that is learned from what its calls wait.
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
    The queue behind the wait is our choice: a new call waits for those ahead of
    it that exceed what the candidate serves at once, each a mean service time
    (time to first token + mean predicted tokens under way · seconds per token)
    divided by its concurrency.
    """

    def __init__(
        self,
        *,
        tolerance_seconds: float = 30.0,
        sharpness: float = 20.0,
        margin: float = 0.7,
        exponent_cap: float = 6.0,
        smoothing: float = 0.2,
        assumed_concurrency: int = 4,
        max_age_seconds: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tolerance_seconds = tolerance_seconds
        self._penalty = WaitingPenalty(
            sharpness=sharpness, margin=margin, exponent_cap=exponent_cap
        )
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
        self._lock = forkable_lock()
        self._queues: dict[str, Queue] = {}
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
            self._queues[candidate.name] = Queue.of(candidate, self._assumed)
            self._waits[candidate.name] = 0.0

    def replace(self, before: Candidate, after: Candidate) -> None:
        """Apply what a candidate newly declares; its calls under way stay.

        Parameters
        ----------
        before, after
            What it declared, and what it declares now. A speed that is new
            counts from now on; else what was measured does.

        Raises
        ------
        UnknownCandidateError
            If it is not watched.
        """
        with self._lock:
            queue = self._queue(after.name)
            queue.declare(before, after, self._assumed)
            self._waits[after.name] = queue.wait()

    def rename(self, old: str, new: str) -> None:
        """Watch a candidate under another name; its calls under way stay.

        Parameters
        ----------
        old, new
            Its names.

        Raises
        ------
        UnknownCandidateError
            If it is not watched.
        """
        with self._lock:
            self._queue(old)
            self._queues[new] = self._queues.pop(old)
            self._waits[new] = self._waits.pop(old)
            for decision_id, call in self._calls.items():
                if call.name == old:
                    self._calls[decision_id] = call._replace(name=new)

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
                tokens = float(output_tokens)
                self._calls[decision_id] = _Call(name, tokens, now, queue.enter(tokens))
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
                queue.learn(outcome, self._smoothing, call.place)
            self._waits[call.name] = queue.wait()

    def learn(self, name: str, outcome: Outcome) -> None:
        """Learn speed from a call that was not counted as load here.

        Parameters
        ----------
        name
            Who answered; one that is not watched teaches nothing.
        outcome
            What happened; an error teaches nothing.
        """
        with self._lock:
            queue = self._queues.get(name)
            if queue is not None and outcome.error is None:
                queue.learn(outcome, self._smoothing)
                self._waits[name] = queue.wait()

    def speeds(self) -> dict[str, tuple[float | None, float | None]]:
        """Return how fast each candidate is, declared or measured.

        Returns
        -------
        dict
            By name, the time to the first token and that per output token, in
            seconds; ``None`` where it is not known.
        """
        with self._lock:
            return {n: (q.first_token, q.per_token) for n, q in self._queues.items()}

    def set_speed(
        self, name: str, first_token: float | None, per_token: float | None
    ) -> None:
        """Let a candidate be as fast as it was measured elsewhere.

        Parameters
        ----------
        name
            Whom; one that is not watched is left out.
        first_token, per_token
            Seconds to the first token, and per output token; ``None``: as it is.

        Raises
        ------
        ConfigurationError
            If one is negative or not finite.
        """
        given = {
            which: number_between(seconds, which, high_is_allowed=False)
            for which, seconds in (
                ("first_token", first_token),
                ("per_token", per_token),
            )
            if seconds is not None
        }
        with self._lock:
            queue = self._queues.get(name)
            if queue is not None:
                queue.first_token = given.get("first_token", queue.first_token)
                queue.per_token = given.get("per_token", queue.per_token)
                self._waits[name] = queue.wait()

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
            if not self._calls and not self._has_elsewhere:
                return np.zeros(len(names))
            try:
                found = map(self._waits.__getitem__, names)
                return np.fromiter(found, np.float64, len(names))
            except KeyError as error:
                raise UnknownCandidateError(error.args[0], self._queues) from None

    def penalties(
        self, waits: FloatArray, *, tolerance_seconds: float | None = None
    ) -> FloatArray:
        """Return what waits are charged, before `waiting_weight`.

        Parameters
        ----------
        waits
            Seconds, any shape.
        tolerance_seconds
            τ of this query; ``None``: the model's own.

        Returns
        -------
        FloatArray
            As `WaitingPenalty.of` has it: exactly 0 at no wait, growing with it.
        """
        tolerance = self._tolerance if tolerance_seconds is None else tolerance_seconds
        return self._penalty.of(waits, tolerance)

    def _queue(self, name: str) -> Queue:
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
