"""What of an answer another provider can read, and what of it has to go."""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

from langchain_core.messages import AIMessage, BaseMessage

__all__ = ["as_said", "legible", "unmarked", "unread_marks", "without_reasoning"]

Block: TypeAlias = str | dict[Any, Any]
M = TypeVar("M", bound=BaseMessage)

_OPENAI = frozenset({"openai", "azure"})
_GOOGLE = frozenset({"google_genai", "google_vertexai"})
_CLAUDE = frozenset({"anthropic", "bedrock", "google_vertexai"})

# Marks of where a prompt is to be cached, and who reads them.
_MARKS = {
    "cache_control": _CLAUDE | {"litellm", "openrouter"},
    "cachePoint": frozenset({"bedrock"}),
    "prompt_cache_breakpoint": _OPENAI,
}
_UNREAD = {
    provider: frozenset(mark for mark, who in _MARKS.items() if provider not in who)
    for provider in frozenset[str]().union(*_MARKS.values())
}

# Who reads a block of this form again. Text, tool calls and media are everybody's.
_READERS: dict[str, frozenset[str]] = {
    "thinking": _CLAUDE | {"google_genai", "mistralai"},
    "reasoning_content": frozenset({"bedrock"}),
    **dict.fromkeys(("code_execution_result", "executable_code"), _GOOGLE),
    **dict.fromkeys(("mcp_tool_use", "redacted_thinking", "server_tool_use"), _CLAUDE),
    **dict.fromkeys(
        (
            "apply_patch_call",
            "apply_patch_call_output",
            "code_interpreter_call",
            "compaction",
            "computer_call",
            "custom_tool_call",
            "file_search_call",
            "function_call",
            "image_generation_call",
            "mcp_approval_request",
            "mcp_call",
            "mcp_list_tools",
            "refusal",
            "tool_search_call",
            "tool_search_output",
            "web_search_call",
        ),
        _OPENAI,
    ),
}
_REASONING = frozenset(
    {"reasoning", "reasoning_content", "redacted_thinking", "thinking"}
)
# What is put beside the content, and who reads it again.
_BESIDE: dict[str, frozenset[str]] = {
    "__gemini_function_call_thought_signatures__": _GOOGLE,
    "__openai_function_call_ids__": _OPENAI,
    "audio": _OPENAI,
    "reasoning": _OPENAI,
    "refusal": _OPENAI,
    "tool_outputs": _OPENAI,
}
_BOUND = _BESIDE.keys() | {
    "reasoning_content",
    "reasoning_details",
    "signature",
    "thinking",
    "thought_signature",
}
_BOUND_METADATA = ("container", "id", "output_version")
_STORED = ("msg_", "resp_", "rs_")
_CLAUDE_ID = re.compile(r"msg_(?:bdrk_|vrtx_)?01[0-9A-Za-z]{22}")


def as_said(message: AIMessage) -> AIMessage | None:
    """Leave of an answer what was said and which tools were called.

    Parameters
    ----------
    message
        The answer of another provider.

    Returns
    -------
    AIMessage or None
        The same object if there was nothing else, else a copy whose content is
        plain text; ``None`` if nothing would be left.
    """
    content, beside = message.content, message.additional_kwargs
    bound = [
        key
        for key, value in beside.items()
        if value is not None and (key in _BOUND or key.startswith("__"))
    ]
    update = _unstored(message)
    if not isinstance(content, str) or (bound and not content.strip()):
        said = _said(content)
        if not said.strip():
            said = _said_beside(beside)
        if not said and not _calls_tools(message):
            return None
        update["content"] = said
    if bound:
        update["additional_kwargs"] = _without(beside, bound)
    return _changed(message, update)


def without_reasoning(message: AIMessage) -> AIMessage | None:
    """Leave out the reasoning, which one model alone can read again.

    Parameters
    ----------
    message
        The answer of another candidate of the same provider.

    Returns
    -------
    AIMessage or None
        The same object if there is none; ``None`` if there is nothing else.
    """
    return _filtered(
        message, lambda block: None if _kind(block) in _REASONING else block, {}
    )


def legible(message: AIMessage, provider: str | None) -> AIMessage | None:
    """Leave out what a provider certainly cannot read, whoever wrote it.

    Parameters
    ----------
    message
        The answer of an unknown provider.
    provider
        Who shall read it; ``None``: unknown, so nothing is certain.

    Returns
    -------
    AIMessage or None
        The same object if all can be read; ``None`` if nothing can.
    """
    if provider is None:
        return message
    reader, beside = provider, message.additional_kwargs
    update: dict[str, Any] = {}
    bound = [
        key
        for key, value in beside.items()
        if value is not None and key in _BESIDE and reader not in _BESIDE[key]
    ]
    if bound:
        update["additional_kwargs"] = _without(beside, bound)
    if reader in _OPENAI and _CLAUDE_ID.fullmatch(message.id or ""):
        update["id"] = None  # it would be looked for among OpenAI's own items
    return _filtered(message, lambda block: _legible(block, reader), update)


def unread_marks(provider: str | None) -> frozenset[str]:
    """Return the marks for prompt caches that a provider does not read.

    Parameters
    ----------
    provider
        Who is asked; ``None``: unknown, and may read them.

    Returns
    -------
    frozenset of str
        Keys of blocks, and of what stands beside the content.
    """
    if provider is None:
        return frozenset()
    return _UNREAD.get(provider, frozenset(_MARKS))


def unmarked(message: M, marks: frozenset[str]) -> M:
    """Leave out marks for prompt caches.

    Parameters
    ----------
    message
        Of any kind.
    marks
        As `unread_marks` returns them.

    Returns
    -------
    BaseMessage
        The same object if it has none.
    """
    content, beside = message.content, message.additional_kwargs
    update: dict[str, Any] = {}
    if not marks.isdisjoint(beside):
        update["additional_kwargs"] = _without(beside, marks)
    if not isinstance(content, str):
        blocks = _unmarked(content, marks)
        if blocks is not content:
            update["content"] = blocks
    return _changed(message, update)


def _unmarked(blocks: list[Any], marks: frozenset[str]) -> list[Any]:
    new = [_unmarked_block(block, marks) for block in blocks]
    if all(map(operator.is_, new, blocks)):
        return blocks
    return [block for block in new if block is not None]


def _unmarked_block(block: Any, marks: frozenset[str]) -> Any:  # noqa: ANN401
    """Return a block without marks; ``None`` if it was nothing but a mark."""
    if not isinstance(block, dict):
        return block
    update: dict[str, Any] = {}
    for key in ("extras", "metadata"):
        inner = block.get(key)
        if isinstance(inner, dict) and not marks.isdisjoint(inner):
            update[key] = _without(inner, marks)
    inner = block.get("content")
    if isinstance(inner, list):
        blocks = _unmarked(inner, marks)
        if blocks is not inner:
            update["content"] = blocks
    if not update and marks.isdisjoint(block):
        return block
    return {**_without(block, marks), **update} or None


def _filtered(
    message: AIMessage,
    keep: Callable[[Block], Block | None],
    update: dict[str, Any],
) -> AIMessage | None:
    content = message.content
    if not isinstance(content, str):
        new = list(map(keep, content))
        if not all(map(operator.is_, new, content)):
            kept = [block for block in new if block is not None]
            if not kept and not _calls_tools(message):
                return None
            update["content"] = kept
    return _changed(message, update)


def _legible(block: Block, reader: str) -> Block | None:
    if isinstance(block, str):
        return block
    inner = block.get("value") if _kind(block) == "non_standard" else block
    kind = _kind(inner)
    if kind == "thinking" and reader == "anthropic":
        return block if "signature" in block else None
    readers = _READERS.get(kind)
    if kind.endswith("_tool_result"):
        readers = _CLAUDE
    elif kind == "reasoning" and isinstance(inner, dict) and _is_openai(inner):
        readers = _OPENAI
    if readers is None or reader in readers:
        return block
    text = _text(block)
    return {"type": "text", "text": text} if text else None


def _is_openai(reasoning: Mapping[Any, Any]) -> bool:
    is_stored = str(reasoning.get("id")).startswith(_STORED)
    return is_stored or not reasoning.keys().isdisjoint(
        ("summary", "encrypted_content")
    )


def _unstored(message: AIMessage) -> dict[str, Any]:
    """Return what changes so that nothing refers to a provider's store."""
    update: dict[str, Any] = {}
    if message.id is not None and message.id.startswith(_STORED):
        update["id"] = None
    metadata = message.response_metadata
    for key in _BOUND_METADATA:
        value = metadata.get(key)
        if value is None or (key == "id" and not str(value).startswith("resp_")):
            continue
        metadata = update["response_metadata"] = _without(metadata, (key,))
    return update


def _said(content: str | list[Block]) -> str:
    """Return the text of an answer; what stood apart stands apart."""
    if isinstance(content, str):
        return content
    parts: list[str] = []
    item: tuple[Any, ...] = ()
    is_apart = False
    for block in content:
        text = _text(block)
        if not text:
            is_apart = is_apart or text is None
            continue
        name = _item(block)
        if parts and (is_apart or name != item):
            parts.append("\n\n")
        parts.append(text)
        item, is_apart = name, False
    return "".join(parts)


def _item(block: Block) -> tuple[Any, ...]:
    """Return of which of several messages in one answer a block is a part."""
    if isinstance(block, str):
        return (None, None)
    name = block.get("id")
    return (name if str(name).startswith(_STORED) else None, block.get("phase"))


def _said_beside(beside: Mapping[str, Any]) -> str:
    """Return what was said without being in the content."""
    audio = beside.get("audio")
    spoken = audio.get("transcript") if isinstance(audio, dict) else None
    return str(spoken or beside.get("refusal") or "")


def _text(block: Block) -> str | None:
    if isinstance(block, str):
        return block
    kind = _kind(block)
    if kind == "non_standard":
        inner = block.get("value")
        return _text(inner) if isinstance(inner, dict) else None
    if kind not in ("", "text", "output_text", "refusal"):
        return None
    text = block.get("refusal" if kind == "refusal" else "text")
    return text if isinstance(text, str) else None


def _kind(block: object) -> str:
    return str(block.get("type", "")) if isinstance(block, dict) else ""


def _calls_tools(message: AIMessage) -> bool:
    return bool(message.tool_calls or message.invalid_tool_calls)


def _without(given: Mapping[Any, Any], keys: Iterable[str]) -> dict[Any, Any]:
    left = dict(given)
    for key in keys:
        left.pop(key, None)
    return left


def _changed(message: M, update: Mapping[str, Any]) -> M:
    return message.model_copy(update=update) if update else message
