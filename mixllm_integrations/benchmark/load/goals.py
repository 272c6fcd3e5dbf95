"""The goals under load, each beside what was measured."""

from collections.abc import Iterator

from mixllm_integrations.benchmark.load.figures import ChaosFigures
from mixllm_integrations.benchmark.load.results import LoadResult
from mixllm_integrations.benchmark.online.goals import Goal

__all__ = ["FLAT_BYTES", "goals"]

# Our choice: a pending decision takes more than 1,000 bytes, so it is far less than
# one call in ten that is kept; what an allocator holds back is no leak.
FLAT_BYTES = 100.0
# Before that, what is bounded, such as pending decisions, still fills.
_FULL_AFTER = 100_000
_CENT_OF_A_CENT = 1e-9


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
    found = [*_of_rates(result), *_of_soak(result)]
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


def _of_soak(result: LoadResult) -> Iterator[Goal]:
    for one in result.soak:
        what = f"{one.calls:,} calls, {one.place}"
        slope = one.memory.bytes_per_call
        if slope is not None and one.calls >= _FULL_AFTER:
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
