"""Which candidates failed a moment ago and should be left alone for now.

A candidate that fails rests; each further failure in a row doubles the rest.
When the rest is over the candidate is half open: one call, the probe, may ask
it, and the others go on leaving it alone until that call has ended.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.forking import forkable_lock
from mixllm_integrations.serving.naming import moved
from mixllm_integrations.serving.rests import Rest, SharedRests

__all__ = ["Cooldown"]

_NOBODY: Mapping[str, float] = MappingProxyType({})

# All our choice. A rest grows to this many times the first one, or to this many
# seconds, whichever is less.
_LONGEST_FACTOR = 20.0
_LONGEST_SECONDS = 600.0
# What a provider says is believed up to here: a daily quota is asked again hourly.
_LONGEST_TOLD_SECONDS = 3600.0
# The first rest after too many requests, if the provider does not say how long.
_BRIEF_SECONDS = 5.0


class Cooldown:
    """Remembers who is cooling down, until when, and who asks first after that.

    Parameters
    ----------
    seconds
        How long the first rest is; 0 turns everything off, what a provider
        says included.
    clock
        Seconds that never go backwards.
    longest_seconds
        Bound of the doubling; ``None``: 20 times `seconds`, but no more than 10
        minutes unless `seconds` itself is more.
    called
        Returns what a candidate is called by now; ``str``: what it always was.

    Raises
    ------
    ConfigurationError
        If `longest_seconds` is less than `seconds`.

    Notes
    -----
    Source: our choice. There is no jitter: it keeps clients of one server from
    returning all at once, and of this process only the probe returns.

    A call that has chosen a candidate claims it, may `reopen` it with its first
    word, and ends with one of `forgive`, `start` and `abandon`. None of these
    waits. A finalizer may abandon a call while another method is under way on
    its thread.

    Examples
    --------
    >>> now = [0.0]
    >>> cooldown = Cooldown(30.0, clock=lambda: now[0])
    >>> cooldown.start("small")
    >>> dict(cooldown.due())
    {'small': 30.0}
    >>> now[0] = 31.0
    >>> cooldown.claim("small", by="first"), cooldown.claim("small", by="second")
    (True, False)
    """

    __slots__ = (
        "_called",
        "_clock",
        "_lock",
        "_rests",
        "_shared",
        "longest_seconds",
        "seconds",
    )

    def __init__(
        self,
        seconds: float,
        *,
        clock: Callable[[], float],
        longest_seconds: float | None = None,
        called: Callable[[str], str] = str,
    ) -> None:
        if longest_seconds is None:
            bound = min(_LONGEST_FACTOR * seconds, _LONGEST_SECONDS)
            longest_seconds = max(seconds, bound)
        elif longest_seconds < seconds:
            raise ConfigurationError(
                f"longest_seconds must be at least the first rest of {seconds:g} s, "
                f"not {longest_seconds!r}"
            )
        self.seconds = seconds
        self.longest_seconds = longest_seconds
        self._clock = clock
        self._called = called
        self._rests: dict[str, Rest] = {}
        # Reentrant: a finalizer may call `abandon` in the middle of anything.
        self._lock = forkable_lock()
        self._shared: SharedRests | None = None

    def share(self, ring: Callable[[], None]) -> SharedRests:
        """Let candidates rest here that failed elsewhere, and the other way round.

        Parameters
        ----------
        ring
            Called when there is something to tell; it must not wait.

        Returns
        -------
        SharedRests
            What is to be told, and is heard. The rest of a candidate that answers
            at another worker ends here as well, and when it is over, the probe is
            one call of all workers, or a few that begin within a moment.
        """
        with self._lock:
            self._shared = SharedRests(
                self._rests,
                self._lock,
                clock=self._clock,
                called=self._called,
                keep_seconds=self.longest_seconds,
                ring=ring,
            )
            return self._shared

    def start(
        self,
        name: str,
        *,
        retry_after_seconds: float | None = None,
        is_brief: bool = False,
        began_at: float | None = None,
        by: str | None = None,
    ) -> None:
        """Leave a candidate out from now on.

        Parameters
        ----------
        name
            The candidate that failed.
        retry_after_seconds
            For how long the provider said to leave it alone: just so long it
            is, or an hour if that is less. ``None``: it did not say.
        is_brief
            Whether it was only asked too often: then the first rest is no longer
            than 5 seconds.
        began_at
            When the call that failed began. A call that was under way when the
            rest was set tells nothing new (it renews a rest that was reopened
            since), and one made during the rest does not double it: a burst of
            failures is one. ``None``: just now.
        by
            The call, as it claimed; ``None``: it did not.
        """
        if self.seconds <= 0:
            return
        with self._lock:
            now = self._clock()
            name = self._called(name)
            rest = self._rests.setdefault(name, Rest())
            rest.release(by)
            if retry_after_seconds is not None:
                told = min(max(retry_after_seconds, 0.0), _LONGEST_TOLD_SECONDS)
                rest.set(now, told, told=True)
                self._tell(name)
                return
            first = min(self.seconds, _BRIEF_SECONDS) if is_brief else self.seconds
            is_new = began_at is None or began_at >= rest.since
            if is_new or rest.reopened:
                if is_new and now >= rest.until:
                    doubled = min(2.0 * rest.seconds, self.longest_seconds)
                    rest.seconds = max(doubled, first)
                rest.set(now, max(rest.seconds, first), told=False)
            self._tell(name)

    def forgive(
        self, name: str, *, began_at: float | None = None, by: str | None = None
    ) -> None:
        """End a candidate's cooldown, because it has answered to the end.

        Parameters
        ----------
        name
            The candidate.
        began_at
            When the call that it answered began. One that was under way when the
            provider said to come back later does not contradict it. ``None``:
            just now.
        by
            The call, as it claimed; ``None``: it did not.
        """
        if not self._rests:  # reading a dict's truth needs no lock
            return
        with self._lock:
            name = self._called(name)
            rest = self._rests.get(name)
            if rest is None:
                return
            rest.release(by)
            if rest.is_contradicted(began_at):
                del self._rests[name]
            self._tell(name)

    def reopen(self, name: str, *, by: str, began_at: float | None = None) -> None:
        """End a candidate's rest, because its answer has begun.

        Anybody may ask it at once, but its failures in a row are remembered
        until `forgive`: one that always breaks after its first word rests
        twice as long each time.

        Parameters
        ----------
        name
            The candidate.
        by
            The call, as it claimed.
        began_at
            When that call began, as in `forgive`; ``None``: just now.
        """
        if not self._rests:
            return
        with self._lock:
            name = self._called(name)
            rest = self._rests.get(name)
            if rest is None:
                return
            rest.release(by)
            if rest.is_contradicted(began_at):
                rest.probe = None
                rest.until = max(rest.until, self._clock())  # remembered from now
                rest.reopened = True
            self._tell(name)

    def due(self) -> Mapping[str, float]:
        """Return who is not to be asked now, if there is anybody else.

        Returns
        -------
        Mapping
            From each such candidate to the time when its rest is over; in the
            past for one that is being probed.
        """
        if not self._rests:
            return _NOBODY
        with self._lock:
            now = self._clock()
            self._forget(now)
            return {
                n: rest.until for n, rest in self._rests.items() if rest.blocks(now)
            }

    def claim(self, name: str, *, by: str) -> bool:
        """Ask whether a call may go to a candidate; if it is half open, as its probe.

        Parameters
        ----------
        name
            The candidate that was chosen.
        by
            Names the call, for example by its decision.

        Returns
        -------
        bool
            False if the candidate rests or another call is its probe: choose
            anew, or ask it all the same if there is nobody else.
        """
        if not self._rests:
            return True
        with self._lock:
            name = self._called(name)
            rest = self._rests.get(name)
            if rest is None or rest.reopened:
                return True
            now = self._clock()
            if rest.blocks(now):
                return rest.probe == by
            rest.probe, rest.probe_since = by, now
            self._tell(name)
            return True

    def abandon(self, name: str, *, by: str) -> None:
        """Let another call probe a candidate, since this one ended without a word.

        Parameters
        ----------
        name
            The candidate.
        by
            The call; if it is not the probe, nothing happens.
        """
        if not self._rests:
            return
        with self._lock:
            name = self._called(name)
            rest = self._rests.get(name)
            if rest is not None and rest.probe == by:
                rest.release(by)
                self._tell(name)

    def renamed(self, old: str, new: str) -> None:
        """Let a candidate rest under another name.

        Parameters
        ----------
        old, new
            Its names.
        """
        with self._lock:
            moved(self._rests, old, new)
            if self._shared is not None:
                self._shared.renamed(old, new)

    def _tell(self, name: str) -> None:
        if self._shared is not None:
            self._shared.changed(name)

    def _forget(self, now: float) -> None:
        """Drop candidates that nobody has asked for long, or that were removed."""
        long_ago = now - self.longest_seconds
        gone = [
            name
            for name, rest in self._rests.items()
            if rest.until <= long_ago and not rest.blocks(now)
        ]
        for name in gone:
            del self._rests[name]
