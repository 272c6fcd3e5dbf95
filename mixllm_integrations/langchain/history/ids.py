"""Ids of tool calls, in a form that whoever answers next takes.

A call and its result get the same new id, and no two calls get the same.
"""

import operator
from collections.abc import Mapping
from typing import Any, Self

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage

from mixllm_integrations.serving.call_ids import FreshIds

__all__ = ["CallIds"]

# Blocks that show a call, and under which key its id.
_CALLS = {
    "custom_tool_call": "call_id",
    "function_call": "call_id",
    "invalid_tool_call": "id",
    "tool_call": "id",
    "tool_use": "id",
}


class CallIds:
    """The ids of one conversation, met in its order.

    An id that is legal and new stays as it is, so what a provider has cached of
    the conversation stays true as it grows.

    Parameters
    ----------
    fresh
        Tells which ids are legal and new.
    """

    __slots__ = ("_fresh", "_open")

    def __init__(self, fresh: FreshIds) -> None:
        self._fresh = fresh
        #: New ids of the latest calls under an old id, in the order of the calls.
        self._open: dict[str, list[str]] = {}

    @classmethod
    def of(cls, provider: str | None) -> Self | None:
        """Return the ids that a provider takes.

        Parameters
        ----------
        provider
            Who is asked.

        Returns
        -------
        CallIds or None
            ``None`` if it takes any.
        """
        fresh = FreshIds.of(provider)
        return None if fresh is None else cls(fresh)

    def renamed(self, message: BaseMessage) -> BaseMessage:
        """Return the next message with ids that are taken.

        Parameters
        ----------
        message
            Of any kind.

        Returns
        -------
        BaseMessage
            The same object if its ids are.
        """
        if isinstance(message, AIMessage):
            if not message.tool_calls and not message.invalid_tool_calls:
                return message
            return self._calling(message)
        if not self._open:
            return message
        update: dict[str, Any] = {}
        own: dict[str, str] = {}
        if isinstance(message, ToolMessage):
            old = message.tool_call_id
            own[old] = self._answered(old)
            if own[old] != old:
                update["tool_call_id"] = own[old]
        content = message.content
        if isinstance(content, list):
            results = [self._result(block, own) for block in content]
            if not all(map(operator.is_, results, content)):
                update["content"] = results
        return message.model_copy(update=update) if update else message

    def _calling(self, message: AIMessage) -> AIMessage:
        given: dict[str, list[str]] = {}
        for call in (*message.tool_calls, *message.invalid_tool_calls):
            if old := call["id"]:
                given.setdefault(old, []).append(self._fresh.new(old))
        if all(new == [old] for old, new in given.items()):
            self._open.update(given)
            return message
        names = _Names(given)
        update: dict[str, Any] = {
            "tool_calls": [names.on(call) for call in message.tool_calls],
            "invalid_tool_calls": [names.on(c) for c in message.invalid_tool_calls],
        }
        if isinstance(message.content, list):
            names = _Names(given)
            update["content"] = [
                names.on(block, _CALLS.get(block.get("type", ""), ""))
                if isinstance(block, dict)
                else block
                for block in message.content
            ]
        raw = message.additional_kwargs.get("tool_calls")
        if isinstance(raw, list):
            names = _Names(given)
            update["additional_kwargs"] = {
                **message.additional_kwargs,
                "tool_calls": [names.on(call) for call in raw],
            }
        if isinstance(message, AIMessageChunk):
            names = _Names(given)
            update["tool_call_chunks"] = [
                names.on(chunk) for chunk in message.tool_call_chunks
            ]
        self._open.update(given)
        return message.model_copy(update=update)

    def _answered(self, old: str) -> str:
        waiting = self._open.get(old)
        if waiting is None:
            return old
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def _result(self, block: Any, own: Mapping[str, str]) -> Any:  # noqa: ANN401
        old = block.get("tool_use_id") if isinstance(block, dict) else None
        if not isinstance(old, str):
            return block
        new = own[old] if old in own else self._answered(old)
        return block if new == old else {**block, "tool_use_id": new}


class _Names:
    """Gives out the new ids of one message, for one place where they stand."""

    __slots__ = ("_left",)

    def __init__(self, given: Mapping[str, list[str]]) -> None:
        self._left = {old: list(new) for old, new in given.items()}

    def on(self, call: Any, key: str = "id") -> Any:  # noqa: ANN401
        left = self._left.get(call.get(key))
        if not left:
            return call
        return {**call, key: left.pop(0) if len(left) > 1 else left[0]}
