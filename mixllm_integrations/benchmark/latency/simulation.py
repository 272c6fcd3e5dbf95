"""Time passes by events: queries arrive, wait for a free server, are answered.

The clock that moves is the router's own, so the code that counts load and
expects waits is the one that runs live.
"""

import heapq
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.benchmark.latency.speeds import answer_tokens, service_seconds
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.core.types import FloatArray, Outcome
from mixllm_integrations.testing.clock import ManualClock

__all__ = ["Choice", "Contestant", "Played", "Traffic", "arrivals", "simulate"]


class Choice(NamedTuple):
    """Whom a contestant asks.

    Parameters
    ----------
    column
        Which candidate.
    expected_wait
        Seconds that it expects the query to wait there; NaN: it expects nothing.
    """

    column: int
    expected_wait: float = float("nan")


class Contestant(Protocol):
    """Anybody who chooses a candidate for a query when it comes."""

    def choose(self, number: int, row: int) -> Choice:
        """Return whom to ask.

        Parameters
        ----------
        number
            The how-many-eth query of the traffic it is.
        row
            Its place in the table.
        """
        ...

    def finish(self, number: int, outcome: Outcome) -> None:
        """Hear that an answer has come.

        Parameters
        ----------
        number
            To which query of the traffic.
        outcome
            As the caller sees it: the wait is in its latency.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """Which queries come, and when.

    Parameters
    ----------
    at
        Seconds, ascending, shape ``(n,)``.
    rows
        Places in the table, shape ``(n,)``.
    """

    at: FloatArray
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """What came of one contestant's choices; every array of shape ``(n,)``.

    Parameters
    ----------
    column
        Whom each query was sent to.
    queued
        Seconds until it was its turn there.
    started
        Seconds until the first token: queued, and the start-up.
    ended
        Seconds until the whole answer.
    expected
        Seconds in the queue that the contestant had foreseen; NaN: nothing.
    """

    column: NDArray[np.int64]
    queued: FloatArray
    started: FloatArray
    ended: FloatArray
    expected: FloatArray


def arrivals(n_rows: int, *, rate: float, seconds: float, seed: int) -> Traffic:
    """Return queries that come independently of each other.

    Parameters
    ----------
    n_rows
        How many queries there are; all come in random order, and then again in
        another one until the time is over.
    rate
        Queries per second.
    seconds
        How long the traffic lasts at least; each query comes at least once.
    seed
        Of order and times.

    Notes
    -----
    Source: MixLLM has 100 queries per 10 s. That they come as a Poisson process
    is our choice.
    """
    rng = np.random.default_rng([seed, 5])
    n_rounds = max(1, round(rate * seconds / n_rows))
    rows = np.concatenate([rng.permutation(n_rows) for _ in range(n_rounds)])
    return Traffic(np.cumsum(rng.exponential(1.0 / rate, len(rows))), rows)


def simulate(
    table: BenchmarkTable, traffic: Traffic, contestant: Contestant, clock: ManualClock
) -> Played:
    """Let a contestant send traffic to candidates that serve first come, first served.

    Parameters
    ----------
    table
        Queries with their real answers; candidates declare speed and concurrency.
    traffic
        What comes.
    contestant
        Who chooses.
    clock
        The contestant's; the traffic begins when it is called.

    Notes
    -----
    Source: MixLLM for service times of a start-up and tokens / speed. A queue
    for each candidate, served by as many servers as its concurrency, is our
    choice, as that nothing is under way at the beginning.
    """
    start_up, service = service_seconds(table)
    tokens = answer_tokens(table)
    servers = [[0.0] * int(c.max_concurrency or 1) for c in table.candidates]
    began, n = clock.now, len(traffic)
    under_way: list[tuple[float, int]] = []
    column = np.zeros(n, dtype=np.int64)
    queued, expected = np.zeros(n), np.zeros(n)

    def outcome(number: int) -> Outcome:
        row, who = int(traffic.rows[number]), int(column[number])
        return Outcome(
            input_tokens=_whole(table.input_tokens[row, who]),
            output_tokens=round(tokens[row, who]),
            cost=float(table.cost[row, who]),
            latency_seconds=float(queued[number] + service[row, who]),
            time_to_first_token_seconds=float(queued[number] + start_up[who]),
        )

    for number in range(n):
        at, row = float(traffic.at[number]), int(traffic.rows[number])
        while under_way and under_way[0][0] <= at:
            ended, done = heapq.heappop(under_way)
            _move(clock, began + ended)
            contestant.finish(done, outcome(done))
        _move(clock, began + at)
        who, expected[number] = contestant.choose(number, row)
        starts = max(at, servers[who][0])
        ends = starts + float(service[row, who])
        heapq.heapreplace(servers[who], ends)
        heapq.heappush(under_way, (ends, number))
        column[number], queued[number] = who, starts - at
    return Played(
        column,
        queued,
        queued + start_up[column],
        queued + service[traffic.rows, column],
        expected,
    )


def _move(clock: ManualClock, to: float) -> None:
    clock.advance(max(to - clock.now, 0.0))


def _whole(value: float) -> int:
    return round(value) if np.isfinite(value) else 0
