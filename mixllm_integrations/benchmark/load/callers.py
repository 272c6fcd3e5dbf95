"""Those who ask: first they are threads, then coroutines; each fourth call a stream.

Not both at once: threads that share one interpreter with a loop leave it hardly
any time.
"""

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks

from mixllm_integrations.langchain import MixLLMChatModel
from mixllm_integrations.serving import record_of

__all__ = ["Answered", "Callers"]

_STREAM_EVERY = 4


class Answered(NamedTuple):
    """One call that was answered.

    Parameters
    ----------
    record
        The routing record.
    tokens
        Of the prompt and of the answer, as the answer says it.
    seconds
        From question to answer.
    at
        When it came, by `time.monotonic`.
    """

    record: Mapping[str, Any]
    tokens: tuple[int, int]
    seconds: float
    at: float


class Callers:
    """Many who ask the same model, one call after the other each.

    Parameters
    ----------
    callers
        How many.
    calls
        How many calls they make in all.

    Attributes
    ----------
    done
        Calls that have ended in any way.
    answered
        Those that were answered.
    lost
        Those that failed before they said anything, by what they raised.
    broken
        Streams that broke off.
    tasks_left
        Tasks of the loop that were under way when all calls had ended.
    """

    def __init__(self, callers: int, calls: int) -> None:
        self._callers = callers
        self._halves = (range(calls // 2), range(calls // 2, calls))
        self._numbers: Iterator[int] = iter(())
        self._lock = threading.Lock()
        self.done = 0
        self.answered: list[Answered] = []
        self.lost: Counter[str] = Counter()
        self.broken = 0
        self.tasks_left = 0

    def ask_all(self, model: MixLLMChatModel) -> None:
        """Make all calls, and return when the last one has ended.

        Parameters
        ----------
        model
            Whom they ask.
        """
        for numbers, ask in zip(
            self._halves, (self._ask_on_threads, self._ask_in_a_loop), strict=True
        ):
            self._numbers = iter(numbers)
            ask(model)

    def _ask_on_threads(self, model: MixLLMChatModel) -> None:
        with ThreadPoolExecutor(self._callers, "mixllm-callers") as pool:
            working = [pool.submit(self._ask_on, model) for _ in range(self._callers)]
            for one in working:
                one.result()

    def _ask_in_a_loop(self, model: MixLLMChatModel) -> None:
        async def ask() -> None:
            await asyncio.gather(*(self._aask_on(model) for _ in range(self._callers)))
            await asyncio.sleep(0)  # what is about to end may do so
            self.tasks_left = len(asyncio.all_tasks()) - 1

        asyncio.run(ask())

    def _ask_on(self, model: MixLLMChatModel) -> None:
        while (number := self._next()) is not None:
            began, said = time.monotonic(), []
            try:
                if number % _STREAM_EVERY:
                    said.append(model.invoke(_prompt(number)))
                else:
                    for chunk in model.stream(_prompt(number)):
                        said.append(chunk)  # noqa: PERF402 - kept if it breaks off
            except Exception as error:  # noqa: BLE001 - counted by its type
                self._failed(error, has_begun=bool(said))
            else:
                self._came(said, began)

    async def _aask_on(self, model: MixLLMChatModel) -> None:
        while (number := self._next()) is not None:
            began, said = time.monotonic(), []
            try:
                if number % _STREAM_EVERY:
                    said.append(await model.ainvoke(_prompt(number)))
                else:
                    async for chunk in model.astream(_prompt(number)):
                        said.append(chunk)  # noqa: PERF401 - kept if it breaks off
            except Exception as error:  # noqa: BLE001 - counted by its type
                self._failed(error, has_begun=bool(said))
            else:
                self._came(said, began)

    def _next(self) -> int | None:
        with self._lock:
            return next(self._numbers, None)

    def _came(self, said: list[Any], began: float) -> None:
        answer = _whole(said)
        now = time.monotonic()
        usage = answer.usage_metadata or {"input_tokens": 0, "output_tokens": 0}
        tokens = (usage["input_tokens"], usage["output_tokens"])
        with self._lock:
            self.done += 1
            record = record_of(answer) or {}
            self.answered.append(Answered(record, tokens, now - began, now))

    def _failed(self, error: Exception, *, has_begun: bool) -> None:
        with self._lock:
            self.done += 1
            if has_begun:
                self.broken += 1
            else:
                self.lost[type(error).__name__] += 1


def _prompt(number: int) -> str:
    """Return a question whose length depends on its number."""
    return " ".join(itertools.repeat(f"question {number}", 1 + number % 7))


def _whole(said: list[Any]) -> AIMessage:
    first: AIMessage = said[0]
    if isinstance(first, AIMessageChunk):
        return add_ai_message_chunks(*said)
    return first
