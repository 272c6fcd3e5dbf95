"""What a wait is charged against the tolerance, in units of the paper's penalty.

Beside `waiting`, which knows the waits.
"""

from dataclasses import dataclass

import numpy as np

from mixllm_integrations.core.types import FloatArray, number_between

__all__ = ["WaitingPenalty"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingPenalty:
    """exp(sharpness · (w - margin · τ) / τ) - exp(-sharpness · margin).

    Parameters
    ----------
    sharpness, margin
        It turns steep at ``margin · τ``, by ``sharpness`` per τ.
    exponent_cap
        Highest exponent; beyond it the penalty grows as a line.

    Raises
    ------
    ConfigurationError
        If a setting cannot be used.

    Notes
    -----
    Source: MixLLM Eq. 10 for a penalty that is exponential in the waiting time
    against τ. That it is exactly 0 without a wait, and the line, are our choice:
    of two overloaded candidates the shorter queue is still the better one. So is
    the shape: at half of τ a wait costs next to nothing, for nobody is late there,
    and at τ more than any answer is worth. What makes a late answer likelier, that
    a wait scatters, is added to it before: `QueueTable.scatter_seconds`.

    Examples
    --------
    >>> penalty = WaitingPenalty(sharpness=2.0, margin=0.5)
    >>> waits = np.array([0.0, 5.0])
    >>> penalty.of(waits, 10.0).round(4).tolist()  # 0, 1 - exp(-1)
    [0.0, 0.6321]
    """

    sharpness: float = 20.0
    margin: float = 0.7
    exponent_cap: float = 6.0

    def __post_init__(self) -> None:
        number_between(self.sharpness, "sharpness", high=100.0, low_is_allowed=False)
        number_between(self.margin, "margin", high=1.0)
        number_between(self.exponent_cap, "exponent_cap", high=100.0)

    def of(self, waits: FloatArray, tolerance_seconds: float) -> FloatArray:
        """Return what waits are charged, before `waiting_weight`.

        Parameters
        ----------
        waits
            Seconds, any shape.
        tolerance_seconds
            τ; infinity: waiting costs nothing.

        Returns
        -------
        FloatArray
            Of the same shape: exactly 0 at no wait, growing with it.
        """
        if not np.count_nonzero(waits):
            return np.zeros(waits.shape)
        head_start = self.sharpness * self.margin
        exponent = self.sharpness * waits / tolerance_seconds
        clipped = np.minimum(exponent, head_start + self.exponent_cap)
        beyond = np.exp(head_start + self.exponent_cap) * (exponent - clipped)
        return np.asarray(np.exp(-head_start) * (np.expm1(clipped) + beyond))
