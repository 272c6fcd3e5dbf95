"""`MixLLM`: a LlamaIndex LLM that routes each call to one of several.

Needs the extra ``mixllm-integrations[llama-index]``. Read `llm` first: it says what
a call does. `pool` holds the candidates, `request` is one call, `calls` carries it
through, `reading` follows its answer, and `history` lets providers take turns.
"""

try:
    from mixllm_integrations.llama_index.asking import Asking
    from mixllm_integrations.llama_index.candidates import CandidateLLM
    from mixllm_integrations.llama_index.embeddings import MixLLMEmbedding
    from mixllm_integrations.llama_index.events import MixLLMRoutingEvent
    from mixllm_integrations.llama_index.llm import MixLLM
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "llama_index":
        raise
    raise ImportError(
        "mixllm_integrations.llama_index needs llama-index-core: "
        'pip install "mixllm-integrations[llama-index]"'
    ) from error

from mixllm_integrations.serving import RoutingRule

__all__ = [
    "Asking",
    "CandidateLLM",
    "MixLLM",
    "MixLLMEmbedding",
    "MixLLMRoutingEvent",
    "RoutingRule",
]
