from dataclasses import replace

import numpy as np
import pytest

from mixllm_integrations.core.context import ContextModel
from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.forecast import Forecaster, Knowledge
from mixllm_integrations.core.predictors.heads import (
    UNKNOWN_OUTPUT_TOKENS,
    CandidateHeads,
    prior_quality,
)
from mixllm_integrations.core.predictors.linear import RidgePredictor
from mixllm_integrations.core.predictors.selection import HeadBank
from mixllm_integrations.core.pricing import CostModel
from mixllm_integrations.core.reading import read
from mixllm_integrations.core.records import tabulate
from mixllm_integrations.core.types import Candidate, Outcome

NAN = np.nan
ENCODER = StaticEncoder.load()
BARE = ContextModel.unfitted(ENCODER.dimension)
A, B = Candidate("a", 1.0, 10.0), Candidate("b", 2.0, 0.0)
WORDS = "one two three four five"  # five tokens by our count


def constant(*values):
    """Return heads that say the same of every query."""
    head = RidgePredictor(np.zeros((BARE.dimension, len(values))), np.array(values))
    return HeadBank(((np.arange(len(values)), head),), len(values), {})


def hand_made():
    """Return what is known of two candidates: lengths 100 and 50, quality 0.6, 0.3."""
    heads = CandidateHeads(
        ("a", "b"),
        constant(0.6, 0.3),
        constant(np.log(101.0), np.log(51.0)),
        np.ones(2),
        np.array([0.5, 0.25]),
        np.array([80.0, 40.0]),
        np.array([90, 90]),
        shift=np.zeros(2),
        leans=np.zeros(2),
        level=np.zeros(2),
        trust=np.ones(2),
    )
    costs = CostModel(np.array([2.0, 1.0]), np.array([1.0, 3.0]), np.zeros(2))
    return Knowledge(BARE, heads, costs, version=1)


def forecast(knowledge, candidates, queries=(WORDS,), **options):
    reading = read(queries, ENCODER)
    contexts = knowledge.context.contexts(reading)
    return Forecaster(knowledge, candidates).forecast(reading, contexts, **options)


# --- what is expected, by hand -------------------------------------------------


def test_a_forecast_is_the_one_worked_out_by_hand():
    found = forecast(hand_made(), [A, B])
    np.testing.assert_allclose(found.quality, [[0.6, 0.3]])
    np.testing.assert_allclose(found.output_tokens, [[100.0, 50.0]])
    # a: 5 tokens by our count, 10 by its own; 10·1 + 100·10 millionths.
    # b: 5·2 millionths, and its bills are three times its list price.
    np.testing.assert_allclose(found.cost, [[1010e-6, 30e-6]])
    assert found.input_tokens.tolist() == [5.0]


def test_known_prompt_lengths_are_taken_as_they_are():
    found = forecast(
        hand_made(), [A, B], [WORDS, WORDS], input_tokens=np.array([1000.0, NAN])
    )
    np.testing.assert_allclose(
        found.cost, [[2000e-6, 6000e-6], [1010e-6, 30e-6]], rtol=1e-12
    )
    assert found.input_tokens.tolist() == [1000.0, 5.0]


def test_a_shift_moves_every_prediction_and_the_mean_alike():
    few = hand_made()
    heads = replace(few.heads, shift=np.array([0.0, 0.1]))
    found = forecast(replace(few, heads=heads), [A, B], [WORDS, " "])
    np.testing.assert_allclose(found.quality, [[0.6, 0.4], [0.5, 0.35]])


def test_a_bill_is_what_was_told_or_else_the_corrected_list_price():
    forecaster = Forecaster(hand_made(), [A, B])
    assert forecaster.billed("a", Outcome(10, 10, cost=0.5)) == 0.5
    # a: 10·1 + 100·10 millionths; b: 10·2 millionths, billed three times over
    assert forecaster.billed("a", Outcome(10, 100)) == pytest.approx(1010e-6)
    assert forecaster.billed("b", Outcome(10, 100)) == pytest.approx(60e-6)
    assert forecaster.billed("a", Outcome(10, 0)) is None
    assert forecaster.billed("gone", Outcome(10, 100)) is None


def test_the_order_of_candidates_decides_the_columns_and_nothing_else():
    one, other = (forecast(hand_made(), pair) for pair in ([A, B], [B, A]))
    for name in ("quality", "output_tokens", "cost"):
        assert np.array_equal(getattr(one, name), getattr(other, name)[:, ::-1])


def test_a_candidate_that_is_left_out_changes_nothing_of_the_other():
    both, alone = forecast(hand_made(), [A, B]), forecast(hand_made(), [B])
    for name in ("quality", "output_tokens", "cost"):
        assert np.array_equal(getattr(both, name)[:, 1:], getattr(alone, name))


def test_a_blank_query_gets_the_means():
    found = forecast(hand_made(), [A, B], [" \n"])
    assert found.quality.tolist() == [[0.5, 0.25]]
    assert found.output_tokens.tolist() == [[80.0, 40.0]]
    np.testing.assert_allclose(found.cost, [[800e-6, 0.0]])


def test_a_newcomer_starts_from_its_prior_beside_those_who_are_known():
    newcomer = Candidate("new", 1.0, 1.0, prior_quality=0.8)
    found = forecast(hand_made(), [newcomer, A, B], [" "])
    np.testing.assert_allclose(found.quality, [[0.8, 0.5, 0.25]])
    found = forecast(hand_made(), [newcomer, A, B])
    np.testing.assert_allclose(found.quality[:, 1:], [[0.6, 0.3]])
    # a is 0.1 above its mean and b 0.05 above its own; a's mean is nearer.
    assert 0.89 < found.quality[0, 0] < 0.9
    # Its answers are thought to be as long as the others' on average: (80 + 40)/2.
    np.testing.assert_allclose(found.output_tokens, [[60.0, 100.0, 50.0]])
    np.testing.assert_allclose(found.cost, [[65e-6, 1010e-6, 30e-6]])


def test_a_newcomer_without_a_prior_is_like_those_of_its_price():
    found = forecast(hand_made(), [A, replace(A, name="twin"), B])
    expected = prior_quality(A, [(A, 0.5), (B, 0.25)])
    assert 0.375 < expected < 0.5  # nearer to A's than to B's
    assert expected + 0.05 < found.quality[0, 1] < expected + 0.1  # and it follows


def test_before_any_fit_everything_is_a_prior():
    known = Knowledge(BARE)
    assert known.names == ()
    found = forecast(known, [A, B], ["", WORDS])
    assert found.quality.tolist() == [[prior_quality(A), prior_quality(B)]] * 2
    assert (found.output_tokens == UNKNOWN_OUTPUT_TOKENS).all()
    np.testing.assert_allclose(found.cost[1], [2565e-6, 10e-6])


def test_before_any_fit_a_prior_tells_queries_apart(prior):
    known = Knowledge(BARE, prior=prior)
    candidates = [replace(A, prior_quality=0.4), replace(B, prior_quality=0.8)]
    found = forecast(known, candidates, ["", "hello", WORDS * 9]).quality
    assert found[0].tolist() == [0.4, 0.8]
    assert (found[1] > found[0]).all()
    assert (found[2] < found[0]).all()


def test_a_newcomers_declared_quality_is_moved_as_the_others_turned_out():
    told = [replace(A, prior_quality=0.3), replace(B, prior_quality=0.15)]
    newcomer = Candidate("new", 1.0, 1.0, prior_quality=0.5)
    found = forecast(hand_made(), [*told, newcomer], [" "]).quality
    # Means 0.5 and 0.25: 0.2 and 0.1 above what was told; over one more than two.
    assert found[0, 2] == pytest.approx(0.6)


def test_no_queries_are_an_empty_forecast():
    found = forecast(hand_made(), [A, B], [])
    assert found.quality.shape == found.cost.shape == (0, 2)


def test_a_price_that_changed_takes_effect_at_once():
    before = forecast(hand_made(), [A, B]).cost
    dearer = replace(A, output_cost_per_million_tokens=20.0)
    after = forecast(hand_made(), [dearer, B]).cost
    np.testing.assert_allclose(after - before, [[1000e-6, 0.0]], atol=1e-15)
    free = replace(
        A, input_cost_per_million_tokens=0.0, output_cost_per_million_tokens=0.0
    )
    assert forecast(hand_made(), [free, B]).cost[0, 0] == 0.0


def test_a_bill_of_a_free_candidate_is_not_added_to_a_price_declared_later():
    known = hand_made()
    costs = CostModel(np.ones(2), np.ones(2), np.array([0.25, 0.0]))
    known = replace(known, costs=costs)
    free = Candidate("a", 0.0, 0.0)
    assert forecast(known, [free, B]).cost[0, 0] == 0.25
    np.testing.assert_allclose(forecast(known, [A, B]).cost[0, 0], 1005e-6)


# --- what records teach --------------------------------------------------------


def learned(start, records, candidates, *, predictor="ridge", seed=0):
    known = {c.name: c for c in candidates}
    return start.learned(
        tabulate(records, tuple(known)),
        known,
        encoder=ENCODER,
        predictor=predictor,
        n_domains=20,
        seed=seed,
    )


@pytest.fixture(scope="module")
def sample(world):
    return world.sample(300, seed=1)


@pytest.fixture(scope="module")
def known(sample):
    """What is known of the whole small world."""
    return learned(Knowledge(BARE), sample.records(), sample.candidates)[0]


def test_the_mean_predicted_cost_is_that_of_fresh_bills(known, sample, world):
    fresh = world.sample(800, seed=2)
    found = forecast(known, sample.candidates, fresh.queries)
    np.testing.assert_allclose(
        found.cost.mean(axis=0), fresh.cost.mean(axis=0), rtol=0.12
    )
    blind = np.abs(fresh.cost - sample.cost.mean(axis=0)).mean(axis=0)
    assert (np.abs(fresh.cost - found.cost).mean(axis=0) < 0.9 * blind).all()


def test_a_recorded_bill_outweighs_the_list_price(sample, world):
    # Bills twice as high as tokens times price: reasoning that one does not see.
    records = [
        replace(r, cost=2 * r.cost, output_tokens=int(r.output_tokens))
        for r in sample.records()
    ]
    doubled, _ = learned(Knowledge(BARE), records, sample.candidates)
    fresh = world.sample(400, seed=3)
    found = forecast(doubled, sample.candidates, fresh.queries)
    np.testing.assert_allclose(
        found.cost.mean(axis=0), 2 * fresh.cost.mean(axis=0), rtol=0.12
    )
    np.testing.assert_allclose(
        found.output_tokens.mean(axis=0), fresh.output_tokens.mean(axis=0), rtol=0.12
    )


def test_bills_alone_teach_the_lengths(known, sample, world):
    records = [replace(r, output_tokens=None) for r in sample.records()]
    by_bills, _ = learned(Knowledge(BARE), records, sample.candidates)
    queries = world.sample(200, seed=4).queries
    one = forecast(known, sample.candidates, queries)
    other = forecast(by_bills, sample.candidates, queries)
    np.testing.assert_allclose(
        one.output_tokens.mean(axis=0), other.output_tokens.mean(axis=0), rtol=0.02
    )
    np.testing.assert_allclose(
        one.cost.mean(axis=0), other.cost.mean(axis=0), rtol=0.02
    )


def test_the_contexts_returned_are_those_out_of_fold(sample):
    after, contexts = learned(Knowledge(BARE), sample.records(), sample.candidates)
    serving = after.context.contexts(read(sample.queries, ENCODER))
    assert contexts.shape == serving.shape
    assert not np.allclose(contexts, serving, atol=1e-3)


def test_each_fit_of_the_context_has_a_version_of_its_own(known, sample):
    assert known.version == 1
    again, _ = learned(known, sample.records(), sample.candidates)
    assert again.version == 2
    assert again.names == known.names


def test_a_newcomer_fitted_alone_leaves_the_others_bit_for_bit(known, sample, world):
    newcomer = Candidate("new", 2.0, 6.0)
    records = [
        replace(r, candidate="new", quality=1 - r.quality)
        for r in world.sample(80, seed=5).records("lawyer")
    ]
    everyone = (*sample.candidates, newcomer)
    after, contexts = learned(known, records, everyone)
    assert after.names == (*known.names, "new")
    assert after.version == known.version
    assert after.context is known.context
    assert contexts.shape == (80, known.context.dimension)
    queries = world.sample(100, seed=6).queries
    before = forecast(known, sample.candidates, queries)
    with_it = forecast(after, everyone, queries)
    for name in ("quality", "output_tokens", "cost"):
        mine, theirs = getattr(before, name), getattr(with_it, name)
        assert np.array_equal(mine, theirs[:, :3]), name
    opposed = np.corrcoef(with_it.quality[:, 3], with_it.quality[:, 1])[0, 1]
    assert opposed < -0.8  # it is good where the lawyer is bad


def test_candidates_fitted_again_are_replaced_and_the_rest_stays(known, sample, world):
    fresh = world.sample(80, seed=7)
    after, _ = learned(known, fresh.records("lawyer"), sample.candidates)
    assert after.names == ("calculator", "all-round", "lawyer")
    assert after.heads.n_labels.tolist() == [300, 300, 80]
    queries = fresh.queries[:20]
    before, now = (forecast(k, sample.candidates, queries) for k in (known, after))
    assert np.array_equal(before.quality[:, [0, 2]], now.quality[:, [0, 2]])
    assert not np.array_equal(before.quality[:, 1], now.quality[:, 1])


def test_those_who_compete_no_more_do_not_hold_back_a_new_context(known, sample):
    remaining = [c for c in sample.candidates if c.name != "all-round"]
    records = sample.records("calculator", "lawyer")
    after, _ = learned(known, records, remaining)
    assert after.version == known.version + 1
    assert after.names == ("calculator", "lawyer")


def test_fitting_does_not_change_what_was_known(known, sample, world):
    queries = world.sample(20, seed=8).queries
    before = forecast(known, sample.candidates, queries)
    learned(known, world.sample(60, seed=9).records(), sample.candidates)
    after = forecast(known, sample.candidates, queries)
    assert np.array_equal(before.quality, after.quality)
    assert np.array_equal(before.cost, after.cost)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 20])
def test_a_handful_of_records_is_enough_to_fit(world, n):
    few = world.sample(n, seed=10)
    known, contexts = learned(
        Knowledge(BARE), few.records(), few.candidates, predictor="auto"
    )
    assert contexts.shape == (n, known.context.dimension)
    found = forecast(known, few.candidates, world.sample(20, seed=11).queries)
    for name in ("quality", "output_tokens", "cost"):
        assert np.isfinite(getattr(found, name)).all()
    assert 0 <= found.quality.min() <= found.quality.max() <= 1
    assert found.cost.min() >= 0


def test_one_candidate_alone_can_be_fitted(world):
    sample = world.sample(60, seed=12)
    only = sample.candidates[:1]
    known, _ = learned(Knowledge(BARE), sample.records("calculator"), only)
    assert forecast(known, only, sample.queries).quality.shape == (60, 1)


def test_the_seed_decides_what_is_learned(sample, world):
    queries = world.sample(10, seed=13).queries
    first, again = (
        learned(
            Knowledge(BARE), sample.records(), sample.candidates, predictor="forest"
        )[0]
        for _ in "ab"
    )
    one, other = (forecast(k, sample.candidates, queries) for k in (first, again))
    assert np.array_equal(one.quality, other.quality)
    assert np.array_equal(one.cost, other.cost)
