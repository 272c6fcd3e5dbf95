"""The form of a query: what makes it hard is often how it is written.

Beside stage 3. Every feature is a count of word pieces of one class (numbers,
operators, negations, …) or a length, so all of them come from one look at the
pieces: about 10 µs a query. Our choice; each can be named in an explanation.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.chunks import chunks
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
_AT = {name: place for place, name in enumerate(FORM_FEATURES)}
_LOGARITHMS = (
    slice(_AT["pieces_per_character"]),
    slice(_AT["log_lines"], _AT["log_lines"] + 1),
)
_PER_PIECE = slice(_AT["share_numbers"], None)
_SHARED = ("numbers", "operators", "word_parts")  # in the order of the shares above


@lru_cache(maxsize=4)
def _classes(tokenizer: WordPieces) -> tuple[NDArray[np.uint16], FloatArray]:
    """Return the group of each piece, and what one of each group adds to features.

    Pieces of one group add the same, so counting groups is enough. Features that
    are a ratio or a logarithm start as the count that it is taken of.
    """
    vocabulary = tokenizer.vocabulary
    table = np.zeros((max(vocabulary.values()) + 1, len(FORM_FEATURES)), np.float32)
    for column, words in enumerate(_WORDS.values()):
        found = [vocabulary[w] for w in words.split() if w in vocabulary]
        table[found, column] = 1.0
    by_shape = slice(len(_WORDS), len(_WORDS) + len(_BY_SHAPE))
    for piece, row in vocabulary.items():
        bare = piece.removeprefix("##")
        table[row, by_shape] = (
            bare.isdigit(),
            len(piece) == 1 and piece.isascii() and piece.isalpha(),
            piece != bare,
            not piece.isascii(),
        )
    table[:, [_AT["log_pieces"], _AT["pieces_per_character"]]] = 1.0
    table[:, _PER_PIECE] = table[:, [_AT[name] for name in _SHARED]]
    members, group = np.unique(table, axis=0, return_inverse=True)
    return group.ravel().astype(np.uint16), members.astype(np.float64)


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
    for chunk in chunks(len(ids)):
        _count(ids[chunk], group, tally[chunk])
    features = tally @ members
    features[:, _AT["log_characters"]] = characters
    features[:, _AT["log_lines"]] = lines
    features[:, _AT["pieces_per_character"]] /= np.maximum(characters, 1)
    n_pieces = features[:, _AT["log_pieces"], None]
    features[:, _PER_PIECE] /= np.maximum(n_pieces, 1.0)
    for logarithms in _LOGARITHMS:
        own = features[:, logarithms]
        np.log1p(own, out=own)
    return features


def _count(
    ids: Sequence[NDArray[np.int32]], group: NDArray[np.uint16], tally: FloatArray
) -> None:
    """Count the groups of pieces of each text into its row."""
    n_texts, n_groups = tally.shape
    if n_texts == 1:
        tally[0] = np.bincount(group.take(ids[0]), minlength=n_groups)
        return
    # Each text has numbers of its own, so that one count does for all.
    first = np.arange(0, n_texts * n_groups, n_groups)
    found = first.repeat([pieces.size for pieces in ids])
    found += group.take(np.concatenate(ids))
    counts = np.bincount(found, minlength=n_texts * n_groups)
    tally[:] = counts.reshape(n_texts, n_groups)
