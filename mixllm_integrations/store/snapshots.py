"""Snapshots in the database: the newest two, each with its checksum."""

import hashlib
import logging
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, insert, select

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.store.events import Snapshot
from mixllm_integrations.store.tables import SNAPSHOTS

__all__ = ["newest", "put"]

_LOG = logging.getLogger(__name__)
_KEPT = 2
_BY_AGE = (SNAPSHOTS.c.sequence.desc(), SNAPSHOTS.c.id.desc())


def put(connection: Connection, sequence: int, content: bytes) -> None:
    """Keep a snapshot, and let go of all but the newest two.

    Parameters
    ----------
    connection
        In a transaction.
    sequence
        Of the last event that is in it.
    content
        The state.

    Raises
    ------
    ConfigurationError
        If the sequence is negative or the content is not made of bytes.
    """
    if not isinstance(content, bytes | bytearray | memoryview):
        raise ConfigurationError(
            f"a snapshot is made of bytes, not of a {type(content).__name__}"
        )
    if isinstance(sequence, bool) or not isinstance(sequence, int) or sequence < 0:
        raise ConfigurationError(
            f"the sequence of a snapshot is that of an event, or 0, not {sequence!r}"
        )
    content = bytes(content)
    row = {
        "sequence": sequence,
        "at": datetime.now(UTC),
        "sha256": hashlib.sha256(content).hexdigest(),
        "content": content,
    }
    connection.execute(insert(SNAPSHOTS), row)
    kept = connection.scalars(select(SNAPSHOTS.c.id).order_by(*_BY_AGE).limit(_KEPT))
    connection.execute(delete(SNAPSHOTS).where(SNAPSHOTS.c.id.not_in(kept.all())))


def newest(connection: Connection, shown: str) -> Snapshot | None:
    """Return the newest snapshot that is not damaged.

    Parameters
    ----------
    connection
        To the database.
    shown
        How the database is called in the log.

    Returns
    -------
    Snapshot or None
        ``None`` if there is none.
    """
    ids = connection.scalars(select(SNAPSHOTS.c.id).order_by(*_BY_AGE)).all()
    for one in ids:  # one at a time: they may be large
        row = connection.execute(select(SNAPSHOTS).where(SNAPSHOTS.c.id == one)).first()
        if row is None:  # somebody put a newer one meanwhile
            continue
        content = row.content if isinstance(row.content, bytes) else b""
        if hashlib.sha256(content).hexdigest() == row.sha256:
            at = row.at.replace(tzinfo=UTC) if row.at.tzinfo is None else row.at
            return Snapshot(row.sequence, content, at.astimezone(UTC))
        _LOG.warning(
            "the snapshot at event %d of %s is damaged: the one before it is taken",
            row.sequence,
            shown,
        )
    return None
