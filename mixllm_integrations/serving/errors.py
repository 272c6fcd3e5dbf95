"""Whose fault a failed call is: the candidate's, or the caller's own.

A candidate's fault lets another candidate answer; the caller's own would only
be repeated by every other one. Errors are told apart by their HTTP status and
type name, so no provider's package is imported.
"""

from collections.abc import Mapping, Sequence

__all__ = ["all_failed", "is_callers_mistake", "status_of"]

# Of the statuses 400-499 these speak of an account, a model or its load, so
# another candidate may well answer (402 and 413 are our additions: an empty
# account, a prompt too large for this one).
_CANDIDATES_STATUSES = frozenset({401, 402, 403, 404, 408, 409, 413, 429})
_CALLERS_TYPES = frozenset({"ValidationError", "ConfigurationError"})
# A 400 that only says that this candidate reads less than the prompt.
_TOO_LONG_TYPES = frozenset({"ContextOverflowError"})


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error carries.

    Parameters
    ----------
    error
        Any exception; the places where OpenAI, Anthropic, Google, httpx,
        requests and botocore put the status are looked at.

    Returns
    -------
    int or None
        ``None`` if it carries none.
    """
    response = getattr(error, "response", None)
    places: list[object] = [
        getattr(error, "status_code", None),
        getattr(error, "http_status", None),
        getattr(response, "status_code", None),
        getattr(error, "code", None),
    ]
    if isinstance(response, Mapping):
        meta = response.get("ResponseMetadata")
        if isinstance(meta, Mapping):
            places.append(meta.get("HTTPStatusCode"))
    for found in places:
        if isinstance(found, int) and not isinstance(found, bool) and found >= 100:
            return int(found)
    return None


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
        request itself.

    Examples
    --------
    >>> is_callers_mistake(TimeoutError())
    False
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & _TOO_LONG_TYPES:
        return False
    status = status_of(error)
    if status is not None:
        return 400 <= status < 500 and status not in _CANDIDATES_STATUSES
    return bool(names & _CALLERS_TYPES)


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
        quote the prompt).
    """
    if len(failures) == 1:
        return failures[0][1]
    told = "; ".join(f"{name!r}: {type(error).__name__}" for name, error in failures)
    return ExceptionGroup(
        f"every candidate that was tried failed: {told}",
        [error for _, error in failures],
    )
