"""What one call asks of the choice: through its arguments, its config, the rules.

The config is LangChain's: ``config["configurable"]`` holds what may be set per
call, and `with_config` or `configurable` set it for a while.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import ConfigurableFieldSpec, RunnableConfig

from mixllm_integrations.langchain.calls.messages import loop_candidate
from mixllm_integrations.langchain.calls.texts import whole_texts
from mixllm_integrations.langchain.candidates.needs import Needs
from mixllm_integrations.serving import CONTROLS, checked_controls
from mixllm_integrations.serving.wishes import Wish
from mixllm_integrations.serving.wishes import wish_of as shared_wish_of

if TYPE_CHECKING:
    from mixllm_integrations.langchain.pool import ModelPool

__all__ = ["config_specs", "wish_of"]


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
    named = model.meant_by(arguments.get("model"))
    if named:
        arguments.pop("model")
    return shared_wish_of(
        model,
        messages,
        _controls(arguments, config),
        texts=lambda: [text for m in messages for text in whole_texts(m)],
        requires=needs.requires,
        barred=model.seating.abilities.barred(needs),
        loop=loop_candidate(messages),
        named=named,
    )


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
