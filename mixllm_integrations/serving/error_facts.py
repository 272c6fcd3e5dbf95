"""What an exception carries: its status, its codes, and what it was raised from."""

from collections.abc import Iterator, Mapping
from traceback import walk_tb
from types import FrameType

from mixllm_integrations.serving.told import told_tokens

__all__ = [
    "error_chain",
    "is_from_callback",
    "status_of",
    "type_names",
    "usage_of_error",
    "words_of",
]

_CHAIN_LENGTH = 4
# An error in the middle of a stream carries the 200 with which it began, and
# other numbers are called codes too.
_ERROR_STATUSES = range(400, 600)

# Where frameworks call the callback handlers that they were given. As strings,
# since no framework is imported here; a function that was renamed is not found,
# and its handlers' errors count as the candidate's again. What LlamaIndex's
# instrumentation calls is not here: it swallows every error.
_CALLS_HANDLERS: Mapping[str, frozenset[str]] = {
    "langchain_core.callbacks.manager": frozenset({"handle_event", "ahandle_event"}),
    "llama_index.core.callbacks.base": frozenset(
        {"on_event_start", "on_event_end", "start_trace", "end_trace"}
    ),
}


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and those that it was raised from.

    Parameters
    ----------
    error
        Any exception; packages wrap a provider's error in one of their own.

    Yields
    ------
    BaseException
        The error itself first; four at most.
    """
    found: BaseException | None = error
    for _ in range(_CHAIN_LENGTH):
        if found is None:
            return
        yield found
        found = found.__cause__


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error carries.

    Parameters
    ----------
    error
        Any exception; the places where OpenAI, Anthropic, Google, httpx,
        requests, aiohttp and botocore put the status are looked at, also in
        the errors that it was raised from.

    Returns
    -------
    int or None
        ``None`` if it carries none.
    """
    for link in error_chain(error):
        for found in _statuses(link):
            if isinstance(found, int) and found in _ERROR_STATUSES:
                return int(found)
    return None


def _statuses(error: BaseException) -> Iterator[object]:
    response = getattr(error, "response", None)
    yield getattr(error, "status_code", None)
    yield getattr(error, "http_status", None)
    yield getattr(response, "status_code", None)
    yield getattr(error, "code", None)
    yield getattr(error, "status", None)
    if isinstance(response, Mapping):
        meta = response.get("ResponseMetadata")
        if isinstance(meta, Mapping):
            yield meta.get("HTTPStatusCode")


def type_names(error: BaseException) -> set[str]:
    """Return the names of an error's class and of those that it derives from."""
    return {kind.__name__ for kind in type(error).__mro__}


def words_of(error: BaseException) -> set[str]:
    """Return the names and codes by which an error says what it is."""
    codes = {code for code in _codes(error) if isinstance(code, str)}
    return type_names(error) | codes


def _codes(error: BaseException) -> Iterator[object]:
    yield getattr(error, "code", None)
    yield getattr(error, "type", None)
    for place in (getattr(error, "body", None), getattr(error, "response", None)):
        inner = place
        if isinstance(place, Mapping):
            inner = place.get("error", place.get("Error", place))
        if isinstance(inner, Mapping):
            yield from (inner.get("code"), inner.get("type"), inner.get("Code"))


def usage_of_error(error: BaseException) -> tuple[int, int] | None:
    """Return what an answer cost that an error carries, in tokens.

    Parameters
    ----------
    error
        Any exception; OpenAI's client puts the answer that it could not parse
        on the error, which may have been wrapped.

    Returns
    -------
    tuple of int or None
        Tokens of the prompt and of the answer; ``None`` if it does not say,
        as in a stream.
    """
    for link in error_chain(error):
        usage = getattr(getattr(link, "completion", None), "usage", None)
        counts = [
            getattr(usage, name, None)
            for name in ("prompt_tokens", "completion_tokens")
        ]
        asked, answered = map(told_tokens, counts)
        if asked is not None and answered is not None:
            return asked, answered
    return None


def is_from_callback(error: BaseException) -> bool:
    """Tell whether a caller's own callback handler raised, not the model.

    Parameters
    ----------
    error
        What a call raised; it must have been caught, never built by hand.

    Returns
    -------
    bool
        True if it, or what it was raised from, came out of a function by which
        a framework calls handlers.
    """
    return any(
        frame.f_code.co_name in _CALLS_HANDLERS.get(_module_of(frame), ())
        for link in error_chain(error)
        for frame, _ in walk_tb(link.__traceback__)
    )


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))
