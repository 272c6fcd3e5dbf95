"""`mixllm collect`: from one's own prompts to records that a router learns from."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixllm_integrations.core.errors import ConfigurationError

if TYPE_CHECKING:
    from mixllm_integrations.training import Collection, Estimate, Labelling

__all__ = ["INCOMPLETE", "LIMIT_REACHED", "app", "collect"]

#: Exit codes beside 0 and 2, which is an error before anything was asked.
INCOMPLETE, LIMIT_REACHED = 3, 4

_INTERRUPTED = 130  # as a shell says it
_SHOWN_FAILURES = 20

app = typer.Typer(
    name="collect",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def collect(
    prompts: Annotated[
        Path,
        typer.Argument(
            metavar="PROMPTS",
            help="Prompts or a log: .jsonl, .jsonl.gz or .csv with prompt, query or "
            "messages, also runs of LangSmith and chats of OpenAI.",
        ),
    ],
    *,
    candidates: Annotated[
        Path | None,
        typer.Option(
            "--candidates",
            "-c",
            metavar="TOML",
            help="The models; without it only graded answers of the log are taken.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="JSONL", help="The records.")
    ] = Path("records.jsonl"),
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="PROVIDER:NAME",
            help="Who grades where a prompt has no reference; else the table judge "
            "of the file of candidates.",
        ),
    ] = None,
    pairwise: Annotated[
        bool,
        typer.Option(
            "--pairwise",
            help="The judge compares with the reference candidate's answer, in both "
            "orders, instead of giving a grade.",
        ),
    ] = False,
    reference_candidate: Annotated[
        str | None,
        typer.Option(
            "--reference-candidate",
            metavar="NAME",
            help="Whom --pairwise compares with; the dearest, if not given.",
        ),
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option(
            "--scorer",
            metavar="KIND",
            help="exact, regex, json_schema, code, judge or pairwise, for prompts "
            "that name none.",
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option("--sample", "-n", min=1, help="Only so many prompts, by lot."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of that lot.")] = 0,
    max_cost: Annotated[
        float | None,
        typer.Option(
            "--max-cost",
            min=0.0,
            metavar="USD",
            help="Spending limit over all runs with these records; holds also for "
            "calls under way.",
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, help="Calls at once.")
    ] = 8,
    adaptive: Annotated[
        float | None,
        typer.Option(
            "--adaptive",
            min=0.0,
            max=1.0,
            metavar="WIDTH",
            help="Ask what is least sure, and stop when each candidate's mean quality "
            "is known to plus or minus this, at 95 %.",
        ),
    ] = None,
    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code",
            help="Let scorer code run what models wrote, on this machine, as you: "
            "that is no sandbox.",
        ),
    ] = False,
    max_output_tokens: Annotated[
        int, typer.Option("--max-output-tokens", min=1, help="The longest answer.")
    ] = 2048,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            metavar="FILE",
            help="What was paid for; beside the records, if not given.",
        ),
    ] = None,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Go on after rows without a prompt.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before money is spent.")
    ] = False,
    only_estimate: Annotated[
        bool, typer.Option("--estimate", help="Say what it would cost, and leave.")
    ] = False,
    json_wanted: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end.")
    ] = False,
) -> None:
    """Label your own traffic: all models answer, the answers are graded.

    Run it again to go on after an interruption: nothing is paid for twice.
    Leaves with 0 if all is there, 3 if answers are missing, 4 if the spending
    limit ended it, 2 if it could not begin.
    """
    if candidates is None:
        _import_only(prompts, out, skip_bad_rows=skip_bad_rows, as_json=json_wanted)
        return
    from mixllm_integrations.training import Adaptive, Labelling

    with Labelling(
        prompts,
        candidates,
        out,
        judge=judge,
        by_judge="pairwise" if pairwise else "judge",
        reference_candidate=reference_candidate,
        scorer=scorer,
        sample=sample,
        seed=seed,
        max_cost=max_cost,
        concurrency=concurrency,
        adaptive=None if adaptive is None else Adaptive(half_width=adaptive),
        allow_code=allow_code,
        max_output_tokens=max_output_tokens,
        state=state,
        skip_bad_rows=skip_bad_rows,
    ) as labelling:
        estimate = labelling.estimate()
        if only_estimate:
            _show_estimate(estimate, labelling, max_cost, as_json=json_wanted)
            return
        _show_estimate(estimate, labelling, max_cost, as_json=False)
        _confirm(estimate, given=yes)
        code = _run(labelling, as_json=json_wanted)
    raise typer.Exit(code)


def _run(labelling: "Labelling", *, as_json: bool) -> int:
    """Do it, show what came of it, and return the exit code."""
    found = _collected(labelling)
    if found is None:
        typer.echo("stopped; the same command goes on", err=True)
        return _INTERRUPTED
    _show(found, as_json=as_json)
    if found.limit_reached:
        return LIMIT_REACHED
    return INCOMPLETE if found.failures else 0


def _collected(labelling: "Labelling") -> "Collection | None":
    try:
        return labelling.collect()
    except KeyboardInterrupt:
        return None


def _import_only(
    prompts: Path, out: Path, *, skip_bad_rows: bool, as_json: bool
) -> None:
    from mixllm_integrations.training import read_prompts
    from mixllm_integrations.training.labelling.importing import import_calls
    from mixllm_integrations.training.labelling.records_file import RecordsFile

    log = read_prompts(prompts, skip_bad_rows=skip_bad_rows)
    if not log.records:
        raise ConfigurationError(
            f"{prompts.name} holds {len(log.items)} prompts, but no answer with a "
            "model and a grade: pass --candidates to have them answered and graded"
        )
    with RecordsFile(out) as file:
        written = import_calls(log.calls, file)
        held = len(file.all())
    if as_json:
        typer.echo(json.dumps({"file": str(out), "written": written, "records": held}))
    else:
        typer.echo(f"{written} graded answers of the log written to {out}, now {held}")


def _show_estimate(
    estimate: "Estimate", labelling: "Labelling", limit: float | None, *, as_json: bool
) -> None:
    if as_json:
        told: dict[str, Any] = {
            "prompts": estimate.prompts,
            "answers": dict(estimate.answers),
            "costs_usd": dict(estimate.costs),
            "grades": estimate.grades,
            "judge_usd": estimate.judge_cost,
            "cost_usd": estimate.cost,
            "spent_usd": estimate.spent,
            "imported": labelling.imported,
        }
        typer.echo(json.dumps(told, indent=1))
        return
    lines = [
        f"  {name}: {count} answers, about {estimate.costs[name]:.4f} USD"
        for name, count in estimate.answers.items()
    ]
    if estimate.grades:
        lines.append(
            f"  judge: {estimate.grades} verdicts, about {estimate.judge_cost:.4f} USD"
        )
    head = f"{estimate.prompts} of {len(labelling.items)} prompts are to be asked"
    if labelling.imported:
        head += f"; {labelling.imported} graded answers were in the log"
    lines = [head, *lines, f"  together about {estimate.cost:.4f} USD"]
    if estimate.spent:
        lines.append(f"  spent before: {estimate.spent:.4f} USD")
    if limit is not None:
        lines.append(f"  limit: {limit:.4f} USD")
    typer.echo("\n".join(lines), err=True)


def _confirm(estimate: "Estimate", *, given: bool) -> None:
    if given or not estimate.cost:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"this is expected to cost {estimate.cost:.4f} USD: pass --yes to begin"
        )
    typer.confirm("Begin?", abort=True, err=True)


def _show(found: "Collection", *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=1))
    else:
        from rich.table import Table

        from mixllm_integrations.cli.screen import console_of

        heads = ("candidate", "records", "mean quality", "95 % ±", "USD")
        table = Table(*heads, box=None)
        for name, labels in found.candidates.items():
            quality = "" if labels.quality is None else f"{labels.quality:.3f}"
            table.add_row(
                name,
                str(labels.records),
                quality,
                f"{labels.half_width:.3f}",
                f"{labels.cost:.4f}",
            )
        console_of().print(table)
        typer.echo(
            f"{found.written} records written to {found.file}, now "
            f"{len(found.records)}; {found.spent:.4f} USD spent"
        )
    _show_failures(found)


def _show_failures(found: "Collection") -> None:
    """Say on standard error what is missing."""
    if found.limit_reached:
        typer.echo(
            f"the spending limit ended it: {found.not_asked} answers were not asked "
            "for; raise --max-cost to go on",
            err=True,
        )
    elif found.not_asked:
        typer.echo(f"{found.not_asked} answers were not needed", err=True)
    if not found.failures:
        return
    lines = [
        f"  prompt {failure.prompt}, {failure.candidate}: {failure.reason}"
        for failure in found.failures[:_SHOWN_FAILURES]
    ]
    if len(found.failures) > _SHOWN_FAILURES:
        lines.append(f"  and {len(found.failures) - _SHOWN_FAILURES} more (--json)")
    head = f"{len(found.failures)} answers failed; the same command tries them again:"
    typer.echo("\n".join([head, *lines]), err=True)
