"""`mixllm benchmark latency` as a function: `commands` registers it."""

from pathlib import Path
from typing import Annotated

import typer

from mixllm_integrations.benchmark.datasets import load_candidates, load_table
from mixllm_integrations.benchmark.options import (
    CandidatesOption,
    DataOption,
    JsonOption,
    PoolOption,
    command_line,
    say,
    write_json,
)
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.plots.console import PlainConsole

__all__ = ["latency"]

_WIDTH = 150
_QUICK_QUERIES = 1_500


def latency(
    *,
    data: DataOption = None,
    pool: PoolOption = "market-2024",
    candidates: CandidatesOption = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="How many splits and orders.")
    ] = 3,
    rates: Annotated[
        str, typer.Option("--rates", help="Queries per second, with commas.")
    ] = "2.5,5,10,20,40",
    tolerances: Annotated[
        str, typer.Option("--tolerances", help="Seconds, with commas.")
    ] = "5,10,30,60",
    factors: Annotated[
        str,
        typer.Option("--factors", help="Of the willingness to pay, with commas."),
    ] = "0.1,0.3,1,3,10",
    concurrency: Annotated[
        int,
        typer.Option("--concurrency", min=1, help="Answers a candidate gives at once."),
    ] = 8,
    predictor: Annotated[
        str, typer.Option("--predictor", help="Kind of the router's predictors.")
    ] = "auto",
    willingness_to_pay: Annotated[
        float | None,
        typer.Option(
            "--willingness-to-pay",
            help="USD per point of quality; otherwise calibrated to 24.18 % of the "
            "strongest candidate's cost.",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="One seed, ridge, few queries and points."),
    ] = False,
    json_file: JsonOption = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw the sweeps: .png, .svg, or both."),
    ] = None,
) -> None:
    """Route simulated traffic under time constraint: the paper's simulation."""
    from mixllm_integrations.benchmark.latency.results import LatencyRun
    from mixllm_integrations.benchmark.latency.run import Sweep, run_latency
    from mixllm_integrations.benchmark.latency.tables import plot_result, print_latency

    if data is None:
        raise ConfigurationError("pass --data FILE")
    priced = None if candidates is None else load_candidates(candidates)
    table = load_table(data, pool=pool, candidates=priced)
    if quick:
        table = table.select(range(0, len(table), 1 + len(table) // _QUICK_QUERIES))
    sweep = Sweep(
        rates=(10.0, 40.0) if quick else _numbers(rates, "--rates"),
        tolerances=(10.0,) if quick else _numbers(tolerances, "--tolerances"),
        factors=(1.0,) if quick else _numbers(factors, "--factors"),
        concurrency=concurrency,
        seconds=20.0 if quick else Sweep().seconds,
    )

    def show(run: LatencyRun) -> None:
        if run.point == sweep.usual:
            say(
                f"seed {run.seed}: {run.contestant} reaches {run.quality:.2%} at "
                f"{run.cost:.2%}, {run.late:.1%} late"
            )

    found = run_latency(
        table,
        seeds=range(1 if quick else seeds),
        sweep=sweep,
        predictor="ridge" if quick else predictor,
        willingness_to_pay=willingness_to_pay,
        command=command_line(),
        on_step=say,
        on_run=show,
    )
    console = PlainConsole()
    print_latency(found, console if console.is_terminal else PlainConsole(width=_WIDTH))
    if json_file is not None:
        write_json(json_file, found.to_json())
    if plot is not None:
        for file in plot_result(found, plot):
            typer.echo(f"wrote {file}", err=True)


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigurationError(
            f"{option} takes numbers with commas, such as 5,10; not {text!r}"
        ) from None
