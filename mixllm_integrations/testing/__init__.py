"""Public fakes, so that tests need neither a network nor a key nor to wait.

Each is loaded when it is first used, so that a test of one framework does not
import the other.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixllm_integrations.testing.clock import ManualClock
    from mixllm_integrations.testing.langchain import ScriptedCall, ScriptedChatModel
    from mixllm_integrations.testing.llama_index import ScriptedLLM

_HOME = {
    "ManualClock": "mixllm_integrations.testing.clock",
    "ScriptedCall": "mixllm_integrations.testing.langchain",
    "ScriptedChatModel": "mixllm_integrations.testing.langchain",
    "ScriptedLLM": "mixllm_integrations.testing.llama_index",
}

__all__ = ["ManualClock", "ScriptedCall", "ScriptedChatModel", "ScriptedLLM"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "llama_index":
            raise
        raise ImportError(
            f"{name} needs llama-index-core: "
            'pip install "mixllm-integrations[llama-index]"'
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
