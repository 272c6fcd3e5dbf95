"""Who answers when a candidate does not, and what it costs to wait."""

import asyncio
import threading
import time

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.rate_limiters import InMemoryRateLimiter

from mixllm_integrations.core.errors import NoCandidateError
from mixllm_integrations.testing import ManualClock


class StatusError(Exception):
    def __init__(self, status_code):
        super().__init__(f"status {status_code}")
        self.status_code = status_code


@pytest.mark.parametrize(
    "error", [StatusError(429), StatusError(401), TimeoutError(), ValueError("odd")]
)
async def test_the_next_best_answers_in_every_mode(pool, error, load_of):
    for call in ("invoke", "ainvoke"):
        model = pool(best={"errors": [error]})
        answer = getattr(model, call)("q")
        answer = answer if call == "invoke" else await answer
        record = answer.response_metadata["mixllm"]
        assert answer.content == "From the second."
        assert record["candidate"] == "second"
        assert record["attempts"][0]["candidate"] == "best"
        assert record["attempts"][0]["error"] == type(error).__name__
        assert load_of(model) == 0


def test_the_cost_is_that_of_the_candidate_that_answered(pool):
    model = pool(best={"errors": [TimeoutError()]}, second={"price": 100.0})
    record = model.invoke("q").response_metadata["mixllm"]
    # 10 tokens at 100 USD per million and 2 at 200.
    assert record["cost"] == pytest.approx(10 * 100e-6 + 2 * 200e-6)


def test_a_failure_is_availability_and_never_quality(pool):
    model = pool(best={"errors": [StatusError(503)]})
    before = model.router.predict(["q"]).quality.copy()
    record = model.invoke("q").response_metadata["mixllm"]
    failed = model.router._ledger.get(record["attempts"][0]["decision_id"])
    assert failed.outcome.error == "StatusError"
    assert not failed.feedback
    assert (model.router.predict(["q"]).quality == before).all()


def test_when_all_fail_one_group_names_each(pool, recorder, load_of):
    first, second = StatusError(503), TimeoutError()
    model = pool(best={"errors": [first]}, second={"errors": [second]})
    with pytest.raises(ExceptionGroup) as caught:
        model.invoke("q", {"callbacks": [recorder]})
    assert caught.value.exceptions == (first, second)
    assert "'best': StatusError; 'second': TimeoutError" in str(caught.value)
    assert recorder.named("MixLLM")[0]["ended"] == "ExceptionGroup"
    assert recorder.kinds == {"chain": 1, "llm": 2}
    assert load_of(model) == 0


def test_a_mistake_of_the_caller_is_raised_at_once_and_as_it_is(pool, asked):
    error = StatusError(400)
    model = pool(best={"errors": [error]})
    with pytest.raises(StatusError) as caught:
        model.invoke("q")
    assert caught.value is error
    assert not asked(model, "second")
    assert model.invoke("q").content == "From the best."


def test_a_failed_candidate_is_asked_again_only_after_its_cooldown(pool, asked):
    model = pool(best={"errors": [TimeoutError()]}, cooldown_seconds=5.0)
    clock = model.dispatcher.cooldown._clock = ManualClock()
    assert model.invoke("q").content == "From the second."
    clock.advance(4.9)
    assert model.invoke("q").content == "From the second."
    assert len(asked(model, "best")) == 1
    clock.advance(0.2)
    assert model.invoke("q").content == "From the best."


def test_retries_can_be_limited_or_forbidden(pool):
    failing = {"errors": [TimeoutError()]}
    with pytest.raises(TimeoutError):
        pool(best=failing, max_retries=0).invoke("q")
    assert pool(best=failing, max_retries=1).invoke("q").content == "From the second."


def test_a_late_answer_is_given_up_on(pool):
    model = pool(best={"delay_seconds": 3.0, "facts": {"timeout_seconds": 0.05}})
    started = time.perf_counter()
    answer = model.invoke("q")
    assert time.perf_counter() - started < 2.5
    record = answer.response_metadata["mixllm"]
    assert record["candidate"] == "second"
    assert record["attempts"][0]["error"] == "TimeoutError"


async def test_a_late_answer_is_given_up_on_without_blocking(pool):
    model = pool(best={"delay_seconds": 30.0}, timeout=0.05)
    answer = await model.ainvoke("q")
    assert answer.content == "From the second."
    chunks = [
        chunk
        async for chunk in pool(best={"delay_seconds": 30.0}, timeout=0.05).astream("q")
    ]
    assert "".join(chunk.content for chunk in chunks) == "From the second."


def test_a_late_first_chunk_is_given_up_on(pool):
    model = pool(best={"delay_seconds": 3.0}, timeout=0.05)
    chunks = list(model.stream("q"))
    assert "".join(chunk.content for chunk in chunks) == "From the second."


def test_nobody_able_is_an_error_that_a_tracer_sees(pool, recorder):
    model = pool(best={"facts": {"vision": False}}, second={"facts": {"vision": False}})
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    with pytest.raises(NoCandidateError, match="vision"):
        model.invoke(
            [("human", [{"type": "text", "text": "What is it?"}, image])],
            {"callbacks": [recorder]},
        )
    assert recorder.named("MixLLM")[0]["ended"] == "NoCandidateError"


def test_a_batch_on_16_threads_answers_all_and_leaves_no_load(pool, recorder, load_of):
    seen = []

    def answer(messages):
        seen.append(threading.get_ident())
        time.sleep(0.002)
        return f"Echo {messages[-1].content}"

    model = pool(best={"answers": answer}, second={"answers": answer})
    questions = [f"question {n}" for n in range(200)]
    answers = model.batch(questions, {"max_concurrency": 16, "callbacks": [recorder]})
    assert [a.content for a in answers] == [f"Echo {q}" for q in questions]
    ids = {a.response_metadata["mixllm"]["decision_id"] for a in answers}
    assert len(ids) == 200
    assert len(set(seen)) > 1
    assert recorder.kinds == {"chain": 200, "llm": 200}
    assert load_of(model) == 0


async def test_an_asynchronous_batch_counts_its_load_while_it_runs(pool, load_of):
    model = pool(best={"delay_seconds": 0.5}, second={"delay_seconds": 0.5})
    task = asyncio.create_task(model.abatch(["a", "b", "c", "d"]))
    await asyncio.sleep(0.03)
    assert load_of(model) == 4
    assert len(await task) == 4
    assert load_of(model) == 0


def test_a_cached_answer_costs_nothing_and_teaches_no_latency(pool):
    model = pool(best={"cache": InMemoryCache()})
    first = model.invoke("q").response_metadata["mixllm"]
    second = model.invoke("q")
    record = second.response_metadata["mixllm"]
    assert len(model.seat("best").model.calls) == 1
    assert first["cost"] > 0
    assert record["cost"] == 0.0
    assert record["decision_id"] != first["decision_id"]
    outcome = model.router._ledger.get(record["decision_id"]).outcome
    assert outcome.latency_seconds is None
    assert outcome.error is not None
    assert model.record_feedback(second, 1.0)


def test_the_record_never_enters_a_candidates_cache(pool):
    cache = InMemoryCache()
    model = pool(best={"cache": cache})
    model.invoke("q")
    assert "decision_id" not in repr(cache._cache)


def test_the_routed_model_refuses_a_cache_of_its_own(pool):
    with pytest.raises(ValueError, match="no cache of its own"):
        pool(cache=True)


def test_a_rate_limiter_of_the_model_holds_for_all_candidates(pool):
    limiter = InMemoryRateLimiter(
        requests_per_second=50, check_every_n_seconds=0.005, max_bucket_size=1
    )
    model = pool(rate_limiter=limiter)
    started = time.perf_counter()
    for _ in range(4):
        model.invoke("q")
    assert time.perf_counter() - started > 0.05


async def test_a_handler_that_insists_on_its_errors_leaves_no_load(pool, load_of):
    class Insisting(BaseCallbackHandler):
        raise_error = True

        def on_chain_start(self, *args, **kwargs):
            raise RuntimeError("not today")

    model = pool()
    config = {"callbacks": [Insisting()]}
    with pytest.raises(RuntimeError, match="not today"):
        model.invoke("q", config)
    with pytest.raises(RuntimeError, match="not today"):
        await model.ainvoke("q", config)
    assert load_of(model) == 0


async def test_nobody_able_is_told_in_asynchronous_calls_too(pool, recorder):
    none = {"facts": {"structured_output": False}}
    chat = pool(best=none, second=none).with_structured_output({"title": "A"})
    with pytest.raises(NoCandidateError, match="structured"):
        await chat.ainvoke("q", {"callbacks": [recorder]})
    assert recorder.named("MixLLM")[0]["ended"] == "NoCandidateError"


async def test_the_rate_limiter_is_asked_in_every_mode(pool, limiter):
    model = pool(rate_limiter=limiter)
    model.invoke("q")
    await model.ainvoke("q")
    list(model.stream("q"))
    async for _ in model.astream("q"):
        pass
    assert limiter.taken == 4
