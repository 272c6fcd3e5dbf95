"""Golden values worked out by hand, and what must hold of any curve."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations import ConfigurationError
from mixllm_integrations.benchmark.metrics import (
    Curve,
    ReferencePoint,
    aiq,
    best_so_far,
    brier_score,
    choose,
    cost_at_quality,
    mean_squared_error,
    quality_at_cost,
    reference_point,
    reliability,
    sweep,
    willingness_grid,
)

# Candidate 0 costs 0.001, candidate 1 costs 0.011. Query 0 is predicted to gain
# 0.4 by the dearer one, worth it above 0.01 / 0.4 = 0.025 USD a point; query 1
# loses by it, at any price.
QUALITY = np.array([[0.5, 0.9], [0.8, 0.6]])
COST = np.array([[0.001, 0.011], [0.001, 0.011]])
TRUTH = np.array([[0.0, 1.0], [1.0, 0.0]])
REFERENCE = ReferencePoint(strongest=1, quality=0.5, cost=0.011, cheapest_cost=0.001)


def swept(willingness):
    return sweep(
        QUALITY,
        COST,
        true_quality=TRUTH,
        true_cost=COST,
        reference=REFERENCE,
        willingness=willingness,
    )


def test_a_sweep_gives_the_real_means_of_the_chosen_candidates():
    curve = swept([0.02, 0.03])
    # 0.02: both to candidate 0: quality (0 + 1) / 2 / 0.5 = 1 at cost 1/11.
    # 0.03: query 0 to candidate 1: quality 1 / 0.5 = 2 at cost 6/11.
    assert curve.quality.tolist() == [1.0, 2.0]
    assert curve.cost == pytest.approx([1 / 11, 6 / 11])


def test_aiq_averages_the_best_so_far_quality_over_the_costs():
    # Costs 1/11 … 11/11: five of them reach quality 1, six reach 2.
    assert aiq(swept([0.02, 0.03]), REFERENCE, n_points=11) == pytest.approx(17 / 11)


def test_aiq_leaves_out_the_costs_below_the_curve():
    assert aiq(swept([0.03]), REFERENCE, n_points=11) == pytest.approx(2.0)


def test_aiq_of_a_curve_beyond_the_strongest_candidate_is_unknown():
    beyond = Curve(np.array([1.5]), np.array([2.0]))
    assert math.isnan(aiq(beyond, REFERENCE))


def test_the_default_grid_finds_both_ends_of_the_curve():
    curve = swept(None)
    assert len(curve.cost) == 200
    assert curve.cost[0] == pytest.approx(1 / 11)
    assert curve.cost[-1] == pytest.approx(6 / 11)


def test_the_grid_scales_with_the_currency():
    assert willingness_grid(0.3) == pytest.approx(100 * willingness_grid(0.003))
    assert math.log10(willingness_grid(0.3)[-1] / willingness_grid(0.3)[0]) == (
        pytest.approx(9.0)
    )


def test_levels_are_read_off_the_curve():
    curve = Curve(np.array([0.5, 0.1, 0.3]), np.array([1.0, 0.9, 0.8]))
    assert cost_at_quality(curve, 0.85) == 0.1
    assert cost_at_quality(curve, 0.95) == 0.5
    assert math.isnan(cost_at_quality(curve, 1.01))
    assert quality_at_cost(curve, 0.4) == 0.9
    assert quality_at_cost(curve, 0.5) == 1.0
    assert math.isnan(quality_at_cost(curve, 0.05))


def test_the_strongest_candidate_is_that_of_the_training_split():
    train = np.array([[1.0, 0.0], [1.0, np.nan]])
    test_quality = np.array([[0.25, 1.0]])
    point = reference_point(train, test_quality, np.array([[0.02, 0.01]]))
    assert point == ReferencePoint(0, 0.25, 0.02, 0.01)


def test_a_strongest_candidate_that_costs_nothing_cannot_be_compared_with():
    with pytest.raises(ConfigurationError, match="mean cost above 0"):
        reference_point(TRUTH, TRUTH, np.zeros((2, 2)))


def test_ties_go_to_the_cheaper_candidate_and_then_to_the_first():
    quality = np.array([[0.5, 0.25, 0.25]])
    # At a willingness of 4 all three score 0.25 exactly.
    assert choose(quality, np.array([[1.0, 0.0, 0.0]]), 4.0).tolist() == [1]


def test_brier_score_counts_right_and_wrong_answers_only():
    predicted, true = np.array([0.8, 0.4, 0.5]), np.array([1.0, 0.0, 0.5])
    assert brier_score(predicted, true) == pytest.approx((0.04 + 0.16) / 2)
    assert math.isnan(brier_score(np.array([0.5]), np.array([0.5])))


def test_squared_error_leaves_out_what_was_not_recorded():
    predicted, true = np.array([0.8, 0.4, 0.5]), np.array([1.0, np.nan, 0.5])
    assert mean_squared_error(predicted, true) == pytest.approx(0.02)


def test_calibration_error_is_weighted_by_the_counts():
    # Bin 0 holds 0.1 and 0.3 (mean 0.2, observed 0.5), bin 1 holds 0.9 (1.0):
    # (2 × 0.3 + 1 × 0.1) / 3.
    found = reliability(np.array([0.1, 0.3, 0.9]), np.array([0, 1.0, 1.0]), n_bins=2)
    assert found.count.tolist() == [2, 1]
    assert found.error == pytest.approx(0.7 / 3)


def test_a_prediction_beyond_one_counts_in_the_last_bin():
    found = reliability(np.array([1.0, 1.2]), np.array([1.0, 1.0]))
    assert found.count.tolist() == [2]


def test_a_prediction_that_is_not_finite_is_refused():
    with pytest.raises(ConfigurationError, match="predicted cost must be finite"):
        sweep(
            QUALITY,
            np.full((2, 2), np.nan),
            true_quality=TRUTH,
            true_cost=COST,
            reference=REFERENCE,
        )


points = st.lists(
    st.tuples(st.floats(0.001, 2.0), st.floats(0.0, 1.5)), min_size=1, max_size=20
)


@given(points, st.lists(st.floats(0.0, 2.5), min_size=1, max_size=20))
def test_best_so_far_is_the_best_point_within_each_cost(pairs, costs):
    curve = Curve(*np.array(pairs).T)
    found = best_so_far(curve, np.array(costs))
    for cost, quality in zip(costs, found, strict=True):
        within = [q for c, q in pairs if c <= cost + 1e-12]
        assert quality == max(within) if within else math.isnan(quality)


@given(points)
def test_aiq_lies_between_the_worst_and_the_best_quality(pairs):
    curve = Curve(*np.array(pairs).T)
    found = aiq(curve, ReferencePoint(0, 1.0, 0.01, 0.0001))
    if min(curve.cost) <= 1.0:
        assert min(curve.quality) - 1e-9 <= found <= max(curve.quality) + 1e-9


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100.0))
def test_a_higher_price_never_wins_a_query(seed, factor):
    rng = np.random.default_rng(seed)
    quality, cost = rng.random((8, 3)), rng.random((8, 3))
    dearer = cost * np.array([1.0 + factor, 1.0, 1.0])
    before, after = choose(quality, cost, 0.7), choose(quality, dearer, 0.7)
    assert not ((after == 0) & (before != 0)).any()
