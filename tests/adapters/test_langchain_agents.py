"""A routed model is the model of an agent, and of what stands between its calls."""

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ClearToolUsesEdit,
    ContextEditingMiddleware,
    LLMToolEmulator,
    LLMToolSelectorMiddleware,
    ModelCallLimitMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
    TodoListMiddleware,
    ToolCallLimitMiddleware,
    wrap_model_call,
)
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from mixllm_integrations.core.errors import NoCandidateError
from mixllm_integrations.langchain import MixLLMCallbackHandler
from mixllm_integrations.testing import ScriptedChatModel

QUESTION = {"messages": [HumanMessage("What is 2 plus 3?")]}
MODES = ["invoke", "ainvoke", "stream", "astream"]


class Sum(BaseModel):
    """A sum."""

    total: int


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def look(q: str) -> str:
    """Look something up."""
    return f"about {q}"


def call_of(messages, name="add", **args):
    call = {"name": name, "args": args or {"a": 2, "b": 3}, "type": "tool_call"}
    return AIMessage("", tool_calls=[{**call, "id": f"call_{len(messages)}"}])


def adder(name):
    """Script a candidate that adds by tool, and signs what it says."""

    def answer(messages):
        last = messages[-1]
        return f"{name}: {last.content}" if last.type == "tool" else call_of(messages)

    return answer


@pytest.fixture
def team(pool):
    """Make a routed model whose candidates add by tool, unless scripted."""

    def make(*, best=None, second=None, **settings):
        return pool(
            best={"answers": adder("best"), **(best or {})},
            second={"answers": adder("second"), "price": 0.5, **(second or {})},
            **settings,
        )

    return make


async def messages_after(agent, given, mode, config=None):
    """Return the messages of an agent's state after a turn."""
    if mode == "invoke":
        return agent.invoke(given, config)["messages"]
    if mode == "ainvoke":
        return (await agent.ainvoke(given, config))["messages"]
    if mode == "stream":
        states = list(agent.stream(given, config, stream_mode="values"))
    else:
        states = [s async for s in agent.astream(given, config, stream_mode="values")]
    return states[-1]["messages"]


def authors(messages):
    return [
        m.response_metadata["mixllm"]["candidate"]
        for m in messages
        if isinstance(m, AIMessage)
    ]


def spender(model):
    """Return a tool that makes the model thrifty from its call on."""

    @tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        model.willingness_to_pay = 1e-9
        return a + b

    return add


# The loop


@pytest.mark.parametrize("mode", MODES)
async def test_a_loop_keeps_its_candidate_and_the_next_question_is_routed_anew(
    team, mode
):
    model = team()
    agent = create_agent(model, [spender(model)])
    said = await messages_after(agent, QUESTION, mode)
    assert said[-1].content == "best: 5"
    assert authors(said) == ["best", "best"]
    again = {"messages": [*said, HumanMessage("And again?")]}
    said = await messages_after(agent, again, mode)
    assert said[-1].content == "second: 5"
    assert authors(said) == ["best", "best", "second", "second"]


def test_several_rounds_of_tools_are_one_loop(team):
    def answer(messages):
        done = sum(isinstance(m, ToolMessage) for m in messages)
        return f"{done} sums" if done == 3 else call_of(messages)

    model = team(best={"answers": answer})
    said = create_agent(model, [spender(model)]).invoke(QUESTION)["messages"]
    assert said[-1].content == "3 sums"
    assert authors(said) == ["best"] * 4


def test_tools_called_at_once_come_back_to_who_called_them(team):
    def answer(messages):
        told = [m.content for m in messages if m.type == "tool"]
        if told:
            return " ".join(told)
        calls = [
            {"name": "add", "args": {"a": 2, "b": b}, "id": f"c{b}"} for b in range(3)
        ]
        return AIMessage("", tool_calls=calls)

    model = team(best={"answers": answer})
    said = create_agent(model, [spender(model)]).invoke(QUESTION)["messages"]
    assert said[-1].content == "2 3 4"
    assert authors(said) == ["best", "best"]


def test_if_the_loops_candidate_fails_another_goes_on_to_the_end(team):
    model = team(best={"errors": [None, TimeoutError()]})
    said = create_agent(model, [add]).invoke(QUESTION)["messages"]
    assert said[-1].content == "second: 5"
    assert authors(said) == ["best", "second"]


def test_a_loop_goes_on_with_whoever_took_it_over(team):
    def answer(messages):
        done = sum(isinstance(m, ToolMessage) for m in messages)
        return "done" if done == 3 else call_of(messages)

    model = team(
        best={"answers": answer, "errors": [None, TimeoutError()]},
        second={"answers": answer},
        cooldown_seconds=0,
    )
    said = create_agent(model, [add]).invoke(QUESTION)["messages"]
    assert authors(said) == ["best", "second", "second", "second"]


def test_only_candidates_that_call_tools_work_for_an_agent(team):
    model = team(best={"facts": {"tools": False}})
    said = create_agent(model, [add]).invoke(QUESTION)["messages"]
    assert authors(said) == ["second", "second"]
    none = {"facts": {"tools": False}}
    with pytest.raises(NoCandidateError, match="tools"):
        create_agent(team(best=none, second=none), [add]).invoke(QUESTION)


def test_an_agent_without_tools_needs_no_candidate_that_calls_them(team):
    none = {"facts": {"tools": False}, "answers": ["Hi."]}
    agent = create_agent(team(best=none, second=none))
    assert agent.invoke(QUESTION)["messages"][-1].content == "Hi."


def test_what_another_provider_bound_to_its_answer_does_not_reach_the_next(team, asked):
    def thoughtful(messages):
        if messages[-1].type != "tool":
            return call_of(messages)
        thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
        return AIMessage([thought, {"type": "text", "text": "It is 5."}])

    model = team(
        best={"answers": thoughtful, "provider": "anthropic"},
        second={"provider": "openai"},
    )
    agent = create_agent(model, [add])
    said = agent.invoke(QUESTION)["messages"]
    model.willingness_to_pay = 1e-9
    agent.invoke({"messages": [*said, HumanMessage("And again?")]})
    read = asked(model, "second")[0].messages
    assert [m.content for m in read if isinstance(m, AIMessage)] == ["", "It is 5."]
    assert said[-1].content[0]["type"] == "thinking"


# Streams


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_each_token_is_streamed_once_under_the_real_models_name(team, mode):
    agent = create_agent(team(), [add])
    if mode == "stream":
        pairs = list(agent.stream(QUESTION, stream_mode="messages"))
    else:
        pairs = [p async for p in agent.astream(QUESTION, stream_mode="messages")]
    chunks = [(c, about) for c, about in pairs if isinstance(c, AIMessageChunk)]
    assert "".join(c.content for c, _ in chunks) == "best: 5"
    assert {about["ls_model_name"] for _, about in chunks} == {"best-2024"}
    assert len({c.id for c, _ in chunks}) == 2
    assert [c.content for c, _ in pairs if isinstance(c, ToolMessage)] == ["5"]
    assert len(pairs) == len(chunks) + 1


def test_updates_are_one_per_step_and_carry_the_record(team):
    agent = create_agent(team(), [add])
    updates = list(agent.stream(QUESTION, stream_mode="updates"))
    assert [step for update in updates for step in update] == [
        "model",
        "tools",
        "model",
    ]
    said = [
        m for update in updates for part in update.values() for m in part["messages"]
    ]
    assert authors(said) == ["best", "best"]


async def test_events_of_an_agent_show_one_run_of_the_real_model_per_step(team):
    agent = create_agent(team(), [add])
    events = [e async for e in agent.astream_events(QUESTION, version="v2")]
    ended = [e for e in events if e["event"] == "on_chat_model_end"]
    assert len(ended) == 2
    assert {e["metadata"]["ls_model_name"] for e in ended} == {"best-2024"}
    routed = [
        e for e in events if e["event"] == "on_chain_end" and e["name"] == "MixLLM"
    ]
    assert len(routed) == 2


@pytest.mark.filterwarnings(
    "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"
)
def test_messages_of_version_3_are_those_of_the_real_model(team):
    agent = create_agent(team(), [add])
    stream = agent.stream_events(QUESTION, version="v3")
    assert [str(message.text) for message in stream.messages] == ["", "best: 5"]
    assert authors(stream.output["messages"]) == ["best", "best"]


# Books


@pytest.mark.parametrize("mode", MODES)
async def test_usage_is_counted_once(team, recorder, mode):
    usage = UsageMetadataCallbackHandler()
    agent = create_agent(team(), [add])
    await messages_after(agent, QUESTION, mode, {"callbacks": [usage, recorder]})
    assert usage.usage_metadata["best-2024"]["total_tokens"] == 24
    assert recorder.kinds["llm"] == 2
    assert len(recorder.named("MixLLM")) == 2


@pytest.mark.parametrize("mode", MODES)
async def test_the_run_of_the_real_model_is_inside_that_of_the_routed(
    team, recorder, mode
):
    agent = create_agent(team(), [add])
    await messages_after(agent, QUESTION, mode, {"callbacks": [recorder]})
    around = [recorder.runs[run["parent"]]["name"] for run in recorder.of("llm")]
    assert around == ["MixLLM", "MixLLM"]


@pytest.mark.parametrize("mode", MODES)
async def test_the_books_of_an_agent_are_complete(team, mode):
    books = MixLLMCallbackHandler()
    agent = create_agent(team(), [add])
    said = await messages_after(agent, QUESTION, mode, {"callbacks": [books]})
    assert (books.totals.input_tokens, books.totals.output_tokens) == (20, 4)
    assert books.totals.calls == 2
    costs = [
        m.response_metadata["mixllm"]["cost"] for m in said if isinstance(m, AIMessage)
    ]
    assert books.totals.cost == pytest.approx(sum(costs))


def test_nothing_is_under_way_when_an_agent_is_done(team, load_of):
    model = team()
    create_agent(model, [add]).invoke(QUESTION)
    assert load_of(model) == 0


def test_feedback_on_an_agents_answer_is_taken(team):
    model = team()
    said = create_agent(model, [add]).invoke(QUESTION)["messages"]
    assert model.record_feedback(said[-1], 1.0)
    assert model.record_feedback(said[1], 0.5)
    assert not model.record_feedback(said[-1], 1.0)


# Answers in a schema


def summed(messages):
    """Add by tool, then answer in the schema: by tool if one is asked for."""
    if messages[-1].type == "tool":
        return call_of(messages, "Sum", total=5)
    return call_of(messages)


def written(messages):
    return '{"total": 5}' if messages[-1].type == "tool" else call_of(messages)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("schema", "answers", "expected"),
    [
        (ToolStrategy(Sum), summed, Sum(total=5)),
        (ProviderStrategy(Sum), written, Sum(total=5)),
        (Sum, summed, Sum(total=5)),
        (Sum.model_json_schema(), summed, {"total": 5}),
    ],
)
async def test_an_agent_answers_in_a_schema(team, schema, answers, expected, mode):
    model = team(best={"answers": answers, "forced_tools": False})
    agent = create_agent(model, [add], response_format=schema)
    if mode == "invoke":
        state = agent.invoke(QUESTION)
    elif mode == "ainvoke":
        state = await agent.ainvoke(QUESTION)
    elif mode == "stream":
        state = list(agent.stream(QUESTION, stream_mode="values"))[-1]
    else:
        states = [s async for s in agent.astream(QUESTION, stream_mode="values")]
        state = states[-1]
    assert state["structured_response"] == expected
    assert authors(state["messages"]) == ["best", "best"]


def test_a_bare_schema_is_filled_natively_if_every_candidate_can(team, asked):
    able = {"facts": {"structured_output": True}}
    model = team(best={"answers": written, **able}, second=able)
    agent = create_agent(model, [add], response_format=Sum)
    assert agent.invoke(QUESTION)["structured_response"] == Sum(total=5)
    calls = asked(model, "best")
    assert all(c.kwargs["response_format"]["type"] == "json_schema" for c in calls)


def test_a_bare_schema_is_filled_by_a_tool_if_one_candidate_cannot(team, asked):
    able, unable = {"structured_output": True}, {"structured_output": False}
    model = team(
        best={"answers": summed, "forced_tools": False, "facts": able},
        second={"facts": unable},
    )
    agent = create_agent(model, [add], response_format=Sum)
    assert agent.invoke(QUESTION)["structured_response"] == Sum(total=5)
    assert all("response_format" not in c.kwargs for c in asked(model, "best"))


def test_a_schema_to_be_filled_natively_is_not_given_to_one_that_cannot(team):
    model = team(
        best={"facts": {"structured_output": False}}, second={"answers": written}
    )
    agent = create_agent(model, [add], response_format=ProviderStrategy(Sum))
    state = agent.invoke(QUESTION)
    assert state["structured_response"] == Sum(total=5)
    assert authors(state["messages"]) == ["second", "second"]


def test_a_schema_without_tools_needs_no_candidate_that_calls_them(team):
    best = {"facts": {"tools": False}, "answers": ['{"total": 5}']}
    agent = create_agent(team(best=best), response_format=ProviderStrategy(Sum))
    state = agent.invoke(QUESTION)
    assert authors(state["messages"]) == ["best"]


# What stands between


def thread(turns):
    said = []
    for number in range(turns):
        said += [HumanMessage(f"Question {number}"), AIMessage(f"Answer {number}")]
    return {"messages": [*said, HumanMessage("And now?")]}


@pytest.mark.parametrize("mode", MODES)
async def test_a_routed_model_summarises(team, asked, mode):
    summary = team(best={"answers": ["Much was said."]})
    between = SummarizationMiddleware(
        summary, trigger=("messages", 5), keep=("messages", 1)
    )
    agent = create_agent(ScriptedChatModel(answers=["Fine."]), middleware=[between])
    said = await messages_after(agent, thread(3), mode)
    assert "Much was said." in said[0].content
    assert [m.content for m in said[1:]] == ["And now?", "Fine."]
    assert len(asked(summary, "best")) == 1


def test_the_smallest_window_says_when_to_summarise(team, asked):
    window = {"facts": {"context_window": 1_000}}
    model = team(
        best={"answers": ["Much."], "facts": {"context_window": 9_000}}, second=window
    )
    between = SummarizationMiddleware(
        model, trigger=("fraction", 0.5), keep=("messages", 1)
    )
    agent = create_agent(model, middleware=[between])
    agent.invoke(thread(3))
    assert len(asked(model, "best")) == 1
    long = thread(3)["messages"]
    long[0] = HumanMessage("word " * 600)
    agent.invoke({"messages": long})
    assert len(asked(model, "best")) == 3


def test_a_summary_in_a_loop_leaves_the_loop_its_candidate(team):
    model = team()
    summary = ScriptedChatModel(answers=["Much."])
    between = SummarizationMiddleware(
        summary, trigger=("messages", 3), keep=("messages", 2)
    )
    agent = create_agent(model, [spender(model)], middleware=[between])
    said = agent.invoke(thread(2))["messages"]
    assert said[-1].content == "best: 5"
    assert authors(m for m in said if "mixllm" in m.response_metadata) == ["best"] * 2


@pytest.mark.parametrize("mode", MODES)
async def test_a_routed_model_selects_the_tools(team, asked, mode):
    chooser = team(best={"answers": None})
    model = team()
    between = LLMToolSelectorMiddleware(model=chooser, max_tools=1)
    agent = create_agent(model, [add, look], middleware=[between])
    said = await messages_after(agent, QUESTION, mode)
    assert said[-1].content == "best: 5"
    offered = [len(call.kwargs["tools"]) for call in asked(model, "best")]
    assert offered == [1, 1]
    assert len(asked(chooser, "best")) == 2


def test_the_selection_does_not_change_who_goes_on(team):
    model = team()
    tools = [spender(model), look]
    chooser = ScriptedChatModel()
    between = LLMToolSelectorMiddleware(model=chooser, max_tools=1)
    said = create_agent(model, tools, middleware=[between]).invoke(QUESTION)
    assert authors(said["messages"]) == ["best", "best"]


@pytest.mark.parametrize("mode", MODES)
async def test_a_routed_model_stands_in_for_another(team, mode):
    dead = ScriptedChatModel(errors=[TimeoutError()] * 9)
    agent = create_agent(dead, [add], middleware=[ModelFallbackMiddleware(team())])
    assert (await messages_after(agent, QUESTION, mode))[-1].content == "best: 5"


@pytest.mark.parametrize("mode", MODES)
async def test_another_model_stands_in_if_all_candidates_fail(team, mode):
    dead = {"errors": [TimeoutError()] * 9}
    model = team(best=dead, second=dead, cooldown_seconds=0)
    other = ScriptedChatModel(answers=adder("other"))
    agent = create_agent(model, [add], middleware=[ModelFallbackMiddleware(other)])
    assert (await messages_after(agent, QUESTION, mode))[-1].content == "other: 5"


def test_an_agent_tries_a_routed_model_again(team):
    once = {"errors": [TimeoutError()]}
    model = team(best=once, second=once, cooldown_seconds=0, max_retries=1)
    between = ModelRetryMiddleware(max_retries=1, initial_delay=0, jitter=False)
    said = create_agent(model, [add], middleware=[between]).invoke(QUESTION)
    assert said["messages"][-1].content == "best: 5"


def test_limits_end_a_loop(team):
    between = ToolCallLimitMiddleware(run_limit=1, exit_behavior="end")
    agent = create_agent(team(best={"answers": call_of}), [add], middleware=[between])
    assert "limit" in agent.invoke(QUESTION)["messages"][-1].content
    between = ModelCallLimitMiddleware(run_limit=3)
    agent = create_agent(team(best={"answers": call_of}), [add], middleware=[between])
    said = agent.invoke(QUESTION)["messages"]
    assert sum("mixllm" in m.response_metadata for m in said) == 3


def test_cleared_results_stay_in_the_loop_of_their_candidate(team):
    model = team()
    edit = ClearToolUsesEdit(trigger=1, keep=0)
    between = ContextEditingMiddleware(edits=[edit])
    agent = create_agent(model, [spender(model)], middleware=[between])
    said = agent.invoke(QUESTION)["messages"]
    assert said[-1].content == "best: [cleared]"
    assert authors(said) == ["best", "best"]


def test_a_routed_model_counts_tokens_of_messages(team):
    long = HumanMessage("word " * 100)
    assert 90 < team().get_num_tokens_from_messages([long]) < 130


def test_a_routed_model_plays_a_tool(team):
    player = team(best={"answers": ["about 5"]})
    between = LLMToolEmulator(model=player)
    agent = create_agent(team(), [add], middleware=[between])
    assert agent.invoke(QUESTION)["messages"][-1].content == "best: about 5"


def test_tools_and_prompts_that_are_put_in_between_reach_the_candidate(team, asked):
    model = team()
    agent = create_agent(model, [add], middleware=[TodoListMiddleware()])
    agent.invoke(QUESTION)
    (first, _) = asked(model, "best")
    names = [t["function"]["name"] for t in first.kwargs["tools"]]
    assert sorted(names) == ["add", "write_todos"]
    assert first.messages[0].type == "system"


def test_a_model_and_settings_may_be_swapped_in_per_call(team, asked):
    model = team()

    @wrap_model_call
    def swap(request, handler):
        settings = {"temperature": 0.5}
        return handler(request.override(model=model, model_settings=settings))

    agent = create_agent(ScriptedChatModel(), [add], middleware=[swap])
    assert agent.invoke(QUESTION)["messages"][-1].content == "best: 5"
    assert all(c.kwargs["temperature"] == 0.5 for c in asked(model, "best"))


def test_a_candidate_can_be_named_per_call(team):
    @wrap_model_call
    def name(request, handler):
        return handler(request.override(model_settings={"model": "second"}))

    agent = create_agent(team(), [add], middleware=[name])
    assert authors(agent.invoke(QUESTION)["messages"]) == ["second", "second"]


def test_an_agents_config_controls_its_routed_model(team):
    agent = create_agent(team(), [add])
    config = {"configurable": {"candidate": "second"}}
    assert authors(agent.invoke(QUESTION, config)["messages"]) == ["second", "second"]


def test_an_agent_may_be_the_tool_of_another(team):
    inner = team(best={"answers": adder("inner")})
    worker = create_agent(inner, [add])

    @tool
    def ask(q: str) -> str:
        """Ask the worker."""
        return worker.invoke({"messages": [HumanMessage(q)]})["messages"][-1].content

    def answer(messages):
        last = messages[-1]
        if last.type == "tool":
            return f"outer: {last.content}"
        return call_of(messages, "ask", q="2 plus 3")

    usage = UsageMetadataCallbackHandler()
    agent = create_agent(team(best={"answers": answer}), [ask])
    said = agent.invoke(QUESTION, {"callbacks": [usage]})["messages"]
    assert said[-1].content == "outer: inner: 5"
    assert usage.usage_metadata["best-2024"]["total_tokens"] == 48
