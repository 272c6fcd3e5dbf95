"""Reads prompts, and answers that were graded before, from files and logs.

``.jsonl``, ``.jsonl.gz`` and ``.csv``. Of a line are taken:

- the prompt: ``messages``, ``prompt``, ``query`` or ``input``, also within
  ``body`` or ``request`` (OpenAI's chat completions and batches) or ``inputs``
  (runs and examples of LangSmith). A last message of the assistant is the answer;
- ``reference``, ``scorer`` and ``tags``, as `PromptItem` has them;
- the answer's model, tokens, cost, seconds and grade, where they are there:
  ``response`` or ``outputs`` with ``usage``, ``score`` (or ``quality``,
  ``reward``, ``feedback``; a number in [0, 1], true or false, up or down), or
  LangSmith's ``feedback_stats``. With a model and a grade it is a record.
"""

import csv
import gzip
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import RoutingRecord
from mixllm_integrations.training.labelling.prompts import PromptItem, item_of

__all__ = ["LoggedCall", "PromptLog", "read_prompts"]

_GRADES = ("score", "quality", "reward", "feedback")
_WORDS = {
    "up": 1.0,
    "down": 0.0,
    "true": 1.0,
    "false": 0.0,
    "good": 1.0,
    "bad": 0.0,
}
_LONGEST_FIELD = 2**31 - 1


@dataclass(frozen=True, slots=True)
class LoggedCall:
    """One answer in a log.

    Parameters
    ----------
    item
        What was asked.
    model
        Who answered.
    quality
        How good the answer was, in [0, 1]; ``None``: nobody says.
    input_tokens, output_tokens, cost, latency_seconds
        What it took, where the log says so.
    """

    item: PromptItem
    model: str
    quality: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    latency_seconds: float | None = None

    def record(self, candidate: str | None = None) -> RoutingRecord | None:
        """Return it as a record; ``None`` without a grade.

        Parameters
        ----------
        candidate
            Who that is in the pool; ``None``: called as its model is.
        """
        if self.quality is None:
            return None
        return RoutingRecord(
            self.item.query,
            candidate or self.model,
            self.quality,
            self.input_tokens,
            self.output_tokens,
            self.cost,
            self.latency_seconds,
            self.item.tags,
        )


@dataclass(frozen=True, slots=True)
class PromptLog:
    """What a file holds.

    Parameters
    ----------
    items
        The prompts, each once, in the order of the file.
    calls
        The answers whose model is known.
    skipped
        How many bad rows were passed over.
    """

    items: tuple[PromptItem, ...]
    calls: tuple[LoggedCall, ...]
    skipped: int = 0

    @property
    def records(self) -> tuple[RoutingRecord, ...]:
        """The answers that were graded."""
        found = (call.record() for call in self.calls)
        return tuple(record for record in found if record is not None)


def read_prompts(path: str | Path, *, skip_bad_rows: bool = False) -> PromptLog:
    """Read the prompts of a file or log, and what it knows of answers to them.

    Parameters
    ----------
    path
        The file, in a form that the module names.
    skip_bad_rows
        Go on after a row that holds no prompt of text, and count it.

    Raises
    ------
    ConfigurationError
        If the file or one of its rows cannot be read; names the line, and
        never shows a prompt.
    """
    file = Path(path)
    items: dict[str, PromptItem] = {}
    calls: list[LoggedCall] = []
    skipped = 0
    for line, row in _rows(file):
        try:
            item, call = _entry(row)
        except ConfigurationError as error:
            if not skip_bad_rows:
                raise ConfigurationError(
                    f"{file.name}, line {line}: {error}; to go on after bad rows "
                    "pass skip_bad_rows=True (--skip-bad-rows in a terminal)"
                ) from error
            skipped += 1
            continue
        items.setdefault(item.digest, item)
        if call is not None:
            calls.append(call)
    if not items:
        raise ConfigurationError(f"{file.name} holds no prompt")
    return PromptLog(tuple(items.values()), tuple(calls), skipped)


def _rows(file: Path) -> Iterator[tuple[int, Any]]:
    limit = csv.field_size_limit(_LONGEST_FIELD)
    try:
        if file.name.endswith(".csv"):
            with file.open(encoding="utf-8-sig", newline="") as lines:
                reader = csv.DictReader(lines)
                for row in reader:
                    yield reader.line_num, {k: v for k, v in row.items() if k}
        elif file.name.endswith((".jsonl", ".jsonl.gz")):
            opened = gzip.open if file.name.endswith(".gz") else open
            with opened(file, "rt", encoding="utf-8-sig") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield number, _json(line)
        else:
            raise ConfigurationError(
                f"cannot tell the format of {file.name!r}; use .jsonl, .jsonl.gz or "
                ".csv"
            )
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(
            f"{file} cannot be read: {type(error).__name__}"
            f"{f' ({error.strerror})' if isinstance(error, OSError) else ''}"
        ) from error
    finally:
        csv.field_size_limit(limit)


def _json(line: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _entry(row: Any) -> tuple[PromptItem, LoggedCall | None]:  # noqa: ANN401
    if not isinstance(row, Mapping):
        raise ConfigurationError("not an object with named fields")
    if isinstance(row.get("inputs"), Mapping):
        asked, told = {**row, **_langsmith_inputs(row["inputs"])}, _langsmith(row)
    else:
        body = next((b for n in ("body", "request") if (b := _map(row.get(n)))), {})
        asked, told = {**body, **row}, _openai({**body, **row})
    item = item_of(asked)
    model = told.pop("model", None)
    if not isinstance(model, str) or not model.strip():
        return item, None
    return item, LoggedCall(item, model.strip(), **told)


def _openai(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row says of an answer, as OpenAI or a table would."""
    response = _map(row.get("response"))
    response = _map(response.get("body")) or response
    usage = _map(response.get("usage")) or _map(row.get("usage"))
    quality = next((_grade(row[n]) for n in _GRADES if _is_there(row.get(n))), None)
    return {
        "model": row.get("candidate") or row.get("model") or response.get("model"),
        "quality": quality,
        "input_tokens": _count(usage.get("prompt_tokens"), row.get("input_tokens")),
        "output_tokens": _count(
            usage.get("completion_tokens"), row.get("output_tokens")
        ),
        "cost": _number(row.get("cost"), row.get("cost_usd")),
        "latency_seconds": _number(row.get("latency_seconds"), row.get("latency_s")),
    }


def _langsmith_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    names = ("messages", "prompt", "query", "input", "question")
    asked = next((inputs[n] for n in names if inputs.get(n)), None)
    return {"messages": None, "prompt": asked, "query": None, "input": None}


def _langsmith(row: Mapping[str, Any]) -> dict[str, Any]:
    extra = _map(row.get("extra"))
    known, given = _map(extra.get("metadata")), _map(extra.get("invocation_params"))
    usage = _map(_map(row.get("outputs")).get("usage_metadata"))
    return {
        "model": known.get("ls_model_name")
        or given.get("model")
        or given.get("model_name"),
        "quality": _feedback(_map(row.get("feedback_stats"))),
        "input_tokens": _count(row.get("prompt_tokens"), usage.get("input_tokens")),
        "output_tokens": _count(
            row.get("completion_tokens"), usage.get("output_tokens")
        ),
        "cost": _number(row.get("total_cost"), usage.get("total_cost")),
        "latency_seconds": _seconds(row.get("start_time"), row.get("end_time")),
    }


def _feedback(stats: Mapping[str, Any]) -> float | None:
    """Return the mean of all feedback in [0, 1], each weighing as often as given."""
    total = weight = 0.0
    for told in stats.values():
        mean = _number(_map(told).get("avg"))
        count = _number(_map(told).get("n"))
        if mean is not None and count and mean <= 1.0:
            total, weight = total + mean * count, weight + count
    return total / weight if weight else None


def _seconds(start: object, end: object) -> float | None:
    if not isinstance(start, str) or not isinstance(end, str):
        return None
    with suppress(ValueError, TypeError):
        took = datetime.fromisoformat(end) - datetime.fromisoformat(start)
        return max(took.total_seconds(), 0.0)
    return None


def _grade(value: object) -> float:
    if isinstance(value, Mapping):
        value = value.get("score")
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    number = float(value) if isinstance(value, bool) else _number(value)
    if number is None or number > 1.0:
        raise ConfigurationError("a grade must be a number in [0, 1], or up or down")
    return number


def _is_there(value: object) -> bool:
    return value is not None and value != ""


def _number(*values: object) -> float | None:
    """Return the first of some values that is a number of at least 0."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            continue
        with suppress(ValueError, OverflowError):
            number = float(value)
            if 0.0 <= number < float("inf"):
                return number
    return None


def _count(*values: object) -> int | None:
    number = _number(*values)
    return None if number is None else round(number)


def _map(value: object) -> Mapping[str, Any]:
    """Return an object, also one that a table holds as JSON; else an empty one."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = _json(value)
    return value if isinstance(value, Mapping) else {}
