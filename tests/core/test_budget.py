import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core import budget
from mixllm_integrations.core.budget import (
    HeldOut,
    calibrate,
    checked_target,
    held_out,
)
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.records import tabulate
from mixllm_integrations.core.types import RoutingRecord

NAN = math.nan


def columns(*values):
    return np.column_stack([np.array(v, dtype=np.float64) for v in values])


def easy_and_hard():
    """Return ten easy queries and ten hard ones, for a cheap and a dear candidate.

    The cheap one costs a tenth and answers the easy ones only. Both are known.
    """
    easy = np.arange(20) < 10
    cost = np.tile([0.001, 0.010], (20, 1))
    return HeldOut(
        ("cheap", "dear"),
        columns(np.where(easy, 0.9, 0.2), np.full(20, 0.9)),
        cost,
        columns(easy, np.ones(20)),
        cost,
    )


def found(data, *, quality_target=None, cost_target=None, seed=0):
    return calibrate(
        data, quality_target=quality_target, cost_target=cost_target, seed=seed
    )


# --- targets -------------------------------------------------------------------


@pytest.mark.parametrize("targets", [(0.97, None), (None, 0.25), (2.0, None)])
def test_one_target_is_enough(targets):
    assert checked_target(*targets) == targets


@pytest.mark.parametrize("targets", [(None, None), (0.9, 0.5)])
def test_two_targets_or_none_are_refused(targets):
    with pytest.raises(
        ConfigurationError, match="either quality_target or cost_target"
    ):
        checked_target(*targets)


@pytest.mark.parametrize("value", [0.0, -0.1, 2.1, NAN, math.inf, "a lot", True])
def test_a_target_out_of_range_is_named(value):
    with pytest.raises(ConfigurationError, match=r"quality_target must .*\(0, 2\]"):
        checked_target(value, None)
    with pytest.raises(ConfigurationError, match=r"cost_target must .*\(0, 2\]"):
        found(easy_and_hard(), cost_target=value)


# --- the value, by hand --------------------------------------------------------


def test_the_full_quality_is_bought_at_the_price_worked_out_by_hand():
    # Hard queries go to the dear one once 0.9 - 0.010/λ > 0.2 - 0.001/λ, that is
    # λ > 0.009 / 0.7; easy ones stay with the cheap one: (1 + 10) / 2 of 10.
    got = found(easy_and_hard(), quality_target=1.0)
    assert got.target_reached is True
    assert got.strongest == "dear"
    assert got.n_queries == 20
    # All above do equally well. Tried are 1e-6 to 1e4: the middle is 0.1.
    assert got.willingness_to_pay == pytest.approx(0.1, rel=0.08)
    assert got.quality == got.relative_quality == 1.0
    assert got.cost == pytest.approx(0.0055)
    assert got.relative_cost == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("targets", "quality", "cost", "reached"),
    [
        ({"quality_target": 0.5}, 0.5, 0.1, True),  # all to the cheap one
        ({"quality_target": 0.51}, 1.0, 0.55, True),
        ({"quality_target": 1.01}, 1.0, 0.55, False),  # nobody is that good
        ({"cost_target": 0.05}, 0.5, 0.1, False),  # nobody is that cheap
        ({"cost_target": 0.1}, 0.5, 0.1, True),
        ({"cost_target": 0.54}, 0.5, 0.1, True),
        ({"cost_target": 0.55}, 1.0, 0.55, True),
        ({"cost_target": 2.0}, 1.0, 0.55, True),  # more money buys nothing here
    ],
)
def test_targets_are_met_at_the_best_price(targets, quality, cost, reached):
    got = found(easy_and_hard(), **targets)
    assert got.relative_quality == pytest.approx(quality)
    assert got.relative_cost == pytest.approx(cost)
    assert got.target_reached is reached


def test_the_strongest_is_the_best_by_what_was_recorded_not_predicted():
    data = easy_and_hard()
    data.predicted_quality[:, 0] = 1.0  # taken for the best
    assert found(data, quality_target=0.9).strongest == "dear"


def test_of_several_values_that_meet_a_target_the_cheapest_is_taken():
    # Both answer well. The one thought cheap, and so chosen at low values, is not.
    flat = np.ones((20, 1))
    data = HeldOut(
        ("thinks long", "terse"),
        flat * [0.5, 0.9],
        flat * [0.001, 0.010],
        flat * [1.0, 1.0],
        flat * [0.020, 0.005],
    )
    got = found(data, quality_target=1.0)
    assert got.cost == pytest.approx(0.005)
    assert got.willingness_to_pay > 0.009 / 0.4


def test_of_values_that_do_the_same_one_is_taken_at_which_quality_still_counts():
    # The cheap one is good enough everywhere: any value below 0.009 / 0.02 has it
    # chosen, and at 1e-6 no feedback could ever change that.
    flat = np.ones((20, 1))
    cost = flat * [0.001, 0.010]
    data = HeldOut(
        ("cheap", "dear"), flat * [0.97, 0.99], cost, flat * [0.98, 1.0], cost
    )
    for target in ({"quality_target": 0.97}, {"cost_target": 0.11}):
        got = found(data, **target)
        assert got.relative_cost == pytest.approx(0.1)
        assert 0.05 < got.willingness_to_pay < 0.45


def test_candidates_that_cost_nothing_are_chosen_by_quality_alone():
    data = easy_and_hard()
    free = HeldOut(
        data.names,
        data.predicted_quality,
        np.zeros((20, 2)),
        data.quality,
        np.zeros((20, 2)),
    )
    got = found(free, quality_target=1.0)
    assert got.target_reached
    assert got.relative_quality == 1.0
    assert got.cost == got.relative_cost == 0.0
    assert math.isfinite(got.willingness_to_pay)


def test_one_candidate_is_a_hundred_percent_of_itself():
    cost = np.full((20, 1), 0.01)
    data = HeldOut(("only",), np.full((20, 1), 0.5), cost, np.ones((20, 1)), cost)
    got = found(data, quality_target=1.0)
    assert (got.relative_quality, got.relative_cost) == (1.0, 1.0)
    assert got.relative_cost_interval == (1.0, 1.0)


def test_pools_of_very_different_prices_can_still_go_to_the_cheapest():
    # Three dear ones, and two that cost a ten-thousandth; the cheaper of these is
    # the worse one. Spending no more than it costs must be possible.
    prices = np.array([1e-6, 3e-6, 1e-2, 1e-2, 1e-2])
    quality = np.tile([0.3, 0.6, 0.8, 0.8, 0.9], (20, 1))
    cost = np.tile(prices, (20, 1))
    data = HeldOut(tuple("abcde"), quality, cost, quality, cost)
    got = found(data, cost_target=1.5e-4)
    assert got.target_reached
    assert got.relative_cost == pytest.approx(1e-4)
    best = found(data, quality_target=1.0)
    assert best.relative_quality == pytest.approx(1.0)


def test_too_few_queries_are_refused_with_their_number():
    data = easy_and_hard()
    arrays = (data.predicted_quality, data.predicted_cost, data.quality, data.cost)
    few = HeldOut(data.names, *(a[:19] for a in arrays))
    with pytest.raises(ConfigurationError, match=r"only 19 labelled .* at least 20"):
        found(few, quality_target=0.9)


# --- properties ----------------------------------------------------------------


def random_data(seed, n=60, k=4):
    rng = np.random.default_rng(seed)
    cost = rng.lognormal(size=(1, k)) * rng.lognormal(sigma=0.3, size=(n, k)) / 100
    truth = rng.random((n, k))
    said = np.clip(truth + 0.2 * rng.normal(size=(n, k)), 0, 1)
    return HeldOut(tuple("abcd"[:k]), said, cost, truth, cost)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), target=st.floats(0.05, 1.5))
def test_a_target_is_met_whenever_it_is_said_to_be(seed, target):
    data = random_data(seed)
    by_quality = found(data, quality_target=target)
    by_cost = found(data, cost_target=target)
    assert by_quality.target_reached == (by_quality.relative_quality >= target)
    assert by_cost.target_reached == (by_cost.relative_cost <= target)
    for got in (by_quality, by_cost):
        # What is reported is what the decision rule does at that value.
        score = data.predicted_quality - data.predicted_cost / got.willingness_to_pay
        rows, chosen = np.arange(60), score.argmax(axis=1)
        assert got.quality == pytest.approx(data.quality[rows, chosen].mean())
        assert got.cost == pytest.approx(data.cost[rows, chosen].mean())
        low, high = got.relative_quality_interval
        assert low <= got.relative_quality <= high
        low, high = got.relative_cost_interval
        assert low <= got.relative_cost <= high


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), low=st.floats(0.1, 1.0), more=st.floats(0, 0.3))
def test_a_higher_quality_never_comes_cheaper(seed, low, more):
    data = random_data(seed)
    one, other = (found(data, quality_target=t) for t in (low, low + more))
    if other.target_reached:
        assert one.target_reached
        assert one.cost <= other.cost + 1e-12


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-6, 1e-2, 1e3]))
def test_the_currency_changes_the_value_and_nothing_else(seed, scale):
    data = random_data(seed)
    other = HeldOut(
        data.names,
        data.predicted_quality,
        data.predicted_cost * scale,
        data.quality,
        data.cost * scale,
    )
    one, two = (found(d, quality_target=0.9) for d in (data, other))
    assert two.willingness_to_pay == pytest.approx(one.willingness_to_pay * scale)
    assert two.relative_quality == pytest.approx(one.relative_quality)
    assert two.relative_cost == pytest.approx(one.relative_cost)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    # The ratio of means of mine = best·u, u in {0, 1} with mean 1/2, is 1/2.
    rng = np.random.default_rng(0)
    n_trials, hits = 300, 0
    for _ in range(n_trials):
        best = rng.lognormal(sigma=0.5, size=100)
        low, high = budget.bootstrap_ratio(best * (rng.random(100) < 0.5), best, seed=1)
        hits += low <= 0.5 <= high
    assert 0.90 <= hits / n_trials <= 0.99


def test_the_seed_decides_the_intervals():
    one, same, other = (
        found(random_data(3), cost_target=0.5, seed=s) for s in (1, 1, 2)
    )
    assert one == same
    assert one.relative_cost_interval != other.relative_cost_interval
    assert one.willingness_to_pay == other.willingness_to_pay


# --- held-out predictions ------------------------------------------------------


def table(n, *, complete=None, cost=True):
    """Return n queries; beyond the first `complete`, "b" has no label."""
    return tabulate(
        [
            RoutingRecord(f"q{i:03}", name, (i % 10) / 10, cost=0.01 if cost else None)
            for i in range(n)
            for name in "ab"
            if name == "a" or complete is None or i < complete
        ],
        "ab",
    )


class Recorder:
    """Forecasts the number of training queries, and remembers who trained."""

    def __init__(self):
        self.calls = []

    def __call__(self, train, test):
        self.calls.append((set(train.queries), test.queries))
        said = np.full((len(test.queries), 2), len(train.queries) / 1000)
        return said, said * 2


def judged(data, forecast, **options):
    settings = {"n_folds": 3, "most_queries": 4_000, "seed": 0} | options
    return held_out(data, forecast, **settings)


def test_every_query_is_predicted_once_by_a_fit_without_it():
    forecast = Recorder()
    got = judged(table(30), forecast)
    assert len(forecast.calls) == 3
    assert all(train.isdisjoint(test) for train, test in forecast.calls)
    assert all(len(train) + len(test) == 30 for train, test in forecast.calls)
    tested = [query for _, test in forecast.calls for query in test]
    assert sorted(tested) == sorted(f"q{i:03}" for i in range(30))
    assert got.names == ("a", "b")
    assert got.quality[:, 0].tolist() == [(i % 10) / 10 for i in range(30)]
    np.testing.assert_allclose(got.predicted_quality, 0.02)
    np.testing.assert_allclose(got.predicted_cost, 0.04)
    np.testing.assert_allclose(got.cost, 0.01)


def test_a_cost_that_was_not_recorded_is_taken_as_predicted():
    got = judged(table(30, cost=False), Recorder())
    np.testing.assert_allclose(got.cost, got.predicted_cost)


def test_queries_that_lack_a_label_train_but_are_not_judged():
    forecast = Recorder()
    got = judged(table(60, complete=24), forecast)
    assert len(got.quality) == 24
    assert sum(len(test) for _, test in forecast.calls) == 24
    assert {len(train) for train, _ in forecast.calls} == {40}


def test_nothing_is_fitted_for_too_few_queries():
    forecast = Recorder()
    got = judged(table(19), forecast)
    assert forecast.calls == []
    with pytest.raises(ConfigurationError, match="only 19 labelled queries"):
        found(got, quality_target=0.9)


def test_where_hardly_any_query_is_complete_gaps_are_taken_as_predicted():
    forecast = Recorder()
    got = judged(table(60, complete=19), forecast)
    assert len(got.quality) == 60
    np.testing.assert_allclose(got.predicted_quality, 0.04)  # 40 train, of 1000
    assert got.quality[0, 1] != 0.04
    np.testing.assert_allclose(got.quality[19:, 1], 0.04)
    assert found(got, quality_target=0.5).n_queries == 60


def test_a_large_table_is_sampled_by_the_seed():
    calls = [Recorder() for _ in range(3)]
    for forecast, seed in zip(calls, (1, 1, 2), strict=True):
        assert len(judged(table(90), forecast, most_queries=30, seed=seed).cost) == 30
    assert calls[0].calls == calls[1].calls != calls[2].calls


def test_queries_that_can_be_judged_are_sampled_before_those_that_cannot():
    got = judged(table(300, complete=25), Recorder(), most_queries=60)
    assert len(got.quality) == 25
