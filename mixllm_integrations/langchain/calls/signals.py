"""What a conversation tells of answers without anybody's being asked."""

from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from pydantic import ValidationError

from mixllm_integrations.serving import record_of
from mixllm_integrations.serving.ends import is_cut_short, signals_of
from mixllm_integrations.serving.error_facts import error_chain, type_names

__all__ = ["is_cut_short", "lacks_its_end", "refused_call", "signals_of"]

# An answer that its client could not parse, and raised: it has no message.
_CUT_TYPE = "LengthFinishReasonError"
_CUT_JSON = "EOF while parsing"


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
