"""Turns what an event says into what JSON holds."""

import json
import math
from collections.abc import Mapping
from typing import Any

from mixllm_integrations.core.errors import ConfigurationError

__all__ = ["plain", "to_json"]


def plain(payload: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return a payload as JSON will hold it.

    Parameters
    ----------
    payload
        What an event says.
    kind
        Of the event, for messages. They never show a value.

    Returns
    -------
    dict
        Arrays are lists, and numbers that are not finite are ``None``.

    Raises
    ------
    ConfigurationError
        If it is no mapping, or holds what JSON cannot.

    Examples
    --------
    >>> plain({"costs": (1.0, float("inf"))}, "outcome")
    {'costs': [1.0, None]}
    """
    if not isinstance(payload, Mapping):
        raise ConfigurationError(
            f"the payload of a {kind!r} event must be a mapping, not a "
            f"{type(payload).__name__}"
        )
    try:
        return {str(key): _finite(item, kind) for key, item in payload.items()}
    except RecursionError:
        raise ConfigurationError(
            f"the payload of a {kind!r} event is nested too deeply, or holds itself"
        ) from None


def _finite(value: Any, kind: str) -> Any:  # noqa: ANN401
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item, kind) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_finite(item, kind) for item in value]
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        return _finite(value.tolist(), kind)
    raise ConfigurationError(
        f"the payload of a {kind!r} event holds a {type(value).__name__}; use what "
        "JSON can hold: mappings, lists, strings, numbers, booleans, None"
    )


def to_json(value: object) -> str:
    """Return compact JSON, all of it ASCII.

    Parameters
    ----------
    value
        What `plain` returns.
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
