"""List prices of well-known models, from the data that genai-prices ships.

Nothing is fetched: the package's own snapshot is read. A model that it does
not know is an error, since a router that guesses prices wastes money.
"""

from dataclasses import dataclass
from functools import cache

from mixllm_integrations.core.errors import ConfigurationError

__all__ = ["CachePrice", "ListPrice", "cache_price", "list_price"]

# Long enough that rounding does not matter, short enough that no provider's
# surcharge for long prompts applies.
_SAMPLE_TOKENS = 1000


@dataclass(frozen=True, slots=True)
class ListPrice:
    """What one model costs, and how much it reads.

    Parameters
    ----------
    input_cost_per_million_tokens, output_cost_per_million_tokens
        USD.
    context_window
        Tokens of prompt that it takes; ``None`` if unknown.
    cache_read_cost_per_million_tokens, cache_write_cost_per_million_tokens
        USD for input that comes out of the provider's cache of prompts, or is
        put into it; ``None``: as any other input.
    """

    input_cost_per_million_tokens: float
    output_cost_per_million_tokens: float
    context_window: int | None = None
    cache_read_cost_per_million_tokens: float | None = None
    cache_write_cost_per_million_tokens: float | None = None


def list_price(model: str, *, provider: str | None = None) -> ListPrice:
    """Return the list price of a model.

    Parameters
    ----------
    model
        Its name as the provider's API takes it, for example ``"gpt-4o-mini"``.
    provider
        Who serves it, for example ``"openai"``; ``None``: guessed from `model`.

    Returns
    -------
    ListPrice
        Prices of a prompt of ordinary length, without cache discounts.

    Raises
    ------
    ConfigurationError
        If the price is unknown.

    Examples
    --------
    >>> list_price("gpt-4o-mini", provider="openai").input_cost_per_million_tokens
    0.15
    """
    found = _looked_up(model, provider)
    if found is None:
        served = "" if provider is None else f" of provider {provider!r}"
        raise ConfigurationError(
            f"the price of model {model!r}{served} is unknown: wrap it in "
            "CandidateModel (LangChain) or CandidateLLM (LlamaIndex) and pass "
            "input_cost_per_million_tokens and output_cost_per_million_tokens in USD "
            "(0 for a model that costs nothing)"
        )
    return found


@cache
def _looked_up(model: str, provider: str | None) -> ListPrice | None:
    """Return a list price; ``None``, which is remembered too, if it is unknown."""
    from genai_prices import Usage, calc_price

    usages = (
        Usage(input_tokens=_SAMPLE_TOKENS),
        Usage(output_tokens=_SAMPLE_TOKENS),
        Usage(input_tokens=_SAMPLE_TOKENS, cache_read_tokens=_SAMPLE_TOKENS),
        Usage(input_tokens=_SAMPLE_TOKENS, cache_write_tokens=_SAMPLE_TOKENS),
    )
    try:
        asked, answered, read, written = (
            calc_price(usage, model, provider_id=provider) for usage in usages
        )
    except (LookupError, ValueError):
        return None
    scale = 1_000_000 // _SAMPLE_TOKENS
    return ListPrice(
        float(asked.input_price * scale),
        float(answered.output_price * scale),
        asked.model.context_window,
        float(read.input_price * scale),
        float(written.input_price * scale),
    )


@dataclass(frozen=True, slots=True)
class CachePrice:
    """What the provider's cache of prompts changes, in USD per token.

    Parameters
    ----------
    saving
        How much less a token costs that comes out of it.
    surcharge
        How much more one costs that is put into it.
    """

    saving: float = 0.0
    surcharge: float = 0.0


def cache_price(
    model: str | None,
    *,
    provider: str | None,
    input_cost: float,
    declared_read_cost: float | None,
) -> CachePrice:
    """Return what a cache of prompts changes for a candidate.

    Parameters
    ----------
    model, provider
        As for `list_price`; a model that it does not know has no cache, unless
        the caller declares one.
    input_cost
        What the candidate really charges for input, per million tokens. If it
        is not the list price, the discount is the same share of it.
    declared_read_cost
        What the caller says a million tokens from the cache cost.

    Returns
    -------
    CachePrice
        Never below 0.
    """
    listed = None if model is None else _looked_up(model, provider)
    read = declared_read_cost
    written: float | None = None
    if listed is not None and listed.input_cost_per_million_tokens > 0:
        scale = input_cost / listed.input_cost_per_million_tokens
        if read is None and listed.cache_read_cost_per_million_tokens is not None:
            read = listed.cache_read_cost_per_million_tokens * scale
        if listed.cache_write_cost_per_million_tokens is not None:
            written = listed.cache_write_cost_per_million_tokens * scale
    return CachePrice(
        0.0 if read is None else max(input_cost - read, 0.0) / 1e6,
        0.0 if written is None else max(written - input_cost, 0.0) / 1e6,
    )
