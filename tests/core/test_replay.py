"""Labelled contexts that heads can be fitted from again, and what becomes of them."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.core.errors import StateFormatError
from mixllm_integrations.core.replay import Replay

NAN = math.nan


def noted(*names, capacity=20_000):
    """Return a replay of these observations; the i-th has context (i, 1)."""
    replay = Replay(2, capacity=capacity)
    for index, name in enumerate(names):
        note(replay, name, index)
    return replay


def note(replay, name, index, **changes):
    given = {"expected": 0.5, "surprise": 0.25, "weight": 1.0, **changes}
    replay.add(name, np.array([index, 1.0]), **given)


def labelled():
    """Return a replay of two candidates with a label of each on their own rows."""
    replay = Replay(2)
    contexts = np.array([[7.0, 1.0], [8.0, 1.0], [9.0, 1.0]])
    quality = np.array([[0.2, NAN], [NAN, 0.4], [0.6, 0.8]])
    replay.start(["a", "b"], contexts, quality, quality * 100.0)
    return replay


def which(observations):
    """Return who answered which query."""
    firsts = observations.contexts[:, 0].astype(int).tolist()
    return list(zip(observations.names, firsts, strict=True))


def equal(one, two):
    return (
        one.names == two.names
        and one.mark == two.mark
        and all(
            np.array_equal(getattr(one, a), getattr(two, a), equal_nan=True)
            for a in ("contexts", "quality", "tokens")
        )
    )


# --- the ring -----------------------------------------------------------------


def test_one_more_than_fits_overwrites_the_oldest():
    replay = noted(*"abcabc", capacity=4)
    assert replay.mark == 6
    assert len(replay) == 4
    assert which(replay.since(0)) == [("c", 2), ("a", 3), ("b", 4), ("c", 5)]
    assert [replay.labels(name) for name in "abc"] == [1, 1, 2]


@given(n=st.integers(0, 40), capacity=st.integers(1, 12), mark=st.integers(0, 45))
def test_since_gives_the_latest_in_their_order_as_far_as_they_are_kept(
    n, capacity, mark
):
    replay = noted(*["a"] * n, capacity=capacity)
    first = max(mark, n - capacity, 0)
    assert which(replay.since(mark)) == [("a", i) for i in range(first, n)]
    assert len(replay) == min(n, capacity)


def test_a_ring_that_grows_loses_nothing():
    replay = noted(*["a", "b"] * 400)
    assert which(replay.since(0)) == [("ab"[i % 2], i) for i in range(800)]


def test_what_an_answer_was_is_what_was_expected_and_the_surprise():
    replay = Replay(2)
    note(replay, "a", 3, expected=0.5, surprise=-0.25, weight=0.5, tokens=70.0)
    (found,) = [replay.since(0)]
    assert found.contexts.tolist() == [[3.0, 1.0]]
    assert found.targets.tolist() == [0.25]
    assert found.weights.tolist() == [0.5]


def test_a_copy_knows_what_was_known_whatever_is_observed_later():
    replay = labelled()
    for index, name in enumerate("abca"):
        note(replay, name, index)
    copied, names = replay.copied(), ["a", "b", "c"]
    before = copied.table(names)
    note(replay, "a", 9)
    note(replay, "d", 10)
    replay.forget("a")  # labels and observations, in place
    replay.discard("b")
    after = copied.table(names)
    assert (copied.mark, len(copied), after.mark) == (4, 4, 4)
    assert np.array_equal(before.quality, after.quality, equal_nan=True)
    assert np.array_equal(before.contexts, after.contexts)
    assert which(copied.since(0)) == [("a", 0), ("b", 1), ("c", 2), ("a", 3)]


def test_a_copy_of_a_full_ring_is_not_overwritten():
    replay = noted(*"abcd", capacity=4)
    copied = replay.copied()
    note(replay, "e", 4)  # where the first one was
    assert which(copied.since(0)) == [("a", 0), ("b", 1), ("c", 2), ("d", 3)]


# --- the table ----------------------------------------------------------------


def test_a_table_has_the_labels_and_below_them_the_observations():
    replay = labelled()
    note(replay, "b", 3, tokens=30.0)
    note(replay, "a", 4)
    table = replay.table(["a", "b"])
    assert table.names == ("a", "b")
    assert table.mark == 2
    assert table.contexts[:, 0].tolist() == [7.0, 8.0, 9.0, 3.0, 4.0]
    # 0.5 was expected, and it was better by 0.25.
    quality = [[0.2, NAN], [NAN, 0.4], [0.6, 0.8], [NAN, 0.75], [0.75, NAN]]
    tokens = [[20, NAN], [NAN, 40], [60, 80], [NAN, 30], [NAN, NAN]]
    np.testing.assert_allclose(table.quality, quality, rtol=1e-6)
    np.testing.assert_allclose(table.tokens, tokens, rtol=1e-6)


def test_what_says_less_than_a_grade_moves_a_label_less_and_none_moves_it_more():
    replay = Replay(2)
    note(replay, "a", 0, surprise=0.4, weight=0.25)
    note(replay, "a", 1, surprise=0.4, weight=3.0)
    # 0.5 + 0.25·0.4, and 0.5 + 1·0.4.
    np.testing.assert_allclose(replay.table(["a"]).quality, [[0.6], [0.9]], rtol=1e-6)


def test_a_table_of_others_leaves_out_the_rows_that_say_nothing_of_them():
    replay = labelled()
    note(replay, "b", 3)
    table = replay.table(["a", "stranger"])
    assert table.contexts[:, 0].tolist() == [7.0, 9.0]
    assert np.isnan(table.quality[:, 1]).all()
    assert table.mark == 1  # it was seen, and is no news
    assert replay.table([]).quality.shape == (0, 0)


# --- forgetting, leaving, another name ----------------------------------------


def test_forgetting_keeps_the_last_ones_and_the_others_candidates():
    replay = labelled()
    for index, name in enumerate("abaab"):
        note(replay, name, index)
    replay.forget("a", keep=2)
    assert which(replay.since(0)) == [("b", 1), ("a", 2), ("a", 3), ("b", 4)]
    assert [replay.labels("a"), replay.labels("b")] == [2, 4]
    # A row that only it was labelled on is gone as well.
    assert replay.table(["a", "b"]).contexts[:2, 0].tolist() == [8.0, 9.0]


@given(n=st.integers(0, 8), keep=st.integers(0, 20))
def test_forgetting_keeps_as_many_as_it_says_or_all_there_are(n, keep):
    replay = noted(*["a"] * n)
    replay.forget("a", keep=keep)
    assert replay.labels("a") == min(n, keep)


def test_whoever_is_discarded_is_forgotten_and_may_come_back():
    replay = labelled()
    note(replay, "a", 3)
    note(replay, "b", 4)
    replay.discard("a")
    assert replay.labels("a") == 0
    assert np.isnan(replay.table(["a", "b"]).quality[:, 0]).all()
    assert replay.labels("b") == 3
    note(replay, "a", 5)
    assert which(replay.since(0))[-1] == ("a", 5)
    assert replay.labels("a") == 1
    assert replay.mark == 3  # what was observed was observed


def test_another_name_has_all_that_the_old_one_had():
    replay = labelled()
    note(replay, "a", 3)
    before = replay.table(["a", "b"])
    replay.rename("a", "c")
    after = replay.table(["c", "b"])
    assert np.array_equal(before.quality, after.quality, equal_nan=True)
    assert np.array_equal(before.contexts, after.contexts)
    assert replay.labels("a") == 0
    note(replay, "a", 4)  # another one of that name
    assert which(replay.since(0)) == [("c", 3), ("a", 4)]


def test_whoever_had_the_new_name_is_forgotten():
    replay = noted(*"abab")
    replay.rename("a", "b")
    assert which(replay.since(0)) == [("b", 0), ("b", 2)]


def test_new_labels_take_the_place_of_all_that_was_known_of_a_candidate():
    replay = labelled()
    note(replay, "a", 3)
    note(replay, "b", 4)
    replay.start(["a"], np.array([[5.0, 1.0]]), np.array([[0.9]]), np.array([[9.0]]))
    assert [replay.labels("a"), replay.labels("b")] == [1, 3]
    table = replay.table(["a", "b"])
    assert table.contexts[:, 0].tolist() == [8.0, 9.0, 5.0, 4.0]
    expected = [[NAN, 0.4], [NAN, 0.8], [0.9, NAN], [NAN, 0.75]]
    np.testing.assert_allclose(table.quality, expected, rtol=1e-6)


# --- there and back -----------------------------------------------------------


def there_and_back(replay, **changes):
    state, arrays = replay.state()
    given = {"dimension": 2, **changes}
    return Replay.from_state(json.loads(json.dumps(state)), arrays, **given)


def test_a_state_gives_the_same_replay():
    replay = labelled()
    for index, name in enumerate("abaab"):
        note(replay, name, index, tokens=float(index) if index else NAN)
    back = there_and_back(replay)
    assert equal(replay.table(["a", "b"]), back.table(["a", "b"]))
    assert which(back.since(2)) == which(replay.since(2))
    for each in (replay, back):
        note(each, "b", 9)
        note(each, "c", 10)
    assert equal(replay.table([*"abc"]), back.table([*"abc"]))


def test_a_full_ring_and_a_smaller_one_keep_the_latest():
    replay = noted(*"abcabc", capacity=4)
    back = there_and_back(replay, capacity=4)
    assert which(back.since(0)) == which(replay.since(0))
    assert back.mark == 4  # what was overwritten is not counted again
    note(back, "a", 6)
    assert which(back.since(0)) == [("a", 3), ("b", 4), ("c", 5), ("a", 6)]
    smaller = there_and_back(replay, capacity=2)
    assert which(smaller.since(0)) == [("b", 4), ("c", 5)]


def test_an_empty_replay_can_be_saved():
    back = there_and_back(Replay(2))
    assert len(back) == back.mark == 0
    note(back, "a", 1)
    assert back.labels("a") == 1


def test_a_replay_of_nobody_that_is_left_can_be_saved():
    replay = labelled()
    note(replay, "a", 3)
    replay.discard("a")
    replay.discard("b")
    back = there_and_back(replay)
    assert len(back.table(["a", "b"]).contexts) == 0


@pytest.mark.parametrize(
    ("array", "damage"),
    [
        ("offline", lambda a: a[:-1]),
        ("offline", lambda a: a[:, :1]),
        ("offline", lambda a: np.full_like(a, np.nan)),
        ("labels", lambda a: a[:1]),
        ("labels", lambda a: a[:, :, :-1]),
        ("contexts", lambda a: a[:-1]),
        ("contexts", lambda a: np.full_like(a, np.inf)),
        ("numbers", lambda a: a[:, :3]),
        ("numbers", lambda a: a * np.array([1.0, np.nan, 1.0, 1.0])),
        ("who", lambda a: a[:-1]),
        ("who", lambda a: a + 7),
    ],
)
def test_a_damaged_state_is_refused(array, damage):
    replay = labelled()
    for index, name in enumerate("abab"):
        note(replay, name, index)
    state, arrays = replay.state()
    arrays[array] = damage(arrays[array])
    with pytest.raises(StateFormatError, match="damaged"):
        Replay.from_state(state, arrays, dimension=2)


def test_a_state_of_other_contexts_is_refused():
    state, arrays = labelled().state()
    with pytest.raises(StateFormatError, match="damaged"):
        Replay.from_state(state, arrays, dimension=3)
