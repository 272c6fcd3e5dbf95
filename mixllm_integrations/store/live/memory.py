"""A shared state in one process: for tests, and for several routers of one."""

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from mixllm_integrations.store.live.money import Money
from mixllm_integrations.store.live.notes import (
    Heard,
    HeardRest,
    Lease,
    LeaseRequest,
    Load,
    RestNote,
    SessionNote,
    Told,
)
from mixllm_integrations.store.live.protocol import (
    LOAD_SECONDS,
    SESSION_SECONDS,
    SESSIONS_AT_ONCE,
    SESSIONS_KEPT,
    SPARE_PART,
    WELL_SECONDS,
    SharedStateError,
)

__all__ = ["MemoryState"]


@dataclass(slots=True)
class _Rest:
    """How a candidate stands; times by the clock of the state."""

    version: int
    at: float
    since: float
    until: float
    note: RestNote
    probe: str

    @property
    def goes_on(self) -> bool:
        return not (self.note.well or self.note.reopened)

    @property
    def keep(self) -> float:
        return WELL_SECONDS if self.note.well else self.note.keep


class MemoryState:
    """A `SharedState` in the memory of this process.

    Parameters
    ----------
    clock
        Seconds.
    spare_part
        Part of a budget's money that is leased to nobody, so that a worker that has
        just begun finds some.

    Examples
    --------
    >>> state = MemoryState()
    >>> told = state.exchange(Told("first", 1, {"small": Load(2, 100.0)}))
    >>> state.exchange(Told("second", 1, {})).loads
    {'small': Load(calls=2, tokens=100.0)}
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        spare_part: float = SPARE_PART,
    ) -> None:
        self._clock = clock
        self._spare = spare_part
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Lose all, as a server does that is restarted without a disk."""
        self._epoch = uuid.uuid4().hex
        self._workers: dict[str, tuple[float, Told]] = {}
        self._rests: dict[str, _Rest] = {}
        self._sessions: deque[tuple[int, float, str, SessionNote]] = deque(
            maxlen=SESSIONS_KEPT
        )
        self._written = 0
        self._money: dict[float, Money] = {}

    def exchange(self, told: Told) -> Heard:
        """Tell what a worker has to tell, and hear the others.

        Parameters
        ----------
        told
            What is told.
        """
        with self._lock:
            now = self._clock()
            self._beat(told, now)
            versions = [self._tell(told.worker, note, now) for note in told.rests]
            for note in told.sessions:
                self._written += 1
                self._sessions.append(
                    (self._written, now - note.age, told.worker, note)
                )
            after = int(told.cursor or 0)
            new = [entry for entry in self._sessions if entry[0] > after]
            return Heard(
                epoch=self._epoch,
                loads=_sum(t.loads for _, t in self._others(told.worker)),
                versions=versions,
                rests=self._standing(told.worker, now),
                sessions=[
                    note._replace(age=now - at)
                    for _, at, worker, note in new[:SESSIONS_AT_ONCE]
                    if worker != told.worker and now - at < SESSION_SECONDS
                ],
                cursor=str(new[:SESSIONS_AT_ONCE][-1][0] if new else after),
                is_all=len(new) <= SESSIONS_AT_ONCE,
            )

    def lease(self, request: LeaseRequest) -> Lease:
        """Lease a part of a budget.

        Parameters
        ----------
        request
            How the worker's money stands.
        """
        with self._lock:
            money = self._money.setdefault(request.period_seconds, Money())
            return money.lease(request, self._clock(), spare=self._spare)

    def begin_anew(self) -> None:
        """Do nothing but take a lock that nobody holds."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Do nothing."""

    def _others(self, worker: str) -> list[tuple[float, Told]]:
        return [known for name, known in self._workers.items() if name != worker]

    def _beat(self, told: Told, now: float) -> None:
        for name, (at, _) in list(self._workers.items()):
            if abs(now - at) >= LOAD_SECONDS:
                del self._workers[name]
        known = self._workers.get(told.worker)
        if known is not None and known[1].number >= told.number:
            raise SharedStateError("a message was overtaken by a later one")
        bare = Told(told.worker, told.number, dict(told.loads))
        self._workers[told.worker] = now, bare

    def _tell(self, worker: str, note: RestNote, now: float) -> int:
        """Let a note on a rest count; return its version if it holds as it is."""
        old = self._rests.get(note.candidate)
        new = _Rest(
            *(max(int(now * 1e6), 1), now - note.age, now - note.since),
            *(now + note.remaining, note, worker if note.probing else ""),
        )
        if old is None:
            self._rests[note.candidate] = new
            return new.version
        new.version = max(new.version, old.version + 1)
        if old.version == note.base:
            self._rests[note.candidate] = new
            return new.version
        if old.goes_on and new.goes_on:
            return self._merge(old, new)
        is_undone = new.goes_on and not old.goes_on and new.since <= old.at
        if new.at <= old.at or is_undone:
            return 0
        self._rests[note.candidate] = new
        return new.version

    def _merge(self, old: _Rest, new: _Rest) -> int:
        """Let the longer one of two rests hold, beside what the later one says."""
        first, second = (old, new) if old.at >= new.at else (new, old)
        longer = second if second.until > first.until else first
        seconds = max(old.note.seconds, new.note.seconds)
        is_news = first is new or longer is new or new.note.seconds > old.note.seconds
        is_whole = first is new and longer is new and seconds == new.note.seconds
        if is_news:
            note = first.note._replace(told=longer.note.told, seconds=seconds)
            self._rests[note.candidate] = replace(
                first, version=new.version, until=longer.until, note=note
            )
        return new.version if is_whole else 0

    def _standing(self, worker: str, now: float) -> list[HeardRest]:
        heard = []
        for name, rest in list(self._rests.items()):
            remaining = rest.until - now
            if remaining < -rest.keep or remaining > max(rest.keep, 3_600.0) + 60.0:
                del self._rests[name]
                continue
            if rest.probe and rest.probe not in self._workers:
                rest.probe, rest.version = "", rest.version + 1
            note = rest.note
            heard.append(
                HeardRest(
                    *(name, rest.version, now - rest.since, remaining, note.seconds),
                    *(note.told, note.reopened, note.well),
                    probed=rest.probe not in ("", worker),
                )
            )
        return heard


def _sum(told: Iterable[Mapping[str, Load]]) -> dict[str, Load]:
    total: dict[str, Load] = {}
    for loads in told:
        for name, load in loads.items():
            before = total.get(name, Load(0, 0.0))
            total[name] = Load(before.calls + load.calls, before.tokens + load.tokens)
    return total
