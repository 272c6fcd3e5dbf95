"""What Anthropic refuses, in its own words."""

import re
from collections.abc import Container
from typing import Any

from mixllm_integrations.testing.wire.parts import Body, Refusal
from mixllm_integrations.testing.wire.protocol import check_known

__all__ = ["check_messages", "check_request", "check_tool_choice", "check_tools"]

_ID = re.compile(r"[a-zA-Z0-9_-]+")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_CACHE = {"type", "cache_control"}
_BLOCK_KEYS = {
    "text": frozenset({"text", "citations", *_CACHE}),
    "image": frozenset({"source", *_CACHE}),
    "document": frozenset({"source", "title", "context", "citations", *_CACHE}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
    "tool_use": frozenset({"id", "name", "input", "caller", "toolset_name", *_CACHE}),
    "tool_result": frozenset(
        {"tool_use_id", "content", "is_error", "toolset_name", *_CACHE}
    ),
}
_REQUIRED = {
    "text": ("text",),
    "image": ("source",),
    "document": ("source",),
    "thinking": ("signature", "thinking"),
    "redacted_thinking": ("data",),
    "tool_use": ("id", "name", "input"),
    "tool_result": ("tool_use_id",),
}
_OF_ROLE = {
    "user": frozenset({"text", "image", "document", "tool_result"}),
    "assistant": frozenset({"text", "thinking", "redacted_thinking", "tool_use"}),
    "system": frozenset({"text"}),
}
_THINKING = ("thinking", "redacted_thinking")


def check_request(body: Body, *, forced: bool) -> None:
    """Raise if the settings of a request do not go together.

    Parameters
    ----------
    body
        The request.
    forced
        Whether a tool must be called.

    Raises
    ------
    Refusal
        At the first mistake.
    """
    if not isinstance(body.get("max_tokens"), int):
        raise Refusal("max_tokens: Field required")
    temperature = body.get("temperature")
    if temperature is not None and not 0 <= temperature <= 1:
        raise Refusal("temperature: range: 0..1")
    thinking = body.get("thinking") or {}
    if thinking.get("type") not in ("enabled", "adaptive"):
        return
    if forced:
        raise Refusal("Thinking may not be enabled when tool_choice forces tool use.")
    if temperature not in (None, 1):
        raise Refusal("`temperature` may only be set to 1 when thinking is enabled.")
    if thinking.get("budget_tokens", 0) >= body["max_tokens"]:
        raise Refusal("`max_tokens` must be greater than `thinking.budget_tokens`.")


def check_tools(tools: object) -> dict[str, Body]:
    """Return the tools of a request.

    Parameters
    ----------
    tools
        What was sent.

    Returns
    -------
    dict
        From name to the schema of the arguments.

    Raises
    ------
    Refusal
        If one of them would not be taken.
    """
    found: dict[str, Body] = {}
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        if tool.get("type", "custom") != "custom":
            continue  # what Anthropic itself runs
        name, schema = tool.get("name"), tool.get("input_schema") or {}
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Refusal(
                f"tools.{index}.custom.name: String should match pattern "
                "'^[a-zA-Z0-9_-]{1,128}$'"
            )
        if schema.get("type") != "object":
            raise Refusal(f"tools.{index}.custom.input_schema.type: Field required")
        if name in found:
            raise Refusal("tools: Tool names must be unique.")
        found[name] = schema
    return found


def check_tool_choice(choice: Any, tools: Container[str]) -> tuple[str, str | None]:  # noqa: ANN401
    """Return what a request says about calling tools.

    Parameters
    ----------
    choice
        What was sent.
    tools
        Names of those that there are.

    Returns
    -------
    tuple
        ``"auto"``, ``"none"``, ``"any"`` or ``"tool"``, and the name of that tool.

    Raises
    ------
    Refusal
        If it would not be taken.
    """
    if choice is None:
        return "auto", None
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in ("auto", "any", "tool", "none"):
        raise Refusal(
            f"tool_choice: Input tag '{kind}' found using 'type' does not match any of "
            "the expected tags: 'auto', 'any', 'tool', 'none'"
        )
    if not tools:
        raise Refusal("tool_choice may only be specified while providing tools.")
    if kind == "tool" and choice.get("name") not in tools:
        raise Refusal(f"Tool '{choice.get('name')}' not found in provided tools")
    return kind, choice.get("name")


def check_messages(messages: object, body: Body, *, strict_keys: bool) -> None:
    """Raise if Anthropic would not take a conversation.

    Parameters
    ----------
    messages
        What was sent.
    body
        The whole request.
    strict_keys
        Whether a key that the protocol does not know is refused.

    Raises
    ------
    Refusal
        At the first mistake.
    """
    if not isinstance(messages, list) or not messages:
        raise Refusal("messages: at least one message is required")
    for index, message in enumerate(messages):
        last = index == len(messages) - 1
        _check_message(message, f"messages.{index}", last=last, strict=strict_keys)
        if message["role"] == "system":
            _check_system_place(messages[:index])
    if messages[0]["role"] != "user":
        raise Refusal('messages: first message must use the "user" role')
    turns = _turns(messages)
    _check_tools_answered(turns)
    last_role, last_blocks = turns[-1]
    said = last_blocks[-1].get("text", "") if last_blocks else ""
    if last_role == "assistant" and said != said.rstrip():
        raise Refusal(
            "messages: final assistant content cannot end with trailing whitespace"
        )
    if (body.get("thinking") or {}).get("type") == "enabled":
        _check_thinking_first(turns)


def _check_message(message: Body, where: str, *, last: bool, strict: bool) -> None:
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant", "system"):
        raise Refusal(f"{where}.role: Input should be 'user' or 'assistant'")
    if not isinstance(content, str | list):
        raise Refusal(f"{where}.content: Input should be a valid list")
    if not content and not (last and role == "assistant"):
        raise Refusal(
            f"{where}: all messages must have non-empty content except for the "
            "optional final assistant message"
        )
    for index, block in enumerate(content if isinstance(content, list) else ()):
        _check_block(block, role, f"{where}.content.{index}", strict=strict)


def _check_system_place(before: list[Any]) -> None:
    """Raise unless a system message follows the user; older models take none."""
    if not before or before[-1]["role"] != "user":
        raise Refusal(
            'messages: Unexpected role "system". The Messages API accepts a top-level '
            '`system` parameter, not "system" as an input message role.'
        )


def _check_block(block: Any, role: str, where: str, *, strict: bool) -> None:  # noqa: ANN401
    kind = block.get("type") if isinstance(block, dict) else None
    if kind not in _BLOCK_KEYS:
        tags = ", ".join(f"'{tag}'" for tag in sorted(_BLOCK_KEYS))
        raise Refusal(
            f"{where}: Input tag '{kind}' found using 'type' does not match any of the "
            f"expected tags: {tags}"
        )
    if kind not in _OF_ROLE[role]:
        raise Refusal(f"{where}: `{kind}` blocks are not allowed in `{role}` messages")
    for key in _REQUIRED[kind]:
        if block.get(key) is None:
            raise Refusal(f"{where}.{kind}.{key}: Field required")
    if strict:
        told = f"{where}.{kind}.{{key}}: Extra inputs are not permitted"
        check_known(block, _BLOCK_KEYS[kind], told)
    if kind == "text" and not block["text"].strip():
        raise Refusal("messages: text content blocks must be non-empty")
    if kind == "thinking" and not block["signature"]:
        raise Refusal(f"{where}: Invalid `signature` in `thinking` block")
    own = {"tool_use": "id", "tool_result": "tool_use_id"}.get(kind)
    if own is not None and not _ID.fullmatch(block[own]):
        raise Refusal(
            f"{where}.{kind}.{own}: String should match pattern '^[a-zA-Z0-9_-]+$'"
        )
    if kind == "tool_result":
        _check_result(block.get("content"), where, strict=strict)


def _check_result(content: object, where: str, *, strict: bool) -> None:
    for index, block in enumerate(content if isinstance(content, list) else ()):
        at = f"{where}.tool_result.content.{index}"
        _check_block(block, "user", at, strict=strict)


def _turns(messages: list[Any]) -> list[tuple[str, list[Any]]]:
    """Return the blocks of a conversation; messages of one role are one turn."""
    turns: list[tuple[str, list[Any]]] = []
    for message in messages:
        if message["role"] == "system":
            continue
        content = message["content"]
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if turns and turns[-1][0] == message["role"]:
            turns[-1][1].extend(content)
        else:
            turns.append((message["role"], list(content)))
    return turns


def _check_tools_answered(turns: list[tuple[str, list[Any]]]) -> None:
    called: list[str] = []
    for index, (_, blocks) in enumerate(turns):
        answered = [b["tool_use_id"] for b in blocks if b["type"] == "tool_result"]
        if alone := [one for one in answered if one not in called]:
            raise Refusal(
                f"messages.{index}.content.0: unexpected `tool_use_id` found in "
                f"`tool_result` blocks: {alone[0]}. Each `tool_result` block must have "
                "a corresponding `tool_use` block in the previous message."
            )
        if waiting := [one for one in called if one not in answered]:
            raise Refusal(
                f"messages.{index - 1}: `tool_use` ids were found without "
                f"`tool_result` blocks immediately after: {', '.join(waiting)}. Each "
                "`tool_use` block must have a corresponding `tool_result` block in the "
                "next message."
            )
        called = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if len(set(called)) < len(called):
            raise Refusal("messages: `tool_use` ids must be unique")
    if called:
        raise Refusal(
            f"messages.{len(turns) - 1}: `tool_use` ids were found without "
            f"`tool_result` blocks immediately after: {', '.join(called)}. Each "
            "`tool_use` block must have a corresponding `tool_result` block in the "
            "next message."
        )


def _check_thinking_first(turns: list[tuple[str, list[Any]]]) -> None:
    """Raise if thinking is on, and a tool's call under way began without it."""
    if len(turns) < 2 or not any(b["type"] == "tool_result" for b in turns[-1][1]):
        return
    first = turns[-2][1][0]["type"]
    if first not in _THINKING:
        raise Refusal(
            f"messages.{len(turns) - 2}.content.0.type: Expected `thinking` or "
            f"`redacted_thinking`, but found `{first}`. When `thinking` is enabled, a "
            "final `assistant` message must start with a thinking block."
        )
