"""Stream a routed answer, and keep the books of a whole session.

A callback handler notes what each routed call took, wherever the model stands
in a chain. If a candidate fails before it has said anything, the next best one
answers, and the books show it. Scripted candidates: no key is needed.
"""

import asyncio
import logging

from mixllm_integrations import CandidateModel, MixLLMCallbackHandler, MixLLMChatModel
from mixllm_integrations.testing import ScriptedChatModel


def candidate(name: str, usd: float, scripted: ScriptedChatModel) -> CandidateModel:
    return CandidateModel(
        model=scripted,
        name=name,
        input_cost_per_million_tokens=usd,
        output_cost_per_million_tokens=4 * usd,
    )


logging.disable(logging.WARNING)  # the failover below is on purpose
books = MixLLMCallbackHandler()
model = MixLLMChatModel(
    candidates=[
        candidate(
            "small",
            0.1,
            ScriptedChatModel(
                answers=["Tides follow the moon."],
                errors=[None, None, ConnectionError("the line is dead")],
            ),
        ),
        candidate("large", 2.0, ScriptedChatModel(answers=["The moon pulls."])),
    ],
    willingness_to_pay=0.0001,  # so little that the small one answers if it can
    callbacks=[books],
)

# 1. Chunks arrive as they do from the chosen model; the last one has the decision.
decision = {}
for chunk in model.stream("Why are there tides?"):
    print(chunk.text, end="|", flush=True)
    decision |= chunk.response_metadata.get("mixllm", {})
print("\nstreamed by", decision["candidate"], "for", decision["cost"], "USD")


# 2. The same without blocking the event loop.
async def stream_in_a_loop() -> str:
    return "".join([chunk.text async for chunk in model.astream("Why tides?")])


print("streamed in a loop:", asyncio.run(stream_in_a_loop()))

# 3. The third call of the small one fails: the large one answers instead.
answer = model.invoke("Why are there two tides a day?")
decision = answer.response_metadata["mixllm"]
print("after", decision["attempts"][0]["error"], "answered by", decision["candidate"])

# 4. The books.
for call in books.calls:
    print(
        f"{call.candidate}: {call.input_tokens} + {call.output_tokens} tokens, "
        f"{call.cost:.7f} USD, {1000 * (call.latency_seconds or 0):.1f} ms"
    )
print(f"{books.totals.calls} calls, {books.totals.cost:.7f} USD")
