"""Keeps a process from being forked while SQLite is at work in it.

SQLite's own locks, of which a process has one set, would be held in the child for
ever by threads that it does not have: nobody there could open a database again.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mixllm_integrations.core.forking import DATABASES, survive_forks

__all__ = ["GATE", "Gate"]

# Our choice: so long a fork waits for work to end, as where a busy file is waited for.
_MOST_SECONDS = 5.0


class Gate:
    """Counts who is inside, and lets nobody in while the process forks.

    Parameters
    ----------
    most_seconds
        So long a fork waits until all have left.
    """

    def __init__(self, *, most_seconds: float = _MOST_SECONDS) -> None:
        self._most_seconds = most_seconds
        self._begin_anew()
        survive_forks(self, order=DATABASES)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be inside; a fork waits until all have left."""
        with self._changed:
            while self._is_closed and self._forking != threading.get_ident():
                self._changed.wait()
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def before_fork(self) -> None:
        """Let nobody in, and wait until all have left, for some seconds at most."""
        with self._changed:
            self._is_closed, self._forking = True, threading.get_ident()
            self._changed.wait_for(lambda: not self._inside, self._most_seconds)

    def after_fork(self, *, in_child: bool) -> None:
        """Let everybody in again.

        Parameters
        ----------
        in_child
            Whether this is the new process, in which nobody is inside.
        """
        if in_child:
            self._begin_anew()
            return
        with self._changed:
            self._is_closed = False
            self._changed.notify_all()

    def _begin_anew(self) -> None:
        self._changed = threading.Condition()
        self._inside, self._is_closed, self._forking = 0, False, 0


#: Of all SQLite databases of this process.
GATE = Gate()
