import json

import numpy as np
import pytest

from mixllm_integrations.core.context import ContextModel
from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.errors import StateFormatError
from mixllm_integrations.core.reading import read
from mixllm_integrations.core.shape import SHAPE_FEATURES
from mixllm_integrations.core.snapshot_context import (
    context_from,
    context_state,
    finite,
)
from mixllm_integrations.core.traits import query_traits

ENCODER = StaticEncoder.load()
ODD = ["Why?", "", "(7)\n" * 3_000, "ß\ud800", "Explain the court about soup case 3?"]


@pytest.fixture(scope="module")
def sample(world):
    return world.sample(200, seed=1)


def fitted(sample, *, n_domains=20, tags=None):
    return ContextModel.fit(
        read(sample.queries, ENCODER),
        sample.tags if tags is None else tags,
        query_traits(sample.quality),
        encoder=ENCODER,
        n_domains=n_domains,
        seed=0,
    )[0]


@pytest.fixture(scope="module")
def known(sample):
    return fitted(sample)


@pytest.fixture
def saved(known):
    """State and arrays that a test may change."""
    state, arrays = context_state(known)
    return dict(state), {name: array.copy() for name, array in arrays.items()}


def again(model):
    state, arrays = context_state(model)
    return context_from(json.loads(json.dumps(state)), arrays)


def assert_equal(model, other, texts):
    reading = read(texts, ENCODER)
    assert np.array_equal(model.contexts(reading), other.contexts(reading))
    assert np.array_equal(
        model.training_contexts(reading), other.training_contexts(reading)
    )
    assert model.blocks == other.blocks


# --- there and back ------------------------------------------------------------


def test_contexts_are_the_same_to_the_bit_after_a_round_trip(known, sample):
    loaded = again(known)
    assert_equal(known, loaded, [*ODD, *sample.queries])
    assert loaded.domains.names == known.domains.names
    assert np.array_equal(loaded.domains.base_rate, known.domains.base_rate)
    reading = read(ODD, ENCODER)
    assert np.array_equal(known.posterior(reading), loaded.posterior(reading))


def test_domains_from_clusters_go_there_and_back(sample):
    model = fitted(sample, tags=[()] * 200)
    assert len(model.domains.names) > 1
    assert again(model).domains.names == model.domains.names
    assert_equal(model, again(model), [*ODD, *sample.queries])


def test_a_model_without_domains_goes_there_and_back(sample):
    model = fitted(sample, n_domains=0)
    state, arrays = context_state(model)
    assert "domains" not in state
    assert "domains.base_rate" not in arrays
    assert again(model).domains is None
    assert_equal(model, again(model), [*ODD, *sample.queries])


def test_an_unfitted_model_is_its_centre_alone():
    model = ContextModel.unfitted(ENCODER.dimension)
    state, arrays = context_state(model)
    assert state == {}
    assert list(arrays) == ["context.centre"]
    assert_equal(model, again(model), ODD)


def test_what_is_saved_has_names_and_kinds_that_do_not_depend_on_the_machine(saved):
    state, arrays = saved
    assert set(state) == {"n_pieces", "domains", "sharpness"}
    kinds = {name: str(array.dtype) for name, array in arrays.items()}
    assert kinds == {
        "context.centre": "float32",
        "context.axes": "float32",
        "context.trait_scale": "float64",
        "context.seen": "int64",
        "context.seen_scores": "float16",
        "domains.base_rate": "float64",
        "form.mean": "float64",
        "form.scale": "float64",
        "shape.columns": "int64",
        "shape.mean": "float64",
        "shape.scale": "float64",
        "shape.chosen": "int64",
        "scorer.column_of": "int32",
        "scorer.idf": "float32",
        "scorer.weights": "float16",
        "scorer.offset": "float32",
    }


# --- what was tampered with ----------------------------------------------------

NAMES = [
    "context.axes",
    "context.seen_scores",
    "domains.base_rate",
    "form.mean",
    "form.scale",
    "shape.columns",
    "shape.mean",
    "shape.scale",
    "scorer.weights",
    "scorer.offset",
]


@pytest.mark.parametrize("name", [*NAMES, "context.trait_scale", "scorer.idf"])
def test_an_array_that_is_too_short_is_refused(saved, name):
    state, arrays = saved
    arrays[name] = arrays[name][:-1]
    with pytest.raises(StateFormatError):
        context_from(state, arrays)


@pytest.mark.parametrize("name", [*NAMES, "shape.chosen", "context.centre"])
def test_an_array_of_another_kind_is_refused_by_name(saved, name):
    state, arrays = saved
    arrays[name] = arrays[name].astype(np.int16)
    with pytest.raises(StateFormatError, match=f"{name} does not fit: int16"):
        context_from(state, arrays)


@pytest.mark.parametrize("junk", [np.nan, np.inf])
@pytest.mark.parametrize("name", [n for n in NAMES if n != "shape.columns"])
def test_an_array_that_is_not_finite_is_refused_by_name(saved, name, junk):
    state, arrays = saved
    arrays[name].flat[-1] = junk
    with pytest.raises(StateFormatError, match=f"{name} is not finite"):
        context_from(state, arrays)


@pytest.mark.parametrize(
    ("name", "junk", "said"),
    [
        ("shape.chosen", -1, "shape.chosen points to features that are not there"),
        ("shape.chosen", 10_000, "shape.chosen points to features"),
        ("shape.columns", -1, "shape.columns points to features"),
        ("shape.columns", len(SHAPE_FEATURES), "shape.columns points to features"),
        ("shape.scale", 0.0, "shape.scale is not positive"),
        ("form.scale", -1.0, "form.scale is not positive"),
        ("context.trait_scale", -1.0, "context.trait_scale is negative"),
        ("scorer.column_of", -1, "scorer.column_of points to columns"),
        ("scorer.column_of", 2**30, "scorer.column_of points to columns"),
        ("scorer.idf", -1.0, "scorer.idf holds what is no document frequency"),
        ("scorer.idf", 1e6, "scorer.idf holds what is no document frequency"),
        ("scorer.idf", 1e30, "scorer.idf holds what no fit gives"),
    ],
)
def test_a_number_that_cannot_be_is_refused_by_name(saved, name, junk, said):
    state, arrays = saved
    arrays[name][-1] = junk
    with pytest.raises(StateFormatError, match=said):
        context_from(state, arrays)


def test_a_chosen_column_must_be_one_of_those_kept(saved):
    state, arrays = saved
    n_columns = len(arrays["shape.columns"])
    arrays["shape.chosen"][-1] = n_columns - 1
    context_from(state, arrays)
    arrays["shape.chosen"][-1] = n_columns
    with pytest.raises(StateFormatError, match=r"shape\.chosen"):
        context_from(state, arrays)


def test_a_model_without_any_trait_is_refused(saved):
    state, arrays = saved
    n_domains = len(state["domains"])
    arrays["context.trait_scale"] = np.zeros(0)
    arrays["context.seen_scores"] = arrays["context.seen_scores"][:, :n_domains]
    arrays["scorer.weights"] = arrays["scorer.weights"][:, :n_domains]
    arrays["scorer.offset"] = arrays["scorer.offset"][:n_domains]
    with pytest.raises(StateFormatError, match="trait_scale is empty"):
        context_from(state, arrays)


def test_a_domain_more_than_there_are_scores_is_refused(saved):
    state, arrays = saved
    state["domains"] = [*state["domains"], "another"]
    with pytest.raises(StateFormatError, match=r"domains\.base_rate does not fit"):
        context_from(state, arrays)


def test_another_tokenizer_is_named(saved):
    state, arrays = saved
    state["n_pieces"] += 1
    with pytest.raises(
        StateFormatError, match=f"of {state['n_pieces']} pieces; the one"
    ):
        context_from(state, arrays)


def test_an_array_of_any_length_may_still_not_be_of_any_shape():
    arrays = {"a": np.zeros((2, 3))}
    assert finite(arrays, "a", np.float64, None, 3).shape == (2, 3)
    for shape in ((None,), (3, None), (2, 3, None)):
        with pytest.raises(StateFormatError, match=r"a does not fit: float64 \(2, 3\)"):
            finite(arrays, "a", np.float64, *shape)
