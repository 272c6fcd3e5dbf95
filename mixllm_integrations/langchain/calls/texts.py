"""Every text that a message would send, wherever it stands in it."""

import re
from collections.abc import Iterator, Mapping

from langchain_core.messages import AIMessage, BaseMessage

__all__ = ["texts_in", "whole_texts"]

# A file or an image written out, not a text that happens to begin with "data:".
_DATA_URI = re.compile(r"data:[\w.+-]+/[\w.+-]+(;[\w=.+-]+)*;base64,")
_LONGEST_HEADER = 1_000  # a longer one is none, and would be remembered bit by bit
_BINARY = frozenset({"base64", "bytes", "data"})
_BINARY_TYPES = frozenset({"audio", "base64", "file", "image", "input_audio", "video"})


def texts_in(message: BaseMessage) -> Iterator[str]:
    """Yield the texts of a message and of its tool calls.

    Parameters
    ----------
    message
        With text, blocks, tool calls.

    Yields
    ------
    str
        Values alone; files and images are left out.
    """
    yield from _below(message.content, keys=False)
    if isinstance(message, AIMessage):
        for call in (*message.tool_calls, *message.invalid_tool_calls):
            yield from _below(call["args"], keys=False)


def whole_texts(message: BaseMessage) -> tuple[str, str]:
    """Return all that a message would send as text, for who must not miss any.

    Parameters
    ----------
    message
        With whatever stands in it: names, keys, numbers, what providers put
        beside the content.

    Returns
    -------
    tuple of str
        The texts with a space between them, and without, since a word may be
        split over two blocks.
    """
    found = list(_below(message.content, keys=True))
    if isinstance(message, AIMessage):
        for call in (*message.tool_calls, *message.invalid_tool_calls):
            found.extend(_below(dict(call), keys=True, binary=False))
    found.extend(_below(message.additional_kwargs, keys=True))
    if message.name:
        found.append(message.name)
    return " ".join(found), "".join(found)


def _below(value: object, *, keys: bool, binary: bool = True) -> Iterator[str]:
    if isinstance(value, str):
        if not _DATA_URI.match(value, 0, _LONGEST_HEADER):
            yield value
    elif isinstance(value, Mapping):
        skips = binary and str(value.get("type")) in _BINARY_TYPES
        for key, part in value.items():
            if skips and key in _BINARY and isinstance(part, str | bytes):
                continue
            if keys:
                yield str(key)
            yield from _below(part, keys=keys, binary=binary)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _below(part, keys=keys, binary=binary)
    elif keys and isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
