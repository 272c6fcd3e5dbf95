"""`generate` and the hooks that other code calls, all by way of `invoke`.

The base class's own would open an LLM run around the chosen model's, and count
its tokens twice.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
    Callbacks,
)
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    ChatResult,
    LLMResult,
    RunInfo,
)
from langchain_core.runnables import RunnableConfig

from mixllm_integrations.langchain.pool import ModelPool

__all__ = ["GeneratingPool"]


class GeneratingPool(ModelPool):
    """Adds what is built on `invoke`, `ainvoke`, `stream` and `astream`."""

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        run_name: str | None = None,
        run_id: uuid.UUID | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> LLMResult:
        """Route each conversation as `invoke` does.

        Parameters
        ----------
        messages
            Conversations.
        stop, callbacks, tags, metadata, run_name, run_id, **kwargs
            As of every chat model; `run_id` is that of the first run.

        Returns
        -------
        LLMResult
            One message per conversation.
        """
        configs = _configs(len(messages), run_id, (callbacks, tags, metadata, run_name))
        answers = [
            self.invoke(conversation, config, stop=stop, **kwargs)
            for conversation, config in zip(messages, configs, strict=True)
        ]
        return _result(answers, configs)

    async def agenerate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        run_name: str | None = None,
        run_id: uuid.UUID | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> LLMResult:
        """Do the same as `generate`, all conversations at once."""
        configs = _configs(len(messages), run_id, (callbacks, tags, metadata, run_name))
        calls = (
            self.ainvoke(conversation, config, stop=stop, **kwargs)
            for conversation, config in zip(messages, configs, strict=True)
        )
        answers = await asyncio.gather(*calls, return_exceptions=True)
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        if failed:
            raise failed[0]
        return _result(cast("list[AIMessage]", answers), configs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401
    ) -> ChatResult:
        answer = self.invoke(messages, stop=stop, **kwargs)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401
    ) -> ChatResult:
        answer = await self.ainvoke(messages, stop=stop, **kwargs)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self.stream(messages, stop=stop, **kwargs):
            yield ChatGenerationChunk(message=chunk)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for chunk in self.astream(messages, stop=stop, **kwargs):
            yield ChatGenerationChunk(message=chunk)


def _configs(
    count: int,
    first_run_id: uuid.UUID | None,
    shared: tuple[Callbacks, list[str] | None, dict[str, Any] | None, str | None],
) -> list[RunnableConfig]:
    """Return one config per conversation, each with a run id."""
    callbacks, tags, metadata, run_name = shared
    run_ids = [uuid.uuid4() for _ in range(count)]
    if first_run_id is not None and run_ids:
        run_ids[0] = first_run_id
    configs = []
    for run_id in run_ids:
        config = RunnableConfig(
            callbacks=callbacks, run_id=run_id, tags=tags or [], metadata=metadata or {}
        )
        if run_name is not None:
            config["run_name"] = run_name
        configs.append(config)
    return configs


def _result(answers: list[AIMessage], configs: list[RunnableConfig]) -> LLMResult:
    return LLMResult(
        generations=[[ChatGeneration(message=answer)] for answer in answers],
        llm_output={},
        run=[RunInfo(run_id=cast("uuid.UUID", c["run_id"])) for c in configs] or None,
    )
