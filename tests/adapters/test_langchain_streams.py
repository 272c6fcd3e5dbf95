"""Streams: failures, abandonment, switched off."""

import asyncio
import gc

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from mixllm_integrations.testing import ScriptedChatModel


def test_a_failure_before_the_first_chunk_is_taken_over(pool, recorder):
    model = pool(best={"errors": [ConnectionError("down")]})
    chunks = list(model.stream("q", {"callbacks": [recorder]}))
    assert "".join(chunk.content for chunk in chunks) == "From the second."
    record = chunks[-1].response_metadata["mixllm"]
    assert record["candidate"] == "second"
    assert [(a["candidate"], a["error"]) for a in record["attempts"]] == [
        ("best", "ConnectionError")
    ]
    ended = sorted(run["ended"] for run in recorder.of("llm"))
    assert ended == ["ConnectionError", "ok"]
    assert recorder.named("MixLLM")[0]["ended"] == "ok"


async def test_the_same_holds_for_asynchronous_streams(pool):
    model = pool(best={"errors": [ConnectionError("down")]})
    chunks = [chunk async for chunk in model.astream("q")]
    assert "".join(chunk.content for chunk in chunks) == "From the second."


def test_a_failure_after_the_first_chunk_is_raised_and_nothing_is_repeated(
    pool, recorder, load_of
):
    model = pool(best={"errors": [ConnectionError("down")], "error_after_chunks": 2})
    stream = model.stream("q", {"callbacks": [recorder]})
    assert next(stream).content + next(stream).content == "From the"
    with pytest.raises(ConnectionError):
        next(stream)
    assert recorder.named("MixLLM")[0]["ended"] == "ConnectionError"
    assert load_of(model) == 0
    # It cools down: the next question goes elsewhere.
    assert model.invoke("q").content == "From the second."


async def test_an_asynchronous_failure_after_the_first_chunk_is_raised(pool, load_of):
    model = pool(best={"errors": [ConnectionError("down")], "error_after_chunks": 1})
    with pytest.raises(ConnectionError):
        async for _ in model.astream("q"):
            pass
    assert load_of(model) == 0


def test_an_abandoned_stream_is_released_and_blames_nobody(pool, recorder, load_of):
    model = pool()
    stream = model.stream("q", {"callbacks": [recorder]})
    next(stream)
    assert load_of(model) == 1
    stream.close()
    assert load_of(model) == 0
    assert [run["ended"] for run in recorder.runs.values()] == ["GeneratorExit"] * 2
    assert model.invoke("q").content == "From the best."


def test_a_stream_that_is_just_forgotten_is_released_too(pool, load_of):
    model = pool()
    stream = model.stream("q")
    next(stream)
    del stream
    gc.collect()
    assert load_of(model) == 0


async def test_an_abandoned_asynchronous_stream_is_released(pool, load_of):
    model = pool()
    stream = model.astream("q")
    await anext(stream)
    assert load_of(model) == 1
    await stream.aclose()
    assert load_of(model) == 0


async def test_a_cancelled_call_is_released_and_blames_nobody(pool, recorder, load_of):
    model = pool(best={"delay_seconds": 30.0})
    task = asyncio.create_task(model.ainvoke("q", {"callbacks": [recorder]}))
    await asyncio.sleep(0.05)
    assert load_of(model) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert load_of(model) == 0
    assert recorder.named("MixLLM")[0]["ended"] == "CancelledError"
    assert not model.dispatcher.cooldown.due()


def test_without_reported_usage_the_length_is_estimated(pool):
    model = pool(best={"reports_usage": False, "answers": ["one two three four"]})
    *_, last = model.stream("What is 2 + 2?")
    decision_id = last.response_metadata["mixllm"]["decision_id"]
    outcome = model.router._ledger.get(decision_id).outcome
    assert outcome.output_tokens == 4
    assert outcome.input_tokens > 0
    whole = model.invoke("What is 2 + 2?")
    assert whole.response_metadata["mixllm"]["cost"] == pytest.approx(
        last.response_metadata["mixllm"]["cost"]
    )


def test_a_model_that_marks_no_last_chunk_still_gets_its_record(scripted_candidate):
    class Unmarked(ScriptedChatModel):
        def stream(self, *args, **kwargs):
            yield AIMessageChunk("Hello")
            yield AIMessageChunk(" there")

    model = _over(scripted_candidate, Unmarked())
    chunks = list(model.stream("q"))
    assert [chunk.content for chunk in chunks] == ["Hello", " there", ""]
    assert chunks[-1].chunk_position == "last"
    assert (chunks[0] + chunks[1] + chunks[2]).response_metadata["mixllm"]


def test_what_comes_after_a_last_chunk_is_passed_on_in_order(scripted_candidate):
    class Chatty(ScriptedChatModel):
        def _stream(self, messages, stop=None, run_manager=None, **kwargs):
            for text, place in [("a", None), ("b", "last"), ("c", "last")]:
                chunk = AIMessageChunk(text, chunk_position=place)
                yield ChatGenerationChunk(message=chunk)

    chunks = list(_over(scripted_candidate, Chatty()).stream("q"))
    assert [chunk.content for chunk in chunks] == ["a", "b", "c"]
    assert ["mixllm" in c.response_metadata for c in chunks] == [False, False, True]


def test_a_model_that_does_not_stream_answers_in_one_piece(scripted_candidate):
    class Silent(ScriptedChatModel):
        disable_streaming: bool = True

    model = _over(scripted_candidate, Silent(answers=["All at once."]))
    (answer,) = list(model.stream("q"))
    assert isinstance(answer, AIMessage)
    assert answer.content == "All at once."
    assert answer.response_metadata["mixllm"]["candidate"] == "only"


def _over(scripted_candidate, model):
    from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel

    only = CandidateModel(
        model=model,
        name="only",
        input_cost_per_million_tokens=1,
        output_cost_per_million_tokens=1,
    )
    return MixLLMChatModel(candidates=[only])


@pytest.mark.parametrize(
    "settings",
    [{"disable_streaming": True}, {"streaming": False}],
)
async def test_streaming_can_be_switched_off(pool, settings):
    model = pool(**settings)
    assert len(list(model.stream("q"))) == 1
    assert len([chunk async for chunk in model.astream("q")]) == 1


def test_streaming_can_be_switched_off_for_tools_alone(pool):
    model = pool(disable_streaming="tool_calling")
    assert len(list(model.stream("q"))) > 1

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    assert len(list(model.bind_tools([add]).stream("q"))) == 1


async def test_with_streaming_invoke_streams_inside(pool, recorder):
    model = pool(streaming=True)
    model.invoke("q", {"callbacks": [recorder]})
    (llm,) = recorder.of("llm")
    assert llm["tokens"] > 2


async def test_event_streams_show_the_routed_run_and_the_models_own(pool):
    events = [e async for e in pool().astream_events("q", version="v2")]
    names = [(e["event"], e["name"]) for e in events]
    assert names[0] == ("on_chain_start", "MixLLM")
    assert names[-1] == ("on_chain_end", "MixLLM")
    assert names.count(("on_chat_model_start", "ScriptedChatModel")) == 1
    pieces = [
        e["data"]["chunk"].content
        for e in events
        if e["event"] == "on_chat_model_stream"
    ]
    assert "".join(pieces) == "From the best."


async def test_stop_words_reach_every_kind_of_stream(pool):
    model = pool()
    async for _ in model.astream_events("q", version="v2", stop=["best"]):
        pass
    _ = model.stream_events("q", version="v3", stop=["best"]).output
    _ = list(model.stream("q", stop=["best"]))
    assert [c.stop for c in model.seat("best").model.calls] == [["best"]] * 3


def test_synchronous_events_of_version_2_are_as_of_every_model(pool):
    with pytest.raises(NotImplementedError):
        list(pool().stream_events("q", version="v2"))
