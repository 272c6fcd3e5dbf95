"""A prompt that was filled, and what each candidate is sent of it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import BasePromptTemplate, ChatPromptTemplate

from mixllm_integrations.core.types import Requirement
from mixllm_integrations.llama_index.candidates import CandidateLLM
from mixllm_integrations.llama_index.request import Request

if TYPE_CHECKING:
    from mixllm_integrations.llama_index.pool import LLMPool

__all__ = ["Filled"]


class Filled:
    """The arguments of a candidate's own method that takes a prompt.

    It gets the prompt as it is wherever it can, so it fills it in its own way: by
    the form that its model was trained on, after a system prompt of its own.

    Parameters
    ----------
    llm
        Who was called.
    prompt, prompt_args
        The prompt, and what fills it.
    formatted
        The prompt, filled.
    sent
        The same object, or what the routed LLM makes of it.
    own
        Other arguments of the method. ``llm_kwargs`` may speak of the choice;
        that is taken out of them.
    requires, form
        As for `Request`.
    """

    __slots__ = ("_given", "_messages", "_own", "_prompt", "request")

    def __init__(
        self,
        llm: "LLMPool",
        prompt: BasePromptTemplate,
        prompt_args: Mapping[str, Any],
        *,
        formatted: Sequence[ChatMessage],
        sent: Sequence[ChatMessage],
        own: Mapping[str, Any],
        requires: tuple[Requirement, ...] = (),
        form: str = "",
    ) -> None:
        self._messages = sent
        self._own = own
        self._prompt = prompt if sent is formatted else None
        self._given = prompt_args
        kwargs = own.get("llm_kwargs", {})
        self.request = Request(llm, sent, kwargs, requires=requires, form=form)

    def sent_to(self, candidate: CandidateLLM) -> dict[str, Any]:
        """Return the arguments of the candidate's own method.

        Parameters
        ----------
        candidate
            Who is asked.

        Returns
        -------
        dict
            Copies where LlamaIndex's own programs change them.
        """
        own = {k: dict(v) if k == "llm_kwargs" else v for k, v in self._own.items()}
        sent = self.request.sent_to(candidate)
        as_it_is = len(sent) == len(self._messages) and all(
            a is b for a, b in zip(sent, self._messages, strict=True)
        )
        if as_it_is and self._prompt is not None:
            return {**own, "prompt": self._prompt.model_copy(), **self._given}
        return {**own, "prompt": ChatPromptTemplate(message_templates=sent)}
