"""Gives up on a blocking call after a while.

Python cannot stop a call in another library, so it is made on a thread of its
own, which is left behind when it is late.
"""

import contextvars
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["run_within"]

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
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(context.run(function, *args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - raised by the waiting thread
            errors.append(error)

    thread = threading.Thread(target=work, name="mixllm-deadline", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return results[0]
