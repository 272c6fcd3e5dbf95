"""A conversation stays with one candidate while that is worth it."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.testing import ScriptedChatModel

LONG = "word " * 3_000


def config(session="s", **more):
    return {"configurable": {"session_id": session, **more}}


def who(model, prompt, given):
    return model.invoke(prompt, given).response_metadata["mixllm"]["candidate"]


@pytest.fixture
def talkers():
    """Return a model of two; the second is better, the first one's cache cheap."""

    def make(**facts):
        model = MixLLMChatModel(
            candidates=[
                CandidateModel(
                    model=ScriptedChatModel(model="one", answers=["1"]),
                    input_cost_per_million_tokens=2.0,
                    output_cost_per_million_tokens=2.0,
                    prior_quality=0.5,
                    **facts,
                ),
                CandidateModel(
                    model=ScriptedChatModel(model="two", answers=["2"]),
                    input_cost_per_million_tokens=2.0,
                    output_cost_per_million_tokens=2.0,
                    prior_quality=0.6,
                ),
            ],
            willingness_to_pay=0.01,
        )
        model.router.exploration = 0.0
        return model

    return make


def thread(text=LONG):
    return [HumanMessage(text), AIMessage("1"), HumanMessage("and now?")]


def test_a_warm_cache_keeps_a_session_where_it_is(talkers):
    model = talkers(cached_input_cost_per_million_tokens=0.2)
    assert who(model, LONG, config(candidate="one")) == "one"
    assert who(model, thread(), config()) == "one"
    assert who(model, thread(), config("another")) == "two"


def test_without_a_cheaper_cache_the_better_one_takes_over(talkers):
    model = talkers()
    who(model, LONG, config(candidate="one"))
    assert who(model, thread(), config()) == "two"


def test_a_short_conversation_is_free_to_go_to_the_better_one(talkers):
    model = talkers(cached_input_cost_per_million_tokens=0.2)
    who(model, "hello", config(candidate="one"))
    assert who(model, thread("hello"), config()) == "two"


@pytest.mark.parametrize(
    "given",
    [
        {"configurable": {"thread_id": "s"}},
        {"metadata": {"session_id": "s"}},
    ],
)
def test_langgraphs_thread_and_langsmiths_session_are_sessions(talkers, given):
    model = talkers(cached_input_cost_per_million_tokens=0.2)
    who(model, LONG, config(candidate="one"))
    answer = model.invoke(thread(), given)
    assert answer.response_metadata["mixllm"]["session"] == "s"
    assert answer.response_metadata["mixllm"]["candidate"] == "one"


def test_without_a_session_there_is_none_in_the_record(talkers):
    assert "session" not in talkers().invoke("q").response_metadata["mixllm"]


def test_copies_of_a_model_share_its_sessions(talkers):
    model = talkers(cached_input_cost_per_million_tokens=0.2)
    who(model, LONG, config(candidate="one"))
    assert who(model.model_copy(), thread(), config()) == "one"


async def test_streams_and_awaited_calls_keep_their_session_too(talkers):
    model = talkers(cached_input_cost_per_million_tokens=0.2)
    async for _ in model.astream(LONG, config(candidate="one")):
        pass
    answer = await model.ainvoke(thread(), config())
    assert answer.response_metadata["mixllm"]["candidate"] == "one"


def test_what_came_out_of_the_cache_is_charged_at_its_price():
    usage = {
        "input_tokens": 10_000,
        "output_tokens": 0,
        "total_tokens": 10_000,
        "input_token_details": {"cache_read": 8_000},
    }

    class Caching(ScriptedChatModel):
        def _usage(self, messages, answer):
            return usage

    model = MixLLMChatModel(
        candidates=[
            CandidateModel(
                model=Caching(model="one", answers=["1"]),
                input_cost_per_million_tokens=2.0,
                output_cost_per_million_tokens=2.0,
                cached_input_cost_per_million_tokens=0.2,
            )
        ]
    )
    cost = model.invoke("q").response_metadata["mixllm"]["cost"]
    assert cost == pytest.approx(2_000 * 2e-6 + 8_000 * 0.2e-6)


def test_list_prices_of_the_cache_are_known():
    openai = pytest.importorskip("langchain_openai")
    model = MixLLMChatModel(
        candidates=[openai.ChatOpenAI(model="gpt-4.1", api_key="sk-none")]
    )
    saving = model.dispatcher.sessions.saving_per_token["gpt-4.1"]
    assert saving == pytest.approx(1.5e-6)
