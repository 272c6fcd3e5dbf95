"""How the cost of a decision grows: candidates, dimensions, training size.

``mixllm benchmark speed`` beside ``mixllm benchmark overhead``, which measures
imports, chat models and the memory of a serving process. Every decision is on
a text that the router has not met, embedding included.
"""

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mixllm_integrations.benchmark.fit_probe import predict_seconds, write_table
from mixllm_integrations.benchmark.overhead import Timing, machine_facts, run_python
from mixllm_integrations.benchmark.serving_probe import route_seconds
from mixllm_integrations.benchmark.splits import stratified_split
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.benchmark.versions import package_versions
from mixllm_integrations.core.encoder import StaticEncoder, shipped_tokenizer
from mixllm_integrations.core.router import Router

__all__ = [
    "QUICK_SIZES",
    "FitCost",
    "Sizes",
    "Speed",
    "SpeedPoint",
    "encoder_of",
    "measure_speed",
    "widened",
]

_FIT_PROBE = "mixllm_integrations.benchmark.fit_probe"
_FLIPPED = 0.05  # share of a copy's labels that are another query's
_LOG_PRICE = math.log(2.0)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Which sizes are measured; while one grows the others stay at their usual.

    Parameters
    ----------
    candidates, embeddings, domains, queries
        How many candidates, dimensions of the embedding, most domains, and
        training queries. Sizes above the data set's are cut to it.
    usual_candidates, usual_queries
        Where the others grow.
    fit_candidates
        Of the fit of the largest training size, and of predictions after it.
    """

    candidates: tuple[int, ...] = (2, 5, 11, 25, 50, 100, 200)
    embeddings: tuple[int, ...] = (64, 128, 256, 512, 1024)
    domains: tuple[int, ...] = (0, 5, 10, 20)
    queries: tuple[int, ...] = (200, 500, 1_000, 2_000, 5_000, 9_560)
    usual_candidates: int = 11
    usual_queries: int = 1_000
    fit_candidates: int = 15


QUICK_SIZES = Sizes((2, 5), (64,), (0,), (100,), 3, 100, 3)


@dataclass(frozen=True, slots=True)
class SpeedPoint:
    """What a decision cost at one size.

    Parameters
    ----------
    grown
        What grew: ``"candidates"``, ``"embedding"``, ``"domains"`` or
        ``"queries"``.
    size
        How many of them.
    route
        `Router.route` in seconds.
    predict
        `Router.predict` on all prompts at once, seconds per query; the best of
        three.
    """

    grown: str
    size: int
    route: Timing
    predict: float


@dataclass(frozen=True, slots=True)
class FitCost:
    """What a fit took in a process of its own.

    Parameters
    ----------
    n_queries, n_candidates
        Its size.
    seconds
        `Router.fit`, without reading the data.
    before_bytes, peak_bytes
        Most memory of the process before the fit, records and all, and in the
        end; ``None`` where it cannot be read.
    route, predict
        As in `SpeedPoint`, by the router that was fitted.
    """

    n_queries: int
    n_candidates: int
    seconds: float
    before_bytes: int | None
    peak_bytes: int | None
    route: Timing
    predict: float


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured on one machine.

    Parameters
    ----------
    command, machine, versions
        How, where and with what.
    data, seed
        The data set, and the seed of the split and of all that was drawn.
    sizes
        What was asked for.
    n_prompts
        How many different texts were routed at each size.
    n_recorded
        How many candidates are real; the others are copies, see `widened`.
    points
        One per size.
    fit
        Of the largest training size and `Sizes.fit_candidates`.
    """

    command: str
    machine: str
    versions: dict[str, str]
    data: str
    seed: int
    sizes: Sizes
    n_prompts: int
    n_recorded: int
    points: tuple[SpeedPoint, ...]
    fit: FitCost

    def to_json(self) -> dict[str, Any]:
        """Return it as plain lists, numbers and strings."""
        return asdict(self)


def widened(table: BenchmarkTable, n: int, *, seed: int) -> BenchmarkTable:
    """Return a table of exactly so many candidates, copies where there are too few.

    A copy has another name, both prices times one factor between a half and
    two, and 5 % of its labels taken from other queries: as much work as a
    candidate of its own, and nothing else.

    Parameters
    ----------
    table
        Recorded candidates.
    n
        How many candidates.
    seed
        Of factors and labels.
    """
    recorded = len(table.candidates)
    column = np.arange(n) % recorded
    rng = np.random.default_rng(seed)
    factor = np.exp(rng.uniform(-_LOG_PRICE, _LOG_PRICE, n))
    factor[:recorded] = 1.0
    candidates = [
        replace(
            table.candidates[own],
            name=table.names[own] + (f" copy {i // recorded}" if i >= recorded else ""),
            input_cost_per_million_tokens=float(
                table.candidates[own].input_cost_per_million_tokens * factor[i]
            ),
            output_cost_per_million_tokens=float(
                table.candidates[own].output_cost_per_million_tokens * factor[i]
            ),
        )
        for i, own in enumerate(column.tolist())
    ]
    quality = table.quality[:, column]
    moved = rng.random(quality.shape) < _FLIPPED
    moved[:, :recorded] = False
    quality = np.where(moved, quality[rng.permutation(len(quality))], quality)
    return replace(
        table,
        candidates=tuple(candidates),
        quality=quality,
        input_tokens=table.input_tokens[:, column],
        output_tokens=table.output_tokens[:, column],
        cost=table.cost[:, column] * factor,
        latency_seconds=table.latency_seconds[:, column],
    )


def encoder_of(dimension: int, *, seed: int) -> StaticEncoder:
    """Return an encoder that takes as long as one of this dimension would.

    Parameters
    ----------
    dimension
        Of its embeddings; 256 is the shipped encoder, the others have random
        weights.
    seed
        Of the weights.
    """
    shipped, pieces = StaticEncoder.load(), shipped_tokenizer()
    if dimension == shipped.dimension:
        return shipped
    rng = np.random.default_rng(seed)
    return StaticEncoder(
        rng.standard_normal((pieces.size, dimension), dtype=np.float32),
        pieces,
        id=f"random-{dimension}",
        revision=str(seed),
    )


def measure_speed(
    table: BenchmarkTable,
    *,
    sizes: Sizes | None = None,
    n_prompts: int = 1_000,
    seed: int = 0,
    command: str = "",
    on_step: Callable[[str], None] | None = None,
) -> Speed:
    """Measure decisions, predictions in batch, and one whole fit.

    Parameters
    ----------
    table
        Complete queries: 80 % to fit on, the rest are the prompts.
    sizes
        What to measure; ``None``: the usual sizes.
    n_prompts
        How many different held-out texts are routed at each size, at most.
    seed
        Of the split and of all that is drawn.
    command
        Noted in the result.
    on_step
        Told what is measured next.

    Notes
    -----
    Outcomes are recorded between the decisions, not timed.
    """
    sizes, say = sizes or Sizes(), on_step or (lambda _step: None)
    rows, held_out = stratified_split(table, seed=seed)
    rng = np.random.default_rng(seed)
    rows, held_out = rng.permutation(rows), rng.permutation(held_out)
    prompts = list(dict.fromkeys(table.queries[i] for i in held_out))[:n_prompts]
    usual = table.select(rows[: sizes.usual_queries])
    few = widened(usual, sizes.usual_candidates, seed=seed)
    points: list[SpeedPoint] = []

    def measured(grown: str, size: int, given: BenchmarkTable, **settings: Any) -> None:  # noqa: ANN401
        say(f"{grown} {size:,}: fitting {len(given):,} x {len(given.candidates)}")
        router = Router(given.candidates, seed=seed, **settings).fit(given.records())
        points.append(_point(grown, size, router, prompts))

    for size in sizes.candidates:
        measured("candidates", size, widened(usual, size, seed=seed))
    for size in sizes.embeddings:
        measured("embedding", size, few, encoder=encoder_of(size, seed=seed))
    for size in sizes.domains:
        measured("domains", size, few, n_domains=size)
    for size in sorted({min(size, len(rows)) for size in sizes.queries}):
        part = widened(table.select(rows[:size]), sizes.usual_candidates, seed=seed)
        measured("queries", size, part)
    largest = table.select(rows[: max(sizes.queries, default=len(rows))])
    whole = widened(largest, sizes.fit_candidates, seed=seed)
    say(f"fitting {len(whole):,} x {len(whole.candidates)} in a process of its own")
    return Speed(
        command,
        machine_facts(),
        package_versions(("tokenizers",)),
        table.name,
        seed,
        sizes,
        len(prompts),
        len(table.candidates),
        tuple(points),
        _fit_cost(whole, prompts),
    )


def _point(grown: str, size: int, router: Router, prompts: Sequence[str]) -> SpeedPoint:
    route = Timing.of(route_seconds(router, prompts))
    return SpeedPoint(grown, size, route, predict_seconds(router, prompts))


def _fit_cost(table: BenchmarkTable, prompts: Sequence[str]) -> FitCost:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "table.json")
        write_table(table, prompts, file)
        found = json.loads(run_python("-m", _FIT_PROBE, str(file)))
    return FitCost(
        len(table),
        len(table.candidates),
        found["seconds"],
        found["before"],
        found["peak"],
        Timing.of(found["route"]),
        found["predict"],
    )
