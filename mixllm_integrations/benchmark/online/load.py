"""What learning takes: time of an update, memory after many, size of the state."""

import gc
import tempfile
import time
from pathlib import Path

import numpy as np

from mixllm_integrations.benchmark.online.learners import whole
from mixllm_integrations.benchmark.online.results import LoadFigures
from mixllm_integrations.benchmark.online.worlds import WorldSettings
from mixllm_integrations.benchmark.serving_probe import resident_bytes
from mixllm_integrations.benchmark.speed import widened
from mixllm_integrations.benchmark.splits import stratified_split
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Outcome

__all__ = ["measure_load", "state_bytes"]

_AT_ONCE = 500
_WARM = 0.1
_REPLAY = "online.replay."  # what heads are fitted from again, as kNN data are


def measure_load(
    table: BenchmarkTable,
    *,
    n_feedbacks: int = 100_000,
    n_candidates: int = 20,
    settings: WorldSettings | None = None,
    seed: int = 0,
) -> LoadFigures:
    """Feed a fitted router with recorded outcomes and feedback.

    Parameters
    ----------
    table
        Complete queries: 80 % to fit on, the others are asked again and again.
    n_feedbacks
        How many.
    n_candidates
        Beyond the recorded ones copies stand in; each gets its share of the
        traffic, whether it deserves it or not.
    settings
        Of the router.
    seed
        Of the split.
    """
    settings = WorldSettings() if settings is None else settings
    given = widened(table, n_candidates, seed=seed)
    rows, test = stratified_split(given, seed=seed)
    train = given.select(rows)
    router = settings.router(train.candidates, seed).fit(train.records())
    asked = given.select(test)
    seconds = np.zeros(n_feedbacks)
    before: int | None = None
    for start in range(0, n_feedbacks, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, n_feedbacks))
        column = start // _AT_ONCE % len(given.names)
        seconds[numbers.start : numbers.stop] = _feed(router, asked, numbers, column)
        if before is None and numbers.stop >= _WARM * n_feedbacks:
            gc.collect()
            before = resident_bytes()
    gc.collect()
    after = resident_bytes()
    online, replay, dimension = state_bytes(router)
    return LoadFigures(
        n_feedbacks,
        len(train.names),
        dimension,
        float(np.quantile(seconds, 0.5)),
        float(np.quantile(seconds, 0.99)),
        float(seconds.sum()),
        before,
        after,
        online,
        replay,
    )


def state_bytes(router: Router) -> tuple[int, int, int]:
    """Return the size of what a router learned online, as it is saved.

    Parameters
    ----------
    router
        Who has learned.

    Returns
    -------
    tuple of int
        Bytes of the bandit's statistics; bytes of what heads are fitted from
        again; and the length of a context.
    """
    from safetensors.numpy import load_file

    with tempfile.TemporaryDirectory() as folder:
        router.save(Path(folder) / "router")
        arrays = load_file(Path(folder) / "router" / "arrays.safetensors")
    online = {n: a.nbytes for n, a in arrays.items() if n.startswith("online.")}
    replay = sum(size for name, size in online.items() if name.startswith(_REPLAY))
    dimension = arrays["pending.contexts"].shape[-1]
    return sum(online.values()) - replay, replay, int(dimension)


def _feed(
    router: Router, asked: BenchmarkTable, numbers: range, column: int
) -> list[float]:
    """Ask one candidate, tell what it did, and return what telling took (seconds)."""
    rows = [number % len(asked) for number in numbers]
    only = [asked.names[column]]
    ids = [
        router.route(asked.queries[row], among=only, charge_load=False).id
        for row in rows
    ]
    took = []
    for row, decision_id in zip(rows, ids, strict=True):
        outcome = Outcome(
            whole(asked.input_tokens[row, column]),
            whole(asked.output_tokens[row, column]),
            cost=float(asked.cost[row, column]),
        )
        reward = float(asked.quality[row, column])
        began = time.perf_counter()
        router.record_outcome(decision_id, outcome)
        router.record_feedback(decision_id, reward)
        took.append(time.perf_counter() - began)
    return took
