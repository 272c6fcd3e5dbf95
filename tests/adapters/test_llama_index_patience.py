"""All LLMs fail: a patient one waits and asks again, an ordinary one raises."""

import asyncio
import pickle
import random

import pytest
from llama_index.core.llms import ChatMessage

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.llama_index import CandidateLLM, MixLLM, calls
from mixllm_integrations.testing import ScriptedLLM

MODES = ["chat", "achat", "stream_chat", "astream_chat"]
every_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture
def waits(monkeypatch):
    """The waits of all calls; nobody really waits."""
    noted = []
    give_way = asyncio.sleep

    async def sleep(seconds):
        if seconds:
            noted.append(seconds)
        await give_way(0)

    monkeypatch.setattr(random, "random", lambda: 0.0)
    monkeypatch.setattr(calls.time, "sleep", noted.append)
    monkeypatch.setattr(calls.asyncio, "sleep", sleep)
    return noted


def troubled(*, times, **settings):
    candidates = [
        CandidateLLM(
            llm=ScriptedLLM(
                model=name, answers=["Here."], errors=[TimeoutError()] * times
            ),
            name=name,
            input_cost_per_million_tokens=1.0,
            output_cost_per_million_tokens=2.0,
        )
        for name in ("a", "b")
    ]
    return MixLLM(candidates, **settings)


async def answered(llm, mode):
    messages = [ChatMessage(content="q")]
    found = getattr(llm, mode)(messages)
    if mode == "stream_chat":
        return list(found)[-1]
    if mode == "chat":
        return found
    found = await found
    return [chunk async for chunk in found][-1] if mode == "astream_chat" else found


def load(llm):
    waiting = llm.router._waiting
    return [waiting.in_flight(name) for name in ("a", "b")]


@every_mode
async def test_a_patient_llm_answers_when_somebody_is_well_again(mode, waits):
    llm = troubled(times=2, give_up_after_seconds=30.0)
    response = await answered(llm, mode)
    assert response.message.content == "Here."
    assert len(response.additional_kwargs["mixllm"]["attempts"]) == 4
    assert waits == [0.5, 1.0]
    assert load(llm) == [0, 0]


@every_mode
async def test_an_ordinary_llm_raises_what_everybody_raised(mode, waits):
    llm = troubled(times=2)
    with pytest.raises(ExceptionGroup, match="TimeoutError"):
        await answered(llm, mode)
    assert waits == []
    assert load(llm) == [0, 0]


@every_mode
async def test_patience_ends(mode, waits):
    llm = troubled(times=50, give_up_after_seconds=3.0)
    with pytest.raises(ExceptionGroup) as failure:
        await answered(llm, mode)
    assert len(failure.value.exceptions) == 2
    assert sum(waits) == pytest.approx(3.0, abs=0.5)
    assert load(llm) == [0, 0]


@every_mode
async def test_if_all_have_left_meanwhile_what_they_raised_is_raised(
    mode, waits, monkeypatch
):
    llm = troubled(times=9, give_up_after_seconds=30.0)
    resume = calls.RoutedCall.resume

    def left(call):
        for name in ("a", "b"):
            llm.remove_candidate(name)
        return resume(call)

    monkeypatch.setattr(calls.RoutedCall, "resume", left)
    with pytest.raises(ExceptionGroup, match="TimeoutError"):
        await answered(llm, mode)


@pytest.mark.parametrize("wrong", [-1, float("nan"), "long"])
def test_patience_that_is_no_time_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="give_up_after_seconds"):
        troubled(times=0, give_up_after_seconds=wrong)


def test_patience_is_kept_when_an_llm_is_pickled():
    copied = pickle.loads(pickle.dumps(troubled(times=0, give_up_after_seconds=7.0)))  # noqa: S301
    assert copied.give_up_after_seconds == 7.0
    assert copied.usual_options.give_up_after_seconds == 7.0
