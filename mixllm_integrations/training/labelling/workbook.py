"""What was paid for, on disk at once: a killed run never pays for it again."""

import json
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from mixllm_integrations.core.errors import ConfigurationError, StateFormatError

__all__ = ["Paid", "Workbook"]

_WAIT_SECONDS = 2.0
_TABLES = (
    "CREATE TABLE IF NOT EXISTS begun (call TEXT PRIMARY KEY, bound REAL NOT NULL)",
    """CREATE TABLE IF NOT EXISTS paid (digest TEXT PRIMARY KEY,
    candidate TEXT NOT NULL, value TEXT NOT NULL, cost REAL NOT NULL)""",
)


class Paid(NamedTuple):
    """What a call has brought.

    Parameters
    ----------
    value
        As JSON can hold it.
    cost
        USD.
    """

    value: Any
    cost: float


class Workbook:
    """Answers and grades by digest in a SQLite file; a context manager.

    A call is noted before it is made, with the most that it may cost, and again
    with what it brought. What was noted only before counts as spent in full when
    the file is opened again: nobody knows whether it was billed.

    Parameters
    ----------
    file
        Made if it is not there. It holds what the candidates answered.

    Raises
    ------
    ConfigurationError
        If the file cannot be made, or another run holds it.
    StateFormatError
        If it is no workbook.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                self.file, timeout=_WAIT_SECONDS, isolation_level=None
            )
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(
                f"the workbook {str(self.file)!r} cannot be made: {error}"
            ) from error
        try:
            # Locked until the process ends, so two runs cannot pay for the same.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            for table in _TABLES:
                self._database.execute(table)
            self._lose()
        except sqlite3.Error as error:
            self.close()
            raise self._broken(error) from error

    def get(self, digest: str) -> Paid | None:
        """Return what was paid for.

        Parameters
        ----------
        digest
            Of what was asked, and whom.
        """
        rows = self._run("SELECT value, cost FROM paid WHERE digest = ?", digest)
        try:
            return Paid(json.loads(rows[0][0]), float(rows[0][1])) if rows else None
        except ValueError as error:
            raise self._broken(error) from error

    def begin(self, call: str, bound: float) -> None:
        """Note a call before it is made.

        Parameters
        ----------
        call
            Its id.
        bound
            The most that it may cost in USD.
        """
        self._run("INSERT INTO begun VALUES (?, ?)", call, bound)

    def end(
        self,
        call: str,
        cost: float,
        *,
        candidate: str,
        digest: str | None = None,
        value: Any = None,  # noqa: ANN401
    ) -> None:
        """Note what a call brought and has cost; on disk when this returns.

        Parameters
        ----------
        call
            Its id.
        cost
            USD.
        candidate
            Who was asked.
        digest
            Of what was asked, and whom; ``None``: it failed.
        value
            What it brought, as JSON can hold it.
        """
        self._run("BEGIN")
        self._run("DELETE FROM begun WHERE call = ?", call)
        if digest is not None or cost:
            self._run(
                "INSERT OR REPLACE INTO paid VALUES (?, ?, ?, ?)",
                digest or f"failed:{call}",
                candidate,
                json.dumps(value),
                cost,
            )
        self._run("COMMIT")

    def spent(self) -> float:
        """Return USD that all calls so far have cost, at the most."""
        (row,) = self._run("SELECT COALESCE(SUM(cost), 0.0) FROM paid")
        return float(row[0])

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _lose(self) -> None:
        """Count calls that were under way when a run was killed as spent."""
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute(
            "INSERT OR REPLACE INTO paid "
            "SELECT 'lost:' || call, '', 'null', bound FROM begun"
        )
        self._database.execute("DELETE FROM begun")
        self._database.execute("COMMIT")

    def _run(self, statement: str, *values: object) -> list[Any]:
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> ConfigurationError | StateFormatError:
        if "locked" in str(error):
            return ConfigurationError(
                f"the workbook {str(self.file)!r} is in use by another run: wait for "
                "its end, or name another file"
            )
        return StateFormatError(
            f"the workbook {str(self.file)!r} cannot be used ({error}); if it is "
            "damaged, delete it, and all is asked anew"
        )
