"""What a call asks of the choice: by argument, by block of code, by setting."""

import asyncio
import contextvars

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.llms.types import (
    ChatMessage,
    CompletionResponse,
    ToolCallBlock,
)
from llama_index.core.llms import MockLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import TextNode
from pydantic import BaseModel

from mixllm_integrations import (
    ConfigurationError,
    NoCandidateError,
    Router,
    UnknownCandidateError,
)
from mixllm_integrations.llama_index import (
    Asking,
    CandidateLLM,
    MixLLM,
    MixLLMEmbedding,
)
from mixllm_integrations.testing import ScriptedLLM

MODES = (
    "chat",
    "achat",
    "stream_chat",
    "astream_chat",
    "complete",
    "acomplete",
    "stream_complete",
    "astream_complete",
)


class Total(BaseModel):
    """A sum."""

    value: int


def candidate(name, quality=0.5, price=1.0, **script):
    return CandidateLLM(
        llm=ScriptedLLM(model=f"{name}-2024", **script),
        name=name,
        input_cost_per_million_tokens=price,
        output_cost_per_million_tokens=price,
        prior_quality=quality,
    )


def pool(*, best=None, second=None, **settings):
    """A routed LLM of which "best" would answer."""
    entries = [
        candidate("second", 0.3, **(second or {})),
        candidate("best", 0.9, **(best or {})),
    ]
    llm = MixLLM(entries, **{"willingness_to_pay": 1.0, **settings})
    llm.router.exploration = 0.0
    return llm


def calls_of(llm, name):
    return llm.seat(name).llm.calls


def ask(llm, mode, text="What is 2 + 2?", **kwargs):
    given = [ChatMessage(text)] if "chat" in mode else text

    async def collect():
        answer = await getattr(llm, mode)(given, **kwargs)
        return [chunk async for chunk in answer] if "stream" in mode else [answer]

    if mode.startswith("a"):
        return asyncio.run(collect())
    answer = getattr(llm, mode)(given, **kwargs)
    return list(answer) if "stream" in mode else [answer]


def record_of(response):
    return response.additional_kwargs["mixllm"]


def text_of(response):
    if isinstance(response, CompletionResponse):
        return response.text
    return response.message.content


class TestByArgument:
    @pytest.mark.parametrize("mode", MODES)
    def test_a_named_candidate_answers(self, mode):
        llm = pool()
        record = record_of(ask(llm, mode, candidate="second")[-1])
        assert record["candidate"] == "second"
        ((_, _, kwargs),) = calls_of(llm, "second")
        assert "candidate" not in kwargs

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("name", ["second", "second-2024"])
    def test_a_model_that_is_a_candidate_answers(self, mode, name):
        llm = pool()
        assert record_of(ask(llm, mode, model=name)[-1])["candidate"] == "second"
        assert "model" not in calls_of(llm, "second")[0][2]

    def test_another_model_is_handed_on(self):
        llm = pool()
        llm.complete("hello", model="ft:best-2024")
        assert calls_of(llm, "best")[0][2]["model"] == "ft:best-2024"

    def test_the_best_of_several_with_one_model_answers(self):
        entries = [candidate("a", 0.3), candidate("b", 0.9), candidate("c", 0.99)]
        for entry in entries[:2]:
            entry.llm.model = "shared"
        llm = MixLLM(entries, willingness_to_pay=1.0)
        llm.router.exploration = 0.0
        assert record_of(llm.complete("hello", model="shared"))["candidate"] == "b"

    def test_the_willingness_to_pay_is_that_of_the_call(self):
        llm = pool(second={}, best={})
        assert record_of(llm.complete("x", willingness_to_pay=0.5))[
            "willingness_to_pay"
        ] == pytest.approx(0.5)
        assert llm.willingness_to_pay == 1.0

    def test_a_price_limit_of_a_call_excludes_who_is_above_it(self):
        llm = MixLLM([candidate("dear", 0.9, 1e4), candidate("cheap", 0.1, 0.0)])
        answer = llm.complete("hello", max_cost_per_query=1e-6)
        assert record_of(answer)["candidate"] == "cheap"

    @pytest.mark.parametrize("mode", MODES)
    def test_an_unknown_candidate_is_an_error_that_names_those_there_are(self, mode):
        with pytest.raises(UnknownCandidateError, match=r"'x'.*'second', 'best'"):
            ask(pool(), mode, candidate="x")

    def test_a_value_of_no_use_is_an_error(self):
        with pytest.raises(ConfigurationError, match="max_cost_per_query"):
            pool().complete("hello", max_cost_per_query=-1)

    def test_a_call_with_tools_takes_it_too(self):
        llm = pool()
        said = llm.chat_with_tools([], "hello", candidate="second")
        assert record_of(said)["candidate"] == "second"
        assert "candidate" not in calls_of(llm, "second")[0][2]

    def test_a_structured_prediction_takes_it_too(self):
        call = ToolCallBlock(tool_name="Total", tool_kwargs={"value": 4})
        script = {"answers": [ChatMessage(role="assistant", blocks=[call])]}
        llm = pool(best=script, second=script)
        asked = {"candidate": "second", "temperature": 0.5}
        llm.structured_predict(Total, PromptTemplate("2 + 2?"), llm_kwargs=asked)
        assert asked == {"candidate": "second", "temperature": 0.5}
        ((_, _, kwargs),) = calls_of(llm, "second")
        assert kwargs["temperature"] == 0.5
        assert "candidate" not in kwargs


class TestByBlock:
    @pytest.mark.parametrize("mode", MODES)
    def test_all_calls_in_it_are_asked_the_same(self, mode):
        llm = pool()
        with llm.asking(candidate="second") as asked:
            inside = record_of(ask(llm, mode)[-1])
        after = record_of(ask(llm, mode)[-1])
        assert (inside["candidate"], after["candidate"]) == ("second", "best")
        assert asked.records == [inside]
        assert asked.record["cost"] == inside["cost"] == asked.cost > 0

    def test_the_innermost_wins_and_the_argument_before_it(self):
        llm = pool()
        with llm.asking(candidate="second", willingness_to_pay=0.25):
            with llm.asking(candidate="best") as inner:
                assert record_of(llm.complete("x"))["candidate"] == "best"
                told = record_of(llm.complete("x", candidate="second"))
            assert told["candidate"] == "second"
            assert told["willingness_to_pay"] == 0.25
            assert record_of(llm.complete("x"))["candidate"] == "second"
        assert len(inner.records) == 2

    def test_an_llm_on_another_router_is_not_meant(self):
        one, other = pool(), pool()
        with one.asking(candidate="second") as asked:
            assert record_of(other.complete("x"))["candidate"] == "best"
        assert asked.records == []
        assert asked.record is None

    def test_a_copy_is_meant(self):
        llm = pool()
        copied = llm.model_copy()
        with llm.asking(candidate="second"):
            assert record_of(copied.complete("x"))["candidate"] == "second"

    async def test_tasks_that_are_started_in_it_are_meant(self):
        llm = pool()

        async def one(name):
            with llm.asking(candidate=name):
                await asyncio.sleep(0)
                return record_of(await llm.acomplete("x"))["candidate"]

        names = ["best", "second"] * 5
        assert await asyncio.gather(*map(one, names)) == names

    async def test_a_task_of_it_that_ends_later_is_meant(self):
        llm = pool()
        with llm.asking(candidate="second"):
            task = asyncio.create_task(llm.acomplete("x"))
        assert record_of(await task)["candidate"] == "second"

    @pytest.mark.parametrize("mode", [m for m in MODES if m.startswith("stream")])
    def test_a_stream_begun_in_it_is_meant_though_it_is_read_later(self, mode):
        llm = pool()
        given = [ChatMessage("x")] if "chat" in mode else "x"
        with llm.asking(candidate="second") as asked:
            chunks = getattr(llm, mode)(given)
        assert record_of(list(chunks)[-1])["candidate"] == "second"
        assert asked.record["candidate"] == "second"

    @pytest.mark.usefixtures("current_loop")
    def test_a_query_engine_in_it_is_asked_and_can_be_judged(self):
        llm = pool(best={"answers": ["Paris."]}, second={"answers": ["Rome."]})
        nodes = [TextNode(text="The capital of France is Paris.")]
        index = VectorStoreIndex(nodes, embed_model=MixLLMEmbedding())
        engine = index.as_query_engine(llm=llm)
        with llm.asking(candidate="second") as asked:
            assert str(engine.query("What is the capital of France?")) == "Rome."
        assert llm.record_feedback(asked, 0.0)
        assert not llm.record_feedback(asked.record["decision_id"], 1.0)

    def test_nothing_to_judge_is_an_error(self):
        llm = pool()
        with llm.asking() as asked:
            pass
        with pytest.raises(ConfigurationError, match="no answer"):
            llm.record_feedback(asked, 1.0)

    def test_an_unknown_control_is_an_error_that_lists_them(self):
        with pytest.raises(ConfigurationError, match=r"'temperature'.*session_id"):
            pool().asking(temperature=0.5)

    @pytest.mark.parametrize("control", ["candidate", "shadow"])
    def test_an_unknown_candidate_is_an_error_at_once(self, control):
        with pytest.raises(UnknownCandidateError, match="'x'"):
            pool().asking(**{control: "x"})

    def test_it_may_end_in_another_context(self):
        llm = pool()
        asked = llm.asking(candidate="second")
        contextvars.copy_context().run(asked.__enter__)
        asked.__exit__(None, None, None)
        assert record_of(llm.complete("x"))["candidate"] == "best"

    def test_it_may_be_entered_again(self):
        llm = pool()
        asked = llm.asking(candidate="second")
        for _ in range(2):
            with asked:
                llm.complete("x")
        assert [r["candidate"] for r in asked.records] == ["second", "second"]
        asked.__exit__(None, None, None)  # and left once too often
        assert isinstance(asked, Asking)


class TestADryRun:
    @pytest.mark.parametrize("mode", MODES)
    def test_it_explains_and_asks_nobody(self, mode):
        llm = pool()
        (told,) = ask(llm, mode, dry_run=True)
        assert "best" in text_of(told)
        record = record_of(told)
        assert (record["candidate"], record["dry_run"]) == ("best", True)
        assert calls_of(llm, "best") == calls_of(llm, "second") == []
        with pytest.raises(ConfigurationError, match="dry run"):
            llm.record_feedback(told, 1.0)

    def test_it_makes_no_object(self):
        llm = pool()
        with (
            llm.asking(dry_run=True),
            pytest.raises(ConfigurationError, match=r"'best'.*chat or complete"),
        ):
            llm.structured_predict(Total, PromptTemplate("2 + 2?"))


class TestShadow:
    def test_one_answers_and_the_routers_choice_is_noted(self):
        llm = pool(shadow="second")
        record = record_of(llm.complete("x"))
        assert record["candidate"] == "second"
        assert record["shadow"]["candidate"] == "best"

    def test_it_may_be_asked_of_a_call(self):
        record = record_of(pool().complete("x", shadow="second-2024"))
        assert (record["candidate"], record["shadow"]["candidate"]) == (
            "second",
            "best",
        )

    def test_an_unknown_name_is_an_error_at_once(self):
        with pytest.raises(UnknownCandidateError, match="'x'"):
            pool(shadow="x")


class TestSessions:
    def entries(self):
        """Two equals; long prompts out of their caches cost a tenth."""
        return [
            CandidateLLM(
                llm=ScriptedLLM(model=name, usage=(4_000, 5)),
                input_cost_per_million_tokens=100.0,
                cached_input_cost_per_million_tokens=10.0,
                output_cost_per_million_tokens=100.0,
                prior_quality=quality,
            )
            for name, quality in (("one", 0.5), ("two", 0.51))
        ]

    def conversation(self, llm, **asked):
        prompt = "word " * 4_000
        llm.complete(prompt, candidate="one", **asked)
        return record_of(llm.complete(prompt, **asked))

    def test_a_session_stays_where_its_beginning_was_read(self):
        llm = MixLLM(self.entries(), willingness_to_pay=1.0)
        llm.router.exploration = 0.0
        record = self.conversation(llm, session_id=7)
        assert (record["candidate"], record["session"]) == ("one", "7")

    def test_without_one_the_better_answers(self):
        llm = MixLLM(self.entries(), willingness_to_pay=1.0)
        llm.router.exploration = 0.0
        record = self.conversation(llm)
        assert record["candidate"] == "two"
        assert "session" not in record

    def test_tokens_out_of_the_providers_cache_are_charged_as_such(self):
        class Cached(ScriptedLLM):
            def _usage(self, answer, messages):
                told = super()._usage(answer, messages)
                told["raw"]["usage"]["prompt_tokens_details"] = {"cached_tokens": 3_000}
                return told

        entry = CandidateLLM(
            llm=Cached(model="m", usage=(4_000, 5)),
            input_cost_per_million_tokens=100.0,
            cached_input_cost_per_million_tokens=10.0,
            output_cost_per_million_tokens=200.0,
        )
        cost = record_of(MixLLM([entry]).complete("x"))["cost"]
        # 1,000 tokens at 100 USD, 3,000 at 10 and 5 at 200 per million
        assert cost == pytest.approx(0.1 + 0.03 + 0.001)

    def test_a_question_asked_again_in_a_session_speaks_against_the_answer(self):
        entries = [candidate("one")]
        router = Router([e.candidate for e in entries], implicit_signals=["regenerate"])
        llm = MixLLM(entries, router=router)
        first = llm.complete("why?", session_id="s")
        llm.complete("why?", session_id="s")
        assert not llm.record_signal(first, "regenerate")  # it was said already
        assert llm.record_signal(llm.complete("why?"), "regenerate")


class TestMaxRetries:
    def test_none_may_take_over(self):
        llm = pool(best={"errors": [TimeoutError()]}, max_retries=0)
        with pytest.raises(TimeoutError):
            llm.complete("x")
        assert calls_of(llm, "second") == []

    @pytest.mark.parametrize("wrong", [-1, 1.5, True, "1"])
    def test_what_is_no_count_is_refused(self, wrong):
        with pytest.raises(ConfigurationError, match="max_retries"):
            pool(max_retries=wrong)


class TestPatienceOfACall:
    def test_it_may_be_asked_of_a_call(self):
        llm = MixLLM([candidate("one", errors=[TimeoutError()])])
        assert llm.complete("x", give_up_after_seconds=5).text == "x"


def test_no_price_limit_is_met_by_nobody():
    with pytest.raises(NoCandidateError):
        pool().complete("x", max_cost_per_query=0.0)


def test_a_mock_llm_can_be_named():
    free = {"input_cost_per_million_tokens": 0, "output_cost_per_million_tokens": 0}
    llm = MixLLM([CandidateLLM(llm=MockLLM(), name=n, **free) for n in ("a", "b")])
    assert record_of(llm.complete("x", candidate="b"))["candidate"] == "b"
