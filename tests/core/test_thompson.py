import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.thompson import chances_of_winning


def chances(means, deviations):
    return chances_of_winning(np.array(means, float), np.array(deviations, float))


def normal_below(z):
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


@st.composite
def normals(draw, *, certain=True):
    k = draw(st.integers(1, 16))
    scale = draw(st.sampled_from([1e-3, 0.1, 1.0, 30.0]))
    means = draw(st.lists(st.floats(-scale, scale), min_size=k, max_size=k))
    powers = draw(st.lists(st.floats(-5.0, 0.5), min_size=k, max_size=k))
    deviations = 10.0 ** np.array(powers)
    if certain:
        deviations[draw(st.lists(st.booleans(), min_size=k, max_size=k))] = 0.0
    return np.array(means), deviations


# --- by hand -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gap", "first", "second"),
    [(0.0, 0.1, 0.3), (0.1, 0.1, 0.1), (0.2, 1e-4, 0.3), (-0.3, 0.2, 0.05)],
)
def test_of_two_the_chance_is_that_of_their_difference(gap, first, second):
    # X - Y is normal around the gap with variance s² + t²: P(X > Y) = Φ(gap / sd).
    by_hand = normal_below(gap / math.hypot(first, second))
    found = chances([0.5 + gap, 0.5], [first, second])
    np.testing.assert_allclose(found, [by_hand, 1.0 - by_hand], atol=1e-9)


def test_of_three_with_correlated_differences_the_chance_is_the_orthants():
    # X-Y and X-Z of three equal normals correlate by 1/2, and the chance that both
    # are positive is 1/4 + arcsin(1/2) / 2π = 1/4 + 1/12 = 1/3. With Y of deviation
    # √2 against X and Z of 1: Cov(Y-X, Y-Z) = 2, both variances 3, so the chance
    # of Y is 1/4 + arcsin(2/3) / 2π.
    np.testing.assert_allclose(chances([0, 0, 0], [1, 1, 1]), 1 / 3, atol=1e-9)
    middle = 0.25 + math.asin(2 / 3) / (2 * math.pi)
    found = chances([0, 0, 0], [1, math.sqrt(2), 1])
    np.testing.assert_allclose(found[1], middle, atol=1e-9)


def test_against_a_certain_one_the_chance_is_to_lie_above_it():
    # P(X > 0.6) = 1 - Φ((0.6 - 0.5) / 0.2) = 1 - Φ(0.5); of two above it, the
    # certain one wins if both lie below: Φ(0.5)·Φ(0.25).
    below = normal_below(0.5)
    np.testing.assert_allclose(
        chances([0.5, 0.6], [0.2, 0.0]), [1 - below, below], atol=1e-9
    )
    found = chances([0.5, 0.6, 0.5], [0.2, 0.0, 0.4])
    np.testing.assert_allclose(found[1], below * normal_below(0.25), atol=1e-9)


def test_of_certain_ones_the_highest_wins_and_of_equals_the_first():
    assert chances([0.1, 0.3, 0.3], [0, 0, 0]).tolist() == [0, 1, 0]
    assert chances([0.5], [0]).tolist() == [1.0]
    assert chances([0.5, 9.0], [0.1, 0.0]).tolist() == [0.0, 1.0]
    np.testing.assert_allclose(chances([0.5], [0.3]), [1.0], atol=1e-9)


# --- properties ----------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(normals())
def test_chances_are_none_below_zero_and_sum_to_one(shown):
    found = chances_of_winning(*shown)
    assert (found >= 0.0).all()
    assert abs(found.sum() - 1.0) < 1e-6


@settings(deadline=None, max_examples=100)
@given(normals(), st.floats(-10.0, 10.0), st.floats(0.01, 100.0))
def test_a_common_shift_or_scale_of_all_changes_no_chance(shown, shift, scale):
    means, deviations = shown
    means = np.round(means, 6)
    certain = means[deviations == 0]
    assume(np.unique(certain).size == certain.size)  # rounding would break the tie
    before = chances_of_winning(means, deviations)
    after = chances_of_winning(scale * (means + shift), scale * deviations)
    np.testing.assert_allclose(after, before, atol=1e-6)


@settings(deadline=None, max_examples=100)
@given(normals(certain=False), st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_changes_no_chance(shown, chance):
    means, deviations = shown
    order = list(range(len(means)))
    chance.shuffle(order)
    found = chances_of_winning(means[order], deviations[order])
    np.testing.assert_allclose(
        found, chances_of_winning(means, deviations)[order], atol=1e-9
    )


@settings(deadline=None, max_examples=100)
@given(normals(), st.data())
def test_a_higher_mean_never_lowers_its_own_chance(shown, data):
    means, deviations = shown
    index = data.draw(st.integers(0, len(means) - 1))
    raised = means.copy()
    raised[index] += data.draw(st.floats(0.001, 1.0))
    before = chances_of_winning(means, deviations)[index]
    assert chances_of_winning(raised, deviations)[index] >= before - 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_frequencies_of_draws_agree_within_four_sigma(seed):
    rng = np.random.default_rng(seed)
    means, deviations = rng.normal(0, 0.1, 15), 10 ** rng.uniform(-3, -0.5, 15)
    deviations[:3] = 0.0
    n = 100_000
    won = (means + deviations * rng.standard_normal((n, 15))).argmax(axis=1)
    expected = chances_of_winning(means, deviations)
    counts = np.bincount(won, minlength=15)
    sigma = np.sqrt(n * expected * (1 - expected))
    assert (np.abs(counts - n * expected) <= 4 * sigma + 1).all()


def test_a_hundred_candidates_are_no_less_exact():
    rng = np.random.default_rng(0)
    for power in (-4, -1, 0.5):
        means, deviations = rng.normal(0, 0.05, 100), 10 ** rng.uniform(power, 1, 100)
        assert abs(chances_of_winning(means, deviations).sum() - 1.0) < 1e-6
