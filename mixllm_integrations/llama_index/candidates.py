"""LlamaIndex LLMs as candidates: their names, prices and abilities."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace

from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms import LLM
from llama_index.core.llms.function_calling import FunctionCallingLLM

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving import list_price
from mixllm_integrations.serving.facts import candidate_from
from mixllm_integrations.serving.prices import CachePrice, cache_price

__all__ = ["UNKNOWN_FAMILY", "CandidateLLM", "common_metadata", "resolved"]

#: How `CandidateLLM.family` begins where the provider is unknown.
UNKNOWN_FAMILY = "?/"

# How genai-prices calls the provider behind an LLM's `class_name()`, which
# starts with one of these. Others are found by the name of their model alone.
_PROVIDERS = {
    "anthropic": "anthropic",
    "azure": "azure",
    "bedrock": "aws",
    "cerebras": "cerebras",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "gemini": "google",
    "genai": "google",
    "google": "google",
    "groq": "groq",
    "mistral": "mistral",
    "openai": "openai",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "together": "together",
    "vertex": "google",
    "xai": "x-ai",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateLLM:
    """One LlamaIndex LLM with what the router has to know about it.

    An LLM passed bare is the same as one wrapped with `llm` alone.

    Parameters
    ----------
    llm
        Any LlamaIndex LLM; never shown or stored, since it holds a key.
    name
        What decisions and reports call it; ``None``: its model's name.
    input_cost_per_million_tokens, output_cost_per_million_tokens
        List prices in USD, 0 is legal; ``None``: what a given router knows, else
        from the genai-prices package. So it is with all that is not passed.
    cached_input_cost_per_million_tokens
        USD for input that comes out of the provider's cache of prompts; ``None``:
        from the genai-prices package, else as any other input.
    context_window
        Tokens of prompt that it takes; ``None``: what the LLM itself says,
        unless that is only LlamaIndex's placeholder of 3,900 tokens.
    tools
        Whether it can call tools; ``None``: what the LLM itself says.
    vision
        Whether it reads images; ``None``: unknown, so it is tried.
    structured_output
        Whether it answers in a given schema; ``None``: it does.
    prior_quality
        Expected share of good answers in [0, 1] before anything was learned.
    time_to_first_token_seconds, seconds_per_output_token
        Its speed, where known.
    max_concurrency
        How many calls it serves at once before they queue.
    timeout_seconds
        How long it is waited for until it says something; ``None``: as the
        routed LLM's `timeout` says.

    Raises
    ------
    ConfigurationError
        If `llm` is not a LlamaIndex LLM, or `timeout_seconds` is no time.
    """

    llm: LLM = field(repr=False)
    name: str | None = None
    input_cost_per_million_tokens: float | None = None
    output_cost_per_million_tokens: float | None = None
    cached_input_cost_per_million_tokens: float | None = None
    context_window: int | None = None
    tools: bool | None = None
    vision: bool | None = None
    structured_output: bool | None = None
    prior_quality: float | None = None
    time_to_first_token_seconds: float | None = None
    seconds_per_output_token: float | None = None
    max_concurrency: int | None = None
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.llm, LLM):
            raise ConfigurationError(
                "a candidate must be a LlamaIndex LLM, or a CandidateLLM around one, "
                f"not a {type(self.llm).__name__}"
            )
        if self.timeout_seconds is not None:
            number_between(
                self.timeout_seconds, "timeout_seconds", low_is_allowed=False
            )

    def known_name(self) -> str:
        """Return what decisions and reports call it.

        Returns
        -------
        str
            Its name.
        """
        return self.llm.metadata.model_name if self.name is None else self.name

    @property
    def family(self) -> str:
        """Who serves it: the provider, or the class of its LLM where that is unknown.

        What one family has put into an answer, another one cannot read.
        """
        kind = type(self.llm)
        provider = _provider(self.llm)
        start = UNKNOWN_FAMILY if provider is None else f"{provider}/"
        return f"{start}{kind.__module__}.{kind.__qualname__}"

    def cache_price(self, input_cost: float) -> CachePrice:
        """Return what the provider's cache of prompts changes.

        Parameters
        ----------
        input_cost
            USD for a million tokens of input that the cache does not have.

        Returns
        -------
        CachePrice
            In USD per token.
        """
        return cache_price(
            self.llm.metadata.model_name,
            provider=_provider(self.llm),
            input_cost=input_cost,
            declared_read_cost=self.cached_input_cost_per_million_tokens,
        )

    @property
    def candidate(self) -> Candidate:
        """What the router sees of it.

        Raises
        ------
        ConfigurationError
            If a value is unknown or cannot be used.
        """
        return _facts(self)


def resolved(
    given: LLM | CandidateLLM, known: Iterable[Candidate] = ()
) -> CandidateLLM:
    """Return a candidate in which every ``None`` that can be known is filled.

    Parameters
    ----------
    given
        An LLM, or an LLM with some facts about it.
    known
        The candidates of the router that it joins. One of the same name stands
        in for what was not passed, before the list price does.

    Returns
    -------
    CandidateLLM
        With name, prices, abilities and, if known, the rest.

    Raises
    ------
    ConfigurationError
        If it is no LLM, or its price is unknown.
    """
    entry = given if isinstance(given, CandidateLLM) else CandidateLLM(llm=given)
    name = entry.known_name()
    facts = _facts(entry, next((c for c in known if c.name == name), None))
    return replace(entry, **asdict(facts))


def common_metadata(entries: Sequence[CandidateLLM]) -> LLMMetadata:
    """Return what holds for every candidate, whoever answers.

    Parameters
    ----------
    entries
        The candidates.

    Returns
    -------
    LLMMetadata
        The smallest context window and output; a chat model if all are; a
        function calling model if any is, since only those compete for a call
        with tools.
    """
    each = [entry.llm.metadata for entry in entries]
    outputs = [m.num_output for m in each if m.num_output > 0]
    roles = {m.system_role for m in each}
    windows = [
        entry.context_window or m.context_window
        for entry, m in zip(entries, each, strict=True)
    ]
    return LLMMetadata(
        context_window=min(windows, default=DEFAULT_CONTEXT_WINDOW),
        num_output=min(outputs, default=-1),  # -1: LlamaIndex's "not limited"
        is_chat_model=all(m.is_chat_model for m in each),
        is_function_calling_model=any(bool(entry.tools) for entry in entries),
        model_name="MixLLM",
        system_role=roles.pop() if len(roles) == 1 else LLMMetadata().system_role,
    )


def _facts(entry: CandidateLLM, known: Candidate | None = None) -> Candidate:
    metadata = entry.llm.metadata
    name, calls_tools = entry.known_name(), _calls_tools(entry.llm)
    if entry.tools and not calls_tools:
        raise ConfigurationError(
            f"candidate {name!r} is declared with tools=True, but its LLM is not a "
            "function calling one"
        )
    window: int | None = metadata.context_window
    if window == DEFAULT_CONTEXT_WINDOW:  # only a placeholder
        window = None
    return candidate_from(
        name,
        declared={fact.name: getattr(entry, fact.name) for fact in fields(Candidate)},
        told={"context_window": window},
        offered={"tools": calls_tools, "structured_output": True},
        known=known,
        listed=lambda: list_price(metadata.model_name, provider=_provider(entry.llm)),
    )


def _calls_tools(llm: LLM) -> bool:
    return (
        isinstance(llm, FunctionCallingLLM) and llm.metadata.is_function_calling_model
    )


def _provider(llm: LLM) -> str | None:
    kind = llm.class_name().lower()
    return next((p for start, p in _PROVIDERS.items() if kind.startswith(start)), None)
