"""How a candidate that failed rests, here and, where workers share it, elsewhere.

Beside `cooldown`, which decides when a rest begins and ends.
"""

import threading
from collections.abc import Callable, Iterable, MutableMapping, Sequence

from mixllm_integrations.serving.naming import moved
from mixllm_integrations.store.live import HeardRest, RestNote

__all__ = ["Rest", "SharedRests"]

# After so long a probe of which nothing was heard counts as lost (our choice).
_PROBE_SECONDS = 60.0
_ELSEWHERE = "\0elsewhere"  # the probe of another worker; no decision has this id


class Rest:
    """What is remembered of a candidate that failed.

    Attributes
    ----------
    seconds
        How long it rests for its failures in a row; 0 before the first one that
        was not a provider's own "come back later".
    since, until
        When the rest was set, and when it is over.
    told
        Whether the provider said how long.
    reopened
        Whether a first word has come since: anybody may ask it, but the failures
        in a row count until an answer is whole.
    probe, probe_since
        Which call asks whether it is well again, and since when.
    """

    __slots__ = (
        "probe",
        "probe_since",
        "reopened",
        "seconds",
        "since",
        "told",
        "until",
    )

    def __init__(self) -> None:
        self.seconds = 0.0
        self.since = self.until = float("-inf")
        self.told = False
        self.reopened = False
        self.probe: str | None = None
        self.probe_since = 0.0

    def blocks(self, now: float) -> bool:
        """Tell whether an ordinary call has to leave the candidate alone."""
        if self.reopened:
            return False
        if now < self.until:
            return True
        return self.probe is not None and now < self.probe_since + _PROBE_SECONDS

    def set(self, now: float, seconds: float, *, told: bool) -> None:
        """Begin the rest; one that goes on for longer is not cut short."""
        if self.reopened or now + seconds >= self.until:
            self.until = now + seconds
            self.told = told
        self.since = now
        self.reopened = False

    def is_contradicted(self, began_at: float | None) -> bool:
        """Tell whether an answer to a call of that time ends the rest."""
        return not self.told or began_at is None or began_at >= self.since

    @property
    def is_probed_here(self) -> bool:
        """Whether a call of this worker asks whether it is well again."""
        return self.probe not in (None, _ELSEWHERE)

    def release(self, by: str | None) -> None:
        """Free the probe's place, if it is this call's."""
        if by is not None and self.probe == by:
            self.probe = None

    def take_over(self, heard: HeardRest, now: float) -> None:
        """Rest as another worker says."""
        self.since, self.until = now - heard.since, now + heard.remaining
        self.seconds, self.told = heard.seconds, heard.told
        self.reopened = heard.reopened
        if heard.probed and self.probe is None:
            self.probe, self.probe_since = _ELSEWHERE, now
        elif not heard.probed:
            self.release(_ELSEWHERE)


class SharedRests:
    """What one cooldown and those of other workers tell each other.

    Parameters
    ----------
    rests
        By candidate; shared with the cooldown.
    lock
        The cooldown's, reentrant.
    clock
        The cooldown's.
    called
        Returns what a candidate is called by now.
    keep_seconds
        How long after its end a rest is remembered.
    ring
        Called when there is something to tell; it must not wait.

    Notes
    -----
    Source: our choice. The later word holds, here as at the place where workers
    meet: what has changed here and is not told yet is not overwritten by what is
    heard, and what was heard is applied if its version is new.
    """

    __slots__ = (
        "_called",
        "_changed",
        "_clock",
        "_keep",
        "_lock",
        "_rests",
        "_ring",
        "_sent",
        "_versions",
    )

    def __init__(
        self,
        rests: MutableMapping[str, Rest],
        lock: "threading.RLock",
        *,
        clock: Callable[[], float],
        called: Callable[[str], str],
        keep_seconds: float,
        ring: Callable[[], None],
    ) -> None:
        self._rests = rests
        self._lock = lock
        self._clock = clock
        self._called = called
        self._keep = keep_seconds
        self._ring = ring
        self._changed: dict[str, float] = {}
        self._sent: dict[str, float] = {}
        self._versions: dict[str, int] = {}

    def changed(self, name: str) -> None:
        """Tell other workers how a candidate stands; its lock is held.

        Parameters
        ----------
        name
            The candidate.
        """
        self._changed[name] = self._clock()
        self._ring()

    def take(self) -> list[RestNote]:
        """Return what is to be told; then comes `arrived` or `lost`."""
        with self._lock:
            self._sent, self._changed = self._changed, {}
            now = self._clock()
            return [self._note(name, at, now) for name, at in self._sent.items()]

    def arrived(self, versions: Sequence[int]) -> None:
        """Know that what was taken was told.

        Parameters
        ----------
        versions
            As in `Heard`.
        """
        with self._lock:
            for name, version in zip(self._sent, versions, strict=True):
                if version:
                    self._versions[name] = version
            self._sent = {}

    def lost(self) -> None:
        """Tell once more what was taken."""
        with self._lock:
            self._changed = {**self._sent, **self._changed}
            self._sent = {}

    def hear(self, heard: Iterable[HeardRest]) -> None:
        """Let candidates stand as others say, where that is news.

        Parameters
        ----------
        heard
            As in `Heard`: all of them.
        """
        if not self._keep:  # nobody rests here, whatever happens
            return
        with self._lock:
            now, versions = self._clock(), {}
            for rest in sorted(heard, key=lambda rest: rest.version):
                known = self._versions.get(rest.candidate, 0)
                name = self._called(rest.candidate)
                if rest.version > known and name not in self._changed:
                    known = rest.version
                    if rest.well:
                        self._rests.pop(name, None)
                    else:
                        self._rests.setdefault(name, Rest()).take_over(rest, now)
                versions[rest.candidate] = known
            self._versions = versions

    def tell_all(self) -> None:
        """Tell all that is known here: elsewhere it was lost."""
        with self._lock:
            self._versions.clear()
            for name, rest in self._rests.items():
                at = rest.probe_since if rest.is_probed_here else rest.since
                self._changed.setdefault(name, at)

    def renamed(self, old: str, new: str) -> None:
        """Tell of a candidate under another name; its lock is held.

        Parameters
        ----------
        old, new
            Its names.
        """
        moved(self._changed, old, new)
        if new in self._rests:
            self.changed(new)

    def _note(self, name: str, at: float, now: float) -> RestNote:
        rest = self._rests.get(name)
        base, age = self._versions.get(name, 0), max(now - at, 0.0)
        if rest is None:
            return RestNote(
                *(name, base, age, age, 0.0, 0.0),
                told=False,
                reopened=False,
                well=True,
                probing=False,
                keep=self._keep,
            )
        return RestNote(
            *(name, base, age, now - rest.since, rest.until - now, rest.seconds),
            *(rest.told, rest.reopened),
            well=False,
            probing=rest.is_probed_here,
            keep=self._keep,
        )
