"""Ids of tool calls are in a form that whoever answers next takes."""

from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage

from mixllm_integrations.langchain.history import adapted

CALL = {"name": "look", "args": {}, "type": "tool_call"}


def asked(messages, provider):
    return adapted(messages, provider=provider, providers={})


def calling(*names, provider="openai", **kwargs):
    calls = [{**CALL, "id": name, "args": {"n": n}} for n, name in enumerate(names)]
    return AIMessage(
        "", tool_calls=calls, response_metadata={"model_provider": provider}, **kwargs
    )


def results(*names):
    return [ToolMessage(str(n), tool_call_id=name) for n, name in enumerate(names)]


def ids_of(messages):
    return [
        call["id"]
        for m in messages
        if isinstance(m, AIMessage)
        for call in m.tool_calls
    ]


@pytest.mark.parametrize(
    ("target", "fine", "refused"),
    [
        ("anthropic", ["toolu_01A-b", "a" * 64], ["functions.look:0", "a b", "a" * 65]),
        ("bedrock", ["tooluse_A-b"], ["functions.look:0"]),
        ("openai", ["functions.look:0", "a" * 40], ["a" * 41]),
        ("azure", ["functions.look:0"], ["a" * 41]),
        (
            "mistralai",
            ["aB3dE6gH9"],
            ["call_abc", "aB3dE6gH", "aB3dE6gH90", "aB3-E6gH9"],
        ),
        ("mistral", ["aB3dE6gH9"], ["call_abc"]),
        ("google_genai", ["functions.look:0", "a" * 99], []),
        ("ollama", ["functions.look:0"], []),
        (None, ["functions.look:0", "a" * 99], []),
    ],
)
def test_ids_that_would_be_refused_are_replaced_in_all_places(target, fine, refused):
    messages = [calling(*fine, provider=target), *results(*fine)]
    assert asked(messages, target) is messages
    for name in refused:
        messages = [calling(name, provider=target), *results(name)]
        read = asked(messages, target)
        (new,) = ids_of(read)
        assert new != name
        assert read[1].tool_call_id == new
        again = [calling(new, provider=target), *results(new)]
        assert asked(again, target) is again


def test_one_id_is_told_the_same_way_wherever_it_stands():
    old = "functions.look:0"
    bad = {"name": "look", "args": "{", "id": "functions.bad:1", "error": None}
    said = AIMessage(
        [
            {"type": "tool_use", "id": old, "name": "look", "input": {}},
            {"type": "tool_call", "id": old, "name": "look", "args": {}},
            {"type": "image", "id": old, "url": "u"},
            "text",
        ],
        tool_calls=[{**CALL, "id": old}],
        invalid_tool_calls=[{**bad, "type": "invalid_tool_call"}],
        additional_kwargs={"tool_calls": [{"id": old, "function": {"name": "look"}}]},
    )
    block = {"type": "tool_result", "tool_use_id": old, "content": "x"}
    messages = [
        said,
        ToolMessage([block], tool_call_id=old),
        ToolMessage("y", tool_call_id="functions.bad:1"),
        HumanMessage([block, {"type": "text", "text": "z"}]),
    ]
    before = deepcopy(messages)
    read = asked(messages, "anthropic")
    new = read[0].tool_calls[0]["id"]
    assert new != old
    assert [b.get("id") for b in read[0].content[:3]] == [new, new, old]
    assert read[0].additional_kwargs["tool_calls"][0]["id"] == new
    assert (read[1].tool_call_id, read[1].content[0]["tool_use_id"]) == (new, new)
    assert read[2].tool_call_id == read[0].invalid_tool_calls[0]["id"]
    assert read[3].content[0]["tool_use_id"] == new
    assert messages == before


def test_an_id_that_comes_again_is_a_new_one_with_its_own_result():
    turn = [calling("call_0"), *results("call_0"), HumanMessage("q")]
    messages = [*turn, *turn, calling("call_0", "call_0"), *results("call_0", "call_0")]
    read = asked(messages, "anthropic")
    ids = ids_of(read)
    assert len(set(ids)) == 4
    assert ids[0] == "call_0"
    assert [m.tool_call_id for m in read if isinstance(m, ToolMessage)] == ids


def test_a_result_in_a_block_goes_with_its_message():
    block = {"type": "tool_result", "tool_use_id": "a:1", "content": "x"}
    messages = [calling("a:1", "a:1"), *[ToolMessage([block], tool_call_id="a:1")] * 2]
    read = asked(messages, "anthropic")
    assert [m.content[0]["tool_use_id"] for m in read[1:]] == ids_of(read)


def test_ids_stay_the_same_while_a_conversation_grows():
    messages = [
        *(calling("a:1"), *results("a:1")),
        *(calling("a:1", "b" * 70), *results("a:1", "b" * 70)),
        *(calling("fine"), *results("fine")),
    ]
    whole = ids_of(asked(messages, "anthropic"))
    assert ids_of(asked(messages[:2], "anthropic")) == whole[:1]
    assert ids_of(asked(messages[:5], "anthropic")) == whole[:3]


def test_a_legal_id_that_was_given_to_another_call_is_replaced():
    (given_out,) = ids_of(asked([calling("a:1")], "anthropic"))
    messages = [calling("a:1"), *results("a:1"), calling(given_out)]
    ids = ids_of(asked([*messages, *results(given_out)], "anthropic"))
    assert ids[0] == given_out != ids[1]


def test_a_result_without_a_call_is_left_alone():
    messages = [*results("a:1"), calling("fine", None), *results("fine", "b:1")]
    assert asked(messages, "anthropic") is messages


@pytest.mark.parametrize("target", ["anthropic", "google_genai"])
def test_ids_of_a_streamed_answer_stand_in_its_chunks_too(target):
    chunk = {"name": "look", "args": "{}", "id": "call:1", "index": 0}
    said = AIMessageChunk("", tool_call_chunks=[chunk], chunk_position="last")
    (read,) = asked([said], target)
    assert isinstance(read, AIMessageChunk)
    assert read.tool_call_chunks[0]["id"] == read.tool_calls[0]["id"]
    assert (read is said) == (target == "google_genai")


NAMES = st.sampled_from(
    ["call_0", "call_1", "a.b:0", "a.b:1", "x" * 41, "x" * 65, "aB3dE6gH9", "\u00e9"]
)


@given(
    st.lists(st.lists(NAMES, max_size=3), max_size=4),
    st.sampled_from(["anthropic", "azure", "bedrock", "mistral", "openai"]),
)
def test_each_result_stays_with_its_call_and_each_call_has_its_own_id(turns, target):
    messages = []
    for turn in turns:
        messages += [HumanMessage("q"), calling(*turn, provider=None), *results(*turn)]
    before = deepcopy(messages)
    read = asked(messages, target)
    ids = ids_of(read)
    assert len(ids) == len(set(ids)) == sum(map(len, turns))
    assert [m.tool_call_id for m in read if isinstance(m, ToolMessage)] == ids
    assert asked(read, target) is read
    assert messages == before
