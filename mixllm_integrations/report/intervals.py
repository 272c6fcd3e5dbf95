"""How far a mean may be from the truth."""

import math

import numpy as np

from mixllm_integrations.core.offpolicy import Interval
from mixllm_integrations.core.types import FloatArray

__all__ = ["known_mean", "mean_interval", "wilson"]

_Z = 1.959963984540054
_RESAMPLES, _FEW = (
    1_000,
    2_000,
)  # so many values are resampled, more are not (our choice)


def known_mean(values: FloatArray) -> float:
    """Return the mean of what is known; NaN without any.

    Parameters
    ----------
    values
        NaN where nothing is.
    """
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else math.nan


def mean_interval(values: FloatArray, *, seed: int = 0) -> Interval:
    """Return a mean and its 95 % confidence interval.

    Parameters
    ----------
    values
        Any; NaN is left out.
    seed
        Of the resampling.

    Returns
    -------
    Interval
        Wilson's for values of 0 and 1. Else percentiles over resampled values, or
        the normal one where there are more than 2,000. NaN without any.

    Examples
    --------
    >>> found = mean_interval(np.array([0.2, 0.4, 0.9]))
    >>> found.value, found.low >= 0.2, found.high <= 0.9
    (0.5, True, True)
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    n = len(known)
    if not n:
        return Interval(math.nan, math.nan, math.nan)
    mean = float(known.mean())
    if ((known == 0.0) | (known == 1.0)).all():
        return wilson(int(known.sum()), n)
    if n == 1:
        return Interval(mean, math.nan, math.nan)
    if n > _FEW:
        half = _Z * float(known.std(ddof=1)) / math.sqrt(n)
        return Interval(mean, mean - half, mean + half)
    drawn = np.random.default_rng(seed).integers(0, n, size=(_RESAMPLES, n))
    low, high = np.quantile(known[drawn].mean(axis=1), [0.025, 0.975])
    return Interval(mean, float(low), float(high))


def wilson(good: int, n: int) -> Interval:
    """Return a share and Wilson's 95 % interval of it.

    Parameters
    ----------
    good
        How many of them.
    n
        How many there are, at least one.

    Examples
    --------
    >>> found = wilson(8, 10)
    >>> found.value, round(found.low, 3), round(found.high, 3)
    (0.8, 0.49, 0.943)
    """
    share = good / n
    scale = 1.0 + _Z**2 / n
    middle = (share + _Z**2 / (2 * n)) / scale
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / scale
    return Interval(share, max(middle - half, 0.0), min(middle + half, 1.0))
