"""Every method at once from many threads: no error, and nothing is lost."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from mixllm_integrations.core.errors import UnknownDecisionError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, Outcome

N_THREADS = 16
GUEST = Candidate("guest", 0.2, 0.8, prior_quality=0.9, seconds_per_output_token=0.01)
STABLE = ("calculator", "lawyer")
DONE = Outcome(10, 20, latency_seconds=0.5)


@pytest.fixture(autouse=True)
def _hasty_threads():
    """Change threads so often that a missing lock shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def at_once(*jobs):
    """Run jobs on a thread each, all starting together; return their results."""
    barrier = threading.Barrier(len(jobs))

    def run(job):
        barrier.wait(timeout=30)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        return [future.result(timeout=120) for future in futures]


def n_observed(router, name):
    """How many feedbacks a candidate has had: before a fit each context has |x|² 2."""
    return round(float(np.trace(router._experience.designs.gram(name))) / 2, 3)


def in_flight(router):
    return sum(router._waiting.in_flight(c.name) for c in router.candidates)


def test_no_feedback_is_lost_and_none_counts_twice(few):
    router = Router(few.candidates)
    decisions = router.route_batch(few.queries * 4)

    def tell_all():
        return sum(router.record_feedback(d.id, 0.5) for d in decisions)

    assert sum(at_once(*[tell_all] * N_THREADS)) == len(decisions)
    observed = sum(n_observed(router, c.name) for c in few.candidates)
    assert observed == len(decisions)


def test_every_outcome_releases_its_load_once(few):
    router = Router([replace(c, max_concurrency=1) for c in few.candidates])
    decisions = router.route_batch(few.queries * 4)
    assert in_flight(router) == len(decisions)

    def tell_all():
        for decision in decisions:
            router.record_outcome(decision.id, DONE)

    at_once(*[tell_all] * N_THREADS)
    assert in_flight(router) == 0
    counts = sum(r.count for r in router._experience.lengths.values())
    assert counts == len(decisions)


def test_routing_goes_on_while_a_candidate_comes_and_goes(few):
    router = Router(few.candidates, exploration=0.0)
    stop = threading.Event()

    def come_and_go():
        while not stop.is_set():
            router.add_candidate(GUEST)
            router.remove_candidate("guest")
        return 0

    def work():
        told = 0
        for query in few.queries:
            anyone, mine = router.route(query), router.route(query, among=STABLE)
            router.predict([query])
            for decision in (anyone, mine):
                assert set(decision.scores) >= set(STABLE)
                router.record_outcome(decision.id, DONE)
                router.record_feedback(decision.id, 0.5)
            told += 1 + (anyone.candidate in STABLE)
        return told

    def work_then_stop():
        try:
            return work()
        finally:
            stop.set()

    told = at_once(*[work_then_stop] * (N_THREADS - 1), come_and_go)
    assert sum(n_observed(router, name) for name in STABLE) == sum(told)
    assert in_flight(router) == 0


class Crowd:
    """All that users and operators may do with one router at the same time."""

    n_batches, n_in_batch = 10, 12

    def __init__(self, few, folder):
        self.few, self.folder = few, folder
        self.router = Router(few.candidates, predictor="ridge").fit(few.records())
        self.new = []
        self.left, self.stop = threading.Semaphore(0), threading.Event()

    def ask(self):
        for index, query in enumerate(self.few.queries):
            decision = self.router.route(query)
            self.router.record_outcome(decision.id, DONE)
            self.new.append(self.router.record_feedback(decision.id, index % 2))
            assert self.router.record_feedback(decision.id, 0.5) is False

    def ask_many(self):
        failed = Outcome(0, 0, error="TimeoutError")
        for _ in range(self.n_batches):
            queries = self.few.queries[: self.n_in_batch]
            assert np.isfinite(self.router.predict(queries).quality).all()
            for decision in self.router.route_batch(queries):
                self.router.record_outcome(decision.id, failed)
                told = self.router.record_feedback(decision.id, 1, kind="binary")
                self.new.append(told)

    def come_and_go(self):
        self.router.add_candidate(GUEST)
        decision = self.router.route("hello", among=["guest"])
        self.router.remove_candidate("guest")
        self.router.record_feedback(decision.id, 1.0)
        self.router.record_outcome(decision.id, DONE)

    def set_weights(self):
        self.router.willingness_to_pay = 0.02
        self.router.max_cost_per_query = 1.0
        self.router.exploration = 0.1
        self.router.max_cost_per_query = None

    def save_and_load(self):
        self.router.save(self.folder)
        loaded = Router.load(self.folder)
        assert loaded.is_fitted
        assert np.isfinite(loaded.predict(self.few.queries[:3]).quality).all()

    def counted(self, job):
        def run():
            try:
                job()
            finally:
                self.left.release()

        return run

    def until_done(self, job, *given):
        def repeat():
            while not self.stop.is_set():
                job(*given)

        return repeat

    def watch(self, n_jobs):
        for _ in range(n_jobs):
            self.left.acquire(timeout=60)
        self.stop.set()


def test_everything_at_once(few, tmp_path):
    crowd = Crowd(few, tmp_path / "router")
    router, jobs = crowd.router, [crowd.ask] * 6 + [crowd.ask_many] * 3
    at_once(
        *map(crowd.counted, jobs),
        crowd.until_done(router.fit, few.records()),
        crowd.until_done(router.fit, few.records("all-round")),
        crowd.until_done(crowd.come_and_go),
        crowd.until_done(crowd.set_weights),
        crowd.until_done(crowd.save_and_load),
        crowd.until_done(router.save, tmp_path / "router"),
        lambda: crowd.watch(len(jobs)),
    )
    assert crowd.new == [True] * (6 * len(few.queries) + 3 * 10 * 12)
    assert in_flight(router) == 0
    assert router.candidates == few.candidates
    assert [p.name for p in tmp_path.iterdir()] == ["router"]
    # Its parts still belong together, and learn.
    assert router._experience.version == router._knowledge.version
    assert router._experience.designs.names == tuple(c.name for c in few.candidates)
    before = router.predict(["hello"]).quality[0]
    router.record_feedback(router.route("hello", among=["lawyer"]).id, 0.0)
    after = router.predict(["hello"]).quality[0]
    assert after[1] < before[1]
    assert after[[0, 2]].tolist() == before[[0, 2]].tolist()


def test_two_fits_at_once_leave_what_one_after_the_other_would(few):
    for _ in range(3):
        router = Router(few.candidates[:2], predictor="ridge")
        router.fit(few.records("calculator", "lawyer"))
        router.add_candidate(few.candidates[2])
        at_once(
            lambda router=router: router.fit(few.records("all-round")),
            lambda router=router: router.fit(few.records("calculator", "lawyer")),
        )
        assert set(router._knowledge.names) >= set(STABLE)
        assert router._experience.version == router._knowledge.version
        assert router.record_feedback(router.route("hello").id, 1.0) is True


def test_a_decision_of_a_full_ledger_is_unknown_not_broken(few):
    router = Router(few.candidates, decision_capacity=50)

    def work():
        unknown = 0
        for query in few.queries:
            decision = router.route(query)
            try:
                router.record_feedback(decision.id, 1.0)
            except UnknownDecisionError:
                unknown += 1
            router._waiting.finish(decision.id)
        return unknown

    lost = sum(at_once(*[work] * N_THREADS))
    assert router._ledger.crowded_out >= lost
    assert len(router._ledger) == 50
    assert in_flight(router) == 0
