"""Times calls of chat models that take turns, in a process of its own.

``python -m mixllm_integrations.benchmark.chat_probe FOLDER FILE THREADS`` loads a
saved router and prints, as JSON, how long each call of each contestant took on
the prompts of a JSON list: ``"calls"`` one by one, ``"batch"`` all of them on
so many threads. `mixllm_integrations.benchmark.overhead` starts it.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from langchain_core.language_models import BaseChatModel

from mixllm_integrations.benchmark.contestants import contestants
from mixllm_integrations.core.router import Router

__all__ = ["KINDS", "batch_seconds", "call_seconds", "main", "without_tracing"]

KINDS = ("invoke", "ainvoke", "stream", "astream")

_WARM_UP = 30
_ROUNDS = 3
_TRACERS = ("LANGSMITH_", "LANGCHAIN_")

Model = TypeVar("Model")
Seconds = dict[str, list[float]]


def call_seconds(
    kind: str, models: Mapping[str, BaseChatModel], prompts: Sequence[str]
) -> Seconds:
    """Return how long each call of each model took, by who was called.

    Parameters
    ----------
    kind
        One of `KINDS`; streams until their first chunk, the rest is read too.
    models
        By name. They take turns at each prompt, each turn begun by the next
        one, so that all meet the same state of the machine.
    prompts
        One call each, after a few to warm up.
    """
    if kind in ("ainvoke", "astream"):
        return asyncio.run(_acall_seconds(kind, models, prompts))
    timed = _invoke if kind == "invoke" else _stream
    seconds: Seconds = {who: [] for who in models}
    for prompt, who, model in _turns(models, prompts):
        seconds[who].append(timed(model, prompt))
    return _after_warm_up(seconds)


def batch_seconds(
    models: Mapping[str, BaseChatModel], prompts: Sequence[str], *, n_threads: int
) -> Seconds:
    """Return how long each model took for all prompts at once, in each round.

    Parameters
    ----------
    models
        By name; they take turns.
    prompts
        All of them in one `batch`.
    n_threads
        On how many threads.
    """
    seconds: Seconds = {who: [] for who in models}
    for number in range(_ROUNDS):
        for who, model in _from(number, list(models.items())):
            began = time.perf_counter()
            model.batch(list(prompts), {"max_concurrency": n_threads})
            seconds[who].append(time.perf_counter() - began)
    return seconds


def without_tracing() -> None:
    """Forget what would send the calls of this process to a tracer."""
    for name in [name for name in os.environ if name.startswith(_TRACERS)]:
        del os.environ[name]


async def _acall_seconds(
    kind: str, models: Mapping[str, BaseChatModel], prompts: Sequence[str]
) -> Seconds:
    timed = _ainvoke if kind == "ainvoke" else _astream
    seconds: Seconds = {who: [] for who in models}
    for prompt, who, model in _turns(models, prompts):
        seconds[who].append(await timed(model, prompt))
    return _after_warm_up(seconds)


def _turns(
    models: Mapping[str, BaseChatModel], prompts: Sequence[str]
) -> Iterator[tuple[str, str, BaseChatModel]]:
    warm_up = [prompts[i % len(prompts)] for i in range(_WARM_UP)]
    for number, prompt in enumerate([*warm_up, *prompts]):
        for who, model in _from(number, list(models.items())):
            yield prompt, who, model


def _from(number: int, given: list[Model]) -> list[Model]:
    """Turn a list so that another one begins."""
    cut = number % len(given)
    return given[cut:] + given[:cut]


def _after_warm_up(seconds: Seconds) -> Seconds:
    return {who: spent[_WARM_UP:] for who, spent in seconds.items()}


def _invoke(model: BaseChatModel, prompt: str) -> float:
    began = time.perf_counter()
    model.invoke(prompt)
    return time.perf_counter() - began


async def _ainvoke(model: BaseChatModel, prompt: str) -> float:
    began = time.perf_counter()
    await model.ainvoke(prompt)
    return time.perf_counter() - began


def _stream(model: BaseChatModel, prompt: str) -> float:
    began = time.perf_counter()
    chunks = model.stream(prompt)
    next(chunks)
    spent = time.perf_counter() - began
    for _ in chunks:
        pass
    return spent


async def _astream(model: BaseChatModel, prompt: str) -> float:
    began = time.perf_counter()
    chunks: AsyncIterator[object] = model.astream(prompt)
    await anext(chunks)
    spent = time.perf_counter() - began
    async for _ in chunks:
        pass
    return spent


def main() -> None:
    """Call, measure, and print the figures as JSON."""
    folder, file, n_threads = sys.argv[1:4]
    without_tracing()
    prompts = json.loads(Path(file).read_text(encoding="utf-8"))
    models = contestants(Router.load(folder))
    found = {
        "calls": {kind: call_seconds(kind, models, prompts) for kind in KINDS},
        "batch": batch_seconds(models, prompts, n_threads=int(n_threads)),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
