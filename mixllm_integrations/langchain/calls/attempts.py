"""Asks one candidate after the other until one begins to answer."""

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
)
from typing import Any, TypeVar, TypeVarTuple

from langchain_core.runnables import RunnableConfig

from mixllm_integrations.langchain.calls.messages import says_something
from mixllm_integrations.langchain.calls.request import Request
from mixllm_integrations.langchain.candidates.seats import Target
from mixllm_integrations.langchain.pool import ModelPool
from mixllm_integrations.langchain.tracing.runs import AsyncChainRun, ChainRun, inside
from mixllm_integrations.serving.deadline import first_within, run_within
from mixllm_integrations.serving.threads import on_own_thread

__all__ = [
    "aask",
    "achunks_of",
    "aopened",
    "ask",
    "atargeted",
    "atry_again",
    "chunks_of",
    "decided",
    "opened",
    "targeted",
    "try_again",
]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Stands for the chunk after the last.
_END = object()


def opened(model: ModelPool, request: Request, config: RunnableConfig) -> ChainRun:
    """Decide who answers, and open the run in which it happens.

    Parameters
    ----------
    model
        Who was called.
    request
        With what.
    config
        The caller's config, complete.

    Returns
    -------
    ChainRun
        The run; a request that nobody can answer closes it again.

    Raises
    ------
    NoCandidateError
        If no candidate is able to answer.
    """
    run = ChainRun(model, config)
    try:
        request.begin()
    except Exception as error:
        run.start(request.messages, None)
        run.fail(error)
        raise
    try:
        run.follow(request)
        if run.heard:
            run.start(request.messages, request.decided())
    except BaseException:  # a handler that insists on its errors
        request.release()
        raise
    return run


def ask(request: Request, run: ChainRun) -> Any:  # noqa: ANN401
    """Return the answer of the first candidate that gives one.

    Parameters
    ----------
    request
        What is asked.
    run
        The run around the attempts.

    Returns
    -------
    object
        A message, or what was parsed from one.

    Raises
    ------
    Exception
        The candidate's, or an `ExceptionGroup` of several.
    """
    if (told := request.dry_answer()) is not None:
        return told
    while True:
        target, prompt, arguments, seconds = targeted(request)
        config = run.child(request.watch)
        try:
            with run.span.attempt(request), inside(config):
                return run_within(seconds, target.invoke, prompt, config, **arguments)
        except Exception as error:  # noqa: BLE001 - raised again if nobody is left
            try_again(request, request.failed, error)


def chunks_of(request: Request, run: ChainRun) -> Generator[Any]:
    """Yield the chunks of the first candidate that gives one.

    Parameters
    ----------
    request
        What is asked.
    run
        The run around the attempts.

    Yields
    ------
    object
        A chunk of a message, or a part of what was parsed.

    Raises
    ------
    Exception
        Before the first chunk: the candidate's, or an `ExceptionGroup` of
        several. After it: that of the candidate, since nobody can take over.
    """
    held, chunks = _begun(request, run)
    try:
        for item in held:
            run.span.saw(item)
            yield item
        while True:
            try:
                with run.span.current():
                    item = next(chunks, _END)
            except Exception as error:
                request.broken(error)
                raise
            if item is _END:
                return
            run.span.saw(item)
            yield item
    finally:
        _close(chunks)


def _begun(request: Request, run: ChainRun) -> tuple[list[Any], Iterator[Any]]:
    """Return the chunks up to the first that says something, and the others."""
    while True:
        target, prompt, arguments, seconds = targeted(request)
        config = run.child(request.watch)
        try:
            chunks = target.stream(prompt, config, **arguments)
            with run.span.attempt(request), inside(config):
                held, rest = first_within(seconds, _spoken(chunks), _END)
        except Exception as error:  # noqa: BLE001 - raised again if nobody is left
            try_again(request, request.failed, error)
        else:
            return ([] if held is _END else held), rest


def _spoken(chunks: Iterator[Any]) -> Generator[Any]:
    """Yield a list that ends with the first word, then one chunk at a time."""
    held = []
    try:
        for item in chunks:
            held.append(item)
            if says_something(item):
                break
        yield held
        yield from chunks
    finally:
        _close(chunks)


async def aopened(
    model: ModelPool, request: Request, config: RunnableConfig
) -> AsyncChainRun:
    """Do the same as `opened`, for an asynchronous call."""
    run = AsyncChainRun(model, config)
    try:
        await decided(request, request.begin)
    except Exception as error:
        await run.start(request.messages, None)
        await run.fail(error)
        raise
    try:
        run.follow(request)
        if run.heard:
            await run.start(request.messages, request.decided())
    except BaseException:
        request.release()
        raise
    return run


async def aask(request: Request, run: AsyncChainRun) -> Any:  # noqa: ANN401
    """Do the same as `ask`, without blocking the loop."""
    if (told := request.dry_answer()) is not None:
        return told
    while True:
        target, prompt, arguments, seconds = await atargeted(request)
        config = run.child(request.watch)
        try:
            with run.span.attempt(request), inside(config):
                async with asyncio.timeout(seconds):
                    return await target.ainvoke(prompt, config, **arguments)
        except Exception as error:  # noqa: BLE001 - raised again if nobody is left
            await atry_again(request, request.failed, error)


async def achunks_of(request: Request, run: AsyncChainRun) -> AsyncGenerator[Any]:
    """Do the same as `chunks_of`, without blocking the loop."""
    held, chunks = await _abegun(request, run)
    try:
        for item in held:
            run.span.saw(item)
            yield item
        while True:
            try:
                with run.span.current():
                    item = await anext(chunks, _END)
            except Exception as error:
                request.broken(error)
                raise
            if item is _END:
                return
            run.span.saw(item)
            yield item
    finally:
        await _aclose(chunks)


async def _abegun(
    request: Request, run: AsyncChainRun
) -> tuple[list[Any], AsyncIterator[Any]]:
    while True:
        target, prompt, arguments, seconds = await atargeted(request)
        config = run.child(request.watch)
        chunks = _aspoken(target.astream(prompt, config, **arguments))
        try:
            with run.span.attempt(request), inside(config):
                async with asyncio.timeout(seconds):
                    return await anext(chunks, []), chunks
        except Exception as error:  # noqa: BLE001 - raised again if nobody is left
            await _aclose(chunks)
            await atry_again(request, request.failed, error)


async def _aspoken(chunks: AsyncIterator[Any]) -> AsyncGenerator[Any]:
    """Do the same as `_spoken`."""
    held = []
    try:
        async for item in chunks:
            held.append(item)
            if says_something(item):
                break
        yield held
        async for item in chunks:
            yield item
    finally:
        await _aclose(chunks)


def _close(chunks: object) -> None:
    """Close what a stream came from, if it can be closed."""
    if hasattr(chunks, "close"):
        chunks.close()


async def _aclose(chunks: object) -> None:
    """Do the same as `close`."""
    if isinstance(chunks, AsyncGenerator):
        await chunks.aclose()


def targeted(request: Request) -> Target:
    """Return what is to be called: the first candidate that the tools can be bound to.

    Parameters
    ----------
    request
        What is asked.

    Returns
    -------
    Target
        With all that the call is given.

    Raises
    ------
    Exception
        If there is none: what the first one raised, or an `ExceptionGroup` if
        others were asked.
    """
    while isinstance(found := request.target(), Exception):
        try_again(request, request.declined, found)
    return found


async def atargeted(request: Request) -> Target:
    """Do the same as `targeted`, without blocking the loop."""
    while isinstance(found := request.target(), Exception):
        await atry_again(request, request.declined, found)
    return found


def try_again(
    request: Request, report: Callable[[Exception], float | None], error: Exception
) -> None:
    """Let the next candidate try; if each has failed, wait until one may be well.

    Parameters
    ----------
    request
        What is asked.
    report
        `Request.failed` or `Request.declined`.
    error
        What the last candidate raised.

    Raises
    ------
    Exception
        If nobody is to be asked any more.
    """
    seconds = report(error)
    if seconds is not None:
        time.sleep(seconds)
        request.resume()


async def atry_again(
    request: Request, report: Callable[[Exception], float | None], error: Exception
) -> None:
    """Do the same as `try_again`, without blocking the loop."""
    seconds = await decided(request, report, error)
    if seconds is not None:
        await asyncio.sleep(seconds)
        await decided(request, request.resume)


async def decided(request: Request, decide: Callable[[*Ts], T], /, *args: *Ts) -> T:
    """Decide here if that takes a millisecond, else on a thread.

    Parameters
    ----------
    request
        What is being decided.
    decide, *args
        How: `Request.begin`, `Request.resume`, or `Request.failed` with the
        error.

    Returns
    -------
    object
        What `decide` returns.

    Raises
    ------
    Exception
        What `decide` raises.
    """
    if not request.is_slow:
        return decide(*args)
    # What is decided for somebody who has gone away is nobody's any more.
    return await on_own_thread(decide, *args, if_late=request.release)
