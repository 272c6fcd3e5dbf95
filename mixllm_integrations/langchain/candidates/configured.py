"""A file of candidates as what a routed chat model is made of."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from mixllm_integrations.langchain.capabilities import CandidateModel
from mixllm_integrations.langchain.settings import models_of
from mixllm_integrations.serving.candidates_file import (
    CandidatesFile,
    read_candidates_file,
)
from mixllm_integrations.serving.candidates_tables import CandidateEntry
from mixllm_integrations.serving.chat_models import (
    chat_model,
    configured_router,
    serving_settings,
)

__all__ = ["settings_from"]


def settings_from(
    path: str | PathLike[str], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the constructor is given for a file of candidates.

    Parameters
    ----------
    path
        The file.
    overrides
        What goes before it: `candidates` and `router` are not made then.

    Raises
    ------
    ConfigurationError
        If the file cannot be used.
    """
    file = read_candidates_file(Path(path))
    settings = {**serving_settings(file), **overrides}
    if "candidates" not in settings:
        settings["candidates"] = [
            _candidate_model(file, entry, number)
            for number, entry in enumerate(file.candidates)
        ]
    if settings.get("router") is None:
        models = models_of(settings["candidates"])
        settings["candidates"] = models
        settings["router"] = configured_router(file, [m.candidate() for m in models])
    return settings


def _candidate_model(
    file: CandidatesFile, entry: CandidateEntry, number: int
) -> CandidateModel:
    fact = file.fact(entry, "candidates", number)
    return CandidateModel(
        model=chat_model(file, entry, "candidates", number),
        name=entry.known_name,
        input_cost_per_million_tokens=fact.input_cost_per_million_tokens,
        output_cost_per_million_tokens=fact.output_cost_per_million_tokens,
        cached_input_cost_per_million_tokens=entry.cached_input_cost_per_million_tokens,
        timeout_seconds=entry.timeout_seconds,
        context_window=entry.context_window,
        tools=entry.tools,
        vision=entry.vision,
        structured_output=entry.structured_output,
        prior_quality=entry.prior_quality,
        time_to_first_token_seconds=entry.time_to_first_token_seconds,
        seconds_per_output_token=entry.seconds_per_output_token,
        max_concurrency=entry.max_concurrency,
    )
