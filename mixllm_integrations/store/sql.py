"""The event log in SQLite or PostgreSQL, through one piece of code.

Both get the table ``mixllm_events``. A unique constraint over decision and
kind makes appending twice harmless, so a writer that is not sure may repeat.
"""

import json
import logging
import math
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Self

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Engine,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    cast,
    create_engine,
    event,
    inspect,
    make_url,
    select,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.store import EVENT_KINDS, Event, EventKind
from mixllm_integrations.store.settling import Settling

__all__ = ["SQLStore"]

_LOG = logging.getLogger(__name__)
_BUSY_SECONDS = 30.0
_PAGE = 1_000
_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_METADATA = MetaData()
_EVENTS = Table(
    "mixllm_events",
    _METADATA,
    Column(
        "sequence",
        BigInteger().with_variant(Integer(), "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    Column("kind", String(16), nullable=False),
    Column("decision_id", String(), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("payload", JSON(), nullable=False),
    UniqueConstraint("decision_id", "kind", name="mixllm_events_once"),
    sqlite_autoincrement=True,
)


class SQLStore(Settling):
    """An `EventStore` in a SQLite file or a PostgreSQL database.

    SQLite runs in WAL mode and waits up to 30 s for a busy file, so threads
    and processes of one machine may share it; an event that was appended
    survives a killed process. PostgreSQL is for several machines.

    Parameters
    ----------
    url
        ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or
        ``postgresql+psycopg://user:password@host:port/database``.

    Raises
    ------
    ConfigurationError
        If the URL cannot be used, the driver is missing, or the database
        cannot be opened. The message never shows a password.

    Notes
    -----
    On PostgreSQL, events that several writers append at the same moment may
    become visible in another order than that of their sequence.

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
        parsed = _parsed(url)
        self._shown = _shown(parsed)
        self._skipped = 0
        self._lock = threading.Lock()
        self._closed = False
        try:
            self._engine = _engine(parsed)
            _create_table(self._engine)
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"the store {self._shown} needs the module {error.name!r}: "
                'pip install "mixllm-integrations[postgres]"'
            ) from None
        except DBAPIError as error:
            raise ConfigurationError(
                f"cannot open the store {self._shown}: {_reason(error, parsed)}"
            ) from None  # the driver's own error may quote the URL
        insert = (
            sqlite_insert
            if self._engine.dialect.name == "sqlite"
            else postgresql_insert
        )
        weakref.finalize(self, self._engine.dispose)
        self._insert = (
            insert(_EVENTS).on_conflict_do_nothing().returning(_EVENTS.c.sequence)
        )

    def append(
        self, kind: EventKind, decision_id: str, payload: Mapping[str, Any]
    ) -> bool:
        """Add one event, unless that decision has one of that kind already.

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
        self._refuse_if_closed()
        if kind not in EVENT_KINDS:
            raise ConfigurationError(
                f"unknown kind of event {kind!r}; use one of {EVENT_KINDS}"
            )
        if not isinstance(decision_id, str) or not decision_id:
            raise ConfigurationError(
                f"a decision id must be a non-empty string, not {decision_id!r}"
            )
        row = {
            "kind": kind,
            "decision_id": decision_id,
            "at": datetime.now(UTC),
            "payload": _plain(payload, kind),
        }
        with self._engine.begin() as connection:
            return connection.execute(self._insert, row).first() is not None

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
            rows = self._page(after, int(min(_PAGE, left)))
            for row in rows:
                after = row.sequence
                found = _event(row)
                if found is None:
                    self._count_malformed(row.sequence)
                    continue
                left -= 1
                yield found
            if not rows:
                return

    @property
    def malformed_rows(self) -> int:
        """How many rows `events` has skipped since the store was opened."""
        return self._skipped

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

    def _page(self, after: int, size: int) -> Sequence[Row[Any]]:
        self._refuse_if_closed()
        columns = _EVENTS.c
        # As text: one unreadable value must not spoil its whole page.
        on_sqlite = self._engine.dialect.name == "sqlite"
        query = (
            select(
                columns.sequence,
                columns.kind,
                columns.decision_id,
                cast(columns.at, Text).label("at") if on_sqlite else columns.at,
                cast(columns.payload, Text).label("payload"),
            )
            .where(columns.sequence > after)
            .order_by(columns.sequence)
            .limit(size)
        )
        with self._engine.connect() as connection:
            return connection.execute(query).all()

    def _count_malformed(self, sequence: int) -> None:
        with self._lock:
            self._skipped += 1
        _LOG.warning("skipped event %d of %s: malformed row", sequence, self._shown)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ConfigurationError(f"the store {self._shown} is closed; open it anew")


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError, AttributeError):
        raise ConfigurationError(
            "the store's URL cannot be read (it is not shown, it may hold a "
            "password); write sqlite:///file.db or "
            "postgresql+psycopg://user:password@host:port/database"
        ) from None
    if parsed.drivername not in _DRIVERS:
        raise ConfigurationError(
            f"a store cannot be opened with {parsed.drivername!r}; "
            "use 'sqlite' or 'postgresql+psycopg'"
        )
    parsed = parsed.set(drivername=_DRIVERS[parsed.drivername])
    if parsed.drivername == "sqlite" and _in_memory(parsed):
        raise ConfigurationError(
            "an in-memory SQLite database is not one log for all threads: name a "
            "file (sqlite:///file.db), or pass store=None to keep no log"
        )
    return parsed


def _in_memory(url: URL) -> bool:
    database = url.database or ""
    return not database or ":memory:" in database or url.query.get("mode") == "memory"


def _shown(url: URL) -> str:
    if url.drivername == "sqlite":
        return f"sqlite:///{url.database}"
    # An '@' left in the host is the tail of a password that was not quoted.
    host = "***" if "@" in (url.host or "") else (url.host or "")
    port = f":{url.port}" if url.port else ""
    return f"{url.drivername}://{host}{port}/{url.database or ''}"


def _reason(error: DBAPIError, url: URL) -> str:
    if "@" in (url.host or ""):
        return "quote special characters of the password, an '@' as %40"
    text = str(error.orig).strip().split("\n", maxsplit=1)[0]
    secrets = [url.password, *(v for v in url.query.values() if isinstance(v, str))]
    for secret in filter(None, map(str, filter(None, secrets))):
        text = text.replace(secret, "***")
    return text or type(error.orig).__name__


def _engine(url: URL) -> Engine:
    options: dict[str, Any] = {"hide_parameters": True, "json_serializer": _to_json}
    if url.drivername == "sqlite":
        arguments = {"timeout": _BUSY_SECONDS}
        engine = create_engine(url, connect_args=arguments, **options)
        event.listen(engine, "connect", _prepare_sqlite)
        return engine
    return create_engine(url, pool_pre_ping=True, **options)


def _prepare_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous = NORMAL").close()


def _switch_to_wal(connection: Any) -> Any:  # noqa: ANN401
    # SQLite itself does not wait for a sibling that is switching a new file.
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            return connection.execute("PRAGMA journal_mode = WAL").close()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _create_table(engine: Engine) -> None:
    try:
        _METADATA.create_all(engine)
    except DBAPIError:  # a sibling worker may have created it a moment ago
        if not inspect(engine).has_table(_EVENTS.name):
            raise


def _plain(payload: Mapping[str, Any], kind: str) -> Any:  # noqa: ANN401
    """Return the payload as JSON will hold it; messages never show its values."""
    if not isinstance(payload, Mapping):
        raise ConfigurationError(
            f"the payload of a {kind!r} event must be a mapping, not a "
            f"{type(payload).__name__}"
        )
    return _finite(payload, kind)


def _finite(value: Any, kind: str) -> Any:  # noqa: ANN401
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item, kind) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_finite(item, kind) for item in value]
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        return _finite(value.tolist(), kind)
    raise ConfigurationError(
        f"the payload of a {kind!r} event holds a {type(value).__name__}; use what "
        "JSON can hold: mappings, lists, strings, numbers, booleans, None"
    )


def _to_json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _event(row: Row[Any]) -> Event | None:
    """Return the event of a row, or None if the row cannot be read."""
    try:
        at = row.at if isinstance(row.at, datetime) else datetime.fromisoformat(row.at)
        payload = json.loads(row.payload)
    except (TypeError, ValueError, RecursionError):
        return None
    is_sound = row.kind in EVENT_KINDS and isinstance(row.decision_id, str)
    if not (is_sound and isinstance(payload, dict)):
        return None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return Event(row.sequence, row.kind, row.decision_id, at, payload)
