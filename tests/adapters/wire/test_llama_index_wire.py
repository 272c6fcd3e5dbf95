"""LlamaIndex's own clients of OpenAI and Anthropic, at a server on this machine."""

import asyncio
import json
import ssl

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import (
    CacheControl,
    CachePoint,
    ChatMessage,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from mixllm_integrations.core.types import Candidate
from mixllm_integrations.llama_index import CandidateLLM, MixLLM
from mixllm_integrations.testing import ScriptedLLM
from mixllm_integrations.testing.wire import Reply, ToolCall, Usage

openai = pytest.importorskip("llama_index.llms.openai")
anthropic = pytest.importorskip("llama_index.llms.anthropic")

pytestmark = [
    pytest.mark.network,
    # LlamaIndex's workflows look at every attribute of the agent.
    pytest.mark.filterwarnings("ignore:(The|Accessing the) .* attribute"),
    # Its client of Anthropic's asks for objects in an older way.
    pytest.mark.filterwarnings("ignore:The 'output_format' parameter is deprecated"),
]

KEY = "sk-this-must-never-be-seen"
MODES = (
    "chat",
    "achat",
    "stream_chat",
    "astream_chat",
    "complete",
    "acomplete",
    "stream_complete",
    "astream_complete",
)
MODELS = ("gpt-4o-mini", "claude-haiku-4-5")
KINDS = ("chat", "responses", "claude", "thinking claude")


class Total(BaseModel):
    """A sum."""

    value: int


def add(a: int, b: int) -> int:
    """Return the sum."""
    return a + b


ADD = FunctionTool.from_defaults(add)


@pytest.fixture(scope="module", autouse=True)
def one_list_of_authorities():
    """Read it once: each client would, for a tenth of a second, and needs none here."""
    read = ssl.create_default_context()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", lambda *args, **kwargs: read)
        yield


@pytest.fixture
def make(server):
    """Make one of the clients; keywords are its own."""

    def made(kind="chat", **settings):
        settings = {"api_key": KEY, "max_retries": 0, **settings}
        if kind == "chat":
            told = {"stream_options": {"include_usage": True}}
            return openai.OpenAI(
                **{"model": "gpt-4o-mini", "additional_kwargs": told, **settings},
                api_base=server.openai_url,
            )
        if kind == "responses":
            return openai.OpenAIResponses(
                model="gpt-5-mini",
                api_base=server.openai_url,
                reasoning_options={"effort": "low", "summary": "auto"},
                **settings,
            )
        if kind == "claude":
            return anthropic.Anthropic(
                **{"model": "claude-haiku-4-5", **settings},
                base_url=server.anthropic_url,
            )
        return anthropic.Anthropic(
            model="claude-opus-4-1",
            base_url=server.anthropic_url,
            max_tokens=4_000,
            temperature=1,
            thinking_dict={"type": "enabled", "budget_tokens": 1_024},
            **settings,
        )

    return made


@pytest.fixture
def both(make):
    """A routed LLM of the two providers, at list prices; OpenAI's goes first."""
    entries = [
        CandidateLLM(llm=make("chat"), prior_quality=0.9),
        CandidateLLM(llm=make("claude"), prior_quality=0.3),
    ]
    llm = MixLLM(entries, willingness_to_pay=1.0)
    llm.router.exploration = 0.0
    return llm


def ask(llm, mode, text="hello there", **kwargs):
    given = [ChatMessage(text)] if "chat" in mode else text

    async def collect():
        answer = await getattr(llm, mode)(given, **kwargs)
        return [chunk async for chunk in answer] if "stream" in mode else [answer]

    if mode.startswith("a"):
        return asyncio.run(collect())
    answer = getattr(llm, mode)(given, **kwargs)
    return list(answer) if "stream" in mode else [answer]


def record_of(response):
    return response.additional_kwargs["mixllm"]


def test_names_prices_and_abilities_come_from_the_clients(both):
    first, second = both.router.candidates
    assert (first.name, second.name) == MODELS
    assert isinstance(first, Candidate)
    # list prices in USD of a million tokens
    assert (first.input_cost_per_million_tokens, first.tools) == (0.15, True)
    assert second.output_cost_per_million_tokens == 5.0
    assert both.metadata.context_window == 128_000
    assert both.metadata.is_function_calling_model


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MODELS)
def test_every_mode_answers_and_knows_its_cost(both, server, mode, name):
    server.model(name, usage=Usage(1_000, 100))
    last = ask(both, mode, candidate=name)[-1]
    text = last.text if "complete" in mode else last.message.content
    assert text == "You said: hello there"
    # 0.15 and 0.6, 1 and 5 USD for a million tokens
    assert record_of(last)["cost"] == pytest.approx(
        {MODELS[0]: 210e-6, MODELS[1]: 1.5e-3}[name]
    )


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_the_responses_api_knows_its_cost(make, server, mode):
    server.model("gpt-5-mini", usage=Usage(10_000, 100, cached_tokens=9_000))
    record = record_of(ask(MixLLM([make("responses")]), mode)[-1])
    # 1,000 tokens at 0.25, 9,000 at 0.025 and 100 at 2 USD for a million
    assert record["cost"] == pytest.approx(250e-6 + 225e-6 + 200e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["chat", "claude"])
def test_handlers_count_what_they_count_of_the_bare_client(make, mode, kind):
    counts = []
    for wrap in (lambda llm: llm, lambda llm: MixLLM([llm])):
        handler = TokenCountingHandler(tokenizer=str.split)
        llm = wrap(make(kind))
        llm.callback_manager = CallbackManager([handler])
        ask(llm, mode)
        counts.append(
            (
                len(handler.llm_token_counts),
                handler.prompt_llm_token_count,
                handler.completion_llm_token_count,
            )
        )
    assert counts[0] == counts[1]
    assert counts[0][0] >= 1


@pytest.mark.parametrize("mode", MODES)
def test_another_provider_takes_over(both, server, mode):
    server.model("gpt-4o-mini").fail_with(503)
    last = ask(both, mode)[-1]
    record = record_of(last)
    assert record["candidate"] == "claude-haiku-4-5"
    (attempt,) = record["attempts"]
    assert attempt["error"] == "InternalServerError"


def test_tokens_out_of_anthropics_cache_are_counted_and_cheaper(both, server):
    server.model("claude-haiku-4-5", usage=Usage(10_000, 100, cached_tokens=9_000))
    record = record_of(both.complete("hello", candidate="claude-haiku-4-5"))
    # 1,000 tokens at 1 USD, 9,000 at 0.1 and 100 at 5 USD for a million
    assert record["cost"] == pytest.approx(0.001 + 0.0009 + 0.0005)


@pytest.mark.parametrize("name", MODELS)
def test_arguments_of_a_call_reach_the_provider(both, server, name):
    both.chat([ChatMessage("hello")], candidate=name, temperature=0.5, max_tokens=7)
    (request,) = server.requests_to(name)
    assert request.body["temperature"] == 0.5
    assert 7 in (
        request.body.get("max_tokens"),
        request.body.get("max_completion_tokens"),
    )


@pytest.mark.parametrize("name", MODELS)
def test_objects_come_by_the_providers_own_way(both, server, name):
    with both.asking(candidate=name) as asked:
        found = both.structured_predict(Total, PromptTemplate("{a} + 2?"), a=2)
    assert isinstance(found, Total)
    assert asked.record["cost"] > 0
    (request,) = server.requests_to(name)
    own = "response_format" if name == MODELS[0] else "output_format"
    told = request.body.get(own) or request.body.get("output_config")
    assert "value" in json.dumps(told)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_function_agent_ends_its_loop(both, server, name, streaming):
    server.model(
        name,
        answers=[
            Reply(tool_calls=[ToolCall("add", {"a": 3, "b": 4})]),
            Reply("It is seven."),
        ],
    )
    memory = ChatMemoryBuffer.from_defaults(token_limit=500, tokenizer_fn=str.split)
    agent = FunctionAgent(tools=[ADD], llm=both, streaming=streaming)
    with both.asking(candidate=name) as asked:
        output = await agent.run("What is 3 and 4?", memory=memory)
    assert str(output) == "It is seven."
    assert [record["candidate"] for record in asked.records] == [name, name]
    assert both.record_feedback(output, 1.0)
    assert "mixllm" not in json.dumps([r.body for r in server.requests])


class Unnumbered(ScriptedLLM):
    """Gives its calls no ids, as LlamaIndex's LLM of Ollama does."""

    def get_tool_calls_from_response(self, response, *args, **kwargs):
        found = super().get_tool_calls_from_response(response, *args, **kwargs)
        return [one.model_copy(update={"tool_id": one.tool_name}) for one in found]


@pytest.mark.parametrize("kind", KINDS[:3])
async def test_an_agents_loop_that_a_local_model_began_goes_on(make, server, kind):
    for name in ("gpt-4o-mini", "gpt-5-mini", "claude-haiku-4-5"):
        server.model(name, answers=[Reply("Both are seven.")])
    calls = [
        ToolCallBlock(tool_name="add", tool_kwargs={"a": a, "b": 7 - a}) for a in (3, 5)
    ]
    said = ChatMessage(role="assistant", blocks=calls)
    local = Unnumbered(answers=[said], errors=[None, TimeoutError()])
    free = {"input_cost_per_million_tokens": 1.0, "output_cost_per_million_tokens": 1.0}
    llm = MixLLM(
        [
            CandidateLLM(llm=local, name="local", prior_quality=0.9, **free),
            CandidateLLM(llm=make(kind), name="far", prior_quality=0.3, **free),
        ],
        willingness_to_pay=1.0,
    )
    llm.router.exploration = 0.0
    memory = ChatMemoryBuffer.from_defaults(token_limit=500, tokenizer_fn=str.split)
    output = await FunctionAgent(tools=[ADD], llm=llm).run(
        "3 + 4, 5 + 2?", memory=memory
    )
    assert str(output) == "Both are seven."
    assert record_of(output.response)["candidate"] == "far"
    (request,) = server.requests  # whose ids the server has checked
    assert json.dumps(request.body).count('"add"') >= 3  # the tool and both calls


class TestHistory:
    """What one client wrote, another one sends in a form that its provider takes."""

    REASONED = "Let me think of it."
    SERVED = ("gpt-4o-mini", "gpt-5-mini", "claude-haiku-4-5", "claude-opus-4-1")

    @pytest.fixture
    def four(self, make):
        price = {
            "input_cost_per_million_tokens": 1.0,
            "output_cost_per_million_tokens": 2.0,
        }
        return MixLLM([CandidateLLM(llm=make(k), name=k, **price) for k in KINDS])

    def serve(self, server, *tool_calls):
        text = "" if tool_calls else "It is seven."
        reply = Reply(text, tool_calls=tool_calls, reasoning=self.REASONED)
        for name in self.SERVED:
            server.model(name, answers=[reply])

    @pytest.mark.parametrize("streaming", [True, False])
    @pytest.mark.parametrize("begins", KINDS)
    @pytest.mark.parametrize("goes_on", KINDS)
    def test_a_conversation_goes_on_elsewhere(
        self, four, server, begins, goes_on, streaming
    ):
        self.serve(server)
        question = ChatMessage("What is 3 and 4?")
        mode = "stream_chat" if streaming else "chat"
        first = ask(four, mode, "What is 3 and 4?", candidate=begins)[-1].message
        history = [question, first, ChatMessage("Are you sure?")]
        answer = four.chat(history, candidate=goes_on)
        assert answer.message.content == "It is seven."
        assert record_of(answer)["attempts"] == []

    # Anthropic refuses a loop without a thought, and its client cannot stop thinking.
    @pytest.mark.parametrize("streaming", [True, False])
    @pytest.mark.parametrize("begins", KINDS)
    @pytest.mark.parametrize("goes_on", [*KINDS[:3], None])
    def test_a_loop_of_tool_calls_goes_on_elsewhere(
        self, four, server, begins, goes_on, streaming
    ):
        self.serve(server, ToolCall("add", {"a": 3, "b": 4}))
        question = ChatMessage("What is 3 and 4?")
        arguments = {"tools": [ADD], "chat_history": [question], "candidate": begins}
        if streaming:
            answer = list(four.stream_chat_with_tools(**arguments))[-1]
        else:
            answer = four.chat_with_tools(**arguments)
        (call,) = four.get_tool_calls_from_response(answer)
        assert call.tool_kwargs == {"a": 3, "b": 4}
        told = {"tool_call_id": call.tool_id}
        result = ChatMessage(role="tool", content="7", additional_kwargs=told)
        self.serve(server)
        asked = {} if goes_on is None else {"candidate": goes_on}
        last = four.chat_with_tools(
            [ADD], chat_history=[question, answer.message, result], **asked
        )
        assert last.message.content == "It is seven."
        assert record_of(last)["candidate"] == (goes_on or begins)

    def test_a_mark_of_the_cache_goes_to_who_knows_it(self, four, server):
        point = CachePoint(cache_control=CacheControl(type="ephemeral"))
        asked = [ChatMessage(blocks=[TextBlock(text="hello"), point])]
        four.chat(asked, candidate="chat")
        four.chat(asked, candidate="claude")
        first, second = server.requests
        assert "cache_control" not in json.dumps(first.body)
        assert "cache_control" in json.dumps(second.body)

    def test_thoughts_of_one_model_are_not_sent_to_another(self, four, server):
        self.serve(server)
        thought = ask(four, "chat", candidate="thinking claude")[-1].message
        assert any(isinstance(block, ThinkingBlock) for block in thought.blocks)
        four.chat([ChatMessage("?"), thought, ChatMessage("?")], candidate="claude")
        assert self.REASONED not in json.dumps(server.requests[-1].body)
        four.chat(
            [ChatMessage("?"), thought, ChatMessage("?")], candidate="thinking claude"
        )
        assert self.REASONED in json.dumps(server.requests[-1].body)

    def test_openais_json_of_a_streamed_call_is_read_for_anthropic(self, four, server):
        call = ToolCallBlock(tool_call_id="c", tool_name="add", tool_kwargs='{"a": 1}')
        record = {"decision_id": "d", "candidate": "chat"}
        said = ChatMessage(
            role="assistant", blocks=[call], additional_kwargs={"mixllm": record}
        )
        told = ChatMessage(
            role="tool", content="1", additional_kwargs={"tool_call_id": "c"}
        )
        four.chat_with_tools(
            [ADD], chat_history=[ChatMessage("?"), said, told], candidate="claude"
        )
        sent = server.requests[-1].body["messages"][1]["content"][0]
        assert sent["input"] == {"a": 1}


def test_keys_are_nowhere_to_be_seen(both):
    shown = [repr(both), str(both.to_dict()), both.to_json(), str(both.to_payload())]
    assert KEY not in "".join(shown)
