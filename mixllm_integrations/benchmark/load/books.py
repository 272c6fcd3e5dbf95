"""What the event log says of a run: each decision, its one outcome, the money."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from mixllm_integrations.store import Event

__all__ = ["Books", "books_of"]


@dataclass(frozen=True, slots=True)
class Books:
    """What an event log adds up to.

    Parameters
    ----------
    decisions, outcomes
        How many.
    without_outcome
        Decisions of which nothing was heard any more.
    with_several
        Decisions with more than one outcome, or that were logged twice.
    unknown
        Outcomes of decisions that were never logged.
    failed
        Outcomes with an error.
    cost
        USD of all outcomes.
    """

    decisions: int
    outcomes: int
    without_outcome: int
    with_several: int
    unknown: int
    failed: int
    cost: float


def books_of(events: Iterable[Event]) -> Books:
    """Return what an event log adds up to.

    Parameters
    ----------
    events
        All of it.

    Returns
    -------
    Books
        Its sums.

    Examples
    --------
    >>> books_of([]).decisions
    0
    """
    decisions: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    costs, failed = [], 0
    for event in events:
        if event.kind == "decision":
            decisions[event.decision_id] += 1
        elif event.kind == "outcome":
            outcomes[event.decision_id] += 1
            costs.append(event.payload["cost"] or 0.0)
            failed += event.payload["error"] is not None
    several = [c for counts in (decisions, outcomes) for c in counts.values() if c > 1]
    return Books(
        decisions=decisions.total(),
        outcomes=outcomes.total(),
        without_outcome=len(decisions.keys() - outcomes.keys()),
        with_several=len(several),
        unknown=len(outcomes.keys() - decisions.keys()),
        failed=failed,
        cost=math.fsum(costs),
    )
