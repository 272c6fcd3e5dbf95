"""Writes what happened to an event store; never what was asked or answered.

Answering goes first: events are written in the background, and a store that
fails is reported once in the log, and the call goes on.
"""

import logging
import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mixllm_integrations.core.types import (
    Decision,
    FeedbackKind,
    Outcome,
    Prediction,
)
from mixllm_integrations.serving.background import BackgroundWriter
from mixllm_integrations.serving.spool import Spool, spool_folder
from mixllm_integrations.serving.writer import DirectWriter, Writer
from mixllm_integrations.store import NewEvent

if TYPE_CHECKING:
    from mixllm_integrations.store import EventStore

__all__ = ["Journal"]

_log = logging.getLogger(__name__)

HandedOver: TypeAlias = Mapping[str, Any] | Callable[[], Mapping[str, Any]]

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
    worker
        What this process is called in the payload of its events; ``None``: a
        name made up here. A forked child gets a new one.
    spool
        Folder where events wait on disk while the database is away; ``None``: the
        one of `mixllm_integrations.serving.spool.spool_folder`. Used by stores
        that have a ``fingerprint``: a name for their database, in which nothing
        is written twice.

    Attributes
    ----------
    store
        The same.
    worker
        What this process is called.
    """

    __slots__ = ("__weakref__", "_end", "_writer", "store", "worker")

    def __init__(
        self,
        store: "EventStore",
        *,
        owned: bool = False,
        worker: str | None = None,
        spool: "str | os.PathLike[str] | None" = None,
    ) -> None:
        self.store = store
        self.worker = _new_name() if worker is None else worker
        wait_for = getattr(store, "wait_for", None)
        at_end = store.close if owned else None
        append: Callable[..., object] = store.append
        append_many = getattr(store, "append_many", None)
        self._writer: Writer
        if owned or wait_for is not None:
            self._writer = BackgroundWriter(
                append,
                append_many=append_many,
                prepare=_written_out,
                spool=_spool_of(store, spool),
                at_end=at_end,
            )
        else:
            self._writer = DirectWriter(
                append, append_many=append_many, prepare=_written_out, at_end=at_end
            )
        if wait_for is not None:
            wait_for(self._writer)
        _JOURNALS.add(self)
        # At exit too.
        self._end = weakref.finalize(self, self._writer.close)

    @classmethod
    def open(
        cls,
        store: "EventStore | str | None",
        *,
        worker: str | None = None,
        spool: "str | os.PathLike[str] | None" = None,
    ) -> "Journal | None":
        """Return a journal over a store, or ``None`` without one.

        Parameters
        ----------
        store
            ``None``, a URL, or a store. One that is opened here is closed with
            the journal.
        worker, spool
            As for `Journal`.

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
        return cls(opened, owned=isinstance(store, str), worker=worker, spool=spool)

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, or its store was by somebody else."""
        return not self._end.alive or getattr(self.store, "is_closed", False) is True

    def decision(
        self,
        decision: Decision,
        *,
        shadow: Mapping[str, Any] | None = None,
        handed_over: HandedOver | None = None,
    ) -> None:
        """Log a decision, with what was expected of every candidate.

        Parameters
        ----------
        decision
            What was decided.
        shadow
            What the router would have done, if another one was to answer.
        handed_over
            What another worker needs to learn from it, or a function that
            returns that: it is called once, by whoever writes the event.
        """
        expected = decision.prediction
        others: dict[str, Any] = {}
        if shadow is not None:
            others["shadow"] = dict(shadow)
        if handed_over is not None:
            others["handed_over"] = (
                handed_over if callable(handed_over) else dict(handed_over)
            )
        self._put(
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
                "scores": decision.scores,  # `_written_out` does that
                **others,
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
        self._put(
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

        If the database is away, or does not answer within some seconds, it is on
        disk when this returns, where the store allows that.

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
        event = self._event("feedback", decision_id, payload)
        self._writer.put_safely(event, _FEEDBACK_SECONDS)

    def signal(self, decision_id: str, signal: str) -> None:
        """Log what the traffic itself says of an answer; nobody waits for it.

        Parameters
        ----------
        decision_id
            Which decision it speaks of.
        signal
            What was seen, for example ``"regenerate"``.
        """
        self._put("signal", decision_id, {"signal": signal}, keep=True)

    def drift(self, decision_id: str, payload: Mapping[str, Any]) -> None:
        """Log an alarm.

        Parameters
        ----------
        decision_id
            Of the decision that raised it.
        payload
            What it says.
        """
        self._put("drift", decision_id, dict(payload), keep=True)

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

    def _put(
        self,
        kind: str,
        decision_id: str,
        payload: dict[str, Any],
        *,
        keep: bool = False,
    ) -> None:
        self._writer.put(self._event(kind, decision_id, payload), keep=keep)

    def _event(self, kind: str, decision_id: str, payload: dict[str, Any]) -> NewEvent:
        payload["worker"] = self.worker
        return NewEvent(kind, decision_id, payload, datetime.now(UTC))


def _new_name() -> str:
    return os.urandom(8).hex()


_JOURNALS: "weakref.WeakSet[Journal]" = weakref.WeakSet()


def _after_fork() -> None:
    for journal in list(_JOURNALS):
        journal.worker = _new_name()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _spool_of(
    store: "EventStore", folder: "str | os.PathLike[str] | None"
) -> Spool | None:
    """Return where events of a store wait, if it takes each of them only once."""
    fingerprint = getattr(store, "fingerprint", None)
    if not isinstance(fingerprint, str) or not hasattr(store, "append_many"):
        return None
    chosen = spool_folder() if folder is None else Path(folder)
    return None if chosen is None else Spool(chosen, fingerprint)


def _written_out(event: NewEvent) -> NewEvent:
    """Return an event as it is stored; this is done on the writer's thread."""
    if event.kind != "decision":
        return event
    payload = {**event.payload, "scores": _scores(event.payload["scores"])}
    handed_over = payload.get("handed_over")
    if callable(handed_over):
        try:
            payload["handed_over"] = handed_over()
        except Exception as error:  # noqa: BLE001 - the rest is worth logging
            del payload["handed_over"]
            _log.warning(
                "decision %s is logged without what others could learn from it: %s",
                event.decision_id,
                type(error).__name__,
            )
    return replace(event, payload=payload)


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
