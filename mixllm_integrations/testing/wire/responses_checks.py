"""What OpenAI's Responses refuse, in their own words."""

from typing import Any, cast

from mixllm_integrations.testing.wire.openai_checks import invalid
from mixllm_integrations.testing.wire.parts import Body, Refusal
from mixllm_integrations.testing.wire.protocol import check_known

__all__ = ["check_items"]

_ROLES = ("assistant", "system", "developer", "user")
_PARTS = ("input_text", "input_image", "output_text", "refusal", "input_file")
_OWN_PARTS = ("output_text", "refusal")
_TEXT_KEYS = frozenset(
    {"type", "text", "annotations", "logprobs", "prompt_cache_breakpoint"}
)
# How the ids of these items begin.
_ID_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}
_REQUIRED = {
    "reasoning": ("summary",),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "message": ("role", "content"),
}
MAX_CALL_ID = 64


def check_items(items: object, *, strict_keys: bool) -> None:
    """Raise if Responses would not take the items of a request.

    Parameters
    ----------
    items
        What was sent.
    strict_keys
        Whether a key that the protocol does not know is refused.

    Raises
    ------
    Refusal
        At the first mistake.
    """
    if not isinstance(items, list) or not items:
        raise Refusal(
            "Missing required parameter: 'input'.",
            param="input",
            code="missing_required_parameter",
        )
    for index, item in enumerate(items):
        _check_item(item, f"input[{index}]", strict_keys=strict_keys)
    _check_calls(items)
    _check_reasoning(items)


def _check_item(item: Body, where: str, *, strict_keys: bool) -> None:
    kind = item.get("type", "message")
    if kind not in _REQUIRED:
        raise invalid(kind, _REQUIRED, f"{where}.type")
    for key in _REQUIRED[kind]:
        if item.get(key) is None:
            raise Refusal(
                f"Missing required parameter: '{where}.{key}'.",
                param=f"{where}.{key}",
                code="missing_required_parameter",
            )
    prefix, own = _ID_PREFIXES.get(kind), item.get("id")
    if prefix is not None and own is not None and not str(own).startswith(prefix):
        raise Refusal(
            f"Invalid '{where}.id': '{own}'. Expected an ID that begins with "
            f"'{prefix}'.",
            param=f"{where}.id",
            code="invalid_value",
        )
    if len(item.get("call_id") or "") > MAX_CALL_ID:
        raise Refusal(
            f"Invalid '{where}.call_id': string too long. Expected a string with "
            f"maximum length {MAX_CALL_ID}, but got a string with length "
            f"{len(item['call_id'])} instead.",
            param=f"{where}.call_id",
            code="string_above_max_length",
        )
    if kind == "message":
        _check_message(item, where, strict_keys=strict_keys)


def _check_message(item: Body, where: str, *, strict_keys: bool) -> None:
    role, content = item["role"], item["content"]
    if role not in _ROLES:
        raise invalid(role, _ROLES, f"{where}.role")
    allowed = _OWN_PARTS if role == "assistant" else _PARTS[:2] + _PARTS[4:]
    for index, part in enumerate(content if isinstance(content, list) else ()):
        at = f"{where}.content[{index}]"
        kind = cast("Any", part).get("type")
        if kind not in allowed:
            known = allowed if kind in _PARTS else _PARTS
            raise invalid(kind, known, f"{at}.type")
        if strict_keys and kind in ("input_text", "output_text"):
            told = f"Unknown parameter: '{at}.{{key}}'."
            check_known(part, _TEXT_KEYS, told, code="unknown_parameter")


def _check_calls(items: list[Body]) -> None:
    called = {i["call_id"] for i in items if i.get("type") == "function_call"}
    answered = {i["call_id"] for i in items if i.get("type") == "function_call_output"}
    if alone := sorted(answered - called):
        raise Refusal(
            f"No tool call found for function call output with call_id {alone[0]}.",
            param="input",
        )
    if waiting := sorted(called - answered):
        raise Refusal(
            f"No tool output found for function call {waiting[0]}.", param="input"
        )


def _check_reasoning(items: list[Body]) -> None:
    """Raise if reasoning stands without what it led to."""
    for item, following in zip(items, [*items[1:], {}], strict=True):
        is_own = (
            following.get("type") in ("function_call", "reasoning")
            or following.get("role") == "assistant"
        )
        if item.get("type") == "reasoning" and not is_own:
            raise Refusal(
                f"Item '{item.get('id')}' of type 'reasoning' was provided without its "
                "required following item.",
                param="input",
            )
