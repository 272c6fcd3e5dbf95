"""All candidates fail: a patient call waits and asks again, an ordinary one raises."""

import asyncio
import random
import time

import httpx
import pytest

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.langchain import MixLLMChatModel
from mixllm_integrations.langchain.calls import attempts

openai = pytest.importorskip("openai")


def rate_limited(**headers):
    request = httpx.Request("POST", "https://api.example.com/v1/chat/completions")
    response = httpx.Response(429, headers=headers, request=request)
    return openai.RateLimitError("slow down", response=response, body=None)


@pytest.fixture
def waits(monkeypatch):
    """The waits of all calls; nobody really waits."""
    noted = []
    give_way = asyncio.sleep

    async def sleep(seconds):
        if seconds:  # nothing at all is how others give way
            noted.append(seconds)
        await give_way(0)

    monkeypatch.setattr(random, "random", lambda: 0.0)
    monkeypatch.setattr(attempts.time, "sleep", noted.append)
    monkeypatch.setattr(attempts.asyncio, "sleep", sleep)
    return noted


async def answered(model, how, **asked):
    """Ask in one of the ways, and return the text and the routing record."""
    if how == "stream_events":
        message = model.stream_events("q", version="v3", **asked).output
    elif how == "astream_events":
        async with await model.astream_events("q", version="v3", **asked) as stream:
            message = await stream.output
    elif how == "invoke":
        message = model.invoke("q", **asked)
    elif how == "ainvoke":
        message = await model.ainvoke("q", **asked)
    else:
        chunks = (
            list(model.stream("q", **asked))
            if how == "stream"
            else [chunk async for chunk in model.astream("q", **asked)]
        )
        message = chunks[0]
        for chunk in chunks[1:]:
            message += chunk
    return message.text, message.response_metadata["mixllm"]


WAYS = ["invoke", "ainvoke", "stream", "astream", "stream_events", "astream_events"]
every_way = pytest.mark.parametrize("how", WAYS)


def troubled(pool, *, times=1, error=None, **settings):
    errors = [TimeoutError() if error is None else error] * times
    return pool(best={"errors": errors}, second={"errors": errors}, **settings)


@every_way
async def test_a_patient_call_is_answered_when_somebody_is_well_again(
    how, pool, waits, load_of
):
    model = troubled(pool, times=2, give_up_after_seconds=30.0)
    text, record = await answered(model, how)
    assert text.startswith("From the")
    assert [attempt["error"] for attempt in record["attempts"]] == ["TimeoutError"] * 4
    assert waits == [0.5, 1.0]
    assert load_of(model) == 0


@every_way
async def test_an_ordinary_call_raises_what_everybody_raised(how, pool, waits, load_of):
    model = troubled(pool)
    with pytest.raises(ExceptionGroup, match="'best': TimeoutError; 'second'"):
        await answered(model, how)
    assert waits == []
    assert load_of(model) == 0


@every_way
async def test_patience_ends_with_the_last_error_of_each(how, pool, waits, load_of):
    model = troubled(pool, times=50, give_up_after_seconds=3.0)
    with pytest.raises(ExceptionGroup) as failure:
        await answered(model, how)
    assert len(failure.value.exceptions) == 2
    assert sum(waits) == pytest.approx(3.0, abs=0.5)
    assert load_of(model) == 0


@every_way
async def test_patience_may_be_asked_for_by_one_call(how, pool, waits):
    model = troubled(pool)
    await answered(model, how, config={"configurable": {"give_up_after_seconds": 9}})
    assert waits == [0.5]
    assert not model.usual_options.give_up_after_seconds


def test_patience_may_be_an_argument_of_the_call(pool, waits):
    assert troubled(pool).invoke("q", give_up_after_seconds=9.0).text
    assert waits == [0.5]


def test_patience_may_be_taken_from_one_call(pool, waits):
    model = troubled(pool, give_up_after_seconds=30.0)
    with pytest.raises(ExceptionGroup):
        model.invoke("q", give_up_after_seconds=0)
    assert waits == []


def test_patience_that_is_changed_holds_from_the_next_call_on(pool, waits):
    model = troubled(pool, times=5)
    with pytest.raises(ExceptionGroup):
        model.invoke("q")
    copied = model.model_copy(update={"give_up_after_seconds": 0.4})
    with pytest.raises(ExceptionGroup):
        copied.invoke("q")
    assert 0.0 < sum(waits) <= 0.4
    model.give_up_after_seconds = 9.0
    assert model.invoke("q").text


@pytest.mark.parametrize("wrong", [-1, float("nan"), "long", None, True])
def test_patience_that_is_no_time_is_refused(wrong, pool):
    with pytest.raises(ConfigurationError, match="give_up_after_seconds"):
        pool(give_up_after_seconds=wrong)


def test_the_time_that_all_ask_for_is_waited(pool, waits):
    error = rate_limited(**{"Retry-After": "4"})
    model = troubled(pool, error=error, give_up_after_seconds=30.0)
    assert model.invoke("q").text
    assert waits == [pytest.approx(4.0, abs=0.1)]


def test_a_time_that_comes_too_late_is_not_waited_for(pool, waits):
    error = rate_limited(**{"Retry-After": "60"})
    model = troubled(pool, error=error, give_up_after_seconds=30.0)
    with pytest.raises(ExceptionGroup):
        model.invoke("q")
    assert waits == []


def test_nobody_waits_for_what_does_not_pass(pool, waits):
    model = troubled(pool, error=NotImplementedError(), give_up_after_seconds=30.0)
    with pytest.raises(ExceptionGroup):
        model.invoke("q")
    assert waits == []


@every_way
async def test_who_cannot_be_given_the_tools_does_not_end_the_patience(
    how, scripted_candidate, waits, load_of, monkeypatch
):
    """One fails for a moment, the other never takes the tools."""

    def refuse(*args, **kwargs):
        raise ValueError("not these tools")

    well = scripted_candidate("well", quality=0.9, errors=[TimeoutError()])
    unable = scripted_candidate("unable", quality=0.1)
    monkeypatch.setitem(unable.model.__dict__, "bind_tools", refuse)
    model = MixLLMChatModel(candidates=[well, unable], give_up_after_seconds=30.0)
    model.router.exploration = 0.0
    tool = {"name": "look", "description": "Look.", "parameters": {"type": "object"}}
    bound = model.bind_tools([tool])
    _, record = await answered(bound, how)
    told = [(each["candidate"], each["error"]) for each in record["attempts"]]
    assert told == [("well", "TimeoutError"), ("unable", "ValueError")]
    assert record["candidate"] == "well"
    assert waits == [0.5]
    assert load_of(model) == 0


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_who_leaves_during_a_pause_ends_the_patience(
    how, pool, monkeypatch, load_of
):
    model = pool(
        best={"errors": [TimeoutError()] * 9},
        second={"errors": [NotImplementedError()] * 9},
        give_up_after_seconds=30.0,
    )
    give_way = asyncio.sleep

    async def leave(seconds):
        if seconds:
            model.remove_candidate("best")
        await give_way(0)

    monkeypatch.setattr(
        attempts.time, "sleep", lambda _: model.remove_candidate("best")
    )
    monkeypatch.setattr(attempts.asyncio, "sleep", leave)
    with pytest.raises(ExceptionGroup, match="'best': TimeoutError"):
        await answered(model, how)
    assert load_of(model) == 0


def test_a_pause_is_said_in_the_log(pool, waits, caplog):
    troubled(pool, give_up_after_seconds=9.0).invoke("q")
    assert "('best', 'second') is asked again in 0.5 s" in caplog.text


def test_nobody_waits_while_one_is_well(pool, waits):
    model = pool(best={"errors": [TimeoutError()]}, give_up_after_seconds=30.0)
    assert model.invoke("q").text == "From the second."
    assert waits == []


async def test_a_call_that_is_cancelled_while_it_waits_leaves_nothing(
    pool, load_of, recorder
):
    model = troubled(pool, times=9, give_up_after_seconds=30.0)
    task = asyncio.create_task(model.ainvoke("q", {"callbacks": [recorder]}))
    while not recorder.of("llm") or len(recorder.of("llm")) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    assert load_of(model) == 0  # who waits is nobody's load
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert load_of(model) == 0
    assert [run["ended"] for run in recorder.of("chain")] == ["CancelledError"]


async def test_the_loop_goes_on_while_a_call_waits(pool, monkeypatch):
    monkeypatch.setattr(attempts.time, "sleep", None)  # would block it
    model = troubled(pool, give_up_after_seconds=1.0)
    task = asyncio.create_task(model.ainvoke("q"))
    beats = 0
    while not task.done():
        await asyncio.sleep(0.01)
        beats += 1
    assert beats > 10
    assert task.result().text


def test_a_patient_thread_really_waits(pool):
    model = troubled(pool, give_up_after_seconds=1.0)
    began = time.monotonic()
    assert model.invoke("q").text
    assert 0.25 <= time.monotonic() - began < 2.0


def test_an_answer_without_a_word_is_handed_on_and_paid(pool):
    """Only the caller knows whether nothing is an answer."""
    model = pool(best={"answers": [""]})
    message = model.invoke("q")
    record = message.response_metadata["mixllm"]
    assert (message.content, record["candidate"]) == ("", "best")
    assert record["cost"] > 0
    assert not record["attempts"]
    assert model.dispatcher.cooldown.due() == {}
