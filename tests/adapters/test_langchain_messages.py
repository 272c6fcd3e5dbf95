"""Inputs in every form; which text is routed; arguments that are forwarded."""

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    HumanMessage,
    HumanMessageChunk,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompt_values import ChatPromptValue, StringPromptValue

from mixllm_integrations.langchain.calls.messages import spent_on, turns_of, with_usage

QUESTION = "What is the capital of Mongolia?"

FORMS = {
    "text": QUESTION,
    "message": [HumanMessage(QUESTION)],
    "chunk": [HumanMessageChunk(QUESTION)],
    "pair": [("human", QUESTION)],
    "user pair": [("user", QUESTION)],
    "dict": [{"role": "user", "content": QUESTION}],
    "list of text": [QUESTION],
    "string prompt": StringPromptValue(text=QUESTION),
    "chat prompt": ChatPromptValue(messages=[HumanMessage(QUESTION)]),
    "blocks": [HumanMessage([{"type": "text", "text": QUESTION}])],
}


@pytest.fixture
def routed(monkeypatch):
    """Collect what a model asks its router."""

    def watch(model):
        seen = []
        route = model.router.route

        def note(query, **kwargs):
            seen.append((query, kwargs))
            return route(query, **kwargs)

        monkeypatch.setattr(model.router, "route", note)
        return seen

    return watch


@pytest.mark.parametrize("form", FORMS)
def test_a_single_message_in_any_form_is_routed_by_its_text(pool, routed, form):
    model = pool()
    seen = routed(model)
    assert model.invoke(FORMS[form]).content == "From the best."
    ((query, kwargs),) = seen
    assert query == QUESTION
    assert kwargs["input_tokens"] is None


@pytest.mark.parametrize("text", ["", "   ", "x" * 300_000])
def test_a_text_of_any_length_is_answered(pool, text):
    assert pool().invoke(text).content == "From the best."


def test_a_conversation_is_routed_by_its_last_question_and_its_whole_length(
    pool, routed
):
    model = pool()
    seen = routed(model)
    model.invoke(
        [
            SystemMessage("Be terse. " * 200),
            HumanMessage("Who wrote Faust?"),
            AIMessage("Goethe."),
            HumanMessage(QUESTION),
        ]
    )
    ((query, kwargs),) = seen
    assert query.startswith(QUESTION)
    assert "Faust" in query
    assert len(query) < 500
    assert kwargs["input_tokens"] > 600


def test_another_text_can_be_routed(pool, routed):
    model = pool(query_from=lambda messages: f"topic: {messages[-1].content[:4]}")
    seen = routed(model)
    model.invoke(QUESTION)
    ((query, kwargs),) = seen
    assert query == "topic: What"
    assert kwargs["input_tokens"] > 4


def test_an_image_asks_for_candidates_that_see(pool):
    model = pool(best={"facts": {"vision": False}})
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    answer = model.invoke([("human", [{"type": "text", "text": "What?"}, image])])
    assert answer.content == "From the second."
    assert model.invoke("no image").content == "From the best."


def test_roles_are_told_apart():
    turns = turns_of(
        [
            SystemMessage("s"),
            HumanMessage("h"),
            AIMessage("a"),
            ToolMessage("t", tool_call_id="1"),
            ChatMessage("c", role="user"),
        ]
    )
    assert turns == [
        ("system", "s"),
        ("human", "h"),
        ("ai", "a"),
        ("tool", "t"),
        ("user", "c"),
    ]


def test_arguments_of_a_call_reach_whoever_answers(pool, asked):
    model = pool()
    model.invoke("q", stop=["X"], temperature=0.3, seed=7)
    (call,) = asked(model, "best")
    assert call.stop == ["X"]
    assert call.kwargs == {"temperature": 0.3, "seed": 7}


def test_bound_arguments_reach_whoever_answers(pool, asked):
    model = pool()
    model.bind(seed=7).invoke("q")
    assert asked(model, "best")[0].kwargs == {"seed": 7}


def test_settings_of_the_model_hold_for_every_candidate(pool):
    model = pool(
        temperature=0, max_tokens=2, stop=["best"], output_version="v1", streaming=True
    )
    for name in ("best", "second"):
        inner = model.seat(name).model
        assert (inner.temperature, inner.max_tokens) == (0, 2)
        assert (inner.stop, inner.output_version) == (["best"], "v1")
        assert inner.streaming is True
    answer = model.invoke("q")
    assert answer.text == "From the"


def test_settings_leave_the_models_that_were_passed_as_they_were(scripted_candidate):
    from mixllm_integrations.langchain import MixLLMChatModel

    given = scripted_candidate("a")
    MixLLMChatModel(candidates=[given], temperature=0.5)
    assert given.model.temperature is None


def test_settings_without_a_field_become_arguments_of_each_call():
    from langchain_core.language_models import BaseChatModel
    from langchain_core.outputs import ChatGeneration, ChatResult

    from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel

    noted = []

    class Plain(BaseChatModel):
        @property
        def _llm_type(self):
            return "plain"

        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            noted.append((stop, kwargs))
            return ChatResult(generations=[ChatGeneration(message=AIMessage("hi"))])

    plain = CandidateModel(
        model=Plain(),
        name="plain",
        input_cost_per_million_tokens=0,
        output_cost_per_million_tokens=0,
    )
    model = MixLLMChatModel(
        candidates=[plain], temperature=0.5, max_tokens=9, stop=["X"]
    )
    model.invoke("q")
    model.invoke("q", temperature=0.9, stop=["Y"])
    assert noted == [
        (["X"], {"temperature": 0.5, "max_tokens": 9}),
        (["Y"], {"temperature": 0.9, "max_tokens": 9}),
    ]


def test_a_candidates_name_as_model_makes_that_one_answer(pool, asked):
    model = pool()
    answer = model.invoke("q", model="second")
    assert answer.content == "From the second."
    assert "model" not in asked(model, "second")[0].kwargs
    assert model.bind(model="second").invoke("q").content == "From the second."


def test_any_other_model_is_forwarded_to_whoever_answers(pool):
    answer = pool().invoke("q", model="best-2025")
    assert answer.response_metadata["model_name"] == "best-2025"


def test_tokens_are_counted_without_a_download(pool):
    model = pool()
    assert model.get_num_tokens("What is 2 + 2?") > 4
    assert model.get_num_tokens_from_messages([HumanMessage("hello")]) > 1
    assert len(model.get_token_ids("What is 2 + 2?")) > 4


def test_tokens_of_tools_and_their_calls_are_counted_too(pool):
    def weather(city: str) -> str:
        """Tell the weather."""
        return city

    count = pool().get_num_tokens_from_messages
    plain = count([HumanMessage("hello")])
    assert count([HumanMessage("hello")], tools=[weather]) > plain + 20
    call = {"name": "weather", "args": {"city": "Oslo " * 50}, "id": "1"}
    assert count([AIMessage("", tool_calls=[call])]) > 50


def test_token_ids_of_a_long_text_are_not_clipped(pool):
    assert len(pool().get_token_ids("tide " * 20_000)) == 20_000


def test_a_tokenizer_of_ones_own_is_used(pool):
    model = pool(custom_get_token_ids=lambda text: [7] * len(text))
    assert model.get_num_tokens("hello") == 5
    assert model.get_token_ids("hello") == [7] * 5


@pytest.mark.parametrize(
    ("details", "read", "written"),
    [
        ({"cache_read": 80, "cache_creation": 5}, 80, 5),
        ({"cache_read": 0}, 0, 0),
        ({"audio": 3}, None, 0),
        ({}, None, 0),
        # OpenAI with a service tier; Anthropic, who tells how long it is kept.
        ({"flex_cache_read": 80, "flex": 20}, 80, 0),
        (
            {
                "cache_read": 80,
                "cache_creation": 0,
                "ephemeral_5m_input_tokens": 3,
                "ephemeral_1h_input_tokens": 4,
            },
            80,
            7,
        ),
    ],
)
def test_what_passed_through_a_cache_of_prompts_is_told(details, read, written):
    usage = {"input_tokens": 100, "output_tokens": 2, "total_tokens": 102}
    spent = spent_on({**usage, "input_token_details": details}, None)
    assert (spent.cache_read_tokens, spent.cache_write_tokens) == (read, written)
    assert (spent.input_tokens, spent.cached) == (100, False)


def test_without_details_or_usage_nothing_is_said_of_the_cache():
    usage = {"input_tokens": 100, "output_tokens": 2, "total_tokens": 102}
    for spent in (spent_on(usage, None), spent_on(None, AIMessage("hi"))):
        assert (spent.cache_read_tokens, spent.cache_write_tokens) == (None, 0)


def test_what_chunks_read_from_the_cache_adds_up():
    usage = {"input_tokens": 50, "output_tokens": 1, "total_tokens": 51}
    chunk = AIMessageChunk(
        "", usage_metadata={**usage, "input_token_details": {"cache_read": 40}}
    )
    total = with_usage(with_usage(None, chunk), chunk)
    assert spent_on(total, None).cache_read_tokens == 80
