"""What is remembered outside the process: an append-only log of events.

`open_store` turns what a user passes as ``store=`` into an `EventStore`; the
one that ships is `mixllm_integrations.store.sql.SQLStore` (SQLite,
PostgreSQL). Nothing here imports a database until a URL is opened.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Protocol, Self, get_args, runtime_checkable

from mixllm_integrations.core.errors import ConfigurationError

__all__ = ["EVENT_KINDS", "Event", "EventKind", "EventStore", "open_store"]

EventKind = Literal["decision", "outcome", "feedback", "drift"]

EVENT_KINDS: tuple[EventKind, ...] = get_args(EventKind)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the log.

    Parameters
    ----------
    sequence
        Its place in the log: grows, may have gaps, is never given twice.
    kind
        ``"decision"``, ``"outcome"``, ``"feedback"`` or ``"drift"``.
    decision_id
        The decision it speaks of.
    at
        When it was appended, in UTC.
    payload
        What the writer said, made of what JSON can hold.
    """

    sequence: int
    kind: EventKind
    decision_id: str
    at: datetime
    payload: Mapping[str, Any]


@runtime_checkable
class EventStore(Protocol):
    """An append-only log that several threads, or workers, share.

    It is a context manager that closes itself.
    """

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
            If the kind is unknown, the id is empty or the payload is not a
            mapping that JSON can hold.
        """
        ...

    def events(self, *, after: int = 0, limit: int | None = None) -> Iterator[Event]:
        """Yield events in the order of their sequence.

        Parameters
        ----------
        after
            Only those with a greater sequence.
        limit
            At most so many; ``None``: all.

        Yields
        ------
        Event
            The next one. Rows that cannot be read are skipped and counted.
        """
        ...

    def close(self) -> None:
        """Give up all connections; closing twice is harmless."""
        ...

    def __enter__(self) -> Self:
        """Return itself."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        ...


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
        An open store; whoever passed a URL closes it.

    Raises
    ------
    ConfigurationError
        If it is none of these, if the URL cannot be used, or if the database
        cannot be opened. The message never shows a password.

    Examples
    --------
    >>> open_store(None) is None
    True
    """
    if store is None:
        return None
    if isinstance(store, str):
        from mixllm_integrations.store.sql import SQLStore

        return SQLStore(store)
    if isinstance(store, EventStore):
        return store
    raise ConfigurationError(
        "store must be a URL, an EventStore or None, not a "
        f"{type(store).__name__}; a URL is for example 'sqlite:///mixllm.db'"
    )
