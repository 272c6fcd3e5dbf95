"""What a report tells beside the totals: over time, latency, domains, calibration."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.offpolicy import Interval
from mixllm_integrations.report.intervals import known_mean, mean_interval
from mixllm_integrations.report.traffic import Traffic

__all__ = [
    "Bin",
    "DomainRow",
    "Latency",
    "SharesOverTime",
    "bins_of",
    "domain_rows",
    "latencies",
    "shares_over_time",
]

# All our choice.
_PERIODS, _SHOWN, _DOMAINS, _BINS = 30, 7, 30, 10
_HOUR, _DAY = 3_600.0, 86_400.0
_LENGTHS = (
    *(1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1_800.0),
    *(_HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY),
)
_OTHERS = "all others"


@dataclass(frozen=True, slots=True)
class SharesOverTime:
    """Who answered, period by period.

    Parameters
    ----------
    names
        Most decisions first; the last one may stand for several.
    starts
        Beginning of each period.
    seconds
        How long a period is.
    counts
        Decisions, ``counts[period][name]``.
    costs
        USD of each period, as far as known.
    """

    names: tuple[str, ...]
    starts: tuple[datetime, ...]
    seconds: float
    counts: tuple[tuple[int, ...], ...]
    costs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Latency:
    """How long answers took.

    Parameters
    ----------
    name
        Whose; ``"all"`` for everybody's.
    answers
        How many were timed.
    p50, p90, p95, p99
        Percentiles in seconds.
    first_token_p50, first_token_p95
        Of the time to the first token; ``None`` if unknown.
    """

    name: str
    answers: int
    p50: float
    p90: float
    p95: float
    p99: float
    first_token_p50: float | None
    first_token_p95: float | None


@dataclass(frozen=True, slots=True)
class DomainRow:
    """What came of the queries of one domain.

    Parameters
    ----------
    name
        What the queries are about.
    decisions, feedback
        How many there are, and how many were judged.
    quality
        Mean feedback.
    expected
        Mean quality that was expected.
    mean_cost
        USD per answer with a known cost; NaN without any.
    mostly, mostly_share
        Who answered most of them, and how many.
    """

    name: str
    decisions: int
    feedback: int
    quality: Interval
    expected: float
    mean_cost: float
    mostly: str
    mostly_share: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of which about the same was expected.

    Parameters
    ----------
    expected
        Mean of what was.
    observed
        Mean feedback.
    count
        How many.
    """

    expected: float
    observed: Interval
    count: int


def shares_over_time(traffic: Traffic) -> SharesOverTime | None:
    """Return who answered, period by period; ``None`` without any decision.

    Parameters
    ----------
    traffic
        From `read_traffic`.
    """
    if not len(traffic):
        return None
    begin, end = float(traffic.at.min()), float(traffic.at.max())
    least = (end - begin) / _PERIODS
    # Whole days, hours or minutes; ages are counted in days.
    seconds = next(
        (float(p) for p in _LENGTHS if p >= least), math.ceil(least / _DAY) * _DAY
    )
    begin = begin // seconds * seconds
    n = int((end - begin) // seconds) + 1
    period = np.minimum(((traffic.at - begin) / seconds).astype(np.intp), n - 1)
    totals = np.bincount(traffic.chosen, minlength=len(traffic.names))
    order = [i for i in np.argsort(-totals, kind="stable").tolist() if totals[i]]
    names = [traffic.names[i] for i in order]
    place = np.zeros(len(traffic.names), dtype=np.intp)
    for rank, i in enumerate(order):
        place[i] = rank
    if len(order) > _SHOWN:
        names = [*names[: _SHOWN - 1], _OTHERS]
        place = np.minimum(place, _SHOWN - 1)
    counts = np.zeros((n, len(names)), dtype=np.int64)
    np.add.at(counts, (period, place[traffic.chosen]), 1)
    costs = np.bincount(period, np.nan_to_num(traffic.cost), minlength=n)
    starts = tuple(datetime.fromtimestamp(begin + i * seconds, UTC) for i in range(n))
    return SharesOverTime(
        tuple(names),
        starts,
        seconds,
        tuple(map(tuple, counts.tolist())),
        tuple(costs.tolist()),
    )


def latencies(traffic: Traffic) -> tuple[Latency, ...]:
    """Return how long answers took: all, then candidate by candidate.

    Parameters
    ----------
    traffic
        From `read_traffic`.
    """
    everything = np.ones(len(traffic), dtype=np.bool_)
    rows = [("all", everything)]
    rows += [(name, traffic.chosen == i) for i, name in enumerate(traffic.names)]
    found = (_latency(name, traffic, mine) for name, mine in rows)
    known = [latency for latency in found if latency is not None]
    return (*known[:1], *sorted(known[1:], key=lambda one: one.p50))


def _latency(name: str, traffic: Traffic, mine: NDArray[np.bool_]) -> Latency | None:
    took = traffic.latency_seconds[mine]
    took = took[np.isfinite(took)]
    if not took.size:
        return None
    first = traffic.time_to_first_token_seconds[mine]
    first = first[np.isfinite(first)]
    early = np.quantile(first, [0.5, 0.95]).tolist() if first.size else [None, None]
    return Latency(
        name, took.size, *np.quantile(took, [0.5, 0.9, 0.95, 0.99]).tolist(), *early
    )


def domain_rows(traffic: Traffic) -> tuple[DomainRow, ...]:
    """Return what came of the queries of each domain, the most frequent first.

    Parameters
    ----------
    traffic
        From `read_traffic`.
    """
    domains = np.array([d or "" for d in traffic.domains], dtype=object)
    names = [str(d) for d in dict.fromkeys(domains.tolist()) if d]
    rows = [_domain(name, traffic, domains == name) for name in names]
    return tuple(sorted(rows, key=lambda row: -row.decisions)[:_DOMAINS])


def _domain(name: str, traffic: Traffic, mine: NDArray[np.bool_]) -> DomainRow:
    counts = np.bincount(traffic.chosen[mine], minlength=len(traffic.names))
    most, n = int(counts.argmax()), int(mine.sum())
    reward = traffic.reward[mine]
    return DomainRow(
        name=name,
        decisions=n,
        feedback=int(np.isfinite(reward).sum()),
        quality=mean_interval(reward),
        expected=known_mean(traffic.predicted_quality[mine]),
        mean_cost=known_mean(traffic.cost[mine]),
        mostly=traffic.names[most],
        mostly_share=float(counts[most]) / n,
    )


def bins_of(traffic: Traffic) -> tuple[Bin, ...]:
    """Return expected beside observed quality, in ten bins of equal width.

    Parameters
    ----------
    traffic
        From `read_traffic`.
    """
    told = np.isfinite(traffic.reward) & np.isfinite(traffic.predicted_quality)
    expected, reward = traffic.predicted_quality[told], traffic.reward[told]
    place = np.clip((expected * _BINS).astype(np.intp), 0, _BINS - 1)
    return tuple(
        Bin(float(expected[mine].mean()), mean_interval(reward[mine]), int(mine.sum()))
        for mine in (place == i for i in range(_BINS))
        if mine.any()
    )
