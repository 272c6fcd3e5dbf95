from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.core.context import ContextModel
from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.predictors import heads as module
from mixllm_integrations.core.predictors.base import column_means
from mixllm_integrations.core.predictors.heads import (
    UNKNOWN_OUTPUT_TOKENS,
    CandidateHeads,
    prior_quality,
)
from mixllm_integrations.core.predictors.linear import RidgePredictor
from mixllm_integrations.core.predictors.selection import HeadBank
from mixllm_integrations.core.reading import read
from mixllm_integrations.core.types import Candidate

NAN = np.nan
NOT_BLANK = np.zeros(1, dtype=bool)


# --- priors --------------------------------------------------------------------


def priced(price, **more):
    return Candidate("new", price, price, **more)


def test_a_declared_quality_is_the_prior_whatever_others_do():
    others = [(priced(1.0), 0.1)] * 9
    assert prior_quality(priced(1.0, prior_quality=0.0), others) == 0.0
    assert prior_quality(priced(1.0, prior_quality=0.7), others) == 0.7


def test_the_prior_grows_with_the_decades_of_the_price():
    at_one, per_decade = module._PRIOR_AT_ONE_DOLLAR, module._PRIOR_PER_DECADE
    assert prior_quality(priced(1.0)) == pytest.approx(at_one)
    assert prior_quality(priced(10.0)) == pytest.approx(at_one + per_decade)
    # Three parts of input to one of output: (3·0.8 + 1.6) / 4 = 1.
    assert prior_quality(Candidate("a", 0.8, 1.6)) == pytest.approx(at_one)


def test_a_candidate_of_the_same_price_is_worth_ten_guesses():
    guess = module._PRIOR_AT_ONE_DOLLAR
    found = prior_quality(priced(1.0), [(priced(1.0), 0.9)])
    assert found == pytest.approx((0.9 + 0.1 * guess) / 1.1)


def test_candidates_of_far_away_prices_say_little():
    # A decade away: exp(-(1 / 0.3)² / 2) = 0.0039 against 0.1 for the guess.
    guess = prior_quality(priced(1.0))
    found = prior_quality(priced(1.0), [(priced(10.0), 1.0)])
    assert found == pytest.approx((0.0039 + 0.1 * guess) / 0.1039, abs=1e-3)


@given(
    price=st.floats(0, 1e3),
    others=st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 1)), max_size=5),
)
def test_a_prior_is_a_quality(price, others):
    known = [(priced(p), q) for p, q in others]
    assert 0.0 <= prior_quality(priced(price), known) <= 1.0


@given(st.floats(0, 1e3), st.floats(0, 1e3))
def test_without_others_a_higher_price_never_lowers_the_prior(one, other):
    low, high = sorted((one, other))
    assert prior_quality(priced(low)) <= prior_quality(priced(high))


# --- lengths -------------------------------------------------------------------


def test_raised_lengths_stay_between_nothing_and_the_longest_answer():
    found = module._raised(np.array([[-3.0, 0.0, np.log(101.0), 99.0]]))
    np.testing.assert_allclose(found, [[0.0, 0.0, 100.0, 200_000.0]])


def test_smearing_is_the_ratio_of_means_over_what_is_known():
    truth = np.array([[100.0, NAN, NAN, 9.0, 900.0], [300.0, 80.0, NAN, 9.0, 900.0]])
    said = np.array([[50.0, 70.0, 5.0, 0.0, 1.0], [150.0, 40.0, 5.0, 0.0, 1.0]])
    # 400/200; 80/40; nothing known; nothing said; 900, but no more than 5.
    assert module._smearing(truth, said).tolist() == [2.0, 2.0, 1.0, 1.0, 5.0]


def test_a_candidate_without_any_length_gets_the_mean_of_the_others():
    filled = module._without_gaps(np.array([[100.0, NAN, NAN], [NAN, NAN, 300.0]]))
    expected = [[100.0, 200.0, NAN], [NAN, 200.0, 300.0]]
    np.testing.assert_array_equal(filled, expected)


def test_where_no_length_was_ever_seen_there_is_a_default():
    filled = module._without_gaps(np.full((2, 2), NAN))
    assert filled.tolist() == [[UNKNOWN_OUTPUT_TOKENS] * 2] * 2


# --- a pair by hand ------------------------------------------------------------


def bank(*slopes):
    """Return ridge heads on contexts (feature, 1) that say slope times feature."""
    coefficients = np.array([slopes, [0.0] * len(slopes)])
    head = RidgePredictor(coefficients, np.zeros(len(slopes)))
    return HeadBank(((np.arange(len(slopes)), head),), len(slopes), {})


def two():
    return CandidateHeads(
        ("a", "b"),
        bank(0.5, -1.0),
        bank(np.log(101.0), np.log(11.0)),
        np.array([1.0, 2.0]),
        np.array([0.4, 0.6]),
        np.array([33.0, 44.0]),
        np.array([7, 8]),
        shift=np.zeros(2),
        leans=np.zeros(2),
        level=np.zeros(2),
        trust=np.ones(2),
    )


def test_predictions_are_those_worked_out_by_hand():
    quality, tokens = two().predict(np.array([[1.0, 1.0]]), NOT_BLANK)
    # 0.5 and -1, cut at 0; e^ln(101) - 1 = 100, and (11 - 1)·2 after smearing.
    assert quality.tolist() == [[0.5, 0.0]]
    np.testing.assert_allclose(tokens, [[100.0, 20.0]])


def test_a_blank_query_gets_the_means():
    contexts = np.array([[1.0, 1.0], [9.0, 1.0]])
    quality, tokens = two().predict(contexts, np.array([False, True]))
    assert quality.tolist() == [[0.5, 0.0], [0.4, 0.6]]
    np.testing.assert_allclose(tokens, [[100.0, 20.0], [33.0, 44.0]])


def test_selecting_takes_everything_of_a_candidate_along():
    chosen = two().select(["b", "a"])
    quality, tokens = chosen.predict(np.array([[1.0, 1.0]]), NOT_BLANK)
    assert chosen.names == ("b", "a")
    assert quality.tolist() == [[0.0, 0.5]]
    np.testing.assert_allclose(tokens, [[20.0, 100.0]])
    assert chosen.mean_quality.tolist() == [0.6, 0.4]
    assert chosen.mean_output_tokens.tolist() == [44.0, 33.0]
    assert chosen.n_labels.tolist() == [8, 7]


def test_joining_puts_the_others_behind():
    joined = two().select(["b"]).joined(two().select(["a"]))
    same = two().select(["b", "a"])
    assert joined.names == same.names
    for name in (
        *("smearing", "mean_quality", "mean_output_tokens", "n_labels"),
        *("shift", "leans", "level", "trust"),
    ):
        assert np.array_equal(getattr(joined, name), getattr(same, name)), name
    probe = np.array([[0.3, 1.0], [2.0, 1.0]])
    blank = np.array([False, False])
    for mine, theirs in zip(
        joined.predict(probe, blank), same.predict(probe, blank), strict=True
    ):
        assert np.array_equal(mine, theirs)


def test_a_head_that_is_half_trusted_goes_half_way_from_the_mean():
    heads = replace(two(), trust=np.array([0.5, 1.0]), shift=np.array([0.02, 0.0]))
    quality, _ = heads.predict(np.array([[1.0, 1.0]]), NOT_BLANK)
    # Half of 0.1 above the mean of 0.4, and 0.02 more.
    np.testing.assert_allclose(quality, [[0.47, 0.0]])


def test_a_head_that_leans_adds_to_the_departure_of_the_prior(prior):
    # Ease of five tokens' query: 2·0.5 = 1; at level 0.25 the odds rise by 0.75.
    heads = replace(two(), leans=np.array([1.0, 0.0]), level=np.array([0.25, 0.0]))
    reading = read(["one two three four five"], StaticEncoder.load())
    ease = float(prior.ease(reading)[0])
    odds = np.log(0.4 / 0.6)
    departure = 1 / (1 + np.exp(-(odds + ease - 0.25))) - 0.4
    departures = prior.of(heads.mean_quality, level=heads.level)
    found = heads.leans * departures(reading)
    np.testing.assert_allclose(found, [[departure, 0.0]])
    quality, _ = heads.predict(np.array([[0.4, 1.0]]), NOT_BLANK, found)
    np.testing.assert_allclose(quality, [[0.2 + departure, 0.0]])


# --- levels --------------------------------------------------------------------


def levels(means, counts, candidates, quality=None, **options):
    """Return the level of each candidate after leaning towards its prior."""
    n = len(means)
    heads = CandidateHeads(
        tuple(c.name for c in candidates),
        bank(*[0.0] * n),
        bank(*[0.0] * n),
        np.ones(n),
        np.array(means),
        np.ones(n),
        np.array(counts),
        *(np.zeros(n) for _ in range(3)),
        trust=np.ones(n),
    ).leaning(candidates, quality, **options)
    return heads.mean_quality + heads.shift


def declared(*qualities):
    return [
        Candidate(f"c{i}", 1.0, 1.0, prior_quality=q) for i, q in enumerate(qualities)
    ]


def test_means_of_few_labels_are_drawn_to_declared_qualities():
    pool = declared(0.3, 0.5, 0.7)
    few = levels([0.5, 0.5, 0.5], [10, 10, 10], pool)
    many = levels([0.5, 0.5, 0.5], [10_000] * 3, pool)
    assert few[0] < 0.4
    assert few[2] > 0.6
    np.testing.assert_allclose(many, 0.5, atol=0.002)


def test_declared_qualities_that_are_all_too_low_are_taken_as_a_ranking():
    found = levels([0.7, 0.8, 0.9], [200] * 3, declared(0.3, 0.4, 0.5))
    np.testing.assert_allclose(found, [0.7, 0.8, 0.9], atol=0.01)


def test_priors_by_price_count_less_than_declared_ones():
    plain = [replace(c, prior_quality=None) for c in declared(0.5, 0.5)]
    by_price = levels([0.3, 0.7], [50, 50], plain)
    told = levels([0.3, 0.7], [50, 50], declared(0.5, 0.5))
    assert np.ptp(told) < np.ptp(by_price) < 0.4


def test_labels_that_do_not_scatter_are_believed():
    constant = np.tile([0.2, 0.8], (10, 1))
    found = levels([0.2, 0.8], [10, 10], declared(0.5, 0.5), constant)
    np.testing.assert_allclose(found, [0.2, 0.8], atol=0.1)


def test_two_labels_that_agree_are_no_certainty():
    # Scatter (0 + 5 · 0.2) / (1 + 5) = 1/6; the declared spread stays about 0.05.
    found = levels([1.0], [2], declared(0.5), np.ones((2, 1)))
    assert found[0] < 0.75


@given(
    means=st.lists(st.floats(0, 1), min_size=1, max_size=5),
    counts=st.integers(1, 10_000),
    told=st.floats(0, 1),
)
def test_a_level_lies_between_its_mean_and_its_prior_moved(means, counts, told):
    pool = declared(*[told] * len(means))
    found = levels(means, [counts] * len(means), pool)
    assert np.isfinite(found).all()
    assert found.min() >= min([*means, told]) - 1e-9
    assert found.max() <= max([*means, told]) + 1e-9


# --- learning ------------------------------------------------------------------


@pytest.fixture(scope="module")
def training(world):
    """Contexts out of fold of a small world, how to make fresh ones, and labels."""
    encoder = StaticEncoder.load()
    sample = world.sample(500, seed=1)
    above = sample.quality - sample.quality.mean(axis=0)
    model, contexts = ContextModel.fit(
        read(sample.queries, encoder),
        sample.tags,
        above.mean(axis=1, keepdims=True),
        encoder=encoder,
        n_domains=20,
        seed=0,
    )

    def fresh_contexts(queries):
        return model.contexts(read(queries, encoder))

    return sample, contexts, fresh_contexts


def fitted(sample, contexts, *, predictor, quality=None, tokens=None):
    return CandidateHeads.fit(
        [c.name for c in sample.candidates],
        contexts,
        sample.quality if quality is None else quality,
        sample.output_tokens if tokens is None else tokens,
        predictor=predictor,
        seed=0,
    )


@pytest.mark.parametrize(
    "predictor", ["auto", "ridge", "forest", "knn", "mlp", "ensemble"]
)
def test_heads_beat_the_mean_and_predict_lengths_without_bias(
    training, world, predictor
):
    sample, contexts, fresh_contexts = training
    learned = fitted(sample, contexts, predictor=predictor)
    fresh = world.sample(600, seed=2)
    quality, tokens = learned.predict(
        fresh_contexts(fresh.queries), np.zeros(600, dtype=bool)
    )
    assert 0 <= quality.min() <= quality.max() <= 1
    error = ((quality - fresh.expected_quality) ** 2).mean(axis=0)
    by_mean = ((learned.mean_quality - fresh.expected_quality) ** 2).mean(axis=0)
    assert (error < 0.6 * by_mean).all()
    against_labels = ((quality - fresh.quality) ** 2).mean()
    assert against_labels < 0.9 * ((learned.mean_quality - fresh.quality) ** 2).mean()
    # A network on 500 queries strays further, up or down by what it has drawn.
    strays = 0.2 if predictor == "mlp" else 0.12
    np.testing.assert_allclose(
        tokens.mean(axis=0), fresh.output_tokens.mean(axis=0), rtol=strays
    )
    logs = np.log1p(fresh.output_tokens)
    mean_logs = np.log1p(sample.output_tokens).mean(axis=0)
    length_error = (np.log1p(tokens) - logs) ** 2
    assert length_error.mean() < 0.9 * ((mean_logs - logs) ** 2).mean()


def test_without_smearing_lengths_would_be_too_short(training):
    # Answers vary by a log-normal factor of σ = 0.6: a head that is right in the
    # logarithm falls short of the mean by the factor exp(0.6² / 2) = 1.2.
    sample, contexts, _ = training
    learned = fitted(sample, contexts, predictor="ridge")
    assert (learned.smearing > 1.08).all()
    assert (learned.smearing < 1.4).all()


def test_partial_labels_and_lengths_are_enough(training, world):
    sample, contexts, fresh_contexts = training
    rng = np.random.default_rng(0)
    quality = np.where(rng.random(sample.quality.shape) < 0.5, NAN, sample.quality)
    tokens = sample.output_tokens.copy()
    tokens[:, 1] = NAN  # never seen
    tokens[10:, 2] = NAN  # ten of them
    learned = fitted(
        sample, contexts, predictor="ridge", quality=quality, tokens=tokens
    )
    assert learned.n_labels.tolist() == np.isfinite(quality).sum(axis=0).tolist()
    np.testing.assert_allclose(learned.mean_quality, column_means(quality))
    fresh = world.sample(300, seed=3)
    found, lengths = learned.predict(
        fresh_contexts(fresh.queries), np.zeros(300, dtype=bool)
    )
    error = ((found - fresh.expected_quality) ** 2).mean()
    by_mean = ((learned.mean_quality - fresh.expected_quality) ** 2).mean()
    assert error < 0.6 * by_mean
    seen = tokens[np.isfinite(tokens)].mean()
    np.testing.assert_allclose(lengths[:, 1], seen, rtol=1e-6)


def test_a_newcomer_is_fitted_as_it_would_be_among_nobody(training):
    sample, contexts, _ = training
    everyone = fitted(sample, contexts, predictor="ridge")
    alone = CandidateHeads.fit(
        ["lawyer"],
        contexts,
        sample.quality[:, 1:2],
        sample.output_tokens[:, 1:2],
        predictor="ridge",
        seed=0,
    )
    others = everyone.select(["calculator", "all-round"])
    joined = others.joined(alone)
    blank = np.zeros(500, dtype=bool)
    before, after = others.predict(contexts, blank), joined.predict(contexts, blank)
    for mine, theirs in zip(before, after, strict=True):
        assert np.array_equal(mine, theirs[:, :2])  # bit for bit
    np.testing.assert_allclose(
        after[0][:, 2], alone.predict(contexts, blank)[0][:, 0], rtol=1e-12
    )
