"""Keeps a worker in touch with others: load, rests, sessions, the budget.

All that needs the network happens on a thread of its own, four times a second and
when there is news; a call looks at what is known here. Losing the others stops
nothing.
"""

import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from mixllm_integrations.core.forking import survive_forks
from mixllm_integrations.serving.talking import Member, Talk
from mixllm_integrations.store.live import (
    SharedState,
    SharedStateError,
    open_shared_state,
)

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router
    from mixllm_integrations.serving.cooldown import Cooldown
    from mixllm_integrations.serving.sessions import Sessions

__all__ = ["Live"]

_log = logging.getLogger(__name__)

# All our choice.
_POLL_SECONDS = 0.25
_RETRY_SECONDS = 1.0


class _Bell:
    """Wakes the thread; it may be rung in the middle of anything, and never waits."""

    __slots__ = ("_queue", "is_over")

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        self._queue: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.is_over = False

    def ring(self) -> None:
        self._queue.put(None)

    def end(self) -> None:
        self.is_over = True
        self._queue.put(None)

    def wait(self, seconds: float) -> None:
        """Wait until it is rung, or for so long; what was rung before counts."""
        try:
            self._queue.get(timeout=max(seconds, 0.0))
            while True:
                self._queue.get_nowait()
        except queue.Empty:
            return


class Live:
    """A worker among others, for one router.

    Parameters
    ----------
    router
        Whose load, and budget, are shared.
    state
        Where workers meet.
    owned
        Whether nobody else has the state: it is closed with this.
    poll_seconds
        How often the others are heard.
    clock
        Seconds that never go backwards.

    Notes
    -----
    Source: our choice. A sibling acts within `poll_seconds` and a moment on a
    cooldown that begins or ends here, and within twice that on load and sessions.
    Candidates are known to other workers by their names: one that is renamed here
    is somebody else for them until they rename it as well. A router whose budget is
    in a `LocalPurse` gets a `SharedPurse` instead: from then on the budget is that
    of all workers together. A forked child is a worker of its own.
    """

    _thread: threading.Thread | None
    _starting: threading.Lock

    def __init__(
        self,
        router: "Router",
        state: SharedState,
        *,
        owned: bool = False,
        poll_seconds: float = _POLL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._talk = Talk(router, state, clock=clock)
        self._state = state
        self._poll_seconds = poll_seconds
        self._bell = _Bell()
        if self._talk.purse is not None:
            self._talk.purse.ring = self._bell.ring
        self._failing = False
        self._closed = False
        self._begin_anew()
        self._end = weakref.finalize(self, _end, self._bell, state if owned else None)
        survive_forks(self)

    @classmethod
    def over(
        cls, router: "Router", shared_state: str | SharedState | None
    ) -> "Live | None":
        """Return what keeps a router in touch: the same as long as it is in use.

        Parameters
        ----------
        router
            Whose load is told.
        shared_state
            ``None``, a URL, or a `SharedState`.

        Returns
        -------
        Live or None
            ``None`` if there is nothing to share.

        Raises
        ------
        ConfigurationError
            If `shared_state` cannot be used.
        """
        is_url = isinstance(shared_state, str)
        where = shared_state if is_url else id(shared_state)
        with _OPENING:
            found = _OPENED.get((id(router), where))
            if found is None:
                opened = open_shared_state(shared_state)
                if opened is None:
                    return None
                found = cls(router, opened, owned=is_url)
                _OPENED[id(router), where] = found
            return found

    @property
    def worker(self) -> str:
        """Id of this worker, which no other has; another one after a fork."""
        return self._talk.worker

    @property
    def is_closed(self) -> bool:
        """Whether nothing is told and heard any more."""
        return self._closed

    def join(self, owner: object, cooldown: "Cooldown", sessions: "Sessions") -> None:
        """Share the cooldowns and the sessions of a dispatcher.

        What other workers know is asked for once, so that the first call knows it.

        Parameters
        ----------
        owner
            The dispatcher: they are shared as long as it is in use.
        cooldown, sessions
            Its own.
        """
        sessions.share()
        self._talk.join(owner, Member(cooldown.share(self._bell.ring), sessions))
        if self._thread is None:
            self.look(with_lease=False)

    def start(self) -> None:
        """Be in touch from now on; once it is, this costs nothing.

        Where the router has a budget, the first lease is waited for, once in each
        process and no longer than the timeouts of the shared state.
        """
        if self._thread is not None or self._closed:
            return
        with self._starting:
            if self._thread is not None:
                return
            purse = self._talk.purse
            if purse is not None and purse.budget is not None:
                self.look()
            thread = threading.Thread(
                target=_keep_in_touch,
                args=(weakref.ref(self), self._bell),
                name="mixllm-live",
                daemon=True,
            )
            try:
                thread.start()
            except RuntimeError:  # the interpreter is going down
                self._closed = True
                return
            self._thread = thread

    def close(self) -> None:
        """Be in touch no more; closing twice is harmless."""
        self._closed = True
        self._bell.end()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_RETRY_SECONDS)
        self._end()

    def look(self, *, with_lease: bool = True) -> bool:
        """Tell and hear what there is; what fails is logged once.

        Parameters
        ----------
        with_lease
            Whether money is leased as well.

        Returns
        -------
        bool
            Whether others could be reached.
        """
        try:
            self._talk.talk(with_lease=with_lease)
        except Exception as error:  # noqa: BLE001 - nobody is there to catch it
            self._talk.forget_old_load()
            if not self._failing and not self._closed:
                self._failing = True
                _log.warning(
                    "the shared state is away, each worker goes on by what it knows; "
                    "it is said when it is back: %s",
                    # Ours says no password; what others' say, nobody knows.
                    (isinstance(error, SharedStateError) and str(error))
                    or type(error).__name__,
                )
            return False
        if self._failing:
            self._failing = False
            _log.warning("the shared state is back: other workers are heard again")
        return True

    def pause(self, *, worked: bool) -> float:
        """Return how long to wait before the next look.

        Parameters
        ----------
        worked
            Whether the last one did.

        Returns
        -------
        float
            Seconds.
        """
        if not worked:
            return max(_RETRY_SECONDS, self._poll_seconds)
        purse = self._talk.purse
        if purse is not None and purse.budget is not None and purse.ends_in_seconds > 0:
            return min(self._poll_seconds, purse.ends_in_seconds)
        return self._poll_seconds

    def before_fork(self) -> None:
        """Let the thread be in the middle of nothing while the process forks."""
        self._talk.lock.acquire()

    def after_fork(self, *, in_child: bool) -> None:
        """Go on after `before_fork`.

        Parameters
        ----------
        in_child
            Whether this is the new process: a worker of its own.
        """
        if in_child:
            self._talk.begin_anew()
            self._state.begin_anew()
            if self._talk.purse is not None:
                self._talk.purse.after_fork()
            self._begin_anew()
        self._talk.lock.release()

    def _begin_anew(self) -> None:
        self._thread = None
        self._starting = threading.Lock()
        self._bell.begin_anew()


def _keep_in_touch(live: "weakref.ref[Live]", bell: _Bell) -> None:
    worked, pause = True, 0.0
    while True:
        if worked:
            bell.wait(pause)
        else:  # news do not make it come back sooner
            until = time.monotonic() + pause
            while time.monotonic() < until and not bell.is_over:
                bell.wait(until - time.monotonic())
        alive = live()
        if alive is None or alive.is_closed:
            return
        worked = alive.look()
        pause = alive.pause(worked=worked)
        del alive


def _end(bell: _Bell, owned: SharedState | None) -> None:
    bell.end()
    if owned is not None:
        owned.close()


_OPENING = threading.Lock()
# Each keeps its router alive, so the id of one that is found is that of no other.
_OPENED: WeakValueDictionary[tuple[int, object], Live] = WeakValueDictionary()
