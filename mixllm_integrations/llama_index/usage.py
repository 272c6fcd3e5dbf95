"""What an answer took, as LlamaIndex LLMs of all providers tell it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from llama_index.core.base.llms.types import (
    ChatResponse,
    CompletionResponse,
    ToolCallBlock,
)

from mixllm_integrations.serving import NO_CACHE, CacheUse, text_tokens
from mixllm_integrations.serving.ends import REASONS, is_cut_short
from mixllm_integrations.serving.told import told_tokens

__all__ = ["Usage", "answer_tokens", "usage_of"]

# Where providers put the counts in a raw answer, and how they call them.
_PLACES = ("usage", "usage_metadata")
_READ = ("prompt_tokens", "input_tokens", "prompt_token_count", "prompt_eval_count")
_WRITTEN = (
    "completion_tokens",
    "output_tokens",
    "candidates_token_count",
    "eval_count",
)
_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_CACHED = ("cached_tokens", "cached_content_token_count")
# Anthropic does not count these among the tokens that it read.
_APART_READ, _APART_WRITTEN = "cache_read_input_tokens", "cache_creation_input_tokens"


class Usage(NamedTuple):
    """What one answer took.

    Parameters
    ----------
    read, written
        Tokens; ``None`` where the LLM does not say.
    cache
        How much of the prompt passed through the provider's cache.
    is_cut_short
        Whether the answer ended at a limit of tokens.
    """

    read: int | None = None
    written: int | None = None
    cache: CacheUse = NO_CACHE
    is_cut_short: bool = False

    def then(self, later: "Usage") -> "Usage":
        """Return what is known after another chunk, since LLMs tell in parts.

        Parameters
        ----------
        later
            What the next chunk says.

        Returns
        -------
        Usage
            The last that was told of each.
        """
        return Usage(
            self.read if later.read is None else later.read,
            self.written if later.written is None else later.written,
            self.cache if later.cache == NO_CACHE else later.cache,
            self.is_cut_short or later.is_cut_short,
        )


def usage_of(response: ChatResponse | CompletionResponse) -> Usage:
    """Return what an LLM says that an answer took.

    Parameters
    ----------
    response
        A response, or a chunk of one.

    Returns
    -------
    Usage
        No LLM reads nothing, so a count of 0 read is taken as not said.
    """
    read: int | None = None
    written: int | None = None
    cache = NO_CACHE
    for place in _places(response):
        found = _count(place, _READ) or None
        if read is None and found is not None:
            cache, apart = _cache_of(place)
            read = found + apart
        if written is None:
            written = _count(place, _WRITTEN)
    if read is None and not written:
        written = None
    return Usage(read, written, cache, _is_cut_short(response))


def answer_tokens(response: ChatResponse | CompletionResponse | None) -> int:
    """Return about how many tokens an answer has, for LLMs that do not say.

    Parameters
    ----------
    response
        The whole answer, or the last chunk of a stream, which holds all text
        so far; ``None``: nothing was answered.

    Returns
    -------
    int
        The estimate, arguments of tool calls included.
    """
    if response is None:
        return 0
    if isinstance(response, CompletionResponse):
        return text_tokens(response.text)
    calls = [
        f"{block.tool_name} {block.tool_kwargs}"
        for block in response.message.blocks
        if isinstance(block, ToolCallBlock)
    ]
    return sum(map(text_tokens, (response.message.content or "", *calls)))


def _places(response: ChatResponse | CompletionResponse) -> Iterator[object]:
    beside = response.additional_kwargs
    # The last event of a stream of OpenAI's Responses holds the whole response.
    for holder in (response.raw, _member(response.raw, "response"), beside):
        for name in _PLACES:
            found = _member(holder, name)
            if found is not None:
                yield found
    yield response.raw
    yield beside
    if isinstance(response, ChatResponse):  # Anthropic's chunks
        yield response.message.additional_kwargs.get("usage")


def _cache_of(place: object) -> tuple[CacheUse, int]:
    """Return the use of the cache, and the tokens of it that were counted apart."""
    read, written = _count(place, (_APART_READ,)), _count(place, (_APART_WRITTEN,))
    if read is not None or written is not None:
        return CacheUse(read or 0, written or 0), (read or 0) + (written or 0)
    for name in ("", *_DETAILS):
        told = _count(_member(place, name) if name else place, _CACHED)
        if told is not None:
            return CacheUse(told), 0
    return NO_CACHE, 0


def _is_cut_short(response: ChatResponse | CompletionResponse) -> bool:
    raw = response.raw
    choices = _member(raw, "choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    told = [raw, first, _member(raw, "delta"), _member(raw, "response")]
    for place in told:
        if place is not None:
            names = (*REASONS, "incomplete_details")
            if is_cut_short({name: _member(place, name) for name in names}):
                return True
    return False


def _member(thing: object, name: str) -> object:
    if isinstance(thing, Mapping):
        return thing.get(name)
    return getattr(thing, name, None)


def _count(place: object, names: Sequence[str]) -> int | None:
    for name in names:
        found = told_tokens(_member(place, name))
        if found is not None:
            return found
    return None
