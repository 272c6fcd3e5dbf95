"""Collects the chunks of a stream while they pass through."""

from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_ai_message_chunks
from langchain_core.runnables import AddableDict

from mixllm_integrations.langchain.calls.messages import (
    said_in,
    spent_on,
    with_record,
    with_usage,
)
from mixllm_integrations.langchain.calls.request import Request
from mixllm_integrations.langchain.calls.signals import is_cut_short
from mixllm_integrations.serving import RECORD_KEY

__all__ = ["StreamedAnswer"]


class StreamedAnswer:
    """One answer that arrives in pieces.

    Pieces pass through at once, except the one that says it is the last: it
    waits until the stream has ended, so that it can carry the routing record.

    Parameters
    ----------
    request
        What is being answered.
    keeps
        Whether the pieces are kept, for those who listen to the run.
    """

    __slots__ = (
        "_ended_short",
        "_held",
        "_keeps",
        "_kept",
        "_parsed",
        "_request",
        "_said",
        "_usage",
    )

    def __init__(self, request: Request, *, keeps: bool) -> None:
        self._request = request
        self._keeps = keeps
        self._kept: list[Any] = []
        self._held: BaseMessage | None = None
        self._usage: UsageMetadata | None = None
        self._said: list[str] = []
        self._ended_short = False
        # What was parsed so far; beside raw messages, what became of each part.
        self._parsed: Any = {} if request.returns_raw else None

    def passed(self, item: Any) -> list[Any]:  # noqa: ANN401
        """Take one piece.

        Parameters
        ----------
        item
            A chunk of a message, or a part of what was parsed.

        Returns
        -------
        list
            What can be handed on now.
        """
        self._request.call.first_chunk()
        ready: list[Any] = []
        if self._held is not None:
            ready.append(self._held)
            self._held = None
        if isinstance(item, AIMessage):
            self._note(item)
            if getattr(item, "chunk_position", "last") == "last":
                self._held = item
                item = None
        elif self._request.watch is not None:
            self._note_parsed(item)
        if item is not None:
            ready.append(item)
        if self._keeps:
            self._kept.extend(ready)
        return ready

    def closed(self) -> tuple[list[Any], Any, dict[str, Any]]:
        """End the answer, and report it.

        Returns
        -------
        tuple
            What is still to be handed on, the answer as a whole (``None`` if
            the pieces were not kept), and its routing record.
        """
        request = self._request
        watched = request.watch is not None
        spent = (
            request.watched()
            if watched
            else spent_on(
                self._usage, None, "".join(self._said), ended_short=self._ended_short
            )
        )
        fits = not watched or request.fits(self._parsed)
        record = request.succeeded(spent, fits=fits)
        rest: list[Any] = []
        if self._held is not None:
            rest.append(with_record(self._held, record))
        elif not watched or request.returns_raw:
            last = AIMessageChunk(
                content="",
                response_metadata={RECORD_KEY: record},
                chunk_position="last",
            )
            rest.append(AddableDict(raw=last) if watched else last)
        if self._keeps:
            self._kept.extend(rest)
        return rest, self._whole(), record

    def _note_parsed(self, item: Any) -> None:  # noqa: ANN401
        if not self._request.returns_raw:
            self._parsed = item
        elif isinstance(item, dict):
            self._parsed.update(item)

    def _note(self, item: AIMessage) -> None:
        if item.response_metadata and is_cut_short(item.response_metadata):
            self._ended_short = True
        self._usage = with_usage(self._usage, item)
        if self._usage is None:
            self._said.append(said_in(item))

    def _whole(self) -> Any:  # noqa: ANN401
        kept = self._kept
        if not kept:
            return None
        if all(isinstance(item, AIMessageChunk) for item in kept):
            return add_ai_message_chunks(*kept)
        whole = kept[0]
        for item in kept[1:]:
            try:
                whole = whole + item
            except TypeError:  # parsed objects: each is the whole so far
                whole = item
        return whole
