"""What the adapter reads off LangChain messages, and what it writes on them."""

from collections.abc import Sequence
from typing import Any, TypeVar

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import UsageMetadata, add_usage

from mixllm_integrations.serving import RECORD_KEY, Turn, record_of, text_tokens

__all__ = [
    "Spent",
    "loop_candidate",
    "spent_on",
    "turns_of",
    "with_record",
    "with_usage",
    "with_vision",
]

M = TypeVar("M", bound=BaseMessage)

# How the standard, the OpenAI, the Anthropic and the Google format call it.
_IMAGE_TYPES = frozenset({"image", "image_url", "input_image"})


class Spent:
    """Tokens and USD of one answer.

    Parameters
    ----------
    input_tokens, output_tokens
        Lengths; -1 for an input that nobody counted.
    cost
        USD where the provider told it.
    cached
        Whether the answer came from a cache, so that nothing was spent.
    """

    __slots__ = ("cached", "cost", "input_tokens", "output_tokens")

    def __init__(
        self,
        input_tokens: int,
        output_tokens: int,
        cost: float | None = None,
        *,
        cached: bool = False,
    ) -> None:
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.cost = cost
        self.cached = cached


def turns_of(messages: Sequence[BaseMessage]) -> list[Turn]:
    """Return a conversation as plain ``(role, text)`` pairs.

    Parameters
    ----------
    messages
        From first to last.

    Returns
    -------
    list of tuple
        One pair per message; images and tool calls are left out.
    """
    return [(_role(message), _text(message)) for message in messages]


def with_vision(messages: Sequence[BaseMessage]) -> bool:
    """Tell whether a conversation shows an image.

    Parameters
    ----------
    messages
        All that will be sent.

    Returns
    -------
    bool
        True if any message has one, tools' results included.
    """
    return any(
        _is_image(block)
        for message in messages
        if isinstance(message.content, list)
        for block in message.content
    )


def loop_candidate(messages: Sequence[BaseMessage]) -> str | None:
    """Return who began the loop of tool calls that a conversation ends in.

    Parameters
    ----------
    messages
        From first to last.

    Returns
    -------
    str or None
        Name of the candidate; ``None`` if the last message is not a tool's
        result, or if no routed answer asked for it.
    """
    if not messages or not isinstance(messages[-1], ToolMessage):
        return None
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            continue
        record = record_of(message) if isinstance(message, AIMessage) else None
        name = None if record is None else record.get("candidate")
        return name if isinstance(name, str) else None
    return None


def spent_on(
    usage: UsageMetadata | None, answer: BaseMessage | None, said: str = ""
) -> Spent:
    """Return what an answer took.

    Parameters
    ----------
    usage
        What the provider reported; without it the answer's length is
        estimated with the shipped tokenizer.
    answer
        The answer, if it is at hand as a whole.
    said
        The answer's text, if it is not.

    Returns
    -------
    Spent
        LangChain reports a total cost of 0 for an answer out of a cache.
    """
    if usage is None:
        text = said if answer is None else _said(answer)
        return Spent(-1, text_tokens(text))
    cost: Any = usage.get("total_cost")
    return Spent(
        usage.get("input_tokens", -1),
        usage.get("output_tokens", 0),
        float(cost) if cost else None,
        cached=cost is not None and not cost,
    )


def with_usage(total: UsageMetadata | None, chunk: BaseMessage) -> UsageMetadata | None:
    """Add the usage of one chunk to that of the chunks before it.

    Parameters
    ----------
    total
        The sum so far.
    chunk
        The next chunk of a stream.

    Returns
    -------
    UsageMetadata or None
        The new sum.
    """
    usage = chunk.usage_metadata if isinstance(chunk, AIMessage) else None
    return total if usage is None else add_usage(total, usage)


def with_record(message: M, record: dict[str, Any]) -> M:
    """Return a copy of an answer that carries its routing record.

    A copy, because a cache or a tracer may hold the candidate's own message.

    Parameters
    ----------
    message
        The answer, or the last chunk of it.
    record
        What `RoutedCall.succeed` returned.

    Returns
    -------
    BaseMessage
        Of the same class.
    """
    metadata = {**message.response_metadata, RECORD_KEY: record}
    return message.model_copy(update={"response_metadata": metadata})


def _role(message: BaseMessage) -> str:
    if isinstance(message, HumanMessage):
        return "human"
    if isinstance(message, SystemMessage):
        return "system"
    return message.role if isinstance(message, ChatMessage) else message.type


def _text(message: BaseMessage) -> str:
    content = message.content
    return content if isinstance(content, str) else str(message.text)


def _said(answer: BaseMessage) -> str:
    """Return an answer's text with the tool calls in it, as they were paid for."""
    text = _text(answer)
    if isinstance(answer, AIMessageChunk):
        calls = "".join(call["args"] or "" for call in answer.tool_call_chunks)
    elif isinstance(answer, AIMessage):
        calls = "".join(f"{c['name']}{c['args']}" for c in answer.tool_calls)
    else:
        calls = ""
    return text + calls


def _is_image(block: object) -> bool:
    if not isinstance(block, dict):
        return False
    kind = block.get("type")
    if kind in _IMAGE_TYPES:
        return True
    return kind == "media" and str(block.get("mime_type", "")).startswith("image/")
