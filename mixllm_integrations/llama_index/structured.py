# ruff: noqa: ANN401 - the signatures are LlamaIndex's
"""Objects of a schema, made by the chosen LLM's own methods.

Each provider has its own way to them, which a program over the routed LLM would not
take: OpenAI's and Anthropic's LLMs ask for JSON of the schema, others call a tool.
"""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Generator,
    Iterator,
    Sequence,
)
from typing import Any, TypeVar, cast

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
)
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.prompts import BasePromptTemplate
from pydantic import BaseModel

from mixllm_integrations.llama_index.asking import Asking
from mixllm_integrations.llama_index.calls import aanswer, answer, astream, stream
from mixllm_integrations.llama_index.candidates import CandidateLLM
from mixllm_integrations.llama_index.messages import stamped
from mixllm_integrations.llama_index.predicting import PredictingLLM
from mixllm_integrations.llama_index.prompts import Filled
from mixllm_integrations.llama_index.reading import OBJECT

__all__ = ["RecordingStructuredLLM", "StructuringLLM"]

Model = TypeVar("Model", bound=BaseModel)


class StructuringLLM(PredictingLLM):
    """What `MixLLM` does with schemas: only candidates that fill them compete.

    An object has no place for a routing record: `asking` keeps it.
    """

    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Return an object that one candidate has filled.

        Parameters
        ----------
        output_cls
            Its class.
        prompt
            What is asked.
        llm_kwargs
            Handed to the candidate, but for what speaks of the choice, as in `chat`.
        **prompt_args
            What fills the prompt.

        Returns
        -------
        BaseModel
            The object. An answer that does not fit is raised as the candidate's
            own method does, and no other one is asked.

        Raises
        ------
        NoCandidateError
            If no candidate can.
        """
        asked = _filled(self, output_cls, prompt, llm_kwargs, prompt_args)
        filled: Model = answer(
            asked.request,
            lambda one: one.llm.structured_predict(**asked.sent_to(one)),
            OBJECT,
        )
        return filled

    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Return the object without blocking; see `structured_predict`."""
        asked = _filled(self, output_cls, prompt, llm_kwargs, prompt_args)
        filled: Model = await aanswer(
            asked.request,
            lambda one: one.llm.astructured_predict(**asked.sent_to(one)),
            OBJECT,
        )
        return filled

    def stream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        """Return ever more complete objects; see `structured_predict`.

        Routed when the first one is asked for.
        """
        asked = _filled(self, output_cls, prompt, llm_kwargs, prompt_args)

        def ask(one: CandidateLLM) -> Iterator[Any]:
            return one.llm.stream_structured_predict(**asked.sent_to(one))

        return stream(asked.request, ask, OBJECT)

    async def astream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        """Return ever more complete objects without blocking."""
        asked = _filled(self, output_cls, prompt, llm_kwargs, prompt_args)

        async def ask(one: CandidateLLM) -> AsyncIterator[Any]:
            return await one.llm.astream_structured_predict(**asked.sent_to(one))

        return astream(asked.request, ask, OBJECT)

    def as_structured_llm(
        self, output_cls: type[BaseModel], **kwargs: Any
    ) -> StructuredLLM:
        """Return an LLM whose answers are objects of a class.

        Parameters
        ----------
        output_cls
            The class.
        **kwargs
            As for every LLM.

        Returns
        -------
        StructuredLLM
            Each answer has the object in `raw`, and the routing record.
        """
        return RecordingStructuredLLM(llm=self, output_cls=output_cls, **kwargs)


class RecordingStructuredLLM(StructuredLLM):
    """A structured LLM over a routed one, with the routing record on its answers."""

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return an answer with the object in `raw`."""
        with self._asking() as asked:
            said = super().chat(messages, **kwargs)
        return _with_record(said, asked)

    async def achat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponse:
        """Return the answer without blocking."""
        with self._asking() as asked:
            said = await super().achat(messages, **kwargs)
        return _with_record(said, asked)

    def stream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseGen:
        """Yield answers with ever more complete objects."""
        asked = self._asking()
        chunks = super().stream_chat(messages, **kwargs)
        while True:
            with asked:  # it is routed in here, when the first is asked for
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield _with_record(chunk, asked)

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """Yield answers with ever more complete objects, without blocking."""
        asked = self._asking()
        chunks = await super().astream_chat(messages, **kwargs)

        async def recorded() -> ChatResponseAsyncGen:
            while True:
                with asked:
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                yield _with_record(chunk, asked)

        return recorded()

    def _asking(self) -> Asking:
        routed = cast("StructuringLLM", self.llm)
        return routed.asking()


def _with_record(said: ChatResponse, asked: Asking) -> ChatResponse:
    return said if asked.record is None else stamped(said, asked.record)


def _filled(
    llm: StructuringLLM,
    output_cls: type[BaseModel],
    prompt: BasePromptTemplate,
    llm_kwargs: dict[str, Any] | None,
    prompt_args: dict[str, Any],
) -> Filled:
    messages = prompt.format_messages(llm=llm, **prompt_args)
    return Filled(
        llm,
        prompt,
        prompt_args,
        formatted=messages,
        sent=llm._extend_messages(messages),  # noqa: SLF001
        own={"output_cls": output_cls, "llm_kwargs": dict(llm_kwargs or {})},
        requires=("structured_output",),
        form=output_cls.__name__,
    )
