"""`mixllm evaluate`: what a router is worth on labelled answers."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mixllm_integrations.cli.options import (
    NOT_REACHED,
    JsonFlag,
    RecordsArgument,
    RouterOption,
    SkipOption,
    at_work,
    command_app,
    load_router,
    print_json,
    read_records,
    tell,
)

if TYPE_CHECKING:
    from mixllm_integrations.benchmark.judged import Judged

__all__ = ["app", "evaluate"]

app = command_app("evaluate")

_EXAMPLES = """
[bold]Examples[/bold]

  mixllm evaluate held_out.jsonl -r router

  mixllm evaluate held_out.jsonl -r router --at-least-quality 0.95

  mixllm evaluate held_out.jsonl -r router --json > figures.json

Exit codes: 0 evaluated, 1 a bound was missed, 2 something cannot be used.
"""


@app.command(epilog=_EXAMPLES)
def evaluate(
    records: RecordsArgument,
    *,
    router: RouterOption,
    at_least_quality: Annotated[
        float | None,
        typer.Option(
            "--at-least-quality",
            metavar="SHARE",
            min=0.0,
            help="Exit with 1 if the router has less of the strongest candidate's "
            "quality, such as 0.95.",
        ),
    ] = None,
    at_most_cost: Annotated[
        float | None,
        typer.Option(
            "--at-most-cost",
            metavar="SHARE",
            min=0.0,
            help="Exit with 1 if it takes more of the strongest candidate's cost.",
        ),
    ] = None,
    json_wanted: JsonFlag = False,
    skip_bad_rows: SkipOption = False,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", help="Of the resampling.")
    ] = 0,
) -> None:
    """Judge a router beside each candidate, chance, the best mix and the oracle."""
    from mixllm_integrations.benchmark.judged import judge_router

    judged = load_router(router)
    found, ids, skipped = read_records(records, skip_bad_rows=skip_bad_rows)
    with at_work("asking the router"):
        result = judge_router(judged, found, query_ids=ids, seed=seed)
    for note in _notes(result):
        tell(f"note: {note}")
    missed = _missed(result, at_least_quality, at_most_cost)
    if json_wanted:
        told = {**asdict(result), "skipped_rows": skipped, "missed": missed}
        print_json(
            {**told, "cost_at": {f"{k:g}": v for k, v in told["cost_at"].items()}}
        )
    else:
        from mixllm_integrations.cli.evaluate_screen import show_judged
        from mixllm_integrations.cli.screen import console_of

        show_judged(console_of(), result)
    for said in missed:
        tell(said)
    if missed:
        raise typer.Exit(NOT_REACHED)


def _notes(found: "Judged") -> list[str]:
    notes = []
    if found.seen:
        notes.append(
            f"the router was fitted on {found.seen:,} of these {found.queries:,} "
            "queries: its figures are too good; evaluate on records it has not seen"
        )
    if found.incomplete:
        notes.append(
            f"{found.incomplete:,} queries were left out: not every candidate's answer "
            "is on record"
        )
    if found.left_out:
        notes.append(f"no records of {', '.join(found.left_out)}: left out")
    return notes


def _missed(
    found: "Judged", at_least_quality: float | None, at_most_cost: float | None
) -> list[str]:
    quality, cost = found.now.relative_quality.value, found.now.relative_cost.value
    missed = []
    if at_least_quality is not None and not quality >= at_least_quality:
        missed.append(f"quality {quality:.2%} is below {at_least_quality:.2%}")
    if at_most_cost is not None and not (cost <= at_most_cost or math.isnan(cost)):
        missed.append(f"cost {cost:.2%} is above {at_most_cost:.2%}")
    return missed
