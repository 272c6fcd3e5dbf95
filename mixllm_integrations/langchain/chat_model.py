"""The chat model that routes: each prompt goes to one of several chat models.

It delegates at the public methods, so the chosen model's own run, cache, rate
limiter and callbacks are what they would be without it.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, closing
from os import PathLike
from typing import Any, Self, cast

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.tools import BaseTool

from mixllm_integrations.langchain.binding import (
    BINDING,
    SchemaBinding,
    ToolBinding,
)
from mixllm_integrations.langchain.calls.attempts import (
    aask,
    achunks_of,
    aopened,
    ask,
    chunks_of,
    opened,
)
from mixllm_integrations.langchain.calls.request import Request
from mixllm_integrations.langchain.calls.streamed import StreamedAnswer
from mixllm_integrations.langchain.candidates.configured import settings_from
from mixllm_integrations.langchain.protocol import EventPool
from mixllm_integrations.serving import CONTROLS

__all__ = ["ChatMixLLM", "MixLLMChatModel"]


class MixLLMChatModel(EventPool):
    """A chat model that sends each prompt to the best of several for its price.

    It learns: from what each answer really took, and from `record_feedback`.
    If a candidate fails before it has said anything, the next best answers.
    The decision is on each answer, under ``response_metadata["mixllm"]``.

    Parameters
    ----------
    candidates
        Chat models, or `CandidateModel` around those whose price is not a list
        price that genai-prices knows.
    router
        One that was fitted or loaded; candidates that it lacks are added to
        it, its others are for other models. Without it decisions come from
        prices.
    store
        Where events are logged: a URL such as ``"sqlite:///events.db"`` or a
        store; ``None``: nowhere.
    learn_from_store
        Whether to learn from a `store` that is a database: what other workers log,
        and what earlier processes have logged. Without it the store is only a log.
    shared_state
        Where workers meet, so that each knows at once of the others' load,
        cooldowns and sessions, and they share one spending budget: a URL such as
        ``"redis://host:6379/0?namespace=myapp"`` or a `SharedState`; ``None``:
        each is on its own. Losing it stops no call.
    willingness_to_pay
        USD for one whole point of quality, for this model's calls, whatever the
        router's own is; ``None``: the router's, which `Router.calibrate` sets.
    query_from
        Returns the text to route for a conversation; ``None``: the last human
        message, with a little of what surrounds it.
    cooldown_seconds
        How long a candidate that failed is left alone, twice as long after
        each further failure; 0: not at all. One that was only asked too often
        rests no longer than 5 seconds at first, or for as long as it says.
    give_up_after_seconds
        If every candidate fails, the call waits and asks those once more that
        may be well again, until so long after it began: first half a second,
        then up to 8, never less than a provider asks for (`Retry-After`), and
        not at all if that is too late. 0: each is asked once and the errors are
        raised, which suits candidates that retry on their own. Time in which
        an attempt is under way is bounded by `timeout`.
    rules
        `RoutingRule` objects: which conversations may go to whom.
    shadow
        Name of a candidate that answers everything, while it is noted what the
        router would have done.
    **settings
        What every chat model takes, for whoever answers: `temperature`,
        `max_tokens`, `stop`, `streaming`, `output_version`,
        `disable_streaming`; `timeout` in seconds before another candidate
        takes over; `max_retries`: how many may take over or be asked once more
        (the candidates' own
        `max_retries` are theirs: with 0 there, another one takes over at
        once); also `name`, `profile`, `callbacks`, `tags`, `metadata`,
        `rate_limiter`. `api_key` is not used: each
        candidate has its own.

    Raises
    ------
    ConfigurationError
        If a candidate has no price or a name that is taken, for an unknown
        argument or one that cannot be used.
    NoCandidateError
        If `candidates` is empty.

    Examples
    --------
    >>> from mixllm_integrations.langchain import CandidateModel
    >>> from mixllm_integrations.testing import ScriptedChatModel
    >>> small = CandidateModel(
    ...     model=ScriptedChatModel(model="small", answers=["4"]),
    ...     input_cost_per_million_tokens=0.1,
    ...     output_cost_per_million_tokens=0.4,
    ... )
    >>> model = MixLLMChatModel(candidates=[small])
    >>> answer = model.invoke("What is 2 + 2?")
    >>> answer.content, answer.response_metadata["mixllm"]["candidate"]
    ('4', 'small')
    """

    @classmethod
    def from_config(
        cls,
        path: str | PathLike[str],
        **overrides: Any,  # noqa: ANN401 - parameters of this class
    ) -> Self:
        """Return the model that a file of candidates describes.

        Parameters
        ----------
        path
            A ``candidates.toml``; `mixllm_integrations.serving.candidates_file`
            says what may stand in it.
        **overrides
            Parameters of this class, which go before what the file says.

        Raises
        ------
        ConfigurationError
            If the file cannot be used; the message names the key and its line.
        """
        return cls(**settings_from(path, overrides))

    def invoke(
        self,
        input: LanguageModelInput,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> AIMessage:
        """Return the answer of the candidate that the prompt is routed to.

        Parameters
        ----------
        input
            A text, messages in any form, or a prompt.
        config
            As for every runnable.
        stop
            Stop words of this call.
        **kwargs
            Passed to whoever answers. ``model="name"`` with the name of a
            candidate, or of its model, makes that one answer; any other model
            is passed on. What ``config["configurable"]`` may say of a call may
            be said here as well: `candidate`, `willingness_to_pay` (USD),
            `waiting_tolerance_seconds`, `max_cost_per_query` (USD),
            `give_up_after_seconds`, `session_id`, `shadow`, `dry_run`.

        Returns
        -------
        AIMessage
            The candidate's own message with ``response_metadata["mixllm"]``.

        Raises
        ------
        NoCandidateError
            If no candidate is able to answer.
        Exception
            The candidate's if one was tried, else an `ExceptionGroup`.
        """
        config = ensure_config(config)
        request = Request(self, input, stop, kwargs, config)
        if self.rate_limiter is not None:
            self.rate_limiter.acquire(blocking=True)
        run = opened(self, request, config)
        try:
            answer, record = request.answered(ask(request, run))
        except BaseException as error:
            run.fail(error)
            raise
        finally:
            request.release()
        run.end(answer, record)
        return cast("AIMessage", answer)

    async def ainvoke(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> AIMessage:
        """Do the same as `invoke`, without blocking the loop."""
        config = ensure_config(config)
        request = Request(self, input, stop, kwargs, config)
        if self.rate_limiter is not None:
            await self.rate_limiter.aacquire(blocking=True)
        run = await aopened(self, request, config)
        try:
            answer, record = request.answered(await aask(request, run))
        except BaseException as error:
            await run.fail(error)
            raise
        finally:
            request.release()
        await run.end(answer, record)
        return cast("AIMessage", answer)

    def stream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Iterator[AIMessageChunk]:
        """Yield the answer in chunks; parameters and errors as for `invoke`.

        The routing record is on the last chunk. Once a chunk was handed on, an
        error is raised: no other candidate begins anew.
        """
        if self._comes_whole(kwargs, config):
            whole = self.invoke(input, config, stop=stop, **kwargs)
            yield cast("AIMessageChunk", whole)
            return
        config = ensure_config(config)
        request = Request(self, input, stop, kwargs, config)
        if self.rate_limiter is not None:
            self.rate_limiter.acquire(blocking=True)
        run = opened(self, request, config)
        try:
            answer = StreamedAnswer(request, keeps=run.heard)
            with closing(chunks_of(request, run)) as chunks:
                for item in chunks:
                    yield from answer.passed(item)
            rest, whole, record = answer.closed()
            yield from rest
        except BaseException as error:
            run.fail(error)
            raise
        finally:
            request.release()
        run.end(whole, record)

    async def astream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> AsyncIterator[AIMessageChunk]:
        """Do the same as `stream`, without blocking the loop."""
        if self._comes_whole(kwargs, config):
            whole = await self.ainvoke(input, config, stop=stop, **kwargs)
            yield cast("AIMessageChunk", whole)
            return
        config = ensure_config(config)
        request = Request(self, input, stop, kwargs, config)
        if self.rate_limiter is not None:
            await self.rate_limiter.aacquire(blocking=True)
        run = await aopened(self, request, config)
        try:
            answer = StreamedAnswer(request, keeps=run.heard)
            async with aclosing(achunks_of(request, run)) as chunks:
                async for item in chunks:
                    for ready in answer.passed(item):
                        yield ready
            rest, whole, record = answer.closed()
            for ready in rest:
                yield ready
        except BaseException as error:
            await run.fail(error)
            raise
        finally:
            request.release()
        await run.end(whole, record)

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return this model with tools; only candidates that call them compete.

        Parameters
        ----------
        tools
            In any form; whoever answers converts them in its own way.
        tool_choice
            As the candidates' own `bind_tools` take it.
        **kwargs
            The same, for example ``strict=True``.

        Returns
        -------
        Runnable
            A new object; this model is unchanged.
        """
        own = self._taken(kwargs)
        return self.bind(**{BINDING: ToolBinding(tools, tool_choice, kwargs)}, **own)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        **kwargs: Any,  # noqa: ANN401
    ) -> Runnable[LanguageModelInput, Any]:
        """Return this model with a schema; only candidates that fill it compete.

        Parameters
        ----------
        schema
            A Pydantic class, a ``TypedDict`` or a JSON schema.
        include_raw
            Whether to return the message, with its routing record, beside what
            was parsed.
        **kwargs
            As the candidates' own `with_structured_output` take them, for
            example ``method="json_schema"``.

        Returns
        -------
        Runnable
            Answers with what was parsed. An answer that does not fit is raised
            as the candidate's own parser does, and no other one is asked.
        """
        own = self._taken(kwargs)
        binding = SchemaBinding(schema, include_raw=include_raw, kwargs=kwargs)
        return self.bind(**{BINDING: binding}, **own)

    def _taken(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Take out what is meant for the choice, not for whoever is chosen."""
        own = [name for name in CONTROLS if name in kwargs]
        if self.meant_by(kwargs.get("model")):
            own.append("model")
        return {name: kwargs.pop(name) for name in own}

    def _comes_whole(
        self, kwargs: dict[str, Any], config: RunnableConfig | None
    ) -> bool:
        """Tell whether streaming is switched off for this call, or nobody asked."""
        with_tools = BINDING in kwargs or bool(kwargs.get("tools"))
        return (
            self.disable_streaming is True
            or (self.disable_streaming == "tool_calling" and with_tools)
            or self.streaming is False
            or not kwargs.get("stream", True)
            or bool(((config or {}).get("configurable") or {}).get("dry_run"))
        )


ChatMixLLM = MixLLMChatModel
