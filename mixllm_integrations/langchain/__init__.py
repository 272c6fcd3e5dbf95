"""LangChain: `MixLLMChatModel`, a chat model made of chat models.

Read `chat_model` first: it says what a call does. `pool` holds the candidates,
`request` and `attempts` carry one call through, `trace` is what tracers see.
"""

from mixllm_integrations.langchain.callbacks import MixLLMCallbackHandler
from mixllm_integrations.langchain.capabilities import CandidateModel
from mixllm_integrations.langchain.chat_model import ChatMixLLM, MixLLMChatModel

__all__ = [
    "CandidateModel",
    "ChatMixLLM",
    "MixLLMCallbackHandler",
    "MixLLMChatModel",
]
