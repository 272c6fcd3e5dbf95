"""Which candidates failed a moment ago and should be left alone for now."""

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType

__all__ = ["Cooldown"]

_NOBODY: Mapping[str, float] = MappingProxyType({})


class Cooldown:
    """Remembers who is cooling down, and until when.

    Parameters
    ----------
    seconds
        How long; 0 turns it off.
    clock
        Seconds that never go backwards.
    """

    __slots__ = ("_clock", "_lock", "_until", "seconds")

    def __init__(self, seconds: float, *, clock: Callable[[], float]) -> None:
        self.seconds = seconds
        self._clock = clock
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def start(self, name: str) -> None:
        """Leave a candidate out from now on.

        Parameters
        ----------
        name
            The candidate that failed.
        """
        if self.seconds > 0:
            with self._lock:
                self._until[name] = self._clock() + self.seconds

    def forgive(self, name: str) -> None:
        """End a candidate's cooldown, because it has answered.

        Parameters
        ----------
        name
            The candidate.
        """
        if self._until:
            with self._lock:
                self._until.pop(name, None)

    def due(self) -> Mapping[str, float]:
        """Return who is cooling down.

        Returns
        -------
        Mapping
            From each such candidate to the time when it is due again.
        """
        if not self._until:  # reading a dict's truth needs no lock
            return _NOBODY
        now = self._clock()
        with self._lock:
            for name in [n for n, until in self._until.items() if until <= now]:
                del self._until[name]
            return dict(self._until)
