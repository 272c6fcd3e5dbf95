"""What labelling will cost, told before anything is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixllm_integrations.core.types import RoutingRecord
from mixllm_integrations.training.labelling.asking import Asked
from mixllm_integrations.training.labelling.prompts import PromptItem
from mixllm_integrations.training.labelling.workbook import Workbook

__all__ = ["Estimate", "estimated"]

# Of an answer and of a verdict of which nothing is known yet; our choice.
_ANSWER_TOKENS = 300
_VERDICT_TOKENS = 120
_INSTRUCTION_TOKENS = 350


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run is expected to cost.

    Parameters
    ----------
    prompts
        How many are asked.
    answers
        Answers that are to be bought, by candidate.
    costs
        USD for them, by candidate.
    grades
        Calls to the judge, at the most.
    judge_cost
        USD for them.
    spent
        USD that runs with the same workbook have spent before.
    assumed_tokens
        The length that answers were taken to have, of which none is known of some
        candidate; 0: lengths are known of all.
    """

    prompts: int
    answers: Mapping[str, int]
    costs: Mapping[str, float]
    grades: int
    judge_cost: float
    spent: float
    assumed_tokens: int = 0

    @property
    def cost(self) -> float:
        """USD for all of it; with `Adaptive` it becomes less."""
        return sum(self.costs.values()) + self.judge_cost


def estimated(
    units: Sequence[tuple[PromptItem, Asked]],
    judge: Asked | None,
    calls_to_judge: Mapping[str, int],
    workbook: Workbook,
    records: Sequence[RoutingRecord] = (),
) -> Estimate:
    """Return what it will cost to answer and to grade.

    Parameters
    ----------
    units
        Who is to answer what.
    judge
        Who grades.
    calls_to_judge
        How many verdicts each answer takes, by digest of the prompt.
    workbook
        What was paid for before.
    records
        What is known: answers are taken to be as long as those were on average;
        300 tokens where there is none.
    """
    lengths = _lengths(records)
    answers: dict[str, int] = {}
    costs: dict[str, float] = {}
    grades, judge_cost = 0, 0.0
    for item, asked in units:
        length = lengths.get(asked.name, _ANSWER_TOKENS)
        length = min(length, asked.max_output_tokens)
        if workbook.get(asked.digest(item)) is None:
            answers[asked.name] = answers.get(asked.name, 0) + 1
            cost = asked.cost(item.likely_tokens, length)
            costs[asked.name] = costs.get(asked.name, 0.0) + cost
        calls = calls_to_judge.get(item.digest, 0)
        if judge is not None and calls:
            grades += calls
            read = item.likely_tokens + length * calls + _INSTRUCTION_TOKENS
            judge_cost += calls * judge.cost(read, _VERDICT_TOKENS)
    prompts = len({item.digest for item, _ in units})
    assumed = _ANSWER_TOKENS if set(answers) - set(lengths) else 0
    return Estimate(
        prompts, answers, costs, grades, judge_cost, workbook.spent(), assumed
    )


def _lengths(records: Sequence[RoutingRecord]) -> dict[str, float]:
    known: dict[str, list[int]] = {}
    for record in records:
        if record.output_tokens is not None:
            known.setdefault(record.candidate, []).append(record.output_tokens)
    return {name: sum(some) / len(some) for name, some in known.items()}
