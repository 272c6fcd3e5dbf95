"""`mixllm inspect`: a log and what it says of other policies; or a router's mind."""

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixllm_integrations.cli.options import (
    SkipOption,
    at_work,
    command_app,
    opened_store,
    print_json,
)
from mixllm_integrations.core.errors import ConfigurationError

if TYPE_CHECKING:
    from mixllm_integrations.report.overview import Overview
    from mixllm_integrations.report.what_if import WhatIf

__all__ = ["TO_SCREEN", "app", "inspect", "moment", "write_or_print"]

TO_SCREEN = Path("-")

app = command_app("inspect")

_EXAMPLES = """
[bold]Examples[/bold]

  mixllm inspect sqlite:///mixllm.db --since 7d

  mixllm inspect mixllm.db --what-if 0.005 --always gpt-5

  mixllm inspect "What is 17 * 23?" -r router

  mixllm inspect --candidate small -r router

  mixllm inspect records.jsonl --candidate small -r router

With --router the first argument is a prompt ("-": read it from standard
input), or records if --candidate is given, too; else it is an event log.

Exit codes: 0 shown, 2 something cannot be used.
"""

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@app.command(epilog=_EXAMPLES)
def inspect(
    store: Annotated[
        str | None,
        typer.Argument(
            metavar="[STORE_URL | PROMPT | RECORDS]",
            help="The event log: sqlite:///mixllm.db, the path of that file, or "
            "postgresql+psycopg://user@host/database. With --router: a prompt.",
            show_default=False,
        ),
    ] = None,
    *,
    router: Annotated[
        Path | None,
        typer.Option(
            "--router",
            "-r",
            metavar="FOLDER",
            help="Explain what this router would do with the prompt.",
        ),
    ] = None,
    candidate: Annotated[
        str | None,
        typer.Option(
            "--candidate",
            metavar="NAME",
            help="With --router: show where this candidate is strong, by domain and by "
            "form; on the queries of RECORDS if given.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="WHEN",
            help="Only decisions from then on: 7d, 12h, 30m, or a date such as "
            "2026-07-01T08:00 (UTC if it names no zone).",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="WHEN", help="Only decisions before then."),
    ] = None,
    willingness: Annotated[
        list[float] | None,
        typer.Option(
            "--what-if",
            metavar="USD",
            help="What this willingness to pay would have cost and earned; may be "
            "given several times.",
        ),
    ] = None,
    always: Annotated[
        list[str] | None,
        typer.Option(
            "--always",
            metavar="NAME",
            help="What always asking this candidate would have; may be given several "
            "times.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write all figures to this file; -: print them instead.",
        ),
    ] = None,
    skip_bad_rows: SkipOption = False,
) -> None:
    """Show what happened and what might have; explain a decision or a candidate."""
    if router is not None or candidate is not None:
        of_a_log = {
            "--since": since,
            "--until": until,
            "--what-if": willingness,
            "--always": always,
        }
        for name, given in of_a_log.items():
            if given:
                raise ConfigurationError(f"{name} is of a log: leave --router out")
        from mixllm_integrations.cli.inspect_router import inspect_router

        inspect_router(store, router, candidate, json_file, skip_bad_rows=skip_bad_rows)
        return
    if store is None:
        raise ConfigurationError(
            "pass an event log such as sqlite:///mixllm.db, or a prompt and --router"
        )
    now = datetime.now(UTC)
    start, end = (
        None if text is None else moment(text, now=now, what=what)
        for what, text in (("--since", since), ("--until", until))
    )
    from mixllm_integrations.cli.inspect_screen import show_overview, show_what_if
    from mixllm_integrations.cli.screen import console_of
    from mixllm_integrations.report.overview import overview
    from mixllm_integrations.report.traffic import read_traffic
    from mixllm_integrations.report.what_if import Target, what_if

    targets = [Target(willingness_to_pay=value) for value in willingness or ()]
    targets += [Target(always=name) for name in always or ()]
    with opened_store(store) as log, at_work("reading the log"):
        traffic = read_traffic(log, since=start, until=end)
    if not len(traffic):
        when = " in this window" if since or until else ""
        raise ConfigurationError(f"there is no decision in the log{when}")
    seen = overview(traffic)
    results = what_if(traffic, targets) if targets else []
    if json_file != TO_SCREEN:
        if results:
            show_what_if(console_of(), seen, results)
        else:
            show_overview(console_of(), seen)
    if json_file is not None:
        _write(json_file, seen, results)


def moment(text: str, *, now: datetime, what: str) -> datetime:
    """Return the time that somebody means.

    Parameters
    ----------
    text
        An age such as ``"7d"`` (units s, m, h, d, w), or a date with or without
        a time, in UTC unless it names a zone.
    now
        What ages count from.
    what
        How to name it in the error.

    Raises
    ------
    ConfigurationError
        If it is neither.

    Examples
    --------
    >>> moment("7d", now=datetime(2026, 7, 8, tzinfo=UTC), what="--since").isoformat()
    '2026-07-01T00:00:00+00:00'
    """
    try:
        if age := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip()):
            return now - timedelta(seconds=float(age[1]) * _SECONDS[age[2]])
        at = datetime.fromisoformat(text.strip())
    except (OverflowError, ValueError):
        raise ConfigurationError(
            f"{what} must be an age such as 7d, 12h or 30m, or a date such as "
            f"2026-07-01T08:00, not {text!r}"
        ) from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def _write(file: Path, seen: "Overview", results: "list[WhatIf]") -> None:
    found: dict[str, Any] = {"overview": asdict(seen)}
    if results:
        found["what_if"] = [_as_json(result) for result in results]
    write_or_print(found, file)


def write_or_print(found: dict[str, Any], file: Path) -> None:
    """Write figures to a file, or print them.

    Parameters
    ----------
    found
        The figures.
    file
        ``-``: they are printed.
    """
    if file == TO_SCREEN:
        print_json(found)
        return
    from mixllm_integrations.report.full import plain

    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(plain(found), indent=1) + "\n", encoding="utf-8")
    typer.echo(f"wrote {file}", err=True)


def _as_json(result: "WhatIf") -> dict[str, Any]:
    return {
        "target": str(result.target),
        "willingness_to_pay": result.willingness_to_pay,
        "shares": dict(result.shares),
        "unavailable": result.unavailable,
        "left_out": dict(result.left_out),
        **asdict(result.evaluation),
    }
