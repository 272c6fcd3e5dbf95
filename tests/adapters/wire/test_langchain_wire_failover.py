"""Failures of a real server, and who answers instead."""

import asyncio
import gc
import math
import time

import pytest
from langchain_core.messages import HumanMessage

from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.testing.wire import Fault, LoopbackServer

pytestmark = pytest.mark.network

ORDERS = [("gpt", "claude"), ("claude", "gpt"), ("responses", "claude")]


@pytest.fixture(params=ORDERS, ids=lambda order: f"{order[0]}-fails")
def pair(request, server, gpt, claude):
    """Two clients of different providers, the one that is to fail first."""
    make = {"gpt": gpt, "claude": claude, "responses": lambda: gpt("gpt-5-mini")}
    first, second = (make[name]() for name in request.param)
    if request.param[0] == "responses":
        first = gpt("gpt-5-mini", use_responses_api=True)
    server.model(first.model, answers=["From the first."])
    server.model(second.model, answers=["From the second."])
    return first, second


async def asked(model, how):
    """Ask in one of the ways, and return the answer as a whole."""
    if how == "invoke":
        return model.invoke("q")
    if how == "ainvoke":
        return await model.ainvoke("q")
    if how == "stream_events":
        return model.stream_events("q", version="v3").output
    chunks = list(model.stream("q")) if how == "stream" else None
    if chunks is None:
        chunks = [chunk async for chunk in model.astream("q")]
    answer = chunks[0]
    for chunk in chunks[1:]:
        answer += chunk
    return answer


WAYS = ["invoke", "ainvoke", "stream", "astream", "stream_events"]


def check_second(answer, pair, error):
    record = answer.response_metadata["mixllm"]
    assert answer.text == "From the second."
    assert record["candidate"] == pair[1].model
    (attempt,) = record["attempts"]
    assert attempt["candidate"] == pair[0].model
    if error is not None:
        assert attempt["error"].endswith(error)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize(
    ("status", "error"),
    [(429, "RateLimitError"), (500, "APIError"), (529, None), (401, None)],
)
async def test_an_error_of_one_provider_is_answered_by_the_other(
    status, error, how, pair, server, ranked, load_of
):
    server.model(pair[0].model).fail_with(status)
    model = ranked(*pair)
    check_second(await asked(model, how), pair, error)
    assert load_of(model) == 0


BROKEN = {
    "malformed": Fault(body=b'{"id": "x", "choi'),
    "empty": Fault(body=b""),
    "a web page": Fault(body=b"<html>Gateway</html>", content_type="text/html"),
    "cut": Fault(after_events=0),
    "overloaded": Fault(after_events=0, status=529),
}


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
@pytest.mark.parametrize("fault", BROKEN)
async def test_an_answer_that_is_none_is_given_by_the_other(
    fault, how, pair, server, ranked, load_of
):
    server.model(pair[0].model).misbehave(BROKEN[fault])
    model = ranked(*pair)
    check_second(await asked(model, how), pair, None)
    assert load_of(model) == 0


@pytest.mark.parametrize("how", ["stream", "astream", "stream_events"])
@pytest.mark.parametrize("fault", ["cut", "overloaded"])
async def test_a_stream_that_breaks_before_its_first_event_is_given_by_the_other(
    fault, how, pair, server, ranked, load_of
):
    server.model(pair[0].model).misbehave(BROKEN[fault])
    model = ranked(*pair)
    check_second(await asked(model, how), pair, None)
    assert load_of(model) == 0


@pytest.mark.parametrize("how", ["stream", "astream", "stream_events"])
@pytest.mark.parametrize("status", [None, 529])
async def test_a_stream_that_breaks_before_its_first_word_is_given_by_the_other(
    status, how, pair, server, ranked
):
    server.model(pair[0].model).misbehave(Fault(after_events=1, status=status))
    check_second(await asked(ranked(*pair), how), pair, None)


@pytest.mark.parametrize("how", ["stream", "astream", "stream_events"])
async def test_a_stream_that_hangs_before_its_first_word_is_left_after_its_time(
    how, pair, server, ranked
):
    stalled = Fault(after_events=1, hang_seconds=0.5)
    server.model(pair[0].model).misbehave(stalled)
    model = ranked(*pair, facts={"timeout_seconds": 0.2})
    check_second(await asked(model, how), pair, "TimeoutError")


@pytest.mark.parametrize("how", WAYS)
async def test_a_model_that_hangs_is_left_after_its_time(
    how, pair, server, ranked, load_of
):
    server.model(pair[0].model).misbehave(Fault(hang_seconds=10))
    model = ranked(*pair, facts={"timeout_seconds": 0.3})
    began = time.monotonic()
    check_second(await asked(model, how), pair, "TimeoutError")
    assert time.monotonic() - began < 3.0
    assert load_of(model) == 0


def test_a_server_that_is_gone_is_no_end(server, gpt, claude, ranked):
    with LoopbackServer() as gone:
        address = gone.url
    for kind, alive in [(type(gpt()), claude()), (type(claude()), gpt())]:
        dead = kind(model="gone", base_url=address, api_key="x", max_retries=0)
        answer = ranked(dead, alive).invoke("q")
        record = answer.response_metadata["mixllm"]
        assert record["candidate"] == alive.model
        assert record["attempts"][0]["error"].endswith("ConnectionError")


def test_the_time_that_a_provider_asks_for_is_kept(pair, server, ranked):
    server.model(pair[0].model).fail_with(429, headers={"Retry-After": "7"})
    model = ranked(*pair, cooldown_seconds=100.0)
    model.invoke("q")
    due = model.dispatcher.cooldown.due()[pair[0].model]
    assert due - time.monotonic() == pytest.approx(7.0, abs=1.0)
    assert model.invoke("q").text == "From the second."
    assert len(server.requests_to(pair[0].model)) == 1


def test_a_prompt_that_is_too_long_goes_to_a_larger_window(pair, server):
    first, second = pair
    server.model(first.model, context_window=5)  # less than is declared here
    model = MixLLMChatModel(
        candidates=[
            CandidateModel(model=first, context_window=1_000, prior_quality=0.9),
            CandidateModel(model=second, context_window=9_000, prior_quality=0.1),
        ]
    )
    model.router.exploration = 0.0
    answer = model.invoke("one two three four five six")
    check_second(answer, pair, None)
    assert model.invoke("short").text == "From the first."  # it does not cool down


def test_a_mistake_of_the_caller_is_not_repeated_elsewhere(server, gpt, claude, ranked):
    odd = HumanMessage([{"type": "text", "text": "q"}, {"type": "smell", "id": "1"}])
    with pytest.raises(Exception, match="400"):
        ranked(gpt(), claude()).invoke([odd])
    assert len(server.requests) == 1


def test_all_failures_are_told_with_their_names(pair, server, ranked):
    for client in pair:
        server.model(client.model).fail_with(503)
    with pytest.raises(ExceptionGroup) as failure:
        ranked(*pair).invoke("q")
    assert len(failure.value.exceptions) == 2
    for client in pair:
        assert repr(client.model) in str(failure.value)


@pytest.mark.parametrize("how", ["ainvoke", "astream"])
async def test_a_cancelled_call_is_no_load_any_more(
    how, pair, server, ranked, load_of, recorder
):
    server.model(pair[0].model).misbehave(Fault(hang_seconds=math.inf))
    model = ranked(*pair).with_config(callbacks=[recorder])
    task = asyncio.create_task(asked(model, how))
    await asyncio.to_thread(server.wait_for_requests, 1)
    assert load_of(model.bound) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert load_of(model.bound) == 0
    assert {run["ended"] for run in recorder.of("chain")} == {"CancelledError"}
    assert len(server.requests) == 1


async def test_a_cancelled_stream_is_no_load_any_more(pair, server, ranked, load_of):
    server.model(pair[0].model).misbehave(Fault(seconds_per_event=0.05))
    model = ranked(*pair)
    begun = asyncio.Event()

    async def read():
        async for _ in model.astream("q"):
            begun.set()
            await asyncio.sleep(0)

    task = asyncio.create_task(read())
    await asyncio.wait_for(begun.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gc.collect()  # a generator that its reader left is closed by the loop
    async with asyncio.timeout(5):
        while load_of(model):  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.01)
