"""Who has read the beginning of a conversation, and what it is worth to stay there.

A provider charges less for a prompt whose beginning it has read a moment ago.
So in a session the candidate that answered last is cheaper than its list price
says, and another one has to be better by more than that to take over.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from mixllm_integrations.core.forking import forkable_lock
from mixllm_integrations.serving.naming import moved
from mixllm_integrations.store.live import SessionNote

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

# Of a session's name where workers share them: it may be long, or tell of a person.
_DIGEST_BYTES = 16
_AT_ONCE = 500  # notes in one message

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
    Source: our choice. Where workers share sessions, each hears within half a second
    who has answered elsewhere, and the session is kept under a digest of its name.
    A call never waits for that: one that comes sooner on another worker goes by what
    is known there.
    """

    __slots__ = (
        "_called",
        "_capacity",
        "_clock",
        "_is_shared",
        "_lock",
        "_read",
        "_sent",
        "_share",
        "_untold",
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
        self._lock = forkable_lock()  # a finalizer may come in between
        self._read: OrderedDict[str, dict[str, _Read]] = OrderedDict()
        self._share: dict[str, float] = {}
        self._is_shared = False
        self._untold: OrderedDict[tuple[str, str], _Read] = OrderedDict()
        self._sent: OrderedDict[tuple[str, str], _Read] = OrderedDict()
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
            known = self._read.get(self._key(session))
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
            read = _Read(tokens, self._clock())
            self._keep(self._key(session), candidate, read)
            if self._is_shared:
                told = self._key(session), candidate
                self._untold.pop(told, None)
                self._untold[told] = read
                if len(self._untold) > self._capacity:
                    self._untold.popitem(last=False)

    def share(self) -> None:
        """Note for other workers who answers here; what is known here is forgotten."""
        with self._lock:
            if not self._is_shared:
                self._is_shared = True
                self._read.clear()

    def take(self) -> list[SessionNote]:
        """Return what is to be told; then comes `arrived` or `lost`."""
        with self._lock:
            now = self._clock()
            while self._untold and len(self._sent) < _AT_ONCE:
                told, read = self._untold.popitem(last=False)
                self._sent[told] = read
            return [
                SessionNote(*told, read.tokens, max(now - read.at, 0.0))
                for told, read in self._sent.items()
            ]

    def arrived(self) -> None:
        """Know that what was taken was told."""
        self._sent.clear()

    def lost(self) -> None:
        """Tell once more what was taken."""
        with self._lock:
            self._untold = OrderedDict({**self._sent, **self._untold})
            self._sent.clear()

    @property
    def has_untold(self) -> bool:
        """Whether there is more to be told."""
        return bool(self._untold)

    def hear(self, notes: Iterable[SessionNote]) -> None:
        """Remember who has answered at other workers.

        Parameters
        ----------
        notes
            In any order; those that are older than what is known change nothing.
        """
        with self._lock:
            now = self._clock()
            for note in notes:
                read = _Read(note.tokens, now - note.age)
                self._keep(note.session, self._called(note.candidate), read)

    def _keep(self, session: str, candidate: str, read: _Read) -> None:
        """Remember who has answered; the last is last."""
        known = self._read.pop(session, {})
        before = known.pop(candidate, read)
        known[candidate] = before if before.at > read.at else read
        if any(other.at > read.at for other in known.values()):
            known = dict(sorted(known.items(), key=lambda item: item[1].at))
        self._read[session] = known
        while len(self._read) > self._capacity:
            self._read.popitem(last=False)

    def _key(self, session: str) -> str:
        """Return what a session is called among workers."""
        if not self._is_shared:
            return session
        raw = session.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(raw, digest_size=_DIGEST_BYTES).hexdigest()

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
            known = self._read.get(self._key(session), {})
            return {name: r.tokens for name, r in known.items() if r.at > oldest}
