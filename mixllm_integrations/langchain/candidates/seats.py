"""The chosen models as they are called: settings applied, ready to be asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.runnables import Runnable

from mixllm_integrations.core.router import Router
from mixllm_integrations.langchain.candidates.needs import Abilities
from mixllm_integrations.langchain.capabilities import CandidateModel
from mixllm_integrations.langchain.history import provider_of
from mixllm_integrations.serving.members import Presence, Present, meanings

__all__ = ["SETTINGS", "Seat", "Seating", "Target", "seats_of"]

#: Settings of the routed model that hold for whoever answers.
SETTINGS = (
    "temperature",
    "max_tokens",
    "stop",
    "streaming",
    "output_version",
    "disable_streaming",
)
# These may also be given with a call, to a model that has no such field.
_ARGUMENTS = frozenset({"temperature", "max_tokens", "stop"})


@dataclass(frozen=True, slots=True)
class Seat:
    """One candidate as it is called.

    Parameters
    ----------
    model
        The chat model; a copy of the one passed if settings were applied.
    candidate
        What was passed.
    arguments
        What each call is given.
    timeout_seconds
        How long to wait for it.
    provider
        Who serves it, where that is known.
    """

    model: BaseChatModel = field(repr=False)
    candidate: CandidateModel = field(repr=False)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    timeout_seconds: float | None = None
    provider: str | None = None


class Target(NamedTuple):
    """What is to be called.

    Parameters
    ----------
    model
        The chosen model, with its tools or schema bound.
    prompt
        What it is asked.
    arguments
        Those of the call.
    seconds
        How long to wait; ``None``: as long as it takes.
    """

    model: Runnable[Any, Any]
    prompt: LanguageModelInput
    arguments: dict[str, Any]
    seconds: float | None


class Seating:
    """All candidates of one model as they are called; never changes.

    Parameters
    ----------
    candidates
        The candidates, each of another name.
    settings
        What was set on the routed model, by names of `SETTINGS`.
    timeout_seconds
        For candidates without one of their own.

    Attributes
    ----------
    candidates
        As they were passed: another object after each change of them.
    by_name
        From the candidate's name to its seat.
    providers
        From the candidate's name to who serves it.
    abilities
        What each is known not to be capable of.
    """

    __slots__ = (
        "_meant",
        "_presence",
        "abilities",
        "by_name",
        "candidates",
        "providers",
    )

    def __init__(
        self,
        candidates: Sequence[CandidateModel],
        settings: Mapping[str, Any],
        timeout_seconds: float | None,
    ) -> None:
        self.candidates = candidates
        named = [(candidate.known_name(), candidate) for candidate in candidates]
        self.by_name = seats_of(named, settings, timeout_seconds)
        self.providers = {name: seat.provider for name, seat in self.by_name.items()}
        self.abilities = Abilities(named)
        self._meant = meanings((name, c.model_name()) for name, c in named)
        self._presence = Presence(self.by_name)

    def meant_by(self, name: object) -> tuple[str, ...]:
        """Return the candidates that a name stands for.

        Parameters
        ----------
        name
            A candidate's name, or what a provider calls its model.

        Returns
        -------
        tuple of str
            Names of candidates; several if they share a model, none if the name
            is not known here.
        """
        return self._meant.get(name, ()) if isinstance(name, str) else ()

    def present(self, router: Router) -> Present:
        """Return who may be chosen.

        Parameters
        ----------
        router
            Who decides; it may have candidates of other models, too.

        Returns
        -------
        Present
            Whom of these the router has.
        """
        return self._presence.of(router)


def seats_of(
    named: Sequence[tuple[str, CandidateModel]],
    settings: Mapping[str, Any],
    timeout_seconds: float | None,
) -> dict[str, Seat]:
    """Return the candidates as they are called.

    Parameters
    ----------
    named
        The candidates with their names.
    settings
        What was set on the routed model, by names of `SETTINGS`.
    timeout_seconds
        For candidates without one of their own.

    Returns
    -------
    dict
        From name to seat. A setting goes to the field of that name or alias on
        a shallow copy, which shares the client; else it is an argument of
        each call.
    """
    return {
        name: _seat(candidate, settings, timeout_seconds) for name, candidate in named
    }


def _seat(
    candidate: CandidateModel,
    settings: Mapping[str, Any],
    timeout_seconds: float | None,
) -> Seat:
    model = candidate.model
    own = candidate.timeout_seconds
    fields = {setting: _field_of(model, setting) for setting in settings}
    update = {
        name: settings[setting] for setting, name in fields.items() if name is not None
    }
    if update:
        model = model.model_copy(update=update)
        model.__dict__.pop("_serialized", None)  # shows the old settings
    arguments = {
        setting: settings[setting]
        for setting, name in fields.items()
        if name is None and setting in _ARGUMENTS
    }
    seconds = timeout_seconds if own is None else own
    return Seat(model, candidate, arguments, seconds, provider_of(candidate.model))


def _field_of(model: BaseChatModel, setting: str) -> str | None:
    known = type(model).model_fields
    if setting in known:
        return setting
    return next((name for name, f in known.items() if f.alias == setting), None)
