"""One worker that calls as fast as it can; run as a module, a process of its own.

It has the router that is shipped for the demo, fitted and with four candidates, a
routed model over scripted ones that answer at once, and a scripted one alone.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import as_file, files
from typing import Any

from langchain_core.language_models import BaseChatModel

from mixllm_integrations.benchmark.call_figures import BARE
from mixllm_integrations.benchmark.chat_probe import without_tracing
from mixllm_integrations.benchmark.contestants import routed, scripted
from mixllm_integrations.benchmark.load.talking import quiet, serve
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Outcome
from mixllm_integrations.langchain import MixLLMChatModel

__all__ = ["ALONE", "AT_ONCE", "DECIDING", "MODES", "Worker", "prompt", "shipped_model"]

AT_ONCE = 8
_ROUTE, _ROUTE_THREADS = "Router.route", f"Router.route, {AT_ONCE} threads"
_SYNC, _THREADS, _LOOP = "calls", f"calls, {AT_ONCE} threads", f"calls, {AT_ONCE} tasks"
DECIDING = (_ROUTE, _ROUTE_THREADS)
ALONE = _SYNC
MODES = (*DECIDING, _SYNC, _THREADS, _LOOP)
_FLUSH_SECONDS = 120.0
_PROMPT_TOKENS, _FORESEEN = 15, 20


def _shipped_router() -> Router:
    """Return the fitted router that comes with the package."""
    with as_file(files("mixllm_integrations.data") / "demo_router") as folder:
        return Router.load(folder)


def shipped_model(**settings: Any) -> MixLLMChatModel:  # noqa: ANN401
    """Return the shipped router over models whose answers are as long as it expects.

    Otherwise it would learn, and tell, that they have changed.

    Parameters
    ----------
    **settings
        Of the chat model.
    """
    router = _shipped_router()
    expected = router.predict([prompt(0, n) for n in range(_FORESEEN)])
    model = routed(router.candidates, router=router, **settings)
    for name, lengths in zip(
        expected.candidates, expected.output_tokens.T, strict=True
    ):
        answering = model.seat(name).model
        answering.usage = (_PROMPT_TOKENS, round(float(lengths.mean())))  # type: ignore[attr-defined]
    return model


def prompt(worker: int, number: int) -> str:
    """Return a question that nobody else asks.

    Parameters
    ----------
    worker, number
        Of whom, and which.
    """
    return f"Worker {worker} asks: what follows from statement {number}, and why?"


class Worker:
    """Calls, in one of several ways.

    Parameters
    ----------
    store, shared_state
        URLs of the routed model's, or ``None``.
    number
        Of the worker, so that no two ask the same.
    """

    def __init__(
        self,
        *,
        store: str | None = None,
        shared_state: str | None = None,
        number: int = 0,
    ) -> None:
        self.model = shipped_model(store=store, shared_state=shared_state)
        self._models: dict[str, BaseChatModel] = {
            BARE: scripted("bare"),
            "ours": self.model,
        }
        self._prompts = (prompt(number, n) for n in itertools.count())
        self._pool = ThreadPoolExecutor(AT_ONCE, "mixllm-load")
        self._loop = asyncio.Runner()

    def obey(self, told: dict[str, Any]) -> dict[str, Any]:
        """Do what a line of the input says, and return what came of it.

        Parameters
        ----------
        told
            ``mode``, ``who`` and ``calls``; or ``flush``.

        Returns
        -------
        dict
            ``seconds`` of each call, and when the first ``began`` and the last
            ``ended`` by the monotonic clock; or how long it took until the last
            event was logged, and how many were ``lost``.
        """
        if told.get("flush"):
            return self.flush()
        return self.called(told["mode"], told["who"], told["calls"])

    def called(self, mode: str, who: str, calls: int) -> dict[str, Any]:
        """Make calls, and return what they took.

        Parameters
        ----------
        mode
            One of `MODES`.
        who
            The bare model, or ours.
        calls
            How many in all.
        """
        prompts = list(itertools.islice(self._prompts, calls))
        shares = [prompts[n::AT_ONCE] for n in range(AT_ONCE)]
        model = self._models[who]
        began = time.monotonic()
        if mode == _ROUTE:
            seconds = [self._decided(prompts)]
        elif mode == _ROUTE_THREADS:
            seconds = list(self._pool.map(self._decided, shares))
        elif mode == _SYNC:
            seconds = [_asked(model, prompts)]
        elif mode == _THREADS:
            seconds = list(self._pool.map(lambda some: _asked(model, some), shares))
        else:
            seconds = self._loop.run(_gathered(model, shares))
        ended = time.monotonic()
        return {
            "seconds": list(itertools.chain(*seconds)),
            "began": began,
            "ended": ended,
        }

    def flush(self) -> dict[str, Any]:
        """Wait until everything is logged."""
        journal = self.model.dispatcher.journal
        began = time.monotonic()
        if journal is None:
            return {"seconds": 0.0, "lost": 0}
        is_written = journal.flush(_FLUSH_SECONDS)
        lost = getattr(journal._writer, "lost", 0)  # noqa: SLF001 - nothing else counts
        return {
            "seconds": time.monotonic() - began,
            "lost": lost if is_written else lost + 1,
        }

    def close(self) -> None:
        """Let go of threads and loop."""
        self._pool.shutdown()
        self._loop.close()
        if self.model.dispatcher.journal is not None:
            self.model.dispatcher.journal.close()

    def _decided(self, prompts: Sequence[str]) -> list[float]:
        """Decide and tell the outcome; only the decision is timed for itself."""
        router, seconds = self.model.router, []
        for prompt in prompts:
            began = time.perf_counter()
            decision = router.route(prompt)
            seconds.append(time.perf_counter() - began)
            router.record_outcome(decision.id, Outcome(100, 100))
        return seconds


def _asked(model: BaseChatModel, prompts: Sequence[str]) -> list[float]:
    seconds = []
    for prompt in prompts:
        began = time.perf_counter()
        model.invoke(prompt)
        seconds.append(time.perf_counter() - began)
    return seconds


async def _aasked(model: BaseChatModel, prompts: Sequence[str]) -> list[float]:
    seconds = []
    for prompt in prompts:
        began = time.perf_counter()
        await model.ainvoke(prompt)
        seconds.append(time.perf_counter() - began)
    return seconds


async def _gathered(
    model: BaseChatModel, shares: Sequence[Sequence[str]]
) -> list[list[float]]:
    return await asyncio.gather(*(_aasked(model, some) for some in shares))


def _made(told: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    without_tracing()
    quiet()
    return Worker(**told).obey


if __name__ == "__main__":
    serve(_made)
