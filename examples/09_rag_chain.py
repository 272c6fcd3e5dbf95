"""Retrieval-augmented generation with a routed model, all of it on this machine.

The retriever's embeddings are the router's own encoder, so nothing is
downloaded and no key is needed; the candidates are scripted.
"""

from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from mixllm_integrations import CandidateModel, MixLLMChatModel
from mixllm_integrations.langchain import MixLLMEmbeddings
from mixllm_integrations.testing import ScriptedChatModel

FACTS = [
    "The tide is highest when the sun and the moon pull in one line.",
    "A router sends each prompt to one of several language models.",
    "Basalt is a dark rock that forms when lava cools quickly.",
]

store = InMemoryVectorStore.from_texts(FACTS, MixLLMEmbeddings())
retriever = store.as_retriever(search_kwargs={"k": 1})


def joined(documents: list[Document]) -> str:
    return "\n".join(document.page_content for document in documents)


model = MixLLMChatModel(
    candidates=[
        CandidateModel(
            # Repeats the fact that it was given.
            model=ScriptedChatModel(answers=lambda m: m[-1].text.splitlines()[1]),
            name=name,
            input_cost_per_million_tokens=usd,
            output_cost_per_million_tokens=4 * usd,
        )
        for name, usd in [("small", 0.1), ("large", 2.0)]
    ],
    # The question decides, not the documents around it.
    query_from=lambda messages: messages[-1].text.rsplit("Question: ", 1)[-1],
)
prompt = ChatPromptTemplate.from_template(
    "Answer from these facts:\n{facts}\nQuestion: {question}"
)
chain = (
    {"facts": retriever | joined, "question": RunnablePassthrough()}
    | prompt
    | model
    | StrOutputParser()
)

for question in ("When is the tide highest?", "How does basalt form?"):
    print(question, "->", chain.invoke(question))
for piece in chain.stream("What does a router do?"):
    print(piece, end="|")
print()
