"""Who chooses: our router with and without the penalty, and plain rules."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from mixllm_integrations.benchmark.latency.simulation import Choice
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, FloatArray, Outcome
from mixllm_integrations.core.waiting import WaitingModel

__all__ = [
    "REFRESHED_EVERY_SECONDS",
    "Always",
    "LeastBusy",
    "Live",
    "Random",
    "RefreshedRouter",
    "RefreshedWaiting",
    "RoundRobin",
    "unalarmed",
]

REFRESHED_EVERY_SECONDS = 10.0


class Live:
    """The router as it runs live: it counts a call from the decision on.

    Parameters
    ----------
    router
        Fitted; its clock is the simulation's. It keeps what it learns here of
        speeds, lengths and costs.
    queries
        Texts, by row.
    """

    def __init__(self, router: Router, queries: Sequence[str]) -> None:
        self._router, self._queries = router, queries
        self._columns = {c.name: i for i, c in enumerate(router.candidates)}
        self._ids: dict[int, str] = {}

    def choose(self, number: int, row: int) -> Choice:
        """Return whom the router decides for."""
        decision = self._router.route(self._queries[row])
        self._ids[number] = decision.id
        chosen = decision.candidate
        waits = decision.scores[chosen].waiting_seconds
        return Choice(self._columns[chosen], waits)

    def finish(self, number: int, outcome: Outcome) -> None:
        """Tell the router of the outcome."""
        self._router.record_outcome(self._ids.pop(number), outcome)


class RefreshedWaiting(WaitingModel):
    """Waits that are looked up now and then; nothing changes them in between.

    Parameters
    ----------
    every_seconds
        How often.
    clock
        Of the model.
    tolerance_seconds
        τ.
    """

    def __init__(
        self,
        *,
        every_seconds: float,
        clock: Callable[[], float],
        tolerance_seconds: float,
    ) -> None:
        # What may be long past is charged earlier: nothing stops a rush before
        # the next look.
        super().__init__(
            tolerance_seconds=tolerance_seconds, sharpness=5.0, margin=0.5, clock=clock
        )
        self._now, self._every = clock, every_seconds
        self._next_look = -math.inf
        self._seen: dict[str, float] = {}

    def expected_seconds(self, names: Sequence[str]) -> FloatArray:
        """Return the waits as they were at the last look."""
        now = self._now()
        if now >= self._next_look or len(self._seen) != len(names):
            self._next_look = now - now % self._every + self._every
            found = super().expected_seconds(names).tolist()
            self._seen = dict(zip(names, found, strict=True))
        return np.array([self._seen[name] for name in names])

    def scatter_seconds(self, _names: Sequence[str], waits: FloatArray) -> FloatArray:
        """Return nothing: how many calls make up a wait is not known."""
        return np.zeros(waits.shape)


class RefreshedRouter(Router):
    """The router with the paper's knowledge of waiting times.

    Parameters
    ----------
    candidates, options
        As those of `Router`; the clock must be given.

    Notes
    -----
    Source: MixLLM refreshes waiting times every 10 s. All else is as live.
    """

    def __init__(self, candidates: Iterable[Candidate], **options: Any) -> None:  # noqa: ANN401
        super().__init__(candidates, **options)
        self._waiting = RefreshedWaiting(
            every_seconds=REFRESHED_EVERY_SECONDS,
            clock=options["clock"],
            tolerance_seconds=self.waiting_tolerance_seconds,
        )
        for candidate in self.candidates:
            self._waiting.add(candidate)
        self._hold(self._knowledge, self._experience)


class Always:
    """One candidate for everything.

    Parameters
    ----------
    column
        Which one.
    """

    def __init__(self, column: int) -> None:
        self._column = column

    def choose(self, _number: int, _row: int) -> Choice:
        """Return that one."""
        return Choice(self._column)

    def finish(self, _number: int, _outcome: Outcome) -> None:
        """Learn nothing."""


class RoundRobin(Always):
    """Every candidate in turn.

    Parameters
    ----------
    n_candidates
        How many there are.
    """

    def __init__(self, n_candidates: int) -> None:
        super().__init__(0)
        self._n = n_candidates

    def choose(self, number: int, _row: int) -> Choice:
        """Return the next one."""
        return Choice(number % self._n)


class Random(Always):
    """Any candidate, each as probably.

    Parameters
    ----------
    n_candidates
        How many there are.
    seed
        Of the draws.
    """

    def __init__(self, n_candidates: int, *, seed: int) -> None:
        super().__init__(0)
        self._n, self._rng = n_candidates, np.random.default_rng([seed, 6])

    def choose(self, _number: int, _row: int) -> Choice:
        """Return one."""
        return Choice(int(self._rng.integers(self._n)))


class LeastBusy:
    """Whoever has the fewest calls under way; of equals, each as probably.

    Parameters
    ----------
    n_candidates
        How many there are.
    seed
        Of the draws.
    """

    def __init__(self, n_candidates: int, *, seed: int) -> None:
        self._under_way = np.zeros(n_candidates, dtype=np.int64)
        self._asked: dict[int, int] = {}
        self._rng = np.random.default_rng([seed, 7])

    def choose(self, number: int, _row: int) -> Choice:
        """Return one of the least busy."""
        least = np.flatnonzero(self._under_way == self._under_way.min())
        column = int(self._rng.choice(least))
        self._under_way[column] += 1
        self._asked[number] = column
        return Choice(column)

    def finish(self, number: int, _outcome: Outcome) -> None:
        """Count the call no longer."""
        self._under_way[self._asked.pop(number)] -= 1


@contextmanager
def unalarmed() -> Iterator[None]:
    """Keep alarms out of the log: a queue looks like a candidate that grew slow."""
    log = logging.getLogger("mixllm_integrations")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
