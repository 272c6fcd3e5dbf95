"""What is done with an answer, as a whole or in chunks, until its outcome is known."""

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from llama_index.core.base.llms.types import (
    ChatResponse,
    CompletionResponse,
    ThinkingBlock,
    ToolCallBlock,
)

from mixllm_integrations.llama_index.listening import Heard
from mixllm_integrations.llama_index.messages import stamped
from mixllm_integrations.llama_index.request import (
    Request,
    chat_told,
    completion_told,
    nothing_told,
    text_told,
)
from mixllm_integrations.llama_index.usage import Usage, answer_tokens, usage_of
from mixllm_integrations.serving import RoutedCall, text_tokens
from mixllm_integrations.serving.ends import signals_of
from mixllm_integrations.serving.errors import answered_badly

__all__ = ["CHAT", "COMPLETION", "OBJECT", "TEXT", "Kind", "Reading", "says_something"]

T = TypeVar("T")
Response = TypeVar("Response", ChatResponse, CompletionResponse)


class Reading(Protocol[T]):
    """Follows one answer to its end."""

    def take(self, item: T) -> T:
        """Return a response, chunk or object as the caller gets it."""

    def finish(self) -> None:
        """Report the outcome: the answer is complete."""


class Kind(NamedTuple, Generic[T]):
    """What kind of answer a method returns.

    Parameters
    ----------
    told
        Makes what stands for the answer of a call that only decides.
    reading
        Makes a `Reading` of an answer that has begun.
    is_parsed
        Whether it is parsed from what the LLM said, and the LLM has to be heard.
    """

    told: Callable[[RoutedCall], T]
    reading: Callable[[Request, RoutedCall, Heard], Reading[T]]
    is_parsed: bool = False

    def settle(
        self, request: Request, call: RoutedCall, heard: Heard, error: Exception
    ) -> None:
        """Raise an error that is no failure of the candidate: it has answered.

        Parameters
        ----------
        request, call
            Of which call.
        heard
            What the LLM has said.
        error
            What was raised.

        Raises
        ------
        Exception
            The error, if what was said could not be parsed; it is paid for, and
            noted, and nobody else is asked.
        """
        if self.is_parsed and (heard or answered_badly(error)):
            request.keep(_parsed(call, heard, "", fits=False))
            raise error


class _Stamping(Generic[Response]):
    """Puts the routing record on responses, and counts what they took."""

    def __init__(self, request: Request, call: RoutedCall, heard: Heard) -> None:  # noqa: ARG002
        self._call = call
        self._record = call.record()
        self._last: Response | None = None
        self._usage = Usage()
        request.keep(self._record)

    def take(self, item: Response) -> Response:
        self._last = item
        self._usage = self._usage.then(usage_of(item))
        return stamped(item, self._record)

    def finish(self) -> None:
        usage = self._usage
        written = answer_tokens(self._last) if usage.written is None else usage.written
        self._record.update(_succeed(self._call, usage, written))


class _Parsed:
    """Counts what objects took, by what the LLM was heard to say."""

    def __init__(self, request: Request, call: RoutedCall, heard: Heard) -> None:
        self._call = call
        self._record = call.record()
        self._heard = heard
        self._last: Any = None
        request.keep(self._record)

    def take(self, item: Any) -> Any:  # noqa: ANN401 - an object of any schema
        self._last = item
        return item

    def finish(self) -> None:
        last = self._last
        dump = getattr(last, "model_dump_json", None)
        text = str(last) if dump is None else dump()
        fits = last is not None
        self._record.update(_parsed(self._call, self._heard, text, fits=fits))


class _Text(_Parsed):
    """Counts what a text took that came in pieces."""

    def take(self, item: str) -> str:
        self._last = (self._last or "") + item
        return item

    def finish(self) -> None:
        self._last = self._last or ""  # no text is one too, not what cannot be parsed
        super().finish()


CHAT: Kind[ChatResponse] = Kind(chat_told, _Stamping)
COMPLETION: Kind[CompletionResponse] = Kind(completion_told, _Stamping)
OBJECT: Kind[Any] = Kind(nothing_told, _Parsed, is_parsed=True)
TEXT: Kind[str] = Kind(text_told, _Text, is_parsed=True)


def says_something(item: object) -> bool:
    """Tell whether a piece of a stream is a part of the answer.

    Parameters
    ----------
    item
        A chunk, a piece of text, or an object.

    Returns
    -------
    bool
        False for chunks that only open a stream, as most providers send them: the
        candidate has not begun to answer then.
    """
    if isinstance(item, str):
        return bool(item)
    if isinstance(item, CompletionResponse):
        return bool(item.delta or item.text)
    if not isinstance(item, ChatResponse):
        return True
    return bool(item.delta or item.message.content) or any(
        isinstance(block, ThinkingBlock | ToolCallBlock)
        for block in item.message.blocks
    )


def _parsed(call: RoutedCall, heard: Heard, text: str, *, fits: bool) -> dict[str, Any]:
    """Report an answer that was parsed, or could not be."""
    usages = [usage_of(response) for response in heard]
    read = [usage.read for usage in usages if usage.read is not None]
    written = sum(
        answer_tokens(response) if usage.written is None else usage.written
        for response, usage in zip(heard, usages, strict=True)
    )
    usage = Usage(
        sum(read) if read else None,
        cache=usages[-1].cache if usages else Usage().cache,
        is_cut_short=any(usage.is_cut_short for usage in usages),
    )
    said = written if heard else text_tokens(text)
    return _succeed(call, usage, said, fits=fits)


def _succeed(
    call: RoutedCall, usage: Usage, written: int, *, fits: bool = True
) -> dict[str, Any]:
    return call.succeed(
        input_tokens=call.decision.input_tokens if usage.read is None else usage.read,
        output_tokens=written,
        cache=usage.cache,
        signals=signals_of(is_cut_short=usage.is_cut_short, fits=fits),
    )
