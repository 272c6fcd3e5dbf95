"""Domains without tags: clusters of the queries themselves.

Beside stage 2, for records that nobody tagged. Queries that mean alike and
look alike form a domain; it is named after the words that set it apart.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.types import FloatArray
from mixllm_integrations.core.wordpieces import WordPieces, shipped_tokenizer

__all__ = ["cluster_queries", "fit_clusters"]

_CLUSTERS, _QUERIES_PER_CLUSTER = 15, 50  # our choice; 15 to 30 serve alike
_FITTED_ON = 10_000  # queries
_WORDS_PER_NAME, _SHORTEST_WORD = 3, 4
_NAMELESS = "no word of its own"


def cluster_queries(
    ids: Sequence[NDArray[np.int32]],
    places: NDArray[np.float32],
    *,
    n_domains: int,
    seed: int,
) -> tuple[tuple[str, ...], FloatArray]:
    """Group queries into domains and say which each belongs to.

    Parameters
    ----------
    ids
        Word pieces of each query, for the names.
    places
        Where the queries lie, shape ``(n, n_dimensions)``.
    n_domains
        The most domains there may be; 0: none.
    seed
        Of the clustering.

    Returns
    -------
    tuple of str
        Domains, each named after its number and the words that are more frequent
        in it than elsewhere; empty if the queries are too few for two, or lie
        all at one place.
    FloatArray
        1 where a query belongs to a domain, shape ``(n, n_domains)``.

    Notes
    -----
    Our choice, where MixLLM has an LLM tag every training query.
    """
    n_clusters = min(n_domains, _CLUSTERS, len(places) // _QUERIES_PER_CLUSTER)
    if n_clusters < 2:
        return (), np.zeros((len(places), 0))
    rows = np.random.default_rng(seed).permutation(len(places))[:_FITTED_ON]
    model = fit_clusters(places[np.sort(rows)], n_clusters, seed=seed)
    labels = model.predict(places)
    found, labels = np.unique(labels, return_inverse=True)
    if len(found) < 2:
        return (), np.zeros((len(places), 0))
    return _names(ids, labels, len(found)), np.eye(len(found))[labels]


def fit_clusters(
    places: NDArray[np.float32],
    n_clusters: int,
    *,
    seed: int,
    weights: FloatArray | None = None,
    starts: int = 2,
) -> Any:  # noqa: ANN401
    """Return a fitted k-means; what lies all but together makes fewer clusters.

    Parameters
    ----------
    places
        Shape ``(n, n_dimensions)``.
    n_clusters
        At most.
    seed
        Of the starts.
    weights
        Of the places, shape ``(n,)``; by default all alike.
    starts
        How often to begin anew; the best is kept.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    model = KMeans(n_clusters, n_init=starts, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(places, sample_weight=weights)


def _names(
    ids: Sequence[NDArray[np.int32]], labels: NDArray[np.intp], n_clusters: int
) -> tuple[str, ...]:
    pieces = shipped_tokenizer()
    counts = np.zeros((n_clusters, pieces.size))
    for label, own in zip(labels, ids, strict=True):
        counts[label, np.unique(own)] += 1.0
    share = counts / np.bincount(labels, minlength=n_clusters)[:, None]
    # How much more often than elsewhere, weighted by how often at all.
    telling = share * np.log((share + 1e-3) / (share.mean(axis=0) + 1e-3))
    telling[:, ~_is_word(pieces)] = 0.0
    word_of = {place: word for word, place in pieces.vocabulary.items()}
    best = np.argsort(-telling, axis=1, kind="stable")[:, :_WORDS_PER_NAME]
    names = []
    for number, (row, found) in enumerate(zip(telling, best, strict=True), start=1):
        words = [word_of[int(place)] for place in found if row[place] > 0]
        names.append(f"{number}: {', '.join(words) or _NAMELESS}")
    return tuple(names)


def _is_word(pieces: WordPieces) -> NDArray[np.bool_]:
    known = np.zeros(pieces.size, dtype=np.bool_)
    for piece, place in pieces.vocabulary.items():
        known[place] = piece.isalpha() and len(piece) >= _SHORTEST_WORD
    return known
