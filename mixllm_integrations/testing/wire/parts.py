"""What passes between a served model and the protocols that it speaks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.errors import ConfigurationError

__all__ = [
    "Answer",
    "Ask",
    "Body",
    "Fault",
    "Refusal",
    "Reply",
    "ToolCall",
    "Usage",
    "text_of",
    "words_of",
]

#: A JSON object, as it came over the wire.
Body: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a served model reports; each protocol writes them in its way.

    Parameters
    ----------
    input_tokens
        All of the prompt, those read from a cache included.
    output_tokens
        All of the answer, those of its reasoning included.
    cached_tokens
        How many of the prompt were read from a cache.
    reasoning_tokens
        How many of the answer were reasoning.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that a served model calls.

    Parameters
    ----------
    name
        Which one.
    arguments
        With what.
    id
        Of the call; ``None``: one in the style of the protocol. An id in the
        style of another provider is sent as it is.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole answer, sent as it is, whatever the request asks for.

    Parameters
    ----------
    text
        What it says; may be empty.
    tool_calls
        Tools that it calls.
    reasoning
        What it thinks before: a thinking block of Anthropic's if the request
        enabled thinking, a reasoning item of OpenAI's Responses; Chat
        Completions only count it.
    """

    text: str = ""
    tool_calls: Sequence[ToolCall] = ()
    reasoning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to misbehave; what is not set is as it should be.

    Parameters
    ----------
    status
        HTTP status of an error in the provider's own shape.
    headers
        Sent with it, such as ``{"Retry-After": "2"}``.
    message, code
        What the error says; ``None``: what the provider says at that status.
    hang_seconds
        How long nothing happens before the answer, or where a stream breaks
        off; ``math.inf``: until the server is closed, and then nothing either.
    seconds_per_event
        How long it waits before each event of a stream.
    after_events
        After how many events a stream breaks off: with `status` it tells so in
        an event of its own, else the connection is just cut. An answer that
        comes as a whole is cut in its middle.
    body
        What is sent instead of the answer: ``b""`` for an empty one,
        ``b'{"id'`` for JSON that is none.
    content_type
        What the answer is said to be, such as ``"text/html"``.
    raw
        Bytes that are sent instead of all that HTTP consists of, before the
        connection is dropped: ``b""`` for a connection that is just dropped.
    redirects
        Whether the client is sent on to an address that sends it on to itself.

    Raises
    ------
    ConfigurationError
        If the status is that of no error, or a number is negative.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str | None = None
    code: str | None = None
    hang_seconds: float = 0.0
    seconds_per_event: float = 0.0
    after_events: int | None = None
    body: bytes | None = None
    content_type: str | None = None
    raw: bytes | None = None
    redirects: bool = False

    def __post_init__(self) -> None:
        if self.status is not None and not 400 <= self.status <= 599:
            raise ConfigurationError(
                f"status must be that of an error, 400 to 599, not {self.status!r}; an "
                "answer without one needs no fault"
            )
        number_between(self.hang_seconds, "hang_seconds")
        number_between(self.seconds_per_event, "seconds_per_event")
        if self.after_events is not None:
            number_between(self.after_events, "after_events")


class Refusal(Exception):  # noqa: N818 - it is an answer, sent with a status
    """What a request is refused with, in the provider's own shape.

    Parameters
    ----------
    message
        In the provider's words.
    status
        Of HTTP.
    param, code
        Where the mistake is, and what it is called; only OpenAI tells.
    headers
        Of the response.
    """

    def __init__(
        self,
        message: str | None,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code
        self.headers = headers or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request as every protocol understands it.

    Parameters
    ----------
    prompt
        Text of the last message.
    words
        How many words there are in all messages.
    after_tool
        Whether the last message is a tool's result.
    tools
        From name to the JSON schema of its arguments.
    choice
        Whether a tool may, may not or must be called, or that of this `tool`.
    tool
        Which one must be called.
    wants_json
        Whether the answer must be JSON.
    schema
        Which JSON; ``None``: any object.
    stop, max_tokens
        Where the answer ends.
    """

    prompt: str
    words: int
    after_tool: bool = False
    tools: Mapping[str, Body] = field(default_factory=dict)
    choice: Literal["auto", "none", "any", "tool"] = "auto"
    tool: str | None = None
    wants_json: bool = False
    schema: Body | None = None
    stop: Sequence[str] = ()
    max_tokens: int | None = None

    @property
    def forced(self) -> bool:
        """Whether a tool must be called."""
        return bool(self.tools) and self.choice in ("any", "tool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer before a protocol writes it.

    Parameters
    ----------
    number
        For its id; no other answer of the server has it.
    model
        What the answer says who gave it.
    text, calls, reasoning
        What it consists of.
    ended
        Why it ends.
    stop_word
        At which one, if at one.
    usage
        What it took.
    body
        The request.
    """

    number: int
    model: str
    text: str
    calls: Sequence[ToolCall]
    reasoning: str
    ended: Literal["done", "length", "stop_word", "tools"]
    stop_word: str | None
    usage: Usage
    body: Body

    def call_id(self, index: int, prefix: str) -> str:
        """Return the id of a call.

        Parameters
        ----------
        index
            Which one.
        prefix
            How the protocol's own ids begin.

        Returns
        -------
        str
            The scripted one, else one of at most 40 characters.
        """
        own = self.calls[index].id
        return f"{prefix}{self.number:020d}{index:02d}" if own is None else own

    def pieces(self) -> list[str]:
        """Return the text cut after its words, as a stream sends it."""
        return words_of(self.text)


#: What a script consists of: a text is replaced by a call or by JSON where the
#: request asks for that, a `Reply` never is.
Said: TypeAlias = str | Reply
Script: TypeAlias = Sequence[Said] | Callable[[Body], Said]


def words_of(text: str) -> list[str]:
    """Return a text cut before its spaces.

    Parameters
    ----------
    text
        Any text.

    Returns
    -------
    list of str
        Joined they are the text.

    Examples
    --------
    >>> words_of("Hello to you")
    ['Hello', ' to', ' you']
    """
    first, *rest = text.split(" ")
    return [piece for piece in (first, *(f" {word}" for word in rest)) if piece]


def text_of(content: object) -> str:
    """Return the text of a message.

    Parameters
    ----------
    content
        A text, or parts or blocks of which some have one.

    Returns
    -------
    str
        All texts, one after the other; those of a tool's results included.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [
        part.get("text") or text_of(part.get("content"))
        for part in content
        if isinstance(part, dict)
    ]
    return " ".join(text for text in texts if isinstance(text, str) and text)
