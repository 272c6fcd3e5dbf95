import numpy as np
import pytest

from mixllm_integrations.core.bandit import DesignMatrices, ResidualHeads
from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError

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


def same_state(left, right):
    assert left.keys() == right.keys()
    for key in left:
        np.testing.assert_array_equal(left[key], right[key])


def everyone(n, k):
    return np.ones((n, k), dtype=bool)


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
    assert learned.seen("a") is learned.seen("b") is learned.seen("c")
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
    ab, ba = (learned.widths(np.ones((1, D)), names) for names in ("ab", "ba"))
    np.testing.assert_array_equal(ab, ba[:, ::-1])
    assert ab[0, 0] < ab[0, 1]


def test_one_query_and_a_batch_have_the_same_widths():
    learned = matrices("a", "b")
    learned.accumulate(contexts(40), everyone(40, 2), ["a", "b"])
    learned.observe("b", np.ones(D))
    probe = contexts(7, seed=3)
    singles = np.vstack([learned.widths(x[None], ["a", "b"]) for x in probe])
    np.testing.assert_allclose(learned.widths(probe, ["a", "b"]), singles, rtol=1e-12)


# --- novelty -------------------------------------------------------------------


def test_novelty_is_the_leverage_over_that_of_the_usual_context():
    # l2 = 1 and (1, 0) seen three times: A = diag(4, 1), A - I = diag(3, 0), so the
    # usual leverage is (3/4) / 3 = 1/4. (1, 0) has 1/4, (0, 1) has 1, (2, 0) has 1.
    seen = matrices("a", d=2)
    seen.accumulate(np.array([[1.0, 0.0]] * 3), everyone(3, 1), ["a"])
    probe = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    np.testing.assert_allclose(seen.novelty(probe, ["a"]), [1.0, 4.0, 4.0])
    widths = seen.widths(probe, ["a"])
    np.testing.assert_allclose(seen.novelty_from(widths, ["a"]), [1.0, 4.0, 4.0])


def test_novelty_of_a_few_online_contexts_is_that_of_the_same_ones_offline():
    # Three times (1, 0), as above, but not yet in a base.
    seen = matrices("a", d=2)
    for _ in range(3):
        seen.observe("a", np.array([1.0, 0.0]))
    np.testing.assert_allclose(seen.novelty(np.eye(2), ["a"]), [1.0, 4.0])


@pytest.mark.parametrize("forgetting", [1.0, 0.99])
def test_what_an_arm_has_seen_is_on_average_not_new(forgetting):
    rows = contexts(400)
    learned = matrices("offline", "online", forgetting=forgetting)
    learned.accumulate(rows, everyone(400, 1), ["offline"])
    assert learned.novelty(rows, ["offline"]).mean() == pytest.approx(1.0, rel=1e-12)
    for row in rows:
        learned.observe("online", row)
    assert learned.novelty(rows, ["online"]).mean() == pytest.approx(1.0, abs=0.1)


def test_novelty_is_judged_by_the_arm_that_knows_most():
    # "a" has seen (1, 0) three times, "b" (0, 1) once: its A = diag(1, 2), and its
    # usual leverage is 1/2, just that of (0, 1). To "a" that would be 4.
    seen = matrices("new", "a", "b", d=2)
    seen.accumulate(np.array([[1.0, 0.0]] * 3), everyone(3, 1), ["a"])
    seen.observe("b", np.array([0.0, 1.0]))
    np.testing.assert_allclose(seen.novelty(np.eye(2), ["new", "a", "b"]), [1.0, 1.0])
    np.testing.assert_allclose(seen.novelty(np.eye(2), ("new", "a")), [1.0, 4.0])


def test_where_nobody_has_seen_anything_novelty_is_unknown():
    seen = matrices("a", "b")
    assert np.isnan(seen.novelty(contexts(3), ["a", "b"])).tolist() == [True] * 3
    assert np.isnan(seen.novelty(contexts(1), [])).tolist() == [True]
    seen.observe("a", np.zeros(D))
    assert np.isnan(seen.novelty(contexts(3), ["a", "b"])).all()


# --- residuals -----------------------------------------------------------------


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


def test_starting_from_what_an_arm_has_seen_equals_starting_from_its_matrix():
    seen = matrices("a")
    seen.accumulate(contexts(40), everyone(40, 1), ["a"])
    seen.observe("a", np.ones(D))
    shared, copied = heads("a", offline_share=0.3), heads("a", offline_share=0.3)
    shared.start("a", seen.seen("a"))
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


def test_the_widths_of_a_head_are_those_of_its_own_matrix():
    # l2 = 10, of the offline diag(4, 0) half, and one weight of 4 on (0, 1):
    # R = diag(10 + 2, 10 + 4), so the widths are 1/sqrt(12) and 1/sqrt(14).
    learned = heads("a", "b", d=2, l2=10.0, offline_share=0.5)
    learned.start("a", np.diag([4.0, 0.0]))
    learned.update("a", np.array([0.0, 1.0]), 0.5, weight=4.0)
    found = learned.widths(np.eye(2), ["a", "b"])
    expected = 1 / np.sqrt([[12.0, 10.0], [14.0, 10.0]])
    np.testing.assert_allclose(found, expected, rtol=1e-14)


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


def test_sums_that_overflow_only_once_they_are_merged_are_refused_too():
    # Each context's square is 8e307, and at so large a ridge allowed; the sum of 16,
    # of which the last comes with a new base, is 1.3e309.
    learned = matrices("a", l2=1e297)
    taken = [learned.observe("a", np.full(D, 4e153)) for _ in range(18)]
    assert taken == [True] * 15 + [False] * 3
    assert learned.refused == 3
    assert np.isfinite(learned.widths(np.ones((1, D)), ["a"])).all()


def test_a_context_in_which_rounding_would_drown_the_ridge_is_refused():
    # 5 · 1e12 is more than 1e12 times the ridge: beside it 1 has four digits left.
    learned = matrices("a")
    assert learned.observe("a", np.full(D, 1e6)) is False
    assert learned.observe("a", np.full(D, 1e5)) is True
    assert learned.refused == 1


def test_an_update_that_is_indefinite_in_rounding_is_refused_and_the_arm_still_works():
    # Each context weighs 1e12 ridges: after some thousands of them 1 ridge is less
    # than the last digit of a double.
    learned = matrices("a", "b", d=2)
    row = np.array([0.6, 0.8])
    while learned.observe("a", row, weight=1e12):
        pass
    assert 1e15 < np.trace(learned.gram("a")) < 1e17
    before = learned.widths(np.eye(2), ["a"])
    assert learned.observe("a", row, weight=1e12) is False
    np.testing.assert_array_equal(learned.widths(np.eye(2), ["a"]), before)
    assert learned.refused == 2
    assert learned.observe("b", row) is True


def test_a_residual_that_overflows_the_moment_is_refused_and_counted():
    learned = heads("a")
    assert learned.update("a", np.full(D, 1e10), 1e305) is False
    assert learned.refused == 1
    assert not learned.correct(np.ones((1, D)), ["a"]).any()


@pytest.mark.parametrize("shape", [(D + 1,), (2, D), ()])
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
