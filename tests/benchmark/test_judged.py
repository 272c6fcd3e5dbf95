"""A router as it is, on labelled answers: by hand where that can be done."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mixllm_integrations import (
    BatchPrediction,
    Candidate,
    ConfigurationError,
    RoutingRecord,
)
from mixllm_integrations.benchmark.judged import judge_router


class Told:
    """A router that says what it is told to."""

    willingness_to_pay = 0.01

    def __init__(self, quality, cost, *, seen=()):
        self.candidates = [Candidate("small", 0.0, 1.0), Candidate("large", 0.0, 10.0)]
        self.quality, self.cost, self.seen = quality, cost, set(seen)

    def predict(self, queries):
        quality = np.array([self.quality(query) for query in queries], dtype=float)
        cost = np.tile(np.array(self.cost, dtype=float), (len(queries), 1))
        zeros = np.zeros_like(quality)
        return BatchPrediction(("small", "large"), quality, zeros, cost, zeros)

    def has_seen(self, queries):
        return np.array([query in self.seen for query in queries])


def labels(n=40):
    """Small is right on even queries and costs 1; large is always right, for 10."""
    found = []
    for i in range(n):
        right = float(i % 2 == 0)
        found.append(RoutingRecord(f"q{i}", "small", right, 0, 1, 0.001, 0.5))
        found.append(RoutingRecord(f"q{i}", "large", 1.0, 0, 1, 0.01, 2.5))
    return found


def knowing(query):
    """Knows whether the small one is right."""
    return (1.0, 1.0) if int(query[1:]) % 2 == 0 else (0.0, 1.0)


def test_a_router_that_knows_takes_the_cheap_one_where_it_is_right():
    router = Told(knowing, (0.001, 0.002))  # large is worth its price
    found = judge_router(router, labels())
    assert (found.queries, found.incomplete, found.seen) == (40, 0, 0)
    assert found.strongest == "large"
    assert found.shares == {"small": 0.5, "large": 0.5}
    assert found.now.quality.value == 1.0
    assert found.now.cost.value == pytest.approx(0.0055)
    assert found.now.relative_cost.value == pytest.approx(0.55)
    assert found.now.relative_quality.value == 1.0
    assert found.now.latency_seconds == pytest.approx(1.5)
    # A mix of half and half costs as much and is right in 3 of 4.
    assert found.mix_quality == pytest.approx(0.75, abs=0.02)
    assert found.cost_at[1.0].value == pytest.approx(0.55)
    assert found.brier == 0.0
    assert found.calibration_error == 0.0
    assert [way.name for way in found.singles] == ["large", "small"]
    assert found.singles[1].relative_quality.value == 0.5
    # Where small is wrong it is worth -0.1, large 1 - 0.01 / 0.01 = 0.
    assert found.oracle.quality.value == 1.0


def test_intervals_hold_the_estimate_and_the_reference_has_none_of_its_own():
    found = judge_router(Told(knowing, (0.001, 0.002)), labels(200))
    cost = found.now.relative_cost
    # 0.1 or 1 by a coin: error 0.45 / sqrt(200) = 0.0318, times 1.96 = 0.062.
    assert cost.low == pytest.approx(0.55 - 0.062, abs=0.02)
    assert cost.high == pytest.approx(0.55 + 0.062, abs=0.02)
    large, small = found.singles
    # 0 or 1 by a coin: error sqrt(0.25 / 200) = 0.0354, times 1.96 = 0.069.
    assert small.quality.low == pytest.approx(0.5 - 0.069, abs=0.02)
    assert small.quality.high == pytest.approx(0.5 + 0.069, abs=0.02)
    assert large.relative_cost.low == large.relative_cost.high == 1.0
    area, mix, oracle = found.area
    assert area.low <= area.value <= area.high
    assert mix < area.value <= oracle + 1e-9


def test_a_level_that_is_hardly_reached_has_no_interval():
    def small_alone(query):
        return 1.0, 0.0

    found = judge_router(Told(small_alone, (0.001, 0.01)), labels())
    assert math.isnan(found.cost_at[1.0].value)
    assert math.isnan(found.cost_at[1.0].low)
    assert found.shares["small"] == 1.0


def test_chance_is_between_the_two():
    found = judge_router(Told(knowing, (0.001, 0.002)), labels(400))
    assert found.random.quality.value == pytest.approx(0.75, abs=0.05)


def test_queries_that_were_seen_are_counted():
    router = Told(knowing, (0.001, 0.002), seen=["q0", "q1", "nothing"])
    assert judge_router(router, labels()).seen == 2


def test_queries_without_every_answer_are_left_out_and_counted():
    found = judge_router(Told(knowing, (0.001, 0.002)), labels()[1:])
    assert (found.queries, found.incomplete) == (39, 1)


def test_a_candidate_without_records_is_left_out_and_told():
    records = [replace(r, cost=0.01) for r in labels() if r.candidate == "large"]
    found = judge_router(Told(knowing, (0.001, 0.002)), records)
    assert found.left_out == ("small",)
    assert found.shares == {"large": 1.0}


def test_too_few_queries_are_refused():
    with pytest.raises(ConfigurationError, match="only 19 of 19 queries"):
        judge_router(Told(knowing, (0.001, 0.002)), labels(19))


def test_records_of_others_alone_are_refused():
    records = [replace(r, candidate="huge") for r in labels()]
    with pytest.raises(ConfigurationError, match=r"none of the router's candidates"):
        judge_router(Told(knowing, (0.001, 0.002)), records)


def test_a_real_router_is_asked(small_world):
    found = judge_router(small_world.router, small_world.held_out)
    assert found.seen < 10
    assert found.now.relative_cost.value < 1.0
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert found.curve == tuple(sorted(found.curve))
