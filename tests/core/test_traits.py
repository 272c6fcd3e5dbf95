import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.core.traits import query_traits

NAN = np.nan


def labels(n, n_candidates, *, seed=0, missing=0.0):
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=(n, n_candidates)) * rng.uniform(0.5, 2, n_candidates)
    quality[rng.random(quality.shape) < missing] = NAN
    return quality


def kinds(n):
    """Return which queries suit the third candidate, and labels: it or the others."""
    third = np.arange(n) % 2 == 1
    return third, np.where(third[:, None], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0])


# --- ease ----------------------------------------------------------------------


def test_ease_is_the_mean_above_the_candidates_means_shrunk_by_one_label():
    # Means 1/2 and 1/2. Row 0: (1/2 + 1/2) / 3; row 1: -(1/2) / 2; row 2: none;
    # row 3: -(1/2) / 2.
    quality = np.array([[1.0, 1.0], [0.0, NAN], [NAN, NAN], [NAN, 0.0]])
    np.testing.assert_allclose(
        query_traits(quality), [[1 / 3], [-1 / 4], [0.0], [-1 / 4]]
    )


def test_a_candidate_that_nobody_labelled_says_nothing_of_ease():
    quality = labels(30, 3)
    more = np.column_stack([quality, np.full(30, NAN)])
    np.testing.assert_allclose(query_traits(more)[:, 0], query_traits(quality)[:, 0])


@pytest.mark.parametrize("shape", [(0, 2), (5, 0), (0, 0)])
def test_without_labels_there_is_ease_alone(shape):
    assert query_traits(np.zeros(shape)).shape == (shape[0], 1)


def test_where_nothing_is_labelled_all_queries_are_alike():
    assert not query_traits(np.full((120, 4), NAN)).any()


# --- contrasts -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "n_candidates", "expected"),
    [
        (49, 5, 0),
        (50, 5, 1),
        (199, 9, 3),
        (1_000, 3, 2),
        (1_000, 20, 6),
        (1_000, 1, 0),
    ],
)
def test_there_is_a_contrast_per_fifty_queries_and_pair_of_candidates_up_to_six(
    n, n_candidates, expected
):
    assert query_traits(labels(n, n_candidates)).shape == (n, 1 + expected)


def test_two_kinds_of_candidates_give_the_contrast_worked_out_by_hand():
    # All means are 1/2, so labels are ±1/2 above them. Ease of (1, 1, 0):
    # (1/2 + 1/2 - 1/2) / 4 = 1/8; left are (3/8, 3/8, -5/8), and the opposite.
    # One direction, whose largest entry, the third, counts as positive. Every
    # query is equally far along it, and the scale is the root mean square of
    # what is left: √((9 + 9 + 25) / 64 / 3).
    third, quality = kinds(100)
    expected = np.where(third, 1.0, -1.0) * np.sqrt(43 / 64 / 3)
    found = query_traits(quality)
    assert found.shape == (100, 2)  # two may be; the second would be of no length
    np.testing.assert_allclose(found[:, 0], np.where(third, -1 / 8, 1 / 8))
    np.testing.assert_allclose(found[:, 1], expected)


def test_equal_labels_have_no_contrast():
    assert query_traits(np.ones((100, 3))).tolist() == [[0.0]] * 100


def test_half_the_labels_are_enough_to_tell_the_kinds_apart():
    third, quality = kinds(400)
    rng = np.random.default_rng(0)
    known = rng.random(quality.shape) < 0.5
    contrast = query_traits(np.where(known, quality, NAN))[:, 1]
    judged = known.any(axis=1)
    assert ((contrast > 0) == third)[judged].all()
    # A query without labels has no contrast that could mislead.
    np.testing.assert_allclose(contrast[~judged], 0.0, atol=1e-12)
    assert (~judged).sum() > 20


def test_contrasts_come_by_how_much_they_tell_and_have_one_scale():
    quality = labels(600, 6)
    found = query_traits(quality)
    spread = found[:, 1:].std(axis=0)
    np.testing.assert_allclose(spread, spread[0])
    above = quality - quality.mean(axis=0)
    left = above - found[:, :1]
    assert spread[0] == pytest.approx(left.std())
    told = [np.square(left.T @ c).sum() for c in found[:, 1:].T]
    assert told == sorted(told, reverse=True)


@given(st.integers(0, 500), st.floats(-3, 3), st.floats(0, 0.6))
def test_how_good_a_candidate_is_in_general_changes_no_trait(seed, more, missing):
    quality = labels(120, 4, seed=seed, missing=missing)
    moved = quality + np.array([more, 0.0, -more, 1.0])
    np.testing.assert_allclose(query_traits(moved), query_traits(quality), atol=1e-6)


@given(st.integers(0, 500))
def test_the_order_of_the_queries_changes_no_trait(seed):
    quality = labels(120, 4, seed=seed, missing=0.2)
    order = np.random.default_rng(seed).permutation(120)
    np.testing.assert_allclose(
        query_traits(quality[order]), query_traits(quality)[order], atol=1e-6
    )


def test_traits_are_the_same_each_time_and_leave_the_labels_alone():
    quality = labels(200, 5, missing=0.3)
    before = quality.copy()
    assert np.array_equal(query_traits(quality), query_traits(quality))
    assert np.array_equal(quality, before, equal_nan=True)
