"""Structured output is the chosen model's own, and still accounted for."""

import dataclasses
import typing

import pytest
from langchain_core.callbacks import (
    BaseCallbackHandler,
    UsageMetadataCallbackHandler,
)
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from pydantic import BaseModel, ValidationError

from mixllm_integrations.core.errors import NoCandidateError
from mixllm_integrations.testing import ScriptedChatModel

METHODS = ["function_calling", "json_schema", "json_mode"]


class Sum(BaseModel):
    """A sum."""

    total: int


class TypedSum(typing.TypedDict):
    """A sum."""

    total: int


@dataclasses.dataclass
class DataSum:
    """A sum."""

    total: int


SCHEMAS = {
    "class": Sum,
    "typed dict": TypedSum,
    "dataclass": DataSum,
    "json schema": Sum.model_json_schema(),
    "openai function": {
        "name": "Sum",
        "description": "A sum.",
        "parameters": {"type": "object", "properties": {"total": {"type": "integer"}}},
    },
}


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


def outcome_of(model):
    (pending,) = model.router._ledger._pending.values()
    return pending.outcome


async def test_every_mode_returns_what_was_parsed(pool, method):
    chat = pool().with_structured_output(Sum, method=method)
    answers = [
        chat.invoke("5 apples"),
        await chat.ainvoke("5 apples"),
        *chat.batch(["5 apples"]),
        *await chat.abatch(["5 apples"]),
        list(chat.stream("5 apples"))[-1],
        [part async for part in chat.astream("5 apples")][-1],
    ]
    assert answers == [Sum(total=5)] * 6


@pytest.mark.parametrize("stream", [False, True])
def test_usage_and_cost_are_known_though_no_message_is_returned(
    pool, recorder, load_of, method, stream
):
    model = pool()
    chat = model.with_structured_output(Sum, method=method)
    usage = UsageMetadataCallbackHandler()
    config = {"callbacks": [recorder, usage]}
    _ = list(chat.stream("5", config)) if stream else chat.invoke("5", config)
    assert (outcome_of(model).input_tokens, outcome_of(model).output_tokens) == (10, 2)
    assert usage.usage_metadata["best-2024"]["total_tokens"] == 12
    (chain,) = recorder.named("MixLLM")
    assert chain["metadata"]["mixllm"]["cost"] == pytest.approx(14e-6)
    assert recorder.kinds["llm"] == 1
    assert load_of(model) == 0


async def test_the_raw_message_carries_the_record(pool, method):
    chat = pool().with_structured_output(Sum, method=method, include_raw=True)
    streamed = None
    for part in chat.stream("5 apples"):
        streamed = part if streamed is None else streamed + part
    for answer in (
        chat.invoke("5 apples"),
        await chat.ainvoke("5 apples"),
        streamed,
    ):
        assert answer["parsed"] == Sum(total=5)
        assert answer["parsing_error"] is None
        record = answer["raw"].response_metadata["mixllm"]
        assert record["candidate"] == "best"


def test_feedback_on_a_structured_answer_is_taken(pool):
    model = pool()
    answer = model.with_structured_output(Sum, include_raw=True).invoke("5")
    assert model.record_feedback(answer, 1.0)


def test_the_method_and_other_arguments_are_forwarded(pool, asked):
    model = pool()
    model.with_structured_output(Sum, method="json_schema").invoke("5")
    (call,) = asked(model, "best")
    assert call.kwargs["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize("form", SCHEMAS)
@pytest.mark.parametrize("include_raw", [False, True])
def test_a_schema_of_any_form_is_filled_as_the_bare_model_does(
    pool, method, form, include_raw
):
    asked = {"schema": SCHEMAS[form], "method": method, "include_raw": include_raw}
    routed = pool().with_structured_output(**asked).invoke("5 apples")
    bare = ScriptedChatModel().with_structured_output(**asked).invoke("5 apples")
    if include_raw:
        assert routed["raw"].response_metadata["mixllm"]["candidate"] == "best"
        routed, bare = ({**r, "raw": r["raw"].content} for r in (routed, bare))
    assert routed == bare
    assert type(routed) is type(bare)


@pytest.mark.parametrize("strict", [True, False])
def test_strict_reaches_the_models_own_method(pool, monkeypatch, strict):
    noted = []

    def note(self, schema, **kwargs):
        noted.append(kwargs)
        return self

    monkeypatch.setattr(ScriptedChatModel, "with_structured_output", note)
    pool().with_structured_output(Sum, strict=strict).invoke("5")
    assert noted == [{"include_raw": False, "strict": strict}]


def test_a_json_schema_goes_to_who_has_a_mode_for_it(pool):
    tools_only = {"profile": {"tool_calling": True, "structured_output": False}}
    model = pool(best={"facts": tools_only})
    for method, who in (("json_schema", "second"), ("function_calling", "best")):
        chat = model.with_structured_output(Sum, method=method, include_raw=True)
        record = chat.invoke("5")["raw"].response_metadata["mixllm"]
        assert record["candidate"] == who
    assert model.with_structured_output(Sum).invoke("5") == Sum(total=5)


def test_function_calling_goes_to_who_calls_tools(pool):
    native_only = {"profile": {"tool_calling": False, "structured_output": True}}
    model = pool(best={"facts": native_only})
    for method, who in (("json_schema", "best"), ("function_calling", "second")):
        chat = model.with_structured_output(Sum, method=method, include_raw=True)
        record = chat.invoke("5")["raw"].response_metadata["mixllm"]
        assert record["candidate"] == who


def test_if_nobody_fills_a_schema_in_that_way_the_error_says_who_lacks_what(pool):
    tools_only = {"profile": {"tool_calling": True, "structured_output": False}}
    native_only = {"profile": {"tool_calling": False, "structured_output": True}}
    model = pool(best={"facts": tools_only}, second={"facts": native_only})
    chat = model.bind_tools([Sum], response_format=Sum)
    with pytest.raises(NoCandidateError) as caught:
        chat.invoke("5")
    assert "mode for JSON schemas" in caught.value.excluded["best"]
    assert "tools" in caught.value.excluded["second"]


class OptionsSeen(BaseCallbackHandler):
    """Notes with which options an LLM run began."""

    def __init__(self):
        self.options = []

    def on_chat_model_start(self, serialized, messages, **kwargs):
        self.options.append(kwargs["options"])


def test_tracers_see_the_schema_as_of_the_bare_model(pool, method):
    seen = []
    for model in (pool(), ScriptedChatModel()):
        handler = OptionsSeen()
        chat = model.with_structured_output(Sum, method=method)
        chat.invoke("5", {"callbacks": [handler]})
        seen.append(handler.options)
    routed, bare = seen
    assert routed == bare
    assert routed[0]["ls_structured_output_format"]["kwargs"]["method"] == method


def test_a_fallback_of_routed_models_still_fills_schemas(pool):
    down = {"errors": [TimeoutError()]}
    chain = pool(best=down, second=down).with_fallbacks([pool()])
    assert chain.with_structured_output(Sum).invoke("5") == Sum(total=5)


def test_a_retry_asks_for_the_schema_again(pool):
    down = {"errors": [TimeoutError()]}
    chat = pool(best=down, second=down, cooldown_seconds=0).with_structured_output(Sum)
    retrying = chat.with_retry(wait_exponential_jitter=False)
    assert retrying.invoke("5") == Sum(total=5)


def test_json_schemas_give_dicts(pool, method):
    chat = pool().with_structured_output(Sum.model_json_schema(), method=method)
    assert chat.invoke("5 apples") == {"total": 5}


def test_only_candidates_that_fill_schemas_compete(pool, asked):
    model = pool(best={"facts": {"structured_output": False}})
    model.with_structured_output(Sum).invoke("5")
    assert len(asked(model, "second")) == 1


def test_if_none_fills_schemas_the_error_says_so(pool):
    none = {"facts": {"structured_output": False}}
    chat = pool(best=none, second=none).with_structured_output(Sum)
    with pytest.raises(NoCandidateError, match="structured"):
        chat.invoke("5")


def test_a_failure_before_the_answer_is_taken_over(pool, asked):
    model = pool(best={"errors": [TimeoutError()] * 2})
    assert model.with_structured_output(Sum).invoke("5") == Sum(total=5)
    assert len(asked(model, "second")) == 1


@pytest.fixture
def unfit(pool):
    """A pool whose best answers with a tool call that breaks the schema."""
    call = {"name": "Sum", "args": {"total": "x"}, "id": "1", "type": "tool_call"}
    answer = AIMessage("", tool_calls=[call])
    return pool(best={"answers": lambda messages: answer, "forced_tools": False})


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_does_not_fit_is_paid_for_and_blames_no_outage(
    unfit, asked, load_of, stream
):
    chat = unfit.with_structured_output(Sum)
    if stream:  # as of every chat model: what does not fit is never yielded
        assert list(chat.stream("q")) == []
    else:
        with pytest.raises((OutputParserException, ValidationError)):
            chat.invoke("q")
    assert outcome_of(unfit).error is None
    assert outcome_of(unfit).output_tokens == 2
    assert not unfit.dispatcher.cooldown.due()
    assert not asked(unfit, "second")
    assert load_of(unfit) == 0


def test_with_the_raw_message_the_parsing_error_is_returned(unfit):
    answer = unfit.with_structured_output(Sum, include_raw=True).invoke("q")
    assert answer["parsed"] is None
    assert answer["parsing_error"] is not None
    assert answer["raw"].response_metadata["mixllm"]["candidate"] == "best"
