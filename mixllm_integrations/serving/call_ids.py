"""Which ids of tool calls a provider takes, and new ones where it refuses.

One provider's ids are too long for another, or hold signs that it refuses, or are
the same for two calls.
"""

import hashlib
import re
import string
from typing import Self

__all__ = ["FreshIds"]

_ANY = re.compile(r".+", re.DOTALL)
_WORD = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_SHORT = re.compile(r".{1,40}", re.DOTALL)
_NINE = re.compile(r"[a-zA-Z0-9]{9}")
_LEGAL = {
    "anthropic": _WORD,
    "azure": _SHORT,
    "bedrock": _WORD,
    "mistralai": _NINE,
    "openai": _SHORT,
}


class FreshIds:
    """The ids of one conversation's tool calls, each given out once.

    An id that is legal and new stays as it is, so what a provider has cached of
    the conversation stays true as it grows.

    Parameters
    ----------
    legal
        What a whole id has to look like.
    """

    __slots__ = ("_legal", "_taken")

    def __init__(self, legal: re.Pattern[str] = _ANY) -> None:
        self._legal = legal
        self._taken: set[str] = set()

    @classmethod
    def of(cls, provider: str | None) -> Self | None:
        """Return the ids that a provider takes.

        Parameters
        ----------
        provider
            Who is asked, as LangChain calls it.

        Returns
        -------
        FreshIds or None
            ``None`` if it takes any.
        """
        legal = _LEGAL.get(provider or "")
        return None if legal is None else cls(legal)

    def keep(self, given: str) -> None:
        """Note an id that stays as it is, whatever it looks like.

        Parameters
        ----------
        given
            Nobody else gets it.
        """
        self._taken.add(given)

    def new(self, old: str) -> str:
        """Return the id of the next call.

        Parameters
        ----------
        old
            The one that it has.

        Returns
        -------
        str
            The same if it is legal and new.
        """
        new, attempt = old, 0
        while new in self._taken or not self._legal.fullmatch(new):
            new = _hashed(f"{attempt}:{old}", short=self._legal is _NINE)
            attempt += 1
        self._taken.add(new)
        return new


def _hashed(text: str, *, short: bool) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    if not short:
        return f"call_{digest.hex()[:24]}"
    number, letters = int.from_bytes(digest), string.ascii_letters + string.digits
    return "".join(letters[number // 62**place % 62] for place in range(9))
