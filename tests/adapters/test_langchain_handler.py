"""MixLLMCallbackHandler keeps the books of routed calls, and of them alone."""

import gc
import weakref

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from mixllm_integrations.core.errors import NoCandidateError
from mixllm_integrations.langchain import MixLLMCallbackHandler
from mixllm_integrations.testing import ManualClock, ScriptedChatModel


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_a_call_is_reported_with_tokens_cost_and_latency(pool):
    clock = ManualClock()
    books = MixLLMCallbackHandler(clock=clock)

    def answer(messages):
        clock.advance(1.5)
        return "hi"

    record = pool(best={"answers": answer}).invoke("q", {"callbacks": [books]})
    record = record.response_metadata["mixllm"]
    (report,) = books.calls
    assert report.decision_id == record["decision_id"]
    assert report.candidate == "best"
    assert (report.input_tokens, report.output_tokens) == (10, 2)
    assert report.cost == pytest.approx(14e-6)
    assert report.predicted_quality == record["predicted_quality"]
    assert report.predicted_cost == record["predicted_cost"]
    assert report.latency_seconds == 1.5
    assert report.time_to_first_token_seconds is None
    assert report.error is None


async def test_every_mode_is_booked_once(pool):
    books = MixLLMCallbackHandler()
    config = {"callbacks": [books]}
    model = pool()
    model.invoke("q", config)
    await model.ainvoke("q", config)
    list(model.stream("q", config))
    async for _ in model.astream("q", config):
        pass
    model.batch(["a", "b"], config)
    await model.abatch(["a", "b"], config)
    _ = model.stream_events("q", config, version="v3").output
    model.with_structured_output({"title": "A", "type": "object"}).invoke("q", config)
    totals = books.totals
    assert totals.calls == 10
    assert totals.errors == 0
    assert (totals.input_tokens, totals.output_tokens) == (100, 20)
    assert totals.cost == pytest.approx(10 * 14e-6)
    assert totals.calls_by_candidate == {"best": 10}
    assert totals.cost_by_candidate["best"] == pytest.approx(totals.cost)
    assert totals.latency_seconds > 0


@pytest.mark.parametrize("version", ["stream", "v3"])
def test_the_time_to_the_first_chunk_of_a_stream_is_noted(pool, version):
    books = MixLLMCallbackHandler()
    config = {"callbacks": [books]}
    model = pool(best={"delay_seconds": 0.02})
    if version == "stream":
        list(model.stream("q", config))
    else:
        _ = model.stream_events("q", config, version="v3").output
    (report,) = books.calls
    assert 0.02 <= report.time_to_first_token_seconds <= report.latency_seconds


def test_in_a_chain_only_the_routed_call_is_booked(pool):
    books = MixLLMCallbackHandler()
    chain = (
        ChatPromptTemplate.from_template("{q}")
        | pool()
        | StrOutputParser()
        | ScriptedChatModel(usage=(1_000, 1_000))
    )
    chain.invoke({"q": "hello"}, {"callbacks": [books]})
    assert books.totals.calls == 1
    assert books.totals.input_tokens == 10


def test_given_to_the_model_it_hears_every_call(pool):
    books = MixLLMCallbackHandler()
    model = pool(callbacks=[books])
    model.invoke("a")
    model.invoke("b", {"callbacks": [books]})
    assert books.totals.calls == 2


def test_a_failover_is_booked_with_its_attempts(pool):
    books = MixLLMCallbackHandler()
    pool(best={"errors": [TimeoutError()]}).invoke("q", {"callbacks": [books]})
    (report,) = books.calls
    assert report.candidate == "second"
    assert [a["error"] for a in report.attempts] == ["TimeoutError"]
    assert books.totals.failed_attempts == 1
    assert books.totals.errors == 0


def test_errors_are_booked_by_name(pool):
    books = MixLLMCallbackHandler()
    failing = {"errors": [TimeoutError()], "facts": {"tools": False}}
    model = pool(best=failing, second=failing)
    with pytest.raises(ExceptionGroup):
        model.invoke("q", {"callbacks": [books]})
    with pytest.raises(NoCandidateError):
        model.bind_tools([add]).invoke("q", {"callbacks": [books]})
    assert [r.error for r in books.calls] == ["ExceptionGroup", "NoCandidateError"]
    assert books.totals.errors == 2
    assert books.totals.calls_by_candidate == {}


def test_an_abandoned_stream_is_booked_as_such(pool):
    books = MixLLMCallbackHandler()
    stream = pool().stream("q", {"callbacks": [books]})
    next(stream)
    stream.close()
    assert [report.error for report in books.calls] == ["GeneratorExit"]
    totals = books.totals
    assert (totals.calls, totals.abandoned, totals.errors) == (1, 1, 0)
    assert totals.mean_latency_seconds is None


async def test_feedback_is_booked_with_its_call(pool):
    books, other = MixLLMCallbackHandler(), MixLLMCallbackHandler()
    model = pool()
    answer = model.invoke("q", {"callbacks": [books]})
    model.record_feedback(answer, 0.75)
    model.record_feedback(answer, 0.75)  # not new
    assert [report.feedback for report in books.calls] == [[0.75]]
    assert (books.totals.feedback_count, books.totals.feedback_sum) == (1, 0.75)
    assert other.totals.feedback_count == 0


def test_16_threads_lose_nothing(pool):
    books = MixLLMCallbackHandler()
    pool().batch(["q"] * 200, {"max_concurrency": 16, "callbacks": [books]})
    assert books.totals.calls == len(books.calls) == 200
    assert books.totals.output_tokens == 400
    assert books._open == books._chains == books._llms == {}


def test_details_are_bounded_and_totals_are_not(pool):
    books = MixLLMCallbackHandler(max_calls=3)
    model = pool()
    for _ in range(5):
        model.invoke("q", {"callbacks": [books]})
    assert len(books.calls) == 3
    assert books.totals.calls == 5


def test_streams_that_never_end_do_not_pile_up(pool):
    books = MixLLMCallbackHandler(max_calls=2)
    model = pool()
    streams = [
        model.stream_events("q", {"callbacks": [books]}, version="v3") for _ in range(5)
    ]
    assert len(books._open) == 2
    assert (books.totals.calls, books.totals.abandoned) == (3, 3)
    del streams
    gc.collect()
    assert len(books._chains) <= 2
    assert len(books._llms) <= 2


def test_what_is_returned_is_a_copy(pool):
    books = MixLLMCallbackHandler()
    pool().invoke("q", {"callbacks": [books]})
    books.calls[0].feedback.append(1.0)
    books.totals.calls_by_candidate.clear()
    assert books.calls[0].feedback == []
    assert books.totals.calls_by_candidate == {"best": 1}


def test_a_handler_that_is_gone_is_not_kept_alive(pool):
    books = MixLLMCallbackHandler()
    gone = weakref.ref(books)
    model = pool()
    answer = model.invoke("q", {"callbacks": [books]})
    del books
    gc.collect()
    assert gone() is None
    assert model.record_feedback(answer, 1.0)
