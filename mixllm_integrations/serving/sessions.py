"""Who has read the beginning of a conversation, and what it is worth to stay there.

A provider charges less for a prompt whose beginning it has read a moment ago.
So in a session the candidate that answered last is cheaper than its list price
says, and another one has to be better by more than that to take over.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from mixllm_integrations.serving.naming import moved

__all__ = ["Sessions"]

# All our choice. Providers keep a prompt for five to ten minutes; who forgets a
# conversation too early only pays what it paid without sessions.
_WARM_SECONDS = 300.0
_CAPACITY = 10_000
# A change of voice in mid-conversation is not free either.
_SAME_VOICE = 0.02
# How fast it is learned that a provider does not keep prompts after all.
_SMOOTHING = 0.3
# Shorter prompts are kept by no provider that we know of.
_LEAST_TOKENS = 1024

_NOTHING: Mapping[str, float] = MappingProxyType({})


class _Read(NamedTuple):
    tokens: int
    at: float


class Sessions:
    """Remembers who has read how much of each session.

    Parameters
    ----------
    clock
        Seconds that never go backwards.
    capacity
        How many sessions are remembered, those used last.
    called
        Returns what a candidate is called by now; ``str``: what it always was.

    Attributes
    ----------
    saving_per_token
        From candidate to the USD that it charges less for a token out of its
        cache; who is not in it saves nothing.

    Notes
    -----
    Source: our choice.
    """

    __slots__ = (
        "_called",
        "_capacity",
        "_clock",
        "_lock",
        "_read",
        "_share",
        "saving_per_token",
    )

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        capacity: int = _CAPACITY,
        called: Callable[[str], str] = str,
    ) -> None:
        self._called = called
        self._clock = clock
        self._capacity = capacity
        self._lock = threading.RLock()  # a finalizer may come in between
        self._read: OrderedDict[str, dict[str, _Read]] = OrderedDict()
        self._share: dict[str, float] = {}
        self.saving_per_token: dict[str, float] = {}

    def discounts(self, session: str, input_tokens: int | None) -> Mapping[str, float]:
        """Return what each candidate would save on the next prompt of a session.

        Parameters
        ----------
        session
            Which session.
        input_tokens
            Length of the prompt; ``None`` for a single short message.

        Returns
        -------
        Mapping
            USD by candidate.
        """
        if not input_tokens:
            return _NOTHING
        found = {}
        for name, tokens in self._warm(session).items():
            warm = min(tokens, input_tokens)
            if warm < _LEAST_TOKENS:
                continue
            saving = warm * self.saving_per_token.get(name, 0.0)
            saving *= self._share.get(name, 1.0)
            if saving > 0:
                found[name] = saving
        return found

    def head_start(self, session: str) -> Mapping[str, float]:
        """Return what speaks for the candidate that answered last.

        Parameters
        ----------
        session
            Which session.

        Returns
        -------
        Mapping
            Units of quality by candidate.
        """
        with self._lock:
            known = self._read.get(session)
            return {next(reversed(known)): _SAME_VOICE} if known else _NOTHING

    def note(
        self, session: str, candidate: str, tokens: int, *, cached: int | None = None
    ) -> None:
        """Remember that a candidate has answered in a session.

        Parameters
        ----------
        session
            Which session.
        candidate
            Who answered.
        tokens
            Length of the prompt and of the answer, which the next prompt will
            begin with.
        cached
            How many tokens of the prompt the provider says that it had read
            before; ``None`` if it says nothing.
        """
        with self._lock:
            candidate = self._called(candidate)
            expected = self._warm(session).get(candidate, 0)
            if cached is not None and min(expected, tokens) >= _LEAST_TOKENS:
                share = min(cached / min(expected, tokens), 1.0)
                before = self._share.get(candidate, 1.0)
                self._share[candidate] = before + _SMOOTHING * (share - before)
            known = self._read.pop(session, {})
            known.pop(candidate, None)
            known[candidate] = _Read(tokens, self._clock())  # the last is last
            self._read[session] = known
            while len(self._read) > self._capacity:
                self._read.popitem(last=False)

    def renamed(self, old: str, new: str) -> None:
        """Remember what a candidate has read under another name.

        Parameters
        ----------
        old, new
            Its names.
        """
        with self._lock:
            moved(self._share, old, new)
            moved(self.saving_per_token, old, new)
            for session, known in list(self._read.items()):
                if old in known:
                    self._read[session] = {
                        new if name == old else name: read
                        for name, read in known.items()
                        if name != new
                    }

    def _warm(self, session: str) -> dict[str, int]:
        oldest = self._clock() - _WARM_SECONDS
        with self._lock:
            known = self._read.get(session, {})
            return {name: r.tokens for name, r in known.items() if r.at > oldest}
