"""`generate` and the hooks that other code calls, all by way of `invoke`.

The base class's own would open an LLM run around the chosen model's, and count
its tokens twice.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
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
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.uuid import uuid7

from mixllm_integrations.core.encoder import shipped_tokenizer
from mixllm_integrations.langchain.calls.texts import texts_in
from mixllm_integrations.langchain.feedback import TeachablePool
from mixllm_integrations.serving.query import TOKENS_PER_MESSAGE, text_tokens

__all__ = ["GeneratingPool"]

_WORDS_AT_ONCE = 200  # the tokenizer clips longer texts in the middle


class GeneratingPool(TeachablePool):
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

    def get_num_tokens(self, text: str) -> int:
        """Return about how many tokens a text has, by the shipped tokenizer.

        Parameters
        ----------
        text
            Any text.

        Returns
        -------
        int
            An estimate: each candidate counts differently.
        """
        if self.custom_get_token_ids is not None:
            return len(self.custom_get_token_ids(text))
        return text_tokens(text)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Return about how many tokens a conversation has, its tools included.

        Parameters
        ----------
        messages
            From first to last.
        tools
            What `bind_tools` takes.

        Returns
        -------
        int
            An estimate: each candidate counts differently, images not at all.
        """
        schemas = [json.dumps(convert_to_openai_tool(tool)) for tool in tools or ()]
        texts = [" ".join(texts_in(message)) for message in messages]
        counted = sum(self.get_num_tokens(text) for text in (*texts, *schemas))
        return counted + TOKENS_PER_MESSAGE * len(messages)

    def get_token_ids(self, text: str) -> list[int]:
        """Return the ids of a text's tokens, by the shipped tokenizer.

        Parameters
        ----------
        text
            Any text; of a word of many thousand characters the middle is left out.

        Returns
        -------
        list of int
            Ids of the shipped vocabulary: each candidate has its own.
        """
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        words = text.split()
        parts = [
            " ".join(words[at : at + _WORDS_AT_ONCE])
            for at in range(0, len(words), _WORDS_AT_ONCE)
        ]
        return [int(i) for ids in shipped_tokenizer().ids(parts) for i in ids]

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
    run_ids = [uuid7() for _ in range(count)]
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
