"""What one LLM wrote is sent to another one in a form that it can read."""

import pytest
from llama_index.core.base.llms.types import (
    CacheControl,
    CachePoint,
    ChatMessage,
    CitationBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms import MockLLM
from llama_index.core.llms.llm import ToolSelection

from mixllm_integrations.llama_index import CandidateLLM, MixLLM
from mixllm_integrations.llama_index.history import adapted, author_of
from mixllm_integrations.llama_index.messages import answering_in_loop
from mixllm_integrations.testing import ScriptedLLM

PRICES = {"input_cost_per_million_tokens": 1.0, "output_cost_per_million_tokens": 1.0}


class OpenAILike(ScriptedLLM):
    @classmethod
    def class_name(cls):
        return "openai_llm"


class ClaudeLike(ScriptedLLM):
    @classmethod
    def class_name(cls):
        return "Anthropic_LLM"


class BesideLike(ScriptedLLM):
    """Keeps tool calls beside the content, as older LLMs do."""

    broken: bool = False

    def get_tool_calls_from_response(
        self,
        response,
        error_on_no_tool_call=True,  # noqa: FBT002
        **kwargs,
    ):
        if self.broken:
            raise ValueError("what is this?")
        return [
            ToolSelection(tool_id="c", tool_name=name, tool_kwargs={"a": 1})
            for name in response.message.additional_kwargs.get("tool_calls", [])
        ]


def entry(name, kind=OpenAILike, **settings):
    return CandidateLLM(llm=kind(model=name, **settings), name=name, **PRICES)


GPT, MINI = entry("gpt"), entry("mini")
CLAUDE, MOCK = entry("claude", ClaudeLike), entry("mock", ScriptedLLM)
BESIDE = entry("beside", BesideLike)
ALL = {one.name: one for one in (GPT, MINI, CLAUDE, MOCK, BESIDE)}
THOUGHT = ThinkingBlock(content="hm", additional_information={"signature": "s"})
SAID = TextBlock(text="four")


def answer(author, *blocks, role="assistant", **beside):
    record = {"decision_id": "d", "candidate": author}
    beside = {**beside, **({"mixllm": record} if author else {})}
    return ChatMessage(role=role, blocks=list(blocks), additional_kwargs=beside)


def read(message, reader):
    (sent,) = adapted([message], reader, ALL)
    return sent


class TestWhoReads:
    def test_the_author_gets_all_but_our_record(self):
        given = answer("claude", THOUGHT, SAID, usage={"n": 1})
        sent = read(given, CLAUDE)
        assert sent.blocks == [THOUGHT, SAID]
        assert sent.additional_kwargs == {"usage": {"n": 1}}
        assert "mixllm" in given.additional_kwargs

    def test_another_of_the_family_gets_all_but_reasoning(self):
        sent = read(answer("gpt", THOUGHT, SAID, refusal=None), MINI)
        assert sent.blocks == [SAID]
        assert sent.additional_kwargs == {"refusal": None}

    def test_another_family_gets_what_was_said(self):
        call = ToolCallBlock(tool_call_id="c", tool_name="add", tool_kwargs={"a": 1})
        given = answer("claude", THOUGHT, SAID, call, usage={}, tool_call_id="x")
        sent = read(given, GPT)
        assert sent.blocks == [SAID, call]
        assert sent.additional_kwargs == {"tool_call_id": "x"}

    @pytest.mark.parametrize(
        ("written", "arguments"),
        [
            ('{"a": 1}', {"a": 1}),
            ("", {}),
            ('{"a": ', {}),
            ("[1]", {}),
            ({"a": 1}, {"a": 1}),
        ],
    )
    def test_arguments_of_tools_are_no_json_there(self, written, arguments):
        call = ToolCallBlock(tool_call_id="c", tool_name="add", tool_kwargs=written)
        (sent,) = read(answer("gpt", call), CLAUDE).blocks
        assert sent.tool_kwargs == arguments
        assert call.tool_kwargs == written
        assert read(answer("gpt", call), MINI).blocks == [call]

    def test_tool_calls_beside_the_content_become_blocks(self):
        sent = read(answer("beside", SAID, tool_calls=["add"]), CLAUDE)
        assert sent.blocks == [
            SAID,
            ToolCallBlock(tool_call_id="c", tool_name="add", tool_kwargs={"a": 1}),
        ]
        assert sent.additional_kwargs == {}

    def test_what_its_author_cannot_read_again_has_no_calls(self):
        broken = entry("broken", BesideLike, broken=True)
        (sent,) = adapted(
            [answer("broken", SAID, x=1)], CLAUDE, {**ALL, "broken": broken}
        )
        assert sent.blocks == [SAID]

    def test_an_answer_of_which_nothing_is_left_is_not_sent(self):
        messages = [ChatMessage("hello"), answer("claude", THOUGHT)]
        assert adapted(messages, GPT, ALL) == [messages[0]]
        assert len(adapted(messages, CLAUDE, ALL)) == 2

    @pytest.mark.parametrize("author", [None, "somebody else"])
    def test_an_answer_of_an_unknown_author_is_left_as_it_is(self, author):
        given = answer(author, THOUGHT, SAID, x=1)
        sent = read(given, GPT)
        assert sent.blocks == given.blocks
        assert sent.additional_kwargs == {"x": 1}

    def test_a_message_with_nothing_to_change_is_the_same_object(self):
        given = ChatMessage("hello", additional_kwargs={"x": 1})
        assert read(given, GPT) is given

    def test_what_the_user_says_is_the_users(self):
        given = answer("claude", SAID, role="user", x=1)
        assert read(given, GPT).additional_kwargs == {"x": 1}


class TestMarks:
    POINT = CachePoint(cache_control=CacheControl(type="ephemeral"))
    CITED = CitationBlock(
        cited_content=TextBlock(text="x"),
        source="s",
        title="t",
        additional_location_info={},
    )

    def test_only_who_knows_them_gets_them(self):
        given = ChatMessage(blocks=[SAID, self.POINT, self.CITED])
        assert read(given, CLAUDE) is given
        assert read(given, GPT).blocks == [SAID]

    def test_an_llm_of_an_unknown_provider_may_know_them(self):
        given = ChatMessage(blocks=[SAID, self.POINT, self.CITED])
        assert read(given, MOCK) is given


def test_an_llm_without_tools_has_left_no_calls_beside_the_content():
    mock = CandidateLLM(llm=MockLLM(), name="plain", **PRICES)
    given = answer("plain", SAID, tool_calls=["add"])
    (sent,) = adapted([given], CLAUDE, {**ALL, "plain": mock})
    assert (sent.blocks, sent.additional_kwargs) == ([SAID], {})


def test_a_tools_result_that_nobody_asked_for_begins_no_loop():
    assert answering_in_loop([ChatMessage(role="tool", content="4")]) is None


def test_the_author_is_on_the_record():
    assert author_of(answer("gpt", SAID)) == "gpt"
    assert author_of(ChatMessage("hello")) is None


def test_what_was_written_before_a_rename_is_still_its_authors():
    llm = MixLLM([entry("before", ClaudeLike), entry("gpt")])
    history = [answer("before", THOUGHT, SAID, usage={}), ChatMessage("sure?")]
    llm.rename_candidate("before", "after")
    for reader, blocks in (("after", [THOUGHT, SAID]), ("gpt", [SAID])):
        llm.chat([*history, answer("gone", THOUGHT)], candidate=reader)
        ((_, (first, *_), _),) = llm.seat(reader).llm.calls
        assert first.blocks == blocks
