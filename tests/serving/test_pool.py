"""The router over an adapter's candidates."""

import contextlib
import gc
import logging
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from mixllm_integrations.core.errors import ConfigurationError, NoCandidateError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving.pool import dispatcher_over, enrol, router_over

SMALL, LARGE = Candidate("small", 0.1, 0.4), Candidate("large", 5.0, 15.0)


def test_without_a_router_a_new_one_is_made():
    router = router_over([SMALL, LARGE], willingness_to_pay=0.5)
    assert router.candidates == (SMALL, LARGE)
    assert router.willingness_to_pay == 0.5
    assert not router.is_fitted


def test_a_given_router_is_extended_and_never_reduced_with_a_log_line(
    ranked_router, caplog
):
    best = next(c for c in ranked_router.candidates if c.name == "best")
    with caplog.at_level(logging.INFO):
        router = router_over([best, SMALL], router=ranked_router)
    assert router is ranked_router
    names = {c.name for c in router.candidates}
    assert names == {"best", "middle", "worst", "small"}
    assert "'small' is new to the router: added" in caplog.text
    assert "'worst' was not passed to the model: not asked by it" in caplog.text
    assert "'middle' was not passed to the model: not asked by it" in caplog.text


def test_a_new_price_takes_effect_and_is_logged(ranked_router, caplog):
    changed = [replace(c, vision=True) for c in ranked_router.candidates]
    with caplog.at_level(logging.INFO):
        router = router_over(changed, router=ranked_router)
    assert set(router.candidates) == set(changed)
    assert caplog.text.count("has a new price or ability") == 3


def test_the_same_candidates_change_nothing(ranked_router, caplog):
    before = ranked_router.candidates
    with caplog.at_level(logging.INFO):
        router_over(before, router=ranked_router)
    assert ranked_router.candidates == before
    assert not caplog.records
    assert ranked_router.willingness_to_pay == 0.01


def test_no_candidates_is_an_error():
    with pytest.raises(NoCandidateError):
        router_over([])


def test_two_with_one_name_is_an_error():
    with pytest.raises(ConfigurationError, match="two candidates are called 'small'"):
        router_over([SMALL, replace(SMALL, vision=True)])


def test_a_router_keeps_its_dispatcher_as_long_as_it_is_in_use(ranked_router, tmp_path):
    url = f"sqlite:///{(tmp_path / 'events.db').as_posix()}"
    first = dispatcher_over(ranked_router, store=url)
    assert dispatcher_over(ranked_router, store=url) is first
    assert dispatcher_over(ranked_router) is not first
    impatient = dispatcher_over(ranked_router, store=url, cooldown_seconds=1.0)
    assert impatient is not first
    assert impatient.journal is first.journal


def test_a_dispatcher_that_nobody_uses_is_forgotten_with_its_router(clock):
    router = router_over([SMALL, LARGE])
    dispatcher_over(router)
    gone = weakref.ref(router)
    del router
    gc.collect()
    assert gone() is None


class Watched(Router):
    """Asks who competes whenever somebody is added, replaced or removed."""

    def _adopt(self, knowledge, experience):
        super()._adopt(knowledge, experience)
        self.route("Who competes?", among=["small"], charge_load=False)


def test_a_candidate_with_a_new_price_competes_all_the_while():
    router = Watched([SMALL, LARGE])
    enrol(router, [replace(SMALL, output_cost_per_million_tokens=0.8)])
    assert router.candidates[0].output_cost_per_million_tokens == 0.8


def test_the_calls_of_a_candidate_with_a_new_price_stay_its_load():
    router = Router([SMALL, LARGE])
    router.route("Hello?", among=["small"])
    enrol(router, [replace(SMALL, output_cost_per_million_tokens=0.8)])
    assert router._waiting.in_flight("small") == 1


def test_one_that_was_removed_a_moment_ago_is_added():
    class Hasty(Router):
        def replace_candidate(self, candidate):
            self.remove_candidate(candidate.name)
            super().replace_candidate(candidate)

    router = Hasty([SMALL, LARGE])
    dearer = replace(SMALL, output_cost_per_million_tokens=0.8)
    enrol(router, [dearer])
    assert router.candidates == (LARGE, dearer)


def test_two_models_may_bring_the_same_newcomer_at_once():
    both = threading.Barrier(2)

    class Slow(Router):
        def add_candidate(self, candidate):
            if candidate.name == "large":
                with contextlib.suppress(threading.BrokenBarrierError):
                    both.wait(timeout=0.2)
            super().add_candidate(candidate)

    router = Slow([SMALL])
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(enrol, router, [SMALL, LARGE]) for _ in range(2)]
        for future in futures:
            future.result(timeout=30)
    assert router.candidates == (SMALL, LARGE)
