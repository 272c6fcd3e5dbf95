"""What one call asks of the choice: through its arguments, its config, the rules.

The config is LangChain's: ``config["configurable"]`` holds what may be set per
call, and `with_config` or `configurable` set it for a while.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.messages import BaseMessage
from langchain_core.runnables import ConfigurableFieldSpec, RunnableConfig

from mixllm_integrations.core.types import Requirement
from mixllm_integrations.langchain.calls.messages import loop_candidate
from mixllm_integrations.langchain.calls.texts import whole_texts
from mixllm_integrations.langchain.candidates.needs import Needs
from mixllm_integrations.serving import (
    CONTROLS,
    CallOptions,
    checked_controls,
    verdict,
)

if TYPE_CHECKING:
    from mixllm_integrations.langchain.pool import ModelPool

__all__ = ["Wish", "config_specs", "wish_of"]


class Wish(NamedTuple):
    """What a call asks of the choice.

    Parameters
    ----------
    options
        For the dispatcher.
    among
        Who may answer; ``None``: every candidate of the router.
    requires
        Abilities needed.
    """

    options: CallOptions
    among: tuple[str, ...] | None
    requires: tuple[Requirement, ...]


def wish_of(
    model: "ModelPool",
    messages: list[BaseMessage],
    arguments: dict[str, Any],
    config: RunnableConfig,
    needs: Needs,
) -> Wish:
    """Return what a call asks of the choice.

    Parameters
    ----------
    model
        Who was called.
    messages
        All that will be sent.
    arguments
        Those of the call; what speaks of the choice is taken out of them.
    config
        That of the call.
    needs
        What the prompt and its tools need.

    Returns
    -------
    Wish
        Of all of these together; a call's argument goes before its config, and
        that before what was set on the model.

    Raises
    ------
    ConfigurationError
        If a value cannot be used.
    UnknownCandidateError
        If it names a candidate that is not there.
    """
    controls = _controls(arguments, config)
    barred = model.seating.abilities.barred(needs)
    loop = loop_candidate(messages)
    requires, allowed = needs.requires, None
    dispatcher = model.dispatcher
    current = dispatcher.renames.current
    if model.rules:
        texts = [text for m in messages for text in whole_texts(m)]
        said = verdict(model.rules, messages, texts, dispatcher.names, current)
        barred = {**barred, **said.barred}
        allowed = said.allowed
        requires = tuple(dict.fromkeys((*requires, *said.requires)))
    among = model.among()
    if allowed is not None:  # not even those may answer who come while it runs
        names = among if among is not None else dispatcher.names()
        permitted = {current(name, names) for name in allowed}
        among = tuple(name for name in names if name in permitted)
    meant = _meant(model, arguments, controls)
    if not (controls or barred or loop or meant):
        return Wish(model.usual_options, among, requires)
    if len(meant) > 1:  # several that share a model: the best of these
        among = meant if among is None else tuple(n for n in among if n in meant)
    session = controls.pop("session_id", None)
    asked = {**controls, "candidate": meant[0] if len(meant) == 1 else None}
    options = replace(
        model.usual_options, barred=barred, prefer=loop, session=session, **asked
    )
    return Wish(options, among, requires)


def config_specs() -> list[ConfigurableFieldSpec]:
    """Return what may be set per call, as LangChain describes it.

    Returns
    -------
    list of ConfigurableFieldSpec
        One per control.
    """
    return [
        ConfigurableFieldSpec(
            id=name,
            annotation=control.kind,
            name=control.title,
            description=control.description,
            # As the history of messages has it, which shares the session.
            default="" if name == "session_id" else None,
            is_shared=True,
        )
        for name, control in CONTROLS.items()
    ]


def _controls(arguments: dict[str, Any], config: RunnableConfig) -> dict[str, Any]:
    """Return what is asked of the choice by argument or config."""
    configurable: Mapping[str, Any] = config.get("configurable") or {}
    controls = checked_controls(configurable) if configurable else {}
    session = _session(configurable, config.get("metadata") or {})
    if session is not None:
        controls["session_id"] = session
    given = {name: arguments.pop(name) for name in CONTROLS if name in arguments}
    if given:
        controls.update(checked_controls(given))
    return controls


def _session(
    configurable: Mapping[str, Any], metadata: Mapping[str, Any]
) -> str | None:
    """Return the session: as it is called here, by LangSmith, or by LangGraph."""
    for place, name in (
        (configurable, "session_id"),
        (metadata, "session_id"),
        (configurable, "thread_id"),
    ):
        if place.get(name):
            return str(place[name])
    return None


def _meant(
    model: "ModelPool", arguments: dict[str, Any], controls: dict[str, Any]
) -> tuple[str, ...]:
    """Return whom the caller names; nobody if it names none."""
    for name in ("shadow", "candidate"):
        if name in controls and not model.meant_by(controls[name]):
            raise model.unknown(controls[name])
    if "shadow" in controls:
        controls["shadow"] = model.meant_by(controls["shadow"])[0]
    forced = controls.pop("candidate", None)
    if meant := model.meant_by(arguments.get("model")):
        arguments.pop("model")
        return meant
    return model.meant_by(forced)
