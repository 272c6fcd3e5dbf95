"""Shares over time, latency, domains, calibration, exploration, regret: by hand."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from mixllm_integrations.report.details import (
    bins_of,
    domain_rows,
    latencies,
    shares_over_time,
)
from mixllm_integrations.report.intervals import mean_interval, wilson
from mixllm_integrations.report.regret import exploration, regrets
from mixllm_integrations.report.traffic import read_traffic

MONDAY = datetime(2026, 7, 6, tzinfo=UTC)


def test_wilsons_interval_by_hand():
    # 8 of 10: (0.8 + 0.19207) / 1.38415 -/+ 1.96 * sqrt(0.016 + 0.0096) / 1.38415
    found = wilson(8, 10)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert (wilson(0, 5).low, wilson(5, 5).high) == (0.0, 1.0)


def test_grades_are_resampled_many_take_the_normal_interval_none_has_none():
    few = mean_interval(np.array([0.2, 0.4, math.nan, 0.9]))
    assert few.value == pytest.approx(0.5)
    assert 0.2 <= few.low < 0.5 < few.high <= 0.9
    many = mean_interval(np.tile([0.25, 0.75], 1_500))
    # Deviation 0.25, error 0.25 / sqrt(3000) = 0.004564, times 1.96.
    assert many.high - many.value == pytest.approx(0.008947, abs=1e-5)
    assert math.isnan(mean_interval(np.array([])).value)
    assert math.isnan(mean_interval(np.array([0.3])).low)


def test_shares_are_counted_in_periods_of_whole_hours(book):
    for hour in range(60):
        name = "small" if hour < 30 else "large"
        book.decide(f"d{hour}", name, at=MONDAY + timedelta(hours=hour, minutes=59))
        book.answer(f"d{hour}", cost=0.5)
    found = shares_over_time(read_traffic(book))
    # 59 hours in at most 30 periods: 1.97 hours each, so 3.
    assert found.seconds == 3 * 3_600
    assert found.starts[0] == MONDAY
    assert len(found.starts) == 20
    assert found.counts[0] == (3, 0)
    assert found.counts[-1] == (0, 3)
    assert found.costs[0] == 1.5
    assert sum(map(sum, found.counts)) == 60


def test_one_decision_is_one_period(book):
    book.decide("d")
    found = shares_over_time(read_traffic(book))
    assert found.counts == ((1,),)
    assert found.names == ("small",)


def test_years_are_counted_in_whole_days(book):
    for month in range(48):
        book.decide(f"d{month}", at=MONDAY + timedelta(days=30 * month))
    found = shares_over_time(read_traffic(book))
    assert found.seconds % 86_400 == 0
    assert len(found.starts) <= 31


def test_many_candidates_share_the_last_place(book):
    for place in range(10):
        for turn in range(10 - place):
            book.decide(f"{place}-{turn}", f"model {place}")
    found = shares_over_time(read_traffic(book))
    assert len(found.names) == 7
    assert found.names[-1] == "all others"
    assert sum(c[-1] for c in found.counts) == 4 + 3 + 2 + 1


def test_nothing_happened_nothing_is_told(book):
    traffic = read_traffic(book)
    assert shares_over_time(traffic) is None
    assert latencies(traffic) == domain_rows(traffic) == bins_of(traffic) == ()
    assert regrets(traffic) == ()
    found = exploration(traffic)
    assert (found.decisions, found.cost, found.extra, found.randomised) == (0, 0, 0, 0)


def test_percentiles_are_of_answers_alone(book):
    for place in range(101):
        book.decide(f"d{place}")
        payload = {"cost": 0.1, "latency_seconds": float(place), "error": None}
        payload["time_to_first_token_seconds"] = 0.5 if place < 50 else None
        book.write("outcome", f"d{place}", payload)
    book.decide("failed", "large")
    late = {"latency_seconds": 999.0, "error": "TimeoutError"}
    book.write("outcome", "failed", late)
    everyone, small = latencies(read_traffic(book))
    assert (everyone.name, small.name) == ("all", "small")
    assert everyone.answers == 101
    assert (small.p50, small.p90, small.p95, small.p99) == (50, 90, 95, 99)
    assert small.first_token_p50 == 0.5


def test_domains_have_their_quality_cost_and_usual_candidate(book):
    for place, name in enumerate(("small", "small", "large")):
        book.decide(f"d{place}", name, handed_over={"domain": "law"})
        book.answer(f"d{place}", cost=0.003)
        book.judge(f"d{place}", float(place == 2))
    book.decide("other", handed_over={"domain": "sums"})
    book.decide("unknown", handed_over={"domain": 7})
    law, sums = domain_rows(read_traffic(book))
    assert (law.name, law.decisions, law.feedback) == ("law", 3, 3)
    assert law.quality.value == pytest.approx(1 / 3)
    assert law.expected == pytest.approx((0.5 + 0.5 + 0.8) / 3)
    assert law.mean_cost == pytest.approx(0.003)
    assert (law.mostly, law.mostly_share) == ("small", pytest.approx(2 / 3))
    assert math.isnan(sums.quality.value)


def test_bins_hold_what_was_expected_and_what_came(book):
    for place in range(4):
        book.decide(f"s{place}", "small")
        book.judge(f"s{place}", float(place < 1))
    book.decide("l", "large")
    book.judge("l", 1.0)
    low, high = bins_of(read_traffic(book))
    assert (low.expected, low.observed.value, low.count) == (0.5, 0.25, 4)
    assert (high.expected, high.observed.value, high.count) == (0.8, 1.0, 1)


def test_exploring_costs_what_was_chosen_less_what_looked_best(book):
    # 0.5 - 0.001 / 0.01 = 0.4 against 0.8 - 0.005 / 0.01 = 0.3: small looks best.
    book.decide("a", "large", explored=True)
    book.answer("a", cost=0.006)
    book.judge("a", 1.0)
    book.decide("b", "small")
    book.answer("b", cost=0.002)
    book.judge("b", 0.0)
    found = exploration(read_traffic(book))
    assert found.decisions == 1
    assert found.cost == 0.006
    assert found.extra == pytest.approx(0.005 - 0.001)
    assert (found.quality.value, found.usual_quality.value) == (1.0, 0.0)
    assert found.randomised == 1.0


def test_what_exploring_added_is_unknown_without_scores(book):
    book.decide("a", "large", explored=True, scores=...)
    assert math.isnan(exploration(read_traffic(book)).extra)


def test_regret_is_the_best_alternatives_worth_less_what_came(book):
    # large got 0 and cost 0.006: worth -0.6. small: 0.5 - 0.1 = 0.4. Regret 1.0.
    book.decide("bad", "large", handed_over={"domain": "law"})
    book.answer("bad", cost=0.006)
    book.judge("bad", 0.0)
    # small got 1 and cost 0.002: worth 0.8. large: 0.8 - 0.5 = 0.3. No regret.
    book.decide("good", "small")
    book.answer("good", cost=0.002)
    book.judge("good", 1.0)
    book.decide("unjudged", "large")
    (found,) = regrets(read_traffic(book))
    assert (found.decision_id, found.candidate, found.domain) == ("bad", "large", "law")
    assert (found.reward, found.expected, found.cost) == (0.0, 0.8, 0.006)
    assert (found.instead, found.instead_quality) == ("small", 0.5)
    assert found.regret == pytest.approx(1.0)
    assert found.at.tzinfo is UTC


def test_a_waiting_alternative_is_regretted_less(book):
    scores = {
        "candidates": ["small", "large"],
        "quality": [0.5, 0.8],
        "cost": [0.001, 0.005],
        "uncertainty": [0.1, 0.2],
        "waiting_penalty": [0.0, 2.0],
    }
    book.decide("d", "small", scores=scores, waiting_weight=0.1)
    book.judge("d", 0.0)
    # Cost as predicted: -0.1. large: 0.8 - 0.5 - 0.1 * 2 = 0.1.
    (found,) = regrets(read_traffic(book))
    assert found.regret == pytest.approx(0.2)


def test_where_only_one_could_answer_there_is_nothing_to_regret(book):
    book.decide("d", "small", excluded={"large": "too dear"})
    book.judge("d", 0.0)
    assert regrets(read_traffic(book)) == ()


def test_so_many_are_told_the_worst_first(book):
    for place in range(30):
        book.decide(f"d{place}", "small")
        book.judge(f"d{place}", place / 100, kind="refined")
    found = regrets(read_traffic(book), most=20)
    assert len(found) == 20
    assert found[0].decision_id == "d0"
    assert found[0].regret > found[-1].regret


def test_alarms_are_told_in_words_those_beside_the_first_too(book):
    book.decide("d")
    told = {"candidate": "small", "quantity": "quality", "change": -0.314}
    other = {
        "candidate": "large",
        "quantity": "latency",
        "change": 2,
        "n_observations": 9,
    }
    book.write("drift", "d", {**told, "n_observations": 42, "also": [other]})
    book.write("drift", "d", {"candidate": "small", "quantity": "quality"})
    traffic = read_traffic(book)
    assert [(a.candidate, a.text) for a in traffic.alarms] == [
        ("small", "quality fell by about 0.31 over its last 42 answers"),
        (
            "large",
            "latency rose to about 2.00 times what it was over its last 9 answers",
        ),
        ("small", "it has changed"),
    ]
    assert traffic.drifts == {"small": 2, "large": 1}


def test_a_selection_keeps_what_belongs_together(book):
    for place, name in enumerate(("small", "large", "small")):
        book.decide(f"d{place}", name, handed_over={"domain": f"t{place}"})
    traffic = read_traffic(book)
    kept = traffic.select(np.array([False, True, True]))
    assert kept.ids == ("d1", "d2")
    assert kept.domains == ("t1", "t2")
    assert [kept.names[i] for i in kept.chosen] == ["large", "small"]
    assert kept.scores["quality"].shape == (2, 2)
