"""Fits what the streams of one world share, in batches where no feedback counts."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.benchmark.online.streams import (
    MAIN_STREAMS,
    Ground,
    Stream,
    make_stream,
)
from mixllm_integrations.benchmark.online.worlds import (
    OURS,
    Expected,
    Site,
    Start,
    World,
    WorldSettings,
    available_learners,
    plays,
    start_of,
)
from mixllm_integrations.benchmark.splits import stratified_split
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import FloatArray

__all__ = ["calibrated_willingness", "make_world"]

_N_UNSEEN = 4
_COST_TARGET = 0.25  # the paper's headline has 24.18 %


def calibrated_willingness(
    table: BenchmarkTable, site: Site, settings: WorldSettings
) -> float:
    """Return USD per point of quality at which a quarter of the cost is spent.

    Parameters
    ----------
    table
        All queries.
    site
        Whose offline part is calibrated on, by cross-validation.
    settings
        Of the router.

    Notes
    -----
    Our choice: calibrated to 25 % of the strongest candidate's cost, and rounded
    to three digits.
    """
    rows, _ = _parts(table, site)[:2]
    records = table.select(rows).only(site.pool).records()
    router = settings.router(table.only(site.pool).candidates, site.seed).fit(records)
    found = router.calibrate(records, cost_target=_COST_TARGET, apply=False)
    return float(f"{found.willingness_to_pay:.3g}")


def make_world(
    table: BenchmarkTable,
    site: Site,
    *,
    settings: WorldSettings,
    willingness_to_pay: float,
    streams: Sequence[str],
    learners: Sequence[str],
    on_step: Callable[[str], None] | None = None,
) -> World:
    """Fit everything that the streams of one world share.

    Parameters
    ----------
    table
        Complete queries, the newcomer's answers included.
    site
        Which world.
    settings
        Of the routers.
    willingness_to_pay
        USD for one whole point of quality; decides whom a router asks most.
    streams, learners
        For whom.
    on_step
        Told what is fitted next.
    """
    return _Maker(table, site, settings, willingness_to_pay, on_step).world(
        streams, available_learners(learners)
    )


class _Maker:
    def __init__(
        self,
        table: BenchmarkTable,
        site: Site,
        settings: WorldSettings,
        willingness_to_pay: float,
        on_step: Callable[[str], None] | None,
    ) -> None:
        self.table, self.site, self.settings = table, site, settings
        self.willingness = willingness_to_pay
        self.offline, self.asked, self.test = _parts(table, site)
        self.unseen = self._unseen_domains()
        self.say = on_step or (lambda _: None)
        self._made: dict[tuple[Start, tuple[Any, ...]], Router] = {}
        self.candidates = dict(zip(table.names, table.candidates, strict=True))
        self.texts = (
            [table.queries[i] for i in self.asked],
            [table.queries[i] for i in self.test],
        )

    def world(self, names: Sequence[str], learners: Sequence[str]) -> World:
        starts = dict.fromkeys(("usual", *(start_of(n) for n in names)))
        routers: dict[tuple[Start, str], Router] = {}
        idle: dict[Start, Expected] = {}
        for start in starts:
            self.say(f"fitting offline: {start}")
            idle[start] = self._expected(self._joined(self._offline(start, "")))
            for learner in learners:
                here = [n for n in names if start_of(n) == start and plays(learner, n)]
                if learner in OURS and here:
                    routers[start, learner] = self._offline(start, learner)
        ground = self._ground(idle["usual"])
        streams = {n: make_stream(n, self._cut(n, ground)) for n in names}
        refits = self._refits(streams, is_asked="full information" in learners)
        hindsight = self._hindsight(streams)
        encoder = self.settings.encoder or StaticEncoder.load()
        rows = (self.offline, self.asked, self.test)
        return World(
            self.site,
            self.table.select(self.offline),
            ground,
            streams,
            tuple(encoder.encode([self.table.queries[i] for i in r]) for r in rows),  # type: ignore[arg-type]
            self.unseen,
            routers,
            idle,
            refits,
            hindsight,
        )

    def _cut(self, stream: str, ground: Ground) -> Ground:
        settings = self.settings
        most = settings.n_main_steps if stream in MAIN_STREAMS else settings.n_steps
        return ground if most is None else ground.first(most)

    def _unseen_domains(self) -> tuple[str, ...]:
        domains = sorted(set(self.table.domains))
        n = min(_N_UNSEEN, max(len(domains) - 1, 0))
        rng = np.random.default_rng([self.site.seed, 4])
        return tuple(sorted(rng.choice(domains, n, replace=False).tolist()))

    def _offline(self, start: Start, learner: str) -> Router:
        """Return a router that was fitted once for all learners it suits."""
        outsider = self.site.newcomer not in self.site.pool
        if start == "newcomer" and outsider:  # who is not fitted anyway
            start = "usual"
        options = OURS.get(learner, {})
        key = start, tuple(options.items())
        if key not in self._made:
            without = self.site.newcomer if start == "newcomer" else None
            names = [name for name in self.site.pool if name != without]
            rows = self.offline
            if start == "unseen":
                domains = self.table.domains
                rows = np.array([i for i in rows if domains[i] not in self.unseen])
            self._made[key] = self._fitted(names, rows, options)
        return self._made[key]

    def _fitted(
        self,
        names: Sequence[str],
        rows: NDArray[np.int64],
        options: Mapping[str, Any] | None = None,
    ) -> Router:
        known = self.table.select(rows).only(names)
        router = self.settings.router(known.candidates, self.site.seed, options)
        return router.fit(known.records())

    def _joined(self, router: Router) -> Router:
        """Return a copy that the newcomer has joined."""
        found = copy.deepcopy(router)
        if self.site.newcomer not in {c.name for c in found.candidates}:
            found.add_candidate(self.candidates[self.site.newcomer])
        return found

    def _expected(self, router: Router) -> Expected:
        matrices: list[FloatArray] = []
        for texts in self.texts:
            found = router.predict(texts)
            quality = np.zeros((len(texts), len(self.candidates)))
            cost = np.zeros_like(quality)
            columns = [self.table.names.index(n) for n in found.candidates]
            quality[:, columns], cost[:, columns] = found.quality, found.cost
            matrices += [quality, cost]
        return Expected(*matrices)

    def _ground(self, idle: Expected) -> Ground:
        usual = np.array([n in self.site.pool for n in self.table.names])
        worth = idle.quality - idle.cost / self.willingness
        return Ground(
            self.table.select(self.asked),
            self.table.select(self.test),
            self.site.pool,
            self.site.newcomer,
            np.where(usual, worth, -np.inf).argmax(axis=1),
            self.site.seed,
        )

    def _refits(
        self, streams: Mapping[str, Stream], *, is_asked: bool
    ) -> dict[str, tuple[tuple[int, Expected], ...]]:
        ends: set[int] = set()
        if is_asked:
            lengths = {len(stream) for stream in streams.values()}
            every = self.settings.informed_every
            ends = lengths | set(range(every, max(lengths, default=0), every))
        if "newcomer" in streams:  # what share of the traffic would it deserve?
            ends.add(len(self.asked))
        found: dict[str, tuple[tuple[int, Expected], ...]] = {}
        for end in sorted(ends):
            self.say(f"fitting on all labels of {end:,} queries")
            for labels, expected in self._with_labels(np.arange(end), streams):
                found[labels] = (*found.get(labels, ()), (end, expected))
        return found

    def _hindsight(self, streams: Mapping[str, Stream]) -> dict[str, Expected]:
        halves = [np.arange(start, len(self.asked), 2) for start in (0, 1)]
        found: dict[str, Expected] = {}
        for half, other in (halves, halves[::-1]):
            self.say("fitting in hindsight")
            for labels, expected in self._with_labels(half, streams):
                into = found.setdefault(labels, expected)
                for matrix in ("quality", "cost"):
                    getattr(into, matrix)[other] = getattr(expected, matrix)[other]
        return found

    def _with_labels(
        self, places: NDArray[np.int64], streams: Mapping[str, Stream]
    ) -> Iterable[tuple[str, Expected]]:
        """Yield what is expected after all labels of some queries of the stream."""
        rows = np.concatenate([self.offline, self.asked[places]])
        router = self._fitted(self.site.pool, rows)
        known = self.table.select(rows)
        newcomer = self.site.newcomer
        if newcomer not in self.site.pool and "newcomer" in streams:
            router.add_candidate(self.candidates[newcomer])
            router.fit(known.only([newcomer]).records())
        yield "plain", self._expected(router)
        if "degraded" in streams:
            stream = streams["degraded"]
            column = stream.names.index(stream.focus)
            quality = known.quality.copy()
            inside = np.flatnonzero(places < len(stream))
            quality[len(self.offline) + inside, column] = stream.quality[
                places[inside], column
            ]
            worse = replace(known, quality=quality).only([stream.focus])
            router.fit(worse.records())
            yield "degraded", self._expected(router)


def _parts(
    table: BenchmarkTable, site: Site
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of the offline part, of the stream in order, and of the test."""
    rows, test = stratified_split(table, seed=site.seed)
    order = np.random.default_rng([site.seed, 3]).permutation(rows)
    n_offline = round(site.share * len(order))
    if not 0 < n_offline < len(order):
        raise ConfigurationError(f"{len(order)} queries are too few for a stream")
    return order[:n_offline], order[n_offline:], test
