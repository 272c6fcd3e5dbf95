"""What a store can do: keep a log; let workers share what they have learned."""

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from mixllm_integrations.store.events import Event, EventKind, NewEvent, Snapshot

__all__ = ["EventStore", "SharedStore"]


@runtime_checkable
class EventStore(Protocol):
    """An append-only log that several threads, or workers, share.

    It is a context manager that closes itself.
    """

    def append(
        self, kind: EventKind, decision_id: str, payload: Mapping[str, Any]
    ) -> bool:
        """Add one event, unless that decision has it already.

        A decision has one event of each kind, but one feedback of each kind of
        feedback (``payload["kind"]``), and each signal (``payload["signal"]``)
        once.

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


@runtime_checkable
class SharedStore(EventStore, Protocol):
    """A log that workers tail, with snapshots for those that come later."""

    @property
    def identity(self) -> str:
        """Which log this is, for whoever remembers how much of it was heard.

        Another one if the log begins anew, even at the same place.
        """
        ...

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
            If one of them cannot be stored; then none is.
        """
        ...

    def tail(self, after: int, *, limit: int = 1_000) -> tuple[list[Event], int]:
        """Return what comes next in the log, and where to go on from.

        Whoever always goes on from the cursor sees each event exactly once,
        whoever writes meanwhile.

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
            cannot be read are skipped and counted.
        """
        ...

    def of(self, decision_id: str) -> list[Event]:
        """Return all events of one decision, in the order of their sequence.

        Parameters
        ----------
        decision_id
            Which decision.
        """
        ...

    def last_sequence(self) -> int:
        """Return the sequence of the newest event, 0 if there is none."""
        ...

    def put_snapshot(self, sequence: int, content: bytes) -> None:
        """Keep a snapshot; the newest two are kept.

        Parameters
        ----------
        sequence
            Of the last event that is in it.
        content
            The state.
        """
        ...

    def newest_snapshot(self) -> Snapshot | None:
        """Return the snapshot with the greatest sequence, if there is any.

        Returns
        -------
        Snapshot or None
            A damaged one is left out with a warning, and the one before it is
            returned.
        """
        ...
