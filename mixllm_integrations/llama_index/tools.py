# ruff: noqa: ANN401, FBT001, FBT002 - the signatures are LlamaIndex's
"""Calls with tools, handed to the chosen LLM's own methods."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    MessageRole,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.llama_index.calls import aanswer, answer, astream, stream
from mixllm_integrations.llama_index.candidates import CandidateLLM
from mixllm_integrations.llama_index.configured import FromConfig
from mixllm_integrations.llama_index.feedback import TeachableLLM
from mixllm_integrations.llama_index.reading import CHAT
from mixllm_integrations.llama_index.request import Request
from mixllm_integrations.serving import RECORD_KEY, record_of

if TYPE_CHECKING:
    from llama_index.core.chat_engine.types import AgentChatResponse

__all__ = ["ToolCallingLLM"]


class ToolCallingLLM(FromConfig, TeachableLLM):
    """What `MixLLM` does with tools: only candidates that call tools compete.

    As long as a conversation ends with the results of tools, the candidate
    that asked for them goes on.
    """

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
        request = self._tool_request(asked)
        return answer(
            request,
            lambda one: _caller(one).chat_with_tools(**_sent(request, one, asked)),
            CHAT,
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
        request = self._tool_request(asked)
        return await aanswer(
            request,
            lambda one: _caller(one).achat_with_tools(**_sent(request, one, asked)),
            CHAT,
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
        request = self._tool_request(asked)
        return stream(
            request,
            lambda one: _caller(one).stream_chat_with_tools(
                **_sent(request, one, asked)
            ),
            CHAT,
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
        request = self._tool_request(asked)
        return astream(
            request,
            lambda one: _caller(one).astream_chat_with_tools(
                **_sent(request, one, asked)
            ),
            CHAT,
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
        name, by_name = record.get("candidate"), self.seats.by_name
        author = by_name.get(self.dispatcher.renames.current(str(name)))
        able = [*([] if author is None else [author]), *by_name.values()]
        reader = next((_caller(one) for one in able if one.tools), None)
        if reader is None:
            raise ConfigurationError(f"none of the candidates {[*by_name]} calls tools")
        return reader.get_tool_calls_from_response(
            response, error_on_no_tool_call=error_on_no_tool_call, **kwargs
        )

    def predict_and_call(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        error_on_no_tool_call: bool = True,
        error_on_tool_error: bool = False,
        **kwargs: Any,
    ) -> "AgentChatResponse":
        """Let one candidate choose tools, and call them.

        Parameters
        ----------
        tools
            What it may call.
        user_msg, chat_history, verbose, allow_parallel_tool_calls
            As for `chat_with_tools`.
        error_on_no_tool_call, error_on_tool_error
            Whether these are errors.
        **kwargs
            As for `chat_with_tools`.

        Returns
        -------
        AgentChatResponse
            What the tools returned, with the routing record in its `metadata`. A
            tool that refused the call is told to the router as a signal.
        """
        with self.asking() as asked:
            said = super().predict_and_call(
                tools,
                user_msg=user_msg,
                chat_history=chat_history,
                verbose=verbose,
                allow_parallel_tool_calls=allow_parallel_tool_calls,
                error_on_no_tool_call=error_on_no_tool_call,
                error_on_tool_error=error_on_tool_error,
                **kwargs,
            )
        return self._called(said, asked.record)

    async def apredict_and_call(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        error_on_no_tool_call: bool = True,
        error_on_tool_error: bool = False,
        **kwargs: Any,
    ) -> "AgentChatResponse":
        """Do the same without blocking; see `predict_and_call`."""
        with self.asking() as asked:
            said = await super().apredict_and_call(
                tools,
                user_msg=user_msg,
                chat_history=chat_history,
                verbose=verbose,
                allow_parallel_tool_calls=allow_parallel_tool_calls,
                error_on_no_tool_call=error_on_no_tool_call,
                error_on_tool_error=error_on_tool_error,
                **kwargs,
            )
        return self._called(said, asked.record)

    def _called(
        self, said: "AgentChatResponse", record: dict[str, Any] | None
    ) -> "AgentChatResponse":
        if record is not None:
            said.metadata = {**(said.metadata or {}), RECORD_KEY: record}
            if any(output.is_error for output in said.sources):
                self.dispatcher.tell(record["decision_id"], "tool_error")
        return said

    def _tool_request(self, asked: dict[str, Any]) -> Request:
        return Request(self, asked["chat_history"], asked, requires=("tools",))

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


def _caller(candidate: CandidateLLM) -> FunctionCallingLLM:
    # The requirement "tools" lets only these through; see `resolved`.
    return cast("FunctionCallingLLM", candidate.llm)


def _sent(
    request: Request, candidate: CandidateLLM, asked: dict[str, Any]
) -> dict[str, Any]:
    return {**asked, "chat_history": request.sent_to(candidate)}
