"""`mixllm collect`: from one's own prompts to records that a router learns from."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixllm_integrations.cli.options import (
    JsonFlag,
    SkipOption,
    command_app,
    next_step,
    print_json,
    tell,
    usd,
)
from mixllm_integrations.core.errors import ConfigurationError

if TYPE_CHECKING:
    from mixllm_integrations.training import Collection, Estimate, Labelling

__all__ = ["INCOMPLETE", "LIMIT_REACHED", "app", "collect"]

#: Exit codes beside 0 and 2, which is an error before anything was asked.
INCOMPLETE, LIMIT_REACHED = 3, 4

_INTERRUPTED = 130  # as a shell says it
_SHOWN_FAILURES = 20

app = command_app("collect")

_EXAMPLES = """
[bold]Examples[/bold]

  mixllm collect prompts.jsonl -c candidates.toml --estimate

  mixllm collect prompts.jsonl -c candidates.toml --max-cost 5 -o records.jsonl

  mixllm collect log.jsonl -o records.jsonl

[bold]prompts.jsonl[/bold]: one object a line

  {"prompt": "What is 17 * 23?", "reference": "391"}

  {"prompt": "Write to a late customer."}

What has no reference is graded by the judge. [bold]candidates.toml[/bold]:

  \\[\\[candidates]]

  model = "openai:gpt-4o-mini"

  name = "small"

  api_key_env = "OPENAI_API_KEY"

  arguments = { base_url = "https://api.openai.com/v1" }

  \\[judge]

  model = "openai:gpt-4o"

One table \\[\\[candidates]] for each model; arguments are those of its class. A
model without a list price needs both input_cost_per_million_tokens and
output_cost_per_million_tokens, in USD.

Run it again to go on after an interruption: nothing is paid for twice.

Exit codes: 0 all is there, 2 something cannot be used (nothing was asked),
3 answers or grades are missing, 4 the spending limit ended it.
"""


@app.command(epilog=_EXAMPLES)
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
            metavar="FILE",
            help="The models (.toml, .json); without it only graded answers of the "
            "log are taken.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            "--out",
            metavar="FILE",
            help="Where the records go (.jsonl).",
        ),
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
        typer.Option(
            "--sample",
            "-n",
            min=1,
            metavar="N",
            help="Only so many prompts, by lot.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of that lot.")] = 0,
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
        int,
        typer.Option("--concurrency", min=1, metavar="N", help="Calls at once."),
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
        int,
        typer.Option(
            "--max-output-tokens", min=1, metavar="N", help="The longest answer."
        ),
    ] = 2048,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            metavar="FILE",
            help="What was paid for; beside the records, if not given.",
        ),
    ] = None,
    skip_bad_rows: SkipOption = False,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", "-y", help="Do not ask before money is spent, nor need a terminal."
        ),
    ] = False,
    only_estimate: Annotated[
        bool,
        typer.Option(
            "--estimate", help="Say what it would cost, ask nobody, and leave."
        ),
    ] = False,
    json_wanted: JsonFlag = False,
) -> None:
    """Label your own traffic: all models answer, the answers are graded."""
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
    if not code:
        next_step(f"mixllm fit {out} -c {candidates} -o router")
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
        print_json({"file": str(out), "written": written, "records": held})
    else:
        typer.echo(f"{written} graded answers written to {out}, which holds {held}")


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
        print_json(told)
        return
    lines = [
        f"  {name}: {count} answers, about {usd(estimate.costs[name])} USD"
        for name, count in estimate.answers.items()
    ]
    if estimate.grades:
        lines.append(
            f"  judge: {estimate.grades} verdicts, about {usd(estimate.judge_cost)} USD"
        )
    head = f"{estimate.prompts} of {len(labelling.items)} prompts are to be asked"
    if labelling.imported:
        head += f"; {labelling.imported} graded answers were in the log"
    total = f"  together about {usd(estimate.cost)} USD"
    if estimate.assumed_tokens:
        total += f", if answers have {estimate.assumed_tokens} tokens; none is known"
    lines = [head, *lines, total]
    if estimate.spent:
        lines.append(f"  spent before: {usd(estimate.spent)} USD")
    if limit is not None:
        lines.append(f"  limit: {usd(limit)} USD")
    tell("\n".join(lines))


def _confirm(estimate: "Estimate", *, given: bool) -> None:
    if given or not estimate.cost:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"this is expected to cost {usd(estimate.cost)} USD: pass --yes to begin"
        )
    typer.confirm("Begin?", abort=True, err=True)


def _show(found: "Collection", *, as_json: bool) -> None:
    if as_json:
        print_json(found.as_json())
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
                usd(labels.cost),
            )
        console_of().print(table)
        typer.echo(
            f"{found.written} records written to {found.file}, which holds "
            f"{len(found.records)}; {usd(found.spent)} USD spent"
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
    alike: dict[tuple[str, str], list[str]] = {}
    for failure in found.failures:
        prompts = alike.setdefault((failure.candidate, failure.reason), [])
        prompts.append(str(failure.prompt))
    lines = []
    for (candidate, reason), prompts in alike.items():
        shown = ", ".join(prompts[:_SHOWN_FAILURES])
        if len(prompts) > _SHOWN_FAILURES:
            shown += f" and {len(prompts) - _SHOWN_FAILURES} more (--json)"
        number = "prompt" if len(prompts) == 1 else "prompts"
        lines.append(f"  {candidate}: {reason} ({number} {shown})")
    head = f"missing records: {len(found.failures)}; the same command tries again:"
    tell("\n".join([head, *lines]))
