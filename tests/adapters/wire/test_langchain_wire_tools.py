"""Tools and schemas of a routed model as they go over the wire."""

import pytest
from pydantic import BaseModel, Field

from mixllm_integrations.testing.wire import Reply, ToolCall, Usage

pytestmark = [
    pytest.mark.network,
    # The client's own, also without a router around it.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


class Sum(BaseModel):
    """A sum."""

    a: int = Field(description="the first number")
    b: int = Field(description="the second number")


OPENAI_ADD = {"type": "function", "function": {"name": "add"}}
ANTHROPIC_ADD = {"type": "tool", "name": "add"}
# What is asked for: what OpenAI and what Anthropic are sent.
CHOICES = [
    ("auto", "auto", {"type": "auto"}),
    ("none", "none", {"type": "none"}),
    ("any", "required", {"type": "any"}),
    ("required", "required", {"type": "any"}),
    (True, "required", {"type": "any"}),
    ("add", OPENAI_ADD, ANTHROPIC_ADD),
    (OPENAI_ADD, OPENAI_ADD, ANTHROPIC_ADD),
    (ANTHROPIC_ADD, OPENAI_ADD, ANTHROPIC_ADD),
    ({"type": "any"}, "required", {"type": "any"}),
]
NAMES = [str(choice[0]) for choice in CHOICES]


@pytest.mark.parametrize(("choice", "sent", "_"), CHOICES, ids=NAMES)
def test_openai_is_sent_every_choice_in_its_own_form(
    choice, sent, _, server, gpt, ranked
):
    bound = ranked(gpt()).bind_tools([multiply, add], tool_choice=choice)
    answer = bound.invoke("What is 3 and 4?")
    (request,) = server.requests
    assert request.body["tool_choice"] == sent
    check_calls(answer, choice)


@pytest.mark.parametrize(("choice", "_", "sent"), CHOICES, ids=NAMES)
def test_anthropic_is_sent_every_choice_in_its_own_form(
    choice, _, sent, server, claude, ranked
):
    bound = ranked(claude()).bind_tools([multiply, add], tool_choice=choice)
    answer = bound.invoke("What is 3 and 4?")
    (request,) = server.requests
    assert request.body["tool_choice"] == sent
    check_calls(answer, choice)


def check_calls(answer, choice):
    if choice == "none":
        assert answer.tool_calls == []
        return
    (call,) = answer.tool_calls
    free = choice in ("auto", "any", "required", True, {"type": "any"})
    assert call["name"] == ("multiply" if free else "add")
    assert call["args"] == {"a": 3, "b": 4}


@pytest.mark.parametrize("choice", [True, "required", "any", "add", ANTHROPIC_ADD])
def test_a_choice_survives_the_change_of_provider(choice, server, gpt, claude, ranked):
    server.model("gpt-4o-mini").fail_with(500)
    bound = ranked(gpt(), claude()).bind_tools([add], tool_choice=choice)
    answer = bound.invoke("What is 3 and 4?")
    assert answer.response_metadata["mixllm"]["candidate"] == "claude-haiku-4-5"
    assert answer.tool_calls[0]["args"] == {"a": 3, "b": 4}


def test_strict_reaches_both_providers(server, gpt, claude, ranked):
    server.model("gpt-4o-mini").fail_with(503)
    bound = ranked(gpt(), claude()).bind_tools([add], strict=True)
    assert bound.invoke("What is 3 and 4?").tool_calls
    (openai,), (anthropic,) = (request.body["tools"] for request in server.requests)
    assert openai["function"]["strict"] is True
    assert anthropic["strict"] is True


def test_a_stream_of_a_tool_call_is_whole(server, gpt, claude, ranked):
    for client in (gpt(), claude(), gpt(use_responses_api=True)):
        answer = None
        for chunk in ranked(client).bind_tools([add]).stream("What is 3 and 4?"):
            answer = chunk if answer is None else answer + chunk
        (call,) = answer.tool_calls
        assert (call["name"], call["args"]) == ("add", {"a": 3, "b": 4})


def test_two_calls_at_once_come_back_with_their_ids(server, gpt, claude, ranked):
    calls = [ToolCall("add", {"a": 1, "b": 2}, id="x1"), ToolCall("add", id="x2")]
    for client in (gpt(), claude()):
        server.model(client.model, answers=[Reply("Both.", tool_calls=calls)])
        answer = ranked(client).bind_tools([add]).invoke("add")
        assert [call["id"] for call in answer.tool_calls] == ["x1", "x2"]


# Method: where OpenAI and where Anthropic find the schema.
def sent_schema(body, method):
    if method == "function_calling":
        (tool,) = body["tools"]
        return tool.get("input_schema") or tool["function"]["parameters"]
    if "output_config" in body:
        return body["output_config"]["format"]["schema"]
    return body["response_format"]["json_schema"]["schema"]


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
@pytest.mark.parametrize("include_raw", [False, True])
@pytest.mark.parametrize("provider", ["gpt", "claude"])
def test_a_schema_goes_by_the_method_that_is_asked_for(
    provider, include_raw, method, request, server, ranked
):
    client = request.getfixturevalue(provider)()
    server.model(client.model, usage=Usage(10, 2))
    asked = ranked(client).with_structured_output(
        Sum, method=method, include_raw=include_raw
    )
    answer = asked.invoke("What is 3 and 4?")
    if include_raw:
        record = answer["raw"].response_metadata["mixllm"]
        assert record["cost"] == pytest.approx(14e-6)
        assert answer["parsing_error"] is None
        answer = answer["parsed"]
    assert answer == Sum(a=3, b=4)
    (sent,) = server.requests
    assert set(sent_schema(sent.body, method)["properties"]) == {"a", "b"}


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
async def test_a_schema_is_filled_asynchronously_and_in_streams(
    method, gpt, claude, ranked
):
    for client in (gpt(), claude()):
        asked = ranked(client).with_structured_output(Sum, method=method)
        assert await asked.ainvoke("What is 3 and 4?") == Sum(a=3, b=4)
        assert list(asked.stream("What is 3 and 4?"))[-1] == Sum(a=3, b=4)


def test_json_mode_asks_openai_for_any_object(server, gpt, ranked):
    asked = ranked(gpt()).with_structured_output(
        Sum.model_json_schema(), method="json_mode"
    )
    assert set(asked.invoke("As JSON with the keys 'a' and 'b'")) == {"a", "b"}
    assert server.requests[0].body["response_format"] == {"type": "json_object"}


def test_json_mode_at_anthropic_takes_its_schema_and_warns(server, claude, ranked):
    asked = ranked(claude()).with_structured_output(Sum, method="json_mode")
    with pytest.warns(UserWarning, match="json_mode"):
        assert asked.invoke("What is 3 and 4?") == Sum(a=3, b=4)
    assert "schema" in server.requests[0].body["output_config"]["format"]


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_a_schema_survives_the_change_of_provider(method, server, gpt, claude, ranked):
    for first, second in [(gpt(), claude()), (claude(), gpt())]:
        server.model(first.model).fail_with(500)
        asked = ranked(first, second).with_structured_output(
            Sum, method=method, include_raw=True
        )
        answer = asked.invoke("What is 3 and 4?")
        assert answer["parsed"] == Sum(a=3, b=4)
        record = answer["raw"].response_metadata["mixllm"]
        assert record["candidate"] == second.model


def test_an_answer_that_does_not_fit_is_raised_and_nobody_else_is_asked(
    server, gpt, claude, ranked
):
    server.model("gpt-4o-mini", answers=[Reply('{"a": "three"}')])
    asked = ranked(gpt(), claude()).with_structured_output(Sum, method="json_schema")
    with pytest.raises(ValueError, match="Sum"):
        asked.invoke("What is 3 and 4?")
    assert [request.model for request in server.requests] == ["gpt-4o-mini"]
