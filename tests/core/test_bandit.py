import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.bandit import DesignMatrices, ResidualHeads
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


def everyone(n, k):
    return np.ones((n, k), dtype=bool)


def direct_width(matrix, x):
    return float(np.sqrt(x @ np.linalg.solve(matrix, x)))


# --- uncertainty ---------------------------------------------------------------


def test_an_unseen_arm_has_the_width_of_its_ridge():
    # A = 4·I, so A⁻¹ = I/4, and xᵀA⁻¹x = 1/4 at x = (1, 0): the width is 1/2.
    width = matrices("new", d=2, l2=4.0).widths(np.array([[1.0, 0.0]]), ["new"])
    assert width.tolist() == [[0.5]]


def test_widths_of_a_small_matrix_are_those_worked_out_by_hand():
    # l2 = 1 and x = (1, 0) seen three times: A = diag(4, 1), widths 1/2 and 1.
    seen = matrices("a", d=2)
    for _ in range(3):
        assert seen.observe("a", np.array([1.0, 0.0])) is True
    np.testing.assert_allclose(
        seen.widths(np.eye(2), ["a"]), [[0.5], [1.0]], rtol=1e-14
    )


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    offline=st.integers(0, 30),
    online=st.integers(0, 150),  # past the longest tail, twice
    l2=st.floats(0.01, 50.0),
    forgetting=st.sampled_from([1.0, 0.97, 0.5]),
)
def test_online_updates_equal_the_batch_solve(seed, offline, online, l2, forgetting):
    rows = contexts(offline + online, seed)
    learned = matrices("a", l2=l2, forgetting=forgetting)
    learned.accumulate(rows[:offline], everyone(offline, 1), ["a"])
    data = rows[:offline].T @ rows[:offline]
    for row in rows[offline:]:
        assert learned.observe("a", row)
        data = forgetting * data + np.outer(row, row)
    np.testing.assert_allclose(learned.gram("a"), data, rtol=1e-9, atol=1e-12)
    probe = contexts(3, seed + 1)
    expected = [[direct_width(l2 * np.eye(D) + data, x)] for x in probe]
    np.testing.assert_allclose(learned.widths(probe, ["a"]), expected, rtol=1e-8)


def test_the_ridge_never_decays():
    # Seen once in direction 0, then a thousand times in direction 1 with
    # forgetting 1/2: direction 0 is forgotten, A_00 = l2 = 4 again: width 1/2.
    # Direction 1 holds 1 + 1/2 + 1/4 + ... = 2 on top of l2: width 1/sqrt(6).
    learned = matrices("a", d=2, l2=4.0, forgetting=0.5)
    learned.observe("a", np.array([1.0, 0.0]))
    for _ in range(1_000):
        learned.observe("a", np.array([0.0, 1.0]))
    np.testing.assert_allclose(
        learned.widths(np.eye(2), ["a"]), [[0.5], [1 / np.sqrt(6)]], rtol=1e-12
    )
    assert learned.refused == 0


def test_an_arm_forgets_on_its_own_updates_only():
    learned = matrices("a", "b", forgetting=0.5)
    learned.observe("a", np.ones(D))
    before = learned.gram("a")
    for _ in range(10):
        learned.observe("b", np.ones(D))
    np.testing.assert_array_equal(learned.gram("a"), before)


def test_seeing_a_context_never_widens_any_direction():
    rows, probe = contexts(100), contexts(20, seed=1)
    learned = matrices("a")
    last = learned.widths(probe, ["a"])
    for row in rows:
        learned.observe("a", row)
        now = learned.widths(probe, ["a"])
        assert (now <= last + 1e-12).all()
        last = now


def test_full_labels_leave_all_arms_with_one_matrix_and_equal_widths():
    learned = matrices("a", "b", "c")
    learned.accumulate(contexts(40), everyone(40, 3), ["a", "b", "c"])
    assert learned.spectrum("a") is learned.spectrum("b") is learned.spectrum("c")
    widths = learned.widths(contexts(6, seed=1), ["a", "b", "c"])
    assert (widths == widths[:, :1]).all()
    assert len([k for k in learned.state() if k.startswith("gram/")]) == 1


def test_partial_labels_count_only_for_the_arm_that_was_labelled():
    rows = contexts(40)
    labelled = np.zeros((40, 3), dtype=bool)
    labelled[:25, 0] = labelled[10:, 1] = True
    learned = matrices("a", "b", "c")
    learned.accumulate(rows, labelled, ["a", "b", "c"])
    np.testing.assert_allclose(learned.gram("a"), rows[:25].T @ rows[:25], atol=1e-12)
    np.testing.assert_allclose(learned.gram("b"), rows[10:].T @ rows[10:], atol=1e-12)
    assert not learned.gram("c").any()


def test_two_rounds_of_offline_data_add_up_to_one():
    rows = contexts(50)
    once, twice = matrices("a"), matrices("a")
    once.accumulate(rows, everyone(50, 1), ["a"])
    twice.accumulate(rows[:20], everyone(20, 1), ["a"])
    twice.accumulate(rows[20:], everyone(30, 1), ["a"])
    np.testing.assert_allclose(twice.gram("a"), once.gram("a"), atol=1e-12)


def test_an_update_of_one_arm_leaves_those_that_shared_its_matrix_alone():
    learned = matrices("a", "b")
    learned.accumulate(contexts(40), everyone(40, 2), ["a", "b"])
    probe = contexts(4, seed=1)
    before = learned.widths(probe, ["b"])
    learned.observe("a", contexts(1, seed=2)[0])
    np.testing.assert_array_equal(learned.widths(probe, ["b"]), before)
    assert (learned.widths(probe, ["a"]) < before).all()


def test_widths_come_in_the_order_of_the_names_asked_for():
    learned = matrices("a", "b")
    learned.observe("a", np.ones(D))
    probe = np.ones((1, D))
    ab, ba = learned.widths(probe, ["a", "b"]), learned.widths(probe, ["b", "a"])
    np.testing.assert_array_equal(ab, ba[:, ::-1])
    assert ab[0, 0] < ab[0, 1]


def test_one_query_and_a_batch_have_the_same_widths():
    learned = matrices("a", "b")
    learned.accumulate(contexts(40), everyone(40, 2), ["a", "b"])
    learned.observe("b", np.ones(D))
    probe = contexts(7, seed=3)
    singles = np.vstack([learned.widths(x[None], ["a", "b"]) for x in probe])
    np.testing.assert_allclose(learned.widths(probe, ["a", "b"]), singles, rtol=1e-12)


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


# --- residuals -----------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 150),
    l2=st.floats(0.05, 20.0),
    forgetting=st.sampled_from([1.0, 0.95]),
    share=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_recursive_least_squares_equals_the_ridge_solution(
    seed, n, l2, forgetting, share
):
    rng = np.random.default_rng(seed)
    rows, offline = contexts(n, seed), contexts(40, seed + 1)
    residuals, weights = rng.normal(size=n), rng.uniform(0.1, 3.0, size=n)
    learned = heads("a", l2=l2, offline_share=share, forgetting=forgetting)
    learned.start("a", offline.T @ offline)
    data, moment = share * (offline.T @ offline), np.zeros(D)
    for x, r, w in zip(rows, residuals, weights, strict=True):
        assert learned.update("a", x, r, w)
        data = forgetting * data + w * np.outer(x, x)
        moment = forgetting * moment + w * r * x
    theta = np.linalg.solve(l2 * np.eye(D) + data, moment)
    probe = contexts(4, seed + 2)
    np.testing.assert_allclose(
        learned.correct(probe, ["a"])[:, 0], probe @ theta, rtol=1e-7, atol=1e-10
    )


def test_one_residual_moves_the_head_as_worked_out_by_hand():
    # l2 = 1, x = (1, 1), residual 0.6: R = I + xxᵀ, R⁻¹x = x/3, so the
    # correction at x is xᵀx · 0.6/3 = 0.4.
    learned = heads("a", "b", d=2)
    learned.update("a", np.array([1.0, 1.0]), 0.6)
    corrected = learned.correct(np.array([[1.0, 1.0]]), ["a", "b"])
    np.testing.assert_allclose(corrected, [[0.4, 0.0]], rtol=1e-14)


def test_offline_mass_slows_a_head_down():
    rows = contexts(500)
    fast, slow = heads("a"), heads("a", offline_share=0.5)
    for learned in (fast, slow):
        learned.start("a", rows.T @ rows)
        learned.update("a", rows[0], 1.0)
    at = rows[:1]
    assert 0 < slow.correct(at, ["a"])[0, 0] < 0.2 * fast.correct(at, ["a"])[0, 0]


def test_starting_from_a_shared_spectrum_equals_starting_from_its_matrix():
    seen = matrices("a")
    seen.accumulate(contexts(40), everyone(40, 1), ["a"])
    seen.observe("a", np.ones(D))
    shared, copied = heads("a", offline_share=0.3), heads("a", offline_share=0.3)
    shared.start("a", seen.spectrum("a"))
    copied.start("a", seen.gram("a"))
    for learned in (shared, copied):
        learned.update("a", np.ones(D), 0.5)
    np.testing.assert_array_equal(shared.gram("a"), copied.gram("a"))


def test_a_head_may_start_from_no_offline_data():
    learned = heads("a", "b", offline_share=0.5)
    learned.start("a", None)
    learned.start("b", np.zeros((D, D)))
    assert not learned.gram("a").any()
    assert not learned.gram("b").any()


def test_starting_a_head_anew_forgets_what_it_had_learned():
    for share in (0.0, 0.1):
        learned = heads("a", offline_share=share)
        learned.update("a", np.ones(D), 0.5)
        learned.start("a", np.eye(D))
        assert not learned.correct(np.ones((1, D)), ["a"]).any()
        np.testing.assert_allclose(learned.gram("a"), share * np.eye(D))


def test_a_head_learns_a_constant_bias():
    rng = np.random.default_rng(0)
    learned = heads("a", d=3)
    for _ in range(2_000):
        x = np.append(rng.normal(size=2), 1.0)
        learned.update("a", x, 0.2 + 0.05 * rng.normal())
    assert learned.correct(np.array([[0.0, 0.0, 1.0]]), ["a"])[0, 0] == pytest.approx(
        0.2, abs=0.01
    )


def test_with_forgetting_a_head_follows_a_world_that_changed():
    rng = np.random.default_rng(0)
    still, moving = heads("a", d=3), heads("a", d=3, forgetting=0.97)
    for step in range(1_000):
        x = np.append(rng.normal(size=2), 1.0)
        for learned in (still, moving):
            learned.update("a", x, 0.4 if step < 800 else -0.4)
    at = np.array([[0.0, 0.0, 1.0]])
    assert moving.correct(at, ["a"])[0, 0] == pytest.approx(-0.4, abs=0.03)
    assert still.correct(at, ["a"])[0, 0] > 0.1


# --- refusals ------------------------------------------------------------------


def same_state(left, right):
    assert left.keys() == right.keys()
    for key in left:
        np.testing.assert_array_equal(left[key], right[key])


@pytest.mark.parametrize("forgetting", [1.0, 0.9])
def test_what_is_not_finite_is_refused_and_changes_nothing(forgetting):
    learned = heads("a", forgetting=forgetting)
    learned.update("a", np.ones(D), 0.5)
    before = learned.state()
    with pytest.raises(ConfigurationError, match="finite"):
        learned.update("a", np.array([1, 1, 1, 1, np.nan]), 0.5)
    with pytest.raises(ConfigurationError, match="finite"):
        learned.update("a", np.array([1, 1, 1, 1, np.inf]), 0.5)
    with pytest.raises(ConfigurationError, match="residual"):
        learned.update("a", np.ones(D), np.nan)
    for weight in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ConfigurationError, match="weight"):
            learned.update("a", np.ones(D), 0.5, weight)
    same_state(learned.state(), before)


@pytest.mark.parametrize("forgetting", [1.0, 0.9])
def test_an_update_that_would_overflow_is_refused_and_counted(forgetting):
    learned = matrices("a", forgetting=forgetting)
    learned.observe("a", np.ones(D))
    before = learned.state()
    assert learned.observe("a", np.full(D, 1e200)) is False
    assert learned.refused == 1
    same_state(learned.state(), before)
    assert learned.observe("a", np.ones(D)) is True


@pytest.mark.parametrize("size", [1e153, 4.4e153])
def test_sums_that_overflow_only_once_they_are_merged_are_refused_too(size):
    # Each context's square is finite (5e306, 9.7e307). Of the sum of 64 the largest
    # eigenvalue is not (3.2e308), and with the larger size no entry (1.2e309).
    learned = matrices("a")
    taken = [learned.observe("a", np.full(D, size)) for _ in range(66)]
    assert taken == [True] * 64 + [False] * 2
    assert learned.refused == 2
    assert np.isfinite(learned.widths(np.ones((1, D)), ["a"])).all()


def test_a_residual_that_overflows_the_moment_is_refused_and_counted():
    learned = heads("a")
    assert learned.update("a", np.full(D, 1e10), 1e305) is False
    assert learned.refused == 1
    assert not learned.correct(np.ones((1, D)), ["a"]).any()


@pytest.mark.parametrize("shape", [(D + 1,), (D - 1,), (2, D), ()])
def test_a_context_of_another_shape_is_refused(shape):
    with pytest.raises(ConfigurationError, match="5 numbers"):
        matrices("a").observe("a", np.ones(shape))


def test_offline_data_that_do_not_fit_change_nothing():
    learned = matrices("a", "b")
    for rows, mask, names, error in (
        (np.ones((3, D + 1)), everyone(3, 2), ["a", "b"], ConfigurationError),
        (np.full((3, D), np.nan), everyone(3, 2), ["a", "b"], ConfigurationError),
        (np.ones((3, D)), everyone(3, 1), ["a", "b"], ConfigurationError),
        (np.ones((3, D)), everyone(3, 2), ["a", "who"], UnknownCandidateError),
    ):
        with pytest.raises(error):
            learned.accumulate(rows, mask, names)
    assert not learned.gram("a").any()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"d": 0}, "dimension"),
        ({"l2": 0.0}, "l2"),
        ({"l2": np.inf}, "l2"),
        ({"forgetting": 0.0}, "forgetting"),
        ({"forgetting": 1.1}, "forgetting"),
    ],
)
@pytest.mark.parametrize("make", [matrices, heads])
def test_settings_that_cannot_be_used_are_named(make, changes, named):
    with pytest.raises(ConfigurationError, match=named):
        make("a", **changes)


@pytest.mark.parametrize(
    ("gram", "says"),
    [
        (np.eye(D + 1), "shape"),
        (np.full((D, D), np.nan), "finite"),
        (np.eye(D) + np.eye(D, k=1), "symmetric"),
        (-np.eye(D), "positive definite"),
    ],
)
def test_a_head_starts_from_a_gram_matrix_only(gram, says):
    with pytest.raises(ConfigurationError, match=says):
        heads("a", offline_share=0.5).start("a", gram)


# --- merging -------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1_000), cut=st.integers(0, 90))
def test_merging_two_workers_equals_one_that_saw_everything(seed, cut):
    rows = contexts(90, seed)
    residuals = np.random.default_rng(seed).normal(size=90)
    left, right, whole = heads("a", "b"), heads("b", "a"), heads("a", "b")
    for index, (x, r) in enumerate(zip(rows, residuals, strict=True)):
        name = "ab"[index % 2]
        (left if index < cut else right).update(name, x, r)
        whole.update(name, x, r)
    left.merge(right)
    probe = contexts(3, seed + 1)
    np.testing.assert_allclose(left.gram("a"), whole.gram("a"), atol=1e-10)
    np.testing.assert_allclose(
        left.correct(probe, ["a", "b"]), whole.correct(probe, ["a", "b"]), atol=1e-9
    )


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
@pytest.mark.parametrize("updates", [0, 1, 30, 64, 65, 130])
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
    probe, names = contexts(5, seed=2), ["a", "b", "gone"]
    np.testing.assert_array_equal(
        back.correct(probe, names), learned.correct(probe, names)
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
    assert back.spectrum("a") is back._arms["b"].spectrum


@pytest.mark.parametrize(
    ("key", "damage", "bad"),
    [
        ("gram/0", lambda g: g[:-1], {"a", "b"}),
        ("gram/0", lambda g: g * np.nan, {"a", "b"}),
        ("gram/0", lambda g: g + np.eye(D, k=1), {"a", "b"}),
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
        ("spectrum_of", lambda s: s[:2], {"c"}),
        ("spectrum_of", lambda s: s + 7, {"a", "b", "c"}),
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
        lambda s: s.pop("spectrum_of"),
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
