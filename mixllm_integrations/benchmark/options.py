"""What the commands of `mixllm benchmark` have in common."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mixllm_integrations.plots.console import PlainConsole, printable

__all__ = [
    "CandidatesOption",
    "DataOption",
    "JsonOption",
    "PoolOption",
    "command_line",
    "on_screen",
    "say",
    "write_json",
]

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Recorded answers: .jsonl, .jsonl.gz, .csv, .parquet, or RouterBench's "
        ".pkl.",
    ),
]
PoolOption = Annotated[
    str,
    typer.Option(
        "--pool", help="'all', 'market-2024', or names of candidates, with commas."
    ),
]
CandidatesOption = Annotated[
    Path | None,
    typer.Option(
        "--candidates",
        help="Candidates with their prices (.toml, .json); otherwise the prices are "
        "estimated from the recorded costs.",
    ),
]
JsonOption = Annotated[
    Path | None, typer.Option("--json", help="Write all figures to this file.")
]


def on_screen() -> Progress:
    """Return what shows the present step while a command works."""
    console = PlainConsole(stderr=True)
    return Progress(
        SpinnerColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def say(step: str) -> None:
    """Say what is done next, with no thread beside it that would disturb.

    Parameters
    ----------
    step
        In words.
    """
    typer.echo(f"{printable(step)} …", err=True)


def command_line() -> str:
    """Return the command that this process was started with."""
    return shlex.join(["mixllm", *sys.argv[1:]])


def write_json(file: Path, value: dict[str, Any]) -> None:
    """Write figures to a file, and say so.

    Parameters
    ----------
    file
        Where to; its folder is made.
    value
        Plain lists, numbers and strings.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"wrote {file}", err=True)
