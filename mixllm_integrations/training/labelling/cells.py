"""The work of one run: who answers what, until all is known or the money ends."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mixllm_integrations.core.errors import StateFormatError
from mixllm_integrations.core.types import RoutingRecord
from mixllm_integrations.training.labelling.adaptive import (
    Adaptive,
    half_width,
    least_sure,
    next_by_lot,
)
from mixllm_integrations.training.labelling.asking import (
    Answer,
    Asked,
    Patience,
    failure_name,
)
from mixllm_integrations.training.labelling.grading import Grading
from mixllm_integrations.training.labelling.prompts import PromptItem
from mixllm_integrations.training.labelling.records_file import RecordsFile
from mixllm_integrations.training.labelling.results import LabellingFailure
from mixllm_integrations.training.labelling.till import LimitReachedError, Till

__all__ = ["Cell", "Cells"]

#: One candidate's answer to one prompt.
Cell = tuple[PromptItem, Asked]


@dataclass(slots=True, kw_only=True)
class Cells:
    """Answers, grades and writes, several at once.

    Parameters
    ----------
    items
        The prompts, in the order in which they are asked.
    asked
        The candidates.
    rival
        Whom ``"pairwise"`` compares with.
    grading, till, patience, file
        How answers are graded, who pays, how often it is tried, where records go.
    numbers
        Of each prompt, by digest, for failures.
    concurrency
        How many calls are under way at once.
    seed
        Of routers that say what to ask next.
    moved
        Called after each answer that is done with.
    """

    items: Sequence[PromptItem]
    asked: Sequence[Asked]
    rival: Asked
    grading: Grading
    till: Till
    patience: Patience
    file: RecordsFile
    numbers: dict[str, int]
    concurrency: int
    seed: int
    moved: Callable[[], None]
    written: int = 0
    failures: list[LabellingFailure] = field(default_factory=list)
    _failed: set[tuple[str, str]] = field(default_factory=set)
    _answers: dict[tuple[str, str], "asyncio.Task[Answer]"] = field(
        default_factory=dict
    )

    def open(self) -> list[Cell]:
        """Return what has no record yet.

        Raises
        ------
        ConfigurationError
            If the file holds a record that was graded in another way.
        """
        return [
            (item, asked)
            for item in self.items
            for asked in self.asked
            if not self.file.has(
                item.digest, asked.name, self.grading.name(item, self.rival.name)
            )
        ]

    async def run(self, cells: Sequence[Cell]) -> None:
        """Ask, grade and write; ends early if the money does.

        Parameters
        ----------
        cells
            Who answers what.
        """
        waiting = iter(cells)

        async def work() -> None:
            for item, asked in waiting:
                if self.till.closed:
                    return
                await self._cell(item, asked)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.concurrency):
                    group.create_task(work())
        except ExceptionGroup as failed:  # one is enough to know
            raise failed.exceptions[0] from failed
        finally:
            for task in self._answers.values():
                task.cancel()  # those that are done do not mind

    async def run_adaptive(self, rule: Adaptive) -> None:
        """Ask what is worth most, until the rule says that it is enough.

        Parameters
        ----------
        rule
            When that is.
        """
        first = {item.digest for item in self.items[: rule.first]}
        await self.run([cell for cell in self.open() if cell[0].digest in first])
        while not self.till.closed and (cells := await self._next(rule)):
            await self.run(cells)

    async def _next(self, rule: Adaptive) -> list[Cell]:
        unsure = await self._unsure()
        chosen: list[Cell] = []
        for asked in self.asked:
            states = [self._state(item, asked.name) for item in self.items]
            grades, lot = next_by_lot(states, rule.step)
            if not lot or half_width(grades, len(self.items)) <= rule.half_width:
                continue
            places = [
                place for place in unsure.get(asked.name, lot) if states[place] is None
            ]
            half = rule.step // 2
            both = dict.fromkeys((*lot[: rule.step - half], *places[:half]))
            chosen += [(self.items[place], asked) for place in both]
        return chosen

    async def _unsure(self) -> dict[str, list[int]]:
        """Return places of prompts by candidate, the least sure first."""
        own = {item.digest for item in self.items}
        records = [
            record
            for (digest, _), some in self.file.records.items()
            if digest in own
            for record in some
            if record.candidate in {asked.name for asked in self.asked}
        ]
        queries = [item.query for item in self.items]
        candidates = [asked.candidate for asked in self.asked]
        return dict(
            await asyncio.to_thread(
                least_sure, candidates, records, queries, seed=self.seed
            )
        )

    def _state(self, item: PromptItem, name: str) -> float | bool | None:
        if some := self.file.records.get((item.digest, name)):
            return sum(float(r.quality) for r in some) / len(some)
        return False if (item.digest, name) in self._failed else None

    async def _cell(self, item: PromptItem, asked: Asked) -> None:
        try:
            answer = await self._answer(item, asked)
            rival = None
            if self.grading.kind(item) == "pairwise" and asked is not self.rival:
                rival = await self._answer(item, self.rival)
            quality = await self.grading.grade(
                item, answer, rival, self.till, self.patience
            )
        except (LimitReachedError, StateFormatError) as error:
            if isinstance(error, StateFormatError):
                raise
            return
        except Exception as error:  # noqa: BLE001 - one failure must not end the run
            self._failed.add((item.digest, asked.name))
            self.failures.append(
                LabellingFailure(
                    self.numbers[item.digest], asked.name, failure_name(error)
                )
            )
        else:
            record = RoutingRecord(
                item.query,
                asked.name,
                quality,
                answer.input_tokens,
                answer.output_tokens,
                answer.cost,
                answer.latency_seconds,
                item.tags,
            )
            name = self.grading.name(item, self.rival.name)
            self.file.append(record, query_id=item.digest, graded_by=name)
            self.written += 1
        self.moved()

    async def _answer(self, item: PromptItem, asked: Asked) -> Answer:
        """Return an answer; who waits for the same one shares the call."""
        key = (item.digest, asked.name)
        if key not in self._answers:
            self._answers[key] = asyncio.create_task(
                asked.answer(item, self.till, self.patience)
            )
        return await asyncio.shield(self._answers[key])
