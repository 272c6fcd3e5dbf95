"""The goals under time constraint, each beside what was measured."""

from collections.abc import Iterator

from mixllm_integrations.benchmark.latency.results import (
    BLIND,
    MEASURED,
    OURS,
    REFRESHED,
    LatencyResult,
)
from mixllm_integrations.benchmark.online.goals import Goal

__all__ = ["COST_GOAL", "QUALITY_GOAL", "goals"]

# Source: MixLLM, abstract.
QUALITY_GOAL, COST_GOAL = 0.9725, 0.2418


def goals(result: LatencyResult) -> list[Goal]:
    """Return the goals of which something was measured.

    Parameters
    ----------
    result
        All runs.

    Notes
    -----
    Source: issue 6. A point of the sweep counts as below the router without the
    penalty if the mean of the differences, seed by seed, lies below 0 by more
    than their spread.
    """
    return [
        goal
        for contestant in (OURS, REFRESHED, MEASURED)
        for goal in (*_headline(result, contestant), *_never_below(result, contestant))
    ]


def _headline(result: LatencyResult, contestant: str) -> Iterator[Goal]:
    quality = result.spread(contestant, result.usual, "quality")
    cost = result.spread(contestant, result.usual, "cost")
    if quality is None or cost is None:
        return
    where = f"{result.usual.rate:g}/s, τ = {result.usual.tolerance_seconds:g} s"
    yield Goal(
        f"{contestant}, {where}: quality of the strongest without constraint",
        f"≥ {QUALITY_GOAL:.2%}",
        f"{quality[0]:.2%} ± {quality[1]:.2%}",
        quality[0] >= QUALITY_GOAL,
    )
    yield Goal(
        f"{contestant}, {where}: at what share of its cost",
        f"≤ {COST_GOAL:.2%}",
        f"{cost[0]:.2%} ± {cost[1]:.2%}",
        cost[0] <= COST_GOAL,
    )


def _never_below(result: LatencyResult, contestant: str) -> Iterator[Goal]:
    ahead = {
        point: found
        for point in result.points
        if (found := result.ahead(contestant, BLIND, point)) is not None
    }
    if not ahead:
        return
    worst = min(ahead, key=lambda point: ahead[point][0])
    below = sum(mean + spread < 0 for mean, spread in ahead.values())
    mean, spread = ahead[worst]
    yield Goal(
        f"{contestant}: points of the sweep below the router without the penalty",
        f"0 of {len(ahead)}",
        f"{below}; the worst is {100 * mean:+.2f} ± {100 * spread:.2f} points at "
        f"{worst.rate:g}/s, τ = {worst.tolerance_seconds:g} s, λ · {worst.factor:g}",
        below == 0,
    )
