"""What learning takes: time of an update, memory after many, size of the state."""

import gc
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from mixllm_integrations.benchmark.online_results import LoadFigures
from mixllm_integrations.benchmark.online_worlds import WorldSettings
from mixllm_integrations.benchmark.serving_probe import resident_bytes
from mixllm_integrations.benchmark.speed import widened
from mixllm_integrations.benchmark.splits import stratified_split
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import FloatArray, Outcome

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
    """Feed a fitted router with outcomes and feedback.

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
        Of the split, and of rewards.
    """
    settings = WorldSettings() if settings is None else settings
    given = widened(table, n_candidates, seed=seed)
    rows, test = stratified_split(given, seed=seed)
    train = given.select(rows)
    router = settings.router(train.candidates, seed).fit(train.records())
    prompts = cycle([given.queries[i] for i in test])
    rng = np.random.default_rng(seed)
    seconds = np.zeros(n_feedbacks)
    before: int | None = None
    done = 0
    while done < n_feedbacks:
        n = min(_AT_ONCE, n_feedbacks - done)
        _feed(router, list(islice(prompts, n)), rng, seconds[done : done + n], done)
        done += n
        if before is None and done >= _WARM * n_feedbacks:
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
    router: Router,
    prompts: list[str],
    rng: np.random.Generator,
    seconds: FloatArray,
    done: int,
) -> None:
    """Decide on some prompts, one candidate's turn, and time what follows."""
    names = [c.name for c in router.candidates]
    chosen = names[(done // _AT_ONCE) % len(names)]
    ids = [router.route(p, among=[chosen], charge_load=False).id for p in prompts]
    rewards = (rng.random(len(ids)) < 0.5).astype(float).tolist()
    outcome = Outcome(100, 100, cost=1e-4)
    for place, (decision_id, reward) in enumerate(zip(ids, rewards, strict=True)):
        began = time.perf_counter()
        router.record_outcome(decision_id, outcome)
        router.record_feedback(decision_id, reward)
        seconds[place] = time.perf_counter() - began
