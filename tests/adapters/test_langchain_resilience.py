"""Failover as users need it: who says when to come back, who reads more."""

import gc
import time
from types import SimpleNamespace

import httpx
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import ContextOverflowError
from langchain_core.utils.uuid import uuid7

from mixllm_integrations.core.errors import (
    ConfigurationError,
    NoCandidateError,
    UnknownDecisionError,
)
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.langchain import MixLLMCallbackHandler, MixLLMChatModel
from mixllm_integrations.testing import ManualClock

openai = pytest.importorskip("openai")


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def timed(pool, clock):
    """Make a pool whose cooldowns go by a clock that stands still."""

    def make(**settings):
        model = pool(**settings)
        model.dispatcher.clock = model.dispatcher.cooldown._clock = clock
        return model

    return make


def rate_limited(**headers):
    request = httpx.Request("POST", "https://api.example.com/v1/chat/completions")
    response = httpx.Response(429, headers=headers, request=request)
    return openai.RateLimitError("slow down", response=response, body=None)


def who(model, prompt="q", **config):
    return model.invoke(prompt, **config).response_metadata["mixllm"]["candidate"]


def test_a_provider_that_says_when_to_come_back_is_left_alone_until_then(timed, clock):
    model = timed(best={"errors": [rate_limited(**{"retry-after": "7"})]})
    assert who(model) == "second"
    clock.advance(6.9)
    assert who(model) == "second"
    clock.advance(0.2)
    assert who(model) == "best"


def test_a_longer_wait_than_the_cooldown_is_obeyed_too(timed, clock):
    model = timed(best={"errors": [rate_limited(**{"retry-after": "120"})]})
    assert who(model) == "second"
    clock.advance(119.0)
    assert who(model) == "second"
    clock.advance(1.1)
    assert who(model) == "best"


def test_each_failure_in_a_row_doubles_the_rest(timed, clock):
    model = timed(
        best={"errors": [TimeoutError(), TimeoutError()]}, cooldown_seconds=10.0
    )
    assert who(model) == "second"
    clock.advance(10.1)
    assert who(model) == "second"  # asked again, and failed again
    clock.advance(10.1)
    assert who(model) == "second"  # still resting
    clock.advance(10.1)
    assert who(model) == "best"


def test_while_one_call_probes_the_others_go_elsewhere(timed, clock):
    meanwhile = []

    def answer(messages):
        if not meanwhile:
            meanwhile.append(None)
            meanwhile.append(who(model))  # the probe is under way
        return "From the best."

    model = timed(
        best={"errors": [TimeoutError()], "answers": answer}, cooldown_seconds=10.0
    )
    who(model)
    clock.advance(10.1)
    meanwhile.clear()
    assert who(model) == "best"
    assert meanwhile[1] == "second"
    assert who(model) == "best"


def test_a_candidate_is_well_again_with_the_first_word_of_its_probe(timed, clock):
    model = timed(best={"errors": [TimeoutError()]}, cooldown_seconds=10.0)
    who(model)
    clock.advance(10.1)
    stream = model.stream("q")
    next(stream)
    assert who(model) == "best"
    stream.close()


def test_a_probe_that_is_abandoned_leaves_the_place_to_another(timed, clock):
    model = timed(best={"errors": [TimeoutError()]}, cooldown_seconds=10.0)
    who(model)
    clock.advance(10.1)
    stream = model.stream("q")
    next(stream)
    stream.close()
    assert who(model) == "best"


def test_if_all_rest_the_one_due_soonest_is_asked(timed, clock):
    model = timed(
        best={"errors": [rate_limited(**{"retry-after": "60"})]},
        second={"errors": [rate_limited(**{"retry-after": "20"})]},
    )
    with pytest.raises(ExceptionGroup):
        model.invoke("q")
    assert who(model) == "second"


# --- prompts that are too long -------------------------------------------------


@pytest.fixture
def windows(scripted_candidate):
    """Make a model of three with windows of 8, 8 and 100 thousand tokens."""

    def make(**scripts):
        model = MixLLMChatModel(
            candidates=[
                scripted_candidate(
                    name,
                    quality=quality,
                    answers=[f"From {name}."],
                    facts={"context_window": window},
                    errors=scripts.get(name, ()),
                )
                for name, quality, window in [
                    ("good", 0.9, 8_000),
                    ("fair", 0.8, 8_000),
                    ("large", 0.1, 100_000),
                ]
            ]
        )
        model.router.exploration = 0.0
        return model

    return make


def test_a_prompt_too_long_for_one_goes_to_a_larger_window(windows, asked):
    model = windows(good=[ContextOverflowError("too long")])
    answer = model.invoke("q")
    record = answer.response_metadata["mixllm"]
    assert record["candidate"] == "large"
    assert record["attempts"][0]["error"] == "ContextOverflowError"
    assert not asked(model, "fair")  # its window is no larger


def test_it_is_not_left_alone_for_that(windows):
    model = windows(good=[ContextOverflowError("too long")])
    model.invoke("q")
    assert who(model) == "good"


def test_it_counts_as_no_retry(windows):
    model = windows(good=[ContextOverflowError("too long")])
    assert who(model.model_copy(update={"max_retries": 0})) == "large"


def test_a_prompt_too_long_for_everybody_is_told_as_it_was(windows):
    model = windows(
        good=[ContextOverflowError("too long")],
        large=[ContextOverflowError("too long as well")],
    )
    with pytest.raises(ContextOverflowError, match="too long"):
        model.invoke("q")


def test_a_bad_request_of_openai_that_says_so_goes_on_too(windows):
    request = httpx.Request("POST", "https://api.example.com/v1/chat/completions")
    body = {"code": "context_length_exceeded", "message": "too many tokens"}
    error = openai.BadRequestError(
        "too many tokens", response=httpx.Response(400, request=request), body=body
    )
    assert who(windows(good=[error])) == "large"


def test_each_error_of_a_group_names_its_candidate(pool):
    model = pool(best={"errors": [TimeoutError()]}, second={"errors": [OSError()]})
    with pytest.raises(ExceptionGroup) as caught:
        model.invoke("q")
    notes = [" ".join(error.__notes__) for error in caught.value.exceptions]
    assert ["best" in notes[0], "second" in notes[1]] == [True, True]


def print_time(zone: str) -> str:
    """Print the time."""
    return zone


def test_nobody_left_says_what_each_lacks(pool):
    model = pool(
        best={"facts": {"tools": False}}, second={"facts": {"context_window": 5}}
    )
    config = {"configurable": {"candidate": "best"}}
    with pytest.raises(NoCandidateError, match="has no tools"):
        model.bind_tools([print_time]).invoke("q", config)


# --- whose fault it is ---------------------------------------------------------


class PressedStopError(Exception):
    """What a user interface raises from a handler."""


class Stopping(BaseCallbackHandler):
    raise_error = True

    def __init__(self, at):
        setattr(self, at, self._stop)

    def _stop(self, *args, **kwargs):
        raise PressedStopError


@pytest.mark.parametrize(
    "at", ["on_chat_model_start", "on_llm_new_token", "on_llm_end"]
)
async def test_what_a_handler_of_the_caller_raises_is_nobodys_failure(
    pool, at, load_of
):
    model = pool()
    config = {"callbacks": [Stopping(at)]}
    with pytest.raises(PressedStopError):
        list(model.stream("q", config))
    with pytest.raises(PressedStopError):
        [chunk async for chunk in model.astream("q", config)]
    if at != "on_llm_new_token":
        with pytest.raises(PressedStopError):
            model.invoke("q", config)
        with pytest.raises(PressedStopError):
            await model.ainvoke("q", config)
    assert not model.dispatcher.cooldown.due()
    assert load_of(model) == 0


def test_a_candidate_that_leaves_during_a_call_is_not_asked_any_more(
    scripted_candidate,
):
    def failing(messages):
        model.remove_candidate("second")
        raise ConnectionError("the line is dead")

    router = Router([Candidate("another's", 1.0, 1.0)])
    model = MixLLMChatModel(
        candidates=[
            scripted_candidate("first", quality=0.9, answers=failing),
            scripted_candidate("second", quality=0.8),
            scripted_candidate("third", quality=0.1),
        ],
        router=router,
    )
    router.exploration = 0.0
    assert who(model) == "third"


async def test_feedback_on_a_run_reaches_who_spoke_in_it(pool):
    run_id = uuid7()
    model = pool(best={"errors": [ConnectionError()]})
    stream = model.stream("q", {"run_id": run_id})
    next(stream)
    stream.close()
    before = model.router.predict(["q"])
    model.record_feedback(run_id, 0.0)
    after = model.router.predict(["q"])
    best, second = (before.candidates.index(name) for name in ("best", "second"))
    assert after.quality[0, best] == before.quality[0, best]
    assert after.quality[0, second] < before.quality[0, second]


def test_feedback_on_a_call_that_failed_altogether_teaches_no_quality(pool):
    run_id = uuid7()
    errors = [ConnectionError()]
    model = pool(best={"errors": errors}, second={"errors": errors})
    with pytest.raises(ExceptionGroup):
        model.invoke("q", {"run_id": run_id})
    before = model.router.predict(["q"]).quality
    model.record_feedback(run_id, 0.0)
    assert (model.router.predict(["q"]).quality == before).all()


def test_a_dry_run_has_no_feedback(pool):
    model = pool()
    answer = model.invoke("q", {"configurable": {"dry_run": True}})
    with pytest.raises(ConfigurationError, match="dry run"):
        model.record_feedback(answer, 0.0)
    with pytest.raises(UnknownDecisionError):
        model.record_feedback(answer.response_metadata["mixllm"]["decision_id"], 0.0)


def test_one_that_breaks_after_its_first_word_each_time_rests_longer(timed, clock):
    broken = {"errors": [BrokenPipeError()] * 3, "error_after_chunks": 2}
    model = timed(best=broken, cooldown_seconds=10.0)
    for _ in range(2):
        with pytest.raises(BrokenPipeError):
            list(model.stream("q"))
        clock.advance(10.1)
    assert "best" in model.dispatcher.cooldown.due()
    clock.advance(10.1)
    assert "best" not in model.dispatcher.cooldown.due()


def test_a_stream_of_events_left_after_a_failover_is_released(pool, load_of):
    model = pool(best={"errors": [ConnectionError()] * 20}, cooldown_seconds=0)
    for _ in range(10):
        stream = model.stream_events("q", version="v3")
        next(iter(stream))
        del stream
    gc.collect()
    deadline = time.monotonic() + 5
    while load_of(model) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert load_of(model) == 0


def test_an_argument_that_a_client_does_not_know_sends_the_call_elsewhere(pool):
    unknown = TypeError("create() got an unexpected keyword argument 'seed'")
    model = pool(best={"errors": [unknown]})
    assert who(model) == "second"
    assert not model.dispatcher.cooldown.due()


def test_an_argument_that_no_client_knows_is_raised_as_it_is(pool):
    unknown = TypeError("create() got an unexpected keyword argument 'seed'")
    model = pool(best={"errors": [unknown]}, second={"errors": [unknown]})
    with pytest.raises(TypeError, match="seed"):
        model.invoke("q")
    assert not model.dispatcher.cooldown.due()


async def test_an_answer_cut_short_by_the_caller_is_paid_and_blames_nobody(pool):
    class LengthFinishReasonError(Exception):
        """As the openai package raises it for a parsed answer."""

        completion = SimpleNamespace(
            usage=SimpleNamespace(prompt_tokens=10, completion_tokens=2)
        )

    books = MixLLMCallbackHandler()
    model = pool(best={"errors": [LengthFinishReasonError()] * 2})
    with pytest.raises(LengthFinishReasonError):
        model.invoke("q", {"callbacks": [books]})
    with pytest.raises(LengthFinishReasonError):
        await model.ainvoke("q", {"callbacks": [books]})
    assert not model.dispatcher.cooldown.due()
    assert books.totals.cost == pytest.approx(2 * (10 * 1e-6 + 2 * 2e-6))
