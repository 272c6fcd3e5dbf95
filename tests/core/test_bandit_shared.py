"""Arms that saw the same data are computed once; those that differ, by themselves."""

import numpy as np
import pytest

from mixllm_integrations.core.bandit import DesignMatrices, ResidualHeads
from mixllm_integrations.core.errors import UnknownCandidateError

NAMES = tuple(f"arm {i}" for i in range(6))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def seen_alike(rng, *, forgetting=1.0):
    matrices = DesignMatrices(4, l2=2.0, forgetting=forgetting)
    for name in NAMES:
        matrices.add(name)
    matrices.accumulate(rng.normal(size=(30, 4)), np.ones((30, 6), bool), NAMES)
    return matrices


def explicit(matrices, contexts):
    """sqrt(xᵀA⁻¹x), from the matrix itself."""
    found = np.empty((len(contexts), len(NAMES)))
    for column, name in enumerate(NAMES):
        inverse = np.linalg.inv(2.0 * np.eye(4) + matrices.gram(name))
        found[:, column] = np.sqrt(
            np.einsum("nd,de,ne->n", contexts, inverse, contexts)
        )
    return found


def groups_of(matrices):
    groups = matrices._grouped(NAMES).groups.values()
    return [(group.columns, list(group.tails)) for group in groups]


def test_arms_fitted_on_the_same_queries_are_one_group(rng):
    assert groups_of(seen_alike(rng)) == [([0, 1, 2, 3, 4, 5], [])]


def test_an_arm_that_learned_leaves_the_others_together(rng):
    matrices = seen_alike(rng)
    groups_of(matrices)
    for _ in range(15):
        matrices.observe(NAMES[2], rng.normal(size=4))
        # One product for all, and a tail for one.
        assert groups_of(matrices) == [([0, 1, 2, 3, 4, 5], [2])]
    matrices.observe(NAMES[2], rng.normal(size=4))
    assert groups_of(matrices) == [([0, 1, 3, 4, 5], []), ([2], [])]


def test_heads_fitted_on_the_same_queries_are_one_group(rng):
    seen = seen_alike(rng)
    learned = ResidualHeads(4, offline_share=0.1)
    for name in NAMES:
        learned.add(name)
        learned.start(name, seen.seen(name))
    assert groups_of(learned) == [([0, 1, 2, 3, 4, 5], [])]


def test_arms_that_have_seen_nothing_are_one_group_whatever_they_started_from(rng):
    seen = seen_alike(rng)
    learned = ResidualHeads(4)
    for name in NAMES:
        learned.add(name)
    for name in NAMES[:3]:
        learned.start(name, seen.seen(name))
    assert groups_of(learned) == [([0, 1, 2, 3, 4, 5], [])]


@pytest.mark.parametrize("forgetting", [1.0, 0.9])
def test_one_that_learned_is_swapped_in_as_if_all_were_derived_anew(rng, forgetting):
    matrices = seen_alike(rng, forgetting=forgetting)
    learned = ResidualHeads(4, forgetting=forgetting)
    for name in NAMES:
        learned.add(name)
    contexts = rng.normal(size=(3, 4))
    for step in range(150):  # past the longest tail: then a group is left
        name, row = NAMES[step % 2], rng.normal(size=4)
        matrices.widths(contexts, NAMES)
        learned.widths(contexts, NAMES)
        learned.correct(contexts, NAMES)
        assert matrices.observe(name, row)
        assert learned.update(name, row, float(rng.normal()))
        for ask in (matrices.widths, learned.widths, learned.correct):
            kept, anew = ask(contexts, NAMES), ask(contexts, list(NAMES))
            np.testing.assert_array_equal(kept, anew)


@pytest.mark.parametrize("forgetting", [1.0, 0.9])
def test_widths_are_those_of_each_matrix_before_and_after_learning(rng, forgetting):
    matrices = seen_alike(rng, forgetting=forgetting)
    contexts = rng.normal(size=(5, 4))
    for learner in (None, 2, 2, 5, 0, 2):
        if learner is not None:
            matrices.observe(NAMES[learner], rng.normal(size=4))
        widths = matrices.widths(contexts, NAMES)
        np.testing.assert_allclose(widths, explicit(matrices, contexts), atol=1e-12)


def test_what_was_found_for_some_names_is_not_taken_for_others(rng):
    matrices = seen_alike(rng)
    matrices.observe(NAMES[0], rng.normal(size=4))
    contexts = rng.normal(size=(1, 4))
    whole = matrices.widths(contexts, NAMES)[0]
    turned = matrices.widths(contexts, NAMES[::-1])[0]
    np.testing.assert_array_equal(turned[::-1], whole)
    names = list(NAMES)
    matrices.widths(contexts, names)
    names.reverse()  # the same object, other names
    np.testing.assert_array_equal(matrices.widths(contexts, names)[0], turned)


def test_an_arm_that_left_is_missed_at_once(rng):
    matrices, heads = seen_alike(rng), ResidualHeads(4)
    heads.add("a")
    names = ("a",)
    heads.correct(np.ones((1, 4)), names)
    heads.remove("a")
    with pytest.raises(UnknownCandidateError):
        heads.correct(np.ones((1, 4)), names)
    matrices.widths(np.ones((1, 4)), NAMES)
    matrices.remove(NAMES[3])
    with pytest.raises(UnknownCandidateError):
        matrices.widths(np.ones((1, 4)), NAMES)


def test_a_correction_has_the_same_bits_whoever_else_is_asked_for(rng):
    learned = ResidualHeads(37)
    for name in NAMES:
        learned.add(name)
        learned.update(name, rng.normal(size=37), 0.5)
    contexts = rng.normal(size=(9, 37))
    whole = learned.correct(contexts, NAMES)
    for column, name in enumerate(NAMES):
        alone = learned.correct(contexts, (name,))[:, 0]
        np.testing.assert_array_equal(alone, whole[:, column])
    for row, expected in zip(contexts, whole, strict=True):
        np.testing.assert_array_equal(learned.correct(row[None], NAMES)[0], expected)


def test_a_correction_is_seen_by_the_next_query():
    heads = ResidualHeads(1)
    names = ("a", "b")
    for name in names:
        heads.add(name)
    x = np.ones((1, 1))
    assert heads.correct(x, names).tolist() == [[0.0, 0.0]]
    heads.update("b", x[0], 1.0)  # 1·1 / (1 + 1)
    assert heads.correct(x, names).tolist() == [[0.0, pytest.approx(0.5)]]


def test_a_head_whose_moment_is_back_at_0_corrects_nothing():
    heads, names, x = ResidualHeads(1), ("a", "b"), np.ones((1, 1))
    for name in names:
        heads.add(name)
        heads.update(name, x[0], 0.5)
    heads.correct(x, names)
    heads.update("b", x[0], -0.5)
    assert heads.correct(x, names).tolist() == [[pytest.approx(0.25), 0.0]]
