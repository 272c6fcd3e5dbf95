"""OpenTelemetry: one span and a few measurements per routed call.

Names are those of version 1.41.0 of the semantic conventions, the last one with
a chapter on generative AI; in its own repository, where that chapter lives now,
the attributes used here are still the same, but metrics are called otherwise.
What was asked or answered, and what an error said, is never written.

Nothing happens until the process has set a tracer or a meter provider;
``OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=mixllm`` switches it off. An
instrumented client of a provider adds a span of its own below this one, with the
same tokens: add them up on one of the two.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig

from mixllm_integrations.langchain.calls.messages import Spent
from mixllm_integrations.langchain.tracing.instruments import Instruments, ProviderWatch
from mixllm_integrations.serving import RoutedCall

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["CallSpan", "RecordedSpan", "Routed", "open_span"]

_OPERATION = "chat"
_SHARED = {"gen_ai.operation.name": _OPERATION}
_PROVIDER, _MODEL = "gen_ai.provider.name", "gen_ai.request.model"
_RESPONSE_MODEL, _ERROR = "gen_ai.response.model", "error.type"

# What LangChain calls a provider, where the conventions call it otherwise.
_PROVIDERS = {
    "amazon_bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "ibm": "ibm.watsonx.ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "vertexai": "gcp.vertex_ai",
    "xai": "x_ai",
}
_NOBODYS = {_PROVIDER: "mixllm"}
_RECORDED = (
    "decision_id",
    "candidate",
    "predicted_quality",
    "predicted_cost",
    "cost",
    "willingness_to_pay",
)
# The ids that LangChain gives to messages; they are no provider's.
_OWN_IDS = ("lc_run-", "run-")
# Where callers say which conversation a call belongs to.
_CONVERSATION = ("session_id", "thread_id", "conversation_id")
# The caller did not want the rest: nothing has gone wrong.
_LEFT = (GeneratorExit, asyncio.CancelledError)


class Routed(Protocol):
    """What a span reads off a request."""

    @property
    def call(self) -> RoutedCall:
        """The routed call."""

    @property
    def chosen(self) -> BaseChatModel:
        """The chat model that is asked now."""

    @property
    def spent(self) -> Spent | None:
        """What the answer took, once that is known."""

    @property
    def record(self) -> Mapping[str, Any] | None:
        """The routing record, once the answer is complete."""

    @property
    def answer(self) -> AIMessage | None:
        """The message, if it was heard and not returned."""


class CallSpan:
    """What OpenTelemetry is told of one routed call: nothing, if nobody asks."""

    __slots__ = ()

    def attempt(self, request: Routed) -> AbstractContextManager[None]:  # noqa: ARG002
        """Return the context in which a candidate is asked.

        Parameters
        ----------
        request
            Whose turn it is stands in it.

        Returns
        -------
        AbstractContextManager
            Inside, the span is the current one.
        """
        return _NOTHING

    def current(self) -> AbstractContextManager[None]:
        """Return the context in which an answer goes on to arrive."""
        return _NOTHING

    def saw(self, piece: object) -> None:
        """Note a piece of a stream.

        Parameters
        ----------
        piece
            A chunk of a message, or anything else that arrives piece by piece.
        """

    def end(self, output: object) -> None:
        """End the span of a call that was answered.

        Parameters
        ----------
        output
            The answer; ``None`` if it was not kept.
        """

    def fail(self, error: BaseException) -> None:
        """End the span of a call that failed, or whose caller went away.

        Parameters
        ----------
        error
            What is raised to the caller; only its type is written.
        """


_NOTHING: AbstractContextManager[None] = nullcontext()
_SILENT = CallSpan()
_WATCH = ProviderWatch()


def open_span(config: RunnableConfig) -> CallSpan:
    """Return the span of a call that begins now.

    Parameters
    ----------
    config
        The caller's; says which conversation it is, if anybody does.

    Returns
    -------
    CallSpan
        One that does nothing as long as nobody does.
    """
    found = _WATCH.look()
    return _SILENT if found is None else RecordedSpan(found, config)


class RecordedSpan(CallSpan):
    """The span of one routed call, and what is measured of it.

    It covers all attempts; each one that failed is an event. It is created with
    the first attempt, since samplers decide by the model's name.

    Parameters
    ----------
    instruments
        What it is made with.
    config
        The caller's.
    clock
        Seconds that never go backwards.
    """

    __slots__ = (
        "_asked_at",
        "_began_at",
        "_began_ns",
        "_clock",
        "_ended",
        "_first_after",
        "_given",
        "_instruments",
        "_named",
        "_request",
        "_response",
        "_span",
    )

    def __init__(
        self,
        instruments: Instruments,
        config: RunnableConfig,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._instruments = instruments
        self._clock = clock
        self._began_ns = time.time_ns()
        self._began_at = self._asked_at = clock()
        self._given = _conversation(config)
        self._named: dict[str, str] = {}
        self._response: dict[str, str] = {}
        self._first_after: float | None = None
        self._request: Routed | None = None
        self._span: Span | None = None
        self._ended = False

    @contextmanager
    def attempt(self, request: Routed) -> Iterator[None]:
        """Name the span after who is asked, and make it the current one."""
        self._request = request
        span = self._named_after(_names(request.chosen))
        self._asked_at = self._clock()
        with self.current():
            try:
                yield
            except Exception as error:
                decision = request.call.decision
                failed = {
                    "mixllm.decision_id": decision.id,
                    "mixllm.candidate": decision.candidate,
                    _ERROR: type(error).__name__,
                }
                span.add_event("mixllm.attempt_failed", failed)
                raise

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the span the current one, for this thread or task alone."""
        from opentelemetry import context
        from opentelemetry.trace import set_span_in_context

        span = self._opened()
        token = context.attach(set_span_in_context(span))
        try:
            yield
        finally:
            context.detach(token)

    def saw(self, piece: object) -> None:
        """Note when the first piece came, and which model says it is speaking."""
        if self._first_after is None:
            self._first_after = self._clock() - self._asked_at
        if isinstance(piece, AIMessage):
            self._response |= _spoken_by(piece)

    def end(self, output: object) -> None:
        """End the span."""
        self._close(_message(output), None)

    def fail(self, error: BaseException) -> None:
        """End the span; whoever leaves after the last chunk has his answer."""
        request = self._request
        complete = request is not None and request.record is not None
        is_over = complete and isinstance(error, _LEFT)
        self._close(None, None if is_over else error)

    def _opened(self) -> "Span":
        return self._named_after(self._named) if self._span is None else self._span

    def _named_after(self, named: dict[str, str]) -> "Span":
        """Return the span under its name of now; the first time, make it."""
        span, before, self._named = self._span, self._named, named
        model = named.get(_MODEL)
        title = _OPERATION if model is None else f"{_OPERATION} {model}"
        if span is None:
            from opentelemetry.trace import SpanKind

            self._span = span = self._instruments.tracer.start_span(
                title,
                kind=SpanKind.CLIENT,
                attributes={**_SHARED, **named, **self._given},
                start_time=self._began_ns,
            )
        elif named != before:
            span.update_name(title)
            span.set_attributes(named)
        return span

    def _close(self, message: AIMessage | None, error: BaseException | None) -> None:
        if self._ended or (self._request is None and error is None):
            return  # it was a dry run
        self._ended = True
        if self._request is None:  # nobody could be asked
            self._named = _NOBODYS
        elif message is None:
            message = self._request.answer
        if message is not None:
            self._response |= _spoken_by(message)
        span = self._opened()
        outcome = {} if error is None else {_ERROR: type(error).__name__}
        tokens = self._tokens()
        if span.is_recording():
            span.set_attributes(
                {
                    **self._response,
                    **outcome,
                    **self._streamed(),
                    **{f"gen_ai.usage.{k}_tokens": n for k, n in tokens.items()},
                    **self._routed(),
                }
            )
            if error is not None and not isinstance(error, _LEFT):
                from opentelemetry.trace import StatusCode

                span.set_status(StatusCode.ERROR)  # its message may quote the prompt
        self._measure(outcome, tokens)
        span.end()

    def _tokens(self) -> dict[str, int]:
        """Return what the provider has counted; an estimate is not reported."""
        spent = None if self._request is None else self._request.spent
        if spent is None or spent.cached or spent.input_tokens < 0:
            return {}
        return {"input": spent.input_tokens, "output": spent.output_tokens}

    def _streamed(self) -> dict[str, Any]:
        if self._first_after is None:
            return {}
        return {
            "gen_ai.request.stream": True,
            "gen_ai.response.time_to_first_chunk": self._first_after,
        }

    def _routed(self) -> dict[str, Any]:
        """Return the routing record under our own names."""
        request = self._request
        if request is None:
            return {}
        record = request.record or request.call.record()
        told = {
            f"mixllm.{name}": record[name]
            for name in _RECORDED
            if record.get(name) is not None
        }
        tried = {attempt.get("decision_id") for attempt in record["attempts"]}
        return {**told, "mixllm.attempts": len(tried | {record.get("decision_id")})}

    def _measure(self, outcome: dict[str, str], tokens: dict[str, int]) -> None:
        from opentelemetry.trace import set_span_in_context

        context = set_span_in_context(self._opened())
        shared = {**_SHARED, **self._named}
        if _RESPONSE_MODEL in self._response:
            shared[_RESPONSE_MODEL] = self._response[_RESPONSE_MODEL]
        self._instruments.duration.record(
            self._clock() - self._began_at, {**shared, **outcome}, context
        )
        for kind, count in tokens.items():
            self._instruments.tokens.record(
                count, {**shared, "gen_ai.token.type": kind}, context
            )


def _names(model: BaseChatModel) -> dict[str, str]:
    """Return who serves a model, and what it is called there."""
    told = model._get_ls_params()  # noqa: SLF001 - as every tracer asks
    provider = told.get("ls_provider") or "unknown"
    named = {_PROVIDER: _PROVIDERS.get(provider, provider)}
    if name := told.get("ls_model_name"):
        named[_MODEL] = name
    return named


def _conversation(config: RunnableConfig) -> dict[str, str]:
    """Return which conversation a call belongs to, if the caller says so."""
    for place in (config.get("configurable"), config.get("metadata")):
        for name in _CONVERSATION:
            if place and (found := place.get(name)):
                return {"gen_ai.conversation.id": str(found)}
    return {}


def _message(output: object) -> AIMessage | None:
    """Return the message in an answer, whatever form it has."""
    if isinstance(output, Mapping):
        output = output.get("raw")
    return output if isinstance(output, AIMessage) else None


def _spoken_by(message: AIMessage) -> dict[str, str]:
    """Return what a message, or a chunk of one, says about where it comes from."""
    told = message.response_metadata
    told = told if isinstance(told, Mapping) else {}
    response = {}
    if isinstance(model := told.get("model_name") or told.get("model"), str):
        response[_RESPONSE_MODEL] = model
    given = told.get("id") or message.id
    if isinstance(given, str) and not given.startswith(_OWN_IDS):
        response["gen_ai.response.id"] = given
    return response
