"""Beside `policy`: how probable each draw of a Thompson sampler is, exactly."""

import math

import numpy as np

from mixllm_integrations.core.types import FloatArray

__all__ = ["chances_of_winning"]

_REACH = 6.5  # standard deviations; beyond lies less than 1e-10
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_NODES, _WEIGHTS = (_NODES + 1.0) / 2.0, _WEIGHTS / 2.0  # from [-1, 1] to [0, 1]
_ROOT_2_PI = math.sqrt(2.0 * math.pi)


def chances_of_winning(means: FloatArray, deviations: FloatArray) -> FloatArray:
    """Return how probably each of some independent normals is the highest.

    Parameters
    ----------
    means
        Finite, shape ``(n,)``.
    deviations
        Standard deviations, 0 or more, shape ``(n,)``. Of several that are 0
        and share the highest mean the first one wins.

    Returns
    -------
    FloatArray
        Shape ``(n,)``, 0 or more; the sum is 1 within 1e-6.

    Notes
    -----
    Source: the definition P(i) = ∫ φ_i(t) Π_{j≠i} Φ_j(t) dt; its quadrature is
    our choice. All lower ends lie below ``low``, the highest of them, and less
    than that is never the maximum. So whoever still matters at ``low + a`` has a
    deviation of at least ``a / 13``: panels that double in width from there on
    are never too coarse, however much the deviations differ.

    Examples
    --------
    >>> chances_of_winning(np.array([0.6, 0.6]), np.array([0.1, 0.3])).round(9).tolist()
    [0.5, 0.5]
    """
    found = np.zeros(len(means))
    reach = _REACH * deviations
    low = float((means - reach).max())  # no less than the highest certain one
    certain = np.flatnonzero(deviations <= 0.0)
    best = certain[means[certain] >= low][:1]
    drawn = np.flatnonzero((means + reach > low) & (deviations > 0.0))
    if not drawn.size:
        found[best if best.size else means.argmax()] = 1.0
        return found
    at, scale = means[drawn, None], deviations[drawn, None]
    points, weights = _panels(low, float((at + _REACH * scale).max()), scale.min())
    below, density = _normals((points - at) / scale)
    density /= below
    chances = density @ (weights * below.prod(axis=0))
    found[drawn] = chances / (scale[:, 0] * _ROOT_2_PI)
    if best.size:
        found[best] = _normals((low - at) / scale)[0].prod()
    return found


def _panels(low: float, high: float, finest: float) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights between two ends, closest together at the lower."""
    width = high - low
    doublings = max(math.ceil(math.log2(width / (_REACH * finest))), 0)
    ends = width * 2.0 ** -np.arange(doublings, -1.0, -1.0)
    starts = np.concatenate(([0.0], ends[:-1]))
    sizes = (ends - starts)[:, None]
    points = low + starts[:, None] + sizes * _NODES
    return points.ravel(), (sizes * _WEIGHTS).ravel()


def _normals(z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return Φ(z), and φ(z) without its constant."""
    from scipy.special import ndtr

    return ndtr(z), np.exp(-0.5 * z * z)
