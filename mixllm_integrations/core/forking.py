"""Lets what threads hold be whole in a process that is forked while they are at work.

A child has the thread that forked, and of all others only what they held: a lock that
nobody gives back, and a matrix that is half way to its next state.
"""

import os
import threading
from typing import Protocol
from weakref import WeakKeyDictionary, WeakSet

__all__ = [
    "DATABASES",
    "ROUTERS",
    "THREADS",
    "Forkable",
    "forkable_lock",
    "survive_forks",
]

# Who is told of a fork first: who holds a lock of one may wait for that of a later one.
DATABASES, THREADS, ROUTERS = range(3)


class Forkable(Protocol):
    """Who has a lock that must be free, or a thread that must be idle, at a fork."""

    def before_fork(self) -> None:
        """Let nobody be in the middle of anything while the process forks."""

    def after_fork(self, *, in_child: bool) -> None:
        """Go on after `before_fork`.

        Parameters
        ----------
        in_child
            Whether this is the new process, which has no other threads.
        """


def survive_forks(one: Forkable, *, order: int = THREADS) -> None:
    """Tell somebody of every fork from now on, for as long as it is there.

    Parameters
    ----------
    one
        Whom; hashable.
    order
        `DATABASES`, `THREADS` or `ROUTERS`: the first are told first.
    """
    _WATCHED[one] = order


def forkable_lock() -> threading.RLock:
    """Return a lock that is free in a forked child, whoever held it in the parent.

    For books that are of use however they stand, in which everybody is but for
    moments; others are told of forks by `survive_forks`.

    Examples
    --------
    >>> with forkable_lock() as is_held:
    ...     is_held
    True
    """
    lock = threading.RLock()
    _LOCKS.add(lock)
    return lock


_WATCHED: "WeakKeyDictionary[Forkable, int]" = WeakKeyDictionary()
_LOCKS: "WeakSet[threading.RLock]" = WeakSet()
_FORKING: list[Forkable] = []


def _before() -> None:
    watched = sorted([*_WATCHED.items()], key=lambda pair: pair[1])
    for one, _ in watched:
        one.before_fork()
        _FORKING.append(one)


def _after(*, in_child: bool) -> None:
    if in_child:
        for lock in list(_LOCKS):
            # What `logging` and `queue` do with theirs; it has no public name.
            lock._at_fork_reinit()  # type: ignore[attr-defined] # noqa: SLF001
    while _FORKING:
        _FORKING.pop().after_fork(in_child=in_child)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before,
        after_in_parent=lambda: _after(in_child=False),
        after_in_child=lambda: _after(in_child=True),
    )
