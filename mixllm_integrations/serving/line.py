"""What a writer has in hand: events in their order, and who waits for them."""

import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice

from mixllm_integrations.serving.delivery import Delivery
from mixllm_integrations.serving.writer import Report
from mixllm_integrations.store import NewEvent

__all__ = ["Line", "Mark"]


class Mark:
    """Stands in line behind what somebody waits for.

    Parameters
    ----------
    tries
        Whether a store that was away is tried again for it.

    Attributes
    ----------
    tries
        The same.
    """

    __slots__ = ("_passed", "_written", "tries")

    def __init__(self, *, tries: bool = True) -> None:
        self.tries = tries
        self._passed = threading.Event()
        self._written = False

    @property
    def passed(self) -> bool:
        """Whether nobody needs to wait any more."""
        return self._passed.is_set()

    def reached(self, *, written: bool) -> None:
        """Let go whoever waits, and tell whether all before it is in the store."""
        self._written = written
        self._passed.set()

    def wait(self, seconds: float | None) -> bool:
        """Wait, and tell whether all before it is in the store."""
        return self._passed.wait(seconds) and self._written


class Line:
    """Events and marks, written from the front; one thread at a time does that.

    Parameters
    ----------
    delivery
        Who writes them.
    report
        Who says in the log what fails.
    prepare
        Makes an event ready to be written; ``None``: all are.
    retry_seconds
        How long a store that has gone away is left alone.

    Attributes
    ----------
    ended
        Whether the end was taken.
    written
        How many events have left the front.
    """

    __slots__ = (
        "_again_at",
        "_delivery",
        "_held",
        "_is_writing",
        "_prepare",
        "_report",
        "_retry_seconds",
        "ended",
        "written",
    )

    def __init__(
        self,
        delivery: Delivery,
        report: Report,
        *,
        prepare: Callable[[NewEvent], NewEvent] | None,
        retry_seconds: float,
    ) -> None:
        self._delivery = delivery
        self._report = report
        self._prepare = prepare
        self._retry_seconds = retry_seconds
        self._held: deque[NewEvent | Mark] = deque()
        self._again_at: float | None = None  # a number: the store is away
        self._is_writing = False
        self.ended = False
        self.written = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def events(self) -> list[NewEvent]:
        """What is still to be written."""
        return [item for item in list(self._held) if isinstance(item, NewEvent)]

    @property
    def is_full(self) -> bool:
        """Whether there is enough for one transaction."""
        return len(self._held) >= self._delivery.batch

    @property
    def is_being_written(self) -> bool:
        """Whether somebody is at it: on the same thread, a finalizer's victim."""
        return self._is_writing

    @property
    def pause(self) -> float | None:
        """How long the store is left alone; ``None`` if nothing waits for it."""
        if self._again_at is None or not (self._held or self._delivery.waiting):
            return None
        return max(self._again_at - time.monotonic(), 0.0)

    def take(self, item: NewEvent | Mark | None) -> None:
        """Put something in line.

        Parameters
        ----------
        item
            An event, a mark, or ``None``: the end.
        """
        if item is None:
            self.ended = True
            return
        ready = self.prepared(item) if isinstance(item, NewEvent) else item
        if ready is not None:
            self._held.append(ready)

    def prepared(self, event: NewEvent) -> NewEvent | None:
        """Make an event ready to be written.

        Parameters
        ----------
        event
            As it was taken.

        Returns
        -------
        NewEvent or None
            ``None`` if that fails; then it is counted as lost.
        """
        if self._prepare is None:
            return event
        try:
            return self._prepare(event)
        except Exception as error:  # noqa: BLE001 - a log must not stop an answer
            self._report.lost += 1
            self._report.failed(f"an event failed with {type(error).__name__}")
            return None

    def move_on(self, room: Callable[[], bool]) -> None:
        """Write what is in line, or put it on disk while the store is away.

        Parameters
        ----------
        room
            Tells whether so few events wait that writing can be said to work.
        """
        wanted = any(isinstance(i, Mark) and i.tries for i in list(self._held))
        if wanted or not self.pause:
            self.write(room)
        elif self._park():
            self._release()

    def write(self, room: Callable[[], bool], *, adopt: bool = False) -> None:
        """Write what is on disk and what is in line, as far as the store takes it.

        Parameters
        ----------
        room
            As for `move_on`.
        adopt
            Whether to look for what ended processes have left on disk, even if
            the store was not away.
        """
        if self._is_writing:
            return
        self._is_writing = True
        try:
            was_away = self._again_at is not None
            is_there = self._delivery.catch_up(adopt=adopt or was_away)
            if is_there and self._write_batches(room):
                self._again_at = None
                return
            self._again_at = time.monotonic() + self._retry_seconds
            self._park()
            self._release()
        finally:
            self._is_writing = False

    def give_up(self) -> int:
        """Forget what is in line, and return how many events that were."""
        lost = len(self.events)
        self._release()
        self._held.clear()
        return lost

    def _write_batches(self, room: Callable[[], bool]) -> bool:
        """Tell whether nothing is in line any more; else the store is away."""
        held = self._held
        while held:
            if isinstance(held[0], Mark):
                self._pass_mark(held[0])
                continue
            batch = self._batch()
            lost = self._report.lost
            done = self._delivery.write(batch)
            for _ in range(done):
                held.popleft()
            self.written += done
            if done < len(batch):
                return False
            if self._report.lost == lost and room():
                self._report.worked(lost=self._delivery.lost)
        return True

    def _pass_mark(self, mark: Mark) -> None:
        self._held.popleft()
        mark.reached(written=True)

    def _batch(self) -> list[NewEvent]:
        batch: list[NewEvent] = []
        for item in islice(self._held, self._delivery.batch):
            if isinstance(item, Mark):
                break
            batch.append(item)
        return batch

    def _park(self) -> bool:
        """Put the events on disk; tell whether they are there."""
        items = list(self._held)
        events = [item for item in items if isinstance(item, NewEvent)]
        if not self._delivery.set_aside(events):
            return False
        for _ in items:
            item = self._held.popleft()
            if isinstance(item, Mark):
                self._held.append(item)
        return True

    def _release(self) -> None:
        """Let nobody wait for a store that is away."""
        for item in list(self._held):
            if isinstance(item, Mark):
                self._held.remove(item)
                item.reached(written=False)
