"""LlamaIndex messages and responses, as routing sees them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ImageBlock,
    MessageRole,
)

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.llama_index.history import author_of
from mixllm_integrations.serving import (
    RECORD_KEY,
    conversation_tokens,
    record_of,
    routed_text,
    text_tokens,
)

__all__ = [
    "QueryFrom",
    "answering_in_loop",
    "has_images",
    "query_of",
    "stamped",
    "whole_texts",
]

QueryFrom: TypeAlias = Callable[[Sequence[ChatMessage]], str]

Response = TypeVar("Response", ChatResponse, CompletionResponse)

_TOOL_ROLES = frozenset({MessageRole.TOOL, MessageRole.FUNCTION})
# Fields of blocks that hold files.
_BINARY = frozenset({"audio", "data", "image", "video"})


def query_of(
    messages: Sequence[ChatMessage], chosen_text: QueryFrom | None
) -> tuple[str, int | None]:
    """Return which text of a conversation is routed, and how long the whole is.

    Parameters
    ----------
    messages
        From first to last.
    chosen_text
        Returns the text; ``None``: `serving.routed_text`.

    Returns
    -------
    tuple
        The text, and tokens; ``None`` for a single message, which the router
        counts itself.

    Raises
    ------
    ConfigurationError
        If `chosen_text` returns something else.
    """
    turns = [(message.role.value, message.content or "") for message in messages]
    tokens = conversation_tokens(turns)
    if chosen_text is None:
        return routed_text(turns), tokens
    query = chosen_text(messages)
    if not isinstance(query, str):
        raise ConfigurationError(
            "query_from must return the text to route as a str, not a "
            f"{type(query).__name__}"
        )
    if tokens is None:  # the query may be shorter than the prompt
        tokens = sum(text_tokens(text) for _, text in turns)
    return query, tokens


def has_images(messages: Sequence[ChatMessage]) -> bool:
    """Tell whether a conversation shows something.

    Parameters
    ----------
    messages
        From first to last.

    Returns
    -------
    bool
        Whether it does.
    """
    return any(
        isinstance(block, ImageBlock)
        for message in messages
        for block in message.blocks
    )


def answering_in_loop(messages: Sequence[ChatMessage]) -> str | None:
    """Return who asked for the tools whose results end a conversation.

    Parameters
    ----------
    messages
        From first to last.

    Returns
    -------
    str or None
        Name of the candidate; ``None`` if the last message is not a tool's result,
        or if no routed answer asked for it.
    """
    if not messages or messages[-1].role not in _TOOL_ROLES:
        return None
    for message in reversed(messages):
        if message.role is MessageRole.USER:
            return None
        if record_of(message) is not None:
            return author_of(message)
    return None


def whole_texts(message: ChatMessage) -> tuple[str, str]:
    """Return all that a message would send as text, for who must not miss any.

    Parameters
    ----------
    message
        With whatever stands in it.

    Returns
    -------
    tuple of str
        The texts with a space between them, and without, since a word may be
        split over two blocks.
    """
    found: list[str] = []
    for block in message.blocks:
        for name in type(block).model_fields:
            if name not in _BINARY:
                found.extend(_below(getattr(block, name)))
    beside = message.additional_kwargs
    found.extend(_below({k: v for k, v in beside.items() if k != RECORD_KEY}))
    return " ".join(found), "".join(found)


def _below(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield str(key)
            yield from _below(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _below(part)
    elif value is not None and not isinstance(value, bool | bytes):
        yield str(value)


def stamped(response: Response, record: Mapping[str, Any]) -> Response:
    """Return a response that carries its routing record.

    Parameters
    ----------
    response
        What the LLM answered; it is not changed, since handlers keep it.
    record
        The routing record; all that carry it share this one object.

    Returns
    -------
    ChatResponse or CompletionResponse
        A copy with the record in its `additional_kwargs`, and in those of its
        message.
    """
    update: dict[str, Any] = {
        "additional_kwargs": {**response.additional_kwargs, RECORD_KEY: record}
    }
    if isinstance(response, ChatResponse):
        message = response.message
        kwargs = {**message.additional_kwargs, RECORD_KEY: record}
        update["message"] = message.model_copy(update={"additional_kwargs": kwargs})
    return response.model_copy(update=update)
