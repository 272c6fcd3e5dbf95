"""The goals of learning online, each beside what was measured."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mixllm_integrations.benchmark.online.peers import PEERS
from mixllm_integrations.benchmark.online.results import (
    OnlineResult,
    mean_and_spread,
)

__all__ = ["Goal", "goals"]

_OURS = "ours"
_REFINED_GAIN, _BINARY_GAIN, _UNSEEN_LOSS = 0.0222, 0.0131, 0.03
_QUERIES, _EXPLORATION, _OWN = 1_500, 0.02, 300
_UPDATE_MS, _MILLION_SECONDS, _STATE_MB = 0.2, 300.0, 20.0
_FLAT_MB = 50.0  # our choice: what an allocator keeps is no leak


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal.

    Parameters
    ----------
    what
        In words.
    target, measured
        As text; `measured` with the spread over the seeds.
    reached
        Whether the mean over the seeds is at or beyond the target.
    """

    what: str
    target: str
    measured: str
    reached: bool


def goals(result: OnlineResult) -> list[Goal]:
    """Return the goals of which something was measured.

    Parameters
    ----------
    result
        All runs on one data set.

    Notes
    -----
    Source: issue 5. The gains and losses at equal cost are of the queries held
    out, at the cost of the router that learns nothing (of the one fitted on all
    domains), at the usual willingness to pay.
    """
    return [*_gains(result), *_arrivals(result), *_peers(result), *_load(result)]


def _gains(result: OnlineResult) -> Iterator[Goal]:
    for stream, target in (
        ("refined-30/70", _REFINED_GAIN),
        ("binary-30/70", _BINARY_GAIN),
    ):
        found = result.spread(stream, _OURS, "test_equal_cost")
        if found is not None:
            yield Goal(
                f"{stream}: quality beyond no-online at equal cost",
                f"≥ {target:+.2%}",
                f"{found[0]:+.2%} ± {found[1]:.2%}{_ceiling(result, stream)}",
                found[0] >= target,
            )
    found = result.spread("unseen-domains", _OURS, "loss")
    before = result.spread("unseen-domains", _OURS, "loss_before")
    if found is not None and before is not None:
        yield Goal(
            "unseen domains: lost beside a router fitted on all, after the stream",
            f"≤ {_UNSEEN_LOSS:.2%}",
            f"{found[0]:.2%} ± {found[1]:.2%} (before: {before[0]:.2%})",
            found[0] <= _UNSEEN_LOSS,
        )


def _ceiling(result: OnlineResult, stream: str) -> str:
    """Say what somebody gains who is told all labels of the stream."""
    found = result.spread(stream, "full information", "test_equal_cost")
    return "" if found is None else f" (all labels: {found[0]:+.2%})"


def _arrivals(result: OnlineResult) -> Iterator[Goal]:
    at_most = _mean_at_most
    yield from _first(
        result,
        "newcomer",
        "queries_to_90",
        "newcomer: queries until 90 % of the share it deserves",
        lambda f: at_most(f, _QUERIES, "{:,.0f}", _share_at_the_end(result)),
    )
    yield from _first(
        result,
        "newcomer",
        "explored_cost_share",
        "newcomer: share of the stream's cost spent on exploration",
        lambda f: at_most(f, _EXPLORATION, "{:.2%}"),
    )
    yield from _first(
        result,
        "degraded",
        "own_to_half",
        "degraded favourite: its own queries until half of its traffic is gone",
        lambda f: at_most(f, _OWN, "{:,.0f}"),
    )


_Judged = tuple[str, str, bool]


def _first(
    result: OnlineResult,
    stream: str,
    figure: str,
    what: str,
    judge: Callable[[list[float]], _Judged],
) -> Iterator[Goal]:
    values = [run.extra.get(figure, math.nan) for run in result.of(stream, _OURS)]
    known = [value for value in values if not math.isnan(value)]
    if known:
        yield Goal(what, *judge(known))


def _share_at_the_end(result: OnlineResult) -> str:
    """Say what share of the traffic the newcomer has, lest it should flood."""
    late = result.spread("newcomer", _OURS, "late_share")
    deserved = result.spread("newcomer", _OURS, "informed_share")
    if late is None or deserved is None:
        return ""
    return f" (share at the end {late[0]:.0%}, deserved {deserved[0]:.0%})"


def _mean_at_most(
    values: list[float], target: float, form: str, beside: str = ""
) -> _Judged:
    never = sum(1 for value in values if math.isinf(value))
    found = mean_and_spread(v for v in values if not math.isinf(v))
    shown = [] if found is None else [f"{form} ± {form}".format(*found)]
    if never:
        shown.append(f"never in {never} of {len(values)} seeds")
    reached = not never and found is not None and found[0] <= target
    return f"≤ {form}".format(target), ", ".join(shown) + beside, reached


def _peers(result: OnlineResult) -> Iterator[Goal]:
    for stream in result.streams:
        ours = result.spread(stream, _OURS, "gain")
        others = {
            peer: found
            for peer in PEERS
            if (found := result.spread(stream, peer, "gain")) is not None
        }
        if ours is None or not others:
            continue
        best = max(others, key=lambda peer: others[peer][0])
        yield Goal(
            f"{stream}: cumulative reward above every bandit peer",
            f"> {others[best][0]:+.1f} ({best})",
            f"{ours[0]:+.1f} ± {ours[1]:.1f} beyond no-online",
            ours[0] > others[best][0],
        )


def _load(result: OnlineResult) -> Iterator[Goal]:
    load = result.load
    if load is None:
        return
    took = 1e3 * load.update_p50_seconds
    yield Goal(
        "one update (outcome and feedback)",
        f"≤ {_UPDATE_MS} ms",
        f"p50 {took:.3f} ms, p99 {1e3 * load.update_p99_seconds:.3f} ms "
        f"({load.dimension} numbers)",
        took <= _UPDATE_MS,
    )
    yield Goal(
        "1 million feedbacks",
        f"≤ {_MILLION_SECONDS:.0f} s",
        f"{load.seconds_per_million:.0f} s, from {load.n_feedbacks:,}",
        load.seconds_per_million <= _MILLION_SECONDS,
    )
    before, after = load.resident_bytes_before, load.resident_bytes_after
    if before is not None and after is not None:
        grown = (after - before) / 1e6
        yield Goal(
            f"memory after {load.n_feedbacks:,} feedbacks, beyond that after a tenth",
            f"flat (≤ {_FLAT_MB:.0f} MB)",
            f"{grown:+.1f} MB",
            grown <= _FLAT_MB,
        )
    state = load.state_bytes / 1e6
    yield Goal(
        f"bandit state with {load.n_candidates} candidates",
        f"< {_STATE_MB:.0f} MB",
        f"{state:.1f} MB",
        state < _STATE_MB,
    )
