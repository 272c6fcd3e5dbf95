"""`mixllm inspect`: what an event log says, and what it says of other policies."""

import json
import math
import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixllm_integrations.core.errors import ConfigurationError

if TYPE_CHECKING:
    from mixllm_integrations.report.overview import Overview
    from mixllm_integrations.report.what_if import WhatIf
    from mixllm_integrations.store import EventStore

__all__ = ["app", "inspect", "moment"]

app = typer.Typer(
    name="inspect",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@app.command()
def inspect(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE_URL",
            help="The event log: sqlite:///mixllm.db, the path of that file, or "
            "postgresql+psycopg://user@host/database.",
        ),
    ],
    *,
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
        Path | None, typer.Option("--json", help="Write all figures to this file.")
    ] = None,
) -> None:
    """Show what happened, and what other settings would have cost and earned."""
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
    with _opened(store) as log:
        traffic = read_traffic(log, since=start, until=end)
    if not len(traffic):
        when = " in this window" if since or until else ""
        raise ConfigurationError(f"there is no decision in the log{when}")
    seen = overview(traffic)
    results = what_if(traffic, targets) if targets else []
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


def _opened(url: str) -> "EventStore":
    """Open a log that is there; what is not there must not be made."""
    from mixllm_integrations.store import open_store

    if "://" not in url:
        url = f"sqlite:///{url}"
    scheme, _, path = url.partition(":///")
    if scheme.startswith("sqlite") and "?" not in path and not Path(path).is_file():
        raise ConfigurationError(f"there is no log at {path!r}: no such file")
    opened = open_store(url)
    assert opened is not None  # noqa: S101 - only `None` gives `None`
    return opened


def _write(file: Path, seen: "Overview", results: "list[WhatIf]") -> None:
    found: dict[str, Any] = {"overview": asdict(seen)}
    if results:
        found["what_if"] = [_as_json(result) for result in results]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(_plain(found), indent=1) + "\n", encoding="utf-8")
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


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Return what JSON can hold: no NaN, no infinity, times as text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value
