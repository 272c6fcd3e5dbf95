# ruff: noqa: ANN401, FBT001, FBT002 - the signatures are LlamaIndex's
"""`MixLLM`: the LLM that LlamaIndex sees.

Nothing here carries LlamaIndex's callback decorators: the chosen LLM's own
methods do, so each event and each token is counted once.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Self

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
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr, field_serializer
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import LLM
from pydantic import InstanceOf, computed_field

from mixllm_integrations.core.copying import check_picklable
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import FeedbackKind
from mixllm_integrations.llama_index.calls import Calls
from mixllm_integrations.llama_index.candidates import (
    CandidateLLM,
    check_settings,
    common_metadata,
    resolved,
)
from mixllm_integrations.llama_index.events import MixLLMRoutingEvent
from mixllm_integrations.llama_index.messages import QueryFrom, unstamped
from mixllm_integrations.llama_index.tools import ToolCallingLLM
from mixllm_integrations.serving import Dispatcher, record_of
from mixllm_integrations.serving.pool import router_over
from mixllm_integrations.store import EventStore

__all__ = ["MixLLM"]

_ANEW = (
    "keep what was learned with llm.router.save(folder), and in the other process go "
    "on with MixLLM(candidates, router=Router.load(folder))"
)


class MixLLM(ToolCallingLLM):
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
        A router to go on with, for example a fitted one; ``None``: a new one,
        which routes on priors until it has learned. Candidates that it lacks
        are added to it; others that it has stay, and are never asked here.
    store
        Where decisions, outcomes and feedback are logged: ``None``, a URL such
        as ``"sqlite:///mixllm.db"``, or a store. Prompts are never logged.
    learn_from_store
        Whether to learn from what others log there; else it is only a log.
    willingness_to_pay
        USD for one whole point of quality; ``None``: that of the router.
    query_from
        Returns the text that is routed, given the messages, of which a completion has
        one; ``None``: the user's last one, with what surrounds it weighing less.
    cooldown_seconds
        How long a candidate that failed is left out, as long as others answer.
    give_up_after_seconds
        How long after a call began those who failed may be asked once more; 0: never.
    shared_state
        Where workers meet, for example ``"redis://host:6379/0"``; ``None``: nowhere.
    callback_manager
        Handed to every candidate; ``None``: each keeps its own.
    **settings
        What every LlamaIndex LLM takes, as ``system_prompt``; what others take, such
        as a temperature, belongs on the candidates' own LLMs.

    Raises
    ------
    NoCandidateError
        If there is no candidate.
    ConfigurationError
        If two share a name, a price is unknown, or an argument is. Also when
        it is pickled with an opened store or a candidate that cannot be.
    """

    candidates: tuple[InstanceOf[CandidateLLM], ...] = Field(
        description="What the router chooses from.", repr=False
    )
    give_up_after_seconds: float = 0.0
    learn_from_store: bool = Field(default=True, exclude=True, repr=False)
    shared_state: Any = Field(default=None, exclude=True, repr=False)
    _store: EventStore | str | None = PrivateAttr(default=None)
    _cooldown_seconds: float = PrivateAttr()

    def __init__(
        self,
        candidates: Sequence[LLM | CandidateLLM],
        *,
        router: Router | None = None,
        store: EventStore | str | None = None,
        willingness_to_pay: float | None = None,
        query_from: QueryFrom | None = None,
        cooldown_seconds: float = 30.0,
        callback_manager: CallbackManager | None = None,
        **settings: Any,
    ) -> None:
        check_settings(type(self), settings)
        known = () if router is None else router.candidates
        entries = tuple(resolved(given, known) for given in candidates)
        router = router_over(
            [entry.candidate for entry in entries],
            router=router,
            willingness_to_pay=willingness_to_pay,
        )
        super().__init__(candidates=entries, query_from=query_from, **settings)
        sharing = {n: getattr(self, n) for n in ("learn_from_store", "shared_state")}
        sharing |= {"cooldown_seconds": cooldown_seconds, "store": store}
        dispatcher = Dispatcher(router, **sharing)
        self._store, self._cooldown_seconds = store, cooldown_seconds
        llms = {str(e.name): e.llm for e in entries}
        self._calls = Calls(dispatcher, llms, self.give_up_after_seconds)
        if callback_manager is not None:
            self.callback_manager = callback_manager

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex knows it."""
        return "MixLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What holds whoever answers: minima over the candidates."""
        return common_metadata(self.candidates)

    @property
    def router(self) -> Router:
        """The router; its weights may be set at any time."""
        return self._calls.dispatcher.router

    @computed_field  # type: ignore[prop-decorator]
    @property
    def willingness_to_pay(self) -> float:
        """USD for one whole point of quality; may be set at any time."""
        return self.router.willingness_to_pay

    @willingness_to_pay.setter
    def willingness_to_pay(self, value: float) -> None:
        self.router.willingness_to_pay = value

    def to_payload(self) -> dict[str, Any]:
        """Return what traces may show: metadata and the candidates' names."""
        return {**super().to_payload(), "candidates": list(self._calls.llms)}

    def record_feedback(
        self,
        answer: object,
        reward: float,
        *,
        kind: FeedbackKind = "refined",
        source: str | None = None,
    ) -> bool:
        """Tell the router how good an answer was.

        Parameters
        ----------
        answer
            A response or its message, a chunk, an agent's output, a
            `MixLLMRoutingEvent`, or the id of the decision.
        reward
            How good it was, in [0, 1].
        kind
            ``"refined"``: a measured quality. ``"binary"``: satisfied or not.
        source
            Who says so, for example ``"thumbs"``.

        Returns
        -------
        bool
            False if this decision already had feedback of this kind.

        Raises
        ------
        ConfigurationError
            If no decision is found on `answer`, or the reward is not legal.
        UnknownDecisionError
            If the router does not know the decision, or not any more.
        """
        if isinstance(answer, MixLLMRoutingEvent):
            answer = answer.decision_id
        elif record_of(answer) is None:  # an agent's output keeps its message there
            answer = getattr(answer, "response", answer)
        return self._calls.dispatcher.record_feedback(
            answer, reward, kind=kind, source=source
        )

    async def arecord_feedback(
        self,
        answer: object,
        reward: float,
        *,
        kind: FeedbackKind = "refined",
        source: str | None = None,
    ) -> bool:
        """Do the same as `record_feedback`, on a thread of its own."""
        return await asyncio.to_thread(
            self.record_feedback, answer, reward, kind=kind, source=source
        )

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return the answer of one candidate to a conversation.

        Parameters
        ----------
        messages
            The conversation.
        **kwargs
            Handed to the candidate's own `chat`.

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
        return self._calls.answer(
            self._request(messages), lambda llm: llm.chat(unstamped(messages), **kwargs)
        )

    async def achat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponse:
        """Return the answer of one candidate without blocking; see `chat`."""
        return await self._calls.aanswer(
            self._request(messages),
            lambda llm: llm.achat(unstamped(messages), **kwargs),
        )

    def stream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseGen:
        """Return the chunks of one candidate's answer to a conversation.

        Routed when the first chunk is asked for. The record is on every chunk;
        its ``cost`` is ``None`` until the stream has ended.
        """
        return self._calls.stream(
            self._request(messages),
            lambda llm: llm.stream_chat(unstamped(messages), **kwargs),
        )

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """Return the chunks without blocking; see `stream_chat`."""
        return self._calls.astream(
            self._request(messages),
            lambda llm: llm.astream_chat(unstamped(messages), **kwargs),
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
        return self._calls.answer(
            self._request([_asked(prompt)]),
            lambda llm: llm.complete(prompt, formatted, **kwargs),
        )

    async def acomplete(
        self,
        prompt: str,
        formatted: bool = False,
        **kwargs: Any,
    ) -> CompletionResponse:
        """Return one candidate's completion without blocking; see `complete`."""
        return await self._calls.aanswer(
            self._request([_asked(prompt)]),
            lambda llm: llm.acomplete(prompt, formatted, **kwargs),
        )

    def stream_complete(
        self,
        prompt: str,
        formatted: bool = False,
        **kwargs: Any,
    ) -> CompletionResponseGen:
        """Return the chunks of one candidate's completion; see `stream_chat`."""
        return self._calls.stream(
            self._request([_asked(prompt)]),
            lambda llm: llm.stream_complete(prompt, formatted, **kwargs),
        )

    async def astream_complete(
        self,
        prompt: str,
        formatted: bool = False,
        **kwargs: Any,
    ) -> CompletionResponseAsyncGen:
        """Return the chunks without blocking; see `stream_chat`."""
        return self._calls.astream(
            self._request([_asked(prompt)]),
            lambda llm: llm.astream_complete(prompt, formatted, **kwargs),
        )

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "callback_manager":  # as `Settings.llm` assigns it
            for entry in self.candidates:
                entry.llm.callback_manager = value

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a copy that shares the LLMs and what the router learns."""
        return self.model_copy()

    def __getstate__(self) -> dict[str, Any]:
        """Return what it was made of; a pickle makes one anew, with its own router.

        The candidates' LLMs go as they pickle themselves, with their keys; the
        store by its URL. Callbacks stay in this process.

        Raises
        ------
        ConfigurationError
            If the store is an opened one, or a candidate cannot be pickled.
        """
        if not isinstance(self._store, str | None):
            raise ConfigurationError(
                f"a MixLLM with an opened store ({type(self._store).__name__}) cannot "
                "be pickled: pass the store's URL, which each process opens for itself"
            )
        for entry in self.candidates:
            check_picklable(entry, f"candidate {entry.name!r}", _ANEW)
        given = self.model_fields_set - {"callback_manager"}
        return {name: getattr(self, name) for name in given} | {
            "candidates": self.candidates,
            "router": self.router,
            "store": self._store,
            "cooldown_seconds": self._cooldown_seconds,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make it as it was made first."""
        self.__init__(**state)  # type: ignore[misc]

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield "candidates", list(self._calls.llms)

    @field_serializer("candidates")
    def _without_llms(
        self, candidates: tuple[CandidateLLM, ...]
    ) -> list[dict[str, Any]]:
        """Return the candidates without their LLMs, which hold keys."""
        return [asdict(entry.candidate) for entry in candidates]


def _asked(prompt: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=prompt)
