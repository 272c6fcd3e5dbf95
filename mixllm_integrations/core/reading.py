"""Between stages 1 and 3: one look at a text, from which all else is computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.encoder import Encoder, StaticEncoder
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.form import form_features
from mixllm_integrations.core.shape import shape_counts
from mixllm_integrations.core.types import FloatArray, number_between
from mixllm_integrations.core.wordpieces import checked_texts, shipped_tokenizer

__all__ = ["Reading", "digests", "read", "token_array"]


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
    shape
        How often each class of characters follows each, shape ``(n, 144)``.
    form
        Features of form, shape ``(n, len(FORM_FEATURES))``.
    """

    ids: list[NDArray[np.int32]]
    embeddings: NDArray[np.float32]
    characters: NDArray[np.int64]
    lines: NDArray[np.int64]
    tokens: NDArray[np.int64]
    blank: NDArray[np.bool_]
    shape: NDArray[np.float32]
    form: FloatArray


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
    characters = np.array([len(text) for text in texts], dtype=np.int64)
    lines = np.array([text.count("\n") for text in texts], dtype=np.int64)
    return Reading(
        ids,
        embeddings,
        characters,
        lines,
        pieces.count(texts, ids=ids),
        np.array([not text or text.isspace() for text in texts], dtype=np.bool_),
        shape_counts(texts),
        form_features(ids, characters, lines, tokenizer=pieces),
    )


def digests(reading: Reading) -> NDArray[np.int64]:
    """Return what tells texts apart by their pieces, shape ``(n,)``.

    Parameters
    ----------
    reading
        Of the texts.
    """
    joined = b"".join(blake2b(i.tobytes(), digest_size=8).digest() for i in reading.ids)
    return np.frombuffer(joined, dtype="<i8").astype(np.int64)


def token_array(tokens: Sequence[int | None] | None, n: int) -> FloatArray | None:
    """Return prompt lengths as floats, or ``None`` if none is given.

    Parameters
    ----------
    tokens
        One length per query, ``None`` where it is unknown (NaN in the result).
    n
        How many queries.

    Raises
    ------
    ConfigurationError
        If there are not `n` lengths, or one is no length.
    """
    if tokens is None:
        return None
    if len(tokens) != n:
        raise ConfigurationError(
            f"input_tokens has {len(tokens)} values for {n} queries; pass one each"
        )
    for value in tokens:
        if value is not None:
            number_between(value, "input_tokens", high_is_allowed=False)
    return np.array([np.nan if t is None else t for t in tokens], dtype=np.float64)
