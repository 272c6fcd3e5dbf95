"""An agent of LlamaIndex whose every question goes to the cheapest LLM that will do.

Needs the extra: `pip install "mixllm-integrations[llama-index]"`. Within one loop of
tool calls the candidate stays the same. Scripted candidates: no key.
"""

import asyncio
import warnings

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.memory import ChatMemoryBuffer

from mixllm_integrations.llama_index import CandidateLLM, MixLLM
from mixllm_integrations.testing import ScriptedLLM

warnings.filterwarnings("ignore", category=DeprecationWarning)  # LlamaIndex's own


def weather(city: str) -> str:
    """Tell the weather in a city."""
    return {"Oslo": "2 °C and snow", "Lima": "24 °C and sun"}.get(city, "unknown")


def scripted(messages: list[ChatMessage]) -> str | ChatMessage:
    if messages[-1].role == "tool":
        return f"It is {messages[-1].content}."
    city = str(messages[-1].content).rstrip("?").rpartition(" ")[2]
    call = ToolCallBlock(tool_name="weather", tool_kwargs={"city": city})
    return ChatMessage(role="assistant", blocks=[call])


llm = MixLLM(
    candidates=[
        CandidateLLM(
            llm=ScriptedLLM(answers=scripted),
            name=name,
            input_cost_per_million_tokens=usd,
            output_cost_per_million_tokens=4 * usd,
        )
        for name, usd in [("small", 0.1), ("large", 2.0)]
    ],
    willingness_to_pay=0.001,  # USD for one right answer more
)


async def main() -> None:
    agent = FunctionAgent(tools=[weather], llm=llm)
    memory = ChatMemoryBuffer.from_defaults(token_limit=900, tokenizer_fn=str.split)
    for city in ("Oslo", "Lima"):
        with llm.asking(session_id="a talk about the weather") as asked:
            output = await agent.run(f"How is the weather in {city}?", memory=memory)
        who = {record["candidate"] for record in asked.records}
        print(f"{output} ({who}, {asked.cost:.7f} USD)")
        llm.record_feedback(output, 1.0, kind="binary")


asyncio.run(main())
