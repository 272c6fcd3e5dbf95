"""How fast candidates answer, and how many answers each gives at once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mixllm_integrations.benchmark.table import ASSUMED_OUTPUT_TOKENS, BenchmarkTable
from mixllm_integrations.core.types import Candidate, FloatArray

__all__ = [
    "ASSUMED_SPEEDS",
    "Speed",
    "answer_tokens",
    "service_seconds",
    "speed_of",
    "undeclared",
    "with_speeds",
]


class Speed(NamedTuple):
    """What a candidate takes for an answer, once it is its turn.

    Parameters
    ----------
    start_up_seconds
        Until the first token.
    tokens_per_second
        From then on.
    """

    start_up_seconds: float
    tokens_per_second: float


# Our assumption, of the order of what hosts of such models reached in 2024. No
# data set here has recorded latencies.
_SMALL, _MEDIUM, _LARGE = Speed(0.3, 110.0), Speed(0.4, 80.0), Speed(0.5, 55.0)
_MIXTURE, _HOSTED, _LIGHT = Speed(1.2, 17.0), Speed(0.7, 70.0), Speed(0.4, 150.0)

ASSUMED_SPEEDS: Mapping[str, Speed] = {
    **dict.fromkeys(("gpt-4o-2024-05-13", "gemini-1.5-pro-002"), _HOSTED),
    **dict.fromkeys(("gemini-3.1-pro", "jamba-1.5-large"), _HOSTED),
    "gemini-1.5-flash-002": _LIGHT,
    **dict.fromkeys(("deepseek-v2-chat", "deepseek-coder-v2"), _MIXTURE),
    **dict.fromkeys(("command-r-v01", "mixtral-8x7b-instruct"), _MEDIUM),
}
# Of all others, by USD per million output tokens.
_BY_PRICE: Sequence[tuple[float, Speed]] = ((0.3, _SMALL), (1.0, _LARGE))


def speed_of(candidate: Candidate) -> Speed:
    """Return the speed that is assumed of a candidate.

    Parameters
    ----------
    candidate
        By its name, or else by its price: up to 0.3 USD per million output
        tokens it counts as small, up to 1 as large, above as a large hosted one.

    Notes
    -----
    Our choice.

    Examples
    --------
    >>> speed_of(Candidate("llama-3.1-8b-instruct", 0.18, 0.18)).tokens_per_second
    110.0
    """
    if candidate.name in ASSUMED_SPEEDS:
        return ASSUMED_SPEEDS[candidate.name]
    price = candidate.output_cost_per_million_tokens
    return next((speed for most, speed in _BY_PRICE if price <= most), _HOSTED)


def with_speeds(table: BenchmarkTable, *, concurrency: int) -> BenchmarkTable:
    """Return a table whose candidates declare their speed and their servers.

    Parameters
    ----------
    table
        Any; a speed that is declared already stays.
    concurrency
        How many answers a candidate gives at once where it does not say.
    """
    return replace(
        table, candidates=tuple(_declared(c, concurrency) for c in table.candidates)
    )


def undeclared(candidate: Candidate) -> Candidate:
    """Return a candidate that says nothing of its speed or its servers.

    Parameters
    ----------
    candidate
        Any.
    """
    return replace(
        candidate,
        time_to_first_token_seconds=None,
        seconds_per_output_token=None,
        max_concurrency=None,
    )


def service_seconds(table: BenchmarkTable) -> tuple[FloatArray, FloatArray]:
    """Return the start-up and the whole time that each answer takes.

    Parameters
    ----------
    table
        Its candidates declare their speeds; an answer whose length was not
        recorded counts as `ASSUMED_OUTPUT_TOKENS`.

    Returns
    -------
    tuple of FloatArray
        Seconds, shapes ``(n_candidates,)`` and ``(n_queries, n_candidates)``.
    """
    start_up = np.array(
        [c.time_to_first_token_seconds or 0.0 for c in table.candidates]
    )
    per_token = np.array([c.seconds_per_output_token or 0.0 for c in table.candidates])
    return start_up, start_up + answer_tokens(table) * per_token


def answer_tokens(table: BenchmarkTable) -> FloatArray:
    """Return the length of each answer, also where none was recorded.

    Parameters
    ----------
    table
        Any.
    """
    known = np.isfinite(table.output_tokens)
    return np.where(known, table.output_tokens, ASSUMED_OUTPUT_TOKENS)


def _declared(candidate: Candidate, concurrency: int) -> Candidate:
    speed = speed_of(candidate)
    first, per_token = (
        candidate.time_to_first_token_seconds,
        candidate.seconds_per_output_token,
    )
    return replace(
        candidate,
        time_to_first_token_seconds=speed.start_up_seconds if first is None else first,
        seconds_per_output_token=1.0 / speed.tokens_per_second
        if per_token is None
        else per_token,
        max_concurrency=candidate.max_concurrency or concurrency,
    )
