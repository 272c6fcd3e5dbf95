"""Which text of a conversation is routed, and how long the whole of it is.

Frameworks name their messages differently; here a conversation is a sequence
of turns ``(role, text)``.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeAlias

from mixllm_integrations.core.encoder import shipped_tokenizer

__all__ = [
    "TOKENS_PER_MESSAGE",
    "Turn",
    "conversation_tokens",
    "routed_text",
    "text_tokens",
]

Turn: TypeAlias = tuple[str, str]

_HUMAN = frozenset({"human", "user"})
_SYSTEM = frozenset({"system", "developer"})

# Characters; all our choice. The question is cut like the encoder cuts it, in
# the middle. What surrounds it weighs less because it is shorter: an encoder
# that averages words weighs a part by its length.
_QUESTION_LIMIT = 8_000
_SYSTEM_LIMIT, _SYSTEM_SHARE = 400, 4
_BEFORE_LIMIT, _BEFORE_SHARE = 800, 2
# "And why?" says nothing alone, so what was said before it has a floor.
_BEFORE_FLOOR = 120

# Longer texts are counted on a sample of this many characters from both ends.
_COUNTED_LIMIT = 20_000
# Longer conversations are counted on so many pieces, all our choice: the time of
# counting grows with them, 16,000 characters being as slow as two long questions.
_PIECES, _PIECE_CHARACTERS = 80, 200
# The tokenizer reads no more than this of one text.
_READ_LIMIT = 8_000
_GOLDEN = (math.sqrt(5) - 1) / 2
#: Markers of role and turn that chat templates put around a message.
TOKENS_PER_MESSAGE = 4


def _ends(text: str, limit: int) -> str:
    """Return the text, or its two ends if it is longer than `limit`."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return text[:half] + text[-half:]


def routed_text(turns: Sequence[Turn]) -> str:
    """Return the text that stands for a conversation when it is routed.

    The last human message comes first and nearly whole; the beginnings of the
    turn before it and of the system prompt follow, much shorter, so that a
    follow-up is understood without drowning it.

    Parameters
    ----------
    turns
        ``(role, text)`` from first to last. Roles are ``"human"`` or
        ``"user"``, ``"system"`` or ``"developer"``; any other one is an answer
        or a tool's result.

    Returns
    -------
    str
        At most about 9,200 characters; exactly the message's text if it is the
        only one. Without a human message, the last text of any role.

    Notes
    -----
    Source: our choice.

    Examples
    --------
    >>> routed_text([("human", "What is 2 + 2?")])
    'What is 2 + 2?'
    """
    if len(turns) == 1:
        return turns[0][1]
    at = next((i for i in range(len(turns) - 1, -1, -1) if turns[i][0] in _HUMAN), None)
    if at is None:
        spoken = (text for _, text in reversed(turns) if text.strip())
        return _ends(next(spoken, ""), _QUESTION_LIMIT)
    question = _ends(turns[at][1], _QUESTION_LIMIT)
    before = _turn_before(turns[:at])
    share = max(len(question) // _BEFORE_SHARE, _BEFORE_FLOOR)
    system = " ".join(text for role, text in turns if role in _SYSTEM)
    parts = (
        question,
        before[: min(share, _BEFORE_LIMIT)],
        system[: min(len(question) // _SYSTEM_SHARE, _SYSTEM_LIMIT)],
    )
    return "\n\n".join(part for part in parts if part.strip())


def _turn_before(turns: Sequence[Turn]) -> str:
    """Return the last question and its answer, half the limit each at most."""
    said: list[str] = []
    for role, text in reversed(turns):
        if role in _SYSTEM or not text.strip():
            continue
        said.append(text[: _BEFORE_LIMIT // 2])
        if role in _HUMAN:
            break
    said.reverse()
    if len(said) <= 2:
        return "\n".join(said)
    return f"{said[0]}\n{said[-1]}"


def text_tokens(text: str) -> int:
    """Return about how many tokens a text has, by the shipped tokenizer.

    Parameters
    ----------
    text
        Any text; a long one is counted on a sample, so the time is bounded.

    Returns
    -------
    int
        The estimate.
    """
    if not text:
        return 0
    sample = _ends(text, _COUNTED_LIMIT)
    counted = int(shipped_tokenizer().count([sample])[0])
    return round(counted * len(text) / len(sample))


def conversation_tokens(turns: Sequence[Turn]) -> int | None:
    """Return about how many tokens a whole conversation has.

    Parameters
    ----------
    turns
        ``(role, text)`` from first to last.

    Returns
    -------
    int or None
        The estimate; ``None`` for a single message, which the router counts
        itself.
    """
    if len(turns) <= 1:
        return None
    texts = [text for _, text in turns]
    read = sum(min(len(text), _READ_LIMIT) for text in texts)
    is_short = read <= _PIECES * _PIECE_CHARACTERS
    total = _tokens_of_all(texts) if is_short else _tokens_by_pieces(texts)
    return round(total) + TOKENS_PER_MESSAGE * len(turns)


def _tokens_of_all(texts: Sequence[str]) -> float:
    samples = [_ends(text, _COUNTED_LIMIT) for text in texts]
    counts = shipped_tokenizer().count(samples)
    return sum(
        int(count) * (len(text) / len(sample) if sample else 1.0)
        for count, sample, text in zip(counts, samples, texts, strict=True)
    )


def _tokens_by_pieces(texts: Sequence[str]) -> float:
    """Count pieces from everywhere: a text has its share of them by its length.

    Their places are spread evenly, but not in step with turns of equal lengths.
    """
    ends = list(accumulate(map(len, texts)))
    pieces = []
    for n in range(_PIECES):
        place = int((n + n * _GOLDEN % 1) * ends[-1] / _PIECES)
        at = bisect_right(ends, place)
        pieces.append(_piece(texts[at], place - ends[at] + len(texts[at])))
    counts = shipped_tokenizer().count(pieces)
    dense = sum(
        int(count) / len(piece) for count, piece in zip(counts, pieces, strict=True)
    )
    return dense / _PIECES * ends[-1]


def _piece(text: str, start: int) -> str:
    """Return some characters around a place, without the words cut in two."""
    start = max(min(start, len(text) - _PIECE_CHARACTERS), 0)
    stop = start + _PIECE_CHARACTERS
    piece = text[start:stop]
    if start > 0 and not text[start - 1].isspace():
        piece = piece[piece.find(" ") + 1 :]
    if stop < len(text) and not text[stop].isspace():
        piece = piece[: piece.rfind(" ")] if " " in piece else piece
    return piece or text[start:stop]
