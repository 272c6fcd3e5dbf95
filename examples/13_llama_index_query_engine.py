"""A query engine over a routed LLM, with the shipped encoder as its embedding.

Needs the extra: `pip install "mixllm-integrations[llama-index]"`. Nothing is fetched:
the encoder comes with the package, and the candidates are scripted; yours are
`OpenAI(model=...)`, `Anthropic(model=...)`, ...
"""

try:
    from llama_index.core import Document, Settings, VectorStoreIndex
except ImportError:
    raise SystemExit(
        'this needs LlamaIndex: pip install "mixllm-integrations[llama-index]"'
    ) from None

from mixllm_integrations.llama_index import CandidateLLM, MixLLM, MixLLMEmbedding
from mixllm_integrations.testing import ScriptedLLM

TEXTS = (
    "Spring tides come at new and full moon, when sun and moon pull in one line.",
    "Snow falls where the air is below freezing all the way down.",
)

llm = MixLLM(
    candidates=[
        CandidateLLM(
            llm=ScriptedLLM(answers=[f"{name}: at new and full moon."]),
            name=name,
            input_cost_per_million_tokens=usd,
            output_cost_per_million_tokens=4 * usd,
        )
        for name, usd in [("small", 0.1), ("large", 2.0)]
    ],
)
Settings.llm = llm
Settings.embed_model = MixLLMEmbedding()
index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS])
engine = index.as_query_engine(similarity_top_k=1)

# The engine calls the LLM itself: what is asked of its calls stands around it.
with llm.asking(session_id="a reader", max_cost_per_query=0.01) as asked:
    answer = engine.query("When are tides highest?")
print(answer)
print("found:", answer.source_nodes[0].text)
print(f"{len(asked.records)} call for {asked.cost:.7f} USD")

# The answer of an engine carries no decision, but the block knows it.
print("learned from it:", llm.record_feedback(asked, 1.0, source="thumbs"))

with llm.asking(candidate="large"):
    print(engine.query("When are tides highest?"))
