"""Latent traits of queries, read off the labels of all candidates at once.

Beside stage 3. How easy a query is, and which kinds of candidates it favours:
a few numbers that say most of what there is to learn of a query, shared by all
candidates. Text is regressed on them, and what it says of them is a feature
that a newcomer's own heads use as the others' do.
"""

import numpy as np

from mixllm_integrations.core.types import FloatArray

__all__ = ["query_traits"]

_CONTRASTS = 6  # our choice; 3 to 6 serve alike
_QUERIES_PER_CONTRAST = 50


def query_traits(quality: FloatArray) -> FloatArray:
    """Return the ease of each query, then its contrasts.

    Parameters
    ----------
    quality
        Labels, shape ``(n, n_candidates)``, NaN where unlabelled.

    Returns
    -------
    FloatArray
        Shape ``(n, n_traits)``. The first column is how much better than usual
        the candidates did, shrunk where few are labelled; the others are the
        leading principal components of what is left of each label when the
        candidate's mean and the query's ease are taken off, of equal scale.

    Notes
    -----
    Our choice, after item response theory: difficulty first, then the
    directions in which candidates differ.

    Examples
    --------
    >>> query_traits(np.array([[1.0, 1.0], [0.0, 0.0]])).ravel().round(2).tolist()
    [0.33, -0.33]
    """
    labelled = np.isfinite(quality)
    counts = labelled.sum(axis=0)
    filled = np.where(labelled, quality, 0.0)
    means = filled.sum(axis=0) / np.maximum(counts, 1)
    above = np.where(labelled, quality - means, 0.0)
    ease = above.sum(axis=1) / (labelled.sum(axis=1) + 1.0)
    rest = np.where(labelled, above - ease[:, None], 0.0)
    n_contrasts = min(
        _CONTRASTS, quality.shape[1] - 1, len(quality) // _QUERIES_PER_CONTRAST
    )
    if n_contrasts < 1:
        return np.asarray(ease[:, None])
    values, vectors = np.linalg.eigh(rest.T @ rest)
    leading = vectors[:, ::-1][:, :n_contrasts]
    leading = leading[:, values[::-1][:n_contrasts] > 1e-9 * max(values[-1], 1e-9)]
    signs = np.sign(leading[np.abs(leading).argmax(axis=0), range(leading.shape[1])])
    contrasts = rest @ (leading * signs)
    spread = contrasts.std(axis=0)
    contrasts = contrasts / np.maximum(spread, 1e-9) * rest.std()
    return np.column_stack([ease, contrasts])
