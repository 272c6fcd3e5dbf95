"""Put a routed model where one chat model stood: the chain stays as it is.

The candidates are scripted, so this runs without a key. In your code they are
your own chat models, `ChatOpenAI(model=...)` or any other; prices of well-known
models need not be given.
"""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool

from mixllm_integrations import CandidateModel, MixLLMChatModel
from mixllm_integrations.testing import ScriptedChatModel

model = MixLLMChatModel(
    candidates=[
        CandidateModel(
            model=ScriptedChatModel(answers=["A short answer."]),
            name="small",
            input_cost_per_million_tokens=0.1,
            output_cost_per_million_tokens=0.4,
            prior_quality=0.6,
        ),
        CandidateModel(
            model=ScriptedChatModel(answers=["A thorough answer."]),
            name="large",
            input_cost_per_million_tokens=2.0,
            output_cost_per_million_tokens=10.0,
            prior_quality=0.9,
        ),
    ],
)

# 1. A chain: prompt | model | parser.
prompt = ChatPromptTemplate.from_template("Explain {topic} in one sentence.")
chain = prompt | model | StrOutputParser()
print("chain:", chain.invoke({"topic": "entropy"}))

# 2. What one right answer more is worth to you decides who answers.
for usd in (0.0001, 0.1):
    model.router.willingness_to_pay = usd
    decision = model.invoke("Explain entropy.").response_metadata["mixllm"]
    print(
        f"one right answer more is worth {usd:g} USD: {decision['candidate']} answers, "
        f"for {decision['cost']:.7f} USD"
    )

# 3. Every decision can be explained, without asking any model.
print(model.router.route("Explain entropy.", charge_load=False).explain())


# 4. Tools are bound by whoever answers, in its own way.
@tool
def boiling_point(metres: int) -> float:
    """Return at how many degrees Celsius water boils at an altitude."""
    return 100 - metres / 300


answer = (
    MixLLMChatModel(
        candidates=[
            CandidateModel(
                model=ScriptedChatModel(),
                name="small",
                input_cost_per_million_tokens=0.1,
                output_cost_per_million_tokens=0.4,
            )
        ]
    )
    .bind_tools([boiling_point])
    .invoke("Use boiling_point.")
)
print("tool call:", answer.tool_calls[0]["name"])
