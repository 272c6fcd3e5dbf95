"""Takes events and sees to it that they are written; here at once.

`mixllm_integrations.serving.background` has the writer that nobody waits for.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

__all__ = ["DirectWriter", "Entry", "Report", "Writer"]

_log = logging.getLogger(__name__)

Entry: TypeAlias = tuple[str, str, Mapping[str, Any]]


class Writer(Protocol):
    """Takes events, and sees to it that they are written."""

    def put(self, entry: Entry, *, keep: bool = False) -> None:
        """Take an event; `keep` means that it must not be lost."""

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
    lost
        How many events were given up.
    """

    __slots__ = ("failing", "lost")

    def __init__(self) -> None:
        self.failing = False
        self.lost = 0

    def failed(self, why: str) -> None:
        """Note that an event was not written, for this reason."""
        if not self.failing:
            self.failing = True
            _log.warning(
                "events are not logged: %s; it is said when they are again", why
            )

    def worked(self) -> None:
        """Note that one was written."""
        if self.failing:
            self.failing = False
            _log.warning("events are logged again; lost so far: %d", self.lost)


class DirectWriter:
    """Writes each event at once, on the caller's thread.

    Parameters
    ----------
    append
        Writes one event.
    at_end
        Called when the writer is closed.
    """

    __slots__ = ("_append", "_at_end", "_report")

    def __init__(
        self, append: Callable[..., object], *, at_end: Callable[[], None] | None = None
    ) -> None:
        self._append = append
        self._at_end = at_end
        self._report = Report()

    def put(self, entry: Entry, *, keep: bool = False) -> None:  # noqa: ARG002
        """Write an event.

        Parameters
        ----------
        entry
            The arguments of `append`.
        keep
            Of no importance here.
        """
        try:
            self._append(*entry)
        except Exception as error:  # noqa: BLE001 - a log must not stop an answer
            self._report.lost += 1
            self._report.failed(f"the store failed with {type(error).__name__}")
        else:
            self._report.worked()

    def flush(self, timeout_seconds: float | None = None) -> bool:  # noqa: ARG002
        """Return True: nothing waits."""
        return True

    def close(self) -> None:
        """Let go of the log."""
        if self._at_end is not None:
            self._at_end()
