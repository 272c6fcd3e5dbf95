"""A candidate changes its price or abilities while others ask for it."""

from dataclasses import replace

import numpy as np
import pytest

from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, Outcome

QUERY = "Explain contract about court for tenant case 7?"
SMALL, LARGE = Candidate("small", 0.1, 0.4), Candidate("large", 5.0, 15.0)


@pytest.fixture
def router(clock):
    return Router([SMALL, LARGE], clock=clock)


def test_it_takes_the_place_of_the_other_at_its_new_price(router):
    before = router.predict([QUERY])
    router.replace_candidate(replace(SMALL, output_cost_per_million_tokens=0.8))
    assert [c.name for c in router.candidates] == ["small", "large"]
    assert router.candidates[0].output_cost_per_million_tokens == 0.8
    after = router.predict([QUERY])
    assert after.cost[0, 0] > before.cost[0, 0]
    assert after.cost[0, 1] == before.cost[0, 1]


def test_its_calls_under_way_stay_its_load_and_can_be_told_of(router):
    decision = router.route(QUERY, among=["small"])
    router.replace_candidate(replace(SMALL, vision=True))
    assert router._waiting.in_flight("small") == 1
    router.record_outcome(decision.id, Outcome(10, 100, latency_seconds=2.0))
    assert router._waiting.in_flight("small") == 0
    assert router.record_feedback(decision.id, 1.0)


def test_what_was_learned_of_it_stays(router):
    for _ in range(5):
        decision = router.route(QUERY, among=["small"])
        router.record_outcome(decision.id, Outcome(9, 900))
        router.record_feedback(decision.id, 0.0)
    before = router.predict([QUERY])
    router.replace_candidate(replace(SMALL, vision=True))
    after = router.predict([QUERY])
    for name in ("quality", "output_tokens", "cost", "uncertainty"):
        assert np.array_equal(getattr(after, name), getattr(before, name))


def test_an_ability_that_is_new_can_be_asked_for_at_once(router):
    router.replace_candidate(replace(SMALL, vision=True))
    assert router.route(QUERY, requires=["vision"]).candidate == "small"


def test_one_whose_name_is_new_is_refused(router):
    with pytest.raises(UnknownCandidateError, match="'medium'"):
        router.replace_candidate(Candidate("medium", 1.0, 1.0))
    assert router.candidates == (SMALL, LARGE)


def test_what_is_no_candidate_is_refused_by_its_type(router):
    with pytest.raises(ConfigurationError, match="not a str"):
        router.replace_candidate("small")
