"""What the log is made of: events, those still to be written, and snapshots."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

__all__ = ["EVENT_KINDS", "Event", "EventKind", "NewEvent", "Snapshot", "detail_of"]

EventKind = Literal["decision", "outcome", "feedback", "signal", "drift"]

EVENT_KINDS: tuple[EventKind, ...] = get_args(EventKind)

# Of what a decision may have several: the name under which the payload tells
# one from another.
_TOLD_APART_BY = {"feedback": "kind", "signal": "signal"}


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the log.

    Parameters
    ----------
    sequence
        Its place in the log: grows, may have gaps, is never given twice.
    kind
        ``"decision"``, ``"outcome"``, ``"feedback"``, ``"signal"`` or
        ``"drift"``.
    decision_id
        The decision it speaks of.
    at
        When it happened, in UTC, by the clock of whoever wrote it: for people to
        read. The order of events is that of their sequence.
    payload
        What the writer said, made of what JSON can hold.
    """

    sequence: int
    kind: EventKind
    decision_id: str
    at: datetime
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that is not in the log yet.

    Parameters
    ----------
    kind
        One of `EVENT_KINDS`.
    decision_id
        The decision it speaks of.
    payload
        What JSON can hold.
    at
        When it happened, with its time zone; ``None``: when it is written.
    """

    kind: str
    decision_id: str
    payload: Mapping[str, Any]
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What somebody has learned from the log, up to one of its events.

    Parameters
    ----------
    sequence
        Of the last event that is in it.
    content
        The state, as whoever saved it packed it.
    at
        When it was saved, in UTC.
    """

    sequence: int
    content: bytes
    at: datetime


def detail_of(kind: str, payload: Mapping[str, Any]) -> str:
    """Return what tells events of one kind and one decision apart.

    Parameters
    ----------
    kind
        One of `EVENT_KINDS`.
    payload
        Of the event.

    Returns
    -------
    str
        The kind of a feedback, the name of a signal, else nothing: of everything
        else a decision has one.

    Examples
    --------
    >>> detail_of("feedback", {"reward": 1.0, "kind": "binary"})
    'binary'
    >>> detail_of("outcome", {"kind": "any"})
    ''
    """
    found = payload.get(_TOLD_APART_BY.get(kind, ""))
    return found if isinstance(found, str) else ""
