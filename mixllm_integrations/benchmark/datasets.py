"""Reads recorded answers from files: one line is one candidate's answer.

`.jsonl`, `.jsonl.gz`, `.csv` and `.parquet` with the fields of `RoutingRecord`
by name (``tags`` a list; in csv separated by ``;``). The column names
``model``, ``domain``, ``cost_usd`` and ``latency_s`` are taken as well, and
``query_id`` tells apart two questions with one text. `.pkl` is a file of
RouterBench.
"""

import csv
import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from mixllm_integrations.benchmark.routerbench import read_routerbench
from mixllm_integrations.benchmark.table import BenchmarkTable, estimate_prices
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import Candidate, RoutingRecord
from mixllm_integrations.serving.candidates_file import read_candidates_file

__all__ = [
    "LIST_PRICES",
    "POOLS",
    "BenchmarkTable",
    "RecordFile",
    "estimate_prices",
    "load_candidates",
    "load_records",
    "load_table",
    "pool_names",
]

_ALIASES = {
    "model": "candidate",
    "cost_usd": "cost",
    "latency_s": "latency_seconds",
    "domain": "tags",
}
_FIELDS = (
    *("query", "candidate", "quality", "input_tokens", "output_tokens", "cost"),
    *("latency_seconds", "tags", "query_id"),
)
_WHOLE = ("input_tokens", "output_tokens")
_NUMBERS = ("quality", *_WHOLE, "cost", "latency_seconds")
_LONGEST_FIELD = 2**31 - 1
_LONGEST_LINE = 1 << 25
_ROWS_AT_ONCE = 256  # a small file may hold rows of any size
_UNREADABLE = (OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError)

# USD per million tokens, as the costs of mmlu_pro were computed with.
LIST_PRICES: Mapping[str, Candidate] = {
    name: Candidate(name, price_in, price_out)
    for name, price_in, price_out in (
        ("gemini-3.1-pro", 2.0, 12.0),
        ("gpt-4o-2024-05-13", 5.0, 15.0),
        ("gemini-1.5-pro-002", 1.25, 5.0),
        ("gemini-1.5-flash-002", 0.075, 0.30),
        ("jamba-1.5-large", 2.0, 8.0),
        ("llama-3.1-70b-instruct", 0.88, 0.88),
        ("llama-3.1-8b-instruct", 0.18, 0.18),
        ("qwen1.5-72b-chat", 0.9, 0.9),
        ("deepseek-v2-chat", 0.14, 0.28),
        ("deepseek-coder-v2", 0.14, 0.28),
        ("command-r-v01", 0.5, 1.5),
        ("mixtral-8x7b-instruct", 0.6, 0.6),
        ("mistral-7b-instruct-v0.2", 0.2, 0.2),
        ("qwen1.5-7b-chat", 0.2, 0.2),
        ("mathstral-7b", 0.2, 0.2),
        ("yi-6b-chat", 0.2, 0.2),
        ("phi-3-mini-4k-instruct", 0.1, 0.1),
    )
}

# Named pools: who is left out.
POOLS: Mapping[str, frozenset[str]] = {
    "all": frozenset(),
    "market-2024": frozenset({"gemini-3.1-pro", "deepseek-coder-v2"}),
    "market-2026": frozenset({"deepseek-coder-v2"}),
}


@dataclass(frozen=True, slots=True)
class RecordFile:
    """The records of one file.

    Parameters
    ----------
    records
        In the order of the file.
    query_ids
        Which query each record belongs to, where the file says so.
    skipped
        How many bad rows were passed over.
    """

    records: tuple[RoutingRecord, ...]
    query_ids: tuple[str | None, ...]
    skipped: int


def load_records(path: str | Path, *, skip_bad_rows: bool = False) -> RecordFile:
    """Read the records of a file.

    Parameters
    ----------
    path
        A file in one of the formats that the module names.
    skip_bad_rows
        Go on after a bad row and count it, instead of raising.

    Raises
    ------
    ConfigurationError
        If the file or one of its rows cannot be read; the message names the
        line (the row of a parquet file) and never shows a query.
    """
    file = Path(path)
    records: list[RoutingRecord] = []
    query_ids: list[str | None] = []
    known: dict[str, str] = {}
    skipped = 0
    for where, row in _rows(file):
        try:
            record, query_id = _record(row, known)
        except ConfigurationError as error:
            if not skip_bad_rows:
                raise ConfigurationError(
                    f"{file.name}, {where}: {error}; to go on after bad rows pass "
                    "skip_bad_rows=True (--skip-bad-rows in a terminal)"
                ) from error
            skipped += 1
            continue
        records.append(record)
        query_ids.append(query_id)
    return RecordFile(tuple(records), tuple(query_ids), skipped)


def load_table(
    path: str | Path,
    *,
    pool: str | Sequence[str] = "all",
    candidates: Sequence[Candidate] | None = None,
    skip_bad_rows: bool = False,
) -> BenchmarkTable:
    """Read a file as a table of complete queries.

    Parameters
    ----------
    path
        A file in one of the formats that the module names.
    pool
        Name of a pool, names of candidates separated by commas, or a sequence
        of names.
    candidates
        With their prices. Without them `LIST_PRICES` are used where they
        reproduce the recorded costs, and otherwise `estimate_prices`.
    skip_bad_rows
        Go on after a bad row.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, the pool is unknown, or no query is
        complete.
    """
    file = load_records(path, skip_bad_rows=skip_bad_rows)
    priced = candidates
    if priced is None:
        priced = estimate_prices(file.records, known=LIST_PRICES)
    table = BenchmarkTable.from_records(
        file.records,
        name=Path(path).name.split(".", 1)[0],
        query_ids=file.query_ids,
        candidates=priced,
    )
    return table.only(pool_names(pool, table.names)).complete()


def load_candidates(path: str | Path) -> tuple[Candidate, ...]:
    """Read candidates and their prices from a `.toml` or `.json` file.

    Parameters
    ----------
    path
        As `mixllm_integrations.serving.candidates_file` describes it; the
        models need not be reachable.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, or an entry is no candidate, with a price.
    """
    return read_candidates_file(path).facts()


def pool_names(pool: str | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the candidates of a pool.

    Parameters
    ----------
    pool
        Name of a pool, names of candidates separated by commas, or a sequence
        of names.
    known
        Who there is.

    Raises
    ------
    ConfigurationError
        If it is neither a pool nor a list of known candidates.

    Examples
    --------
    >>> pool_names("market-2024", ["gpt-4o-2024-05-13", "gemini-3.1-pro"])
    ('gpt-4o-2024-05-13',)
    """
    if isinstance(pool, str) and pool in POOLS:
        return tuple(name for name in known if name not in POOLS[pool])
    asked = pool.split(",") if isinstance(pool, str) else pool
    names = tuple(name.strip() for name in asked)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ConfigurationError(
            f"{unknown} are neither pools {sorted(POOLS)} nor candidates of the data "
            f"{sorted(known)}"
        )
    return names


def _rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    readers: dict[str, Callable[[Path], Iterator[tuple[str, Any]]]] = {
        ".jsonl": _json_rows,
        ".jsonl.gz": _json_rows,
        ".csv": _csv_rows,
        ".parquet": _parquet_rows,
        ".pkl": read_routerbench,
    }
    reader = next((r for e, r in readers.items() if file.name.endswith(e)), None)
    if reader is None:
        raise ConfigurationError(
            f"cannot tell the format of {file.name!r}; use one of {sorted(readers)}"
        )
    try:
        yield from reader(file)
    except _UNREADABLE as error:
        raise ConfigurationError(
            f"{file} cannot be read: {type(error).__name__}"
            f"{f' ({error.strerror})' if isinstance(error, OSError) else ''}"
        ) from error


def _json_rows(file: Path) -> Iterator[tuple[str, Any]]:
    opened = gzip.open if file.name.endswith(".gz") else open
    with opened(file, "rt", encoding="utf-8-sig") as lines:
        for number in count(1):
            line = lines.readline(_LONGEST_LINE + 1)
            if not line:
                return
            if len(line) > _LONGEST_LINE:  # the rest may unpack to any size
                raise ConfigurationError(
                    f"{file.name}, line {number}: longer than {_LONGEST_LINE} "
                    "characters, which no record is"
                )
            if not line.strip():
                continue
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError):
                yield f"line {number}", None


def _csv_rows(file: Path) -> Iterator[tuple[str, Any]]:
    limit = csv.field_size_limit(_LONGEST_FIELD)
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            for row in reader:
                complete = None not in row and None not in row.values()
                yield f"line {reader.line_num}", row if complete else None
    finally:
        csv.field_size_limit(limit)


def _parquet_rows(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ConfigurationError(
            "reading .parquet needs pyarrow: pip install 'mixllm-integrations[data]'"
        ) from error
    number = 0
    try:
        with parquet.ParquetFile(file) as opened:
            names = [n for n in opened.schema_arrow.names if _field_of(n)]
            for batch in opened.iter_batches(_ROWS_AT_ONCE, columns=names):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (ArrowException, ArithmeticError, LookupError, ValueError) as error:
        raise ConfigurationError(
            f"{file} is not a parquet file, or is damaged after row {number}"
        ) from error


def _field_of(column: str) -> str | None:
    return column if column in _FIELDS else _ALIASES.get(column)


def _record(
    row: Mapping[str, Any] | None, known: dict[str, str]
) -> tuple[RoutingRecord, str | None]:
    if not isinstance(row, Mapping):
        raise ConfigurationError("not a complete row of named fields")
    values: dict[str, Any] = {}
    for column, value in row.items():
        field = _field_of(column)
        if field is not None and not _is_missing(value, field):
            if column in _ALIASES and field in row:
                continue
            values[field] = value
    lacking = [f for f in ("query", "candidate", "quality") if f not in values]
    if lacking == ["query"] and row.get("query") == "":
        values["query"], lacking = "", []
    if lacking:
        raise ConfigurationError(f"{', '.join(lacking)} not given")
    for field in _NUMBERS:
        if field in values:
            values[field] = _number(values[field], field)
    values["tags"] = _tags(values.get("tags", ()))
    query_id = values.pop("query_id", None)
    if isinstance(values["query"], str):  # one text is held once
        values["query"] = known.setdefault(values["query"], values["query"])
    return RoutingRecord(**values), None if query_id is None else str(query_id)


def _is_missing(value: object, field: str) -> bool:
    if value is None or value == "":
        return True
    is_nan = isinstance(value, float) and math.isnan(value)
    return is_nan and field != "quality"  # there it is an error of its own


def _number(value: object, field: str) -> float | int:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigurationError(f"{field} is not a number")
    try:
        number = float(value)
        return round(number) if field in _WHOLE else number
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"{field} is not a number") from error


def _tags(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(";")
    if not isinstance(value, list | tuple):
        raise ConfigurationError("tags are not a list of strings")
    tags = tuple(tag.strip() for tag in value if isinstance(tag, str))
    if len(tags) < len(value):
        raise ConfigurationError("tags are not a list of strings")
    return tuple(tag for tag in tags if tag)
