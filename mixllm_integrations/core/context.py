"""Stage 3: what was read of a query to its context vector.

x = [embedding ‖ posterior over domains ‖ difficulty ‖ contrasts ‖ form ‖ shape
‖ 1]. Before any fit it is [embedding ‖ 1]. Blocks are scaled so that each weighs
about the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.clusters import cluster_queries
from mixllm_integrations.core.encoder import Encoder
from mixllm_integrations.core.features import FormScale, ShapeScale
from mixllm_integrations.core.form import FORM_FEATURES
from mixllm_integrations.core.ngrams import NgramRidge
from mixllm_integrations.core.reading import Reading, digests
from mixllm_integrations.core.tagging import Domains, group_tags
from mixllm_integrations.core.types import FloatArray
from mixllm_integrations.core.wordpieces import shipped_tokenizer

__all__ = ["ContextModel"]

_PROJECTED = 32  # of the embedding; measured: 32 to 256 route alike
_TRAIT_WEIGHT = 0.3
_SURE_TRAIT = 4.0  # squared correlations below that many in n are taken for chance
_DOMAIN_L2, _TRAIT_L2 = 0.5, 8.0
_FEWEST_QUERIES = 8  # below that, only the embedding is used


@dataclass(frozen=True, eq=False)  # no slots: see the cached properties
class ContextModel:
    """How a reading becomes a context vector.

    Parameters
    ----------
    centre, axes
        Mean of the training embeddings, shape ``(dimension,)``, and their
        leading directions, shape ``(dimension, n_projected)``.
    form, shape
        Standardise the features of form and shape; ``None`` before a fit.
    scorer
        Scores of the domains, then of the traits: how easy a query is, and
        which candidates it favours.
    domains
        Turns domain scores into a posterior; ``None`` where there are none.
    trait_scale
        What each trait's score is multiplied by, shape ``(n_traits,)``: 0 where
        text says nothing of it.
    seen, seen_scores
        Digests of the training queries, ascending, shape ``(n,)``, and their
        scores out of fold, shape ``(n, n_outputs)``: see `training_contexts`.
    """

    centre: NDArray[np.float32]
    axes: NDArray[np.float32] | None = None
    form: FormScale | None = None
    shape: ShapeScale | None = None
    scorer: NgramRidge | None = None
    domains: Domains | None = None
    trait_scale: FloatArray | None = None
    seen: NDArray[np.int64] | None = None
    seen_scores: NDArray[np.float16] | None = None

    @classmethod
    def unfitted(cls, dimension: int) -> "ContextModel":
        """Return the model before any fit: the embedding and a constant.

        Parameters
        ----------
        dimension
            Of the encoder.
        """
        return cls(np.zeros(dimension, dtype=np.float32))

    @classmethod
    def fit(
        cls,
        reading: Reading,
        tags: Sequence[tuple[str, ...]],
        traits: FloatArray,
        *,
        encoder: Encoder,
        n_domains: int,
        seed: int,
    ) -> tuple["ContextModel", FloatArray]:
        """Fit on training queries, and give their contexts out of fold.

        Parameters
        ----------
        reading
            Of the training queries.
        tags
            Tags of each query. Where nothing is tagged, clusters of the
            queries stand in for domains.
        traits
            What the labels say of each query, shape ``(n, n_traits)``: its ease
            first, see `traits.query_traits`.
        encoder
            Embeds tags.
        n_domains
            The most domains there may be; 0: none.
        seed
            Decides folds and clusters.

        Returns
        -------
        ContextModel
            Fitted on everything.
        FloatArray
            Contexts of the training queries, in which posterior and traits
            come from fits without the query itself, shape ``(n, n_features)``.

        Notes
        -----
        Source: MixLLM Eq. 1–3 for an embedding enhanced by its domain. The
        posterior, and the traits, the form and the shape beside it are our
        choice.
        """
        if len(reading.ids) < _FEWEST_QUERIES:
            model = cls.unfitted(reading.embeddings.shape[1])
            return model, model.contexts(reading)
        centre = reading.embeddings.mean(axis=0)
        shape, shapes = ShapeScale.fit(reading, traits, seed=seed)
        names, shares = group_tags(tags, encoder, n_domains=n_domains, seed=seed)
        dense = _dense(reading, shape, shapes)
        if not names:
            names, shares = cluster_queries(
                reading.ids, dense, n_domains=n_domains, seed=seed
            )
        scorer, scores = NgramRidge.fit(
            reading.ids,
            dense,
            np.column_stack([shares, traits]),
            l2=[*[_DOMAIN_L2] * len(names), *[_TRAIT_L2] * traits.shape[1]],
            n_pieces=shipped_tokenizer().size,
            seed=seed,
        )
        seen, first = np.unique(digests(reading), return_index=True)
        n_domains = len(names)
        model = cls(
            centre,
            _leading_axes(reading.embeddings - centre),
            FormScale.fit(reading),
            shape,
            scorer,
            Domains.fit(names, shares, scores[:, :n_domains]) if names else None,
            _trait_scale(scores[:, n_domains:], traits),
            seen,
            scores[first].astype(np.float16),
        )
        return model, model._assemble(reading, shapes, scores)

    @cached_property
    def dimension(self) -> int:
        """Length of a context vector."""
        return int(self.blocks["constant"].stop)

    @cached_property
    def blocks(self) -> Mapping[str, slice]:
        """Where each part of a context vector lies."""
        if self.axes is None or self.trait_scale is None or self.shape is None:
            edges = {"embedding": len(self.centre)}
        else:
            edges = {
                "embedding": int(self.axes.shape[1]),
                "posterior": self._n_domains,
                "difficulty": 1,
                "contrasts": len(self.trait_scale) - 1,
                "form": len(FORM_FEATURES),
                "shape": len(self.shape.chosen),
            }
        blocks, start = {}, 0
        for name, width in (*edges.items(), ("constant", 1)):
            blocks[name] = slice(start, start + width)
            start += width
        return blocks

    @cached_property
    def _trait_gain(self) -> FloatArray:
        assert self.trait_scale is not None  # noqa: S101
        return _TRAIT_WEIGHT * self.trait_scale

    @property
    def _n_domains(self) -> int:
        return len(self.domains.names) if self.domains else 0

    def contexts(self, reading: Reading) -> FloatArray:
        """Return context vectors, shape ``(n, dimension)``; the last entry is 1.

        Parameters
        ----------
        reading
            Of the queries.
        """
        if self.scorer is None or self.shape is None:
            ones = np.ones(len(reading.ids))
            return np.column_stack([reading.embeddings, ones]).astype(np.float64)
        shapes = self.shape.apply(reading)
        return self._assemble(
            reading,
            shapes,
            self.scorer.scores(reading.ids, _dense(reading, self.shape, shapes)),
        )

    def has_seen(self, reading: Reading) -> NDArray[np.bool_]:
        """Tell which queries this was fitted on; all, where that is not known.

        Parameters
        ----------
        reading
            Of the queries.
        """
        own = digests(reading)
        if self.seen is None:
            return np.ones(len(own), dtype=np.bool_)
        return np.isin(own, self.seen)

    def training_contexts(self, reading: Reading) -> FloatArray:
        """Return contexts to train a newcomer's heads on.

        Where a query is one that this model was fitted on, its scores come
        from a fit without it, as they did for the others' heads: scores of
        its own fit would look surer than any new query's do.

        Parameters
        ----------
        reading
            Of the queries.
        """
        if self.shape is None or self.seen is None or self.seen_scores is None:
            return self.contexts(reading)
        scores = self._scores(reading)
        own = digests(reading)
        place = np.searchsorted(self.seen, own).clip(max=len(self.seen) - 1)
        known = self.seen[place] == own
        scores[known] = self.seen_scores[place[known]]
        return self._assemble(reading, self.shape.apply(reading), scores)

    def posterior(self, reading: Reading) -> FloatArray | None:
        """Return the probability of each domain, or ``None`` without domains.

        Parameters
        ----------
        reading
            Of the queries.
        """
        if self.domains is None:
            return None
        return self.domains.posterior(self._scores(reading)[:, : self._n_domains])

    def domains_of(self, contexts: NDArray[np.floating[Any]]) -> list[str | None]:
        """Return the likeliest domain of each context; ``None`` without domains.

        Parameters
        ----------
        contexts
            Shape ``(n, dimension)``.
        """
        if self.domains is None:
            return [None] * len(contexts)
        names = self.domains.names
        likely = contexts[:, self.blocks["posterior"]].argmax(axis=1)
        return [names[place] for place in likely.tolist()]

    def _scores(self, reading: Reading) -> FloatArray:
        assert self.scorer is not None  # noqa: S101
        assert self.shape is not None  # noqa: S101
        dense = _dense(reading, self.shape, self.shape.apply(reading))
        return self.scorer.scores(reading.ids, dense)

    def _assemble(
        self, reading: Reading, shapes: FloatArray, scores: FloatArray
    ) -> FloatArray:
        assert self.axes is not None  # noqa: S101
        assert self.scorer is not None  # noqa: S101
        assert self.form is not None  # noqa: S101
        assert self.shape is not None  # noqa: S101
        blocks, n_domains = self.blocks, self._n_domains
        # Each block goes where it belongs: for one query, joining them costs more.
        contexts = np.empty((len(scores), self.dimension))
        centred = reading.embeddings - self.centre
        contexts[:, blocks["embedding"]] = centred @ self.axes
        if self.domains is not None:
            posterior = self.domains.posterior(scores[:, :n_domains])
            contexts[:, blocks["posterior"]] = posterior
        traits = contexts[:, blocks["difficulty"].start : blocks["contrasts"].stop]
        np.subtract(scores[:, n_domains:], self.scorer.offset[n_domains:], out=traits)
        traits *= self._trait_gain
        contexts[:, blocks["form"]] = self.form.apply(reading)
        contexts[:, blocks["shape"]] = self.shape.features(shapes)
        contexts[:, blocks["constant"]] = 1.0
        return contexts


def _dense(
    reading: Reading, shape: ShapeScale, shapes: FloatArray
) -> NDArray[np.float32]:
    """Return what the scorer sees beside pieces, shape (n, n_columns)."""
    return np.concatenate(
        [reading.embeddings, shape.weight * shapes], axis=1, dtype=np.float32
    )


def _trait_scale(scores: FloatArray, traits: FloatArray) -> FloatArray:
    """Return what brings each trait's scores to their weight, shape (n_traits,).

    Scores that hardly follow the trait out of fold weigh less, and those that
    do not follow it nothing: they would still carry labels from fold to fold.
    """
    about, truth = scores - scores.mean(axis=0), traits - traits.mean(axis=0)
    spread, true_spread = scores.std(axis=0), traits.std(axis=0)
    follows = (about * truth).mean(axis=0) / np.maximum(spread * true_spread, 1e-12)
    chance = _SURE_TRAIT / (len(scores) * np.maximum(follows, 1e-6) ** 2)
    return np.asarray(np.maximum(0.0, 1.0 - chance) / (spread + 1e-6))


def _leading_axes(centred: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the directions of most variance as columns, signs made unique."""
    values, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    kept = min(_PROJECTED, int((values > 1e-9 * values[-1]).sum()) or 1)
    axes = vectors[:, ::-1][:, :kept]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(kept)])
    return np.ascontiguousarray(axes * signs, dtype=np.float32)
