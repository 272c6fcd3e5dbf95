"""Run ids lead to decisions; as many are kept as is said, and no more."""

import threading
from uuid import UUID, uuid4

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_core.utils.uuid import uuid7

from mixllm_integrations.core.errors import ConfigurationError, UnknownDecisionError
from mixllm_integrations.langchain import MixLLMCallbackHandler
from mixllm_integrations.serving.run_ids import RunIds

DECISION = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("made", [uuid4, uuid7])
@pytest.mark.parametrize(
    "form",
    [
        lambda run_id: run_id,
        str,
        lambda run_id: str(run_id).upper(),
        lambda run_id: f"lc_run--{run_id}",
        lambda run_id: f"lc_run--{run_id}-0",
    ],
)
def test_a_run_is_found_by_its_id_in_every_form(made, form):
    runs, run_id = RunIds(), made()
    runs.note(DECISION, run_id)
    assert runs.decision_of(form(run_id)) == DECISION
    assert runs.resolve(form(run_id)) == DECISION


def test_all_runs_of_a_call_lead_to_its_decision():
    runs, ids = RunIds(), [uuid4() for _ in range(3)]
    runs.note(DECISION, ids[0], None, *ids[1:])
    assert [runs.decision_of(run_id) for run_id in ids] == [DECISION] * 3
    assert len(runs) == 3


def test_of_several_decisions_in_a_run_the_latest_counts():
    runs, parent = RunIds(), uuid4()
    runs.note("first", parent)
    runs.note("second", parent)
    assert runs.decision_of(parent) == "second"
    assert len(runs) == 1


def test_the_run_noted_least_recently_is_forgotten_first():
    runs, a, b, c = RunIds(2), uuid4(), uuid4(), uuid4()
    for run_id in (a, b, a, c):
        runs.note(DECISION, run_id)
    assert [runs.decision_of(run_id) for run_id in (a, b, c)] == [
        DECISION,
        None,
        DECISION,
    ]


def test_the_latest_runs_come_first():
    runs, a, b, c = RunIds(), uuid4(), uuid4(), uuid4()
    for run_id in (a, b, c, a):
        runs.note(DECISION, run_id)
    assert runs.latest(2) == [a, c]
    assert runs.latest(100) == [a, c, b]


def test_the_id_of_a_decision_is_no_run_id():
    runs = RunIds()
    runs.note("another", UUID(DECISION))  # the same digits
    assert runs.decision_of(DECISION) is None
    assert runs.resolve(DECISION) == DECISION


@pytest.mark.parametrize("text", ["", "d1", "chatcmpl-123", f"{uuid4()} ", "lc_run--"])
def test_other_texts_are_no_run_ids(text):
    runs = RunIds()
    assert runs.decision_of(text) is None
    assert runs.resolve(text) == text


def test_feedback_on_an_unknown_run_names_it():
    run_id = uuid4()
    with pytest.raises(UnknownDecisionError, match=str(run_id)):
        RunIds().resolve(run_id)


def test_a_message_that_lost_its_record_is_found_by_its_id():
    runs, run_id = RunIds(), uuid4()
    runs.note(DECISION, run_id)
    assert runs.resolve(AIMessage("", id=f"lc_run--{run_id}")) == DECISION
    unknown = AIMessage("", id=f"lc_run--{uuid4()}")
    assert runs.resolve(unknown) is unknown


def test_a_message_that_has_its_record_is_left_to_speak_for_itself():
    runs, run_id = RunIds(), uuid4()
    runs.note("of a later call in this run", run_id)
    record = {"mixllm": {"decision_id": DECISION}}
    kept = AIMessage("", id=f"lc_run--{run_id}", response_metadata=record)
    assert runs.resolve(kept) is kept
    for other in ({"decision_id": "d"}, None, AIMessage("")):
        assert runs.resolve(other) is other


def test_threads_note_at_once_and_the_bound_holds():
    runs = RunIds(500)
    ids = [[uuid4() for _ in range(500)] for _ in range(8)]

    def work(mine):
        for run_id in mine:
            runs.note(DECISION, run_id, uuid4())

    threads = [threading.Thread(target=work, args=(mine,)) for mine in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 500


@pytest.mark.parametrize("capacity", [0, -1, "many"])
def test_a_capacity_that_cannot_be_used_is_named(capacity):
    with pytest.raises(ConfigurationError, match="capacity"):
        RunIds(capacity)


# Of a routed model.


async def ask(model, mode, config):
    """Ask a question in a mode; return the id of the decision."""
    if mode == "invoke":
        answer = model.invoke("q", config)
    elif mode == "ainvoke":
        answer = await model.ainvoke("q", config)
    elif mode == "stream":
        answer = list(model.stream("q", config))[-1]
    elif mode == "astream":
        answer = [chunk async for chunk in model.astream("q", config)][-1]
    elif mode == "v3":
        answer = model.stream_events("q", config, version="v3").output
    else:
        stream = await model.astream_events("q", config, version="v3")
        answer = await stream.output
        await stream.aclose()
    return answer.response_metadata["mixllm"]["decision_id"]


MODES = ["invoke", "ainvoke", "stream", "astream", "v3", "async v3"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("failing", [False, True])
async def test_every_run_of_a_call_leads_to_the_decision_that_was_followed(
    pool, recorder, mode, failing
):
    model = pool(best={"errors": [ConnectionError()]} if failing else {})
    decision_id = await ask(model, mode, {"callbacks": [recorder]})
    (chain,) = recorder.named("MixLLM")
    llm = recorder.of("llm")[-1]
    for run in (chain, llm):
        assert model.run_ids.decision_of(recorder.id_of(run)) == decision_id


@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize("mode", MODES)
async def test_the_run_id_that_a_caller_gives_leads_to_the_decision(
    pool, recorder, mode, heard
):
    model, run_id = pool(), uuid7()
    config = {"run_id": run_id, "callbacks": [recorder] if heard else None}
    decision_id = await ask(model, mode, config)
    assert model.run_ids.decision_of(run_id) == decision_id


@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize("bound", [False, True])
async def test_the_run_id_that_a_caller_gives_to_a_chain_leads_to_the_decision(
    pool, recorder, heard, bound
):
    model = pool()
    chain = RunnablePassthrough() | (model.bind_tools([]) if bound else model)
    callbacks = [recorder] if heard else None
    for ask_chain in (chain.invoke, chain.ainvoke):
        run_id = uuid7()
        answer = ask_chain("q", {"run_id": run_id, "callbacks": callbacks})
        if not isinstance(answer, AIMessage):
            answer = await answer
        decision_id = answer.response_metadata["mixllm"]["decision_id"]
        assert model.run_ids.decision_of(run_id) == decision_id
        assert model.run_ids.decision_of(answer.id) == decision_id


def test_feedback_may_name_a_run(pool):
    books = MixLLMCallbackHandler()
    model, run_id = pool(), uuid7()
    answer = model.invoke("q", {"run_id": run_id, "callbacks": [books]})
    assert model.record_feedback(run_id, 0.75)
    assert not model.record_feedback(str(run_id), 0.75)  # the same decision
    assert not model.record_feedback(answer.id, 0.75)
    assert not model.record_feedback(answer, 0.75)
    assert books.totals.mean_feedback == 0.75


async def test_awaited_feedback_may_name_a_run(pool):
    model, run_id = pool(), uuid7()
    await model.ainvoke("q", {"run_id": run_id})
    assert await model.arecord_feedback(str(run_id), 1.0)


def test_feedback_may_name_the_run_of_a_stream_that_goes_on(pool):
    model, run_id = pool(), uuid7()
    stream = model.stream("q", {"run_id": run_id})
    next(stream)
    assert model.record_feedback(run_id, 1.0)


def test_of_two_calls_in_one_run_the_later_one_has_the_feedback(pool):
    model, run_id = pool(), uuid7()
    chain = RunnableLambda(lambda q: [model.invoke(q), model.invoke(q)])
    _, second = chain.invoke("q", {"run_id": run_id})
    decision_id = second.response_metadata["mixllm"]["decision_id"]
    assert model.run_ids.decision_of(run_id) == decision_id


def test_copies_of_a_model_know_the_same_runs(pool):
    model, run_id = pool(), uuid7()
    copied = model.model_copy(update={"temperature": 0.5})
    copied.invoke("q", {"run_id": run_id})
    assert model.record_feedback(run_id, 1.0)


def test_feedback_on_a_run_that_is_unknown_is_refused(pool):
    with pytest.raises(UnknownDecisionError):
        pool().record_feedback(uuid7(), 1.0)


def test_what_a_candidate_runs_by_itself_has_run_ids_of_its_own(pool, recorder):
    inner = RunnableLambda(lambda text: text)
    model = pool(best={"answers": lambda messages: inner.invoke("said by itself")})
    model.bind_tools([]).invoke("q", {"callbacks": [recorder], "run_id": uuid7()})
    assert recorder.kinds == {"chain": 2, "llm": 1}  # not one that overwrote another


def test_feedback_may_name_the_outermost_run_if_a_tracer_listens(pool):
    tracer = RunCollectorCallbackHandler()
    model, run_id = pool(), uuid7()
    inner = RunnableLambda(lambda q: (RunnablePassthrough() | model).invoke(q))
    outer = RunnablePassthrough() | inner
    answer = outer.invoke("q", {"run_id": run_id, "callbacks": [tracer]})
    decision_id = answer.response_metadata["mixllm"]["decision_id"]
    assert model.run_ids.decision_of(run_id) == decision_id
