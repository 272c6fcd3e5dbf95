"""The main job on real input: 500 real questions, the answers of 8 real models.

Each candidate replays what one model really answered to questions of MMLU-Pro:
was it right, and how many tokens did it take? The router is fitted on other
questions. Then every question goes through an ordinary LangChain chain, one by
one, and the bill and the grades are compared with asking always one model.

Needs the recorded answers: `MIXLLM_BENCH_DATA`, or `../shared/data` beside the
project; and `pip install "mixllm-integrations[data]"` to read them.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from mixllm_integrations import CandidateModel, MixLLMChatModel, Router, RoutingRecord
from mixllm_integrations.benchmark.datasets import BenchmarkTable, load_table
from mixllm_integrations.benchmark.splits import stratified_split

MODELS = (
    "gpt-4o-2024-05-13",
    "gemini-1.5-pro-002",
    "gemini-1.5-flash-002",
    "llama-3.1-70b-instruct",
    "deepseek-v2-chat",
    "qwen1.5-72b-chat",
    "mixtral-8x7b-instruct",
    "phi-3-mini-4k-instruct",
)
# Of the strongest model's quality; calibrated on the training questions alone.
QUALITY_TARGET = 0.9725


class ReplayedModel(BaseChatModel):
    """Answers each question as one model did: with its grade, at its length."""

    model_name: str
    recorded: Mapping[str, Any]

    @property
    def _llm_type(self) -> str:
        return "replayed"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> ChatResult:
        answer: RoutingRecord = self.recorded[messages[-1].text]
        asked, said = answer.input_tokens or 0, answer.output_tokens or 0
        usage = UsageMetadata(
            input_tokens=asked, output_tokens=said, total_tokens=asked + said
        )
        message = AIMessage(str(answer.quality), usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])


@dataclass(frozen=True)
class Graded:
    """What came out of the chain for one question."""

    question: str
    quality: float
    decision: dict[str, Any]


@dataclass(frozen=True)
class MainJob:
    """What came out of the chain for all questions, and what was on record."""

    answers: Sequence[Graded]
    recorded: Mapping[tuple[str, str], RoutingRecord]  # by question and model
    train_quality: Mapping[str, float]  # by model, on the training questions
    train_cost: Mapping[str, float]

    @property
    def strongest(self) -> str:
        """The best model on the training questions."""
        return max(self.train_quality, key=self.train_quality.__getitem__)

    @property
    def cheapest(self) -> str:
        """The model that took least on the training questions."""
        return min(self.train_cost, key=self.train_cost.__getitem__)

    def always(self, model: str) -> tuple[float, float]:
        """Return mean quality and total USD of asking one model everything."""
        own = [self.recorded[answer.question, model] for answer in self.answers]
        return (
            sum(r.quality for r in own) / len(own),
            sum(r.cost or 0.0 for r in own),
        )

    def routed(self) -> tuple[float, float]:
        """Return mean quality and total USD of what the router chose."""
        return (
            sum(answer.quality for answer in self.answers) / len(self.answers),
            sum(answer.decision["cost"] for answer in self.answers),
        )


def data_file() -> Path:
    """Return where the recorded answers should be."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("MIXLLM_BENCH_DATA") or beside) / "mmlu_pro.parquet"


def run_main_job(
    file: Path, *, questions: int = 500, training_questions: int = 3_000, seed: int = 0
) -> MainJob:
    """Fit on some questions, then send others through a chain one by one."""
    table = load_table(file, pool=MODELS)
    train_rows, test_rows = stratified_split(table, seed=seed)
    rng = np.random.default_rng(seed)
    train = table.select(rng.permutation(train_rows)[:training_questions])
    asked = _one_row_per_text(table, rng.permutation(test_rows))[:questions]
    test = table.select(asked)
    recorded = {(r.query, r.candidate): r for r in test.records()}

    labels = list(train.records())
    router = Router(table.candidates, seed=seed).fit(labels)
    router.calibrate(labels, quality_target=QUALITY_TARGET)
    model = MixLLMChatModel(
        candidates=[
            CandidateModel(
                model=ReplayedModel(
                    model_name=c.name,
                    recorded={q: recorded[q, c.name] for q in test.queries},
                ),
                name=c.name,
                input_cost_per_million_tokens=c.input_cost_per_million_tokens,
                output_cost_per_million_tokens=c.output_cost_per_million_tokens,
            )
            for c in table.candidates
        ],
        router=router,
    )
    prompt = ChatPromptTemplate.from_template("{question}")
    chain = prompt | model | RunnableLambda(_graded)
    answers = []
    for question in test.queries:
        quality, decision = chain.invoke({"question": question})
        answers.append(Graded(question, quality, decision))
    return MainJob(
        answers,
        recorded,
        dict(zip(train.names, train.quality.mean(axis=0), strict=True)),
        dict(zip(train.names, train.cost.mean(axis=0), strict=True)),
    )


def _graded(message: AIMessage) -> tuple[float, dict[str, Any]]:
    """Parse an answer: its grade, and the decision it came from."""
    return float(message.text), message.response_metadata["mixllm"]


def _one_row_per_text(table: BenchmarkTable, rows: Sequence[int]) -> list[int]:
    first = {table.queries[row]: row for row in reversed(rows)}
    return list(first.values())


def main() -> None:
    file = data_file()
    if not file.is_file():
        print(
            f"There are no recorded answers ({file.name}): set MIXLLM_BENCH_DATA to "
            "the folder that holds them. Nothing to replay."
        )
        return
    job = run_main_job(file)
    top_quality, top_cost = job.always(job.strongest)
    print(f"{len(job.answers)} questions, routed one by one among {len(MODELS)} models")
    print(f"{'':42}{'right':>8}{'USD':>10}{'of the strongest':>24}")
    for label, (quality, cost) in {
        f"always the strongest: {job.strongest}": (top_quality, top_cost),
        f"always the cheapest: {job.cheapest}": job.always(job.cheapest),
        "routed": job.routed(),
    }.items():
        share = f"{quality / top_quality:.1%} for {cost / top_cost:.1%}"
        print(f"{label:42}{quality:>8.1%}{cost:>10.4f}{share:>24}")
    names = [answer.decision["candidate"] for answer in job.answers]
    for name in sorted(set(names), key=names.count, reverse=True):
        print(f"  {names.count(name):>4} answered by {name}")


if __name__ == "__main__":
    main()
