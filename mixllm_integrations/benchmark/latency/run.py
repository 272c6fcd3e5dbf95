"""Sends the same traffic to every contestant, at every point of three sweeps."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mixllm_integrations.benchmark.latency.contestants import (
    REFRESHED_EVERY_SECONDS,
    Always,
    LeastBusy,
    Live,
    Random,
    RefreshedRouter,
    RoundRobin,
    unalarmed,
)
from mixllm_integrations.benchmark.latency.results import (
    BLIND,
    CONTESTANTS,
    MEASURED,
    REFRESHED,
    Judge,
    LatencyResult,
    LatencyRun,
    Point,
)
from mixllm_integrations.benchmark.latency.simulation import (
    Contestant,
    Played,
    Traffic,
    arrivals,
    simulate,
)
from mixllm_integrations.benchmark.latency.speeds import (
    speed_of,
    undeclared,
    with_speeds,
)
from mixllm_integrations.benchmark.metrics import reference_point
from mixllm_integrations.benchmark.splits import stratified_split
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.benchmark.versions import package_versions
from mixllm_integrations.core.encoder import Encoder, StaticEncoder
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.router import Router
from mixllm_integrations.testing.clock import ManualClock

__all__ = ["PAPERS_POINT", "Sweep", "run_latency"]

_COST_TARGET = 0.2418  # the paper's headline
PAPERS_POINT = Point(10.0, 30.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What is varied, one condition at a time.

    Parameters
    ----------
    rates
        Queries per second.
    tolerances
        τ in seconds.
    factors
        Multiples of the usual willingness to pay.
    usual
        Where the others stay meanwhile. 100 queries per 10 s are the paper's; τ
        is the router's default.
    concurrency
        How many answers a candidate gives at once where it does not say.
    seconds
        How long traffic lasts at least.

    Notes
    -----
    Our choice, but for the rate: a concurrency of 8 is such that the strongest
    candidate would need several times as many servers for all of the traffic.
    """

    rates: Sequence[float] = (2.5, 5.0, 10.0, 20.0, 40.0)
    tolerances: Sequence[float] = (5.0, 10.0, 30.0, 60.0)
    factors: Sequence[float] = (0.1, 0.3, 1.0, 3.0, 10.0)
    usual: Point = PAPERS_POINT
    concurrency: int = 8
    seconds: float = 120.0

    def __post_init__(self) -> None:
        for what in ("rates", "tolerances", "factors"):
            if not all(value > 0 for value in getattr(self, what)):
                raise ConfigurationError(
                    f"{what} must be above 0, not {tuple(getattr(self, what))!r}"
                )

    @property
    def points(self) -> tuple[Point, ...]:
        """Every point once."""
        usual = self.usual
        found = [
            usual,
            *(usual._replace(rate=rate) for rate in self.rates),
            *(usual._replace(tolerance_seconds=t) for t in self.tolerances),
            *(usual._replace(factor=factor) for factor in self.factors),
        ]
        return tuple(dict.fromkeys(found))


def run_latency(
    table: BenchmarkTable,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    sweep: Sweep | None = None,
    contestants: Sequence[str] = CONTESTANTS,
    predictor: str = "auto",
    encoder: Encoder | None = None,
    willingness_to_pay: float | None = None,
    command: str = "",
    on_step: Callable[[str], None] | None = None,
    on_run: Callable[[LatencyRun], None] | None = None,
) -> LatencyResult:
    """Route simulated traffic of recorded queries under time constraint.

    Parameters
    ----------
    table
        Complete queries.
    seeds
        One 80/20 split, one order and one draw of arrivals each.
    sweep
        Under what conditions.
    contestants
        Which ones, of `CONTESTANTS`.
    predictor
        Kind of the router's predictors.
    encoder
        Of the router; ``None``: the shipped one.
    willingness_to_pay
        USD for one whole point of quality; by default calibrated to the paper's
        share of the strongest candidate's cost, on the training queries of the
        first seed, without any load.
    command
        Noted in the result.
    on_step, on_run
        Told what is done next, and each run as soon as it is there.

    Raises
    ------
    ConfigurationError
        If there is no seed, an unknown contestant, or too few queries to split.
    """
    sweep = Sweep() if sweep is None else sweep
    if not seeds:
        raise ConfigurationError("a simulation needs at least one seed")
    for name in contestants:
        if name not in CONTESTANTS:
            raise ConfigurationError(
                f"unknown contestant {name!r}; use some of {CONTESTANTS}"
            )
    encoder = StaticEncoder.load() if encoder is None else encoder
    say = on_step or (lambda _: None)
    table = with_speeds(table, concurrency=sweep.concurrency)
    value, rule = willingness_to_pay, "given"
    runs: list[LatencyRun] = []
    strongest: list[str] = []
    for seed in seeds:
        say(f"seed {seed}: fitting")
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            stack.enter_context(unalarmed())
            rows, held_out = stratified_split(table, seed=seed)
            train, test = table.select(rows), table.select(held_out)
            router = Router(
                [undeclared(c) for c in table.candidates],
                encoder=encoder,
                predictor=predictor,
                prior="none",
                seed=seed,
            ).fit(train.records())
            if value is None:
                say("calibrating the willingness to pay")
                found = router.calibrate(
                    train.records(), cost_target=_COST_TARGET, apply=False
                )
                value = float(f"{found.willingness_to_pay:.3g}")
                rule = f"{_COST_TARGET:.2%} of the strongest's cost, seed {seed}"
            router.save(folder, compact=True)
            best = reference_point(train.quality, test.quality, test.cost).strongest
            strongest.append(table.names[best])
            world = _World(test, best, seed, sweep, value, encoder, folder)
            say(f"seed {seed}: {len(sweep.points)} points")
            for run in world.runs(contestants):
                runs.append(run)
                if on_run is not None:
                    on_run(run)
    return LatencyResult(
        table.name,
        table.names,
        len(table),
        tuple(seeds),
        tuple(name for name in CONTESTANTS if name in contestants),
        tuple(strongest),
        sweep.usual,
        float(value or 0.0),
        rule,
        {
            "predictor": predictor,
            "refreshed_every_seconds": REFRESHED_EVERY_SECONDS,
            "concurrency": {c.name: c.max_concurrency for c in table.candidates},
            "start_up_seconds_and_tokens_per_second": {
                c.name: list(speed_of(c)) for c in table.candidates
            },
            "sweep": {"rates": sweep.rates, "tolerances": sweep.tolerances}
            | {"factors": sweep.factors, "seconds": sweep.seconds},
        },
        command,
        package_versions(),
        tuple(runs),
    )


@dataclass(slots=True)
class _World:
    """One split: the queries that come, and routers that know the others."""

    test: BenchmarkTable
    strongest: int
    seed: int
    sweep: Sweep
    willingness_to_pay: float
    encoder: Encoder
    folder: Path
    clock: ManualClock = field(default_factory=ManualClock)
    _played: dict[tuple[str, Point], tuple[Played, float]] = field(default_factory=dict)

    def runs(self, contestants: Sequence[str]) -> Iterator[LatencyRun]:
        judge = Judge(self.test, self.strongest, self.seed)
        for point in self.sweep.points:
            traffic = arrivals(
                len(self.test),
                rate=point.rate,
                seconds=self.sweep.seconds,
                seed=self.seed,
            )
            for name in contestants:
                played, seconds = self._play(name, point, traffic)
                run = judge.run(name, point, traffic, played)
                yield replace(run, seconds=seconds)

    def _play(self, name: str, point: Point, traffic: Traffic) -> tuple[Played, float]:
        """Simulate, or take what does not depend on all conditions from before."""
        key = name, self._relevant(name, point)
        if key not in self._played:
            contestant = self._contestant(name, point)
            began = time.perf_counter()
            played = simulate(self.test, traffic, contestant, self.clock)
            self._played[key] = played, time.perf_counter() - began
        return self._played[key]

    def _relevant(self, name: str, point: Point) -> Point:
        usual = self.sweep.usual
        if not name.startswith("ours"):
            return usual._replace(rate=point.rate)
        if name == BLIND:
            return point._replace(tolerance_seconds=usual.tolerance_seconds)
        return point

    def _contestant(self, name: str, point: Point) -> Contestant:
        n = len(self.test.names)
        if name.startswith("ours"):
            return Live(self._router(name, point), self.test.queries)
        if name == "least-busy":
            return LeastBusy(n, seed=self.seed)
        if name == "round-robin":
            return RoundRobin(n)
        if name == "random":
            return Random(n, seed=self.seed)
        if name == "cheapest":
            return Always(int(np.argmin(self.test.cost.mean(axis=0))))
        return Always(self.strongest)

    def _router(self, name: str, point: Point) -> Router:
        kind = RefreshedRouter if name == REFRESHED else Router
        router = kind.load(self.folder, encoder=self.encoder, clock=self.clock)
        if name != MEASURED:
            for candidate in self.test.candidates:
                router.replace_candidate(candidate)
        router.willingness_to_pay = self.willingness_to_pay * point.factor
        router.waiting_tolerance_seconds = point.tolerance_seconds
        if name == BLIND:
            router.waiting_weight = 0.0
        return router
