"""The linear algebra of a bandit's arms, against the plainest way to compute it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.bandit import DesignMatrices, ResidualHeads
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.gram import Base, Gram
from mixllm_integrations.core.ridge import decay_step

NAMES = ("a", "b", "c")
SEEDS = st.integers(0, 10_000)
DIMENSIONS = st.sampled_from([1, 2, 5, 40])  # 40: more than one block of a root
L2 = st.floats(0.05, 20.0)
FORGETTING = st.sampled_from([1.0, 0.999, 0.97, 0.5])


def stream(seed, n, d):
    """Contexts, residuals and weights."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d)) / np.sqrt(d)
    return rows, rng.normal(size=n), rng.uniform(0.1, 3.0, size=n)


def heads(d, **options):
    made = ResidualHeads(d, **options)
    for name in NAMES:
        made.add(name)
    return made


def same_bits(left, right):
    assert left.keys() == right.keys()
    for key in left:
        np.testing.assert_array_equal(left[key], right[key])


def counts(n, forgetting):
    """What each of n observations counts; before the next decay a bit too much."""
    due = n % decay_step(forgetting)
    return forgetting ** (np.arange(n)[::-1] - float(due))


def batch(rows, residuals, weights, *, l2, data=0.0):
    """The matrix, and the solution of the weighted ridge regression."""
    matrix = l2 * np.eye(rows.shape[1]) + data + (rows.T * weights) @ rows
    return matrix, np.linalg.solve(matrix, rows.T @ (weights * residuals))


def same_as_batch(learned, matrix, solution, probe, *, name="a"):
    data = matrix - learned.l2 * np.eye(len(matrix))
    np.testing.assert_allclose(learned.gram(name), data, rtol=1e-9, atol=1e-10)
    leverages = np.einsum("nd,nd->n", probe, np.linalg.solve(matrix, probe.T).T)
    np.testing.assert_allclose(
        learned.widths(probe, [name])[:, 0], np.sqrt(leverages), rtol=1e-8
    )
    np.testing.assert_allclose(
        learned.correct(probe, [name])[:, 0], probe @ solution, rtol=1e-7, atol=1e-9
    )


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(1, 70), DIMENSIONS, L2, FORGETTING, st.sampled_from([0, 0.3]))
def test_updates_one_by_one_equal_the_weighted_batch(seed, n, d, l2, forgetting, share):
    # With forgetting too, and the ridge is whole in both.
    rows, residuals, weights = stream(seed, n, d)
    offline = rows[: n // 2].T @ rows[: n // 2]
    learned = heads(d, l2=l2, forgetting=forgetting, offline_share=share)
    learned.start("a", offline)
    for row, residual, weight in zip(rows, residuals, weights, strict=True):
        assert learned.update("a", row, residual, weight)
    weights *= counts(n, forgetting)
    left = share * forgetting ** (n - n % decay_step(forgetting))
    matrix, solution = batch(rows, residuals, weights, l2=l2, data=left * offline)
    same_as_batch(learned, matrix, solution, stream(seed + 1, 4, d)[0])


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(1, 70), DIMENSIONS, L2)
def test_the_order_of_the_updates_does_not_matter(seed, n, d, l2):
    rows, residuals, weights = stream(seed, n, d)
    shuffled = np.random.default_rng(seed).permutation(n)
    learned = heads(d, l2=l2)
    for index in shuffled:
        learned.update("a", rows[index], residuals[index], weights[index])
    matrix, solution = batch(rows, residuals, weights, l2=l2)
    same_as_batch(learned, matrix, solution, stream(seed + 1, 4, d)[0])


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(0, 60), st.integers(0, 60), DIMENSIONS, L2)
def test_merging_workers_equals_one_that_saw_the_union(seed, left, right, d, l2):
    rows, residuals, weights = stream(seed, left + right, d)
    mine, theirs = heads(d, l2=l2), heads(d, l2=l2)
    for index in range(left + right):
        worker = mine if index < left else theirs
        worker.update("a", rows[index], residuals[index], weights[index])
    untouched = theirs.state()
    mine.merge(theirs)
    same_bits(theirs.state(), untouched)
    matrix, solution = batch(rows, residuals, weights, l2=l2)
    same_as_batch(mine, matrix, solution, stream(seed + 1, 4, d)[0])


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(0, 40), st.integers(0, 40), DIMENSIONS, L2)
def test_offline_and_online_data_add_up_in_either_order(seed, offline, online, d, l2):
    rows, _, _ = stream(seed, offline + online, d)
    before, after = DesignMatrices(d, l2=l2), DesignMatrices(d, l2=l2)
    for learned in (before, after):
        learned.add("a")
    labelled = np.ones((offline, 1), dtype=bool)
    before.accumulate(rows[:offline], labelled, ["a"])
    for row in rows[offline:]:
        assert before.observe("a", row)
        assert after.observe("a", row)
    after.accumulate(rows[:offline], labelled, ["a"])
    probe = stream(seed + 1, 4, d)[0]
    matrix = l2 * np.eye(d) + rows.T @ rows
    leverages = np.einsum("nd,nd->n", probe, np.linalg.solve(matrix, probe.T).T)
    for learned in (before, after):
        found = learned.widths(probe, ["a"])[:, 0]
        np.testing.assert_allclose(found, np.sqrt(leverages), rtol=1e-8)


@pytest.mark.parametrize(
    ("forgetting", "step"),
    # 0.99^10 = 0.904 and 0.99^11 = 0.895; 0.97^3 = 0.913 and 0.97^4 = 0.885.
    [(1.0, 16), (0.999, 16), (0.99, 10), (0.97, 3), (0.9, 1), (0.5, 1)],
)
def test_at_every_16th_update_or_sooner_forgetting_is_exactly_exponential(
    forgetting, step
):
    assert decay_step(forgetting) == step
    due = forgetting ** -np.arange(step)  # what data count too much, update by update
    assert due.max() < 1.13
    rows, residuals, _ = stream(0, 4 * step, 3)
    learned, exact = heads(3, forgetting=forgetting), np.zeros((3, 3))
    for number, (row, residual) in enumerate(zip(rows, residuals, strict=True)):
        learned.update("a", row, residual)
        exact = forgetting * exact + np.outer(row, row)
        ratio = learned.gram("a") / exact
        np.testing.assert_allclose(ratio, due[(number + 1) % step], rtol=1e-9)


@settings(deadline=None, max_examples=40)
@given(
    SEEDS,
    st.integers(0, 60),
    st.integers(0, 40),
    st.sampled_from([1, 5, 115]),
    FORGETTING,
)
def test_saving_in_the_middle_of_a_stream_changes_no_bit(seed, cut, rest, d, keep):
    rows, residuals, weights = stream(seed, cut + rest, d)
    options = {"l2": 2.0, "offline_share": 0.2, "forgetting": keep}
    learned = heads(d, **options)
    offline = rows[:9].T @ rows[:9]
    for name in NAMES[:2]:
        learned.start(name, offline)

    def learn(arms, indices):
        for index in indices:
            name = NAMES[index % 3]
            if index % 29 == 28:
                arms.start(name, offline)
            arms.update(name, rows[index], residuals[index], weights[index])

    learn(learned, range(cut))
    back = ResidualHeads.from_state(
        learned.state(), names=learned.names, dimension=d, **options
    )
    for arms in (learned, back):
        learn(arms, range(cut, cut + rest))
    assert back.bad == {}
    same_bits(back.state(), learned.state())
    probe = stream(seed + 1, 4, d)[0]
    for ask in ("correct", "widths"):
        np.testing.assert_array_equal(
            getattr(back, ask)(probe, NAMES), getattr(learned, ask)(probe, NAMES)
        )
    np.testing.assert_array_equal(
        back.novelty(probe, NAMES), learned.novelty(probe, NAMES)
    )


@settings(deadline=None, max_examples=40)
@given(
    SEEDS,
    FORGETTING,
    st.lists(st.sampled_from([1e7, 1e155, 1e200, 1e308]), min_size=1, max_size=5),
)
def test_refused_updates_are_counted_and_leave_no_trace(seed, forgetting, sizes):
    rows, residuals, _ = stream(seed, 40, 5)
    learned, spared = (heads(5, forgetting=forgetting) for _ in range(2))
    at = np.random.default_rng(seed).integers(0, 40, size=len(sizes)).tolist()
    for index, row in enumerate(rows):
        for size in (s for s, place in zip(sizes, at, strict=True) if place == index):
            assert learned.update("a", np.full(5, size), 0.5) is False
        for arms in (learned, spared):
            assert arms.update(NAMES[index % 2], row, residuals[index])
    assert learned.refused == len(sizes)
    same_bits(learned.state(), spared.state())


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(1, 60), st.data())
def test_whatever_is_damaged_in_one_arm_the_others_keep_every_bit(seed, n, data):
    rows, residuals, weights = stream(seed, n, 5)
    learned = heads(5, offline_share=0.5)
    for name in NAMES:  # each its own: nothing is shared
        learned.start(name, rows[:9].T @ rows[:9])
    for index in range(n):
        learned.update(NAMES[index % 3], rows[index], residuals[index], weights[index])
    state = {key: array.copy() for key, array in learned.state().items()}
    own = [f"gram/{int(state['base_of'][1])}"]
    own += [key for key in ("tail/1", "weights/1") if key in state]
    key = data.draw(st.sampled_from([*own, "moment", "share"]))
    worse = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    if key in own:
        state[key].reshape(-1)[data.draw(st.integers(0, state[key].size - 1))] = worse
    else:
        state[key][1] = worse
    back = ResidualHeads.from_state(state, names=NAMES, dimension=5, offline_share=0.5)
    assert list(back.bad) == ["b"]
    assert back.names == ("a", "c")
    probe = stream(seed + 1, 4, 5)[0]
    for ask in ("correct", "widths"):
        np.testing.assert_array_equal(
            getattr(back, ask)(probe, ("a", "c")),
            getattr(learned, ask)(probe, ("a", "c")),
        )


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(1, 80), DIMENSIONS, L2)
def test_what_an_arm_was_fitted_on_has_novelty_1_on_average(seed, n, d, l2):
    rows, _, _ = stream(seed, n, d)
    learned = DesignMatrices(d, l2=l2)
    learned.add("a")
    learned.accumulate(rows, np.ones((n, 1), dtype=bool), ["a"])
    assert learned.novelty(rows, ["a"]).mean() == pytest.approx(1.0, rel=1e-6)
    # Novelty is a ratio of squared lengths.
    np.testing.assert_allclose(
        learned.novelty(3 * rows, ["a"]), 9 * learned.novelty(rows, ["a"])
    )


def test_a_head_finds_its_offline_data_as_usual_as_they_are_whatever_their_share():
    rows, _, _ = stream(0, 30, 5)
    seen, learned = DesignMatrices(5), heads(5, offline_share=0.2)
    seen.add("a")
    seen.accumulate(rows, np.ones((30, 1), dtype=bool), ["a"])
    learned.start("a", seen.seen("a"))
    assert learned.novelty(rows, ["a"]).mean() == pytest.approx(1.0, rel=1e-12)


def test_a_matrix_in_which_rounding_has_eaten_the_ridge_is_refused():
    # [[1, 1/2], [1/2, 1/4]] less 2u at the end and with a ridge of 3u, u = 2^-54: the
    # factor's last pivot is u, as if the ridge were a third of what it is.
    gram = Gram(np.array([1.0, 0.5, 0.25 - 2 * 2.0**-54]))
    with pytest.raises(ConfigurationError, match="too large for an l2"):
        Base.of(gram, 2, l2=3 * 2.0**-54)
    assert Base.of(gram, 2, l2=2.0**-20).freedom < 2.0
