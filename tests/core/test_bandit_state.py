"""Arms come, go, merge and are saved: whatever happens to one, the others keep."""

import numpy as np
import pytest

from mixllm_integrations.core.bandit import DesignMatrices, ResidualHeads
from mixllm_integrations.core.context import ContextModel
from mixllm_integrations.core.errors import (
    ConfigurationError,
    StateFormatError,
    UnknownCandidateError,
)

D = 5


def contexts(n, seed=0, d=D):
    return np.random.default_rng(seed).normal(size=(n, d)) / np.sqrt(d)


def matrices(*names, d=D, **settings):
    made = DesignMatrices(d, **settings)
    for name in names:
        made.add(name)
    return made


def heads(*names, d=D, **settings):
    made = ResidualHeads(d, **settings)
    for name in names:
        made.add(name)
    return made


def everyone(n, k=1):
    return np.ones((n, k), dtype=bool)


def same_state(left, right):
    assert left.keys() == right.keys()
    for key in left:
        np.testing.assert_array_equal(left[key], right[key])


# --- arms that come and go -----------------------------------------------------


@pytest.mark.parametrize("make", [matrices, heads])
def test_adding_then_removing_an_arm_leaves_the_others_bit_for_bit(make):
    arms = make("a", "b")
    learn = arms.observe if make is matrices else lambda n, x: arms.update(n, x, 0.3)
    for row in contexts(80):
        learn("a", row)
    before = arms.state()
    arms.add("visitor")
    learn("visitor", np.ones(D))
    arms.remove("visitor")
    after = arms.state()
    assert arms.names == ("a", "b")
    for key, values in before.items():
        held = after[key][: len(values)] if key != "arm_of" else after[key][:2]
        np.testing.assert_array_equal(held, values)


def test_a_removed_arm_comes_back_with_what_it_had_learned():
    learned = matrices("a", "b")
    learned.observe("a", np.ones(D))
    before = learned.widths(np.ones((1, D)), ["a"])
    learned.remove("a")
    assert (learned.names, learned.kept) == (("b",), ("a",))
    with pytest.raises(UnknownCandidateError, match="'a'"):
        learned.widths(np.ones((1, D)), ["a"])
    learned.add("a")
    assert (learned.names, learned.kept) == (("b", "a"), ())
    np.testing.assert_array_equal(learned.widths(np.ones((1, D)), ["a"]), before)


def test_a_removed_head_comes_back_with_its_solution():
    learned = heads("a")
    learned.update("a", np.ones(D), 0.7)
    before = learned.correct(np.ones((1, D)), ["a"])
    learned.remove("a")
    with pytest.raises(UnknownCandidateError, match="'a'"):
        learned.correct(np.ones((1, D)), ["a"])
    learned.add("a")
    np.testing.assert_array_equal(learned.correct(np.ones((1, D)), ["a"]), before)


def test_two_arms_of_one_name_are_refused():
    with pytest.raises(ConfigurationError, match="'a'"):
        matrices("a", "a")


@pytest.mark.parametrize("make", [matrices, heads])
def test_a_renamed_arm_keeps_its_place_and_every_bit(make):
    arms, names = make("a", "b", "c"), ("a", "b", "c")
    learn = arms.observe if make is matrices else lambda n, x: arms.update(n, x, 0.3)
    for index, row in enumerate(contexts(60)):
        learn(names[index % 3], row)
    probe = contexts(4, seed=1)
    ask = arms.widths if make is matrices else arms.correct
    before, state = ask(probe, names), arms.state()
    arms.rename("b", "d")
    assert arms.names == ("a", "d", "c")
    np.testing.assert_array_equal(ask(probe, ("a", "d", "c")), before)
    same_state(arms.state(), state)
    with pytest.raises(UnknownCandidateError, match="'b'"):
        ask(probe, names)
    assert learn("d", np.ones(D))
    arms.add("b")  # the old name is free again, and knows nothing
    assert not arms.gram("b").any()


def test_a_removed_arm_can_be_renamed_too():
    learned = matrices("a", "b")
    learned.observe("a", np.ones(D))
    learned.remove("a")
    learned.rename("a", "c")
    assert (learned.names, learned.kept) == (("b",), ("c",))
    learned.add("c")
    np.testing.assert_array_equal(learned.gram("c"), np.ones((D, D)))


def test_a_name_that_is_taken_or_unknown_renames_nothing():
    learned = matrices("a", "b", "gone")
    learned.remove("gone")
    for taken in ("b", "gone", "a"):
        with pytest.raises(ConfigurationError, match=taken):
            learned.rename("a", taken)
    with pytest.raises(UnknownCandidateError, match="'who'"):
        learned.rename("who", "new")
    assert (learned.names, learned.kept) == (("a", "b"), ("gone",))


# --- merging -------------------------------------------------------------------


def test_merging_keeps_arms_that_only_one_side_has():
    left, right = matrices("a", "gone"), matrices("b", "gone")
    left.observe("gone", np.ones(D))
    left.remove("gone")
    right.observe("b", np.ones(D))
    right.observe("gone", np.ones(D))
    left.merge(right)
    assert (left.names, left.kept) == (("a", "b"), ("gone",))
    np.testing.assert_array_equal(left.gram("b"), np.ones((D, D)))
    left.add("gone")
    np.testing.assert_array_equal(left.gram("gone"), 2 * np.ones((D, D)))


def test_merging_what_forgets_or_does_not_fit_is_refused():
    for other in (matrices("a", l2=2.0), matrices("a", d=D + 1)):
        with pytest.raises(ConfigurationError, match="merged"):
            matrices("a").merge(other)
    forgetful = matrices("a", forgetting=0.9)
    with pytest.raises(ConfigurationError, match="forgetting"):
        forgetful.merge(matrices("a", forgetting=0.9))


# --- state ---------------------------------------------------------------------


@pytest.mark.parametrize("forgetting", [1.0, 0.9])
@pytest.mark.parametrize("updates", [0, 1, 30, 48, 49, 130])
def test_a_restart_changes_no_bit_of_what_is_predicted(forgetting, updates):
    options = {"l2": 2.0, "offline_share": 0.2, "forgetting": forgetting}
    learned = heads("a", "b", "gone", **options)
    for name in learned.names:
        learned.start(name, contexts(40).T @ contexts(40))
    for index, row in enumerate(contexts(updates, seed=1)):
        learned.update(learned.names[index % 3], row, 0.1 * index)
    learned.remove("gone")
    back = ResidualHeads.from_state(
        learned.state(), names=learned.names, kept=learned.kept, dimension=D, **options
    )
    assert (back.bad, back.names, back.kept) == ({}, ("a", "b"), ("gone",))
    for again in (learned, back):
        again.update("a", np.ones(D), 0.3)
        again.add("gone")
        again.update("b", np.ones(D), 0.3)
    probe, names = contexts(5, seed=2), ["a", "b", "gone"]
    np.testing.assert_array_equal(
        back.correct(probe, names), learned.correct(probe, names)
    )
    np.testing.assert_array_equal(
        back.widths(probe, names), learned.widths(probe, names)
    )
    same_state(back.state(), learned.state())


def saved():
    learned = matrices("a", "b", "c")
    learned.accumulate(contexts(40), np.tile([True, True, False], (40, 1)), list("abc"))
    learned.observe("b", np.ones(D))
    learned.observe("c", np.ones(D))
    return {key: values.copy() for key, values in learned.state().items()}


def loaded(state, names="abc"):
    return DesignMatrices.from_state(state, names=list(names), dimension=D)


def test_arms_share_their_matrix_after_a_restart_too():
    state = saved()
    assert [k for k in state if k.startswith("gram/")] == ["gram/0"]
    back = loaded(state)
    assert back._arms["a"].base is back._arms["b"].base


@pytest.mark.parametrize(
    ("key", "damage", "bad"),
    [
        ("gram/0", lambda g: g[:-1], {"a", "b"}),
        ("gram/0", lambda g: g * np.nan, {"a", "b"}),
        ("gram/0", lambda g: g * np.inf, {"a", "b"}),
        ("gram/0", lambda g: np.tile(g, 2), {"a", "b"}),
        ("gram/0", lambda g: -g, {"a", "b"}),
        ("gram/0", None, {"a", "b"}),
        ("tail/1", lambda t: t[:, 1:], {"b"}),
        ("tail/2", lambda t: t * np.inf, {"c"}),
        ("weights/1", lambda w: -w, {"b"}),
        ("weights/2", lambda w: 0 * w, {"c"}),
        ("weights/1", None, {"b"}),
        ("share", lambda s: s * [1, np.nan, 1], {"b"}),
        ("share", lambda s: s * [2, 1, 1], {"a"}),
        ("moment", lambda m: m + [[0.0]] * 2 + [[np.inf]], {"c"}),
        ("moment", lambda m: m[:, 1:], {"a", "b", "c"}),
        ("count", lambda c: c * np.nan, {"a", "b"}),
        ("count", lambda c: -c, {"a", "b"}),
        ("count", lambda c: c[:0], {"a", "b"}),
        ("base_of", lambda s: s[:2], {"c"}),
        ("base_of", lambda s: s + 7, {"a", "b", "c"}),
        ("base_of", lambda s: s - 7, {"a", "b", "c"}),
    ],
)
def test_a_damaged_arm_is_named_and_the_others_are_read(key, damage, bad):
    state = saved()
    if key == "moment" and bad == {"c"}:
        state[key][2, 0] = np.inf
    elif damage is None:
        del state[key]
    else:
        state[key] = damage(state[key])
    back = loaded(state)
    assert set(back.bad) == bad
    assert all(back.bad.values())
    assert set(back.names) == set("abc") - bad
    assert np.isfinite(back.widths(contexts(2), back.names)).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: s.pop("arm_of"),
        lambda s: s.pop("base_of"),
        lambda s: s.update(base_of=s["base_of"] * 1.5),
        lambda s: s.update(arm_of=s["arm_of"][:2]),
        lambda s: s.update(arm_of=s["arm_of"] - 1),
        lambda s: s.update(arm_of=s["arm_of"] + 0.5),
    ],
)
def test_a_state_that_does_not_say_whose_it_is_is_an_error(damage):
    state = saved()
    damage(state)
    with pytest.raises(StateFormatError):
        loaded(state)


def test_no_arms_at_all_can_be_saved_and_read():
    back = loaded(matrices().state(), names="")
    assert back.names == ()
    assert back.widths(contexts(2), []).shape == (2, 0)


def test_the_state_of_20_candidates_with_data_of_their_own_is_under_20_megabytes():
    dimension = ContextModel.unfitted(256).dimension
    rows = contexts(47, d=dimension)
    seen, learned = matrices(d=dimension), heads(d=dimension, offline_share=0.02)
    for name in map(str, range(20)):
        seen.add(name)
        learned.add(name)
        seen.accumulate(rows[:30], everyone(30), [name])
        learned.start(name, seen.seen(name))
        for row in rows[16:]:  # two rounds but one: the longest tail
            seen.observe(name, row)
            learned.update(name, row, 0.1)
    arrays = [*seen.state().values(), *learned.state().values()]
    assert 10e6 < sum(array.nbytes for array in arrays) < 20e6


def test_a_stream_without_end_does_not_grow_the_state():
    learned = heads("a", "b", forgetting=0.99)
    sizes = []
    for index, row in enumerate(np.tile(contexts(100), (10, 1))):
        learned.update("ab"[index % 2], row, 0.1)
        if index % 100 == 99:
            sizes.append(sum(array.nbytes for array in learned.state().values()))
    assert len(set(sizes[1::2])) == len(set(sizes[::2])) == 1
