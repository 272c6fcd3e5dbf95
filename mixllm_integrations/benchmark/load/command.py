"""`mixllm benchmark load` as a function: `commands` registers it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mixllm_integrations.benchmark.options import (
    JsonOption,
    command_line,
    say,
    write_json,
)

__all__ = ["load"]

_WIDTH = 150


def load(
    *,
    postgres: Annotated[
        str | None,
        typer.Option(
            "--postgres",
            envvar="MIXLLM_TEST_POSTGRES",
            show_default=False,
            help="A PostgreSQL server, in which a schema is made and dropped; without "
            "it, what needs one is skipped.",
        ),
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(
            "--redis",
            envvar="MIXLLM_TEST_REDIS",
            show_default=False,
            help="A Redis server, in which a namespace is used and emptied; without "
            "it, what needs one is skipped.",
        ),
    ] = None,
    short: Annotated[
        bool, typer.Option("--short", help="Few calls, to see that all works.")
    ] = False,
    parts: Annotated[
        str | None,
        typer.Option(
            "--parts",
            help="Some of rates, siblings, recovery, killing, soak and chaos, with "
            "commas.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Of faults, kills and a log.")
    ] = 0,
    json_file: JsonOption = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the rates: .png, .svg, or both.")
    ] = None,
) -> None:
    """Measure workers under load: calls a second, memory, faults, each other."""
    from mixllm_integrations.benchmark.load import run
    from mixllm_integrations.benchmark.load.places import Databases
    from mixllm_integrations.benchmark.load.tables import plot_result, print_load

    given = run.PARTS if parts is None else parts.split(",")
    command = command_line()
    for url in filter(None, (postgres, redis)):  # it may hold a password
        command = command.replace(url, "URL")
    found = run.run_load(
        Databases(postgres, redis),
        plan=run.SHORT if short else run.LONG,
        parts=[part.strip() for part in given if part.strip()],
        seed=seed,
        command=command,
        on_step=say,
    )
    console = Console()
    print_load(found, console if console.is_terminal else Console(width=_WIDTH))
    if json_file is not None:
        write_json(json_file, found.to_json())
    if plot is not None:
        for file in plot_result(found, plot):
            typer.echo(f"wrote {file}", err=True)
