"""Texts to the ids of their word pieces, and an estimate of their tokens.

Beside stage 1: embedding, features of words and the number of input tokens
all start from the same pieces, so a query is cut up once.
"""

import hashlib
import json
import string
import sys
import threading
from array import array
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from importlib.resources import files
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mixllm_integrations.core.chunks import chunks
from mixllm_integrations.core.errors import StateFormatError

__all__ = [
    "WordPieces",
    "checked_texts",
    "clip_text",
    "read_verified",
    "shipped_folder",
    "shipped_tokenizer",
]

_HEAD_CHARACTERS, _TAIL_CHARACTERS = 6_000, 2_000
_CLIPPED_CHARACTERS = _HEAD_CHARACTERS + 1 + _TAIL_CHARACTERS
# A piece of a byte-level vocabulary rarely spans more bytes than this.
_BYTES_PER_TOKEN = 8
_MARKS = tuple((m.encode(), f" {m} ".encode()) for m in string.punctuation)
_LOWER = bytes(range(256)).lower()  # ASCII alone: the tokenizer lowers the others
_DROPPED = bytes({*range(32), 127} - {*b"\t\n\r"})  # control characters, as it does
_BYTES_PER_ID = np.dtype(np.int32).itemsize
_MAX_CACHED_WORDS, _MAX_CACHED_BYTES = 20_000, 48
_WORTH_ARRAYS = 2_500  # characters, in which arrays gain more than their calls cost
_SLOTS = 18  # bits
_KEY_BYTES = 16  # two numbers of 8 bytes; few words are longer
_MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], dtype=np.uint64)
_FIRST_BYTES = np.array([256**n - 1 for n in range(9)], dtype=np.uint64)  # masks
_KIND_OF_BYTE = bytes(  # 0: a space, 1: part of a word, 2: a mark, always by itself
    2 if chr(byte) in string.punctuation else byte not in b" \t\n\r"
    for byte in range(256)
)
_LOADING = threading.Lock()


def clip_text(text: str) -> str:
    """Return the first and the last few thousand characters of a text.

    What a query asks for stands at its start or its end; what is cut is
    mostly material in between. Our choice: 6,000 and 2,000 characters.

    Parameters
    ----------
    text
        Any text. Where it cannot be written as UTF-8 (a lone surrogate), a
        ``?`` stands in, since tokenizers refuse it.

    Returns
    -------
    str
        At most 8,001 characters; a shorter text whole.

    Examples
    --------
    >>> len(clip_text("x" * 10_000_000))
    8001
    """
    if len(text) > _CLIPPED_CHARACTERS:
        text = f"{text[:_HEAD_CHARACTERS]}\n{text[-_TAIL_CHARACTERS:]}"
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def checked_texts(texts: Sequence[str]) -> Sequence[str]:
    """Return the texts, or raise a `TypeError` that names what is no text."""
    if isinstance(texts, str):
        raise TypeError("texts must be a sequence of str, not one str: pass [text]")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            kind = type(text).__name__
            raise TypeError(f"text {place} must be a str, not a {kind}")
    return texts


class WordPieces:
    """The tokenizer of a static encoder: texts to the ids of their word pieces.

    Safe to share between threads.

    Parameters
    ----------
    tokenizer
        Of the BERT kind: lower case, split at spaces and punctuation.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._vocabulary: dict[str, int] = tokenizer.get_vocab()
        self._cuts = _Cuts(tokenizer, self._vocabulary)

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """Id of each piece."""
        return self._vocabulary

    @property
    def size(self) -> int:
        """How many pieces there are."""
        return len(self._vocabulary)

    @property
    def unknown_id(self) -> int:
        """The id of what the vocabulary cannot spell."""
        return self._cuts.unknown_id

    def ids(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the pieces of each text, without special tokens or padding.

        Parameters
        ----------
        texts
            Each is clipped by `clip_text` first; nothing else is cut.

        Raises
        ------
        TypeError
            If a text is not a ``str``.

        Examples
        --------
        >>> [ids.size for ids in shipped_tokenizer().ids(["Hello, world!", ""])]
        [4, 0]
        """
        clipped = [clip_text(text) for text in checked_texts(texts)]
        if sum(map(len, clipped)) < _WORTH_ARRAYS:
            return [self._ids(text) for text in clipped]
        found: list[NDArray[np.int32]] = []
        for chunk in chunks(len(clipped)):
            found += self._ids_of_many(clipped[chunk])
        return found

    def count(
        self,
        texts: Sequence[str],
        *,
        ids: Sequence[NDArray[np.int32]] | None = None,
    ) -> NDArray[np.int64]:
        """Estimate how many tokens a chat model would see in each text.

        Parameters
        ----------
        texts
            Whole texts. What `clip_text` cuts is counted as if it were as
            dense as what it keeps.
        ids
            Result of `ids` on the same texts, if it is at hand.

        Returns
        -------
        NDArray[np.int64]
            Shape ``(n_texts,)``. At least one token per 8 bytes (our choice):
            a long run without spaces is one unknown word here, but many
            tokens to a model.
        """
        pieces = self.ids(texts) if ids is None else ids
        counts = [
            _estimate(text, found.size)
            for text, found in zip(texts, pieces, strict=True)
        ]
        return np.array(counts, dtype=np.int64)

    def _ids(self, text: str) -> NDArray[np.int32]:
        # A few passes in C; only a part that is no piece is cut, or was before.
        raw = _lowered(text)
        for mark, apart in _MARKS:
            raw = raw.replace(mark, apart)
        packed = bytearray().join(map(self._cuts.__getitem__, raw.split()))
        return np.frombuffer(packed, dtype=np.int32)

    @cached_property
    def _whole_words(self) -> "_WholeWords":
        return _WholeWords(self._vocabulary)

    def _ids_of_many(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        lowered = [_lowered(text) for text in texts]
        raw = b"\n".join([b"", *lowered, b""])
        starts, ends = _spans(raw)
        ids, known = self._whole_words.ids(raw, starts, ends)
        rare = np.flatnonzero(~known)
        spans = zip(starts[rare].tolist(), ends[rare].tolist(), strict=True)
        cuts = [self._cuts[raw[start:end]] for start, end in spans]
        n_pieces = known.astype(np.intp)
        n_pieces[rare] = [len(cut) // _BYTES_PER_ID for cut in cuts]
        pieces = ids.repeat(n_pieces)
        of_cuts = np.frombuffer(b"".join(cuts), dtype=np.int32)
        pieces[(~known).repeat(n_pieces)] = of_cuts
        # How many words, and so how many pieces, come before the end of each text.
        stops = np.cumsum([len(text) + 1 for text in lowered])
        n_words = np.searchsorted(starts, stops)
        bounds = np.append(0, np.cumsum(n_pieces)).take(n_words).tolist()
        return [pieces[start:stop] for start, stop in pairwise([0, *bounds])]


def _lowered(text: str) -> bytes:
    """Encode a text without what the tokenizer drops, ASCII letters in lower case."""
    return text.encode().translate(_LOWER, _DROPPED)


def _estimate(text: str, n_pieces: int) -> int:
    """Return how many tokens a text of so many pieces has."""
    if not n_pieces:
        return 0
    kept = clip_text(text)
    size = len(kept) if kept.isascii() else len(kept.encode("utf-8"))
    count = max(n_pieces, -(-size // _BYTES_PER_TOKEN))
    return count if len(kept) == len(text) else round(count * (len(text) / len(kept)))


class _Cuts(dict[bytes, bytes]):
    """The pieces of each word, packed: joined they are an array of ids.

    Words of one piece are there from the start, the most frequent ones side by
    side; others are cut when they are first asked for, then kept. An ASCII word
    must be in lower case and without marks; others are whatever stands between
    spaces or marks. Threads may ask at once: they find the same.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: Mapping[str, int]) -> None:
        first_first = sorted(vocabulary.items(), key=itemgetter(1))
        self._whole = {
            piece.encode(): id_.to_bytes(_BYTES_PER_ID, sys.byteorder)
            for piece, id_ in first_first
            if piece.isascii()
        }
        super().__init__(self._whole)
        self._tokenizer, self._model = tokenizer, tokenizer.model
        self.unknown_id = vocabulary.get("[UNK]", 0)

    def __missing__(self, word: bytes) -> bytes:
        text = word.decode()
        # An ASCII word needs nothing of what else the tokenizer does to a text.
        if text.isascii():
            ids = [piece.id for piece in self._model.tokenize(text)]
        else:
            ids = self.of_any(text)
        packed = array("i", ids).tobytes()
        if len(word) <= _MAX_CACHED_BYTES:
            if len(self) >= len(self._whole) + _MAX_CACHED_WORDS:
                self.clear()
                self.update(self._whole)
            self[word] = packed
        return packed

    def of_any(self, text: str) -> list[int]:
        """Have the tokenizer itself cut any text."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


class _WholeWords:
    """Words that are one piece: a hash table in which arrays of them are looked up.

    Of words that share a slot the first of the vocabulary has it, usually the
    most frequent one; the others are not known here.
    """

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        last_first = sorted(vocabulary, key=vocabulary.__getitem__, reverse=True)
        short = [w for w in last_first if len(w) <= _KEY_BYTES and w.isascii()]
        marks = set(string.punctuation)
        words = [w for w in short if w.isalnum() or w in marks]
        raw = " ".join(["", *words, ""]).encode()
        keys = _keys(raw, *_spans(raw))
        ids = np.array([vocabulary[word] for word in words], dtype=np.int32)
        # No text has the byte 255: it stands for pieces that are no whole words.
        size = max(vocabulary.values(), default=0) + 1
        self._keys = np.full((2, size), 2**64 - 1, dtype=np.uint64)
        self._keys[:, ids] = keys
        self._owner = np.zeros(2**_SLOTS, dtype=np.int32)
        self._owner[_slots(keys)] = ids

    def ids(
        self, raw: bytes, starts: NDArray[np.intp], ends: NDArray[np.intp]
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Return an id for each word, and whether it is the word's."""
        keys = _keys(raw, starts, ends)
        ids = self._owner.take(_slots(keys))
        known = ends - starts <= _KEY_BYTES
        for own, key in zip(self._keys, keys, strict=True):
            known &= own.take(ids) == key
        return ids, known


def _spans(raw: bytes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where each word or mark starts and ends; spaces stand around `raw`.

    Bytes that are not ASCII count as parts of words.
    """
    kinds = np.frombuffer(raw.translate(_KIND_OF_BYTE), dtype=np.uint8)
    # A word goes on where another of its parts follows, a mark never does.
    goes_on = kinds & 1
    starts = np.flatnonzero(kinds[1:] > goes_on[:-1])
    ends = np.flatnonzero(kinds[:-1] > goes_on[1:])
    return starts + 1, ends + 1


def _keys(
    raw: bytes, starts: NDArray[np.intp], ends: NDArray[np.intp]
) -> NDArray[np.uint64]:
    """Return the first 16 bytes of each word as two numbers, shape ``(2, n)``."""
    padded = raw + bytes(_KEY_BYTES)
    # Eight bytes from any place on, as one number.
    eight = np.ndarray((len(raw) + 8,), dtype="<u8", buffer=padded, strides=(1,))
    lengths = ends - starts
    keys = np.zeros((2, starts.size), dtype=np.uint64)
    keys[0] = eight[starts] & _FIRST_BYTES.take(lengths, mode="clip")
    longer = np.flatnonzero(lengths > 8)
    rest = _FIRST_BYTES.take(lengths[longer] - 8, mode="clip")
    keys[1, longer] = eight[starts[longer] + 8] & rest
    return keys


def _slots(keys: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return a place in the hash table for each word."""
    first, second = keys * _MULTIPLIERS[:, None]
    slots: NDArray[np.uint64] = (first ^ second) >> np.uint64(64 - _SLOTS)
    return slots.astype(np.intp)


def shipped_folder() -> Path:
    """Return where the package keeps its encoder."""
    return Path(str(files("mixllm_integrations.data"))) / "encoder"


def read_verified(folder: Path, name: str, about: Mapping[str, Any]) -> bytes:
    """Read a file of an encoder once and check that it is the one described.

    Parameters
    ----------
    folder, name
        Where it is.
    about
        The folder's ``encoder.json``; its ``"sha256"`` maps names to digests.

    Raises
    ------
    StateFormatError
        If the file's sha256 is another one.
    """
    content = (folder / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != about["sha256"][name]:
        raise StateFormatError(
            f"{name} in {str(folder)!r} is damaged or was changed: its sha256 is "
            f"{digest[:12]}…, encoder.json says {str(about['sha256'][name])[:12]}…; "
            "reinstall the package or rebuild the encoder"
        )
    return content


def shipped_tokenizer() -> WordPieces:
    """Return the package's tokenizer: loaded at first use, once per process."""
    with _LOADING:
        return _shipped_tokenizer()


@cache
def _shipped_tokenizer() -> WordPieces:
    folder = shipped_folder()
    about = json.loads((folder / "encoder.json").read_text("utf-8"))
    text = read_verified(folder, "tokenizer.json", about).decode("utf-8")
    return WordPieces(Tokenizer.from_str(text))
