"""`mixllm benchmark llama-index`."""

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

__all__ = ["llama_index"]


def llama_index(
    *,
    data: DataOption = None,
    pool: PoolOption = "market-2024",
    candidates: CandidatesOption = None,
    calls: Annotated[
        int, typer.Option("--calls", min=10, help="How many calls are timed.")
    ] = 1000,
    at_once: Annotated[
        int, typer.Option("--at-once", min=1, help="How many at the same time.")
    ] = 1000,
    json_file: JsonOption = None,
) -> None:
    """Measure what routing adds in LlamaIndex, and compare token counts."""
    from mixllm_integrations.benchmark.llama_calls import (
        measure_llama_index,
        print_llama_index,
    )

    if data is None:
        raise ConfigurationError("pass --data FILE")
    priced = None if candidates is None else load_candidates(candidates)
    found = measure_llama_index(
        load_table(data, pool=pool, candidates=priced),
        n_calls=calls,
        n_at_once=at_once,
        command=command_line(),
        on_step=say,
    )
    print_llama_index(found, PlainConsole())
    if json_file is not None:
        write_json(json_file, found.to_json())
