"""What a worker tells others, and what it makes of what it hears; beside `live`."""

import threading
import time
import uuid
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from mixllm_integrations.core.purse import LocalPurse
from mixllm_integrations.serving.naming import renames_of
from mixllm_integrations.serving.rests import SharedRests
from mixllm_integrations.serving.sessions import Sessions
from mixllm_integrations.serving.shared_purse import SharedPurse
from mixllm_integrations.store.live import Heard, Load, SharedState, Told

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router

__all__ = ["Member", "Talk"]

_STALE_SECONDS = 2.0  # the load of others is of use for so long (our choice)
_MOST_MESSAGES = 20  # one after the other, while there is more to tell or to hear


class Member(NamedTuple):
    """What a dispatcher tells and hears.

    Parameters
    ----------
    rests
        Of its cooldown.
    sessions
        Its own.
    """

    rests: SharedRests
    sessions: Sessions


class Talk:
    """What one router, and the dispatchers over it, have to do with other workers.

    Parameters
    ----------
    router
        Whose load, and budget, are shared. If its budget is in a `LocalPurse`, it
        gets a `SharedPurse` instead.
    state
        Where workers meet.
    clock
        Seconds that never go backwards.

    Attributes
    ----------
    worker
        Id of this worker, which no other has.
    purse
        What is leased for; ``None`` if the router has a purse of another kind, or
        one that somebody else leases for.
    """

    def __init__(
        self,
        router: "Router",
        state: SharedState,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._router = router
        self._state = state
        self._clock = clock
        self._called = renames_of(router).current
        self._members: weakref.WeakKeyDictionary[object, Member] = (
            weakref.WeakKeyDictionary()
        )
        self.lock = threading.RLock()  # held while nothing is waited for
        self.purse = _purse_of(router, self)
        self.begin_anew()

    def begin_anew(self) -> None:
        """Be a worker that has told and heard nothing."""
        self.worker = uuid.uuid4().hex
        self._number = 0
        self._cursor = ""
        self._epoch = ""
        self._heard_at = self._clock()
        self._turn = threading.Lock()  # one talks at a time

    def join(self, owner: object, member: Member) -> None:
        """Tell and hear for a dispatcher as well.

        Parameters
        ----------
        owner
            The dispatcher: as long as it is in use.
        member
            What is its own.
        """
        with self.lock:
            self._members[owner] = member
            self._cursor = ""

    def talk(self, *, with_lease: bool) -> None:
        """Tell and hear all that there is.

        Parameters
        ----------
        with_lease
            Whether money is leased as well.

        Raises
        ------
        SharedStateError
            If nobody could be reached; it is all told the next time.
        """
        with self._turn:
            for _ in range(_MOST_MESSAGES):
                if self._exchange():
                    break
            if with_lease:
                self._lease()

    def forget_old_load(self) -> None:
        """Count the load of others no longer if they were not heard for 2 s."""
        if self._heard_at + _STALE_SECONDS <= self._clock():
            with self.lock:
                self._router.set_load_elsewhere({})

    def _exchange(self) -> bool:
        """Tell and hear once; return whether that was all."""
        with self.lock:
            members = list(self._members.values())
            rests = [member.rests.take() for member in members]
            sessions = [member.sessions.take() for member in members]
            load = {name: Load(*of) for name, of in self._router.load_here().items()}
            self._number += 1
            told = Told(
                *(self.worker, self._number, load),
                rests=[note for notes in rests for note in notes],
                sessions=[note for notes in sessions for note in notes],
                cursor=self._cursor,
            )
        try:
            heard = self._state.exchange(told)
        except BaseException:
            with self.lock:
                for member in members:
                    member.rests.lost()
                    member.sessions.lost()
            raise
        with self.lock:
            start = 0
            for member, notes in zip(members, rests, strict=True):
                member.rests.arrived(heard.versions[start : start + len(notes)])
                member.sessions.arrived()
                start += len(notes)
            # Else somebody has joined meanwhile, who wants to hear what is older.
            if self._cursor == told.cursor and len(members) == len(self._members):
                self._cursor = heard.cursor
            return self._apply(heard, members)

    def _apply(self, heard: Heard, members: list[Member]) -> bool:
        self._heard_at = self._clock()
        is_lost = self._epoch not in ("", heard.epoch)
        if is_lost:
            self._cursor = ""
        self._epoch = heard.epoch
        for member in members:
            if is_lost:
                member.rests.tell_all()
            member.rests.hear(heard.rests)
            member.sessions.hear(heard.sessions)
        known: dict[str, tuple[int, float]] = {}
        for name, load in heard.loads.items():
            calls, tokens = known.get(self._called(name), (0, 0.0))
            known[self._called(name)] = calls + load.calls, tokens + load.tokens
        self._router.set_load_elsewhere(known)
        has_more = any(member.sessions.has_untold for member in members)
        return heard.is_all and not has_more and not is_lost

    def _lease(self) -> None:
        purse = self.purse
        if purse is None or purse is not self._router.purse:
            return
        asked_at, request = purse.now(), purse.request()
        if request is not None:
            purse.heard(self._state.lease(request), request, asked_at)


def _purse_of(router: "Router", lessor: object) -> SharedPurse | None:
    """Return the purse of a router that money is to be leased for."""
    purse = router.purse
    if isinstance(purse, LocalPurse):
        purse = SharedPurse(purse.budget, period_seconds=purse.period_seconds)
        router.purse = purse
    if not isinstance(purse, SharedPurse):
        return None
    if purse.lessor is not None and purse.lessor() is not None:
        return None
    purse.lessor = weakref.ref(lessor)
    return purse
