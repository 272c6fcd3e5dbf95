"""`mixllm report`: what the router did, as one page that opens anywhere."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixllm_integrations.cli.inspect import moment
from mixllm_integrations.cli.options import (
    JsonFlag,
    SkipOption,
    at_work,
    command_app,
    load_router,
    opened_store,
    print_json,
    read_records,
    usd,
)
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.plots.console import printable

if TYPE_CHECKING:
    from mixllm_integrations.report.comparison import Comparison
    from mixllm_integrations.report.full import RecordedCurve, Report
    from mixllm_integrations.report.overview import CandidateOverview
    from mixllm_integrations.store import EventStore

__all__ = ["app", "report"]

app = command_app("report")

_EXAMPLES = """
[bold]Examples[/bold]

  mixllm report sqlite:///mixllm.db -o report.html

  mixllm report mixllm.db --since 7d --reference gpt-5

  mixllm report mixllm.db --serve --port 8765

  mixllm report mixllm.db -r router --records records.jsonl -o report.html

Exit codes: 0 it was made, 2 the log or an option cannot be used.
"""


@app.command(epilog=_EXAMPLES)
def report(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE_URL",
            help="The event log: sqlite:///mixllm.db, the path of that file, or "
            "postgresql+psycopg://user@host/database.",
        ),
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write it.")
    ] = Path("report.html"),
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="NAME",
            help="The candidate that costs are compared with; by default the one of "
            "which most quality is expected.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="WHEN", help="Only decisions from then on: 7d, a date."
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="WHEN", help="Only decisions before then."),
    ] = None,
    records: Annotated[
        Path | None,
        typer.Option(
            "--records",
            metavar="FILE",
            help="Labelled answers for a curve where nothing is estimated; needs "
            "--router.",
        ),
    ] = None,
    router: Annotated[
        Path | None,
        typer.Option("--router", "-r", metavar="FOLDER", help="Of that curve."),
    ] = None,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve", help="Show it at http://127.0.0.1 and keep it up to date."
        ),
    ] = False,
    port: Annotated[
        int,
        typer.Option(
            "--port",
            min=0,
            max=65_535,
            metavar="N",
            help="Of --serve; 0: any free one.",
        ),
    ] = 8_765,
    json_wanted: JsonFlag = False,
    skip_bad_rows: SkipOption = False,
) -> None:
    """Write one HTML page on cost, quality, latency, drift and regret."""
    if (records is None) != (router is None):
        raise ConfigurationError(
            "--records and --router go together: the curve is that router's on those "
            "records"
        )
    recorded = None
    if records is not None and router is not None:
        recorded = _recorded(records, router, skip_bad_rows=skip_bad_rows)
    now = datetime.now(UTC)
    for what, text in (("--since", since), ("--until", until)):
        if text is not None:
            moment(text, now=now, what=what)
    with opened_store(store) as log:
        make = _maker(log, _shown(store), reference, since, until, recorded)
        if serve:
            _serve(log, make, port)
            return
        with at_work("reading the log"):
            made = make()
    if json_wanted:
        print_json(made.to_json())
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    page = made.to_html()
    output.write_text(page, encoding="utf-8", errors="replace")
    if made.comparison is not None:
        typer.echo(printable(_finding(made.comparison, made.overview.total)))
    typer.echo(f"wrote {output} ({len(page) / 1e3:,.0f} kB)")


def _finding(found: "Comparison", total: "CandidateOverview") -> str:
    """Return what a page says first, in one line."""
    how = " by the router's own predictions" if found.model_only else ""
    count = total.decisions
    spent = f"{count:,} decision{'s' * (count != 1)} cost {usd(total.cost)} USD"
    share = found.saved.value
    if not math.isfinite(share):
        return spent
    than = f"{abs(share):.0%} {'less' if share >= 0 else 'more'} than always asking"
    return f"{spent},{how} {than} {found.reference}"


def _maker(
    log: "EventStore",
    source: str,
    reference: str | None,
    since: str | None,
    until: str | None,
    recorded: "RecordedCurve | None",
) -> "Callable[[], Report]":
    from mixllm_integrations.report.full import make_report
    from mixllm_integrations.report.traffic import read_traffic

    def make() -> "Report":
        now = datetime.now(UTC)
        start, end = (
            None if text is None else moment(text, now=now, what=what)
            for what, text in (("--since", since), ("--until", until))
        )
        traffic = read_traffic(log, since=start, until=end)
        return make_report(
            traffic, source=source, reference=reference, recorded=recorded
        )

    return make


def _shown(store: str) -> str:
    """Return a store's address without what nobody should see."""
    if "://" not in store:
        return store
    from sqlalchemy import make_url

    return make_url(store).render_as_string(hide_password=True)


def _serve(log: "EventStore", make: "Callable[[], Report]", port: int) -> None:
    from mixllm_integrations.report.live import LivePage, serve

    def news() -> object:
        last = getattr(log, "last_sequence", None)
        return last() if callable(last) else sum(1 for _ in log.events())

    def ready(address: str) -> None:
        typer.echo(f"the report is at {address} (Ctrl-C ends it)", err=True)

    with at_work("reading the log"):
        make()  # what is wrong is told before anybody looks
    try:
        page = LivePage(lambda: make().to_html(live=True), news)
        serve(page, port=port, ready=ready)
    except OSError as error:
        raise ConfigurationError(
            f"port {port} cannot be used ({error.strerror}): pass another --port, or 0 "
            "for any that is free"
        ) from error


def _recorded(file: Path, folder: Path, *, skip_bad_rows: bool) -> "RecordedCurve":
    from mixllm_integrations.benchmark.judged import judge_router
    from mixllm_integrations.report.full import RecordedCurve

    judged = load_router(folder)
    found, ids, _ = read_records(file, skip_bad_rows=skip_bad_rows)
    with at_work("asking the router"):
        result = judge_router(judged, found, query_ids=ids)
    return RecordedCurve(
        source=file.name,
        lines=(
            ("the router at other λ", "ours", result.curve),
            ("random mix of two candidates", "mix", result.mix),
            ("best choice, if all answers were known", "bound", result.oracle_curve),
        ),
        points=tuple((s.name, s.cost.value, s.quality.value) for s in result.singles),
        now=(result.now.cost.value, result.now.quality.value),
        queries=result.queries,
    )
