"""Streams of events; those of version 3 are the chosen model's own.

A stream is handed out once something has been said in it, so that until then
another candidate can take over. From then on the caller drives it, and what
becomes of it is heard through callbacks.
"""

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from contextvars import copy_context
from functools import partial
from typing import Any, Literal, Protocol, TypeVar, cast

from langchain_core._api import suppress_langchain_beta_warning
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_model_stream import (
    AsyncChatModelStream,
    ChatModelStream,
)
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config

from mixllm_integrations.langchain.calls.attempts import (
    aopened,
    atargeted,
    atry_again,
    opened,
    targeted,
    try_again,
)
from mixllm_integrations.langchain.calls.request import Request
from mixllm_integrations.langchain.calls.stream_watch import (
    ERROR_EVENT,
    AsyncStreamWatch,
    Message,
    StreamWatch,
)
from mixllm_integrations.langchain.generating import GeneratingPool
from mixllm_integrations.langchain.tracing.runs import AsyncChainRun, ChainRun, inside
from mixllm_integrations.serving import RECORD_KEY, run_within

__all__ = ["EventPool"]

# Events by which nothing has been said yet.
_SILENT = frozenset({"message-start", "content-block-start", ERROR_EVENT})
S = TypeVar("S", ChatModelStream, AsyncChatModelStream)


class _EventStream(Message, Iterable[Mapping[str, Any]], Protocol): ...


class _AsyncEventStream(Message, AsyncIterable[Mapping[str, Any]], Protocol):
    @property
    def done(self) -> bool: ...

    async def aclose(self) -> None: ...


class EventPool(GeneratingPool):
    """Adds the streams of events."""

    def stream_events(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        version: Literal["v1", "v2", "v3"] = "v2",
        stop: list[str] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Return the events of an answer.

        Parameters
        ----------
        input, config, stop, **kwargs
            As for `invoke`.
        version
            ``"v3"``: the prompt is routed, and the chosen model's own
            `ChatModelStream` is returned; its message carries the record.

        Returns
        -------
        object
            As of every chat model. A v3 stream is returned when the answer has
            begun, which a single model does not wait for: until then the next
            best candidate takes over from one that fails. After it an error is
            raised to whoever reads the stream. No event is lost.

        Raises
        ------
        NoCandidateError
            If no candidate is able to answer.
        Exception
            For ``"v3"``, if none began to: the candidate's if one was tried,
            else an `ExceptionGroup`.
        """
        if version != "v3":
            return super().stream_events(input, config, version=version, **kwargs)
        config = ensure_config(config)
        request = Request(self, input, stop, kwargs, config)
        if self.rate_limiter is not None:
            self.rate_limiter.acquire(blocking=True)
        run = opened(self, request, config)
        try:
            return _begun(request, run)
        except BaseException as error:
            request.release()
            run.fail(error)
            raise

    def astream_events(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        version: Literal["v1", "v2", "v3"] = "v2",
        stop: list[str] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Return the events of an answer, or for ``"v3"`` an awaitable stream.

        Parameters and errors are those of `stream_events`. A v3 stream that is
        not read to its end goes on until it is closed: use ``async with``.
        """
        if version == "v3":
            return self._astream_v3(input, config, stop, kwargs)
        if stop is not None:
            kwargs["stop"] = stop
        return super().astream_events(input, config, version=version, **kwargs)

    async def _astream_v3(
        self,
        given: LanguageModelInput,
        config: RunnableConfig | None,
        stop: list[str] | None,
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401
        config = ensure_config(config)
        request = Request(self, given, stop, kwargs, config)
        if self.rate_limiter is not None:
            await self.rate_limiter.aacquire(blocking=True)
        run = await aopened(self, request, config)
        try:
            return await _abegun(request, run)
        except BaseException as error:
            request.release()
            await run.fail(error)
            raise


def _begun(request: Request, run: ChainRun) -> _EventStream:
    """Return the stream of the first candidate that says something."""
    if (told := request.dry_answer()) is not None:
        answer, record = request.answered(told)
        run.end(answer, record)
        return _filled(ChatModelStream(), told, record)
    begun: list[_EventStream] = []
    while not begun:
        begun = _attempt(request, run)
    return begun.pop()  # see `_attempt`


def _attempt(request: Request, run: ChainRun) -> list[_EventStream]:
    """Return one candidate's stream, or nothing if the next one is to be asked.

    Whoever keeps the failure of one candidate keeps this frame and those that
    it was called from: none of them may hold the stream of another one, which
    has to go when its reader lets it go.
    """
    target, prompt, arguments, seconds = targeted(request)
    watch = StreamWatch(request, run)
    try:
        config = run.child(watch)
        with run.span.attempt(request):
            pull = partial(_pulled, target, prompt, config, arguments)
            stream = _within(seconds, pull)
    except Exception as error:  # noqa: BLE001 - raised again if nobody is left
        watch.give_up()
        try_again(request, _reporter(request, error), error)
        return []
    watch.begin(stream)
    return [stream]


def _within(seconds: float | None, pull: Callable[[], _EventStream]) -> _EventStream:
    """Pull what is pulled, and all that comes later in the same context.

    A model that sets a context variable can reset it in that context only.
    """
    if seconds is None:
        return pull()
    context = copy_context()
    stream = run_within(seconds, context.run, pull)
    pump = getattr(stream, "_request_more", None)
    if isinstance(stream, ChatModelStream) and pump is not None:
        stream.set_request_more(partial(context.run, pump))
    return stream


def _pulled(
    target: Runnable[Any, Any],
    prompt: LanguageModelInput,
    config: RunnableConfig,
    arguments: Mapping[str, Any],
) -> _EventStream:
    """Return a candidate's stream when it has said something; streams replay it."""
    with inside(config):
        given = target.stream_events(prompt, config, version="v3", **arguments)
    stream = cast("_EventStream", given)
    for event in stream:
        if event.get("event") not in _SILENT:  # an error event raises at the next
            break
    return stream


async def _abegun(request: Request, run: AsyncChainRun) -> _AsyncEventStream:
    """Do the same as `_begun`, without blocking the loop."""
    if (told := request.dry_answer()) is not None:
        answer, record = request.answered(told)
        await run.end(answer, record)
        return _filled(AsyncChatModelStream(), told, record)
    while True:
        target, prompt, arguments, seconds = await atargeted(request)
        watch = AsyncStreamWatch(request, run)
        try:
            with run.span.attempt(request):
                async with asyncio.timeout(seconds):
                    stream = await _apulled(target, prompt, run.child(watch), arguments)
        except Exception as error:  # noqa: BLE001 - raised again if nobody is left
            await atry_again(request, _reporter(request, error), error)
        else:
            await watch.begin(stream)
            return stream


async def _apulled(
    target: Runnable[Any, Any],
    prompt: LanguageModelInput,
    config: RunnableConfig,
    arguments: Mapping[str, Any],
) -> _AsyncEventStream:
    """Do the same as `_pulled`; a stream that fails has ended when this raises."""
    # The caller chose version 3.
    with suppress_langchain_beta_warning(), inside(config):
        given = await target.astream_events(prompt, config, version="v3", **arguments)
        stream = cast("_AsyncEventStream", given)
    try:
        async for event in stream:
            if event.get("event") not in _SILENT:
                break
    except BaseException:
        await _ended(stream)
        raise
    return stream


async def _ended(stream: _AsyncEventStream) -> None:
    """Wait until the run of a stream that said nothing has ended."""
    producer: object = getattr(stream, "_producer_task", stream)
    if stream.done and isinstance(producer, asyncio.Task):
        await asyncio.wait([producer])  # closing it would cut its callbacks off
    elif producer is not None:  # one that has not started would be started
        await stream.aclose()


def _reporter(
    request: Request, error: Exception
) -> Callable[[Exception], float | None]:
    """Return how a failure is reported: to have no such streams is none."""
    has_none = isinstance(error, NotImplementedError)
    return request.declined if has_none else request.failed


def _filled(stream: S, told: AIMessage | Mapping[str, Any], record: object) -> S:
    """Fill a stream with what stands for the answer of a call that only decides."""
    message: AIMessage = told if isinstance(told, AIMessage) else told["raw"]
    text = {"type": "text", "text": message.text}
    for event in (
        {"event": "message-start"},
        {"event": "content-block-start", "content": {**text, "text": ""}},
        {"event": "content-block-delta", "delta": {**text, "type": "text-delta"}},
        {"event": "content-block-finish", "content": text},
        {"event": "message-finish", "metadata": {RECORD_KEY: record}},
    ):
        stream.dispatch({**event, "index": 0})
    return stream
