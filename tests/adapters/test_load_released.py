"""However a call ends, it is no load any more: the same paths for both adapters."""

import asyncio
import gc
import threading
import time
from contextlib import suppress

import pytest
from llama_index.core.llms import ChatMessage

from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.llama_index import CandidateLLM, MixLLM
from mixllm_integrations.testing import ScriptedChatModel, ScriptedLLM

PRICES = {"input_cost_per_million_tokens": 1.0, "output_cost_per_million_tokens": 2.0}
FOREVER = 60.0
LONG = 20.0  # seconds that no test should need


def scripted(kind, name, *, errors=(), answers=("one two three four",), **script):
    made = kind(model=name, answers=answers, **script)
    made.errors = errors  # also those that are no `Exception`
    return made


class LangChain:
    """A routed chat model, called in its four ways."""

    def __init__(self, *, settings=None, **script):
        self.model = MixLLMChatModel(
            candidates=[
                CandidateModel(model=scripted(ScriptedChatModel, n, **script), **PRICES)
                for n in ("a", "b")
            ],
            **(settings or {}),
        )

    @property
    def dispatcher(self):
        return self.model.dispatcher

    def call(self):
        return self.model.invoke("q")

    def stream(self):
        return self.model.stream("q")

    async def acall(self):
        return await self.model.ainvoke("q")

    async def astream(self):
        return self.model.astream("q")


class LlamaIndex:
    """A routed LLM, called in its four ways."""

    def __init__(self, *, settings=None, **script):
        self.model = MixLLM(
            [
                CandidateLLM(llm=scripted(ScriptedLLM, n, **script), name=n, **PRICES)
                for n in ("a", "b")
            ],
            **(settings or {}),
        )

    @property
    def dispatcher(self):
        return self.model._dispatcher

    def call(self):
        return self.model.chat([ChatMessage(content="q")])

    def stream(self):
        return self.model.stream_chat([ChatMessage(content="q")])

    async def acall(self):
        return await self.model.achat([ChatMessage(content="q")])

    async def astream(self):
        return await self.model.astream_chat([ChatMessage(content="q")])


both = pytest.mark.parametrize("adapter", [LangChain, LlamaIndex])


def load(routed):
    waiting = routed.model.router._waiting
    return sum(waiting.in_flight(name) for name in ("a", "b"))


def until(condition):
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        gc.collect()
        time.sleep(0.005)


async def auntil(condition):
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        gc.collect()
        await asyncio.sleep(0.005)


class Ended(BaseException):
    """What no adapter may take for a candidate's failure."""


@both
def test_an_answer(adapter):
    routed = adapter()
    routed.call()
    assert load(routed) == 0


@both
def test_what_everybody_raises(adapter):
    routed = adapter(errors=[TimeoutError()])
    with pytest.raises(ExceptionGroup):
        routed.call()
    assert load(routed) == 0


@both
def test_an_interrupt_amid_a_call(adapter):
    routed = adapter(errors=[Ended()])
    with pytest.raises(Ended):
        routed.call()
    assert load(routed) == 0


@both
@pytest.mark.parametrize("chunks", [0, 2])
def test_an_interrupt_amid_a_stream(chunks, adapter):
    routed = adapter(errors=[Ended()], error_after_chunks=chunks)
    with pytest.raises(Ended):
        list(routed.stream())
    assert load(routed) == 0


@both
def test_a_stream_that_breaks_off(adapter):
    routed = adapter(errors=[TimeoutError()], error_after_chunks=2)
    with pytest.raises(TimeoutError):
        list(routed.stream())
    assert load(routed) == 0


@both
@pytest.mark.parametrize("how", ["closed", "forgotten", "raised into"])
def test_a_stream_that_is_given_up(how, adapter):
    routed = adapter()
    stream = routed.stream()
    next(stream)
    assert load(routed) == 1
    if how == "closed":
        stream.close()
    elif how == "raised into":
        with suppress(ValueError):
            stream.throw(ValueError())
    else:
        del stream
    until(lambda: load(routed) == 0)


@both
def test_a_stream_that_is_forgotten_in_a_cycle(adapter):
    routed = adapter()
    held = [routed.stream()]
    held.append(held)
    next(held[0])
    assert load(routed) == 1
    del held
    until(lambda: load(routed) == 0)


@both
def test_a_stream_that_its_thread_gives_up(adapter):
    routed = adapter()
    thread = threading.Thread(target=lambda: next(routed.stream()))
    thread.start()
    thread.join(LONG)
    until(lambda: load(routed) == 0)


@both
def test_a_stream_that_is_never_begun(adapter):
    routed = adapter()
    routed.stream()
    assert load(routed) == 0


@both
async def test_an_asynchronous_failure_of_everybody(adapter):
    routed = adapter(errors=[TimeoutError()])
    with pytest.raises(ExceptionGroup):
        await routed.acall()
    assert load(routed) == 0


@both
async def test_a_call_that_is_cancelled(adapter):
    routed = adapter(delay_seconds=FOREVER)
    task = asyncio.create_task(routed.acall())
    await auntil(lambda: load(routed) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert load(routed) == 0


@both
async def test_a_call_that_is_cancelled_before_it_began(adapter):
    routed = adapter(delay_seconds=FOREVER)
    task = asyncio.create_task(routed.acall())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert load(routed) == 0


@both
async def test_a_call_whose_time_is_up(adapter):
    routed = adapter(delay_seconds=FOREVER)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await routed.acall()
    assert load(routed) == 0


@both
async def test_one_of_several_calls_at_once_that_fails_the_group(adapter):
    routed, quick = adapter(delay_seconds=FOREVER), adapter(errors=[Ended()])

    async def all_at_once():
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(routed.acall())
            group.create_task(quick.acall())

    with pytest.raises(BaseExceptionGroup):
        await all_at_once()
    assert (load(routed), load(quick)) == (0, 0)


@both
async def test_a_call_that_is_cancelled_while_it_waits_for_anybody(adapter):
    patient = {"give_up_after_seconds": FOREVER}
    routed = adapter(errors=[TimeoutError()] * 1_000, settings=patient)
    task = asyncio.create_task(routed.acall())
    resting = routed.dispatcher.cooldown.due
    await auntil(lambda: resting().keys() == {"a", "b"} and load(routed) == 0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert load(routed) == 0


@both
async def test_a_stream_that_is_cancelled_before_its_first_chunk(adapter):
    routed = adapter(delay_seconds=FOREVER)

    async def read():
        async for _ in await routed.astream():
            pass

    task = asyncio.create_task(read())
    await auntil(lambda: load(routed) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await auntil(lambda: load(routed) == 0)


@both
async def test_a_stream_that_is_cancelled_in_its_middle(adapter):
    routed = adapter()
    begun = asyncio.Event()

    async def read():
        async for _ in await routed.astream():
            begun.set()
            await asyncio.sleep(FOREVER)

    task = asyncio.create_task(read())
    await begun.wait()
    assert load(routed) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    await auntil(lambda: load(routed) == 0)


@both
@pytest.mark.parametrize("how", ["closed", "forgotten", "raised into"])
async def test_an_asynchronous_stream_that_is_given_up(how, adapter):
    routed = adapter()
    stream = await routed.astream()
    await anext(stream)
    assert load(routed) == 1
    if how == "closed":
        await stream.aclose()
    elif how == "raised into":
        with suppress(ValueError):
            await stream.athrow(ValueError())
    else:
        del stream
    await auntil(lambda: load(routed) == 0)


@both
async def test_an_asynchronous_stream_that_breaks_off(adapter):
    routed = adapter(errors=[TimeoutError()], error_after_chunks=2)
    with pytest.raises(TimeoutError):
        async for _ in await routed.astream():
            pass
    assert load(routed) == 0


@both
def test_an_asynchronous_stream_whose_loop_ends(adapter):
    routed, kept = adapter(), []

    async def begin():
        kept.append(await routed.astream())
        await anext(kept[0])
        assert load(routed) == 1

    asyncio.run(begin())
    assert load(routed) == 0


@pytest.mark.parametrize("way", ["call", "stream"])
def test_candidates_that_say_nothing_in_time(way):
    gate = threading.Event()

    def hang(_messages):
        gate.wait(LONG)
        return "late"

    routed = LangChain(answers=hang, settings={"timeout": 0.05})
    try:
        with pytest.raises(ExceptionGroup):
            routed.call() if way == "call" else list(routed.stream())
        assert load(routed) == 0
    finally:
        gate.set()


@pytest.mark.parametrize("way", ["call", "stream"])
async def test_candidates_that_say_nothing_in_time_on_a_loop(way):
    routed = LangChain(delay_seconds=FOREVER, settings={"timeout": 0.05})

    async def heard():
        return await (
            routed.acall() if way == "call" else anext(await routed.astream())
        )

    with pytest.raises(ExceptionGroup):
        await heard()
    assert load(routed) == 0
