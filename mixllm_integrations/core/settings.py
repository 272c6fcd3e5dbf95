"""What a router was told when it was made, checked once."""

from dataclasses import dataclass

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.predictors.selection import checked_kind
from mixllm_integrations.core.types import number_between

__all__ = ["RouterSettings"]


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
    seed: int = 0

    def __post_init__(self) -> None:
        checked_kind(self.predictor)
        number_between(self.n_domains, "n_domains", low=0, high=1_000)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ConfigurationError(f"seed must be an int, not {self.seed!r}")
        number_between(self.seed, "seed", high=2**31)
