"""Worker processes that share a log, each told over a pipe what to do.

Each is started anew (``spawn``), as one on another machine would be.
"""

import multiprocessing
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Self

from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving import CallOptions, Dispatcher
from mixllm_integrations.serving.journal import Journal

__all__ = [
    "QUERY",
    "WorkerProcess",
    "WorkerSetting",
    "decide",
    "new_router",
    "started",
]

QUERY = "What is 3 plus 4?"
_LONGEST_SECONDS = 120.0


def new_router() -> Router:
    """Return the router that every worker of a measurement starts with."""
    return Router(
        [
            Candidate("small", 0.1, 0.4, prior_quality=0.6),
            Candidate("medium", 1.0, 4.0, prior_quality=0.7),
            Candidate("large", 5.0, 15.0, prior_quality=0.8),
        ],
        seed=0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetting:
    """Where workers meet.

    Parameters
    ----------
    store
        URL of the log.
    shared_state
        URL of Redis; ``None``: nothing else is shared.
    spool
        Folder for events while the database is away; ``None``: the usual one.
    snapshot_every
        After how many events a snapshot is made; ``None``: as usual.
    """

    store: str
    shared_state: str | None = None
    spool: str | None = None
    snapshot_every: int | None = None

    def dispatcher(self) -> Dispatcher:
        """Return a dispatcher over a new router."""
        journal = Journal.open(self.store, spool=self.spool)
        made = Dispatcher(new_router(), store=journal, shared_state=self.shared_state)
        if made.follower is not None and self.snapshot_every is not None:
            made.follower.snapshot_every = self.snapshot_every
        return made


class WorkerProcess:
    """One worker; a context manager that ends it.

    Parameters
    ----------
    setting
        Where workers meet.
    """

    def __init__(self, setting: WorkerSetting) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawning.Pipe()
        self._process = spawning.Process(
            target=_serve, args=(theirs, setting), daemon=True
        )
        self._process.start()
        theirs.close()

    def ask(self, do: str, *about: object) -> Any:  # noqa: ANN401 - what it answers
        """Return what the worker answers.

        Parameters
        ----------
        do
            Name of one of the functions of this module that begin with ``do_``.
        *about
            Its arguments.
        """
        self._pipe.send((do, about))
        if not self._pipe.poll(_LONGEST_SECONDS):
            raise TimeoutError(f"a worker did not answer {do!r} in time")
        return self._pipe.recv()

    def close(self) -> None:
        """End it, after what it still has to write."""
        if self._process.is_alive():
            self._pipe.send(("end", ()))
            self._process.join(_LONGEST_SECONDS)
        self._pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def started(
    setting: WorkerSetting, count: int, stack: ExitStack
) -> list[WorkerProcess]:
    """Return workers that are ready.

    Parameters
    ----------
    setting
        Where they meet.
    count
        How many.
    stack
        Ends them.
    """
    workers = [stack.enter_context(WorkerProcess(setting)) for _ in range(count)]
    for worker in workers:
        worker.ask("decide", None)  # the first call starts what runs in the background
    return workers


def decide(dispatcher: Dispatcher, candidate: str | None) -> str:
    """Answer a query, and return the decision's id.

    Parameters
    ----------
    dispatcher
        Of the worker.
    candidate
        Who answers; ``None``: whom the router chooses.
    """
    call = dispatcher.begin(QUERY, options=CallOptions(candidate=candidate))
    call.succeed(input_tokens=12, output_tokens=80)
    return call.decision.id


def _judge(dispatcher: Dispatcher, decision_id: str, reward: float) -> bool:
    return dispatcher.record_feedback(decision_id, reward)


def _fail(dispatcher: Dispatcher, candidate: str) -> None:
    call = dispatcher.begin(QUERY, options=CallOptions(candidate=candidate))
    call.break_off(ConnectionError("the provider is away"))


def _expected(dispatcher: Dispatcher) -> list[float]:
    return [float(q) for q in dispatcher.router.predict([QUERY]).quality[0]]


def _resting(dispatcher: Dispatcher) -> list[str]:
    return sorted(dispatcher.cooldown.due())


_DO: dict[str, Callable[..., Any]] = {
    "decide": decide,
    "judge": _judge,
    "fail": _fail,
    "expected": _expected,
    "resting": _resting,
    "pid": lambda _: os.getpid(),
}


def _serve(pipe: Connection, setting: WorkerSetting) -> None:
    dispatcher = setting.dispatcher()
    while True:
        do, about = pipe.recv()
        if do == "end":
            break
        pipe.send(_DO[do](dispatcher, *about))
    if dispatcher.journal is not None:
        dispatcher.journal.close()
