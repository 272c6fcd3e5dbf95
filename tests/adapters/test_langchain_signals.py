"""What answers and conversations tell by themselves reaches the router, once."""

from functools import partial, reduce
from operator import add

import pytest
from langchain.agents import create_agent
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel, ValidationError

from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import IMPLICIT_SIGNALS
from mixllm_integrations.langchain import MixLLMChatModel
from mixllm_integrations.testing import ScriptedChatModel


class Sum(BaseModel):
    """A sum."""

    total: int


class Told(list):
    """What a router was told that it did not know, and before which outcome."""

    def __init__(self, router):
        super().__init__()
        self.late = []
        tell, ledger = router.record_signal, router._ledger

        def record_signal(decision_id, signal):
            is_new = tell(decision_id, signal)
            if is_new:
                self.append((decision_id, signal))
                if ledger.get(decision_id).outcome is not None:
                    self.late.append(signal)
            return is_new

        router.record_signal = record_signal


async def by(way, model, given, config=None):
    """Return a whole answer; ``None`` if a stream yields nothing."""
    match way:
        case "batch":
            return model.batch([given], config)[0]
        case "abatch":
            return (await model.abatch([given], config))[0]
        case "stream":
            return reduce(add, list(model.stream(given, config)) or [None])
        case "astream":
            chunks = [chunk async for chunk in model.astream(given, config)]
            return reduce(add, chunks or [None])
        case "stream_events":
            return model.stream_events(given, config, version="v3").output
        case "astream_events":
            async with await model.astream_events(given, config, version="v3") as said:
                return await said
        case "ainvoke":
            return await model.ainvoke(given, config)
    return model.invoke(given, config)


WAYS = ["invoke", "ainvoke", "stream", "astream", "batch", "abatch"]


@pytest.fixture(params=WAYS)
def ask(request):
    """One way to call a model, or a structured one."""
    return partial(by, request.param)


@pytest.fixture(params=[*WAYS, "stream_events", "astream_events"])
def ask_model(request):
    """One way to call a model."""
    return partial(by, request.param)


def decision_of(answer):
    return answer.response_metadata["mixllm"]["decision_id"]


def routed(model, *wanted):
    """Return a model like this, whose router wants signals."""
    facts = model.router.candidates
    router = Router(facts, exploration=0.0, implicit_signals=wanted)
    return MixLLMChatModel(candidates=model.candidates, router=router)


def cut(**metadata):
    return AIMessage("and so", response_metadata=metadata)


ENDINGS = {
    "openai": {"finish_reason": "length"},
    "responses": {"incomplete_details": {"reason": "max_output_tokens"}},
    "anthropic": {"stop_reason": "max_tokens"},
    "bedrock": {"stopReason": "max_tokens"},
    "google": {"finish_reason": "MAX_TOKENS"},
    "ollama": {"done_reason": "length"},
}


class TestTruncated:
    async def test_it_is_told_once_and_before_the_outcome(self, pool, ask_model):
        model = pool(best={"answers": lambda messages: cut(finish_reason="length")})
        told = Told(model.router)
        answer = await ask_model(model, "q")
        assert told == [(decision_of(answer), "truncated")]
        assert not told.late

    @pytest.mark.parametrize("metadata", ENDINGS.values(), ids=ENDINGS)
    async def test_every_provider_says_it_in_its_own_words(self, pool, metadata):
        model = pool(best={"answers": lambda messages: cut(**metadata)})
        told = Told(model.router)
        for way in ("invoke", "stream"):
            await by(way, model, "q")
        assert [signal for _, signal in told] == ["truncated"] * 2

    async def test_a_whole_answer_tells_nothing(self, pool, ask_model):
        model = pool(best={"answers": lambda messages: cut(finish_reason="stop")})
        told = Told(model.router)
        await ask_model(model, "q", {"configurable": {"session_id": "s"}})
        assert not told

    def test_its_length_teaches_nothing(self, pool):
        model = pool(best={"answers": lambda messages: cut(finish_reason="length")})
        before = model.router.predict(["q"]).cost.tolist()
        for _ in range(10):
            model.invoke("q")
        assert model.router.predict(["q"]).cost.tolist() == before


@pytest.fixture
def unfit(pool):
    """A pool whose best answers with a tool call that breaks the schema."""
    call = {"name": "Sum", "args": {"total": "x"}, "id": "1", "type": "tool_call"}
    answer = AIMessage("", tool_calls=[call])
    return pool(best={"answers": lambda messages: answer, "forced_tools": False})


class TestParseFailure:
    @pytest.mark.parametrize("include_raw", [False, True])
    async def test_it_is_told_once(self, unfit, ask, include_raw):
        told = Told(unfit.router)
        chat = unfit.with_structured_output(Sum, include_raw=include_raw)
        try:
            answer = await ask(chat, "q")
        except (OutputParserException, ValidationError):
            answer = None
        ((who, signal),) = told
        assert signal == "parse_failure"
        if include_raw:
            assert decision_of(answer["raw"]) == who

    async def test_what_fits_tells_nothing(self, pool, ask):
        model = pool()
        told = Told(model.router)
        for method in ("function_calling", "json_schema"):
            for include_raw in (False, True):
                chat = model.with_structured_output(
                    Sum, method=method, include_raw=include_raw
                )
                await ask(chat, "5 apples")
        assert not told

    @pytest.mark.parametrize("include_raw", [False, True])
    async def test_no_object_at_all_is_a_failure(self, pool, ask, include_raw):
        model = pool(best={"answers": ["I cannot."], "forced_tools": False})
        told = Told(model.router)
        await ask(model.with_structured_output(Sum, include_raw=include_raw), "q")
        assert [signal for _, signal in told] == ["parse_failure"]

    async def test_a_call_of_a_tool_offered_beside_the_schema_is_none(
        self, pool, ask, monkeypatch
    ):
        own = ScriptedChatModel.with_structured_output

        def with_tools(self, schema, *, tools, **kwargs):
            return own(self, schema, **kwargs)

        monkeypatch.setattr(ScriptedChatModel, "with_structured_output", with_tools)
        model = pool(best={"answers": ["Calls a tool."], "forced_tools": False})
        told = Told(model.router)
        chat = model.with_structured_output(Sum, include_raw=True, tools=[Sum])
        await ask(chat, "q")
        assert not told

    async def test_what_was_cut_short_and_so_cannot_be_parsed_tells_both(
        self, pool, ask
    ):
        model = pool(
            best={
                "answers": lambda messages: cut(finish_reason="length"),
                "forced_tools": False,
            }
        )
        told = Told(model.router)
        await ask(model.with_structured_output(Sum), "q")
        assert [signal for _, signal in told] == ["truncated", "parse_failure"]

    @pytest.mark.parametrize(
        ("name", "signals"),
        [
            ("LengthFinishReasonError", ["truncated", "parse_failure"]),
            ("ContentFilterFinishReasonError", ["parse_failure"]),
        ],
    )
    async def test_an_answer_that_its_client_could_not_parse_tells_too(
        self, pool, ask, name, signals
    ):
        error = type(name, (Exception,), {})("cut")
        model = pool(best={"errors": [error] * 9})
        told = Told(model.router)
        with pytest.raises(type(error)):
            await ask(model.with_structured_output(Sum), "q")
        assert [signal for _, signal in told] == signals

    @pytest.mark.parametrize(
        ("said", "signals"),
        [
            ('{"total": "x"}', ["parse_failure"]),
            ('{"total": ', ["truncated", "parse_failure"]),
        ],
    )
    async def test_a_client_that_checks_the_schema_itself_has_answered(
        self, pool, ask, asked, said, signals
    ):
        with pytest.raises(ValidationError) as caught:
            Sum.model_validate_json(said)
        model = pool(best={"errors": [caught.value] * 9})
        told = Told(model.router)
        with pytest.raises(ValidationError):
            await ask(model.with_structured_output(Sum), "q")
        assert [signal for _, signal in told] == signals
        assert not asked(model, "second")

    async def test_an_outage_tells_nothing(self, pool, ask):
        model = pool(best={"errors": [TimeoutError()] * 9})
        told = Told(model.router)
        await ask(model.with_structured_output(Sum), "5")
        assert not told

    def test_a_dry_run_tells_nothing(self, pool):
        model = pool()
        told = Told(model.router)
        chat = model.with_structured_output(Sum, include_raw=True)
        chat.invoke("q", {"configurable": {"dry_run": True}})
        assert not told


def loop(answer, *statuses):
    """Return a conversation that ends in tools' results of these statuses."""
    results = [
        ToolMessage("result", tool_call_id=str(n), status=status)
        for n, status in enumerate(statuses)
    ]
    return [HumanMessage("q"), answer, *results]


class TestToolError:
    async def test_it_is_told_once_of_whoever_called(self, pool, ask_model):
        model = pool()
        answer = model.invoke("q")
        told = Told(model.router)
        for _ in range(2):
            await ask_model(model, loop(answer, "success", "error", "success"))
        assert told == [(decision_of(answer), "tool_error")]

    async def test_tools_that_worked_tell_nothing(self, pool, ask_model):
        model = pool()
        told = Told(model.router)
        await ask_model(model, loop(model.invoke("q"), "success"))
        assert not told

    @pytest.mark.parametrize(
        "answer",
        [
            AIMessage("of another model"),
            AIMessage("", response_metadata={"mixllm": {"decision_id": "forgotten"}}),
            AIMessage("", response_metadata={"mixllm": {"decision_id": ["odd"]}}),
            HumanMessage("nobody called"),
        ],
    )
    async def test_calls_of_others_are_let_be(self, pool, answer):
        model = pool()
        told = Told(model.router)
        for way in ("invoke", "ainvoke"):
            await by(way, model, loop(answer, "error"))
        assert not told

    def test_a_dry_run_tells_nothing(self, pool):
        model = pool()
        answer = model.invoke("q")
        told = Told(model.router)
        model.invoke(loop(answer, "error"), {"configurable": {"dry_run": True}})
        assert not told

    def test_a_candidate_that_has_left_breaks_nothing(self, pool):
        model = routed(pool(), *IMPLICIT_SIGNALS)
        answer = model.invoke("q")
        model.remove_candidate("best")
        told = Told(model.router)
        model.invoke(loop(answer, "error"))
        assert told == [(decision_of(answer), "tool_error")]


class TestRegenerate:
    CONFIG = {"configurable": {"thread_id": "t"}}  # noqa: RUF012

    async def test_it_is_told_once_of_the_earlier_answer(self, pool, ask_model):
        model = routed(pool(), "regenerate")
        told = Told(model.router)
        first = await ask_model(model, "q", self.CONFIG)
        second = await ask_model(model, "q", self.CONFIG)
        await ask_model(model, [("human", "q"), second, ("human", "q")], self.CONFIG)
        assert told == [(decision_of(first), "regenerate")]

    async def test_without_opting_in_or_a_session_nothing_is_told(self, pool, ask):
        for model, config in (
            (routed(pool(), "truncated"), self.CONFIG),
            (routed(pool(), "regenerate"), None),
        ):
            told = Told(model.router)
            for _ in range(2):
                await ask(model, "q", config)
            assert not told

    def test_another_schema_for_the_same_text_is_another_question(self, pool):
        model = routed(pool(), "regenerate")
        told = Told(model.router)
        for name in ("Sum", "Other"):
            schema = {**Sum.model_json_schema(), "title": name}
            chat = model.with_structured_output(schema)
            first = chat.invoke("5", self.CONFIG)
        assert not told
        assert chat.invoke("5", self.CONFIG) == first
        assert len(told) == 1

    def test_of_a_batch_in_one_session_the_last_question_counts(self, pool):
        model = routed(pool(), "regenerate")
        told = Told(model.router)
        batch = model.batch(["a", "b"], {**self.CONFIG, "max_concurrency": 1})
        model.invoke("b", self.CONFIG)
        assert told == [(decision_of(batch[1]), "regenerate")]


def divide(a: int, b: int) -> float:
    """Divide two numbers."""
    return a / b


class TestAnAgent:
    """A thread of LangGraph's whose tool fails, and that is run anew."""

    @pytest.fixture
    def agent(self, pool):
        call = {"name": "divide", "args": {"a": 1, "b": "x"}, "id": "1"}

        def answers(messages):
            if isinstance(messages[-1], ToolMessage):
                return AIMessage("I cannot.")
            return AIMessage("", tool_calls=[call])

        model = routed(pool(best={"answers": answers}), *IMPLICIT_SIGNALS)
        told = Told(model.router)
        return create_agent(model, [divide], checkpointer=InMemorySaver()), told

    def test_a_failed_tool_and_a_rerun_are_told_once_each(self, agent):
        agent, told = agent
        config = {"configurable": {"thread_id": "t"}}
        said = agent.invoke({"messages": [("human", "1 / x?")]}, config)["messages"]
        caller, _, last = said[1:]
        assert told == [(decision_of(caller), "tool_error")]
        start = next(
            state
            for state in agent.get_state_history(config)
            if [m.type for m in state.values.get("messages", ())] == ["human"]
        )
        again = agent.invoke(None, start.config)["messages"]
        assert told[1:] == [
            (decision_of(last), "regenerate"),
            (decision_of(again[1]), "tool_error"),
        ]


@pytest.mark.parametrize("wanted", [(), IMPLICIT_SIGNALS])
async def test_predictions_change_just_if_one_opts_in(unfit, ask, wanted):
    model = routed(unfit, *wanted)
    before = model.router.predict(["q"]).quality.tolist()
    chat = model.with_structured_output(Sum, include_raw=True)
    await ask(chat, "q", {"configurable": {"session_id": "s"}})
    assert (model.router.predict(["q"]).quality.tolist() != before) == bool(wanted)
