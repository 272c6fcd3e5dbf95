"""Code as users write it: `test_user_code.py` has mypy judge it, strictly.

Nothing here runs; every function is a use that must stay well typed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms import LLM
from numpy.typing import NDArray

from mixllm_integrations import (
    BatchPrediction,
    Calibration,
    Candidate,
    CandidateModel,
    ChatMixLLM,
    Decision,
    MixLLMCallbackHandler,
    MixLLMChatModel,
    MixLLMError,
    NoCandidateError,
    Outcome,
    Prediction,
    Router,
    RoutingRecord,
    SentenceTransformerEncoder,
    StaticEncoder,
)
from mixllm_integrations.core.encoder import Encoder, encoder_spec, load_encoder
from mixllm_integrations.llama_index import (
    Asking,
    CandidateLLM,
    MixLLM,
    MixLLMEmbedding,
    RoutingRule,
)
from mixllm_integrations.training import (
    Adaptive,
    Collection,
    Labelling,
    PromptItem,
    acollect,
    collect,
    read_prompts,
)

__all__: list[str] = []


class LengthEncoder:
    """An encoder of a user's own: it inherits from nothing."""

    @property
    def id(self) -> str:
        return "length"

    @property
    def revision(self) -> str:
        return "1"

    @property
    def dimension(self) -> int:
        return 2

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        angle = np.array([len(text) for text in texts], dtype=np.float32)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def declare() -> list[Candidate]:
    return [
        Candidate("small", 0.15, 0.60, context_window=128_000, prior_quality=0.6),
        Candidate("large", 2.5, 10, vision=True, max_concurrency=8),
        Candidate("local", 0, 0, tools=False, structured_output=False),
    ]


def encoders() -> list[Encoder]:
    own: Encoder = LengthEncoder()
    shipped = StaticEncoder.load()
    assert_type(shipped, StaticEncoder)
    assert_type(shipped.encode(["a text"]), NDArray[np.float32])
    spec: Mapping[str, Any] = encoder_spec(shipped)
    return [own, shipped, load_encoder(spec), SentenceTransformerEncoder(Path("model"))]


def learn(records: list[RoutingRecord]) -> Router:
    router = Router(
        declare(),
        encoder=LengthEncoder(),
        predictor="ridge",
        willingness_to_pay=0.02,
        exploration=0.0,
        seed=7,
    )
    assert_type(router.fit(records, progress=False), Router)
    found = router.calibrate(records, quality_target=0.97)
    assert_type(found, Calibration)
    router.willingness_to_pay = found.willingness_to_pay
    return router


def decide(router: Router, query: str) -> float:
    batch = router.predict([query], input_tokens=[12])
    assert_type(batch, BatchPrediction)
    assert_type(batch.candidates, tuple[str, ...])
    decision = router.route(query, input_tokens=12, requires=("tools",))
    assert_type(decision, Decision)
    assert_type(decision.scores[decision.candidate], Prediction)
    assert_type(decision.explain(), str)
    assert_type(router.route_batch([query, query]), list[Decision])
    return decision.prediction.cost


def teach(router: Router, decision: Decision) -> bool:
    router.record_outcome(
        decision.id, Outcome(12, 340, cost=0.002, latency_seconds=1.5)
    )
    return router.record_feedback(decision.id, 1.0, kind="binary", source="thumbs")


def change(router: Router) -> None:
    router.add_candidate(Candidate("new", 1.0, 3.0))
    router.remove_candidate("local")


def keep(router: Router, folder: Path) -> Router:
    router.save(folder)
    return Router.load(folder, encoder=LengthEncoder())


def chat(cheap: BaseChatModel, strong: BaseChatModel, router: Router) -> AIMessage:
    handler = MixLLMCallbackHandler()
    model: BaseChatModel = MixLLMChatModel(
        candidates=[
            cheap,
            CandidateModel(
                model=strong,
                name="strong",
                input_cost_per_million_tokens=2.5,
                output_cost_per_million_tokens=10.0,
            ),
        ],
        router=router,
    )
    alias: type[MixLLMChatModel] = ChatMixLLM
    assert_type(alias, type[MixLLMChatModel])
    try:
        answer = model.invoke("What is 7 times 8?", config={"callbacks": [handler]})
    except NoCandidateError as error:
        assert_type(error.excluded, dict[str, str])
        raise
    except MixLLMError as error:
        raise RuntimeError(str(error)) from error
    assert_type(answer, AIMessage)
    message: BaseMessage = answer
    return message if isinstance(message, AIMessage) else answer


async def converse(cheap: LLM, strong: LLM, router: Router) -> ChatResponse:
    llm = MixLLM(
        [cheap, CandidateLLM(llm=strong, name="strong", prior_quality=0.9)],
        router=router,
        rules=[RoutingRule(when=lambda messages: len(messages) > 9, among=["strong"])],
    )
    every: LLM = llm
    embedding: BaseEmbedding = MixLLMEmbedding()
    assert_type(embedding.get_text_embedding("a text"), list[float])
    with llm.asking(session_id="7", candidate="strong") as asked:
        answer = await every.achat([ChatMessage("What is 7 times 8?")])
    assert_type(asked, Asking)
    assert_type(asked.cost, float)
    assert_type(llm.record_feedback(asked, 1.0, kind="binary"), bool)
    llm.add_candidate(cheap)
    llm.rename_candidate("strong", "stronger")
    return answer


def configured(file: Path) -> MixLLMChatModel:
    assert_type(ChatMixLLM.from_config("candidates.toml"), MixLLMChatModel)
    return MixLLMChatModel.from_config(file, temperature=0.2, store=None)


def grade(item: PromptItem, answer: str) -> float:
    return float(answer == item.reference)


async def label(pool: list[CandidateModel], out: Path) -> Sequence[RoutingRecord]:
    log = read_prompts("log.jsonl")
    found = collect(log.items, pool, out, scorer=grade, judge=pool[0])
    assert_type(found, Collection)
    assert_type(await acollect("log.jsonl", "candidates.toml", out), Collection)
    with Labelling(["Why?"], pool, out, adaptive=Adaptive(half_width=0.1)) as run:
        print(run.estimate().cost)
        return [*run.collect().records, *log.records]
