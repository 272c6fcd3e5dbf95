# ruff: noqa: ANN401, FBT001, FBT002 - the signatures are LlamaIndex's
"""Calls with tools, handed to the chosen LLM's own methods."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    MessageRole,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.llms import LLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import Requirement
from mixllm_integrations.llama_index.calls import Calls
from mixllm_integrations.llama_index.configured import FromConfig
from mixllm_integrations.llama_index.messages import (
    QueryFrom,
    Request,
    asked_of,
    unstamped,
)
from mixllm_integrations.serving import record_of

__all__ = ["ToolCallingLLM"]


class ToolCallingLLM(FromConfig, FunctionCallingLLM):
    """What `MixLLM` does with tools: only candidates that call tools compete.

    As long as a conversation ends with the results of tools, the candidate
    that asked for them goes on.
    """

    query_from: QueryFrom | None = Field(default=None, exclude=True, repr=False)
    _calls: Calls = PrivateAttr()

    def chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """Return the answer of one candidate that may call tools.

        Parameters
        ----------
        tools
            What it may call.
        user_msg
            What the user says now; ``None``: the history ends with it.
        chat_history
            The conversation so far.
        verbose, allow_parallel_tool_calls, tool_required
            Handed on.
        **kwargs
            Handed on.

        Returns
        -------
        ChatResponse
            The candidate's answer, with the routing record;
            `get_tool_calls_from_response` reads its tool calls.

        Raises
        ------
        NoCandidateError
            If no candidate can call tools.
        """
        asked = self._prepare_chat_with_tools(
            tools,
            user_msg,
            chat_history,
            verbose,
            allow_parallel_tool_calls,
            tool_required,
            **kwargs,
        )
        return self._calls.answer(
            self._request(asked["chat_history"], "tools"),
            lambda llm: _caller(llm).chat_with_tools(**_sent(asked)),
        )

    async def achat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """Return the answer without blocking; see `chat_with_tools`."""
        asked = self._prepare_chat_with_tools(
            tools,
            user_msg,
            chat_history,
            verbose,
            allow_parallel_tool_calls,
            tool_required,
            **kwargs,
        )
        return await self._calls.aanswer(
            self._request(asked["chat_history"], "tools"),
            lambda llm: _caller(llm).achat_with_tools(**_sent(asked)),
        )

    def stream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseGen:
        """Return the chunks of the answer; see `chat_with_tools`."""
        asked = self._prepare_chat_with_tools(
            tools,
            user_msg,
            chat_history,
            verbose,
            allow_parallel_tool_calls,
            tool_required,
            **kwargs,
        )
        return self._calls.stream(
            self._request(asked["chat_history"], "tools"),
            lambda llm: _caller(llm).stream_chat_with_tools(**_sent(asked)),
        )

    async def astream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseAsyncGen:
        """Return the chunks without blocking; see `chat_with_tools`."""
        asked = self._prepare_chat_with_tools(
            tools,
            user_msg,
            chat_history,
            verbose,
            allow_parallel_tool_calls,
            tool_required,
            **kwargs,
        )
        return self._calls.astream(
            self._request(asked["chat_history"], "tools"),
            lambda llm: _caller(llm).astream_chat_with_tools(**_sent(asked)),
        )

    def get_tool_calls_from_response(
        self,
        response: ChatResponse,
        error_on_no_tool_call: bool = True,
        **kwargs: Any,
    ) -> list[ToolSelection]:
        """Return the tool calls in an answer, as the LLM that gave it reads them.

        Parameters
        ----------
        response
            An answer, or a chunk of one. If it carries no routing record, the
            first candidate that calls tools reads it.
        error_on_no_tool_call
            Whether an answer without tool calls is an error.
        **kwargs
            Handed on.

        Returns
        -------
        list of ToolSelection
            What to call.

        Raises
        ------
        ConfigurationError
            If no candidate can call tools.
        ValueError
            If there are none and that is an error.
        """
        record = record_of(response) or {}
        llms = self._calls.llms
        able = [llms.get(str(record.get("candidate"))), *llms.values()]
        reader = next((m for m in able if isinstance(m, FunctionCallingLLM)), None)
        if reader is None:
            raise ConfigurationError(f"none of the candidates {[*llms]} calls tools")
        return reader.get_tool_calls_from_response(
            response, error_on_no_tool_call=error_on_no_tool_call, **kwargs
        )

    def _request(
        self, messages: Sequence[ChatMessage], *requires: Requirement
    ) -> Request:
        asked = asked_of(messages, *requires, query_from=self.query_from)
        return replace(asked, rate_limiter=getattr(self, "rate_limiter", None))

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the arguments for the chosen LLM's own method.

        The user's message goes to the end of a copy of the history: what LLMs
        do with the two apart differs, and some change the list.
        """
        if isinstance(user_msg, str):
            user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
        said = [*(chat_history or []), *([] if user_msg is None else [user_msg])]
        return {
            **kwargs,
            "tools": tools,
            "chat_history": said,
            "verbose": verbose,
            "allow_parallel_tool_calls": allow_parallel_tool_calls,
            "tool_required": tool_required,
        }


def _caller(llm: LLM) -> FunctionCallingLLM:
    # The requirement "tools" lets only these through; see `resolved`.
    return cast("FunctionCallingLLM", llm)


def _sent(asked: dict[str, Any]) -> dict[str, Any]:
    return {**asked, "chat_history": unstamped(asked["chat_history"])}
