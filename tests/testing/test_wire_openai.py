"""What the server takes, refuses and says in OpenAI's protocols."""

import json

import pytest

from mixllm_integrations.testing.wire import Reply, ToolCall, Usage
from mixllm_integrations.testing.wire.openai_chat import OpenAIChat
from mixllm_integrations.testing.wire.openai_responses import OpenAIResponses
from mixllm_integrations.testing.wire.parts import Refusal

USER = {"role": "user", "content": "hello"}
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "add", "parameters": SCHEMA}}
FLAT_TOOL = {"type": "function", "name": "add", "parameters": SCHEMA}


def calling(*ids):
    function = {"name": "add", "arguments": "{}"}
    calls = [{"id": one, "type": "function", "function": function} for one in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(call_id):
    return {"role": "tool", "tool_call_id": call_id, "content": "7"}


def said(*parts, role="user"):
    return {"messages": [{"role": role, "content": list(parts)}]}


CHAT_REFUSED = {
    "no messages": ({"messages": []}, "empty array"),
    "messages of another type": ({"messages": "hello"}, "empty array"),
    "a role that is none": (
        {"messages": [{"role": "human", "content": "x"}]},
        "Invalid value: 'human'.*'system', 'developer'.*and 'function'",
    ),
    "a message without content": (
        {"messages": [{"role": "user", "content": None}]},
        "expected a string, got null",
    ),
    "a part that is none": (said({"type": "thinking"}), "Invalid value: 'thinking'"),
    "a part that is no object": (said("text"), "Invalid value: 'None'"),
    "an image from a tool": (
        {
            "messages": [
                calling("x"),
                {**result("x"), "content": [{"type": "image_url", "image_url": {}}]},
            ]
        },
        "'image_url' is not allowed in a message with role 'tool'",
    ),
    "a mark for a cache on a part": (
        said({"type": "text", "text": "x", "cache_control": {}}),
        r"Unknown parameter: 'messages\[0\].content\[0\].cache_control'",
    ),
    "a mark for a cache on a message": (
        {"messages": [{**USER, "cache_control": {}}]},
        r"Unknown parameter: 'messages\[0\].cache_control'",
    ),
    "a mark for a cache on a tool": (
        {"tools": [{**TOOL, "cache_control": {}}]},
        r"Unknown parameter: 'tools\[0\].cache_control'",
    ),
    "a mark for a cache in a tool": (
        {"tools": [{"type": "function", "function": {"name": "f", "cached": 1}}]},
        r"Unknown parameter: 'tools\[0\].function.cached'",
    ),
    "a result before any call": (
        {"messages": [USER, result("x")]},
        "must be a response to a preceeding message",
    ),
    "a result of another call": (
        {"messages": [calling("x"), result("y")]},
        "'tool_call_id' of 'y' not found",
    ),
    "a call without a result": (
        {"messages": [USER, calling("x", "y"), result("x"), USER]},
        "did not have response messages: y$",
    ),
    "a call at the end": ({"messages": [USER, calling("x")]}, "messages: x$"),
    "a long id": (
        {"messages": [calling("x" * 41), result("x" * 41)]},
        "maximum length 40, but got a string with length 41",
    ),
    "a long id of a result": (
        {"messages": [calling("x"), result("y" * 41)]},
        r"messages\[1\].tool_call_id.*length 41",
    ),
    "no id": ({"messages": [calling(None)]}, r"tool_calls\[0\].id"),
    "a tool with a bad name": (
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        r"'tools\[0\].function.name': string does not match",
    ),
    "a choice without tools": ({"tool_choice": "auto"}, "only allowed when 'tools'"),
    "a choice of Anthropic's": (
        {"tools": [TOOL], "tool_choice": "any"},
        "Invalid value: 'any'",
    ),
    "a choice in Anthropic's form": (
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "add"}},
        "Invalid value: 'tool'",
    ),
    "a choice that is none": ({"tools": [TOOL], "tool_choice": 7}, "Invalid value"),
    "a tool that is not there": (
        {
            "tools": [TOOL],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
        },
        "Tool choice 'f' not found",
    ),
    "JSON without the word": (
        {"response_format": {"type": "json_object"}},
        "must contain the word 'json'",
    ),
    "a schema that is none": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        "Missing required parameter",
    ),
    "a strict schema with other keys": (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "x",
                    "strict": True,
                    "schema": {**SCHEMA, "additionalProperties": True},
                },
            }
        },
        "Invalid schema for response_format 'x'.*'additionalProperties'",
    ),
    "a strict tool with an option": (
        {
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "f",
                        "strict": True,
                        "parameters": {
                            "type": "object",
                            "properties": {"in": {**SCHEMA, "required": []}},
                            "required": ["in"],
                            "additionalProperties": False,
                        },
                    },
                }
            ]
        },
        "Invalid schema for function 'f'.*Missing 'a'",
    ),
}


@pytest.mark.parametrize("case", CHAT_REFUSED)
def test_chat_completions_refuse(case):
    body, told = CHAT_REFUSED[case]
    with pytest.raises(Refusal, match=told) as refusal:
        OpenAIChat().read({"model": "m", "messages": [USER], **body}, strict_keys=True)
    assert refusal.value.status == 400


CHAT_TAKEN = {
    "every part": said(
        {"type": "text", "text": "x"},
        {"type": "image_url", "image_url": {"url": "data:"}},
        {"type": "input_audio", "input_audio": {}},
        {"type": "file", "file": {}},
    ),
    "a refusal": {"messages": [USER, {"role": "assistant", "refusal": "no"}, USER]},
    "calls with their results in any order": {
        "messages": [USER, calling("x", "y"), result("y"), result("x"), USER]
    },
    "a long conversation": {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "developer", "content": [{"type": "text", "text": "s"}]},
            USER,
            USER,
            {"role": "assistant", "content": "x", "name": "bob"},
            USER,
        ]
    },
    "a strict schema": {
        "tools": [{"type": "function", "function": {**TOOL["function"], "strict": 1}}]
    },
    "what OpenAI runs itself": {"tools": [{"type": "web_search"}]},
    "text": {"response_format": {"type": "text"}},
}


@pytest.mark.parametrize("case", CHAT_TAKEN)
def test_chat_completions_take(case):
    body = {"model": "m", "messages": [USER], **CHAT_TAKEN[case]}
    OpenAIChat().read(body, strict_keys=True)


def test_a_server_that_is_not_strict_overlooks_keys():
    body = {
        **said({"type": "text", "text": "x", "cache_control": {}}),
        "tools": [{**TOOL, "cache_control": {}}],
    }
    assert OpenAIChat().read(body, strict_keys=False).tools == {"add": SCHEMA}


def item(kind, **data):
    return {"type": kind, **data}


CALL = item("function_call", call_id="x", name="add", arguments="{}")
OUTPUT = item("function_call_output", call_id="x", output="7")
THOUGHT = item("reasoning", id="rs_1", summary=[])

RESPONSES_REFUSED = {
    "no input": ([], "Missing required parameter: 'input'"),
    "an item that is none": (
        [item("tool_use")],
        "Invalid value: 'tool_use'",
    ),
    "a role that is none": (
        [{"role": "tool", "content": "x"}],
        "Invalid value: 'tool'",
    ),
    "a part of Chat Completions": (
        [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
        "Invalid value: 'text'.*'input_text'",
    ),
    "a part of the user by the assistant": (
        [{"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}],
        "Supported values are: 'output_text', and 'refusal'",
    ),
    "a mark for a cache": (
        [
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "x", "cache_control": {}}],
            }
        ],
        r"Unknown parameter: 'input\[0\].content\[0\].cache_control'",
    ),
    "a foreign id": ([{**USER, "type": "message", "id": "lc_1"}], "begins with 'msg'"),
    "reasoning with a foreign id": ([{**THOUGHT, "id": "x"}, CALL], "with 'rs'"),
    "reasoning of another provider": (
        [item("reasoning", reasoning="hm")],
        r"Missing required parameter: 'input\[0\].summary'",
    ),
    "reasoning at the end": ([USER, THOUGHT], "without its required following item"),
    "reasoning before the user": ([THOUGHT, USER], "without its required"),
    "a call without a result": ([USER, CALL], "No tool output found .* call x"),
    "a result without a call": ([USER, OUTPUT], "No tool call found .* call_id x"),
    "a long id": ([{**CALL, "call_id": "x" * 65}], "maximum length 64"),
}


@pytest.mark.parametrize("case", RESPONSES_REFUSED)
def test_responses_refuse(case):
    items, told = RESPONSES_REFUSED[case]
    with pytest.raises(Refusal, match=told):
        OpenAIResponses().read({"model": "m", "input": items}, strict_keys=True)


def test_responses_take_a_loop_of_tool_calls_with_reasoning():
    said_before = {
        "role": "assistant",
        "id": "msg_1",
        "content": [{"type": "output_text", "text": "x", "annotations": []}],
    }
    seen = {"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}
    items = [USER, seen, THOUGHT, said_before, THOUGHT, {**CALL, "id": "fc_1"}, OUTPUT]
    asked = OpenAIResponses().read(
        {"input": items, "instructions": "be brief", "tools": [FLAT_TOOL]},
        strict_keys=True,
    )
    assert asked.after_tool
    assert asked.words == 5  # be brief, hello, x, 7


network = pytest.mark.network


@network
@pytest.mark.parametrize(
    ("choice", "called"),
    [
        (None, "multiply"),
        ("auto", "multiply"),
        ("required", "multiply"),
        ({"type": "function", "function": {"name": "add"}}, "add"),
        ("none", None),
    ],
)
def test_a_tool_is_called_as_the_choice_says(choice, called, ask):
    tools = [TOOL, {"type": "function", "function": {"name": "multiply"}}]
    asked = {} if choice is None else {"tool_choice": choice}
    choice = ask(prompt="multiply 3", tools=tools, **asked).body["choices"][0]
    if called is None:
        assert choice["message"]["content"] == "You said: multiply 3"
        return
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert call["function"]["name"] == called


@network
def test_a_scripted_text_gives_way_only_to_a_call_that_must_be(server, ask, text_in):
    server.model("m", answers=["Four."])
    assert text_in(ask(tools=[TOOL]).body) == "Four."
    message = ask(tools=[TOOL], tool_choice="required").body["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"][0]["function"]["name"] == "add"


@network
def test_a_reply_gives_way_to_nothing(server, ask, text_in):
    server.model("m", answers=[Reply("Four.")])
    assert text_in(ask(tools=[TOOL], tool_choice="required").body) == "Four."


@network
def test_a_schema_is_filled_with_what_the_prompt_says(server, ask, text_in):
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
    server.model("m", answers=["Four."])
    assert json.loads(text_in(ask(prompt="21", response_format=form).body)) == {"a": 21}
    free = {"type": "json_object"}
    asked = "JSON with 'setup' and \"end\""
    body = ask(prompt=asked, response_format=free).body
    assert set(json.loads(text_in(body))) == {"setup", "end"}
    body = ask(prompt="any json", response_format=free).body
    assert set(json.loads(text_in(body))) == {"answer"}


@network
def test_a_chat_stream_is_the_whole_answer_in_pieces(server, ask):
    calls = [ToolCall("add", {"a": 3}), ToolCall("add", {"a": 4})]
    server.model(
        "m", answers=[Reply("One two", tool_calls=calls)], usage=Usage(9, 2, 4)
    )
    *chunks, usage, done = ask(
        stream=True, stream_options={"include_usage": True}
    ).events
    assert done == "[DONE]"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert usage["choices"] == []
    assert usage["usage"]["prompt_tokens_details"]["cached_tokens"] == 4
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content") or "" for delta in deltas) == "One two"
    written = {0: "", 1: ""}
    for delta in deltas:
        for call in delta.get("tool_calls", ()):
            written[call["index"]] += call["function"]["arguments"]
    assert [json.loads(one) for one in written.values()] == [{"a": 3}, {"a": 4}]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@network
def test_a_chat_stream_tells_its_usage_only_if_asked(ask):
    events = ask(stream=True).events
    assert all("usage" not in event for event in events[:-1])


@network
def test_responses_hold_items_of_every_kind(server, ask):
    reply = Reply("One two", tool_calls=[ToolCall("add", {"a": 3})], reasoning="Hm.")
    server.model("m", answers=[reply], usage=Usage(9, 3, 4, 1))
    body = ask("responses", reasoning={"summary": "auto"}).body
    thought, message, call = body["output"]
    assert thought["summary"] == [{"type": "summary_text", "text": "Hm."}]
    assert message["content"][0]["text"] == "One two"
    assert (call["name"], json.loads(call["arguments"])) == ("add", {"a": 3})
    assert body["usage"]["input_tokens_details"]["cached_tokens"] == 4
    assert body["usage"]["output_tokens_details"]["reasoning_tokens"] == 1


@network
def test_reasoning_is_summed_up_or_sealed_only_where_asked(server, ask):
    server.model("m", answers=[Reply("x", reasoning="Hm.")])
    plain = ask("responses").body["output"][0]
    assert plain["summary"] == []
    assert "encrypted_content" not in plain
    sealed = ask("responses", include=["reasoning.encrypted_content"]).body
    assert sealed["output"][0]["encrypted_content"]


@network
def test_a_stream_of_responses_is_the_whole_answer_in_events(server, ask):
    reply = Reply("One two", tool_calls=[ToolCall("add", {"a": 3})], reasoning="Hm.")
    server.model("m", answers=[reply])
    events = ask("responses", stream=True, reasoning={"summary": "auto"}).events
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    told = {
        kind: "".join(
            e["delta"] for e in events if e["type"] == f"response.{kind}.delta"
        )
        for kind in (
            "output_text",
            "function_call_arguments",
            "reasoning_summary_text",
        )
    }
    assert told["output_text"] == "One two"
    assert json.loads(told["function_call_arguments"]) == {"a": 3}
    assert told["reasoning_summary_text"] == "Hm."
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == "response.completed"
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]


@network
def test_a_stream_of_responses_that_is_too_long_is_incomplete(server, ask):
    server.model("m", answers=["One two three"])
    last = ask("responses", stream=True, max_output_tokens=2).events[-1]
    assert last["type"] == "response.incomplete"


@network
def test_responses_fill_a_schema_and_call_tools(ask, text_in):
    form = {"type": "json_schema", "name": "s", "schema": SCHEMA, "strict": True}
    body = ask("responses", "take 21", text={"format": form}).body
    assert json.loads(text_in(body)) == {"a": 21}
    choice = {"type": "function", "name": "add"}
    (call,) = ask("responses", tools=[FLAT_TOOL], tool_choice=choice).body["output"]
    assert (call["type"], call["name"]) == ("function_call", "add")
