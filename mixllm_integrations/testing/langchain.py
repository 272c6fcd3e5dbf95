"""A LangChain chat model that answers by script."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, TypeAlias

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import (
    convert_to_json_schema,
    convert_to_openai_tool,
)
from pydantic import BaseModel, Field, PrivateAttr

from mixllm_integrations.testing.schema import filled

__all__ = ["ScriptedCall", "ScriptedChatModel"]

Answer: TypeAlias = str | AIMessage
Script: TypeAlias = Sequence[Answer] | Callable[[list[BaseMessage]], Answer]


@dataclass(frozen=True, slots=True)
class ScriptedCall:
    """What a scripted model was asked.

    Parameters
    ----------
    messages
        The conversation as it arrived.
    stop
        The stop words in force.
    kwargs
        All other arguments of the call.
    """

    messages: list[BaseMessage]
    stop: list[str] | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)


class ScriptedChatModel(BaseChatModel):
    """A chat model that says what it is told to, and notes what it was asked.

    It supports all that a real one does: usage, streams, tools, structured
    output, stop words, errors, delays.

    Parameters
    ----------
    model
        Its name, also in ``response_metadata["model_name"]``.
    answers
        What to say: one after the other, from the start again after the last;
        or a function of the messages. Without it the model repeats the last
        message, and calls a tool if one is bound and has not been called yet.
    errors
        What to raise, by number of the call; ``None`` or the end: nothing.
    error_after_chunks
        How many chunks a stream gives before such an error.
    delay_seconds
        How long it thinks before it says anything.
    usage
        Input and output tokens to report; without it words are counted.
    reports_usage
        Whether it reports any.
    forced_tools
        Whether it obeys when a tool must be called, in spite of `answers`.
    provider
        What it says about who serves it, for tracing and prices.

    Examples
    --------
    >>> model = ScriptedChatModel(answers=["4"], usage=(10, 2))
    >>> answer = model.invoke("What is 2 + 2?")
    >>> answer.content, answer.usage_metadata["output_tokens"]
    ('4', 2)
    """

    model: str = "scripted"
    answers: Script | None = None
    errors: Sequence[Exception | None] = ()
    error_after_chunks: int = 0
    delay_seconds: float = 0.0
    usage: tuple[int, int] | None = None
    reports_usage: bool = True
    forced_tools: bool = True
    provider: str = "scripted"
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    streaming: bool = False
    calls: list[ScriptedCall] = Field(default_factory=list, exclude=True, repr=False)

    _number: "itertools.count[int]" = PrivateAttr(default_factory=itertools.count)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model}

    def _get_ls_params(
        self,
        stop: list[str] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = self.provider
        return params

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401
    ) -> ChatResult:
        answer, error = self._asked(messages, stop, kwargs)
        if self.delay_seconds:  # even a sleep of 0 s takes a while
            time.sleep(self.delay_seconds)
        return _result(answer, error)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401
    ) -> ChatResult:
        answer, error = self._asked(messages, stop, kwargs)
        await asyncio.sleep(self.delay_seconds)
        return _result(answer, error)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401
    ) -> Iterator[ChatGenerationChunk]:
        answer, error = self._asked(messages, stop, kwargs)
        if self.delay_seconds:  # even a sleep of 0 s takes a while
            time.sleep(self.delay_seconds)
        yield from self._chunks(answer, error)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401
    ) -> AsyncIterator[ChatGenerationChunk]:
        answer, error = self._asked(messages, stop, kwargs)
        await asyncio.sleep(self.delay_seconds)
        for chunk in self._chunks(answer, error):
            yield chunk

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return a runnable that may call tools.

        Parameters
        ----------
        tools
            In any form that LangChain takes.
        tool_choice
            The name of one, ``"any"`` or True: a tool must be called.
        **kwargs
            Noted with each call.

        Returns
        -------
        Runnable
            The model with the tools bound to it.
        """
        formatted = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=formatted, tool_choice=tool_choice, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: str = "function_calling",
        **kwargs: Any,  # noqa: ANN401
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a runnable that answers in a schema.

        Parameters
        ----------
        schema
            A Pydantic class, a ``TypedDict`` or a JSON schema.
        include_raw
            Whether to return the message beside what was parsed.
        method
            ``"function_calling"``: through a tool. ``"json_schema"`` and
            ``"json_mode"``: the text of the answer is JSON.
        **kwargs
            ``strict``.

        Returns
        -------
        Runnable
            What answers.
        """
        if method == "function_calling":
            return super().with_structured_output(
                schema, include_raw=include_raw, **kwargs
            )
        shape = convert_to_json_schema(schema)
        model = self.bind(
            response_format={"type": method, "schema": shape},
            ls_structured_output_format={
                "kwargs": {"method": method},
                "schema": schema,
            },
        )
        is_class = isinstance(schema, type) and issubclass(schema, BaseModel)
        parser: Runnable[Any, Any] = (
            PydanticOutputParser(pydantic_object=schema)
            if is_class
            else JsonOutputParser()
        )
        if not include_raw:
            return model | parser
        parsed = RunnablePassthrough.assign(
            parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
        )
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parsed.with_fallbacks(
            [failed], exception_key="parsing_error"
        )

    def _asked(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        kwargs: dict[str, Any],
    ) -> tuple[AIMessage, Exception | None]:
        stop = stop if stop is not None else self.stop
        self.calls.append(ScriptedCall(messages, stop, kwargs))
        number = next(self._number)
        error = self.errors[number] if number < len(self.errors) else None
        answer = self._answer(number, messages, kwargs)
        content: Any = answer.content
        if isinstance(content, str):
            content = _cut(content, stop, kwargs.get("max_tokens", self.max_tokens))
        update = {
            "content": content,
            "usage_metadata": self._usage(messages, answer),
            "response_metadata": {
                **answer.response_metadata,
                "model_name": kwargs.get("model", self.model),
                "model_provider": self.provider,
            },
        }
        return answer.model_copy(update=update), error

    def _answer(
        self, number: int, messages: list[BaseMessage], kwargs: dict[str, Any]
    ) -> AIMessage:
        prompt = messages[-1].text if messages else ""
        response_format = kwargs.get("response_format")
        if response_format is not None and "schema" in response_format:
            return AIMessage(json.dumps(filled(response_format["schema"], prompt)))
        tools, choice = kwargs.get("tools") or [], kwargs.get("tool_choice")
        forced = self.forced_tools and bool(choice) and choice not in ("auto", "none")
        asked = bool(messages) and messages[-1].type != "tool"
        if tools and (forced or (asked and self.answers is None)):
            return _calling(_chosen(tools, choice, prompt), prompt)
        if self.answers is None:
            said: Answer = f"You said: {prompt}" if prompt else "You said nothing."
        elif callable(self.answers):
            said = self.answers(messages)
        else:
            said = self.answers[number % len(self.answers)]
        return AIMessage(said) if isinstance(said, str) else said

    def _usage(
        self, messages: list[BaseMessage], answer: AIMessage
    ) -> UsageMetadata | None:
        if not self.reports_usage:
            return None
        if self.usage is not None:
            asked, said = self.usage
        else:
            asked = sum(len(message.text.split()) for message in messages)
            said = len(answer.text.split()) + 5 * len(answer.tool_calls)
        return UsageMetadata(
            input_tokens=asked, output_tokens=said, total_tokens=asked + said
        )

    def _chunks(
        self, answer: AIMessage, error: Exception | None
    ) -> Iterator[ChatGenerationChunk]:
        pieces = list(_pieces(answer))
        if error is not None:
            yield from pieces[: self.error_after_chunks]
            raise error
        yield from pieces


def _result(answer: AIMessage, error: Exception | None) -> ChatResult:
    if error is not None:
        raise error
    return ChatResult(generations=[ChatGeneration(message=answer)])


def _pieces(answer: AIMessage) -> Iterator[ChatGenerationChunk]:
    """Split an answer at its words; what belongs to the whole comes last."""
    content: Any = answer.content
    words = content.split(" ") if isinstance(content, str) else [content]
    for number, word in enumerate(words):
        spaced = f" {word}" if number and isinstance(word, str) else word
        yield ChatGenerationChunk(message=AIMessageChunk(content=spaced))
    for index, call in enumerate(answer.tool_calls):
        written = json.dumps(call["args"], ensure_ascii=False)
        half = len(written) // 2
        head = tool_call_chunk(
            name=call["name"], args=written[:half], id=call["id"], index=index
        )
        tail = tool_call_chunk(args=written[half:], index=index)
        for part in (head, tail):
            yield ChatGenerationChunk(
                message=AIMessageChunk(content="", tool_call_chunks=[part])
            )
    yield ChatGenerationChunk(
        message=AIMessageChunk(
            content="" if isinstance(content, str) else [],
            usage_metadata=answer.usage_metadata,
            response_metadata=answer.response_metadata,
            chunk_position="last",
        )
    )


def _cut(text: str, stop: list[str] | None, max_tokens: int | None) -> str:
    for word in stop or ():
        text = text.split(word, 1)[0]
    if max_tokens is not None:
        text = " ".join(text.split(" ")[:max_tokens])
    return text


def _chosen(
    tools: Sequence[dict[str, Any]],
    choice: str | dict[str, Any] | bool | None,  # noqa: FBT001
    prompt: str,
) -> dict[str, Any]:
    """Return the tool that is asked for: by choice, else by the prompt's words."""
    wanted = choice["function"]["name"] if isinstance(choice, dict) else choice
    functions: list[dict[str, Any]] = [tool["function"] for tool in tools]
    for function in functions:
        if function["name"] == wanted:
            return function
    for function in functions:
        if function["name"] in prompt:
            return function
    return functions[0]


def _calling(function: dict[str, Any], prompt: str) -> AIMessage:
    arguments = filled(function.get("parameters") or {}, prompt)
    call = tool_call(
        name=function["name"], args=arguments, id=f"call_{function['name']}"
    )
    return AIMessage("", tool_calls=[call])
