"""What one call asks of the choice: its controls and the rules, put together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mixllm_integrations.core.errors import UnknownCandidateError
from mixllm_integrations.core.types import Requirement
from mixllm_integrations.serving.options import CallOptions
from mixllm_integrations.serving.rules import RoutingRule, verdict

if TYPE_CHECKING:
    from mixllm_integrations.serving.dispatch import Dispatcher

__all__ = ["Chosen", "Wish", "wish_of"]


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


class Chosen(Protocol):
    """The model of which one candidate is chosen."""

    @property
    def dispatcher(self) -> "Dispatcher":
        """Starts the calls."""

    @property
    def rules(self) -> tuple[RoutingRule, ...]:
        """Which conversations may go to whom."""

    @property
    def usual_options(self) -> CallOptions:
        """What every call asks that does not say otherwise."""

    def among(self) -> tuple[str, ...] | None:
        """Return who may be chosen."""

    def meant_by(self, name: object) -> tuple[str, ...]:
        """Return the candidates that a name stands for."""

    def unknown(self, name: str) -> UnknownCandidateError:
        """Return what to raise where a candidate is named that is not there."""


def wish_of(
    model: Chosen,
    messages: Any,  # noqa: ANN401 - in the framework's own form
    controls: Mapping[str, Any],
    *,
    texts: Callable[[], Sequence[str]],
    requires: tuple[Requirement, ...] = (),
    barred: Mapping[str, str] | None = None,
    loop: str | None = None,
    named: tuple[str, ...] = (),
) -> Wish:
    """Return what a call asks of the choice.

    Parameters
    ----------
    model
        Who was called.
    messages
        All that will be sent.
    controls
        What the caller asks, as `checked_controls` returns it.
    texts
        Returns the texts of the messages; called if there are rules.
    requires, barred
        What the prompt and its tools need, and who is not able to, with the reason.
    loop
        Who began the loop of tool calls that the conversation is in.
    named
        Whom the caller has named in another way than by its controls.

    Returns
    -------
    Wish
        Of all of these together.

    Raises
    ------
    UnknownCandidateError
        If a candidate is named that is not there.
    """
    barred = barred or {}
    allowed, dispatcher = None, model.dispatcher
    current = dispatcher.renames.current
    if model.rules:
        said = verdict(model.rules, messages, texts(), dispatcher.names, current)
        barred = {**barred, **said.barred}
        allowed = said.allowed
        requires = tuple(dict.fromkeys((*requires, *said.requires)))
    among = model.among()
    if allowed is not None:  # not even those may answer who come while it runs
        names = among if among is not None else dispatcher.names()
        permitted = {current(name, names) for name in allowed}
        among = tuple(name for name in names if name in permitted)
    asked, meant = _meant(model, controls, named)
    if not (asked or barred or loop or meant):
        return Wish(model.usual_options, among, requires)
    if len(meant) > 1:  # several that share a model: the best of these
        among = meant if among is None else tuple(n for n in among if n in meant)
    asked["session"] = asked.pop("session_id", None)
    asked["candidate"] = meant[0] if len(meant) == 1 else None
    options = replace(model.usual_options, barred=barred, prefer=loop, **asked)
    return Wish(options, among, requires)


def _meant(
    model: Chosen, controls: Mapping[str, Any], named: tuple[str, ...]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the controls by candidates' names, and whom the caller names."""
    asked = dict(controls)
    for name in ("shadow", "candidate"):
        if name in asked and not model.meant_by(asked[name]):
            raise model.unknown(asked[name])
    if "shadow" in asked:
        asked["shadow"] = model.meant_by(asked["shadow"])[0]
    forced = asked.pop("candidate", None)
    return asked, named or model.meant_by(forced)
