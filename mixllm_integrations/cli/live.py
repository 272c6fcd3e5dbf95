"""Real models for `mixllm demo --live`: set keys, and an Ollama on this machine."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mixllm_integrations.cli.demo import (
    DemoPrompt,
    DemoSetup,
    shipped_router,
    strongest_of,
)
from mixllm_integrations.core.errors import ConfigurationError, MixLLMError
from mixllm_integrations.core.types import Candidate, RoutingRecord
from mixllm_integrations.serving.errors import status_of

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router
    from mixllm_integrations.langchain import CandidateModel

__all__ = ["LIVE_PROMPTS", "failure_of", "live_setup"]

#: How many prompts are asked unless the user says otherwise: they cost money.
LIVE_PROMPTS = 8

_OLLAMA_URL = "http://localhost:11434"
_OLLAMA_SECONDS = 2.0
_OLLAMA_MODELS = 2
_ANSWER_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class _Provider:
    """Where real models come from.

    Parameters
    ----------
    module, class_name
        Its LangChain chat model.
    key
        The environment variable that must be set; empty: none.
    models
        A cheap and a strong one, asked unless the user names others.
    """

    module: str
    class_name: str
    key: str
    models: tuple[str, ...] = ()


_PROVIDERS = {
    "openai": _Provider(
        "langchain_openai",
        "ChatOpenAI",
        "OPENAI_API_KEY",
        ("gpt-6-luna", "gpt-6.1-sol"),
    ),
    "anthropic": _Provider(
        "langchain_anthropic",
        "ChatAnthropic",
        "ANTHROPIC_API_KEY",
        ("claude-haiku-5-5", "claude-sonnet-5-5"),
    ),
    "ollama": _Provider("langchain_ollama", "ChatOllama", ""),
}


def live_setup(prompts: Sequence[DemoPrompt], models: Sequence[str] = ()) -> DemoSetup:
    """Return a routed model over the real models that can be reached.

    Parameters
    ----------
    prompts
        What will be asked.
    models
        ``"provider:name"`` each; empty: a cheap and a strong one of each
        provider whose key is set, and up to two models of a local Ollama.

    Returns
    -------
    DemoSetup
        Ready to ask.

    Raises
    ------
    ConfigurationError
        If there is nothing to ask; the message says what is missing.
    """
    from mixllm_integrations.langchain import MixLLMChatModel

    wanted, missing = _asked_for(models) if models else _found()
    if not wanted:
        raise ConfigurationError(
            f"there is no model to ask: {'; '.join(missing)}. `mixllm demo` without "
            "--live needs none"
        )
    chat_models = [_chat_model(provider, name) for provider, name in wanted]
    candidates = [chat_model.candidate() for chat_model in chat_models]
    router = _warm_router(candidates, prompts)
    about = [
        "Real models answer: " + ", ".join(c.name for c in candidates) + ".",
        "None of their answers was graded yet, so it goes by what models of 2024",
        "at the same place of the price list were seen to do.",
    ]
    if missing:
        about.append(f"Not asked: {'; '.join(missing)}.")
    if len(candidates) == 1:
        about.append("With one model there is nothing to choose; add one by --model.")
    return DemoSetup(
        MixLLMChatModel(candidates=chat_models, router=router),
        router,
        strongest_of(candidates),
        tuple(about),
        failure=failure_of,
    )


def failure_of(error: Exception) -> MixLLMError:
    """Return what to tell a user whose models do not answer.

    Parameters
    ----------
    error
        What a call raised: one model's error, or the group of all of them.

    Returns
    -------
    MixLLMError
        It names the kinds of error and their HTTP status, nothing else of
        what a provider said.
    """
    failures = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
    kinds = []
    for failure in failures:
        status = status_of(failure)
        kinds.append(type(failure).__name__ + (f" ({status})" if status else ""))
    return MixLLMError(
        f"no model answered: {', '.join(dict.fromkeys(kinds))}; check the keys, the "
        "names of the models (--model) and the connection"
    )


def _asked_for(models: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    wanted: list[tuple[str, str]] = []
    for model in models:
        provider, _, name = model.partition(":")
        if provider not in _PROVIDERS or not name:
            raise ConfigurationError(
                f"unknown model {model!r}; write provider:name with a provider of "
                f"{sorted(_PROVIDERS)}"
            )
        if lacking := _lacking(provider):
            raise ConfigurationError(f"{model!r} cannot be asked: {lacking}")
        wanted.append((provider, name))
    return wanted, []


def _found() -> tuple[list[tuple[str, str]], list[str]]:
    wanted: list[tuple[str, str]] = []
    missing: list[str] = []
    for name, provider in _PROVIDERS.items():
        if lacking := _lacking(name):
            missing.append(lacking)
        elif name == "ollama":
            wanted += [(name, model) for model in _ollama_models() or ()]
        else:
            wanted += [(name, model) for model in provider.models]
    return wanted, missing


def _lacking(name: str) -> str:
    """Return what keeps a provider from being asked; empty if nothing does."""
    provider = _PROVIDERS[name]
    if provider.key and not os.environ.get(provider.key, "").strip():
        return f"{provider.key} is not set"
    if name == "ollama":
        models = _ollama_models()
        if models is None:
            return f"no Ollama answers at {_ollama_url()}"
        if not models:
            return f"the Ollama at {_ollama_url()} has no chat model: `ollama pull` one"
    if find_spec(provider.module) is None:
        return (
            f"{provider.module.replace('_', '-')} is not installed: "
            "pip install 'mixllm-integrations[providers]'"
        )
    return ""


def _ollama_url() -> str:
    """Return where an Ollama should be; ``OLLAMA_HOST`` as its own client reads it."""
    host = os.environ.get("OLLAMA_HOST", "").strip().rstrip("/")
    if not host:
        return _OLLAMA_URL
    return host if "://" in host else f"http://{host}"


def _ollama_models() -> list[str] | None:
    """Return the chat models that a local Ollama has; ``None`` without one."""
    try:
        with urllib.request.urlopen(  # noqa: S310 - the user's own address
            f"{_ollama_url()}/api/tags", timeout=_OLLAMA_SECONDS
        ) as response:
            told = json.load(response)
        names = [str(model["name"]) for model in told["models"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return [name for name in names if "embed" not in name][:_OLLAMA_MODELS]


def _chat_model(provider: str, name: str) -> "CandidateModel":
    from mixllm_integrations.langchain import CandidateModel

    known = _PROVIDERS[provider]
    chat_class = getattr(import_module(known.module), known.class_name)
    is_local = provider == "ollama"
    settings = {"base_url": _ollama_url()} if is_local else {}
    price = 0.0 if is_local else None  # None: the list price
    return CandidateModel(
        model=chat_class(model=name, **settings),
        name=name,
        input_cost_per_million_tokens=price,
        output_cost_per_million_tokens=price,
        timeout_seconds=_ANSWER_SECONDS,
    )


def _warm_router(
    candidates: Sequence[Candidate], prompts: Sequence[DemoPrompt]
) -> "Router":
    """Return a router that expects of each candidate what its stand-in would do.

    The shipped router knows four models. The cheapest candidate stands where
    the cheapest of them stands, the dearest where the dearest does.
    """
    from mixllm_integrations.core.router import Router

    shipped = shipped_router()
    texts = [prompt.prompt for prompt in prompts]
    expected = shipped.predict(texts)
    stand_ins = sorted(shipped.candidates, key=_price)
    records = []
    for place, candidate in enumerate(sorted(candidates, key=_price)):
        rank = round(place * (len(stand_ins) - 1) / max(len(candidates) - 1, 1))
        column = expected.candidates.index(stand_ins[rank].name)
        records += [
            RoutingRecord(
                text,
                candidate.name,
                float(expected.quality[row, column]),
                output_tokens=round(float(expected.output_tokens[row, column])),
            )
            for row, text in enumerate(texts)
        ]
    router = Router(
        candidates,
        predictor="ridge",
        willingness_to_pay=shipped.willingness_to_pay,
        seed=0,
    )
    return router.fit(records)


def _price(candidate: Candidate) -> float:
    return candidate.output_cost_per_million_tokens
