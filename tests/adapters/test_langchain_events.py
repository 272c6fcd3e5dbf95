"""Streams of events: who takes over, what is released, what they show."""

import asyncio
import gc
import threading
from contextvars import ContextVar

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    UsageMetadataCallbackHandler,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.chat_model_stream import (
    AsyncChatModelStream,
    ChatModelStream,
)
from langchain_core.prompts import ChatPromptTemplate
from langchain_tests.utils.stream_lifecycle import assert_valid_event_stream

from mixllm_integrations.langchain import (
    CandidateModel,
    MixLLMCallbackHandler,
    MixLLMChatModel,
)
from mixllm_integrations.testing import ManualClock, ScriptedChatModel

DOWN = {"errors": [ConnectionError("down")]}
BREAKS = {**DOWN, "error_after_chunks": 1}


async def until(condition):
    """Wait for what happens on another task or thread."""
    async with asyncio.timeout(10.0):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def over(*models, first_waits=None, **settings):
    """Make a routed model of these, the first one the best."""
    candidates = [
        CandidateModel(
            model=model,
            name=f"number {place}",
            input_cost_per_million_tokens=1,
            output_cost_per_million_tokens=1,
            prior_quality=0.9 - 0.2 * place,
            timeout_seconds=None if place else first_waits,
        )
        for place, model in enumerate(models)
    ]
    model = MixLLMChatModel(candidates=candidates, **settings)
    model.router.exploration = 0.0
    return model


@pytest.fixture(params=["stream_events", "astream_events"])
def streamed(request):
    """Return the message and the stream of a v3 call, of both kinds."""

    async def read(model, config=None, *, prompt="q", **kwargs):
        if request.param == "stream_events":
            stream = model.stream_events(prompt, config, version="v3", **kwargs)
            return stream.output, stream
        stream = await model.astream_events(prompt, config, version="v3", **kwargs)
        return await stream, stream

    return read


@pytest.fixture(autouse=True)
def unheard():
    """Fail if a task's exception was never retrieved, or a task left behind."""
    told = []
    yield told
    assert not told


@pytest.fixture
async def clean_loop(unheard):
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unheard.append(context))
    yield
    gc.collect()
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


class Untold(ScriptedChatModel):
    """Raises as soon as a stream of events is asked for."""

    def stream_events(self, *args, **kwargs):
        raise ConnectionError("no connection")

    def astream_events(self, *args, **kwargs):
        raise ConnectionError("no connection")


class Hanging(ScriptedChatModel):
    """Says nothing until it is let go."""

    def _stream(self, *args, **kwargs):
        self.metadata["let go"].wait(10.0)
        yield from super()._stream(*args, **kwargs)


class Whole(ScriptedChatModel):
    """Returns a stream of events when all of them are there."""

    def stream_events(self, *args, **kwargs):
        stream = super().stream_events(*args, **kwargs)
        assert stream.output
        return stream

    async def astream_events(self, *args, **kwargs):
        stream = await super().astream_events(*args, **kwargs)
        await stream
        return stream


class Done(BaseCallbackHandler):
    """Tells when the run of a model has failed."""

    def __init__(self):
        self.failed = threading.Event()

    def on_llm_error(self, *args, **kwargs):
        self.failed.set()


class Eventful(ScriptedChatModel):
    """Speaks the event protocol itself."""

    events: list

    def _stream_chat_model_events(self, *args, **kwargs):
        yield from self.events

    async def _astream_chat_model_events(self, *args, **kwargs):
        for event in self.events:
            yield event


OVERLOADED = {"event": "error", "message": "overloaded"}
START = {"event": "message-start", "id": "m", "metadata": {}}


class TestBeforeTheFirstWord:
    """Another candidate takes over."""

    async def test_one_that_fails_is_replaced(
        self, pool, streamed, recorder, load_of, clean_loop
    ):
        model = pool(best=DOWN)
        message, stream = await streamed(model, {"callbacks": [recorder]})
        assert message.text == "From the second."
        record = message.response_metadata["mixllm"]
        assert record["candidate"] == "second"
        assert [(a["candidate"], a["error"]) for a in record["attempts"]] == [
            ("best", "ConnectionError")
        ]
        assert stream.done
        assert load_of(model) == 0
        assert "best" in model.dispatcher.cooldown.due()
        (chain,) = recorder.of("chain")
        assert (chain["name"], chain["ended"]) == ("MixLLM", "ok")
        runs = recorder.of("llm")
        assert [run["ended"] for run in runs] == ["ConnectionError", "ok"]
        assert {run["parent"] for run in runs} == {recorder.id_of(chain)}

    async def test_one_that_fails_when_asked_for_a_stream_is_replaced(
        self, streamed, load_of
    ):
        model = over(Untold(), ScriptedChatModel(answers=["Here."]))
        message, _ = await streamed(model)
        assert message.text == "Here."
        assert load_of(model) == 0

    async def test_one_that_says_nothing_at_all_is_replaced(self, streamed, load_of):
        model = over(Eventful(events=[]), ScriptedChatModel(answers=["Here."]))
        message, _ = await streamed(model)
        assert message.text == "Here."
        assert load_of(model) == 0

    async def test_one_that_only_opens_its_stream_is_replaced(self, streamed, load_of):
        model = over(
            Eventful(events=[START, OVERLOADED]), ScriptedChatModel(answers=["Here."])
        )
        message, _ = await streamed(model)
        assert message.text == "Here."
        (attempt,) = message.response_metadata["mixllm"]["attempts"]
        assert attempt["error"] == "RuntimeError"
        assert load_of(model) == 0

    async def test_one_that_streams_no_events_is_passed_over_without_blame(
        self, scripted_candidate, streamed, load_of
    ):
        class Silent(ScriptedChatModel):
            _stream = BaseChatModel._stream
            _astream = BaseChatModel._astream

        model = over(Silent(), ScriptedChatModel(answers=["Here."]), max_retries=0)
        message, _ = await streamed(model)
        assert message.text == "Here."
        assert not model.dispatcher.cooldown.due()
        assert load_of(model) == 0

    def test_one_that_hangs_is_replaced_and_its_run_ends_when_it_comes(
        self, recorder, load_of
    ):
        let_go, done = threading.Event(), Done()
        hanging = Hanging(metadata={"let go": let_go}, callbacks=[done])
        model = over(hanging, ScriptedChatModel(answers=["Here."]), first_waits=0.05)
        stream = model.stream_events("q", {"callbacks": [recorder]}, version="v3")
        late, other = recorder.of("llm")
        assert late["ended"] is None
        let_go.set()
        assert done.failed.wait(10.0)
        assert late["ended"] == "TimeoutError"
        assert stream.output.text == "Here."
        assert other["ended"] == recorder.named("MixLLM")[0]["ended"] == "ok"
        record = stream.output.response_metadata["mixllm"]
        assert [a["error"] for a in record["attempts"]] == ["TimeoutError"]
        assert load_of(model) == 0

    def test_with_a_limit_all_events_still_come_in_one_context(self):
        tone = ContextVar("tone", default="plain")

        class Toned(ScriptedChatModel):
            def _stream(self, *args, **kwargs):
                token = tone.set("own")
                yield from super()._stream(*args, **kwargs)
                tone.reset(token)

        model = over(Toned(answers=["Here it is."]), first_waits=30.0)
        assert model.stream_events("q", version="v3").output.text == "Here it is."
        assert tone.get() == "plain"

    async def test_one_that_hangs_is_cancelled(
        self, pool, recorder, load_of, clean_loop
    ):
        waiting = {"delay_seconds": 30.0, "facts": {"timeout_seconds": 0.05}}
        model = pool(best=waiting)
        config = {"callbacks": [recorder]}
        stream = await model.astream_events("q", config, version="v3")
        runs = recorder.of("llm")
        assert runs[0]["ended"] == "CancelledError"
        assert (await stream).text == "From the second."
        assert [run["ended"] for run in runs] == ["CancelledError", "ok"]
        assert recorder.named("MixLLM")[0]["ended"] == "ok"
        assert load_of(model) == 0
        assert "best" in model.dispatcher.cooldown.due()

    async def test_if_none_begins_the_call_itself_raises(
        self, pool, streamed, recorder, load_of, clean_loop
    ):
        model = pool(best=DOWN, second={"errors": [TimeoutError()]})
        with pytest.raises(ExceptionGroup) as caught:
            await streamed(model, {"callbacks": [recorder]})
        assert [type(error) for error in caught.value.exceptions] == [
            ConnectionError,
            TimeoutError,
        ]
        assert recorder.kinds == {"chain": 1, "llm": 2}
        assert recorder.named("MixLLM")[0]["ended"] == "ExceptionGroup"
        assert load_of(model) == 0

    async def test_if_nobody_may_take_over_the_error_is_raised(
        self, pool, streamed, asked
    ):
        model = pool(best=DOWN, max_retries=0)
        with pytest.raises(ConnectionError):
            await streamed(model)
        assert not asked(model, "second")

    async def test_tools_are_bound_to_whoever_takes_over(self, pool, streamed):
        model = pool(best=DOWN, second={"answers": None})
        message, _ = await streamed(model.bind_tools([add]), prompt="2 and 3")
        assert message.tool_calls[0]["args"] == {"a": 2, "b": 3}
        assert message.response_metadata["mixllm"]["candidate"] == "second"

    async def test_usage_is_that_of_the_one_that_answered(self, pool, streamed):
        usage, calls = UsageMetadataCallbackHandler(), MixLLMCallbackHandler()
        await streamed(pool(best=DOWN), {"callbacks": [usage, calls]})
        assert list(usage.usage_metadata) == ["second-2024"]
        assert usage.usage_metadata["second-2024"]["total_tokens"] == 12
        (report,) = calls.calls
        assert (report.candidate, report.input_tokens) == ("second", 10)

    async def test_a_choice_that_takes_long_is_made_beside_the_loop(self, pool):
        threads = []

        def query(messages):
            threads.append(threading.current_thread())
            return "q"

        model = pool(best=DOWN, query_from=query)
        begin = model.router.route
        model.router.route = lambda *given, **more: (
            threads.append(threading.current_thread()) or begin(*given, **more)
        )
        stream = await model.astream_events("q", version="v3")
        assert (await stream).text == "From the second."
        assert threading.current_thread() not in threads

    async def test_time_counts_from_the_attempt_that_answered(self, pool):
        clock = ManualClock()

        def slow(seconds, answer):
            return lambda _: clock.advance(seconds) or answer

        model = pool(
            best={**DOWN, "answers": slow(5.0, "never")},
            second={"answers": slow(2.0, "From the second.")},
        )
        model.dispatcher.clock = clock
        stream = model.stream_events("q", version="v3")
        clock.advance(3.0)
        record = stream.output.response_metadata["mixllm"]
        outcome = model.router._ledger.get(record["decision_id"]).outcome
        assert outcome.time_to_first_token_seconds == 2.0
        assert outcome.latency_seconds == 5.0


class TestRoutersInsideRouters:
    """What happens inside is no business of the outer one's."""

    @pytest.mark.parametrize(
        "failing",
        [
            ScriptedChatModel(errors=[ConnectionError("down")] * 2),
            Eventful(events=[OVERLOADED]),
        ],
    )
    async def test_the_inner_one_takes_over_first(
        self, failing, streamed, asked, load_of
    ):
        inner = over(failing, ScriptedChatModel(answers=["Inside."]))
        outer = over(inner, ScriptedChatModel())
        message, _ = await streamed(outer)
        assert message.text == "Inside."
        assert message.response_metadata["mixllm"]["attempts"] == []
        assert not asked(outer, "number 1")
        assert not outer.dispatcher.cooldown.due()
        assert load_of(inner) == load_of(outer) == 0

    async def test_the_record_is_that_of_the_outer_one(self, pool, streamed):
        outer = over(pool(), ScriptedChatModel())
        message, _ = await streamed(outer)
        assert message.response_metadata["mixllm"]["candidate"] == "number 0"
        assert outer.record_feedback(message, 1.0)

    def test_a_late_failure_inside_is_not_that_of_the_answer(self, load_of):
        let_go, done = threading.Event(), Done()
        hanging = Hanging(metadata={"let go": let_go}, callbacks=[done])
        inner = over(hanging, ScriptedChatModel(answers=["Inside."]), first_waits=0.05)
        outer = over(inner, ScriptedChatModel())
        stream = outer.stream_events("q", version="v3")
        let_go.set()
        assert done.failed.wait(10.0)
        assert load_of(outer) == 1
        assert stream.output.text == "Inside."
        assert not outer.dispatcher.cooldown.due()


class TestAfterTheFirstWord:
    """The error is the caller's to see."""

    async def test_a_failure_is_raised_and_nothing_is_repeated(
        self, pool, streamed, recorder, asked, load_of, clean_loop
    ):
        model = pool(best=BREAKS)
        with pytest.raises(ConnectionError):
            await streamed(model, {"callbacks": [recorder]})
        await until(lambda: recorder.named("MixLLM")[0]["ended"])
        assert recorder.named("MixLLM")[0]["ended"] == "ConnectionError"
        assert recorder.kinds == {"chain": 1, "llm": 1}
        assert not asked(model, "second")
        assert load_of(model) == 0
        assert "best" in model.dispatcher.cooldown.due()

    def test_what_came_before_it_can_be_read(self, pool):
        pieces = []
        stream = pool(best=BREAKS).stream_events("q", version="v3")
        with pytest.raises(ConnectionError):
            pieces.extend(stream.text)
        assert pieces == ["From"]

    async def test_an_error_event_ends_the_run(self, streamed, recorder, load_of):
        delta = {"type": "text-delta", "text": "Well"}
        said = {"event": "content-block-delta", "index": 0, "delta": delta}
        model = over(Eventful(events=[START, said, OVERLOADED]), ScriptedChatModel())
        with pytest.raises(RuntimeError, match="overloaded"):
            await streamed(model, {"callbacks": [recorder]})
        await until(lambda: recorder.named("MixLLM")[0]["ended"])
        assert recorder.named("MixLLM")[0]["ended"] == "RuntimeError"
        assert load_of(model) == 0
        assert "number 0" in model.dispatcher.cooldown.due()


class TestStreamsThatAreLeft:
    """Nothing stays behind, and nobody is blamed."""

    @pytest.mark.parametrize("read", [False, True])
    async def test_a_dropped_stream_is_released_and_its_run_ended(
        self, pool, recorder, load_of, read
    ):
        model = pool()
        stream = model.stream_events("q", {"callbacks": [recorder]}, version="v3")
        if read:
            next(iter(stream.text))
        assert load_of(model) == 1
        del stream
        gc.collect()
        await until(lambda: recorder.named("MixLLM")[0]["ended"])
        assert recorder.named("MixLLM")[0]["ended"] == "GeneratorExit"
        assert load_of(model) == 0
        assert not model.dispatcher.cooldown.due()

    async def test_the_garbage_collector_takes_no_locks(self, pool, monkeypatch):
        model, threads = pool(), []
        stream = model.stream_events("q", version="v3")
        record = model.router.record_outcome
        monkeypatch.setattr(
            model.router,
            "record_outcome",
            lambda *given: threads.append(threading.current_thread()) or record(*given),
        )
        del stream
        gc.collect()
        await until(lambda: threads)
        assert threads[0] is not threading.current_thread()

    def test_a_stream_that_was_read_is_gone_without_a_word(self, pool, recorder):
        stream = pool().stream_events("q", {"callbacks": [recorder]}, version="v3")
        assert stream.output
        before = threading.active_count()
        del stream
        gc.collect()
        assert threading.active_count() == before
        assert recorder.named("MixLLM")[0]["ended"] == "ok"

    async def test_a_closed_stream_is_released(
        self, scripted_candidate, recorder, load_of, clean_loop
    ):
        model = over(Slow())
        config = {"callbacks": [recorder]}
        async with await model.astream_events("q", config, version="v3") as stream:
            assert await anext(aiter(stream.text)) == "first"
            assert load_of(model) == 1
        assert load_of(model) == 0
        assert [r["ended"] for r in recorder.runs.values()] == ["CancelledError"] * 2
        assert not model.dispatcher.cooldown.due()

    async def test_a_call_that_is_cancelled_while_it_waits_is_released(
        self, pool, recorder, load_of, asked, clean_loop
    ):
        model = pool(best={"delay_seconds": 30.0}, second={"delay_seconds": 30.0})
        config = {"callbacks": [recorder]}

        async def call():
            await model.astream_events("q", config, version="v3")

        task = asyncio.create_task(call())
        await until(lambda: asked(model, "best"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert load_of(model) == 0
        assert [r["ended"] for r in recorder.runs.values()] == ["CancelledError"] * 2
        assert not model.dispatcher.cooldown.due()

    async def test_a_call_that_is_cancelled_before_its_run_starts_starts_no_other(
        self, pool, load_of, clean_loop
    ):
        class Starting(AsyncCallbackHandler):
            times = 0

            async def on_chat_model_start(self, *args, **kwargs):
                self.times += 1
                await asyncio.sleep(30.0)

        model, starting = pool(), Starting()
        awaited = model.astream_events("q", {"callbacks": [starting]}, version="v3")
        task = asyncio.create_task(awaited)
        await until(lambda: starting.times)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert starting.times == 1
        assert load_of(model) == 0

    async def test_a_forgotten_asynchronous_stream_goes_on_to_its_end(
        self, pool, recorder, load_of
    ):
        model = pool()
        await model.astream_events("q", {"callbacks": [recorder]}, version="v3")
        await until(lambda: recorder.named("MixLLM")[0]["ended"])
        assert recorder.named("MixLLM")[0]["ended"] == "ok"
        assert load_of(model) == 0


class Slow(ScriptedChatModel):
    """Says one word, and then nothing for long."""

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        answer = ScriptedChatModel(answers=["first second"])
        async for chunk in answer._astream(messages):
            yield chunk
            await asyncio.sleep(30.0)


class TestWhatAStreamShows:
    """As of the chosen model alone, with the record on its message."""

    def test_every_projection(self, pool, load_of, recorder):
        model = pool()
        usage = UsageMetadataCallbackHandler()
        config = {"callbacks": [recorder, usage]}
        stream = model.stream_events("q", config, version="v3")
        assert isinstance(stream, ChatModelStream)
        assert load_of(model) == 1
        assert list(stream.text) == ["From", " the", " best."]
        assert list(stream.text) == ["From", " the", " best."]
        assert str(stream.text) == "From the best."
        assert stream.tool_calls.get() == []
        assert str(stream.reasoning) == ""
        assert_valid_event_stream(list(stream))
        assert stream.output.usage_metadata["total_tokens"] == 12
        assert stream.output.response_metadata["mixllm"]["cost"] == pytest.approx(14e-6)
        assert load_of(model) == 0
        assert usage.usage_metadata["best-2024"]["total_tokens"] == 12
        assert recorder.kinds == {"chain": 1, "llm": 1}

    async def test_every_asynchronous_projection(self, pool, recorder, clean_loop):
        model = pool()
        usage = UsageMetadataCallbackHandler()
        config = {"callbacks": [recorder, usage]}
        stream = await model.astream_events("q", config, version="v3")
        assert isinstance(stream, AsyncChatModelStream)
        pieces = [piece async for piece in stream.text]
        assert pieces == ["From", " the", " best."]
        assert await stream.text == "From the best."
        assert await stream.tool_calls == []
        assert await stream.reasoning == ""
        assert_valid_event_stream([event async for event in stream])
        message = await stream.output
        assert message.usage_metadata["total_tokens"] == 12
        assert message.response_metadata["mixllm"]["cost"] == pytest.approx(14e-6)
        assert await stream is message
        assert usage.usage_metadata["best-2024"]["total_tokens"] == 12
        assert recorder.kinds == {"chain": 1, "llm": 1}

    async def test_the_runs_have_the_record_once(self, pool, streamed, recorder):
        message, _ = await streamed(pool(), {"callbacks": [recorder]})
        (chain,) = recorder.named("MixLLM")
        record = message.response_metadata["mixllm"]
        assert chain["output"]["mixllm"] == record
        assert {**chain["metadata"]["mixllm"], **record} == chain["metadata"]["mixllm"]
        assert chain["output"]["output"] is message

    async def test_an_answer_that_comes_whole_has_its_record_too(
        self, streamed, recorder, load_of
    ):
        model = over(Whole(answers=["Done."]))
        message, _ = await streamed(model, {"callbacks": [recorder]})
        assert message.response_metadata["mixllm"]["candidate"] == "number 0"
        assert recorder.named("MixLLM")[0]["ended"] == "ok"
        assert load_of(model) == 0

    async def test_tool_calls(self, pool, streamed):
        bound = pool(best={"answers": None}).bind_tools([add])
        message, stream = await streamed(bound, prompt="2 and 3")
        (call,) = message.tool_calls
        assert (call["name"], call["args"]) == ("add", {"a": 2, "b": 3})
        assert message.response_metadata["mixllm"]["candidate"] == "best"
        if isinstance(stream, ChatModelStream):
            pieces, calls = list(stream.tool_calls), stream.tool_calls.get()
        else:
            pieces = [piece async for piece in stream.tool_calls]
            calls = await stream.tool_calls
        assert "".join(piece["args"] for piece in pieces) == '{"a": 2, "b": 3}'
        assert calls[0]["id"] == call["id"]

    async def test_time_to_the_first_word_is_measured(self, pool, streamed):
        model = pool()
        message, _ = await streamed(model)
        record = message.response_metadata["mixllm"]
        outcome = model.router._ledger.get(record["decision_id"]).outcome
        assert outcome.time_to_first_token_seconds is not None

    async def test_a_dry_run_explains_and_asks_nobody(
        self, pool, streamed, asked, recorder, load_of
    ):
        model = pool()
        config = {"callbacks": [recorder], "configurable": {"dry_run": True}}
        message, stream = await streamed(model, config)
        assert "best" in message.text
        assert message.response_metadata["mixllm"]["dry_run"] is True
        assert_valid_event_stream(stream._events)
        assert not asked(model, "best")
        assert recorder.kinds == {"chain": 1}
        assert recorder.named("MixLLM")[0]["ended"] == "ok"
        assert load_of(model) == 0

    async def test_what_a_parser_cannot_stream_is_refused_as_of_every_model(
        self, pool, streamed, recorder, load_of
    ):
        model = pool()
        chat = model.with_structured_output({"title": "A", "type": "object"})
        with pytest.raises(NotImplementedError):
            await streamed(chat, {"callbacks": [recorder]})
        assert load_of(model) == 0
        assert not model.dispatcher.cooldown.due()
        assert recorder.named("MixLLM")[0]["ended"] == "NotImplementedError"

    async def test_stop_words_and_the_models_rate_limiter_hold(
        self, pool, streamed, limiter
    ):
        model = pool(rate_limiter=limiter)
        message, _ = await streamed(model, stop=[" best"])
        assert message.text == "From the"
        assert limiter.taken == 1


class TestOlderVersions:
    """One chat model's events, inside one chain's."""

    @pytest.mark.parametrize("version", ["v1", "v2"])
    @pytest.mark.filterwarnings("ignore:astream_events version='v1'")
    async def test_the_models_events_appear_once(self, pool, version):
        events = [e async for e in pool().astream_events("q", version=version)]
        of_model = [e for e in events if e["name"] == "ScriptedChatModel"]
        kinds = [e["event"] for e in of_model]
        assert kinds[0] == "on_chat_model_start"
        assert kinds[1:-1] == ["on_chat_model_stream"] * 4
        assert kinds[-1] == "on_chat_model_end"
        assert [e["event"] for e in events if e not in of_model] == [
            "on_chain_start",
            *["on_chain_stream"] * 4,
            "on_chain_end",
        ]

    async def test_they_are_inside_the_routed_run_of_a_chain(self, pool):
        chain = ChatPromptTemplate.from_messages([("user", "{q}")]) | pool()
        events = [e async for e in chain.astream_events({"q": "x"}, version="v2")]
        started = {e["name"]: e for e in events if e["event"].endswith("_start")}
        routed, model = started["MixLLM"], started["ScriptedChatModel"]
        assert model["parent_ids"] == [*routed["parent_ids"], routed["run_id"]]
        assert routed["parent_ids"] == [started["RunnableSequence"]["run_id"]]
        last = events[-1]["data"]["output"]
        assert last.response_metadata["mixllm"]["candidate"] == "best"

    async def test_a_failover_shows_only_the_answer(self, pool):
        events = [e async for e in pool(best=DOWN).astream_events("q", version="v2")]
        pieces = [
            e["data"]["chunk"].content
            for e in events
            if e["event"] == "on_chat_model_stream"
        ]
        assert "".join(pieces) == "From the second."
        assert events[-1]["data"]["output"]["mixllm"]["candidate"] == "second"


@pytest.mark.filterwarnings("ignore:The v3 streaming protocol on Pregel")
class TestAgents:
    """Event streams of an agent over a routed model."""

    async def test_messages_arrive_as_they_are_written(self, pool, streamed):
        model = pool(best={"answers": None})
        usage = UsageMetadataCallbackHandler()
        agent, config = create_agent(model, [add]), {"callbacks": [usage]}
        given = {"messages": [("user", "2 and 3")]}
        run = await agent.astream_events(given, config, version="v3")
        messages = [
            (await stream.text, len(await stream.tool_calls))
            async for stream in run.messages
        ]
        assert messages == [("", 1), ("You said: 5", 0)]
        _, calling, _, last = (await run.output())["messages"]
        for message in (calling, last):
            assert message.response_metadata["mixllm"]["candidate"] == "best"
        assert usage.usage_metadata["best-2024"]["total_tokens"] == 24

    def test_the_same_without_a_loop(self, pool):
        agent = create_agent(pool(best={"answers": None}), [add])
        given = {"messages": [("user", "2 and 3")]}
        run = agent.stream_events(given, version="v3")
        assert [str(stream.text) for stream in run.messages] == ["", "You said: 5"]
        last = run.output["messages"][-1]
        assert last.response_metadata["mixllm"]["candidate"] == "best"

    def test_a_failover_leaves_one_message(self, pool):
        agent = create_agent(pool(best=DOWN), [])
        run = agent.stream_events({"messages": [("user", "q")]}, version="v3")
        assert [str(stream.text) for stream in run.messages] == ["From the second."]
        assert len(run.output["messages"]) == 2
