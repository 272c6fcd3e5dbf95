"""How `mixllm inspect` looks: tables of what happened, and of what might have."""

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from mixllm_integrations.cli.options import usd
from mixllm_integrations.core.offpolicy import Evaluation, Interval
from mixllm_integrations.report.overview import CandidateOverview, Overview
from mixllm_integrations.report.what_if import WhatIf

__all__ = ["show_overview", "show_what_if"]

_PER = 1_000.0  # decisions that a cost is told for
_RARE = {"errors": "er-\nrors", "drifts": "drifts"}


def show_overview(console: Console, seen: Overview) -> None:
    """Show what happened, candidate by candidate.

    Parameters
    ----------
    console
        Where to.
    seen
        What happened; at least one decision.
    """
    console.print(_window(seen))
    heads = ["deci-\nsions", "share", "quality\nexpected", "told\n(by)"]
    heads += ("cost\nUSD", "USD per\n1,000", "ex-\nplored")
    # What did not happen has no column: a terminal has but 80.
    rare = [name for name in _RARE if getattr(seen.total, name)]
    table = _table("candidate", [*heads, *(_RARE[name] for name in rare)])
    for row in (*seen.candidates, seen.total):
        if row is seen.total:
            table.add_section()
        table.add_row(*_cells(row), *(f"{getattr(row, name):,}" for name in rare))
    console.print(table)
    notes = [f"{seen.randomised:.1%} of the decisions were left to chance"]
    counts = {
        "answers came from a cache": seen.total.cached,
        "calls were given up": seen.total.abandoned,
        "outcomes or feedback speak of decisions that are not here": seen.unmatched,
        "events could not be read": seen.unreadable,
    }
    notes += [f"{count:,} {what}" for what, count in counts.items() if count]
    console.print("; ".join(notes) + ".", style="dim")


def show_what_if(console: Console, seen: Overview, results: Sequence[WhatIf]) -> None:
    """Show what other policies would have earned and cost.

    Parameters
    ----------
    console
        Where to.
    seen
        What happened.
    results
        What might have; at least one.
    """
    console.print(_window(seen))
    first = results[0].evaluation
    console.print(
        f"{first.n_decisions:,} decisions are replayed, {first.n_feedback:,} of them "
        f"have feedback{_left_out(results[0])}. ±: 95 % confidence."
    )
    heads = ["quality", "change", "USD per\n1,000", "change", "net\ngain"]
    heads += ("goes\nelse-\nwhere", "effec-\ntive\nsample")
    table = _table("policy", heads)
    logged = first.logged
    table.add_row(
        "as logged", _mean(logged.reward), "", _mean(logged.cost, _PER), *[""] * 3
    )
    for result in results:
        only = " (model only)" if result.evaluation.doubly_robust is None else ""
        table.add_row(f"{result.target}{only}", *_result(result.evaluation))
    console.print(table)
    if any(result.evaluation.ips is not None for result in results):
        console.print(_estimators(results))
    for note in _notes(results):
        console.print(note, style="yellow")
    worth = results[-1].willingness_to_pay
    if results[-1].target.willingness_to_pay is None:
        note = f"the policy's own λ, or the log's ({worth:g} USD) where it has none"
    else:
        note = "the policy's own λ"
    net = f"Net gain: in quality, the cost weighed at {note}."
    console.print(f"λ: the willingness to pay, in USD. {net}", style="dim")
    console.print(
        "Feedback is assumed to be missing at random among the answers of one "
        "candidate: if unhappy users speak more often, quality is better than this.",
        style="dim",
    )


def _window(seen: Overview) -> str:
    ends = [f"{at:%F %H:%M}" for at in (seen.first, seen.last) if at is not None]
    count = seen.total.decisions
    return f"{count:,} decision{'s' * (count != 1)}, {' to '.join(ends)} UTC"


def _table(first: str, heads: Sequence[str]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", collapse_padding=True
    )
    table.add_column(first, overflow="fold", min_width=10)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _cells(row: CandidateOverview) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.decisions:,}",
        f"{row.share:.1%}",
        _or_dash(row.predicted_quality),
        f"{_or_dash(row.reward)}\n({row.feedback:,})",
        usd(row.cost),
        "-" if row.mean_cost is None else f"{_PER * row.mean_cost:.3g}",
        f"{row.explored:.1%}",
    )


def _result(found: Evaluation) -> tuple[str, ...]:
    best = found.best
    elsewhere = round(found.elsewhere * found.n_decisions)
    return (
        _mean(best.reward),
        _change(best.reward_change),
        _mean(best.cost, _PER),
        _change(best.cost_change),
        _spans(best.net_gain, "+.3f"),
        f"{elsewhere:,}\n{found.elsewhere:.1%}",
        "-" if found.doubly_robust is None else f"{found.effective_sample_size:,.0f}",
    )


def _estimators(results: Sequence[WhatIf]) -> Table:
    kinds = ("IPS", "SNIPS", "model")
    heads = [f"{what}\n{kind}" for what in ("quality", "USD/1,000") for kind in kinds]
    table = _table("policy", heads)
    table.title = "By inverse propensity, self-normalised too, and by the model alone"
    for result in results:
        found = result.evaluation
        ways = (found.ips, found.snips, found.direct)
        table.add_row(
            str(result.target),
            *("-" if way is None else _mean(way.reward) for way in ways),
            *("-" if way is None else _mean(way.cost, _PER) for way in ways),
        )
    return table


def _left_out(result: WhatIf) -> str:
    reasons = [f"{count:,} {why}" for why, count in result.left_out.items()]
    return f"; left out: {', '.join(reasons)}" if reasons else ""


def _notes(results: Sequence[WhatIf]) -> list[str]:
    said: dict[str, list[str]] = {}
    for result in results:
        for warning in result.evaluation.warnings:
            said.setdefault(warning, []).append(str(result.target))
        if result.unavailable:
            stays = f"{result.unavailable:,} decisions could not have been so, and stay"
            said.setdefault(stays, []).append(str(result.target))
    return [f"{'; '.join(whom)}: {what}." for what, whom in said.items()]


def _mean(found: Interval, times: float = 1.0) -> str:
    return _spans(found, ".3f" if times == 1.0 else ".3g", times)


def _change(found: Interval) -> str:
    return _spans(found, "+.1%")


def _spans(found: Interval, form: str, times: float = 1.0) -> str:
    """Return an estimate, and beneath it how far the truth may be from it."""
    if math.isnan(found.value):
        return "-"
    value = format(times * found.value, form)
    if math.isnan(found.high):
        return value
    return f"{value}\n± {format(times * (found.high - found.value), form.lstrip('+'))}"


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
