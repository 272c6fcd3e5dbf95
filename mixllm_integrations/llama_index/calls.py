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
)
from functools import partial
from typing import NoReturn, TypeVar

from llama_index_instrumentation import get_dispatcher

from mixllm_integrations.llama_index.candidates import CandidateLLM
from mixllm_integrations.llama_index.events import MixLLMRoutingEvent
from mixllm_integrations.llama_index.listening import Heard, inside
from mixllm_integrations.llama_index.reading import Kind, says_something
from mixllm_integrations.llama_index.request import Request
from mixllm_integrations.serving import RoutedCall, run_within
from mixllm_integrations.serving.deadline import first_within
from mixllm_integrations.serving.threads import on_own_thread

__all__ = ["aanswer", "answer", "astream", "stream"]

T = TypeVar("T")
R = TypeVar("R")

_INSTRUMENTATION = get_dispatcher(__name__)


def answer(request: Request, ask: Callable[[CandidateLLM], T], kind: Kind[T]) -> T:
    """Return one LLM's answer.

    Parameters
    ----------
    request
        What is to be routed.
    ask
        Asks a given candidate; may raise.
    kind
        What kind of answer it is.

    Returns
    -------
    object
        The answer, with its routing record where there is a place for it.

    Raises
    ------
    NoCandidateError
        If hard limits exclude every candidate.
    Exception
        What the only candidate raised, or an `ExceptionGroup` of what each
        that was tried raised.
    """
    call = _begin(request)
    heard: Heard = []
    try:
        while True:
            if call.is_dry:
                return _whole(request, call, kind, kind.told(call), heard)
            candidate = _announce(call, request)
            try:
                with inside(call, request.span_id, heard if kind.is_parsed else None):
                    said = run_within(request.seconds_for(candidate), ask, candidate)
            except Exception as error:  # noqa: BLE001 - any may be the LLM's
                kind.settle(request, call, heard, error)
                _try_another(call, error)
            else:
                return _whole(request, call, kind, said, heard)
    finally:
        call.abandon()


async def aanswer(
    request: Request, ask: Callable[[CandidateLLM], Awaitable[T]], kind: Kind[T]
) -> T:
    """Return one LLM's answer without blocking; see `answer`.

    Parameters
    ----------
    request
        What is to be routed.
    ask
        Asks a given candidate; may raise.
    kind
        What kind of answer it is.

    Returns
    -------
    object
        The answer, with its routing record where there is a place for it.
    """
    call = await _abegin(request)
    heard: Heard = []
    try:
        while True:
            if call.is_dry:
                return _whole(request, call, kind, kind.told(call), heard)
            candidate = _announce(call, request)
            try:
                with inside(call, request.span_id, heard if kind.is_parsed else None):
                    async with asyncio.timeout(request.seconds_for(candidate)):
                        said = await ask(candidate)
            except Exception as error:  # noqa: BLE001 - any may be the LLM's
                kind.settle(request, call, heard, error)
                await _atry_another(request, call, error)
            else:
                return _whole(request, call, kind, said, heard)
    finally:
        call.abandon()


def stream(
    request: Request,
    ask: Callable[[CandidateLLM], Iterator[T]],
    kind: Kind[T],
) -> Generator[T, None, None]:
    """Yield one LLM's chunks; another one steps in before it has said anything.

    Parameters
    ----------
    request
        What is to be routed.
    ask
        Begins the stream of a given candidate; may raise.
    kind
        What kind of answer it is.

    Yields
    ------
    object
        The chunks. All that carry a record carry the same one, whose cost is
        filled in when the stream ends.
    """
    call = _begin(request)
    heard: Heard = []
    rest: Iterator[list[T]] | None = None
    try:
        rest, begun = _first(request, call, ask, kind, heard)
        reading = kind.reading(request, call, heard)
        while begun:
            for chunk in begun:
                yield reading.take(chunk)
            try:
                with inside(call, request.span_id, heard if kind.is_parsed else None):
                    begun = next(rest, [])
            except Exception as error:
                kind.settle(request, call, heard, error)
                call.break_off(error)
                raise
        reading.finish()
    finally:
        call.abandon()
        _close(rest)


async def astream(
    request: Request,
    ask: Callable[[CandidateLLM], Awaitable[AsyncIterator[T]]],
    kind: Kind[T],
) -> AsyncGenerator[T, None]:
    """Yield one LLM's chunks without blocking; see `stream`.

    Parameters
    ----------
    request
        What is to be routed.
    ask
        Begins the stream of a given candidate; may raise.
    kind
        What kind of answer it is.

    Yields
    ------
    object
        The chunks.
    """
    call = await _abegin(request)
    heard: Heard = []
    chunks: AsyncIterator[T] | None = None
    try:
        chunks, begun = await _afirst(request, call, ask, kind, heard)
        reading = kind.reading(request, call, heard)
        for chunk in begun:
            yield reading.take(chunk)
        while True:
            try:
                with inside(call, request.span_id, heard if kind.is_parsed else None):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                break
            except Exception as error:
                kind.settle(request, call, heard, error)
                call.break_off(error)
                raise
            yield reading.take(chunk)
        reading.finish()
    finally:
        call.abandon()
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


def _first(
    request: Request,
    call: RoutedCall,
    ask: Callable[[CandidateLLM], Iterator[T]],
    kind: Kind[T],
    heard: Heard,
) -> tuple[Iterator[list[T]], list[T]]:
    """Return the stream that has begun, and its chunks up to the first that says."""
    while True:
        if call.is_dry:
            return iter(()), [kind.told(call)]
        candidate = _announce(call, request)
        try:
            with inside(call, request.span_id, heard if kind.is_parsed else None):
                seconds, chunks = request.seconds_for(candidate), _said(ask, candidate)
                begun, rest = first_within(seconds, chunks, [])
        except Exception as error:  # noqa: BLE001 - any may be the LLM's
            kind.settle(request, call, heard, error)
            _try_another(call, error)
        else:
            call.first_chunk()
            return rest, begun


def _said(
    ask: Callable[[CandidateLLM], Iterator[T]], candidate: CandidateLLM
) -> Iterator[list[T]]:
    """Yield the chunks up to the first that says something, then each alone."""
    chunks = ask(candidate)
    try:
        begun: list[T] = []
        for chunk in chunks:
            begun.append(chunk)
            if says_something(chunk):
                break
        yield begun
        for chunk in chunks:
            yield [chunk]
    finally:
        _close(chunks)


def _close(chunks: object) -> None:
    close = getattr(chunks, "close", None)
    if close is not None:
        close()


async def _afirst(
    request: Request,
    call: RoutedCall,
    ask: Callable[[CandidateLLM], Awaitable[AsyncIterator[T]]],
    kind: Kind[T],
    heard: Heard,
) -> tuple[AsyncIterator[T], list[T]]:
    while True:
        if call.is_dry:
            return _told(kind.told(call)), []
        candidate = _announce(call, request)
        begun: list[T] = []
        try:
            with inside(call, request.span_id, heard if kind.is_parsed else None):
                async with asyncio.timeout(request.seconds_for(candidate)):
                    chunks = await ask(candidate)
                    async for chunk in chunks:
                        begun.append(chunk)
                        if says_something(chunk):
                            break
        except Exception as error:  # noqa: BLE001 - any may be the LLM's
            kind.settle(request, call, heard, error)
            await _atry_another(request, call, error)
        else:
            call.first_chunk()
            return chunks, begun


async def _told(item: T) -> AsyncGenerator[T, None]:
    yield item


def _begin(request: Request) -> RoutedCall:
    limiter = getattr(request.pool, "rate_limiter", None)
    if limiter is not None:
        limiter.acquire()
    return request.begin()


async def _abegin(request: Request) -> RoutedCall:
    limiter = getattr(request.pool, "rate_limiter", None)
    if limiter is not None:
        await limiter.async_acquire()
    begun: list[RoutedCall] = []

    def begin() -> None:
        begun.append(request.begin())

    def abandon() -> None:
        for call in begun:
            call.abandon()

    await _decided(request, begin, if_late=abandon)
    return begun.pop()


def _announce(call: RoutedCall, request: Request) -> CandidateLLM:
    """Tell handlers who is to answer, and return its LLM."""
    event = MixLLMRoutingEvent.of(
        call.decision,
        attempt=len(call.attempts) + 1,
        span_id=request.span_id,
    )
    request.note_run(call.decision.id, event.id_)
    _INSTRUMENTATION.event(event)
    return request.pool.seat(call.candidate)


def _whole(
    request: Request, call: RoutedCall, kind: Kind[T], said: T, heard: Heard
) -> T:
    reading = kind.reading(request, call, heard)
    taken = reading.take(said)
    reading.finish()
    return taken


async def _decided(
    request: Request, decide: Callable[[], R], *, if_late: Callable[[], None]
) -> R:
    """Decide here if that takes a millisecond, else on a thread."""
    if not request.is_slow:
        return decide()
    return await on_own_thread(decide, if_late=if_late)


def _try_another(call: RoutedCall, error: Exception) -> None:
    """Return if a candidate is to answer, maybe after a wait; else raise."""
    seconds = _failed(call, error)
    if seconds is not None:
        time.sleep(seconds)
        _resume(call)


async def _atry_another(request: Request, call: RoutedCall, error: Exception) -> None:
    report = partial(_failed, call, error)
    seconds = await _decided(request, report, if_late=call.abandon)
    if seconds is not None:
        await asyncio.sleep(seconds)
        await _decided(request, partial(_resume, call), if_late=call.abandon)


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
