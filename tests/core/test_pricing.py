import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.core.pricing import (
    CostModel,
    RunningRatio,
    fill_output_tokens,
    token_cost,
)
from mixllm_integrations.core.records import tabulate
from mixllm_integrations.core.types import Candidate, RoutingRecord

DEAR, FREE = Candidate("dear", 2.0, 10.0), Candidate("free", 0.0, 0.0)
NAN = math.nan


def learned(records, candidates, counted):
    """Return filled output tokens and the cost model of some records."""
    table = tabulate(records, [c.name for c in candidates])
    ours = np.array(counted, dtype=np.float64)
    tokens = fill_output_tokens(table, ours, candidates)
    return tokens, CostModel.fit(table, ours, tokens, candidates)


def expected_cost(model, candidates, counted, tokens):
    """Return what the model says that calls cost, shape (n, n_candidates)."""
    inputs = np.array(counted, dtype=np.float64)[:, None] * model.input_factor
    return token_cost(inputs, tokens, candidates) * model.cost_factor + model.fixed_cost


def record(query, name="dear", **numbers):
    return RoutingRecord(query, name, 1.0, **numbers)


# --- list prices ---------------------------------------------------------------


def test_list_prices_are_those_worked_out_by_hand():
    # 1,000·2 + 100·10 = 3,000 millionths; nothing for the free one.
    inputs = np.array([[1000.0, 1000.0], [0.0, 7.0]])
    outputs = np.array([[100.0, 100.0], [1.0, 7.0]])
    found = token_cost(inputs, outputs, [DEAR, FREE])
    np.testing.assert_allclose(found, [[0.003, 0.0], [0.00001, 0.0]], rtol=1e-12)


@given(
    tokens=st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)),
    prices=st.tuples(st.floats(0, 100), st.floats(0, 100)),
    more=st.floats(0, 100),
)
def test_a_higher_price_never_costs_less(tokens, prices, more):
    given_tokens, taken = (np.array([t]) for t in tokens)
    before = token_cost(given_tokens, taken, [Candidate("a", *prices)])
    for raised in ((prices[0] + more, prices[1]), (prices[0], prices[1] + more)):
        after = token_cost(given_tokens, taken, [Candidate("a", *raised)])
        assert after[0] >= before[0] >= 0


# --- output tokens -------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        # (3,000 - 1,000·2) / 10 tokens: the bill says so.
        ({"input_tokens": 1000, "cost": 0.003}, 100.0),
        # Our count, 500, stands in: (3,000 - 500·2) / 10.
        ({"cost": 0.003}, 200.0),
        # What was recorded is not second-guessed.
        ({"input_tokens": 1000, "cost": 0.003, "output_tokens": 7}, 7.0),
        # A bill below the input's price leaves nothing for an answer.
        ({"input_tokens": 1000, "cost": 0.001}, 0.0),
        ({"input_tokens": 1000}, NAN),
        # A dollar would be 100,000 tokens; ten are more than a model gives.
        ({"input_tokens": 1000, "cost": 10.0}, 200_000.0),
    ],
)
def test_a_recorded_cost_implies_the_output_tokens(numbers, expected):
    tokens, _ = learned([record("q", **numbers)], [DEAR], [500])
    np.testing.assert_allclose(tokens, [[expected]])


def test_without_an_output_price_a_cost_implies_no_length():
    half = Candidate("half", 2.0, 0.0)
    tokens, _ = learned([record("q", "half", cost=0.003)], [half], [500])
    assert np.isnan(tokens).all()


def test_what_no_length_explains_is_in_the_cost_factor():
    # 200,000 tokens at 10 and 1,000 at 2 USD a million are 2.002 USD, not 10.
    _, model = learned([record("q", input_tokens=1000, cost=10.0)], [DEAR], [500])
    assert model.cost_factor.tolist() == pytest.approx([10.0 / 2.002])


def test_implied_output_tokens_use_the_candidates_own_count_of_the_input():
    # Its tokenizer makes twice our tokens, as the first record tells; so the
    # second prompt has 2·500 of them: (3,000 - 1,000·2) / 10 = 100.
    records = [record("q1", input_tokens=200, output_tokens=1), record("q2", cost=3e-3)]
    tokens, model = learned(records, [DEAR], [100, 500])
    np.testing.assert_allclose(tokens, [[1.0], [100.0]])
    assert model.cost_factor.tolist() == pytest.approx([1.0])


# --- the cost model ------------------------------------------------------------


def test_factors_are_ratios_of_sums():
    records = [
        record("q1", input_tokens=150, output_tokens=100, cost=0.0026),
        record("q2", input_tokens=150, output_tokens=0, cost=0.0006),
    ]
    _, model = learned(records, [DEAR], [100, 100])
    # 300 tokens where we count 200. List price 150·2 + 100·10 = 1,300 and 300
    # millionths, together 1,600 for a bill of 3,200.
    assert model.input_factor.tolist() == pytest.approx([1.5])
    assert model.cost_factor.tolist() == pytest.approx([2.0])
    assert model.fixed_cost.tolist() == [0.0]


def test_where_nothing_is_recorded_list_price_and_our_count_hold():
    _, model = learned([record("q")], [DEAR], [100])
    assert model.input_factor.tolist() == [1.0]
    assert model.cost_factor.tolist() == [1.0]
    assert model.fixed_cost.tolist() == [0.0]


def test_a_blank_prompt_teaches_no_input_factor():
    _, model = learned([record("  ", input_tokens=9, output_tokens=5)], [DEAR], [0])
    assert model.input_factor.tolist() == [1.0]


def test_a_candidate_priced_at_zero_costs_what_was_recorded_on_average():
    records = [record("q1", "free", cost=0.01), record("q2", "free", cost=0.03)]
    tokens, model = learned(records, [FREE], [100, 100])
    assert np.isnan(tokens).all()
    assert model.cost_factor.tolist() == [1.0]
    assert model.fixed_cost.tolist() == pytest.approx([0.02])


def test_a_candidate_priced_at_zero_without_a_bill_costs_nothing():
    _, model = learned([record("q", "free", output_tokens=9)], [FREE], [100])
    found = expected_cost(model, [FREE], [100], np.array([[9.0]]))
    assert found.tolist() == [[0.0]]


def test_a_bill_is_not_charged_twice_where_output_is_free_and_unknown():
    # 1,000·2 millionths by list price, and exactly that on the bill.
    half = Candidate("half", 2.0, 0.0)
    records = [record("q", "half", input_tokens=1000, cost=0.002)]
    _, model = learned(records, [half], [1000])
    assert model.fixed_cost.tolist() == [0.0]
    found = expected_cost(model, [half], [1000], np.array([[50.0]]))
    np.testing.assert_allclose(found, [[0.002]])


def test_a_bill_of_zero_makes_a_priced_candidate_free():
    records = [record("q", input_tokens=100, output_tokens=10, cost=0.0)]
    _, model = learned(records, [DEAR], [100])
    assert expected_cost(model, [DEAR], [100], np.array([[10.0]])).tolist() == [[0.0]]


CELLS = st.lists(
    st.tuples(
        st.integers(1, 5_000),  # our count
        st.none() | st.integers(1, 5_000),  # theirs
        st.none() | st.integers(0, 2_000),  # answer
        st.floats(1e-4, 1.0),  # bill
    ),
    min_size=1,
    max_size=8,
)


@given(CELLS)
def test_with_all_bills_known_the_mean_cost_is_that_of_the_bills(cells):
    records = [
        record(f"q{i}", input_tokens=theirs, output_tokens=answer, cost=bill)
        for i, (_, theirs, answer, bill) in enumerate(cells)
    ]
    counted = [ours for ours, *_ in cells]
    tokens, model = learned(records, [DEAR], counted)
    ours = np.array(counted, dtype=np.float64)[:, None]
    theirs = np.array([[NAN if t is None else t] for _, t, _, _ in cells])
    inputs = np.where(np.isfinite(theirs), theirs, ours * model.input_factor)
    said = token_cost(inputs, tokens, [DEAR]) * model.cost_factor + model.fixed_cost
    assert said.sum() == pytest.approx(sum(bill for *_, bill in cells))


def test_candidates_do_not_learn_from_each_other():
    records = [
        record("q", "dear", input_tokens=200, output_tokens=10, cost=0.001),
        record("q", "free", cost=0.5),
    ]
    _, both = learned(records, [DEAR, FREE], [100])
    _, dear = learned(records[:1], [DEAR], [100])
    _, free = learned(records[1:], [FREE], [100])
    joined = dear.joined(free)
    for name in ("input_factor", "cost_factor", "fixed_cost"):
        assert np.array_equal(getattr(both, name), getattr(joined, name))


def test_selecting_keeps_the_candidates_asked_for_in_that_order():
    model = CostModel(*(np.array([1.0, 2.0, 3.0]) * k for k in (1, 10, 100)))
    chosen = model.select([2, 0])
    assert chosen.input_factor.tolist() == [3.0, 1.0]
    assert chosen.cost_factor.tolist() == [30.0, 10.0]
    assert chosen.fixed_cost.tolist() == [300.0, 100.0]
    assert model.select([]).input_factor.shape == (0,)


# --- what outcomes teach -------------------------------------------------------


def test_a_ratio_without_outcomes_changes_nothing():
    assert RunningRatio().value == 1.0


def test_a_ratio_of_nothing_predicted_changes_nothing():
    ratio = RunningRatio()
    ratio.update(real=10.0, predicted=0.0)
    assert ratio.value == 1.0


def test_a_ratio_starts_from_twenty_outcomes_that_were_right():
    ratio = RunningRatio()
    for _ in range(5):
        ratio.update(real=300.0, predicted=100.0)
    # Mean prediction 100, so 20·100 on both sides: (1,500 + 2,000) / (500 + 2,000).
    assert ratio.value == pytest.approx(1.4)


def test_many_outcomes_outweigh_the_start():
    ratio = RunningRatio()
    for _ in range(20_000):
        ratio.update(real=50.0, predicted=100.0)
    assert ratio.value == pytest.approx(0.5, abs=1e-3)


@given(
    st.lists(st.tuples(st.floats(0, 1e5), st.floats(1, 1e5)), min_size=1, max_size=30)
)
def test_a_ratio_lies_between_one_and_what_was_seen(outcomes):
    ratio = RunningRatio()
    for real, predicted in outcomes:
        ratio.update(real=real, predicted=predicted)
    seen = sum(r for r, _ in outcomes) / sum(p for _, p in outcomes)
    assert min(1.0, seen) - 1e-9 <= ratio.value <= max(1.0, seen) + 1e-9
