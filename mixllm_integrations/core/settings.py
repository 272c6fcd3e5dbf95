"""What a router was told when it was made, checked once."""

from dataclasses import dataclass
from typing import Literal, get_args

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.predictors.selection import checked_kind
from mixllm_integrations.core.types import (
    IMPLICIT_SIGNALS,
    ImplicitSignal,
    number_between,
)

__all__ = ["BINARY_FEEDBACK", "BinaryFeedback", "RouterSettings"]

BinaryFeedback = Literal["bayes", "policy_gradient"]
BINARY_FEEDBACK: tuple[BinaryFeedback, ...] = get_args(BinaryFeedback)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSettings:
    """Settings that stay as they are; those that may change live in the policy.

    Parameters
    ----------
    predictor
        ``"auto"`` or one kind for all candidates.
    n_domains
        The most domains that tags are grouped into; 0: none.
    l2
        Ridge of the design matrices.
    forgetting
        What older online data are multiplied by at each new observation.
    decision_capacity, decision_max_age_seconds
        How many decisions may await feedback, and how long.
    binary_feedback
        How 0 and 1 are learned from, of `BINARY_FEEDBACK`.
    implicit_signals
        Which of what the traffic tells is learned from.
    refit_every
        After how many observations the offline heads are fitted again in the
        background; ``None``: only when `Router.refit` is called.
    exploration_budget, exploration_period_seconds
        Share of the spending of a period that exploring may add; ``None``: any,
        but 0.02 while newcomers are tried.
    seed
        Decides everything that is drawn.

    Raises
    ------
    ConfigurationError
        If a value cannot be used.
    """

    predictor: str = "auto"
    n_domains: int = 20
    l2: float = 1.0
    forgetting: float = 1.0
    decision_capacity: int = 20_000
    decision_max_age_seconds: float = 7 * 86_400.0
    binary_feedback: BinaryFeedback = "bayes"
    implicit_signals: tuple[ImplicitSignal, ...] = ()
    refit_every: int | None = None
    exploration_budget: float | None = None
    exploration_period_seconds: float = 86_400.0
    seed: int = 0

    def __post_init__(self) -> None:
        checked_kind(self.predictor)
        number_between(self.n_domains, "n_domains", low=0, high=1_000)
        self._check_learning()
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ConfigurationError(f"seed must be an int, not {self.seed!r}")
        number_between(self.seed, "seed", high=2**31)

    def _check_learning(self) -> None:
        if self.binary_feedback not in BINARY_FEEDBACK:
            raise ConfigurationError(
                f"binary_feedback must be one of {BINARY_FEEDBACK}, not "
                f"{self.binary_feedback!r}"
            )
        given = self.implicit_signals
        if isinstance(given, str) or not set(given) <= set(IMPLICIT_SIGNALS):
            raise ConfigurationError(
                f"implicit_signals must be some of {IMPLICIT_SIGNALS}, not {given!r}"
            )
        object.__setattr__(self, "implicit_signals", tuple(given))
        if self.refit_every is not None:
            number_between(self.refit_every, "refit_every", low=1)
        if self.exploration_budget is not None:
            number_between(self.exploration_budget, "exploration_budget", high=1.0)
        number_between(
            self.exploration_period_seconds,
            "exploration_period_seconds",
            low_is_allowed=False,
        )
