"""Learning online, measured: learners in streams of real recorded outcomes.

All see the same queries in the same order at the same willingness to pay, and
hear of the answers they chose. The reward of a query is quality − cost /
willingness to pay. Regret is against a fixed policy in hindsight: a router
fitted on the offline part and the labels, of all candidates, of the other half
of the stream (in two folds, so that it knows no query it is judged on).
"""

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, TypeVar

from mixllm_integrations.benchmark.online.fits import (
    calibrated_willingness,
    make_world,
)
from mixllm_integrations.benchmark.online.learners import (
    Played,
    RouterLearner,
    frozen_choices,
    held_out_by,
    play,
    refitted_over_time,
)
from mixllm_integrations.benchmark.online.load import measure_load
from mixllm_integrations.benchmark.online.peers import PEERS, Setting, available_peers
from mixllm_integrations.benchmark.online.results import (
    IDLE,
    OnlineResult,
    OnlineRun,
)
from mixllm_integrations.benchmark.online.scores import Scorer
from mixllm_integrations.benchmark.online.streams import (
    EXTRA_STREAMS,
    STREAMS,
    chosen_newcomer,
)
from mixllm_integrations.benchmark.online.worlds import (
    OURS,
    USUAL_SHARE,
    Site,
    World,
    WorldSettings,
    available_learners,
    offline_share,
    plays,
)
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.benchmark.versions import package_versions
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.router import Router

__all__ = [
    "HINDSIGHT",
    "INFORMED",
    "LEARNERS",
    "PLAYED_BY_DEFAULT",
    "run_online",
    "with_load",
]

INFORMED, HINDSIGHT = "full information", "in hindsight"
LEARNERS = (*OURS, IDLE, *PEERS, INFORMED, HINDSIGHT)
PLAYED_BY_DEFAULT = tuple(
    name for name in LEARNERS if name not in {"ours, no refit", "ours, thompson"}
)
# Where other values of the willingness to pay are tried as well.
_AT_OTHER_VALUES = ("refined-30/70", "refined-70/30")
_NOTED = (
    *("exploration", "exploration_form", "exploration_budget", "forgetting", "l2"),
    *("binary_feedback", "randomisation"),
)
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class _Job:
    """One stream of one world at one willingness to pay."""

    world: World
    stream: str
    willingness_to_pay: float
    data: str
    settings: WorldSettings
    learners: tuple[str, ...]

    def runs(self) -> list[OnlineRun]:
        stream = self.world.streams[self.stream]
        scorer = Scorer(self.world, stream, self.willingness_to_pay, self.data)
        found = []
        for learner in self.learners:
            if not plays(learner, self.stream):
                continue
            began = time.perf_counter()
            played = self._played(learner)
            spent = time.perf_counter() - began
            found.append(scorer.run(learner, played, seconds=spent))
        return found

    def _played(self, learner: str) -> Played:
        world, stream = self.world, self.world.streams[self.stream]
        value, start = self.willingness_to_pay, self.world.start_of(self.stream)
        if learner in OURS:
            ground = world.ground
            router = RouterLearner(
                copy.deepcopy(world.routers[start, learner]),
                stream,
                ground.asked,
                ground.test,
                willingness_to_pay=value,
                refit=learner != "ours, no refit",
            )
            return play(stream, router, pause_every=self.settings.refit_every)
        if learner in PEERS:
            seed = world.site.seed
            setting = Setting(stream, world.offline, world.embeddings, value, seed)
            peer = PEERS[learner](setting)
            return play(stream, peer, pause_every=len(stream))
        labels = world.labels_of(self.stream)
        expected = {
            IDLE: lambda: world.idle[start],
            HINDSIGHT: lambda: world.hindsight[labels],
            INFORMED: lambda: refitted_over_time(
                world.idle[start], world.refits[labels], stream
            ),
        }[learner]()
        chosen = frozen_choices(expected, stream, value)
        return Played(chosen, held_out_by(expected, stream, value))


def run_online(
    table: BenchmarkTable,
    *,
    pool: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    streams: Sequence[str] = STREAMS,
    learners: Sequence[str] = PLAYED_BY_DEFAULT,
    settings: WorldSettings | None = None,
    willingness_to_pay: float | None = None,
    factors: Sequence[float] = (),
    n_jobs: int = 1,
    command: str = "",
    on_step: Callable[[str], None] | None = None,
    on_run: Callable[[OnlineRun], None] | None = None,
) -> OnlineResult:
    """Show streams of recorded outcomes to learners.

    Parameters
    ----------
    table
        Complete queries, of the newcomer as well.
    pool
        Who competes usually; everybody by default. Somebody beside them joins in
        the stream ``"newcomer"``, or else the best of them.
    seeds
        One split, one order and one draw of everything each.
    streams, learners
        Which ones, of `STREAMS`, `EXTRA_STREAMS` and `LEARNERS`; the router that
        learns nothing always takes part. What is not installed, or an option that
        the router does not have, is left out.
    settings
        How routers are made and fitted.
    willingness_to_pay
        USD for one whole point of quality; by default calibrated to a quarter
        of the strongest candidate's cost on the offline part of the first seed.
    factors
        Multiples of it at which the refined streams are run as well.
    n_jobs
        Processes.
    command
        Noted in the result.
    on_step, on_run
        Told what is done next, and each run as soon as it is there. Steps within
        several processes are not told.

    Raises
    ------
    ConfigurationError
        If there is no seed, or an unknown stream or learner.
    """
    settings = WorldSettings() if settings is None else settings
    learners = _checked(learners, LEARNERS, "learner")
    streams = _checked(streams, (*STREAMS, *EXTRA_STREAMS), "stream")
    learners = available_peers(available_learners(tuple({**dict.fromkeys(learners)})))
    if IDLE not in learners:
        learners = (IDLE, *learners)
    if not seeds:
        raise ConfigurationError("learning online needs at least one seed")
    say = on_step or (lambda _: None)
    names = table.names if pool is None else tuple(pool)
    rule = "given"
    value = willingness_to_pay
    if value is None:
        say("calibrating the willingness to pay")
        first = Site(seeds[0], USUAL_SHARE, names, newcomer="")
        value = calibrated_willingness(table, first, settings)
        rule = f"25 % of the strongest's cost, offline part of seed {seeds[0]}"
    newcomer = chosen_newcomer(table, names, value)
    table = table.only(list({*names, newcomer}))
    shares = dict.fromkeys(offline_share(stream) for stream in streams)
    sites = [Site(seed, share, names, newcomer) for seed in seeds for share in shares]

    def made(site: Site) -> World:
        return make_world(
            table,
            site,
            settings=settings,
            willingness_to_pay=value,
            streams=[s for s in streams if offline_share(s) == site.share],
            learners=learners,
            on_step=on_step if n_jobs == 1 else None,
        )

    runs: list[OnlineRun] = []
    say(f"fitting {len(sites)} worlds")
    worlds = list(_each(made, sites, n_jobs))
    jobs = [
        _Job(world, stream, value * factor, table.name, settings, learners)
        for world in worlds
        for stream in world.streams
        for factor in (1.0, *(factors if stream in _AT_OTHER_VALUES else ()))
    ]
    for found in _each(_Job.runs, jobs, n_jobs):
        for run in found:
            runs.append(run)
            if on_run is not None:
                on_run(run)
    runs.sort(key=lambda r: (streams.index(r.stream), r.seed, r.willingness_to_pay))
    return OnlineResult(
        table.name,
        names,
        newcomer,
        len(table),
        tuple(seeds),
        streams,
        learners,
        value,
        rule,
        _told(settings),
        command,
        package_versions(["mabwiser", "paretobandit"]),
        tuple(runs),
    )


def with_load(
    result: OnlineResult,
    table: BenchmarkTable,
    settings: WorldSettings,
    *,
    n_feedbacks: int,
) -> OnlineResult:
    """Return a result with what learning takes of time and memory.

    Parameters
    ----------
    result
        Without.
    table
        Complete queries.
    settings
        How the router is made.
    n_feedbacks
        How many it is fed with.
    """
    load = measure_load(table, n_feedbacks=n_feedbacks, settings=settings)
    return replace(result, load=load)


def _each(
    make: Callable[[Any], _Made], of: Sequence[Any], n_jobs: int
) -> Iterator[_Made]:
    if n_jobs == 1 or len(of) == 1:
        yield from map(make, of)
        return
    from joblib import Parallel, delayed

    work = Parallel(n_jobs, return_as="generator_unordered", max_nbytes=None)
    yield from work(delayed(make)(one) for one in of)


def _checked(asked: Iterable[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(asked))
    for name in names:
        if name not in known:
            raise ConfigurationError(f"unknown {what} {name!r}; use some of {known}")
    if not names:
        raise ConfigurationError(f"name at least one {what} of {known}")
    return tuple(name for name in known if name in names)


def _told(settings: WorldSettings) -> dict[str, Any]:
    prior = settings.prior
    return {
        "predictor": settings.predictor,
        "prior": prior if isinstance(prior, str) else prior.revision,
        "encoder": "shipped" if settings.encoder is None else settings.encoder.id,
        "refit_every": settings.refit_every,
        "informed_every": settings.informed_every,
        "n_steps": settings.n_steps,
        "n_main_steps": settings.n_main_steps,
        "router": _defaults(),
    }


def _defaults() -> dict[str, Any]:
    """Return how the router learns where it is told nothing."""
    usual = signature(Router).parameters
    return {name: usual[name].default for name in _NOTED if name in usual}
