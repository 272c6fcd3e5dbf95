"""What a routed chat model may be given, checked before it is used."""

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any

from langchain_core.language_models import BaseChatModel

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.router import Router
from mixllm_integrations.langchain.capabilities import (
    CandidateModel,
    as_candidate_model,
)

__all__ = ["check_settings", "models_of"]

_ABOVE_ZERO = ("timeout", "willingness_to_pay")
_ZERO_OR_ABOVE = ("cooldown_seconds", "give_up_after_seconds")


def check_settings(kind: type[BaseChatModel], settings: Mapping[str, Any]) -> None:
    """Raise if a routed chat model cannot work with these.

    Parameters
    ----------
    kind
        The model's class.
    settings
        By name; `candidates` are for `models_of` to check.

    Raises
    ------
    ConfigurationError
        If a name is unknown, or a value cannot be used.
    """
    unknown = sorted(
        name
        for name in settings
        if name not in kind.model_fields and not name.startswith("_")
    )
    if unknown:
        known = ", ".join(sorted(kind.model_fields))
        raise ConfigurationError(
            f"unknown argument {unknown[0]!r}; a routed chat model takes: {known}"
        )
    if settings.get("cache"):
        raise ConfigurationError(
            "a routed chat model has no cache of its own, as it would mix the answers "
            "of its candidates; pass cache to the candidates' own models"
        )
    _check_router(settings.get("router"))
    _check_numbers(settings)


def models_of(
    given: Iterable[BaseChatModel | CandidateModel],
) -> tuple[CandidateModel, ...]:
    """Return what was passed as candidates, wrapped.

    Parameters
    ----------
    given
        Chat models, bare or with facts about them.

    Returns
    -------
    tuple of CandidateModel
        In the same order.

    Raises
    ------
    ConfigurationError
        If it is not several of these.
    """
    # A chat model can be iterated over too: it yields its fields.
    is_single = isinstance(given, BaseChatModel | CandidateModel | str | Mapping)
    if is_single or not isinstance(given, Iterable):
        raise ConfigurationError(
            "candidates must be a list of chat models, not a "
            f"{type(given).__name__}: pass candidates=[first_model, second_model]"
        )
    return tuple(as_candidate_model(one) for one in given)


def _check_router(router: object) -> None:
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


def _check_numbers(settings: Mapping[str, Any]) -> None:
    for name in _ABOVE_ZERO:
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
