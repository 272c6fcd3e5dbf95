# ruff: noqa: ANN401, FBT001, FBT002 - the signatures are LlamaIndex's
"""`MixLLM`: the LLM that LlamaIndex sees.

Nothing here carries LlamaIndex's callback decorators: the chosen LLM's own
methods do, so each event and each token is counted once.
"""

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    MessageRole,
)
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import LLM

from mixllm_integrations.core.router import Router
from mixllm_integrations.llama_index.calls import aanswer, answer, astream, stream
from mixllm_integrations.llama_index.candidates import CandidateLLM
from mixllm_integrations.llama_index.messages import QueryFrom
from mixllm_integrations.llama_index.reading import CHAT, COMPLETION
from mixllm_integrations.llama_index.request import Request
from mixllm_integrations.llama_index.structured import StructuringLLM
from mixllm_integrations.serving import RoutingRule
from mixllm_integrations.store import EventStore

__all__ = ["MixLLM"]


class MixLLM(StructuringLLM):
    """An LLM that sends each call to the cheapest of several that will do.

    It goes wherever LlamaIndex takes an LLM, ``Settings.llm`` included. Each
    answer, each chunk and its message carry the routing record in
    ``additional_kwargs["mixllm"]``: ``decision_id``, ``candidate``,
    ``predicted_quality``, ``predicted_cost``, ``cost``, ``willingness_to_pay``
    and ``attempts``.

    Parameters
    ----------
    candidates
        LLMs, bare or as `CandidateLLM` with a name and prices. What is not
        passed comes from the router, else from the genai-prices package.
    router
        A router to go on with, for example a fitted one, or that of a LangChain
        model; ``None``: a new one, which routes on priors until it has learned.
        Candidates that it lacks are added to it; others that it has stay, and are
        never asked here.
    store
        Where decisions, outcomes and feedback are logged: ``None``, a URL such
        as ``"sqlite:///mixllm.db"``, or a store. Prompts are never logged.
    learn_from_store
        Whether to learn from a `store` that is a database: what other workers log,
        and what earlier processes have logged. Without it the store is only a log.
    shared_state
        Where workers meet, for example ``"redis://host:6379/0"``; ``None``: nowhere.
    willingness_to_pay
        USD for one whole point of quality, for this LLM's calls; ``None``: that of
        the router.
    query_from
        Returns the text that is routed, given the messages, of which a completion has
        one; ``None``: the user's last one, with what surrounds it weighing less.
    cooldown_seconds
        How long a candidate that failed is left out, as long as others answer.
    give_up_after_seconds
        If all fail, those who may be well again are asked once more, until so
        long after the call began; 0: each is asked once.
    rules
        `RoutingRule` objects: which conversations may go to whom.
    shadow
        Name of a candidate that answers everything, while it is noted what the
        router would have done.
    callback_manager
        Handed to every candidate; ``None``: each keeps its own.
    **settings
        ``timeout``: seconds before another candidate takes over from one that says
        nothing; ``None``: as long as it takes. ``max_retries``: how many may take
        over or be asked once more; ``None``: each may try. Besides what every
        LlamaIndex LLM takes, for example ``system_prompt``. Others, such as a
        temperature, belong on the candidates' own LLMs.

    Raises
    ------
    NoCandidateError
        If there is no candidate.
    ConfigurationError
        If two share a name, a price is unknown, or an argument is. Also when
        it is pickled with an opened store or a candidate that cannot be.
    """

    # Type checkers would make one up from the fields if it stood in a base alone.
    def __init__(
        self,
        candidates: Sequence[LLM | CandidateLLM],
        *,
        router: Router | None = None,
        store: EventStore | str | None = None,
        learn_from_store: bool = True,
        shared_state: Any = None,
        willingness_to_pay: float | None = None,
        query_from: QueryFrom | None = None,
        cooldown_seconds: float = 30.0,
        give_up_after_seconds: float = 0.0,
        rules: Sequence[RoutingRule] | RoutingRule = (),
        shadow: str | None = None,
        callback_manager: CallbackManager | None = None,
        **settings: Any,
    ) -> None:
        settings |= {
            "candidates": candidates,
            "router": router,
            "store": store,
            "learn_from_store": learn_from_store,
            "shared_state": shared_state,
            "willingness_to_pay": willingness_to_pay,
            "query_from": query_from,
            "cooldown_seconds": cooldown_seconds,
            "give_up_after_seconds": give_up_after_seconds,
            "rules": rules,
            "shadow": shadow,
            "callback_manager": callback_manager,
        }
        super().__init__(**settings)

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex knows it."""
        return "MixLLM"

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return the answer of one candidate to a conversation.

        Parameters
        ----------
        messages
            The conversation.
        **kwargs
            Handed to the candidate's own `chat`, except what is asked of the
            choice, as in `asking`, and ``model="name"`` with the name of a
            candidate or of its model: that one answers.

        Returns
        -------
        ChatResponse
            Its answer, with the routing record.

        Raises
        ------
        NoCandidateError
            If hard limits exclude every candidate.
        Exception
            What the only candidate raised, or an `ExceptionGroup` of what each
            that was tried raised. So do all methods that ask.
        """
        request = Request(self, messages, kwargs)
        return answer(
            request, lambda one: one.llm.chat(request.sent_to(one), **kwargs), CHAT
        )

    async def achat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponse:
        """Return the answer of one candidate without blocking; see `chat`."""
        request = Request(self, messages, kwargs)
        return await aanswer(
            request, lambda one: one.llm.achat(request.sent_to(one), **kwargs), CHAT
        )

    def stream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseGen:
        """Return the chunks of one candidate's answer to a conversation.

        Routed when the first chunk is asked for. The record is on every chunk;
        its ``cost`` is ``None`` until the stream has ended.
        """
        request = Request(self, messages, kwargs)
        return stream(
            request,
            lambda one: one.llm.stream_chat(request.sent_to(one), **kwargs),
            CHAT,
        )

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """Return the chunks without blocking; see `stream_chat`."""
        request = Request(self, messages, kwargs)
        return astream(
            request,
            lambda one: one.llm.astream_chat(request.sent_to(one), **kwargs),
            CHAT,
        )

    def complete(
        self,
        prompt: str,
        formatted: bool = False,
        **kwargs: Any,
    ) -> CompletionResponse:
        """Return one candidate's completion of a prompt.

        Parameters
        ----------
        prompt
            The prompt.
        formatted
            Whether it is in the LLM's own format already.
        **kwargs
            Handed to the candidate's own `complete`.

        Returns
        -------
        CompletionResponse
            Its answer, with the routing record.
        """
        request = Request(self, [_asked(prompt)], kwargs)
        return answer(
            request,
            lambda one: one.llm.complete(prompt, formatted, **kwargs),
            COMPLETION,
        )

    async def acomplete(
        self,
        prompt: str,
        formatted: bool = False,
        **kwargs: Any,
    ) -> CompletionResponse:
        """Return one candidate's completion without blocking; see `complete`."""
        request = Request(self, [_asked(prompt)], kwargs)
        return await aanswer(
            request,
            lambda one: one.llm.acomplete(prompt, formatted, **kwargs),
            COMPLETION,
        )

    def stream_complete(
        self,
        prompt: str,
        formatted: bool = False,
        **kwargs: Any,
    ) -> CompletionResponseGen:
        """Return the chunks of one candidate's completion; see `stream_chat`."""
        request = Request(self, [_asked(prompt)], kwargs)
        return stream(
            request,
            lambda one: one.llm.stream_complete(prompt, formatted, **kwargs),
            COMPLETION,
        )

    async def astream_complete(
        self,
        prompt: str,
        formatted: bool = False,
        **kwargs: Any,
    ) -> CompletionResponseAsyncGen:
        """Return the chunks without blocking; see `stream_chat`."""
        request = Request(self, [_asked(prompt)], kwargs)
        return astream(
            request,
            lambda one: one.llm.astream_complete(prompt, formatted, **kwargs),
            COMPLETION,
        )


def _asked(prompt: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=prompt)
