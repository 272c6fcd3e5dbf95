"""From your own prompts to labels: ask, grade, stop early, go on, fit, calibrate.

`mixllm collect prompts.jsonl --candidates candidates.toml` does the same in a
terminal. The candidates and the grades are scripted: the small one can add, and
cannot prove anything.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from langchain_core.messages import BaseMessage

from mixllm_integrations import CandidateModel, Router
from mixllm_integrations.testing import ScriptedChatModel
from mixllm_integrations.training import Adaptive, Labelling, PromptItem, collect

SUMS = [
    {"prompt": f"What is {n} plus {2 * n}?", "reference": str(3 * n)}
    for n in range(100)
]
PROOFS = [{"prompt": f"Prove that {n} divides n^{n} - n."} for n in range(11, 51)]
RIGHT = {prompt["prompt"]: prompt["reference"] for prompt in SUMS}


def small(messages: list[BaseMessage]) -> str:
    return RIGHT.get(messages[-1].text, "It is obvious.")


def large(messages: list[BaseMessage]) -> str:
    return RIGHT.get(messages[-1].text, "By Fermat's little theorem ... QED.")


def grade(item: PromptItem, answer: str) -> float:  # or judge="openai:gpt-..."
    return float(answer == item.reference if item.reference else "QED" in answer)


pool = [
    CandidateModel(
        model=ScriptedChatModel(model=answers.__name__, answers=answers),
        input_cost_per_million_tokens=usd,
        output_cost_per_million_tokens=4 * usd,
    )
    for answers, usd in ((small, 0.1), (large, 2.0))
]
with TemporaryDirectory() as folder:
    out = Path(folder) / "records.jsonl"
    with Labelling(SUMS + PROOFS, pool, out, scorer=grade) as labelling:
        print(f"all of it: about {labelling.estimate().cost:.4f} USD")
    settings = {"scorer": grade, "adaptive": Adaptive(half_width=0.1)}
    settings["max_output_tokens"] = 100
    first = collect(SUMS + PROOFS, pool, out, max_cost=0.0012, **settings)
    print(
        f"{first.written} answers, {first.spent:.4f} USD, limit {first.limit_reached}"
    )
    labels = collect(SUMS + PROOFS, pool, out, **settings)  # goes on
    print(f"{labels.written} more, {labels.not_asked} were not needed")
for name, known in labels.candidates.items():
    print(f"{name}: quality {known.quality:.2f} ± {known.half_width:.2f}")
router = Router([one.candidate() for one in pool], seed=0).fit(labels.records)
found = router.calibrate(labels.records, quality_target=0.97)
print(f"{found.relative_quality:.0%} of the quality at {found.relative_cost:.0%} cost")
