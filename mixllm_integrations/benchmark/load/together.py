"""Workers that share a log: measured where there is one, each on one thread.

A library for linear algebra that starts a thread for each core only gets into its
own way once there is a worker for each of them.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mixllm_integrations.benchmark.load.killing import KillingFigures, killing
from mixllm_integrations.benchmark.load.places import (
    POSTGRES,
    REDIS,
    SQLITE,
    Databases,
    place,
)
from mixllm_integrations.benchmark.load.recovery import RecoveryFigures, recovery
from mixllm_integrations.benchmark.load.siblings import SiblingFigures, sibling_delays

__all__ = [
    "log_of",
    "measure_killing",
    "measure_recovery",
    "measure_siblings",
    "on_one_thread",
]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Let this process, and those that it starts, compute on one thread each."""
    from threadpoolctl import threadpool_limits

    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        with threadpool_limits(1):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def log_of(databases: Databases) -> str:
    """Return in what the workers keep their log.

    Parameters
    ----------
    databases
        Which there are; without PostgreSQL it is a file of SQLite.
    """
    return SQLITE if databases.why_not(POSTGRES) else POSTGRES


def measure_siblings(
    databases: Databases, *, workers: int, repeats: int
) -> SiblingFigures:
    """Measure how soon workers act on what another one knows.

    Parameters
    ----------
    databases
        Which there are; without Redis cooldowns are not measured.
    workers
        How many processes.
    repeats
        How often they are told something.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = stack.enter_context(place(log_of(databases), databases, folder))
        live = None
        if databases.why_not(REDIS) is None:
            live = stack.enter_context(place(REDIS, databases, folder)).shared_state
        return sibling_delays(
            log.store or "",
            shared_state=live,
            spool=str(folder / "spool"),
            workers=workers,
            repeats=repeats,
        )


def measure_recovery(
    databases: Databases, *, events: int, seed: int
) -> RecoveryFigures:
    """Measure how soon a new worker knows what a long log says.

    Parameters
    ----------
    databases
        Which there are.
    events
        In the log.
    seed
        Of queries, answers and grades.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = stack.enter_context(place(log_of(databases), databases, folder))
        return recovery(log.store or "", events=events, seed=seed)


def measure_killing(
    databases: Databases, *, workers: int, kills: int, seed: int
) -> KillingFigures:
    """Measure what workers lose that are killed.

    Parameters
    ----------
    databases
        Which there are.
    workers, kills
        How many.
    seed
        Of whom, and when.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = stack.enter_context(place(log_of(databases), databases, folder))
        return killing(log.store or "", folder, workers=workers, kills=kills, seed=seed)
