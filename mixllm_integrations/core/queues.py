"""The calls that one candidate has under way, and how fast it answers.

Beside `waiting`, which keeps one of these for each candidate and holds the lock.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from mixllm_integrations.core.types import Candidate, FloatArray, Outcome

__all__ = ["Place", "Queue", "QueueTable"]

_FIRST_TOKEN_TAKES = 30.0  # as long as so many others: about 0.5 s at 60 tokens/s


class Place(NamedTuple):
    """Where a call stands when it comes.

    Parameters
    ----------
    number
        How many are under way, itself included.
    wait
        Seconds until it is expected to be served; 0: at once.
    service
        Seconds that one answer is expected to take then.
    """

    number: int
    wait: float
    service: float


@dataclass(slots=True)
class Queue:
    """One candidate: the calls it has, and how fast it is (where known).

    Parameters
    ----------
    concurrency
        How many it serves at once.
    first_token, per_token
        Seconds until the first token, and for each one; ``None``: not known.
    is_assumed
        Whether the concurrency is nobody's word: it is then learned.
    calls, tokens
        Under way, and their predicted output tokens.
    calls_elsewhere, tokens_elsewhere
        The same of other workers.
    """

    concurrency: float
    first_token: float | None
    per_token: float | None
    is_assumed: bool = False
    calls: int = 0
    tokens: float = 0.0
    calls_elsewhere: int = 0
    tokens_elsewhere: float = 0.0

    @classmethod
    def of(cls, candidate: Candidate, assumed: float) -> Self:
        """Return the queue of a candidate, with `assumed` where it does not say."""
        return cls(
            float(candidate.max_concurrency or assumed),
            candidate.time_to_first_token_seconds,
            candidate.seconds_per_output_token,
            is_assumed=candidate.max_concurrency is None,
        )

    def declare(self, before: Candidate, after: Candidate, assumed: float) -> None:
        """Let what is declared anew count; else what was measured does."""
        if after.max_concurrency != before.max_concurrency:
            self.concurrency = float(after.max_concurrency or assumed)
            self.is_assumed = after.max_concurrency is None
        first = after.time_to_first_token_seconds
        if first is not None and first != before.time_to_first_token_seconds:
            self.first_token = first
        per_token = after.seconds_per_output_token
        if per_token is not None and per_token != before.seconds_per_output_token:
            self.per_token = per_token

    def wait(self) -> float:
        """Seconds until a call that comes now would be served."""
        ahead = self.calls + self.calls_elsewhere + 1 - self.concurrency
        if ahead <= 0:
            return 0.0
        return ahead * self.step()

    def step(self) -> float:
        """Seconds, on average, from one call's turn to that of the next."""
        return self._service() / self.concurrency

    def enter(self, output_tokens: float) -> Place:
        """Count a call, with the length that was predicted for its answer."""
        number = self.calls + self.calls_elsewhere + 1
        place = Place(number, self.wait(), self._service())
        self.calls += 1
        self.tokens += output_tokens
        return place

    def leave(self, output_tokens: float) -> None:
        """Count a call no longer."""
        self.calls -= 1
        self.tokens = self.tokens - output_tokens if self.calls else 0.0

    def learn(
        self, outcome: Outcome, smoothing: float, place: Place | None = None
    ) -> None:
        """Let an answer weigh so much in the moving means.

        What a call that was to wait took beyond the speed known so far is its wait
        and no part of the speed. Where the concurrency is nobody's word it also
        tells how many are served at once; there a call that was to be served at
        once, beside others, and took more than twice as long has waited as well.
        """
        waited = 0.0
        if place is not None and (place.wait or self._is_guessed(place)):
            excess = self._excess(outcome)
            if excess is not None and (place.wait or excess > place.service):
                waited = excess
                if self.is_assumed:
                    self._learn_concurrency(place, excess, smoothing)
        first, per_token = self._measured(outcome, waited)
        self.first_token = _smoothed(self.first_token, first, smoothing)
        self.per_token = _smoothed(self.per_token, per_token, smoothing)

    def _is_guessed(self, place: Place) -> bool:
        """Whether nobody knows that a call among others is served at once."""
        return self.is_assumed and place.number > 1 and place.service > 0.0

    def _service(self) -> float:
        """Seconds that an answer takes, of the mean length under way."""
        calls = self.calls + self.calls_elsewhere
        tokens = self.tokens + self.tokens_elsewhere
        mean_tokens = tokens / calls if calls else 0.0
        return (self.first_token or 0.0) + mean_tokens * (self.per_token or 0.0)

    def _excess(self, outcome: Outcome) -> float | None:
        """Seconds that an answer took beyond what is known; ``None``: who knows."""
        known, first = self.first_token or 0.0, outcome.time_to_first_token_seconds
        if first is not None and self.first_token is not None:
            return max(first - known, 0.0)
        if outcome.latency_seconds is None:
            return None
        known += max(outcome.output_tokens, 0) * (self.per_token or 0.0)
        return max(outcome.latency_seconds - known, 0.0)

    def _learn_concurrency(self, place: Place, waited: float, smoothing: float) -> None:
        """Let a call that was to wait tell how many are served at once.

        The c at which its place in the queue explains its wait, solved for:
        waited = (number - c) / c · service. Without any wait that is its number.
        """
        served = place.number * place.service / (waited + place.service)
        self.concurrency += smoothing * (max(served, 1.0) - self.concurrency)

    def _measured(
        self, outcome: Outcome, waited: float
    ) -> tuple[float | None, float | None]:
        """Time to first token and seconds per token of one answer."""
        first, latency = outcome.time_to_first_token_seconds, outcome.latency_seconds
        tokens = outcome.output_tokens
        if first is not None:
            first = max(first - waited, 0.0)
        if latency is None:
            return first, None
        latency = max(latency - waited, 0.0)
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


class QueueTable:
    """The queues of all candidates, as several workers have them."""

    _lock: threading.RLock
    _queues: dict[str, Queue]
    _waits: dict[str, float]
    _has_elsewhere = False

    def load(self) -> dict[str, tuple[int, float]]:
        """Return what is under way here.

        Returns
        -------
        dict
            By candidate the number of calls and their predicted output tokens;
            those without any are left out.
        """
        with self._lock:
            self._expire()
            return {n: (q.calls, q.tokens) for n, q in self._queues.items() if q.calls}

    def set_load_elsewhere(self, loads: Mapping[str, tuple[int, float]]) -> None:
        """Count what other workers have under way as load as well.

        Parameters
        ----------
        loads
            By candidate the number of calls, and their predicted output tokens;
            whoever is not in it has none elsewhere, and a name that is not watched
            is left out.
        """
        with self._lock:
            for name, queue in self._queues.items():
                calls, tokens = loads.get(name, (0, 0.0))
                queue.calls_elsewhere, queue.tokens_elsewhere = calls, tokens
                self._waits[name] = queue.wait()
            self._has_elsewhere = bool(loads)

    def scatter_seconds(self, names: Sequence[str], waits: FloatArray) -> FloatArray:
        """Return by how much waits usually miss what is expected.

        Parameters
        ----------
        names
            Of which candidates.
        waits
            What is expected of them, in seconds, shape ``(len(names),)``.

        Returns
        -------
        FloatArray
            Seconds, of the same shape; 0 where there is no wait.

        Notes
        -----
        Our choice: turns come at random, so a wait of n of them scatters by √n:
        the same wait is surer in a long queue that is served fast.
        """
        if not np.count_nonzero(waits):
            return waits
        with self._lock:
            steps = [self._queues[name].step() for name in names]
        return np.asarray(np.sqrt(waits * steps))

    def _expire(self) -> float:
        """Release calls that are too old; return the time that has passed."""
        raise NotImplementedError


def _smoothed(
    old: float | None, measured: float | None, smoothing: float
) -> float | None:
    if measured is None or old is None:
        return old if measured is None else measured
    return old + smoothing * (measured - old)
