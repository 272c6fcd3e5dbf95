"""The values that travel between the stages of a query's life.

All are frozen: a stage makes a new value, it never changes one it was given.
Units live in the names; money is always USD.
"""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.checks import (
    number_between,
    optional_number,
    optional_truth,
    required_name,
)
from mixllm_integrations.core.display import Explained, HtmlCalibration
from mixllm_integrations.core.errors import ConfigurationError

__all__ = [
    "FEEDBACK_KINDS",
    "IMPLICIT_SIGNALS",
    "REQUIREMENTS",
    "BatchPrediction",
    "Calibration",
    "Candidate",
    "Decision",
    "Feedback",
    "FeedbackKind",
    "FloatArray",
    "ImplicitSignal",
    "Outcome",
    "Prediction",
    "Requirement",
    "RoutingRecord",
    "number_between",
]

FloatArray: TypeAlias = NDArray[np.float64]
Requirement = Literal["tools", "vision", "structured_output"]
FeedbackKind = Literal["refined", "binary"]
ImplicitSignal = Literal["regenerate", "tool_error", "parse_failure", "truncated"]

REQUIREMENTS: tuple[Requirement, ...] = get_args(Requirement)
FEEDBACK_KINDS: tuple[FeedbackKind, ...] = get_args(FeedbackKind)
IMPLICIT_SIGNALS: tuple[ImplicitSignal, ...] = get_args(ImplicitSignal)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One language model that a router may choose.

    Parameters
    ----------
    name
        What decisions, records and reports call it; unique in a router.
    input_cost_per_million_tokens, output_cost_per_million_tokens
        List prices in USD. 0 is legal, for example for a local model.
    context_window
        How many tokens of prompt it takes; ``None``: no limit is applied.
    tools, structured_output
        Whether it can call tools, or answer in a given schema.
    vision
        Whether it reads images; ``None``: unknown, so it is tried.
    prior_quality
        Expected share of good answers in [0, 1] before anything was learned,
        for example a published benchmark score; ``None``: that of its price
        class.
    time_to_first_token_seconds, seconds_per_output_token
        Its speed, where known. Measured outcomes take over from it.
    max_concurrency
        How many calls it serves at once before they queue.

    Raises
    ------
    ConfigurationError
        If a value cannot be used.

    Examples
    --------
    >>> Candidate("small", 0.1, 0.4).name
    'small'
    """

    name: str
    input_cost_per_million_tokens: float
    output_cost_per_million_tokens: float
    _: KW_ONLY
    context_window: int | None = None
    tools: bool = True
    vision: bool | None = None
    structured_output: bool = True
    prior_quality: float | None = None
    time_to_first_token_seconds: float | None = None
    seconds_per_output_token: float | None = None
    max_concurrency: int | None = None

    def __post_init__(self) -> None:
        required_name(self.name, "a candidate's name")
        whose = f"of candidate {self.name!r}"
        for price in (
            "input_cost_per_million_tokens",
            "output_cost_per_million_tokens",
        ):
            if getattr(self, price) is None:
                raise ConfigurationError(
                    f"{price} {whose} is unknown: pass its list price in USD (0 for "
                    "a model that costs nothing)"
                )
            value = getattr(self, price)
            number_between(value, f"{price} {whose}", high_is_allowed=False)
        for ability in REQUIREMENTS:
            optional_truth(getattr(self, ability), f"{ability} {whose}")
        optional_number(self.prior_quality, f"prior_quality {whose}", high=1.0)
        for speed in ("time_to_first_token_seconds", "seconds_per_output_token"):
            optional_number(getattr(self, speed), f"{speed} {whose}")
        for limit in ("context_window", "max_concurrency"):
            value = getattr(self, limit)
            if value is not None:
                number_between(
                    value, f"{limit} {whose}", low=1.0, high_is_allowed=False
                )


@dataclass(frozen=True, slots=True)
class RoutingRecord:
    """One candidate's answer to one query, with how good it was: a label.

    Parameters
    ----------
    query
        The text that was asked.
    candidate
        Who answered.
    quality
        How good the answer was, in [0, 1].
    input_tokens, output_tokens
        Lengths as the candidate's own tokenizer counts them.
    cost
        What it cost in USD; authoritative over tokens × price.
    latency_seconds
        How long the whole answer took.
    tags
        What the query is about, for example ``("law",)``.

    Raises
    ------
    ConfigurationError
        If a value cannot be used; the message never shows the query.
    """

    query: str
    candidate: str
    quality: float
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    latency_seconds: float | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.query, str):
            raise ConfigurationError(
                f"a record's query must be a string, not a {type(self.query).__name__}"
            )
        required_name(self.candidate, "a record's candidate")
        whose = f"in a record of candidate {self.candidate!r}"
        number_between(
            self.quality, f"quality {whose}", high=1.0, truth_is_allowed=True
        )
        for name in ("input_tokens", "output_tokens", "cost", "latency_seconds"):
            optional_number(getattr(self, name), f"{name} {whose}")
        if not isinstance(self.tags, tuple | list) or not all(
            isinstance(tag, str) for tag in self.tags
        ):
            raise ConfigurationError(f"tags {whose} must be a tuple of strings")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What really happened when the chosen candidate was called.

    Parameters
    ----------
    input_tokens, output_tokens
        Lengths as the candidate reported them.
    cost
        USD; ``None``: computed from the tokens and the candidate's prices.
    latency_seconds
        Time of the whole answer.
    time_to_first_token_seconds
        Time until the first chunk of a stream.
    error
        Name of the exception's type if the call failed. A failed call teaches
        availability, never quality.
    """

    input_tokens: int
    output_tokens: int
    cost: float | None = None
    latency_seconds: float | None = None
    time_to_first_token_seconds: float | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        for name in ("input_tokens", "output_tokens"):
            number_between(
                getattr(self, name), f"an outcome's {name}", high_is_allowed=False
            )
        for name in ("cost", "latency_seconds", "time_to_first_token_seconds"):
            optional_number(getattr(self, name), f"an outcome's {name}")
        if self.error is not None and not isinstance(self.error, str):
            raise ConfigurationError(
                "an outcome's error must be the name of the exception's type, not "
                f"a {type(self.error).__name__}"
            )


@dataclass(frozen=True, slots=True)
class Feedback:
    """How good the chosen candidate's answer was.

    Parameters
    ----------
    decision_id
        Which decision it speaks of.
    reward
        In [0, 1]; exactly 0 or 1 if `kind` is ``"binary"``.
    kind
        ``"refined"``: a measured quality. ``"binary"``: satisfied or not.
    source
        Who says so, for example ``"thumbs"`` or ``"judge"``.
    """

    decision_id: str
    reward: float
    kind: FeedbackKind = "refined"
    source: str | None = None

    def __post_init__(self) -> None:
        number_between(self.reward, "a reward", high=1.0, truth_is_allowed=True)
        if self.kind not in FEEDBACK_KINDS:
            raise ConfigurationError(
                f"unknown kind of feedback {self.kind!r}; use one of {FEEDBACK_KINDS}"
            )
        if self.kind == "binary" and self.reward not in (0.0, 1.0):
            raise ConfigurationError(
                f"a binary reward must be 0 or 1, not {self.reward!r}; "
                'pass kind="refined" for grades between'
            )
        if self.source is not None and not isinstance(self.source, str):
            raise ConfigurationError(
                f"a source must be a string, not a {type(self.source).__name__}"
            )


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the router expects of one candidate for one query.

    Parameters
    ----------
    quality
        Predicted quality in [0, 1], what was learned online included.
    output_tokens
        Predicted length of the answer.
    cost
        Predicted cost in USD.
    uncertainty
        Width sqrt(xᵀA⁻¹x) of the candidate's design matrix at this query.
    waiting_seconds
        Expected wait for calls that are under way.
    waiting_penalty
        What that wait is charged, before `waiting_weight`.
    score
        What the decision compares, in units of quality; ``-inf`` if excluded.
    """

    quality: float
    output_tokens: float
    cost: float
    uncertainty: float = 0.0
    waiting_seconds: float = 0.0
    waiting_penalty: float = 0.0
    score: float = -math.inf


@dataclass(frozen=True, slots=True)
class BatchPrediction:
    """Predictions for several queries.

    Parameters
    ----------
    candidates
        Names, in the order of the columns.
    quality, output_tokens, cost, uncertainty
        Arrays of shape ``(n_queries, n_candidates)``; cost in USD.
    """

    candidates: tuple[str, ...]
    quality: FloatArray
    output_tokens: FloatArray
    cost: FloatArray
    uncertainty: FloatArray


@dataclass(frozen=True, slots=True)
class Decision(Explained):
    """Which candidate a query goes to, and why.

    Parameters
    ----------
    id
        Name of the decision; outcome and feedback refer to it.
    candidate
        The chosen one.
    scores
        What was expected of each candidate, the excluded ones included.
    willingness_to_pay
        USD for one whole point of quality at the time of the decision.
    explored
        Whether the choice differs from the one without the exploration term.
    propensity
        Probability with which this choice was made.
    excluded
        Which hard limit took each candidate out of the competition.
    input_tokens
        Length of the prompt that was assumed.
    exploration, waiting_weight
        The weights that were in force; 0 where Thompson sampling drew instead of
        adding a bonus.
    novelty
        How far the query is from all that was learned from: 1 is as usual, 5
        five times as far (squared); NaN while nothing was learned.
    """

    id: str
    candidate: str
    scores: Mapping[str, Prediction]
    willingness_to_pay: float
    explored: bool = False
    propensity: float = 1.0
    excluded: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    input_tokens: int = 0
    exploration: float = 0.0
    waiting_weight: float = 0.0
    novelty: float = math.nan

    @property
    def prediction(self) -> Prediction:
        """What was expected of the chosen candidate."""
        return self.scores[self.candidate]


@dataclass(frozen=True, slots=True)
class Calibration(HtmlCalibration):
    """A willingness to pay that meets a target, and what to expect of it.

    Parameters
    ----------
    willingness_to_pay
        The value found, in USD per point of quality.
    quality, cost
        Expected mean quality and mean cost per query (USD) with it.
    relative_quality, relative_cost
        The same relative to the strongest candidate.
    relative_quality_interval, relative_cost_interval
        Their 95 % confidence intervals over the queries.
    strongest
        The candidate that they are relative to.
    n_queries
        On how many held-out queries they were measured.
    target_reached
        Whether any value met the target; if not, this is the nearest one.
    """

    willingness_to_pay: float
    quality: float
    cost: float
    relative_quality: float
    relative_cost: float
    relative_quality_interval: tuple[float, float]
    relative_cost_interval: tuple[float, float]
    strongest: str
    n_queries: int
    target_reached: bool
