"""OpenTelemetry sees one span per routed call, complete and without any text."""

import asyncio
import contextlib
import gc
import subprocess
import sys
from types import SimpleNamespace

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, HumanMessage
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import BaseModel, ValidationError

from mixllm_integrations.core.errors import NoCandidateError
from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.langchain.tracing import telemetry
from mixllm_integrations.langchain.tracing.instruments import Instruments, ProviderWatch
from mixllm_integrations.langchain.tracing.telemetry import RecordedSpan, open_span
from mixllm_integrations.testing import ManualClock, ScriptedChatModel

SECRET = "Where did I hide the blue diamond?"
SCHEMA = {"title": "A", "type": "object", "properties": {"text": {"type": "string"}}}


class Traced:
    """Spans and measurements of one test."""

    def __init__(self, sampler=None):
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.tracer = provider.get_tracer("app")
        self.instruments = Instruments.made_with(
            provider.get_tracer("mixllm"), meters.get_meter("mixllm")
        )

    @property
    def spans(self):
        """Our own spans that have ended."""
        ended = self._exporter.get_finished_spans()
        return [s for s in ended if s.instrumentation_scope.name == "mixllm"]

    def all_named(self, name):
        return [s for s in self._exporter.get_finished_spans() if s.name == name]

    def points(self, metric):
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in ([] if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            for found in scope.metrics
            if found.name == metric
            for point in found.data.data_points
        ]


def listen(monkeypatch, sampler=None):
    traced = Traced(sampler)
    watch = SimpleNamespace(look=lambda: traced.instruments)
    monkeypatch.setattr(telemetry, "_WATCH", watch)
    return traced


@pytest.fixture
def traced(monkeypatch):
    return listen(monkeypatch)


async def ask(model, mode, config=None):
    """Ask one question in a given mode."""
    if mode == "invoke":
        model.invoke(SECRET, config)
    elif mode == "ainvoke":
        await model.ainvoke(SECRET, config)
    elif mode == "stream":
        list(model.stream(SECRET, config))
    elif mode == "astream":
        [chunk async for chunk in model.astream(SECRET, config)]
    elif mode == "batch":
        model.batch([SECRET], config)
    elif mode == "abatch":
        await model.abatch([SECRET], config)
    elif mode == "generate":
        model.generate([[HumanMessage(SECRET)]])
    elif mode == "v3":
        _ = model.stream_events(SECRET, config, version="v3").output
    elif mode == "av3":
        await (await model.astream_events(SECRET, config, version="v3"))


STREAMS = ["stream", "astream", "v3", "av3"]
MODES = ["invoke", "ainvoke", "batch", "abatch", "generate", *STREAMS]


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


async def test_each_call_is_one_span_of_the_conventions_form(pool, traced, mode):
    await ask(pool(), mode)
    (span,) = traced.spans
    assert span.name == "chat best-2024"
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes["gen_ai.operation.name"] == "chat"
    assert span.attributes["gen_ai.provider.name"] == "scripted"
    assert span.attributes["gen_ai.request.model"] == "best-2024"
    assert span.attributes["gen_ai.response.model"] == "best-2024"
    assert span.attributes["gen_ai.usage.input_tokens"] == 10
    assert span.attributes["gen_ai.usage.output_tokens"] == 2
    assert "error.type" not in span.attributes
    assert span.events == ()


async def test_the_routing_record_is_on_the_span(pool, traced, mode, recorder):
    await ask(pool(callbacks=[recorder]), mode)
    record = recorder.named("MixLLM")[0]["output"]["mixllm"]
    (span,) = traced.spans
    told = {k: v for k, v in span.attributes.items() if k.startswith("mixllm.")}
    assert told == {
        "mixllm.decision_id": record["decision_id"],
        "mixllm.candidate": "best",
        "mixllm.predicted_quality": record["predicted_quality"],
        "mixllm.predicted_cost": record["predicted_cost"],
        "mixllm.cost": pytest.approx(14e-6),
        "mixllm.willingness_to_pay": record["willingness_to_pay"],
        "mixllm.attempts": 1,
    }


async def test_the_span_is_below_the_callers_own(pool, traced, mode):
    with traced.tracer.start_as_current_span("caller") as caller:
        await ask(pool(), mode)
    (span,) = traced.spans
    assert span.parent.span_id == caller.get_span_context().span_id


@pytest.mark.parametrize("timeout_seconds", [None, 60.0])
async def test_what_the_candidate_does_is_below_the_span(
    pool, traced, mode, timeout_seconds
):
    def answer(messages):
        with traced.tracer.start_as_current_span("POST"):
            return "hi"

    facts = {"timeout_seconds": timeout_seconds}
    await ask(pool(best={"answers": answer, "facts": facts}), mode)
    (span,) = traced.spans
    (post,) = traced.all_named("POST")
    assert post.parent.span_id == span.context.span_id


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_what_a_candidate_does_for_later_chunks_is_below_the_span_too(
    pool, traced, way
):
    class Retrieving(ScriptedChatModel):
        def _stream(self, *args, **kwargs):
            for chunk in super()._stream(*args, **kwargs):
                yield chunk
                traced.tracer.start_span("GET").end()

        async def _astream(self, *args, **kwargs):
            for chunk in self._stream(*args, **kwargs):
                yield chunk

    routed = MixLLMChatModel(
        candidates=[
            CandidateModel(
                model=Retrieving(answers=["one"]),
                input_cost_per_million_tokens=1.0,
                output_cost_per_million_tokens=1.0,
            )
        ]
    )
    await ask(routed, way)
    (span,) = traced.spans
    parents = {found.parent.span_id for found in traced.all_named("GET")}
    assert parents == {span.context.span_id}


def test_between_the_chunks_of_a_stream_the_callers_span_is_current(pool, traced):
    with traced.tracer.start_as_current_span("caller") as caller:
        for _ in pool().stream(SECRET):
            assert trace.get_current_span() is caller
        assert trace.get_current_span() is caller


async def test_the_same_holds_for_asynchronous_streams(pool, traced):
    with traced.tracer.start_as_current_span("caller") as caller:
        async for _ in pool().astream(SECRET):
            assert trace.get_current_span() is caller
        assert trace.get_current_span() is caller


async def test_calls_at_once_are_spans_of_their_own(pool, traced):
    model = pool(best={"delay_seconds": 0.01})
    with traced.tracer.start_as_current_span("caller") as caller:
        model.batch([SECRET] * 4)
        await asyncio.gather(*(model.ainvoke(SECRET) for _ in range(4)))
    parents = [span.parent.span_id for span in traced.spans]
    assert parents == [caller.get_span_context().span_id] * 8


def test_calls_in_a_chain_of_calls_are_not_below_each_other(pool, traced):
    model = pool()
    model.invoke(SECRET)
    model.invoke(SECRET)
    assert [span.parent for span in traced.spans] == [None, None]


@pytest.mark.parametrize("failing", ["invoke", "ainvoke", *STREAMS])
async def test_a_failover_is_an_event_on_the_one_span(pool, traced, failing):
    await ask(pool(best={"errors": [ConnectionError(SECRET)]}), failing)
    (span,) = traced.spans
    assert span.name == "chat second-2024"
    assert span.attributes["gen_ai.request.model"] == "second-2024"
    assert span.attributes["mixllm.candidate"] == "second"
    assert span.attributes["mixllm.attempts"] == 2
    assert "error.type" not in span.attributes
    assert span.status.status_code is StatusCode.UNSET
    (event,) = span.events
    assert event.name == "mixllm.attempt_failed"
    assert event.attributes["mixllm.candidate"] == "best"
    assert event.attributes["error.type"] == "ConnectionError"
    decided = event.attributes["mixllm.decision_id"]
    assert decided != span.attributes["mixllm.decision_id"]


async def test_an_attempt_that_took_too_long_failed_with_a_timeout(pool, traced):
    slow = {"delay_seconds": 30.0, "facts": {"timeout_seconds": 0.01}}
    await pool(best=slow).ainvoke(SECRET)
    (span,) = traced.spans
    (event,) = span.events
    assert event.attributes["error.type"] == "TimeoutError"


@pytest.mark.parametrize("failing", ["invoke", "ainvoke", *STREAMS])
async def test_a_call_that_fails_is_an_error_with_its_type_alone(pool, traced, failing):
    model = pool(best={"errors": [ValueError(SECRET)]}, max_retries=0)
    with pytest.raises(ValueError, match="diamond"):
        await ask(model, failing)
    (span,) = traced.spans
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    assert span.attributes["error.type"] == "ValueError"
    assert span.attributes["mixllm.candidate"] == "best"
    assert "mixllm.cost" not in span.attributes


def test_if_all_fail_each_attempt_is_an_event(pool, traced):
    down = {"errors": [ConnectionError("down")]}
    with pytest.raises(ExceptionGroup):
        pool(best=down, second=down).invoke(SECRET)
    (span,) = traced.spans
    assert span.attributes["error.type"] == "ExceptionGroup"
    failed = [event.attributes["mixllm.candidate"] for event in span.events]
    assert failed == ["best", "second"]


def test_a_question_that_nobody_can_answer_is_a_span_of_its_own(pool, traced):
    no = {"facts": {"structured_output": False}}
    with pytest.raises(NoCandidateError):
        pool(best=no, second=no).with_structured_output(SCHEMA).invoke(SECRET)
    (span,) = traced.spans
    assert span.name == "chat"
    assert span.attributes["gen_ai.provider.name"] == "mixllm"
    assert span.attributes["error.type"] == "NoCandidateError"


def test_a_stream_that_breaks_off_is_an_error(pool, traced):
    broken = {"errors": [ConnectionError("down")], "error_after_chunks": 1}
    with pytest.raises(ConnectionError):
        list(pool(best=broken).stream(SECRET))
    (span,) = traced.spans
    assert span.attributes["error.type"] == "ConnectionError"
    assert span.status.status_code is StatusCode.ERROR


def test_an_abandoned_stream_ends_its_span_without_an_error(pool, traced):
    stream = pool().stream(SECRET)
    next(stream)
    stream.close()
    (span,) = traced.spans
    assert span.attributes["error.type"] == "GeneratorExit"
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()


async def test_an_abandoned_asynchronous_stream_ends_its_span(pool, traced):
    stream = pool().astream(SECRET)
    await anext(stream)
    await stream.aclose()
    (span,) = traced.spans
    assert span.attributes["error.type"] == "GeneratorExit"


async def ended(traced):
    """Wait for what the garbage collector has put on another thread."""
    async with asyncio.timeout(10.0):
        while not traced.spans:
            gc.collect()
            await asyncio.sleep(0.001)
    (span,) = traced.spans
    return span


async def test_a_dropped_event_stream_ends_its_span(pool, traced):
    stream = pool().stream_events(SECRET, version="v3")
    next(iter(stream))
    del stream
    span = await ended(traced)
    assert span.attributes["error.type"] == "GeneratorExit"


async def test_a_dropped_asynchronous_event_stream_ends_its_span(pool, traced):
    stream = await pool(best={"delay_seconds": 0.01}).astream_events(
        SECRET, version="v3"
    )
    del stream
    await ended(traced)


def test_who_leaves_after_the_last_chunk_has_a_complete_answer(pool, traced):
    for chunk in pool().stream(SECRET):
        if chunk.chunk_position == "last":
            break
    gc.collect()
    (span,) = traced.spans
    assert "error.type" not in span.attributes
    assert span.attributes["gen_ai.usage.output_tokens"] == 2
    assert span.attributes["mixllm.cost"] == pytest.approx(14e-6)


async def test_a_cancelled_call_ends_its_span_without_an_error(pool, traced):
    task = asyncio.create_task(pool(best={"delay_seconds": 60.0}).ainvoke(SECRET))
    await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    (span,) = traced.spans
    assert span.attributes["error.type"] == "CancelledError"
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("errors", [[], [ValueError(SECRET)]])
async def test_no_text_is_written(pool, traced, mode, errors):
    answers = [AIMessage("In the blue teapot.", id="id-1")]
    script = {"answers": answers, "errors": errors}
    await ask(pool(best=script, second={"answers": answers}), mode)
    (span,) = traced.spans
    written = span.to_json() + repr(traced.points("gen_ai.client.operation.duration"))
    for word in ("diamond", "teapot"):
        assert word not in written


@pytest.mark.parametrize(
    "config",
    [
        {"configurable": {"session_id": "s-1"}},
        {"configurable": {"thread_id": "s-1"}},
        {"metadata": {"session_id": "s-1"}},
        {"metadata": {"conversation_id": "s-1"}},
    ],
)
def test_the_conversation_is_the_one_that_the_caller_names(pool, traced, config):
    pool().invoke(SECRET, config)
    (span,) = traced.spans
    assert span.attributes["gen_ai.conversation.id"] == "s-1"


def test_without_a_session_no_conversation_is_invented(pool, traced):
    pool().invoke(SECRET)
    assert "gen_ai.conversation.id" not in traced.spans[0].attributes


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (AIMessage("hi", id="chatcmpl-1"), "chatcmpl-1"),
        (AIMessage("hi", response_metadata={"id": "msg_1"}), "msg_1"),
        (AIMessage("hi"), None),  # LangChain gives it an id of its own
    ],
)
def test_the_response_id_is_the_providers(pool, traced, answer, expected):
    pool(best={"answers": [answer]}).invoke(SECRET)
    (span,) = traced.spans
    assert span.attributes.get("gen_ai.response.id") == expected


async def test_the_response_id_of_a_stream_is_on_its_chunks(pool, traced):
    answer = AIMessage("hi", response_metadata={"id": "msg_1"})
    for way in STREAMS:
        await ask(pool(best={"answers": [answer]}), way)
    told = [span.attributes["gen_ai.response.id"] for span in traced.spans]
    assert told == ["msg_1"] * len(STREAMS)


@pytest.mark.parametrize("include_raw", [False, True])
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_a_structured_answer_is_told_of_like_any_other(
    pool, traced, include_raw, way
):
    model = pool(best={"answers": None})
    await ask(model.with_structured_output(SCHEMA, include_raw=include_raw), way)
    (span,) = traced.spans
    assert span.attributes["gen_ai.response.model"] == "best-2024"
    assert span.attributes["gen_ai.usage.output_tokens"] == 2


def test_an_answer_that_does_not_parse_is_an_error_that_was_paid_for(pool, traced):
    class Sum(BaseModel):
        total: int

    call = {"name": "Sum", "args": {"total": "x"}, "id": "1", "type": "tool_call"}
    answer = AIMessage("", tool_calls=[call])
    unfit = {"answers": lambda messages: answer, "forced_tools": False}
    with pytest.raises((OutputParserException, ValidationError)):
        pool(best=unfit).with_structured_output(Sum).invoke(SECRET)
    (span,) = traced.spans
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["gen_ai.usage.output_tokens"] == 2
    assert span.attributes["gen_ai.response.model"] == "best-2024"
    assert span.attributes["mixllm.cost"] == pytest.approx(14e-6)


@pytest.mark.parametrize("way", ["invoke", "stream"])
async def test_tokens_that_the_provider_did_not_count_are_not_reported(
    pool, traced, way
):
    await ask(pool(best={"reports_usage": False}), way)
    (span,) = traced.spans
    assert not [name for name in span.attributes if "usage" in name]
    assert traced.points("gen_ai.client.token.usage") == []


def test_an_answer_out_of_a_cache_used_no_tokens(scripted_candidate, pool, traced):
    model = pool(best={"cache": InMemoryCache()})
    model.invoke(SECRET)
    model.invoke(SECRET)
    _, cached = traced.spans
    assert not [name for name in cached.attributes if "usage" in name]
    assert cached.attributes["mixllm.cost"] == 0.0


@pytest.mark.parametrize("way", STREAMS)
async def test_a_stream_says_so_and_when_it_began(pool, traced, way):
    await ask(pool(best={"delay_seconds": 0.02}), way)
    (span,) = traced.spans
    assert span.attributes["gen_ai.request.stream"] is True
    waited = span.attributes["gen_ai.response.time_to_first_chunk"]
    assert 0.02 <= waited <= (span.end_time - span.start_time) / 1e9


def test_the_first_chunk_is_timed_from_the_attempt_and_the_call_from_its_begin(traced):
    clock = ManualClock()
    request = SimpleNamespace(
        chosen=ScriptedChatModel(), spent=None, record={"attempts": []}, answer=None
    )
    span = RecordedSpan(traced.instruments, {}, clock=clock)
    clock.advance(5.0)
    with span.attempt(request):
        clock.advance(2.0)
    for _ in range(2):
        span.saw("a piece")
        clock.advance(1.0)
    span.end(None)
    (told,) = traced.spans
    assert told.attributes["gen_ai.response.time_to_first_chunk"] == 2.0
    (duration,) = traced.points("gen_ai.client.operation.duration")
    assert duration.sum == 9.0


def test_an_answer_that_comes_whole_is_no_stream(pool, traced):
    model = pool(disable_streaming=True)
    list(model.stream(SECRET))
    assert "gen_ai.request.stream" not in traced.spans[0].attributes


async def test_duration_and_tokens_are_measured(pool, traced, mode):
    await ask(pool(), mode)
    shared = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "best-2024",
        "gen_ai.response.model": "best-2024",
    }
    (duration,) = traced.points("gen_ai.client.operation.duration")
    assert duration.attributes == shared
    assert (duration.count, duration.explicit_bounds[-1]) == (1, 81.92)
    (span,) = traced.spans
    assert 0 < duration.sum <= (span.end_time - span.start_time) / 1e9
    points = traced.points("gen_ai.client.token.usage")
    counted = {point.attributes["gen_ai.token.type"]: point.sum for point in points}
    assert counted == {"input": 10, "output": 2}
    assert points[0].explicit_bounds[:3] == (1.0, 4.0, 16.0)
    assert points[0].attributes.items() > shared.items()


def test_the_duration_of_a_failed_call_has_the_errors_type(pool, traced):
    model = pool(best={"errors": [ValueError("no")]}, max_retries=0)
    with pytest.raises(ValueError, match="no"):
        model.invoke(SECRET)
    (duration,) = traced.points("gen_ai.client.operation.duration")
    assert duration.attributes["error.type"] == "ValueError"
    assert traced.points("gen_ai.client.token.usage") == []


def test_a_call_that_is_not_sampled_is_still_measured(pool, monkeypatch):
    traced = listen(monkeypatch, ALWAYS_OFF)
    pool().invoke(SECRET)
    assert traced.spans == []
    assert len(traced.points("gen_ai.client.operation.duration")) == 1


def test_samplers_see_the_model_when_they_decide(pool, monkeypatch):
    class Curious(type(ALWAYS_OFF)):
        def should_sample(self, context, trace_id, name, kind, attributes, *rest):
            seen.update(attributes, name=name)
            return super().should_sample(
                context, trace_id, name, kind, attributes, *rest
            )

    seen = {}
    listen(monkeypatch, Curious(ALWAYS_OFF._decision))
    pool().invoke(SECRET)
    assert seen == {
        "name": "chat best-2024",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "best-2024",
    }


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ("openai", "openai"),
        ("azure", "azure.ai.openai"),
        ("amazon_bedrock", "aws.bedrock"),
        ("google_genai", "gcp.gemini"),
        ("xai", "x_ai"),
        ("ollama", "ollama"),
    ],
)
def test_providers_have_the_names_of_the_conventions(pool, traced, provider, expected):
    pool(best={"provider": provider}).invoke(SECRET)
    assert traced.spans[0].attributes["gen_ai.provider.name"] == expected


async def test_all_names_are_in_the_conventions(pool, traced):
    for way in MODES:
        await ask(pool(), way, {"configurable": {"session_id": "s"}})
    known = {v for k, v in vars(gen_ai_attributes).items() if k.startswith("GEN_AI")}
    used = {name for span in traced.spans for name in span.attributes}
    assert {name for name in used if name.startswith("gen_ai.")} <= known


def test_a_call_that_asks_nobody_is_no_span(traced):
    RecordedSpan(traced.instruments, {}).end(AIMessage("dry run"))
    assert traced.spans == []


class TestFinding:
    """Somebody must have set a provider."""

    def test_without_a_provider_there_is_nothing_to_do(self):
        assert Instruments.found() is None
        assert type(open_span({})) is telemetry.CallSpan

    def test_looking_leaves_nothing_behind(self):
        """The interface keeps each meter that it is asked for, for ever."""
        assert Instruments.found() is None
        kept = metrics.get_meter_provider()._meters
        before = len(kept)
        for _ in range(3):
            assert Instruments.found() is None
        assert len(kept) == before

    def test_a_tracer_provider_is_found(self, monkeypatch):
        provider = TracerProvider(shutdown_on_exit=False)
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        span = Instruments.found().tracer.start_span("x")
        assert span.is_recording()
        assert span.instrumentation_scope.name == "mixllm_integrations"
        assert span.instrumentation_scope.schema_url.endswith("/1.41.0")

    def test_a_meter_provider_alone_is_enough(self, monkeypatch, pool):
        reader = InMemoryMetricReader()
        meters = MeterProvider([reader], shutdown_on_exit=False)
        monkeypatch.setattr(metrics._internal, "_METER_PROVIDER", meters)
        monkeypatch.setattr(telemetry, "_WATCH", ProviderWatch())
        pool().invoke(SECRET)
        (resource,) = reader.get_metrics_data().resource_metrics
        names = {metric.name for metric in resource.scope_metrics[0].metrics}
        assert names == {
            "gen_ai.client.operation.duration",
            "gen_ai.client.token.usage",
        }

    def test_it_can_be_switched_off(self, monkeypatch):
        provider = TracerProvider(shutdown_on_exit=False)
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "redis, mixllm")
        assert Instruments.found() is None

    def test_who_has_not_imported_the_interface_has_set_no_provider(self, monkeypatch):
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider())
        for name in ("opentelemetry.trace", "opentelemetry.metrics"):
            monkeypatch.delitem(sys.modules, name)
        assert Instruments.found() is None

    def test_a_provider_that_is_set_later_is_found_after_a_second(self, monkeypatch):
        clock = ManualClock()
        watch = ProviderWatch(clock=clock)
        assert watch.look() is None
        provider = TracerProvider(shutdown_on_exit=False)
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        assert watch.look() is None
        clock.advance(1.0)
        assert watch.look() is not None

    def test_the_interface_is_asked_once_a_second_at_most(self, monkeypatch):
        clock, asked = ManualClock(), []
        watch = ProviderWatch(clock=clock)
        monkeypatch.setattr(Instruments, "found", lambda: asked.append(clock()))
        for _ in range(10):
            watch.look()
            clock.advance(0.25)
        assert asked == [0.0, 1.0, 2.0]

    def test_what_was_found_is_kept(self, monkeypatch, traced):
        watch = ProviderWatch()
        monkeypatch.setattr(Instruments, "found", lambda: traced.instruments)
        assert watch.look() is traced.instruments
        monkeypatch.setattr(Instruments, "found", lambda: None)
        assert watch.look() is traced.instruments

    def test_calls_work_without_opentelemetry(self):
        script = (
            "import sys\n"
            "sys.modules['opentelemetry'] = None\n"
            "from mixllm_integrations import MixLLMChatModel\n"
            "from mixllm_integrations.langchain import CandidateModel\n"
            "from mixllm_integrations.testing import ScriptedChatModel\n"
            "one = CandidateModel(model=ScriptedChatModel(), name='a',\n"
            "    input_cost_per_million_tokens=1, output_cost_per_million_tokens=1)\n"
            "MixLLMChatModel(candidates=[one]).invoke('q')\n"
        )
        subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
