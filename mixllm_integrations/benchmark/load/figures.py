"""What became of many calls at servers that misbehave."""

from dataclasses import dataclass

from mixllm_integrations.benchmark.load.books import Books

__all__ = ["ChaosFigures"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosFigures:
    """What became of a run.

    Parameters
    ----------
    callers, calls, fault_share, seed
        As they were asked for.
    wall_seconds
        How long it took.
    answered
        Calls that were answered.
    broken_streams
        Streams that broke off after a part was handed on, which is raised.
    lost
        Calls that failed before they said anything, by what they raised.
    failovers
        Failed attempts before an answer.
    latency_seconds
        Of answered calls: the quantiles 0.5, 0.95, 0.99 and 1; ``None`` without any.
    answers_by_candidate
        Who answered how often.
    asked_while_down
        How often the candidate that refused connections was chosen meanwhile.
    down_seconds
        For how long it did.
    answered_again_after_seconds
        How long after its return it answered again; ``None``: never.
    books
        What the event log adds up to.
    unlogged
        Attempts of answered calls that the log does not have.
    answers_cost
        USD of all answers: the tokens that each reports, times the prices.
    records_cost
        USD of all answers as their routing records say it.
    in_flight
        Calls that count as load at the end, by candidate.
    threads_left, tasks_left
        Threads and tasks that go on after the end; idle workers, which are kept
        for the next call, are no such threads.
    """

    callers: int
    calls: int
    fault_share: float
    seed: int
    wall_seconds: float
    answered: int
    broken_streams: int
    lost: dict[str, int]
    failovers: int
    latency_seconds: tuple[float, float, float, float] | None
    answers_by_candidate: dict[str, int]
    asked_while_down: int
    down_seconds: float
    answered_again_after_seconds: float | None
    books: Books
    unlogged: int
    answers_cost: float
    records_cost: float
    in_flight: dict[str, int]
    threads_left: int
    tasks_left: int
