"""Every error that this package raises on purpose.

All of them can be caught as `MixLLMError`; those that mirror a built-in one
are also that built-in error::

    MixLLMError
    ├── ConfigurationError(ValueError)      a value that cannot be used
    ├── NoCandidateError                    every candidate was excluded
    ├── UnknownCandidateError(LookupError)  no candidate has that name
    ├── UnknownDecisionError(LookupError)   no pending decision has that id
    ├── StateFormatError(ValueError)        a saved router that cannot be read
    └── NotFittedError                      needs `Router.fit` first

Messages name the offending value and what is allowed instead. They never
carry prompt text.
"""

from collections.abc import Iterable, Mapping

__all__ = [
    "ConfigurationError",
    "MixLLMError",
    "NoCandidateError",
    "NotFittedError",
    "StateFormatError",
    "UnknownCandidateError",
    "UnknownDecisionError",
]


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


class UnknownDecisionError(MixLLMError, LookupError):
    """A decision id is given that is not pending: never made here, or too old.

    Parameters
    ----------
    decision_id
        The id that was asked for.
    """

    def __init__(self, decision_id: str) -> None:
        self.decision_id = decision_id
        super().__init__(
            f"unknown decision {decision_id!r}: it was not made by this router, or it "
            "is older than `decision_max_age_seconds` or was crowded out by newer ones"
        )


class StateFormatError(MixLLMError, ValueError):
    """A saved router cannot be read: damaged, too new, or of another encoder."""


class NotFittedError(MixLLMError):
    """The operation needs a router that has been fitted on records."""
