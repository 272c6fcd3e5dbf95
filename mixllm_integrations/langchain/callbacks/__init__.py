"""The books: what each routed call took, per session and in all."""

from mixllm_integrations.langchain.callbacks.handler import (
    MixLLMCallbackHandler,
    announce_feedback,
)
from mixllm_integrations.langchain.callbacks.reports import CallReport, SessionTotals

__all__ = [
    "CallReport",
    "MixLLMCallbackHandler",
    "SessionTotals",
    "announce_feedback",
]
