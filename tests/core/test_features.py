import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core import features as module
from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.features import FormScale, ShapeScale
from mixllm_integrations.core.form import FORM_FEATURES
from mixllm_integrations.core.reading import read
from mixllm_integrations.core.shape import SHAPE_FEATURES, shape_features

ENCODER = StaticEncoder.load()
CHARACTERS = list("abcXYZ0123 .,?!:+-()*/\n\"'ß")


def reading(texts):
    return read(texts, ENCODER)


def scribbles(n, *, seed=0, length=40):
    """Return texts that hold characters of all classes in any order."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(CHARACTERS, size=length)) for _ in range(n)]


def names(shape, places):
    return [SHAPE_FEATURES[shape.columns[place]] for place in places]


@pytest.fixture(scope="module")
def texts():
    return scribbles(200)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(1).normal(size=(200, 3))


@pytest.fixture(scope="module")
def form(texts):
    return FormScale.fit(reading(texts))


@pytest.fixture(scope="module")
def shape(texts, noise):
    return ShapeScale.fit(reading(texts), noise, seed=0)[0]


# --- form ----------------------------------------------------------------------


def test_form_is_a_tenth_of_the_deviations_from_the_training_mean():
    # Word pieces: 2 and 6. ln 3 and ln 7 lie half their difference from the mean.
    scale = FormScale.fit(reading(["cats cats", "cats cats cats cats cats cats"]))
    at = FORM_FEATURES.index("log_pieces")
    half = (np.log(7) - np.log(3)) / 2
    assert scale.mean[at] == pytest.approx((np.log(3) + np.log(7)) / 2)
    assert scale.scale[at] == pytest.approx(half + 1e-3)
    found = scale.apply(reading(["cats cats", "cats cats cats cats cats cats"]))
    deviation = 0.1 * half / (half + 1e-3)
    np.testing.assert_allclose(found[:, at], [-deviation, deviation])


def test_form_that_never_varied_is_limited_and_not_divided_by_nothing():
    scale = FormScale.fit(reading(["cats"] * 3))
    assert not scale.apply(reading(["cats"])).any()
    found = scale.apply(reading(["7 " * 3_000]))[0]
    assert found[FORM_FEATURES.index("numbers")] == pytest.approx(0.5)
    assert found[FORM_FEATURES.index("log_lines")] == 0.0


@settings(max_examples=40)
@given(st.lists(st.text(max_size=50), min_size=1, max_size=5))
def test_form_is_bounded_and_the_same_alone_as_among_others(form, given):
    found = form.apply(reading(given))
    assert found.shape == (len(given), len(FORM_FEATURES))
    assert np.abs(found).max() <= 0.5
    alone = np.vstack([form.apply(reading([text])) for text in given])
    np.testing.assert_allclose(found, alone, rtol=1e-12, atol=1e-12)


# --- shape: columns and scale --------------------------------------------------


def test_shape_is_told_in_deviations_worked_out_by_hand():
    # "ab" has one pair of letters, "abc" two: ln 2 and ln 3. The pair's share is
    # 1 in both, so its column is 0, over the 0.05 that no scale is less than.
    shape, standard = ShapeScale.fit(reading(["ab", "abc"]), np.zeros((2, 1)), seed=0)
    assert names(shape, range(2)) == [
        "lower then lower",
        "share of lower then lower",
    ]
    half = (np.log(3) - np.log(2)) / 2
    np.testing.assert_allclose(shape.mean, [np.log(6) / 2, 3.0], rtol=1e-6)
    np.testing.assert_allclose(shape.scale, [half + 0.05, 0.05], rtol=1e-6)
    deviation = half / (half + 0.05)
    expected = [[-deviation, 0.0], [deviation, 0.0]]
    np.testing.assert_allclose(standard, expected, atol=1e-6)


@pytest.mark.parametrize(("n_with", "kept"), [(1, False), (2, True)])
def test_a_column_is_kept_that_more_than_one_query_in_a_hundred_has(n_with, kept):
    texts = ["ab"] * (100 - n_with) + ["ab?!"] * n_with
    shape, _ = ShapeScale.fit(reading(texts), np.zeros((100, 1)), seed=0)
    assert ("ask then ask" in names(shape, range(len(shape.columns)))) == kept


def test_the_training_queries_stand_where_serving_would_put_them(texts, noise):
    shape, standard = ShapeScale.fit(reading(texts), noise, seed=0)
    assert np.array_equal(shape.apply(reading(texts)), standard)
    assert standard.shape == (200, len(shape.columns))
    assert (
        (shape_features(reading(texts).shape)[:, shape.columns] > 0).any(axis=0).all()
    )


def test_shape_is_cut_at_four_deviations_and_weighs_a_tenth_in_a_context(shape):
    odd = reading(["?" * 8_000, "ab" * 4_000, ""])
    standard = shape.apply(odd)
    assert standard.max() == 4.0
    assert standard.min() >= -4.0
    block = shape.features(standard)
    assert np.array_equal(block, 0.1 * standard[:, shape.chosen])


@settings(max_examples=40)
@given(st.lists(st.text(max_size=50), min_size=1, max_size=5))
def test_shape_is_bounded_and_the_same_alone_as_among_others(shape, given):
    found = shape.apply(reading(given))
    assert np.abs(found).max() <= 4.0
    alone = np.vstack([shape.apply(reading([text])) for text in given])
    np.testing.assert_allclose(found, alone, rtol=1e-12, atol=1e-12)


def test_texts_without_shape_have_no_columns():
    shape, standard = ShapeScale.fit(reading([""] * 20), np.zeros((20, 1)), seed=0)
    assert shape.columns.size == shape.chosen.size == 0
    assert standard.shape == (20, 0)
    assert shape.features(shape.apply(reading(["(7)"]))).shape == (1, 0)


# --- shape: what enters a context ----------------------------------------------


@pytest.mark.parametrize(("n", "expected"), [(9, 0), (10, 1), (39, 3), (200, 20)])
def test_there_is_a_chosen_column_for_ten_queries(n, expected):
    traits = np.linspace(-1, 1, n)[:, None]
    shape, _ = ShapeScale.fit(reading(scribbles(n)), traits, seed=0)
    assert shape.chosen.size == expected


def test_no_more_than_forty_columns_are_chosen_nor_more_than_there_are():
    many, _ = ShapeScale.fit(reading(scribbles(450)), np.zeros((450, 1)), seed=0)
    assert many.chosen.size == 40
    few, _ = ShapeScale.fit(reading(["ab", "abc"] * 30), np.zeros((60, 1)), seed=0)
    assert few.chosen.tolist() == [0, 1]


def test_chosen_columns_are_places_in_ascending_order(shape):
    assert (np.diff(shape.chosen) > 0).all()
    assert shape.chosen[0] >= 0
    assert shape.chosen[-1] < len(shape.columns)


def test_the_telling_feature_is_chosen_among_all_others(monkeypatch):
    monkeypatch.setattr(module, "_CHOSEN", 1)
    rng = np.random.default_rng(3)
    marked = rng.random(300) < 0.5
    texts = [
        f"{text}\n{'ABC' if mark else 'abc'}@"
        for text, mark in zip(scribbles(300), marked, strict=True)
    ]
    ease = np.where(marked, 1.0, -1.0) + rng.normal(size=300) * 0.2
    shape, _ = ShapeScale.fit(reading(texts), ease[:, None], seed=0)
    (found,) = names(shape, shape.chosen)
    assert found.removeprefix("share of ") in {
        "upper then mark",
        "lower then mark",
        "line then upper",
        "line then lower",
        "upper then upper",
        "lower then lower",
    }
    assert len(shape.columns) > 150


@pytest.mark.parametrize("trait", [0, 1, 3])
def test_what_tells_of_any_of_the_first_traits_is_chosen_whatever_its_scale(
    trait, monkeypatch
):
    monkeypatch.setattr(module, "_CHOSEN", 1)
    rng = np.random.default_rng(0)
    standard = rng.normal(size=(400, 30))
    traits = 100.0 * rng.normal(size=(400, 4))
    traits[:, trait] = 0.01 * standard[:, 17]
    assert module._most_telling(standard, traits, 0).tolist() == [17]


def test_traits_beyond_the_fourth_have_no_say(texts):
    rng = np.random.default_rng(2)
    traits = rng.normal(size=(200, 6))
    other = traits.copy()
    other[:, 4:] = rng.normal(size=(200, 2))
    first, second = (
        ShapeScale.fit(reading(texts), given, seed=0)[0] for given in (traits, other)
    )
    assert np.array_equal(first.chosen, second.chosen)


def test_the_choice_is_the_same_for_the_same_seed_on_any_number_of_threads(
    texts, noise, monkeypatch
):
    def chosen(seed):
        return ShapeScale.fit(reading(texts), noise, seed=seed)[0].chosen

    first, other = chosen(1), chosen(2)
    monkeypatch.setattr(module, "_WORTH_THREADS", 0)
    assert np.array_equal(chosen(1), first)
    assert not np.array_equal(first, other)
