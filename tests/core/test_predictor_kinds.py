from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.ensemble
import sklearn.neural_network
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save
from sklearn.linear_model import Ridge

from mixllm_integrations.core.predictors import ensemble, forest, knn, linear, mlp
from mixllm_integrations.core.predictors.ensemble import (
    EnsemblePredictor,
    mixing_weights,
)
from mixllm_integrations.core.predictors.forest import ForestPredictor
from mixllm_integrations.core.predictors.knn import KnnPredictor
from mixllm_integrations.core.predictors.linear import RidgePredictor
from mixllm_integrations.core.predictors.mlp import MlpPredictor

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


# --- ridge ---------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.1, 3.0, 500.0])
def test_ridge_is_that_of_sklearn_with_the_same_penalty(monkeypatch, penalty):
    monkeypatch.setattr(linear, "_PENALTIES", np.array([penalty]))
    x = contexts(50)
    y = labels(x, missing=0.5)
    found = RidgePredictor.fit(x, y, seed=0).predict(x)
    for column in range(K):
        own = np.isfinite(y[:, column])
        other = Ridge(alpha=penalty).fit(x[own], y[own, column])
        np.testing.assert_allclose(found[:, column], other.predict(x), atol=1e-9)


def test_the_slope_of_a_ridge_is_the_one_worked_out_by_hand(monkeypatch):
    # x = -1, 0, 1, 2 and y = x: centred moments 5 and 5, so 5 / (5 + 5) = 1/2;
    # the line goes through the means (1/2, 1/2).
    monkeypatch.setattr(linear, "_PENALTIES", np.array([5.0]))
    x = np.array([[-1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    head = RidgePredictor.fit(x, x[:, :1], seed=0)
    np.testing.assert_allclose(head.coefficients, [[0.5], [0.0]], atol=1e-12)
    np.testing.assert_allclose(head.intercepts, [0.25], atol=1e-12)


@pytest.mark.parametrize("noise", [0.01, 0.5, 1.0, 2.0, 20.0])
@pytest.mark.parametrize("n", [9, 40])
def test_the_penalty_is_that_of_generalised_cross_validation(n, noise):
    rng = np.random.default_rng(0)
    x = contexts(n)
    y = x[:, :2] + noise * rng.normal(size=(n, 2))
    centred, above = x - x.mean(axis=0), y - y.mean(axis=0)

    def surprise(penalty):
        gram = centred.T @ centred + penalty * np.eye(D)
        hat = centred @ np.linalg.solve(gram, centred.T) + np.ones((n, n)) / n
        left = (((y - hat @ y) ** 2).sum(0) / (above**2).sum(0)).mean()
        return left / (1 - np.trace(hat) / n) ** 2

    best = min(linear._PENALTIES, key=surprise)
    expected = Ridge(alpha=best).fit(x, y).predict(x)
    found = RidgePredictor.fit(x, y, seed=0).predict(x)
    np.testing.assert_allclose(found, expected, atol=1e-8)


# --- forest --------------------------------------------------------------------


def stump(threshold, feature=0):
    """Return a tree with one test: left leaf 1, right leaf 2."""
    return SimpleNamespace(
        node_count=3,
        children_left=np.array([1, -1, -1]),
        children_right=np.array([2, -1, -1]),
        threshold=np.array([threshold, -2.0, -2.0]),
        feature=np.array([feature, -2, -2]),
        max_depth=1,
    )


def test_a_forest_of_two_stumps_predicts_what_was_worked_out_by_hand():
    x = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    y = np.array([[1.0, NAN], [0.0, 0.0], [0.0, 1.0], [1.0, NAN]])
    trees = [stump(0.5), stump(0.5, feature=1)]
    found = ForestPredictor._of_trees(trees, x, y)
    # Means 1/2 and 1/2; 2 labels' worth of them in every leaf. First stump, left:
    # rows 0 and 3, 1/2 + (1/2 + 1/2) / (2 + 2) = 3/4; right: 1/4. Second stump:
    # one of each kind on both sides, 1/2. The second candidate has no label on
    # the left of the first stump: 1/2; right: 1/2 + 0 / 4. Second stump: 0 on
    # the left, 1/2 - (1/2) / (1 + 2) = 1/3; 1 on the right: 2/3.
    np.testing.assert_allclose(
        found.values, [[3 / 4, 1 / 2], [1 / 4, 1 / 2], [1 / 2, 1 / 3], [1 / 2, 2 / 3]]
    )
    np.testing.assert_allclose(
        found.predict(x[:1]), [[(3 / 4 + 1 / 2) / 2, (1 / 2 + 2 / 3) / 2]], rtol=1e-6
    )


def test_a_value_right_above_a_threshold_goes_right():
    # In single precision 1 - 2⁻³⁰ would become 1 itself, and 1 would go left.
    x = np.array([[1.0], [np.nextafter(np.float32(1), np.float32(0))]])
    y = np.array([[1.0], [0.0]])
    found = ForestPredictor._of_trees([stump(1 - 2.0**-30)], x, y)
    assert found._leaves(x).tolist() == [[1], [0]]


def grown(x, y, **options):
    return sklearn.ensemble.ExtraTreesRegressor(
        forest._TREES,
        max_depth=forest._DEPTH,
        min_samples_leaf=forest._LEAF,
        max_features=forest._FEATURES,
        random_state=0,
    ).fit(x.astype(np.float32), y)


def test_the_walk_ends_in_the_leaves_where_sklearn_ends():
    x, fresh = contexts(300), contexts(200, seed=1)
    x[:, 1] = np.round(x[:, 1])  # ties
    y = labels(x)
    theirs = grown(x, y)
    ours = ForestPredictor._of_trees([e.tree_ for e in theirs.estimators_], x, y)
    leaves = ours._leaves(fresh)
    # Leaf for leaf: the same one of ours wherever it is the same one of theirs.
    for tree, nodes in enumerate(theirs.apply(fresh.astype(np.float32)).T):
        pairs = set(zip(nodes.tolist(), leaves[:, tree].tolist(), strict=True))
        assert len(pairs) == len(set(nodes)) == len(set(leaves[:, tree]))
    assert len(ours.values) == sum(e.get_n_leaves() for e in theirs.estimators_)


@pytest.mark.parametrize(("n", "is_deep"), [(20, False), (40, False), (1_000, True)])
def test_a_query_alone_ends_in_the_leaves_where_it_ends_among_others(n, is_deep):
    x, fresh = contexts(n), contexts(50, seed=1)
    found = ForestPredictor.fit(x, labels(x), seed=0)
    assert (found.depth > forest._UPPER_LEVELS) == is_deep
    assert (found.n_upper < len(found.child)) == is_deep
    alone = np.vstack([found._leaves(row[None]) for row in fresh])
    np.testing.assert_array_equal(alone, found._leaves(fresh))


def test_the_upper_levels_are_the_first_nodes_of_all_trees():
    x = contexts(1_000)
    found = ForestPredictor.fit(x, labels(x), seed=0)
    level = dict.fromkeys(range(found.n_trees), 0)
    for node in range(len(found.child)):  # a parent comes before its children
        if (left := int(found.child[node])) != node:
            level[left] = level[left + 1] = level[node] + 1
    upper = [node for node, deep in level.items() if deep < forest._UPPER_LEVELS]
    assert sorted(upper) == list(range(found.n_upper))


def test_without_shrinkage_the_forest_is_that_of_sklearn(monkeypatch):
    monkeypatch.setattr(forest, "_SHRINKAGE", 0.0)
    x, fresh = contexts(300), contexts(100, seed=1)
    y = labels(x)
    ours = ForestPredictor.fit(x, y, seed=0).predict(fresh)
    scaled = y / (y.std(axis=0) + 1e-6)
    theirs = grown(x, scaled).predict(fresh.astype(np.float32))
    np.testing.assert_allclose(ours, theirs * (y.std(axis=0) + 1e-6), atol=1e-5)


def test_too_few_queries_for_a_split_predict_the_mean():
    x = contexts(2 * forest._LEAF - 1)
    y = labels(x)
    found = ForestPredictor.fit(x, y, seed=0)
    assert found.depth == 0
    np.testing.assert_allclose(found.predict(x), np.tile(y.mean(0), (len(x), 1)))


# --- neighbours ----------------------------------------------------------------


def test_neighbours_are_those_of_a_search_by_brute_force():
    x, fresh = contexts(200), contexts(50, seed=1)
    y = labels(x, missing=0.5)
    found = KnnPredictor.fit(x, y, seed=0).predict(fresh)
    k = min(max(200 // knn._SHARE, knn._FEWEST_NEIGHBOURS), knn._MOST_NEIGHBOURS)
    means = np.nanmean(y, axis=0)
    for row, query in zip(found, fresh, strict=True):
        near = np.argsort(((x - query) ** 2).sum(axis=1))[:k]
        for column in range(K):
            own = y[near, column][np.isfinite(y[near, column])]
            above = (own - means[column]).sum() / (own.size + knn._SHRINKAGE)
            assert row[column] == pytest.approx(means[column] + above, abs=1e-5)


def test_neighbours_shrink_towards_the_mean_as_worked_out_by_hand(monkeypatch):
    monkeypatch.setattr(knn, "_FEWEST_NEIGHBOURS", 2)
    x = np.array([[0.0], [0.1], [5.0], [5.1]])
    y = np.array([[1.0, NAN], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    found = KnnPredictor.fit(x, y, seed=0).predict(np.array([[0.05]]))
    # Mean 1/2, two labels 1: 1/2 + 1 / 4. Mean 1/3, one label: 1/3 + (2/3) / 3.
    np.testing.assert_allclose(found, [[3 / 4, 5 / 9]], rtol=1e-6)


def test_no_more_queries_are_kept_than_a_search_may_cost():
    x = contexts(knn._MOST_QUERIES + 500)
    y = labels(x)
    found = KnnPredictor.fit(x, y, seed=1)
    assert len(found.points) == len(found.labels) == knn._MOST_QUERIES
    assert found.neighbours == knn._MOST_NEIGHBOURS
    np.testing.assert_allclose(found.means, y.mean(axis=0))  # of all
    other = KnnPredictor.fit(x, y, seed=2)
    assert not np.array_equal(found.points, other.points)


# --- network -------------------------------------------------------------------


@pytest.mark.parametrize("n_candidates", [1, 3])
def test_the_network_says_what_sklearns_says(monkeypatch, n_candidates):
    trained = []

    class Recorded(sklearn.neural_network.MLPRegressor):
        def fit(self, X, y):
            trained.append((self, X))
            return super().fit(X, y)

    monkeypatch.setattr(sklearn.neural_network, "MLPRegressor", Recorded)
    x = contexts(250)
    y = labels(x)[:, :n_candidates]
    found = MlpPredictor.fit(x, y, seed=0).predict(x)
    ((network, given),) = trained
    theirs = network.predict(given).reshape(250, -1) * y.std(axis=0) + y.mean(axis=0)
    np.testing.assert_allclose(found, theirs, atol=1e-5)


def test_a_network_trains_without_a_warning_on_any_number_of_queries(monkeypatch):
    monkeypatch.setattr(mlp, "_EPOCHS", 1)
    x = contexts(300)
    y = labels(x)
    for n in (1, 2, 9, *range(195, 300)):
        assert np.isfinite(MlpPredictor.fit(x[:n], y[:n], seed=0).output).all()


def test_candidates_labelled_on_other_queries_do_not_change_a_network():
    x = contexts(80)
    y = labels(x)[:, :2]
    y[:40, 1] = NAN
    both = MlpPredictor.fit(x, y, seed=0).predict(x)
    for column, own in ((0, slice(None)), (1, slice(40, None))):
        alone = MlpPredictor.fit(x[own], y[own, column : column + 1], seed=0)
        np.testing.assert_allclose(both[:, column], alone.predict(x)[:, 0], atol=1e-5)
    assert MlpPredictor.fit(x, y, seed=0).hidden.shape[1] == 2 * mlp._HIDDEN


# --- ensemble ------------------------------------------------------------------


def test_an_ensemble_is_the_weighted_mean_of_its_members():
    x = contexts(80)
    y = labels(x)
    weights = (0.5, 0.2, 0.3)
    mixed = EnsemblePredictor.fit(x, y, seed=4, weights=weights).predict(x)
    parts = [m.fit(x, y, seed=4).predict(x) for m in ensemble.MEMBERS.values()]
    expected = sum(w * p for w, p in zip(weights, parts, strict=True))
    np.testing.assert_allclose(mixed, expected, rtol=1e-12)


def test_a_member_without_weight_is_not_fitted_nor_saved():
    x = contexts(80)
    mixed = EnsemblePredictor.fit(x, labels(x), seed=0, weights=(0.25, 0.0, 0.75))
    assert [m.kind for m in mixed.members] == ["ridge", "mlp"]
    again = EnsemblePredictor.from_state(from_a_file(mixed.state()))
    assert [m.kind for m in again.members] == ["ridge", "mlp"]
    assert again.weights == mixed.weights == (0.25, 0.75)
    assert np.array_equal(again.predict(x), mixed.predict(x))


def test_mixing_weights_are_those_worked_out_by_hand():
    # Above the mean 0: truth (1, -1); the members say (2, -2) and (0, 0).
    # Least squares: 1/2 and 0, scaled to sum to 1.
    y = np.array([[1.0], [-1.0]])
    assert mixing_weights([2 * y, 0 * y], y) == [1.0, 0.0]
    # A member that says the mean twice over is of no use: all alike then.
    assert mixing_weights([0 * y, -y], y) == [0.5, 0.5]


def test_a_candidate_without_labels_has_no_say_in_the_mix():
    y = np.array([[1.0, NAN], [-1.0, NAN]])
    said = np.array([[1.0, 5.0], [-1.0, 7.0]])
    assert mixing_weights([said, 0 * said], y) == [1.0, 0.0]


@given(seed=st.integers(0, 500), missing=st.floats(0, 0.9))
def test_mixing_weights_are_shares(seed, missing):
    y = labels(contexts(15, seed), seed, missing=missing)
    rng = np.random.default_rng(seed)
    weights = mixing_weights([rng.normal(size=y.shape) for _ in range(3)], y)
    assert min(weights) >= 0
    assert sum(weights) == pytest.approx(1.0)
