"""Leases of a budget in one process; what `scripts.LEASE` does in Redis."""

import math
from dataclasses import dataclass, field

from mixllm_integrations.store.live.notes import Lease, LeaseRequest
from mixllm_integrations.store.live.protocol import (
    EVEN_PART,
    LEASE_SECONDS,
    LONG_AGO_SECONDS,
    SharedStateError,
)

__all__ = ["Money"]


@dataclass(slots=True)
class _Part:
    """What a worker has told, and what it may spend."""

    number: int
    at: float
    limit: float
    spent: float
    reserved: float
    calls: int
    pace: float

    @property
    def used(self) -> float:
        return self.spent + self.reserved


@dataclass(slots=True)
class Money:
    """The budget of the period that is under way.

    Parameters
    ----------
    period
        Its number.
    age, last
        How many seconds of it are over, and when that was read.
    floor
        What is spent and reserved at least, where some of it is not known.
    parts
        By worker.
    old
        Workers that have been away for long, together.
    """

    period: int = -1
    age: float = 0.0
    last: float = 0.0
    floor: float = 0.0
    parts: dict[str, _Part] = field(default_factory=dict)
    old: _Part = field(default_factory=lambda: _Part(0, 0.0, 0.0, 0.0, 0.0, 0, 0.0))

    def lease(self, request: LeaseRequest, now: float, *, spare: float) -> Lease:
        """Lease a part, as `SharedState.lease`.

        Parameters
        ----------
        request
            How the worker's money stands.
        now
            Seconds.
        spare
            Part of the money that is leased to nobody.
        """
        period, ends = self._turn_over(request, now)
        part = _Part(
            *(request.number, now, request.limit, request.spent, request.reserved),
            *(request.calls, request.pace),
        )
        if request.period != period:
            part.limit = part.spent = part.reserved = part.calls = 0
        mine = self.parts.get(request.worker)
        if mine is not None:
            if mine.number >= part.number:
                raise SharedStateError("a message was overtaken by a later one")
            part.limit = min(part.limit, max(mine.limit, part.used))
        others = [p for name, p in self.parts.items() if name != request.worker]
        bound, alive = self._bound(others, now)
        others = [*others, self.old]
        used = sum(other.used for other in others)
        bound += self.old.used
        free = max(request.budget - max(used + part.used, self.floor), 0.0)
        share, paces = 1.0 / (len(alive) + 1), part.pace + sum(p.pace for p in alive)
        if paces > 0:
            share = EVEN_PART * share + (1.0 - EVEN_PART) * part.pace / paces
        wanted = part.used + free * share * (1.0 - spare)
        part.limit = max(part.limit, min(wanted, request.budget - bound))
        self.parts[request.worker] = part
        self._forget(now)
        return Lease(
            *(period, ends, part.limit, wanted),
            spent=sum(other.spent for other in others),
            reserved=sum(other.reserved for other in others),
            calls=sum(other.calls for other in others),
        )

    def _turn_over(self, request: LeaseRequest, now: float) -> tuple[int, float]:
        """Begin a new period where it is time; return its number and its end."""
        length, period = request.period_seconds, 0
        if length < math.inf:
            if self.period >= 0:  # a clock that is put back stands still
                period, self.age = self.period, self.age + max(now - self.last, 0.0)
            else:
                self.age = now
            period += int(self.age // length)
            self.age %= length
        self.last = now
        if self.period != period:
            floor = request.known if request.period == period else 0.0
            fresh = Money(period, floor=floor)
            self.period, self.floor = fresh.period, fresh.floor
            self.parts, self.old = fresh.parts, fresh.old
        return period, length - self.age

    @staticmethod
    def _bound(others: list[_Part], now: float) -> tuple[float, list[_Part]]:
        """Return what others may spend and reserve, and who of them is alive."""
        alive = [other for other in others if now - other.at < LEASE_SECONDS]
        for other in others:
            if now - other.at >= LEASE_SECONDS:
                other.limit = other.used
        return sum(max(other.limit, other.used) for other in others), alive

    def _forget(self, now: float) -> None:
        for name, part in list(self.parts.items()):
            if now - part.at > LONG_AGO_SECONDS:
                del self.parts[name]
                self.old.spent += part.spent
                self.old.reserved += part.reserved
                self.old.calls += part.calls
