import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.ngrams import fold_of_rows
from mixllm_integrations.core.predictors import selection
from mixllm_integrations.core.predictors.base import PREDICTOR_KINDS, column_means
from mixllm_integrations.core.predictors.linear import RidgePredictor
from mixllm_integrations.core.predictors.selection import (
    KINDS,
    LENGTH,
    QUALITY,
    HeadBank,
    Preference,
    checked_kind,
    fit_heads,
)

NAN = np.nan
D = 6
ORDER = ("ridge", "forest")


def contexts(n, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, D))
    x[:, -1] = 1.0
    return x


def straight(x, seed=0):
    """Return labels of two candidates that are linear in the context."""
    noise = 0.1 * np.random.default_rng(seed + 50).normal(size=(len(x), 2))
    return np.column_stack([x[:, 0], x[:, 1] - x[:, 2]]) + noise


def stepped(x, seed=0):
    """Return labels of two candidates that no line can follow."""
    noise = 0.1 * np.random.default_rng(seed + 60).normal(size=(len(x), 2))
    inside = np.column_stack([np.abs(x[:, 0]) > 0.7, np.abs(x[:, 1]) > 0.7])
    return inside + noise


def told(slopes):
    """Return a ridge head per slope: it says the slope times feature 0."""
    coefficients = np.zeros((D, len(slopes)))
    coefficients[0] = slopes
    return RidgePredictor(coefficients, np.zeros(len(slopes)))


def columns(*chosen):
    return np.array(chosen, dtype=np.intp)


# --- kinds ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["auto", *PREDICTOR_KINDS])
def test_every_kind_and_auto_may_be_asked_for(name):
    assert checked_kind(name) == name


@pytest.mark.parametrize("name", ["", "Ridge", "svm", None])
def test_an_unknown_kind_is_named_with_those_that_are_allowed(name):
    with pytest.raises(ConfigurationError, match=f"auto.*ensemble.*not {name!r}"):
        checked_kind(name)


@pytest.mark.parametrize("preference", [QUALITY, LENGTH])
def test_a_preference_ranks_every_kind_once(preference):
    assert sorted(preference.order) == sorted(PREDICTOR_KINDS)
    assert 0 < preference.clearly <= 1


# --- the choice ----------------------------------------------------------------


def choose(losses, *, clearly=0.9, own_gain=0.1):
    """Choose between ridge and forest by losses, shape (n, n_candidates)."""
    arrays = {kind: np.array(loss, dtype=np.float64) for kind, loss in losses.items()}
    return selection._choose(arrays, ORDER, Preference(ORDER, clearly, own_gain))


def steady(*means, n=100, jitter=0.01):
    """Return losses of these means that vary a little from query to query."""
    waves = jitter * np.cos(np.arange(n))[:, None]
    return np.array(means) + waves - waves.mean()


def test_a_kind_that_is_a_little_better_is_not_preferred():
    ridge, forest = steady(1.0, 1.0), steady(0.95, 0.95, jitter=0.02)
    assert choose({"ridge": ridge, "forest": forest}) == ["ridge", "ridge"]


def test_a_kind_that_is_clearly_better_serves_all_candidates():
    ridge, forest = steady(1.0, 1.0), steady(0.7, 1.0, jitter=0.02)
    assert choose({"ridge": ridge, "forest": forest}) == ["forest", "forest"]


def test_one_candidate_gets_its_own_kind_where_that_is_clearly_better():
    # Over all: 1 against (0.8 + 1.2) / 2 = 1, so ridge; 0.8 beats 0.9 for the first.
    ridge, forest = steady(1.0, 1.0), steady(0.8, 1.2, jitter=0.02)
    assert choose({"ridge": ridge, "forest": forest}) == ["forest", "ridge"]


def test_one_candidate_gets_no_kind_of_its_own_by_chance():
    # Gains of 0.2 on average with a standard error of 5 / √100 = 0.5.
    ridge = steady(10.0, 10.0)
    forest = ridge - 0.2 + 5.0 * np.resize([1.0, -1.0], (100, 1)) * [1.0, 0.0]
    forest[:, 1] += 0.4
    assert choose({"ridge": ridge, "forest": forest}, own_gain=0.001) == ["ridge"] * 2


def test_a_candidate_without_any_loss_gets_what_the_others_get():
    ridge, forest = steady(1.0, NAN), steady(0.5, NAN, jitter=0.02)
    assert choose({"ridge": ridge, "forest": forest}) == ["forest", "forest"]


# --- the fit -------------------------------------------------------------------


@pytest.mark.parametrize("preference", [QUALITY, LENGTH])
def test_auto_follows_a_line_with_a_ridge(preference):
    x = contexts(300)
    bank, _, _ = fit_heads(
        x, straight(x), predictor="auto", preference=preference, seed=0
    )
    errors = bank.errors
    assert min(errors, key=errors.get) in {"ridge", "ensemble"}
    assert set(bank.kinds) <= {"ridge", "ensemble"}
    assert bank.predict(contexts(9, 1)).shape == (9, 2)


@pytest.mark.parametrize("preference", [QUALITY, LENGTH])
def test_auto_does_not_follow_steps_with_a_line(preference):
    x, fresh = contexts(600), contexts(300, seed=1)
    bank, _, _ = fit_heads(
        x, stepped(x), predictor="auto", preference=preference, seed=0
    )
    assert "ridge" not in bank.kinds
    assert set(bank.errors) == set(PREDICTOR_KINDS)
    truth = stepped(fresh, 1)
    error = ((bank.predict(fresh) - truth) ** 2).mean()
    assert error < 0.7 * truth.var(axis=0).mean()


@pytest.mark.parametrize("kind", PREDICTOR_KINDS)
def test_a_kind_that_is_asked_for_serves_everybody(kind):
    x = contexts(60)
    y = straight(x)
    y[:30, 1] = NAN
    bank, honest, rows = fit_heads(x, y, predictor=kind, seed=0)
    assert bank.kinds == [kind, kind]
    assert set(bank.errors) == {kind}
    assert honest.shape == (60, 2)
    assert rows.tolist() == list(range(60))


@pytest.mark.parametrize("kind", ["ridge", "forest", "knn", "mlp"])
def test_a_bank_of_one_kind_is_that_kind_fitted_on_everything(kind):
    x, fresh = contexts(60), contexts(20, seed=1)
    y = straight(x)
    bank, _, _ = fit_heads(x, y, predictor=kind, seed=5)
    alone = KINDS[kind].fit(x, y, seed=5)
    np.testing.assert_allclose(bank.predict(fresh), alone.predict(fresh), atol=1e-5)


def test_honest_predictions_come_from_fits_without_the_query():
    x = contexts(50)
    y = straight(x)
    y[::4, 0] = NAN
    bank, honest, rows = fit_heads(x, y, predictor="ridge", seed=2)
    folds = fold_of_rows(50, n_folds=selection._FOLDS, seed=2)
    for fold in range(selection._FOLDS):
        inside = folds != fold
        fitted = RidgePredictor.fit(x[inside], y[inside], seed=2)
        np.testing.assert_allclose(
            honest[~inside], fitted.predict(x[~inside]), atol=1e-12
        )
    loss = (honest - y[rows]) ** 2
    assert bank.errors["ridge"] == pytest.approx(np.nanmean(loss))
    assert not np.allclose(honest, bank.predict(x), atol=1e-4)


def test_labels_that_are_noise_are_predicted_no_better_than_by_their_mean():
    x = contexts(120)
    y = np.random.default_rng(9).normal(size=(120, 2))
    for kind in PREDICTOR_KINDS:
        bank, honest, _ = fit_heads(x, y, predictor=kind, seed=0)
        inside = ((bank.predict(x) - y) ** 2).mean()
        assert bank.errors[kind] > 0.9 * y.var(), kind
        assert inside < bank.errors[kind], kind
        assert np.isfinite(honest).all()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 20])
def test_auto_works_from_very_few_queries(n):
    x = contexts(n)
    y = np.where(straight(x) > 0, 1.0, 0.0)
    bank, honest, rows = fit_heads(x, y, predictor="auto", seed=0)
    assert np.isfinite(bank.predict(contexts(5, 1))).all()
    assert honest.shape == (n, 2)
    assert rows.size == n
    assert all(np.isfinite(error) for error in bank.errors.values())


def test_constant_labels_of_one_candidate_are_predicted_as_they_are():
    x = contexts(40)
    bank, honest, _ = fit_heads(x, np.full((40, 1), 0.5), predictor="auto", seed=0)
    np.testing.assert_allclose(bank.predict(contexts(5, 1)), 0.5, atol=1e-6)
    np.testing.assert_allclose(honest, 0.5, atol=1e-6)


def test_a_large_table_is_judged_on_a_subsample_and_learned_whole(monkeypatch):
    monkeypatch.setattr(selection, "_SUBSAMPLE", 40)
    x = contexts(100)
    y = straight(x)
    bank, honest, rows = fit_heads(x, y, predictor="ridge", seed=0)
    assert honest.shape == (40, 2)
    assert len(set(rows.tolist())) == 40
    whole = RidgePredictor.fit(x, y, seed=0)
    assert np.array_equal(bank.predict(x), whole.predict(x))


@pytest.mark.parametrize("predictor", ["auto", *PREDICTOR_KINDS])
def test_a_candidate_labelled_outside_the_subsample_is_fitted_all_the_same(
    monkeypatch, predictor
):
    monkeypatch.setattr(selection, "_SUBSAMPLE", 30)
    x = contexts(60)
    y = straight(x)
    _, _, rows = fit_heads(x, y, predictor="ridge", seed=0)
    outside = np.setdiff1d(np.arange(60), rows)[0]
    y[:, 1] = NAN
    y[outside, 1] = 7.0
    bank, _, _ = fit_heads(x, y, predictor=predictor, seed=0)
    np.testing.assert_allclose(bank.predict(x)[:, 1], 7.0, atol=1e-5)
    assert all(np.isfinite(error) for error in bank.errors.values())


def test_queries_without_any_label_are_not_what_kinds_are_judged_on(monkeypatch):
    monkeypatch.setattr(selection, "_SUBSAMPLE", 10)
    x = contexts(500)
    y = np.full((500, 2), NAN)
    y[::50] = straight(x[::50])
    bank, honest, rows = fit_heads(x, y, predictor="auto", seed=0)
    assert rows.tolist() == list(range(0, 500, 50))
    assert np.isfinite(honest).all()
    assert all(np.isfinite(error) for error in bank.errors.values())


def test_the_seed_decides_the_bank():
    x, fresh = contexts(80), contexts(10, seed=1)
    first, again = (fit_heads(x, stepped(x), predictor="auto", seed=4) for _ in "ab")
    assert first[0].kinds == again[0].kinds
    assert np.array_equal(first[0].predict(fresh), again[0].predict(fresh))
    assert np.array_equal(first[1], again[1])


# --- banks ---------------------------------------------------------------------


def mixed_bank():
    """Return a bank whose candidate i says i times feature 0, in three parts."""
    parts = (
        (columns(1, 3), told([1.0, 3.0])),
        (columns(0), told([0.0])),
        (columns(2, 4), told([2.0, 4.0])),
    )
    return HeadBank(parts, 5, {"ridge": 0.1})


def slopes(bank):
    probe = np.zeros((1, D))
    probe[0, 0] = 1.0
    return bank.predict(probe)[0].tolist()


def test_a_bank_puts_every_part_into_its_columns():
    assert slopes(mixed_bank()) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert mixed_bank().kinds == ["ridge"] * 5


@settings(max_examples=60)
@given(st.permutations(range(5)), st.integers(0, 5), st.data())
def test_selecting_and_selecting_again_keeps_every_candidates_own_head(
    order, n_kept, data
):
    kept = order[:n_kept]
    chosen = mixed_bank().select(kept)
    assert slopes(chosen) == [float(i) for i in kept]
    again = data.draw(st.permutations(range(len(kept))))
    assert slopes(chosen.select(again)) == [float(kept[i]) for i in again]
    assert chosen.errors == {"ridge": 0.1}


def test_a_joined_bank_has_the_other_candidates_behind_its_own():
    newcomers = HeadBank(((columns(1, 0), told([20.0, 10.0])),), 2, {"knn": 0.3})
    joined = mixed_bank().joined(newcomers)
    assert joined.n_candidates == 7
    assert slopes(joined) == [0.0, 1.0, 2.0, 3.0, 4.0, 10.0, 20.0]
    assert slopes(joined.select([6, 0, 5])) == [20.0, 0.0, 10.0]
    assert joined.errors == {"ridge": 0.1, "knn": 0.3}


def test_joining_changes_nothing_of_those_who_were_there_bit_for_bit():
    x, fresh = contexts(80), contexts(30, seed=1)
    bank, _, _ = fit_heads(x, stepped(x), predictor="auto", seed=0)
    other, _, _ = fit_heads(x, straight(x), predictor="auto", seed=9)
    before, newcomers = bank.predict(fresh), other.predict(fresh)
    joined = bank.joined(other).predict(fresh)
    assert np.array_equal(joined[:, :2], before)
    assert np.array_equal(joined[:, 2:], newcomers)


def test_means_stand_in_where_there_is_but_one_query():
    y = np.array([[0.2, 0.9]])
    bank, honest, _ = fit_heads(contexts(1), y, predictor="auto", seed=0)
    np.testing.assert_allclose(honest, [column_means(y)])
    np.testing.assert_allclose(bank.predict(contexts(4, 1)), [[0.2, 0.9]] * 4)
