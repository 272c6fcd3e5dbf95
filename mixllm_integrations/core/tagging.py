"""Stage 2: tags of the training queries to domains, and a posterior over them.

A `Tagger` gives each training query its tags. Tags are grouped into at most
`n_domains` domains by the embeddings of the tags themselves, so nobody sorts
them by hand. At serving time no tagger runs: `Domains` turns the scores that a
text gets into the probability of each domain.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mixllm_integrations.core.clusters import fit_clusters
from mixllm_integrations.core.encoder import Encoder
from mixllm_integrations.core.types import FloatArray

__all__ = ["Domains", "RecordTagger", "Tagger", "group_tags"]

_SHARPNESS = np.geomspace(1.0, 40.0, 25)


class Tagger(Protocol):
    """Gives each training query its tags; runs in `fit` only."""

    def tag(self, queries: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the tags of each query; an empty tuple where there are none.

        Parameters
        ----------
        queries
            Training queries.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class RecordTagger:
    """Uses the tags that come with the records.

    Parameters
    ----------
    tags
        Tags by query.
    """

    tags: Mapping[str, tuple[str, ...]]

    def tag(self, queries: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the recorded tags of each query.

        Parameters
        ----------
        queries
            Training queries.

        Examples
        --------
        >>> RecordTagger({"2+2?": ("math",)}).tag(["2+2?", "unseen"])
        [('math',), ()]
        """
        return [self.tags.get(query, ()) for query in queries]


def group_tags(
    tags: Sequence[tuple[str, ...]], encoder: Encoder, *, n_domains: int, seed: int
) -> tuple[tuple[str, ...], FloatArray]:
    """Group tags into domains and say how much each query belongs to each.

    Parameters
    ----------
    tags
        Tags of each query.
    encoder
        Embeds the tags where there are more of them than domains.
    n_domains
        The most domains there may be; 0: none.
    seed
        Of the clustering.

    Returns
    -------
    tuple of str
        Domains, each named after its most frequent tag; empty if fewer than
        two tags were given.
    FloatArray
        Share of each query's tags in each domain, shape ``(n, n_domains)``;
        a row of zeros where a query has no tags.

    Notes
    -----
    Source: MixLLM §3.1 for about 20 domains of grouped tags, sorted by hand
    there. Clustering the tags' embeddings is our choice.
    """
    frequency = Counter(tag for row in tags for tag in dict.fromkeys(row))
    names = sorted(frequency, key=lambda tag: (-frequency[tag], tag))
    if len(names) < 2 or n_domains < 1:
        return (), np.zeros((len(tags), 0))
    clusters = _cluster(names, frequency, encoder, n_domains, seed)
    domain_of = dict(zip(names, clusters, strict=True))
    leaders: dict[int, str] = {}
    for tag in names:  # most frequent first
        leaders.setdefault(domain_of[tag], tag)
    place = {cluster: column for column, cluster in enumerate(leaders)}
    shares = np.zeros((len(tags), len(leaders)))
    for row, own in zip(shares, tags, strict=True):
        for tag in own:
            row[place[domain_of[tag]]] += 1.0 / len(own)
    return tuple(leaders.values()), shares


def _cluster(
    names: Sequence[str],
    frequency: Mapping[str, int],
    encoder: Encoder,
    n_domains: int,
    seed: int,
) -> list[int]:
    if len(names) <= n_domains:
        return list(range(len(names)))
    weights = np.array([frequency[tag] for tag in names], dtype=np.float64)
    places = encoder.encode(names)
    n_places = len(np.unique(places, axis=0))  # "Law" and "law" may share one
    n_clusters = min(n_domains, n_places)
    model = fit_clusters(places, n_clusters, seed=seed, weights=weights)
    return [int(label) for label in model.labels_]


@dataclass(frozen=True, slots=True, eq=False)
class Domains:
    """A calibrated posterior over domains from linear scores of a text.

    Parameters
    ----------
    names
        The domains.
    base_rate
        Share of each in the training queries, shape ``(n_domains,)``.
    sharpness
        What scores are multiplied by before the softmax.
    """

    names: tuple[str, ...]
    base_rate: FloatArray
    sharpness: float

    @classmethod
    def fit(
        cls, names: tuple[str, ...], shares: FloatArray, scores: FloatArray
    ) -> "Domains":
        """Choose the sharpness that makes scores out of fold most likely.

        Parameters
        ----------
        names
            The domains.
        shares
            How much each query belongs to each, shape ``(n, n_domains)``.
        scores
            Scores out of fold, of the same shape.
        """
        tagged = shares.sum(axis=1) > 0
        truth, given = shares[tagged], scores[tagged]

        def surprise(sharpness: float) -> float:
            likely = _softmax(given * sharpness)
            return float(-(truth * np.log(likely + 1e-9)).sum(axis=1).mean())

        best = min(_SHARPNESS, key=surprise)
        return cls(names, truth.mean(axis=0), float(best))

    def posterior(self, scores: FloatArray) -> FloatArray:
        """Return the probability of each domain, rows summing to 1.

        Parameters
        ----------
        scores
            Shape ``(n, n_domains)``.
        """
        return _softmax(scores * self.sharpness)


def _softmax(scores: FloatArray) -> FloatArray:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))
