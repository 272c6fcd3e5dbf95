"""LangChain chat models and routers, made as a file of candidates says."""

import os
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving.candidates_file import (
    CandidatesFile,
    CandidatesFileError,
)
from mixllm_integrations.serving.candidates_tables import CandidateEntry
from mixllm_integrations.serving.toml_lines import KeyPath

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

__all__ = ["arguments_of", "chat_model", "configured_router", "serving_settings"]

# Where `langchain`, which knows all providers, is not installed.
_CLASSES = {
    "anthropic": ("langchain_anthropic", "ChatAnthropic"),
    "deepseek": ("langchain_deepseek", "ChatDeepSeek"),
    "google_genai": ("langchain_google_genai", "ChatGoogleGenerativeAI"),
    "groq": ("langchain_groq", "ChatGroq"),
    "mistralai": ("langchain_mistralai", "ChatMistralAI"),
    "ollama": ("langchain_ollama", "ChatOllama"),
    "openai": ("langchain_openai", "ChatOpenAI"),
    "xai": ("langchain_xai", "ChatXAI"),
}
# Where each provider's own package looks for a key that it is not given.
_KEYS = {
    "anthropic": "ANTHROPIC_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "google_genai": "GOOGLE_API_KEY",
    "groq": "GROQ_API_KEY",
    "mistralai": "MISTRAL_API_KEY",
    "openai": "OPENAI_API_KEY",
    "xai": "XAI_API_KEY",
}
# May be changed at any time; the others are of a router's making.
_SETTABLE = (
    *("willingness_to_pay", "exploration", "waiting_weight"),
    *("waiting_tolerance_seconds", "max_cost_per_query", "spending_budget"),
    *("spending_period_seconds", "when_spent"),
)


def arguments_of(
    file: CandidatesFile, entry: CandidateEntry, *place: str | int
) -> dict[str, Any]:
    """Return what a model's class is given, keys out of the environment included.

    Parameters
    ----------
    file
        Where the entry stands.
    entry
        One of its candidates, or its judge.
    *place
        Of the entry in the file, for errors.

    Raises
    ------
    CandidatesFileError
        If a variable is not set.
    """
    found = dict(entry.arguments)
    named: list[tuple[str, str, KeyPath]] = [
        (argument, variable, ("arguments_env", argument))
        for argument, variable in entry.arguments_env.items()
    ]
    if entry.api_key_env is not None:
        named.append(("api_key", entry.api_key_env, ("api_key_env",)))
    for argument, variable, path in named:
        value = os.environ.get(variable, "").strip()
        if not value:
            raise file.error(
                f"names the environment variable {variable!r}, which is not set",
                *place,
                *path,
            )
        found[argument] = value
    return found


def chat_model(
    file: CandidatesFile,
    entry: CandidateEntry,
    *place: str | int,
    **defaults: Any,  # noqa: ANN401 - of the model's class
) -> "BaseChatModel":
    """Return the LangChain chat model of an entry, ready to be asked.

    By `init_chat_model` where `langchain` is installed, else by the class that
    the provider's own package has.

    Parameters
    ----------
    file
        Where the entry stands.
    entry
        One of its candidates, or its judge.
    *place
        Of the entry in the file, for errors.
    **defaults
        Arguments that the entry's own go before.

    Raises
    ------
    CandidatesFileError
        If the entry names no model, its package is not installed, a variable of
        the environment is not set, or the class refuses its arguments.
    """
    if entry.model is None:
        raise file.error(
            "is missing: who is to be asked needs one, such as 'openai:gpt-4o-mini'",
            *place,
            "model",
        )
    given = {**defaults, **arguments_of(file, entry, *place)}
    try:
        if find_spec("langchain") is not None:
            from langchain.chat_models import init_chat_model

            made: BaseChatModel = init_chat_model(
                entry.model_name, model_provider=entry.provider, **given
            )
            return made
        return _without_langchain(entry, given)
    except ImportError as error:
        package = _package(entry.provider)
        raise file.error(
            f"needs the package {package}, which is not installed: "
            f"pip install {package}",
            *place,
            "model",
        ) from error
    except Exception as error:  # noqa: BLE001 - of somebody else's class
        # What a class says of its arguments may quote them, and so a key.
        raise file.error(
            f"cannot be made of these arguments ({type(error).__name__}); "
            f"given were {sorted(given)}{_missing_key(entry, given)}",
            *place,
            "model",
        ) from None


def _missing_key(entry: CandidateEntry, given: dict[str, Any]) -> str:
    """Return what to do about a key, if there seems to be none."""
    variable = _KEYS.get(entry.provider or "")
    if variable is None or "api_key" in given or os.environ.get(variable):
        return ""
    return f"; {variable} is not set: set it, or name another variable by api_key_env"


def _without_langchain(entry: CandidateEntry, given: dict[str, Any]) -> "BaseChatModel":
    if entry.provider not in _CLASSES:
        raise ImportError(entry.provider)
    module, name = _CLASSES[entry.provider]
    made: BaseChatModel = getattr(import_module(module), name)(
        model=entry.model_name, **given
    )
    return made


def _package(provider: str) -> str:
    if provider in _CLASSES:
        return _CLASSES[provider][0].replace("_", "-")
    return "langchain (with the provider's own package)"


def configured_router(file: CandidatesFile, candidates: Sequence[Candidate]) -> Router:
    """Return the router that a file describes.

    Parameters
    ----------
    file
        A file of candidates.
    candidates
        What the models are found to be; used where no saved state is named.

    Returns
    -------
    Router
        The one that was saved with what may be set at any time set, or a new
        one.

    Raises
    ------
    CandidatesFileError
        If there is no saved router where the file says, or a setting is refused.
    """
    table = file.router
    told = {
        name: getattr(table, name)
        for name in type(table).model_fields
        if name != "state" and getattr(table, name) is not None
    }
    try:
        if table.state is None:
            return Router(candidates, **told)
        folder = file.beside(table.state)
        if not folder.is_dir():
            raise file.error(
                f"names a folder that is not there: {table.state!r}; `mixllm fit` "
                "makes one",
                "router",
                "state",
            )
        router = Router.load(folder)
        for name in _SETTABLE:
            if name in told:
                setattr(router, name, told[name])
        return router
    except ConfigurationError as error:
        raise _placed(file, error) from error


def _placed(file: CandidatesFile, error: ConfigurationError) -> ConfigurationError:
    if isinstance(error, CandidatesFileError):
        return error
    named = [n for n in type(file.router).model_fields if n in str(error)]
    return file.error(f"is refused: {error}", "router", *named[:1])


def serving_settings(file: CandidatesFile) -> dict[str, Any]:
    """Return what a routed model is given beside candidates and router.

    Parameters
    ----------
    file
        A file of candidates; a relative path in a SQLite URL counts from the
        folder of the process, as everywhere.
    """
    return file.serving.model_dump(exclude_none=True)
