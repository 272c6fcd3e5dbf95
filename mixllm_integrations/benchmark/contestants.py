"""The chat models whose calls are compared: a bare one, ours, and a rival's.

All answer by the same script, so what a call takes beyond the bare model's is
what was put around it.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel

from mixllm_integrations.benchmark.call_figures import (
    BARE,
    FITTED,
    HEARD,
    PRIORS,
    RIVAL,
)
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.langchain import (
    CandidateModel,
    MixLLMCallbackHandler,
    MixLLMChatModel,
)
from mixllm_integrations.testing import ScriptedCall, ScriptedChatModel

__all__ = ["contestants", "rival", "routed", "scripted"]


class _Unnoted(list[ScriptedCall]):
    """Keeps nothing: notes of a hundred thousand calls would look like a leak."""

    def append(self, _call: ScriptedCall, /) -> None:
        pass


def scripted(name: str) -> ScriptedChatModel:
    """Return a model that says "ok", at once, and notes nothing.

    Parameters
    ----------
    name
        What it calls itself.
    """
    model = ScriptedChatModel(model=name, answers=["ok"])
    model.calls = _Unnoted()
    return model


def routed(
    candidates: Iterable[Candidate],
    *,
    router: Router | None = None,
    callbacks: Sequence[BaseCallbackHandler] = (),
    **settings: Any,  # noqa: ANN401
) -> MixLLMChatModel:
    """Return our chat model over scripted ones.

    Parameters
    ----------
    candidates
        Names and prices.
    router
        Who decides; ``None``: a new one, from priors.
    callbacks
        Who listens to each call.
    **settings
        Others of the chat model, such as its store.
    """
    return MixLLMChatModel(
        candidates=[
            CandidateModel(
                model=scripted(c.name),
                name=c.name,
                input_cost_per_million_tokens=c.input_cost_per_million_tokens,
                output_cost_per_million_tokens=c.output_cost_per_million_tokens,
            )
            for c in candidates
        ],
        router=router,
        callbacks=list(callbacks) or None,
        **settings,
    )


def rival(candidates: Sequence[Candidate]) -> BaseChatModel | None:
    """Return langchain-model-router's over scripted ones, which asks the last one.

    A strategy without an ``adecide`` of its own would be run in a thread for each
    asynchronous call; this one is as fast as it can be made.

    Parameters
    ----------
    candidates
        Names.

    Returns
    -------
    BaseChatModel or None
        ``None`` if the package is not installed.
    """
    try:
        from langchain_model_router import ChatRouter, RoutingChoice, RoutingStrategy
    except ImportError:
        return None

    class Constant(RoutingStrategy):
        def decide(self, _request: object) -> RoutingChoice:
            return choice

        async def adecide(self, _request: object) -> RoutingChoice:
            return choice

    names = [c.name for c in candidates]
    choice = RoutingChoice(names[-1], "always")
    return ChatRouter(
        routes={name: scripted(name) for name in names},
        default_route=names[0],
        strategy=Constant(),
    )


def contestants(router: Router) -> dict[str, BaseChatModel]:
    """Return everybody who takes part, by name, the bare model first.

    Parameters
    ----------
    router
        The fitted one; its candidates are everybody's.
    """
    candidates = router.candidates
    handler = MixLLMCallbackHandler()
    found: dict[str, BaseChatModel | None] = {
        BARE: scripted("bare"),
        PRIORS: routed(candidates),
        FITTED: routed(candidates, router=router),
        HEARD: routed(candidates, router=router, callbacks=[handler]),
        RIVAL: rival(candidates),
    }
    return {who: model for who, model in found.items() if model is not None}
