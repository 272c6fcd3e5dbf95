"""What is still on its way into a store when somebody reads it."""

import weakref
from typing import Protocol

__all__ = ["Flushable", "Settling"]

_LONGEST_SECONDS = 30.0


class Flushable(Protocol):
    """Somebody who writes to a store in the background."""

    def flush(self, timeout_seconds: float | None = None) -> bool:
        """Write what is waiting, and tell whether all of it was written."""
        ...


class Settling:
    """A store that waits for its writers before it is read or closed."""

    def __init__(self) -> None:
        self._writers: weakref.WeakSet[Flushable] = weakref.WeakSet()

    def wait_for(self, writer: Flushable) -> None:
        """Let whoever reads this store find what a writer still has.

        Parameters
        ----------
        writer
            Who writes in the background; it is not kept alive.
        """
        self._writers.add(writer)

    def settle(self) -> None:
        """Wait until all writers have written what they have."""
        for writer in list(self._writers):
            writer.flush(_LONGEST_SECONDS)
