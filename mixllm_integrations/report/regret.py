"""What learning cost, and which decisions would probably have been better otherwise."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from mixllm_integrations.core.offpolicy import Interval
from mixllm_integrations.core.types import FloatArray
from mixllm_integrations.report.intervals import known_mean, mean_interval
from mixllm_integrations.report.traffic import Traffic

__all__ = ["Exploration", "Regret", "exploration", "regrets"]


@dataclass(frozen=True, slots=True)
class Exploration:
    """What learning cost.

    Parameters
    ----------
    decisions
        How many were made to learn, against what looked best.
    cost
        USD that their answers took.
    extra
        USD by which more was expected of them than of what looked best; NaN if
        that was not logged.
    quality, usual_quality
        Mean feedback on them, and on all others.
    randomised
        Share of the decisions that were left to chance.
    """

    decisions: int
    cost: float
    extra: float
    quality: Interval
    usual_quality: Interval
    randomised: float


@dataclass(frozen=True, slots=True)
class Regret:
    """A decision that turned out worse than another one was expected to.

    Parameters
    ----------
    decision_id, at, candidate, domain
        Which decision.
    reward, expected
        The feedback, and what was expected of the answer.
    cost
        USD; as predicted if unknown.
    instead, instead_quality, instead_cost
        Who looked best apart from that, and what was expected of it.
    regret
        What that one was expected to be worth more, in units of quality: an
        estimate, since nobody saw its answer.
    """

    decision_id: str
    at: datetime
    candidate: str
    domain: str | None
    reward: float
    expected: float
    cost: float
    instead: str
    instead_quality: float
    instead_cost: float
    regret: float


def exploration(traffic: Traffic) -> Exploration:
    """Return what learning cost.

    Parameters
    ----------
    traffic
        From `read_traffic`.

    Notes
    -----
    What looked best is found from the logged scores; a head start that a session
    gave to a candidate is not among them.
    """
    made = traffic.explored
    extra = _net_of_all(traffic)
    rows = np.flatnonzero(made & np.isfinite(extra).any(axis=1))
    more = np.zeros(0)
    if len(rows):
        greedy = np.nan_to_num(extra[rows], nan=-np.inf).argmax(axis=1)
        cost = traffic.scores["cost"]
        more = cost[rows, traffic.chosen[rows]] - cost[rows, greedy]
    return Exploration(
        decisions=int(made.sum()),
        cost=float(np.nansum(traffic.cost[made])),
        extra=float(np.nansum(more))
        if len(rows)
        else (math.nan if made.any() else 0.0),
        quality=mean_interval(traffic.reward[made]),
        usual_quality=mean_interval(traffic.reward[~made]),
        randomised=known_mean((traffic.propensity < 1.0).astype(float))
        if len(traffic)
        else 0.0,
    )


def regrets(traffic: Traffic, *, most: int = 20) -> tuple[Regret, ...]:
    """Return the decisions that another one would probably have been better than.

    Parameters
    ----------
    traffic
        From `read_traffic`.
    most
        How many.

    Returns
    -------
    tuple of Regret
        Those with feedback, the most regretted first.
    """
    net = _net_of_all(traffic)
    rows = np.arange(len(traffic))
    if not len(rows) or not traffic.names:
        return ()
    net[rows, traffic.chosen] = np.nan
    known = np.isfinite(traffic.reward) & np.isfinite(net).any(axis=1)
    rows = rows[known]
    best = np.nan_to_num(net[rows], nan=-np.inf).argmax(axis=1)
    paid = np.where(np.isfinite(traffic.cost), traffic.cost, traffic.predicted_cost)
    got = traffic.reward[rows] - np.nan_to_num(paid[rows]) / _worth(traffic)[rows]
    regret = net[rows, best] - got
    order = np.argsort(-regret, kind="stable")[:most]
    return tuple(
        _regret(
            traffic, int(rows[i]), int(best[i]), float(regret[i]), float(paid[rows[i]])
        )
        for i in order.tolist()
        if regret[i] > 0.0
    )


def _regret(
    traffic: Traffic, row: int, best: int, regret: float, paid: float
) -> Regret:
    return Regret(
        decision_id=traffic.ids[row],
        at=datetime.fromtimestamp(float(traffic.at[row]), UTC),
        candidate=traffic.names[traffic.chosen[row]],
        domain=traffic.domains[row],
        reward=float(traffic.reward[row]),
        expected=float(traffic.predicted_quality[row]),
        cost=paid,
        instead=traffic.names[best],
        instead_quality=float(traffic.scores["quality"][row, best]),
        instead_cost=float(traffic.scores["cost"][row, best]),
        regret=regret,
    )


def _net_of_all(traffic: Traffic) -> FloatArray:
    """Return quality - cost / λ - waiting of who might have answered, else NaN."""
    net = traffic.scores["quality"] - traffic.scores["cost"] / _worth(traffic)[:, None]
    weight = np.nan_to_num(traffic.waiting_weight)[:, None]
    net = net - weight * np.nan_to_num(traffic.scores["waiting_penalty"])
    return np.where(traffic.eligible, net, np.nan)


def _worth(traffic: Traffic) -> FloatArray:
    # Infinity is not a number that a log can hold.
    known = np.isfinite(traffic.willingness_to_pay) & (traffic.willingness_to_pay > 0.0)
    return np.where(known, traffic.willingness_to_pay, np.inf)
