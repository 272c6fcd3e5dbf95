"""A routed model in a graph: threads are resumed where and with whom they stopped."""

from contextlib import contextmanager

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, interrupt

THREAD = {"configurable": {"thread_id": "1"}}
QUESTION = {"messages": [HumanMessage("What is 2 plus 3?")]}


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def confirm(q: str) -> str:
    """Ask the user."""
    return f"user: {interrupt(q)}"


def call_of(messages, name="add", **args):
    call = {"name": name, "args": args or {"a": 2, "b": 3}, "type": "tool_call"}
    return AIMessage("", tool_calls=[{**call, "id": f"call_{len(messages)}"}])


def adder(name):
    """Script a candidate that adds by tool, and signs what it says."""

    def answer(messages):
        last = messages[-1]
        return f"{name}: {last.content}" if last.type == "tool" else call_of(messages)

    return answer


def careful(name):
    """Script a candidate that asks the user first."""

    def answer(messages):
        last = messages[-1]
        if last.type == "tool":
            return f"{name}: {last.content}"
        return call_of(messages, "confirm", q="Sure?")

    return answer


@pytest.fixture
def team(pool):
    """Make a routed model of two that use tools; "second" is cheap, "best" good."""

    def make(script=adder, *, thrifty=False, best=None, second=None, **settings):
        model = pool(
            best={"answers": script("best"), **(best or {})},
            second={"answers": script("second"), "price": 0.5, **(second or {})},
            **settings,
        )
        if thrifty:
            model.willingness_to_pay = 1e-9
        return model

    return make


@contextmanager
def saver_of(kind, folder):
    """Open where threads are kept, as after a restart."""
    if kind == "memory":
        yield folder
        return
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite")
    with sqlite.SqliteSaver.from_conn_string(str(folder / "threads.db")) as saver:
        yield saver


@pytest.fixture(params=["memory", "sqlite"])
def opened(request, tmp_path):
    """Return what opens the saver again."""
    if request.param == "sqlite":
        pytest.importorskip("langgraph.checkpoint.sqlite")
    place = InMemorySaver() if request.param == "memory" else tmp_path
    return lambda: saver_of(request.param, place)


def graph_of(model, saver=None, tools=(add,), **compiled):
    """Build the graph of a model that calls tools."""
    bound = model.bind_tools(list(tools))

    def ask(state):
        return {"messages": [bound.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("tools", ToolNode(list(tools)))
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", tools_condition)
    graph.add_edge("tools", "ask")
    return graph.compile(checkpointer=saver, **compiled)


def authors(messages):
    return [
        m.response_metadata["mixllm"]["candidate"]
        for m in messages
        if isinstance(m, AIMessage)
    ]


def test_a_thread_is_taken_up_again_after_a_restart(team, opened):
    with opened() as saver:
        said = graph_of(team(), saver).invoke(QUESTION, THREAD)["messages"]
        assert authors(said) == ["best", "best"]
    with opened() as saver:
        graph = graph_of(team(thrifty=True), saver)
        again = {"messages": [HumanMessage("And again?")]}
        said = graph.invoke(again, THREAD)["messages"]
    # The records are there still, and the new question was routed anew.
    assert authors(said) == ["best", "best", "second", "second"]
    record = said[1].response_metadata["mixllm"]
    assert record["cost"] == pytest.approx(14e-6)
    assert record["attempts"] == []


def test_a_loop_that_was_interrupted_finds_its_candidate_after_a_restart(team, opened):
    with opened() as saver:
        graph = graph_of(team(), saver, interrupt_before=["tools"])
        said = graph.invoke(QUESTION, THREAD)["messages"]
        assert said[-1].tool_calls
    with opened() as saver:
        graph = graph_of(team(thrifty=True), saver, interrupt_before=["tools"])
        said = graph.invoke(None, THREAD)["messages"]
    assert said[-1].content == "best: 5"
    assert authors(said) == ["best", "best"]


def test_a_loop_goes_on_if_its_candidate_is_gone_after_a_restart(
    team, opened, scripted_candidate
):
    with opened() as saver:
        graph = graph_of(team(), saver, interrupt_before=["tools"])
        graph.invoke(QUESTION, THREAD)
    model = team()
    model.remove_candidate("best")
    with opened() as saver:
        said = graph_of(model, saver).invoke(None, THREAD)["messages"]
    assert authors(said) == ["best", "second"]


def test_a_tool_may_ask_the_user_and_the_loop_goes_on(team, opened):
    with opened() as saver:
        graph = graph_of(team(careful), saver, [confirm])
        state = graph.invoke(QUESTION, THREAD)
        assert state["__interrupt__"][0].value == "Sure?"
    with opened() as saver:
        graph = graph_of(team(careful, thrifty=True), saver, [confirm])
        said = graph.invoke(Command(resume="yes"), THREAD)["messages"]
    assert said[-1].content == "best: user: yes"
    assert authors(said) == ["best", "best"]


def test_an_agents_calls_may_be_approved_by_the_user(team):
    model, saver = team(), InMemorySaver()
    between = HumanInTheLoopMiddleware(interrupt_on={"add": True})

    def agent(model):
        return create_agent(model, [add], middleware=[between], checkpointer=saver)

    state = agent(model).invoke(QUESTION, THREAD)
    assert "__interrupt__" in state
    edited = {"name": "add", "args": {"a": 20, "b": 30}}
    decision = {"decisions": [{"type": "edit", "edited_action": edited}]}
    resumed = agent(team(thrifty=True))
    said = resumed.invoke(Command(resume=decision), THREAD)["messages"]
    assert said[-1].content.startswith("best: ")
    assert said[-1].content.endswith("50")
    assert authors(said) == ["best", "best"]


async def test_a_thread_is_resumed_without_blocking(team):
    saver = InMemorySaver()
    model = team()
    bound = model.bind_tools([add])

    async def ask(state):
        return {"messages": [await bound.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("tools", ToolNode([add]))
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", tools_condition)
    graph.add_edge("tools", "ask")
    graph = graph.compile(checkpointer=saver, interrupt_before=["tools"])
    await graph.ainvoke(QUESTION, THREAD)
    model.willingness_to_pay = 1e-9
    said = (await graph.ainvoke(None, THREAD))["messages"]
    assert authors(said) == ["best", "best"]


def test_threads_do_not_mix(team):
    model = team()
    graph = graph_of(model, InMemorySaver(), interrupt_before=["tools"])
    other = {"configurable": {"thread_id": "2"}}
    graph.invoke(QUESTION, THREAD)
    model.willingness_to_pay = 1e-9
    graph.invoke(QUESTION, other)
    assert authors(graph.invoke(None, THREAD)["messages"]) == ["best", "best"]
    assert authors(graph.invoke(None, other)["messages"]) == ["second", "second"]


def test_a_thread_may_go_back_to_an_earlier_state(team):
    model = team()
    graph = graph_of(model, InMemorySaver())
    graph.invoke(QUESTION, THREAD)
    before_tools = next(
        state for state in graph.get_state_history(THREAD) if state.next == ("tools",)
    )
    model.willingness_to_pay = 1e-9
    said = graph.invoke(None, before_tools.config)["messages"]
    assert authors(said) == ["best", "best"]


def test_feedback_is_taken_on_a_message_out_of_a_checkpoint(team):
    model = team()
    graph = graph_of(model, InMemorySaver())
    graph.invoke(QUESTION, THREAD)
    kept = graph.get_state(THREAD).values["messages"]
    assert model.record_feedback(kept[-1], 1.0)
    assert model.record_feedback(kept[1], 0.0)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_survives_the_serialiser_with_all_it_carries(team, stream):
    model = team(best={"answers": ["Hi."]})
    answer = model.invoke("q")
    if stream:
        chunks = list(model.stream("q"))
        answer = chunks[0]
        for chunk in chunks[1:]:
            answer = answer + chunk
    serde = JsonPlusSerializer()
    back = serde.loads_typed(serde.dumps_typed(answer))
    assert back == answer
    assert back.response_metadata["mixllm"] == answer.response_metadata["mixllm"]


def test_a_subgraph_has_a_routed_model_of_its_own(team):
    usage = UsageMetadataCallbackHandler()
    outer_model = team()
    inner_model = team(lambda name: adder(f"inner {name}"))
    inner = graph_of(inner_model)

    graph = StateGraph(MessagesState)
    graph.add_node("inner", inner)
    graph.add_node(
        "last",
        lambda state: {
            "messages": [
                outer_model.invoke([*state["messages"], HumanMessage("Say it again.")])
            ]
        },
    )
    graph.add_edge(START, "inner")
    graph.add_edge("inner", "last")
    graph = graph.compile(checkpointer=InMemorySaver())
    config = {**THREAD, "callbacks": [usage]}
    said = graph.invoke(QUESTION, config)["messages"]
    assert [m.content for m in said if m.type != "human"][:3] == [
        "",
        "5",
        "inner best: 5",
    ]
    assert authors(said) == ["best"] * 3
    assert usage.usage_metadata["best-2024"]["total_tokens"] == 36


def test_a_subgraph_streams_each_token_once(team):
    graph = StateGraph(MessagesState)
    graph.add_node("inner", graph_of(team()))
    graph.add_edge(START, "inner")
    graph = graph.compile()
    pairs = graph.stream(QUESTION, stream_mode="messages", subgraphs=True)
    said = [c.content for _, (c, _) in pairs if not isinstance(c, ToolMessage)]
    assert "".join(said) == "best: 5"


def test_a_graph_that_fails_is_taken_up_where_it_failed(team):
    model = team(
        best={"errors": [None, TimeoutError()]},
        second={"errors": [TimeoutError()]},
        cooldown_seconds=0,
    )
    graph = graph_of(model, InMemorySaver())
    with pytest.raises(ExceptionGroup):
        graph.invoke(QUESTION, THREAD)
    said = graph.invoke(None, THREAD)["messages"]
    assert said[-1].content == "best: 5"
    assert authors(said) == ["best", "best"]


def test_usage_of_a_resumed_thread_is_counted_once(team):
    usage = UsageMetadataCallbackHandler()
    config = {**THREAD, "callbacks": [usage]}
    graph = graph_of(team(), InMemorySaver(), interrupt_before=["tools"])
    graph.invoke(QUESTION, config)
    graph.invoke(None, config)
    assert usage.usage_metadata["best-2024"]["total_tokens"] == 24


def test_candidates_of_different_providers_share_one_thread(team, asked):
    def thoughtful(messages):
        if messages[-1].type != "tool":
            return call_of(messages)
        thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
        return AIMessage([thought, {"type": "text", "text": "It is 5."}])

    model = team(
        best={"answers": thoughtful, "provider": "anthropic"},
        second={"provider": "openai"},
    )
    graph = graph_of(model, InMemorySaver())
    graph.invoke(QUESTION, THREAD)
    model.willingness_to_pay = 1e-9
    graph.invoke({"messages": [HumanMessage("And again?")]}, THREAD)
    read = asked(model, "second")[0].messages
    assert [m.content for m in read if isinstance(m, AIMessage)] == ["", "It is 5."]
    # The thread itself keeps the thought for the one who can read it.
    kept = graph.get_state(THREAD).values["messages"]
    assert kept[3].content[0]["signature"] == "s"
    model.willingness_to_pay = None
    graph.invoke({"messages": [HumanMessage("And once more?")]}, THREAD)
    read = asked(model, "best")[2].messages
    assert read[3].content[0]["signature"] == "s"
