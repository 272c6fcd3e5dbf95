"""The goals under load, each beside what was measured."""

from collections.abc import Iterator, Sequence

from mixllm_integrations.benchmark.load.figures import ChaosFigures
from mixllm_integrations.benchmark.load.results import LoadResult
from mixllm_integrations.benchmark.online.goals import Goal

__all__ = ["FLAT_BYTES", "goals"]

# Our choice: a pending decision takes more than 1,000 bytes, so it is far less than
# one call in ten that is kept; what an allocator holds back is no leak.
FLAT_BYTES = 100.0
# In shorter runs what is bounded, such as what is refitted from, fills in the
# second half as well.
_JUDGED_FROM = 200_000
_CENT_OF_A_CENT = 1e-9
_COOLDOWN_SECONDS, _FEEDBACK_SECONDS, _READY_SECONDS = 1.0, 2.0, 10.0
_SAME = 1e-6  # of sums whose order differs


def goals(result: LoadResult) -> list[Goal]:
    """Return the goals of which something was measured.

    Parameters
    ----------
    result
        All that was measured.

    Notes
    -----
    Source: issue 6; what counts as flat memory is our choice.
    """
    found = [*_of_rates(result), *_of_workers(result), *_of_soak(result)]
    if result.chaos is not None:
        found += _of_chaos(result.chaos)
    return found


def _of_rates(result: LoadResult) -> Iterator[Goal]:
    if result.rates:
        calls = sum(one.calls for one in result.rates)
        yield _none(
            f"{calls:,} calls at full speed: events given up",
            sum(one.lost for one in result.rates),
        )


def _of_workers(result: LoadResult) -> Iterator[Goal]:
    if (knew := result.siblings) is not None:
        who = f"{knew.workers} workers, until all siblings act on"
        for what, seconds, most in (
            ("a cooldown", knew.cooldown_seconds, _COOLDOWN_SECONDS),
            ("feedback", knew.feedback_seconds, _FEEDBACK_SECONDS),
        ):
            if seconds:
                yield _soon(
                    f"{who} {what}, the slowest of {len(seconds)}", seconds, most
                )
    if (new := result.recovery) is not None:
        what = f"a new worker at a log of {new.events:,} events"
        yield _soon(f"{what}: ready", [new.ready_seconds], _READY_SECONDS)
        yield Goal(
            f"{what}: predicts as who learned each event as it came",
            f"≤ {_SAME:g} apart",
            f"{new.largest_difference:.2g} apart",
            new.largest_difference <= _SAME,
        )
    if (left := result.killing) is not None:
        what = f"{left.workers} workers, {left.kills} times one is killed"
        yield _none(f"{what}: feedback lost, of {left.acknowledged:,}", left.lost)
        yield _none(f"{what}: feedback twice in the log", left.twice)
        yield Goal(
            f"{what}: a new worker has learned each event once",
            "yes",
            "yes" if left.is_exact else "no",
            left.is_exact,
        )


def _soon(what: str, seconds: Sequence[float], most: float) -> Goal:
    slowest = max(seconds)
    return Goal(what, f"≤ {most:g} s", f"{slowest:.2f} s", slowest <= most)


def _of_soak(result: LoadResult) -> Iterator[Goal]:
    for one in result.soak:
        what = f"{one.calls:,} calls, {one.place}"
        slope = one.memory.bytes_per_call
        if slope is not None and one.calls >= _JUDGED_FROM:
            yield Goal(
                f"{what}: memory kept, second half",
                f"≤ {FLAT_BYTES:g} bytes a call",
                f"{slope:,.0f} bytes a call",
                slope <= FLAT_BYTES,
            )
        yield _none(f"{what}: calls that count as load at the end", one.in_flight)
        yield _none(f"{what}: events given up", one.lost)


def _of_chaos(one: ChaosFigures) -> list[Goal]:
    what = f"{one.calls:,} calls, {one.fault_share:.0%} faults"
    books = one.books
    amiss = books.without_outcome + books.with_several + books.unknown + one.unlogged
    apart = max(
        abs(books.cost - one.answers_cost), abs(one.records_cost - one.answers_cost)
    )
    return [
        _none(
            f"{what}: lost though a candidate lived (streams that broke off after a "
            "part was handed on are raised, and none of these)",
            sum(one.lost.values()),
        ),
        _none(f"{what}: neither answered nor raised", _unheard(one)),
        _none(f"{what}: count as load at the end", sum(one.in_flight.values())),
        _none(f"{what}: attempts not logged once with one outcome", amiss),
        Goal(
            f"{what}: bill, log and records apart",
            "0 USD",
            f"{apart:.2g} USD of {one.answers_cost:.4f}",
            apart <= _CENT_OF_A_CENT,
        ),
        _none(f"{what}: threads and tasks left", one.threads_left + one.tasks_left),
    ]


def _unheard(one: ChaosFigures) -> int:
    return one.calls - one.answered - one.broken_streams - sum(one.lost.values())


def _none(what: str, count: int) -> Goal:
    return Goal(what, "0", f"{count:,}", count == 0)
