"""How long a provider asks to be left alone, as its error says it."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime

from mixllm_integrations.serving.error_facts import error_chain

__all__ = ["retry_after_seconds"]

# OpenAI and who copies it: "1s", "6m0s", "20ms"; Google: "34.07s".
_DURATION = re.compile(
    r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?"
)
_SECONDS_PER_UNIT = (3600.0, 60.0, 1.0, 0.001)
# What is left of an allowance, and when it is whole again.
_ALLOWANCES = tuple(
    (name.format("remaining"), name.format("reset"))
    for name in (
        "x-ratelimit-{}-requests",
        "x-ratelimit-{}-tokens",
        "anthropic-ratelimit-requests-{}",
        "anthropic-ratelimit-tokens-{}",
        "anthropic-ratelimit-input-tokens-{}",
        "anthropic-ratelimit-output-tokens-{}",
    )
)
_GOOGLE_RETRY = "google.rpc.RetryInfo"


def retry_after_seconds(error: BaseException) -> float | None:
    """Return how long a provider asks to be left alone.

    Parameters
    ----------
    error
        Any exception; the places where OpenAI, Anthropic, httpx, requests and
        botocore put the headers are looked at, and Google's details, also in
        the errors that it was raised from.

    Returns
    -------
    float or None
        Seconds from now, not negative; ``None`` if it does not say, or not in
        a form that can be read. The headers ``retry-after-ms`` and
        ``retry-after`` (seconds or a date) go before the times at which
        allowances that are used up are whole again.

    Examples
    --------
    >>> class Busy(Exception):
    ...     headers = {"Retry-After": "2"}
    >>> retry_after_seconds(Busy())
    2.0
    """
    for link in error_chain(error):
        for headers in _headers(link):
            said = _from_headers({str(k).lower(): v for k, v in headers.items()})
            if said is not None:
                return said
        said = _from_google(getattr(link, "details", None))
        if said is not None:
            return said
    return None


def _headers(error: BaseException) -> Iterator[Mapping[object, object] | Message]:
    response = getattr(error, "response", None)
    found = [getattr(response, "headers", None), getattr(error, "headers", None)]
    if isinstance(response, Mapping):  # botocore
        meta = response.get("ResponseMetadata")
        if isinstance(meta, Mapping):
            found.append(meta.get("HTTPHeaders"))
    yield from (given for given in found if isinstance(given, Mapping | Message))


def _from_headers(headers: Mapping[str, object]) -> float | None:
    now = _date(headers.get("date")) or datetime.now(UTC)
    for name, read in _READERS:
        said = _sound(read(headers.get(name), now))
        if said is not None:
            return said
    resets = [
        _sound(_moment(headers.get(reset), now))
        for left, reset in _ALLOWANCES
        if _number(headers.get(left)) == 0
    ]
    return max((said for said in resets if said is not None), default=None)


def _sound(seconds: float | None) -> float | None:
    """Return what can be waited for; a negative number means nothing."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return None
    return seconds


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None


def _date(value: object) -> datetime | None:
    """Return the moment that an HTTP or RFC 3339 date names."""
    if not isinstance(value, str):
        return None
    for read in _DATES:
        try:
            found = read(value)
        except (ValueError, OverflowError):
            continue
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found
    return None


_DATES: tuple[Callable[[str], datetime], ...] = (
    datetime.fromisoformat,
    parsedate_to_datetime,
)


def _milliseconds(value: object, _now: datetime) -> float | None:
    number = _number(value)
    return None if number is None else number / 1_000.0


def _moment(value: object, now: datetime) -> float | None:
    """Return the seconds that a number, a duration or a date stands for."""
    number = _number(value)
    if number is not None:
        return number
    duration = _duration(value)
    if duration is not None:
        return duration
    date = _date(value)
    # A moment that has passed is no mistake: come back at once.
    return None if date is None else max((date - now).total_seconds(), 0.0)


def _duration(value: object) -> float | None:
    matched = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if matched is None:
        return None
    parts = zip(matched.groups(default="0"), _SECONDS_PER_UNIT, strict=True)
    return sum(float(part) * seconds for part, seconds in parts)


_READERS: tuple[tuple[str, Callable[[object, datetime], float | None]], ...] = (
    ("retry-after-ms", _milliseconds),
    ("retry-after", _moment),
)


def _from_google(details: object) -> float | None:
    """Return the delay of a ``RetryInfo`` among the details of an error."""
    if isinstance(details, Mapping):
        inner = details.get("error", details)
        details = inner.get("details") if isinstance(inner, Mapping) else None
    if not isinstance(details, list | tuple):
        return None
    for detail in details:
        if isinstance(detail, Mapping) and _GOOGLE_RETRY in str(detail.get("@type")):
            return _sound(_duration(detail.get("retryDelay")))
    return None
