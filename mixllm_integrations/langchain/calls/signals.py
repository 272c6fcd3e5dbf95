"""What a conversation tells of answers without anybody's being asked."""

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from pydantic import ValidationError

from mixllm_integrations.core.types import ImplicitSignal
from mixllm_integrations.serving import record_of
from mixllm_integrations.serving.error_facts import error_chain, type_names

__all__ = ["is_cut_short", "lacks_its_end", "refused_call", "signals_of"]

# Where providers say why an answer ended: OpenAI and who follows it, Anthropic,
# Bedrock, Ollama.
_PLACES = ("finish_reason", "stop_reason", "stopReason", "done_reason")
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
# An answer that its client could not parse, and raised: it has no message.
_CUT_TYPE = "LengthFinishReasonError"
_CUT_JSON = "EOF while parsing"


def is_cut_short(metadata: Mapping[str, Any]) -> bool:
    """Tell whether an answer ended at a limit of tokens, not where it was to end.

    Parameters
    ----------
    metadata
        Its ``response_metadata``, or that of one chunk.

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
    for place in _PLACES:
        why = metadata.get(place)
        if isinstance(why, str) and why.lower() in _LIMITS:
            return True
    details = metadata.get("incomplete_details")
    why = details.get("reason") if isinstance(details, Mapping) else None
    return isinstance(why, str) and why in _LIMITS


def lacks_its_end(error: BaseException) -> bool:
    """Tell whether an error stands for an answer that was cut short.

    Parameters
    ----------
    error
        What a call raised.

    Returns
    -------
    bool
        True for that of OpenAI's client, also if it was wrapped, and for JSON that
        stops in the middle.
    """
    if isinstance(error, ValidationError):
        told = error.errors(include_url=False, include_context=False)
        return any(
            one["type"] == "json_invalid" and _CUT_JSON in one["msg"] for one in told
        )
    return any(_CUT_TYPE in type_names(link) for link in error_chain(error))


def refused_call(messages: Sequence[BaseMessage]) -> str | None:
    """Return whose tool calls a conversation ends in, if one of them failed.

    Parameters
    ----------
    messages
        From first to last; only the tools' results at the end are looked at.

    Returns
    -------
    str or None
        Id of the decision; ``None`` if all went well, or if no routed answer
        asked for them.
    """
    failed = False
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            failed = failed or message.status == "error"
            continue
        if not failed or not isinstance(message, AIMessage):
            return None
        record = record_of(message)
        found = None if record is None else record.get("decision_id")
        return found if isinstance(found, str) else None
    return None


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
