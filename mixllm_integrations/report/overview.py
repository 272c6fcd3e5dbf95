"""What a window of logged traffic came to, candidate by candidate."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.display import notebook_table
from mixllm_integrations.report.traffic import Traffic

__all__ = ["CandidateOverview", "Overview", "overview"]


@dataclass(frozen=True, slots=True)
class CandidateOverview:
    """What came of some decisions.

    Parameters
    ----------
    name
        Whose; ``"all"`` for the sum.
    decisions, answers, errors, abandoned, cached
        How often it was chosen, answered (from a cache included), failed, was
        given up by the caller, and had the answer in a cache.
    share
        Of all decisions.
    explored
        Share of its decisions that were made to learn.
    predicted_quality
        Mean over its decisions; ``None`` without any.
    reward
        Mean feedback; ``None`` without any.
    feedback
        On how many answers there is feedback.
    predicted_on_feedback
        Mean prediction for those with feedback, to compare `reward` with.
    cost
        USD, as far as it is known.
    mean_cost
        USD per answer with a known cost; ``None`` without any.
    drifts
        How often a change of it was noticed.
    """

    name: str
    decisions: int
    share: float
    answers: int
    errors: int
    abandoned: int
    cached: int
    explored: float
    predicted_quality: float | None
    reward: float | None
    feedback: int
    predicted_on_feedback: float | None
    cost: float
    mean_cost: float | None
    drifts: int


@dataclass(frozen=True, slots=True)
class Overview:
    """What a window of traffic came to.

    Parameters
    ----------
    candidates
        Most decisions first.
    total
        All of them together.
    first, last
        When the first and the last decision were made; ``None`` without any.
    randomised
        Share of the decisions that were left to chance.
    replayable
        How many another policy can be tried on.
    unmatched, unreadable
        Outcomes and feedback whose decision is not in the window, and events
        that could not be read.
    """

    candidates: tuple[CandidateOverview, ...]
    total: CandidateOverview
    first: datetime | None
    last: datetime | None
    randomised: float
    replayable: int
    unmatched: int
    unreadable: int

    def _repr_html_(self) -> str:
        ends = [f"{at:%F %H:%M}" for at in (self.first, self.last) if at is not None]
        caption = f"{self.total.decisions:,} decisions {' to '.join(ends)}".strip()
        heads = ("candidate", "decisions", "share", "expected", "feedback", "USD")
        rows = [
            (
                row.name,
                f"{row.decisions:,}",
                f"{row.share:.1%}",
                _or_dash(row.predicted_quality),
                f"{_or_dash(row.reward)} ({row.feedback:,})",
                f"{row.cost:.4g}",
            )
            for row in (*self.candidates, self.total)
        ]
        return notebook_table(caption, heads, rows)


def overview(traffic: Traffic) -> Overview:
    """Return what a window of traffic came to.

    Parameters
    ----------
    traffic
        From `read_traffic`.

    Returns
    -------
    Overview
        With those candidates that were chosen or drifted.
    """
    rows = [
        _of(name, traffic, traffic.chosen == place, traffic.drifts.get(name, 0))
        for place, name in enumerate(traffic.names)
    ]
    known = [row for row in rows if row.decisions or row.drifts]
    everything = np.ones(len(traffic), dtype=np.bool_)
    return Overview(
        candidates=tuple(sorted(known, key=lambda row: -row.decisions)),
        total=_of("all", traffic, everything, sum(traffic.drifts.values())),
        first=traffic.first,
        last=traffic.last,
        randomised=_mean(traffic.propensity < 1.0) or 0.0,
        replayable=int(np.count_nonzero(traffic.replayable)),
        unmatched=traffic.unmatched,
        unreadable=traffic.unreadable,
    )


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _of(
    name: str, traffic: Traffic, mine: NDArray[np.bool_], drifts: int
) -> CandidateOverview:
    told = mine & np.isfinite(traffic.reward)
    costs = traffic.cost[mine & np.isfinite(traffic.cost)]
    count = int(np.count_nonzero(mine))
    ended = {
        state: int(np.count_nonzero(mine & traffic.is_state(state)))
        for state in ("answered", "cached", "abandoned", "failed")
    }
    return CandidateOverview(
        name=name,
        decisions=count,
        share=count / max(len(traffic), 1),
        answers=ended["answered"] + ended["cached"],
        errors=ended["failed"],
        abandoned=ended["abandoned"],
        cached=ended["cached"],
        explored=_mean(traffic.explored[mine]) or 0.0,
        predicted_quality=_mean(traffic.predicted_quality[mine]),
        reward=_mean(traffic.reward[told]),
        feedback=int(np.count_nonzero(told)),
        predicted_on_feedback=_mean(traffic.predicted_quality[told]),
        cost=float(costs.sum()),
        mean_cost=_mean(costs),
        drifts=drifts,
    )


def _mean(values: NDArray[np.generic]) -> float | None:
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    return float(known.mean()) if known.size else None
