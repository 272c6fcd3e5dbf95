"""The start without labels: what a prior is worth, and how fast labels replace it.

Leave one data set out: the prior is learned from the other data sets, other
models on other tasks, and the router is asked before it has a label, with a
few, and with all. Leave one model out: the others are fitted, one joins.

Notes
-----
What bounds the start, measured on two splits of mmlu_pro and of llmrouter_ulab,
as the share of the fitted router's gain in AIQ over the convex mix of singles:

- one number per model, and the *true* mean quality of each test query over all
  models in the place of a predicted ease: 24 and 31 %, 26 and 20 %;
- what the fitted router says, projected on one number per model and query (a
  rank of 1 in log-odds): 31 and 26 %, 12 and 1 %; on two numbers per model:
  65 and 69 %, 27 and 30 %; on five: 83 and 98 %, 72 and 92 %;
- the same, the second number being the model's mean quality: 32 and 43 %, 19
  and 9 %; its price beside it adds nothing.

So half of the gain is out of reach with one number per model: it lies in who is
good at what, which takes labels, or several numbers per model.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.benchmark.baselines import hull_curve
from mixllm_integrations.benchmark.coldstart_results import (
    FULL,
    ColdResult,
    ColdRun,
    Knowledge,
    NewcomerRun,
)
from mixllm_integrations.benchmark.metrics import (
    ReferencePoint,
    aiq,
    mean_squared_error,
    reference_point,
    sweep,
)
from mixllm_integrations.benchmark.splits import stratified_split
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.benchmark.versions import package_versions
from mixllm_integrations.core.encoder import Encoder, StaticEncoder
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.prior import QualityPrior
from mixllm_integrations.core.reading import read
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import BatchPrediction, Candidate
from mixllm_integrations.training.build_prior import PriorSample, learn_prior

__all__ = ["N_LABELS", "chosen_newcomers", "prior_without", "run_coldstart"]

N_LABELS = (50, 200, 1_000)
_NEWCOMER_LABELS = (50, 200)


def run_coldstart(
    tables: Sequence[BenchmarkTable],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    predictor: str = "auto",
    n_newcomers: int = 3,
    encoder: Encoder | None = None,
    command: str = "",
    on_run: Callable[[ColdRun | NewcomerRun], None] | None = None,
) -> ColdResult:
    """Measure routers with no labels, a few, and all, and with a newcomer.

    Parameters
    ----------
    tables
        Complete queries, one table per data set; at least two.
    seeds
        One split each: 80 % to label from, 20 % to be judged on.
    predictor
        Kind of the router's predictors.
    n_newcomers
        How many candidates join, one at a time; 0: none.
    encoder
        Of the router; the shipped one by default.
    command
        Noted in the result.
    on_run
        Called with each run as soon as it is there.

    Raises
    ------
    ConfigurationError
        If there are fewer than two data sets, or no seed.
    """
    if len(tables) < 2 or not seeds:
        raise ConfigurationError(
            "a start without labels is measured on at least two data sets and one "
            f"seed, not {len(tables)} and {len(seeds)}: the prior of each comes from "
            "the others"
        )
    encoder = StaticEncoder.load() if encoder is None else encoder
    priors = [prior_without(table, tables, encoder) for table in tables]
    runs: list[ColdRun] = []
    newcomers: list[NewcomerRun] = []
    for table, prior in zip(tables, priors, strict=True):
        for seed in seeds:
            trial = _Trial.make(table, seed, prior, encoder, predictor)
            for run in trial.runs():
                runs.append(run)
                if on_run is not None:
                    on_run(run)
            for name in chosen_newcomers(trial.train, n_newcomers):
                for joined in trial.newcomer_runs(name):
                    newcomers.append(joined)
                    if on_run is not None:
                        on_run(joined)
    return ColdResult(
        tuple(table.name for table in tables),
        tuple(seeds),
        tuple(prior.revision for prior in priors),
        tuple((prior.cold_strength, prior.fitted_strength) for prior in priors),
        command,
        package_versions(),
        tuple(runs),
        tuple(newcomers),
    )


def prior_without(
    table: BenchmarkTable, tables: Sequence[BenchmarkTable], encoder: Encoder
) -> QualityPrior:
    """Return the prior that is learned from all other data sets.

    Parameters
    ----------
    table
        Which one is left out.
    tables
        All of them.
    encoder
        Reads the queries.
    """
    return learn_prior(
        [
            PriorSample(read(t.queries, encoder), t.quality, t.domains)
            for t in tables
            if t is not table
        ]
    )


def chosen_newcomers(train: BenchmarkTable, n: int) -> tuple[str, ...]:
    """Return who joins: the best candidate, the median one, the worst one, ….

    Parameters
    ----------
    train
        Whose mean qualities decide.
    n
        How many, evenly spaced from the best to the worst.
    """
    order = np.argsort(-train.quality.mean(axis=0), kind="stable")
    places = np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int)
    return tuple(train.names[i] for i in order[places])


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """One split, with what its routers are made of."""

    seed: int
    train: BenchmarkTable
    test: BenchmarkTable
    order: NDArray[np.int64]
    reference: ReferencePoint
    prior: QualityPrior
    encoder: Encoder
    predictor: str

    @classmethod
    def make(
        cls,
        table: BenchmarkTable,
        seed: int,
        prior: QualityPrior,
        encoder: Encoder,
        predictor: str,
    ) -> "_Trial":
        rows, held_out = stratified_split(table, seed=seed)
        train, test = table.select(rows), table.select(held_out)
        reference = reference_point(train.quality, test.quality, test.cost)
        order = np.random.default_rng(1_000 + seed).permutation(len(train))
        return cls(seed, train, test, order, reference, prior, encoder, predictor)

    def runs(self) -> Iterator[ColdRun]:
        mix = aiq(hull_curve(self.train, self.test, self.reference), self.reference)
        kinds: tuple[Knowledge, ...] = ("price", "prior_quality")
        for knowledge in kinds:
            yield self._run(knowledge, 0, mix, with_prior=False)
            for n_labels in (0, *N_LABELS):
                if n_labels < len(self.train):
                    yield self._run(knowledge, n_labels, mix)
        yield self._run("price", FULL, mix)

    def newcomer_runs(self, name: str) -> Iterator[NewcomerRun]:
        column = self.train.names.index(name)
        priced = self.train.candidates[column]
        declared = self._candidates("prior_quality")[column]
        others = [n for n in self.train.names if n != name]
        alone = self.train.only([name])
        router = self._router(self.train.only(others).candidates)
        router.fit(self.train.only(others).records())
        without = self._aiq(router.predict(list(self.test.queries)))
        plan: list[tuple[Knowledge, Candidate, int]] = [
            ("price", priced, 0),
            ("prior_quality", declared, 0),
            *(("price", priced, n) for n in (*_NEWCOMER_LABELS, FULL)),
        ]
        for knowledge, candidate, n_labels in plan:
            router.add_candidate(candidate)
            if n_labels:
                router.fit(self._labelled(alone, n_labels).records())
            found = router.predict(list(self.test.queries))
            truth = self.test.quality[:, column]
            yield NewcomerRun(
                self.test.name,
                self.seed,
                name,
                knowledge,
                n_labels,
                self._aiq(found),
                without,
                mean_squared_error(found.quality[:, -1], truth),
                mean_squared_error(np.full_like(truth, alone.quality.mean()), truth),
            )
            router.remove_candidate(name)

    def _run(
        self,
        knowledge: Knowledge,
        n_labels: int,
        mix: float,
        *,
        with_prior: bool = True,
    ) -> ColdRun:
        router = self._router(self._candidates(knowledge), with_prior=with_prior)
        if n_labels:
            router.fit(self._labelled(self.train, n_labels).records())
        found = router.predict(list(self.test.queries))
        return ColdRun(
            self.test.name,
            self.seed,
            knowledge,
            "others" if with_prior else "none",
            n_labels,
            self._aiq(found),
            mean_squared_error(found.quality, self.test.quality),
            mix,
        )

    def _router(
        self, candidates: Sequence[Candidate], *, with_prior: bool = True
    ) -> Router:
        return Router(
            candidates,
            encoder=self.encoder,
            predictor=self.predictor,
            prior=self.prior if with_prior else "none",
            seed=self.seed,
        )

    def _candidates(self, knowledge: Knowledge) -> list[Candidate]:
        candidates = self.train.candidates
        if knowledge == "price":
            return [replace(c, prior_quality=None) for c in candidates]
        means = self.train.quality.mean(axis=0).tolist()
        return [
            replace(c, prior_quality=mean)
            for c, mean in zip(candidates, means, strict=True)
        ]

    def _labelled(self, table: BenchmarkTable, n_labels: int) -> BenchmarkTable:
        if n_labels == FULL:
            return table
        return table.select(np.sort(self.order[:n_labels]))

    def _aiq(self, found: BatchPrediction) -> float:
        """Return the AIQ; whom the router lacks is never chosen."""
        columns = [self.test.names.index(name) for name in found.candidates]
        curve = sweep(
            found.quality,
            found.cost,
            true_quality=self.test.quality[:, columns],
            true_cost=self.test.cost[:, columns],
            reference=self.reference,
        )
        return aiq(curve, self.reference)
