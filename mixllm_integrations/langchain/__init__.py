"""LangChain: `MixLLMChatModel`, a chat model made of chat models.

Read `chat_model` first: it says what a call does. `pool` holds the candidates,
`calls` carries one call through, `tracing` is what tracers see of it, `callbacks`
keeps the books, and `history` lets providers take turns in one conversation.
"""

from mixllm_integrations.langchain.callbacks import MixLLMCallbackHandler
from mixllm_integrations.langchain.capabilities import CandidateModel
from mixllm_integrations.langchain.chat_model import ChatMixLLM, MixLLMChatModel
from mixllm_integrations.langchain.embeddings import MixLLMEmbeddings
from mixllm_integrations.langchain.tracing.langsmith_feedback import LangSmithFeedback
from mixllm_integrations.serving import RoutingRule

__all__ = [
    "CandidateModel",
    "ChatMixLLM",
    "LangSmithFeedback",
    "MixLLMCallbackHandler",
    "MixLLMChatModel",
    "MixLLMEmbeddings",
    "RoutingRule",
]
