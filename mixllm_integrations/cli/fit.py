"""`mixllm fit`: a router from labelled answers, or from a log of feedback."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixllm_integrations.cli.options import (
    NOT_REACHED,
    CandidatesOption,
    JsonFlag,
    SkipOption,
    at_work,
    check_output,
    command_app,
    is_store,
    load_router,
    next_step,
    opened_store,
    print_json,
    read_candidates,
    read_records,
    tell,
)
from mixllm_integrations.core.errors import ConfigurationError, MixLLMError

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router
    from mixllm_integrations.core.types import Calibration, RoutingRecord

__all__ = ["app", "fit"]

app = command_app("fit")

_EXAMPLES = """
[bold]Examples[/bold]

  mixllm fit records.jsonl -c candidates.toml -o router

  mixllm fit records.parquet -c candidates.toml -o router --quality-target 0.97

  mixllm fit newcomer.jsonl -r router -c all.toml -o router2

  mixllm fit sqlite:///mixllm.db -r router -o router2

Without --candidates both prices of each candidate are estimated from the
recorded tokens and costs. A log holds no prompts, but what the router read in
them: it teaches the router that decided, or one with the same contexts.

Exit codes: 0 fitted and saved, 1 saved, but a target is not reached,
2 something cannot be used (nothing is saved).
"""


@dataclass(frozen=True, slots=True)
class _Wanted:
    predictor: str | None
    seed: int | None
    willingness_to_pay: float | None
    quality_target: float | None
    cost_target: float | None
    skip_bad_rows: bool


@app.command(epilog=_EXAMPLES)
def fit(
    records: Annotated[
        str,
        typer.Argument(
            metavar="RECORDS",
            help="Labelled answers (.jsonl, .jsonl.gz, .csv, .parquet), or an event "
            "log: a URL such as sqlite:///mixllm.db, or the path of that .db file.",
        ),
    ],
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Where to save the router."
        ),
    ],
    candidates: CandidatesOption = None,
    router: Annotated[
        Path | None,
        typer.Option(
            "--router",
            "-r",
            metavar="FOLDER",
            help="Go on from this one: candidates without a record keep what is known "
            "of them.",
        ),
    ] = None,
    predictor: Annotated[
        str | None,
        typer.Option(
            "--predictor",
            metavar="KIND",
            help="auto (the default), ridge, forest, knn, mlp or ensemble.",
            show_default=False,
        ),
    ] = None,
    willingness_to_pay: Annotated[
        float | None,
        typer.Option(
            "--willingness-to-pay",
            "-w",
            metavar="USD",
            help="USD that one right answer more is worth to you.",
        ),
    ] = None,
    quality_target: Annotated[
        float | None,
        typer.Option(
            "--quality-target",
            metavar="SHARE",
            help="Calibrate to this share of the strongest candidate's quality.",
        ),
    ] = None,
    cost_target: Annotated[
        float | None,
        typer.Option(
            "--cost-target",
            metavar="SHARE",
            help="Calibrate to this share of its cost.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="N",
            help="Of all that is drawn; else 0.",
            show_default=False,
        ),
    ] = None,
    json_wanted: JsonFlag = False,
    skip_bad_rows: SkipOption = False,
) -> None:
    """Learn from labelled answers, or from the feedback in an event log."""
    targets = [willingness_to_pay, quality_target, cost_target]
    if sum(target is not None for target in targets) > 1:
        raise ConfigurationError(
            "pass one of --willingness-to-pay, --quality-target and --cost-target"
        )
    check_output(output)
    wanted = _Wanted(
        predictor, seed, willingness_to_pay, quality_target, cost_target, skip_bad_rows
    )
    learn = _from_log if is_store(records) else _from_records
    before = _worth_of(output)
    learned, calibration, told = learn(records, candidates, router, wanted)
    learned.save(output)
    told |= {
        "router": str(output),
        "willingness_to_pay": learned.willingness_to_pay,
        "candidates": [asdict(c) for c in learned.candidates],
        "calibration": None if calibration is None else asdict(calibration),
    }
    if json_wanted:
        print_json(told)
    else:
        _show(learned, calibration, told, wanted)
    _say_more(learned, before, records, output, wanted)
    if calibration is not None and not calibration.target_reached:
        tell("the target is not reached: saved with the nearest value")
        raise typer.Exit(NOT_REACHED)


def _worth_of(folder: Path) -> float | None:
    """Return the willingness to pay of a router that is about to be replaced."""
    if not (folder / "manifest.json").is_file():
        return None
    try:
        return load_router(folder).willingness_to_pay
    except MixLLMError:  # whatever is wrong with it, it goes
        return None


def _say_more(
    learned: "Router", before: float | None, records: str, output: Path, wanted: _Wanted
) -> None:
    """Say what was lost with the router that was there, and what comes next."""
    now = learned.willingness_to_pay
    targets = (wanted.willingness_to_pay, wanted.quality_target, wanted.cost_target)
    is_chosen = any(target is not None for target in targets)
    if before is not None and before != now and not is_chosen:
        tell(
            f"note: the router that was at '{output}' had a willingness to pay of "
            f"{before:.4g} USD, this one has {now:.4g}; calibrate it again, or "
            "fit with --quality-target"
        )
    if not is_chosen and not is_store(records):
        next_step(
            f"mixllm calibrate {records} -r {output} --quality-target 0.97 --apply"
        )


_Learned = tuple["Router", "Calibration | None", dict[str, Any]]


def _from_records(
    file: str, candidates: Path | None, router: Path | None, wanted: _Wanted
) -> _Learned:
    found, _, skipped = read_records(Path(file), skip_bad_rows=wanted.skip_bad_rows)
    start, is_estimated = _start(found, candidates, router, wanted)
    names = {c.name for c in start.candidates}
    others = sorted({r.candidate for r in found} - names)
    if others:
        tell(f"note: records of {', '.join(others)} are left out")
    used = [r for r in found if r.candidate in names]
    if not used:
        raise ConfigurationError(
            f"no record is of one of the candidates {sorted(names)}: they are of "
            f"{others}"
        )
    calibration = None
    with at_work(f"fitting on {len(used):,} records"):
        start.fit(used, progress=True)
        if wanted.willingness_to_pay is not None:
            start.willingness_to_pay = wanted.willingness_to_pay
        if wanted.quality_target is not None or wanted.cost_target is not None:
            calibration = start.calibrate(
                used,
                quality_target=wanted.quality_target,
                cost_target=wanted.cost_target,
            )
    told = {
        "records": len(used),
        "queries": len({r.query for r in used}),
        "skipped_rows": skipped,
        "prices_estimated": is_estimated,
    }
    return start, calibration, told


def _start(
    records: "tuple[RoutingRecord, ...]",
    candidates: Path | None,
    router: Path | None,
    wanted: _Wanted,
) -> "tuple[Router, bool]":
    """Return the router to be fitted, and whether its prices are estimated."""
    from mixllm_integrations.benchmark.table import estimate_prices
    from mixllm_integrations.core.router import Router

    if router is not None:
        start = load_router(router)
        known = {c.name for c in start.candidates}
        given = () if candidates is None else read_candidates(candidates)
        for candidate in given:
            if candidate.name not in known:
                start.add_candidate(candidate)
        return start, False
    settings = {"predictor": wanted.predictor, "seed": wanted.seed}
    if candidates is not None:
        return _configured(candidates, settings), False
    told: dict[str, Any] = {k: v for k, v in settings.items() if v is not None}
    return Router(estimate_prices(records), **told), True


def _configured(file: Path, settings: dict[str, Any]) -> "Router":
    """Return a new router as a file of candidates has it, with some other settings."""
    from mixllm_integrations.core.router import Router
    from mixllm_integrations.serving.candidates_file import read_candidates_file

    said = read_candidates_file(file)
    told = said.router.model_dump(exclude_none=True, exclude={"state"})
    told |= {name: value for name, value in settings.items() if value is not None}
    return Router(said.facts(), **told)


def _from_log(
    url: str, candidates: Path | None, router: Path | None, wanted: _Wanted
) -> _Learned:
    from mixllm_integrations.serving.following import Follower
    from mixllm_integrations.store import SharedStore

    if wanted.quality_target is not None or wanted.cost_target is not None:
        raise ConfigurationError(
            "a target needs labels of every candidate, which a log has not: calibrate "
            "on records by mixllm calibrate"
        )
    if router is not None:
        start = load_router(router)
    elif candidates is not None:
        start = _configured(
            candidates, {"predictor": wanted.predictor, "seed": wanted.seed}
        )
    else:
        raise ConfigurationError(
            "a log names its candidates, but not their prices: pass the router that "
            "decided by --router, or --candidates"
        )
    if wanted.willingness_to_pay is not None:
        start.willingness_to_pay = wanted.willingness_to_pay
    before = start.has_learned_online
    with opened_store(url) as log, at_work("learning from the log"):
        if not isinstance(log, SharedStore):
            raise ConfigurationError(f"{url!r} is no log that can be learned from")
        follower = Follower(start, log, worker="mixllm fit")
        heard = follower.catch_up()
        follower.close()
        is_refitted = start.refit()
    if not heard:
        why = "the router has heard it" if before else "it holds no event"
        raise ConfigurationError(f"there is nothing new in the log: {why}")
    if not start.has_learned_online:
        raise ConfigurationError(
            f"nothing could be learned from the {heard:,} events of the log: its "
            "decisions were logged without what was read in the prompts, or by a "
            "router that reads them otherwise; pass that router by --router"
        )
    return start, None, {"events": heard, "refitted": is_refitted}


def _show(
    learned: "Router",
    calibration: "Calibration | None",
    told: dict[str, Any],
    wanted: _Wanted,
) -> None:
    from rich import box
    from rich.table import Table

    from mixllm_integrations.cli.evaluate_screen import show_calibration
    from mixllm_integrations.cli.screen import console_of

    console = console_of()
    if "events" in told:
        heads = ", and its heads were fitted again" if told["refitted"] else ""
        console.print(f"learned from {told['events']:,} events{heads}")
    else:
        console.print(
            f"fitted on {told['records']:,} records of {told['queries']:,} queries"
        )
    estimated = " (estimated)" if told.get("prices_estimated") else ""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("candidate", overflow="fold")
    table.add_column(f"USD per million tokens{estimated}", justify="right")
    for one in learned.candidates:
        prices = one.input_cost_per_million_tokens, one.output_cost_per_million_tokens
        table.add_row(one.name, f"{prices[0]:g} / {prices[1]:g}")
    console.print(table)
    if estimated:
        console.print(
            "The prices are estimated from recorded tokens and costs; pass "
            "--candidates for the real ones.",
            style="yellow",
        )
    if calibration is not None:
        asked = (
            f"{wanted.quality_target:.4g} of the quality"
            if wanted.quality_target is not None
            else f"{wanted.cost_target:.4g} of the cost"
        )
        show_calibration(console, calibration, asked)
    console.print(
        f"saved: {told['router']}  (willingness to pay: "
        f"{learned.willingness_to_pay:.4g} USD)"
    )
