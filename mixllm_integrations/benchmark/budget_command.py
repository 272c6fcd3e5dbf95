"""`mixllm benchmark budget`."""

from typing import Annotated

import typer

from mixllm_integrations.benchmark.datasets import load_candidates, load_table
from mixllm_integrations.benchmark.options import (
    CandidatesOption,
    DataOption,
    JsonOption,
    PoolOption,
    command_line,
    on_screen,
    write_json,
)
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.plots.console import PlainConsole

__all__ = ["budget"]


def budget(
    *,
    data: DataOption = None,
    pool: PoolOption = "market-2024",
    candidates: CandidatesOption = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="How many 80/20 splits.")
    ] = 3,
    predictor: Annotated[
        str, typer.Option("--predictor", help="Kind of the router's predictors.")
    ] = "auto",
    json_file: JsonOption = None,
) -> None:
    """Give the router a spending budget; see what it spends, and how well."""
    from mixllm_integrations.benchmark.budget import (
        BudgetRun,
        print_budget,
        run_budget,
    )

    if data is None:
        raise ConfigurationError("pass --data FILE")
    priced = None if candidates is None else load_candidates(candidates)
    table = load_table(data, pool=pool, candidates=priced)
    with on_screen() as progress:
        task = progress.add_task("fitting")

        def show(run: BudgetRun) -> None:
            text = f"seed {run.seed}: {run.method}, {run.share:.0%}"
            progress.update(task, description=text)

        result = run_budget(
            table,
            seeds=range(seeds),
            predictor=predictor,
            command=command_line(),
            on_run=show,
        )
    print_budget(result, PlainConsole())
    if json_file is not None:
        write_json(json_file, result.to_json())
