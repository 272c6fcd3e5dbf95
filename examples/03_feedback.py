"""Tell the router how good its answers were, and watch it change its mind.

Two models cost about the same. Nothing is known about them at first; in truth
one is good at code and the other at law. Rewards may come at any time, for some
answers only, and twice: each decision learns once.
"""

from mixllm_integrations import CandidateModel, MixLLMChatModel
from mixllm_integrations.testing import ScriptedChatModel

GOOD_AT = {"coder": "code", "lawyer": "law"}
QUESTIONS = [
    ("code", "Write a Python function that sorts a list of tuples by date."),
    ("law", "May my landlord keep the deposit because of a scratched door?"),
    ("code", "Why does this SQL query return every row twice?"),
    ("law", "Is a contract valid that was signed by a minor?"),
    ("code", "Rewrite this Java loop as a stream."),
    ("law", "Who is liable if a tenant's guest floods the flat below?"),
    ("code", "How do I catch an exception in an async Python function?"),
    ("law", "Can an employer change the place of work without consent?"),
]
UNSEEN = {
    "code": "Write a regular expression that matches Python function names.",
    "law": "Must a tenant pay rent while the flat cannot be lived in?",
}

model = MixLLMChatModel(
    candidates=[
        CandidateModel(
            model=ScriptedChatModel(answers=["..."]),
            name=name,
            input_cost_per_million_tokens=1.0,
            output_cost_per_million_tokens=4.0,
        )
        for name in GOOD_AT
    ]
)
# Explore a little more than usual: there is no time for thousands of answers.
model.router.exploration = 0.1


def show(when: str) -> None:
    prediction = model.router.predict(list(UNSEEN.values()))
    for subject, row in zip(UNSEEN, prediction.quality, strict=True):
        expected = ", ".join(
            f"{name} {quality:.2f}"
            for name, quality in zip(prediction.candidates, row, strict=True)
        )
        print(f"{when}, expected for an unseen {subject} question: {expected}")


show("before")
for _ in range(10):
    for subject, question in QUESTIONS:
        answer = model.invoke(question)
        chosen = answer.response_metadata["mixllm"]["candidate"]
        reward = 1.0 if GOOD_AT[chosen] == subject else 0.0
        model.record_feedback(answer, reward, kind="binary", source="thumbs")
        # A retry of the same feedback, by its id this time: not new, not learned.
        decision_id = answer.response_metadata["mixllm"]["decision_id"]
        repeated = model.record_feedback(decision_id, reward, kind="binary")
        if repeated:
            raise SystemExit("one answer was learned twice")
show("after")

for subject, question in UNSEEN.items():
    decision = model.invoke(question).response_metadata["mixllm"]
    print(f"an unseen {subject} question goes to {decision['candidate']}")
