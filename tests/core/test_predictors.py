import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from mixllm_integrations.core.predictors.base import (
    PREDICTOR_KINDS,
    column_means,
    impute,
)
from mixllm_integrations.core.predictors.selection import KINDS

NAN = np.nan
D, K = 6, 3


def contexts(n, seed=0, d=D):
    x = np.random.default_rng(seed).normal(size=(n, d))
    x[:, -1] = 1.0
    return x


def labels(x, seed=0, *, missing=0.0):
    """Return labels that depend on the contexts, each column in its own way."""
    rng = np.random.default_rng(seed + 1)
    y = np.column_stack([x[:, 0] > 0, 0.3 * x[:, 1] + 0.5, np.abs(x[:, 0]) > 1])
    y = y + 0.1 * rng.normal(size=y.shape)
    gone = rng.random(y.shape) < missing
    gone[:3] = False
    return np.where(gone, NAN, y)


def from_a_file(state):
    """Return arrays as a saved router has them when it is loaded again."""
    return load(save({n: np.ascontiguousarray(a) for n, a in state.items()}))


def read_only(*arrays):
    for array in arrays:
        array.setflags(write=False)
    return arrays


@pytest.fixture(scope="module", params=PREDICTOR_KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(scope="module")
def partly(kind):
    """A predictor that was fitted on labels with gaps."""
    x = contexts(90)
    return kind.fit(*read_only(x, labels(x, missing=0.4)), seed=3)


def test_every_kind_has_its_class():
    assert set(KINDS) == set(PREDICTOR_KINDS)
    assert all(cls.kind == name for name, cls in KINDS.items())


class TestEveryKind:
    def test_predicts_one_finite_number_per_query_and_candidate(self, partly):
        found = partly.predict(*read_only(contexts(7, seed=9)))
        assert found.shape == (7, K)
        assert found.dtype == np.float64
        assert np.isfinite(found).all()

    def test_predicts_nothing_for_no_query(self, partly):
        assert partly.predict(np.zeros((0, D))).shape == (0, K)

    def test_stays_finite_far_away_from_what_it_saw(self, partly):
        assert np.isfinite(partly.predict(1e4 * contexts(5, seed=2))).all()

    def test_says_the_same_of_a_query_alone_and_among_others(self, partly):
        x = contexts(1_500, seed=4)  # more than go through at once
        together = partly.predict(x)
        alone = np.vstack([partly.predict(x[i : i + 1]) for i in (0, 600, 1_100, 1499)])
        np.testing.assert_allclose(together[[0, 600, 1_100, 1499]], alone, atol=1e-5)

    def test_does_not_care_how_the_contexts_lie_in_memory(self, partly):
        x = contexts(8, seed=5)
        plain = partly.predict(x)
        np.testing.assert_allclose(
            partly.predict(np.asfortranarray(x)), plain, atol=1e-6
        )
        padded = np.repeat(x, 2, axis=0)[::2]
        np.testing.assert_allclose(partly.predict(padded), plain, atol=1e-6)

    def test_is_decided_by_the_seed(self, kind, partly):
        x, fresh = contexts(90), contexts(20, seed=8)
        again = kind.fit(x, labels(x, missing=0.4), seed=3)
        assert np.array_equal(again.predict(fresh), partly.predict(fresh))

    def test_learns_the_same_however_labels_lie_in_memory(self, kind):
        x, fresh = contexts(60), contexts(20, seed=1)
        y = labels(x)
        plain = kind.fit(x, y, seed=0)
        other = kind.fit(x, np.asfortranarray(y), seed=0)
        assert all(a.flags.c_contiguous for a in other.state().values())
        np.testing.assert_allclose(
            plain.predict(fresh), other.predict(fresh), atol=1e-5
        )

    @pytest.mark.parametrize("columns", [[0, 1, 2], [2, 0], [1]])
    def test_selects_exactly_the_columns_asked_for_in_that_order(self, partly, columns):
        x = contexts(30, seed=6)
        chosen = partly.select(np.array(columns, dtype=np.intp))
        np.testing.assert_allclose(
            chosen.predict(x), partly.predict(x)[:, columns], rtol=1e-5, atol=1e-6
        )
        assert partly.predict(x).shape == (30, K)  # the whole one is as it was
        assert all(a.flags.c_contiguous for a in chosen.state().values())  # speed

    def test_selecting_copies_what_was_learned_bit_for_bit(self, partly):
        twice = partly.select(np.array([2, 0])).select(np.array([1, 0]))
        once = partly.select(np.array([0, 2]))
        assert twice.state().keys() == once.state().keys()
        for name, array in once.state().items():
            assert np.array_equal(twice.state()[name], array), name

    @pytest.mark.parametrize("columns", [[0, 1, 2], [2, 0]])
    def test_comes_back_bit_for_bit_from_a_file(self, kind, partly, columns):
        chosen = partly.select(np.array(columns))
        again = kind.from_state(from_a_file(chosen.state()))
        assert again.state().keys() == chosen.state().keys()
        for name, array in chosen.state().items():
            assert again.state()[name].dtype == array.dtype, name
            assert np.array_equal(again.state()[name], array), name
        x = contexts(40, seed=7)
        np.testing.assert_array_equal(again.predict(x), chosen.predict(x))

    @pytest.mark.parametrize("n", [1, 2, 5, 20])
    def test_works_from_very_few_queries(self, kind, n):
        x = contexts(n)
        y = np.where(labels(x) > 0.5, 1.0, 0.0)
        found = kind.fit(x, y, seed=0).predict(contexts(50, seed=1))
        assert found.shape == (50, K)
        assert np.isfinite(found).all()
        assert -1.0 <= found.min() <= found.max() <= 2.0

    def test_says_what_it_was_told_by_a_single_label(self, kind):
        y = np.array([[0.25, NAN], [NAN, 1.0]])
        found = kind.fit(contexts(2), y, seed=0).predict(contexts(9, seed=1))
        np.testing.assert_allclose(found, [[0.25, 1.0]] * 9, atol=1e-6)

    def test_serves_a_single_candidate(self, kind):
        x = contexts(60)
        found = kind.fit(x, labels(x)[:, :1], seed=0).predict(x)
        assert found.shape == (60, 1)
        assert np.corrcoef(found[:, 0], x[:, 0] > 0)[0, 1] > 0.5

    def test_says_the_constant_where_labels_are_constant(self, kind):
        x = contexts(60)
        y = np.column_stack([np.full(60, 0.7), np.zeros(60), labels(x)[:, 0]])
        found = kind.fit(x, y, seed=0).predict(contexts(30, seed=1))
        np.testing.assert_allclose(found[:, :2], [[0.7, 0.0]] * 30, atol=1e-3)

    def test_beats_the_mean_where_labels_can_be_known(self, kind):
        x, fresh = contexts(400), contexts(400, seed=11)
        y, truth = labels(x, missing=0.2), labels(fresh, seed=11)
        error = (kind.fit(x, y, seed=0).predict(fresh) - truth) ** 2
        by_mean = (column_means(y) - truth) ** 2
        assert error[:, 0].mean() < 0.8 * by_mean[:, 0].mean()
        assert error[:, 1].mean() < 0.8 * by_mean[:, 1].mean()


# --- what they share -----------------------------------------------------------


def test_means_are_over_labels_only():
    found = column_means(np.array([[1.0, NAN, NAN], [0.0, 0.5, NAN]]))
    assert found.tolist() == [0.5, 0.5, 0.0]


def test_gaps_are_filled_by_candidate_and_query_effects():
    # Means 1/2 and 1/2. Row 0 is 1/2 above in one label: (1/2) / (1 + 1) = 1/4.
    y = np.array([[1.0, NAN], [0.0, 1.0], [0.5, 0.0], [NAN, NAN]])
    assert impute(y).tolist() == [[1.0, 0.75], [0.0, 1.0], [0.5, 0.0], [0.5, 0.5]]


def test_complete_labels_are_left_alone():
    y = np.eye(3)
    assert impute(y) is y


@given(seed=st.integers(0, 1_000), missing=st.floats(0, 1))
def test_labels_survive_the_filling_of_gaps(seed, missing):
    y = labels(contexts(12, seed), seed, missing=missing)
    filled = impute(y)
    assert np.isfinite(filled).all()
    assert np.array_equal(filled[np.isfinite(y)], y[np.isfinite(y)])
