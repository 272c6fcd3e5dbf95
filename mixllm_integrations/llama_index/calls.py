"""How a call reaches the chosen LLM, and the next one if that one fails.

Four ways to ask (answer or stream, blocking or not), one course: decide, tell
the instrumentation, ask, report the outcome, put the record on the answer.
A stream begins when its first chunk is asked for, so one that nobody reads is
never routed and counts as no load.
"""

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Mapping,
)
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn, TypeVar

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.llms import LLM
from llama_index_instrumentation import get_dispatcher

from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.llama_index.events import MixLLMRoutingEvent
from mixllm_integrations.llama_index.messages import (
    Request,
    Usage,
    answer_tokens,
    stamped,
    usage_of,
)
from mixllm_integrations.serving import CallOptions, Dispatcher, RoutedCall
from mixllm_integrations.serving.threads import on_own_thread

__all__ = ["Calls"]

T = TypeVar("T")
Response = TypeVar("Response", ChatResponse, CompletionResponse)

_INSTRUMENTATION = get_dispatcher(__name__)
_UNKNOWN: Usage = (None, None)


class Calls:
    """Hands each call to the LLM that the dispatcher chooses.

    Parameters
    ----------
    dispatcher
        Who decides, and what happens on a failure.
    llms
        The LLMs by the names of their candidates.
    give_up_after_seconds
        How long after a call began those who failed are asked once more.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        llms: Mapping[str, LLM],
        give_up_after_seconds: float = 0.0,
    ) -> None:
        self.dispatcher = dispatcher
        self.llms = dict(llms)
        self._give_up_after = give_up_after_seconds

    def answer(self, request: Request, ask: Callable[[LLM], Response]) -> Response:
        """Return one LLM's answer.

        Parameters
        ----------
        request
            What is to be routed.
        ask
            Asks a given LLM; may raise.

        Returns
        -------
        ChatResponse or CompletionResponse
            The answer, with its routing record.

        Raises
        ------
        NoCandidateError
            If hard limits exclude every candidate.
        Exception
            What the only candidate raised, or an `ExceptionGroup` of what each
            that was tried raised.
        """
        call = self._begin(request)
        try:
            while True:
                llm = self._announce(call, request)
                try:
                    response = ask(llm)
                except Exception as error:  # noqa: BLE001 - any may be the LLM's
                    _try_another(call, error)
                else:
                    return _finished(call, response)
        finally:
            call.abandon()

    async def aanswer(
        self, request: Request, ask: Callable[[LLM], Awaitable[Response]]
    ) -> Response:
        """Return one LLM's answer without blocking; see `answer`.

        Parameters
        ----------
        request
            What is to be routed.
        ask
            Asks a given LLM; may raise.

        Returns
        -------
        ChatResponse or CompletionResponse
            The answer, with its routing record.
        """
        call = await self._abegin(request)
        try:
            while True:
                llm = self._announce(call, request)
                try:
                    response = await ask(llm)
                except Exception as error:  # noqa: BLE001 - any may be the LLM's
                    await self._atry_another(call, error)
                else:
                    return _finished(call, response)
        finally:
            call.abandon()

    def stream(
        self,
        request: Request,
        ask: Callable[[LLM], Generator[Response, None, None]],
    ) -> Generator[Response, None, None]:
        """Yield one LLM's chunks; another one steps in before the first only.

        Parameters
        ----------
        request
            What is to be routed.
        ask
            Begins the stream of a given LLM; may raise.

        Yields
        ------
        ChatResponse or CompletionResponse
            The chunks. All carry the same record, whose cost is filled in
            when the stream ends.
        """
        call = self._begin(request)
        chunks: Iterator[Response] | None = None
        try:
            chunks, chunk = self._first(call, request, ask)
            arrived = _Arrived(call)
            while chunk is not None:
                yield arrived.take(chunk)
                try:
                    chunk = next(chunks, None)
                except Exception as error:
                    call.break_off(error)
                    raise
            arrived.finish()
        finally:
            call.abandon()
            if isinstance(chunks, Generator):
                chunks.close()

    async def astream(
        self,
        request: Request,
        ask: Callable[[LLM], Awaitable[AsyncGenerator[Response, None]]],
    ) -> AsyncGenerator[Response, None]:
        """Yield one LLM's chunks without blocking; see `stream`.

        Parameters
        ----------
        request
            What is to be routed.
        ask
            Begins the stream of a given LLM; may raise.

        Yields
        ------
        ChatResponse or CompletionResponse
            The chunks.
        """
        call = await self._abegin(request)
        chunks: AsyncIterator[Response] | None = None
        try:
            chunks, chunk = await self._afirst(call, request, ask)
            arrived = _Arrived(call)
            while chunk is not None:
                yield arrived.take(chunk)
                try:
                    chunk = await anext(chunks, None)
                except Exception as error:
                    call.break_off(error)
                    raise
            arrived.finish()
        finally:
            call.abandon()
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()

    def _begin(self, request: Request) -> RoutedCall:
        if request.rate_limiter is not None:
            request.rate_limiter.acquire()
        return self._started(request)

    async def _abegin(self, request: Request) -> RoutedCall:
        if request.rate_limiter is not None:
            await request.rate_limiter.async_acquire()
        begun: list[RoutedCall] = []

        def begin() -> None:
            begun.append(self._started(request))

        def abandon() -> None:
            for call in begun:
                call.abandon()

        await self._decided(begin, if_late=abandon)
        return begun.pop()

    async def _atry_another(self, call: RoutedCall, error: Exception) -> None:
        report = partial(_failed, call, error)
        seconds = await self._decided(report, if_late=call.abandon)
        if seconds is not None:
            await asyncio.sleep(seconds)
            await self._decided(partial(_resume, call), if_late=call.abandon)

    async def _decided(
        self, decide: Callable[[], T], *, if_late: Callable[[], None]
    ) -> T:
        """Decide here if that takes a millisecond, else on a thread."""
        if isinstance(self.dispatcher.router.encoder, StaticEncoder):
            return decide()
        return await on_own_thread(decide, if_late=if_late)

    def _started(self, request: Request) -> RoutedCall:
        return self.dispatcher.begin(
            request.query,
            input_tokens=request.input_tokens,
            requires=request.requires,
            among=[name for name in self.dispatcher.names() if name in self.llms],
            options=CallOptions(
                prefer=request.prefer, give_up_after_seconds=self._give_up_after
            ),
        )

    def _announce(self, call: RoutedCall, request: Request) -> LLM:
        """Tell handlers who is to answer, and return its LLM."""
        _INSTRUMENTATION.event(
            MixLLMRoutingEvent.of(
                call.decision,
                attempt=len(call.attempts) + 1,
                span_id=request.span_id,
            )
        )
        return self.llms[call.candidate]

    def _first(
        self,
        call: RoutedCall,
        request: Request,
        ask: Callable[[LLM], Generator[Response, None, None]],
    ) -> tuple[Iterator[Response], Response | None]:
        """Return the stream that has begun, and its first chunk."""
        while True:
            llm = self._announce(call, request)
            try:
                with _inside(request.span_id):
                    chunks = ask(llm)
                chunk = next(chunks, None)
            except Exception as error:  # noqa: BLE001 - any may be the LLM's
                _try_another(call, error)
            else:
                call.first_chunk()
                return chunks, chunk

    async def _afirst(
        self,
        call: RoutedCall,
        request: Request,
        ask: Callable[[LLM], Awaitable[AsyncGenerator[Response, None]]],
    ) -> tuple[AsyncIterator[Response], Response | None]:
        while True:
            llm = self._announce(call, request)
            try:
                with _inside(request.span_id):
                    chunks = await ask(llm)
                chunk = await anext(chunks, None)
            except Exception as error:  # noqa: BLE001 - any may be the LLM's
                await self._atry_another(call, error)
            else:
                call.first_chunk()
                return chunks, chunk


class _Arrived:
    """What has arrived of a stream: the last chunk and the counts so far."""

    def __init__(self, call: RoutedCall) -> None:
        self._call = call
        self._record = call.record()
        self._last: ChatResponse | CompletionResponse | None = None
        self._usage = _UNKNOWN

    def take(self, chunk: Response) -> Response:
        self._last = chunk
        read, written = usage_of(chunk)  # some LLMs tell them in different chunks
        self._usage = (
            self._usage[0] if read is None else read,
            self._usage[1] if written is None else written,
        )
        return stamped(chunk, self._record)

    def finish(self) -> None:
        self._record.update(_succeed(self._call, self._last, self._usage))


@contextmanager
def _inside(span_id: str | None) -> Iterator[None]:
    """Make the LLM's span a child of ours, which ended when we returned."""
    token = active_span_id.set(span_id)
    try:
        yield
    finally:
        active_span_id.reset(token)


def _try_another(call: RoutedCall, error: Exception) -> None:
    """Return if a candidate is to answer, maybe after a wait; else raise."""
    seconds = _failed(call, error)
    if seconds is not None:
        time.sleep(seconds)
        _resume(call)


def _failed(call: RoutedCall, error: Exception) -> float | None:
    """Return how long to wait before `_resume`; ``None``: ask the next one now."""
    if call.fail(error):
        return None
    seconds = call.pause()
    if seconds is None:
        failure = call.failure()
        if failure is error:
            raise error
        _raise_alone(failure)
    return seconds


def _resume(call: RoutedCall) -> None:
    if not call.resume():
        _raise_alone(call.failure())


def _raise_alone(failure: Exception) -> NoReturn:
    raise failure from None


def _finished(call: RoutedCall, response: Response) -> Response:
    return stamped(response, _succeed(call, response, usage_of(response)))


def _succeed(
    call: RoutedCall, response: ChatResponse | CompletionResponse | None, usage: Usage
) -> dict[str, Any]:
    read, written = usage
    return call.succeed(
        input_tokens=call.decision.input_tokens if read is None else read,
        output_tokens=answer_tokens(response) if written is None else written,
    )
