"""What many calls leave behind in memory; run as a module, a process of its own.

Each call has a text and a session of its own; a tenth are streams that are given
up after their first chunk, by threads and by coroutines in turn; some candidates
fail now and then; a quarter of the calls get feedback.
"""

import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from langchain_core.runnables import RunnableConfig

from mixllm_integrations.benchmark.call_figures import MemoryFigures
from mixllm_integrations.benchmark.chat_probe import without_tracing
from mixllm_integrations.benchmark.load.full_speed import prompt, shipped_model
from mixllm_integrations.benchmark.load.places import (
    NONE,
    POSTGRES,
    SQLITE,
    Databases,
    place,
)
from mixllm_integrations.benchmark.load.talking import Talking, quiet, serve
from mixllm_integrations.benchmark.memory_probe import remembered
from mixllm_integrations.benchmark.serving_probe import resident_bytes
from mixllm_integrations.langchain import MixLLMChatModel

__all__ = ["SoakFigures", "Soaking", "measure_soak"]

_ABANDONED_EVERY, _FEEDBACK_EVERY, _FAILS_EVERY = 10, 4, 97
_COOLDOWN_SECONDS = 0.01  # who failed is soon asked again, and fails again
_SAMPLES, _FEWEST_CALLS = 20, 500  # of memory, and between two of them
_CLOSING_SECONDS = 0.02  # for streams that a coroutine gave up
_FLUSH_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class SoakFigures:
    """What many calls left behind.

    Parameters
    ----------
    place
        Where events were kept.
    calls, abandoned, failed, feedback
        How many; of attempts that failed another candidate took over.
    seconds
        How long all took.
    memory
        Of the process, on the way.
    in_flight
        Calls that count as load at the end.
    lost
        Events that were given up.
    """

    place: str
    calls: int
    abandoned: int
    failed: int
    feedback: int
    seconds: float
    memory: MemoryFigures
    in_flight: int
    lost: int


def measure_soak(
    databases: Databases,
    *,
    calls: int = 200_000,
    on_step: Callable[[str], None] = lambda _: None,
) -> list[SoakFigures]:
    """Make many calls without a store and with one, at the same time.

    Parameters
    ----------
    databases
        Which there are; without PostgreSQL the store is a file of SQLite.
    calls
        How many.
    on_step
        Told what is measured next.
    """
    on_step(f"{calls:,} calls, to see what is kept of them")
    stored = SQLITE if databases.why_not(POSTGRES) else POSTGRES
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        spool = {"MIXLLM_SPOOL": str(folder / "spool")}
        places = [
            stack.enter_context(place(name, databases, folder))
            for name in (NONE, stored)
        ]
        processes = [
            stack.enter_context(
                Talking(__name__, {"store": here.store}, environment=spool)
            )
            for here in places
        ]
        for process in processes:
            process.heard()  # that it is ready
            process.tell({"calls": calls})  # memory is not time: both at once
        found = [process.heard() for process in processes]
    return [
        SoakFigures(
            place=here.name,
            **{**each, "memory": MemoryFigures.of(each["memory"])},
        )
        for here, each in zip(places, found, strict=True)
    ]


class _NowAndThen(Sequence[Exception | None]):
    """Errors by number of the call, as a scripted model takes them."""

    def __len__(self) -> int:
        return sys.maxsize

    @overload
    def __getitem__(self, number: int) -> Exception | None: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Exception | None]: ...
    def __getitem__(self, number: int | slice) -> Any:
        if isinstance(number, slice):
            raise TypeError("there is no end of errors")
        return None if (number + 1) % _FAILS_EVERY else TimeoutError("now and then")


class Soaking:
    """One process that calls on and on.

    Parameters
    ----------
    store
        URL, or ``None``.
    """

    def __init__(self, *, store: str | None = None) -> None:
        self.model: MixLLMChatModel = shipped_model(
            store=store, cooldown_seconds=_COOLDOWN_SECONDS
        )
        for name in self.model.names():
            self.model.seat(name).model.errors = _NowAndThen()  # type: ignore[attr-defined]
        self._loop = asyncio.Runner()
        self.failed = self.abandoned = self.feedback = 0

    def called(self, told: dict[str, Any]) -> dict[str, Any]:
        """Make so many calls, and return what `SoakFigures` says.

        Parameters
        ----------
        told
            How many ``calls``.
        """
        calls, began, served, samples = told["calls"], time.monotonic(), 0, []
        parts = max(2, min(_SAMPLES, calls // _FEWEST_CALLS))
        for part in range(1, parts + 1):
            upto = calls * part // parts
            for number in range(served, upto):
                self._call(number)
            served = upto
            self._loop.run(asyncio.sleep(_CLOSING_SECONDS))
            gc.collect()  # what nobody holds any more is no leak
            samples.append(
                {
                    "calls": served,
                    "resident_bytes": resident_bytes(),
                    "remembered": remembered(self.model, None),
                }
            )
        lost = self._unwritten()
        return {
            "calls": calls,
            "abandoned": self.abandoned,
            "failed": self.failed,
            "feedback": self.feedback,
            "seconds": time.monotonic() - began,
            "memory": samples,
            "in_flight": remembered(self.model, None)["calls under way"],
            "lost": lost,
        }

    def close(self) -> None:
        """Let go of the loop and the log."""
        self._loop.close()
        if self.model.dispatcher.journal is not None:
            self.model.dispatcher.journal.close()

    def _call(self, number: int) -> None:
        config: RunnableConfig = {"configurable": {"session_id": f"session {number}"}}
        asked = prompt(0, number)
        if number % _ABANDONED_EVERY == 0:
            self.abandoned += 1
            if number % (2 * _ABANDONED_EVERY):
                self._loop.run(self._give_up(asked, config))
            else:
                next(self.model.stream(asked, config))
            return
        answer = self.model.invoke(asked, config)
        self.failed += len(answer.response_metadata["mixllm"]["attempts"])
        if number % _FEEDBACK_EVERY == 1:
            self.feedback += self.model.record_feedback(answer, number % 3 / 2)

    async def _give_up(self, asked: str, config: RunnableConfig) -> None:
        await anext(self.model.astream(asked, config))

    def _unwritten(self) -> int:
        journal = self.model.dispatcher.journal
        if journal is None:
            return 0
        is_written = journal.flush(_FLUSH_SECONDS)
        lost: int = getattr(journal._writer, "lost", 0)  # noqa: SLF001
        return lost if is_written else max(lost, 1)


def _made(told: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    without_tracing()
    quiet()
    return Soaking(**told).called


if __name__ == "__main__":
    serve(_made)
