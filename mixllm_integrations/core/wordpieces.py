"""Texts to the ids of their word pieces, and an estimate of their tokens.

Beside stage 1: embedding, features of words and the number of input tokens
all start from the same pieces, so a query is cut up once.
"""

import hashlib
import json
import re
import string
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

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
_MARKS = tuple((mark, f" {mark} ") for mark in string.punctuation)
_ELSEWHERE = "\0"  # stands for a word that is not ASCII; no other text has it
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LONGEST_PART = 100  # characters; WordPiece knows no longer one
_MAX_CACHED_WORDS, _MAX_CACHED_LENGTH = 20_000, 32
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
        return [
            np.array(self._ids(clip_text(text)), dtype=np.int32)
            for text in checked_texts(texts)
        ]

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

    def _ids(self, text: str) -> list[int]:
        # The tokenizer drops control characters, and so may join words over them:
        # such a text is left to it.
        if _CONTROL.search(text):
            return self._ids_of_any(text)
        others: list[str] = []
        if not text.isascii():
            words = text.split()
            others = [word for word in words if not word.isascii()]
            text = " ".join([w if w.isascii() else _ELSEWHERE for w in words])
        # A few passes in C; only a part that is no piece is cut, or was before.
        text = text.lower()
        for mark, apart in _MARKS:
            if mark in text:
                text = text.replace(mark, apart)
        parts = text.split()
        found: list[Any] = list(map(self._vocabulary.get, parts))
        ids: list[int] = []
        start, other = 0, iter(others)
        for _ in range(found.count(None)):
            at = found.index(None, start)
            part = parts[at]
            ids += found[start:at]
            ids += self._cuts[next(other) if part == _ELSEWHERE else part]
            start = at + 1
        return ids + found[start:]

    def _ids_of_any(self, text: str) -> list[int]:
        return self._cuts.of_any(text)


def _estimate(text: str, n_pieces: int) -> int:
    """Return how many tokens a text of so many pieces has."""
    if not n_pieces:
        return 0
    kept = clip_text(text)
    size = len(kept) if kept.isascii() else len(kept.encode("utf-8"))
    count = max(n_pieces, -(-size // _BYTES_PER_TOKEN))
    return count if len(kept) == len(text) else round(count * (len(text) / len(kept)))


class _Cuts(dict[str, tuple[int, ...]]):
    """The pieces of rare words: cut when they are first asked for, then kept.

    An ASCII word must be in lower case and without marks; of others each is
    what stands between spaces. Threads may ask at once: they find the same.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: Mapping[str, int]) -> None:
        super().__init__()
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self.unknown_id = vocabulary.get("[UNK]", 0)

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = self._cut(word) if word.isascii() else tuple(self.of_any(word))
        if len(word) <= _MAX_CACHED_LENGTH:
            if len(self) >= _MAX_CACHED_WORDS:
                self.clear()
            self[word] = ids
        return ids

    def of_any(self, text: str) -> list[int]:
        """Have the tokenizer itself cut any text."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _cut(self, part: str) -> tuple[int, ...]:
        """Cut off the longest known piece, again and again, as WordPiece does."""
        if len(part) > _LONGEST_PART:
            return (self.unknown_id,)
        ids: list[int] = []
        start = 0
        while start < len(part):
            for end in range(len(part), start, -1):
                piece = f"##{part[start:end]}" if start else part[start:end]
                known = self._vocabulary.get(piece)
                if known is not None:
                    break
            else:
                return (self.unknown_id,)
            ids.append(known)
            start = end
        return tuple(ids)


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
