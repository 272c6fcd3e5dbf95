"""LangChain chat models as candidates: name, price, abilities, profile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from langchain_core.language_models import BaseChatModel, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from pydantic import TypeAdapter, ValidationError

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import Candidate, number_between
from mixllm_integrations.serving import list_price
from mixllm_integrations.serving.facts import candidate_from
from mixllm_integrations.serving.prices import CachePrice, ListPrice, cache_price

__all__ = [
    "FOLLOWS",
    "CandidateModel",
    "as_candidate_model",
    "common_profile",
    "family_of",
]

#: Whoever lacks the first lacks the others as a matter of course, so these tell
#: nothing of a model that was declared to have the first all the same.
FOLLOWS = {
    "image_inputs": ("image_url_inputs", "image_tool_message"),
    "pdf_inputs": ("pdf_tool_message",),
    "tool_calling": ("tool_choice",),
}
_FAMILIES = {
    "anthropic": "anthropic",
    "azure": "openai",
    "google_genai": "google",
    "openai": "openai",
}


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
    cached_input_cost_per_million_tokens
        USD for a million tokens read from the provider's prompt cache; ``None``:
        from genai-prices.
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
    profile
        What is right where its own profile is wrong or silent, by the keys of
        LangChain's `ModelProfile`, for example ``{"pdf_inputs": True}``; the
        fields above go before it.
    prior_quality
        Expected share of good answers in [0, 1] before anything was learned.
    time_to_first_token_seconds, seconds_per_output_token
        Its speed, where known.
    max_concurrency
        How many calls it serves at once before they queue.

    Raises
    ------
    ConfigurationError
        If `model` is not a chat model, `timeout_seconds` is not positive, the
        cached price is no price, or `profile` has an unknown key or a value of
        the wrong type.
    """

    model: BaseChatModel = field(repr=False)
    name: str | None = None
    input_cost_per_million_tokens: float | None = None
    output_cost_per_million_tokens: float | None = None
    cached_input_cost_per_million_tokens: float | None = None
    timeout_seconds: float | None = None
    context_window: int | None = None
    tools: bool | None = None
    vision: bool | None = None
    structured_output: bool | None = None
    profile: Mapping[str, Any] | None = None
    prior_quality: float | None = None
    time_to_first_token_seconds: float | None = None
    seconds_per_output_token: float | None = None
    max_concurrency: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, BaseChatModel):
            raise ConfigurationError(
                "a candidate must be a LangChain chat model, or a CandidateModel "
                f"around one, not {_told_of(self.model)}"
            )
        if self.timeout_seconds is not None:
            number_between(
                self.timeout_seconds, "timeout_seconds", low_is_allowed=False
            )
        if self.cached_input_cost_per_million_tokens is not None:
            number_between(
                self.cached_input_cost_per_million_tokens,
                "cached_input_cost_per_million_tokens",
                high_is_allowed=False,
            )
        if self.profile is not None:
            _check_profile(self.profile)

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
        profile = self.known_profile()
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

    def known_profile(self) -> dict[str, Any]:
        """Return the model's profile with what was declared here on top.

        Returns
        -------
        dict
            As LangChain's `ModelProfile`; what is only assumed is not in it.
        """
        fields_say = {
            "tool_calling": self.tools,
            "structured_output": self.structured_output,
            "image_inputs": self.vision,
            "max_input_tokens": self.context_window,
        }
        declared = {**(self.profile or {})}
        declared |= {key: said for key, said in fields_say.items() if said is not None}
        own = dict(self.model.profile or {})
        for key, consequences in FOLLOWS.items():
            if declared.get(key) and own.get(key) is False:
                for consequence in consequences:
                    own.pop(consequence, None)
        return own | declared

    def cache_price(self, input_cost: float) -> CachePrice:
        """Return what the provider's prompt cache changes.

        Parameters
        ----------
        input_cost
            USD for a million tokens of input that the cache does not have.

        Returns
        -------
        CachePrice
            In USD per token.
        """
        told = self._told()
        return cache_price(
            told.get("ls_model_name"),
            provider=told.get("ls_provider"),
            input_cost=input_cost,
            declared_read_cost=self.cached_input_cost_per_million_tokens,
        )

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
        schemas = own.with_structured_output is not base.with_structured_output
        able = tools if told is None else told
        return {"tools": tools, "structured_output": schemas or able}


def _told_of(given: object) -> str:
    """Return what was passed instead of a chat model, and the remedy."""
    if isinstance(given, str):
        return f"the string {given!r}: pass langchain's init_chat_model({given!r})"
    if isinstance(given, type):
        return f"the class {given.__name__}: pass an instance, {given.__name__}(...)"
    return (
        f"a {type(given).__name__}; retries, limits and settings belong on the chat "
        "model itself"
    )


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


def family_of(model: BaseChatModel) -> str | None:
    """Return whose form of tools a model's class speaks.

    Parameters
    ----------
    model
        Any chat model.

    Returns
    -------
    str or None
        ``"anthropic"``, ``"google"``, ``"openai"``; ``None`` if it is none of
        these or unknown.
    """
    provider = model._get_ls_params().get("ls_provider")  # noqa: SLF001
    return _FAMILIES.get(provider) if isinstance(provider, str) else None


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
    profiles = [candidate.known_profile() for candidate in candidates]
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


def _check_profile(profile: Mapping[str, Any]) -> None:
    known = ModelProfile.__annotations__
    for key in profile:
        if key not in known:
            raise ConfigurationError(
                f"profile has the unknown key {key!r}; the keys of LangChain's "
                f"ModelProfile are {', '.join(known)}"
            )
    try:
        TypeAdapter(ModelProfile).validate_python(dict(profile), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigurationError(
            f"profile[{where!r}] cannot be {first['input']!r}: {first['msg']}"
        ) from None
