"""What other policies would have earned and cost on logged traffic."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.logged import LoggedDecisions
from mixllm_integrations.core.offpolicy import Evaluation, evaluate
from mixllm_integrations.core.policy import MetaDecisionMaker, Policy, Scoreboard
from mixllm_integrations.core.types import FloatArray, number_between
from mixllm_integrations.report.traffic import Traffic

__all__ = ["Target", "WhatIf", "what_if"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Another way to decide. Without anything it decides as the log's own scores do.

    Parameters
    ----------
    willingness_to_pay
        λ in USD for one whole point of quality; ``None``: that of each decision.
    exploration, waiting_weight
        Weights of the uncertainty and of the waiting penalty; ``None``: those of
        each decision.
    always
        The one candidate that answers. Where it could not have been chosen, the
        logged choice stays.
    policy
        Anything that chooses from a scoreboard; it goes before the weights.

    Raises
    ------
    ConfigurationError
        If a value cannot be used, or both a policy and a candidate are given.
    """

    willingness_to_pay: float | None = None
    exploration: float | None = None
    waiting_weight: float | None = None
    always: str | None = None
    policy: Policy | None = None

    def __post_init__(self) -> None:
        if self.willingness_to_pay is not None:
            number_between(
                self.willingness_to_pay, "willingness_to_pay", low_is_allowed=False
            )
        for name in ("exploration", "waiting_weight"):
            if getattr(self, name) is not None:
                number_between(getattr(self, name), name, high_is_allowed=False)
        if self.always is not None and self.policy is not None:
            raise ConfigurationError(
                f"either candidate {self.always!r} always answers, or a policy chooses"
            )

    def __str__(self) -> str:
        if self.always is not None:
            return f"always {self.always}"
        told = [] if self.policy is None else [type(self.policy).__name__]
        names = {"λ": self.willingness_to_pay, "exploration": self.exploration}
        names["waiting weight"] = self.waiting_weight
        told += [f"{name} = {v:g}" for name, v in names.items() if v is not None]
        return ", ".join(told) or "the same settings"


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What one target would have come to.

    Parameters
    ----------
    target
        Which.
    willingness_to_pay
        λ in USD at which quality and cost were weighed against each other: the
        target's own, else the middlemost of the log.
    evaluation
        Estimates beside what really happened.
    shares
        Share of the decisions that each candidate would have had.
    left_out
        How many decisions of the window could not be replayed, by reason.
    unavailable
        How many the wanted candidate could not have had.
    """

    target: Target
    willingness_to_pay: float
    evaluation: Evaluation
    shares: Mapping[str, float]
    left_out: Mapping[str, int]
    unavailable: int = 0


def what_if(
    traffic: Traffic, targets: Sequence[Target], *, seed: int = 0
) -> list[WhatIf]:
    """Return what other policies would have earned and cost.

    Parameters
    ----------
    traffic
        From `read_traffic`.
    targets
        What to try.
    seed
        Of what a target leaves to chance; it is replayed once.

    Returns
    -------
    list of WhatIf
        One per target.

    Raises
    ------
    ConfigurationError
        If no decision can be replayed.
    UnknownCandidateError
        If a candidate is to answer that the log does not name.

    Notes
    -----
    Our choice. A target sees what was logged at the time: predictions, who was
    eligible, and the queues as they were under the policy that was in force. What
    the router would have learned from other choices is not replayed, nor is the
    head start that a session gave to a candidate, nor are lots and the draws of
    Thompson sampling: a target decides without chance unless it has a policy of
    its own. A bonus of the form ``"leverage"`` is replayed as ``"width"``.
    """
    usable = traffic.replayable
    left_out = _left_out(traffic, usable)
    if not usable.any():
        why = ", ".join(f"{n:,} {reason}" for reason, n in left_out.items())
        raise ConfigurationError(
            f"none of the {len(traffic):,} decisions in the log can be replayed"
            f"{': ' * bool(why)}{why}"
        )
    replay = _Replay(traffic, usable)
    return [replay.of(target, left_out, seed) for target in targets]


def _left_out(traffic: Traffic, usable: NDArray[np.bool_]) -> dict[str, int]:
    reasons = {
        "failed": traffic.is_state("failed"),
        "abandoned": traffic.is_state("abandoned"),
        "answered from a cache": traffic.is_state("cached"),
    }
    counts = {why: int(np.count_nonzero(rows)) for why, rows in reasons.items()}
    counts["logged without scores"] = int(
        np.count_nonzero(~usable & traffic.is_state("open", "answered"))
    )
    return {why: count for why, count in counts.items() if count}


class _Replay:
    """The decisions that can be replayed, as every target sees them."""

    def __init__(self, traffic: Traffic, usable: NDArray[np.bool_]) -> None:
        self._names = traffic.names
        self._eligible = traffic.eligible[usable]
        self._scores = {
            name: np.where(self._eligible, values[usable], 0.0)
            for name, values in traffic.scores.items()
        }
        # Infinity is not a number that a log can hold.
        worth = traffic.willingness_to_pay[usable]
        self._worth = np.where(np.isfinite(worth), worth, np.inf)
        self._weights = np.nan_to_num(
            np.column_stack(
                [traffic.exploration[usable], traffic.waiting_weight[usable]]
            )
        )
        self._log = LoggedDecisions(
            chosen=traffic.chosen[usable],
            propensity=traffic.propensity[usable],
            reward=traffic.reward[usable],
            cost=traffic.cost[usable],
            predicted_reward=self._scores["quality"],
            predicted_cost=self._scores["cost"],
            eligible=self._eligible,
        )

    def of(self, target: Target, left_out: Mapping[str, int], seed: int) -> WhatIf:
        if target.always is not None:
            chosen, unavailable = self._always(target.always)
        else:
            rng = np.random.default_rng(seed)
            chosen = np.array(list(self._choices(target, rng)), dtype=np.intp)
            unavailable = 0
        wanted: FloatArray = np.zeros(self._eligible.shape)
        wanted[np.arange(len(chosen)), chosen] = 1.0
        worth = target.willingness_to_pay or float(np.median(self._worth))
        shares = wanted.mean(axis=0).tolist()
        return WhatIf(
            target=target,
            willingness_to_pay=worth,
            evaluation=evaluate(self._log, wanted, willingness_to_pay=worth),
            shares=dict(zip(self._names, shares, strict=True)),
            left_out=left_out,
            unavailable=unavailable,
        )

    def _always(self, name: str) -> tuple[NDArray[np.intp], int]:
        if name not in self._names:
            raise UnknownCandidateError(name, self._names)
        place = self._names.index(name)
        may = self._eligible[:, place]
        return np.where(may, place, self._log.chosen), int(np.count_nonzero(~may))

    def _choices(self, target: Target, rng: np.random.Generator) -> Iterator[int]:
        columns = (*self._scores.values(), self._eligible)
        policies = self._policies(target)
        for policy, *row in zip(policies, *columns, strict=True):
            yield policy.choose(Scoreboard(*row), rng=rng).index

    def _policies(self, target: Target) -> Iterator[Policy]:
        """Yield who decides, decision by decision."""
        made: dict[tuple[float, float, float], Policy] = {}
        exploration, waiting_weight = target.exploration, target.waiting_weight
        worth = target.willingness_to_pay
        for own, (logged, waiting) in zip(
            self._worth.tolist(), self._weights.tolist(), strict=True
        ):
            if target.policy is not None:
                yield target.policy
                continue
            key = (
                own if worth is None else worth,
                logged if exploration is None else exploration,
                waiting if waiting_weight is None else waiting_weight,
            )
            if key not in made:
                made[key] = MetaDecisionMaker(
                    willingness_to_pay=key[0],
                    exploration=key[1],
                    waiting_weight=key[2],
                )
            yield made[key]
