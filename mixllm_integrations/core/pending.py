"""A decision that awaits its outcome and its feedback, and the row it is saved as.

Beside `ledger`, which keeps them.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

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

__all__ = ["PendingDecision", "pending_from", "pending_row"]

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
    numbers = {name: float(row[name]) for name in _NUMBERS}
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
        **numbers,
    )


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
