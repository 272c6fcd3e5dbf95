"""What the server takes, refuses and says in Anthropic's protocol."""

import json

import pytest

from mixllm_integrations.testing.wire import Reply, ToolCall, Usage
from mixllm_integrations.testing.wire.anthropic import AnthropicMessages
from mixllm_integrations.testing.wire.parts import Refusal

USER = {"role": "user", "content": "hello"}
SYSTEM = {"role": "system", "content": "Be brief."}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL = {"name": "add", "input_schema": SCHEMA}
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 20}}


def block(kind, **data):
    return {"type": kind, **data}


def use(call_id):
    return block("tool_use", id=call_id, name="add", input={})


def result(call_id, content="7"):
    return block("tool_result", tool_use_id=call_id, content=content)


THOUGHT = block("thinking", thinking="Hm.", signature="signed")
TEXT = block("text", text="x")


def user(*blocks):
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks):
    return {"role": "assistant", "content": list(blocks)}


def talk(*messages):
    return {"messages": list(messages)}


REFUSED = {
    "no limit": ({"max_tokens": None}, "max_tokens: Field required"),
    "a temperature of OpenAI's": ({"temperature": 1.5}, "temperature: range: 0..1"),
    "no messages": ({"messages": []}, "at least one message"),
    "a role that is none": (
        talk(USER, {"role": "tool", "content": "x"}),
        "messages.1.role",
    ),
    "a system message first": (talk(SYSTEM, USER), 'Unexpected role "system"'),
    "a system message after the assistant": (
        talk(USER, assistant(TEXT), SYSTEM, USER),
        'Unexpected role "system"',
    ),
    "the assistant first": (
        talk(assistant(TEXT), USER),
        'first message must use the "user" role',
    ),
    "content of another type": (talk({"role": "user", "content": 7}), "valid list"),
    "an empty message": (talk({"role": "user", "content": ""}), "non-empty content"),
    "an empty answer in between": (
        talk(USER, {"role": "assistant", "content": []}, USER),
        "messages.1: all messages must have non-empty content",
    ),
    "an empty text": (talk(user(block("text", text=" "))), "must be non-empty"),
    "an answer that ends in a space": (
        talk(USER, {"role": "assistant", "content": "x "}),
        "trailing whitespace",
    ),
    "reasoning of OpenAI's": (
        talk(USER, assistant(block("reasoning", summary=[])), USER),
        "messages.1.content.0: Input tag 'reasoning' found",
    ),
    "a block that is no object": (talk(user("x")), "Input tag 'None'"),
    "an image of OpenAI's": (
        talk(user(block("image_url", image_url={}))),
        "Input tag 'image_url'",
    ),
    "an image by the assistant": (
        talk(USER, assistant(block("image", source={})), USER),
        "`image` blocks are not allowed in `assistant` messages",
    ),
    "a call by the user": (talk(user(use("x"))), "not allowed in `user` messages"),
    "an unknown key": (
        talk(user({**TEXT, "index": 0})),
        "messages.0.content.0.text.index: Extra inputs are not permitted",
    ),
    "an unknown key in a result": (
        talk(USER, assistant(use("x")), user(result("x", [{**TEXT, "id": "1"}]))),
        "messages.2.content.0.tool_result.content.0.text.id: Extra inputs",
    ),
    "thinking without a signature": (
        talk(USER, assistant(block("thinking", thinking="Hm.")), USER),
        "thinking.signature: Field required",
    ),
    "thinking with an empty signature": (
        talk(USER, assistant({**THOUGHT, "signature": ""}), USER),
        "Invalid `signature`",
    ),
    "an id of another provider": (
        talk(USER, assistant(use("functions.add:0")), user(result("functions.add:0"))),
        r"tool_use.id: String should match pattern '\^\[a-zA-Z0-9_-\]\+\$'",
    ),
    "a result with an id of another provider": (
        talk(user(result("a.b"))),
        "tool_result.tool_use_id: String should match",
    ),
    "a result without a call": (
        talk(USER, assistant(TEXT), user(result("x"))),
        "unexpected `tool_use_id` found in `tool_result` blocks: x",
    ),
    "a result after another turn": (
        talk(USER, assistant(use("x")), USER, assistant(TEXT), user(result("x"))),
        "without `tool_result` blocks immediately after: x",
    ),
    "one result of two": (
        talk(USER, assistant(use("x"), use("y")), user(result("x"))),
        "messages.1: `tool_use` ids were found without .*: y",
    ),
    "a call at the end": (talk(USER, assistant(use("x"))), "immediately after: x"),
    "two calls of one id": (
        talk(USER, assistant(use("x"), use("x")), user(result("x"))),
        "ids must be unique",
    ),
    "a tool without a schema": ({"tools": [{"name": "f"}]}, "input_schema.type"),
    "a tool with a bad name": ({"tools": [{**TOOL, "name": "a b"}]}, "custom.name"),
    "two tools of one name": ({"tools": [TOOL, TOOL]}, "must be unique"),
    "a choice without tools": (
        {"tool_choice": {"type": "auto"}},
        "only be specified while providing tools",
    ),
    "a choice of OpenAI's": (
        {"tools": [TOOL], "tool_choice": "required"},
        "tool_choice: Input tag 'None'",
    ),
    "a choice in OpenAI's form": (
        {"tools": [TOOL], "tool_choice": {"type": "function"}},
        "tool_choice: Input tag 'function'",
    ),
    "a tool that is not there": (
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "none"}},
        "Tool 'none' not found in provided tools",
    ),
    "thinking and a forced call": (
        {**THINKING, "tools": [TOOL], "tool_choice": {"type": "any"}},
        "Thinking may not be enabled when tool_choice forces",
    ),
    "thinking and a temperature": (
        {**THINKING, "temperature": 0},
        "only be set to 1 when thinking",
    ),
    "thinking longer than the answer": (
        {**THINKING, "max_tokens": 20},
        "must be greater than `thinking.budget_tokens`",
    ),
    "thinking in the middle of a loop": (
        {**THINKING, **talk(USER, assistant(TEXT, use("x")), user(result("x")))},
        "messages.1.content.0.type: Expected `thinking`.*but found `text`",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_anthropic_refuses(case):
    body, told = REFUSED[case]
    asked = {"model": "m", "max_tokens": 50, "messages": [USER], **body}
    with pytest.raises(Refusal, match=told) as refusal:
        AnthropicMessages().read(asked, strict_keys=True)
    assert refusal.value.status == 400


CACHED = {"cache_control": {"type": "ephemeral"}}
TAKEN = {
    "marks for a cache": talk(user({**TEXT, **CACHED}, {**TEXT, **CACHED})),
    "messages of one role in a row": talk(USER, USER, assistant(TEXT), USER),
    "images and documents": talk(
        user(block("image", source={}), block("document", source={}, title="t"))
    ),
    "results with images": talk(
        USER,
        assistant(use("x")),
        user(result("x", [TEXT, block("image", source={})])),
    ),
    "results in two messages": talk(
        USER, assistant(use("x"), use("y")), user(result("y")), user(result("x"), TEXT)
    ),
    "a system message after the user": talk(USER, SYSTEM, assistant(TEXT), USER),
    "an answer to go on with": talk(USER, {"role": "assistant", "content": "Well"}),
    "an empty answer at the end": talk(USER, {"role": "assistant", "content": []}),
    "thinking before a call": {
        **THINKING,
        **talk(USER, assistant(THOUGHT, use("x")), user(result("x"))),
    },
    "hidden thinking before a call": {
        **THINKING,
        **talk(
            USER,
            assistant(block("redacted_thinking", data="x"), use("x")),
            user(result("x")),
        ),
    },
    "thinking of a model that does not": talk(USER, assistant(THOUGHT, TEXT), USER),
    "thinking after a plain answer": {**THINKING, **talk(USER, assistant(TEXT), USER)},
    "what Anthropic runs itself": {"tools": [{"type": "web_search_20250305"}]},
}


@pytest.mark.parametrize("case", TAKEN)
def test_anthropic_takes(case):
    asked = {"model": "m", "max_tokens": 50, "messages": [USER], **TAKEN[case]}
    AnthropicMessages().read(asked, strict_keys=True)


def test_a_server_that_is_not_strict_overlooks_keys():
    asked = {"max_tokens": 50, **talk(user({**TEXT, "index": 0}))}
    assert AnthropicMessages().read(asked, strict_keys=False).prompt == "x"


def test_the_system_prompt_counts_as_words_of_the_prompt():
    asked = {"max_tokens": 50, "messages": [USER], "system": [TEXT, TEXT]}
    assert AnthropicMessages().read(asked, strict_keys=True).words == 3


network = pytest.mark.network


@network
@pytest.mark.parametrize(
    ("choice", "called"),
    [
        (None, "multiply"),
        ({"type": "auto"}, "multiply"),
        ({"type": "any"}, "multiply"),
        ({"type": "tool", "name": "add"}, "add"),
        ({"type": "none"}, None),
    ],
)
def test_a_tool_is_called_as_the_choice_says(choice, called, ask):
    tools = [TOOL, {**TOOL, "name": "multiply"}]
    asked = {} if choice is None else {"tool_choice": choice}
    body = ask("messages", "multiply 3", tools=tools, **asked).body
    if called is None:
        assert body["stop_reason"] == "end_turn"
        return
    (call,) = body["content"]
    assert body["stop_reason"] == "tool_use"
    assert (call["name"], call["input"]) == (called, {"a": 3})


@network
def test_after_a_result_no_tool_is_called(ask):
    messages = [USER, assistant(use("x")), user(result("x"))]
    body = ask("messages", messages=messages, tools=[TOOL]).body
    assert body["content"] == [block("text", text="You said: 7")]


@network
@pytest.mark.parametrize("where", ["output_config", "output_format"])
def test_a_schema_is_filled_wherever_it_stands(where, ask, text_in):
    form = {"type": "json_schema", "schema": SCHEMA}
    asked = {"format": form} if where == "output_config" else form
    body = ask("messages", "take 21", **{where: asked}).body
    assert json.loads(text_in(body)) == {"a": 21}


@network
def test_thinking_is_shown_only_if_it_is_enabled(server, ask):
    server.model(
        "m", answers=[Reply("Four.", reasoning="Hm.")], usage=Usage(9, 3, 4, 1)
    )
    (text,) = ask("messages").body["content"]
    assert text["text"] == "Four."
    body = ask("messages", **THINKING).body
    thought, text = body["content"]
    assert (thought["thinking"], text["text"]) == ("Hm.", "Four.")
    assert thought["signature"]
    assert body["usage"] == {
        "input_tokens": 5,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 3,
        "service_tier": "standard",
        "output_tokens_details": {"thinking_tokens": 1},
    }


@network
def test_an_answer_without_anything_has_no_blocks(server, ask):
    server.model("m", answers=[""])
    assert ask("messages").body["content"] == []


@network
def test_a_stream_is_the_whole_answer_in_events(server, ask):
    reply = Reply("One two", tool_calls=[ToolCall("add", {"a": 3})], reasoning="Hm so.")
    server.model("m", answers=[reply], usage=Usage(9, 3, 4))
    events = ask("messages", stream=True, **THINKING).events
    assert events[0]["message"]["content"] == []
    started = [e["content_block"] for e in events if e["type"] == "content_block_start"]
    assert [one["type"] for one in started] == ["thinking", "text", "tool_use"]
    deltas = [e["delta"] for e in events if e["type"] == "content_block_delta"]
    told = {
        key: "".join(delta.get(key, "") for delta in deltas)
        for key in ("thinking", "signature", "text", "partial_json")
    }
    assert (told["thinking"], told["text"]) == ("Hm so.", "One two")
    assert told["signature"].startswith("signed")
    assert json.loads(told["partial_json"]) == {"a": 3}
    ended = events[-2]
    assert ended["delta"]["stop_reason"] == "tool_use"
    assert ended["usage"]["cache_read_input_tokens"] == 4
    assert events[-1] == {"type": "message_stop"}
