"""Asks less: where the prediction is least sure, until the means are known well.

Our choice, since the paper labels everything. Every candidate answers the first
prompts. After that, in each round, half of what a candidate is asked is what a
router fitted on all records so far is least sure of (the widest
``predict().uncertainty``), and half the next prompts by lot. A candidate is done
when the 95 % interval of its mean quality over the sample is narrow enough. The
interval is that of the prompts by lot alone, from the first on without a gap: what
was picked by uncertainty is no fair sample. It has the correction for a finite
sample, so it is 0 when all is asked, and counts one more answer of quality 0 and one
of quality 1, so that a few equal grades do not pass for certainty.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.types import Candidate, RoutingRecord

__all__ = ["Adaptive", "half_width", "least_sure", "next_by_lot"]

_NORMAL_95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """When labelling may stop.

    Parameters
    ----------
    half_width
        Half of the 95 % interval of each candidate's mean quality.
    first
        How many prompts every candidate answers before anything is chosen; 20 are
        what a router needs to be fitted.
    step
        How many more each candidate is asked in a round.

    Raises
    ------
    ConfigurationError
        If a value cannot be used.
    """

    half_width: float = 0.05
    first: int = 30
    step: int = 20

    def __post_init__(self) -> None:
        number_between(self.half_width, "half_width", high=1.0, low_is_allowed=False)
        number_between(self.first, "first", low=1, high_is_allowed=False)
        number_between(self.step, "step", low=2, high_is_allowed=False)


def half_width(grades: Sequence[float], total: float = math.inf) -> float:
    """Return half of the 95 % interval of a mean.

    Parameters
    ----------
    grades
        Those that are known, drawn by lot.
    total
        How many there would be; infinity: the traffic, not only a sample of it.

    Examples
    --------
    >>> half_width([1.0, 1.0], 2), round(half_width([1.0, 0.0]), 2)
    (0.0, 0.49)
    """
    count = len(grades)
    if count >= total:
        return 0.0
    seen = (*grades, 0.0, 1.0)
    mean = math.fsum(seen) / len(seen)
    variance = math.fsum((grade - mean) ** 2 for grade in seen) / len(seen)
    left = 1.0 if math.isinf(total) else (total - count) / max(total - 1, 1)
    return _NORMAL_95 * math.sqrt(variance / len(seen) * left)


def next_by_lot(
    states: Sequence[float | bool | None], count: int
) -> tuple[list[float], list[int]]:
    """Return the grades of the prompts by lot, and which come next.

    Parameters
    ----------
    states
        Of each prompt in the order of the lot: its grade, ``False`` if it failed,
        ``None`` if it was not asked.
    count
        How many may come next.

    Returns
    -------
    tuple
        The grades up to the first gap, and places of the next ones to ask.

    Examples
    --------
    >>> next_by_lot([1.0, False, 0.5, None, 1.0, None], 2)
    ([1.0, 0.5], [3, 5])
    """
    gap = next((n for n, s in enumerate(states) if s is None), len(states))
    grades = [float(s) for s in states[:gap] if s is not False and s is not None]
    return grades, [n for n, s in enumerate(states) if s is None][:count]


def least_sure(
    candidates: Sequence[Candidate],
    records: Sequence[RoutingRecord],
    queries: Sequence[str],
    *,
    seed: int,
) -> Mapping[str, list[int]]:
    """Return which queries a fitted router is least sure of, by candidate.

    Parameters
    ----------
    candidates
        All of them.
    records
        What is known so far; too few make no difference between queries.
    queries
        What might be asked.
    seed
        Of the router.

    Returns
    -------
    Mapping
        Places in `queries`, the least sure first; empty if no router can be
        fitted yet.
    """
    from mixllm_integrations.core.router import Router

    if len({record.query for record in records}) < 20 or not queries:
        return {}
    router = Router(candidates, predictor="ridge", seed=seed).fit(records)
    expected = router.predict(queries)
    return {
        name: (-expected.uncertainty[:, column]).argsort(kind="stable").tolist()
        for column, name in enumerate(expected.candidates)
    }
