"""Writes what happened to an event store; never what was asked or answered.

Answering goes first: events are written in the background, and a store that
fails is reported once in the log, and the call goes on.
"""

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mixllm_integrations.core.types import (
    Decision,
    FeedbackKind,
    Outcome,
    Prediction,
)
from mixllm_integrations.serving.background import BackgroundWriter
from mixllm_integrations.serving.writer import DirectWriter, Writer

if TYPE_CHECKING:
    from mixllm_integrations.store import EventStore

__all__ = ["Journal"]

# How long feedback waits until it is written; it stays in line after that.
_FEEDBACK_SECONDS = 10.0
_FLUSH_SECONDS = 30.0

# What a replay under another policy needs to know of every candidate.
_SCORES = ("quality", "cost", "uncertainty", "waiting_penalty")


class Journal:
    """The event log of one dispatcher.

    Parameters
    ----------
    store
        Where events go. They are written in the background if nobody else reads
        the store, or if it has a method ``wait_for(writer)``: that has to call
        ``writer.flush()`` before events are read and before the store is closed.
        Any other store, such as a list in memory, is written at once.
    owned
        Whether nobody else has the store: it is closed with the journal.
    """

    __slots__ = ("__weakref__", "_end", "_writer", "store")

    def __init__(self, store: "EventStore", *, owned: bool = False) -> None:
        self.store = store
        wait_for = getattr(store, "wait_for", None)
        at_end = store.close if owned else None
        append = partial(_append, store.append)
        self._writer: Writer
        if owned or wait_for is not None:
            self._writer = BackgroundWriter(append, at_end=at_end)
        else:
            self._writer = DirectWriter(append, at_end=at_end)
        if wait_for is not None:
            wait_for(self._writer)
        # At exit too.
        self._end = weakref.finalize(self, self._writer.close)

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
        return None if opened is None else cls(opened, owned=isinstance(store, str))

    def decision(
        self, decision: Decision, *, shadow: Mapping[str, Any] | None = None
    ) -> None:
        """Log a decision, with what was expected of every candidate.

        Parameters
        ----------
        decision
            What was decided.
        shadow
            What the router would have done, if another one was to answer.
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
                "scores": decision.scores,  # `_append` writes it out
                **({} if shadow is None else {"shadow": dict(shadow)}),
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
        """Log feedback that the router had not seen before, and wait until it is.

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
        payload = {"reward": reward, "kind": kind, "source": source}
        self._writer.put(("feedback", decision_id, payload), keep=True)
        self._writer.flush(_FEEDBACK_SECONDS)

    def drift(self, decision_id: str, payload: Mapping[str, Any]) -> None:
        """Log an alarm.

        Parameters
        ----------
        decision_id
            Of the decision that raised it.
        payload
            What it says.
        """
        self._writer.put(("drift", decision_id, payload), keep=True)

    def flush(self, timeout_seconds: float | None = _FLUSH_SECONDS) -> bool:
        """Wait until everything logged so far is in the store.

        Parameters
        ----------
        timeout_seconds
            How long; ``None``: as long as it takes.

        Returns
        -------
        bool
            False if it is not, in time or because the store fails.
        """
        return self._writer.flush(timeout_seconds)

    def close(self) -> None:
        """Write what is still to be written, for some seconds at most.

        A store that was opened here is closed. Closing twice is harmless; so is
        not closing, since it happens by itself when the journal is not used any
        more and when the process ends.
        """
        self._end()

    def _append(
        self,
        kind: Literal["decision", "outcome"],
        decision_id: str,
        payload: Mapping[str, Any],
    ) -> None:
        self._writer.put((kind, decision_id, payload))


def _append(
    append: Callable[..., object],
    kind: str,
    decision_id: str,
    payload: Mapping[str, Any],
) -> object:
    """Append an event; its scores are written out here, on the writer's thread."""
    if kind == "decision":
        payload = {**payload, "scores": _scores(payload["scores"])}
    return append(kind, decision_id, payload)


def _scores(scores: Mapping[str, Prediction]) -> dict[str, list[Any]]:
    """Return what was expected of each candidate, one list per quantity.

    Six digits are more than any prediction has, and half of the place.
    """
    expected = list(scores.values())
    columns = {
        name: [float(f"{getattr(one, name):.6g}") for one in expected]
        for name in _SCORES
    }
    return {"candidates": list(scores), **columns}
