"""LlamaIndex's handlers see each call once, and where it went."""

import asyncio
import uuid

import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index_instrumentation.dispatcher import instrument_tags

from mixllm_integrations import ConfigurationError, UnknownDecisionError
from mixllm_integrations.llama_index import CandidateLLM, MixLLM, MixLLMRoutingEvent
from mixllm_integrations.llama_index.request import Request
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


class TestTags:
    @pytest.mark.parametrize("mode", MODES)
    def test_the_decision_is_on_the_llms_spans_and_events(self, events, spans, mode):
        answer = ask(MixLLM([candidate()]), mode)[-1]
        told = {
            "mixllm.decision_id": answer.additional_kwargs["mixllm"]["decision_id"],
            "mixllm.candidate": "one",
        }
        kind = "Chat" if "chat" in mode else "Completion"
        seen = events.of(*(f"LLM{kind}{at}Event" for at in ("Start", "End")))
        seen += events.of(f"LLM{kind}InProgressEvent")
        assert [event.tags for event in seen] == [told] * len(seen)
        inner = next(
            s for s in spans.completed_spans if s.id_.startswith(f"ScriptedLLM.{mode}")
        )
        assert inner.tags == told

    def test_tags_of_the_application_stay(self, events):
        with instrument_tags({"tenant": "a"}):
            MixLLM([candidate()]).complete("hello")
        tags = [event.tags["tenant"] for event in events.seen]
        assert tags == ["a"] * len(events.seen)
        MixLLM([candidate()]).complete("hello")
        assert "tenant" not in events.seen[-1].tags


class TestFeedback:
    @pytest.mark.parametrize(
        "meant",
        [
            lambda events: events.of("MixLLMRoutingEvent")[0].id_,
            lambda events: events.of("MixLLMRoutingEvent")[0].span_id,
            lambda events: events.of("LLMCompletionEndEvent")[0],
            lambda events: events.of("MixLLMRoutingEvent")[0].decision_id,
        ],
        ids=["event id", "span id", "an event of the LLM", "decision id"],
    )
    def test_it_is_taken_for_what_names_the_call(self, events, meant):
        llm = MixLLM([candidate()])
        answer = llm.complete("hello")
        assert llm.record_feedback(meant(events), 1.0)
        assert not llm.record_feedback(answer, 1.0)

    def test_a_signal_is_taken_for_them_too(self, events):
        llm = MixLLM([candidate()])
        llm.complete("hello")
        (ours,) = events.of("MixLLMRoutingEvent")
        assert llm.record_signal(ours, "regenerate")
        assert not llm.record_signal(ours.id_, "regenerate")

    def test_an_event_of_another_llm_is_refused(self, events):
        candidate().llm.complete("hello")
        with pytest.raises(ConfigurationError, match="LLMCompletionEndEvent"):
            MixLLM([candidate()]).record_feedback(events.seen[-1], 1.0)

    def test_an_unknown_event_is_refused(self):
        with pytest.raises(UnknownDecisionError):
            MixLLM([candidate()]).record_feedback(str(uuid.uuid4()), 1.0)

    @pytest.mark.parametrize("span", ["my-span", None])
    def test_a_span_of_any_name_does_no_harm(self, span):
        token = active_span_id.set(span)
        llm = MixLLM([candidate()])
        request = Request(llm, [ChatMessage("hello")], {})
        request.note_run("d")
        active_span_id.reset(token)
        assert len(llm.run_ids) == 0
