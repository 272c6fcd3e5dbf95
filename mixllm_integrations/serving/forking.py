"""Lets threads of ours be in the middle of nothing while the process forks."""

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["Forkable", "survive_forks"]


class Forkable(Protocol):
    """Who has a thread, and locks that it holds now and then."""

    def before_fork(self) -> None:
        """Let the thread be in the middle of nothing while the process forks."""

    def after_fork(self, *, in_child: bool) -> None:
        """Go on after `before_fork`.

        Parameters
        ----------
        in_child
            Whether this is the new process, which has no other threads.
        """


def survive_forks(one: Forkable) -> None:
    """Tell somebody of every fork from now on, for as long as it is there.

    Parameters
    ----------
    one
        Whom; hashable.
    """
    _WATCHED.add(one)


_WATCHED: "WeakSet[Forkable]" = WeakSet()
_FORKING: list[Forkable] = []


def _before() -> None:
    for one in list(_WATCHED):
        one.before_fork()
        _FORKING.append(one)


def _after(*, in_child: bool) -> None:
    while _FORKING:
        _FORKING.pop().after_fork(in_child=in_child)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before,
        after_in_parent=lambda: _after(in_child=False),
        after_in_child=lambda: _after(in_child=True),
    )
