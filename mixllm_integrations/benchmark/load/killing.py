"""Whether workers that are killed at any moment lose feedback, or count it twice."""

import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from mixllm_integrations.benchmark.load.workers import (
    QUERY,
    WorkerSetting,
    decide,
    new_router,
)
from mixllm_integrations.core.errors import UnknownDecisionError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Outcome
from mixllm_integrations.serving.following import Follower
from mixllm_integrations.store import Event
from mixllm_integrations.store.sql import SQLStore

__all__ = ["KillingFigures", "killing"]

_OWN_SHARE = 0.5
_RECENT_BYTES = 2_000  # about 60 decisions of all workers
_LONGEST_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KillingFigures:
    """What was left of the work of workers that were killed.

    Parameters
    ----------
    workers, kills, seed
        As they were asked for.
    seconds
        How long they worked.
    decisions, feedback
        How many the log has.
    acknowledged
        Feedback of which `record_feedback` said that it is new.
    lost
        How much of that the log does not have, though spools were delivered.
    twice
        Decisions that have two feedbacks in the log.
    logged, learned
        Feedback by candidate: in the log, and as a new worker has learned it that
        went on from the last snapshot.
    outcomes_logged, outcomes_learned
        The same of whole answers.
    largest_difference
        Between the qualities that this worker predicts, and those of a router that
        was told all of the log, event by event.
    """

    workers: int
    kills: int
    seed: int
    seconds: float
    decisions: int
    feedback: int
    acknowledged: int
    lost: int
    twice: int
    logged: dict[str, int]
    learned: dict[str, int]
    outcomes_logged: dict[str, int]
    outcomes_learned: dict[str, int]
    largest_difference: float

    @property
    def is_exact(self) -> bool:
        """Whether nothing is lost and each thing was learned once."""
        return (
            self.lost == self.twice == 0
            and self.logged == self.learned
            and self.outcomes_logged == self.outcomes_learned
        )


def killing(
    store: str,
    folder: Path,
    *,
    workers: int = 4,
    kills: int = 10,
    seed: int = 0,
    snapshot_every: int | None = None,
    pause_seconds: tuple[float, float] = (0.5, 2.0),
) -> KillingFigures:
    """Let workers decide and tell, kill them again and again, and count.

    Parameters
    ----------
    store
        URL of an empty log.
    folder
        For spools, and for what workers say that they have done.
    workers
        How many processes; each that is killed is started again.
    kills
        How many, by SIGKILL.
    seed
        Of whom, and when.
    snapshot_every
        After how many events snapshots are made; ``None``: as usual.
    pause_seconds
        How long at least, and at most, between two.

    Returns
    -------
    KillingFigures
        What is left.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    setting = WorkerSetting(
        store=store, spool=str(folder / "spool"), snapshot_every=snapshot_every
    )
    began = time.perf_counter()
    SQLStore(store).close()  # its tables are made once
    numbers = iter(range(workers + kills))
    running = [_start(setting, folder, next(numbers)) for _ in range(workers)]
    _wait_for(folder / "made", running)
    for _ in range(kills):
        time.sleep(chance.uniform(*pause_seconds))
        place = chance.randrange(workers)
        running[place].kill()
        running[place].join()
        running[place] = _start(setting, folder, next(numbers))
    time.sleep(pause_seconds[1])
    (folder / "stop").touch()
    for process in running:
        process.join(_LONGEST_SECONDS)
    seconds = time.perf_counter() - began
    return _counted(setting, folder, workers, kills, seed, seconds)


def _start(setting: WorkerSetting, folder: Path, number: int) -> BaseProcess:
    spawning = multiprocessing.get_context("spawn")
    process = spawning.Process(
        target=_work, args=(setting, folder, number), daemon=True
    )
    process.start()
    return process


def _wait_for(made: Path, running: Sequence[BaseProcess]) -> None:
    until = time.monotonic() + _LONGEST_SECONDS
    while not made.exists():
        if time.monotonic() > until or not any(p.is_alive() for p in running):
            raise TimeoutError("no worker has begun to work")
        time.sleep(0.02)


def _work(setting: WorkerSetting, folder: Path, number: int) -> None:
    chance = random.Random(number)  # noqa: S311 - no secret
    dispatcher = setting.dispatcher()
    names = dispatcher.names()
    while not (folder / "stop").exists():
        mine = decide(dispatcher, chance.choice(names))
        _note(folder / "made", mine)
        judged = mine
        if chance.random() > _OWN_SHARE:
            judged = chance.choice(_recent(folder / "made"))
        try:
            new = dispatcher.record_feedback(judged, _reward(judged))
        except UnknownDecisionError:  # its worker was killed before it was written
            continue
        if new:
            _note(folder / "told", judged)
    if dispatcher.journal is not None:
        dispatcher.journal.close()


def _reward(decision_id: str) -> float:
    """Return how good an answer is, whoever judges it."""
    return int(decision_id[:2], 16) / 255


def _note(file: Path, decision_id: str) -> None:
    """Append a line at once, so that it outlives this process."""
    opened = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(opened, f"{decision_id}\n".encode())
    finally:
        os.close(opened)


def _recent(file: Path) -> list[str]:
    with file.open("rb") as opened:
        opened.seek(max(file.stat().st_size - _RECENT_BYTES, 0))
        lines = opened.read().decode().split("\n")
    return [line for line in lines if len(line) == 32]


def _counted(
    setting: WorkerSetting,
    folder: Path,
    workers: int,
    kills: int,
    seed: int,
    seconds: float,
) -> KillingFigures:
    last = setting.dispatcher()  # takes over what killed workers have left on disk
    if last.journal is not None:
        last.journal.flush()
        last.journal.close()
    told = folder / "told"
    acknowledged = told.read_text().split() if told.exists() else []
    with SQLStore(setting.store) as log:
        events = list(log.events())
        newcomer = new_router()
        Follower(newcomer, log, worker="the newcomer").catch_up()
    replayed = _replayed(events)
    chosen = {
        e.decision_id: e.payload["candidate"] for e in events if e.kind == "decision"
    }
    judged = Counter(e.decision_id for e in events if e.kind == "feedback")
    return KillingFigures(
        workers=workers,
        kills=kills,
        seed=seed,
        seconds=seconds,
        decisions=len(chosen),
        feedback=judged.total(),
        acknowledged=len(acknowledged),
        lost=len(set(acknowledged) - judged.keys()),
        twice=sum(count > 1 for count in judged.values()),
        logged=_by_candidate(chosen, events, "feedback"),
        learned=_labels(newcomer),
        outcomes_logged=_by_candidate(chosen, events, "outcome"),
        outcomes_learned=_lengths(newcomer),
        largest_difference=float(
            np.abs(
                newcomer.predict([QUERY]).quality - replayed.predict([QUERY]).quality
            ).max()
        ),
    )


def _by_candidate(
    chosen: Mapping[str, str], events: Sequence[Event], kind: str
) -> dict[str, int]:
    told = Counter(
        chosen[event.decision_id]
        for event in events
        if event.kind == kind
        and event.decision_id in chosen
        and event.payload.get("error") is None
    )
    return dict(sorted(told.items()))


def _labels(router: Router) -> dict[str, int]:
    replay = router._experience.replay  # noqa: SLF001 - nobody else counts them
    names = sorted(candidate.name for candidate in router.candidates)
    return {name: replay.labels(name) for name in names if replay.labels(name)}


def _lengths(router: Router) -> dict[str, int]:
    lengths = router._experience.lengths  # noqa: SLF001 - nobody else counts them
    return {name: int(lengths[name].count) for name in sorted(lengths)}


def _replayed(events: Sequence[Event]) -> Router:
    """Return a router that was told a whole log, in its order, without a follower."""
    router = new_router()
    for event in events:
        told = dict(event.payload)
        del told["worker"]
        if event.kind == "decision" and told.get("handed_over"):
            router.adopt(event.decision_id, told["handed_over"])
        elif router.awaits(event.decision_id) and event.kind == "outcome":
            router.record_outcome(event.decision_id, Outcome(**told))
        elif router.awaits(event.decision_id) and event.kind == "feedback":
            router.record_feedback(event.decision_id, told["reward"])
    return router
