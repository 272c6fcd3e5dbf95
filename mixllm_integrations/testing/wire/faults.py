"""Kinds of faults, and rules by which a served model misbehaves.

A rule is what `ServedModel.misbehave` takes: a function of the number of the
request to this model, from 0. The same seed gives the same faults at the same
requests, whoever sends them.
"""

import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.testing.wire.parts import Fault

__all__ = ["FAULTS", "FaultRule", "at_random", "either", "while_between"]

FaultRule: TypeAlias = Callable[[int], Fault | None]

_DRAWS = 2.0**32

#: The usual ones by name; a hang is as long as the client's patience is short.
FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "rate_limit": Fault(status=429),
        "rate_limit_with_time": Fault(status=429, headers={"Retry-After": "1"}),
        "broken": Fault(status=500),
        "overloaded": Fault(status=503),
        "hang": Fault(hang_seconds=2.0),
        "slow": Fault(seconds_per_event=0.01),
        "cut": Fault(after_events=2),
        "malformed": Fault(body=b'{"id": "x", "choices": [{"ind'),
        "no_body": Fault(body=b""),
        "web_page": Fault(body=b"<html>Bad gateway</html>", content_type="text/html"),
        "dropped": Fault(raw=b""),
        "no_http": Fault(raw=b"\x15\x03\x01\x00\x02\x02\x46 not HTTP\r\n\r\n"),
        "redirects": Fault(redirects=True),
    }
)


def at_random(
    share: float, *, seed: int = 0, kinds: Mapping[str, Fault] = FAULTS
) -> FaultRule:
    """Return a rule by which a share of the requests goes wrong.

    Parameters
    ----------
    share
        How many, in [0, 1].
    seed
        Which ones, and how: the same seed, the same faults.
    kinds
        What may go wrong, each as often as the others.

    Returns
    -------
    callable
        For `ServedModel.misbehave`.

    Raises
    ------
    ConfigurationError
        If the share is none, or there is nothing that may go wrong.

    Examples
    --------
    >>> rule = at_random(0.3, seed=7)
    >>> sum(rule(number) is not None for number in range(10_000))
    2928
    """
    number_between(share, "share", high=1.0)
    faults = tuple(kinds.values())
    if not faults:
        raise ConfigurationError("kinds must name a fault: pass FAULTS or some of them")

    def rule(number: int) -> Fault | None:
        drawn = hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=8).digest()
        if int.from_bytes(drawn[:4], "big") / _DRAWS >= share:
            return None
        return faults[int.from_bytes(drawn[4:], "big") % len(faults)]

    return rule


def while_between(first: int, end: int, fault: Fault) -> FaultRule:
    """Return a rule by which all requests of a time go wrong.

    Parameters
    ----------
    first, end
        Numbers of requests: the first one, and the one after the last.
    fault
        What goes wrong.

    Returns
    -------
    callable
        For `ServedModel.misbehave`.

    Examples
    --------
    >>> rule = while_between(2, 4, Fault(status=503))
    >>> [rule(number) is not None for number in range(6)]
    [False, False, True, True, False, False]
    """

    def rule(number: int) -> Fault | None:
        return fault if first <= number < end else None

    return rule


def either(*rules: FaultRule) -> FaultRule:
    """Return a rule that obeys the first of several that has something to say.

    Parameters
    ----------
    *rules
        In the order in which they are asked.

    Returns
    -------
    callable
        For `ServedModel.misbehave`.
    """

    def rule(number: int) -> Fault | None:
        return next((found for r in rules if (found := r(number)) is not None), None)

    return rule
