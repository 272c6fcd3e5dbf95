"""How soon a new worker knows what a long log says: by a snapshot, and the rest."""

import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixllm_integrations.benchmark.load.workers import QUERY, new_router
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Outcome
from mixllm_integrations.serving.following import Follower
from mixllm_integrations.store import NewEvent
from mixllm_integrations.store.sql import SQLStore

__all__ = ["RecoveryFigures", "recovery"]

_WORDS = [
    "prove",
    "sum",
    "court",
    "poem",
    "sort",
    "kidney",
    "list",
    "verb",
    "treaty",
    "atom",
    "loop",
    "price",
]
_KINDS = 500  # so many different queries, whose contexts come again
_BATCH = 2_000
_TAIL = 9_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryFigures:
    """What a new worker takes to know all that the log says.

    Parameters
    ----------
    events
        In the log; a third each are decisions, outcomes and feedback.
    tail_events
        Those after the snapshot.
    build_seconds
        What writing the log took, and learning it.
    snapshot_seconds, snapshot_bytes
        What the snapshot took, and its size.
    open_seconds, restore_seconds, tail_seconds
        What a new worker takes to open the log, to go on from the snapshot, and
        to hear the rest.
    ready_seconds
        All three.
    processor_seconds
        What of it was work, however busy the machine is; the database's own, if it
        is a server, is not in it.
    largest_difference
        Between what it predicts of quality, length and cost, and what the worker
        predicts that has learned each event as it came; relative.
    """

    events: int
    tail_events: int
    build_seconds: float
    snapshot_seconds: float
    snapshot_bytes: int
    open_seconds: float
    restore_seconds: float
    tail_seconds: float
    ready_seconds: float
    processor_seconds: float
    largest_difference: float


def recovery(
    store: str, *, events: int = 1_000_000, tail_events: int = _TAIL, seed: int = 0
) -> RecoveryFigures:
    """Build a log, and time a new worker that has to know it.

    Parameters
    ----------
    store
        URL of an empty log; about 1 kB per event are written there.
    events
        How many.
    tail_events
        How many of them come after the snapshot.
    seed
        Of queries, answers and grades.

    Returns
    -------
    RecoveryFigures
        In one process, so that nothing is shared but the log.
    """
    router = new_router()
    began = time.perf_counter()
    with SQLStore(store) as log:
        n_tail = min(tail_events, events)
        made = _events(router, random.Random(seed))  # noqa: S311 - no secret
        _write(log, router, made, events - n_tail)
        built = time.perf_counter()
        place, content = router.snapshot(log.identity)
        log.put_snapshot(place, content)
        put = time.perf_counter()
        _write(log, router, made, n_tail)
        done = time.perf_counter()
    times = _recovered(store, router)
    return RecoveryFigures(
        events=events,
        tail_events=n_tail,
        build_seconds=built - began + done - put,
        snapshot_seconds=put - built,
        snapshot_bytes=len(content),
        **times,
    )


def _recovered(store: str, original: Router) -> dict[str, Any]:
    router = new_router()
    router.predict([QUERY])  # what a process loads once is no part of it
    began, worked = time.perf_counter(), time.process_time()
    with SQLStore(store) as log:
        opened = time.perf_counter()
        follower = Follower(router, log, worker="a new one")
        if not follower.begin():
            raise OSError(f"{log!r} cannot be read")
        restored = time.perf_counter()
        follower.catch_up()
        ready, worked = time.perf_counter(), time.process_time() - worked
    return {
        "processor_seconds": worked,
        "open_seconds": opened - began,
        "restore_seconds": restored - opened,
        "tail_seconds": ready - restored,
        "ready_seconds": ready - began,
        "largest_difference": _difference(router, original),
    }


def _write(
    log: SQLStore, router: Router, events: Iterator[NewEvent], count: int
) -> None:
    left = count
    while left > 0:
        batch = list(itertools.islice(events, min(left, _BATCH)))
        log.append_many(batch)
        left -= len(batch)
    router.hear_from(log.identity, log.last_sequence())


def _events(router: Router, chance: random.Random) -> Iterator[NewEvent]:
    """Yield what a worker logs, and let the router learn it on the way."""
    skill = {"small": 0.55, "medium": 0.7, "large": 0.85}
    records = [
        _decided(router, " ".join(chance.choices(_WORDS, k=12)) + "?", among=[name])
        for name in itertools.islice(itertools.cycle(skill), _KINDS)
    ]
    while True:
        record = chance.choice(records)
        handed_over = record["handed_over"]
        decision_id = f"{chance.getrandbits(128):032x}"
        router.adopt(decision_id, handed_over)
        yield _event("decision", decision_id, record)
        told: dict[str, Any] = {
            "input_tokens": 20,
            "output_tokens": int(chance.lognormvariate(5.0, 0.7)) + 1,
            "cost": None,
            "latency_seconds": chance.uniform(0.5, 3.0),
            "time_to_first_token_seconds": None,
            "error": None,
        }
        outcome = Outcome(**told)
        router.record_outcome(decision_id, outcome)
        router.learn_speed(decision_id, outcome)
        router.heard_own(decision_id, "outcome")
        yield _event("outcome", decision_id, told)
        name = handed_over["candidate"]
        reward = round(min(max(chance.gauss(skill[name], 0.2), 0.0), 1.0), 3)
        said = {"reward": reward, "kind": "refined", "source": "judge"}
        router.record_feedback(decision_id, reward)
        router.heard_own(decision_id, "refined")
        yield _event("feedback", decision_id, said)


def _event(kind: str, decision_id: str, payload: dict[str, Any]) -> NewEvent:
    return NewEvent(kind, decision_id, {**payload, "worker": "an old one"})


def _decided(router: Router, query: str, *, among: list[str]) -> dict[str, Any]:
    """Return what is logged of a decision that this router makes."""
    decision = router.route(query, among=among)
    handed_over = router.hand_over(decision.id)
    router.record_outcome(decision.id, Outcome(0, 0, error="not asked"))
    names = list(decision.scores)
    scores = {
        what: [float(getattr(decision.scores[n], what)) for n in names]
        for what in ("quality", "cost", "uncertainty", "waiting_penalty")
    }
    return {
        "candidate": decision.candidate,
        "propensity": float(decision.propensity),
        "input_tokens": decision.input_tokens,
        "scores": {"candidates": names, **scores},
        "handed_over": handed_over,
    }


def _difference(router: Router, original: Router) -> float:
    queries = [QUERY, *(f"{a} {b}?" for a, b in itertools.pairwise(_WORDS))]
    mine, theirs = router.predict(queries), original.predict(queries)
    return max(
        float(np.max(np.abs(a - b) / np.maximum(np.abs(b), 1e-12)))
        for a, b in (
            (mine.quality, theirs.quality),
            (mine.output_tokens, theirs.output_tokens),
            (mine.cost, theirs.cost),
        )
    )
