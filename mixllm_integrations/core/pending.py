"""A decision that awaits its outcome and its feedback, and the row it is saved as.

Beside `ledger`, which keeps them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.errors import StateFormatError
from mixllm_integrations.core.types import (
    IMPLICIT_SIGNALS,
    Feedback,
    FeedbackKind,
    ImplicitSignal,
    Outcome,
)

__all__ = ["PendingDecision", "bit_of", "pending_from", "pending_row", "read_rows"]

_TOLD = ("outcome", *get_args(FeedbackKind), *IMPLICIT_SIGNALS)
_NUMBERS = ("predicted_quality", "predicted_output_tokens")


@dataclass(slots=True, eq=False)
class PendingDecision:
    """What a decision was based on, and what was heard of it so far.

    Parameters
    ----------
    decision_id, candidate
        Which decision, and whom it chose.
    predicted_quality
        Of the offline head alone, before any online correction: what the
        residual of a reward is taken against.
    predicted_output_tokens, input_tokens, token_cost
        Expected length of the answer, length of the prompt, and the expected
        cost (USD), before any online correction, as the quality is.
    context
        Context vector of the query, float32, shape ``(dimension,)``. The
        prompt itself is not kept.
    version
        Of the knowledge that the context and the prediction belong to.
    revision
        Of the offline heads that made the prediction.
    made_at
        When, by the ledger's clock; `DecisionLedger.put` sets it.
    outcome, feedback, signals
        What has come in: one outcome, one feedback of each kind, and what the
        traffic itself tells of the answer.
    unheard
        Which of these were told here and have not been heard in a log yet: see
        `bit_of`.
    """

    decision_id: str
    candidate: str
    predicted_quality: float
    predicted_output_tokens: float
    input_tokens: int
    token_cost: float
    context: NDArray[np.float32]
    version: int = 0
    revision: int = 0
    made_at: float = 0.0
    outcome: Outcome | None = None
    feedback: dict[FeedbackKind, Feedback] = field(default_factory=dict)
    signals: set[ImplicitSignal] = field(default_factory=set)
    unheard: int = 0


def bit_of(told: str) -> int:
    """Return the bit that stands for something told of a decision.

    Parameters
    ----------
    told
        ``"outcome"``, a kind of feedback, or a signal; nothing stands for others.
    """
    return 1 << _TOLD.index(told) if told in _TOLD else 0


def pending_row(pending: PendingDecision, now: float) -> dict[str, Any]:
    """Return a row that JSON can hold; the context goes another way.

    Parameters
    ----------
    pending
        The decision.
    now
        Time by the ledger's clock: the row has an age.
    """
    return {
        "decision_id": pending.decision_id,
        "candidate": pending.candidate,
        "predicted_quality": float(pending.predicted_quality),
        "predicted_output_tokens": float(pending.predicted_output_tokens),
        "input_tokens": int(pending.input_tokens),
        "token_cost": _or_none(pending.token_cost),
        "version": int(pending.version),
        "revision": int(pending.revision),
        "age_seconds": float(now - pending.made_at),
        "outcome": None if pending.outcome is None else asdict(pending.outcome),
        "feedback": [asdict(f) for f in pending.feedback.values()],
        "signals": sorted(pending.signals),
        "unheard": int(pending.unheard),
    }


def pending_from(
    row: Mapping[str, Any], context: NDArray[np.float32], now: float
) -> PendingDecision:
    """Return the decision of a row.

    Parameters
    ----------
    row, context
        What was saved.
    now
        Time by the ledger's clock.

    Raises
    ------
    StateFormatError, LookupError, TypeError, ValueError, ArithmeticError
        If it is damaged.
    """
    numbers: dict[str, Any] = {name: float(row[name]) for name in _NUMBERS}
    age, cost = float(row["age_seconds"]), row["token_cost"]
    checked = (*numbers.values(), age, *context, 0.0 if cost is None else float(cost))
    if not all(map(math.isfinite, checked)):
        raise StateFormatError("a pending decision has a number that is not finite")
    told = [Feedback(**f) for f in row["feedback"]]
    signals = set(row["signals"])
    if not signals <= set(IMPLICIT_SIGNALS):
        raise StateFormatError("a pending decision has an unknown signal")
    return PendingDecision(
        decision_id=str(row["decision_id"]),
        candidate=str(row["candidate"]),
        input_tokens=int(row["input_tokens"]),
        token_cost=math.nan if cost is None else float(cost),
        version=int(row["version"]),
        revision=int(row["revision"]),
        context=context.copy(),
        made_at=now - age,
        outcome=None if row["outcome"] is None else Outcome(**row["outcome"]),
        feedback={f.kind: f for f in told},
        signals=signals,
        unheard=int(row.get("unheard", 0)),
        **numbers,
    )


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def read_rows(
    rows: Sequence[Mapping[str, Any]], contexts: NDArray[np.float32], now: float
) -> tuple[list[PendingDecision], int]:
    """Return the decisions of rows, and how many are damaged.

    Parameters
    ----------
    rows, contexts
        What was saved.
    now
        Time by the ledger's clock.

    Raises
    ------
    StateFormatError
        If there is not one context per row.
    """
    vectors = np.asarray(contexts, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(rows):
        raise StateFormatError(
            f"{len(rows)} pending decisions need a context each, but their "
            f"matrix has shape {vectors.shape}"
        )
    found = []
    for row, context in zip(rows, vectors, strict=True):
        try:
            found.append(pending_from(row, context, now))
        except (LookupError, TypeError, ValueError, ArithmeticError):
            continue
    return found, len(rows) - len(found)
