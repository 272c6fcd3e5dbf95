"""What a stream of a routed model carries, over real clients on the wire."""

import pytest
from langchain_core.callbacks import UsageMetadataCallbackHandler

from mixllm_integrations.testing.wire import Fault, Reply, Usage

pytestmark = pytest.mark.network

CLIENTS = ["chat", "responses", "claude"]


@pytest.fixture(params=CLIENTS)
def model(request, server, gpt, claude, ranked):
    """A routed model of one client, whose answer takes 10 and 3 tokens."""
    if request.param == "claude":
        client = claude()
    else:
        client = gpt(use_responses_api=request.param == "responses")
    server.model(
        client.model,
        answers=["Hello to you."],
        usage=Usage(10, 3, cached_tokens=4),
    )
    return ranked(client)


def check_usage(usage):
    assert (usage["input_tokens"], usage["output_tokens"]) == (10, 3)
    assert usage["total_tokens"] == 13
    assert usage["input_token_details"]["cache_read"] == 4


def check_record(answer):
    record = answer.response_metadata["mixllm"]
    assert record["cost"] is not None
    assert answer.response_metadata["model_name"] == record["candidate"]


def whole(chunks):
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return total


def test_a_stream_carries_its_usage_and_its_record_once(model):
    counted = UsageMetadataCallbackHandler()
    chunks = list(model.stream("hello", {"callbacks": [counted]}))
    assert len(chunks) > 3
    assert sum(chunk.usage_metadata is not None for chunk in chunks) == 1
    answer = whole(chunks)
    assert answer.text == "Hello to you."
    check_usage(answer.usage_metadata)
    check_record(answer)
    (usage,) = counted.usage_metadata.values()
    check_usage(usage)


async def test_an_asynchronous_stream_carries_the_same(model):
    counted = UsageMetadataCallbackHandler()
    config = {"callbacks": [counted]}
    answer = whole([chunk async for chunk in model.astream("hello", config)])
    assert answer.text == "Hello to you."
    check_usage(answer.usage_metadata)
    check_record(answer)
    (usage,) = counted.usage_metadata.values()
    check_usage(usage)


def test_a_stream_of_version_3_carries_the_same(model):
    counted = UsageMetadataCallbackHandler()
    stream = model.stream_events("hello", {"callbacks": [counted]}, version="v3")
    assert "".join(stream.text) == "Hello to you."
    check_usage(stream.output.usage_metadata)
    check_record(stream.output)
    (usage,) = counted.usage_metadata.values()
    check_usage(usage)


async def test_an_asynchronous_stream_of_version_3_carries_the_same(model):
    stream = await model.astream_events("hello", version="v3")
    assert "".join([text async for text in stream.text]) == "Hello to you."
    answer = await stream.output
    check_usage(answer.usage_metadata)
    check_record(answer)


async def test_events_of_version_2_tell_of_one_model_run(model):
    events = [event async for event in model.astream_events("hello", version="v2")]
    ended = [event for event in events if event["event"] == "on_chat_model_end"]
    assert len(ended) == 1
    check_usage(ended[0]["data"]["output"].usage_metadata)
    told = [e for e in events if e["event"] == "on_chat_model_stream"]
    text = "".join(event["data"]["chunk"].text for event in told)
    assert text == "Hello to you."


def test_a_whole_answer_counts_its_usage_once(model):
    counted = UsageMetadataCallbackHandler()
    answer = model.invoke("hello", {"callbacks": [counted]})
    check_usage(answer.usage_metadata)
    check_record(answer)
    (usage,) = counted.usage_metadata.values()
    check_usage(usage)


def test_a_stream_asks_the_provider_for_a_stream(model, server):
    list(model.stream("hello"))
    model.invoke("hello")
    streamed, asked = (request.body for request in server.requests)
    assert streamed["stream"] is True
    assert not asked.get("stream")


@pytest.mark.parametrize("name", CLIENTS[1:])
def test_reasoning_streams_through(name, server, gpt, claude, ranked):
    if name == "claude":
        thinking = {"type": "enabled", "budget_tokens": 1024}
        client = claude(thinking=thinking, max_tokens=2000)
    else:
        client = gpt("gpt-5-mini", reasoning={"effort": "low", "summary": "auto"})
    server.model(client.model, answers=[Reply("Four.", reasoning="Two and two.")])
    answer = whole(list(ranked(client).stream("What is 2 + 2?")))
    thought, said = answer.content_blocks
    assert (thought["type"], thought["reasoning"]) == ("reasoning", "Two and two.")
    assert (said["type"], said["text"]) == ("text", "Four.")
    assert answer.usage_metadata["output_token_details"]["reasoning"] == 3


def test_a_stream_that_is_left_releases_its_load(model, load_of):
    stream = model.stream("hello")
    next(stream)
    assert load_of(model) == 1
    stream.close()
    assert load_of(model) == 0


@pytest.mark.parametrize("after", [2, 4])
def test_a_stream_that_is_cut_raises_and_nobody_begins_anew(
    after, model, server, load_of
):
    (name,) = [candidate.name for candidate in model.router.candidates]
    server.model(name).misbehave(Fault(after_events=after))
    with pytest.raises(Exception, match=r"closed|incomplete|onnection"):
        list(model.stream("hello"))
    assert load_of(model) == 0
    assert len(server.requests) == 1
