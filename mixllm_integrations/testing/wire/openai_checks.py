"""What OpenAI refuses, in its own words."""

import re
from collections.abc import Iterable
from typing import Any

from mixllm_integrations.testing.wire.parts import Body, Refusal
from mixllm_integrations.testing.wire.protocol import check_known

__all__ = [
    "check_call_id",
    "check_chat_messages",
    "check_strict",
    "check_tool_choice",
    "check_tools",
    "invalid",
]

MAX_CALL_ID = 40

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_PART_KEYS = {
    "text": frozenset({"type", "text", "prompt_cache_breakpoint"}),
    "image_url": frozenset({"type", "image_url"}),
    "input_audio": frozenset({"type", "input_audio"}),
    "refusal": frozenset({"type", "refusal"}),
    "file": frozenset({"type", "file"}),
}
_PARTS_OF_ROLE = {
    "user": ("text", "image_url", "input_audio", "file"),
    "assistant": ("text", "refusal"),
}
_MESSAGE_KEYS = frozenset(
    {
        "role",
        "content",
        "name",
        "tool_calls",
        "tool_call_id",
        "refusal",
        "audio",
        "function_call",
    }
)
_FUNCTION_KEYS = frozenset({"name", "description", "parameters", "strict"})
_TOOL_KEYS = _FUNCTION_KEYS | {"type", "function"}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def invalid(value: object, allowed: Iterable[str], param: str) -> Refusal:
    """Return how a value is refused that is none of those allowed.

    Parameters
    ----------
    value
        What was sent.
    allowed
        What may be.
    param
        Where.

    Returns
    -------
    Refusal
        To be raised.
    """
    *most, last = [f"'{one}'" for one in allowed]
    named = f"{', '.join(most)}, and {last}" if most else last
    return Refusal(
        f"Invalid value: '{value}'. Supported values are: {named}.",
        param=param,
        code="invalid_value",
    )


def check_call_id(call_id: object, param: str) -> None:
    """Raise if the id of a tool call is too long, or none.

    Parameters
    ----------
    call_id
        What was sent.
    param
        Where.

    Raises
    ------
    Refusal
        If it is.
    """
    if not isinstance(call_id, str) or not call_id:
        raise Refusal(
            f"Missing required parameter: '{param}'.",
            param=param,
            code="missing_required_parameter",
        )
    if len(call_id) > MAX_CALL_ID:
        raise Refusal(
            f"Invalid '{param}': string too long. Expected a string with maximum "
            f"length {MAX_CALL_ID}, but got a string with length {len(call_id)} "
            "instead.",
            param=param,
            code="string_above_max_length",
        )


def check_chat_messages(messages: object, *, strict_keys: bool) -> None:
    """Raise if Chat Completions would not take a conversation.

    Parameters
    ----------
    messages
        What was sent.
    strict_keys
        Whether a key that it does not know is refused.

    Raises
    ------
    Refusal
        At the first mistake.
    """
    if not isinstance(messages, list) or not messages:
        raise Refusal(
            "Invalid 'messages': empty array. Expected an array with minimum length "
            "1, but got an empty array instead.",
            param="messages",
            code="empty_array",
        )
    waiting: list[str] = []
    called: list[str] | None = None
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]", strict_keys=strict_keys)
        if message["role"] == "tool":
            _check_tool_answer(message["tool_call_id"], called, index)
            waiting = [one for one in waiting if one != message["tool_call_id"]]
            continue
        _check_nothing_waits(waiting, index)
        calls = message.get("tool_calls") or []
        called = [call["id"] for call in calls] or None
        waiting = list(called or ())
    _check_nothing_waits(waiting, len(messages))


def _check_message(message: Body, where: str, *, strict_keys: bool) -> None:
    if message.get("role") not in _ROLES:
        raise invalid(message.get("role"), _ROLES, f"{where}.role")
    if strict_keys:
        _check_keys(message, _MESSAGE_KEYS, where)
    content = message.get("content")
    spoken = ("tool_calls", "function_call", "refusal", "audio")
    if content is None and not any(message.get(key) for key in spoken):
        raise Refusal(
            f"Invalid value for 'content': expected a string, got null. ({where})",
            param=f"{where}.content",
        )
    for index, part in enumerate(content if isinstance(content, list) else ()):
        at = f"{where}.content[{index}]"
        _check_part(part, message["role"], at, strict_keys=strict_keys)
    for index, call in enumerate(message.get("tool_calls") or ()):
        check_call_id(call.get("id"), f"{where}.tool_calls[{index}].id")
    if message["role"] == "tool":
        check_call_id(message.get("tool_call_id"), f"{where}.tool_call_id")


def _check_part(part: Any, role: str, where: str, *, strict_keys: bool) -> None:  # noqa: ANN401
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in _PART_KEYS:
        raise invalid(kind, _PART_KEYS, f"{where}.type")
    if kind not in _PARTS_OF_ROLE.get(role, ("text",)):
        raise Refusal(
            f"Invalid '{where}'. A part of type '{kind}' is not allowed in a message "
            f"with role '{role}'.",
            param=where,
            code="invalid_value",
        )
    if strict_keys:
        _check_keys(part, _PART_KEYS[kind], where)


def _check_keys(given: Body, known: frozenset[str], where: str) -> None:
    told = f"Unknown parameter: '{where}.{{key}}'."
    check_known(given, known, told, code="unknown_parameter")


def _check_tool_answer(call_id: str, called: list[str] | None, index: int) -> None:
    param = f"messages.[{index}].role"
    if called is None:
        raise Refusal(
            "Invalid parameter: messages with role 'tool' must be a response to a "
            "preceeding message with 'tool_calls'.",
            param=param,
        )
    if call_id not in called:
        raise Refusal(
            f"Invalid parameter: 'tool_call_id' of '{call_id}' not found in "
            "'tool_calls' of previous message.",
            param=param,
        )


def _check_nothing_waits(waiting: list[str], index: int) -> None:
    if waiting:
        raise Refusal(
            "An assistant message with 'tool_calls' must be followed by tool messages "
            "responding to each 'tool_call_id'. The following tool_call_ids did not "
            f"have response messages: {', '.join(waiting)}",
            param=f"messages.[{index}].role",
        )


def check_tools(tools: object, *, strict_keys: bool) -> dict[str, Body]:
    """Return the tools of a request, nested as in Chat Completions or not.

    Parameters
    ----------
    tools
        What was sent.
    strict_keys
        Whether a key that the protocol does not know is refused.

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
        if tool.get("type") != "function":
            continue  # what OpenAI itself runs
        where = f"tools[{index}]"
        nested = "function" in tool
        function = tool["function"] if nested else tool
        if strict_keys:
            _check_keys(tool, _TOOL_KEYS, where)
            if nested:
                _check_keys(function, _FUNCTION_KEYS, f"{where}.function")
        name = function.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            param = f"{where}.function.name" if nested else f"{where}.name"
            raise Refusal(
                f"Invalid '{param}': string does not match pattern. Expected a string "
                "that matches the pattern '^[a-zA-Z0-9_-]+$'.",
                param=param,
                code="invalid_value",
            )
        schema = function.get("parameters") or {}
        if function.get("strict"):
            check_strict(schema, f"function '{name}'", param=where)
        found[name] = schema
    return found


def check_tool_choice(choice: object, tools: Iterable[str]) -> tuple[str, str | None]:
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
    if not tools:
        raise Refusal(
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when "
            "'tools' are specified.",
            param="tool_choice",
        )
    if isinstance(choice, str):
        if choice not in ("none", "auto", "required"):
            raise invalid(choice, ("none", "auto", "required"), "tool_choice")
        return ("any" if choice == "required" else choice), None
    named = choice if isinstance(choice, dict) else {}
    name = (named.get("function") or named).get("name")
    if named.get("type") != "function" or not isinstance(name, str):
        raise invalid(named.get("type"), ("function",), "tool_choice.type")
    if name not in tools:
        raise Refusal(
            f"Tool choice '{name}' not found in 'tools' parameter.",
            param="tool_choice",
        )
    return "tool", name


def check_strict(schema: Any, whose: str, *, param: str) -> None:  # noqa: ANN401
    """Raise if a schema is none that can be kept strictly.

    Parameters
    ----------
    schema
        Of a tool's arguments or an answer.
    whose
        How to name it.
    param
        Where it was sent.

    Raises
    ------
    Refusal
        If an object in it may have other keys, or one is not required.
    """
    if not isinstance(schema, dict):
        return
    properties = schema.get("properties") or {}
    if schema.get("type") == "object":
        missing = [
            name for name in properties if name not in schema.get("required", ())
        ]
        reason = None
        if schema.get("additionalProperties") is not False:
            reason = (
                "'additionalProperties' is required to be supplied and to be false."
            )
        elif missing:
            reason = (
                "'required' is required to be supplied and to be an array including "
                f"every key in properties. Missing '{missing[0]}'."
            )
        if reason is not None:
            raise Refusal(f"Invalid schema for {whose}: {reason}", param=param)
    inner = [*properties.values(), *(schema.get("$defs") or {}).values()]
    for part in (*inner, schema.get("items"), *(schema.get("anyOf") or ())):
        check_strict(part, whose, param=param)
