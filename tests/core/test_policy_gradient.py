import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.errors import (
    ConfigurationError,
    StateFormatError,
    UnknownCandidateError,
)
from mixllm_integrations.core.policy_gradient import FeedbackHead

D = 6
NAMES = ("a", "b", "c")


def contexts(n, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, D)) / np.sqrt(D)
    rows[:, -1] = 1.0
    return rows


def head(*names, **given):
    made = FeedbackHead(D, **{"hidden": (8, 5), **given})
    for name in names:
        made.add(name)
    return made


def taught(n=200, names=NAMES, **given):
    """Return a head that was told n times: "a" satisfies most, the last one least."""
    made, rng = (
        head(*names, **{"learning_rate": 0.05, **given}),
        np.random.default_rng(3),
    )
    good = dict(zip(names, (0.9, 0.5, 0.1), strict=False))
    for row, name in zip(contexts(n, 1), rng.choice(names, size=n), strict=True):
        made.learn(name, row, float(rng.random() < good[name]), among=names)
    return made


def scores(made, names, n=4):
    return made.scores(contexts(n, seed=9), names)


# --- what it says ------------------------------------------------------------------


def test_nothing_changes_before_feedback():
    assert (scores(head(*NAMES), NAMES) == np.zeros((4, 3))).all()


def test_who_has_no_feedback_of_its_own_stays_at_0():
    # Its row moves when others are praised, but its confidence is 0.
    made = head(*NAMES)
    made.learn("a", contexts(1)[0], 1.0, among=NAMES)
    found = scores(made, NAMES)
    assert (found[:, 0] > 0).all()
    assert (found[:, 1:] == 0).all()


def test_one_step_is_that_worked_out_by_hand():
    # Rows are 0, so the policy is even over two: the row of "a" gains
    # rate · (1 - baseline) · (1 - 1/2) · h with baseline 2/4 and h = (hidden, 1),
    # that of "b" loses the same. One reward of 1: its mean is (1 + 2)/(1 + 4) = 0.6
    # and its confidence 1/(1 + 0.6·0.4/0.02) = 1/13.
    made, x = head("a", "b", learning_rate=0.1), contexts(1)
    state = made.state()
    first = np.append(np.tanh(state["inner"] @ x[0]), 1.0)
    second = np.append(np.tanh(state["middle"] @ first), 1.0)
    assert made.learn("a", x[0], 1.0, among=("a", "b")) is True
    step = 0.1 * 0.5 * 0.5 * second
    np.testing.assert_allclose(made.state()["outer"], [step, -step], rtol=1e-12)
    expected = math.tanh(step @ second) / 2 / 13
    assert made.scores(x, ["a"])[0, 0] == pytest.approx(expected)


def test_the_shared_layers_move_as_soon_as_rows_differ():
    made, x = head("a", "b"), contexts(1)[0]
    states = [made.state()]
    for _ in range(2):
        made.learn("a", x, 1.0, among=("a", "b"))
        states.append(made.state())
    for part in ("inner", "middle"):
        np.testing.assert_array_equal(states[1][part], states[0][part])
        assert (states[2][part] != states[1][part]).any()


def test_an_expected_reward_takes_the_place_of_the_mean():
    made, x = head("a", "b", learning_rate=0.1), contexts(1)[0]
    made.learn("a", x, 1.0, among=("a", "b"), expected=1.0)
    assert not made.state()["outer"].any()
    made.learn("a", x, 1.0, among=("a", "b"), expected=0.75)
    assert made.state()["outer"][0, -1] == pytest.approx(0.1 * 0.25 * 0.5)


def test_scores_are_bounded_by_half_a_point_of_quality():
    made = head("a", "b", learning_rate=1.0)
    for row in contexts(2_000):
        made.learn("a", row, 1.0, among=("a", "b"), expected=0.0)
    found = scores(made, ["a"])
    assert (found > 0.4).all()
    assert (found < 0.5).all()


def test_confidence_grows_with_feedback_and_with_agreement():
    # All rewards 1: n = 10 -> mean 12/14, n/(n + v/0.02) = 10/(10 + 6.12) = 0.62;
    # half of them 1: mean 1/2, 10/(10 + 12.5) = 0.444.
    agreed, mixed = head("a", "b"), head("a", "b")
    for i, row in enumerate(contexts(10)):
        agreed.learn("a", row, 1.0, among=("a",))
        mixed.learn("a", row, float(i % 2), among=("a",))
    found = []
    for made in (agreed, mixed):
        made._outer[0, -1] = 100.0  # tanh is 1
        found.append(2.0 * float(scores(made, ["a"])[0, 0]))
    assert found == pytest.approx([10 / (10 + 12 * 2 / 14**2 / 0.02), 10 / 22.5])


# --- how it learns -----------------------------------------------------------------


@pytest.mark.parametrize("chosen", [0, 1, 2])
def test_the_gradient_is_that_of_finite_differences(chosen):
    made, x = taught(60), contexts(1, seed=4)[0]

    def log_share():
        first = np.append(np.tanh(made._inner @ x), 1.0)
        second = np.append(np.tanh(made._middle @ first), 1.0)
        values = made._outer @ second
        return values[chosen] - np.log(np.exp(values).sum())

    slopes = made._gradient(x, [0, 1, 2], chosen)
    for layer, slope in zip(
        (made._inner, made._middle, made._outer), slopes, strict=True
    ):
        measured = np.zeros_like(layer)
        for place in np.ndindex(*layer.shape):
            was, ends = layer[place], []
            for shift in (1e-6, -1e-6):
                layer[place] = was + shift
                ends.append(log_share())
            layer[place] = was
            measured[place] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(slope, measured, atol=1e-7)
        assert abs(slope).max() > 1e-3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_better_candidate_rises_above_a_worse_one(seed):
    rng, made = np.random.default_rng(seed), FeedbackHead(D, seed=seed)
    for name in ("good", "bad"):
        made.add(name)
    for row in contexts(2_000, seed):
        name = ("good", "bad")[rng.integers(2)]
        satisfied = rng.random() < {"good": 0.8, "bad": 0.5}[name]
        made.learn(name, row, float(satisfied), among=("good", "bad"))
    found = scores(made, ["good", "bad"], n=50)
    assert (found[:, 0] > 0.1).all()
    assert (found[:, 1] < -0.1).all()


def test_it_learns_for_which_queries_a_candidate_is_good():
    rng, made = np.random.default_rng(0), FeedbackHead(D, learning_rate=0.01)
    for name in ("a", "b"):
        made.add(name)
    rows = contexts(6_000)
    rows[:, 0] = np.sign(rows[:, 0])
    for row in rows:
        name = ("a", "b")[rng.integers(2)]
        is_good = (row[0] > 0) == (name == "a")
        satisfied = rng.random() < (0.8 if is_good else 0.3)
        made.learn(name, row, float(satisfied), among=("a", "b"))
    gap = np.subtract(*made.scores(rows[:200], ["a", "b"]).T)
    assert (np.sign(gap) == rows[:200, 0]).mean() > 0.95


def test_being_popular_is_no_reproach_and_no_merit():
    # Both satisfy 60 %; one has 9 of 10 queries.
    rng, made = np.random.default_rng(0), FeedbackHead(D)
    for name in ("popular", "rare"):
        made.add(name)
    for row in contexts(3_000):
        name = "popular" if rng.random() < 0.9 else "rare"
        made.learn(name, row, float(rng.random() < 0.6), among=("popular", "rare"))
    assert abs(scores(made, ["popular", "rare"])).max() < 0.08


def test_only_those_that_competed_move():
    made = taught()
    before = made.state()["outer"]
    made.learn("a", contexts(1)[0], 1.0, among=("a", "b"))
    after = made.state()["outer"]
    assert (after[:2] != before[:2]).any(axis=1).all()
    np.testing.assert_array_equal(after[2], before[2])


def test_a_sole_competitor_teaches_no_preference():
    made = taught()
    before = made.state()["outer"]
    assert made.learn("a", contexts(1)[0], 1.0, among=())
    np.testing.assert_array_equal(made.state()["outer"], before)


@settings(deadline=None, max_examples=25)
@given(order=st.permutations(NAMES), seed=st.integers(0, 1_000))
def test_the_order_of_names_is_irrelevant(order, seed):
    one, other = taught(5), taught(5)
    for i, row in enumerate(contexts(20, seed)):
        reward = float(i % 3 == 0)
        one.learn(NAMES[i % 3], row, reward, among=NAMES)
        other.learn(NAMES[i % 3], row, reward, among=order)
    found = scores(other, order)
    expected = scores(one, NAMES)[:, [NAMES.index(n) for n in order]]
    np.testing.assert_array_equal(found, expected)


def test_a_batch_is_scored_as_its_queries_are():
    made, rows = taught(), contexts(30, seed=5)
    alone = np.concatenate([made.scores(row[None], NAMES) for row in rows])
    np.testing.assert_array_equal(made.scores(rows, NAMES), alone)


# --- candidates that come and go -----------------------------------------------------


def test_a_removed_candidate_comes_back_as_it_was():
    made = taught()
    before = scores(made, NAMES)
    made.remove("b")
    assert (made.names, made.kept) == (("a", "c"), ("b",))
    with pytest.raises(UnknownCandidateError, match="'b'"):
        scores(made, ["b"])
    np.testing.assert_array_equal(scores(made, ["a", "c"]), before[:, [0, 2]])
    made.add("b")
    assert (made.names, made.kept) == (("a", "c", "b"), ())
    np.testing.assert_array_equal(scores(made, NAMES), before)


def test_a_discarded_candidate_is_forgotten_and_the_others_stay():
    made = taught()
    before = scores(made, NAMES)
    made.discard("a")
    made.discard("nobody")
    np.testing.assert_array_equal(scores(made, ["b", "c"]), before[:, 1:])
    made.add("a")
    assert (scores(made, ["a"]) == 0).all()
    assert made.learn("c", contexts(1)[0], 1.0, among=("c", "gone"))


def test_a_renamed_candidate_keeps_its_place_and_scores():
    made = taught()
    before = scores(made, NAMES)
    made.remove("c")
    made.rename("b", "new")
    made.rename("c", "old")
    assert (made.names, made.kept) == (("a", "new"), ("old",))
    made.add("old")
    np.testing.assert_array_equal(scores(made, ["a", "new", "old"]), before)
    with pytest.raises(ConfigurationError, match="'a' already"):
        made.rename("new", "a")
    with pytest.raises(UnknownCandidateError, match="'b'"):
        made.rename("b", "d")


def test_unknown_and_double_names_are_errors():
    made = head("a")
    with pytest.raises(ConfigurationError, match="'a' already"):
        made.add("a")
    for call in (made.remove, lambda n: made.scores(contexts(1), [n])):
        with pytest.raises(UnknownCandidateError, match="'x'"):
            call("x")
    with pytest.raises(UnknownCandidateError, match="'x'"):
        made.learn("x", contexts(1)[0], 1.0, among=("a",))


# --- refusals ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "reward"),
    [
        (np.full(D, np.nan), 1.0),
        (np.full(D, np.inf), 1.0),
        (np.ones(D), math.nan),
        (np.ones(D), 2.0),
        (np.ones(D), -1.0),
    ],
)
def test_a_step_that_would_not_be_finite_is_refused_and_counted(context, reward):
    made = taught(learning_rate=1.0)
    before = made.state()
    assert made.learn("a", context, reward, among=NAMES) is False
    assert made.refused == 1
    for part, array in made.state().items():
        np.testing.assert_array_equal(array, before[part])


def test_a_context_of_another_length_is_an_error():
    made = head("a")
    with pytest.raises(ConfigurationError, match="has 6 numbers"):
        made.learn("a", np.ones(D + 1), 1.0, among=("a",))
    with pytest.raises(ConfigurationError, match="has 6 numbers"):
        made.scores(np.ones((2, D - 1)), ["a"])


@pytest.mark.parametrize(
    "wrong",
    [{"dimension": 0}, {"hidden": (8, 0)}, {"learning_rate": 0.0}],
)
def test_a_setting_that_cannot_be_used_is_an_error(wrong):
    with pytest.raises(ConfigurationError):
        FeedbackHead(**{"dimension": D, **wrong})


# --- state -------------------------------------------------------------------------


def restored(made, state=None, **given):
    return FeedbackHead.from_state(
        made.state() if state is None else state,
        names=made.names,
        kept=made.kept,
        dimension=D,
        **{"hidden": (8, 5), "learning_rate": 0.05, **given},
    )


def test_a_restored_head_says_and_learns_the_same():
    made = taught()
    made.remove("a")
    again = restored(made, seed=77)
    assert (again.names, again.kept, again.bad) == (("b", "c"), ("a",), {})
    for one in (made, again):
        one.add("a")
        one.learn("a", contexts(1)[0], 0.0, among=NAMES)
    np.testing.assert_array_equal(scores(again, NAMES), scores(made, NAMES))


def test_a_state_does_not_change_with_later_feedback():
    made = taught()
    state = made.state()
    copies = {part: array.copy() for part, array in state.items()}
    made.learn("a", contexts(1)[0], 1.0, among=NAMES)
    for part, array in copies.items():
        np.testing.assert_array_equal(state[part], array)
    said = scores(made, NAMES)
    for array in made.state().values():
        array[:] = 0.0
    np.testing.assert_array_equal(scores(made, NAMES), said)


@pytest.mark.parametrize(
    ("part", "value"), [("outer", np.nan), ("told", np.inf), ("told", -1.0)]
)
def test_a_damaged_row_is_dropped_and_the_others_stay(part, value):
    made = taught()
    state = made.state()
    state[part][1, -1] = value
    again = restored(made, state)
    assert (list(again.bad), again.names) == (["b"], ("a", "c"))
    np.testing.assert_array_equal(scores(again, ["a", "c"]), scores(made, ["a", "c"]))


@pytest.mark.parametrize("part", ["inner", "middle"])
@pytest.mark.parametrize("damage", ["missing", "not finite", "shape"])
def test_damaged_shared_layers_begin_anew(part, damage):
    made = taught()
    state = made.state()
    if damage == "missing":
        del state[part]
    elif damage == "not finite":
        state[part][0, 0] = np.nan
    else:
        state[part] = state[part][:, 1:]
    again = restored(made, state)
    assert set(again.bad) == set(NAMES)
    assert again.names == ()
    again.add("a")
    assert (scores(again, ["a"]) == 0).all()


@pytest.mark.parametrize("part", ["outer", "told"])
def test_rows_that_belong_to_nobody_are_an_error(part):
    made = taught()
    state = made.state()
    for broken in (state[part][1:], None):
        with pytest.raises(StateFormatError, match="3 candidates"):
            restored(made, state | {part: broken})
