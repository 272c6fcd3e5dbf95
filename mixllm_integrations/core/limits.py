"""Stage 8, first half: what is asked of a decision, and who may not compete.

`policy` chooses among those who are left.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import cast

import numpy as np

from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.types import (
    REQUIREMENTS,
    Candidate,
    FloatArray,
    number_between,
)

__all__ = ["Terms", "hard_limits"]

_NOBODY: Mapping[str, str] = MappingProxyType({})
_NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is asked of one decision, beside the query.

    Parameters
    ----------
    requires
        Abilities the query needs, of `REQUIREMENTS`.
    among
        The only candidates that may compete; ``None``: all.
    barred
        Who may not compete all the same, and why.
    max_cost_per_query
        Highest predicted cost in USD; ``None``: any.
    willingness_to_pay
        λ in USD for one whole point of quality; ``None``: the policy's own.
    waiting_tolerance_seconds
        τ; ``None``: that of the router.
    discounts
        USD that a candidate would save on this query, for example because it
        has read most of the prompt before.
    head_start
        What else speaks for a candidate, in units of quality.
    """

    requires: Collection[str] = ()
    among: Collection[str] | None = None
    barred: Mapping[str, str] = field(default_factory=lambda: _NOBODY)
    max_cost_per_query: float | None = None
    willingness_to_pay: float | None = None
    waiting_tolerance_seconds: float | None = None
    discounts: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    head_start: Mapping[str, float] = field(default_factory=lambda: _NOTHING)

    def __post_init__(self) -> None:
        if self.max_cost_per_query is not None:
            number_between(self.max_cost_per_query, "max_cost_per_query")
        if self.waiting_tolerance_seconds is not None:
            number_between(
                self.waiting_tolerance_seconds,
                "waiting_tolerance_seconds",
                low_is_allowed=False,
            )
        for name, value in self.discounts.items():
            number_between(value, f"the discount of {name!r}", high_is_allowed=False)
        for name, value in self.head_start.items():
            number_between(value, f"the head start of {name!r}", high=1.0)

    def excludes_by_name(self) -> bool:
        """Tell whether anybody may be excluded for what it is, not for its price."""
        return self.requires != () or self.among is not None or bool(self.barred)


def hard_limits(
    candidates: Sequence[Candidate],
    *,
    cost: FloatArray,
    input_tokens: int,
    input_tokens_are_estimated: bool,
    terms: Terms,
) -> dict[str, str]:
    """Return who may not compete for this query, and why.

    Parameters
    ----------
    candidates
        All of them, in declaration order.
    cost
        Predicted cost in USD, shape ``(n_candidates,)``.
    input_tokens
        Length of the prompt.
    input_tokens_are_estimated
        Whether that is our own estimate. Then the context window alone never
        excludes everybody: those with the largest one stay (our choice).
    terms
        What the query asks. Unknown vision is tried.

    Returns
    -------
    dict of str to str
        Reason by candidate name, with the limit and the number.

    Raises
    ------
    ConfigurationError
        If `requires` has an unknown word.
    UnknownCandidateError
        If `among` names nobody.

    Examples
    --------
    >>> small = Candidate("small", 0.1, 0.4, context_window=8_000)
    >>> large = Candidate("large", 3.0, 15.0)
    >>> hard_limits([small, large], cost=np.array([0.001, 0.03]),
    ...     input_tokens=9_500, input_tokens_are_estimated=False, terms=Terms())
    {'small': 'the prompt has 9,500 tokens, its context window 8,000'}
    """
    _check_words(candidates, terms.requires, terms.among)
    excluded: dict[str, str] = {}
    too_long: list[Candidate] = []
    for index, candidate in enumerate(candidates):
        reason = _reason(candidate, float(cost[index]), terms)
        if reason is not None:
            excluded[candidate.name] = reason
        elif _window(candidate) < input_tokens:
            too_long.append(candidate)
    rescue = input_tokens_are_estimated and len(excluded) + len(too_long) == len(
        candidates
    )
    widest = max(map(_window, too_long), default=0.0) if rescue else np.inf
    for candidate in too_long:
        if _window(candidate) < widest:
            excluded[candidate.name] = (
                f"the prompt has {'about ' * input_tokens_are_estimated}"
                f"{input_tokens:,} tokens, its context window "
                f"{candidate.context_window:,}"
            )
    return excluded


def _reason(candidate: Candidate, cost: float, terms: Terms) -> str | None:
    """Return why a candidate may not compete, whatever the prompt's length."""
    if candidate.name in terms.barred:
        return terms.barred[candidate.name]
    if terms.among is not None and candidate.name not in terms.among:
        return "not among the candidates asked for"
    if lacking := [r for r in terms.requires if getattr(candidate, r) is False]:
        return f"has no {', '.join(sorted(lacking))}"
    most = terms.max_cost_per_query
    if most is not None and not cost <= most:
        return f"would cost about {cost:.6f} USD, max_cost_per_query is {most:g}"
    return None


def _window(candidate: Candidate) -> float:
    window = candidate.context_window
    return np.inf if window is None else window


def _check_words(
    candidates: Sequence[Candidate],
    requires: Collection[str],
    among: Collection[str] | None,
) -> None:
    for what, words in (("requires", requires), ("among", among)):
        if isinstance(words, str):
            raise ConfigurationError(
                f"{what} must be a collection of words, not the one string {words!r}"
            )
    for word in requires:
        if word not in cast("tuple[str, ...]", REQUIREMENTS):
            raise ConfigurationError(
                f"requires has the unknown word {word!r}; use some of {REQUIREMENTS}"
            )
    if among:
        known = [c.name for c in candidates]
        for name in among:
            if name not in known:
                raise UnknownCandidateError(name, known)
