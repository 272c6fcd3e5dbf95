"""What happens before a router serves: tags, encoders, and what is shipped.

`LLMTagger`, `ClusterTagger` and `tag_records` give records their tags;
`finetune_encoder` tunes the shipped encoder to their domains. Each is loaded
when it is first used. The modules `build_encoder`, `build_prior` and
`build_demo` are commands that rebuild what the package ships.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixllm_integrations.training.finetune import finetune_encoder
    from mixllm_integrations.training.taggers import (
        ClusterTagger,
        LLMTagger,
        tag_records,
    )

_HOME = {
    "ClusterTagger": "mixllm_integrations.training.taggers",
    "LLMTagger": "mixllm_integrations.training.taggers",
    "finetune_encoder": "mixllm_integrations.training.finetune",
    "tag_records": "mixllm_integrations.training.taggers",
}

__all__ = ["ClusterTagger", "LLMTagger", "finetune_encoder", "tag_records"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
