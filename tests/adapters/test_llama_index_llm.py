"""`MixLLM` answers, streams, fails over and learns like one LLM."""

import asyncio
import copy
import gc
import pickle
import threading

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ImageBlock,
    MessageRole,
    TextBlock,
)
from llama_index.core.llms import LLM, MockLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.rate_limiter import BaseRateLimiter

from mixllm_integrations import (
    Candidate,
    ConfigurationError,
    NoCandidateError,
    Router,
    UnknownDecisionError,
)
from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.llama_index import CandidateLLM, MixLLM
from mixllm_integrations.serving import RoutedCall
from mixllm_integrations.store import open_store
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
STREAMS = tuple(mode for mode in MODES if "stream" in mode)
RECORD_KEYS = {
    "decision_id",
    "candidate",
    "predicted_quality",
    "predicted_cost",
    "cost",
    "willingness_to_pay",
    "attempts",
}
QUALITY_FIRST = 1.0  # a dollar for a point of quality: the prices do not matter
COST_FIRST = 1e-9
FREE = {"input_cost_per_million_tokens": 0.0, "output_cost_per_million_tokens": 0.0}


def entry(name, input_price, output_price, quality, **script):
    return CandidateLLM(
        llm=ScriptedLLM(model=f"{name}-model", **script),
        name=name,
        input_cost_per_million_tokens=input_price,
        output_cost_per_million_tokens=output_price,
        prior_quality=quality,
    )


def small(**script):
    return entry("small", 0.1, 0.4, 0.5, **script)


def large(**script):
    return entry("large", 10.0, 40.0, 0.9, **script)


def user(text):
    return [ChatMessage(role="user", content=text)]


def ask(llm, mode, text="What is 2 + 2?", **kwargs):
    """Every response or chunk of one call, whatever the mode."""
    given = user(text) if "chat" in mode else text

    async def collect():
        answer = await getattr(llm, mode)(given, **kwargs)
        if mode in STREAMS:
            return [chunk async for chunk in answer]
        return [answer]

    if mode.startswith("a"):
        return asyncio.run(collect())
    answer = getattr(llm, mode)(given, **kwargs)
    return list(answer) if mode in STREAMS else [answer]


def text_of(response):
    if isinstance(response, CompletionResponse):
        return response.text
    return response.message.content


def record_of(response):
    return response.additional_kwargs["mixllm"]


def load(llm):
    """How many calls the router believes to be under way, by candidate."""
    decision = llm.router.route("probe")
    llm.router.record_outcome(decision.id, _outcome())
    return {n: p.waiting_seconds for n, p in decision.scores.items()}


def _outcome():
    from mixllm_integrations import Outcome

    return Outcome(1, 1)


class TestEveryWayOfAsking:
    @pytest.mark.parametrize("mode", MODES)
    def test_the_better_candidate_answers_when_quality_is_worth_it(self, mode):
        cheap, dear = small(answers=["three"]), large(answers=["it is four"])
        llm = MixLLM([cheap, dear], willingness_to_pay=QUALITY_FIRST)
        responses = ask(llm, mode)
        assert text_of(responses[-1]) == "it is four"
        assert [name for name, _, _ in dear.llm.calls] == [mode]
        assert cheap.llm.calls == []

    @pytest.mark.parametrize("mode", MODES)
    def test_the_cheaper_candidate_answers_when_it_is_not(self, mode):
        cheap, dear = small(answers=["three"]), large(answers=["it is four"])
        llm = MixLLM([cheap, dear], willingness_to_pay=COST_FIRST)
        assert text_of(ask(llm, mode)[-1]) == "three"
        assert dear.llm.calls == []

    @pytest.mark.parametrize("mode", MODES)
    def test_the_record_is_on_every_response_and_its_message(self, mode):
        llm = MixLLM([small(), large(answers=["it is four"])], willingness_to_pay=1.0)
        responses = ask(llm, mode)
        assert len(responses) == (3 if mode in STREAMS else 1)
        for response in responses:
            record = record_of(response)
            assert set(record) == RECORD_KEYS
            assert record["candidate"] == "large"
            assert record["predicted_quality"] == pytest.approx(0.9, abs=0.05)
            assert record["willingness_to_pay"] == 1.0
            assert record["attempts"] == []
            if isinstance(response, ChatResponse):
                assert response.message.additional_kwargs["mixllm"] == record

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("place", ["raw", "additional_kwargs"])
    def test_the_cost_is_that_of_the_reported_tokens(self, mode, place):
        script = {"answers": ["it is four"], "usage": (900, 25), "reports_usage": place}
        llm = MixLLM([large(**script)])
        # 900 tokens at 10 USD and 25 at 40 USD per million
        assert record_of(ask(llm, mode)[-1])["cost"] == pytest.approx(0.01)

    @pytest.mark.parametrize("mode", MODES)
    def test_without_reported_tokens_the_cost_is_estimated(self, mode):
        llm = MixLLM([large(answers=["it is four"], reports_usage=None)])
        cost = record_of(ask(llm, mode)[-1])["cost"]
        # "What is 2 + 2?" has 5 to 12 tokens, "it is four" 3 to 6
        assert 5 * 10e-6 + 3 * 40e-6 <= cost <= 12 * 10e-6 + 6 * 40e-6

    @pytest.mark.parametrize("mode", MODES)
    def test_arguments_of_the_call_reach_the_candidate_untouched(self, mode):
        chosen = large()
        ask(MixLLM([chosen]), mode, temperature=0.3)
        ((_, messages, kwargs),) = chosen.llm.calls
        assert messages == user("What is 2 + 2?")
        assert kwargs["temperature"] == 0.3

    def test_a_formatted_prompt_stays_formatted(self):
        chosen = large()
        llm = MixLLM([chosen])
        llm.complete("<s>hello", formatted=True)
        llm.complete("<s>hello", True)  # noqa: FBT003 - legal in LlamaIndex
        list(llm.stream_complete("<s>hello", True))  # noqa: FBT003
        assert [kwargs["formatted"] for _, _, kwargs in chosen.llm.calls] == [True] * 3

    @pytest.mark.parametrize("mode", STREAMS)
    def test_a_stream_hands_the_chunks_on_as_they_are(self, mode):
        chunks = ask(MixLLM([large(answers=["it is four"])]), mode)
        assert [chunk.delta for chunk in chunks] == ["it ", "is ", "four"]
        assert [text_of(c) for c in chunks] == ["it ", "it is ", "it is four"]

    @pytest.mark.parametrize("mode", ["stream_chat", "astream_chat"])
    def test_a_stream_that_says_nothing_is_an_answer(self, mode):
        class Silent(ScriptedLLM):
            def _chunks(self, answer, error, messages):
                return iter(())

        chosen = CandidateLLM(
            llm=Silent(),
            input_cost_per_million_tokens=1.0,
            output_cost_per_million_tokens=1.0,
        )
        assert ask(MixLLM([chosen]), mode) == []

    @pytest.mark.parametrize("text", ["", "   ", "x " * 100_000])
    def test_any_text_is_routed(self, text):
        assert text_of(MixLLM([large()]).complete(text)) == text

    def test_a_conversation_without_messages_reaches_the_candidate(self):
        chosen = large(answers=["hello"])
        assert text_of(MixLLM([chosen]).chat([])) == "hello"
        assert chosen.llm.calls == [("chat", [], {})]


class TestWhatIsRouted:
    def test_query_from_replaces_the_text_but_not_the_length(self):
        asked = []
        prompts = "word", "word " * 400
        costs = []
        for prompt in prompts:  # each anew: a router learns how long prompts are
            llm = MixLLM(
                [small()], query_from=lambda said: asked.append(said) or "a sum"
            )
            costs.append(record_of(llm.complete(prompt))["predicted_cost"])
        given = [(m.role, m.content) for (m,) in asked]
        assert given == [(MessageRole.USER, prompt) for prompt in prompts]
        # 399 more words at 0.1 USD per million
        assert costs[1] - costs[0] == pytest.approx(399 * 0.1e-6, rel=0.01)

    def test_the_whole_thread_counts_for_the_predicted_cost(self):
        llm = MixLLM([large()])
        thread = [
            ChatMessage(role="system", content="Be brief. " * 200),
            *user("hello"),
        ]
        short = record_of(llm.chat(user("hello")))["predicted_cost"]
        long = record_of(llm.chat(thread))["predicted_cost"]
        assert long - short > 400 * 10e-6  # "Be brief. " is at least two tokens

    def test_a_prompt_longer_than_a_window_goes_to_a_larger_one(self):
        narrow = CandidateLLM(
            llm=ScriptedLLM(model="narrow", context_window=100),
            input_cost_per_million_tokens=0.0,
            output_cost_per_million_tokens=0.0,
        )
        llm = MixLLM([narrow, large()], willingness_to_pay=COST_FIRST)
        assert record_of(llm.complete("short"))["candidate"] == "narrow"
        assert record_of(llm.complete("word " * 300))["candidate"] == "large"

    def test_images_go_to_a_candidate_that_sees(self):
        blind = CandidateLLM(
            llm=ScriptedLLM(model="blind"),
            input_cost_per_million_tokens=0.0,
            output_cost_per_million_tokens=0.0,
            vision=False,
        )
        llm = MixLLM([blind, large(answers=["a cat"])], willingness_to_pay=COST_FIRST)
        blocks = [TextBlock(text="What is it?"), ImageBlock(image=b"png")]
        seen = llm.chat([ChatMessage(role="user", blocks=blocks)])
        assert record_of(seen)["candidate"] == "large"
        assert record_of(llm.chat(user("What is it?")))["candidate"] == "blind"

    def test_history_goes_back_without_our_record(self):
        chosen = large(answers=["four", "because"])
        llm = MixLLM([chosen])
        first = llm.chat(user("What is 2 + 2?"))
        history = [*user("What is 2 + 2?"), first.message, *user("Why?")]
        llm.chat(history)
        _, sent, _ = chosen.llm.calls[1]
        assert [message.additional_kwargs for message in sent] == [{}, {}, {}]
        assert history[1].additional_kwargs["mixllm"] == record_of(first)


class TestFailover:
    @pytest.mark.parametrize("mode", MODES)
    def test_the_next_best_answers_before_the_first_chunk(self, mode):
        dear = large(errors=[TimeoutError("slow")])
        llm = MixLLM([small(answers=["four"]), dear], willingness_to_pay=1.0)
        responses = ask(llm, mode)
        assert text_of(responses[-1]) == "four"
        record = record_of(responses[-1])
        assert record["candidate"] == "small"
        (attempt,) = record["attempts"]
        assert (attempt["candidate"], attempt["error"]) == ("large", "TimeoutError")
        assert attempt["decision_id"] != record["decision_id"]

    @pytest.mark.parametrize("mode", MODES)
    def test_the_failed_one_is_left_out_for_a_while(self, mode):
        dear = large(errors=[TimeoutError("slow")])
        llm = MixLLM([small(), dear], willingness_to_pay=1.0)
        ask(llm, mode)
        again = record_of(ask(llm, mode)[-1])
        assert (again["candidate"], again["attempts"]) == ("small", [])
        assert len(dear.llm.calls) == 1

    @pytest.mark.parametrize("mode", STREAMS)
    def test_after_the_first_chunk_the_error_is_raised(self, mode):
        error = ConnectionError("cut")
        dear = large(answers=["it is four"], errors=[error], error_after_chunks=1)
        cheap = small()
        llm = MixLLM([cheap, dear], willingness_to_pay=1.0)
        with pytest.raises(ConnectionError) as caught:
            ask(llm, mode)
        assert caught.value is error
        assert cheap.llm.calls == []
        # and it cools down, so that the next call is not cut as well
        assert record_of(ask(llm, mode)[-1])["candidate"] == "small"

    @pytest.mark.parametrize("mode", MODES)
    def test_if_all_fail_each_error_is_raised(self, mode):
        errors = TimeoutError("slow"), ConnectionError("gone")
        llm = MixLLM(
            [small(errors=[errors[0]]), large(errors=[errors[1]])],
            willingness_to_pay=1.0,
        )
        with pytest.raises(ExceptionGroup, match=r"'large'.*'small'") as caught:
            ask(llm, mode)
        assert caught.value.exceptions == (errors[1], errors[0])

    @pytest.mark.parametrize("mode", MODES)
    def test_a_single_candidates_error_stays_itself_with_its_cause(self, mode):
        cause = OSError("refused")
        error = ConnectionError("gone")
        error.__cause__ = cause
        with pytest.raises(ConnectionError) as caught:
            ask(MixLLM([large(errors=[error])]), mode)
        assert caught.value is error
        assert caught.value.__cause__ is cause

    @pytest.mark.parametrize("mode", MODES)
    def test_a_callers_mistake_is_not_repeated(self, mode):
        class BadRequestError(Exception):
            status_code = 400

        cheap = small()
        llm = MixLLM([cheap, large(errors=[BadRequestError()])], willingness_to_pay=1.0)
        with pytest.raises(BadRequestError):
            ask(llm, mode)
        assert cheap.llm.calls == []

    def test_the_history_is_the_same_for_each_that_is_asked(self):
        dear, cheap = large(errors=[TimeoutError()]), small()
        llm = MixLLM([cheap, dear], willingness_to_pay=1.0)
        llm.chat(user("hello"))
        assert dear.llm.calls[0][1] == cheap.llm.calls[0][1] == user("hello")


class TestLoad:
    def pool(self, **script):
        chosen = CandidateLLM(
            llm=ScriptedLLM(**script),
            name="one",
            input_cost_per_million_tokens=1.0,
            output_cost_per_million_tokens=1.0,
            time_to_first_token_seconds=1.0,
            seconds_per_output_token=0.1,
            max_concurrency=1,
        )
        return MixLLM([chosen])

    @pytest.mark.parametrize("mode", MODES)
    def test_an_answered_call_is_no_load_any_more(self, mode):
        llm = self.pool()
        ask(llm, mode)
        assert load(llm) == {"one": 0.0}

    def test_a_failed_call_is_no_load_any_more(self):
        llm = self.pool(errors=[TimeoutError()])
        with pytest.raises(TimeoutError):
            llm.complete("hello")
        assert load(llm) == {"one": 0.0}

    def test_a_stream_is_load_until_it_is_abandoned(self):
        llm = self.pool(answers=["it is four"])
        stream = llm.stream_complete("hello")
        next(stream)
        assert load(llm)["one"] > 0
        stream.close()
        assert load(llm) == {"one": 0.0}

    def test_a_stream_that_nobody_reads_is_never_routed(self):
        llm = self.pool()
        stream = llm.stream_chat(user("hello"))
        assert load(llm) == {"one": 0.0}
        del stream
        gc.collect()
        assert load(llm) == {"one": 0.0}

    async def test_a_cancelled_call_is_no_load_any_more(self):
        llm = self.pool(delay_seconds=60.0)
        task = asyncio.create_task(llm.achat(user("hello")))
        await asyncio.sleep(0.01)
        assert load(llm)["one"] > 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert load(llm) == {"one": 0.0}

    async def test_an_abandoned_async_stream_is_closed_to_the_bottom(self):
        kept = []

        class Kept(ScriptedLLM):
            async def astream_chat(self, messages, **kwargs):
                kept.append(await super().astream_chat(messages, **kwargs))
                return kept[0]

        chosen = CandidateLLM(
            llm=Kept(answers=["it is four"]),
            name="one",
            input_cost_per_million_tokens=1.0,
            output_cost_per_million_tokens=1.0,
        )
        stream = await MixLLM([chosen]).astream_chat(user("hello"))
        await anext(stream)
        assert kept[0].ag_frame is not None
        await stream.aclose()
        assert kept[0].ag_frame is None

    async def test_two_hundred_calls_at_once_are_all_answered_and_released(self):
        llm = self.pool(answers=lambda messages: f"re: {messages[0].content}")
        answers = await asyncio.gather(*(llm.acomplete(str(n)) for n in range(200)))
        assert [a.text for a in answers] == [f"re: {n}" for n in range(200)]
        assert load(llm) == {"one": 0.0}


class SlowEncoder:
    """An encoder that tells where it works, and may be held up."""

    def __init__(self):
        self._inner = StaticEncoder.load()
        self.id, self.revision = self._inner.id, self._inner.revision
        self.dimension = self._inner.dimension
        self.threads = []
        self.entered, self.open = threading.Event(), threading.Event()
        self.open.set()

    def encode(self, texts):
        self.threads.append(threading.get_ident())
        self.entered.set()
        assert self.open.wait(20.0)
        return self._inner.encode(texts)


class TestASlowEncoder:
    def pool(self, *entries, **settings):
        encoder = SlowEncoder()
        router = Router([entry.candidate for entry in entries], encoder=encoder)
        return MixLLM(entries, router=router, **settings), encoder

    @pytest.mark.parametrize("mode", [mode for mode in MODES if mode[0] == "a"])
    def test_an_event_loop_does_not_wait_for_it(self, mode):
        llm, encoder = self.pool(large(answers=["it is four"]))
        assert text_of(ask(llm, mode)[-1]) == "it is four"
        assert encoder.threads
        assert threading.get_ident() not in encoder.threads

    @pytest.mark.parametrize("mode", [mode for mode in MODES if mode[0] == "a"])
    def test_nor_where_another_candidate_steps_in(self, mode):
        down = large(errors=[TimeoutError("late")])
        llm, encoder = self.pool(small(), down, willingness_to_pay=QUALITY_FIRST)
        answer = ask(llm, mode)[-1]
        assert len(record_of(answer)["attempts"]) == 1
        assert threading.get_ident() not in encoder.threads

    async def test_a_call_that_is_cancelled_meanwhile_is_no_load(self, monkeypatch):
        chosen = CandidateLLM(
            llm=ScriptedLLM(),
            name="one",
            input_cost_per_million_tokens=1.0,
            output_cost_per_million_tokens=1.0,
            time_to_first_token_seconds=1.0,
            seconds_per_output_token=0.1,
            max_concurrency=1,
        )
        llm, encoder = self.pool(chosen)
        released = threading.Event()
        abandon = RoutedCall.abandon

        def watched(call):
            abandon(call)
            released.set()

        monkeypatch.setattr(RoutedCall, "abandon", watched)
        encoder.open.clear()
        task = asyncio.create_task(llm.acomplete("hello"))
        assert await asyncio.to_thread(encoder.entered.wait, 20.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        encoder.open.set()
        assert await asyncio.to_thread(released.wait, 20.0)
        assert load(llm) == {"one": 0.0}
        assert chosen.llm.calls == []


class TestFeedback:
    def llm(self):
        return MixLLM([large(answers=["it is four"])])

    @pytest.mark.parametrize("mode", MODES)
    def test_it_is_taken_once_for_any_answer(self, mode):
        llm = self.llm()
        answer = ask(llm, mode)[-1]
        assert llm.record_feedback(answer, 1.0)
        assert not llm.record_feedback(record_of(answer)["decision_id"], 0.0)

    def test_it_is_taken_for_a_message(self):
        llm = self.llm()
        message = llm.chat(user("hello")).message
        assert llm.record_feedback(message, 1.0, kind="binary", source="thumbs")
        assert not llm.record_feedback(message, 1.0, kind="binary")

    async def test_it_is_taken_without_blocking(self):
        llm = self.llm()
        answer = await llm.acomplete("hello")
        assert await llm.arecord_feedback(answer, 1.0)
        assert not await llm.arecord_feedback(answer, 1.0)

    def test_an_answer_of_another_llm_is_refused(self):
        other = ScriptedLLM().complete("hello")
        with pytest.raises(ConfigurationError, match="CompletionResponse"):
            self.llm().record_feedback(other, 1.0)

    def test_an_unknown_decision_is_refused(self):
        with pytest.raises(UnknownDecisionError, match="nonsense"):
            self.llm().record_feedback("nonsense", 1.0)

    def test_it_moves_the_choice(self):
        # Both are thought equally good, so the cheaper one answers, until
        # twenty bad answers show that it is not.
        bad, good = entry("bad", 0.1, 0.1, 0.7), entry("good", 0.2, 0.2, 0.7)
        llm = MixLLM([bad, good], willingness_to_pay=0.001)
        assert record_of(llm.complete("2 + 2?"))["candidate"] == "bad"
        for _ in range(20):
            answer = llm.complete("2 + 2?")
            right = record_of(answer)["candidate"] == "good"
            llm.record_feedback(answer, 1.0 if right else 0.0)
        assert record_of(llm.complete("2 + 2?"))["candidate"] == "good"


class TestStore:
    def test_decision_outcome_and_feedback_are_logged_without_the_prompt(
        self, tmp_path
    ):
        url = f"sqlite:///{tmp_path}/log.db"
        llm = MixLLM([large(answers=["it is four"], usage=(10, 2))], store=url)
        answer = llm.complete("my secret diagnosis")
        llm.record_feedback(answer, 0.5)
        with open_store(url) as store:
            events = list(store.events())
        assert [e.kind for e in events] == ["decision", "outcome", "feedback"]
        assert {e.decision_id for e in events} == {record_of(answer)["decision_id"]}
        assert events[1].payload["output_tokens"] == 2
        assert events[2].payload["reward"] == 0.5
        assert "diagnosis" not in (tmp_path / "log.db").read_bytes().decode("latin-1")


class TestConstruction:
    def test_it_is_a_function_calling_llm_by_inheritance(self):
        assert {LLM, FunctionCallingLLM} <= set(MixLLM.__mro__)
        assert isinstance(MixLLM([large()]), LLM)

    def test_no_candidate_is_an_error(self):
        with pytest.raises(NoCandidateError):
            MixLLM([])

    def test_two_candidates_with_one_name_are_an_error(self):
        with pytest.raises(ConfigurationError, match="'small'"):
            MixLLM([small(), small()])

    @pytest.mark.parametrize("odd", ["gpt-4o", 42, None, object()])
    def test_what_is_no_llm_is_an_error_that_names_its_type(self, odd):
        with pytest.raises(ConfigurationError, match=type(odd).__name__):
            MixLLM([odd])

    def test_a_given_router_gets_the_candidates_that_it_lacks_and_loses_none(self):
        router = Router([Candidate("large", 10.0, 40.0), Candidate("other", 0.0, 0.0)])
        llm = MixLLM([small(), large()], router=router, willingness_to_pay=COST_FIRST)
        assert llm.router is router
        assert {c.name for c in router.candidates} == {"small", "large", "other"}
        assert record_of(llm.complete("hello"))["candidate"] == "small"

    def test_a_candidate_that_only_the_router_knows_never_answers(self):
        llm = MixLLM([large()], willingness_to_pay=COST_FIRST)
        llm.router.add_candidate(Candidate("elsewhere", 0.0, 0.0))
        assert record_of(llm.complete("hello"))["candidate"] == "large"

    def test_a_candidate_taken_from_the_router_answers_no_more(self):
        llm = MixLLM([small(), large()], willingness_to_pay=COST_FIRST)
        llm.router.remove_candidate("small")
        assert record_of(llm.complete("hello"))["candidate"] == "large"
        llm.router.remove_candidate("large")
        with pytest.raises(NoCandidateError):
            llm.complete("hello")

    def test_the_willingness_to_pay_may_be_set_at_any_time(self):
        llm = MixLLM([small(), large()], willingness_to_pay=COST_FIRST)
        assert record_of(llm.complete("hello"))["candidate"] == "small"
        llm.willingness_to_pay = QUALITY_FIRST
        assert record_of(llm.complete("hello"))["candidate"] == "large"

    def test_a_router_may_serve_two_llms(self):
        one = MixLLM([small(), large()])
        two = MixLLM([small(), large()], router=one.router)
        assert one.record_feedback(two.complete("hello"), 1.0)


def mock_entries():
    """Return candidates that a pickle can hold."""
    return [
        CandidateLLM(
            llm=MockLLM(max_tokens=3), name=name, prior_quality=quality, **FREE
        )
        for name, quality in (("poor", 0.2), ("good", 0.9))
    ]


class TestCopies:
    @pytest.mark.parametrize(
        "copied",
        [
            copy.copy,
            copy.deepcopy,
            lambda llm: llm.model_copy(),
            lambda llm: llm.model_copy(deep=True),
            lambda llm: copy.deepcopy([llm])[0],
        ],
    )
    def test_a_copy_shares_the_llms_and_what_is_learned(self, copied):
        llm = MixLLM([small(), large()], willingness_to_pay=QUALITY_FIRST)
        other = copied(llm)
        assert other is not llm
        assert other.router is llm.router
        record = record_of(other.complete("What is 2 + 2?"))
        assert llm.record_feedback(record["decision_id"], 1.0)
        assert len(llm.candidates[1].llm.calls) == 1

    def test_a_copy_can_be_made_of_llms_that_cannot_be_copied(self):
        class Connected(ScriptedLLM):
            lock: object = None

        kept = CandidateLLM(llm=Connected(lock=threading.Lock()), name="a", **FREE)
        assert copy.deepcopy(MixLLM([kept])).complete("Hello").text

    @pytest.mark.parametrize("copied", [lambda llm: llm, copy.deepcopy])
    def test_a_pickle_has_a_router_of_its_own_with_what_was_learned(self, copied):
        llm = MixLLM(mock_entries(), cooldown_seconds=3.0, system_prompt="Be brief.")
        answer = llm.complete("hello")
        other = pickle.loads(pickle.dumps(copied(llm)))  # noqa: S301
        assert other.router is not llm.router
        assert (other.system_prompt, other.cooldown_seconds) == ("Be brief.", 3.0)
        for each in (llm, other):
            assert each.record_feedback(answer, 1.0)
        question = [f"hello {i}" for i in range(3)]
        here, there = (each.router.predict(question).quality for each in (llm, other))
        assert here.tolist() == there.tolist()

    def test_what_holds_it_takes_it_to_another_process(self):
        from llama_index.core.extractors import TitleExtractor

        held = TitleExtractor(llm=MixLLM(mock_entries()))
        other = pickle.loads(pickle.dumps(held))  # noqa: S301
        assert record_of(other.llm.complete("hello"))["candidate"] == "good"

    def test_an_opened_store_cannot_be_pickled(self, tmp_path):
        with open_store(f"sqlite:///{tmp_path.as_posix()}/events.db") as store:
            llm = MixLLM(mock_entries(), store=store)
            with pytest.raises(ConfigurationError, match=r"SQLStore.*URL"):
                pickle.dumps(llm)

    def test_a_candidate_that_cannot_be_pickled_is_named(self):
        class Tied(MockLLM):
            def __reduce__(self):
                raise TypeError("cannot pickle 'RLock' object")

        llm = MixLLM([CandidateLLM(llm=Tied(), name="tied", **FREE)])
        with pytest.raises(ConfigurationError, match=r"'tied'.*Router\.load"):
            pickle.dumps(llm)

    def test_what_it_learned_goes_on_by_way_of_the_router(self, tmp_path):
        llm = MixLLM([small(), large()], willingness_to_pay=QUALITY_FIRST)
        llm.router.save(tmp_path / "router")
        loaded = Router.load(tmp_path / "router")
        entries = [
            CandidateLLM(llm=ScriptedLLM(), name=name) for name in ("small", "large")
        ]
        again = MixLLM(entries, router=loaded)
        assert again.router.candidates == llm.router.candidates
        assert record_of(again.complete("hello"))["willingness_to_pay"] == 1.0


class Limiter(BaseRateLimiter):
    """Counts who waited for it, and how."""

    def __init__(self):
        self.waits = []

    def acquire(self, num_tokens=0):
        self.waits.append("blocking")

    async def async_acquire(self, num_tokens=0):
        self.waits.append("async")


class TestARateLimiter:
    @pytest.mark.parametrize("mode", MODES)
    def test_each_call_waits_for_it_once_however_many_fail(self, mode):
        limiter = Limiter()
        llm = MixLLM(
            [small(), large(errors=[RuntimeError("down")])],
            willingness_to_pay=QUALITY_FIRST,
            rate_limiter=limiter,
        )
        assert record_of(ask(llm, mode)[-1])["candidate"] == "small"
        assert limiter.waits == ["async" if mode.startswith("a") else "blocking"]
