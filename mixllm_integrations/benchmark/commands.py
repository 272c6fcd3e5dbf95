"""`mixllm benchmark …`: the benchmarks as commands."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mixllm_integrations.benchmark.budget_command import budget
from mixllm_integrations.benchmark.datasets import (
    BenchmarkTable,
    load_candidates,
    load_table,
)
from mixllm_integrations.benchmark.latency.command import latency
from mixllm_integrations.benchmark.llama_command import llama_index
from mixllm_integrations.benchmark.load.command import load
from mixllm_integrations.benchmark.online.command import online
from mixllm_integrations.benchmark.options import (
    CandidatesOption,
    DataOption,
    JsonOption,
    PoolOption,
    command_line,
    on_screen,
    say,
    write_json,
)
from mixllm_integrations.benchmark.results import MethodRun
from mixllm_integrations.benchmark.routerbench import HUB_FILE, download
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.plots.console import PlainConsole

__all__ = [
    "ablation",
    "app",
    "budget",
    "calibration",
    "coldstart",
    "conformance",
    "latency",
    "llama_index",
    "load",
    "offline",
    "online",
    "overhead",
    "speed",
]

app = typer.Typer(
    name="benchmark",
    help="Measure on recorded answers: quality against cost, speed, memory.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command()
def offline(
    *,
    data: DataOption = None,
    pool: PoolOption = "all",
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="How many 80/20 splits.")
    ] = 3,
    predictor: Annotated[
        str, typer.Option("--predictor", help="Kind of the router's predictors.")
    ] = "auto",
    all_kinds: Annotated[
        bool,
        typer.Option("--all-kinds", help="Also run every other kind of predictor."),
    ] = False,
    candidates: CandidatesOption = None,
    hub: Annotated[
        str | None,
        typer.Option(
            "--hub",
            help="A data set on the Hugging Face hub, such as withmartian/routerbench.",
        ),
    ] = None,
    hub_file: Annotated[
        str, typer.Option("--hub-file", help="Which file of that data set.")
    ] = HUB_FILE,
    json_file: JsonOption = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            help="Draw quality against cost: .png, .svg, or both without an ending.",
        ),
    ] = None,
    with_oracle: Annotated[
        bool, typer.Option("--with-oracle", help="Draw the oracle as well.")
    ] = False,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Go on after a bad row.")
    ] = False,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, help="Processor cores for the baselines.")
    ] = 1,
) -> None:
    """Fit on 80 %, sweep the willingness to pay on 20 %, beside all baselines."""
    from mixllm_integrations.benchmark.offline import run_offline
    from mixllm_integrations.benchmark.peers import missing_peers
    from mixllm_integrations.benchmark.render import plot_result, print_result

    table = _table(
        data,
        hub=(hub, hub_file),
        pool=pool,
        candidates=candidates,
        skip_bad_rows=skip_bad_rows,
    )
    with on_screen() as progress:
        task = progress.add_task(f"{len(table):,} queries")

        def show(run: MethodRun) -> None:
            progress.update(task, description=f"seed {run.seed}: {run.method}")

        result = run_offline(
            table,
            seeds=range(seeds),
            predictor=predictor,
            all_kinds=all_kinds,
            n_jobs=jobs,
            command=command_line(),
            on_run=show,
        )
    print_result(result, PlainConsole())
    if missing := missing_peers():
        typer.echo(
            f"left out, not installed: {', '.join(missing)} "
            '(pip install "mixllm-integrations[peers]")',
            err=True,
        )
    if json_file is not None:
        write_json(json_file, result.to_json())
    if plot is not None:
        for file in plot_result(result, plot, with_bound=with_oracle):
            typer.echo(f"wrote {file}", err=True)


app.command()(online)
app.command()(latency)
app.command()(load)
app.command()(budget)
app.command()(llama_index)


@app.command()
def overhead(
    *,
    data: DataOption = None,
    pool: PoolOption = "market-2024",
    candidates: CandidatesOption = None,
    calls: Annotated[
        int, typer.Option("--calls", min=10, help="How many calls are timed.")
    ] = 1000,
    calls_for_memory: Annotated[
        int,
        typer.Option(
            "--calls-for-memory", min=20, help="How many to see what is kept of them."
        ),
    ] = 100_000,
    json_file: JsonOption = None,
) -> None:
    """Measure import, decision, chat model, fit and memory on this machine."""
    from mixllm_integrations.benchmark.overhead import measure_overhead
    from mixllm_integrations.benchmark.overhead_results import print_overhead

    found = measure_overhead(
        _table(data, pool=pool, candidates=candidates),
        n_calls=calls,
        n_kept=calls_for_memory,
        command=command_line(),
        on_step=say,
    )
    print_overhead(found, PlainConsole())
    if json_file is not None:
        write_json(json_file, found.to_json())


@app.command()
def conformance(*, json_file: JsonOption = None) -> None:
    """Run LangChain's standard suites over a bare model, ours and a rival's."""
    from mixllm_integrations.benchmark.conformance import (
        print_conformance,
        run_conformance,
    )

    found = run_conformance(command=command_line())
    print_conformance(found, PlainConsole())
    if json_file is not None:
        write_json(json_file, found.to_json())


@app.command()
def ablation(
    *,
    data: DataOption = None,
    pool: PoolOption = "all",
    candidates: CandidatesOption = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="How many 80/20 splits.")
    ] = 3,
    predictor: Annotated[
        str, typer.Option("--predictor", help="Kind of the heads, one for all rows.")
    ] = "forest",
    loss: Annotated[
        str,
        typer.Option(
            "--loss",
            help="Of the fine-tuned encoder: paper, batch_all_triplet, both, or none.",
        ),
    ] = "paper",
    cross_fit: Annotated[
        int,
        typer.Option(
            "--cross-fit",
            help="Folds in which training queries also get an embedding that did not "
            "learn from them; 0: none.",
        ),
    ] = 0,
    json_file: JsonOption = None,
) -> None:
    """Measure what each part of a context is worth, the fine-tuned encoder too."""
    from mixllm_integrations.benchmark.ablation import run_ablation
    from mixllm_integrations.benchmark.ablation_results import (
        AblationRun,
        print_ablation,
    )

    table = _table(data, pool=pool, candidates=candidates)
    several: dict[str, tuple[Any, ...]] = {
        "both": ("paper", "batch_all_triplet"),
        "none": (),
    }
    with on_screen() as progress:
        task = progress.add_task(f"{len(table):,} queries")

        def show(run: AblationRun) -> None:
            progress.update(task, description=f"seed {run.seed}: {run.context}")

        result = run_ablation(
            table,
            seeds=range(seeds),
            losses=several.get(loss, (loss,)),
            predictor=predictor,
            cross_fit=cross_fit,
            command=command_line(),
            on_run=show,
        )
    print_ablation(result, PlainConsole())
    if json_file is not None:
        write_json(json_file, result.to_json())


@app.command()
def coldstart(
    *,
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", help="Recorded answers; give two files or more."),
    ] = None,
    pool: PoolOption = "market-2024",
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="How many 80/20 splits.")
    ] = 3,
    predictor: Annotated[
        str, typer.Option("--predictor", help="Kind of the router's predictors.")
    ] = "auto",
    newcomers: Annotated[
        int, typer.Option("--newcomers", min=0, help="How many join, one at a time.")
    ] = 3,
    json_file: JsonOption = None,
) -> None:
    """Start without labels: priors from the other data sets, a few labels, all."""
    from mixllm_integrations.benchmark.coldstart import run_coldstart
    from mixllm_integrations.benchmark.coldstart_results import (
        ColdRun,
        NewcomerRun,
        print_coldstart,
    )

    tables = [_table(file, pool=pool, candidates=None) for file in data or ()]
    with on_screen() as progress:
        task = progress.add_task("learning the priors")

        def show(run: ColdRun | NewcomerRun) -> None:
            text = f"{run.data}, seed {run.seed}: {run.n_labels} labels"
            progress.update(task, description=text)

        result = run_coldstart(
            tables,
            seeds=range(seeds),
            predictor=predictor,
            n_newcomers=newcomers,
            command=command_line(),
            on_run=show,
        )
    print_coldstart(result, PlainConsole())
    if json_file is not None:
        write_json(json_file, result.to_json())


@app.command()
def calibration(
    *,
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="Recorded answers.")
    ] = None,
    pool: PoolOption = "market-2024",
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="How many 80/20 splits.")
    ] = 5,
    predictor: Annotated[
        str, typer.Option("--predictor", help="Kind of the router's predictors.")
    ] = "auto",
    json_file: JsonOption = None,
) -> None:
    """Calibrate on training queries; see what the test queries make of it."""
    from mixllm_integrations.benchmark.calibration import (
        CalibrationRun,
        print_calibration,
        run_calibration,
    )

    tables = [_table(file, pool=pool, candidates=None) for file in data or ()]
    with on_screen() as progress:
        task = progress.add_task("fitting")

        def show(run: CalibrationRun) -> None:
            text = f"{run.data}, seed {run.seed}: {run.kind} {run.target}"
            progress.update(task, description=text)

        result = run_calibration(
            tables,
            seeds=range(seeds),
            predictor=predictor,
            command=command_line(),
            on_run=show,
        )
    print_calibration(result, PlainConsole())
    if json_file is not None:
        write_json(json_file, result.to_json())


@app.command()
def speed(
    *,
    data: DataOption = None,
    pool: PoolOption = "market-2024",
    candidates: CandidatesOption = None,
    prompts: Annotated[
        int, typer.Option("--prompts", min=10, help="Different texts at each size.")
    ] = 1000,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few sizes and small ones.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of the split.")] = 0,
    json_file: JsonOption = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw it: .png, .svg, or both.")
    ] = None,
) -> None:
    """Measure a decision against candidates, dimensions and training size."""
    from mixllm_integrations.benchmark.speed import QUICK_SIZES, Sizes, measure_speed
    from mixllm_integrations.benchmark.speed_results import plot_speed, print_speed

    found = measure_speed(
        _table(data, pool=pool, candidates=candidates),
        sizes=QUICK_SIZES if quick else Sizes(),
        n_prompts=prompts,
        seed=seed,
        command=command_line(),
        on_step=say,
    )
    print_speed(found, PlainConsole())
    if json_file is not None:
        write_json(json_file, found.to_json())
    if plot is not None:
        for file in plot_speed(found, plot):
            typer.echo(f"wrote {file}", err=True)


def _table(
    data: Path | None,
    *,
    pool: str,
    candidates: Path | None,
    hub: tuple[str | None, str] = (None, ""),
    skip_bad_rows: bool = False,
) -> BenchmarkTable:
    repo_id, filename = hub
    if (data is None) == (repo_id is None):
        raise ConfigurationError("pass either --data FILE or --hub ID")
    file = data if data is not None else download(str(repo_id), filename)
    priced = None if candidates is None else load_candidates(candidates)
    return load_table(file, pool=pool, candidates=priced, skip_bad_rows=skip_bad_rows)
