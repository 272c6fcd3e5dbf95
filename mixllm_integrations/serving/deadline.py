"""Gives up on a blocking call after a while.

Python cannot stop a call in another library, so it is made on another thread,
which is left behind when it is late.
"""

import contextvars
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import ParamSpec, TypeVar

from mixllm_integrations.serving.threads import Job

__all__ = ["first_within", "run_within"]

P = ParamSpec("P")
T = TypeVar("T")


def run_within(
    seconds: float | None,
    function: Callable[P, T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Call a function, but do not wait for it longer than allowed.

    Parameters
    ----------
    seconds
        How long to wait; ``None``: as long as it takes, on this thread.
    function
        What to call; context variables are visible to it.
    *args, **kwargs
        Its arguments.

    Returns
    -------
    object
        What it returned.

    Raises
    ------
    TimeoutError
        If it was late. It goes on in the background, unheard.

    Examples
    --------
    >>> run_within(1.0, sum, [1, 2])
    3
    """
    if seconds is None:
        return function(*args, **kwargs)
    context = contextvars.copy_context()
    return _Timed(partial(context.run, function, *args, **kwargs)).within(seconds)


def first_within(
    seconds: float | None, items: Iterator[T], end: T
) -> tuple[T, Iterator[T]]:
    """Take the first item, but do not wait for it longer than allowed.

    Parameters
    ----------
    seconds
        How long to wait; ``None``: as long as it takes, on this thread.
    items
        Where it comes from; not to be used any more, but for what is returned.
        If it is late, it is closed in the background as soon as it can be.
    end
        What to return if there is none.

    Returns
    -------
    tuple
        The first item, and an iterator over the others with a method ``close``
        if `items` has one. All of them see the same context variables.

    Raises
    ------
    TimeoutError
        If it was late.

    Examples
    --------
    >>> first, rest = first_within(1.0, iter("abc"), None)
    >>> first, list(rest)
    ('a', ['b', 'c'])
    """
    if seconds is None:
        return next(items, end), items
    rest = _InOneContext(items)
    job: _Timed[T] = _Timed(partial(rest.next_or, end), if_late=rest.close)
    return job.within(seconds), rest


class _InOneContext(Iterator[T]):
    """An iterator that is run in one context, whatever thread asks for an item.

    A generator that sets a context variable can reset it in that context only.
    """

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._context = contextvars.copy_context()

    def __next__(self) -> T:
        return self._context.run(next, self._items)

    def next_or(self, end: T) -> T:
        return self._context.run(next, self._items, end)

    def close(self) -> None:
        """Close what it iterates over."""
        close = getattr(self._items, "close", None)
        if close is not None:
            self._context.run(close)


class _Timed(Job[T]):
    """A call that a thread waits for."""

    __slots__ = ("_ended",)

    def __init__(
        self, work: Callable[[], T], *, if_late: Callable[[], object] | None = None
    ) -> None:
        super().__init__(work, if_late=if_late)
        self._ended = threading.Lock()
        self._ended.acquire()

    def within(self, seconds: float) -> T:
        """Return what the call returns, or raise what it raises."""
        self.begin()
        try:
            limit = min(max(seconds, 0.0), threading.TIMEOUT_MAX)
            has_ended = self._ended.acquire(timeout=limit)
        except BaseException:  # such as the user's Ctrl-C
            self.give_up()
            raise
        if not has_ended:
            if self.give_up():
                raise TimeoutError(f"no answer within {seconds:g} s")
            self._ended.acquire()  # it ended at this moment
        return self.result()

    def wake(self) -> None:
        self._ended.release()
