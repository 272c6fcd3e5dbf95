"""One file of events that wait for the database, and whose it is.

It is locked by the process whose events it holds, so whoever finds it unlocked
knows that its owner is gone.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mixllm_integrations.serving.spool_lines import parsed, too_much
from mixllm_integrations.store import NewEvent

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["SpoolFile"]

_SUFFIX = ".spool"
_CHUNK = 1 << 16
_FLAGS = os.O_RDWR | os.O_APPEND
for _name in ("O_BINARY", "O_NOFOLLOW"):  # where there are such
    _FLAGS |= getattr(os, _name, 0)
# All our choice. How much is kept if there is no room.
_KEPT_OF_LIMIT = 0.75
# So old a file is that nobody finishes any more.
_UNFINISHED_SECONDS = 3_600.0


class SpoolFile:
    """Events in a file that nobody else reads or writes meanwhile.

    Parameters
    ----------
    path
        Where it lies.
    descriptor
        Of the open file, which is locked.
    inherited
        Whether it was another process's: then copies count, since that process
        does not remember the events any more.

    Attributes
    ----------
    path
        Where it lies.
    damaged
        How many lines could not be read, such as the last one of a process that
        was killed while it wrote.
    """

    __slots__ = (
        "_copies",
        "_damaged",
        "_fd",
        "_inherited",
        "_next",
        "_read",
        "damaged",
        "path",
    )

    def __init__(self, path: Path, descriptor: int, *, inherited: bool = False) -> None:
        self.path = path
        self.damaged = 0
        self._fd = descriptor
        self._inherited = inherited
        self._copies = False  # whether the copies' turn has come
        self._read = self._next = self._damaged = 0

    @classmethod
    def create(cls, folder: Path, owner: str) -> "SpoolFile":
        """Make a file of this process.

        Parameters
        ----------
        folder
            Where.
        owner
            Of which database the events are.

        Returns
        -------
        SpoolFile
            Empty.

        Raises
        ------
        OSError
            If it cannot be made.
        """
        path = folder / f"{owner}-{os.getpid()}-{os.urandom(6).hex()}{_SUFFIX}"
        hidden, descriptor = _new(path)
        hidden.replace(path)  # locked before anybody can find it
        return cls(path, descriptor)

    @classmethod
    def left_behind(cls, folder: Path, owner: str) -> list[Path]:
        """Return the files of a database, those of living processes too.

        Parameters
        ----------
        folder
            Where they lie; it need not be there.
        owner
            Of which database.
        """
        try:
            return sorted(
                path
                for path in folder.iterdir()
                if path.name.startswith(f"{owner}-") and path.suffix == _SUFFIX
            )
        except OSError:
            return []

    @classmethod
    def take_over(cls, path: Path) -> "SpoolFile | None":
        """Open the file of a process that has ended.

        Parameters
        ----------
        path
            One of `left_behind`.

        Returns
        -------
        SpoolFile or None
            ``None`` if its process lives, or if somebody else was faster.
        """
        try:
            descriptor = os.open(path, _FLAGS)
        except OSError:
            return None
        try:
            _lock(descriptor)
            found = os.fstat(descriptor)
            # Whoever had it may have removed it a moment ago.
            is_there = os.path.samestat(found, path.stat())
        except OSError:
            is_there = False
        if is_there and _is_ours(found):
            return cls(path, descriptor, inherited=True)
        os.close(descriptor)
        return None

    @classmethod
    def sweep(cls, folder: Path, owner: str) -> None:
        """Delete what processes have left that were killed while making a file.

        Parameters
        ----------
        folder
            Where it lies; it need not be there.
        owner
            Of which database.
        """
        for path in folder.glob(f".{owner}-*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _UNFINISHED_SECONDS:
                    path.unlink()

    @property
    def size(self) -> int:
        """In bytes."""
        return os.fstat(self._fd).st_size

    @property
    def at_end(self) -> bool:
        """Whether nothing is left that `read` would return, copies aside."""
        if self._read >= self.size:
            return True
        events = map(parsed, self._lines(self._read))
        return all(is_copy or event is None for is_copy, event in events)

    def add(self, lines: Sequence[bytes], *, sync: bool) -> None:
        """Write lines at the end: all of them, or none.

        Parameters
        ----------
        lines
            From `line_of`.
        sync
            Whether they have to outlive a power failure, too.

        Raises
        ------
        OSError
            If the disk does not take them.
        """
        before = self.size
        try:
            _write(self._fd, b"".join(lines))
            if sync:
                os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, before)
            raise

    def read(self, limit: int) -> list[NewEvent]:
        """Return the next events; the same ones until `advance` is called.

        Parameters
        ----------
        limit
            At most so many.

        Returns
        -------
        list of NewEvent
            Empty at the end.
        """
        found = self._read_on(limit)
        if not found and self._inherited and not self._copies:
            self._copies = True
            self._read = 0
            found = self._read_on(limit)
        return found

    def advance(self) -> None:
        """Do not return again what `read` returned last."""
        self._read = self._next
        self.damaged += self._damaged
        self._damaged = 0

    def shrink(self, limit: int) -> int:
        """Give up old events, until there is room again.

        Parameters
        ----------
        limit
            Bytes that the file may have.

        Returns
        -------
        int
            How many were given up: decisions first, feedback last, and of each
            kind the oldest.

        Raises
        ------
        OSError
            If the disk does not take the smaller file.
        """
        lines, offset = [], 0
        for line in self._lines(0):
            if offset >= self._read or parsed(line)[0]:
                lines.append(line)
            offset += len(line)
        dropped = too_much(lines, int(limit * _KEPT_OF_LIMIT))
        hidden, descriptor = _new(self.path)
        try:
            kept = (line for n, line in enumerate(lines) if n not in dropped)
            _write(descriptor, b"".join(kept))
            os.fsync(descriptor)
            hidden.replace(self.path)
        except OSError:
            os.close(descriptor)
            hidden.unlink(missing_ok=True)
            raise
        os.close(self._fd)
        self._fd = descriptor
        self._read = self._next = 0
        return len(dropped)

    def remove(self) -> None:
        """Delete it."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Let others have it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read_on(self, limit: int) -> list[NewEvent]:
        found: list[NewEvent] = []
        self._next, self._damaged = self._read, 0
        for line in self._lines(self._read):
            self._next += len(line)
            is_copy, event = parsed(line)
            if event is None:
                self._damaged += not self._copies  # else it is counted already
            elif is_copy == self._copies:
                found.append(event)
            if len(found) == limit:
                break
        if not found:
            self.advance()
        return found

    def _lines(self, offset: int) -> Iterator[bytes]:
        rest: list[bytes] = []  # a disk that failed may leave a line of megabytes
        while True:
            os.lseek(self._fd, offset, os.SEEK_SET)
            chunk = os.read(self._fd, _CHUNK)
            offset += len(chunk)
            first, *more = chunk.split(b"\n")
            rest.append(first)
            if more:
                yield b"".join(rest) + b"\n"
                *lines, last = more
                yield from (line + b"\n" for line in lines)
                rest = [last]
            if not chunk:
                break
        if torn := b"".join(rest):
            yield torn


def _new(path: Path) -> tuple[Path, int]:
    """Make a file that nobody finds yet, and lock it."""
    hidden = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    descriptor = os.open(hidden, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _lock(descriptor)
    except OSError:
        os.close(descriptor)
        hidden.unlink()
        raise
    return hidden, descriptor


def _lock(descriptor: int) -> None:
    """Lock an open file until it is closed, or raise `OSError`."""
    if sys.platform == "win32":
        os.lseek(descriptor, 1 << 40, os.SEEK_SET)  # beyond anything that is read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        # Of the open file, not of the process: so it holds within one as well.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_ours(found: os.stat_result) -> bool:
    """Tell whether nobody else can have put events there."""
    return not hasattr(os, "getuid") or found.st_uid == os.getuid()


def _write(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]
