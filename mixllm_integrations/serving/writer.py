"""Takes events and sees to it that they are written; here at once.

`mixllm_integrations.serving.background` has the writer that nobody waits for.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mixllm_integrations.store import NewEvent

__all__ = ["DirectWriter", "Report", "Writer"]

_log = logging.getLogger(__name__)


class Writer(Protocol):
    """Takes events, and sees to it that they are written."""

    def put(self, event: NewEvent, *, keep: bool = False) -> None:
        """Take an event; `keep` means that it must not be lost."""

    def put_safely(self, event: NewEvent, seconds: float) -> None:
        """Take an event, and wait so long until it outlives this process."""

    def flush(self, timeout_seconds: float | None = None) -> bool:
        """Wait until what was taken is written, and tell whether it is."""

    def close(self) -> None:
        """Write what was taken, and let go of the log."""


class Report:
    """Says in the log when writing fails, and when it works again; once each.

    Attributes
    ----------
    failing
        Whether the last event was not written.
    kept_in
        Where events wait meanwhile; ``None``: in memory.
    lost
        How many events were given up.
    """

    __slots__ = ("_spool_failing", "failing", "kept_in", "lost")

    def __init__(self) -> None:
        self.failing = False
        self.kept_in: Path | None = None
        self.lost = 0
        self._spool_failing = False

    def failed(self, why: str, *, is_kept: bool = False) -> None:
        """Note that an event was not written, for this reason, but perhaps kept."""
        if self.failing:
            return
        self.failing = True
        kept = f" but kept in {self.kept_in}" if is_kept and self.kept_in else ""
        _log.warning(
            "events are not logged%s: %s; it is said when they are logged again",
            kept,
            why,
        )

    def spool_failed(self, why: str) -> None:
        """Note that an event could not be kept on disk either."""
        if not self._spool_failing:
            self._spool_failing = True
            _log.warning("events cannot be kept in %s: %s", self.kept_in, why)

    def worked(self, *, lost: int = 0) -> None:
        """Note that one was written; `lost` were given up on disk."""
        if self.failing:
            self.failing = self._spool_failing = False
            _log.warning("events are logged again; lost so far: %d", self.lost + lost)


class DirectWriter:
    """Writes each event at once, on the caller's thread.

    Parameters
    ----------
    append
        Writes one event: its kind, its decision's id and its payload.
    append_many
        Writes several; used if it is there, since it also takes the time.
    prepare
        Makes an event ready to be written.
    at_end
        Called when the writer is closed.
    """

    __slots__ = ("_append", "_append_many", "_at_end", "_prepare", "_report")

    def __init__(
        self,
        append: Callable[[str, str, Mapping[str, Any]], object],
        *,
        append_many: Callable[[Sequence[NewEvent]], object] | None = None,
        prepare: Callable[[NewEvent], NewEvent] | None = None,
        at_end: Callable[[], None] | None = None,
    ) -> None:
        self._append = append
        self._append_many = append_many
        self._prepare = prepare
        self._at_end = at_end
        self._report = Report()

    def put(self, event: NewEvent, *, keep: bool = False) -> None:  # noqa: ARG002
        """Write an event.

        Parameters
        ----------
        event
            What happened.
        keep
            Of no importance here.
        """
        try:
            if self._prepare is not None:
                event = self._prepare(event)
            if self._append_many is not None:
                self._append_many([event])
            else:
                self._append(event.kind, event.decision_id, event.payload)
        except Exception as error:  # noqa: BLE001 - a log must not stop an answer
            self._report.lost += 1
            self._report.failed(f"the store failed with {type(error).__name__}")
        else:
            self._report.worked()

    def put_safely(self, event: NewEvent, seconds: float) -> None:  # noqa: ARG002
        """Write an event.

        Parameters
        ----------
        event
            What happened.
        seconds
            Of no importance here.
        """
        self.put(event)

    def flush(self, timeout_seconds: float | None = None) -> bool:  # noqa: ARG002
        """Return True: nothing waits."""
        return True

    def close(self) -> None:
        """Let go of the log."""
        if self._at_end is not None:
            self._at_end()
