"""What the adapter reads off LangChain messages, and what it writes on them."""

from collections.abc import Callable, Mapping, Sequence
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

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.langchain.calls.signals import is_cut_short
from mixllm_integrations.serving import (
    RECORD_KEY,
    Turn,
    conversation_tokens,
    record_of,
    routed_text,
    text_tokens,
)
from mixllm_integrations.serving.told import told_cost, told_tokens

__all__ = [
    "Spent",
    "loop_candidate",
    "query_of",
    "said_in",
    "says_something",
    "spent_on",
    "turns_of",
    "with_record",
    "with_usage",
]

M = TypeVar("M", bound=BaseMessage)
# What reading a message raises that holds anything but what it should.
_NONSENSE = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError)


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
    cache_read_tokens
        How many of the input tokens came out of the provider's prompt cache;
        ``None`` if it does not tell.
    cache_write_tokens
        How many of them were put into it.
    is_cut_short
        Whether it ended at a limit of tokens.
    """

    __slots__ = (
        "cache_read_tokens",
        "cache_write_tokens",
        "cached",
        "cost",
        "input_tokens",
        "is_cut_short",
        "output_tokens",
    )

    def __init__(
        self,
        input_tokens: int,
        output_tokens: int,
        cost: float | None = None,
        *,
        cached: bool = False,
        cache_read_tokens: int | None = None,
        cache_write_tokens: int = 0,
        is_cut_short: bool = False,
    ) -> None:
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.cost = cost
        self.cached = cached
        self.cache_read_tokens = cache_read_tokens
        self.cache_write_tokens = cache_write_tokens
        self.is_cut_short = is_cut_short


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


def query_of(
    messages: list[BaseMessage],
    chosen_text: Callable[[list[BaseMessage]], str] | None,
) -> tuple[str, int | None]:
    """Return which text of a conversation is routed, and how long the whole is.

    Parameters
    ----------
    messages
        From first to last.
    chosen_text
        Returns the text; ``None``: `routed_text` does.

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
    if chosen_text is None and len(messages) == 1:
        content = messages[0].content
        if isinstance(content, str):
            return content, None
    turns = turns_of(messages)
    tokens = conversation_tokens(turns)
    if chosen_text is None:
        return routed_text(turns), tokens
    if tokens is None:
        tokens = sum(text_tokens(text) for _, text in turns)
    query = chosen_text(messages)
    if not isinstance(query, str):
        raise ConfigurationError(
            "query_from must return the text to route as a str, not a "
            f"{type(query).__name__}"
        )
    return query, tokens


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
    usage: UsageMetadata | None,
    answer: BaseMessage | None,
    said: str = "",
    *,
    ended_short: bool = False,
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
    ended_short
        Whether it ended at a limit of tokens, if it is not.

    Returns
    -------
    Spent
        LangChain reports a total cost of 0 for an answer out of a cache.
    """
    cut = ended_short or (answer is not None and is_cut_short(answer.response_metadata))
    told: Mapping[str, Any] = usage if isinstance(usage, Mapping) else {}
    asked, answered = (
        told_tokens(told.get(name)) for name in ("input_tokens", "output_tokens")
    )
    if answered is None:
        answered = text_tokens(said if answer is None else said_in(answer))
    cost = told_cost(told.get("total_cost"))
    read, written = _prompt_cache(told.get("input_token_details"))
    return Spent(
        -1 if asked is None else asked,
        answered,
        cost or None,
        cached=cost == 0.0,
        cache_read_tokens=read,
        cache_write_tokens=written,
        is_cut_short=cut,
    )


def says_something(item: object) -> bool:
    """Tell whether a piece of a stream is a part of the answer.

    Parameters
    ----------
    item
        A chunk of a message, or a part of what was parsed.

    Returns
    -------
    bool
        False for chunks that only open a stream, as most providers send them:
        the candidate has not begun to answer then.
    """
    if not isinstance(item, AIMessageChunk):
        return True
    return bool(
        item.content
        or item.tool_call_chunks
        or item.additional_kwargs
        or item.chunk_position == "last"
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
    if not isinstance(usage, Mapping):
        return total
    try:
        return add_usage(total, usage)
    except _NONSENSE:  # counts that are none: as if it had not said
        return total


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
    known = message.response_metadata
    metadata = {**(known if isinstance(known, Mapping) else {}), RECORD_KEY: record}
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


def said_in(answer: BaseMessage) -> str:
    """Return an answer's text with the tool calls in it, as they were paid for.

    Parameters
    ----------
    answer
        A message, or a chunk of one.

    Returns
    -------
    str
        Empty if what is there is neither text nor tool calls.
    """
    try:
        return _said(answer)
    except _NONSENSE:
        return ""


def _said(answer: BaseMessage) -> str:
    text = _text(answer)
    if isinstance(answer, AIMessageChunk):
        calls = "".join(call["args"] or "" for call in answer.tool_call_chunks)
    elif isinstance(answer, AIMessage):
        calls = "".join(f"{c['name']}{c['args']}" for c in answer.tool_calls)
    else:
        calls = ""
    return text + calls


def _prompt_cache(details: object) -> tuple[int | None, int]:
    """Return the tokens that were read from the prompt cache, and written to it."""
    if not isinstance(details, Mapping):
        return None, 0
    told = {
        str(key): count
        for key, value in details.items()
        if (count := told_tokens(value)) is not None
    }
    # OpenAI puts the service tier before the word ("flex_cache_read"); Anthropic
    # tells writes by how long they last, and then 0 in all.
    read = [n for key, n in told.items() if key.endswith("cache_read")]
    whole = sum(n for key, n in told.items() if key.endswith("cache_creation"))
    parts = sum(n for key, n in told.items() if key.startswith("ephemeral_"))
    return (sum(read) if read else None), max(whole, parts)
