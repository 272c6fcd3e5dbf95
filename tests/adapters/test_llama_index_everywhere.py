"""`MixLLM` inside what LlamaIndex builds on an LLM."""

import pytest
from llama_index.core import Settings, SummaryIndex, VectorStoreIndex
from llama_index.core.agent.workflow import (
    AgentWorkflow,
    FunctionAgent,
    ReActAgent,
)
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import (
    ChatMessage,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.evaluation import (
    CorrectnessEvaluator,
    FaithfulnessEvaluator,
    RelevancyEvaluator,
)
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import RouterQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.schema import TextNode
from llama_index.core.selectors import LLMSingleSelector, PydanticSingleSelector
from llama_index.core.tools import FunctionTool, QueryEngineTool, ToolMetadata
from llama_index.core.workflow import StartEvent, StopEvent, Workflow, step

from mixllm_integrations import ConfigurationError
from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.langchain import MixLLMEmbeddings
from mixllm_integrations.llama_index import CandidateLLM, MixLLM, MixLLMEmbedding
from mixllm_integrations.testing import ScriptedLLM

pytestmark = [
    pytest.mark.usefixtures("current_loop"),
    # LlamaIndex's workflows look at every attribute of the agent.
    pytest.mark.filterwarnings("ignore:(The|Accessing the) .* attribute"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step"),
]


@pytest.fixture(autouse=True)
def clean_settings(monkeypatch):
    for name in ("_llm", "_embed_model", "_callback_manager", "_prompt_helper"):
        monkeypatch.setattr(Settings, name, None, raising=False)
    Settings.embed_model = MixLLMEmbedding()


def entry(name, quality, answers, **script):
    return CandidateLLM(
        llm=ScriptedLLM(model=name, answers=answers, **script),
        name=name,
        input_cost_per_million_tokens=1.0,
        output_cost_per_million_tokens=1.0,
        prior_quality=quality,
    )


def routed(answers, **script):
    """Settings.llm, with a candidate that is never right beside the good one."""
    llm = MixLLM(
        [entry("bad", 0.1, ["wrong"]), entry("good", 0.9, answers, **script)],
        willingness_to_pay=1.0,
    )
    llm.router.exploration = 0.0
    Settings.llm = llm
    return llm


def said(*calls, text=""):
    blocks = [TextBlock(text=text)] if text else []
    return ChatMessage(
        role="assistant",
        blocks=[
            *blocks,
            *(
                ToolCallBlock(tool_call_id=f"c{n}", tool_name=name, tool_kwargs=kwargs)
                for n, (name, kwargs) in enumerate(calls)
            ),
        ],
    )


def memory():
    # LlamaIndex's default memory leaves a database connection open.
    return ChatMemoryBuffer.from_defaults(token_limit=2_000, tokenizer_fn=str.split)


def methods(llm):
    return [method for method, _, _ in llm.seat("good").llm.calls]


SEA = TextNode(text="Tides are made by the moon, which pulls at the sea.")
SNOW = TextNode(text="Snow is frozen water that falls from clouds in winter.")


class TestEmbedding:
    def test_it_is_one_of_llamaindexs_and_finds_what_is_near(self):
        embedding = MixLLMEmbedding()
        assert isinstance(embedding, BaseEmbedding)
        index = VectorStoreIndex([SEA, SNOW], embed_model=embedding)
        (found,) = index.as_retriever(similarity_top_k=1).retrieve("moon and tide")
        assert found.node.text == SEA.text

    async def test_all_its_ways_agree_with_the_one_for_langchain(self):
        embedding = MixLLMEmbedding()
        (expected,) = MixLLMEmbeddings().embed_documents(["the sea"])
        assert embedding.get_text_embedding("the sea") == expected
        assert embedding.get_query_embedding("the sea") == expected
        assert embedding.get_text_embedding_batch(["x", "the sea"])[1] == expected
        assert await embedding.aget_text_embedding("the sea") == expected
        assert await embedding.aget_query_embedding("the sea") == expected
        batch = await embedding.aget_text_embedding_batch(["the sea", "x"])
        assert batch[0] == expected

    def test_it_takes_a_routers_encoder_and_says_which(self):
        encoder = StaticEncoder.load()
        embedding = MixLLMEmbedding(encoder)
        assert embedding.model_name == encoder.id
        assert embedding.to_dict()["class_name"] == "MixLLMEmbedding"


class TestEngines:
    @pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize"])
    def test_every_way_to_synthesise_an_answer(self, mode):
        llm = routed(["Because of the moon."])
        engine = VectorStoreIndex([SEA, SNOW]).as_query_engine(response_mode=mode)
        with llm.asking() as asked:
            assert str(engine.query("Why are there tides?")) == "Because of the moon."
        assert {record["candidate"] for record in asked.records} == {"good"}
        assert llm.record_feedback(asked, 1.0)

    @pytest.mark.parametrize(
        "mode", ["context", "condense_question", "condense_plus_context", "simple"]
    )
    def test_every_chat_engine_keeps_its_conversation(self, mode):
        llm = routed(["Because of the moon."])
        kwargs = {} if mode == "simple" else {"verbose": False}
        engine = VectorStoreIndex([SEA]).as_chat_engine(
            chat_mode=mode, memory=memory(), **kwargs
        )
        for question in ("Why are there tides?", "And why two a day?"):
            with llm.asking(session_id="s") as asked:
                assert str(engine.chat(question)) == "Because of the moon."
            assert llm.record_feedback(asked, 1.0)
        sent = [m for _, messages, _ in llm.seat("good").llm.calls for m in messages]
        assert not any("mixllm" in message.additional_kwargs for message in sent)
        assert len(engine.chat_history) == 4

    @pytest.mark.parametrize("streaming", [True, False])
    def test_an_engines_answer_cannot_be_judged_and_the_error_says_what_can(
        self, streaming
    ):
        llm = routed(["Because of the moon."])
        index = VectorStoreIndex([SEA])
        query = index.as_query_engine(streaming=streaming).query("Why?")
        chat = index.as_chat_engine(chat_mode="context", memory=memory())
        said = chat.stream_chat("Why?") if streaming else chat.chat("Why?")
        for answer in (query, said):
            if streaming:
                assert "".join(answer.response_gen) == "Because of the moon."
            for judge in (llm.record_feedback, llm.record_signal):
                with pytest.raises(
                    ConfigurationError, match=r"llm\.asking\(\)"
                ) as told:
                    judge(answer, 1.0)
                assert "moon" not in str(told.value)

    @pytest.mark.parametrize("selector", [LLMSingleSelector, PydanticSingleSelector])
    def test_a_router_query_engine_selects_and_answers(self, selector):
        def answers(messages):
            asked = " ".join(message.content or "" for message in messages)
            if "choices" not in asked and "Some choices" not in asked:
                return "Because of the moon."
            if selector is LLMSingleSelector:
                return '[{"choice": 2, "reason": "it is about the sea"}]'
            return said(("SingleSelection", {"index": 2, "reason": "the sea"}))

        llm = routed(answers)
        tools = [
            QueryEngineTool.from_defaults(
                SummaryIndex([node]).as_query_engine(), name=name, description=name
            )
            for name, node in (("snow", SNOW), ("sea", SEA))
        ]
        engine = RouterQueryEngine.from_defaults(
            query_engine_tools=tools, selector=selector.from_defaults(llm=llm)
        )
        answer = engine.query("Why are there tides?")
        assert str(answer) == "Because of the moon."
        assert "moon" in answer.source_nodes[0].node.text

    def test_a_sub_question_engine_divides_and_answers(self):
        def answers(messages):
            asked = " ".join(message.content or "" for message in messages)
            if "sub-questions" in asked.lower() and "tool" in asked.lower():
                return (
                    '```json\n{"items": [{"sub_question": "What makes tides?", '
                    '"tool_name": "sea"}]}\n```'
                )
            return "The moon does."

        llm = routed(answers)
        tool = QueryEngineTool(
            query_engine=VectorStoreIndex([SEA]).as_query_engine(),
            metadata=ToolMetadata(name="sea", description="about the sea"),
        )
        engine = SubQuestionQueryEngine.from_defaults(
            query_engine_tools=[tool],
            question_gen=LLMQuestionGenerator.from_defaults(llm=llm),
            use_async=True,
            verbose=False,
        )
        with llm.asking() as asked:
            assert str(engine.query("Why are there tides?")) == "The moon does."
        assert len(asked.records) == 3  # the division, the part, the whole


def add(a: int, b: int) -> int:
    """Return the sum."""
    return a + b


ADD = FunctionTool.from_defaults(add)


def adding(messages):
    """Call the tool first, then tell what it said."""
    if messages[-1].role is MessageRole.TOOL:
        return f"it is {messages[-1].content}"
    return said(("add", {"a": 2, "b": 2}))


class TestAgents:
    async def test_a_function_agent_is_asked_per_block_and_judged(self):
        llm = routed(adding)
        agent = FunctionAgent(tools=[ADD], llm=llm)
        with llm.asking(session_id="s", candidate="good") as asked:
            output = await agent.run("2 + 2?", memory=memory())
        assert str(output) == "it is 4"
        assert [r["candidate"] for r in asked.records] == ["good", "good"]
        assert {r["session"] for r in asked.records} == {"s"}
        assert methods(llm) == ["astream_chat"] * 2
        assert llm.record_feedback(output, 1.0)
        assert not llm.record_feedback(asked, 1.0)  # the same answer

    async def test_an_agent_with_an_object_as_its_output(self):
        from pydantic import BaseModel

        class Total(BaseModel):
            """A sum."""

            value: int

        def answers(messages):
            if messages[-1].role is MessageRole.TOOL:
                return "it is 4"
            if any("4" in (m.content or "") for m in messages):
                return said(("Total", {"value": 4}))
            return said(("add", {"a": 2, "b": 2}))

        llm = routed(answers)
        agent = FunctionAgent(tools=[ADD], llm=llm, output_cls=Total)
        output = await agent.run("two and two?", memory=memory())
        assert output.get_pydantic_model(Total) == Total(value=4)

    async def test_two_agents_hand_over_to_each_other(self):
        def answers(messages):
            last = messages[-1]
            if last.role is MessageRole.TOOL and last.content == "4":
                return "it is 4"
            system = messages[0].content or ""
            if "You greet" in system:
                return said(("handoff", {"to_agent": "adder", "reason": "it is a sum"}))
            return said(("add", {"a": 2, "b": 2}))

        llm = routed(answers)
        greeter = FunctionAgent(
            name="greeter",
            description="greets",
            system_prompt="You greet.",
            tools=[],
            llm=llm,
            can_handoff_to=["adder"],
        )
        adder = FunctionAgent(
            name="adder",
            description="adds",
            system_prompt="You add.",
            tools=[ADD],
            llm=llm,
        )
        workflow = AgentWorkflow(agents=[greeter, adder], root_agent="greeter")
        with llm.asking() as asked:
            output = await workflow.run(user_msg="2 + 2?", memory=memory())
        assert str(output) == "it is 4"
        assert output.current_agent_name == "adder"
        assert len(asked.records) == 3
        assert llm.record_feedback(output, 1.0)

    async def test_a_react_agent_reasons_in_text(self):
        def answers(messages):
            if any("Observation: 4" in (m.content or "") for m in messages):
                return "Thought: I can answer.\nAnswer: it is 4"
            return 'Thought: I add.\nAction: add\nAction Input: {"a": 2, "b": 2}'

        llm = routed(answers, is_function_calling_model=False)
        agent = ReActAgent(tools=[ADD], llm=llm)
        output = await agent.run("2 + 2?", memory=memory())
        assert str(output) == "it is 4"
        assert len(llm.seat("good").llm.calls) == 2
        assert llm.record_feedback(output, 1.0)

    async def test_it_outlives_a_candidate_that_fails_in_its_loop(self):
        llm = MixLLM(
            [
                entry("spare", 0.1, adding),
                entry("good", 0.9, adding, errors=[None, TimeoutError()]),
            ],
            willingness_to_pay=1.0,
        )
        llm.router.exploration = 0.0
        agent = FunctionAgent(tools=[ADD], llm=llm)
        output = await agent.run("2 + 2?", memory=memory())
        assert str(output) == "it is 4"
        assert output.response.additional_kwargs["mixllm"]["candidate"] == "spare"


class TestWorkflow:
    async def test_a_workflow_of_ones_own(self):
        llm = routed(["because"])

        class Answering(Workflow):
            @step
            async def answer(self, event: StartEvent) -> StopEvent:
                return StopEvent(result=await llm.acomplete(event.question))

        with llm.asking(candidate="good") as asked:
            answer = await Answering().run(question="why?")
        assert answer.text == "because"
        assert asked.record == answer.additional_kwargs["mixllm"]


class TestEvaluators:
    @pytest.mark.parametrize("kind", [FaithfulnessEvaluator, RelevancyEvaluator])
    def test_a_yes_is_a_yes(self, kind):
        found = kind(llm=routed(["YES"])).evaluate(
            query="why?", response="because", contexts=["it is so because"]
        )
        assert found.passing

    def test_a_score_is_read(self):
        found = CorrectnessEvaluator(llm=routed(["4.5\nIt is nearly right."])).evaluate(
            query="why?", response="because", reference="because"
        )
        assert (found.score, found.passing) == (4.5, True)
