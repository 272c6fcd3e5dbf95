"""What a routed chat model may be given, checked before it is used."""

from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.langchain.capabilities import (
    CandidateModel,
    as_candidate_model,
)
from mixllm_integrations.serving.given import check_numbers, check_router

__all__ = ["check_settings", "models_of"]

_ABOVE_ZERO = ("timeout", "willingness_to_pay")


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
    check_router(settings.get("router"))
    check_numbers(settings, _ABOVE_ZERO)


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
