"""What a call may ask of the choice, through its config and its arguments."""

import pytest
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables.history import RunnableWithMessageHistory
from pydantic import BaseModel

from mixllm_integrations.core.errors import (
    ConfigurationError,
    NoCandidateError,
    UnknownCandidateError,
)
from mixllm_integrations.langchain import MixLLMCallbackHandler, MixLLMChatModel
from mixllm_integrations.store.sql import SQLStore
from mixllm_integrations.testing import ScriptedChatModel


def with_config(**configurable):
    return {"configurable": configurable}


def record_of(answer):
    return answer.response_metadata["mixllm"]


# --- forced candidates, λ, the highest cost ------------------------------------


@pytest.mark.parametrize("name", ["second", "second-2024"])
def test_a_forced_candidate_answers_by_either_of_its_names(pool, name):
    answer = pool().invoke("q", with_config(candidate=name))
    assert record_of(answer)["candidate"] == "second"


async def test_a_forced_candidate_answers_in_every_mode(pool):
    model, config = pool(), with_config(candidate="second")
    said = [
        model.invoke("q", config).content,
        (await model.ainvoke("q", config)).content,
        "".join(chunk.content for chunk in model.stream("q", config)),
        "".join([chunk.content async for chunk in model.astream("q", config)]),
        model.batch(["q"], config)[0].content,
        (await model.abatch(["q"], config))[0].content,
        model.stream_events("q", config, version="v3").output.text,
    ]
    assert set(said) == {"From the second."}


def test_each_call_of_a_batch_has_its_own_config(pool):
    configs = [with_config(candidate=name) for name in ("second", "best")]
    answers = pool().batch(["q", "q"], configs)
    assert [record_of(a)["candidate"] for a in answers] == ["second", "best"]


def test_a_forced_candidate_that_fails_has_no_deputy(pool):
    model = pool(second={"errors": [TimeoutError("late")]})
    with pytest.raises(TimeoutError, match="late"):
        model.invoke("q", with_config(candidate="second"))


@pytest.mark.parametrize("control", ["candidate", "shadow"])
def test_a_name_that_is_nobodys_is_an_error_that_lists_the_names(pool, control):
    with pytest.raises(UnknownCandidateError, match=r"'nobody'.*second.*best"):
        pool().invoke("q", with_config(**{control: "nobody"}))


def test_the_model_argument_goes_before_the_config(pool):
    answer = pool().invoke("q", with_config(candidate="second"), model="best")
    assert record_of(answer)["candidate"] == "best"


def test_the_willingness_to_pay_of_a_call_is_in_its_record(pool):
    model = pool(willingness_to_pay=0.5)
    config = with_config(willingness_to_pay=0.25)
    assert record_of(model.invoke("q", config))["willingness_to_pay"] == 0.25
    assert record_of(model.invoke("q"))["willingness_to_pay"] == 0.5
    answer = model.invoke("q", config, willingness_to_pay=0.125)
    assert record_of(answer)["willingness_to_pay"] == 0.125


def test_a_stingy_call_goes_to_the_cheap_candidate(scripted_candidate):
    model = MixLLMChatModel(
        candidates=[
            scripted_candidate("cheap", quality=0.3, price=0.1),
            scripted_candidate("dear", quality=0.9, price=20.0),
        ],
        willingness_to_pay=1.0,
    )
    model.router.exploration = 0.0
    assert record_of(model.invoke("q"))["candidate"] == "dear"
    stingy = with_config(willingness_to_pay=1e-5)
    assert record_of(model.invoke("q", stingy))["candidate"] == "cheap"


def test_the_highest_cost_of_a_call_excludes_who_is_dearer(scripted_candidate):
    model = MixLLMChatModel(
        candidates=[
            scripted_candidate("cheap", quality=0.3, price=0.1),
            scripted_candidate("dear", quality=0.9, price=20.0),
        ],
        willingness_to_pay=1.0,
    )
    model.router.exploration = 0.0
    answer = model.invoke("q", with_config(max_cost_per_query=0.001))
    assert record_of(answer)["candidate"] == "cheap"
    with pytest.raises(NoCandidateError, match="max_cost_per_query is 1e-09"):
        model.invoke("q", with_config(max_cost_per_query=1e-9))


def test_an_impatient_call_leaves_a_candidate_that_queues(scripted_candidate):
    slow = {"seconds_per_output_token": 0.01, "max_concurrency": 1}
    model = MixLLMChatModel(
        candidates=[
            scripted_candidate("slow", quality=0.6, facts=slow),
            scripted_candidate("quick", quality=0.5),
        ],
        willingness_to_pay=1.0,
    )
    model.router.exploration, model.router.waiting_weight = 0.0, 1.0
    model.router.route("q", among=["slow"])  # is under way
    answer = model.invoke("q", with_config(waiting_tolerance_seconds=1_000.0))
    assert record_of(answer)["candidate"] == "slow"
    answer = model.invoke("q", with_config(waiting_tolerance_seconds=0.5))
    assert record_of(answer)["candidate"] == "quick"


@pytest.mark.parametrize(
    "wrong",
    [{"willingness_to_pay": -1}, {"dry_run": "yes"}, {"max_cost_per_query": "low"}],
)
def test_a_control_that_cannot_be_used_is_refused_by_name(pool, wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        pool().invoke("q", with_config(**wrong))


def test_what_belongs_to_others_in_the_config_is_ignored(pool, asked):
    model = pool()
    model.invoke("q", with_config(user="ann", checkpoint_ns=""))
    assert asked(model, "best")[0].kwargs == {}


def test_controls_can_be_fixed_on_a_chain(pool):
    chain = ChatPromptTemplate.from_template("{q}") | pool() | StrOutputParser()
    fixed = chain.with_config(configurable={"candidate": "second"})
    assert fixed.invoke({"q": "hello"}) == "From the second."
    assert chain.invoke({"q": "hello"}) == "From the best."


def test_the_controls_are_described_as_config_specs(pool):
    specs = {spec.id: spec for spec in pool().config_specs}
    assert {"candidate", "willingness_to_pay", "session_id", "dry_run"} <= set(specs)
    assert specs["willingness_to_pay"].annotation is float
    assert all(spec.description for spec in specs.values())


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainDeprecationWarning")
def test_the_session_is_that_of_a_message_history(pool):
    histories = {}

    def history(session_id):
        return histories.setdefault(session_id, InMemoryChatMessageHistory())

    talk = RunnableWithMessageHistory(pool(), history)
    assert "session_id" in {spec.id for spec in talk.config_specs}
    answer = talk.invoke("hello", with_config(session_id="ann"))
    assert record_of(answer)["session"] == "ann"
    assert len(histories["ann"].messages) == 2


@pytest.mark.parametrize("kind", ["bound", "called", "bound to tools"])
def test_controls_may_be_arguments_of_the_call(pool, kind, asked):
    model = pool()
    if kind == "called":
        answer = model.invoke("q", candidate="second", session_id="s")
    elif kind == "bound":
        answer = model.bind(candidate="second", session_id="s").invoke("q")
    else:
        tools = model.bind_tools([print], candidate="second", session_id="s")
        answer = tools.invoke("q")
    assert record_of(answer)["candidate"] == "second"
    assert record_of(answer)["session"] == "s"
    assert not {"candidate", "session_id"} & asked(model, "second")[0].kwargs.keys()


# --- dry runs ------------------------------------------------------------------


async def test_a_dry_run_explains_and_asks_nobody(pool, asked, load_of):
    model, config = pool(), with_config(dry_run=True)
    for answer in (
        model.invoke("q", config),
        await model.ainvoke("q", config),
        *model.stream("q", config),
        *[chunk async for chunk in model.astream("q", config)],
        *model.batch(["q"], config),
    ):
        assert "best" in answer.content
        assert "second" in answer.content
        record = record_of(answer)
        assert record["dry_run"] is True
        assert (record["candidate"], record["cost"]) == ("best", 0.0)
    assert not asked(model, "best")
    assert load_of(model) == 0


def test_a_dry_run_is_not_logged(pool, tmp_path):
    store = SQLStore(f"sqlite:///{tmp_path}/events.db")
    model = pool(store=store)
    model.invoke("q", with_config(dry_run=True))
    flush(model)
    assert not list(store.events())
    store.close()


def test_a_dry_run_obeys_the_other_controls(pool):
    answer = pool().invoke("q", with_config(dry_run=True, candidate="second"))
    assert record_of(answer)["candidate"] == "second"


def test_a_dry_run_with_tools_or_a_schema_explains_too(pool, asked):
    class Answer(BaseModel):
        text: str

    model, config = pool(), with_config(dry_run=True)
    assert "best" in model.bind_tools([Answer]).invoke("q", config).content
    raw = model.with_structured_output(Answer, include_raw=True).invoke("q", config)
    assert raw["parsed"] is None
    assert record_of(raw["raw"])["dry_run"] is True
    assert not asked(model, "best")


def test_a_dry_run_opens_no_llm_run(pool, recorder):
    pool().invoke("q", {"callbacks": [recorder], **with_config(dry_run=True)})
    assert recorder.kinds == {"chain": 1}


def test_a_dry_run_that_nobody_may_answer_says_so(pool):
    config = with_config(dry_run=True, max_cost_per_query=1e-12)
    with pytest.raises(NoCandidateError):
        pool().invoke("q", config)


# --- shadow mode ---------------------------------------------------------------


def test_in_shadow_mode_the_named_one_answers_and_the_choice_is_noted(pool):
    model = pool(shadow="second")
    record = record_of(model.invoke("q"))
    assert record["candidate"] == "second"
    assert record["shadow"]["candidate"] == "best"
    assert record["shadow"]["predicted_quality"] == pytest.approx(0.9, abs=0.02)
    assert record["shadow"]["predicted_cost"] > 0


def test_shadow_mode_can_be_asked_for_by_one_call(pool):
    model = pool()
    record = record_of(model.invoke("q", with_config(shadow="second-2024")))
    assert (record["candidate"], record["shadow"]["candidate"]) == ("second", "best")
    assert "shadow" not in record_of(model.invoke("q"))


async def test_shadow_mode_holds_in_every_mode(pool):
    model = pool(shadow="second")
    whole = None
    for chunk in model.stream("q"):
        whole = chunk if whole is None else whole + chunk
    for answer in (whole, await model.ainvoke("q"), model.batch(["q"])[0]):
        assert record_of(answer)["shadow"]["candidate"] == "best"
        assert record_of(answer)["candidate"] == "second"


def test_what_the_router_would_have_done_is_logged(pool, tmp_path):
    store = SQLStore(f"sqlite:///{tmp_path}/events.db")
    model = pool(store=store, shadow="second")
    model.invoke("a secret question")
    flush(model)
    decisions = [event for event in store.events() if event.kind == "decision"]
    assert len(decisions) == 1
    assert decisions[0].payload["candidate"] == "second"
    assert decisions[0].payload["shadow"]["candidate"] == "best"
    assert "secret" not in str([event.payload for event in store.events()])
    store.close()


def test_what_was_not_asked_counts_as_no_load(pool, load_of):
    model = pool(shadow="second")
    model.invoke("q")
    assert load_of(model) == 0


@pytest.mark.parametrize("most", [1e-9, 1e-4])
def test_who_is_shadowed_answers_whatever_it_costs(scripted_candidate, most):
    model = MixLLMChatModel(
        candidates=[
            scripted_candidate("dear", quality=0.9, price=20.0),
            scripted_candidate("cheap", quality=0.5, price=0.05),
        ],
        shadow="dear",
    )
    model.router.max_cost_per_query = most
    record = record_of(model.invoke("q"))
    assert record["candidate"] == "dear"
    if most == 1e-4:
        assert record["shadow"]["candidate"] == "cheap"
    else:
        assert "shadow" not in record  # nobody would have been allowed to


def test_what_would_have_been_done_goes_by_a_session_of_its_own(scripted_candidate):
    caching = {"facts": {"cached_input_cost_per_million_tokens": 0.01}}
    model = MixLLMChatModel(
        candidates=[
            scripted_candidate(
                "old", quality=0.5, price=5.0, usage=(9_000, 2), **caching
            ),
            scripted_candidate(
                "new", quality=0.6, price=5.0, usage=(9_000, 2), **caching
            ),
        ]
    )
    model.router.exploration = 0.0
    config = with_config(shadow="old", session_id="s")
    for _ in range(3):
        record = record_of(model.invoke("word " * 9_000, config))
        assert record["shadow"]["candidate"] == "new"


def test_feedback_in_shadow_mode_is_about_who_answered(pool):
    model = pool(shadow="second")
    before = model.router.predict(["q"])
    model.record_feedback(model.invoke("q"), 1.0)
    after = model.router.predict(["q"])
    at = before.candidates.index
    assert after.quality[0, at("second")] > before.quality[0, at("second")]
    assert after.quality[0, at("best")] == before.quality[0, at("best")]


def test_who_is_shadowed_must_be_there(pool):
    with pytest.raises(UnknownCandidateError, match="nobody"):
        pool(shadow="nobody")


def test_the_books_tell_what_following_the_router_would_have_cost(scripted_candidate):
    books = MixLLMCallbackHandler()
    model = MixLLMChatModel(
        candidates=[
            scripted_candidate("dear", quality=0.5, price=20.0),
            scripted_candidate("cheap", quality=0.5, price=0.1),
        ],
        shadow="dear",
        callbacks=[books],
    )
    model.invoke("q")
    assert books.totals.shadow_calls == 1
    assert 0 < books.totals.shadow_cost < 0.001
    assert books.calls[0].shadow_candidate == "cheap"


def flush(model):
    model.dispatcher.journal.flush()


def test_a_scripted_model_alone_knows_no_controls():
    """So nothing of this leaks into the candidates."""
    assert ScriptedChatModel().config_specs == []
