import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.core.predictors.peers import Peers


def peers(base, n_labels, fitted=None):
    places = np.arange(len(n_labels)) if fitted is None else np.array(fitted)
    return Peers.of(places, np.array(base, float), np.array(n_labels))


def test_candidates_of_about_as_many_labels_follow_nobody():
    found = peers([0.4, 0.6, 0.8], [50, 400, 60])
    assert not found.are_needed


def test_a_newcomer_moves_with_its_only_peer_by_as_much():
    found = peers([0.5, 0.7], [1_000], fitted=[0])
    assert found.are_needed
    said = np.array([[0.5], [0.6], [0.1]])
    expected = [[0.5, 0.7], [0.6, 0.8], [0.1, 0.3]]
    np.testing.assert_allclose(found.spread(said), expected)


def test_those_of_its_own_level_count_most():
    found = peers([0.2, 0.8, 0.78], [1_000, 1_000], fitted=[0, 1])
    moved = found.spread(np.array([[0.3, 0.8], [0.2, 0.9]]))[:, 2] - 0.78
    assert 0 < moved[0] < 0.02
    assert moved[1] == pytest.approx(0.1, rel=0.1)


def test_a_candidate_of_few_labels_goes_from_its_peers_to_its_own_head():
    # 100 labels against 2000: it is half its own head's word.
    found = peers([0.5, 0.5], [2_000, 100])
    said = np.array([[0.7, 0.5]])
    own = 100 / 200
    share = 1.0 / (1.0 + own)  # who is followed counts whole
    expected = 0.5 + (1 - own) * (share * 0.2)
    np.testing.assert_allclose(found.spread(said), [[0.7, expected]])


def test_where_all_are_far_away_somebody_is_followed_all_the_same():
    found = peers([0.02, 0.98], [1_000], fitted=[0])
    np.testing.assert_allclose(found.spread(np.array([[0.01]])), [[0.01, 0.97]])


@given(
    base=st.lists(st.floats(0, 1), min_size=2, max_size=6),
    n=st.integers(1, 5_000),
    said=st.floats(0, 1),
)
def test_who_stands_alone_is_taken_at_its_word(base, n, said):
    n_fitted = len(base) - 1
    found = peers(base, [n] * n_fitted, fitted=range(n_fitted))
    quality = np.full((2, n_fitted), said)
    spread = found.spread(quality)
    assert np.array_equal(spread[:, :n_fitted], quality)
    assert ((spread >= 0) & (spread <= 1)).all()
