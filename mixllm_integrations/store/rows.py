"""Events to rows of the table, and back."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Dialect, Row, Select, Text, cast, select

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.store.events import EVENT_KINDS, Event, NewEvent, detail_of
from mixllm_integrations.store.payloads import plain
from mixllm_integrations.store.tables import DETAIL_LENGTH, EVENTS

__all__ = ["event_of", "events_query", "rows_of"]

# Our choice: what an index of PostgreSQL can hold, with room to spare.
_LONGEST_ID = 500


def rows_of(events: Sequence[NewEvent]) -> list[dict[str, Any]]:
    """Return the rows that events become.

    Parameters
    ----------
    events
        What is to be written.

    Returns
    -------
    list of dict
        One per event, by the names of the columns.

    Raises
    ------
    ConfigurationError
        If one cannot be stored; the message shows nothing of its payload.
    """
    return [_row(event) for event in events]


def _row(event: NewEvent) -> dict[str, Any]:
    kind, decision_id = event.kind, event.decision_id
    if kind not in EVENT_KINDS:
        raise ConfigurationError(
            f"unknown kind of event {kind!r}; use one of {EVENT_KINDS}"
        )
    if not isinstance(decision_id, str) or not decision_id:
        raise ConfigurationError(
            f"a decision id must be a non-empty string, not {decision_id!r}"
        )
    if len(decision_id) > _LONGEST_ID:
        raise ConfigurationError(
            f"a decision id may have {_LONGEST_ID} characters, not {len(decision_id)}"
        )
    payload = plain(event.payload, kind)
    detail = detail_of(kind, payload)
    if len(detail) > DETAIL_LENGTH:
        raise ConfigurationError(
            f"the name of a {kind} may have {DETAIL_LENGTH} characters, "
            f"not {len(detail)}"
        )
    if not (_is_storable(decision_id) and _is_storable(detail)):
        raise ConfigurationError(
            f"the id or a name of a {kind} holds NUL or half a character, which no "
            "database takes"
        )
    return {
        "kind": kind,
        "decision_id": decision_id,
        "detail": detail,
        "at": datetime.now(UTC) if event.at is None else _in_utc(event.at),
        "payload": payload,
    }


def _is_storable(name: str) -> bool:
    """Tell whether a column can hold a text: no NUL, and no half of a character."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in name


def events_query(dialect: Dialect) -> Select[Any]:
    """Return the query for all events, in the order of their sequence.

    Payloads, and dates where the database has none of its own, come as text:
    one value that cannot be read must not spoil its whole page.

    Parameters
    ----------
    dialect
        Of the database.

    Returns
    -------
    Select
        To be narrowed down.
    """
    columns = EVENTS.c
    as_text = dialect.name == "sqlite"
    return select(
        columns.sequence,
        columns.kind,
        columns.decision_id,
        cast(columns.at, Text).label("at") if as_text else columns.at,
        cast(columns.payload, Text).label("payload"),
    ).order_by(columns.sequence)


def event_of(row: Row[Any]) -> Event | None:
    """Return the event of a row.

    Parameters
    ----------
    row
        Of `events_query`.

    Returns
    -------
    Event or None
        ``None`` if the row cannot be read.
    """
    try:
        at = row.at if isinstance(row.at, datetime) else datetime.fromisoformat(row.at)
        at = _in_utc(at)
        payload = json.loads(row.payload)
    except (OverflowError, RecursionError, TypeError, ValueError):
        return None
    is_sound = row.kind in EVENT_KINDS and isinstance(row.decision_id, str)
    if not (is_sound and isinstance(payload, dict)):
        return None
    return Event(row.sequence, row.kind, row.decision_id, at, payload)


def _in_utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
