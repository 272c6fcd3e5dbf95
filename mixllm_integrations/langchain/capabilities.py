"""LangChain chat models as candidates: name, price, abilities, profile."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from langchain_core.language_models import BaseChatModel, ModelProfile
from langchain_core.language_models.base import LangSmithParams

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import Candidate, number_between
from mixllm_integrations.serving import list_price
from mixllm_integrations.serving.facts import candidate_from
from mixllm_integrations.serving.prices import ListPrice

__all__ = ["CandidateModel", "as_candidate_model", "common_profile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateModel:
    """One chat model with what the router has to know about it.

    A chat model passed bare is the same as one wrapped with `model` alone.

    Parameters
    ----------
    model
        Any LangChain chat model; never shown or stored, since it holds a key.
    name
        What decisions and reports call it; ``None``: its model's name.
    input_cost_per_million_tokens, output_cost_per_million_tokens
        List prices in USD, 0 is legal; ``None``: what a given router knows, else
        from the genai-prices package.
    timeout_seconds
        How long to wait for its answer, or for the first chunk of a stream,
        before another candidate takes over; ``None``: as long as it takes.
    context_window
        Tokens of prompt that it takes; ``None``: from its profile, else from
        genai-prices, else no limit.
    tools, structured_output
        Whether it calls tools or answers in a schema; ``None``: what its
        profile says, else whether its class offers it.
    vision
        Whether it reads images; ``None``: what its profile says, else unknown,
        so it is tried.
    prior_quality
        Expected share of good answers in [0, 1] before anything was learned.
    time_to_first_token_seconds, seconds_per_output_token
        Its speed, where known.
    max_concurrency
        How many calls it serves at once before they queue.

    Raises
    ------
    ConfigurationError
        If `model` is not a chat model, or `timeout_seconds` is not positive.
    """

    model: BaseChatModel = field(repr=False)
    name: str | None = None
    input_cost_per_million_tokens: float | None = None
    output_cost_per_million_tokens: float | None = None
    timeout_seconds: float | None = None
    context_window: int | None = None
    tools: bool | None = None
    vision: bool | None = None
    structured_output: bool | None = None
    prior_quality: float | None = None
    time_to_first_token_seconds: float | None = None
    seconds_per_output_token: float | None = None
    max_concurrency: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, BaseChatModel):
            raise ConfigurationError(
                "a candidate must be a LangChain chat model, or a CandidateModel "
                f"around one, not a {type(self.model).__name__}; retries, limits and "
                "settings belong on the chat model itself"
            )
        if self.timeout_seconds is not None:
            number_between(
                self.timeout_seconds, "timeout_seconds", low_is_allowed=False
            )

    def known_name(self) -> str:
        """Return what decisions call it.

        Returns
        -------
        str
            The name that was passed, else its model's.

        Raises
        ------
        ConfigurationError
            If there is none.
        """
        name = self.name if self.name is not None else self.model_name()
        if name is None:
            raise ConfigurationError(
                f"a {type(self.model).__name__} does not tell its model's name: wrap "
                "it in CandidateModel(model=..., name=...)"
            )
        return name

    def model_name(self) -> str | None:
        """Return what the provider calls its model.

        Returns
        -------
        str or None
            ``None`` if the model does not tell.
        """
        return self._told().get("ls_model_name")

    def candidate(self, known: Candidate | None = None) -> Candidate:
        """Return what the router sees of it.

        Parameters
        ----------
        known
            What the router knew of a candidate of that name; it stands in for
            what was not passed here, before the list price does.

        Returns
        -------
        Candidate
            Name, prices and abilities; nothing of the model itself.

        Raises
        ------
        ConfigurationError
            If its name or price is unknown, or a value cannot be used.
        """
        profile = self.model.profile or {}
        calls_tools = profile.get("tool_calling")
        native = profile.get("structured_output")
        return candidate_from(
            self.known_name(),
            declared={f.name: getattr(self, f.name) for f in fields(Candidate)},
            told={
                "context_window": profile.get("max_input_tokens"),
                "tools": calls_tools,
                "vision": profile.get("image_inputs"),
                # A schema is filled natively, or by way of a tool.
                "structured_output": (
                    None if native is None else bool(native or calls_tools)
                ),
            },
            offered=self._offered(told=calls_tools),
            known=known,
            listed=self._listed,
        )

    def profile(self) -> dict[str, Any]:
        """Return the model's profile with what was declared here on top.

        Returns
        -------
        dict
            As LangChain's `ModelProfile`; what is only assumed is not in it.
        """
        declared = {
            "tool_calling": self.tools,
            "structured_output": self.structured_output,
            "image_inputs": self.vision,
            "max_input_tokens": self.context_window,
        }
        told = {key: value for key, value in declared.items() if value is not None}
        return {**(self.model.profile or {}), **told}

    def _told(self) -> LangSmithParams:
        return self.model._get_ls_params()  # noqa: SLF001 - as every tracer asks

    def _listed(self) -> ListPrice:
        told = self._told()
        return list_price(
            told.get("ls_model_name") or self.known_name(),
            provider=told.get("ls_provider"),
        )

    def _offered(self, *, told: bool | None) -> dict[str, bool]:
        """Return what its class can do, tools also where they were told of."""
        own, base = type(self.model), BaseChatModel
        tools = own.bind_tools is not base.bind_tools
        says = told if self.tools is None else self.tools
        schemas = own.with_structured_output is not base.with_structured_output
        able = tools if says is None else says
        return {"tools": tools, "structured_output": schemas or able}


def as_candidate_model(given: BaseChatModel | CandidateModel) -> CandidateModel:
    """Return a chat model as a candidate.

    Parameters
    ----------
    given
        A chat model, or one with facts about it.

    Returns
    -------
    CandidateModel
        The same, wrapped.

    Raises
    ------
    ConfigurationError
        If it is no chat model.
    """
    return given if isinstance(given, CandidateModel) else CandidateModel(model=given)


def common_profile(candidates: Sequence[CandidateModel]) -> ModelProfile | None:
    """Return what holds for every candidate, whoever answers.

    Parameters
    ----------
    candidates
        The candidates.

    Returns
    -------
    ModelProfile or None
        An ability only if all have it, the smallest of each limit; a key that
        one of them does not have is left out. ``None`` if nothing is left.
    """
    profiles = [candidate.profile() for candidate in candidates]
    common: dict[str, Any] = {}
    for key in profiles[0]:
        values = [profile[key] for profile in profiles if key in profile]
        if len(values) < len(profiles):
            continue
        if all(isinstance(value, bool) for value in values):
            common[key] = all(values)
        elif all(isinstance(value, int | float) for value in values):
            common[key] = min(values)
        elif all(value == values[0] for value in values):
            common[key] = values[0]
    return ModelProfile(**common) if common else None  # type: ignore[typeddict-item]
