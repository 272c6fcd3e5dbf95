"""`collect`: one's own prompts through all candidates, graded, as records."""

import asyncio
import threading
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.training.labelling.adaptive import Adaptive
from mixllm_integrations.training.labelling.asking import Asked, Patience
from mixllm_integrations.training.labelling.cells import Cells
from mixllm_integrations.training.labelling.estimate import Estimate, estimated
from mixllm_integrations.training.labelling.grading import Grading
from mixllm_integrations.training.labelling.importing import import_calls
from mixllm_integrations.training.labelling.judges import Judge
from mixllm_integrations.training.labelling.logs import LoggedCall, read_prompts
from mixllm_integrations.training.labelling.prompts import (
    PromptItem,
    as_items,
    sampled,
)
from mixllm_integrations.training.labelling.records_file import RecordsFile
from mixllm_integrations.training.labelling.results import Collection, summed_up
from mixllm_integrations.training.labelling.scorers import GradedBy
from mixllm_integrations.training.labelling.sources import (
    Candidates,
    JudgeLike,
    asked_of,
    judge_of,
)
from mixllm_integrations.training.labelling.till import Till
from mixllm_integrations.training.labelling.workbook import Workbook
from mixllm_integrations.training.progress import DelayedBar
from mixllm_integrations.training.tag_asking import model_name

__all__ = ["Labelling", "acollect", "collect"]

Prompts = str | PathLike[str] | Iterable[str | PromptItem | Mapping[str, Any]]


class Labelling:
    """A run of `collect` that can be looked at before it starts; a context manager.

    Parameters
    ----------
    prompts
        A file or log that `read_prompts` reads, or prompts: texts, `PromptItem`
        objects, or objects with ``prompt``, ``query`` or ``messages``.
    candidates
        Path of a ``candidates.toml``, what was read of one, or `CandidateModel`
        objects.
    out
        The records, a ``.jsonl`` file. It is gone on with if it is there.
    judge
        Who grades where there is no reference: ``"provider:name"``, the name of a
        candidate in the file, a `CandidateModel`; ``None``: the file's ``[judge]``.
    by_judge
        ``"judge"``: it grades each answer in [0, 1]. ``"pairwise"``: it compares
        each with that of `reference_candidate`, in both orders.
    judge_instructions
        What a good answer is, in your own words.
    scorer
        How answers are graded whose prompt does not say: ``"exact"``,
        ``"regex"``, ``"json_schema"``, ``"code"``, ``"judge"``, ``"pairwise"``, or
        a function of the `PromptItem` and the answer that gives a number in
        [0, 1], also a coroutine; ``None``: ``"exact"`` with a reference, else
        `by_judge`.
    reference_candidate
        Whom ``"pairwise"`` compares with; its own quality is 0.5. ``None``: the
        candidate whose output is dearest.
    sample
        How many of the prompts, drawn by lot; ``None``: all.
    seed
        Of that lot.
    max_cost
        Spending limit in USD, over all runs with this workbook, judges included;
        ``None``: none. Before each call the most that it may cost is set aside: a
        token per byte of the prompt, and an answer of `max_output_tokens`. So it
        is never passed, unless a provider answers longer than it was told to.
    concurrency
        How many calls are under way at once.
    adaptive
        Ask only what is worth it; ``None``: everything.
    allow_code
        Whether tests may run code that models wrote, on this machine. That is no
        sandbox: see `mixllm_integrations.training.labelling.code_tests`.
    max_output_tokens
        The longest answer; candidates with a shorter limit keep it.
    patience
        How often calls are made again, and when they are given up.
    state
        The workbook of what was paid for, a SQLite file with the answers; ``None``:
        beside the records, with ``.work`` added.
    skip_bad_rows
        Go on after rows of a file that hold no prompt of text.
    progress
        ``None``: a bar on a terminal. True: always. False: never.

    Raises
    ------
    ConfigurationError
        If something cannot be used, before anything is asked.
    """

    def __init__(
        self,
        prompts: Prompts,
        candidates: Candidates,
        out: str | PathLike[str],
        *,
        judge: JudgeLike | None = None,
        by_judge: str = "judge",
        judge_instructions: str | None = None,
        scorer: GradedBy | None = None,
        reference_candidate: str | None = None,
        sample: int | None = None,
        seed: int = 0,
        max_cost: float | None = None,
        concurrency: int = 8,
        adaptive: Adaptive | None = None,
        allow_code: bool = False,
        max_output_tokens: int = 2048,
        patience: Patience | None = None,
        state: str | PathLike[str] | None = None,
        skip_bad_rows: bool = False,
        progress: bool | None = None,
    ) -> None:
        _check(max_cost, concurrency, max_output_tokens, sample)
        calls: tuple[LoggedCall, ...] = ()
        if isinstance(prompts, str | PathLike):
            log = read_prompts(Path(prompts), skip_bad_rows=skip_bad_rows)
            items, calls = list(log.items), log.calls
        else:
            items = as_items(prompts)
        self._numbers = {item.digest: n for n, item in enumerate(items, start=1)}
        self.items = sampled(items, sample, seed)
        self.asked = asked_of(candidates, max_output_tokens=max_output_tokens)
        self._judge = None  # its key is not needed where nobody has to judge
        if any(self._needs(scorer, item) for item in self.items):
            self._judge = judge_of(
                judge, candidates, max_output_tokens=max_output_tokens
            )
        self._grading = Grading(
            scorer=scorer,
            by_judge=by_judge,
            judge=None
            if self._judge is None
            else Judge(self._judge, instructions=judge_instructions),
            allow_code=allow_code,
        )
        self._grading.check({self._numbers[i.digest]: i for i in self.items})
        self._rival = self._reference(reference_candidate)
        self._adaptive, self._seed, self._progress = adaptive, seed, progress
        self._concurrency, self._patience = concurrency, patience or Patience()
        file = Path(out)
        self._workbook = Workbook(
            file.with_name(f"{file.name}.work") if state is None else Path(state)
        )
        try:
            self._file = RecordsFile(file)
        except BaseException:
            self._workbook.close()
            raise
        self._till = Till(self._workbook, max_cost, concurrency=concurrency)
        self.imported = self._import(calls)

    def estimate(self) -> Estimate:
        """Return what is still to be asked, and what it is expected to cost.

        Raises
        ------
        ConfigurationError
            If the file of records holds some that were graded in another way.
        """
        cells = self._cells(lambda: None).open()
        calls = {i.digest: self._grading.calls_to_judge(i) for i in self.items}
        return estimated(cells, self._judge, calls, self._workbook, self._file.all())

    def collect(self) -> Collection:
        """Do it, and return what came of it; see `acollect`."""
        return asyncio.run(self.acollect())

    async def acollect(self) -> Collection:
        """Ask, grade and write.

        Returns
        -------
        Collection
            With the failures; one answer that fails does not end the run.
        """
        total = len(self.items) * len(self.asked)
        with DelayedBar(total, label="asking", shown=self._progress) as bar:

            def moved() -> None:
                bar.label = f"asking ({self._till.spent:.4f} USD)"
                bar.advance()

            cells = self._cells(moved)
            left = cells.open()
            bar.advance(total - len(left))
            if self._adaptive is None:
                await cells.run(left)
            else:
                await cells.run_adaptive(self._adaptive)
        missing = len(cells.open())
        return Collection(
            self._file.file,
            cells.written,
            tuple(self._file.all()),
            summed_up([a.name for a in self.asked], self._file.all()),
            tuple(sorted(cells.failures, key=lambda f: (f.prompt, f.candidate))),
            missing - len(cells.failures),
            self._till.closed,
            self._till.spent,
            self._till.spent_in_all,
        )

    def close(self) -> None:
        """Let go of the files."""
        self._file.close()
        self._workbook.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _cells(self, moved: Any) -> Cells:  # noqa: ANN401
        return Cells(
            items=self.items,
            asked=self.asked,
            rival=self._rival,
            grading=self._grading,
            till=self._till,
            patience=self._patience,
            file=self._file,
            numbers=self._numbers,
            concurrency=self._concurrency,
            seed=self._seed,
            moved=moved,
        )

    def _needs(self, scorer: GradedBy | None, item: PromptItem) -> bool:
        """Tell whether a judge is needed for a prompt."""
        return Grading(scorer=scorer).calls_to_judge(item) > 0

    def _reference(self, name: str | None) -> Asked:
        if name is None:
            return max(
                self.asked, key=lambda a: a.candidate.output_cost_per_million_tokens
            )
        found = next((asked for asked in self.asked if asked.name == name), None)
        if found is None:
            raise UnknownCandidateError(name, [asked.name for asked in self.asked])
        return found

    def _import(self, calls: Iterable[LoggedCall]) -> int:
        """Write what a log knows of the candidates; return how much that was."""
        names = {asked.name: asked.name for asked in self.asked}
        for asked in self.asked:  # a model's name in a log has no provider
            names.setdefault(model_name(asked.model).partition("/")[2], asked.name)
        wanted = {item.digest for item in self.items}
        return import_calls(calls, self._file, names=names, wanted=wanted)


def collect(
    prompts: Prompts,
    candidates: Candidates,
    out: str | PathLike[str],
    **settings: Any,  # noqa: ANN401 - parameters of `Labelling`
) -> Collection:
    """Label one's own traffic: all candidates answer, the answers are graded.

    A run that ends early, for whatever reason, is gone on with by the same call:
    nothing that was written is paid for again.

    Parameters
    ----------
    prompts, candidates, out, **settings
        As for `Labelling`.

    Returns
    -------
    Collection
        With the records, which are in `out` as well.

    Raises
    ------
    ConfigurationError
        If something cannot be used, before anything is asked.

    Examples
    --------
    >>> from mixllm_integrations import CandidateModel
    >>> from mixllm_integrations.testing import ScriptedChatModel
    >>> import tempfile
    >>> small = CandidateModel(
    ...     model=ScriptedChatModel(answers=["4"], usage=(10, 2)),
    ...     name="small",
    ...     input_cost_per_million_tokens=0.1,
    ...     output_cost_per_million_tokens=0.4,
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = collect(
    ...         [{"prompt": "2 + 2?", "reference": "4"}],
    ...         [small],
    ...         f"{folder}/records.jsonl",
    ...     )
    >>> found.records[0].quality, found.records[0].output_tokens
    (1.0, 2)
    """

    def whole() -> Collection:
        with Labelling(prompts, candidates, out, **settings) as labelling:
            return labelling.collect()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return whole()
    return _on_a_thread(whole)  # in a notebook, whose loop is running


async def acollect(
    prompts: Prompts,
    candidates: Candidates,
    out: str | PathLike[str],
    **settings: Any,  # noqa: ANN401
) -> Collection:
    """Do the same as `collect`, on the running loop."""
    with Labelling(prompts, candidates, out, **settings) as labelling:
        return await labelling.acollect()


def _on_a_thread(work: Any) -> Collection:  # noqa: ANN401
    results: list[Collection] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            errors.append(error)

    thread = threading.Thread(target=run, name="mixllm-collect")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _check(
    max_cost: float | None, concurrency: int, max_output_tokens: int, sample: int | None
) -> None:
    if max_cost is not None:
        number_between(max_cost, "max_cost", high_is_allowed=False)
    for name, value in (
        ("concurrency", concurrency),
        ("max_output_tokens", max_output_tokens),
        ("sample", sample),
    ):
        if value is not None:
            number_between(value, name, low=1, high_is_allowed=False)
            if not isinstance(value, int):
                raise ConfigurationError(
                    f"{name} must be a whole number, not {value!r}"
                )
