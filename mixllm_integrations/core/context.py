"""Stage 3: what was read of a query to its context vector.

x = [embedding ‖ posterior over domains ‖ difficulty ‖ form ‖ 1]. Before any
fit it is [embedding ‖ 1]. Blocks are scaled so that each weighs about the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.encoder import Encoder, StaticEncoder
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.form import FORM_FEATURES, form_features
from mixllm_integrations.core.ngrams import NgramRidge
from mixllm_integrations.core.tagging import Domains, group_tags
from mixllm_integrations.core.types import FloatArray
from mixllm_integrations.core.wordpieces import checked_texts, shipped_tokenizer

__all__ = ["ContextModel", "Reading", "read"]

_PROJECTED = 64  # of the embedding; measured: 32 to 256 route alike
_POSTERIOR_WEIGHT = 1.0
_DIFFICULTY_WEIGHT = 0.3
_FORM_WEIGHT = 0.1
_FORM_LIMIT = 5.0  # standard deviations; an odd query must not run away
_DOMAIN_L2, _DIFFICULTY_L2 = 0.5, 8.0
_FEWEST_QUERIES = 8  # below that, only the embedding is used


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What one look at some texts gives; the texts themselves are not kept.

    Parameters
    ----------
    ids
        Word pieces of each text.
    embeddings
        Shape ``(n, dimension)``.
    characters, lines, tokens
        Length of each text, its line breaks, and its estimated prompt tokens,
        shape ``(n,)``.
    blank
        Whether there is nothing to read, shape ``(n,)``.
    """

    ids: list[NDArray[np.int32]]
    embeddings: NDArray[np.float32]
    characters: NDArray[np.int64]
    lines: NDArray[np.int64]
    tokens: NDArray[np.int64]
    blank: NDArray[np.bool_]


def read(texts: Sequence[str], encoder: Encoder) -> Reading:
    """Read texts once: pieces, embedding and lengths.

    Parameters
    ----------
    texts
        The queries.
    encoder
        Gives the embeddings.

    Raises
    ------
    TypeError
        If a text is not a ``str``.
    ConfigurationError
        If the encoder returns something else than it promises.

    Examples
    --------
    >>> reading = read(["What is 2 + 2?", "  "], StaticEncoder.load())
    >>> reading.blank.tolist()
    [False, True]
    """
    if not isinstance(texts, Sequence):
        texts = list(texts)
    pieces = shipped_tokenizer()
    ids = pieces.ids(checked_texts(texts))
    if isinstance(encoder, StaticEncoder) and encoder.tokenizer is pieces:
        embeddings = encoder.encode_ids(ids)
    else:
        embeddings = np.asarray(encoder.encode(texts), dtype=np.float32)
        shape = (len(texts), encoder.dimension)
        if embeddings.shape != shape or not np.isfinite(embeddings).all():
            raise ConfigurationError(
                f"encoder {encoder.id!r} must return finite embeddings of shape "
                f"{shape}; it returned shape {embeddings.shape}"
            )
    return Reading(
        ids,
        embeddings,
        np.array([len(text) for text in texts], dtype=np.int64),
        np.array([text.count("\n") for text in texts], dtype=np.int64),
        pieces.count(texts, ids=ids),
        np.array([not text or text.isspace() for text in texts], dtype=np.bool_),
    )


@dataclass(frozen=True, slots=True, eq=False)
class ContextModel:
    """How a reading becomes a context vector.

    Parameters
    ----------
    centre, axes
        Mean of the training embeddings, shape ``(dimension,)``, and their
        leading directions, shape ``(dimension, n_projected)``.
    scorer
        Scores of the domains, then of the difficulty; ``None`` before a fit.
    domains
        Turns domain scores into a posterior; ``None`` where nothing is tagged.
    form_mean, form_scale
        Standardise the features of form, shape ``(n_features,)``.
    difficulty_scale
        Standard deviation of the difficulty score.
    seen, seen_scores
        Digests of the training queries, ascending, shape ``(n,)``, and their
        scores out of fold, shape ``(n, n_outputs)``: see `training_contexts`.
    """

    centre: NDArray[np.float32]
    axes: NDArray[np.float32] | None = None
    scorer: NgramRidge | None = None
    domains: Domains | None = None
    form_mean: FloatArray | None = None
    form_scale: FloatArray | None = None
    difficulty_scale: float = 1.0
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
        ease: FloatArray,
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
            Tags of each query.
        ease
            How much better than usual the candidates did on each query, shape
            ``(n,)``.
        encoder
            Embeds tags.
        n_domains
            The most domains there may be.
        seed
            Decides folds and clusters.

        Returns
        -------
        ContextModel
            Fitted on everything.
        FloatArray
            Contexts of the training queries, in which posterior and
            difficulty come from fits without the query itself, shape
            ``(n, n_features)``.

        Notes
        -----
        Source: MixLLM Eq. 1–3 for an embedding enhanced by its domain. The
        posterior, the difficulty and the form beside it are our choice.
        """
        if len(reading.ids) < _FEWEST_QUERIES:
            model = cls.unfitted(reading.embeddings.shape[1])
            return model, model.contexts(reading)
        centre = reading.embeddings.mean(axis=0)
        axes = _leading_axes(reading.embeddings - centre)
        names, shares = group_tags(tags, encoder, n_domains=n_domains, seed=seed)
        pieces = shipped_tokenizer()
        scorer, scores = NgramRidge.fit(
            reading.ids,
            reading.embeddings,
            np.column_stack([shares, ease]),
            l2=[*[_DOMAIN_L2] * len(names), _DIFFICULTY_L2],
            n_pieces=pieces.size,
            seed=seed,
        )
        form = _form(reading)
        seen, first = np.unique(_digests(reading), return_index=True)
        model = cls(
            centre,
            axes,
            scorer,
            Domains.fit(names, shares, scores[:, :-1]) if names else None,
            form.mean(axis=0),
            form.std(axis=0) + 1e-3,
            float(scores[:, -1].std()) + 1e-6,
            seen,
            scores[first].astype(np.float16),
        )
        return model, model._assemble(reading, scores)

    @property
    def dimension(self) -> int:
        """Length of a context vector."""
        return self.blocks["constant"].stop

    @property
    def blocks(self) -> dict[str, slice]:
        """Where each part of a context vector lies."""
        if self.axes is None:
            edges = {"embedding": len(self.centre)}
        else:
            edges = {
                "embedding": int(self.axes.shape[1]),
                "posterior": len(self.domains.names) if self.domains else 0,
                "difficulty": 1,
                "form": len(FORM_FEATURES),
            }
        blocks, start = {}, 0
        for name, width in (*edges.items(), ("constant", 1)):
            blocks[name] = slice(start, start + width)
            start += width
        return blocks

    def contexts(self, reading: Reading) -> FloatArray:
        """Return context vectors, shape ``(n, dimension)``; the last entry is 1.

        Parameters
        ----------
        reading
            Of the queries.
        """
        if self.scorer is None:
            return np.column_stack(
                [reading.embeddings, np.ones(len(reading.ids))]
            ).astype(np.float64)
        return self._assemble(
            reading, self.scorer.scores(reading.ids, reading.embeddings)
        )

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
        if self.scorer is None or self.seen is None or self.seen_scores is None:
            return self.contexts(reading)
        scores = self.scorer.scores(reading.ids, reading.embeddings)
        digests = _digests(reading)
        place = np.searchsorted(self.seen, digests).clip(max=len(self.seen) - 1)
        known = self.seen[place] == digests
        scores[known] = self.seen_scores[place[known]]
        return self._assemble(reading, scores)

    def posterior(self, reading: Reading) -> FloatArray | None:
        """Return the probability of each domain, or ``None`` without domains.

        Parameters
        ----------
        reading
            Of the queries.
        """
        if self.scorer is None or self.domains is None:
            return None
        scores = self.scorer.scores(reading.ids, reading.embeddings)
        return self.domains.posterior(scores[:, :-1])

    def _assemble(self, reading: Reading, scores: FloatArray) -> FloatArray:
        assert self.axes is not None  # noqa: S101
        assert self.scorer is not None  # noqa: S101
        assert self.form_mean is not None  # noqa: S101
        assert self.form_scale is not None  # noqa: S101
        centred = (scores[:, -1] - self.scorer.offset[-1]) / self.difficulty_scale
        form = (_form(reading) - self.form_mean) / self.form_scale
        contexts = np.empty((len(scores), self.dimension))
        first, n_form = self.axes.shape[1], len(FORM_FEATURES)
        contexts[:, :first] = (reading.embeddings - self.centre) @ self.axes
        if self.domains is not None:
            posterior = self.domains.posterior(scores[:, :-1])
            contexts[:, first : -n_form - 2] = _POSTERIOR_WEIGHT * posterior
        contexts[:, -n_form - 2] = _DIFFICULTY_WEIGHT * centred
        form = np.minimum(np.maximum(form, -_FORM_LIMIT), _FORM_LIMIT)
        contexts[:, -n_form - 1 : -1] = _FORM_WEIGHT * form
        contexts[:, -1] = 1.0
        return contexts


def _digests(reading: Reading) -> NDArray[np.int64]:
    """Return what tells texts apart by their pieces, shape ``(n,)``."""
    digests = b"".join(
        blake2b(i.tobytes(), digest_size=8).digest() for i in reading.ids
    )
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)


def _form(reading: Reading) -> FloatArray:
    return form_features(
        reading.ids, reading.characters, reading.lines, tokenizer=shipped_tokenizer()
    )


def _leading_axes(centred: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the directions of most variance as columns, signs made unique."""
    values, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    kept = min(_PROJECTED, int((values > 1e-9 * values[-1]).sum()) or 1)
    axes = vectors[:, ::-1][:, :kept]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(kept)])
    return np.ascontiguousarray(axes * signs, dtype=np.float32)
