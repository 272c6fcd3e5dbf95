"""Brings the tables of a database up to date, when it is opened."""

import threading

from sqlalchemy import Connection, Engine, column, inspect, select, table, text

from mixllm_integrations.core.errors import ConfigurationError

__all__ = ["SCHEMA_VERSIONS", "VERSION_TABLE", "bring_up_to_date"]

#: Not Alembic's usual name: the database may have migrations of its own.
VERSION_TABLE = "mixllm_schema"

#: What each release has made of the tables; the last one is what this one needs.
SCHEMA_VERSIONS = ("0001", "0002")

_LOCK_SPACE = 0x6D69786D  # an advisory lock's first half: ours, and for migrations
_ADVISORY = "SELECT pg_advisory_xact_lock(:space, hashtext(current_schema()))"
_ALONE = threading.Lock()  # Alembic keeps what it is working on in one global place


def bring_up_to_date(engine: Engine, shown: str) -> None:
    """Create or migrate the tables, unless they are as they should be.

    Workers that open one database at the same moment wait for each other.

    Parameters
    ----------
    engine
        Of the database.
    shown
        How the database is called in messages.

    Raises
    ------
    ConfigurationError
        If a newer release has migrated the database, or if there is something to
        migrate and Alembic is not installed.
    """
    if _is_current(engine, shown):
        return
    try:
        from mixllm_integrations.store.migrations import upgrade
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "alembic":
            raise
        raise ConfigurationError(
            f"the tables of {shown} have to be created or migrated, which needs the "
            "module 'alembic': pip install alembic"
        ) from None
    with _ALONE, engine.connect() as connection:
        _lock(connection)
        if _refused_if_newer(_version(connection), shown) != SCHEMA_VERSIONS[-1]:
            upgrade(connection, version_table=VERSION_TABLE)
        connection.commit()


def _is_current(engine: Engine, shown: str) -> bool:
    with engine.connect() as connection:
        found = _version(connection)
    return _refused_if_newer(found, shown) == SCHEMA_VERSIONS[-1]


def _refused_if_newer(found: str | None, shown: str) -> str | None:
    if found is None or found in SCHEMA_VERSIONS:
        return found
    raise ConfigurationError(
        f"the tables of {shown} are of version {found[:32]!r}, made by a newer "
        f"release; this one knows them up to {SCHEMA_VERSIONS[-1]!r}: upgrade "
        "mixllm-integrations, or use another database"
    )


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    versions = table(VERSION_TABLE, column("version_num"))
    found = connection.scalar(select(versions.c.version_num))
    return None if found is None else str(found)


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return
    connection.execute(text(_ADVISORY), {"space": _LOCK_SPACE})
