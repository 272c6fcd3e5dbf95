"""A clock that goes on where the one it reads is set back."""

import time
from collections.abc import Callable

from mixllm_integrations.core.forking import forkable_lock

__all__ = ["steady"]


def steady(clock: Callable[[], float]) -> Callable[[], float]:
    """Return a clock that never goes backwards.

    Parameters
    ----------
    clock
        Seconds from any start, maybe of a clock that somebody sets.

    Returns
    -------
    callable
        Shows the same until the first jump backwards; then it goes on from
        there, so that what was to end in a minute does. A jump forwards is time
        that has passed. `time.monotonic` is returned as it is.

    Examples
    --------
    >>> times = iter([100.0, 101.0, 50.0, 52.0])
    >>> now = steady(lambda: next(times))
    >>> now(), now(), now()
    (101.0, 101.0, 103.0)
    """
    return clock if clock in _NEVER_BACK else _Steady(clock)


_NEVER_BACK = (time.monotonic, time.perf_counter)


class _Steady:
    """Adds up how much later each reading is than the one before."""

    __slots__ = ("_clock", "_elapsed", "_last", "_lock")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = self._elapsed = clock()
        self._lock = forkable_lock()  # a finalizer may read it in between

    def __call__(self) -> float:
        with self._lock:
            now = self._clock()
            self._elapsed += max(now - self._last, 0.0)
            self._last = now
            return self._elapsed
