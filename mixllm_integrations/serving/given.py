"""Checks of what both adapters' models take."""

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.router import Router

__all__ = ["check_numbers", "check_router"]

_ZERO_OR_ABOVE = ("cooldown_seconds", "give_up_after_seconds")


def check_router(router: object) -> None:
    """Raise if what was passed as a router is none.

    Parameters
    ----------
    router
        What was passed; ``None`` is legal.

    Raises
    ------
    ConfigurationError
        It says how a router is loaded.
    """
    if router is None or isinstance(router, Router):
        return
    if isinstance(router, str | PathLike):
        raise ConfigurationError(
            f"router must be a Router, not a path: pass Router.load({str(router)!r})"
        )
    raise ConfigurationError(
        f"router must be a Router, not a {type(router).__name__}: pass one that was "
        "fitted, Router.load(folder), or nothing"
    )


def check_numbers(settings: Mapping[str, Any], above_zero: Iterable[str]) -> None:
    """Raise if a number among a model's settings cannot be used.

    Parameters
    ----------
    settings
        By name.
    above_zero
        Which must be greater than 0, if they are not ``None``.

    Raises
    ------
    ConfigurationError
        It names the setting and what is legal.
    """
    for name in above_zero:
        if settings.get(name) is not None:
            number_between(settings[name], name, low_is_allowed=False)
    for name in _ZERO_OR_ABOVE:
        if name in settings:
            number_between(settings[name], name)
    retries = settings.get("max_retries")
    is_count = isinstance(retries, int) and not isinstance(retries, bool)
    if retries is not None and (not is_count or retries < 0):
        raise ConfigurationError(
            f"max_retries must be a whole number of at least 0, not {retries!r}: 0 "
            "lets nobody take over, None lets each candidate try"
        )
