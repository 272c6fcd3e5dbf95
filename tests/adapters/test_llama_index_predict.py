"""Prompts are filled and answered by the chosen LLM itself."""

import asyncio

import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage, TextBlock, ThinkingBlock
from llama_index.core.instrumentation.events.llm import LLMPredictStartEvent
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.prompts import (
    ChatPromptTemplate,
    PromptTemplate,
    SelectorPromptTemplate,
)
from llama_index.core.prompts.utils import is_chat_model
from llama_index.core.types import BaseOutputParser, PydanticProgramMode
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.event_handlers import BaseEventHandler
from pydantic import BaseModel

from mixllm_integrations import ConfigurationError
from mixllm_integrations.llama_index import CandidateLLM, MixLLM
from mixllm_integrations.testing import ScriptedLLM

WHOLE = ("predict", "apredict")
MODES = (*WHOLE, "stream", "astream")
ASKED = PromptTemplate("What is {candidate}?")
PRICES = {"input_cost_per_million_tokens": 1.0, "output_cost_per_million_tokens": 2.0}


class Shouted(BaseOutputParser):
    """Asks for what it parses."""

    def parse(self, output):
        if "!" not in output:
            raise ValueError("nobody shouted")
        return output.removesuffix("!")

    def format(self, query):
        return f"{query} Shout."


class Bare(ScriptedLLM):
    """An LLM without LlamaIndex's callbacks, so none that can be heard."""

    def chat(self, messages, **kwargs):
        return self._whole(*self._asked("chat", messages, kwargs), messages)


class Silent(ScriptedLLM):
    """An LLM whose streams end before anything is said."""

    def stream(self, prompt, **prompt_args):
        return iter(())


class Opening(ScriptedLLM):
    """An LLM that only opens its streams, and fails then."""

    def stream(self, prompt, **prompt_args):
        yield ""
        raise TimeoutError

    async def astream(self, prompt, **prompt_args):
        async def pieces():
            for piece in self.stream(prompt):
                yield piece

        return pieces()


def entry(name, quality=0.5, kind=ScriptedLLM, **script):
    llm = kind(model=name, **{"answers": [f"{name} answers"], **script})
    return CandidateLLM(llm=llm, name=name, prior_quality=quality, **PRICES)


def routed(*entries, **settings):
    llm = MixLLM(entries, willingness_to_pay=1.0, **settings)
    llm.router.exploration = 0.0
    return llm


def ask(llm, mode, prompt=ASKED, **given):
    async def collect():
        said = await getattr(llm, mode)(prompt, **given)
        return [piece async for piece in said] if mode == "astream" else [said]

    if mode.startswith("a"):
        return "".join(asyncio.run(collect()))
    return "".join(getattr(llm, mode)(prompt, **given))


def asked_of(llm, name):
    """What it was asked at last: roles and texts."""
    _, messages, _ = llm.seat(name).llm.calls[-1]
    return [(message.role.value, message.content) for message in messages]


@pytest.mark.parametrize("mode", MODES)
class TestEveryWay:
    def test_each_llm_keeps_the_system_prompt_that_it_was_made_with(self, mode):
        llm = routed(
            entry("terse", system_prompt="Be terse."),
            entry("german", system_prompt="Auf Deutsch."),
        )
        for name, told in (("terse", "Be terse."), ("german", "Auf Deutsch.")):
            with llm.asking(candidate=name):
                assert ask(llm, mode, candidate="x") == f"{name} answers"
            assert asked_of(llm, name) == [("system", told), ("user", "What is x?")]

    def test_a_system_prompt_for_all_goes_to_each(self, mode):
        llm = routed(entry("one", system_prompt="own"), system_prompt="all {x}")
        ask(llm, mode, candidate="x")
        told = [("system", "own"), ("system", "all {x}"), ("user", "What is x?")]
        assert asked_of(llm, "one") == told

    def test_a_completion_model_fills_the_form_that_it_was_trained_on(self, mode):
        llm = routed(
            entry(
                "old",
                is_chat_model=False,
                completion_to_prompt=lambda text: f"[INST] {text} [/INST]",
            ),
            entry("new"),
        )
        with llm.asking(candidate="old"):
            ask(llm, mode, candidate="x")
        assert asked_of(llm, "old") == [("user", "[INST] What is x? [/INST]")]
        with llm.asking(candidate="new"):
            ask(llm, mode, candidate="x")
        ((method, _, _),) = llm.seat("new").llm.calls
        assert method == {
            "predict": "chat",
            "apredict": "achat",
            "stream": "stream_chat",
            "astream": "astream_chat",
        }.get(mode)

    def test_a_prompt_that_selects_is_asked_for_each_llm(self, mode):
        prompt = SelectorPromptTemplate(
            default_template=PromptTemplate("text"),
            conditionals=[(is_chat_model, PromptTemplate("chat"))],
        )
        llm = routed(entry("old", is_chat_model=False), entry("new"))
        for name, text in (("old", "text"), ("new", "chat")):
            with llm.asking(candidate=name):
                ask(llm, mode, prompt)
            assert asked_of(llm, name) == [("user", text)]

    def test_what_it_took_is_what_the_llm_says(self, mode):
        llm = routed(entry("one", usage=(1_000, 100)))
        with llm.asking() as asked:
            ask(llm, mode, candidate="x")
        (record,) = asked.records
        # 1 and 2 USD for a million tokens
        assert record["cost"] == pytest.approx(0.001 + 0.0002)
        assert llm.record_feedback(asked, 1.0)

    def test_another_one_takes_over_before_anything_was_said(self, mode):
        llm = routed(entry("bad", 0.9, errors=[TimeoutError()]), entry("good", 0.1))
        with llm.asking() as asked:
            assert ask(llm, mode, candidate="x") == "good answers"
        (record,) = asked.records
        assert [a["candidate"] for a in record["attempts"]] == ["bad"]

    def test_a_dry_run_explains_and_asks_nobody(self, mode):
        llm = routed(entry("one"))
        with llm.asking(dry_run=True):
            assert "one" in ask(llm, mode, candidate="x")
        assert llm.seat("one").llm.calls == []

    def test_braces_of_what_was_filled_in_stay(self, mode):
        text = "{json: {a}} {candidate} {{b}}"
        llm = routed(entry("one"))
        ask(llm, mode, candidate=text)
        llm.system_prompt = "all"
        ask(llm, mode, candidate=text)
        for _, messages, _ in llm.seat("one").llm.calls:
            assert messages[-1].content == f"What is {text}?"

    def test_reasoning_of_another_provider_is_left_out_of_a_history(self, mode):
        record = {"decision_id": "d", "candidate": "one"}
        said = ChatMessage(
            role="assistant",
            blocks=[ThinkingBlock(content="hm"), TextBlock(text="4 {x}")],
            additional_kwargs={"mixllm": record},
        )
        prompt = ChatPromptTemplate(message_templates=[said, ChatMessage("{q}")])
        llm = routed(entry("one"), entry("two"))
        for name, count in (("one", 2), ("two", 1)):
            with llm.asking(candidate=name):
                ask(llm, mode, prompt, q="sure?")
            ((_, messages, _),) = llm.seat(name).llm.calls
            assert len(messages[0].blocks) == count
            assert [m.content for m in messages] == ["4 {x}", "sure?"]
            assert "mixllm" not in messages[0].additional_kwargs

    def test_it_is_told_of_once(self, mode):
        class Told(BaseEventHandler):
            spans: list = []  # noqa: RUF012 - pydantic copies it

            def handle(self, event, **kwargs):
                if isinstance(event, LLMPredictStartEvent):
                    self.spans.append(event.tags["mixllm.candidate"])

        told, root = Told(), get_dispatcher()
        root.add_event_handler(told)
        try:
            ask(routed(entry("one")), mode, candidate="x")
        finally:
            root.event_handlers.remove(told)
        assert told.spans == ["one"]


@pytest.mark.parametrize("mode", WHOLE)
class TestParsers:
    def test_one_for_all_asks_for_what_it_parses(self, mode):
        llm = routed(entry("one", answers=["4!"]), output_parser=Shouted())
        assert ask(llm, mode, candidate="x") == "4"
        assert asked_of(llm, "one") == [("user", "What is x? Shout.")]

    def test_what_an_llms_own_cannot_parse_is_raised_and_paid(self, mode):
        llm = routed(
            entry("one", 0.9, output_parser=Shouted(), usage=(10, 5)),
            entry("two", 0.1),
        )
        with llm.asking() as asked, pytest.raises(ValueError, match="nobody shouted"):
            ask(llm, mode, candidate="x")
        assert asked.record["cost"] == pytest.approx(20e-6)
        assert llm.seat("two").llm.calls == []


@pytest.mark.parametrize("mode", ["stream", "astream"])
def test_no_stream_is_parsed(mode):
    class Total(BaseModel):
        """A sum."""

        value: int

    own = PromptTemplate("?", output_parser=PydanticOutputParser(Total))
    for llm, prompt in (
        (routed(entry("one")), own),
        (routed(entry("one"), output_parser=Shouted()), PromptTemplate("?")),
    ):
        with pytest.raises(NotImplementedError, match="output parser"):
            ask(llm, mode, prompt)
        assert llm.seat("one").llm.calls == []


@pytest.mark.parametrize("mode", ["stream", "astream"])
def test_a_stream_that_was_only_opened_has_not_begun(mode):
    llm = routed(entry("bad", 0.9, kind=Opening), entry("good", 0.1))
    assert ask(llm, mode, candidate="x") == "good answers"


def test_an_llm_that_cannot_be_heard_is_counted_by_its_text():
    llm = routed(entry("one", kind=Bare, answers=["word " * 100]))
    with llm.asking() as asked:
        ask(llm, "predict", candidate="x")
    assert asked.record["cost"] > 100 * 2e-6


def test_no_text_is_a_text_and_not_what_cannot_be_parsed():
    llm = routed(entry("one", kind=Silent))
    with llm.asking() as asked:
        assert ask(llm, "stream", candidate="x") == ""
    assert llm.record_signal(asked, "parse_failure")  # so it was not told before


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("completion_to_prompt", str.upper),
        ("messages_to_prompt", str),
        ("query_wrapper_prompt", PromptTemplate("{query_str}")),
    ],
)
def test_the_form_of_one_model_is_not_for_all(name, form):
    with pytest.raises(ConfigurationError, match=f"{name}.*own LLMs"):
        routed(entry("one"), **{name: form})
    llm = routed(entry("one"))
    with pytest.raises(ConfigurationError, match=name):
        setattr(llm, name, form)


def test_the_way_to_objects_that_settings_assign_reaches_the_candidates(monkeypatch):
    mode = PydanticProgramMode.LLM
    llm = routed(entry("one"))
    monkeypatch.setattr(Settings, "_llm", llm, raising=False)
    Settings.pydantic_program_mode = mode
    llm.candidates = [*llm.candidates, entry("two")]
    passed = routed(entry("three"), pydantic_program_mode=mode)
    seats = [llm.seat("one"), llm.seat("two"), passed.seat("three")]
    assert [seat.llm.pydantic_program_mode for seat in seats] == [mode] * 3
    Settings.pydantic_program_mode = PydanticProgramMode.DEFAULT
    assert seats[0].llm.pydantic_program_mode is PydanticProgramMode.DEFAULT


def test_a_way_to_objects_of_ones_own_outlives_a_copy_by_its_settings():
    one = entry("one", pydantic_program_mode=PydanticProgramMode.LLM)
    again = MixLLM.from_dict(routed(one).to_dict(), candidates=[one])
    again.candidates = [*again.candidates]
    assert again.seat("one").llm.pydantic_program_mode is PydanticProgramMode.LLM
