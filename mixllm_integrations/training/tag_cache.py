"""Answers that were paid for once: tags on disk, by a digest of what was asked."""

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from mixllm_integrations.core.errors import ConfigurationError, StateFormatError

__all__ = ["TagCache"]

_FILE = "tags.sqlite3"
_WAIT_SECONDS = 60.0
_AT_ONCE = 500  # SQLite takes no more than 999 parameters where it is old
_TABLE = (
    "CREATE TABLE IF NOT EXISTS tags (digest TEXT PRIMARY KEY, tags TEXT NOT NULL) "
    "WITHOUT ROWID"
)


class TagCache:
    """Tags by text in a SQLite file; a context manager.

    Each answer is committed by itself, so a killed process loses none that it
    has put, and several processes may share a folder; threads that share one
    object must take turns. Texts are not stored, only digests; the tags are, and
    tags say what a text is about.

    Parameters
    ----------
    folder
        Made if it is not there; ``None``: nothing is kept.
    scope
        What the tags depend on beside the text: the model and the prompt.

    Raises
    ------
    ConfigurationError
        If the folder cannot be made.
    StateFormatError
        If the file in it is no cache.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with TagCache(folder, scope=("small", "v1")) as cache:
    ...         cache.put({"2+2?": ("sums",)})
    ...     with TagCache(folder, scope=("small", "v1")) as cache:
    ...         cache.get(["2+2?", "3+3?"])
    {'2+2?': ('sums',)}
    """

    def __init__(self, folder: str | Path | None, *, scope: Sequence[str]) -> None:
        self._scope = json.dumps(list(scope))
        self._database: sqlite3.Connection | None = None
        if folder is None:
            return
        self._file = Path(folder).expanduser() / _FILE
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"the cache folder {str(folder)!r} cannot be made: {error.strerror}"
            ) from error
        try:
            # Autocommit; whichever thread got an answer puts it.
            self._database = sqlite3.connect(
                self._file,
                timeout=_WAIT_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(_TABLE)
        except sqlite3.Error as error:
            self.close()
            raise self._broken(error) from error

    def get(self, texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the tags of those texts that are known.

        Parameters
        ----------
        texts
            What was asked about.
        """
        if self._database is None:
            return {}
        known: dict[str, tuple[str, ...]] = {}
        for start in range(0, len(texts), _AT_ONCE):
            some = {self._digest(text): text for text in texts[start:][:_AT_ONCE]}
            marks = ",".join("?" * len(some))
            query = f"SELECT digest, tags FROM tags WHERE digest IN ({marks})"  # noqa: S608
            try:
                rows = self._database.execute(query, list(some)).fetchall()
                known.update((some[d], _tags(written)) for d, written in rows)
            except (sqlite3.Error, RecursionError, TypeError, ValueError) as error:
                raise self._broken(error) from error
        return known

    def put(self, tags: Mapping[str, tuple[str, ...]]) -> None:
        """Keep the tags of some texts; on disk when this returns.

        Parameters
        ----------
        tags
            By text.
        """
        if self._database is None or not tags:
            return
        rows = [(self._digest(text), json.dumps(own)) for text, own in tags.items()]
        marks = ",".join(["(?, ?)"] * len(rows))
        try:
            self._database.execute(
                f"INSERT OR REPLACE INTO tags VALUES {marks}",  # noqa: S608
                [value for row in rows for value in row],
            )
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def close(self) -> None:
        """Let go of the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _digest(self, text: str) -> str:
        whole = f"{self._scope}\n{text}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(whole).hexdigest()

    def _broken(self, error: Exception) -> StateFormatError:
        return StateFormatError(
            f"the tag cache {str(self._file)!r} cannot be used ({error}); if it is "
            "damaged, delete it and the queries are asked anew"
        )


def _tags(written: str) -> tuple[str, ...]:
    found = json.loads(written)
    if not isinstance(found, list) or not all(isinstance(tag, str) for tag in found):
        raise ValueError("what is kept of a text is no list of tags")
    return tuple(found)
