"""Goes on from what another worker had learned of a log, and leaves that for others.

Beside `following`, which reads the log.
"""

import logging
from typing import TYPE_CHECKING

from mixllm_integrations.core.errors import MixLLMError

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router
    from mixllm_integrations.serving.hearing import Listener
    from mixllm_integrations.store import SharedStore, Snapshot

__all__ = ["Snapshots"]

_log = logging.getLogger(__name__)


class Snapshots:
    """The snapshots beside one log, for one router.

    Parameters
    ----------
    router
        Who learns.
    listener
        Through whom.
    log
        Identity of the log.
    """

    __slots__ = ("_at", "_listener", "_log", "_router")

    def __init__(self, router: "Router", listener: "Listener", log: str) -> None:
        self._router = router
        self._listener = listener
        self._log = log
        self._at = 0  # up to which event there is one, as far as is known

    def go_on_from(self, found: "Snapshot") -> None:
        """Take a snapshot over; the lock of the listener is held.

        Parameters
        ----------
        found
            It takes the place of all that was learned before.
        """
        try:
            resumed = self._router.resume(found.content)
        except MixLLMError as error:
            _log.warning("a snapshot is of no use here, the log is read: %s", error)
            return
        if resumed:
            self._at = found.sequence
            _log.info("went on from a snapshot at event %d", found.sequence)

    def put_if_due(self, store: "SharedStore | None", every: int) -> None:
        """Leave one, if nobody has for long.

        Parameters
        ----------
        store
            The log; ``None``: it is closed.
        every
            After how many events.
        """
        heard = self._listener.heard()
        if heard - self._at < every or store is None or self._listener.is_waiting:
            return
        newest = store.newest_snapshot()
        self._at = 0 if newest is None else newest.sequence
        if heard - self._at >= every:
            with self._listener.lock:
                self._at, content = self._router.snapshot(self._log)
            store.put_snapshot(self._at, content)
