"""The event log in SQLite or PostgreSQL, through one piece of code.

A unique constraint makes writing an event twice harmless, so a writer that is
not sure may repeat.
"""

import logging
import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self

from sqlalchemy import Connection, Row, func, select, text
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DBAPIError

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.forking import forkable_lock
from mixllm_integrations.store import snapshots, urls
from mixllm_integrations.store.database import make_engine
from mixllm_integrations.store.events import Event, EventKind, NewEvent, Snapshot
from mixllm_integrations.store.gate import GATE
from mixllm_integrations.store.rows import event_of, events_query, rows_of
from mixllm_integrations.store.schema import bring_up_to_date
from mixllm_integrations.store.settling import Settling
from mixllm_integrations.store.tables import EVENTS, LOG

__all__ = ["SQLStore"]

_LOG = logging.getLogger(__name__)
_PAGE = 1_000

# PostgreSQL. Nobody waits for ever: neither for a lock, nor for a writer that stands
# still in the middle. Our choice of seconds.
_WAIT_A_WHILE = text("SELECT set_config('lock_timeout', '10s', true)")
# Writers of one table come one after another, so that events become visible in the
# order of their sequence.
_TAKE_TURNS = text(
    "SELECT set_config('lock_timeout', '10s', true), "
    "set_config('idle_in_transaction_session_timeout', '30s', true), "
    "pg_advisory_xact_lock((CAST(:space AS bigint) << 32) "
    "| CAST(CAST(CAST(:name AS regclass) AS oid) AS bigint))"
).bindparams(space=0x6D69786C, name=EVENTS.name)


class SQLStore(Settling):
    """A `SharedStore` in a SQLite file or a PostgreSQL database.

    SQLite runs in WAL mode and waits up to 30 s for a busy file, so threads
    and processes of one machine may share it; an event that was appended
    survives a killed process. PostgreSQL is for several machines. A forked child
    may go on using it. The tables are created, or migrated, when it is opened.

    Parameters
    ----------
    url
        ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or
        ``postgresql+psycopg://user:password@host:port/database``.

    Raises
    ------
    ConfigurationError
        If the URL cannot be used, the driver is missing, the database cannot be
        opened, or a newer release has migrated it. The message never shows a
        password.

    Notes
    -----
    On PostgreSQL writers take turns, by an advisory lock that ends with the
    transaction: without it, events that several of them append at the same moment
    become visible in another order than that of their sequence, and a reader who
    goes on from the last one would miss some.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with SQLStore(f"sqlite:///{folder}/log.db") as store:
    ...         first = store.append("feedback", "d1", {"reward": 1.0})
    ...         again = store.append("feedback", "d1", {"reward": 0.0})
    ...         rewards = [e.payload["reward"] for e in store.events()]
    >>> first, again, rewards
    (True, False, [1.0])
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        parsed = urls.parsed(url)
        self._shown = urls.shown(parsed)
        self._fingerprint = urls.fingerprint(parsed)
        self._skipped = 0
        self._lock = forkable_lock()
        self._closed = False
        try:
            self._engine = make_engine(parsed)
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"the store {self._shown} needs the module {error.name!r}: "
                'pip install "mixllm-integrations[postgres]"'
            ) from None
        weakref.finalize(self, self._engine.dispose)
        try:
            with self._gate():
                bring_up_to_date(self._engine, self._shown)
            self._identity = self._read_identity()
        except DBAPIError as error:
            self._engine.dispose()
            raise ConfigurationError(
                f"cannot open the store {self._shown}: {urls.reason(error, parsed)}"
            ) from None  # the driver's own error may quote the URL
        except ConfigurationError:
            self._engine.dispose()
            raise
        on_sqlite = self._engine.dialect.name == "sqlite"
        insert = sqlite_insert if on_sqlite else postgresql_insert
        self._insert = insert(EVENTS).on_conflict_do_nothing()
        self._query = events_query(self._engine.dialect)

    @property
    def identity(self) -> str:
        """Which log this is: another one if its tables are made anew."""
        return self._identity

    @property
    def fingerprint(self) -> str:
        """A name for the place of the database, which tells nothing of its URL.

        Events that wait on disk while the database is away are found by it.
        """
        return self._fingerprint

    def append(
        self, kind: EventKind, decision_id: str, payload: Mapping[str, Any]
    ) -> bool:
        """Add one event, unless that decision has it already.

        Parameters
        ----------
        kind
            One of `EVENT_KINDS`.
        decision_id
            The decision it speaks of.
        payload
            What JSON can hold; arrays become lists, and numbers that are not
            finite become null.

        Returns
        -------
        bool
            True if it was added, False if it was there.

        Raises
        ------
        ConfigurationError
            If an argument cannot be stored, or the store is closed.
        sqlalchemy.exc.DBAPIError
            If the database has gone away.
        """
        return self.append_many([NewEvent(kind, decision_id, payload)]) == 1

    def append_many(self, events: Sequence[NewEvent]) -> int:
        """Add events in one transaction: all of them, or none.

        Parameters
        ----------
        events
            In their order; those that are there already are left out.

        Returns
        -------
        int
            How many were added.

        Raises
        ------
        ConfigurationError
            If one of them cannot be stored, or the store is closed.
        sqlalchemy.exc.DBAPIError
            If the database has gone away, is busy, full, or may not be written.
        """
        self._refuse_if_closed()
        rows = rows_of(events)
        if not rows:
            return 0
        with self._gate(), self._engine.begin() as connection:
            if self._engine.dialect.name != "sqlite":
                connection.execute(_TAKE_TURNS)
            options = {"preserve_rowcount": True}
            return connection.execute(
                self._insert, rows, execution_options=options
            ).rowcount

    def events(self, *, after: int = 0, limit: int | None = None) -> Iterator[Event]:
        """Yield events in the order of their sequence.

        No connection is held between pages, so a reader may take its time or
        stop half-way.

        Parameters
        ----------
        after
            Only those with a greater sequence.
        limit
            At most so many; ``None``: all that are there.

        Yields
        ------
        Event
            The next one. Rows that cannot be read are skipped, and counted in
            `malformed_rows`.
        """
        self.settle()
        left = math.inf if limit is None else limit
        while left > 0:
            found, cursor = self.tail(after, limit=int(min(_PAGE, left)))
            yield from found
            left -= len(found)
            if cursor == after:
                return
            after = cursor

    def tail(self, after: int, *, limit: int = _PAGE) -> tuple[list[Event], int]:
        """Return what comes next in the log, and where to go on from.

        Whoever always goes on from the cursor sees each event exactly once,
        whoever writes meanwhile. It does not wait for writers of this process.

        Parameters
        ----------
        after
            The cursor; 0: from the beginning.
        limit
            At most so many rows.

        Returns
        -------
        tuple of list of Event and int
            Events in the order of their sequence, and the next cursor. Rows that
            cannot be read are skipped, and counted in `malformed_rows`.

        Raises
        ------
        ConfigurationError
            If the store is closed.
        sqlalchemy.exc.DBAPIError
            If the database has gone away.
        """
        self._refuse_if_closed()
        query = self._query.where(EVENTS.c.sequence > after).limit(limit)
        with self._connected() as connection:
            rows = connection.execute(query).all()
        return self._read(rows), rows[-1].sequence if rows else after

    def of(self, decision_id: str) -> list[Event]:
        """Return all events of one decision, in the order of their sequence.

        Parameters
        ----------
        decision_id
            Which decision.

        Returns
        -------
        list of Event
            Empty if it is unknown here.

        Raises
        ------
        ConfigurationError
            If the store is closed.
        sqlalchemy.exc.DBAPIError
            If the database has gone away.
        """
        self._refuse_if_closed()
        query = self._query.where(EVENTS.c.decision_id == decision_id)
        with self._connected() as connection:
            return self._read(connection.execute(query).all())

    def last_sequence(self) -> int:
        """Return the sequence of the newest event, 0 if there is none.

        Raises
        ------
        ConfigurationError
            If the store is closed.
        sqlalchemy.exc.DBAPIError
            If the database has gone away.
        """
        self._refuse_if_closed()
        with self._connected() as connection:
            return connection.scalar(select(func.max(EVENTS.c.sequence))) or 0

    def put_snapshot(self, sequence: int, content: bytes) -> None:
        """Keep a snapshot; the newest two are kept.

        Parameters
        ----------
        sequence
            Of the last event that is in it.
        content
            The state.

        Raises
        ------
        ConfigurationError
            If an argument cannot be stored, or the store is closed.
        sqlalchemy.exc.DBAPIError
            If the database has gone away, is busy, full, or may not be written.
        """
        self._refuse_if_closed()
        with self._connected() as connection:
            snapshots.put(connection, sequence, content)
            connection.commit()

    def newest_snapshot(self) -> Snapshot | None:
        """Return the snapshot with the greatest sequence, if there is any.

        Returns
        -------
        Snapshot or None
            A damaged one is left out with a warning, and the one before it is
            returned.

        Raises
        ------
        ConfigurationError
            If the store is closed.
        sqlalchemy.exc.DBAPIError
            If the database has gone away.
        """
        self._refuse_if_closed()
        with self._connected() as connection:
            return snapshots.newest(connection, self._shown)

    @property
    def malformed_rows(self) -> int:
        """How many rows were skipped since the store was opened."""
        return self._skipped

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def close(self) -> None:
        """Give up all connections; closing twice is harmless."""
        self.settle()
        self._closed = True
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SQLStore({self._shown!r})"

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        with self._gate(), self._engine.connect() as connection:
            if self._engine.dialect.name != "sqlite":
                connection.execute(_WAIT_A_WHILE)
            yield connection

    def _gate(self) -> AbstractContextManager[None]:
        """Keep the process from forking, if it must not now."""
        is_sqlite = self._engine.dialect.name == "sqlite"
        return GATE.inside() if is_sqlite else nullcontext()

    def _read_identity(self) -> str:
        with self._connected() as connection:
            return str(connection.scalar(select(LOG.c.identity)))

    def _read(self, rows: Sequence[Row[Any]]) -> list[Event]:
        found = []
        for row in rows:
            event = event_of(row)
            if event is None:
                self._count_malformed(row.sequence)
            else:
                found.append(event)
        return found

    def _count_malformed(self, sequence: int) -> None:
        with self._lock:
            self._skipped += 1
        _LOG.warning("skipped event %d of %s: malformed row", sequence, self._shown)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ConfigurationError(f"the store {self._shown} is closed; open it anew")
