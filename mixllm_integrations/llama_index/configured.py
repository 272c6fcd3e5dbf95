"""A file of candidates as a routed LLM: `MixLLM.from_config`.

Each model is of the LlamaIndex package of its provider, whose callbacks and
counters users of LlamaIndex expect; nothing is wrapped in LangChain.
"""

from collections.abc import Mapping
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Self

from llama_index.core.llms import LLM

from mixllm_integrations.llama_index.candidates import CandidateLLM, resolved
from mixllm_integrations.serving.candidates_file import (
    CandidatesFile,
    read_candidates_file,
)
from mixllm_integrations.serving.candidates_tables import CandidateEntry
from mixllm_integrations.serving.chat_models import (
    arguments_of,
    configured_router,
    serving_settings,
)

__all__ = ["FromConfig"]


class _Home(NamedTuple):
    """Where a provider's LLM is: ``llama_index.llms.<module>``.

    Parameters
    ----------
    module, kind
        Its module and class.
    url
        What it calls its base URL.
    """

    module: str
    kind: str
    url: str = "base_url"


# By LangChain's names of providers, which the file uses.
_HOMES = {
    "anthropic": _Home("anthropic", "Anthropic"),
    "azure_openai": _Home("azure_openai", "AzureOpenAI", "azure_endpoint"),
    "bedrock_converse": _Home("bedrock_converse", "BedrockConverse"),
    "cohere": _Home("cohere", "Cohere", "api_base"),
    "deepseek": _Home("deepseek", "DeepSeek", "api_base"),
    "fireworks": _Home("fireworks", "Fireworks", "api_base"),
    "google_genai": _Home("google_genai", "GoogleGenAI"),
    "groq": _Home("groq", "Groq", "api_base"),
    "mistralai": _Home("mistralai", "MistralAI", "endpoint"),
    "ollama": _Home("ollama", "Ollama"),
    "openai": _Home("openai", "OpenAI", "api_base"),
    "openai_like": _Home("openai_like", "OpenAILike", "api_base"),
    "openrouter": _Home("openrouter", "OpenRouter", "api_base"),
    "perplexity": _Home("perplexity", "Perplexity", "api_base"),
    "together": _Home("together", "TogetherLLM", "api_base"),
}


class FromConfig:
    """Gives a routed LLM its `from_config`."""

    @classmethod
    def from_config(cls, path: str | PathLike[str], **overrides: Any) -> Self:  # noqa: ANN401
        """Return the LLM that a file of candidates describes.

        Parameters
        ----------
        path
            A ``candidates.toml``; `mixllm_integrations.serving.candidates_file`
            says what may stand in it. A model ``"openai:..."`` becomes the
            `OpenAI` of ``llama-index-llms-openai``, and so on; with a
            ``base_url`` of its own it is any server of that protocol, so the
            `OpenAILike` of ``llama-index-llms-openai-like``.
        **overrides
            Parameters of this class, which go before what the file says.

        Returns
        -------
        Self
            Ready to be asked.

        Raises
        ------
        ConfigurationError
            If the file cannot be used; the message names the key and its line.
        """
        return cls(**_settings(path, overrides))


def _settings(
    path: str | PathLike[str], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    file = read_candidates_file(Path(path))
    settings = {**serving_settings(file), **overrides}
    if "candidates" not in settings:
        settings["candidates"] = [
            _candidate(file, entry, number)
            for number, entry in enumerate(file.candidates)
        ]
    if settings.get("router") is None:
        entries = [resolved(given) for given in settings["candidates"]]
        settings["router"] = configured_router(file, [e.candidate for e in entries])
    return settings


def _candidate(
    file: CandidatesFile, entry: CandidateEntry, number: int
) -> CandidateLLM:
    fact = file.fact(entry, "candidates", number)
    return CandidateLLM(
        llm=_llm(file, entry, number),
        name=entry.known_name,
        input_cost_per_million_tokens=fact.input_cost_per_million_tokens,
        output_cost_per_million_tokens=fact.output_cost_per_million_tokens,
        cached_input_cost_per_million_tokens=entry.cached_input_cost_per_million_tokens,
        context_window=entry.context_window,
        tools=entry.tools,
        vision=entry.vision,
        structured_output=entry.structured_output,
        prior_quality=entry.prior_quality,
        time_to_first_token_seconds=entry.time_to_first_token_seconds,
        seconds_per_output_token=entry.seconds_per_output_token,
        max_concurrency=entry.max_concurrency,
        timeout_seconds=entry.timeout_seconds,
    )


def _llm(file: CandidatesFile, entry: CandidateEntry, number: int) -> LLM:
    place = ("candidates", number)
    given = arguments_of(file, entry, *place)
    if entry.llama_index is not None:
        kept = given.keys() - entry.arguments.keys()
        given = {**entry.llama_index, **{name: given[name] for name in kept}}
    home = _HOMES.get(entry.provider)
    if home is None:
        raise file.error(
            "is missing: a LlamaIndex LLM needs a provider of "
            f"{sorted(_HOMES)} and a name"
            if entry.model is None
            else f"names a provider whose LlamaIndex LLM is not known here; known are "
            f"{sorted(_HOMES)}",
            *place,
            "model",
        )
    if home.kind == "OpenAI" and given.keys() & {"base_url", "api_base"}:
        home = _HOMES["openai_like"]
    if home.kind == "OpenAILike":
        given = {
            "is_chat_model": True,
            "is_function_calling_model": entry.tools is not False,
            **given,
        }
    if "base_url" in given:
        given[home.url] = given.pop("base_url")
    package = f"llama-index-llms-{home.module.replace('_', '-')}"
    try:
        kind = getattr(import_module(f"llama_index.llms.{home.module}"), home.kind)
    except ImportError as error:
        raise file.error(
            f"needs the package {package}, which is not installed: "
            f"pip install {package}",
            *place,
            "model",
        ) from error
    try:
        made: LLM = kind(model=entry.model_name, **given)
    except Exception as error:  # noqa: BLE001 - of somebody else's class
        # What a class says of its arguments may quote them, and so a key.
        raise file.error(
            f"cannot be made of these arguments ({type(error).__name__}); given were "
            f"{sorted(given)}. What differs from LangChain's goes to the table "
            "llama_index",
            *place,
            "model",
        ) from None
    return made
