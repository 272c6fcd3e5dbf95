"""Ids of tool calls, in a form that whoever answers next takes.

Some LLMs, Ollama's among them, give their calls no ids, and name the tool in place of
one; others give ids that another provider refuses.
"""

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ContentBlock,
    MessageRole,
    ToolCallBlock,
)

from mixllm_integrations.serving.call_ids import FreshIds

__all__ = ["CallIds"]

# How the table of legal ids calls those whose names differ on this side.
_PROVIDERS = {"aws": "bedrock", "mistral": "mistralai"}
_RESULT = "tool_call_id"


class CallIds:
    """The ids of one conversation, met in its order.

    Parameters
    ----------
    family
        Of the LLM that reads it; see `CandidateLLM.family`.
    """

    __slots__ = ("_fresh", "_waiting")

    def __init__(self, family: str) -> None:
        provider = family.partition("/")[0]
        self._fresh = FreshIds.of(_PROVIDERS.get(provider, provider)) or FreshIds()
        #: Of the latest calls: the old id, the tool and the new id.
        self._waiting: list[tuple[str | None, str, str]] = []

    def renamed(self, message: ChatMessage, *, is_own: bool) -> ChatMessage:
        """Return the next message with ids that are taken.

        Parameters
        ----------
        message
            Of any role.
        is_own
            Whether its author's family is the reader's, which knows its ids.

        Returns
        -------
        ChatMessage
            The same object if its ids are.
        """
        if message.role is MessageRole.TOOL:
            return self._answering(message)
        calls = [b for b in message.blocks if isinstance(b, ToolCallBlock)]
        if not calls:
            return message
        self._waiting = []
        if is_own:
            for call in calls:
                self._fresh.keep(call.tool_call_id or "")
            return message
        blocks = [self._calling(block) for block in message.blocks]
        return _changed(message, "blocks", message.blocks, blocks)

    def _calling(self, block: ContentBlock) -> ContentBlock:
        if not isinstance(block, ToolCallBlock):
            return block
        old = block.tool_call_id
        new = self._fresh.new(old or block.tool_name)
        self._waiting.append((old, block.tool_name, new))
        return block if new == old else block.model_copy(update={_RESULT: new})

    def _answering(self, message: ChatMessage) -> ChatMessage:
        beside = message.additional_kwargs
        told = beside.get(_RESULT) or beside.get("name")
        by_id = [one for one in self._waiting if one[0] == told]
        by_name = [one for one in self._waiting if one[1] == told]
        found = next(iter(by_id or by_name or ([] if told else self._waiting)), None)
        if found is None:
            return message
        self._waiting.remove(found)
        if beside.get(_RESULT) == found[2]:
            return message
        update = {"additional_kwargs": {**beside, _RESULT: found[2]}}
        return message.model_copy(update=update)


def _changed(
    message: ChatMessage, name: str, before: Sequence[Any], after: Sequence[Any]
) -> ChatMessage:
    same = all(a is b for a, b in zip(before, after, strict=True))
    return message if same else message.model_copy(update={name: after})
