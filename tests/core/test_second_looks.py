"""A candidate that an alarm put down, and that may have recovered since."""

import copy
import math

import numpy as np
import pytest

from mixllm_integrations.core.router import Router
from mixllm_integrations.core.second_looks import SecondLooks
from mixllm_integrations.core.types import Candidate, RoutingRecord

STAR, PLAIN = Candidate("star", 1.0, 4.0), Candidate("plain", 1.0, 4.0)
USUAL = {"star": 0.85, "plain": 0.6}
DOWN = {"star": 0.1, "plain": 0.6}
FIRST = 500  # decisions until the first look


def pass_time(looks, n, name="other"):
    for _ in range(n):
        looks.decided(name)


def fallen(by=0.3):
    looks = SecondLooks()
    looks.fell("a", by)
    return looks


def on():
    """Return looks of which the first one has begun."""
    looks = fallen()
    pass_time(looks, FIRST)
    return looks


def decisions_until_it_is_on(looks):
    for n in range(100_000):
        if looks.bonuses:
            return n
        looks.decided("other")
    return math.inf


# --- one look -------------------------------------------------------------------------


def test_a_look_begins_after_so_many_decisions_with_what_was_lost():
    looks = fallen(0.3)
    pass_time(looks, FIRST - 1)
    assert looks.bonuses == {}
    pass_time(looks, 1)
    assert looks.bonuses == {"a": 0.3}


def test_a_look_that_disappoints_by_a_point_is_over():
    looks = on()
    for _ in range(2):
        looks.taught("a", surprise=-0.3)  # each 0.45 less than half of 0.3
    assert looks.bonuses
    looks.taught("a", surprise=-0.3)
    assert looks.bonuses == {}


def test_a_look_at_one_that_is_as_bad_as_expected_is_over_soon():
    looks = on()
    for _ in range(7):
        looks.taught("a", surprise=0.0)
    assert looks.bonuses == {}


def test_a_look_goes_on_while_answers_are_about_as_good_as_they_were():
    looks = on()
    for _ in range(199):
        looks.taught("a", surprise=0.3)
    assert looks.bonuses
    looks.taught("a", surprise=0.3)
    assert looks.bonuses == {}  # no alarm after 200: not worth more


def test_a_look_of_which_nobody_says_anything_is_over():
    looks = on()
    pass_time(looks, 59, "a")
    assert looks.bonuses
    pass_time(looks, 1, "a")
    assert looks.bonuses == {}


def test_a_reward_lets_a_look_wait_for_the_next_one():
    looks = on()
    pass_time(looks, 59, "a")
    looks.taught("a", surprise=0.3)
    pass_time(looks, 59, "a")
    assert looks.bonuses


def test_what_others_are_asked_does_not_use_a_look_up():
    looks = on()
    pass_time(looks, 1_000, "other")
    assert looks.bonuses


def test_the_pauses_between_looks_double_up_to_a_bound():
    looks, pauses = fallen(), []
    for _ in range(8):
        pauses.append(decisions_until_it_is_on(looks))
        pass_time(looks, 60, "a")
    assert pauses == [500, 1_000, 2_000, 4_000, 8_000, 16_000, 16_000, 16_000]


def test_whoever_falls_again_has_lost_both_and_waits_anew():
    looks = on()
    looks.fell("a", 0.5)
    assert looks.bonuses == {}
    pass_time(looks, FIRST)
    assert looks.bonuses == {"a": pytest.approx(0.8)}


def test_nobody_loses_more_than_all_quality():
    looks = fallen(0.9)
    looks.fell("a", 0.9)
    pass_time(looks, FIRST)
    assert looks.bonuses == {"a": 1.0}


@pytest.mark.parametrize("is_on", [True, False])
def test_a_look_goes_on_under_another_name(is_on):
    looks = on() if is_on else fallen()
    looks.fell("b", 0.7)
    looks.rename("a", "b")
    assert looks.bonuses == ({"b": 0.3} if is_on else {})
    pass_time(looks, FIRST)
    assert looks.bonuses == {"b": 0.3}


def test_whoever_is_forgotten_gets_no_look():
    looks = on()
    looks.discard("a")
    pass_time(looks, 10 * FIRST)
    assert looks.bonuses == {}


def test_state_is_json_and_goes_on_where_it_was():
    looks = on()
    pass_time(looks, 30, "a")
    back = SecondLooks.from_state(looks.state())
    assert back.state() == looks.state()
    assert back.bonuses == {"a": 0.3}
    pass_time(back, 30, "a")
    assert back.bonuses == {}


@pytest.mark.parametrize("key", ["by", "pause", "due", "heard", "unheard", "hope"])
@pytest.mark.parametrize("value", [-2, math.nan, math.inf, "x", None])
def test_a_damaged_look_is_left_out_and_told(key, value):
    state = fallen().state()
    state["b"] = {**state["a"], key: value}
    back = SecondLooks.from_state(state)
    assert list(back.bad) == ["b"]
    assert list(back.state()) == ["a"]


# --- a router -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settled(world):
    rng = np.random.default_rng(0)
    records = [
        RoutingRecord(query, name, float(rng.random() < good), output_tokens=100)
        for query in world.sample(300, seed=2).queries
        for name, good in USUAL.items()
    ]
    router = Router([STAR, PLAIN], predictor="ridge", waiting_weight=0.0)
    return router.fit(records)


@pytest.fixture(scope="module")
def queries(world):
    return world.sample(1_600, seed=7).queries


@pytest.fixture(scope="module")
def down(settled, queries):
    """A router whose favourite got worse, was found out, and has no traffic."""
    router = copy.deepcopy(settled)
    chosen = stream(router, queries[:250], DOWN, seed=1)
    assert [event.candidate for event in router.drifts] == ["star"]
    assert share(chosen[-50:]) == 0.0
    return router


def stream(router, queries, quality, *, seed):
    rng = np.random.default_rng(seed)
    chosen = []
    for query in queries:
        decision = router.route(query, charge_load=False)
        chosen.append(decision.candidate)
        good = float(rng.random() < quality[decision.candidate])
        router.record_feedback(decision.id, good)
    return chosen


def share(chosen):
    return chosen.count("star") / len(chosen)


@pytest.mark.parametrize("seed", [2, 3])
def test_a_favourite_that_recovers_gets_its_traffic_back(down, queries, seed):
    router = copy.deepcopy(down)
    chosen = stream(router, queries, USUAL, seed=seed)
    assert share(chosen[: FIRST - 250]) == 0.0
    assert share(chosen[-500:]) > 0.9
    assert [event.change > 0 for event in router.drifts] == [False, True]


def test_it_does_so_where_heads_were_fitted_on_its_bad_answers(down, queries):
    router = copy.deepcopy(down)
    assert router.refit()
    chosen = stream(router, queries, USUAL, seed=2)
    assert share(chosen[: FIRST - 250]) == 0.0
    assert share(chosen[-500:]) > 0.9


def test_one_that_stays_bad_costs_a_few_answers_per_look(down, queries):
    router = copy.deepcopy(down)
    chosen = stream(router, queries, DOWN, seed=2)
    assert 0 < chosen.count("star") <= 40  # the first look
    assert len(router.drifts) == 1


def test_without_exploration_nobody_is_looked_at_again(down, queries):
    router = copy.deepcopy(down)
    router.exploration = 0.0
    assert share(stream(router, queries[:800], USUAL, seed=2)) == 0.0


def test_a_restart_does_not_forget_whom_to_look_at(down, queries, tmp_path):
    down.save(tmp_path / "router")
    router = Router.load(tmp_path / "router")
    chosen = stream(router, queries, USUAL, seed=2)
    assert share(chosen[-500:]) > 0.9


def test_a_batch_does_not_flood_whom_it_looks_at(down, queries):
    router = copy.deepcopy(down)
    stream(router, queries[:400], DOWN, seed=5)
    chosen = [d.candidate for d in router.route_batch(queries, charge_load=False)]
    assert chosen.count("star") <= 60
