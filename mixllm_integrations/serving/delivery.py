"""Gets events into a store, in batches, and onto the disk while it is away."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mixllm_integrations.serving.spool import Spool
from mixllm_integrations.serving.writer import Report
from mixllm_integrations.store import NewEvent

__all__ = ["BATCH", "Delivery"]

# Our choice: so many events in one transaction.
BATCH = 200

# Errors of a database that is away, busy, full, or may not be written; any other
# is the event's own. The names are those of PEP 249, so no driver is imported.
_TEMPORARY = frozenset(
    {
        "InterfaceError",
        "InternalError",
        "OSError",
        "OperationalError",
        "ProgrammingError",
        "TimeoutError",
    }
)


class Delivery:
    """Writes events to a store; called by one thread at a time.

    Parameters
    ----------
    append
        Writes one event: its kind, its decision's id and its payload.
    append_many
        Writes several in one transaction; ``None``: the store cannot.
    spool
        Where events wait while the store is away; ``None``: nowhere but in
        memory.
    report
        Who says so in the log.
    """

    __slots__ = ("_append", "_append_many", "_report", "spool")

    def __init__(
        self,
        append: Callable[[str, str, Mapping[str, Any]], object],
        *,
        append_many: Callable[[Sequence[NewEvent]], object] | None = None,
        spool: Spool | None = None,
        report: Report,
    ) -> None:
        self._append = append
        self._append_many = append_many
        self._report = report
        self.spool = spool
        if spool is not None:
            report.kept_in = spool.folder

    @property
    def batch(self) -> int:
        """How many events are written at once."""
        return 1 if self._append_many is None else BATCH

    @property
    def waiting(self) -> bool:
        """Whether there are events on disk, to be delivered by `catch_up`."""
        try:
            return self.spool is not None and self.spool.holds
        except OSError:
            return False

    @property
    def lost(self) -> int:
        """How many events were given up on disk."""
        return 0 if self.spool is None else self.spool.lost

    def write(self, events: Sequence[NewEvent]) -> int:
        """Write events, those that are refused aside.

        Parameters
        ----------
        events
            In their order.

        Returns
        -------
        int
            How many of the first ones are done with: written, or not worth
            another try. Fewer than there are if the store is away.
        """
        if self._append_many is not None and len(events) > 1:
            try:
                self._append_many(events)
            except Exception as error:  # noqa: BLE001 - a log must not stop an answer
                if _is_temporary(error):
                    self._failed(error)
                    return 0
            else:
                return len(events)
        for done, event in enumerate(events):
            try:
                self._write_one(event)
            except Exception as error:  # noqa: BLE001 - the same
                self._failed(error)
                if _is_temporary(error):
                    return done
                self._report.lost += 1
        return len(events)

    def catch_up(self, *, adopt: bool) -> bool:
        """Write what waits on disk.

        Parameters
        ----------
        adopt
            Whether to look for what ended processes have left there.

        Returns
        -------
        bool
            False if the store is away.
        """
        if self.spool is None:
            return True
        try:
            if adopt:
                self.spool.adopt()
            while events := self.spool.next(BATCH):
                if self.write(events) < len(events):
                    return False
                self.spool.delivered()
                self._report.worked(lost=self.lost)
        except OSError as error:
            self._spool_failed(error)
        return True

    def set_aside(self, events: Sequence[NewEvent], *, copies: bool = False) -> bool:
        """Keep events on disk.

        Parameters
        ----------
        events
            In their order.
        copies
            Whether they stay in memory as well.

        Returns
        -------
        bool
            False if they cannot be kept there.
        """
        if self.spool is None:
            return False
        try:
            if events:
                self.spool.add(events, copies=copies)
        except OSError as error:
            self._spool_failed(error)
            return False
        return True

    def settle(self, is_idle: Callable[[], bool]) -> None:
        """Remove what is on disk, if it is of no use any more.

        Parameters
        ----------
        is_idle
            Whether no event is in memory.
        """
        if self.spool is None:
            return
        try:
            self.spool.settle(is_idle)
        except OSError as error:
            self._spool_failed(error)

    def close(self, is_idle: Callable[[], bool]) -> None:
        """Do what `settle` does, and leave the rest to whoever comes next.

        Parameters
        ----------
        is_idle
            Whether no event is in memory.
        """
        self.settle(is_idle)
        if self.spool is not None:
            self.spool.close()

    def begin_anew(self) -> None:
        """Forget what is on disk, after a fork."""
        if self.spool is not None:
            self.spool.begin_anew()

    def _write_one(self, event: NewEvent) -> None:
        if self._append_many is not None:
            self._append_many([event])
        else:
            self._append(event.kind, event.decision_id, event.payload)

    def _spool_failed(self, error: OSError) -> None:
        self._report.spool_failed(f"{type(error).__name__}, errno {error.errno}")

    def _failed(self, error: Exception) -> None:
        why = f"the store failed with {type(error).__name__}"
        self._report.failed(why, is_kept=_is_temporary(error))


def _is_temporary(error: Exception) -> bool:
    return bool({kind.__name__ for kind in type(error).__mro__} & _TEMPORARY)
