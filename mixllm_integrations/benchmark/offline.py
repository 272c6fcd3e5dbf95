"""Offline benchmark: routers and baselines on recorded answers, split by split.

Every method is fitted on the same training split and judged on the same test
split, over several seeds. The router under test is the real one: it is fitted
from records and asked for predictions by its public interface, with nothing
that a user would not have (it estimates input lengths by itself).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.benchmark.baselines import (
    Baseline,
    CurveBaseline,
    Embedded,
    SingleCandidate,
    default_baselines,
    hull_curve,
)
from mixllm_integrations.benchmark.metrics import (
    COST_LEVELS,
    QUALITY_LEVELS,
    Curve,
    ReferencePoint,
    aiq,
    brier_score,
    cost_at_quality,
    mean_squared_error,
    quality_at_cost,
    reference_point,
    reliability,
    sweep,
)
from mixllm_integrations.benchmark.peers import installed_peers, peer_baselines
from mixllm_integrations.benchmark.results import (
    MethodRun,
    OfflineResult,
    Role,
    Summary,
)
from mixllm_integrations.benchmark.splits import stratified_split
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.benchmark.versions import package_versions
from mixllm_integrations.core.encoder import Encoder, StaticEncoder
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import FloatArray

__all__ = [
    "PREDICTOR_KINDS",
    "MethodRun",
    "OfflineResult",
    "Role",
    "Summary",
    "run_offline",
    "score_predictions",
    "stratified_split",
]

PREDICTOR_KINDS = ("auto", "ridge", "forest", "knn", "mlp", "ensemble")


def run_offline(
    table: BenchmarkTable,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    predictor: str = "auto",
    all_kinds: bool = False,
    baselines: bool = True,
    encoder: Encoder | None = None,
    n_jobs: int = 1,
    command: str = "",
    on_run: Callable[[MethodRun], None] | None = None,
    **router_options: Any,  # noqa: ANN401
) -> OfflineResult:
    """Benchmark the router beside all baselines on recorded answers.

    Parameters
    ----------
    table
        Complete queries.
    seeds
        One split each: 80 % to fit on, 20 % to be judged on.
    predictor
        Kind of the router's predictors.
    all_kinds
        Also run the router with every other kind.
    baselines
        Whether the baselines are run.
    encoder
        Of the router and of the baselines; the shipped one by default.
    n_jobs
        Processor cores for the baselines that can use them.
    command
        Noted in the result.
    on_run
        Called with each run as soon as it is there.
    router_options
        Passed on to `Router`.

    Raises
    ------
    ConfigurationError
        If there is no seed, or too few queries to split.
    """
    if not seeds:
        raise ConfigurationError("a benchmark needs at least one seed")
    encoder = StaticEncoder.load() if encoder is None else encoder
    embedding = encoder.encode(list(table.queries))
    kinds = [predictor]
    if all_kinds:
        kinds += [kind for kind in PREDICTOR_KINDS if kind != predictor]
    runs: list[MethodRun] = []
    strongest: list[str] = []
    sizes = (0, 0)
    for seed in seeds:
        split = _Split.make(table, embedding, seed)
        sizes = (len(split.train.table), len(split.test.table))
        strongest.append(table.names[split.reference.strongest])
        sources = [_router_runs(split, kinds, encoder, router_options)]
        if baselines:
            sources.append(_baseline_runs(split, n_jobs))
        for source in sources:
            for run in source:
                runs.append(run)
                if on_run is not None:
                    on_run(run)
    return OfflineResult(
        table.name,
        table.names,
        len(table),
        *sizes,
        tuple(seeds),
        tuple(strongest),
        command,
        package_versions(installed_peers()),
        tuple(runs),
    )


def score_predictions(
    quality: FloatArray,
    cost: FloatArray,
    *,
    test: BenchmarkTable,
    reference: ReferencePoint,
    method: str,
    role: Role = "router",
    seed: int = 0,
    fit_seconds: float = 0.0,
    predict_seconds: float = 0.0,
    curve: Curve | None = None,
) -> MethodRun:
    """Judge the predictions of one method on one test split.

    Parameters
    ----------
    quality, cost
        Predictions, shape ``(n_test, n_candidates)``, cost in USD.
    test
        What was recorded.
    reference
        What the figures are relative to.
    method, role, seed, fit_seconds, predict_seconds
        Noted in the run.
    curve
        Of a method with a selection rule of its own; by default the willingness
        to pay is swept over the predictions.
    """
    if curve is None:
        curve = sweep(
            quality,
            cost,
            true_quality=test.quality,
            true_cost=test.cost,
            reference=reference,
        )
    run = _curve_run(curve, reference, method, role, seed)
    if role == "single" or not cost.any():
        return run
    bins = reliability(quality, test.quality)
    columns = (bins.predicted.tolist(), bins.observed.tolist(), bins.count.tolist())
    return replace(
        run,
        mse=mean_squared_error(quality, test.quality),
        brier=brier_score(quality, test.quality),
        calibration_error=bins.error,
        cost_ratio=float(cost.mean() / test.cost.mean()),
        fit_seconds=fit_seconds,
        predict_seconds=predict_seconds,
        reliability=tuple(zip(*columns, strict=True)),
    )


@dataclass(frozen=True, slots=True)
class _Split:
    seed: int
    train: Embedded
    test: Embedded
    reference: ReferencePoint

    @classmethod
    def make(
        cls, table: BenchmarkTable, embedding: NDArray[np.float32], seed: int
    ) -> "_Split":
        rows, held_out = stratified_split(table, seed=seed)
        train, test = table.select(rows), table.select(held_out)
        return cls(
            seed,
            Embedded(train, embedding[rows]),
            Embedded(test, embedding[held_out]),
            reference_point(train.quality, test.quality, test.cost),
        )


def _router_runs(
    split: _Split, kinds: Sequence[str], encoder: Encoder, options: dict[str, Any]
) -> Iterator[MethodRun]:
    records = split.train.table.records()
    for kind in kinds:
        router = Router(
            split.train.table.candidates,
            encoder=encoder,
            predictor=kind,
            seed=split.seed,
            **options,
        )
        began = time.perf_counter()
        router.fit(records)
        fitted = time.perf_counter()
        found = router.predict(list(split.test.table.queries))
        done = time.perf_counter()
        yield score_predictions(
            found.quality,
            found.cost,
            test=split.test.table,
            reference=split.reference,
            method=f"MixLLM ({kind})",
            seed=split.seed,
            fit_seconds=fitted - began,
            predict_seconds=done - fitted,
        )


def _baseline_runs(split: _Split, n_jobs: int) -> Iterator[MethodRun]:
    test, reference, seed = split.test.table, split.reference, split.seed
    curve = hull_curve(split.train.table, test, reference)
    yield _curve_run(curve, reference, "convex mix of singles", "baseline", seed)
    plain = default_baselines(seed=seed, n_jobs=n_jobs)
    for baseline in (*peer_baselines(seed=seed), *plain):
        yield _baseline_run(split, baseline, _role(baseline))
    for name in test.names:
        yield _baseline_run(split, SingleCandidate(name), "single")


def _baseline_run(split: _Split, baseline: Baseline, role: Role) -> MethodRun:
    began = time.perf_counter()
    baseline.fit(split.train)
    fitted = time.perf_counter()
    quality, cost = baseline.predict(split.test)
    done = time.perf_counter()
    curve = None
    if isinstance(baseline, CurveBaseline):
        curve = baseline.curve(split.test, split.reference)
    return score_predictions(
        quality,
        cost,
        test=split.test.table,
        reference=split.reference,
        method=baseline.name,
        role=role,
        seed=split.seed,
        fit_seconds=fitted - began,
        predict_seconds=done - fitted,
        curve=curve,
    )


def _role(baseline: Baseline) -> Role:
    return "bound" if baseline.name == "oracle" else "baseline"


def _curve_run(
    curve: Curve, reference: ReferencePoint, method: str, role: Role, seed: int
) -> MethodRun:
    points = zip(curve.cost.tolist(), curve.quality.tolist(), strict=True)
    best = float(curve.quality.max())
    return MethodRun(
        method,
        role,
        seed,
        aiq(curve, reference),
        {level: cost_at_quality(curve, level) for level in QUALITY_LEVELS},
        {level: quality_at_cost(curve, level) for level in COST_LEVELS},
        best,
        cost_at_quality(curve, best),
        curve=tuple(dict.fromkeys(points)),
    )
