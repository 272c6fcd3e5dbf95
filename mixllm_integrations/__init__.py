"""Route each prompt to the cheapest of your models that will answer it well.

Everything public is importable from here and loaded only when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixllm_integrations.core.encoder import (
        SentenceTransformerEncoder,
        StaticEncoder,
    )
    from mixllm_integrations.core.errors import (
        BudgetExceededError,
        ConfigurationError,
        MixLLMError,
        NoCandidateError,
        NotFittedError,
        StateFormatError,
        UnknownCandidateError,
        UnknownDecisionError,
    )
    from mixllm_integrations.core.router import Router
    from mixllm_integrations.core.types import (
        BatchPrediction,
        Calibration,
        Candidate,
        Decision,
        Feedback,
        Outcome,
        Prediction,
        RoutingRecord,
    )
    from mixllm_integrations.langchain import (
        CandidateModel,
        ChatMixLLM,
        LangSmithFeedback,
        MixLLMCallbackHandler,
        MixLLMChatModel,
        MixLLMEmbeddings,
    )
    from mixllm_integrations.serving import RoutingRule

__version__ = "0.2.0"

_HOME = {
    "mixllm_integrations.core.encoder": ("SentenceTransformerEncoder", "StaticEncoder"),
    "mixllm_integrations.core.errors": (
        "BudgetExceededError",
        "ConfigurationError",
        "MixLLMError",
        "NoCandidateError",
        "NotFittedError",
        "StateFormatError",
        "UnknownCandidateError",
        "UnknownDecisionError",
    ),
    "mixllm_integrations.core.router": ("Router",),
    "mixllm_integrations.core.types": (
        "BatchPrediction",
        "Calibration",
        "Candidate",
        "Decision",
        "Feedback",
        "Outcome",
        "Prediction",
        "RoutingRecord",
    ),
    "mixllm_integrations.langchain": (
        "CandidateModel",
        "ChatMixLLM",
        "LangSmithFeedback",
        "MixLLMCallbackHandler",
        "MixLLMChatModel",
        "MixLLMEmbeddings",
    ),
    "mixllm_integrations.serving": ("RoutingRule",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "BatchPrediction",
    "BudgetExceededError",
    "Calibration",
    "Candidate",
    "CandidateModel",
    "ChatMixLLM",
    "ConfigurationError",
    "Decision",
    "Feedback",
    "LangSmithFeedback",
    "MixLLMCallbackHandler",
    "MixLLMChatModel",
    "MixLLMEmbeddings",
    "MixLLMError",
    "NoCandidateError",
    "NotFittedError",
    "Outcome",
    "Prediction",
    "Router",
    "RoutingRecord",
    "RoutingRule",
    "SentenceTransformerEncoder",
    "StateFormatError",
    "StaticEncoder",
    "UnknownCandidateError",
    "UnknownDecisionError",
    "__version__",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
