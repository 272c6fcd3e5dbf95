"""Whose fault a failed call is: the candidate's, or the caller's own.

A candidate's fault lets another candidate answer; the caller's own would only
be repeated by every other one, and what a caller's callback raises is meant to end
the call. Errors are told apart by their HTTP status, the provider's error code and
the name of their type, so no provider's package is imported.
"""

import re
from collections.abc import Sequence

from mixllm_integrations.serving.error_facts import (
    error_chain,
    is_from_callback,
    status_of,
    type_names,
    usage_of_error,
    words_of,
)
from mixllm_integrations.serving.retry_after import retry_after_seconds

__all__ = [
    "all_failed",
    "answered_badly",
    "is_callers_mistake",
    "is_context_overflow",
    "is_from_callback",
    "is_lasting",
    "is_rate_limit",
    "is_unable",
    "note_candidate",
    "retry_after_seconds",
    "status_of",
    "usage_of_error",
]

# Of the statuses 400-499 these speak of an account, a model or its load, so
# another candidate may well answer (ours are 402, an empty account; 410, a model
# that was withdrawn; 413, a prompt too large for this one; 424, a model that
# broke; 425, too early; 499, cancelled).
_TOO_LARGE = 413
_TOO_MANY = 429
_CANDIDATES_STATUSES = frozenset(
    {401, 402, 403, 404, 408, 409, 410, _TOO_LARGE, 424, 425, _TOO_MANY, 499}
)
_CALLERS_TYPES = frozenset({"ValidationError", "ConfigurationError"})
_REFUSED_TYPES = frozenset({"ModelInvalidRequestError"})
# An answer has come, and is billed, but it was cut off before it could be parsed.
_ANSWERED_TYPES = frozenset(
    {"LengthFinishReasonError", "ContentFilterFinishReasonError"}
)

# Statuses that leave open why; ``None``: errors in the middle of a stream.
_REFUSALS = frozenset({None, 400, 422})

# What else says "too many requests" where there is no status, as in a stream.
_RATE_LIMIT_WORDS = frozenset(
    {
        "RateLimitError",
        "ModelRateLimitError",
        "ResourceExhausted",
        "ServiceQuotaExceededException",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
        "rate_limit_error",
        "rate_limit_exceeded",
    }
)

# Statuses and codes that a wait of seconds does not change: keys, accounts and
# models that are not there.
_LASTING_STATUSES = frozenset({401, 402, 403, 404, 405, 410, 501})
_LASTING_WORDS = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_error"}
)
_LASTING_TYPES = (ImportError, NameError, NotImplementedError)

# A prompt that is too long for this candidate: types, codes and sentences.
_OVERFLOW_WORDS = frozenset(
    {
        "ContextOverflowError",
        "ContextWindowExceededError",
        "context_length_exceeded",
        "exceed_context_size_error",
        "string_above_max_length",
    }
)
_OVERFLOW_TEXT = re.compile(
    r"context_length_exceeded|contextwindowexceeded"
    # OpenAI and who copies it (vLLM, Mistral, DeepSeek, OpenRouter), xAI
    r"|max(imum)? (context|prompt|model) (length|window)"
    r"|context (length|window) exceeded"
    # OpenAI, Anthropic, llama.cpp, Ollama
    r"|exceeds? (the )?(available |maximum |configured )?(context|limit of \d+ tokens)"
    # Anthropic, Bedrock, Ollama
    r"|(prompt|input) (is )?too long"
    # Google
    r"|input token count.{0,40}(exceeds|only supports)"
    # Cohere, Bedrock (which says the same of tokens per minute)
    r"|too many (input )?tokens(?!,? (please|per))"
    # Groq
    r"|reduce the length of (the|your) (messages|prompt|input)"
    # text-generation-inference, Together
    r"|`inputs`.{0,40}must (have less than|be <=)",
    re.IGNORECASE,
)

# A request that this model does not take, though another one may.
_UNABLE_WORDS = frozenset({"unsupported_parameter", "unsupported_value"})
_UNABLE_TEXT = re.compile(
    r"(does not|doesn't|do not|don't) support"
    r"|(not|only) supported (by|with|for|in|on)\b.{0,40}\bmodels?\b"
    r"|not enabled for models/|is not a multimodal model"
    # Anthropic, of a loop of tool calls that began without thinking
    r"|must start with a thinking block|expected .?thinking.? or .?redacted_thinking",
    re.IGNORECASE,
)
# An account or key that is at fault, which two providers tell by status 400.
_ACCOUNT_TEXT = re.compile(
    r"credit balance is too low|api key (not valid|expired|not found)"
    r"|user location is not supported",
    re.IGNORECASE,
)

# Providers say what is wrong first, and may quote the request after it.
_READ_CHARACTERS = 1_000


def answered_badly(error: BaseException) -> bool:
    """Tell whether the candidate has answered, only not with what was asked for.

    It is well and is paid (see `usage_of_error`): it need not cool down, and
    another candidate would most likely be cut off in the same way.

    Parameters
    ----------
    error
        What the call raised.

    Returns
    -------
    bool
        True if an answer that had to fit a schema was ended by the limit of
        tokens or by a content filter.

    Examples
    --------
    >>> answered_badly(TimeoutError())
    False
    """
    return any(
        not _ANSWERED_TYPES.isdisjoint(type_names(link)) for link in error_chain(error)
    )


def is_callers_mistake(error: BaseException) -> bool:
    """Tell whether every candidate would fail in the same way.

    Parameters
    ----------
    error
        What the call raised.

    Returns
    -------
    bool
        True for validation errors and for statuses 400–499 that speak of the
        request itself, unless they say that this candidate alone cannot take
        it (see `is_unable`), or that its account is at fault. False for what
        `answered_badly`.

    Examples
    --------
    >>> is_callers_mistake(TimeoutError())
    False
    """
    if answered_badly(error):
        return False
    status = status_of(error)
    names = type_names(error)
    if status is None and not names & _REFUSED_TYPES:
        return bool(names & _CALLERS_TYPES)
    if status is not None and (
        not 400 <= status < 500 or status in _CANDIDATES_STATUSES
    ):
        return False
    return not (is_unable(error) or _says(error, frozenset(), _ACCOUNT_TEXT))


def is_unable(error: BaseException) -> bool:
    """Tell whether a candidate cannot take this one request, but is well.

    Another candidate may take it, and this one need not cool down.

    Parameters
    ----------
    error
        What the call raised.

    Returns
    -------
    bool
        True if the prompt is too long or too large for it, or if it says that
        it does not support what was asked of it; also for an argument that its
        client does not know.
    """
    status = status_of(error)
    if isinstance(error, TypeError):
        return "unexpected keyword argument" in str(error)
    if answered_badly(error):
        return False
    if status is None and type_names(error) & _CALLERS_TYPES:
        return False  # its message may quote anything
    if status == _TOO_LARGE or is_context_overflow(error):
        return True
    return status in _REFUSALS and _says(error, _UNABLE_WORDS, _UNABLE_TEXT)


def is_context_overflow(error: BaseException) -> bool:
    """Tell whether a prompt is longer than what a candidate reads.

    Parameters
    ----------
    error
        What the call raised.

    Returns
    -------
    bool
        True if its type, its code or the beginning of its message says so and
        its status does not say otherwise; a candidate with a larger window may
        answer.

    Examples
    --------
    >>> is_context_overflow(ValueError("prompt is too long: 210000 tokens"))
    True
    """
    if answered_badly(error):
        return False
    status = status_of(error)
    if status in _REFUSALS or status == _TOO_LARGE or (status or 0) >= 500:
        return _says(error, _OVERFLOW_WORDS, _OVERFLOW_TEXT)
    return False


def is_rate_limit(error: BaseException) -> bool:
    """Tell whether a candidate was asked too often.

    Parameters
    ----------
    error
        What the call raised.

    Returns
    -------
    bool
        True for status 429 and for what says the same without a status.
    """
    status = status_of(error)
    if status == _TOO_MANY:
        return True
    return status in _REFUSALS and any(
        not _RATE_LIMIT_WORDS.isdisjoint(words_of(link)) for link in error_chain(error)
    )


def is_lasting(error: BaseException) -> bool:
    """Tell whether a candidate would fail in the same way some seconds later.

    Parameters
    ----------
    error
        What the call raised.

    Returns
    -------
    bool
        True for the caller's own mistakes, for what the candidate cannot take,
        and for a key, an account or a model that is not there. False for all
        else: rate limits, overload, lost connections, answers that nobody can
        read.

    Examples
    --------
    >>> is_lasting(TimeoutError()), is_lasting(NotImplementedError())
    (False, True)
    """
    return (
        isinstance(error, _LASTING_TYPES)
        or status_of(error) in _LASTING_STATUSES
        or is_callers_mistake(error)
        or is_unable(error)
        or _says(error, _LASTING_WORDS, _ACCOUNT_TEXT)
    )


def _says(error: BaseException, words: frozenset[str], text: re.Pattern[str]) -> bool:
    """Tell whether an error, or what it was raised from, says something."""
    return any(
        not words.isdisjoint(words_of(link))
        or text.search(str(link)[:_READ_CHARACTERS]) is not None
        for link in error_chain(error)
    )


def note_candidate(error: BaseException, name: str) -> None:
    """Note on an error which candidate raised it; a traceback shows it.

    Parameters
    ----------
    error
        What it raised; noting it twice is harmless.
    name
        The candidate.
    """
    note = f"candidate {name!r}"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def all_failed(failures: Sequence[tuple[str, Exception]]) -> Exception:
    """Return what to raise when no candidate is left.

    Parameters
    ----------
    failures
        ``(candidate, error)`` in the order of the attempts; at least one.

    Returns
    -------
    Exception
        The error itself if there was one attempt, else an `ExceptionGroup`
        whose message names each candidate (never what an error said: it may
        quote the prompt). Each error has a note with its candidate's name.
    """
    for name, error in failures:
        note_candidate(error, name)
    if len(failures) == 1:
        return failures[0][1]
    told = "; ".join(f"{name!r}: {type(error).__name__}" for name, error in failures)
    return ExceptionGroup(
        f"every candidate that was tried failed: {told}",
        [error for _, error in failures],
    )
