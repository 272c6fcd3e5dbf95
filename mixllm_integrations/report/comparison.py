"""What the traffic would have cost and earned otherwise, beside what it did."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.offpolicy import Interval
from mixllm_integrations.report.traffic import Traffic
from mixllm_integrations.report.what_if import Target, WhatIf, what_if

__all__ = ["Alternative", "Comparison", "compare", "reference_of"]

# All our choice.
_FACTORS = (1 / 16, 1 / 4, 1 / 2, 2, 4, 16)
_MOST_CANDIDATES = 12
_MOST_REPLAYED = 20_000  # decisions; the newest


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another way to decide, and what it would have come to per decision.

    Parameters
    ----------
    name
        What it is.
    kind
        ``"now"``: what happened; ``"worth"``: another willingness to pay;
        ``"always"``: one candidate.
    quality, cost
        Per decision, cost in USD.
    quality_change, cost_change
        Relative to what happened: 0.1 is 10 % more.
    model_only
        Whether nothing but the router's own predictions speaks for it.
    """

    name: str
    kind: Literal["now", "worth", "always"]
    quality: Interval
    cost: Interval
    quality_change: Interval
    cost_change: Interval
    model_only: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """What happened beside a reference and other settings.

    Parameters
    ----------
    reference
        The candidate that would always have answered.
    saved
        Share of the reference's cost that was not spent; negative: more was.
    saved_cost
        The same in USD, over all decisions of the window that count.
    quality_kept
        Quality as a share of the reference's.
    now
        What happened.
    alternatives
        By willingness to pay, then always one candidate.
    willingness_to_pay
        The middlemost of the log, in USD.
    decisions, feedback
        How many are compared, and how many of them somebody judged.
    model_only
        Whether nothing but the router's own predictions speaks for the reference.
    warnings
        What to know before believing the figures.
    """

    reference: str
    saved: Interval
    saved_cost: float
    quality_kept: Interval
    now: Alternative
    alternatives: tuple[Alternative, ...]
    willingness_to_pay: float
    decisions: int
    feedback: int
    model_only: bool
    warnings: tuple[str, ...]


def reference_of(traffic: Traffic) -> str | None:
    """Return whom to compare with: of whom most quality is expected.

    Parameters
    ----------
    traffic
        From `read_traffic`.

    Returns
    -------
    str or None
        Among those that might have had at least half of the decisions; ``None`` if
        no scores were logged.
    """
    is_scored = traffic.eligible.any(axis=1)
    if not is_scored.any():
        return None
    may, quality = traffic.eligible[is_scored], traffic.scores["quality"][is_scored]
    cost = traffic.scores["cost"][is_scored]
    counts = may.sum(axis=0)
    often = counts >= min(0.5 * len(may), counts.max())
    totals = [np.where(may, values, 0.0).sum(axis=0) for values in (quality, cost)]
    means = [total / np.maximum(counts, 1) for total in totals]
    ranked = sorted(
        np.flatnonzero(often).tolist(),
        key=lambda place: (means[0][place], means[1][place]),
    )
    return traffic.names[ranked[-1]]


def compare(traffic: Traffic, *, reference: str | None = None) -> Comparison:
    """Return what happened beside a reference and other settings.

    Parameters
    ----------
    traffic
        From `read_traffic`.
    reference
        Name of a candidate; ``None``: see `reference_of`.

    Raises
    ------
    UnknownCandidateError
        If the log does not name the reference.
    ConfigurationError
        If no decision can be replayed.

    Notes
    -----
    Our choice: the newest 20,000 decisions that can be replayed are.
    """
    if reference is not None and reference not in traffic.names:
        raise UnknownCandidateError(reference, traffic.names)
    named = reference or reference_of(traffic)
    if named is None:
        raise ConfigurationError(
            "no decision in the log can be replayed: no scores were logged"
        )
    usable = np.flatnonzero(traffic.replayable)
    kept = np.zeros(len(traffic), dtype=np.bool_)
    kept[usable[-_MOST_REPLAYED:]] = True
    recent = traffic.select(kept) if len(usable) else traffic
    worth = _usual_worth(recent)
    targets = [Target(always=named)]
    targets += [Target(willingness_to_pay=factor * worth) for factor in _FACTORS]
    targets += [Target(always=name) for name in _others(recent, named)]
    against, *results = what_if(recent, targets)
    return _comparison(named, worth, against, results)


def _usual_worth(traffic: Traffic) -> float:
    known = traffic.willingness_to_pay[np.isfinite(traffic.willingness_to_pay)]
    known = known[known > 0.0]
    return float(np.median(known)) if known.size else 0.01


def _others(traffic: Traffic, reference: str) -> list[str]:
    could = np.count_nonzero(traffic.eligible, axis=0)
    order = np.argsort(-could, kind="stable")[:_MOST_CANDIDATES]
    names = [traffic.names[place] for place in order if could[place]]
    return [name for name in names if name != reference]


def _comparison(
    reference: str, worth: float, against: WhatIf, results: Sequence[WhatIf]
) -> Comparison:
    found = against.evaluation
    best, logged = found.best, found.logged
    saved = _saved(best.cost_change)
    spent = logged.cost.value * found.n_decisions
    share = saved.value
    unchanged = Interval(0.0, 0.0, 0.0)
    now = Alternative("now", "now", logged.reward, logged.cost, unchanged, unchanged)
    names = [f"λ × {factor:g}" for factor in _FACTORS]
    names = [n.replace("0.0625", "1/16").replace("0.25", "1/4") for n in names]
    names = [n.replace("0.5", "1/2") for n in names]
    told = [
        _alternative(result, name, "worth")
        for name, result in zip(names, results, strict=False)
    ]
    told += [_alternative(against, reference, "always")]
    told += [
        _alternative(result, str(result.target.always), "always")
        for result in results[len(_FACTORS) :]
    ]
    return Comparison(
        reference=reference,
        saved=saved,
        saved_cost=spent * share / (1.0 - share) if share < 1.0 else math.nan,
        quality_kept=_kept(best.reward_change),
        now=now,
        alternatives=tuple(told),
        willingness_to_pay=worth,
        decisions=found.n_decisions,
        feedback=found.n_feedback,
        model_only=found.doubly_robust is None,
        warnings=found.warnings,
    )


def _alternative(
    result: WhatIf, name: str, kind: Literal["worth", "always"]
) -> Alternative:
    best = result.evaluation.best
    return Alternative(
        name,
        kind,
        best.reward,
        best.cost,
        best.reward_change,
        best.cost_change,
        result.evaluation.doubly_robust is None,
    )


def _saved(change: Interval) -> Interval:
    """Return what was saved of a cost that is greater by some share."""
    # 1 - logged / reference, where the reference is (1 + change) times the logged.
    ends = [1.0 - 1.0 / (1.0 + c) if c > -1.0 else -math.inf for c in _ends(change)]
    return Interval(*ends)


def _kept(change: Interval) -> Interval:
    """Return the logged quality as a share of one greater by some share."""
    value, low, high = (
        1.0 / (1.0 + c) if c > -1.0 else math.inf for c in _ends(change)
    )
    return Interval(value, high, low)


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high
