"""What answers tell of themselves, read without trust: a provider may say anything."""

import math

__all__ = ["told_cost", "told_tokens"]

# Our choice: more than any answer takes, and little enough for any sum of them.
_MOST_TOKENS, _MOST_USD = 10**9, 1e6


def told_tokens(value: object) -> int | None:
    """Return a count of tokens, if this is one.

    Parameters
    ----------
    value
        What a provider says.

    Returns
    -------
    int or None
        ``None`` if it is no number, negative, or more than a thousand million.

    Examples
    --------
    >>> told_tokens(12), told_tokens(-1), told_tokens("12")
    (12, None, None)
    """
    number = _number_up_to(value, _MOST_TOKENS)
    return None if number is None else int(number)


def told_cost(value: object) -> float | None:
    """Return a cost in USD, if this is one.

    Parameters
    ----------
    value
        What a provider says.

    Returns
    -------
    float or None
        ``None`` if it is no number, negative, or more than a million.
    """
    number = _number_up_to(value, _MOST_USD)
    return None if number is None else float(number)


def _number_up_to(value: object, most: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if 0 <= value <= most else None
