"""`mixllm calibrate`: find the willingness to pay that meets a target."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixllm_integrations.cli.options import (
    NOT_REACHED,
    JsonFlag,
    RecordsArgument,
    RouterOption,
    SkipOption,
    at_work,
    check_output,
    command_app,
    load_router,
    next_step,
    print_json,
    read_records,
    tell,
)
from mixllm_integrations.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mixllm_integrations.core.types import RoutingRecord

__all__ = ["app", "calibrate"]

app = command_app("calibrate")

_EXAMPLES = """
[bold]Examples[/bold]

  mixllm calibrate records.jsonl -r router --quality-target 0.97

  mixllm calibrate records.jsonl -r router --cost-target 0.25 --apply

  mixllm calibrate records.jsonl -r router --quality-target 0.97 -o tuned

Records that the router was fitted on are judged by fits without them.

Exit codes: 0 the target is reached, 1 it is not (nothing is saved),
2 something cannot be used.
"""


@app.command(epilog=_EXAMPLES)
def calibrate(
    records: RecordsArgument,
    *,
    router: RouterOption,
    quality_target: Annotated[
        float | None,
        typer.Option(
            "--quality-target",
            metavar="SHARE",
            help="Of the strongest candidate's quality, as cheaply as possible: 0.97.",
        ),
    ] = None,
    cost_target: Annotated[
        float | None,
        typer.Option(
            "--cost-target",
            metavar="SHARE",
            help="Of the strongest candidate's cost, for the best quality: 0.25.",
        ),
    ] = None,
    apply: Annotated[
        bool,
        typer.Option("--apply", help="Save the router with the value, where it is."),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Save it there with the value."
        ),
    ] = None,
    json_wanted: JsonFlag = False,
    skip_bad_rows: SkipOption = False,
) -> None:
    """Find the willingness to pay that meets a target, and say what to expect of it."""
    if apply and output is not None:
        raise ConfigurationError("pass either --apply or -o, not both")
    if (quality_target is None) == (cost_target is None):
        raise ConfigurationError(
            "pass either --quality-target or --cost-target, such as --quality-target "
            "0.97"
        )
    if output is not None:
        check_output(output)
    judged = load_router(router)
    found, _, _ = read_records(records, skip_bad_rows=skip_bad_rows)
    with at_work("calibrating"):
        result = judged.calibrate(
            _of_candidates(found, [c.name for c in judged.candidates]),
            quality_target=quality_target,
            cost_target=cost_target,
        )
    target = router if apply else output
    saved = target if result.target_reached else None
    if saved is not None:
        judged.save(saved)
    if json_wanted:
        print_json({**asdict(result), "saved": None if saved is None else str(saved)})
    else:
        from mixllm_integrations.cli.evaluate_screen import show_calibration
        from mixllm_integrations.cli.screen import console_of

        asked = (
            f"{quality_target:.4g} of the quality"
            if quality_target is not None
            else f"{cost_target:.4g} of the cost"
        )
        show_calibration(console_of(), result, asked)
        if saved is not None:
            typer.echo(f"saved with that value: {saved}")
            next_step(f'mixllm inspect "A prompt of yours" -r {saved}')
        elif result.target_reached:
            typer.echo("nothing is saved; add --apply, or -o FOLDER")
    if not result.target_reached:
        tell("the target is not reached, nothing is saved")
        raise typer.Exit(NOT_REACHED)


def _of_candidates(
    records: "Sequence[RoutingRecord]", names: list[str]
) -> "list[RoutingRecord]":
    """Return the records of the router's candidates, and say who else there is."""
    others = sorted({r.candidate for r in records} - set(names))
    if others:
        tell(f"note: records of {', '.join(others)} are left out")
    return [r for r in records if r.candidate in names]
