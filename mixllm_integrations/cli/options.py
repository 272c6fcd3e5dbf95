"""What the commands have in common: options, bars, one JSON object at the end."""

import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.plots.console import PlainConsole, printable

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router
    from mixllm_integrations.core.types import Candidate, RoutingRecord
    from mixllm_integrations.store import EventStore

__all__ = [
    "NOT_REACHED",
    "CandidatesOption",
    "JsonFlag",
    "RecordsArgument",
    "RouterOption",
    "SkipOption",
    "at_work",
    "check_output",
    "command_app",
    "is_store",
    "load_router",
    "next_step",
    "opened_store",
    "print_json",
    "read_candidates",
    "read_records",
    "tell",
    "usd",
]

NOT_REACHED = 1  # the exit code of a command that worked, but missed what was asked

RecordsArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RECORDS",
        help="Labelled answers: .jsonl, .jsonl.gz, .csv or .parquet.",
    ),
]
RouterOption = Annotated[
    Path, typer.Option("--router", "-r", metavar="FOLDER", help="A saved router.")
]
CandidatesOption = Annotated[
    Path | None,
    typer.Option(
        "--candidates",
        "-c",
        metavar="FILE",
        help="The models with their prices (.toml, .json).",
    ),
]
JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON object instead of a table.")
]
SkipOption = Annotated[
    bool,
    typer.Option("--skip-bad-rows", help="Leave rows out that cannot be read."),
]


def command_app(name: str) -> typer.Typer:
    """Return the app of one command.

    Parameters
    ----------
    name
        Of the command.
    """
    return typer.Typer(
        name=name,
        add_completion=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


@contextmanager
def at_work(what: str) -> Iterator[Progress]:
    """Show that something is going on, on a terminal; else nothing.

    What the library says meanwhile at level INFO stands beside the bar.

    Parameters
    ----------
    what
        What is done, in words.
    """
    console, log = PlainConsole(stderr=True), logging.getLogger("mixllm_integrations")
    is_shown = console.is_terminal and not log.handlers  # -v says it in lines
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not is_shown,
    )
    task = progress.add_task(what, total=None)
    if not is_shown:
        yield progress
        return
    said, level = _Beside(progress, task, what), log.level
    log.addHandler(said)
    log.setLevel(logging.INFO)
    try:
        with progress:
            yield progress
    finally:
        log.removeHandler(said)
        log.setLevel(level)


class _Beside(logging.Handler):
    """Shows what the library says beside the bar."""

    def __init__(self, progress: Progress, task: TaskID, what: str) -> None:
        super().__init__(logging.INFO)
        self._progress, self._task, self._what = progress, task, what

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.INFO:
            told = f"{self._what}: {record.getMessage()}"
            self._progress.update(self._task, description=told)


def check_output(folder: Path) -> None:
    """Refuse a folder that a router cannot be saved to, before any work is done.

    Parameters
    ----------
    folder
        Where it is to be.

    Raises
    ------
    ConfigurationError
        If something else is there.
    """
    is_router = (folder / "manifest.json").is_file()
    if folder.is_file() or (
        folder.is_dir() and any(folder.iterdir()) and not is_router
    ):
        raise ConfigurationError(
            f"'{folder}' is there and is no router: pass another folder by -o"
        )


def print_json(value: Any) -> None:  # noqa: ANN401
    """Print one JSON object: no NaN, no infinity, times as text.

    Parameters
    ----------
    value
        Made of dictionaries, lists, numbers and times.
    """
    from mixllm_integrations.report.full import plain

    typer.echo(json.dumps(plain(value), indent=1))


def tell(text: str) -> None:
    """Say something beside the result, on standard error.

    Parameters
    ----------
    text
        What; names in it may come from files.
    """
    typer.echo(printable(text), err=True)


def next_step(text: str) -> None:
    """Say what may be done next, to somebody who watches; else nothing.

    Parameters
    ----------
    text
        A command, mostly.
    """
    console = PlainConsole(stderr=True, highlight=False, soft_wrap=True)
    if console.is_terminal:
        console.print(f"next: {text}", style="dim")


def usd(value: float) -> str:
    """Return an amount of money, small ones to two digits that tell something.

    Parameters
    ----------
    value
        USD.

    Examples
    --------
    >>> usd(1234.5), usd(0.39), usd(0.0000012), usd(0.0)
    ('1,234.50', '0.3900', '0.0000012', '0')
    """
    if value == 0.0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.2f}"
    digits = 4 if abs(value) >= 0.001 else 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{digits}f}"


def is_store(text: str) -> bool:
    """Tell whether somebody means an event log rather than a file of records.

    Parameters
    ----------
    text
        A URL or a path.

    Examples
    --------
    >>> is_store("sqlite:///mixllm.db"), is_store("records.jsonl"), is_store("a.db")
    (True, False, True)
    """
    return "://" in text or Path(text).suffix in (".db", ".sqlite", ".sqlite3")


def opened_store(url: str) -> "EventStore":
    """Open a log that is there; what is not there must not be made.

    Parameters
    ----------
    url
        Of a database, or the path of a SQLite file.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    from mixllm_integrations.store import open_store

    if "://" not in url:
        if not Path(url).is_file():
            if is_store(url):
                raise ConfigurationError(
                    f"there is no log at {url!r}: no such file; pass the URL or the "
                    "path of a log"
                )
            # It may be a prompt, which no error shows.
            raise ConfigurationError(
                "there is no log at that path: no such file; pass the URL or the path "
                "of a log, or explain a prompt by mixllm inspect PROMPT --router FOLDER"
            )
        url = f"sqlite:///{url}"
    scheme, _, path = url.partition(":///")
    if scheme.startswith("sqlite") and "?" not in path and not Path(path).is_file():
        raise ConfigurationError(f"there is no log at {path!r}: no such file")
    opened = open_store(url)
    assert opened is not None  # noqa: S101 - only `None` gives `None`
    return opened


def load_router(folder: Path) -> "Router":
    """Load a router that was saved.

    Parameters
    ----------
    folder
        Where it is.

    Raises
    ------
    ConfigurationError
        If there is no such folder.
    """
    from mixllm_integrations.core.router import Router

    if not folder.is_dir():
        raise ConfigurationError(
            f"there is no router at '{folder}': make one with "
            f"mixllm fit RECORDS -o {folder}"
        )
    return Router.load(folder)


def read_candidates(file: Path) -> "tuple[Candidate, ...]":
    """Read candidates with their prices.

    Parameters
    ----------
    file
        In toml or json.
    """
    from mixllm_integrations.benchmark.datasets import load_candidates

    return load_candidates(file)


def read_records(
    file: Path, *, skip_bad_rows: bool
) -> "tuple[tuple[RoutingRecord, ...], tuple[str | None, ...], int]":
    """Read labelled answers.

    Parameters
    ----------
    file
        In one of the formats that `load_records` names.
    skip_bad_rows
        Leave rows out that cannot be read, and say how many on standard error.

    Returns
    -------
    tuple
        Records, the query that each belongs to, and how many rows were left out.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, or holds no record.
    """
    from mixllm_integrations.benchmark.datasets import load_records

    if not file.is_file():
        raise ConfigurationError(f"there are no records at '{file}': no such file")
    with at_work(f"reading {file.name}"):
        found = load_records(file, skip_bad_rows=skip_bad_rows)
    if found.skipped:
        tell(f"{found.skipped:,} bad rows were left out")
    if not found.records:
        raise ConfigurationError(f"'{file}' holds no record")
    return found.records, found.query_ids, found.skipped
