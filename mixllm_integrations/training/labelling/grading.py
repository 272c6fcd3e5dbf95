"""Decides how each answer of a run is graded, and does it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.training.labelling.asking import Answer, Patience
from mixllm_integrations.training.labelling.judges import Judge
from mixllm_integrations.training.labelling.prompts import (
    SCORERS,
    PromptItem,
    digest_of,
)
from mixllm_integrations.training.labelling.scorers import (
    GradedBy,
    by_own,
    by_reference,
)
from mixllm_integrations.training.labelling.till import Till

__all__ = ["Grading"]

_BY_JUDGE = frozenset({"judge", "pairwise"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Grading:
    """How answers are graded.

    Parameters
    ----------
    scorer
        One of `SCORERS` or a function, for prompts that name none; ``None``:
        ``"exact"`` where there is a reference, else `by_judge`.
    by_judge
        ``"judge"`` for grades, or ``"pairwise"``.
    judge
        Who judges.
    allow_code
        Whether code of models may be run.
    """

    scorer: GradedBy | None = None
    by_judge: str = "judge"
    judge: Judge | None = None
    allow_code: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.scorer, str) and self.scorer not in SCORERS:
            raise ConfigurationError(
                f"unknown scorer {self.scorer!r}; use one of {SCORERS}"
            )
        if self.by_judge not in _BY_JUDGE:
            raise ConfigurationError(
                f"a judge grades by 'judge' or 'pairwise', not {self.by_judge!r}"
            )

    def kind(self, item: PromptItem) -> GradedBy:
        """Return how an answer to a prompt is graded.

        Parameters
        ----------
        item
            The prompt.
        """
        if item.scorer is not None:
            return item.scorer
        if self.scorer is not None:
            return self.scorer
        return self.by_judge if item.reference is None else "exact"

    def check(self, items: "Mapping[int, PromptItem]") -> None:
        """Raise before money is spent on what cannot be graded.

        Parameters
        ----------
        items
            All prompts, by their numbers.

        Raises
        ------
        ConfigurationError
            If a judge or a permission is missing.
        """
        for number, item in sorted(items.items()):
            kind = self.kind(item)
            if kind in _BY_JUDGE and self.judge is None:
                raise ConfigurationError(
                    f"prompt {number} has no reference, so a judge must grade the "
                    "answers: name one (--judge provider:name, or a table [judge] in "
                    "the file of candidates)"
                )
            if kind == "code" and not self.allow_code:
                raise ConfigurationError(
                    f"prompt {number} is graded by running what models wrote, which is "
                    "no sandbox: allow it by allow_code=True (--allow-code)"
                )
            if kind not in _BY_JUDGE and not callable(kind) and item.reference is None:
                raise ConfigurationError(
                    f"prompt {number} is graded by {kind!r} and has no reference"
                )

    def calls_to_judge(self, item: PromptItem) -> int:
        """Return how many verdicts an answer takes.

        Parameters
        ----------
        item
            What was asked.
        """
        kind = self.kind(item)
        return {"judge": 1, "pairwise": 2}.get(kind, 0) if isinstance(kind, str) else 0

    def name(self, item: PromptItem, rival: str) -> str:
        """Return what tells this way of grading from others, for the records.

        Parameters
        ----------
        item
            What was asked.
        rival
            Whom ``"pairwise"`` compares with.
        """
        kind = self.kind(item)
        if callable(kind):
            return f"own:{getattr(kind, '__qualname__', type(kind).__name__)}"
        parts: list[Any] = [item.reference]
        if kind in _BY_JUDGE and self.judge is not None:
            parts.append(self.judge.identity)
        if kind == "pairwise":
            parts.append(rival)
        return f"{kind}:{digest_of(*parts)[:12]}"

    async def grade(
        self,
        item: PromptItem,
        answer: Answer,
        rival: Answer | None,
        till: Till,
        patience: Patience,
    ) -> float:
        """Return how good an answer is, in [0, 1].

        Parameters
        ----------
        item
            What was asked.
        answer
            What is graded.
        rival
            What ``"pairwise"`` compares it with.
        till, patience
            Who pays a judge, and how often it is tried.
        """
        kind = self.kind(item)
        if not isinstance(kind, str):
            return await by_own(kind, item, answer.text)
        if kind in _BY_JUDGE:
            assert self.judge is not None  # noqa: S101 - `check` saw to it
            if kind == "judge":
                return await self.judge.grade(item, answer.text, till, patience)
            other = answer.text if rival is None else rival.text
            return await self.judge.compare(item, answer.text, other, till, patience)
        return await by_reference(kind, item, answer.text, allow_code=self.allow_code)
