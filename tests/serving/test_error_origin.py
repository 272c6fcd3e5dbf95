"""Errors that are no failure of the model: its answer did not fit, or a callback."""

import asyncio
from types import SimpleNamespace

import openai
import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager
from llama_index.core.callbacks.base_handler import (
    BaseCallbackHandler as LlamaIndexHandler,
)
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, ValidationError

from mixllm_integrations.serving.errors import (
    answered_badly,
    is_callers_mistake,
    is_context_overflow,
    is_from_callback,
    is_unable,
    usage_of_error,
)
from mixllm_integrations.testing import ScriptedChatModel, ScriptedLLM


def completion(usage=None):
    return ChatCompletion(
        id="x", choices=[], created=0, model="m", object="chat.completion", usage=usage
    )


USAGE = CompletionUsage(prompt_tokens=70, completion_tokens=2, total_tokens=72)
CUT_OFF = openai.LengthFinishReasonError(completion=completion(USAGE))
FILTERED = openai.ContentFilterFinishReasonError()


def raised_from(error, cause):
    """Return an error as it is when it was raised from another one."""
    error.__cause__ = cause
    return error


def validation_error():
    class Wants(BaseModel):
        number: int

    with pytest.raises(ValidationError) as caught:
        Wants(number="seven")
    return caught.value


class TestAnsweredBadly:
    @pytest.mark.parametrize(
        "error",
        [
            CUT_OFF,
            FILTERED,
            raised_from(RuntimeError("wrapped"), CUT_OFF),
            raised_from(validation_error(), CUT_OFF),
            raised_from(ValueError("prompt is too long"), FILTERED),
            raised_from(ValueError("does not support this"), FILTERED),
        ],
        ids=repr,
    )
    def test_an_answer_that_was_cut_off_is_nobodys_failure(self, error):
        assert answered_badly(error)
        assert not is_callers_mistake(error)
        assert not is_unable(error)
        assert not is_context_overflow(error)

    def test_no_other_error_is_an_answer(self):
        for error in (TimeoutError(), validation_error(), openai.OpenAIError("no")):
            assert not answered_badly(error)


class TestUsage:
    @pytest.mark.parametrize(
        "error", [CUT_OFF, raised_from(RuntimeError("wrapped"), CUT_OFF)]
    )
    def test_the_tokens_of_an_answer_that_was_cut_off_are_known(self, error):
        assert usage_of_error(error) == (70, 2)

    @pytest.mark.parametrize(
        "error",
        [
            TimeoutError(),
            FILTERED,
            openai.LengthFinishReasonError(completion=completion()),
        ],
    )
    def test_an_error_that_carries_none_has_none(self, error):
        assert usage_of_error(error) is None

    @pytest.mark.parametrize(
        ("asked", "answered"), [(None, 2), (70, "2"), (-1, 2), (70, None)]
    )
    def test_what_is_no_count_is_not_taken_for_one(self, asked, answered):
        error = RuntimeError()
        usage = SimpleNamespace(prompt_tokens=asked, completion_tokens=answered)
        error.completion = SimpleNamespace(usage=usage)
        assert usage_of_error(error) is None


class StopError(Exception):
    """What a handler raises to stop a call."""


def handler_of(event, kind=BaseCallbackHandler, *, inline=False):
    """Return a handler that raises at one event and insists on it."""

    def stop(self, *_args, **_kwargs):
        raise StopError

    async def astop(self, *_args, **_kwargs):
        raise StopError

    method = astop if kind is AsyncCallbackHandler else stop
    made = type("Handler", (kind,), {event: method})()
    made.raise_error, made.run_inline = True, inline
    return made


EVENTS = ["on_chat_model_start", "on_llm_new_token", "on_llm_end"]


def caught_from(call, kind=StopError):
    with pytest.raises(kind) as caught:
        call()
    return caught.value


class TestCallbacks:
    @pytest.fixture
    def model(self):
        return ScriptedChatModel(answers=["one two three"])

    @pytest.mark.parametrize("event", EVENTS)
    def test_a_handler_of_langchain_is_told_from_the_model(self, model, event):
        config = {"callbacks": [handler_of(event)]}
        error = caught_from(lambda: list(model.stream("Hello", config)))
        assert is_from_callback(error)

    @pytest.mark.parametrize("event", EVENTS)
    @pytest.mark.parametrize(
        ("kind", "inline"),
        [
            (BaseCallbackHandler, False),
            (BaseCallbackHandler, True),
            (AsyncCallbackHandler, False),
        ],
    )
    def test_so_is_one_of_a_call_that_is_awaited(self, model, event, kind, inline):
        config = {"callbacks": [handler_of(event, kind, inline=inline)]}

        async def ask():
            return [chunk async for chunk in model.astream("Hello", config)]

        assert is_from_callback(caught_from(lambda: asyncio.run(ask())))

    def test_so_is_one_whose_error_was_wrapped(self, model):
        config = {"callbacks": [handler_of("on_llm_end")]}
        cause = caught_from(lambda: model.invoke("Hello", config))
        assert is_from_callback(raised_from(RuntimeError("wrapped"), cause))

    @pytest.mark.parametrize("name", ["on_event_start", "on_event_end"])
    def test_a_handler_of_llama_index_is_told_from_the_model(self, name):
        error = caught_from(lambda: ask_llama_index(raises=name))
        assert is_from_callback(error)

    @pytest.mark.parametrize("name", ["start_trace", "end_trace"])
    def test_so_is_one_that_follows_a_trace(self, name):
        assert is_from_callback(caught_from(lambda: ask_llama_index(raises=name)))

    def test_an_error_of_the_model_is_not_a_handlers(self):
        model = ScriptedChatModel(errors=[ConnectionError()] * 2)
        config = {"callbacks": [BaseCallbackHandler()]}
        error = caught_from(lambda: model.invoke("Hello", config), ConnectionError)
        assert not is_from_callback(error)
        error = caught_from(lambda: list(model.stream("Hello", config)), Exception)
        assert not is_from_callback(error)
        error = caught_from(
            lambda: ask_llama_index(errors=[ConnectionError()]), ConnectionError
        )
        assert not is_from_callback(error)

    def test_neither_is_one_of_a_function_that_only_has_the_same_name(self):
        def handle_event():
            raise StopError

        assert not is_from_callback(caught_from(handle_event))

    def test_an_error_that_was_never_raised_is_nobodys(self):
        assert not is_from_callback(StopError())


class Handler(LlamaIndexHandler):
    """Hears everything of LlamaIndex, and raises at one thing."""

    def __init__(self, raises):
        super().__init__([], [])
        self.raises = raises

    def hear(self, name):
        if name == self.raises:
            raise StopError

    def on_event_start(self, *_args, **_kwargs):
        self.hear("on_event_start")
        return "id"

    def on_event_end(self, *_args, **_kwargs):
        self.hear("on_event_end")

    def start_trace(self, trace_id=None):
        self.hear("start_trace")

    def end_trace(self, trace_id=None, trace_map=None):
        self.hear("end_trace")


def ask_llama_index(raises=None, **script):
    llm = ScriptedLLM(callback_manager=CallbackManager([Handler(raises)]), **script)
    return llm.chat([ChatMessage(content="Hello")])
