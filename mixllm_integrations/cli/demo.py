"""What `mixllm demo` does: prompts go through a routed chat model, one by one.

The scripted form needs no key: four candidates with real list prices, a small
router fitted on their recorded answers, and answers written in advance.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from mixllm_integrations.core.types import Candidate

if TYPE_CHECKING:
    from langchain_core.messages.ai import UsageMetadata

    from mixllm_integrations.core.router import Router
    from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel

__all__ = [
    "DemoPrompt",
    "DemoSetup",
    "RoutedPrompt",
    "Totals",
    "load_prompts",
    "route_prompts",
    "scripted_setup",
    "shipped_router",
    "strongest_of",
]

_ABOUT = (
    "The answers are scripted: no model is called, and all candidates say the same.",
    "The list prices are real. Quality and cost are what the router expects: it was",
    "fitted on what these four models once answered to exam questions (MMLU-Pro).",
)


@dataclass(frozen=True, slots=True)
class DemoPrompt:
    """One prompt of the demo and the answer that a scripted candidate gives.

    Parameters
    ----------
    kind
        What it is, for the reader: ``"arithmetic"``, ``"small talk"``, ...
    language
        Two letters.
    prompt, answer
        Both were written for the demo.
    """

    kind: str
    language: str
    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class DemoSetup:
    """A routed chat model, and what has to be said about it.

    Parameters
    ----------
    model
        It answers the prompts.
    router
        It chooses who answers.
    strongest
        The candidate that the bill is compared with.
    about
        Lines that tell what is real here and what is not.
    scripted
        Whether all lengths are predicted ones, the strongest candidate's too.
    failure
        Makes of an error of the models what the user is told.
    """

    model: "MixLLMChatModel"
    router: "Router"
    strongest: Candidate
    about: tuple[str, ...]
    scripted: bool = False
    failure: Callable[[Exception], Exception] = field(default=lambda error: error)


@dataclass(frozen=True, slots=True)
class RoutedPrompt:
    """One prompt after it was answered.

    Parameters
    ----------
    prompt
        What was asked.
    candidate
        Who answered.
    answer
        The text.
    quality, strongest_quality
        What the router expected of this answer and of the strongest
        candidate's, in [0, 1].
    cost
        USD, from the tokens on the answer.
    strongest_cost
        USD, had the strongest candidate answered: at its expected length if
        the answers are scripted, else at the length of this answer.
    seconds
        From the prompt to the answer.
    """

    prompt: DemoPrompt
    candidate: str
    answer: str
    quality: float
    strongest_quality: float
    cost: float
    strongest_cost: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Totals:
    """What all prompts came to.

    Parameters
    ----------
    prompts
        How many were answered.
    cost, strongest_cost
        USD; see `RoutedPrompt`.
    quality, strongest_quality
        Means of what was predicted.
    answers
        How many prompts each candidate answered.
    """

    prompts: int
    cost: float
    strongest_cost: float
    quality: float
    strongest_quality: float
    answers: dict[str, int]

    @classmethod
    def of(cls, routed: Sequence[RoutedPrompt], candidates: Sequence[str]) -> "Totals":
        """Return the sums and means over prompts that were answered.

        Parameters
        ----------
        routed
            At least one.
        candidates
            All names, those that answered nothing included.
        """
        names = [step.candidate for step in routed]
        return cls(
            prompts=len(routed),
            cost=sum(step.cost for step in routed),
            strongest_cost=sum(step.strongest_cost for step in routed),
            quality=sum(step.quality for step in routed) / len(routed),
            strongest_quality=sum(s.strongest_quality for s in routed) / len(routed),
            answers={name: names.count(name) for name in candidates},
        )

    @property
    def cost_share(self) -> float:
        """The cost relative to always asking the strongest; 1 if that is free."""
        return self.cost / self.strongest_cost if self.strongest_cost else 1.0


def load_prompts() -> tuple[DemoPrompt, ...]:
    """Return the prompts that are shipped with the package, in their order."""
    path = files("mixllm_integrations.data") / "demo_prompts.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(DemoPrompt(**json.loads(line)) for line in lines)


def route_prompts(
    setup: DemoSetup, prompts: Sequence[DemoPrompt]
) -> Iterator[RoutedPrompt]:
    """Send prompts through the model one by one.

    Parameters
    ----------
    setup
        From `scripted_setup` or `live_setup`.
    prompts
        What to ask.

    Yields
    ------
    RoutedPrompt
        As soon as its answer is there.

    Raises
    ------
    Exception
        What `DemoSetup.failure` makes of an error of the models.
    """
    strongest = setup.strongest
    for prompt in prompts:
        expected = setup.router.predict([prompt.prompt])
        started = time.perf_counter()
        try:
            answer = setup.model.invoke(prompt.prompt)
        except Exception as error:
            raise setup.failure(error) from error
        seconds = time.perf_counter() - started
        decision = answer.response_metadata["mixllm"]
        column = expected.candidates.index(strongest.name)
        yield RoutedPrompt(
            prompt=prompt,
            candidate=decision["candidate"],
            answer=str(answer.text),
            quality=decision["predicted_quality"],
            strongest_quality=float(expected.quality[0, column]),
            cost=decision["cost"],
            strongest_cost=(
                float(expected.cost[0, column])
                if setup.scripted
                else _list_cost(strongest, answer.usage_metadata)
            ),
            seconds=seconds,
        )


def _list_cost(candidate: Candidate, usage: "UsageMetadata | None") -> float:
    if usage is None:
        return 0.0
    return (
        usage["input_tokens"] * candidate.input_cost_per_million_tokens
        + usage["output_tokens"] * candidate.output_cost_per_million_tokens
    ) / 1e6


def scripted_setup(prompts: Sequence[DemoPrompt]) -> DemoSetup:
    """Return the demo that needs no key.

    Parameters
    ----------
    prompts
        What will be asked. Every candidate has the same answer to each, and
        reports as many tokens as the router expects of it.
    """
    from mixllm_integrations.langchain import MixLLMChatModel
    from mixllm_integrations.serving import text_tokens

    router = shipped_router()
    expected = router.predict([prompt.prompt for prompt in prompts])
    candidates = [
        _scripted(
            candidate,
            {
                prompt.prompt: (
                    prompt.answer,
                    text_tokens(prompt.prompt),
                    round(tokens),
                )
                for prompt, tokens in zip(
                    prompts, expected.output_tokens[:, column], strict=True
                )
            },
        )
        for column, candidate in enumerate(router.candidates)
    ]
    model = MixLLMChatModel(candidates=candidates, router=router)
    return DemoSetup(
        model, router, strongest_of(router.candidates), _ABOUT, scripted=True
    )


def shipped_router() -> "Router":
    """Return the router that was fitted for the demo."""
    from mixllm_integrations.core.router import Router

    folder = files("mixllm_integrations.data") / "demo_router"
    with as_file(folder) as path:
        return Router.load(path)


def strongest_of(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate that the bill is compared with: the dearest.

    Parameters
    ----------
    candidates
        At least one.
    """
    return max(candidates, key=lambda c: c.output_cost_per_million_tokens)


def _scripted(
    candidate: Candidate, script: Mapping[str, tuple[str, int, int]]
) -> "CandidateModel":
    from langchain_core.messages import BaseMessage

    from mixllm_integrations.langchain import CandidateModel
    from mixllm_integrations.testing import ScriptedChatModel

    def say(messages: list[BaseMessage]) -> str:
        answer, *tokens = script[messages[-1].text]
        # Prompts come one by one, so the usage of this answer may be set here.
        model.usage = (tokens[0], tokens[1])
        return answer

    model = ScriptedChatModel(model=candidate.name, answers=say)
    return CandidateModel(
        model=model,
        name=candidate.name,
        input_cost_per_million_tokens=candidate.input_cost_per_million_tokens,
        output_cost_per_million_tokens=candidate.output_cost_per_million_tokens,
    )
