"""Connections to SQLite and PostgreSQL, as a store needs them."""

import os
import sqlite3
import time
import weakref
from functools import partial
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL

from mixllm_integrations.store.payloads import to_json

__all__ = ["make_engine"]

# All our choice. So long a busy SQLite file is waited for.
_BUSY_SECONDS = 30.0
# When PostgreSQL counts as away, where the URL says nothing else: a server that
# does not answer must not hold up a worker for the minutes that TCP would.
_CONNECTING: dict[str, int] = {
    "connect_timeout": 5,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds
}


def make_engine(url: URL) -> Engine:
    """Return an engine, whose connections a forked child does not share.

    Parameters
    ----------
    url
        What `mixllm_integrations.store.urls.parsed` returns.

    Returns
    -------
    Engine
        Not connected yet. Its errors do not show what was to be stored.
    """
    options: dict[str, Any] = {"hide_parameters": True, "json_serializer": to_json}
    if url.drivername == "sqlite":
        arguments: dict[str, Any] = {"timeout": _BUSY_SECONDS}
        engine = create_engine(url, connect_args=arguments, **options)
        event.listen(engine, "connect", _prepare_sqlite)
    else:
        arguments = {k: v for k, v in _CONNECTING.items() if k not in url.query}
        engine = create_engine(
            url, connect_args=arguments, pool_pre_ping=True, **options
        )
    _ENGINES.add(engine)
    return engine


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


_ENGINES: "weakref.WeakSet[Engine]" = weakref.WeakSet()
# Pools of the parent process: never used here, and never closed either, since
# that would say good-bye to the server in the parent's name.
_OF_THE_PARENT: list[object] = []


def _after_fork() -> None:
    for engine in list(_ENGINES):
        _OF_THE_PARENT.append(engine.pool)
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
