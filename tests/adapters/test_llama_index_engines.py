"""`Settings.llm = MixLLM(...)` serves LlamaIndex's engines."""

import subprocess
import sys

import pytest
from llama_index.core import MockEmbedding, Settings, VectorStoreIndex
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import TextNode

from mixllm_integrations.llama_index import CandidateLLM, MixLLM
from mixllm_integrations.testing import ScriptedLLM


def candidate(name, quality, answer, **script):
    return CandidateLLM(
        llm=ScriptedLLM(model=name, answers=[answer], **script),
        input_cost_per_million_tokens=1.0,
        output_cost_per_million_tokens=1.0,
        prior_quality=quality,
    )


@pytest.fixture
def pool(monkeypatch, current_loop):
    """A good and a bad LLM behind `Settings.llm`."""
    for name in ("_llm", "_embed_model", "_callback_manager", "_prompt_helper"):
        monkeypatch.setattr(Settings, name, None, raising=False)
    good, bad = candidate("good", 0.9, "Paris it is"), candidate("bad", 0.1, "Rome")
    Settings.embed_model = MockEmbedding(embed_dim=8)
    Settings.llm = MixLLM([bad, good], willingness_to_pay=1.0)
    return good.llm, bad.llm


def index():
    return VectorStoreIndex([TextNode(text="The capital of France is Paris.")])


def chat_engine():
    # LlamaIndex's default memory leaves a database connection open.
    memory = ChatMemoryBuffer.from_defaults(token_limit=1_000, tokenizer_fn=str.split)
    return SimpleChatEngine.from_defaults(memory=memory)


QUESTION = "What is the capital of France?"


class TestQueryEngine:
    def test_it_answers_from_the_chosen_candidate(self, pool):
        good, bad = pool
        assert str(index().as_query_engine().query(QUESTION)) == "Paris it is"
        ((method, messages, _),) = good.calls
        assert method == "chat"
        assert "The capital of France is Paris." in messages[-1].content
        assert bad.calls == []

    async def test_it_answers_without_blocking(self, pool):
        assert str(await index().as_query_engine().aquery(QUESTION)) == "Paris it is"
        assert [method for method, _, _ in pool[0].calls] == ["achat"]

    def test_it_streams(self, pool):
        answer = index().as_query_engine(streaming=True).query(QUESTION)
        assert list(answer.response_gen) == ["Paris ", "it ", "is"]

    def test_it_outlives_a_failing_candidate(self, pool):
        pool[0].errors = [ConnectionError("gone")]
        assert str(index().as_query_engine().query(QUESTION)) == "Rome"


class TestChatEngine:
    def test_it_keeps_a_conversation_without_our_records_in_it(self, pool):
        good, _ = pool
        engine = chat_engine()
        assert str(engine.chat("hello")) == "Paris it is"
        engine.chat("and now?")
        sent = good.calls[1][1]
        assert [m.content for m in sent] == ["hello", "Paris it is", "and now?"]
        assert not any("mixllm" in m.additional_kwargs for m in sent)

    def test_it_streams(self, pool):
        engine = chat_engine()
        answer = engine.stream_chat("hello")
        assert "".join(answer.response_gen) == "Paris it is"

    async def test_it_chats_without_blocking(self, pool):
        engine = chat_engine()
        assert str(await engine.achat("hello")) == "Paris it is"

    def test_feedback_finds_its_decision_in_the_history(self, pool):
        engine = chat_engine()
        engine.chat("hello")
        assert Settings.llm.record_feedback(engine.chat_history[-1], 1.0)


class TestPredict:
    def test_a_prompt_is_filled_and_routed(self, pool):
        llm = Settings.llm
        assert llm.predict(PromptTemplate("Where is {x}?"), x="it") == "Paris it is"
        assert pool[0].calls[0][1][-1].content == "Where is it?"

    def test_a_pool_with_a_completion_model_is_asked_for_completions(self):
        only = candidate("plain", 0.9, "Paris", is_chat_model=False)
        llm = MixLLM([only, candidate("chat", 0.1, "Rome")], willingness_to_pay=1.0)
        assert llm.predict(PromptTemplate("Where is {x}?"), x="it") == "Paris"
        assert [method for method, _, _ in only.llm.calls] == ["complete"]


class TestTheExtra:
    def test_without_llama_index_the_error_names_it(self):
        code = (
            "import sys; sys.modules['llama_index'] = None\n"
            "try:\n    import mixllm_integrations.llama_index\n"
            "except ImportError as error:\n    sys.exit(str(error))"
        )
        run = subprocess.run(
            [sys.executable, "-c", code], check=False, capture_output=True, text=True
        )
        assert 'pip install "mixllm-integrations[llama-index]"' in run.stderr
