import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.errors import ConfigurationError, StateFormatError
from mixllm_integrations.core.form import FORM_FEATURES
from mixllm_integrations.core.prior import (
    QualityPrior,
    checked_prior,
    logit,
    shipped_prior,
    sigmoid,
    standardised,
)
from mixllm_integrations.core.reading import read
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, RoutingRecord

ENCODER = StaticEncoder.load()
TEXTS = ["Who wrote Faust?", "What is 17 * 23 + (4 / 2) - 11 ?", ""]
CANDIDATES = [
    Candidate("small", 0.1, 0.4, prior_quality=0.4),
    Candidate("large", 5.0, 15.0, prior_quality=0.8),
]


def labels(n, *, every=2):
    return [
        RoutingRecord(f"question {i} of {i % 5}", c.name, float(i % every == 0))
        for i in range(n)
        for c in CANDIDATES
    ]


# --- by hand -------------------------------------------------------------------


def test_ease_is_the_weighted_sum_of_standardised_features(prior):
    # Three pieces, none of them a number: (ln 4 - 2) / 0.5 · -0.5.
    reading = read(["one two three", ""], ENCODER)
    expected = [-(np.log(4.0) - 2.0), 0.0]
    np.testing.assert_allclose(prior.ease(reading), expected, rtol=1e-6)


def test_a_prediction_is_the_one_worked_out_by_hand(prior):
    reading = read(["one two three"], ENCODER)
    ease = 2.0 - np.log(4.0)
    cold = prior.predict(reading, np.array([0.5, 0.8]))
    # Odds of 1 and of 4 to 1, moved by half of the ease.
    odds = np.array([1.0, 4.0]) * np.exp(0.5 * ease)
    np.testing.assert_allclose(cold[0], odds / (1 + odds), rtol=1e-6)
    levelled = prior.predict(reading, np.array([0.5, 0.8]), level=np.array([ease, 0.0]))
    odds = np.array([1.0, 4.0 * np.exp(ease)])
    np.testing.assert_allclose(levelled[0], odds / (1 + odds), rtol=1e-6)


def test_a_blank_query_is_expected_to_be_answered_as_usual(prior):
    base = np.array([0.0, 0.37, 1.0])
    reading = read(["", " \n"], ENCODER)
    for level in (None, np.array([0.4, 0.0, -1.0])):
        assert prior.predict(reading, base, level=level).tolist() == [base.tolist()] * 2


def test_what_is_at_hand_for_some_candidates_is_what_is_computed_anew(prior):
    found = read(["one two three four five", ""], StaticEncoder.load())
    base, level = np.array([0.3, 0.8]), np.array([0.5, -0.2])
    for measured_at in (None, level):
        held = prior.of(base, level=measured_at)
        anew = prior.departures(found, base, level=measured_at)
        np.testing.assert_array_equal(held(found), anew)
        expected = prior.predict(found, base, level=measured_at)
        np.testing.assert_array_equal(held.quality(found), expected)
        np.testing.assert_allclose(expected, np.clip(base + anew, 0.0, 1.0))


def test_an_odd_query_counts_as_one_three_deviations_off():
    found = standardised(np.array([[1e9, -1e9, 2.0]]), np.ones(3), np.full(3, 0.5))
    assert found.tolist() == [[3.0, -3.0, 2.0]]


def test_logit_and_sigmoid_undo_each_other_but_near_certainty():
    quality = np.array([0.03, 0.5, 0.97])
    np.testing.assert_allclose(sigmoid(logit(quality)), quality)
    np.testing.assert_allclose(sigmoid(logit(np.array([0.0, 1.0]))), [0.02, 0.98])


@settings(deadline=None)
@given(st.text(max_size=200), st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_any_text_has_an_expected_quality_that_keeps_the_order_of_models(text, base):
    base = np.sort(np.array(base))
    found = shipped_prior().predict(read([text], ENCODER), base)
    assert found.shape == (1, len(base))
    assert ((found >= 0) & (found <= 1)).all()
    inside = (base > 0.02) & (base < 0.98)
    assert (np.diff(found[0, inside]) >= -1e-12).all()


# --- what ships ----------------------------------------------------------------


def test_the_shipped_prior_speaks_of_features_that_there_are():
    prior = shipped_prior()
    assert set(prior.features) <= set(FORM_FEATURES)
    assert 0.0 <= prior.cold_strength <= prior.fitted_strength <= 1.0


def test_formulae_look_harder_than_plain_questions_to_the_shipped_prior():
    ease = shipped_prior().ease(read(TEXTS, ENCODER))
    assert ease[1] < ease[0]
    assert ease[2] == 0.0


# --- files ---------------------------------------------------------------------


def test_a_saved_prior_is_the_same_one(prior, tmp_path):
    prior.save(tmp_path / "new", sources=["nowhere"])
    loaded = QualityPrior.load(tmp_path / "new")
    assert loaded.revision == prior.revision
    reading = read(TEXTS, ENCODER)
    assert loaded.ease(reading).tolist() == prior.ease(reading).tolist()


def test_the_revision_depends_on_every_number(prior):
    changed = QualityPrior(
        prior.features, prior.centre, prior.scale, prior.weights, 0.5, 0.75
    )
    heavier = QualityPrior(
        prior.features, prior.centre, prior.scale, prior.weights * 2, 0.5, 1.0
    )
    assert len({p.revision for p in (prior, changed, heavier)}) == 3


@pytest.mark.parametrize("name", ["prior.json", "prior.safetensors"])
def test_a_damaged_prior_is_refused(prior, tmp_path, name):
    prior.save(tmp_path)
    (tmp_path / name).write_bytes(b"{")
    with pytest.raises(StateFormatError, match="cannot be read"):
        QualityPrior.load(tmp_path)


def test_a_prior_that_is_not_the_described_one_is_refused(prior, tmp_path):
    prior.save(tmp_path)
    file = tmp_path / "prior.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"cold_strength": 0.9}))
    with pytest.raises(StateFormatError, match="restore it from a copy"):
        QualityPrior.load(tmp_path)


def test_unknown_features_and_other_shapes_are_refused(prior):
    with pytest.raises(ConfigurationError, match="mood"):
        QualityPrior(("mood",), np.ones(1), np.ones(1), np.ones(1), 1.0, 1.0)
    with pytest.raises(ConfigurationError, match="shapes"):
        QualityPrior(prior.features, np.ones(1), np.ones(2), np.ones(2), 1.0, 1.0)


# --- through the router --------------------------------------------------------


def test_a_router_without_labels_tells_hard_queries_from_easy_ones():
    quality = Router(CANDIDATES).predict(TEXTS).quality
    assert (quality[0] > quality[1]).all()
    assert (quality[:, 0] < quality[:, 1]).all()
    assert quality[2].tolist() == [0.4, 0.8]


def test_without_a_prior_every_query_is_alike_until_there_are_labels():
    quality = Router(CANDIDATES, prior="none").predict(TEXTS).quality
    assert quality.tolist() == [[0.4, 0.8]] * 3


@pytest.mark.parametrize("prior", [None, "own", 0.5, "None"])
def test_another_prior_is_refused(prior):
    with pytest.raises(ConfigurationError, match='"shipped", "none"'):
        Router(CANDIDATES, prior=prior)
    with pytest.raises(ConfigurationError):
        checked_prior(prior)


def test_labels_without_any_scatter_overrule_the_prior():
    records = [RoutingRecord(f"{i} + 1?", "small", 0.7) for i in range(300)]
    router = Router(CANDIDATES[:1], predictor="ridge").fit(records)
    queries = ["1000 + 1?", "Who wrote Faust?"]
    np.testing.assert_allclose(router.predict(queries).quality, 0.7, atol=0.02)


@pytest.mark.parametrize("n", [0, 30])
def test_a_loaded_router_has_the_prior_that_it_had(tmp_path, prior, n):
    for chosen in ("shipped", "none", prior):
        router = Router(CANDIDATES, prior=chosen, predictor="ridge")
        if n:
            router.fit(labels(n))
        folder = tmp_path / str(id(chosen))
        router.save(folder)
        passed = {"prior": chosen} if chosen is prior else {}
        loaded = Router.load(folder, **passed)
        found, expected = (r.predict(TEXTS).quality for r in (loaded, router))
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_saved_router_does_not_hold_the_prior_itself(tmp_path):
    router = Router(CANDIDATES)
    router.save(tmp_path / "r")
    state = json.loads((tmp_path / "r" / "state.json").read_text())
    assert shipped_prior().revision in json.dumps(state)
    assert "log_pieces" not in json.dumps(state)


def test_heads_that_lean_on_another_prior_are_refused(tmp_path, prior):
    Router(CANDIDATES, prior=prior, predictor="ridge").fit(labels(30)).save(
        tmp_path / "r"
    )
    with pytest.raises(StateFormatError, match="pass prior="):
        Router.load(tmp_path / "r")
    assert Router.load(tmp_path / "r", prior=prior).is_fitted


def test_another_prior_under_a_router_without_labels_is_told(tmp_path, prior, caplog):
    Router(CANDIDATES, prior=prior).save(tmp_path / "r")
    Router.load(tmp_path / "r", prior=prior)
    assert not caplog.records
    Router.load(tmp_path / "r")
    assert "pass prior=" in caplog.text


def test_thousands_of_labels_need_no_prior(tmp_path, prior):
    router = Router(CANDIDATES, prior=prior, predictor="ridge").fit(labels(2_000))
    assert not router._knowledge.leans
    router.save(tmp_path / "r")
    found = Router.load(tmp_path / "r").predict(TEXTS).quality
    np.testing.assert_allclose(found, router.predict(TEXTS).quality, rtol=1e-9)
