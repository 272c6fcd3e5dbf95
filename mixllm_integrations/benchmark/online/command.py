"""`mixllm benchmark online` as a function: `commands` registers it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mixllm_integrations.benchmark.datasets import POOLS, load_table
from mixllm_integrations.benchmark.options import (
    JsonOption,
    PoolOption,
    command_line,
    say,
    write_json,
)
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.plots.console import PlainConsole

__all__ = ["online"]

_JOINS = "gemini-3.1-pro"
_QUICK_STEPS = 600
_WIDTH = 150


def online(
    *,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            help="Recorded answers; of several files each is a data set, and priors "
            "come from the others.",
        ),
    ] = None,
    pool: PoolOption = "market-2024",
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="How many splits, orders and draws.")
    ] = 3,
    streams: Annotated[
        str | None,
        typer.Option("--streams", help="Some of them, with commas; also refined-5/95."),
    ] = None,
    learners: Annotated[
        str | None,
        typer.Option("--learners", help="Some of them, with semicolons."),
    ] = None,
    predictor: Annotated[
        str, typer.Option("--predictor", help="Kind of the router's predictors.")
    ] = "auto",
    willingness_to_pay: Annotated[
        float | None,
        typer.Option(
            "--willingness-to-pay",
            help="USD per point of quality; otherwise calibrated to 25 % of the "
            "strongest candidate's cost.",
        ),
    ] = None,
    factors: Annotated[
        str,
        typer.Option(
            "--factors",
            help="Multiples of it at which the refined streams are run as well, with "
            "commas, such as 0.25,4.",
        ),
    ] = "",
    steps: Annotated[
        int,
        typer.Option(
            "--steps", min=8, help="The longest a stream is, the paper's apart."
        ),
    ] = 4_000,
    refit_every: Annotated[
        int,
        typer.Option("--refit-every", min=1, help="Queries between refits of heads."),
    ] = 1_000,
    feedbacks: Annotated[
        int,
        typer.Option(
            "--feedbacks", min=0, help="How many for time and memory; 0: none."
        ),
    ] = 100_000,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="One seed, ridge, short streams, no load."),
    ] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Processes.")] = 1,
    json_file: JsonOption = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw rewards, regret and shares: .png or .svg."),
    ] = None,
) -> None:
    """Learn from streams of real outcomes, beside bandits and full information."""
    from mixllm_integrations.benchmark.online.results import OnlineRun
    from mixllm_integrations.benchmark.online.run import (
        PLAYED_BY_DEFAULT,
        run_online,
        with_load,
    )
    from mixllm_integrations.benchmark.online.streams import STREAMS
    from mixllm_integrations.benchmark.online.tables import plot_online, print_online
    from mixllm_integrations.benchmark.online.worlds import WorldSettings

    if not data:
        raise ConfigurationError("pass --data FILE, once for each data set")
    tables = [_with_newcomer(file, pool) for file in data]
    settings: dict[str, Any] = {
        "predictor": "ridge" if quick else predictor,
        "refit_every": min(refit_every, _QUICK_STEPS // 2) if quick else refit_every,
        "informed_every": _QUICK_STEPS if quick else 2 * refit_every,
        "n_steps": min(steps, _QUICK_STEPS) if quick else steps,
        "n_main_steps": _QUICK_STEPS if quick else None,
    }

    def show(run: OnlineRun) -> None:
        say(
            f"{run.data}, {run.stream}, seed {run.seed}: {run.learner} earns "
            f"{run.reward:.4f} a query"
        )

    for number, (table, names) in enumerate(tables):
        others = [t for i, (t, _) in enumerate(tables) if i != number]
        prior = _prior_from(table, others)
        told = WorldSettings(prior=prior, **settings)
        found = run_online(
            table,
            pool=names,
            seeds=range(1 if quick else seeds),
            streams=_listed(streams, ",", STREAMS),
            learners=_listed(learners, ";", PLAYED_BY_DEFAULT),
            settings=told,
            willingness_to_pay=willingness_to_pay,
            factors=[float(f) for f in factors.split(",") if f.strip()],
            n_jobs=jobs,
            command=command_line(),
            on_step=say,
            on_run=show,
        )
        if feedbacks and not quick:
            say(f"feeding {feedbacks:,} feedbacks")
            found = with_load(found, table.only(names), told, n_feedbacks=feedbacks)
        print_online(found, _console())
        ending = f"_{table.name}" if len(tables) > 1 else ""
        if json_file is not None:
            write_json(_named(json_file, ending), found.to_json())
        if plot is not None:
            for file in plot_online(found, _named(plot, ending)):
                typer.echo(f"wrote {file}", err=True)


def _console() -> Console:
    """Return a console that is wide where nobody looks on: in a file, in a log."""
    found = PlainConsole()
    return found if found.is_terminal else PlainConsole(width=_WIDTH)


def _with_newcomer(file: Path, pool: str) -> tuple[BenchmarkTable, tuple[str, ...]]:
    """Return a table with who may join beside the pool, and the pool."""
    table = load_table(file, pool=pool)
    if _JOINS not in POOLS.get(pool, ()):
        return table, table.names
    try:
        return load_table(file, pool=[*table.names, _JOINS]), table.names
    except ConfigurationError:  # nobody recorded it: the best of the pool joins
        return table, table.names


def _prior_from(table: BenchmarkTable, others: Sequence[BenchmarkTable]) -> Any:  # noqa: ANN401
    """Return what the other data sets tell of candidates; ``"none"`` without any."""
    if not others:
        return "none"
    from mixllm_integrations.benchmark.coldstart import prior_without
    from mixllm_integrations.core.encoder import StaticEncoder

    return prior_without(table, [table, *others], StaticEncoder.load())


def _listed(given: str | None, mark: str, default: Sequence[str]) -> Sequence[str]:
    if given is None:
        return default
    return [name.strip() for name in given.split(mark) if name.strip()]


def _named(file: Path, ending: str) -> Path:
    return file.with_name(f"{file.stem}{ending}{file.suffix}")
