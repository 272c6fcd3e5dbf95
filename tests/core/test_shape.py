import string
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.core import chunks
from mixllm_integrations.core.form import FORM_FEATURES
from mixllm_integrations.core.shape import (
    SHAPE_FEATURES,
    shape_counts,
    shape_features,
)
from mixllm_integrations.core.wordpieces import clip_text

N = len(SHAPE_FEATURES) // 2


def counted(text):
    """Return the counts of a text that are not 0."""
    (row,) = shape_counts([text])
    named = dict(zip(SHAPE_FEATURES, row.tolist(), strict=False))
    return {name: count for name, count in named.items() if count}


def test_every_feature_of_form_and_shape_has_a_name_of_its_own():
    names = (*FORM_FEATURES, *SHAPE_FEATURES)
    assert len(set(names)) == len(names)
    assert N == 144


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("a", {}),
        ("ab", {"lower then lower": 1}),
        ("ba.", {"lower then lower": 1, "lower then stop": 1}),
        ("A b", {"upper then space": 1, "space then lower": 1}),
        (
            "(1)\n",
            {"bracket then digit": 1, "digit then bracket": 1, "bracket then line": 1},
        ),
        (
            "x=2?",
            {"lower then operator": 1, "operator then digit": 1, "digit then ask": 1},
        ),
        # Of two bytes: C3 9F, and of three: E2 82 AC.
        ("ß", {"foreign then foreign": 1}),
        ("€", {"foreign then foreign": 2}),
        (
            "aß,",
            {
                "lower then foreign": 1,
                "foreign then foreign": 1,
                "foreign then comma": 1,
            },
        ),
        # A lone surrogate is read as a question mark.
        ("a\ud800B", {"lower then ask": 1, "ask then upper": 1}),
    ],
)
def test_counts_are_those_worked_out_by_hand(text, expected):
    assert counted(text) == expected


@pytest.mark.parametrize(
    ("characters", "name"),
    [
        (string.ascii_lowercase, "lower"),
        (string.ascii_uppercase, "upper"),
        (string.digits, "digit"),
        (" \t", "space"),
        ("\n\r", "line"),
        (".", "stop"),
        ("?!", "ask"),
        (",;:", "comma"),
        ("()[]{}<>", "bracket"),
        ("+-*/=^%$\\_|~&", "operator"),
        ("\"'`@#\x00\x07\x1b\x7f", "mark"),
    ],
)
def test_every_character_is_of_one_class(characters, name):
    for character in characters:
        assert counted(character * 2) == {f"{name} then {name}": 1}


def test_of_a_long_text_only_its_start_and_its_end_are_counted():
    # 6,000 letters, a line break, 2,000 digits; ten million in between are cut.
    long = "a" * 5_000_000 + "(" * 1_000_000 + "7" * 5_000_000
    assert counted(long) == {
        "lower then lower": 5_999,
        "lower then line": 1,
        "line then digit": 1,
        "digit then digit": 1_999,
    }


@given(st.text(max_size=200))
def test_every_byte_but_the_last_is_followed_by_one(text):
    n_bytes = len(clip_text(text).encode())
    assert shape_counts([text]).sum() == max(n_bytes - 1, 0)


@given(st.text(alphabet=string.printable + "ßé€", max_size=60))
def test_counts_are_those_of_a_loop_over_the_bytes(text):
    def class_of(byte):
        if byte > 127:
            return "foreign"
        (pair,) = counted(chr(byte) * 2)
        return pair.split(" then ")[0]

    expected: dict[str, int] = {}
    classes = [class_of(byte) for byte in text.encode()]
    for pair in pairwise(classes):
        name = " then ".join(pair)
        expected[name] = expected.get(name, 0) + 1
    assert counted(text) == expected


# --- features ------------------------------------------------------------------


def test_features_are_logarithms_of_counts_and_weighted_roots_of_shares():
    # Four pairs, two of them a letter and a digit: ln 3, and 3·√(2/4).
    (row,) = shape_features(shape_counts(["a1 b2"]))
    found = dict(zip(SHAPE_FEATURES, row.tolist(), strict=True))
    assert found["lower then digit"] == pytest.approx(np.log(3), rel=1e-6)
    assert found["share of lower then digit"] == pytest.approx(3 * np.sqrt(0.5))
    assert found["digit then space"] == pytest.approx(np.log(2), rel=1e-6)
    assert found["share of digit then space"] == pytest.approx(1.5)
    assert np.count_nonzero(row) == 6


@pytest.mark.parametrize("text", ["", "a"])
def test_a_text_without_a_pair_has_no_features(text):
    assert not shape_features(shape_counts([text])).any()


def test_no_texts_have_no_rows():
    assert shape_counts([]).shape == (0, N)
    assert shape_features(shape_counts([])).shape == (0, 2 * N)


@pytest.mark.parametrize("together", [1, 2, 1000])
def test_where_a_batch_is_divided_changes_nothing(monkeypatch, together):
    monkeypatch.setattr(chunks, "_TOGETHER", together)
    texts = ["", "a", "a1 b2", "", "ß", "(x)" * 10_000, "b", ""]
    alone = [shape_counts([text])[0] for text in texts]
    assert np.array_equal(shape_counts(texts), alone)


@given(st.lists(st.text(max_size=60), min_size=1, max_size=6))
def test_the_shape_of_a_text_is_the_same_alone_and_among_others(texts):
    together = shape_features(shape_counts(texts))
    alone = np.vstack([shape_features(shape_counts([text])) for text in texts])
    np.testing.assert_allclose(together, alone, rtol=1e-12)


@given(st.text(max_size=200))
def test_shares_are_at_most_the_whole(text):
    (row,) = shape_features(shape_counts([text]))
    assert (row >= 0).all()
    assert np.square(row[N:]).sum() <= 9.0 + 1e-4  # roots of single precision
