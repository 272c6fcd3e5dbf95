# ruff: noqa: ANN401, FBT001, FBT002 - the signatures are LlamaIndex's
"""A LlamaIndex LLM that answers by script."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool

__all__ = ["ScriptedLLM"]

Answer: TypeAlias = str | ChatMessage
Script: TypeAlias = Sequence[Answer] | Callable[[list[ChatMessage]], Answer]


class ScriptedLLM(FunctionCallingLLM):
    """An LLM that says what it is told to, and notes what it was asked.

    It counts as a real one in LlamaIndex's events, and supports chats,
    completions, streams, tools, usage, errors and delays.

    Parameters
    ----------
    model
        Its name, in its metadata and its raw answers.
    answers
        What to say: one after the other, from the start again after the last;
        or a function of the messages. A `ChatMessage` may hold
        `ToolCallBlock`. Without it the LLM repeats the last message.
    errors
        What to raise, by number of the call; ``None`` or the end: nothing.
    error_after_chunks
        How many chunks a stream gives before such an error.
    delay_seconds
        How long it thinks before it says anything.
    usage
        Input and output tokens to report; without it words are counted.
    reports_usage
        Where: ``"raw"``, as OpenAI does, ``"additional_kwargs"``, or ``None``.
        In a stream on the last chunk.
    context_window, num_output, is_chat_model, is_function_calling_model
        What it says in its metadata.

    Attributes
    ----------
    calls
        What it was asked: the method, the messages, all other arguments.

    Examples
    --------
    >>> llm = ScriptedLLM(answers=["4"], usage=(10, 2))
    >>> response = llm.complete("What is 2 + 2?")
    >>> response.text, response.raw["usage"]
    ('4', {'prompt_tokens': 10, 'completion_tokens': 2})
    """

    model: str = "scripted"
    answers: Script | None = Field(default=None, exclude=True, repr=False)
    errors: Sequence[Exception | None] = Field(default=(), exclude=True, repr=False)
    error_after_chunks: int = 0
    delay_seconds: float = 0.0
    usage: tuple[int, int] | None = None
    reports_usage: Literal["raw", "additional_kwargs"] | None = "raw"
    context_window: int = 100_000
    num_output: int = 4_000
    is_chat_model: bool = True
    is_function_calling_model: bool = True
    calls: list[tuple[str, list[ChatMessage], dict[str, Any]]] = Field(
        default_factory=list, exclude=True, repr=False
    )

    _number: "itertools.count[int]" = PrivateAttr(default_factory=itertools.count)

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex knows it."""
        return "ScriptedLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What it says about itself."""
        return LLMMetadata(
            context_window=self.context_window,
            num_output=self.num_output,
            is_chat_model=self.is_chat_model,
            is_function_calling_model=self.is_function_calling_model,
            model_name=self.model,
        )

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return the next answer."""
        answer, error = self._asked("chat", messages, kwargs)
        self._think()
        return self._whole(answer, error, messages)

    @llm_chat_callback()
    async def achat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponse:
        """Return the next answer without blocking."""
        answer, error = self._asked("achat", messages, kwargs)
        await asyncio.sleep(self.delay_seconds)
        return self._whole(answer, error, messages)

    @llm_chat_callback()
    def stream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseGen:
        """Return the next answer word by word."""

        def chunks() -> ChatResponseGen:
            answer, error = self._asked("stream_chat", messages, kwargs)
            self._think()
            yield from self._chunks(answer, error, messages)

        return chunks()

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """Return the next answer word by word, without blocking."""

        async def chunks() -> ChatResponseAsyncGen:
            answer, error = self._asked("astream_chat", messages, kwargs)
            await asyncio.sleep(self.delay_seconds)
            for chunk in self._chunks(answer, error, messages):
                yield chunk

        return chunks()

    @llm_completion_callback()
    def complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Return the next answer."""
        asked = _said(prompt)
        answer, error = self._asked("complete", asked, kwargs, formatted)
        self._think()
        return _completion(self._whole(answer, error, asked))

    @llm_completion_callback()
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Return the next answer without blocking."""
        asked = _said(prompt)
        answer, error = self._asked("acomplete", asked, kwargs, formatted)
        await asyncio.sleep(self.delay_seconds)
        return _completion(self._whole(answer, error, asked))

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """Return the next answer word by word."""

        def chunks() -> CompletionResponseGen:
            asked = _said(prompt)
            answer, error = self._asked("stream_complete", asked, kwargs, formatted)
            self._think()
            yield from map(_completion, self._chunks(answer, error, asked))

        return chunks()

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Return the next answer word by word, without blocking."""

        async def chunks() -> CompletionResponseAsyncGen:
            asked = _said(prompt)
            answer, error = self._asked("astream_complete", asked, kwargs, formatted)
            await asyncio.sleep(self.delay_seconds)
            for chunk in self._chunks(answer, error, asked):
                yield _completion(chunk)

        return chunks()

    def get_tool_calls_from_response(
        self,
        response: ChatResponse,
        error_on_no_tool_call: bool = True,
        **kwargs: Any,  # noqa: ARG002
    ) -> list[ToolSelection]:
        """Return the tool calls in an answer.

        Parameters
        ----------
        response
            An answer, or a chunk of one.
        error_on_no_tool_call
            Whether an answer without tool calls is an error.
        **kwargs
            Ignored.

        Returns
        -------
        list of ToolSelection
            One for each `ToolCallBlock`.

        Raises
        ------
        ValueError
            If there are none and that is an error.
        """
        found = [b for b in response.message.blocks if isinstance(b, ToolCallBlock)]
        if error_on_no_tool_call and not found:
            raise ValueError("the answer calls no tool")
        return [
            ToolSelection(
                tool_id=block.tool_call_id or "",
                tool_name=block.tool_name,
                tool_kwargs=block.tool_kwargs,
            )
            for block in found
        ]

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,  # noqa: ARG002
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = chat_history if chat_history is not None else []
        if user_msg is not None:  # changes the caller's list, as OpenAI's does
            said = _said(user_msg) if isinstance(user_msg, str) else [user_msg]
            messages.extend(said)
        return {
            "messages": messages,
            "tools": [tool.metadata.get_name() for tool in tools],
            "allow_parallel_tool_calls": allow_parallel_tool_calls,
            "tool_required": tool_required,
            **kwargs,
        }

    def _think(self) -> None:
        if self.delay_seconds > 0:  # even a sleep of 0 s gives the processor away
            time.sleep(self.delay_seconds)

    def _asked(
        self,
        method: str,
        messages: Sequence[ChatMessage],
        kwargs: dict[str, Any],
        formatted: bool | None = None,
    ) -> tuple[ChatMessage, Exception | None]:
        """Note the call; return what to say and what to raise."""
        number = next(self._number)
        noted = kwargs if formatted is None else {**kwargs, "formatted": formatted}
        self.calls.append((method, list(messages), noted))
        error = self.errors[number] if number < len(self.errors) else None
        answer: Answer
        if callable(self.answers):
            answer = self.answers(list(messages))
        elif self.answers:
            answer = self.answers[number % len(self.answers)]
        else:
            answer = (messages[-1].content or "") if messages else ""
        if isinstance(answer, str):
            answer = ChatMessage(role=MessageRole.ASSISTANT, content=answer)
        return answer, error

    def _whole(
        self,
        answer: ChatMessage,
        error: Exception | None,
        messages: Sequence[ChatMessage],
    ) -> ChatResponse:
        if error is not None:
            raise error
        return ChatResponse(message=answer, **self._usage(answer, messages))

    def _chunks(
        self,
        answer: ChatMessage,
        error: Exception | None,
        messages: Sequence[ChatMessage],
    ) -> Iterator[ChatResponse]:
        words = [f"{word} " for word in (answer.content or "").split(" ")]
        words[-1] = words[-1][:-1]
        calls = [b for b in answer.blocks if not isinstance(b, TextBlock)]
        text = ""
        for number, word in enumerate(words):
            if error is not None and number == self.error_after_chunks:
                raise error
            text += word
            is_last = number == len(words) - 1
            blocks = [TextBlock(text=text), *(calls if is_last else [])]
            yield ChatResponse(
                message=ChatMessage(role=answer.role, blocks=blocks),
                delta=word,
                **(self._usage(answer, messages) if is_last else self._raw()),
            )
        if error is not None:
            raise error

    def _usage(
        self, answer: ChatMessage, messages: Sequence[ChatMessage]
    ) -> dict[str, Any]:
        read, written = self.usage or (
            sum(len((m.content or "").split()) for m in messages),
            len((answer.content or "").split()),
        )
        counts = {"prompt_tokens": read, "completion_tokens": written}
        told = self._raw()
        if self.reports_usage == "raw":
            told["raw"]["usage"] = counts
        elif self.reports_usage == "additional_kwargs":
            told["additional_kwargs"] = counts
        return told

    def _raw(self) -> dict[str, Any]:
        return {"raw": {"model": self.model}}


def _said(prompt: str) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=prompt)]


def _completion(response: ChatResponse) -> CompletionResponse:
    return CompletionResponse(
        text=response.message.content or "",
        delta=response.delta,
        raw=response.raw,
        additional_kwargs=response.additional_kwargs,
    )
