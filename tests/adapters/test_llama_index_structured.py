"""Objects of a schema come from the chosen LLM's own methods."""

import asyncio

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ToolCallBlock
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.chat_engine.types import AgentChatResponse
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation import get_dispatcher
from pydantic import BaseModel, ValidationError

from mixllm_integrations import NoCandidateError, Router
from mixllm_integrations.llama_index import CandidateLLM, MixLLM
from mixllm_integrations.testing import ScriptedLLM


class Total(BaseModel):
    """A sum."""

    value: int


MODES = (
    "structured_predict",
    "astructured_predict",
    "stream_structured_predict",
    "astream_structured_predict",
)
CHATS = ("chat", "achat", "stream_chat", "astream_chat", "complete", "acomplete")
CALLS = ("predict_and_call", "apredict_and_call")
PREDICTS = ("predict", "apredict", "stream", "astream")
SUM = PromptTemplate("{a} + {b}?")
FOUR = ChatMessage(
    role="assistant",
    blocks=[
        ToolCallBlock(tool_call_id="c", tool_name="Total", tool_kwargs={"value": 4})
    ],
)
PRICES = {"input_cost_per_million_tokens": 1.0, "output_cost_per_million_tokens": 2.0}


class Native(ScriptedLLM):
    """An LLM with its own way to objects, as OpenAI's and Anthropic's have it."""

    seen: list = []  # noqa: RUF012 - pydantic copies it
    fails: bool = False

    def structured_predict(self, output_cls, prompt, llm_kwargs=None, **prompt_args):
        self.seen.append((prompt, llm_kwargs, prompt_args))
        if self.fails:
            raise TimeoutError
        messages = prompt.format_messages(**prompt_args)
        said = self.chat(messages, **(llm_kwargs or {}))
        return output_cls.model_validate_json(said.message.content)

    async def astructured_predict(self, output_cls, prompt, llm_kwargs=None, **args):
        return self.structured_predict(output_cls, prompt, llm_kwargs, **args)

    def stream_structured_predict(self, output_cls, prompt, llm_kwargs=None, **args):
        yield output_cls.model_construct(value=None)
        yield self.structured_predict(output_cls, prompt, llm_kwargs, **args)

    async def astream_structured_predict(
        self, output_cls, prompt, llm_kwargs=None, **args
    ):
        async def objects():
            for one in self.stream_structured_predict(
                output_cls, prompt, llm_kwargs, **args
            ):
                yield one

        return objects()


def candidate(name, quality=0.5, kind=ScriptedLLM, **script):
    return CandidateLLM(
        llm=kind(model=name, **script), name=name, prior_quality=quality, **PRICES
    )


def native(name="native", quality=0.9, text='{"value": 4}', **script):
    script.setdefault("usage", (10, 3))
    return candidate(name, quality, Native, answers=[text], **script)


def routed(*entries, **settings):
    llm = MixLLM(entries, **{"willingness_to_pay": 1.0, **settings})
    llm.router.exploration = 0.0
    return llm


def do(llm, mode, *args, **kwargs):
    """Every object or answer of one call, whatever the mode."""

    async def collect():
        result = await getattr(llm, mode)(*args, **kwargs)
        return [one async for one in result] if "stream" in mode else [result]

    if mode.startswith("a"):
        return asyncio.run(collect())
    result = getattr(llm, mode)(*args, **kwargs)
    return list(result) if "stream" in mode else [result]


def predicted(llm, mode, **kwargs):
    return do(llm, mode, Total, SUM, a=2, b=2, **kwargs)


class TestOwnMethod:
    @pytest.mark.parametrize("mode", MODES)
    def test_the_chosen_llms_own_is_asked_with_what_was_given(self, mode):
        chosen, other = native(), native("other", 0.1)
        llm = routed(other, chosen)
        objects = predicted(llm, mode, llm_kwargs={"temperature": 0.5})
        assert objects[-1] == Total(value=4)
        assert len(objects) == (2 if "stream" in mode else 1)
        ((prompt, kwargs, args),) = chosen.llm.seen
        assert prompt == SUM
        assert (kwargs, args) == ({"temperature": 0.5}, {"a": 2, "b": 2})
        assert other.llm.seen == []

    @pytest.mark.parametrize("mode", MODES)
    def test_one_without_its_own_calls_a_tool(self, mode):
        chosen, bare = (candidate("tools", answers=[FOUR]) for _ in range(2))
        found, expected = predicted(routed(chosen), mode), predicted(bare.llm, mode)
        assert [o.model_dump() for o in found] == [o.model_dump() for o in expected]
        assert chosen.llm.calls[0][2]["tools"] == ["Total"]

    def test_one_without_tools_is_asked_for_json(self):
        chosen = candidate(
            "text", answers=['{"value": 4}'], is_function_calling_model=False
        )
        llm = routed(chosen)
        for _ in range(2):
            assert predicted(llm, "structured_predict") == [Total(value=4)]
        assert SUM.output_parser is None  # the program sets it on its copy
        assert chosen.llm.calls[0][1] == chosen.llm.calls[1][1]

    @pytest.mark.parametrize("mode", MODES)
    def test_only_those_that_fill_schemas_compete(self, mode):
        blind = CandidateLLM(
            llm=Native(model="blind"),
            structured_output=False,
            prior_quality=1,
            **PRICES,
        )
        llm = routed(blind, native(quality=0.1))
        with llm.asking() as asked:
            predicted(llm, mode)
        assert asked.record["candidate"] == "native"
        with pytest.raises(NoCandidateError):
            predicted(routed(blind), mode)

    @pytest.mark.parametrize("mode", MODES)
    def test_the_next_best_takes_over_from_one_that_fails(self, mode):
        class Broken(Native):
            def stream_structured_predict(self, *args, **kwargs):
                yield from ()
                self.structured_predict(*args, **kwargs)

        broken = candidate("broken", 0.99, Broken, fails=True)
        llm = routed(broken, native())
        with llm.asking() as asked:
            assert predicted(llm, mode)[-1] == Total(value=4)
        (attempt,) = asked.record["attempts"]
        assert attempt["candidate"] == "broken"

    def test_the_system_prompt_of_the_routed_llm_is_said(self):
        chosen = native()
        routed(chosen, system_prompt="Be {brief}.").structured_predict(
            Total, SUM, a=2, b=2
        )
        ((_, messages, _),) = chosen.llm.calls
        assert [m.content for m in messages] == ["Be {brief}.", "2 + 2?"]

    def test_records_of_earlier_answers_are_not_sent(self):
        chosen = native()
        llm = routed(chosen)
        before = llm.chat([ChatMessage("hello")]).message
        prompt = ChatPromptTemplate(message_templates=[before, ChatMessage("{a}?")])
        llm.structured_predict(Total, prompt, a=2)
        _, messages, _ = chosen.llm.calls[1]
        assert [m.additional_kwargs for m in messages] == [{}, {}]
        assert [m.content for m in messages] == ['{"value": 4}', "2?"]


class TestWhatIsLearned:
    @pytest.mark.parametrize("mode", MODES)
    def test_the_cost_is_that_of_the_answer_that_was_heard(self, mode):
        llm = routed(native(usage=(900, 50)))
        with llm.asking() as asked:
            predicted(llm, mode)
        # 900 tokens at 1 USD and 50 at 2 USD per million
        assert asked.cost == pytest.approx(0.001)
        assert len(asked.records) == 1

    @pytest.mark.parametrize("mode", MODES)
    def test_an_answer_that_nobody_told_of_is_estimated(self, mode):
        class Silent(Native):
            def structured_predict(self, output_cls, prompt, *args, **kwargs):
                return output_cls(value=4)

        llm = routed(candidate("silent", kind=Silent))
        with llm.asking() as asked:
            predicted(llm, mode)
        # "2 + 2?" has 4 to 8 tokens, {"value":4} 4 to 8
        assert 4e-6 + 8e-6 <= asked.cost <= 8e-6 + 16e-6

    @pytest.mark.parametrize("mode", MODES)
    def test_what_cannot_be_parsed_is_raised_and_told_once(self, mode):
        entry, spare = native(text="four"), native("spare", 0.1)
        router = Router(
            [entry.candidate, spare.candidate], implicit_signals=["parse_failure"]
        )
        llm = routed(entry, spare, router=router)
        with llm.asking() as asked, pytest.raises(ValidationError):
            predicted(llm, mode)
        assert spare.llm.seen == []
        (record,) = asked.records
        assert record["cost"] > 0
        assert not llm.record_signal(asked, "parse_failure")

    def test_one_that_answers_badly_is_not_left_out(self):
        llm = routed(native(text="four"))
        for _ in range(2):
            with llm.asking() as asked, pytest.raises(ValidationError):
                predicted(llm, "structured_predict")
        assert asked.record["attempts"] == []

    def test_answers_of_other_llms_are_not_heard(self):
        class Nosy(Native):
            def structured_predict(self, *args, **kwargs):
                found = super().structured_predict(*args, **kwargs)
                response = ChatResponse(message=ChatMessage("x"))
                for told in (None, response):
                    get_dispatcher("llama_index.core.llms.callbacks").event(
                        LLMChatEndEvent(messages=[], response=told)
                    )
                return found

        llm = routed(candidate("n", kind=Nosy, answers=['{"value": 4}'], usage=(10, 3)))
        with llm.asking() as asked:
            predicted(llm, "structured_predict")
            ScriptedLLM(usage=(10_000, 10_000)).complete("hello")
        assert asked.cost < 50e-6


@pytest.mark.filterwarnings("ignore:The `json` method is deprecated")
class TestAsStructuredLLM:
    def asked(self, llm, mode):
        given = "2 + 2?" if "complete" in mode else [ChatMessage("2 + 2?")]
        return do(llm.as_structured_llm(Total), mode, given)

    @pytest.mark.parametrize("mode", CHATS)
    def test_each_answer_has_the_object_and_the_record(self, mode):
        llm = routed(native())
        answers = self.asked(llm, mode)
        assert answers[-1].raw == Total(value=4)
        record = answers[-1].additional_kwargs["mixllm"]
        assert (record["candidate"], record["cost"]) == ("native", 16e-6)
        assert llm.record_feedback(answers[-1], 1.0)

    async def test_its_streams_end(self):
        llm = routed(native()).as_structured_llm(Total)
        chunks = await llm.astream_chat([ChatMessage("2 + 2?")])
        assert len([chunk async for chunk in chunks]) == 2


def add(a: int, b: int) -> int:
    """Return the sum."""
    if a < 0:
        raise ValueError("too cold")
    return a + b


ADD = FunctionTool.from_defaults(add)


def adding(a):
    call = ToolCallBlock(
        tool_call_id="c", tool_name="add", tool_kwargs={"a": a, "b": 2}
    )
    return ChatMessage(role="assistant", blocks=[call])


class TestPredictAndCall:
    @pytest.mark.parametrize("mode", CALLS)
    def test_the_tool_is_called_and_the_record_kept(self, mode):
        plain = candidate("plain", 0.99, is_function_calling_model=False)
        llm = routed(plain, candidate("able", answers=[adding(2)]))
        (said,) = do(llm, mode, [ADD], "2 + 2?")
        assert said.response == "4"
        assert said.metadata["mixllm"]["candidate"] == "able"
        assert llm.record_feedback(said, 1.0)

    @pytest.mark.parametrize("mode", CALLS)
    def test_a_tool_that_fails_is_told(self, mode):
        entry = candidate("able", answers=[adding(-2)])
        router = Router([entry.candidate], implicit_signals=["tool_error"])
        llm = routed(entry, router=router)
        (said,) = do(llm, mode, [ADD], "2 + 2?")
        assert not llm.record_signal(said, "tool_error")

    def test_where_nobody_was_asked_there_is_no_record(self, monkeypatch):
        said = AgentChatResponse(response="4")
        own = FunctionCallingLLM
        monkeypatch.setattr(own, "predict_and_call", lambda *args, **kwargs: said)
        assert routed(candidate("one")).predict_and_call([ADD], "2 + 2?") is said
        assert said.metadata is None

    @pytest.mark.parametrize("mode", CALLS)
    def test_a_candidate_may_be_named(self, mode):
        both = [
            candidate(n, q, answers=[adding(2)]) for n, q in (("a", 0.1), ("b", 0.9))
        ]
        (said,) = do(routed(*both), mode, [ADD], "2 + 2?", candidate="a")
        assert said.metadata["mixllm"]["candidate"] == "a"


class TestTokens:
    """Handlers count what they count of the bare LLM."""

    def counts(self, wrap, mode, entry, *args, **kwargs):
        handler = TokenCountingHandler(tokenizer=str.split)
        llm = wrap(entry)
        llm.callback_manager = CallbackManager([handler])
        do(llm, mode, *args, **kwargs)
        return (
            len(handler.llm_token_counts),
            handler.prompt_llm_token_count,
            handler.completion_llm_token_count,
        )

    def both(self, make, mode, *args, **kwargs):
        bare = self.counts(lambda one: one.llm, mode, make(), *args, **kwargs)
        ours = self.counts(routed, mode, make(), *args, **kwargs)
        assert bare == ours
        return bare

    @pytest.mark.parametrize("mode", MODES)
    def test_of_structured_predictions(self, mode):
        assert self.both(native, mode, Total, SUM, a=2, b=2) == (1, 10, 3)

    @pytest.mark.parametrize("mode", PREDICTS)
    def test_of_predictions(self, mode):
        def make():
            return candidate("one", answers=["it is four"], usage=(10, 3))

        assert self.both(make, mode, SUM, a=2, b=2) == (1, 10, 3)

    @pytest.mark.parametrize("mode", CALLS)
    def test_of_tools_that_are_called(self, mode):
        def make():
            return candidate("one", answers=[adding(2)], usage=(10, 3))

        assert self.both(make, mode, [ADD], "2 + 2?") == (1, 10, 3)

    @pytest.mark.parametrize(
        "mode",
        [
            "chat_with_tools",
            "achat_with_tools",
            "stream_chat_with_tools",
            "astream_chat_with_tools",
        ],
    )
    def test_of_calls_with_tools(self, mode):
        def make():
            return candidate("one", answers=[adding(2)], usage=(10, 3))

        assert self.both(make, mode, [ADD], "2 + 2?") == (1, 10, 3)


@pytest.mark.parametrize("mode", PREDICTS)
def test_a_prediction_is_routed_and_kept(mode):
    llm = routed(candidate("one", 0.1), candidate("two", 0.9, answers=["it is four"]))
    with llm.asking() as asked:
        assert "".join(do(llm, mode, SUM, a=2, b=2)) == "it is four"
    assert [record["candidate"] for record in asked.records] == ["two"]
    ((_, messages, _),) = llm.seat("two").llm.calls
    assert messages[-1].content == "2 + 2?"
