"""Every error that this package raises on purpose.

All of them can be caught as `MixLLMError`; those that mirror a built-in one
are also that built-in error::

    MixLLMError
    ├── ConfigurationError(ValueError)      a value that cannot be used
    ├── NoCandidateError                    every candidate was excluded
    │   └── BudgetExceededError             by what is left of the spending budget
    ├── UnknownCandidateError(LookupError)  no candidate has that name
    ├── UnknownDecisionError(LookupError)   no pending decision has that id
    ├── StateFormatError(ValueError)        a saved router that cannot be read
    └── NotFittedError                      needs `Router.fit` first

Messages name the offending value and what is allowed instead. They never
carry prompt text.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "BudgetExceededError",
    "ConfigurationError",
    "MixLLMError",
    "NoCandidateError",
    "NotFittedError",
    "StateFormatError",
    "UnknownCandidateError",
    "UnknownDecisionError",
]

_LONGEST_ID = 80


class MixLLMError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigurationError(MixLLMError, ValueError):
    """A setting, a candidate or a record has a value that cannot be used."""


class NoCandidateError(MixLLMError):
    """No candidate is left to choose from.

    Parameters
    ----------
    excluded
        Why each candidate was excluded, by its name; empty if there was none.
    """

    def __init__(self, excluded: Mapping[str, str] | None = None) -> None:
        self.excluded: dict[str, str] = dict(excluded or {})
        if self.excluded:
            reasons = "; ".join(f"{n!r}: {why}" for n, why in self.excluded.items())
            message = f"every candidate is excluded for this query: {reasons}"
        else:
            message = "there is no candidate: pass at least one to the router"
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as what it was made of, not as its message."""
        return type(self), (self.excluded,), self.__dict__


class BudgetExceededError(NoCandidateError):
    """What is left of the spending budget pays for no candidate that could answer.

    Parameters
    ----------
    excluded
        Why each candidate was excluded, by its name.
    budget, left
        USD per period, and what of it is neither spent nor reserved.
    ends_in_seconds
        When the next period begins; infinity: never.
    """

    def __init__(
        self,
        excluded: Mapping[str, str],
        *,
        budget: float,
        left: float,
        ends_in_seconds: float,
    ) -> None:
        super().__init__(excluded)
        self.budget, self.left = budget, left
        self.ends_in_seconds = ends_in_seconds
        ends = (
            "there is no next period"
            if math.isinf(ends_in_seconds)
            else f"the next period begins in {ends_in_seconds:,.0f} s"
        )
        message = (
            f"{left:.6f} USD is left of the spending budget of {budget:g} USD, and "
            f"{ends}: raise `spending_budget`, set `when_spent` to 'cheapest', or "
            f"wait; {self.args[0]}"
        )
        self.args = (message,)

    def among(self, excluded: Mapping[str, str]) -> "BudgetExceededError":
        """Return the same error with other reasons.

        Parameters
        ----------
        excluded
            Why each candidate was excluded, by its name.
        """
        return type(self)(
            excluded,
            budget=self.budget,
            left=self.left,
            ends_in_seconds=self.ends_in_seconds,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as what it was made of, not as its message."""
        given = (self.excluded, self.budget, self.left, self.ends_in_seconds)
        return _budget_exceeded, given, self.__dict__


def _budget_exceeded(
    excluded: Mapping[str, str], budget: float, left: float, ends_in_seconds: float
) -> BudgetExceededError:
    return BudgetExceededError(
        excluded, budget=budget, left=left, ends_in_seconds=ends_in_seconds
    )


class UnknownCandidateError(MixLLMError, LookupError):
    """A candidate is named that the router does not have.

    Parameters
    ----------
    name
        The name that was asked for.
    known
        The names that the router has.
    """

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        self.name = name
        self.known = tuple(known)
        listed = ", ".join(repr(n) for n in self.known) or "none"
        super().__init__(f"unknown candidate {name!r}; the router has: {listed}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as what it was made of, not as its message."""
        return type(self), (self.name, self.known), self.__dict__


class UnknownDecisionError(MixLLMError, LookupError):
    """A decision id is given that is not pending: never made here, or too old.

    Parameters
    ----------
    decision_id
        The id that was asked for.
    """

    def __init__(self, decision_id: str) -> None:
        self.decision_id = decision_id
        # Who passes an answer's text by mistake must not find it in a log.
        is_id = len(decision_id) <= _LONGEST_ID and not re.search(r"\s", decision_id)
        shown = repr(decision_id) if is_id else "(what was passed is no id)"
        super().__init__(
            f"unknown decision {shown}: it was not made by this router in this "
            "process or before it was saved, or it is older than "
            "`decision_max_age_seconds` or was crowded out by newer ones; pass the "
            "answer itself, or its decision_id"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as what it was made of, not as its message."""
        return type(self), (self.decision_id,), self.__dict__


class StateFormatError(MixLLMError, ValueError):
    """A saved router cannot be read: damaged, too new, or of another encoder."""


class NotFittedError(MixLLMError):
    """The operation needs a router that has been fitted on records."""
