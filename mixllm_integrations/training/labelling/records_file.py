"""The records of a run: one JSON line each, written as soon as they are known."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import RoutingRecord

__all__ = ["RecordsFile"]


class RecordsFile:
    """Appends records to a file that `load_records` reads; a context manager.

    Each line also has ``query_id``, which tells prompts apart, and ``graded_by``.
    A line that a killed process left unfinished is cut off.

    Parameters
    ----------
    file
        ``.jsonl``; made if it is not there.

    Attributes
    ----------
    records
        What it holds, by ``query_id`` and candidate.

    Raises
    ------
    ConfigurationError
        If it cannot be opened, or holds something else.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        self.records: dict[tuple[str, str], list[RoutingRecord]] = {}
        self._graded_by: dict[tuple[str, str], str] = {}
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
            # Not "a": what is cut off must be overwritten.
            self._opened = os.fdopen(os.open(self.file, flags, 0o644), "rb+")
            self._read()
        except OSError as error:
            raise self._unwritable(error) from error

    def has(self, query_id: str, candidate: str, graded_by: str) -> bool:
        """Tell whether a record is there already.

        Parameters
        ----------
        query_id, candidate
            Which.
        graded_by
            How it would be graded now; ``""``: that does not matter.

        Raises
        ------
        ConfigurationError
            If it was graded otherwise.
        """
        key = (query_id, candidate)
        if key not in self.records:
            return False
        known = self._graded_by[key]
        if graded_by and known and known != graded_by:
            raise ConfigurationError(
                f"{self.file.name} holds records that were graded in another way (by "
                "another judge, reference or scorer), and both would be averaged: "
                f"write to another file, with {self.file.name}.work as its state, so "
                f"that no answer is paid for again (-o other.jsonl --state "
                f"{self.file.name}.work)"
            )
        return True

    def append(self, record: RoutingRecord, *, query_id: str, graded_by: str) -> None:
        """Write a record; with the operating system when this returns.

        Parameters
        ----------
        record
            What is known.
        query_id
            Of the prompt.
        graded_by
            How it was graded.
        """
        told = {k: v for k, v in asdict(record).items() if v is not None}
        line = json.dumps({**told, "query_id": query_id, "graded_by": graded_by})
        try:
            self._opened.write(line.encode() + b"\n")
            self._opened.flush()
        except OSError as error:
            raise self._unwritable(error) from error
        self._note(record, query_id, graded_by)

    def all(self) -> list[RoutingRecord]:
        """Return every record."""
        return [record for some in self.records.values() for record in some]

    def close(self) -> None:
        """Let go of the file."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _unwritable(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(f"{self.file} cannot be written: {error.strerror}")

    def _read(self) -> None:
        end = 0
        for number, line in enumerate(self._opened, start=1):
            if not line.endswith(b"\n"):
                break
            end += len(line)
            if line.strip():
                self._take(number, line)
        self._opened.seek(end)
        self._opened.truncate()

    def _take(self, number: int, line: bytes) -> None:
        try:
            told: dict[str, Any] = json.loads(line)
            query_id, graded_by = str(told.pop("query_id")), told.pop("graded_by")
            tags = tuple(told.pop("tags", ()))
            record = RoutingRecord(**told, tags=tags)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self._opened.close()
            raise ConfigurationError(
                f"{self.file.name}, line {number} was not written by `collect`: name "
                "another file for the records"
            ) from error
        self._note(record, query_id, str(graded_by))

    def _note(self, record: RoutingRecord, query_id: str, graded_by: str) -> None:
        key = (query_id, record.candidate)
        self.records.setdefault(key, []).append(record)
        self._graded_by[key] = graded_by
