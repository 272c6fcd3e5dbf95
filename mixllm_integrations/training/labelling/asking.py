"""Asks one candidate: bounded, patient, at a price that is known before."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from mixllm_integrations.core.errors import ConfigurationError, MixLLMError
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving.error_facts import status_of
from mixllm_integrations.serving.errors import (
    is_callers_mistake,
    is_lasting,
    is_unable,
)
from mixllm_integrations.serving.query import text_tokens
from mixllm_integrations.serving.retry_after import retry_after_seconds
from mixllm_integrations.training.labelling.prompts import PromptItem, digest_of
from mixllm_integrations.training.labelling.till import Till
from mixllm_integrations.training.tag_asking import model_name

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

__all__ = [
    "Answer",
    "Asked",
    "CandidateLike",
    "GivenUpError",
    "Patience",
    "UnreadableGradeError",
    "bounded",
    "failure_name",
]

T = TypeVar("T")

# Names under which chat models know the most tokens that they may answer with.
_LIMITS = (
    *("max_tokens", "max_completion_tokens", "max_output_tokens"),
    *("max_tokens_to_sample", "num_predict"),
)
_LONGEST_WAIT_SECONDS = 60.0


@runtime_checkable
class CandidateLike(Protocol):
    """A chat model with what a router has to know of it, as `CandidateModel`."""

    @property
    def model(self) -> Any:  # noqa: ANN401 - a `BaseChatModel`
        """Return the chat model."""
        ...

    def candidate(self) -> Candidate:
        """Return name and prices."""
        ...


class GivenUpError(MixLLMError):
    """A candidate is not asked any more: every call would fail in the same way."""


class UnreadableGradeError(MixLLMError):
    """A judge gave no grade that can be used.

    Parameters
    ----------
    paid
        USD that it has cost all the same; ``None``: nobody knows.
    """

    def __init__(self, paid: float | None = None) -> None:
        self.paid = paid
        super().__init__("the judge gave no grade that can be read")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a candidate said, and what it took.

    Parameters
    ----------
    text
        The answer.
    input_tokens, output_tokens
        As the provider counted them, else estimated.
    cost
        USD, at the candidate's prices.
    latency_seconds
        How long the call took.
    """

    text: str
    input_tokens: int
    output_tokens: int
    cost: float
    latency_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often a call is made again.

    Parameters
    ----------
    attempts
        How many calls at most.
    first_wait_seconds
        Before the second; twice as long before each further one, and never
        less than the provider asks for.
    timeout_seconds
        After which a call is given up.
    """

    attempts: int = 4
    first_wait_seconds: float = 1.0
    timeout_seconds: float = 180.0

    async def over(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call until it succeeds.

        Parameters
        ----------
        call
            What to do.

        Raises
        ------
        Exception
            What the last attempt raised.
        """
        for attempt in range(1, self.attempts + 1):
            try:
                return await call()
            except Exception as error:
                # Our own errors, such as a full disk, no further call would mend.
                is_ours = isinstance(error, MixLLMError)
                is_ours = is_ours and not isinstance(error, UnreadableGradeError)
                if is_ours or attempt == self.attempts or is_lasting(error):
                    raise
                wait = self.first_wait_seconds * 2 ** (attempt - 1)
                wait *= random.uniform(1.0, 1.3)  # noqa: S311 - not all at once
                wait = max(wait, retry_after_seconds(error) or 0.0)
                await asyncio.sleep(min(wait, _LONGEST_WAIT_SECONDS))
        raise AssertionError  # pragma: no cover - the loop returns or raises


@dataclass(slots=True)
class Asked:
    """One candidate of a run.

    Parameters
    ----------
    candidate
        Name and prices.
    model
        Its chat model, not bounded yet.
    max_output_tokens
        The longest answer that it may give.
    identity
        What its answers depend on, beside the prompt; empty: its name and model.
    timeout_seconds
        After which a call to it is given up; ``None``: as `Patience` says.
    """

    candidate: Candidate
    model: "BaseChatModel"
    max_output_tokens: int
    identity: str = ""
    timeout_seconds: float | None = None
    _given_up: str = ""
    _slots: asyncio.Semaphore = field(init=False, repr=False)
    _bounded: Any = field(default=None, repr=False)
    _arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._bounded, self._arguments = bounded(self.model, self.max_output_tokens)
        self._slots = asyncio.Semaphore(self.candidate.max_concurrency or 1_000_000)
        if not self.identity:
            self.identity = digest_of(self.candidate.name, model_name(self.model))

    @property
    def name(self) -> str:
        """What records call it."""
        return self.candidate.name

    @property
    def chat(self) -> "BaseChatModel":
        """Its chat model, bounded."""
        model: BaseChatModel = self._bounded
        return model

    def cost(self, input_tokens: float, output_tokens: float) -> float:
        """Return USD for so many tokens.

        Parameters
        ----------
        input_tokens, output_tokens
            Lengths.
        """
        return (
            input_tokens * self.candidate.input_cost_per_million_tokens
            + output_tokens * self.candidate.output_cost_per_million_tokens
        ) / 1e6

    def bound(self, most_input_tokens: int) -> float:
        """Return the most that a call may cost in USD, its client's retries included.

        Parameters
        ----------
        most_input_tokens
            The most tokens that the prompt may have.
        """
        retries = getattr(self.model, "max_retries", 0)
        times = 1 + (retries if isinstance(retries, int) and retries > 0 else 0)
        return times * self.cost(most_input_tokens, self.max_output_tokens)

    def digest(self, item: PromptItem) -> str:
        """Return under which digest its answer to a prompt is kept.

        Parameters
        ----------
        item
            The prompt.
        """
        return digest_of("answer", self.identity, self.max_output_tokens, item.messages)

    async def answer(self, item: PromptItem, till: Till, patience: Patience) -> Answer:
        """Return its answer: the one that was paid for before, else a new one.

        Parameters
        ----------
        item
            What is asked.
        till
            Who pays.
        patience
            How often.

        Raises
        ------
        LimitReachedError
            If there is no money left.
        GivenUpError
            If it is not asked any more.
        Exception
            What the last attempt raised.
        """
        digest = self.digest(item)
        known = till.workbook.get(digest)
        if known is not None:
            return Answer(**known.value)

        found = await self.buy(
            lambda: self._call(item, self.timeout_seconds or patience.timeout_seconds),
            bound=self.bound(item.most_tokens),
            digest=digest,
            till=till,
            patience=patience,
        )
        return Answer(**found)

    async def buy(
        self,
        call: Callable[[], Awaitable[tuple[T, float | None]]],
        *,
        bound: float,
        digest: str,
        till: Till,
        patience: Patience,
    ) -> T:
        """Make a call to it until it succeeds, and pay; as `Till.buy`.

        Parameters
        ----------
        call
            Returns what it brings, and what it has cost.
        bound, digest
            The most that it may cost, and under what it is kept.
        till, patience
            Who pays, and how often it is tried.

        Raises
        ------
        GivenUpError
            If it is not asked any more, since its key, account or model is at
            fault.
        """

        async def once() -> T:
            async with self._slots:
                if self._given_up:
                    raise GivenUpError(self._given_up)
                return await till.buy(
                    call, bound=bound, candidate=self.name, digest=digest
                )

        try:
            return await patience.over(once)
        except Exception as error:
            about_the_prompt = is_callers_mistake(error) or is_unable(error)
            is_ours = isinstance(error, MixLLMError)
            lasts = is_lasting(error) and not about_the_prompt and not is_ours
            if lasts and not self._given_up:
                self._given_up = f"not asked any more after {failure_name(error)}"
            raise

    async def _call(
        self, item: PromptItem, timeout_seconds: float
    ) -> tuple[dict[str, Any], float | None]:
        began = time.perf_counter()
        message = await asyncio.wait_for(
            self._bounded.ainvoke(list(item.messages), **self._arguments),
            timeout_seconds,
        )
        took = time.perf_counter() - began
        text, usage = str(message.text), message.usage_metadata or {}
        read = int(usage.get("input_tokens") or item.likely_tokens)
        written = int(usage.get("output_tokens") or text_tokens(text))
        cost = self.cost(read, written)
        return asdict(Answer(text, read, written, cost, took)), cost


def bounded(
    model: "BaseChatModel", max_output_tokens: int
) -> tuple["BaseChatModel", dict[str, Any]]:
    """Return a chat model whose answers have a longest length.

    Parameters
    ----------
    model
        Any chat model; a shorter limit of its own stays.
    max_output_tokens
        The most tokens of an answer.

    Returns
    -------
    tuple
        The model, mostly a copy with the limit set, and the arguments that each
        call needs where its class has no such setting.
    """
    for name, known in type(model).model_fields.items():
        if name in _LIMITS or known.alias in _LIMITS:
            own = getattr(model, name)
            limit = max_output_tokens if not own or own < 0 else own
            update = {name: min(limit, max_output_tokens)}
            return model.model_copy(update=update), {}
    return model, {"max_tokens": max_output_tokens}


def failure_name(error: BaseException) -> str:
    """Return what a failure is called: never its message, which may quote a prompt.

    Parameters
    ----------
    error
        What a call raised.
    """
    if isinstance(error, GivenUpError | ConfigurationError | UnreadableGradeError):
        return str(error)
    status = status_of(error)
    return type(error).__name__ + (f" ({status})" if status else "")
