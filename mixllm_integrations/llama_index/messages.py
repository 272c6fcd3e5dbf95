"""LlamaIndex messages and responses, as routing sees them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ImageBlock,
    MessageRole,
    ToolCallBlock,
)
from llama_index.core.instrumentation.span import active_span_id

from mixllm_integrations.core.types import Requirement
from mixllm_integrations.serving import (
    RECORD_KEY,
    conversation_tokens,
    record_of,
    routed_text,
    text_tokens,
)
from mixllm_integrations.serving.told import told_tokens

if TYPE_CHECKING:  # early releases of LlamaIndex 0.14 lack it
    from llama_index.core.rate_limiter import BaseRateLimiter

__all__ = [
    "QueryFrom",
    "Request",
    "Usage",
    "answer_tokens",
    "asked_of",
    "stamped",
    "unstamped",
    "usage_of",
]

#: Tokens read and written; ``None`` where the LLM does not say.
Usage: TypeAlias = tuple[int | None, int | None]
QueryFrom: TypeAlias = Callable[[Sequence[ChatMessage]], str]

Response = TypeVar("Response", ChatResponse, CompletionResponse)

_TOOL_ROLES = frozenset({MessageRole.TOOL, MessageRole.FUNCTION})
# Where providers put the counts in a raw answer, and how they call them.
_USAGE_PLACES = ("usage", "usage_metadata")
_READ = ("prompt_tokens", "input_tokens", "prompt_token_count", "prompt_eval_count")
_WRITTEN = (
    "completion_tokens",
    "output_tokens",
    "candidates_token_count",
    "eval_count",
)


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be routed.

    Parameters
    ----------
    query
        The text that stands for the prompt.
    input_tokens
        Length of the whole prompt; ``None``: that of `query`.
    requires
        What the candidate must be capable of.
    prefer
        Who should answer if able to; ``None``: whoever scores best.
    span_id
        The span of the call in LlamaIndex's instrumentation.
    rate_limiter
        LlamaIndex's, which the call waits for before it is routed; ``None``:
        it does not wait.
    """

    query: str
    input_tokens: int | None
    requires: tuple[Requirement, ...]
    prefer: str | None
    span_id: str | None
    rate_limiter: "BaseRateLimiter | None" = None


def asked_of(
    messages: Sequence[ChatMessage],
    *requires: Requirement,
    query_from: QueryFrom | None = None,
) -> Request:
    """Return what is to be routed for a conversation.

    Parameters
    ----------
    messages
        The conversation, first message first; one with an image requires
        vision.
    *requires
        What the candidate must be capable of besides.
    query_from
        Returns the text that is routed; ``None``: `serving.routed_text`.

    Returns
    -------
    Request
        While the results of tools come last, with the candidate that asked
        for them as the preferred one.
    """
    turns = [(message.role.value, message.content or "") for message in messages]
    tokens = conversation_tokens(turns)
    if query_from is None:
        query = routed_text(turns)
    else:
        query = query_from(messages)
        if tokens is None:  # the query may be shorter than the prompt
            tokens = sum(text_tokens(text) for _, text in turns)
    vision: tuple[Requirement, ...] = ("vision",) if _has_images(messages) else ()
    return Request(
        query,
        tokens,
        (*requires, *vision),
        _answering_in_loop(messages),
        active_span_id.get(),
    )


def _has_images(messages: Sequence[ChatMessage]) -> bool:
    return any(
        isinstance(block, ImageBlock)
        for message in messages
        for block in message.blocks
    )


def _answering_in_loop(messages: Sequence[ChatMessage]) -> str | None:
    """Return who asked for the tools whose results end a conversation."""
    if not messages or messages[-1].role not in _TOOL_ROLES:
        return None
    for message in reversed(messages):
        if message.role is MessageRole.USER:
            return None
        record = record_of(message)
        if record is not None:
            candidate = record.get("candidate")
            return candidate if isinstance(candidate, str) else None
    return None


def unstamped(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return a conversation without our routing records.

    Some LLMs send a message's `additional_kwargs` to their provider, which
    would refuse a key that it does not know.

    Parameters
    ----------
    messages
        The conversation; it is not changed.

    Returns
    -------
    list of ChatMessage
        The same messages, copies where there was a record.
    """
    return [_without_record(message) for message in messages]


def _without_record(message: ChatMessage) -> ChatMessage:
    if RECORD_KEY not in message.additional_kwargs:
        return message
    kept = {k: v for k, v in message.additional_kwargs.items() if k != RECORD_KEY}
    return message.model_copy(update={"additional_kwargs": kept})


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


def usage_of(response: ChatResponse | CompletionResponse) -> Usage:
    """Return how many tokens an LLM says that it read and wrote.

    Parameters
    ----------
    response
        A response, or a chunk of one.

    Returns
    -------
    tuple
        Tokens read and tokens written. No LLM reads nothing, so a count of 0
        read is taken as not said.
    """
    read: int | None = None
    written: int | None = None
    for place in _places(response):
        read = read or _count(place, _READ) or None
        if written is None:
            written = _count(place, _WRITTEN)
    return read, (None if read is None and not written else written)


def answer_tokens(response: ChatResponse | CompletionResponse | None) -> int:
    """Return about how many tokens an answer has, for LLMs that do not say.

    Parameters
    ----------
    response
        The whole answer, or the last chunk of a stream, which holds all text
        so far; ``None``: nothing was answered.

    Returns
    -------
    int
        The estimate, arguments of tool calls included.
    """
    if response is None:
        return 0
    if isinstance(response, CompletionResponse):
        return text_tokens(response.text)
    calls = [
        f"{block.tool_name} {block.tool_kwargs}"
        for block in response.message.blocks
        if isinstance(block, ToolCallBlock)
    ]
    return sum(map(text_tokens, (response.message.content or "", *calls)))


def _places(response: ChatResponse | CompletionResponse) -> Iterator[object]:
    for name in _USAGE_PLACES:
        found = _member(response.raw, name)
        if found is not None:
            yield found
    yield response.raw
    yield response.additional_kwargs


def _member(thing: object, name: str) -> object:
    if isinstance(thing, Mapping):
        return thing.get(name)
    return getattr(thing, name, None)


def _count(place: object, names: Sequence[str]) -> int | None:
    for name in names:
        found = told_tokens(_member(place, name))
        if found is not None:
            return found
    return None
