"""Streams of events; those of version 3 are the chosen model's own.

The caller drives such a stream, so what becomes of it is heard through
callbacks.
"""

import weakref
from collections.abc import Mapping
from typing import Any, Literal, Protocol
from uuid import UUID

from langchain_core._api import suppress_langchain_beta_warning
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig, ensure_config

from mixllm_integrations.langchain.attempts import aopened, opened
from mixllm_integrations.langchain.generating import GeneratingPool
from mixllm_integrations.langchain.messages import spent_on
from mixllm_integrations.langchain.request import Request
from mixllm_integrations.langchain.trace import AsyncChainRun, ChainRun
from mixllm_integrations.serving import RECORD_KEY

__all__ = ["AsyncStreamWatch", "EventPool", "StreamWatch"]

_LAST_EVENT = "message-finish"


class _Stream(Protocol):
    @property
    def output_message(self) -> AIMessage | None: ...


class _Watch:
    """Puts the record on the message before anybody can take it."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._answer: tuple[AIMessage | None, dict[str, Any]] | None = None
        #: What the chosen model returned.
        self.stream: _Stream | None = None

    def _heard(self, event: Mapping[str, Any]) -> None:
        """Note an event; the last one has the message ready."""
        self._request.call.first_chunk()
        if event.get("event") == _LAST_EVENT:
            self._finished()

    def _finished(self) -> tuple[AIMessage | None, dict[str, Any]]:
        """Report the answer, once, and return it with its record."""
        if self._answer is None:
            message = None if self.stream is None else self.stream.output_message
            usage = None if message is None else message.usage_metadata
            record = self._request.succeeded(spent_on(usage, message))
            if message is not None:
                metadata = {**message.response_metadata, RECORD_KEY: record}
                message.response_metadata = metadata
            self._answer = message, record
        return self._answer

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            self._request.call.break_off(error)
        self._request.release()


class StreamWatch(_Watch, BaseCallbackHandler):
    """Hears the LLM run of a synchronous stream.

    Parameters
    ----------
    request
        What is being answered.
    run
        The run around it; it ends when the stream does.
    """

    run_inline = True

    def __init__(self, request: Request, run: ChainRun) -> None:
        super().__init__(request)
        self._run = run

    def on_stream_event(
        self,
        event: Any,  # noqa: ANN401
        *,
        run_id: UUID,  # noqa: ARG002
        parent_run_id: UUID | None = None,  # noqa: ARG002
        tags: list[str] | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Note when the answer begins; at the last event, report it."""
        self._heard(event)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Report the answer, if no event told its end, and end the run."""
        self._run.end(*self._finished())

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Report the failure."""
        self._failed(error)
        self._run.fail(error)


class AsyncStreamWatch(_Watch, AsyncCallbackHandler):
    """Hears the LLM run of an asynchronous stream.

    Parameters
    ----------
    request
        What is being answered.
    run
        The run around it; it ends when the stream does.
    """

    run_inline = True

    def __init__(self, request: Request, run: AsyncChainRun) -> None:
        super().__init__(request)
        self._run = run

    async def on_stream_event(
        self,
        event: Any,  # noqa: ANN401
        *,
        run_id: UUID,  # noqa: ARG002
        parent_run_id: UUID | None = None,  # noqa: ARG002
        tags: list[str] | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Note when the answer begins; at the last event, report it."""
        self._heard(event)

    async def on_llm_end(self, response: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Report the answer, if no event told its end, and end the run."""
        await self._run.end(*self._finished())

    async def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Report the failure."""
        self._failed(error)
        await self._run.fail(error)


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
            As of every chat model. A v3 stream is driven by the caller, so no
            other candidate takes over if it fails.

        Raises
        ------
        NoCandidateError
            If no candidate is able to answer.
        """
        if version != "v3":
            return super().stream_events(input, config, version=version, **kwargs)
        request = Request(self, input, stop, kwargs)
        run = opened(self, request, ensure_config(config))
        try:
            target, arguments, _ = request.target()
            watch = StreamWatch(request, run)
            stream: Any = target.stream_events(
                request.prompt, run.child(watch), version="v3", **arguments
            )
            watch.stream = stream
        except BaseException as error:
            request.release()
            run.fail(error)
            raise
        weakref.finalize(stream, request.release).atexit = False
        return stream

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

        Parameters and errors are those of `stream_events`.
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
        request = Request(self, given, stop, kwargs)
        run = await aopened(self, request, ensure_config(config))
        try:
            target, arguments, _ = request.target()
            watch = AsyncStreamWatch(request, run)
            with suppress_langchain_beta_warning():  # the caller chose version 3
                stream: Any = await target.astream_events(
                    request.prompt, run.child(watch), version="v3", **arguments
                )
            watch.stream = stream
        except BaseException as error:
            request.release()
            await run.fail(error)
            raise
        weakref.finalize(stream, request.release).atexit = False
        return stream
