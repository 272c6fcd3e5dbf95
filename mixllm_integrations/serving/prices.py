"""List prices of well-known models, from the data that genai-prices ships.

Nothing is fetched: the package's own snapshot is read. A model that it does
not know is an error, since a router that guesses prices wastes money.
"""

from dataclasses import dataclass
from functools import cache

from mixllm_integrations.core.errors import ConfigurationError

__all__ = ["ListPrice", "list_price"]

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
    """

    input_cost_per_million_tokens: float
    output_cost_per_million_tokens: float
    context_window: int | None = None


@cache
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
    from genai_prices import Usage, calc_price

    try:
        asked = calc_price(
            Usage(input_tokens=_SAMPLE_TOKENS), model, provider_id=provider
        )
        answered = calc_price(
            Usage(output_tokens=_SAMPLE_TOKENS), model, provider_id=provider
        )
    except (LookupError, ValueError) as error:
        served = "" if provider is None else f" of provider {provider!r}"
        raise ConfigurationError(
            f"the price of model {model!r}{served} is unknown: wrap it in "
            "CandidateModel (LangChain) or CandidateLLM (LlamaIndex) and pass "
            "input_cost_per_million_tokens and output_cost_per_million_tokens in USD "
            "(0 for a model that costs nothing)"
        ) from error
    scale = 1_000_000 // _SAMPLE_TOKENS
    return ListPrice(
        float(asked.input_price * scale),
        float(answered.output_price * scale),
        asked.model.context_window,
    )
