"""`mixllm inspect --router`: why a prompt goes where, and who is strong where."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from mixllm_integrations.cli.inspect import TO_SCREEN, write_or_print
from mixllm_integrations.cli.options import at_work, load_router, read_records
from mixllm_integrations.cli.screen import console_of
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.explain import COLUMNS, explained_head, explained_rows

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router
    from mixllm_integrations.core.strengths import Strength, Strengths
    from mixllm_integrations.core.types import Decision

__all__ = ["inspect_router"]

_DOMAINS = 3


def inspect_router(
    argument: str | None,
    folder: Path | None,
    candidate: str | None,
    json_file: Path | None,
    *,
    skip_bad_rows: bool,
) -> None:
    """Show why a prompt goes where, or where a candidate is strong.

    Parameters
    ----------
    argument
        A prompt, or records if a candidate is asked for.
    folder
        Of the router.
    candidate
        Whose strengths; ``None``: explain a decision.
    json_file
        Where to write the figures; ``-``: print them instead.
    skip_bad_rows
        Leave rows out that cannot be read.

    Raises
    ------
    ConfigurationError
        If something that is needed is not given.
    """
    if folder is None:
        raise ConfigurationError("--candidate needs a router: pass --router FOLDER")
    router = load_router(folder)
    if candidate is None:
        found, show = _explained(router, argument)
    else:
        found, show = _strengths(
            router, candidate, argument, skip_bad_rows=skip_bad_rows
        )
    if json_file != TO_SCREEN:
        show(console_of())
    if json_file is not None:
        write_or_print(found, json_file)


def _explained(router: "Router", prompt: str | None) -> tuple[dict[str, Any], Any]:
    if prompt is None:
        raise ConfigurationError('pass the prompt to explain, or "-" to read it')
    text = sys.stdin.read() if prompt == "-" else prompt
    decision = router.route(text, charge_load=False, remember=False)
    about = router.about(text)
    found: dict[str, Any] = {
        "decision": {
            **_flat(decision),
            "scores": {n: asdict(s) for n, s in decision.scores.items()},
            "excluded": dict(decision.excluded),
        },
        "domains": about,
    }
    return found, lambda console: _show_decision(console, decision, about)


def _flat(decision: "Decision") -> dict[str, Any]:
    names = (
        *("candidate", "willingness_to_pay", "explored", "propensity"),
        *("input_tokens", "exploration", "waiting_weight", "novelty"),
    )
    return {name: getattr(decision, name) for name in names}


def _show_decision(
    console: Console, decision: "Decision", about: dict[str, float]
) -> None:
    head = explained_head(decision).split(": ", 1)[1]
    console.print(f"goes to {head}", markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    first, *numbers, _ = COLUMNS
    table.add_column(first, overflow="fold", min_width=10)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    reasons = Table.grid(padding=(0, 2))  # beside the figures they would be cut
    reasons.add_column(overflow="fold")
    for row in explained_rows(decision):
        style = "bold green" if row[0] == decision.candidate else None
        table.add_row(*row[:-1], style=style)
        reasons.add_row(row[0], row[-1], style=style)
    console.print(table)
    console.print(reasons)
    if about:
        likely = [f"{name} ({p:.0%})" for name, p in list(about.items())[:_DOMAINS]]
        console.print(f"it seems to be about: {', '.join(likely)}", markup=False)


def _strengths(
    router: "Router", name: str, records: str | None, *, skip_bad_rows: bool
) -> tuple[dict[str, Any], Any]:
    queries = None
    if records is not None:
        read, _, _ = read_records(Path(records), skip_bad_rows=skip_bad_rows)
        queries = list(dict.fromkeys(record.query for record in read))
    with at_work("asking the router"):
        found = router.strengths(name, queries)
    told: dict[str, Any] = asdict(found)
    return told, lambda console: _show_strengths(console, found)


def _show_strengths(console: Console, found: "Strengths") -> None:
    overall = found.overall
    console.print(
        f"{found.candidate}: quality {overall.quality:.3f} expected on "
        f"{overall.queries:,} queries, rank {overall.rank}",
        markup=False,
    )
    for title, rows in (("by domain", found.domains), ("by form", found.forms)):
        if rows:
            console.print(_table(title, rows))


def _table(title: str, rows: "Sequence[Strength]") -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(title, overflow="fold", min_width=16)
    for head in ("queries", "quality", "ahead by"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("of the best other one", overflow="fold")
    table.add_column("rank", justify="right", no_wrap=True)
    for row in rows:
        rival = "-"
        if row.rival is not None:
            rival = f"{row.rival} ({row.rival_quality:.3f})"
        table.add_row(
            row.name,
            f"{row.queries:,}",
            f"{row.quality:.3f}",
            f"{row.ahead:+.3f}",
            rival,
            str(row.rank),
            style="green" if row.ahead > 0 else None,
        )
    return table
