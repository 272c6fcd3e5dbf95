"""Asks one candidate after the other until one begins to answer."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any

from langchain_core.runnables import RunnableConfig

from mixllm_integrations.langchain.pool import ModelPool
from mixllm_integrations.langchain.request import Request
from mixllm_integrations.langchain.trace import AsyncChainRun, ChainRun
from mixllm_integrations.serving import run_within

__all__ = ["aask", "achunks_of", "aopened", "ask", "chunks_of", "opened"]

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
    while True:
        target, arguments, seconds = request.target()
        config = run.child(request.watch)
        try:
            return run_within(
                seconds, target.invoke, request.prompt, config, **arguments
            )
        except Exception as error:  # noqa: BLE001 - raised again if nobody is left
            request.failed(error)


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
    item, chunks = _first_chunk(request, run)
    try:
        while item is not _END:
            yield item
            try:
                item = next(chunks, _END)
            except Exception as error:
                request.broken(error)
                raise
    finally:
        if isinstance(chunks, Generator):
            chunks.close()


def _first_chunk(request: Request, run: ChainRun) -> tuple[Any, Iterator[Any]]:
    while True:
        target, arguments, seconds = request.target()
        config = run.child(request.watch)
        try:
            chunks = target.stream(request.prompt, config, **arguments)
            return run_within(seconds, next, chunks, _END), chunks
        except Exception as error:  # noqa: BLE001 - raised again if nobody is left
            request.failed(error)


async def aopened(
    model: ModelPool, request: Request, config: RunnableConfig
) -> AsyncChainRun:
    """Do the same as `opened`, for an asynchronous call."""
    run = AsyncChainRun(model, config)
    try:
        request.begin()
    except Exception as error:
        await run.start(request.messages, None)
        await run.fail(error)
        raise
    try:
        if run.heard:
            await run.start(request.messages, request.decided())
    except BaseException:
        request.release()
        raise
    return run


async def aask(request: Request, run: AsyncChainRun) -> Any:  # noqa: ANN401
    """Do the same as `ask`, without blocking the loop."""
    while True:
        target, arguments, seconds = request.target()
        config = run.child(request.watch)
        try:
            async with asyncio.timeout(seconds):
                return await target.ainvoke(request.prompt, config, **arguments)
        except Exception as error:  # noqa: BLE001 - raised again if nobody is left
            request.failed(error)


async def achunks_of(request: Request, run: AsyncChainRun) -> AsyncGenerator[Any]:
    """Do the same as `chunks_of`, without blocking the loop."""
    item, chunks = await _afirst_chunk(request, run)
    try:
        while item is not _END:
            yield item
            try:
                item = await anext(chunks, _END)
            except Exception as error:
                request.broken(error)
                raise
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


async def _afirst_chunk(
    request: Request, run: AsyncChainRun
) -> tuple[Any, AsyncIterator[Any]]:
    while True:
        target, arguments, seconds = request.target()
        config = run.child(request.watch)
        try:
            chunks = target.astream(request.prompt, config, **arguments)
            async with asyncio.timeout(seconds):
                return await anext(chunks, _END), chunks
        except Exception as error:  # noqa: BLE001 - raised again if nobody is left
            request.failed(error)
