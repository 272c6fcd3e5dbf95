"""The parts of a fit that know nothing of each other, wherever joblib runs them.

``joblib.parallel_config`` around a fit says where: on threads, in processes, on a
Dask or Ray cluster. What is found is the same to the last bit: each part computes
by itself, on one thread of its linear algebra, and is put where it belongs.
"""

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

__all__ = ["alone", "map_apart", "n_jobs", "quietly"]

_T = TypeVar("_T")


def n_jobs(usual: int) -> int | None:
    """Return how many jobs to ask joblib for.

    Parameters
    ----------
    usual
        Where the caller of a fit said nothing.

    Returns
    -------
    int or None
        ``None``, which leaves it to `joblib.parallel_config`, where that was used.
    """
    from joblib.parallel import BACKENDS, DEFAULT_BACKEND, get_active_backend

    backend, jobs = get_active_backend()
    is_unsaid = jobs is None and type(backend) is BACKENDS[DEFAULT_BACKEND]
    return usual if is_unsaid else None


def map_apart(work: Callable[..., _T], given: Sequence[tuple[Any, ...]]) -> list[_T]:
    """Return what a function gives for each of several arguments, in their order.

    Parameters
    ----------
    work
        A function of a module: workers import it.
    given
        Its arguments. A large array that is the same object in all of them goes
        to a worker once, and is read there, never written.

    Returns
    -------
    list
        One result each. The first error that one raises is raised here.

    Notes
    -----
    One after the other unless `joblib.parallel_config` says otherwise: on one
    thread, linear algebra of this size takes half the time of the processor.
    """
    if len(given) < 2:
        return [alone(work, *arguments) for arguments in given]
    from joblib import Parallel, delayed

    with _ONE_THREAD.kept():
        run = Parallel(prefer="threads")
        return list(run(delayed(alone)(work, *arguments) for arguments in given))


def alone(work: Callable[..., _T], *arguments: Any) -> _T:  # noqa: ANN401
    """Return what a function gives, on this thread and on no other.

    Parameters
    ----------
    work, arguments
        The function, and what it is called with.
    """
    from joblib import parallel_config

    with parallel_config("sequential"), _ONE_THREAD.kept():
        return work(*arguments)


def quietly() -> AbstractContextManager[None]:
    """Return a context in which a network may end before it converges.

    What other threads do to the filters of warnings meanwhile is undone as well.
    """
    return _QUIET.kept()


class _Shared:
    """A setting of the whole process, kept while any thread needs it.

    The first to come changes it and the last to go restores it: with each on its
    own, one thread would restore what another one still needs.
    """

    def __init__(self, change: Callable[[ExitStack], None]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._inside = 0
        self._changed = ExitStack()

    @contextmanager
    def kept(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._change(self._changed)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._changed.close()


def _ignore_convergence(stack: ExitStack) -> None:
    from sklearn.exceptions import ConvergenceWarning

    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore", ConvergenceWarning)


def _use_one_thread(stack: ExitStack) -> None:
    from threadpoolctl import threadpool_limits

    stack.enter_context(threadpool_limits(1))


_QUIET, _ONE_THREAD = _Shared(_ignore_convergence), _Shared(_use_one_thread)
