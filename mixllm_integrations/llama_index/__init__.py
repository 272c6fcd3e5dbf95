"""`MixLLM`: a LlamaIndex LLM that routes each call to one of several.

Needs the extra ``mixllm-integrations[llama-index]``.
"""

try:
    from mixllm_integrations.llama_index.candidates import CandidateLLM
    from mixllm_integrations.llama_index.events import MixLLMRoutingEvent
    from mixllm_integrations.llama_index.llm import MixLLM
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "llama_index":
        raise
    raise ImportError(
        "mixllm_integrations.llama_index needs llama-index-core: "
        'pip install "mixllm-integrations[llama-index]"'
    ) from error

__all__ = ["CandidateLLM", "MixLLM", "MixLLMRoutingEvent"]
