"""Shows what `mixllm benchmark online` found: tables, goals, and figures."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mixllm_integrations.benchmark.online.goals import goals
from mixllm_integrations.benchmark.online.results import (
    IDLE,
    WINDOW,
    OnlineResult,
    OnlineRun,
    Spread,
)
from mixllm_integrations.core.types import FloatArray
from mixllm_integrations.plots.learning import (
    LearningLine,
    LearningPanel,
    plot_learning,
)

__all__ = ["plot_online", "print_online"]

# Heading, field, and how a mean and its spread are shown.
_Shown = Callable[[Spread], str]
_COLUMNS: Sequence[tuple[str, str, _Shown]] = (
    ("reward beyond\nno-online", "gain", lambda s: f"{s[0]:+.1f} ± {s[1]:.1f}"),
    ("regret", "regret", lambda s: f"{s[0]:.1f} ± {s[1]:.1f}"),
    ("quality", "quality", lambda s: f"{s[0]:.4f}"),
    ("USD per\n1,000", "cost", lambda s: f"{1e3 * s[0]:.3f}"),
    (
        "quality at\nequal cost",
        "equal_cost",
        lambda s: f"{s[0]:+.2%} ± {s[1]:.2%}",
    ),
    (
        "held out: at\nequal cost",
        "test_equal_cost",
        lambda s: f"{s[0]:+.2%} ± {s[1]:.2%}",
    ),
    ("levels", "test_levels", lambda s: f"{s[0]:+.2%}"),
    ("AIQ", "test_aiq", lambda s: f"{s[0]:+.4f}"),
    ("reward", "test_reward", lambda s: f"{s[0]:.4f}"),
)
_NOT_DRAWN = {"ours, no refit", "in hindsight"}
_BOUNDS = {"full information", "in hindsight"}
_FOLLOWED = ("newcomer", "leaver", "degraded", "price-cut")


def print_online(result: OnlineResult, console: Console) -> None:
    """Print a table per stream, and the goals.

    Parameters
    ----------
    result
        What was measured.
    console
        Where to.
    """
    console.print(
        f"{result.data}: {result.n_queries:,} queries, "
        f"{len(result.candidates)} candidates, newcomer {result.newcomer}, "
        f"{len(result.seeds)} seeds. One point of quality is worth "
        f"{result.willingness_to_pay:g} USD ({result.willingness_rule}). The reward "
        "of a query is quality − cost / that. Mean ± spread over the seeds."
    )
    console.print(
        "Reward and regret (against a router in hindsight) are sums over the stream, "
        "in points of quality. Quality at equal cost is relative to what no-online "
        "reaches at the learner's cost. Held out, after the stream: quality at "
        "no-online's cost, mean over levels of the cost, AIQ, each beyond no-online, "
        "and mean reward."
    )
    for stream in result.streams:
        console.print(_table(result, stream))
    console.print(_goal_table(result))


def plot_online(result: OnlineResult, file: Path) -> list[Path]:
    """Draw rewards, regret and shares of the traffic over the streams.

    Parameters
    ----------
    result
        What was measured.
    file
        Where to: ``NAME-reward``, ``NAME-regret`` and ``NAME-share`` beside each
        other; without an ending, both as PNG and SVG.

    Returns
    -------
    list of Path
        The files that were written.
    """
    endings = [file.suffix] if file.suffix else [".png", ".svg"]
    written = []
    for what, title, panels in (
        ("reward", "cumulative reward beyond no-online", _rewards(result)),
        ("regret", "regret against a router in hindsight", _regrets(result)),
        ("share", "share of the traffic", _shares(result)),
    ):
        if not panels:
            continue
        files = [file.with_name(f"{file.stem}-{what}{e}") for e in endings]
        n_seeds = len(result.seeds)
        plot_learning(
            panels, files, title=f"{result.data}: {title} (mean of {n_seeds} seeds)"
        )
        written += files
    return written


def _table(result: OnlineResult, stream: str) -> Table:
    n_steps = next(run.n_steps for run in result.runs if run.stream == stream)
    table = Table(title=f"{stream}: {n_steps:,} queries", title_justify="left")
    table.add_column("learner", no_wrap=True)
    for heading, _, _ in _COLUMNS:
        table.add_column(heading, justify="right")
    for learner in result.learners:
        if not result.of(stream, learner):
            continue
        cells = []
        for _, field, shown in _COLUMNS:
            found = result.spread(stream, learner, field)
            cells.append("-" if found is None else shown(found))
        usual = "bold" if learner == "ours" else ""
        table.add_row(learner, *cells, style="dim" if learner in _BOUNDS else usual)
    return table


def _goal_table(result: OnlineResult) -> Table:
    table = Table(title="Goals", title_justify="left")
    table.add_column("goal")
    for head in ("target", "measured"):
        table.add_column(head, justify="right")
    table.add_column("reached")
    for goal in goals(result):
        style = "" if goal.reached else "yellow"
        reached = "yes" if goal.reached else "no"
        table.add_row(goal.what, goal.target, goal.measured, reached, style=style)
    return table


def _rewards(result: OnlineResult) -> list[LearningPanel]:
    return _panels(result, IDLE, sign=1.0, unit="points of quality")


def _regrets(result: OnlineResult) -> list[LearningPanel]:
    return _panels(result, "in hindsight", sign=-1.0, unit="points of quality")


def _panels(
    result: OnlineResult, base: str, *, sign: float, unit: str
) -> list[LearningPanel]:
    """Return a panel per stream: sums of rewards beyond those of somebody."""
    panels = []
    for stream in result.streams:
        beside = {run.seed: run for run in result.of(stream, base)}
        lines = []
        for learner in result.learners:
            runs = [r for r in result.of(stream, learner) if r.seed in beside]
            if not runs or learner == base or learner in _NOT_DRAWN:
                continue
            sums = [sign * _ahead(run, beside[run.seed]) for run in runs]
            lines.append(_line(learner, runs[0].n_steps, sums))
        if lines:
            turning = _turning(result, stream)
            panels.append(LearningPanel(stream, unit, lines, turning, zero=True))
    return panels


def _shares(result: OnlineResult) -> list[LearningPanel]:
    panels = []
    for stream in result.streams:
        if stream not in _FOLLOWED:
            continue
        lines = []
        for learner in result.learners:
            runs = result.of(stream, learner)
            if runs and learner not in _NOT_DRAWN:
                shares = [np.asarray(run.focus_shares) for run in runs]
                lines.append(_line(learner, runs[0].n_steps, shares, start=None))
        if lines:
            focus = {run.focus for run in result.runs if run.stream == stream}
            who = focus.pop() if len(focus) == 1 else "its favourite"
            unit = f"share of {who}"
            panels.append(LearningPanel(stream, unit, lines, _turning(result, stream)))
    return panels


def _turning(result: OnlineResult, stream: str) -> int | None:
    run = next(run for run in result.runs if run.stream == stream)
    return run.turning if run.turning < run.n_steps else None


def _ahead(run: OnlineRun, base: OnlineRun) -> FloatArray:
    """Return the sum of rewards beyond another's, after each window."""
    difference = np.asarray(run.rewards) - np.asarray(base.rewards)
    return np.cumsum(difference * np.diff(_ends(run.n_steps), prepend=0))


def _line(
    learner: str,
    n_steps: int,
    values: Sequence[FloatArray],
    *,
    start: float | None = 0.0,
) -> LearningLine:
    shortest = min(map(len, values))
    stacked = np.stack([v[:shortest] for v in values])
    at = _ends(n_steps)[:shortest].astype(float)
    mean, spread = stacked.mean(axis=0), stacked.std(axis=0)
    if start is None:
        at = at - WINDOW / 2
    else:
        at, mean = np.append(0.0, at), np.append(start, mean)
        spread = np.append(0.0, spread)
    role = "ours" if learner.startswith("ours") else "peer"
    if learner in _BOUNDS:
        role = "bound"
    if learner == IDLE:
        role = "idle"
    return LearningLine(
        learner,
        at.tolist(),
        mean.tolist(),
        role,  # type: ignore[arg-type]
        spread.tolist() if learner == "ours" else None,
    )


def _ends(n_steps: int) -> FloatArray:
    return np.append(np.arange(WINDOW, n_steps, WINDOW), n_steps)
