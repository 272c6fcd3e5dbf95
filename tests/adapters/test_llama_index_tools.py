"""Calls with tools go to candidates that call tools, and stay with them."""

import asyncio
from dataclasses import replace

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from mixllm_integrations import ConfigurationError, NoCandidateError
from mixllm_integrations.llama_index import CandidateLLM, MixLLM
from mixllm_integrations.testing import ScriptedLLM

MODES = (
    "chat_with_tools",
    "achat_with_tools",
    "stream_chat_with_tools",
    "astream_chat_with_tools",
)


def add(a: int, b: int) -> int:
    """Return the sum."""
    return a + b


ADD = FunctionTool.from_defaults(add)
ADDING = ChatMessage(
    role="assistant",
    blocks=[
        TextBlock(text="let me add"),
        ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs={"a": 2, "b": 2}),
    ],
)


def candidate(name, quality=0.5, **script):
    return CandidateLLM(
        llm=ScriptedLLM(model=name, **script),
        input_cost_per_million_tokens=1.0,
        output_cost_per_million_tokens=1.0,
        prior_quality=quality,
    )


def plain(name="plain", quality=0.99):
    """The best of all, but it cannot call tools."""
    return candidate(name, quality, is_function_calling_model=False)


def user(text):
    return ChatMessage(role="user", content=text)


def ask(llm, mode, **kwargs):
    async def collect():
        answer = await getattr(llm, mode)(**kwargs)
        return [chunk async for chunk in answer] if "stream" in mode else [answer]

    if mode.startswith("a"):
        return asyncio.run(collect())
    answer = getattr(llm, mode)(**kwargs)
    return list(answer) if "stream" in mode else [answer]


def record_of(response):
    return response.additional_kwargs["mixllm"]


@pytest.mark.parametrize("mode", MODES)
class TestEveryWayOfAsking:
    def test_only_candidates_that_call_tools_compete(self, mode):
        llm = MixLLM([plain(), candidate("able", answers=[ADDING])])
        responses = ask(llm, mode, tools=[ADD], user_msg="2 + 2?")
        for response in responses:
            assert record_of(response)["candidate"] == "able"
            assert response.message.additional_kwargs["mixllm"] == record_of(response)
        (call,) = llm.get_tool_calls_from_response(responses[-1])
        assert (call.tool_name, call.tool_kwargs) == ("add", {"a": 2, "b": 2})

    def test_arguments_reach_the_candidate(self, mode):
        able = candidate("able")
        history = [user("hello"), ChatMessage(role="assistant", content="hi")]
        ask(
            MixLLM([able]),
            mode,
            tools=[ADD],
            user_msg="2 + 2?",
            chat_history=history,
            allow_parallel_tool_calls=True,
            tool_required=True,
            tool_choice="add",
        )
        ((_, messages, kwargs),) = able.llm.calls
        assert messages == [*history, user("2 + 2?")]
        assert kwargs == {
            "tools": ["add"],
            "allow_parallel_tool_calls": True,
            "tool_required": True,
            "tool_choice": "add",
        }

    def test_the_callers_history_is_not_changed_and_failover_sends_the_same(self, mode):
        failing = candidate("failing", 0.9, errors=[TimeoutError()])
        able = candidate("able", 0.1)
        history = [user("hello")]
        llm = MixLLM([failing, able], willingness_to_pay=1.0)
        responses = ask(
            llm, mode, tools=[ADD], user_msg=user("2 + 2?"), chat_history=history
        )
        assert history == [user("hello")]
        assert record_of(responses[-1])["candidate"] == "able"
        for asked in (failing, able):
            assert asked.llm.calls[0][1] == [user("hello"), user("2 + 2?")]

    def test_without_a_capable_candidate_it_is_an_error_that_says_so(self, mode):
        with pytest.raises(NoCandidateError, match="tool"):
            ask(MixLLM([plain()]), mode, tools=[ADD], user_msg="2 + 2?")

    def test_a_loop_keeps_its_candidate_without_showing_it_our_record(self, mode):
        # "better" would win any new decision; "first" began the loop.
        first, better = candidate("first", 0.5), candidate("better", 0.9)
        llm = MixLLM([first, better], willingness_to_pay=1.0)
        record = {"decision_id": "d1", "candidate": "first"}
        asked = ADDING.model_copy(update={"additional_kwargs": {"mixllm": record}})
        result = ChatMessage(
            role="tool", content="4", additional_kwargs={"tool_call_id": "c1"}
        )
        loop = [user("2 + 2?"), asked, result]
        (*_, last) = ask(llm, mode, tools=[ADD], chat_history=loop)
        assert record_of(last)["candidate"] == "first"
        _, sent, _ = first.llm.calls[0]
        assert [m.additional_kwargs for m in sent] == [{}, {}, {"tool_call_id": "c1"}]
        # the next question is free again
        (*_, last) = ask(llm, mode, tools=[ADD], chat_history=[*loop, user("3 + 3?")])
        assert record_of(last)["candidate"] == "better"

    def test_a_loop_of_unknown_origin_is_not_given_to_an_older_one(self, mode):
        first, better = candidate("first", 0.5), candidate("better", 0.9)
        llm = MixLLM([first, better], willingness_to_pay=1.0)
        record = {"decision_id": "d1", "candidate": "first"}
        older = ADDING.model_copy(update={"additional_kwargs": {"mixllm": record}})
        result = ChatMessage(role="tool", content="4")
        loop = [user("2 + 2?"), older, result, user("3 + 3?"), ADDING, result]
        (*_, last) = ask(llm, mode, tools=[ADD], chat_history=loop)
        assert record_of(last)["candidate"] == "better"


class TestToolCallsOfAnAnswer:
    def test_the_llm_that_answered_reads_them(self):
        class Other(ScriptedLLM):
            def get_tool_calls_from_response(self, response, **kwargs):
                return ["read by the other"]

        other = CandidateLLM(
            llm=Other(model="other", answers=[ADDING]),
            input_cost_per_million_tokens=0.0,
            output_cost_per_million_tokens=0.0,
            prior_quality=0.9,
        )
        llm = MixLLM([candidate("one", 0.1), other])
        answer = llm.chat_with_tools([ADD], "2 + 2?")
        assert llm.get_tool_calls_from_response(answer) == ["read by the other"]

    def test_an_answer_without_a_record_is_read_all_the_same(self):
        llm = MixLLM([plain(), candidate("able")])
        bare = ChatResponse(message=ADDING)
        assert [c.tool_id for c in llm.get_tool_calls_from_response(bare)] == ["c1"]
        empty = ChatResponse(message=ChatMessage())
        assert not llm.get_tool_calls_from_response(empty, error_on_no_tool_call=False)
        with pytest.raises(ValueError, match="no tool"):
            llm.get_tool_calls_from_response(empty)

    def test_without_a_capable_candidate_it_is_an_error(self):
        mock = CandidateLLM(
            llm=MockLLM(),
            name="mock",
            input_cost_per_million_tokens=0.0,
            output_cost_per_million_tokens=0.0,
        )
        with pytest.raises(ConfigurationError, match="'mock'"):
            MixLLM([mock]).get_tool_calls_from_response(ChatResponse(message=ADDING))


class TestInside:
    def loop(self):
        """Calls the tool once, then answers with its result."""

        def answer(messages):
            last = messages[-1]
            return f"it is {last.content}" if last.role is MessageRole.TOOL else ADDING

        return answer

    # LlamaIndex's workflows look at every attribute of the agent.
    @pytest.mark.filterwarnings("ignore:(The|Accessing the) .* attribute")
    @pytest.mark.parametrize("streaming", [True, False])
    async def test_a_function_agent_finishes_its_loop_with_one_candidate(
        self, streaming
    ):
        able, spare = (
            candidate("able", 0.9, answers=self.loop()),
            candidate("spare", 0.1, answers=self.loop()),
        )
        llm = MixLLM([plain(), able, spare], willingness_to_pay=1.0)
        # the default memory leaves a database connection open
        memory = ChatMemoryBuffer.from_defaults(token_limit=500, tokenizer_fn=str.split)
        agent = FunctionAgent(tools=[ADD], llm=llm, streaming=streaming)
        output = await agent.run("2 + 2?", memory=memory)
        assert str(output) == "it is 4"
        assert len(able.llm.calls) == 2
        assert spare.llm.calls == []
        assert llm.record_feedback(output, 1.0)

    def test_predict_and_call_calls_the_tool(self):
        llm = MixLLM([plain(), candidate("able", answers=[ADDING])])
        assert llm.predict_and_call([ADD], "2 + 2?").response == "4"

    def test_structured_predict_goes_through_a_capable_candidate(self):
        class Total(BaseModel):
            """A sum."""

            value: int

        call = ToolCallBlock(
            tool_call_id="c1", tool_name="Total", tool_kwargs={"value": 4}
        )
        answer = ChatMessage(role="assistant", blocks=[call])
        blind = replace(plain(), structured_output=False)
        llm = MixLLM([blind, candidate("able", answers=[answer])])
        prompt = PromptTemplate("{a} + {b}?")
        assert llm.structured_predict(Total, prompt, a=2, b=2) == Total(value=4)
        structured = llm.as_structured_llm(Total).chat([user("2 + 2?")])
        assert structured.raw == Total(value=4)
