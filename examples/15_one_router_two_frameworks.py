"""One router for a LangChain model and a LlamaIndex LLM: each learns for both.

They share decisions, load, cooldowns, sessions, feedback and the store. Needs the
extra: `pip install "mixllm-integrations[llama-index]"`. Scripted candidates.
"""

from mixllm_integrations import CandidateModel, MixLLMChatModel
from mixllm_integrations.testing import ScriptedChatModel

try:
    from mixllm_integrations.llama_index import CandidateLLM, MixLLM
    from mixllm_integrations.testing import ScriptedLLM
except ImportError as error:
    raise SystemExit(str(error)) from None

PRICES = {"small": 0.1, "large": 2.0}


def listed(name: str) -> dict[str, float]:
    """Return what is known of a candidate; prices in USD per million tokens."""
    return {
        "input_cost_per_million_tokens": PRICES[name],
        "output_cost_per_million_tokens": 4 * PRICES[name],
        "prior_quality": 0.7,
    }


chat_model = MixLLMChatModel(
    candidates=[
        CandidateModel(
            model=ScriptedChatModel(answers=[name]), name=name, **listed(name)
        )
        for name in PRICES
    ],
)
llm = MixLLM(
    candidates=[
        CandidateLLM(llm=ScriptedLLM(answers=[name]), name=name, **listed(name))
        for name in PRICES
    ],
    router=chat_model.router,
)

question = "Is 221 a prime number?"
print("LlamaIndex before:", llm.complete(question))

# What LangChain's users say of the small model ...
for _ in range(20):
    answer = chat_model.invoke(question)
    chat_model.record_feedback(answer, 0.0 if answer.text == "small" else 1.0)

# ... moves the choice in LlamaIndex, too.
print("LlamaIndex after: ", llm.complete(question))
