"""What each part of a context is worth: heads with and without it.

On the training split of each seed a context model is fitted, once on the
shipped encoder and once on one that was fine-tuned on that split; columns are
dropped, heads are fitted on what is left and judged on the test split. The
predicted cost is the same for all, that of the whole context with the shipped
encoder, so only the predicted quality tells two rows apart.

A dropped embedding is still read by the posterior and the difficulty: what is
measured is whether the heads see it.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.benchmark.ablation_results import (
    BASELINE,
    FIGURES,
    AblationResult,
    AblationRun,
    third_quality,
)
from mixllm_integrations.benchmark.metrics import (
    Curve,
    ReferencePoint,
    reference_point,
)
from mixllm_integrations.benchmark.offline import score_predictions
from mixllm_integrations.benchmark.splits import stratified_split
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.benchmark.versions import package_versions
from mixllm_integrations.core.context import ContextModel
from mixllm_integrations.core.encoder import Encoder, StaticEncoder
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.forecast import Forecaster, Knowledge
from mixllm_integrations.core.ngrams import fold_of_rows
from mixllm_integrations.core.predictors.heads import CandidateHeads
from mixllm_integrations.core.reading import read
from mixllm_integrations.core.records import RecordTable, tabulate
from mixllm_integrations.core.types import FloatArray
from mixllm_integrations.training.finetune import finetune_encoder
from mixllm_integrations.training.separation import Loss

__all__ = ["FoldedEncoder", "run_ablation"]

_BASE_LEVEL = 0.9725


class FoldedEncoder:
    """An encoder that meets each training query as if it had not learned from it.

    Parameters
    ----------
    encoder
        For every other text.
    folds
        Pairs of an encoder and the queries that it was not fine-tuned on.

    Notes
    -----
    Our choice. The folds' spaces are not quite the same, since each fold was
    pulled elsewhere; they stay near because all start from one.
    """

    def __init__(
        self, encoder: Encoder, folds: Sequence[tuple[Encoder, Sequence[str]]]
    ) -> None:
        self._encoder = encoder
        self._encoders = [one for one, _ in folds]
        self._fold_of = {q: k for k, (_, own) in enumerate(folds) for q in own}
        self.id = f"{encoder.id}, cross-fitted"
        self.revision = encoder.revision
        self.dimension = encoder.dimension

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of length 1 per text, shape ``(n_texts, dimension)``."""
        rows = np.empty((len(texts), self.dimension), dtype=np.float32)
        fold_of = np.array([self._fold_of.get(text, -1) for text in texts], dtype=int)
        for fold in np.unique(fold_of):
            here = np.flatnonzero(fold_of == fold)
            encoder = self._encoder if fold < 0 else self._encoders[fold]
            rows[here] = encoder.encode([texts[int(i)] for i in here])
        return rows


def run_ablation(
    table: BenchmarkTable,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    losses: Sequence[Loss] = ("paper",),
    predictor: str = "forest",
    n_domains: int = 20,
    cross_fit: int = 0,
    encoder: StaticEncoder | None = None,
    command: str = "",
    on_run: Callable[[AblationRun], None] | None = None,
    **finetune_options: Any,  # noqa: ANN401
) -> AblationResult:
    """Fit heads on contexts with and without each part, and judge them.

    Parameters
    ----------
    table
        Complete queries, with tags.
    seeds
        One split each: 80 % to fit on, 20 % to be judged on.
    losses
        Of the fine-tuning; none: only the shipped encoder.
    predictor
        Kind of the heads. A fixed one, so that the choice of a kind is no part
        of what is compared.
    n_domains
        The most domains there may be.
    cross_fit
        From 2: also train heads on contexts in which each training query is
        embedded by an encoder that was fine-tuned without it, in so many
        folds.
    encoder
        The plain one; the shipped one by default.
    command
        Noted in the result.
    on_run
        Called with each run as soon as it is there.
    finetune_options
        Passed on to `finetune_encoder`.

    Raises
    ------
    ConfigurationError
        If there is no seed, `cross_fit` is 1 or negative, there are too few
        queries to split, or the tags give fewer than two domains.
    """
    if not seeds:
        raise ConfigurationError("an ablation needs at least one seed")
    if cross_fit < 0 or cross_fit == 1:
        raise ConfigurationError(f"cross_fit must be 0 or 2 and more, not {cross_fit}")
    encoder = StaticEncoder.load() if encoder is None else encoder
    runs: list[AblationRun] = []
    finetuning: dict[str, float] = {}
    for seed in seeds:
        bench = _Bench.make(table, seed, predictor, n_domains)
        tuned: dict[str, Encoder] = {}
        for loss in losses:
            began = time.perf_counter()
            full = bench.finetuned(encoder, loss, finetune_options)
            finetuning[f"{loss}, {seed}"] = time.perf_counter() - began
            label = "fine-tuned" if len(losses) == 1 else f"fine-tuned {loss}"
            tuned[label] = full
            if cross_fit:
                folded = bench.folded(encoder, full, cross_fit, loss, finetune_options)
                tuned[f"{label}, cross-fitted"] = folded
        for run in bench.runs(encoder, tuned):
            runs.append(run)
            if on_run is not None:
                on_run(run)
    return AblationResult(
        table.name,
        len(table),
        table.names,
        tuple(seeds),
        predictor,
        finetuning,
        command,
        package_versions(("torch",)),
        tuple(runs),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Bench:
    """One split, with all that is the same for every context."""

    seed: int
    predictor: str
    n_domains: int
    train: RecordTable
    test: BenchmarkTable
    reference: ReferencePoint

    @classmethod
    def make(
        cls, table: BenchmarkTable, seed: int, predictor: str, n_domains: int
    ) -> "_Bench":
        rows, held_out = stratified_split(table, seed=seed)
        train, test = table.select(rows), table.select(held_out)
        return cls(
            seed,
            predictor,
            n_domains,
            tabulate(train.records(), table.names),
            test,
            reference_point(train.quality, test.quality, test.cost),
        )

    def finetuned(
        self,
        encoder: StaticEncoder,
        loss: Loss,
        options: Mapping[str, Any],
        rows: NDArray[np.intp] | None = None,
    ) -> StaticEncoder:
        chosen = self.train if rows is None else self.train.rows(rows.tolist())
        return finetune_encoder(
            chosen.queries,
            chosen.tags,
            encoder=encoder,
            loss=loss,
            n_domains=self.n_domains,
            seed=self.seed,
            **options,
        )

    def folded(
        self,
        start: StaticEncoder,
        full: StaticEncoder,
        n_folds: int,
        loss: Loss,
        options: Mapping[str, Any],
    ) -> FoldedEncoder:
        queries = self.train.queries
        fold_of = fold_of_rows(len(queries), n_folds=n_folds, seed=self.seed)
        folds = []
        for fold in range(n_folds):
            inside, outside = (np.flatnonzero(fold_of != fold), fold_of == fold)
            own = [queries[i] for i in np.flatnonzero(outside)]
            folds.append((self.finetuned(start, loss, options, inside), own))
        return FoldedEncoder(full, folds)

    def runs(
        self, plain: Encoder, tuned: Mapping[str, Encoder]
    ) -> Iterator[AblationRun]:
        """Run all contexts, plain ones first."""
        shipped = _Source.make(self, plain, None)
        yield shipped.run(BASELINE, ("embedding",))
        yield shipped.run("+ posterior", ("embedding", "posterior"))
        for label, encoder in tuned.items():
            source = _Source.make(self, encoder, shipped.cost)
            yield source.run(f"+ {label}", ("embedding",))
            yield source.run(f"+ {label} + posterior", ("embedding", "posterior"))
            parts = ("embedding", "posterior", "difficulty")
            yield source.run(f"+ {label} + posterior + difficulty", parts)
            yield source.whole(f"everything, {label}")
        yield shipped.run(
            "+ posterior + difficulty", ("embedding", "posterior", "difficulty")
        )
        yield shipped.whole("everything")
        names = [n for n in shipped.knowledge.context.blocks if n != "constant"]
        for name in names:
            rest = [other for other in names if other != name]
            yield shipped.run(f"everything − {name}", rest)


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """Contexts from one encoder, of which columns are dropped."""

    bench: _Bench
    knowledge: Knowledge
    contexts: FloatArray
    test_contexts: FloatArray
    quality: FloatArray
    cost: FloatArray
    blank: NDArray[np.bool_]
    seconds: float

    @classmethod
    def make(
        cls, bench: _Bench, encoder: Encoder, cost: FloatArray | None
    ) -> "_Source":
        """Fit a whole context; `cost` replaces what its own heads expect."""
        began = time.perf_counter()
        candidates = bench.test.candidates
        knowledge, contexts = Knowledge(
            ContextModel.unfitted(encoder.dimension)
        ).learned(
            bench.train,
            {c.name: c for c in candidates},
            encoder=encoder,
            predictor=bench.predictor,
            n_domains=bench.n_domains,
            seed=bench.seed,
        )
        reading = read(bench.test.queries, encoder)
        test_contexts = knowledge.context.contexts(reading)
        found = Forecaster(knowledge, candidates).forecast(reading, test_contexts)
        return cls(
            bench,
            knowledge,
            contexts,
            test_contexts,
            found.quality,
            found.cost if cost is None else cost,
            reading.blank,
            time.perf_counter() - began,
        )

    def whole(self, name: str) -> AblationRun:
        """Judge the context as it is."""
        n_features = self.contexts.shape[1]
        return self._judged(name, n_features, self.quality, self.seconds)

    def run(self, name: str, parts: Sequence[str]) -> AblationRun:
        """Fit quality heads on some blocks and the constant, and judge them."""
        began = time.perf_counter()
        blocks = self.knowledge.context.blocks
        kept = [blocks[p] for p in (*parts, "constant") if p in blocks]
        columns = np.concatenate([np.arange(k.start, k.stop) for k in kept])
        train = self.bench.train
        lengths = np.full(train.quality.shape, np.nan)  # not asked for: one for all
        heads = CandidateHeads.fit(
            train.names,
            self.contexts[:, columns],
            train.quality,
            lengths,
            predictor=self.bench.predictor,
            seed=self.bench.seed,
        ).leaning(self.bench.test.candidates, train.quality)
        quality, _ = heads.predict(self.test_contexts[:, columns], self.blank)
        seconds = time.perf_counter() - began
        return self._judged(name, len(columns), quality, seconds)

    def _judged(
        self, name: str, n_features: int, quality: FloatArray, seconds: float
    ) -> AblationRun:
        bench = self.bench
        run = score_predictions(
            quality,
            self.cost,
            test=bench.test,
            reference=bench.reference,
            method=name,
            seed=bench.seed,
        )
        curve = Curve(*np.asarray(run.curve).T)
        low, high = (
            third_quality(curve, bench.reference, high=side) for side in (False, True)
        )
        values = (run.aiq, low, high, run.mse, run.cost_at[_BASE_LEVEL])
        figures = dict(zip(FIGURES, values, strict=True))
        return AblationRun(name, bench.seed, n_features, figures, seconds)
