"""How many calls a second, and what each takes beyond the bare model.

Each way of calling is measured in workers of its own processes. The bare model and
ours take turns of some calls each, so that both meet the same state of the
machine; with several workers a turn begins for all at once.
"""

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixllm_integrations.benchmark.call_figures import BARE, CallFigures, Timing
from mixllm_integrations.benchmark.load.full_speed import (
    ALONE,
    AT_ONCE,
    DECIDING,
    MODES,
)
from mixllm_integrations.benchmark.load.places import Databases, Place, place
from mixllm_integrations.benchmark.load.talking import Talking

__all__ = ["RateFigures", "RatePlan", "measure_rates", "usable_cores"]

_WORKER = "mixllm_integrations.benchmark.load.full_speed"
_OURS = "ours"


@dataclass(frozen=True, slots=True)
class RatePlan:
    """How much is measured.

    Parameters
    ----------
    calls
        Of each model in each way of calling, by each worker.
    turn
        How many of them in a row; a multiple of the callers of one worker.
    workers
        How many processes share state.
    """

    calls: int = 6_000
    turn: int = 240
    workers: int = 4

    @property
    def turns(self) -> int:
        """How many there are."""
        return max(1, self.calls // self.turn)


@dataclass(frozen=True, slots=True)
class RateFigures:
    """One way of calling, at one place.

    Parameters
    ----------
    place
        Where events and live state are kept.
    mode
        How calls are made.
    workers, callers
        Processes, and threads or tasks of each that call at once.
    calls
        How many were measured of ours.
    per_second
        Calls of all workers, while they call: the median over the turns.
    logged_per_second
        The same, if each turn lasts until its last event is logged.
    bare_per_second
        Of the bare model; ``None`` for decisions alone.
    seconds
        Of each of ours; of decisions without what tells their outcome. Where
        several call at once, waiting for the interpreter and a core is in it.
    added
        Each of ours beyond the bare model's of the same place in the same turn.
    lost
        Events that were given up.
    """

    place: str
    mode: str
    workers: int
    callers: int
    calls: int
    per_second: float
    logged_per_second: float
    bare_per_second: float | None
    seconds: Timing
    added: Timing | None
    lost: int


def usable_cores() -> int:
    """Return on how many cores this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def measure_rates(
    databases: Databases,
    *,
    plan: RatePlan | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> list[RateFigures]:
    """Measure every way of calling at every place that there is.

    Parameters
    ----------
    databases
        Which there are.
    plan
        How much is measured.
    on_step
        Told what is measured next.
    """
    plan = RatePlan() if plan is None else plan
    found: list[RateFigures] = []
    for name in databases.names:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            here = stack.enter_context(place(name, databases, folder))
            on_step(f"calling, {name}")
            found += _at(here, plan, folder)
    return found


def _at(here: Place, plan: RatePlan, folder: Path) -> Iterator[RateFigures]:
    with ExitStack() as stack:
        workers = [stack.enter_context(_worker(here, 0, folder))]
        workers[0].heard()  # that it is ready
        for mode in MODES:
            yield _measured(here.name, mode, mode, workers, plan)
        others = [
            stack.enter_context(_worker(here, number, folder))
            for number in range(1, plan.workers)
        ]
        workers += others
        for one in others:
            one.heard()  # that it is ready
        together = f"{ALONE}, {plan.workers} processes"
        yield _measured(here.name, together, ALONE, workers, plan)


def _worker(here: Place, number: int, folder: Path) -> Talking:
    told = {
        "store": here.store,
        "shared_state": here.shared_state,
        "number": number,
    }
    spool = {"MIXLLM_SPOOL": str(folder / "spool")}
    return Talking(_WORKER, told, environment=spool)


def _measured(
    name: str, label: str, mode: str, workers: Sequence[Talking], plan: RatePlan
) -> RateFigures:
    contestants = (_OURS,) if mode in DECIDING else (BARE, _OURS)
    seconds: dict[str, list[float]] = {who: [] for who in contestants}
    rates: dict[str, list[float]] = {who: [] for who in contestants}
    logged, lost = [], 0
    for turn in range(-1, plan.turns):  # the first one warms up
        for who in contestants if turn % 2 else reversed(contestants):
            told = {"mode": mode, "who": who, "calls": plan.turn}
            answers = _all(workers, told)
            written = _all(workers, {"flush": True})
            lost = sum(one["lost"] for one in written)
            if turn < 0:
                continue
            spent = _wall(answers)
            calls = sum(len(one["seconds"]) for one in answers)
            rates[who].append(calls / spent)
            for one in answers:
                seconds[who] += one["seconds"]
            if who == _OURS:
                waited = max(one["seconds"] for one in written)
                logged.append(calls / (spent + waited))
    has_bare = BARE in contestants
    added = CallFigures.of(seconds).added[_OURS] if has_bare else None
    return RateFigures(
        place=name,
        mode=label,
        workers=len(workers),
        callers=1 if mode in (ALONE, DECIDING[0]) else AT_ONCE,
        calls=len(seconds[_OURS]),
        per_second=statistics.median(rates[_OURS]),
        logged_per_second=statistics.median(logged),
        bare_per_second=statistics.median(rates[BARE]) if has_bare else None,
        seconds=Timing.of(seconds[_OURS]),
        added=added,
        lost=lost,
    )


def _all(workers: Sequence[Talking], told: dict[str, Any]) -> list[Any]:
    for worker in workers:
        worker.tell(told)
    return [worker.heard() for worker in workers]


def _wall(answers: Sequence[dict[str, Any]]) -> float:
    """Return how long all took: `time.monotonic` is the machine's, not a process's."""
    ended = max(one["ended"] for one in answers)
    return float(ended - min(one["began"] for one in answers))
