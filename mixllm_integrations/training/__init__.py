"""What happens before a router serves: tags, encoders, and what is shipped.

`collect` asks all candidates one's own prompts and grades the answers.
`LLMTagger`, `ClusterTagger` and `tag_records` give records their tags;
`finetune_encoder` tunes the shipped encoder to their domains. Each is loaded
when it is first used. The modules `build_encoder`, `build_prior` and
`build_demo` are commands that rebuild what the package ships.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixllm_integrations.training.finetune import finetune_encoder
    from mixllm_integrations.training.labelling.adaptive import Adaptive
    from mixllm_integrations.training.labelling.asking import Patience
    from mixllm_integrations.training.labelling.estimate import Estimate
    from mixllm_integrations.training.labelling.logs import PromptLog, read_prompts
    from mixllm_integrations.training.labelling.prompts import PromptItem
    from mixllm_integrations.training.labelling.results import (
        Collection,
        LabellingFailure,
    )
    from mixllm_integrations.training.labelling.run import (
        Labelling,
        acollect,
        collect,
    )
    from mixllm_integrations.training.taggers import (
        ClusterTagger,
        LLMTagger,
        tag_records,
    )

_LABELLING = "mixllm_integrations.training.labelling"
_HOME = {
    "Adaptive": f"{_LABELLING}.adaptive",
    "ClusterTagger": "mixllm_integrations.training.taggers",
    "Collection": f"{_LABELLING}.results",
    "Estimate": f"{_LABELLING}.estimate",
    "LLMTagger": "mixllm_integrations.training.taggers",
    "Labelling": f"{_LABELLING}.run",
    "LabellingFailure": f"{_LABELLING}.results",
    "Patience": f"{_LABELLING}.asking",
    "PromptItem": f"{_LABELLING}.prompts",
    "PromptLog": f"{_LABELLING}.logs",
    "acollect": f"{_LABELLING}.run",
    "collect": f"{_LABELLING}.run",
    "finetune_encoder": "mixllm_integrations.training.finetune",
    "read_prompts": f"{_LABELLING}.logs",
    "tag_records": "mixllm_integrations.training.taggers",
}

__all__ = [
    "Adaptive",
    "ClusterTagger",
    "Collection",
    "Estimate",
    "LLMTagger",
    "Labelling",
    "LabellingFailure",
    "Patience",
    "PromptItem",
    "PromptLog",
    "acollect",
    "collect",
    "finetune_encoder",
    "read_prompts",
    "tag_records",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
