"""How soon a worker acts on what another one was told, or has met with."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from mixllm_integrations.benchmark.load.workers import (
    WorkerProcess,
    WorkerSetting,
    started,
)

__all__ = ["SiblingFigures", "sibling_delays"]

_LONGEST_SECONDS = 60.0
_LOOK_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class SiblingFigures:
    """How soon all siblings knew.

    Parameters
    ----------
    workers
        How many processes there were.
    feedback_seconds
        For each feedback, from the moment it was sent to one worker until the
        predictions of all others had changed.
    cooldown_seconds
        For each failure, from its report until no worker chose the candidate;
        empty without a shared state.
    """

    workers: int
    feedback_seconds: tuple[float, ...]
    cooldown_seconds: tuple[float, ...] = ()


def sibling_delays(
    store: str,
    *,
    shared_state: str | None = None,
    spool: str | None = None,
    workers: int = 2,
    repeats: int = 5,
) -> SiblingFigures:
    """Start worker processes and measure how soon they learn from each other.

    Parameters
    ----------
    store
        URL of the log, best an empty one.
    shared_state
        URL of Redis; ``None``: cooldowns are not measured.
    spool
        Folder for events while the database is away; ``None``: the usual one.
    workers
        How many processes, from 2 on.
    repeats
        How many feedbacks; there is a failure for each candidate.

    Returns
    -------
    SiblingFigures
        Seconds, by this process's clock.

    Raises
    ------
    TimeoutError
        If something is not known within a minute.
    """
    setting = WorkerSetting(store=store, shared_state=shared_state, spool=spool)
    with ExitStack() as stack:
        first, *others = started(setting, workers, stack)
        feedback = tuple(_feedback(first, others) for _ in range(repeats))
        cooldown: tuple[float, ...] = ()
        if shared_state is not None:
            names = ("small", "medium", "large")
            cooldown = tuple(_cooldown(first, others, name) for name in names)
    return SiblingFigures(
        workers=workers, feedback_seconds=feedback, cooldown_seconds=cooldown
    )


def _feedback(first: WorkerProcess, others: Sequence[WorkerProcess]) -> float:
    decision_id = first.ask("decide", "large")
    time.sleep(1.0)  # the outcome has changed what is expected as well
    before = [other.ask("expected") for other in others]
    began = time.perf_counter()
    first.ask("judge", decision_id, 0.0)
    return _until(
        lambda: all(
            other.ask("expected") != known
            for other, known in zip(others, before, strict=True)
        ),
        began,
    )


def _cooldown(
    first: WorkerProcess, others: Sequence[WorkerProcess], name: str
) -> float:
    began = time.perf_counter()
    first.ask("fail", name)
    return _until(lambda: all(name in other.ask("resting") for other in others), began)


def _until(is_known: Callable[[], bool], began: float) -> float:
    while not is_known():
        if time.perf_counter() - began > _LONGEST_SECONDS:
            raise TimeoutError(f"siblings did not know after {_LONGEST_SECONDS:g} s")
        time.sleep(_LOOK_SECONDS)
    return time.perf_counter() - began
