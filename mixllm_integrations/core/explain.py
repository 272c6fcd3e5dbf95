"""A decision as a table that a person can read."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixllm_integrations.core.types import Decision

__all__ = ["COLUMNS", "explained", "explained_head", "explained_rows"]

COLUMNS = (
    "candidate",
    "quality",
    "tokens",
    "cost USD",
    "uncertainty",
    "waiting",
    "score",
    "why",
)
_UNUSUAL = 2.0  # times the usual squared distance


def explained(decision: "Decision") -> str:
    """Return why this candidate was chosen, and why the others were not.

    Parameters
    ----------
    decision
        To be explained.

    Returns
    -------
    str
        A line on the decision, then one per candidate: the chosen one, then
        the others by score.
    """
    rows = [COLUMNS, *explained_rows(decision)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *numbers, why in rows:
        cells = [c.rjust(w) for c, w in zip(numbers, widths[1:-1], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *cells, why]))
    return "\n".join((explained_head(decision), *lines))


def explained_head(decision: "Decision") -> str:
    """Return a line on the decision as a whole.

    Parameters
    ----------
    decision
        To be explained.
    """
    return (
        f"decision {decision.id}: {decision.candidate}"
        f"{' (exploring)' if decision.explored else ''}; one right answer more is "
        f"worth {decision.willingness_to_pay:g} USD, the prompt has about "
        f"{decision.input_tokens:,} tokens{_novelty(decision.novelty)}"
    )


def explained_rows(decision: "Decision") -> list[tuple[str, ...]]:
    """Return the cells of each candidate: the chosen one, then by score.

    Parameters
    ----------
    decision
        To be explained.

    Returns
    -------
    list of tuple of str
        One cell for each of `COLUMNS`.
    """
    scores = decision.scores
    ranked = sorted(scores, key=lambda name: -scores[name].score)
    ranked.sort(key=lambda name: name != decision.candidate)
    return [_row(decision, name) for name in ranked]


def _novelty(novelty: float) -> str:
    """Say how unusual the query is, if that can be told."""
    if math.isnan(novelty):
        return ""
    if novelty < _UNUSUAL:
        return f"; novelty {novelty:.1f} (1: as usual)"
    return f"; novelty {novelty:.1f}: unlike what was learned from, so less certain"


def _row(decision: "Decision", name: str) -> tuple[str, ...]:
    expected = decision.scores[name]
    wait = decision.waiting_weight * expected.waiting_penalty
    return (
        name,
        f"{expected.quality:.3f}",
        f"{expected.output_tokens:.0f}",
        f"{expected.cost:.6f}",
        f"{expected.uncertainty:.3f}",
        f"{-wait:+.3f}" if wait else "0",
        f"{expected.score:+.4f}" if math.isfinite(expected.score) else "-",
        _why(decision, name),
    )


def _why(decision: "Decision", name: str) -> str:
    if name == decision.candidate:
        if decision.propensity < 1.0:
            return f"drawn, with a probability of {decision.propensity:.2g}"
        return "chosen: highest score"
    if name in decision.excluded:
        return f"excluded: {decision.excluded[name]}"
    mine, theirs = decision.prediction, decision.scores[name]
    behind = mine.score - theirs.score
    if not behind > 0:
        return "same score: the cheaper one, then the first one declared, wins"
    if theirs.quality > mine.quality and theirs.cost > mine.cost:
        return f"better answer expected, but not worth its price ({-behind:+.4f})"
    if theirs.cost < mine.cost and theirs.quality < mine.quality:
        return f"cheaper, but a worse answer is expected ({-behind:+.4f})"
    if theirs.quality == mine.quality and theirs.cost > mine.cost:
        return f"as good, but dearer ({-behind:+.4f})"
    if theirs.quality < mine.quality:
        return f"neither better nor cheaper ({-behind:+.4f})"
    return f"no worse and no dearer, but busier or better known ({-behind:+.4f})"
