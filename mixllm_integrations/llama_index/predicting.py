# ruff: noqa: ANN401 - the signatures are LlamaIndex's
"""Prompts answered by the chosen LLM's own methods.

Query and chat engines ask this way. Each LLM fills a prompt in its own way: with the
system prompt that it was made with, in the form that its model was trained on.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.types import TokenAsyncGen, TokenGen

from mixllm_integrations.llama_index.calls import aanswer, answer, astream, stream
from mixllm_integrations.llama_index.candidates import CandidateLLM
from mixllm_integrations.llama_index.prompts import Filled
from mixllm_integrations.llama_index.reading import TEXT
from mixllm_integrations.llama_index.tools import ToolCallingLLM

__all__ = ["PredictingLLM"]


class PredictingLLM(ToolCallingLLM):
    """What `MixLLM` does with prompts.

    A text has no place for a routing record: `asking` keeps it.
    """

    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Return the text that one candidate answers to a prompt.

        Parameters
        ----------
        prompt
            What is asked.
        **prompt_args
            What fills it; never about the choice, which `asking` speaks of.

        Returns
        -------
        str
            The answer.
        """
        asked = self._prompted(prompt, prompt_args)
        said = answer(
            asked.request, lambda one: one.llm.predict(**asked.sent_to(one)), TEXT
        )
        return self._parse_output(said)

    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Return the text without blocking; see `predict`."""
        asked = self._prompted(prompt, prompt_args)
        said = await aanswer(
            asked.request, lambda one: one.llm.apredict(**asked.sent_to(one)), TEXT
        )
        return self._parse_output(said)

    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenGen:
        """Return the pieces of the text; see `predict`.

        Routed when the first one is asked for.
        """
        asked = self._prompted(prompt, prompt_args, streaming=True)

        def ask(one: CandidateLLM) -> Iterator[str]:
            return one.llm.stream(**asked.sent_to(one))

        return stream(asked.request, ask, TEXT)

    async def astream(
        self, prompt: BasePromptTemplate, **prompt_args: Any
    ) -> TokenAsyncGen:
        """Return the pieces of the text without blocking; see `stream`."""
        asked = self._prompted(prompt, prompt_args, streaming=True)

        async def ask(one: CandidateLLM) -> AsyncIterator[str]:
            return await one.llm.astream(**asked.sent_to(one))

        return astream(asked.request, ask, TEXT)

    def _prompted(
        self,
        prompt: BasePromptTemplate,
        prompt_args: dict[str, Any],
        *,
        streaming: bool = False,
    ) -> Filled:
        has_parser = prompt.output_parser is not None or self.output_parser is not None
        if streaming and has_parser:  # as LlamaIndex's own; no candidate's failure
            raise NotImplementedError("an output parser needs the whole text: predict")
        formatted = prompt.format_messages(llm=self, **prompt_args)
        sent = formatted
        if self.output_parser is not None:
            sent = self.output_parser.format_messages([*sent])
        sent = self._extend_messages(sent)
        return Filled(self, prompt, prompt_args, formatted=formatted, sent=sent, own={})
