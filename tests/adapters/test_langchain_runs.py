"""One chain run with one LLM run inside; usage counted once; the record."""

import pytest
from langchain_core.callbacks import (
    UsageMetadataCallbackHandler,
    get_usage_metadata_callback,
)
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

RECORD_KEYS = {
    "decision_id",
    "candidate",
    "predicted_quality",
    "predicted_cost",
    "cost",
    "willingness_to_pay",
    "attempts",
}


def whole(chunks):
    total = None
    for chunk in chunks:
        total = chunk if total is None else total + chunk
    return total


async def awhole(chunks):
    return whole([chunk async for chunk in chunks])


async def call(model, mode, config):
    """Ask one question in a given mode; return the list of answers."""
    if mode == "invoke":
        return [model.invoke("What is 2 + 2?", config)]
    if mode == "ainvoke":
        return [await model.ainvoke("What is 2 + 2?", config)]
    if mode == "stream":
        return [whole(model.stream("What is 2 + 2?", config))]
    if mode == "astream":
        return [await awhole(model.astream("What is 2 + 2?", config))]
    if mode == "batch":
        return model.batch(["What is 2 + 2?"], config)
    if mode == "abatch":
        return await model.abatch(["What is 2 + 2?"], config)
    messages = [[HumanMessage("What is 2 + 2?")]]
    callbacks = config["callbacks"]
    if mode == "generate":
        result = model.generate(messages, callbacks=callbacks)
    elif mode == "agenerate":
        result = await model.agenerate(messages, callbacks=callbacks)
    return [result.generations[0][0].message]


MODES = [
    "invoke",
    "ainvoke",
    "stream",
    "astream",
    "batch",
    "abatch",
    "generate",
    "agenerate",
]


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


async def test_one_chain_run_holds_exactly_one_llm_run(pool, recorder, mode):
    await call(pool(), mode, {"callbacks": [recorder]})
    (chain,) = recorder.named("MixLLM")
    (llm,) = recorder.of("llm")
    assert recorder.kinds == {"chain": 1, "llm": 1}
    assert llm["parent"] == recorder.id_of(chain)
    assert chain["parent"] is None
    assert (chain["ended"], llm["ended"]) == ("ok", "ok")


async def test_usage_is_counted_once_and_under_the_real_models_name(pool, mode):
    usage = UsageMetadataCallbackHandler()
    await call(pool(), mode, {"callbacks": [usage]})
    counted = usage.usage_metadata
    assert set(counted) == {"best-2024"}
    assert counted["best-2024"]["input_tokens"] == 10
    assert counted["best-2024"]["output_tokens"] == 2


async def test_the_answer_is_the_candidates_own_with_the_record_on_it(pool, mode):
    (answer,) = await call(pool(), mode, {"callbacks": []})
    assert answer.content == "From the best."
    assert answer.response_metadata["model_name"] == "best-2024"
    assert answer.usage_metadata["total_tokens"] == 12
    record = answer.response_metadata["mixllm"]
    assert set(record) == RECORD_KEYS
    assert record["candidate"] == "best"
    # 10 input tokens at 1 USD per million and 2 output tokens at 2.
    assert record["cost"] == pytest.approx(10e-6 + 2 * 2e-6)
    assert record["attempts"] == []


async def test_the_record_is_in_the_chain_runs_metadata(pool, recorder, mode):
    (answer,) = await call(pool(), mode, {"callbacks": [recorder]})
    (chain,) = recorder.named("MixLLM")
    told = dict(chain["metadata"]["mixllm"])
    assert set(told.pop("predicted_costs")) == {"best", "second"}
    assert (told.pop("input_tokens"), told.pop("output_tokens")) == (10, 2)
    assert told == answer.response_metadata["mixllm"]
    assert chain["output"]["mixllm"] == answer.response_metadata["mixllm"]
    assert chain["output"]["output"].content == "From the best."
    (llm,) = recorder.of("llm")
    assert "mixllm" not in llm["metadata"]


async def test_the_outcome_reaches_the_router_and_nothing_stays_open(
    pool, load_of, mode
):
    model = pool()
    (answer,) = await call(model, mode, {"callbacks": []})
    decision_id = answer.response_metadata["mixllm"]["decision_id"]
    outcome = model.router._ledger.get(decision_id).outcome
    assert (outcome.input_tokens, outcome.output_tokens) == (10, 2)
    assert outcome.error is None
    assert outcome.latency_seconds > 0
    assert (outcome.time_to_first_token_seconds is not None) == ("stream" in mode)
    assert load_of(model) == 0


async def test_the_last_chunk_alone_carries_the_record(pool):
    model = pool()
    for chunks in (
        list(model.stream("q")),
        [chunk async for chunk in model.astream("q")],
    ):
        assert len(chunks) > 2
        carried = ["mixllm" in chunk.response_metadata for chunk in chunks]
        assert carried == [False] * (len(chunks) - 1) + [True]
        assert chunks[-1].chunk_position == "last"


def test_a_usage_context_counts_once(pool):
    with get_usage_metadata_callback() as usage:
        pool().invoke("q")
    assert usage.usage_metadata["best-2024"]["total_tokens"] == 12


def test_handlers_of_the_model_itself_see_both_runs(pool, recorder):
    model = pool(callbacks=[recorder], tags=["shop"], metadata={"team": "a"})
    model.invoke("q", {"callbacks": [recorder], "tags": ["call"]})
    assert recorder.kinds == {"chain": 1, "llm": 1}
    for run in recorder.runs.values():
        assert {"shop", "call"} <= set(run["tags"])
        assert run["metadata"]["team"] == "a"


def test_a_run_can_be_named_and_numbered_by_the_caller(pool, recorder):
    import uuid

    run_id = uuid.uuid4()
    config = {"callbacks": [recorder], "run_name": "router", "run_id": run_id}
    pool().invoke("q", config)
    assert recorder.runs[run_id]["name"] == "router"
    (llm,) = recorder.of("llm")
    assert llm["name"] != "router"


def test_in_a_chain_the_runs_nest(pool, recorder):
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Be brief."), ("human", "{question}")]
    )
    chain = prompt | pool() | StrOutputParser()
    answer = chain.invoke({"question": "2 + 2?"}, {"callbacks": [recorder]})
    assert answer == "From the best."
    (mix,) = recorder.named("MixLLM")
    (sequence,) = recorder.named("RunnableSequence")
    assert mix["parent"] == recorder.id_of(sequence)
    assert recorder.kinds["llm"] == 1


def test_in_a_chain_chunks_flow_through(pool):
    chain = pool() | StrOutputParser()
    pieces = list(chain.stream("q"))
    assert "".join(pieces) == "From the best."
    assert len(pieces) > 2


def test_inside_a_lambda_the_run_finds_its_parent(pool, recorder):
    model = pool()
    chain = RunnableLambda(lambda question: model.invoke(question).content)
    chain.invoke("q", {"callbacks": [recorder]})
    (outer,) = recorder.named("RunnableLambda")
    assert recorder.named("MixLLM")[0]["parent"] == recorder.id_of(outer)


def test_generate_answers_every_conversation_and_reports_its_runs(pool, recorder):
    model = pool()
    result = model.generate(
        [[HumanMessage("a")], [HumanMessage("b")]],
        callbacks=[recorder],
        tags=["t"],
        metadata={"k": "v"},
        run_name="both",
    )
    assert [g[0].message.content for g in result.generations] == ["From the best."] * 2
    chains = recorder.named("both")
    assert {recorder.id_of(chain) for chain in chains} == {
        info.run_id for info in result.run
    }
    assert all(chain["metadata"]["k"] == "v" for chain in chains)


def test_stop_words_of_generate_reach_who_answers(pool, asked):
    model = pool()
    model.generate([[HumanMessage("q")]], stop=["X"])
    assert asked(model, "best")[0].stop == ["X"]


async def test_stop_words_of_agenerate_reach_who_answers(pool, asked):
    model = pool()
    await model.agenerate([[HumanMessage("q")]], stop=["X"])
    assert asked(model, "best")[0].stop == ["X"]


def test_the_hooks_of_the_base_class_route_as_well(pool):
    model = pool()
    result = model._generate([HumanMessage("q")])
    assert result.generations[0].message.response_metadata["mixllm"]
    chunks = [chunk.message for chunk in model._stream([HumanMessage("q")])]
    assert whole(chunks).response_metadata["mixllm"]["candidate"] == "best"


async def test_the_asynchronous_hooks_route_as_well(pool):
    model = pool()
    result = await model._agenerate([HumanMessage("q")])
    assert result.generations[0].message.response_metadata["mixllm"]
    chunks = [c.message async for c in model._astream([HumanMessage("q")])]
    assert whole(chunks).response_metadata["mixllm"]["candidate"] == "best"


async def test_agenerate_raises_the_first_error_after_all_have_ended(pool, load_of):
    failing = {"errors": [TimeoutError("a")] * 2}
    model = pool(best=failing, second=failing)
    with pytest.raises(ExceptionGroup):
        await model.agenerate([[HumanMessage("a")], [HumanMessage("b")]])
    assert load_of(model) == 0


def test_the_candidates_own_message_is_left_as_it_was(pool):
    kept = AIMessage("From the best.")
    model = pool(best={"answers": lambda messages: kept})
    answer = model.invoke("q")
    assert "mixllm" in answer.response_metadata
    assert "mixllm" not in kept.response_metadata
