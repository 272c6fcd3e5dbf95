"""What the content blocks of messages ask of a model besides reading text.

The standard form of LangChain and those of OpenAI, Anthropic and Google are
known, since a routed model hands on whatever it is given.
"""

import mimetypes
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from langchain_core.messages import BaseMessage, ToolMessage

__all__ = ["inputs_of"]

Block: TypeAlias = Mapping[str, Any]

# What a block asks for besides, if it is part of a tool's result.
_IN_TOOL_RESULT = {
    "image_inputs": "image_tool_message",
    "pdf_inputs": "pdf_tool_message",
}
_BY_MIME_TYPE = {
    "image/": ("image_inputs",),
    "audio/": ("audio_inputs",),
    "video/": ("video_inputs",),
    "application/pdf": ("pdf_inputs",),
    "text/": (),
}
_ANY_FILE = ("attachment",)


def inputs_of(messages: Iterable[BaseMessage]) -> frozenset[str]:
    """Return what a model has to take besides text.

    Results of tools and what is nested in them count; what cannot be told is
    not asked for.

    Parameters
    ----------
    messages
        All that will be sent.

    Returns
    -------
    frozenset of str
        Keys of LangChain's `ModelProfile`, such as ``"pdf_inputs"``; that of a
        file of no known kind is ``"attachment"``.

    Examples
    --------
    >>> from langchain_core.messages import HumanMessage
    >>> block = {"type": "image", "url": "https://example.org/cat.png"}
    >>> sorted(inputs_of([HumanMessage([block])]))
    ['image_inputs', 'image_url_inputs']
    """
    found: set[str] = set()
    for message in messages:
        content = message.content
        if isinstance(content, list):
            _look(content, found, in_result=isinstance(message, ToolMessage))
    return frozenset(found)


def _look(blocks: Iterable[object], found: set[str], *, in_result: bool) -> None:
    """Note what a list of blocks asks for."""
    for block in blocks:
        if not isinstance(block, dict):
            continue
        kind = block.get("type")
        reader = _READERS.get(kind) if isinstance(kind, str) else None
        if reader is not None:
            asked = reader(block)
            found.update(asked)
            if in_result:
                found.update(_IN_TOOL_RESULT[a] for a in asked if a in _IN_TOOL_RESULT)
        nested = _nested(block)
        if nested:
            _look(nested, found, in_result=in_result or kind == "tool_result")


def _nested(block: Block) -> list[Any]:
    kind = block.get("type")
    if kind == "non_standard":
        return [block.get("value")]
    if kind == "document":
        block = _part(block, "source")
    elif kind != "tool_result":
        return []
    content = block.get("content")
    return content if isinstance(content, list) else []


def _image(block: Block) -> tuple[str, ...]:
    return _image_at(_word(block, "url") or _word(_part(block, "source"), "url"))


def _image_by_url(block: Block) -> tuple[str, ...]:
    url = _word(block, "image_url") or _word(_part(block, "image_url"), "url")
    # Some providers read any file in this form; of an odd type it is an image.
    named = _of_mime_type(_mime_type_in(url))
    return _image_at(url) if named == _ANY_FILE else named


def _image_at(url: str) -> tuple[str, ...]:
    if url.startswith(("http://", "https://")):
        return ("image_inputs", "image_url_inputs")
    return ("image_inputs",)


def _file(block: Block) -> tuple[str, ...]:
    part = _part(block, "file") or block
    if block.get("source_type") == "text":
        return ()
    url = _word(part, "file_data", "url", "file_url", "file_uri")
    name = _word(part, "filename") or url.partition("?")[0]
    return _of_mime_type(
        _word(block, "mime_type")
        or _mime_type_in(url)
        or mimetypes.guess_type(name)[0]
        or ""
    )


def _document(block: Block) -> tuple[str, ...]:
    source = _part(block, "source")
    kind = source.get("type")
    if kind in ("text", "content"):
        return ()
    if kind == "file":
        return _ANY_FILE
    return _of_mime_type(_word(source, "media_type") or "application/pdf")


def _of_mime_type(mime_type: str) -> tuple[str, ...]:
    for start, asked in _BY_MIME_TYPE.items():
        if mime_type.startswith(start):
            return asked
    return _ANY_FILE


def _mime_type_in(url: str) -> str:
    """Return the type that a ``data:`` URL names, without reading its data."""
    if not url.startswith("data:"):
        return ""
    return url[5:105].partition(",")[0].partition(";")[0]


def _part(block: Block, key: str) -> Block:
    part = block.get(key)
    return part if isinstance(part, dict) else {}


def _word(block: Block, *keys: str) -> str:
    """Return the first of some values that is a text."""
    values = (block.get(key) for key in keys)
    return next((value for value in values if isinstance(value, str)), "")


def _audio(block: Block) -> tuple[str, ...]:  # noqa: ARG001
    return ("audio_inputs",)


def _video(block: Block) -> tuple[str, ...]:  # noqa: ARG001
    return ("video_inputs",)


# By the type of the block.
_READERS: dict[str, Callable[[Block], tuple[str, ...]]] = {
    "image": _image,
    "image_url": _image_by_url,
    "input_image": _image_by_url,
    "audio": _audio,
    "audio_url": _audio,
    "input_audio": _audio,
    "video": _video,
    "video_url": _video,
    "file": _file,
    "input_file": _file,
    "media": _file,
    "file_data": _file,
    "document": _document,
}
