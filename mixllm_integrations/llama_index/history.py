"""A conversation, made readable for whoever answers next.

Its answers may come from several providers, and each puts things into them that only
it can read again: signed reasoning, marks of what is to be cached, counts of tokens.
Another one refuses the whole conversation for them. What was said and which tools
were called stays, and the conversation itself is never changed.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ContentBlock,
    MessageRole,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM

from mixllm_integrations.llama_index.call_ids import CallIds
from mixllm_integrations.llama_index.candidates import UNKNOWN_FAMILY, CandidateLLM
from mixllm_integrations.serving import RECORD_KEY, record_of

__all__ = ["adapted", "author_of"]

_ASSISTANTS = (MessageRole.ASSISTANT, MessageRole.CHATBOT)
# Blocks that not every LLM takes, and the beginnings of the families that do.
_READERS = {
    "cache": ("anthropic/", "aws/"),
    "citation": ("anthropic/",),
}
# What a message needs wherever it goes; the rest beside the content is its author's.
_EVERYBODYS = ("tool_call_id", "name")


def author_of(message: ChatMessage) -> str | None:
    """Return who wrote an answer.

    Parameters
    ----------
    message
        Any message of a conversation.

    Returns
    -------
    str or None
        Name of a candidate; ``None``: it carries no routing record.
    """
    record = record_of(message)
    name = None if record is None else record.get("candidate")
    return name if isinstance(name, str) else None


def adapted(
    messages: Sequence[ChatMessage],
    reader: CandidateLLM,
    authors: Mapping[str, CandidateLLM],
) -> list[ChatMessage]:
    """Return a conversation as the candidate that is asked now can read it.

    Parameters
    ----------
    messages
        From first to last; they are not changed.
    reader
        Who is asked.
    authors
        All candidates by name, since answers carry who wrote them.

    Returns
    -------
    list of ChatMessage
        Without our routing records, which some LLMs would send to their provider.
        Only changed messages are copies. Of answers of another candidate, reasoning
        is left out, and if it is of another family, all that is not everybody's; one
        of which nothing is left is not sent. Ids of tool calls that the reader would
        refuse, and missing ones, are replaced.
    """
    ids = CallIds(reader.family)
    sent: list[ChatMessage] = []
    for message in messages:
        author = authors.get(author_of(message) or "")
        read = _read(message, reader, author)
        if read is not None:
            is_own = author is not None and author.family == reader.family
            sent.append(ids.renamed(read, is_own=is_own))
    return sent


def _read(
    message: ChatMessage, reader: CandidateLLM, author: CandidateLLM | None
) -> ChatMessage | None:
    beside = message.additional_kwargs
    kept = beside
    if RECORD_KEY in beside:
        kept = {k: v for k, v in beside.items() if k != RECORD_KEY}
    blocks = [block for block in message.blocks if _is_read(block, reader.family)]
    is_anothers = author is not None and author.llm is not reader.llm
    if author is not None and is_anothers and message.role in _ASSISTANTS:
        blocks, kept = _of_another(message, blocks, kept, author, reader)
        if not blocks:
            return None
    if kept is beside and _are_same(blocks, message.blocks):
        return message
    return message.model_copy(update={"additional_kwargs": kept, "blocks": blocks})


def _of_another(
    message: ChatMessage,
    blocks: list[ContentBlock],
    beside: dict[str, Any],
    author: CandidateLLM,
    reader: CandidateLLM,
) -> tuple[list[ContentBlock], dict[str, Any]]:
    """Return the blocks and what is beside them, without what is the author's own."""
    blocks = [block for block in blocks if not isinstance(block, ThinkingBlock)]
    if author.family == reader.family:
        return blocks, beside
    if not any(isinstance(block, ToolCallBlock) for block in blocks):
        blocks = [*blocks, *_calls_beside(message, author)]
    blocks = [_with_arguments(block) for block in blocks]
    kept = {name: beside[name] for name in _EVERYBODYS if name in beside}
    return blocks, kept


def _calls_beside(message: ChatMessage, author: CandidateLLM) -> list[ToolCallBlock]:
    """Return tool calls that an LLM keeps beside the content, as blocks."""
    llm = author.llm
    if not message.additional_kwargs or not isinstance(llm, FunctionCallingLLM):
        return []
    try:
        calls = llm.get_tool_calls_from_response(
            ChatResponse(message=message), error_on_no_tool_call=False
        )
    except Exception:  # noqa: BLE001 - a message that it cannot read has no calls
        return []
    return [
        ToolCallBlock(
            tool_call_id=call.tool_id,
            tool_name=call.tool_name,
            tool_kwargs=call.tool_kwargs,
        )
        for call in calls
    ]


def _with_arguments(block: ContentBlock) -> ContentBlock:
    """Return a tool call with its arguments by name: OpenAI's LLM leaves them JSON."""
    if not isinstance(block, ToolCallBlock) or not isinstance(block.tool_kwargs, str):
        return block
    try:
        arguments = json.loads(block.tool_kwargs or "{}")
    except ValueError:
        arguments = {}
    if not isinstance(arguments, dict):
        arguments = {}
    return block.model_copy(update={"tool_kwargs": arguments})


def _is_read(block: ContentBlock, family: str) -> bool:
    readers = _READERS.get(getattr(block, "block_type", ""))
    return readers is None or family.startswith((*readers, UNKNOWN_FAMILY))


def _are_same(one: Sequence[object], other: Sequence[object]) -> bool:
    return len(one) == len(other) and all(
        a is b for a, b in zip(one, other, strict=True)
    )
