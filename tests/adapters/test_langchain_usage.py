"""One LLM run per call and one count of its usage, in every mode and composition."""

import asyncio

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    UsageMetadataCallbackHandler,
    get_usage_metadata_callback,
)
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompt_values import StringPromptValue
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_core.tracers.context import collect_runs
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from pydantic import BaseModel

from mixllm_integrations.langchain import MixLLMCallbackHandler

PROMPT = ChatPromptTemplate.from_messages([("human", "5")])
SPENT = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Sum(BaseModel):
    """A sum."""

    total: int


class AsyncCounter(AsyncCallbackHandler):
    """Counts runs and tokens where handlers are awaited."""

    def __init__(self):
        self.started, self.ended, self.tokens = 0, 0, 0

    async def on_chat_model_start(self, serialized, messages, **kwargs):
        self.started += 1

    async def on_llm_end(self, response, **kwargs):
        await asyncio.sleep(0)
        self.ended += 1
        self.tokens += response.generations[0][0].message.usage_metadata["total_tokens"]


async def read(stream):
    return [item async for item in stream]


async def _v3(model, config):
    stream = await model.astream_events("5", config, version="v3")
    message = await stream.output
    await stream.aclose()  # waits for the handlers
    return message


def _in_lambda(model, config):
    """Bound to tools, inside another runnable that is a run of its own."""
    bound = model.bind_tools([add])
    return RunnableLambda(lambda text: bound.invoke(text)).invoke("5", config)


async def _in_lambda_async(model, config):
    bound = model.bind_tools([add])

    async def ask(text):
        return [chunk async for chunk in bound.astream(text)]

    return await RunnableLambda(ask).ainvoke("5", config)


def _structured(model, **options):
    return model.with_structured_output(Sum, **options)


# What is done, and how many calls it makes.
MODES = {
    "invoke": (lambda m, c: m.invoke("5", c), 1),
    "ainvoke": (lambda m, c: m.ainvoke("5", c), 1),
    "stream": (lambda m, c: list(m.stream("5", c)), 1),
    "astream": (lambda m, c: read(m.astream("5", c)), 1),
    "batch": (lambda m, c: m.batch(["5"] * 3, c), 3),
    "abatch": (lambda m, c: m.abatch(["5"] * 3, c), 3),
    "batch_as_completed": (lambda m, c: list(m.batch_as_completed(["5"] * 3, c)), 3),
    "abatch_as_completed": (lambda m, c: read(m.abatch_as_completed(["5"] * 3, c)), 3),
    "generate": (lambda m, c: m.generate([[HumanMessage("5")]] * 2, **c), 2),
    "agenerate": (lambda m, c: m.agenerate([[HumanMessage("5")]] * 2, **c), 2),
    "generate_prompt": (
        lambda m, c: m.generate_prompt([StringPromptValue(text="5")], **c),
        1,
    ),
    "agenerate_prompt": (
        lambda m, c: m.agenerate_prompt([StringPromptValue(text="5")], **c),
        1,
    ),
    "v3": (lambda m, c: m.stream_events("5", c, version="v3").output, 1),
    "async v3": (_v3, 1),
    "astream_events": (lambda m, c: read(m.astream_events("5", c, version="v2")), 1),
    "tools": (lambda m, c: m.bind_tools([add]).invoke("5", c), 1),
    "tools stream": (lambda m, c: list(m.bind_tools([add]).stream("5", c)), 1),
    "tools v3": (
        lambda m, c: m.bind_tools([add]).stream_events("5", c, version="v3").output,
        1,
    ),
    "tools async v3": (lambda m, c: _v3(m.bind_tools([add]), c), 1),
    "tools in a chain": (
        lambda m, c: (PROMPT | m.bind_tools([add]) | StrOutputParser()).invoke({}, c),
        1,
    ),
    "tools in a streamed chain": (
        lambda m, c: list((PROMPT | m.bind_tools([add])).stream({}, c)),
        1,
    ),
    "tools in a lambda": (_in_lambda, 1),
    "tools in an async lambda": (_in_lambda_async, 1),
    "structured": (lambda m, c: _structured(m).invoke("5", c), 1),
    "structured ainvoke": (lambda m, c: _structured(m).ainvoke("5", c), 1),
    "structured stream": (lambda m, c: list(_structured(m).stream("5", c)), 1),
    "structured astream": (lambda m, c: read(_structured(m).astream("5", c)), 1),
    "structured raw": (
        lambda m, c: _structured(m, include_raw=True).invoke("5", c),
        1,
    ),
    "structured json": (
        lambda m, c: _structured(m, method="json_schema").invoke("5", c),
        1,
    ),
    "with_config": (lambda m, c: m.with_config(tags=["t"]).invoke("5", c), 1),
    "with_retry": (lambda m, c: m.with_retry().invoke("5", c), 1),
    "with_fallbacks": (lambda m, c: m.with_fallbacks([m]).invoke("5", c), 1),
}


@pytest.fixture(params=MODES)
def calls(request):
    """Return what makes calls of a model in one mode, and how many it makes."""
    make, count = MODES[request.param]

    async def run(model, config):
        done = make(model, config)
        return await done if asyncio.iscoroutine(done) else done

    run.count = count
    return run


def llm_runs(run):
    """All LLM runs under a traced run, itself included."""
    found = [run] if run.run_type in ("llm", "chat_model") else []
    return found + [inner for child in run.child_runs for inner in llm_runs(child)]


def above(recorder, run):
    """All runs around one, from the inside to the outside."""
    found = []
    while run["parent"] is not None:
        run = recorder.runs[run["parent"]]
        found.append(run)
    return found


async def test_a_call_is_one_chain_run_with_one_llm_run_of_the_real_model(
    pool, recorder, calls
):
    await calls(pool(), {"callbacks": [recorder]})
    chains = recorder.named("MixLLM")
    llms = recorder.of("llm")
    assert len(chains) == len(llms) == calls.count
    for llm in llms:
        assert llm["metadata"]["ls_model_name"] == "best-2024"
        assert [run["name"] for run in above(recorder, llm)].count("MixLLM") == 1
    for run in recorder.runs.values():
        assert run["ended"] == "ok"


async def test_usage_is_counted_once(pool, calls):
    usage, books = UsageMetadataCallbackHandler(), MixLLMCallbackHandler()
    await calls(pool(), {"callbacks": [usage, books]})
    assert list(usage.usage_metadata) == ["best-2024"]
    counted = usage.usage_metadata["best-2024"]
    expected = {name: calls.count * tokens for name, tokens in SPENT.items()}
    assert {name: counted[name] for name in expected} == expected
    assert books.totals.calls == calls.count
    assert books.totals.input_tokens == expected["input_tokens"]
    assert books.totals.output_tokens == expected["output_tokens"]
    assert books.totals.cost == pytest.approx(calls.count * 14e-6)


async def test_a_usage_context_counts_once(pool, calls):
    with get_usage_metadata_callback() as usage:
        await calls(pool(), {"callbacks": None})
    assert usage.usage_metadata["best-2024"]["total_tokens"] == 12 * calls.count


async def test_a_tracer_collects_one_tree_per_call(pool, calls):
    tracer = RunCollectorCallbackHandler()
    await calls(pool(), {"callbacks": [tracer]})
    roots = tracer.traced_runs
    found = [run for root in roots for run in llm_runs(root)]
    assert len(found) == calls.count
    for run in found:
        assert run.error is None
        assert run.name == "ScriptedChatModel"
        assert run.extra["metadata"]["ls_model_name"] == "best-2024"
        assert run.parent_run_id is not None


async def test_handlers_that_are_awaited_hear_each_run_once(pool, calls):
    counter = AsyncCounter()
    await calls(pool(), {"callbacks": [counter]})
    counts = (counter.started, counter.ended, counter.tokens)
    assert counts == (calls.count, calls.count, 12 * calls.count)


def test_a_run_collector_finds_the_run_that_the_caller_is_told_of(pool):
    with collect_runs() as collected:
        answer = pool().invoke("5")
    (root,) = collected.traced_runs
    assert root.name == "MixLLM"
    (llm,) = root.child_runs
    assert answer.id.startswith(f"lc_run--{llm.id}")


# Failover: each attempt is an LLM run; those that failed say so.


FAILOVER = ["invoke", "ainvoke", "stream", "astream", "batch", "generate", "structured"]


@pytest.mark.parametrize("mode", FAILOVER)
async def test_of_a_failover_the_failed_llm_run_is_an_error_and_the_next_is_not(
    pool, recorder, mode
):
    make, _ = MODES[mode]
    model = pool(best={"errors": [TimeoutError("slow")] * 3})
    tracer, usage = RunCollectorCallbackHandler(), UsageMetadataCallbackHandler()
    done = make(model, {"callbacks": [recorder, tracer, usage]})
    if asyncio.iscoroutine(done):
        await done
    ends = {}
    for llm in recorder.of("llm"):
        ends.setdefault(llm["metadata"]["ls_model_name"], set()).add(llm["ended"])
    assert ends == {"best-2024": {"TimeoutError"}, "second-2024": {"ok"}}
    assert {chain["ended"] for chain in recorder.named("MixLLM")} == {"ok"}
    # A call of a batch that starts late finds the failed candidate resting.
    trees = [llm_runs(root) for root in tracer.traced_runs]
    assert max(map(len, trees)) == 2
    for *failed, answered in trees:
        assert all("TimeoutError" in run.error for run in failed)
        assert answered.error is None
    assert list(usage.usage_metadata) == ["second-2024"]


def test_if_all_fail_every_run_is_an_error(pool, recorder):
    failing = {"errors": [TimeoutError()]}
    with pytest.raises(ExceptionGroup):
        pool(best=failing, second=failing).invoke("5", {"callbacks": [recorder]})
    assert [run["ended"] for run in recorder.of("llm")] == ["TimeoutError"] * 2
    assert [run["ended"] for run in recorder.of("chain")] == ["ExceptionGroup"]


def test_a_stream_that_is_left_ends_both_runs(pool, recorder):
    stream = pool().stream("5", {"callbacks": [recorder]})
    next(stream)
    stream.close()
    assert [run["ended"] for run in recorder.runs.values()] == ["GeneratorExit"] * 2


# Agents.


def ask_the_tool_once(name, **arguments):
    """Script an agent: call a tool, then say that it is done."""

    def answer(messages):
        if messages[-1].type == "tool":
            return "Done."
        call = {"name": name, "args": arguments, "id": "call_1", "type": "tool_call"}
        return AIMessage("", tool_calls=[call])

    return answer


QUESTION = {"messages": [("user", "1 + 2?")]}


@pytest.mark.parametrize("mode", ["invoke", "stream", "messages"])
def test_an_agent_counts_each_of_its_calls_once(pool, recorder, mode):
    agent = create_agent(
        pool(best={"answers": ask_the_tool_once("add", a=1, b=2)}), [add]
    )
    usage, books = UsageMetadataCallbackHandler(), MixLLMCallbackHandler()
    config = {"callbacks": [usage, books, recorder]}
    if mode == "invoke":
        agent.invoke(QUESTION, config)
    else:
        shown = "messages" if mode == "messages" else "values"
        _ = list(agent.stream(QUESTION, config, stream_mode=shown))
    assert usage.usage_metadata["best-2024"]["total_tokens"] == 2 * 12
    assert (books.totals.calls, books.totals.output_tokens) == (2, 4)
    assert len(recorder.of("llm")) == len(recorder.named("MixLLM")) == 2


async def test_an_agent_that_is_awaited_counts_each_of_its_calls_once(pool):
    agent = create_agent(
        pool(best={"answers": ask_the_tool_once("add", a=1, b=2)}), [add]
    )
    usage, books = UsageMetadataCallbackHandler(), MixLLMCallbackHandler()
    await agent.ainvoke(QUESTION, {"callbacks": [usage, books]})
    assert usage.usage_metadata["best-2024"]["total_tokens"] == 2 * 12
    assert (books.totals.calls, books.totals.output_tokens) == (2, 4)


def test_an_agent_that_is_the_tool_of_another_is_counted_beside_it(pool, recorder):
    inner = create_agent(
        pool(best={"answers": ask_the_tool_once("add", a=1, b=2)}), [add]
    )

    @tool
    def expert(question: str) -> str:
        """Ask an expert."""
        return inner.invoke({"messages": [("user", question)]})["messages"][-1].text

    script = {"answers": ask_the_tool_once("expert", question="1 + 2?")}
    outer = create_agent(pool(best=script), [expert])
    usage, books = UsageMetadataCallbackHandler(), MixLLMCallbackHandler()
    outer.invoke(QUESTION, {"callbacks": [usage, books, recorder]})
    assert len(recorder.of("llm")) == len(recorder.named("MixLLM")) == 4
    assert usage.usage_metadata["best-2024"]["total_tokens"] == 4 * 12
    assert (books.totals.calls, books.totals.input_tokens) == (4, 40)
    assert books.totals.cost == pytest.approx(4 * 14e-6)
