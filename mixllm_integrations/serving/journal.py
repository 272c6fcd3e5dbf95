"""Writes what happened to an event store; never what was asked or answered.

Answering goes first: a store that fails is reported once in the log, and the
call goes on.
"""

import logging
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from mixllm_integrations.core.types import Decision, FeedbackKind, Outcome

if TYPE_CHECKING:
    from mixllm_integrations.store import EventStore

__all__ = ["Journal"]

_log = logging.getLogger(__name__)


class Journal:
    """The event log of one dispatcher.

    Parameters
    ----------
    store
        Where events go.
    """

    __slots__ = ("__weakref__", "_told", "store")

    def __init__(self, store: "EventStore") -> None:
        self.store = store
        self._told = False

    @classmethod
    def open(cls, store: "EventStore | str | None") -> "Journal | None":
        """Return a journal over a store, or ``None`` without one.

        Parameters
        ----------
        store
            ``None``, a URL, or a store. One that is opened here is closed with
            the journal.

        Returns
        -------
        Journal or None
            The journal.

        Raises
        ------
        ConfigurationError
            If the URL cannot be used.
        """
        if store is None:
            return None
        from mixllm_integrations.store import open_store

        opened = open_store(store)
        if opened is None:
            return None
        journal = cls(opened)
        if isinstance(store, str):  # nobody else has it, so nobody else closes it
            weakref.finalize(journal, opened.close)
        return journal

    def decision(self, decision: Decision) -> None:
        """Log a decision.

        Parameters
        ----------
        decision
            What was decided.
        """
        expected = decision.prediction
        self._append(
            "decision",
            decision.id,
            {
                "candidate": decision.candidate,
                "predicted_quality": float(expected.quality),
                "predicted_cost": float(expected.cost),
                "predicted_output_tokens": float(expected.output_tokens),
                "willingness_to_pay": float(decision.willingness_to_pay),
                "exploration": float(decision.exploration),
                "waiting_weight": float(decision.waiting_weight),
                "explored": bool(decision.explored),
                "propensity": float(decision.propensity),
                "input_tokens": int(decision.input_tokens),
                "excluded": dict(decision.excluded),
            },
        )

    def outcome(self, decision_id: str, outcome: Outcome) -> None:
        """Log what came of a decision.

        Parameters
        ----------
        decision_id
            Which decision.
        outcome
            What happened.
        """
        self._append(
            "outcome",
            decision_id,
            {
                "input_tokens": outcome.input_tokens,
                "output_tokens": outcome.output_tokens,
                "cost": outcome.cost,
                "latency_seconds": outcome.latency_seconds,
                "time_to_first_token_seconds": outcome.time_to_first_token_seconds,
                "error": outcome.error,
            },
        )

    def feedback(
        self, decision_id: str, reward: float, kind: FeedbackKind, source: str | None
    ) -> None:
        """Log feedback that the router had not seen before.

        Parameters
        ----------
        decision_id
            Which decision it speaks of.
        reward
            In [0, 1].
        kind
            ``"refined"`` or ``"binary"``.
        source
            Who says so.
        """
        self._append(
            "feedback",
            decision_id,
            {"reward": reward, "kind": kind, "source": source},
        )

    def _append(
        self,
        kind: Literal["decision", "outcome", "feedback"],
        decision_id: str,
        payload: Mapping[str, Any],
    ) -> None:
        try:
            self.store.append(kind, decision_id, payload)
        except Exception as error:  # noqa: BLE001 - a log must not stop an answer
            if not self._told:
                self._told = True
                _log.warning(
                    "events are not logged: the store failed with %s; "
                    "this is said once",
                    type(error).__name__,
                )
