"""Checks of single values that come from outside, each with an error that names it."""

import math

import numpy as np

from mixllm_integrations.core.errors import ConfigurationError

__all__ = ["number_between", "optional_number", "optional_truth", "required_name"]


def number_between(
    value: object,
    what: str,
    *,
    low: float = 0.0,
    high: float = math.inf,
    low_is_allowed: bool = True,
    high_is_allowed: bool = True,
    truth_is_allowed: bool = False,
) -> float:
    """Return ``value`` as a float that lies between two bounds.

    Parameters
    ----------
    value
        What the caller gave.
    what
        How to name it in the error, for example ``"willingness_to_pay"``.
    low, high
        The bounds; an infinite `high` together with `high_is_allowed` admits
        infinity itself.
    low_is_allowed, high_is_allowed
        Whether the bounds themselves are legal.
    truth_is_allowed
        Whether true counts as 1 and false as 0.

    Returns
    -------
    float
        The number.

    Raises
    ------
    ConfigurationError
        If it is not a number, is NaN, or lies outside the bounds.

    Examples
    --------
    >>> number_between(0.25, "share", high=1.0)
    0.25
    >>> number_between(float("nan"), "share", high=1.0)
    Traceback (most recent call last):
        ...
    mixllm_integrations.core.errors.ConfigurationError: share must be a number in \
[0, 1], not nan
    """
    is_number = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, bool | np.bool_):
        is_number = truth_is_allowed
    try:
        number = float(value) if is_number else math.nan  # type: ignore[arg-type]
    except OverflowError:  # a whole number beyond every float
        value = number = math.inf if value > 0 else -math.inf  # type: ignore[operator]
    above = number >= low if low_is_allowed else number > low
    below = number <= high if high_is_allowed else number < high
    if not (above and below):  # NaN fails both
        brackets = ("[" if low_is_allowed else "(", "]" if high_is_allowed else ")")
        allowed = f"{brackets[0]}{low:g}, {high:g}{brackets[1]}"
        is_shown = is_number or isinstance(value, bool | np.bool_)
        shown = repr(value) if is_shown else f"a {type(value).__name__}"
        raise ConfigurationError(f"{what} must be a number in {allowed}, not {shown}")
    return number


def optional_number(value: object, what: str, *, high: float = math.inf) -> None:
    """Check a number from 0 to `high` that may be ``None``.

    Parameters
    ----------
    value
        What the caller gave.
    what
        How to name it in the error.
    high
        The upper bound; infinity itself is never legal.

    Raises
    ------
    ConfigurationError
        If it is given and out of bounds.
    """
    if value is not None:
        number_between(value, what, high=high, high_is_allowed=high < math.inf)


def optional_truth(value: object, what: str) -> None:
    """Check a truth value that may be ``None``.

    Parameters
    ----------
    value
        What the caller gave.
    what
        How to name it in the error.

    Raises
    ------
    ConfigurationError
        If it is anything else.
    """
    if not isinstance(value, bool | np.bool_ | None):
        raise ConfigurationError(
            f"{what} must be True or False, not a {type(value).__name__}"
        )


def required_name(value: object, what: str) -> None:
    """Check a string that must say something.

    Parameters
    ----------
    value
        What the caller gave.
    what
        How to name it in the error.

    Raises
    ------
    ConfigurationError
        If it is no string, or blank.
    """
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{what} must be a non-empty string, not {value!r}")
