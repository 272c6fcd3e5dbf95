"""The form of a query: what makes it hard is often how it is written.

Beside stage 3. Every feature is a count of word pieces of one class (numbers,
operators, negations, …) or a length, so all of them come from one look at the
pieces: about 10 µs a query. Our choice; each can be named in an explanation.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.types import FloatArray
from mixllm_integrations.core.wordpieces import WordPieces

__all__ = ["FORM_FEATURES", "form_features"]

_WORDS: dict[str, str] = {
    "operators": "= ^ + * / < > % ° √ ∑ ∫ ≤ ≥ ± × ÷ π \\ $ ~ | → − ² ³",
    "brackets": "( ) [ ] { }",
    "sentence_ends": ". ? !",
    "commas": ", ; :",
    "quotes": "\" ' ` “ ”",
    "negations": "not no never none neither nor except without cannot false "
    "incorrect wrong least unlike",
    "question_words": "what who when where which why how whom whose",
    "steps": "then after before each every total remaining if many much per twice "
    "half difference sum first next until",
    "code_words": "def return class import for while function print assert int str "
    "list array string true false null void self loop code python java sql lambda "
    "_ { } ;",
    "units": "kg km cm mm mol hz ev pa atm mg ml volts watts meters grams degrees "
    "joules",
}
_BY_SHAPE = ("numbers", "single_letters", "word_parts", "foreign")
_LENGTHS = (
    "log_pieces",
    "log_characters",
    "pieces_per_character",
    "log_lines",
    "share_numbers",
    "share_operators",
    "share_word_parts",
)
FORM_FEATURES: tuple[str, ...] = (*_WORDS, *_BY_SHAPE, *_LENGTHS)
_SHARED = np.array(
    [FORM_FEATURES.index(name) for name in ("numbers", "operators", "word_parts")]
)  # in the order of the shares above
_TOGETHER = 128  # texts: what they need still fits the cache of a processor


@lru_cache(maxsize=4)
def _classes(
    tokenizer: WordPieces,
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the group of each piece, and the classes that each group counts for.

    Pieces of one group count for the same classes, so counting groups is enough.
    """
    vocabulary = tokenizer.vocabulary
    table = np.zeros((max(vocabulary.values()) + 1, len(_WORDS) + 4), np.float32)
    for column, words in enumerate(_WORDS.values()):
        found = [vocabulary[w] for w in words.split() if w in vocabulary]
        table[found, column] = 1.0
    first = len(_WORDS)
    for piece, row in vocabulary.items():
        bare = piece.removeprefix("##")
        table[row, first:] = (
            bare.isdigit(),
            len(piece) == 1 and piece.isascii() and piece.isalpha(),
            piece != bare,
            not piece.isascii(),
        )
    members, group = np.unique(table, axis=0, return_inverse=True)
    return group.ravel().astype(np.intp), members.astype(np.float64)


def form_features(
    ids: Sequence[NDArray[np.int32]],
    characters: NDArray[np.int64],
    lines: NDArray[np.int64],
    *,
    tokenizer: WordPieces,
) -> FloatArray:
    """Return the features of form, shape ``(n, len(FORM_FEATURES))``.

    Parameters
    ----------
    ids
        Word pieces of each text.
    characters, lines
        Length and number of line breaks of each text, shape ``(n,)``.
    tokenizer
        Whose pieces they are.

    Examples
    --------
    >>> from mixllm_integrations.core.wordpieces import shipped_tokenizer
    >>> pieces = shipped_tokenizer()
    >>> row = form_features(pieces.ids(["What is 17 * 23?"]), np.array([16]),
    ...     np.array([0]), tokenizer=pieces)[0]
    >>> round(float(np.expm1(row[FORM_FEATURES.index("numbers")])))
    2
    """
    group, members = _classes(tokenizer)
    tally = np.empty((len(ids), len(members)))
    for start in range(0, len(ids), _TOGETHER):
        chunk = slice(start, start + _TOGETHER)
        _count(ids[chunk], group, tally[chunk])
    counts = tally @ members
    n_pieces = np.array([pieces.size for pieces in ids], dtype=np.float64)
    features = np.empty((len(ids), len(FORM_FEATURES)))
    n_counts = counts.shape[1]
    np.log1p(counts, out=features[:, :n_counts])
    features[:, n_counts] = np.log1p(n_pieces)
    features[:, n_counts + 1] = np.log1p(characters)
    features[:, n_counts + 2] = n_pieces / np.maximum(characters, 1)
    features[:, n_counts + 3] = np.log1p(lines)
    shared = np.maximum(n_pieces, 1.0)[:, None]
    features[:, n_counts + 4 :] = counts.take(_SHARED, axis=1) / shared
    return features


def _count(
    ids: Sequence[NDArray[np.int32]], group: NDArray[np.intp], tally: FloatArray
) -> None:
    """Count the groups of pieces of each text into its row."""
    n_texts, n_groups = tally.shape
    # Each text has numbers of its own, so that one count does for all.
    first = np.arange(0, n_texts * n_groups, n_groups)
    found = group.take(np.concatenate(ids))
    found += first.repeat([pieces.size for pieces in ids])
    counts = np.bincount(found, minlength=n_texts * n_groups)
    tally[:] = counts.reshape(n_texts, n_groups)
