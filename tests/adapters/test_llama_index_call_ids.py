"""Ids of tool calls are in a form that whoever answers next takes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.base.llms.types import ChatMessage, TextBlock, ToolCallBlock

from mixllm_integrations.llama_index import CandidateLLM
from mixllm_integrations.llama_index.history import adapted
from mixllm_integrations.testing import ScriptedLLM

PRICES = {"input_cost_per_million_tokens": 1.0, "output_cost_per_million_tokens": 1.0}
LEGAL = {
    "openai": r".{1,40}",
    "anthropic": r"[a-zA-Z0-9_-]{1,64}",
    "bedrock_converse": r"[a-zA-Z0-9_-]{1,64}",
    "mistralai": r"[a-zA-Z0-9]{9}",
    "groq": r".+",
    "scripted": r".+",
}


def entry(provider):
    """A candidate whose LLM's class is of a provider."""
    kind = type(
        f"Of{provider}", (ScriptedLLM,), {"class_name": classmethod(lambda _: provider)}
    )
    return CandidateLLM(llm=kind(model=provider), name=provider, **PRICES)


ALL = {name: entry(name) for name in (*LEGAL, "ollama")}


def calling(*ids, author="ollama", tool="look"):
    record = {"mixllm": {"decision_id": "d", "candidate": author}}
    return ChatMessage(
        role="assistant",
        blocks=[
            TextBlock(text="I look."),
            *(
                ToolCallBlock(tool_call_id=one, tool_name=tool, tool_kwargs={"n": n})
                for n, one in enumerate(ids)
            ),
        ],
        additional_kwargs=record if author else {},
    )


def results(*ids):
    return [
        ChatMessage(
            role="tool", content=str(n), additional_kwargs={"tool_call_id": one}
        )
        for n, one in enumerate(ids)
    ]


def pairs(messages):
    """Ids of the calls and of the results, each in its order."""
    called = [
        block.tool_call_id
        for message in messages
        for block in message.blocks
        if isinstance(block, ToolCallBlock)
    ]
    told = [
        message.additional_kwargs.get("tool_call_id")
        for message in messages
        if message.role.value == "tool"
    ]
    return called, told


@pytest.mark.parametrize("reader", LEGAL)
class TestEachProvider:
    def test_calls_that_were_given_none_get_one(self, reader):
        # LlamaIndex's LLM of Ollama: none on the call, the tool's name on the result.
        said = [calling(None, None), *results("look", "look"), calling(None)]
        called, told = pairs(adapted([*said, *results("look")], ALL[reader], ALL))
        assert called == told
        assert len(set(called)) == 3
        assert all(re.fullmatch(LEGAL[reader], one) for one in called)

    @pytest.mark.parametrize("old", ["functions.look:0", "a" * 65, "call_1"])
    def test_what_it_refuses_is_replaced_on_both(self, reader, old):
        said = [calling(old), *results(old)]
        called, told = pairs(adapted(said, ALL[reader], ALL))
        assert called == told
        is_fine = re.fullmatch(LEGAL[reader], old) is not None
        assert (called == [old]) == is_fine

    def test_one_id_for_two_calls_becomes_two(self, reader):
        said = [calling("abcdefghi"), *results("abcdefghi")] * 2
        called, told = pairs(adapted(said, ALL[reader], ALL))
        assert called == told
        assert called[0] == "abcdefghi" != called[1]

    def test_its_own_stay_as_they_are(self, reader):
        said = [calling(None, "no.id", "no.id", author=reader), *results("x", "no.id")]
        assert pairs(adapted(said, ALL[reader], ALL)) == pairs(said)

    @given(ids=st.lists(st.sampled_from([None, "", "a", "b.c", "abcdefghi", "é" * 50])))
    def test_no_two_are_the_same_and_the_beginning_stays(self, reader, ids):
        said = []
        for one in ids:
            said += [calling(one, author=None), *results(one or "look")]
        called, told = pairs(adapted(said, ALL[reader], ALL))
        assert called == told
        assert len(set(called)) == len(ids)
        assert all(re.fullmatch(LEGAL[reader], one) for one in called)
        half = adapted(said[: len(ids) // 2 * 2], ALL[reader], ALL)
        assert pairs(half)[0] == called[: len(ids) // 2]


def test_results_may_come_in_another_order():
    said = [calling("a.b", "c.d"), *results("c.d", "a.b")]
    (first, second), told = pairs(adapted(said, ALL["anthropic"], ALL))
    assert told == [second, first]


@pytest.mark.parametrize("beside", [{}, {"name": "look"}])
def test_a_result_without_an_id_gets_that_of_its_call(beside):
    told = ChatMessage(role="tool", content="1", additional_kwargs=beside)
    called, answered = pairs(adapted([calling(None), told], ALL["openai"], ALL))
    assert called == answered


def test_a_result_that_nobody_asked_for_stays_as_it_is():
    (alone,) = results("x.y")
    assert adapted([alone], ALL["anthropic"], ALL) == [alone]
    said = [calling("a"), alone]
    assert adapted(said, ALL["anthropic"], ALL)[1] is alone


def test_a_conversation_whose_ids_are_fine_is_not_copied():
    said = [calling("toolu_1", author=None), *results("toolu_1"), ChatMessage("so?")]
    sent = adapted(said, ALL["anthropic"], ALL)
    assert all(a is b for a, b in zip(sent, said, strict=True))


def test_the_conversation_itself_is_not_changed():
    said = [calling(None), *results("look")]
    before = pairs(said)
    adapted(said, ALL["mistralai"], ALL)
    assert pairs(said) == before
