"""How far to believe few labels: scatter and slopes, drawn to what is usual.

Empirical Bayes, shared by the heads' levels, priors and departures. Our choice.
"""

import numpy as np

from mixllm_integrations.core.types import FloatArray

__all__ = ["label_scatter", "shrunk_slope"]

_LEAST_SCATTER = 0.02
_USUAL_SCATTER, _SCATTER_MASS = 0.2, 5.0  # before a label, and its worth in labels


def label_scatter(means: FloatArray, quality: FloatArray | None) -> float:
    """Return the variance of a label about its candidate's mean.

    What a query does to all candidates alike moves their common level alone and
    is taken off where they were labelled on the same queries. Few labels that
    happen to agree are no reason to be sure: a usual scatter counts beside them.

    Parameters
    ----------
    means
        Of the labels, shape ``(n_candidates,)``.
    quality
        The labels, shape ``(n, n_candidates)``, NaN where unlabelled. Without
        them, labels are taken for 0 or 1.

    Examples
    --------
    >>> label_scatter(np.array([1.0]), np.ones((2, 1)))  # (0 + 5 · 0.2) / (1 + 5)
    0.16666666666666666
    """
    if quality is None:
        return max(float((means * (1.0 - means)).mean()), _LEAST_SCATTER)
    labelled = np.isfinite(quality)
    count = labelled.sum(axis=1, keepdims=True)
    left = np.where(labelled, quality - means, 0.0)
    if count.mean() > 1.5:
        left = left - labelled * left.sum(axis=1, keepdims=True) / np.maximum(count, 1)
        freedom = float(np.maximum(count - 1, 0).sum()) - (len(means) - 1)
    else:
        freedom = float(count.sum()) - len(means)
    seen = float((left**2).sum()) + _SCATTER_MASS * _USUAL_SCATTER
    return max(seen / (max(freedom, 0.0) + _SCATTER_MASS), _LEAST_SCATTER)


def shrunk_slope(
    said: FloatArray,
    truth: FloatArray,
    usual: FloatArray | float,
    *,
    mass: float,
    most: float = 1.0,
) -> FloatArray:
    """Return by how much to multiply what was said, in [0, most], per candidate.

    Parameters
    ----------
    said, truth
        Departures from the mean, shape ``(n, n_candidates)``; truth is NaN where
        unlabelled.
    usual
        The slope before any label.
    mass
        How sure it is: as a normal prior of 1 / mass of a label's variance.
    most
        The largest slope.

    Examples
    --------
    >>> said, truth = np.array([[1.0], [-1.0]]), np.array([[0.5], [-0.5]])
    >>> shrunk_slope(said, truth, 1.0, mass=0.0).tolist()  # 1 / 2
    [0.5]
    """
    labelled = np.isfinite(truth)
    left = np.where(labelled, truth, 0.0)
    given = np.where(labelled, said, 0.0)
    pull = mass * (left**2).sum(axis=0) / np.maximum(labelled.sum(axis=0), 1)
    top = (given * left).sum(axis=0) + pull * usual
    slope = top / np.maximum((given**2).sum(axis=0) + pull, 1e-12)
    return np.asarray(np.clip(slope, 0.0, most))
