"""A routed chat model in a pickle: its settings, and what belongs to no process.

Copies inside one process share everything, as `ModelPool` has it.
"""

from typing import Any

from langchain_core.language_models import BaseChatModel

from mixllm_integrations.core.copying import check_picklable
from mixllm_integrations.core.errors import ConfigurationError

__all__ = ["PortableChatModel"]

_CHECKED = frozenset({"candidates", "store", "router"})  # the router checks itself
_ANEW = (
    "keep what was learned with model.router.save(folder), and in the other process "
    "make the model anew, with candidates of its own and router=Router.load(folder)"
)


class PortableChatModel(BaseChatModel):
    """What can be pickled of a chat model that is made of `candidates`."""

    def __getstate__(self) -> dict[Any, Any]:
        """Return the settings, the candidates' own models as they are, the router.

        What comes back has a router of its own, which goes on from what this
        one knows, and opens its store anew by its URL, at its first call.
        Nobody is cooling down for it. The pickle holds the candidates' keys,
        and the password of the store's URL.

        Raises
        ------
        ConfigurationError
            If the store is an opened one, or if a candidate or a setting holds
            what belongs to this process, as most clients of providers do; the
            message names it.
        """
        state: dict[Any, Any] = super().__getstate__()
        fields = type(self).model_fields
        own = {k: v for k, v in state["__dict__"].items() if k in fields}
        _check(own)
        return state | {"__dict__": own}


def _check(settings: dict[str, Any]) -> None:
    store = settings.get("store")
    if store is not None and not isinstance(store, str):
        raise ConfigurationError(
            f"a model with an opened store ({type(store).__name__}) cannot be pickled: "
            "pass the store's URL instead, which each process opens for itself"
        )
    for candidate in settings.get("candidates", ()):
        kind = type(candidate.model).__name__
        what = f"candidate {candidate.known_name()!r} (a {kind})"
        check_picklable(candidate, what, _ANEW)
    for name, value in settings.items():
        if name not in _CHECKED:
            anew = (
                f"pickle model.model_copy(update={{{name!r}: None}}), and set it there"
            )
            check_picklable(value, f"{name!r} of the model", anew)
