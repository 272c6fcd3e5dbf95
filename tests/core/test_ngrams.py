import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from mixllm_integrations.core import chunks, ngrams
from mixllm_integrations.core.ngrams import NgramRidge, fold_of_rows

PAIRS = 2**15


def ids(*texts):
    return [np.array(text, dtype=np.int32) for text in texts]


def embeddings(rows):
    return np.array(rows, dtype=np.float32)


def fitted(texts, vectors, targets, *, l2, n_pieces=10, **options):
    return NgramRidge.fit(
        ids(*texts),
        embeddings(vectors),
        np.array(targets, dtype=np.float64),
        l2=l2,
        n_pieces=n_pieces,
        **options,
    )


# --- folds ---------------------------------------------------------------------


@given(
    n_rows=st.integers(0, 200), n_folds=st.integers(1, 12), seed=st.integers(0, 2**31)
)
def test_folds_cover_every_row_and_are_of_nearly_one_size(n_rows, n_folds, seed):
    folds = fold_of_rows(n_rows, n_folds=n_folds, seed=seed)
    sizes = np.bincount(folds, minlength=n_folds)
    assert folds.shape == (n_rows,)
    assert sizes.sum() == n_rows
    assert sizes.size == n_folds
    assert sizes.max() - sizes.min() <= 1


def test_folds_depend_on_the_seed_alone():
    first = fold_of_rows(50, n_folds=5, seed=3)
    assert np.array_equal(first, fold_of_rows(50, n_folds=5, seed=3))
    assert not np.array_equal(first, fold_of_rows(50, n_folds=5, seed=4))


# --- what a text is made of ----------------------------------------------------


def test_pieces_and_pairs_of_a_text_are_those_worked_out_by_hand():
    # Pairs: (5·1000003 + 5·8191) mod 2¹⁵ = 5040970 mod 32768 = 27466 and
    # (5·1000003 + 7·8191) mod 2¹⁵ = 5057352 mod 32768 = 11080, behind 10 pieces.
    found, counts = ngrams._columns(ids([5, 5, 7])[0], 10)
    assert dict(zip(found.tolist(), counts.tolist(), strict=True)) == {
        5: 2,
        7: 1,
        10 + 27466: 1,
        10 + 11080: 1,
    }


def test_the_order_of_a_pair_matters():
    one, other = (set(ngrams._columns(p, 10)[0]) for p in ids([5, 7], [7, 5]))
    assert one & other == {5, 7}
    assert one != other


@pytest.mark.parametrize(("pieces", "n_columns"), [([], 0), ([4], 1)])
def test_a_text_too_short_for_a_pair_has_none(pieces, n_columns):
    found, counts = ngrams._columns(ids(pieces)[0], 10)
    assert found.size == counts.size == n_columns


def test_a_score_weighs_the_logarithm_of_counts_on_unit_length():
    column_of = np.zeros(10 + PAIRS, dtype=np.int32)  # column 0: of what is unknown
    column_of[[3, 4]] = [1, 2]
    model = NgramRidge(
        10,
        column_of,
        np.array([0.0, 1.0, 1.0], dtype=np.float32),
        np.array([[99.0], [1.0], [0.0], [10.0]], dtype=np.float32),
        np.array([0.25], dtype=np.float32),
    )
    # Piece 3 twice: 1 + ln 2 = 1.693; piece 4 once: 1. Over their length:
    # 1.693 / √(1.693² + 1) = 0.8611. The embedding adds 10·0.5, the offset 1/4.
    score = model.scores(ids([3, 3, 4]), embeddings([[0.5]]))
    np.testing.assert_allclose(score, [[0.8611 + 5.0 + 0.25]], atol=1e-4)


# --- the fit -------------------------------------------------------------------


def test_the_embedding_alone_gives_the_ridge_worked_out_by_hand():
    # No piece is in two texts, so only the embedding counts. Both texts:
    # w = (1·1 + 1·1) / (2 + 2) = 1/2. Without itself: w = 1 / (1 + 2) = 1/3.
    model, out_of_fold = fitted(
        [[1], [2]], [[1.0], [-1.0]], [[1.0], [-1.0]], l2=[2.0], n_folds=2
    )
    inside = model.scores(ids([1], [2]), embeddings([[1.0], [-1.0]]))
    np.testing.assert_allclose(inside, [[0.5], [-0.5]], rtol=1e-6)
    np.testing.assert_allclose(out_of_fold, [[1 / 3], [-1 / 3]], rtol=1e-6)
    assert model.idf.tolist() == [0.0]


def test_pieces_alone_give_the_ridge_worked_out_by_hand():
    # Piece 1 stands alone in two texts: a unit feature. Mean 2/3, so above it
    # (1/3, 1/3, -2/3); w = (1/3 + 1/3) / (2 + 1) = 2/9. Piece 2 is rare: dropped.
    model, _ = fitted([[1], [1], [2]], [[0.0]] * 3, [[1.0], [1.0], [0.0]], l2=[1.0])
    found = model.scores(ids([1], [2], [9], []), embeddings([[0.0]] * 4))
    mean = 2 / 3
    # Weights are kept in half precision.
    np.testing.assert_allclose(found, [[8 / 9], [mean], [mean], [mean]], rtol=1e-4)
    # Natural logarithm of (1 + 3 texts) / (1 + 2 texts with it), plus 1.
    np.testing.assert_allclose(model.idf, [0.0, np.log(4 / 3) + 1], rtol=1e-6)


@given(
    n=st.integers(1, 12),
    n_features=st.integers(1, 6),
    l2=st.lists(st.floats(0.1, 20.0), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
def test_the_conjugate_gradient_finds_the_closed_form(n, n_features, l2, seed):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, n_features)).astype(np.float32)
    y = rng.normal(size=(n, len(l2))).astype(np.float32)
    found = ngrams._conjugate_gradient(
        sparse.csr_matrix(a), y, np.array(l2, dtype=np.float32)
    )
    gram = a.T.astype(np.float64) @ a
    for column, ridge in enumerate(l2):
        exact = np.linalg.solve(
            gram + ridge * np.eye(n_features), a.T.astype(np.float64) @ y[:, column]
        )
        np.testing.assert_allclose(found[:, column], exact, atol=2e-4)


def test_targets_without_spread_score_their_mean():
    model, out_of_fold = fitted(
        [[1, 2], [1], [2]], np.eye(3), [[0.7, 0.0]] * 3, l2=[1.0, 1.0]
    )
    found = model.scores(ids([1, 2]), embeddings([[1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(found, [[0.7, 0.0]], atol=1e-6)
    np.testing.assert_allclose(out_of_fold, [[0.7, 0.0]] * 3, atol=1e-6)


def test_one_text_scores_its_own_label():
    model, out_of_fold = fitted([[1, 2]], [[1.0]], [[0.3]], l2=[1.0])
    np.testing.assert_allclose(out_of_fold, [[0.3]])
    np.testing.assert_allclose(
        model.scores(ids([5]), embeddings([[4.0]])), [[0.3]], atol=1e-6
    )


def test_no_texts_score_to_no_rows():
    model, _ = fitted([[1], [1]], [[0.0]] * 2, [[1.0], [0.0]], l2=[1.0])
    assert model.scores([], np.zeros((0, 1), dtype=np.float32)).shape == (0, 1)


def random_world(n=120, *, n_pieces=300, seed=0):
    rng = np.random.default_rng(seed)
    texts = [rng.integers(0, n_pieces, size=25).astype(np.int32) for _ in range(n)]
    vectors = rng.normal(size=(n, 16)).astype(np.float32) / 4
    return texts, vectors, rng


def correlation(a, b):
    return float(np.corrcoef(a, b)[0, 1])


def test_scores_out_of_fold_know_nothing_of_labels_that_are_noise():
    texts, vectors, rng = random_world()
    noise = rng.normal(size=(120, 1))
    model, out_of_fold = NgramRidge.fit(texts, vectors, noise, l2=[0.5], n_pieces=300)
    inside = model.scores(texts, vectors)
    assert correlation(inside[:, 0], noise[:, 0]) > 0.9  # learned by heart
    assert correlation(out_of_fold[:, 0], noise[:, 0]) < 0.2


def test_scores_out_of_fold_know_what_can_be_known():
    texts, vectors, _ = random_world(300, n_pieces=40)
    truth = np.array([[float((t < 20).mean())] for t in texts])
    _, out_of_fold = NgramRidge.fit(texts, vectors, truth, l2=[0.5], n_pieces=40)
    assert correlation(out_of_fold[:, 0], truth[:, 0]) > 0.6


def test_each_output_is_solved_as_if_it_were_alone():
    texts, vectors, rng = random_world(60)
    targets = rng.normal(size=(60, 3))
    ridges = [0.5, 8.0, 2.0]
    together, scores = NgramRidge.fit(texts, vectors, targets, l2=ridges, n_pieces=300)
    for column, l2 in enumerate(ridges):
        own = targets[:, column : column + 1]
        alone, lonely = NgramRidge.fit(texts, vectors, own, l2=[l2], n_pieces=300)
        np.testing.assert_allclose(
            together.weights[:, column], alone.weights[:, 0], atol=1e-4
        )
        np.testing.assert_allclose(scores[:, column], lonely[:, 0], atol=1e-4)


@pytest.mark.parametrize("together", [1, 2, 7, 1000])
def test_a_text_scores_the_same_alone_and_among_others(monkeypatch, together):
    monkeypatch.setattr(chunks, "_TOGETHER", together)
    texts, vectors, rng = random_world(40)
    # Without pieces at each border, of one piece, and of pieces that are unknown.
    texts[0] = texts[6] = texts[7] = texts[-1] = np.zeros(0, dtype=np.int32)
    texts[3], texts[4] = ids([5], [299, 298])
    model, _ = NgramRidge.fit(
        texts, vectors, rng.normal(size=(40, 2)), l2=[1.0, 1.0], n_pieces=300
    )
    batch = model.scores(texts, vectors)
    alone = [model.scores([t], v[None])[0] for t, v in zip(texts, vectors, strict=True)]
    np.testing.assert_allclose(batch, alone, atol=1e-5)


def test_texts_without_pieces_score_by_their_embeddings_alone():
    model, _ = fitted([[1], [1], [2]], [[0.0]] * 3, [[1.0], [1.0], [0.0]], l2=[1.0])
    found = model.scores(ids([], [], []), embeddings([[0.0]] * 3))
    np.testing.assert_allclose(found, [[2 / 3]] * 3, rtol=1e-6)


@given(
    st.lists(
        st.lists(st.integers(0, 3), max_size=8).map(
            lambda text: np.array(text, dtype=np.int32)
        ),
        min_size=1,
        max_size=6,
    )
)
def test_columns_of_many_texts_are_those_of_each(texts):
    column_of = np.arange(4 + PAIRS, dtype=np.int32)
    column_of[[2, 100]] = 0  # unknown
    blank = np.zeros(0, dtype=np.float32)
    idf = np.ones(4 + PAIRS, dtype=np.float32)
    model = NgramRidge(4, column_of, idf, blank, blank)
    columns, counts, bounds = model._known_columns(texts)
    assert bounds[0] == 0
    assert bounds[-1] == columns.size
    for row, text in enumerate(texts):
        own = slice(bounds[row], bounds[row + 1])
        found, how_often = ngrams._columns(text, 4)
        known = column_of[found] > 0
        assert columns[own].tolist() == column_of[found][known].tolist()
        assert counts[own].tolist() == how_often[known].tolist()


def test_a_seed_decides_the_scores_out_of_fold():
    texts, vectors, rng = random_world(40)
    y = rng.normal(size=(40, 1))

    def scored(seed):
        return NgramRidge.fit(texts, vectors, y, l2=[1.0], n_pieces=300, seed=seed)[1]

    assert np.array_equal(scored(1), scored(1))
    assert not np.array_equal(scored(1), scored(2))
