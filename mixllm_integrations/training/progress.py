"""A progress bar that only shows itself when there is something to wait for."""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = ["DelayedBar"]


class DelayedBar:
    """A bar on standard error that appears after a second; a context manager.

    Parameters
    ----------
    total
        How many steps there are.
    label
        What is going on.
    shown
        ``None``: after `after_seconds`, and only on a terminal. True: at
        once, wherever it goes. False: never.
    after_seconds
        How long to wait before it appears.
    console
        Where to draw; ``None``: standard error.

    Attributes
    ----------
    label
        What is going on; may be set, and shows with the next step.
    """

    def __init__(
        self,
        total: int,
        *,
        label: str,
        shown: bool | None = None,
        after_seconds: float = 1.0,
        console: "Console | None" = None,
    ) -> None:
        self.total, self.label, self.done = total, label, 0
        self._shown, self._console = shown, console
        self._from = time.monotonic() + (0.0 if shown else after_seconds)
        self._bar: Progress | None = None

    def advance(self, steps: int = 1) -> None:
        """Say that some steps are done.

        Parameters
        ----------
        steps
            How many.
        """
        self.done += steps
        due = self._shown is not False and time.monotonic() >= self._from
        if self._bar is None and due:
            self._show()
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0], completed=self.done, description=self.label
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        console = self._console or Console(stderr=True)
        if self._shown is None and not console.is_terminal:
            self._shown = False
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._bar.add_task(self.label, total=self.total)
        self._bar.start()
