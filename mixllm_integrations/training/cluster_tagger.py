"""Tags without any label: which cluster of texts a text lies in."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.clusters import fit_clusters
from mixllm_integrations.core.encoder import Encoder, StaticEncoder
from mixllm_integrations.core.wordpieces import checked_texts, clip_text

__all__ = ["ClusterTagger"]

_MOST_CLUSTERS = 20  # the domains of a router
_MOST_TERMS = 3
_WORD = r"(?u)\b[^\W\d_]{3,30}\b"


@dataclass(frozen=True, slots=True)
class ClusterTagger:
    """Tags each query with the cluster it lies in, named by its key terms.

    Clusters are those of the encoder's embeddings. They are found anew in
    each call of `tag`: tags of two calls are not of one set.

    Parameters
    ----------
    encoder
        Embeds the queries; ``None``: the shipped one.
    n_clusters
        How many clusters at most; ``None``: the root of half the number of
        queries, from 1 to 20.
    seed
        Of the clustering.

    Raises
    ------
    ConfigurationError
        If `n_clusters` is no number from 1 on.

    Examples
    --------
    >>> tags = ClusterTagger(n_clusters=2).tag(
    ...     ["Write a poem about spring", "Solve the equation x = 2 x",
    ...      "A poem about birds", "", "Which equation has no root?"]
    ... )
    >>> tags[0] == tags[2] != tags[1] == tags[4], tags[3]
    (True, ())

    Notes
    -----
    Our choice, where MixLLM has an LLM tag every training query. `Router.fit`
    makes domains of untagged records in a like way; this is for who wants to
    see the tags, or to have them from another encoder.
    """

    encoder: Encoder | None = None
    _: KW_ONLY
    n_clusters: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_clusters is not None:
            number_between(self.n_clusters, "n_clusters", low=1.0)

    def tag(self, queries: Sequence[str]) -> list[tuple[str, ...]]:
        """Return one tag per query; none for a blank one.

        Parameters
        ----------
        queries
            From one on; a copy gets the tag of its original.

        Returns
        -------
        list of tuple of str
            At most three terms joined by commas, the most telling first.

        Raises
        ------
        TypeError
            If a query is no string.
        """
        texts = [clip_text(query) for query in checked_texts(queries)]
        distinct = [text for text in dict.fromkeys(texts) if text.strip()]
        if not distinct:
            return [()] * len(texts)
        labels = self._labels(distinct)
        names = _names(distinct, labels)
        tag_of = {
            text: (names[label],) for text, label in zip(distinct, labels, strict=True)
        }
        return [tag_of.get(text, ()) for text in texts]

    def _labels(self, texts: Sequence[str]) -> NDArray[np.intp]:
        """Return the cluster of each text, numbered without gaps."""
        encoder = self.encoder or StaticEncoder.load()
        places = encoder.encode(texts)
        default = int(np.clip(np.sqrt(len(texts) / 2), 1, _MOST_CLUSTERS))
        wanted = default if self.n_clusters is None else int(self.n_clusters)
        n_clusters = min(wanted, len(texts))
        if n_clusters < 2:
            return np.zeros(len(texts), dtype=np.intp)
        model = fit_clusters(places, n_clusters, seed=self.seed, starts=4)
        return np.asarray(np.unique(model.labels_, return_inverse=True)[1])


def _names(texts: Sequence[str], labels: NDArray[np.intp]) -> list[str]:
    """Return a name per cluster; no two are the same."""
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(binary=True, stop_words="english", token_pattern=_WORD)
    n_clusters = int(labels.max()) + 1
    try:
        found = counter.fit_transform(texts)
    except ValueError:  # not one word in all texts
        return [f"cluster {number}" for number in range(1, n_clusters + 1)]
    terms = counter.get_feature_names_out()  # in the order of the alphabet
    names: list[str] = []
    overall = np.asarray(found.mean(axis=0)).ravel()
    for cluster in range(n_clusters):
        share = np.asarray(found[labels == cluster].mean(axis=0)).ravel()
        # How much more often than overall, weighted by how often at all; where
        # there is but one cluster, how often.
        telling = share * np.log(np.maximum(share / overall, 1.0)) + 1e-6 * share
        best = np.argsort(-telling, kind="stable")[:_MOST_TERMS]
        words = [str(terms[place]) for place in best if telling[place] > 0]
        name = ", ".join(words) or f"cluster {cluster + 1}"
        names.append(name if name not in names else f"{name} ({cluster + 1})")
    return names
