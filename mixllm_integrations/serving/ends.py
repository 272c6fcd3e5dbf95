"""Whether an answer ended where it was to end, as providers tell it."""

from collections.abc import Mapping
from typing import Any

from mixllm_integrations.core.types import ImplicitSignal

__all__ = ["REASONS", "is_cut_short", "signals_of"]

#: Where providers say why an answer ended: OpenAI and who follows it, Anthropic,
#: Bedrock, Ollama.
REASONS = ("finish_reason", "stop_reason", "stopReason", "done_reason")
# OpenAI, Ollama; Anthropic, Bedrock, Cohere, Google; OpenAI's Responses; Mistral;
# Anthropic of a full window.
_LIMITS = frozenset(
    {
        "length",
        "max_tokens",
        "max_output_tokens",
        "model_length",
        "model_context_window_exceeded",
    }
)


def is_cut_short(metadata: Mapping[str, Any]) -> bool:
    """Tell whether an answer ended at a limit of tokens, not where it was to end.

    Parameters
    ----------
    metadata
        What the provider tells of it, or of one chunk.

    Returns
    -------
    bool
        False if it does not say.

    Examples
    --------
    >>> is_cut_short({"finish_reason": "length"}), is_cut_short({})
    (True, False)
    """
    if not isinstance(metadata, Mapping):
        return False
    for place in REASONS:
        why = metadata.get(place)
        if isinstance(why, str) and why.lower() in _LIMITS:
            return True
    details = metadata.get("incomplete_details")
    why = details.get("reason") if isinstance(details, Mapping) else None
    return isinstance(why, str) and why in _LIMITS


def signals_of(*, is_cut_short: bool, fits: bool) -> tuple[ImplicitSignal, ...]:
    """Return what an answer shows on the face of it.

    Parameters
    ----------
    is_cut_short
        Whether it ended at a limit of tokens.
    fits
        Whether it is of the schema that was asked for, if one was.

    Returns
    -------
    tuple of str
        Signals for the router.
    """
    if not is_cut_short:
        return () if fits else ("parse_failure",)
    return ("truncated",) if fits else ("truncated", "parse_failure")
