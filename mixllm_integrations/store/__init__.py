"""What is remembered outside the process: an append-only log of events.

`open_store` turns what a user passes as ``store=`` into an `EventStore`; the
one that ships is `mixllm_integrations.store.sql.SQLStore` (SQLite,
PostgreSQL), which is a `SharedStore` as well: workers tail its log and leave
snapshots in it. Nothing here imports a database until a URL is opened.
"""

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.store.events import (
    EVENT_KINDS,
    Event,
    EventKind,
    NewEvent,
    Snapshot,
)
from mixllm_integrations.store.protocols import EventStore, SharedStore

__all__ = [
    "EVENT_KINDS",
    "Event",
    "EventKind",
    "EventStore",
    "NewEvent",
    "SharedStore",
    "Snapshot",
    "open_store",
]


def open_store(store: str | EventStore | None) -> EventStore | None:
    """Return the store that a user means.

    Parameters
    ----------
    store
        A URL (``"sqlite:///mixllm.db"``,
        ``"postgresql+psycopg://user@host/database"``), a store, which is
        returned as it is, or ``None``, which stays ``None``: no log is kept.

    Returns
    -------
    EventStore or None
        An open store; whoever passed a URL closes it. That of a URL is a
        `SharedStore`.

    Raises
    ------
    ConfigurationError
        If it is none of these, if the URL cannot be used, if the database
        cannot be opened, or if a newer release has changed its tables. The
        message never shows a password.

    Examples
    --------
    >>> open_store(None) is None
    True
    """
    if store is None:
        return None
    if isinstance(store, str):
        if store.startswith(("redis:", "rediss:", "unix:")):
            raise ConfigurationError(
                "Redis keeps no log of events: pass its URL as shared_state=, and as "
                "store= a database, for example 'postgresql+psycopg://host/database'"
            )
        from mixllm_integrations.store.sql import SQLStore

        return SQLStore(store)
    if isinstance(store, EventStore):
        return store
    raise ConfigurationError(
        "store must be a URL, an EventStore or None, not a "
        f"{type(store).__name__}; a URL is for example 'sqlite:///mixllm.db'"
    )
