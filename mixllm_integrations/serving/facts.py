"""What is known of a candidate, put together from all who know something of it.

Prices are taken from the caller, else from the router, else from a list;
abilities from the caller, else from the model itself, else from what its class
offers unless the router knows better.
"""

from collections.abc import Callable, Mapping
from typing import Any

from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving.prices import ListPrice

__all__ = ["candidate_from"]

_PRICES = ("input_cost_per_million_tokens", "output_cost_per_million_tokens")
_ABILITIES = ("tools", "structured_output")
# What has no other source than the caller, or what the router knew.
_DECLARED = (
    "prior_quality",
    "time_to_first_token_seconds",
    "seconds_per_output_token",
    "max_concurrency",
)


def candidate_from(
    name: str,
    *,
    declared: Mapping[str, Any],
    told: Mapping[str, Any],
    offered: Mapping[str, bool],
    known: Candidate | None,
    listed: Callable[[], ListPrice],
) -> Candidate:
    """Return what the router sees of a model.

    Parameters
    ----------
    name
        What decisions call it.
    declared
        What the caller says, by the names of `Candidate`'s fields; ``None`` or
        absent: nothing.
    told
        What the model says of itself: `context_window`, `tools`, `vision`,
        `structured_output`.
    offered
        Whether its class can do it at all, for `tools` and
        `structured_output`.
    known
        What the router knew of a candidate of that name; ``None``: nothing.
    listed
        Looks up its list price, if neither `declared` nor `known` has both
        prices; may raise.

    Returns
    -------
    Candidate
        With the smaller of the context windows that `told` and `known` have.

    Raises
    ------
    ConfigurationError
        If its price is unknown, or a value cannot be used.

    Examples
    --------
    >>> facts = candidate_from(
    ...     "small",
    ...     declared={"prior_quality": 0.5},
    ...     told={"context_window": 8_000},
    ...     offered={"tools": True, "structured_output": True},
    ...     known=Candidate("small", 0.1, 0.4, tools=False),
    ...     listed=lambda: ListPrice(9.0, 9.0),
    ... )
    >>> facts.output_cost_per_million_tokens, facts.prior_quality, facts.tools
    (0.4, 0.5, False)
    """
    facts = {
        field: _first(declared.get(field), getattr(known, field, None))
        for field in (*_PRICES, *_DECLARED)
    }
    windows = (told.get("context_window"), getattr(known, "context_window", None))
    window = min((limit for limit in windows if limit is not None), default=None)
    if any(facts[price] is None for price in _PRICES):
        prices = listed()
        for price in _PRICES:
            facts[price] = _first(facts[price], getattr(prices, price))
        window = _first(window, prices.context_window)
    facts["context_window"] = _first(declared.get("context_window"), window)
    facts["vision"] = _first(
        declared.get("vision"), told.get("vision"), getattr(known, "vision", None)
    )
    for ability in _ABILITIES:
        facts[ability] = _first(
            declared.get(ability),
            told.get(ability),
            offered[ability] and getattr(known, ability, True),
        )
    return Candidate(name, **facts)


def _first(*values: Any) -> Any:  # noqa: ANN401
    """Return the first value that is known."""
    return next((value for value in values if value is not None), None)
