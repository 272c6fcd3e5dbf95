"""An agent whose every turn goes to the cheapest model that will do.

`create_agent` (package langchain) takes the routed model like any other one.
Within one loop of tool calls the candidate stays the same; each new question of
the user is routed anew. Scripted candidates: no key is needed.
"""

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.checkpoint.memory import InMemorySaver

from mixllm_integrations import CandidateModel, MixLLMCallbackHandler, MixLLMChatModel
from mixllm_integrations.testing import ScriptedChatModel

WEATHER = {"Oslo": "2 °C and snow", "Lima": "24 °C and sun"}


def weather(city: str) -> str:
    """Tell the weather in a city."""
    return WEATHER.get(city, "unknown")


def scripted(messages: list[BaseMessage]) -> str | AIMessage:
    last = messages[-1]
    if last.type == "tool":
        return f"It is {last.text}."
    for city in WEATHER:
        if city in last.text:
            call = {"name": "weather", "args": {"city": city}, "id": f"call_{city}"}
            return AIMessage("", tool_calls=[call])
    return "Sun warms the ground, and the ground warms the air."


books = MixLLMCallbackHandler(reference="large")
model = MixLLMChatModel(
    candidates=[
        CandidateModel(
            model=ScriptedChatModel(answers=scripted),
            name=name,
            input_cost_per_million_tokens=usd,
            output_cost_per_million_tokens=4 * usd,
        )
        for name, usd in [("small", 0.1), ("large", 2.0)]
    ],
    callbacks=[books],
    willingness_to_pay=0.002,  # USD for one right answer more
)
agent = create_agent(model, [weather], checkpointer=InMemorySaver())
thread = {"configurable": {"thread_id": "a talk about the weather"}}

for question in ("How is the weather in Oslo?", "And in Lima?", "Why is air warm?"):
    state = agent.invoke({"messages": [("human", question)]}, thread)
    answer = state["messages"][-1]
    print(
        f"{question} {answer.text} ({answer.response_metadata['mixllm']['candidate']})"
    )

print(f"{books.totals.calls} calls, {books.totals.cost:.7f} USD")
print(f"asking the large one always: {books.totals.reference_cost:.7f} USD")
