"""The same router as a LlamaIndex LLM: completion, chat, stream, `Settings.llm`.

Needs the extra: `pip install "mixllm-integrations[llama-index]"`. The candidates
are scripted; yours are `OpenAI(model=...)`, `Anthropic(model=...)`, ...
"""

try:
    from llama_index.core import Settings
    from llama_index.core.llms import ChatMessage
except ImportError:
    raise SystemExit(
        'this needs LlamaIndex: pip install "mixllm-integrations[llama-index]"'
    ) from None

from mixllm_integrations.llama_index import CandidateLLM, MixLLM
from mixllm_integrations.testing import ScriptedLLM

llm = MixLLM(
    candidates=[
        CandidateLLM(
            llm=ScriptedLLM(answers=["Because the moon pulls at the sea."]),
            name="small",
            input_cost_per_million_tokens=0.1,
            output_cost_per_million_tokens=0.4,
        ),
        CandidateLLM(
            llm=ScriptedLLM(answers=["Because gravity falls off with distance."]),
            name="large",
            input_cost_per_million_tokens=2.0,
            output_cost_per_million_tokens=10.0,
        ),
    ],
)

# 1. A completion; the decision is on the response.
response = llm.complete("Why are there tides?")
decision = response.additional_kwargs["mixllm"]
print("completion:", response.text)
print(f"  by {decision['candidate']} for {decision['cost']:.7f} USD")

# 2. A chat, streamed.
question = [ChatMessage(role="user", content="Why are there two tides a day?")]
print("stream: ", end="")
for piece in llm.stream_chat(question):
    print(piece.delta, end="", flush=True)
print()

# 3. For everything in LlamaIndex that asks `Settings.llm`.
Settings.llm = llm
print("settings:", Settings.llm.chat(question).message.content)

# 4. Feedback, as for the LangChain model.
print("learned from it:", llm.record_feedback(response, 1.0))
