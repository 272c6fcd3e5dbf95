"""Tools are bound by whoever answers; a loop of tool calls keeps its candidate."""

import typing

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool, tool
from pydantic import BaseModel

from mixllm_integrations.core.errors import NoCandidateError
from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.testing import ScriptedChatModel


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Person(BaseModel):
    """A person."""

    name: str


class Typed(typing.TypedDict):
    """A person."""

    name: str


class Adder(BaseTool):
    """A tool of a class of its own."""

    name: str = "add"
    description: str = "Add two numbers."

    def _run(self, a: int, b: int) -> int:
        return a + b


def plain(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


FORMS = {
    "tool": add,
    "tool class": Adder(),
    "function": plain,
    "class": Person,
    "typed dict": Typed,
    "dict": {"name": "look", "description": "Look.", "parameters": {}},
    "openai": {"type": "function", "function": {"name": "look", "parameters": {}}},
    "anthropic": {"name": "look", "input_schema": {"type": "object"}},
    "schema": {"title": "look", "description": "Look.", "type": "object"},
}


def test_binding_returns_a_new_object_and_changes_nothing(pool):
    model = pool()
    bound = model.bind_tools([add])
    assert bound is not model
    assert isinstance(bound, Runnable)
    assert not model.invoke("2 and 3").tool_calls


def test_with_fallbacks_sees_that_tools_can_be_bound(pool):
    hints = typing.get_type_hints(MixLLMChatModel.bind_tools)
    origin = typing.get_origin(hints["return"])
    assert issubclass(origin, Runnable)
    chain = pool(best={"answers": None}).with_fallbacks([pool()])
    answer = chain.bind_tools([add]).invoke("2 and 3")
    assert answer.tool_calls[0]["args"] == {"a": 2, "b": 3}


async def test_every_mode_calls_the_tool_and_carries_the_record(pool):
    bound = pool(best={"answers": None}).bind_tools([add])
    chunks = None
    for chunk in bound.stream("2 and 3"):
        chunks = chunk if chunks is None else chunks + chunk
    achunks = None
    async for chunk in bound.astream("2 and 3"):
        achunks = chunk if achunks is None else achunks + chunk
    answers = [
        bound.invoke("2 and 3"),
        await bound.ainvoke("2 and 3"),
        *bound.batch(["2 and 3"]),
        *await bound.abatch(["2 and 3"]),
        chunks,
        achunks,
    ]
    for answer in answers:
        (call,) = answer.tool_calls
        assert (call["name"], call["args"]) == ("add", {"a": 2, "b": 3})
        assert answer.response_metadata["mixllm"]["candidate"] == "best"


@pytest.mark.parametrize("form", FORMS)
def test_tools_of_every_form_reach_the_model_in_its_own_form(pool, asked, form):
    model = pool()
    model.bind_tools([FORMS[form]]).invoke("q")
    (call,) = asked(model, "best")
    assert call.kwargs["tools"][0]["type"] == "function"


def test_tools_bound_later_replace_those_bound_before(pool, asked):
    model, bare = pool(), ScriptedChatModel()
    twice = model.bind_tools([add], tool_choice="any").bind_tools([Person])
    twice.invoke("q")
    bare.bind_tools([add], tool_choice="any").bind_tools([Person]).invoke("q")
    (call,) = asked(model, "best")
    assert call.kwargs == bare.calls[0].kwargs


def test_a_schema_asked_of_bound_tools_replaces_them_as_with_any_model(pool, asked):
    model, bare = pool(), ScriptedChatModel()
    for chat in (model, bare):
        chat.bind_tools([add]).with_structured_output(Person).invoke("Ada")
    (call,) = asked(model, "best")
    assert call.kwargs == bare.calls[0].kwargs


def test_a_retry_around_bound_tools_keeps_them(pool):
    failing = {"errors": [TimeoutError()], "answers": None}
    chain = pool(best=failing, second=failing, cooldown_seconds=0).bind_tools([add])
    answer = chain.with_retry(wait_exponential_jitter=False).invoke("2 and 3")
    assert answer.tool_calls[0]["args"] == {"a": 2, "b": 3}


@pytest.mark.parametrize(
    "choice",
    [
        "any",
        "required",
        "auto",
        "add",
        True,
        {"type": "function", "function": {"name": "add"}},
    ],
)
def test_the_choice_of_a_tool_and_other_arguments_are_forwarded(pool, asked, choice):
    model = pool()
    model.bind_tools([add], tool_choice=choice, strict=True).invoke("2 and 3")
    (call,) = asked(model, "best")
    assert call.kwargs["tool_choice"] == choice
    assert call.kwargs["strict"] is True


def test_without_a_choice_none_is_forwarded():
    class Strict(ScriptedChatModel):
        def bind_tools(self, tools, **kwargs):
            assert "tool_choice" not in kwargs
            return super().bind_tools(tools, **kwargs)

    only = CandidateModel(
        model=Strict(),
        name="strict",
        input_cost_per_million_tokens=1,
        output_cost_per_million_tokens=1,
    )
    bound = MixLLMChatModel(candidates=[only]).bind_tools([add])
    assert bound.invoke("2 and 3").tool_calls


def test_a_candidate_binds_once_and_not_with_each_call():
    class Counting(ScriptedChatModel):
        bound: list[int] = []  # noqa: RUF012 - pydantic copies it

        def bind_tools(self, tools, **kwargs):
            self.bound.append(1)
            return super().bind_tools(tools, **kwargs)

    inner = Counting()
    only = CandidateModel(
        model=inner,
        name="counting",
        input_cost_per_million_tokens=1,
        output_cost_per_million_tokens=1,
    )
    bound = MixLLMChatModel(candidates=[only]).bind_tools([add])
    for _ in range(3):
        bound.invoke("2 and 3")
    assert len(inner.bound) == 1


def test_only_candidates_that_call_tools_compete(pool):
    model = pool(best={"facts": {"tools": False}}, second={"answers": None})
    assert model.invoke("2 and 3").content == "From the best."
    answer = model.bind_tools([add]).invoke("2 and 3")
    assert answer.response_metadata["mixllm"]["candidate"] == "second"
    assert answer.tool_calls


def test_tools_given_as_a_bare_argument_count_as_tools_too(pool):
    model = pool(best={"facts": {"tools": False}})
    answer = model.invoke("q", tools=[{"function": {"name": "add"}}])
    assert answer.response_metadata["mixllm"]["candidate"] == "second"


def test_if_none_calls_tools_the_error_says_so(pool):
    none = {"facts": {"tools": False}}
    bound = pool(best=none, second=none).bind_tools([add])
    with pytest.raises(NoCandidateError, match="tools"):
        bound.invoke("q")


def test_a_failover_keeps_the_tools(pool):
    model = pool(best={"errors": [TimeoutError()]}, second={"answers": None})
    answer = model.bind_tools([add]).invoke("2 and 3")
    assert answer.tool_calls
    assert answer.response_metadata["mixllm"]["candidate"] == "second"


def test_a_loop_of_tool_calls_keeps_its_candidate(pool):
    model = pool(second={"answers": None})
    bound = model.bind_tools([add])
    question = HumanMessage("2 and 3")
    asked_for = bound.invoke([question], model="second")
    (call,) = asked_for.tool_calls
    result = add.invoke(call)
    answer = bound.invoke([question, asked_for, result])
    assert answer.response_metadata["mixllm"]["candidate"] == "second"
    # A new question is routed anew.
    thread = [question, asked_for, result, answer, HumanMessage("thanks")]
    assert bound.invoke(thread).response_metadata["mixllm"]["candidate"] == "best"


def test_in_a_loop_only_the_asking_message_counts_not_older_ones(pool):
    record = {"mixllm": {"candidate": "second"}}
    call = {"name": "add", "args": {"a": 1, "b": 2}, "id": "1", "type": "tool_call"}
    thread = [
        HumanMessage("a"),
        AIMessage("b", response_metadata=record),
        HumanMessage("c"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("3", tool_call_id="1"),
    ]
    answer = pool().bind_tools([add]).invoke(thread)
    assert answer.response_metadata["mixllm"]["candidate"] == "best"


def test_if_the_loops_candidate_is_gone_another_one_answers(pool):
    record = {"mixllm": {"candidate": "removed"}}
    call = {"name": "add", "args": {"a": 1, "b": 2}, "id": "1", "type": "tool_call"}
    thread = [
        HumanMessage("a"),
        AIMessage("", tool_calls=[call], response_metadata=record),
        ToolMessage("3", tool_call_id="1"),
    ]
    assert pool().bind_tools([add]).invoke(thread).content == "From the best."


def test_an_agent_runs_to_its_end_on_one_candidate(pool):
    def answer(messages):
        if messages[-1].type == "tool":
            return f"The sum is {messages[-1].content}."
        call = {"name": "add", "args": {"a": 2, "b": 3}, "id": "1", "type": "tool_call"}
        return AIMessage("", tool_calls=[call])

    model = pool(best={"answers": answer}, second={"answers": answer})
    agent = create_agent(model, [add])
    messages = agent.invoke({"messages": [HumanMessage("What is 2 plus 3?")]})
    said = messages["messages"]
    assert said[-1].content == "The sum is 5."
    who = {
        m.response_metadata["mixllm"]["candidate"]
        for m in said
        if isinstance(m, AIMessage)
    }
    assert who == {"best"}


def test_a_binding_shows_nothing_of_its_tools(pool):
    from langchain_core.load import dumps

    secret = {"name": "call", "description": "sk-secret", "parameters": {}}
    bound = pool().bind_tools([secret])
    assert "sk-secret" not in repr(bound)
    assert "sk-secret" not in dumps(bound)


def test_a_candidate_that_was_replaced_is_bound_anew(pool, scripted_candidate):
    model = pool()
    bound = model.bind_tools([add])
    assert not bound.invoke("2 and 3").tool_calls
    model.remove_candidate("best")
    model.add_candidate(scripted_candidate("best", quality=0.9))
    assert bound.invoke("2 and 3").tool_calls
