"""The shape of a text: which kinds of characters follow which.

Beside stage 3. A table of options, a formula, a listing, a story: each looks
like itself from afar, whatever it is about. Characters fall into twelve
classes; a text's shape is how often each class follows each. One pass over
the bytes, about 5 µs a query. Our choice; every feature has a name.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.chunks import chunks
from mixllm_integrations.core.types import FloatArray
from mixllm_integrations.core.wordpieces import clip_text

__all__ = ["SHAPE_FEATURES", "shape_counts", "shape_features"]

_CLASSES: dict[str, bytes] = {
    "lower": b"abcdefghijklmnopqrstuvwxyz",
    "upper": b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "digit": b"0123456789",
    "space": b" \t",
    "line": b"\n\r",
    "stop": b".",
    "ask": b"?!",
    "comma": b",;:",
    "bracket": b"()[]{}<>",
    "operator": b"+-*/=^%$\\_|~&",
    "mark": b"",  # whatever else is ASCII
    "foreign": b"",
}
_N = len(_CLASSES)
_PAIRS = [f"{first} then {second}" for first in _CLASSES for second in _CLASSES]
SHAPE_FEATURES: tuple[str, ...] = (
    *_PAIRS,
    *(f"share of {pair}" for pair in _PAIRS),
)
_SHARE_WEIGHT = 3.0  # so that the root of a share varies about as a logarithm does


def _class_of_byte() -> NDArray[np.uint8]:
    names = list(_CLASSES)
    classes = np.full(256, names.index("foreign"), dtype=np.uint8)
    classes[:128] = names.index("mark")
    for place, members in enumerate(_CLASSES.values()):
        classes[list(members)] = place
    return classes


_CLASS = _class_of_byte().tobytes()
_FIRST = (_class_of_byte() * _N).tobytes()


def shape_counts(texts: Sequence[str]) -> NDArray[np.float32]:
    """Return how often each class follows each, shape ``(n, 144)``.

    Parameters
    ----------
    texts
        Clipped as for reading, so a text of any length takes bounded time.

    Examples
    --------
    >>> counts = shape_counts(["a1 b2"])[0]
    >>> counts[SHAPE_FEATURES.index("lower then digit")]
    np.float32(2.0)
    """
    counts = np.zeros((len(texts), _N * _N), dtype=np.float32)
    for chunk in chunks(len(texts)):
        _count(texts[chunk], counts[chunk])
    return counts


def _count(texts: Sequence[str], counts: NDArray[np.float32]) -> None:
    """Count the pairs of each text into its row."""
    encoded = [clip_text(text).encode() for text in texts]
    raw = b"".join(encoded)
    first = np.frombuffer(raw.translate(_FIRST), dtype=np.uint8)
    pairs = first[:-1] + np.frombuffer(raw.translate(_CLASS), dtype=np.uint8)[1:]
    start = 0
    for row, own in zip(counts, encoded, strict=True):
        stop = start + len(own)
        # A text's last byte and the first of the next are no pair.
        row[:] = np.bincount(pairs[start : max(stop - 1, start)], minlength=_N * _N)
        start = stop


def shape_features(counts: NDArray[np.float32]) -> FloatArray:
    """Return the logarithm of each count and the root of its share.

    Parameters
    ----------
    counts
        From `shape_counts`.

    Returns
    -------
    FloatArray
        Shape ``(n, len(SHAPE_FEATURES))``.
    """
    total = np.maximum(np.add.reduce(counts, axis=1, keepdims=True), 1.0)
    features = np.empty((len(counts), 2 * _N * _N))
    features[:, : _N * _N] = np.log1p(counts)
    shares = features[:, _N * _N :]
    shares[:] = np.sqrt(counts / total)
    shares *= _SHARE_WEIGHT
    return features
