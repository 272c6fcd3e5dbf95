"""LlamaIndex's handlers see each call once, and where it went."""

import asyncio

import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler

from mixllm_integrations.llama_index import CandidateLLM, MixLLM, MixLLMRoutingEvent
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


def candidate(name="one", quality=0.5, **script):
    return CandidateLLM(
        llm=ScriptedLLM(model=name, **script),
        input_cost_per_million_tokens=1.0,
        output_cost_per_million_tokens=1.0,
        prior_quality=quality,
    )


def ask(llm, mode):
    given = (
        [ChatMessage(role="user", content="my secret diagnosis")]
        if "chat" in mode
        else "my secret diagnosis"
    )

    async def collect():
        answer = await getattr(llm, mode)(given)
        return [chunk async for chunk in answer] if "stream" in mode else [answer]

    if mode.startswith("a"):
        return asyncio.run(collect())
    answer = getattr(llm, mode)(given)
    return list(answer) if "stream" in mode else [answer]


class Collector(BaseEventHandler):
    seen: list = []  # noqa: RUF012 - pydantic copies it

    @classmethod
    def class_name(cls):
        return "Collector"

    def handle(self, event, **kwargs):
        self.seen.append(event)

    def of(self, *names):
        return [e for e in self.seen if e.class_name() in names]


@pytest.fixture
def events():
    root = get_dispatcher()
    collector = Collector()
    root.add_event_handler(collector)
    yield collector
    root.event_handlers.remove(collector)


@pytest.fixture
def spans():
    root = get_dispatcher()
    handler = SimpleSpanHandler()
    root.add_span_handler(handler)
    yield handler
    root.span_handlers.remove(handler)


def counter():
    return TokenCountingHandler(tokenizer=str.split)


class TestTokens:
    @pytest.mark.parametrize("mode", MODES)
    def test_they_are_counted_once_and_as_the_bare_llm_counts_them(self, mode):
        counts = []
        for wrap in (lambda entry: entry.llm, lambda entry: MixLLM([entry])):
            handler = counter()
            llm = wrap(candidate(answers=["it is four"], usage=(10, 3)))
            llm.callback_manager = CallbackManager([handler])
            ask(llm, mode)
            counts.append(
                (
                    len(handler.llm_token_counts),
                    handler.prompt_llm_token_count,
                    handler.completion_llm_token_count,
                )
            )
        assert counts[0] == counts[1] == (1, 10, 3)

    def test_a_manager_given_to_the_constructor_reaches_every_candidate(self):
        handler = counter()
        manager = CallbackManager([handler])
        one, two = candidate("one"), candidate("two", quality=0.9)
        llm = MixLLM([one, two], callback_manager=manager)
        assert llm.callback_manager is one.llm.callback_manager is manager
        llm.complete("hello")
        two.llm.complete("hello")
        assert len(handler.llm_token_counts) == 2

    def test_without_one_each_candidate_keeps_its_own(self):
        manager = CallbackManager([counter()])
        chosen = candidate()
        chosen.llm.callback_manager = manager
        MixLLM([chosen])
        assert chosen.llm.callback_manager is manager

    def test_the_manager_of_the_settings_reaches_the_candidates(self, monkeypatch):
        for name in ("_llm", "_callback_manager"):
            monkeypatch.setattr(Settings, name, None)
        handler = counter()
        Settings.callback_manager = CallbackManager([handler])
        Settings.llm = MixLLM([candidate(usage=(10, 3))])
        Settings.llm.complete("hello")
        assert handler.total_llm_token_count == 13


class TestEvents:
    @pytest.mark.parametrize("mode", MODES)
    def test_each_of_llamaindex_is_seen_once(self, events, mode):
        ask(MixLLM([candidate(answers=["it is four"])]), mode)
        kind = "Chat" if "chat" in mode else "Completion"
        assert len(events.of(f"LLM{kind}StartEvent")) == 1
        assert len(events.of(f"LLM{kind}EndEvent")) == 1
        in_progress = events.of(f"LLM{kind}InProgressEvent")
        assert len(in_progress) == (3 if "stream" in mode else 0)

    @pytest.mark.parametrize("mode", MODES)
    def test_ours_tells_the_decision_before_the_llm_starts(self, events, mode):
        llm = MixLLM(
            [candidate("one", 0.4), candidate("two", 0.9)], willingness_to_pay=1.0
        )
        answer = ask(llm, mode)[-1]
        names = [event.class_name() for event in events.seen]
        (ours,) = events.of("MixLLMRoutingEvent")
        start = next(n for n in names if n.endswith("StartEvent") and "LLM" in n)
        assert names.index("MixLLMRoutingEvent") < names.index(start)
        record = answer.additional_kwargs["mixllm"]
        assert isinstance(ours, MixLLMRoutingEvent)
        assert ours.decision_id == record["decision_id"]
        assert ours.candidate == "two"
        assert ours.predicted_quality == record["predicted_quality"]
        assert ours.scores["two"] > ours.scores["one"]
        assert ours.attempt == 1
        assert "diagnosis" not in ours.model_dump_json()

    @pytest.mark.parametrize("mode", MODES)
    def test_each_attempt_has_one_of_its_own(self, events, mode):
        llm = MixLLM(
            [candidate("one", 0.4), candidate("two", 0.9, errors=[TimeoutError()])],
            willingness_to_pay=1.0,
        )
        ask(llm, mode)
        ours = events.of("MixLLMRoutingEvent")
        assert [(e.candidate, e.attempt) for e in ours] == [("two", 1), ("one", 2)]

    def test_excluded_candidates_are_named_with_the_reason(self, events):
        narrow = CandidateLLM(
            llm=ScriptedLLM(model="narrow", context_window=5),
            input_cost_per_million_tokens=0.0,
            output_cost_per_million_tokens=0.0,
        )
        MixLLM([narrow, candidate()]).complete("word " * 50)
        (ours,) = events.of("MixLLMRoutingEvent")
        assert set(ours.excluded) == {"narrow"}
        assert set(ours.scores) == {"one"}

    def test_feedback_is_taken_for_an_event(self, events):
        llm = MixLLM([candidate()])
        llm.complete("hello")
        (ours,) = events.of("MixLLMRoutingEvent")
        assert llm.record_feedback(ours, 1.0)
        assert not llm.record_feedback(ours, 1.0)

    @pytest.mark.parametrize("mode", MODES)
    def test_a_handler_keeps_the_answer_as_the_llm_gave_it(self, events, mode):
        ask(MixLLM([candidate()]), mode)
        (end,) = events.of("LLMChatEndEvent", "LLMCompletionEndEvent")
        assert "mixllm" not in end.response.additional_kwargs


class TestSpans:
    @pytest.mark.parametrize("mode", MODES)
    def test_the_llms_span_and_our_event_are_inside_ours(self, events, spans, mode):
        ask(MixLLM([candidate()]), mode)
        outer, inner = (
            next(s for s in spans.completed_spans if s.id_.startswith(f"{kind}.{mode}"))
            for kind in ("MixLLM", "ScriptedLLM")
        )
        assert inner.parent_id == outer.id_
        (ours,) = events.of("MixLLMRoutingEvent")
        assert ours.span_id == outer.id_
