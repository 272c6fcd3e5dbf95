"""A candidate that says nothing is not waited for longer than allowed."""

import asyncio
import threading
import time

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index_instrumentation.dispatcher import active_instrument_tags

from mixllm_integrations import ConfigurationError
from mixllm_integrations.llama_index import CandidateLLM, MixLLM
from mixllm_integrations.testing import ScriptedLLM

MODES = (
    "chat",
    "achat",
    "stream_chat",
    "astream_chat",
    "complete",
    "acomplete",
    "stream_complete",
    "astream_complete",
)
LONG = 60.0  # nobody waits so long


@pytest.fixture
def hangs():
    """An LLM that hangs until the test is over."""
    over = threading.Event()

    class Hanging(ScriptedLLM):
        def _think(self):
            over.wait(LONG)

    yield Hanging(model="hangs", answers=["late"], delay_seconds=LONG)
    over.set()


def candidate(llm, quality, **facts):
    return CandidateLLM(
        llm=llm,
        input_cost_per_million_tokens=1.0,
        output_cost_per_million_tokens=1.0,
        prior_quality=quality,
        **facts,
    )


def pool(first, *, own=None, **settings):
    llm = MixLLM(
        [
            candidate(first, 0.9, timeout_seconds=own),
            candidate(
                ScriptedLLM(model="quick", answers=["in time"]),
                0.1,
                timeout_seconds=LONG,
            ),
        ],
        willingness_to_pay=1.0,
        **settings,
    )
    llm.router.exploration = 0.0
    return llm


def ask(llm, mode):
    given = [ChatMessage("hello")] if "chat" in mode else "hello"

    async def collect():
        answer = await getattr(llm, mode)(given)
        return [chunk async for chunk in answer] if "stream" in mode else [answer]

    if mode.startswith("a"):
        return asyncio.run(collect())
    answer = getattr(llm, mode)(given)
    return list(answer) if "stream" in mode else [answer]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("where", ["timeout", "own"])
def test_another_takes_over_from_one_that_hangs(hangs, mode, where):
    llm = pool(hangs, **{where: 0.05})
    record = ask(llm, mode)[-1].additional_kwargs["mixllm"]
    assert record["candidate"] == "quick"
    (attempt,) = record["attempts"]
    assert (attempt["candidate"], attempt["error"]) == ("hangs", "TimeoutError")
    assert llm.router.load_here() == {}


@pytest.mark.parametrize("mode", MODES)
def test_one_in_time_answers_as_it_would_without(mode):
    made = [ScriptedLLM(model="good", answers=["it is four"]) for _ in range(2)]
    with_limit, without = pool(made[0], timeout=LONG), pool(made[1])
    answers = [
        [getattr(c, "delta", None) for c in ask(llm, mode)]
        for llm in (with_limit, without)
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("mode", ["stream_chat", "stream_complete"])
def test_only_the_first_chunk_is_hurried(mode):
    class Slow(ScriptedLLM):
        def _chunks(self, answer, error, messages):
            for number, chunk in enumerate(super()._chunks(answer, error, messages)):
                time.sleep(0.7 if number else 0.0)
                yield chunk

    llm = pool(Slow(model="slow", answers=["it is four"]), timeout=1.0)
    assert len(ask(llm, mode)) == 3


@pytest.mark.parametrize("mode", ["chat", "stream_chat"])
def test_what_is_told_on_another_thread_is_told_of_the_call(mode):
    seen = []

    class Telling(ScriptedLLM):
        def _asked(self, *args, **kwargs):
            seen.append(active_instrument_tags.get()["mixllm.candidate"])
            return super()._asked(*args, **kwargs)

    ask(pool(Telling(model="tells"), timeout=LONG), mode)
    assert seen == ["tells"]


@pytest.mark.parametrize("wrong", [0, -1, "soon"])
def test_what_is_no_time_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="timeout_seconds"):
        candidate(ScriptedLLM(), 0.5, timeout_seconds=wrong)
    with pytest.raises(ConfigurationError, match="timeout"):
        pool(ScriptedLLM(), timeout=wrong)


def test_it_is_no_secret_and_no_part_of_what_the_router_sees():
    llm = pool(ScriptedLLM(model="good"), own=5.0, timeout=7.0)
    assert llm.to_dict()["timeout"] == 7.0
    assert llm.candidates[0].timeout_seconds == 5.0
