"""From no label to a router that knows your traffic: ask, grade, fit, calibrate.

Every candidate answers a sample of your own prompts, the answers are graded, and
the router of the chat model is fitted on the spot. The candidates are scripted:
the small one can add, and cannot prove anything.
"""

from langchain_core.messages import AIMessage, BaseMessage

from mixllm_integrations import CandidateModel, MixLLMChatModel, RoutingRecord
from mixllm_integrations.testing import ScriptedChatModel

SUMS = [f"What is {n} plus {2 * n}?" for n in range(11, 41)]
PROOFS = [f"Prove that {n} divides n^{n} - n for every n." for n in range(11, 41)]
RIGHT = {prompt: str(3 * n) for n, prompt in enumerate(SUMS, start=11)}


def small(messages: list[BaseMessage]) -> str:
    return RIGHT.get(messages[-1].text, "It is obvious.")


def large(messages: list[BaseMessage]) -> str:
    return RIGHT.get(messages[-1].text, "By Fermat's little theorem ... QED.")


models = {"small": ScriptedChatModel(answers=small, usage=(20, 100))}
models["large"] = ScriptedChatModel(answers=large, usage=(20, 100))
model = MixLLMChatModel(
    candidates=[
        CandidateModel(
            model=models[name],
            name=name,
            input_cost_per_million_tokens=usd,
            output_cost_per_million_tokens=4 * usd,
        )
        for name, usd in [("small", 0.1), ("large", 2.0)]
    ]
)


def grade(prompt: str, answer: AIMessage) -> float:
    right = RIGHT.get(prompt, "QED")
    return 1.0 if right in answer.text else 0.0


def show(when: str) -> None:
    for prompt in (
        "What is 50 plus 100?",
        "Prove that 50 divides n^50 - n for every n.",
    ):
        told = model.invoke(prompt, {"configurable": {"dry_run": True}})
        print(f"{when}: {told.response_metadata['mixllm']['candidate']}: {prompt}")


show("before")
records = []
for name, chat in models.items():
    for prompt, answer in zip(SUMS + PROOFS, chat.batch(SUMS + PROOFS), strict=True):
        used = answer.usage_metadata["output_tokens"]
        quality = grade(prompt, answer)
        records.append(RoutingRecord(prompt, name, quality, output_tokens=used))
model.router.fit(records)
found = model.router.calibrate(records, quality_target=0.98)
print(f"{found.relative_quality:.0%} of the quality at {found.relative_cost:.0%} cost")
show("after")
