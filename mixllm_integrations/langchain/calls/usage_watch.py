"""Hears the LLM run inside a call whose answer is parsed."""

from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, LLMResult

from mixllm_integrations.langchain.calls.messages import with_usage

__all__ = ["UsageWatch"]


class UsageWatch(BaseCallbackHandler):
    """Hears what the LLM run inside a structured call used.

    The call itself returns what was parsed, which does not tell.
    """

    run_inline = True

    def __init__(self) -> None:
        self.message: AIMessage | None = None
        self.usage: UsageMetadata | None = None

    def on_llm_end(
        self,
        response: LLMResult,
        *,
        run_id: UUID,  # noqa: ARG002
        parent_run_id: UUID | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Note the answer and its usage."""
        first = next((g for some in response.generations[:1] for g in some), None)
        if isinstance(first, ChatGeneration) and isinstance(first.message, AIMessage):
            self.message = first.message
            self.usage = with_usage(self.usage, first.message)
