"""The tables of a file of candidates, as pydantic checks them."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving.prices import list_price

__all__ = ["CandidateEntry", "CandidatesTables", "RouterTable", "ServingTable"]

_Money = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=1)]
_Text = Annotated[str, Field(min_length=1, pattern=r"\S")]

# How genai-prices calls those whom LangChain calls otherwise.
_SELLERS = {
    "anthropic_bedrock": "aws",
    "azure_ai": "azure",
    "azure_openai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "google_genai": "google",
    "google_vertexai": "google",
    "mistralai": "mistral",
    "xai": "x-ai",
}
_FREE = frozenset({"ollama"})  # it runs on one's own machine


class _Table(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True
    )


class CandidateEntry(_Table):
    """One model: who it is, what it costs, how it is reached.

    Parameters
    ----------
    model
        ``"provider:name"`` as LangChain's `init_chat_model` takes it;
        ``None``: the entry only tells prices.
    name
        What decisions and records call it; ``None``: the name in `model`.
    input_cost_per_million_tokens, output_cost_per_million_tokens
        USD; ``None``: the list price, and 0 for a local Ollama.
    cached_input_cost_per_million_tokens
        USD for what the provider's prompt cache reads; ``None``: listed.
    timeout_seconds
        How long to wait for an answer before another candidate takes over.
    context_window, tools, vision, structured_output, prior_quality
        As for `Candidate`; ``None``: what the model's own profile says.
    time_to_first_token_seconds, seconds_per_output_token, max_concurrency
        As for `Candidate`.
    arguments
        Given to the chat model's class: ``base_url``, ``temperature``, ….
    api_key_env
        Name of the environment variable that holds its ``api_key``; ``None``:
        the one that the provider's class reads on its own.
    arguments_env
        Other arguments that come from variables of the environment, by name.
    llama_index
        Given to the LlamaIndex class instead of `arguments`; ``None``: those,
        with ``base_url`` under the name that the class has for it.
    """

    model: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+:\S.*$")
    name: _Text | None = None
    input_cost_per_million_tokens: _Money | None = None
    output_cost_per_million_tokens: _Money | None = None
    cached_input_cost_per_million_tokens: _Money | None = None
    timeout_seconds: _Above | None = None
    context_window: _Count | None = None
    tools: bool | None = None
    vision: bool | None = None
    structured_output: bool | None = None
    prior_quality: _Share | None = None
    time_to_first_token_seconds: _Money | None = None
    seconds_per_output_token: _Money | None = None
    max_concurrency: _Count | None = None
    arguments: dict[str, Any] = Field(default_factory=dict, repr=False)
    api_key_env: _Text | None = None
    arguments_env: dict[str, _Text] = Field(default_factory=dict)
    llama_index: dict[str, Any] | None = Field(default=None, repr=False)

    @model_validator(mode="after")
    def _can_be_told(self) -> Self:
        if self.model is None and self.name is None:
            raise ValueError(
                "a candidate needs a model, such as 'openai:gpt-4o-mini', or at "
                "least a name"
            )
        prices = self.input_cost_per_million_tokens, self.output_cost_per_million_tokens
        if self.model is None and None in prices:
            raise ValueError(
                "a candidate without a model needs input_cost_per_million_tokens and "
                "output_cost_per_million_tokens"
            )
        return self

    @property
    def known_name(self) -> str:
        """What decisions and records call it."""
        return self.name or self.model_name

    @property
    def provider(self) -> str:
        """Who serves it; empty if the entry only tells prices."""
        return (self.model or "").partition(":")[0].lower().replace("-", "_")

    @property
    def model_name(self) -> str:
        """What its provider calls it; empty if the entry only tells prices."""
        return (self.model or "").partition(":")[2].strip()

    def prices(self) -> tuple[float, float]:
        """Return USD per million tokens of input and of output.

        Raises
        ------
        ConfigurationError
            If one is neither in the file nor in the list of prices.
        """
        given = self.input_cost_per_million_tokens, self.output_cost_per_million_tokens
        if None in given and self.provider in _FREE:
            listed = (0.0, 0.0)
        elif None in given:
            seller = _SELLERS.get(self.provider, self.provider)
            found = list_price(self.model_name, provider=seller)
            listed = (
                found.input_cost_per_million_tokens,
                found.output_cost_per_million_tokens,
            )
        else:
            listed = (0.0, 0.0)
        prompt, answer = (
            own if own is not None else other
            for own, other in zip(given, listed, strict=True)
        )
        return prompt, answer

    def fact(self) -> Candidate:
        """Return what a router sees of it.

        Raises
        ------
        ConfigurationError
            If its price is unknown.
        """
        prompt, answer = self.prices()
        told = {
            name: getattr(self, name)
            for name in (
                *("context_window", "tools", "vision", "structured_output"),
                *("prior_quality", "time_to_first_token_seconds"),
                *("seconds_per_output_token", "max_concurrency"),
            )
            if getattr(self, name) is not None
        }
        return Candidate(self.known_name, prompt, answer, **told)


class RouterTable(_Table):
    """How the router is set up.

    Parameters
    ----------
    state
        A folder of `Router.save`, as ``mixllm fit`` writes it, relative to the
        file; ``None``: a new router. What it was saved with stays, except what
        may be set at any time: everything down to `when_spent`.
    willingness_to_pay, exploration, waiting_weight, waiting_tolerance_seconds
        As for `Router`, and so are all others; ``None``: as it was saved, else
        the default.
    max_cost_per_query, spending_budget, spending_period_seconds, when_spent
        What may be spent.
    predictor, binary_feedback, implicit_signals, refit_every, forgetting
        How it learns.
    exploration_budget, randomisation, seed
        How it explores.
    """

    state: _Text | None = None
    willingness_to_pay: _Above | None = None
    exploration: _Money | None = None
    waiting_weight: _Money | None = None
    waiting_tolerance_seconds: _Above | None = None
    max_cost_per_query: _Money | None = None
    spending_budget: _Money | None = None
    spending_period_seconds: _Above | None = None
    when_spent: Literal["cheapest", "stop"] | None = None
    predictor: _Text | None = None
    binary_feedback: Literal["bayes", "policy_gradient"] | None = None
    implicit_signals: list[str] | None = None
    refit_every: _Count | None = None
    forgetting: Annotated[float, Field(gt=0, le=1)] | None = None
    exploration_budget: _Share | None = None
    randomisation: _Share | None = None
    seed: Annotated[int, Field(ge=0)] | None = None


class ServingTable(_Table):
    """What `MixLLMChatModel` and `MixLLM` are given beside the candidates.

    Parameters
    ----------
    store
        URL of the event log, such as ``"sqlite:///mixllm.db"``.
    shared_state
        Where workers meet, such as ``"redis://host:6379/0"``.
    cooldown_seconds
        How long a candidate that failed is left alone.
    give_up_after_seconds
        How long a call goes on if all candidates fail.
    """

    store: _Text | None = None
    shared_state: _Text | None = None
    cooldown_seconds: _Money | None = None
    give_up_after_seconds: _Money | None = None


class CandidatesTables(_Table):
    """All tables of a file.

    Parameters
    ----------
    candidates
        The models, in the order of the file.
    judge
        Who grades answers.
    router
        How the router is set up.
    serving
        What the routed model is given beside the candidates.
    """

    candidates: Annotated[list[CandidateEntry], Field(min_length=1)]
    judge: CandidateEntry | None = None
    router: RouterTable = Field(default_factory=RouterTable)
    serving: ServingTable = Field(default_factory=ServingTable)
