"""Events on disk while their database is away; bounded, and found again.

The files of one database lie in one folder, one per process. Whoever writes to
the same database later delivers those of processes that have ended.
"""

import logging
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from mixllm_integrations.serving.spool_file import SpoolFile
from mixllm_integrations.serving.spool_lines import line_of
from mixllm_integrations.store import NewEvent

__all__ = ["Spool", "spool_folder"]

_log = logging.getLogger(__name__)

# All our choice.
_LIMIT_BYTES = 64 << 20
_MUST_LAST = frozenset({"feedback", "signal"})


def spool_folder() -> Path | None:
    """Return where events wait if nobody says otherwise.

    Returns
    -------
    Path or None
        The folder that the variable ``MIXLLM_SPOOL`` names; without it
        ``mixllm/spool`` in the user's folder for state, or, if there is none, in
        that for temporary files. ``None`` if the variable is ``off``: nothing is
        kept on disk.
    """
    named = os.environ.get("MIXLLM_SPOOL")
    if named:
        return None if named.lower() == "off" else Path(named)
    base = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA")
    if base:
        return Path(base) / "mixllm" / "spool"
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home
        home = None
    if home is not None and os.access(home, os.W_OK | os.X_OK):
        return home / ".local" / "state" / "mixllm" / "spool"
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"mixllm-{user}" / "spool"


class Spool:
    """Keeps the events of one process, and delivers those of ended ones. Thread-safe.

    Parameters
    ----------
    folder
        Where files lie; made with the first event.
    owner
        Of which database the events are: part of the files' names.
    limit_bytes
        What the file of this process may hold. Beyond it decisions are given up
        first, the oldest ones, and feedback last.

    Attributes
    ----------
    folder
        Where files lie.
    lost
        How many events were given up, or could not be read any more.

    Notes
    -----
    Files can be read by their user alone. Source: our choice.
    """

    __slots__ = ("_adopted", "_limit", "_lock", "_lost", "_own", "_owner", "folder")

    def __init__(
        self, folder: Path, owner: str, *, limit_bytes: int = _LIMIT_BYTES
    ) -> None:
        self.folder = folder
        self._owner = owner
        self._limit = limit_bytes
        self._lost = 0
        self._own: SpoolFile | None = None
        self._adopted: list[SpoolFile] = []
        self._lock = threading.RLock()

    def begin_anew(self) -> None:
        """Forget all files after a fork: they are the parent process's."""
        self._lock = threading.RLock()
        self.close()

    @property
    def lost(self) -> int:
        """How many events were given up, or could not be read any more."""
        return self._lost

    @property
    def holds(self) -> bool:
        """Whether something is to be delivered."""
        with self._lock:
            own = self._own
            return bool(self._adopted) or (own is not None and not own.at_end)

    @property
    def has_files(self) -> bool:
        """Whether there are files of this database, of whatever process."""
        return bool(SpoolFile.left_behind(self.folder, self._owner))

    def adopt(self) -> None:
        """Take over the files of processes that have ended."""
        with self._lock:
            SpoolFile.sweep(self.folder, self._owner)
            for path in SpoolFile.left_behind(self.folder, self._owner):
                found = SpoolFile.take_over(path)
                if found is not None:
                    self._adopted.append(found)

    def add(self, events: Sequence[NewEvent], *, copies: bool = False) -> None:
        """Keep events; feedback and signals outlive a power failure, too.

        Parameters
        ----------
        events
            In their order.
        copies
            Whether this process has them in memory as well: then they are only
            delivered if it is killed.

        Raises
        ------
        OSError
            If the disk does not take them; then it took none.
        """
        found = [line_of(event, copy=copies) for event in events]
        lines = [line for line in found if line is not None]
        with self._lock:
            if lines:
                own = self._opened()
                own.add(lines, sync=any(e.kind in _MUST_LAST for e in events))
                if own.size > self._limit:
                    self._make_room(own)
            self._lost += len(found) - len(lines)

    def next(self, limit: int) -> list[NewEvent]:
        """Return what is to be delivered next: again, until `delivered` is called.

        Parameters
        ----------
        limit
            At most so many.

        Returns
        -------
        list of NewEvent
            Empty if there is nothing.
        """
        with self._lock:
            while self._adopted:
                if found := self._adopted[0].read(limit):
                    return found
                done = self._adopted.pop(0)
                if done.damaged:
                    self._lost += done.damaged
                    _log.warning(
                        "%d damaged lines of a spool are left out", done.damaged
                    )
                done.remove()
            return [] if self._own is None else self._own.read(limit)

    def delivered(self) -> None:
        """Note that what `next` returned is in the database."""
        with self._lock:
            file = self._adopted[0] if self._adopted else self._own
            if file is not None:
                file.advance()

    def settle(self, is_idle: Callable[[], bool]) -> None:
        """Remove the file of this process, if it is of no use any more.

        Parameters
        ----------
        is_idle
            Whether no event is in memory, of which there may be a copy.
        """
        with self._lock:
            if self._own is not None and is_idle() and self._own.at_end:
                self._own.remove()
                self._own = None

    def close(self) -> None:
        """Leave all files to whoever comes next."""
        with self._lock:
            for file in [*self._adopted, self._own]:
                if file is not None:
                    file.close()
            self._adopted = []
            self._own = None

    def _opened(self) -> SpoolFile:
        if self._own is None:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _refuse_if_shared(self.folder)
            self._own = SpoolFile.create(self.folder, self._owner)
        return self._own

    def _make_room(self, own: SpoolFile) -> None:
        try:
            given_up = own.shrink(self._limit)
        except OSError:  # no room for a smaller one beside it
            return
        if not self._lost:
            _log.warning(
                "the spool in %s is full: old events are given up, decisions first",
                self.folder,
            )
        self._lost += given_up


def _refuse_if_shared(folder: Path) -> None:
    """Raise if others could put events into a folder for temporary files."""
    found = folder.stat()
    is_ours = not hasattr(os, "getuid") or found.st_uid in (os.getuid(), 0)
    if not is_ours or (
        found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
    ):
        raise PermissionError(f"{folder} is another user's, or everybody's")
