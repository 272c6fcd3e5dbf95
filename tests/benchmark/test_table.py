"""Records as matrices, and prices out of costs."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mixllm_integrations import (
    Candidate,
    ConfigurationError,
    RoutingRecord,
    UnknownCandidateError,
)
from mixllm_integrations.benchmark.table import BenchmarkTable, estimate_prices

SMALL, LARGE = Candidate("small", 1.0, 4.0), Candidate("large", 5.0, 15.0)


def test_several_records_of_one_pair_are_averaged():
    records = [
        RoutingRecord("a", "small", 1.0, cost=0.1),
        RoutingRecord("a", "small", 0.0, cost=0.3),
        RoutingRecord("a", "small", 0.5),
    ]
    table = BenchmarkTable.from_records(records, candidates=[SMALL])
    assert table.quality.tolist() == [[0.5]]
    assert table.cost[0, 0] == pytest.approx(0.2)
    assert math.isnan(table.output_tokens[0, 0])


def test_one_text_with_two_query_ids_is_two_queries():
    records = [RoutingRecord("a", "small", q, cost=0.1) for q in (1.0, 0.0)]
    apart = BenchmarkTable.from_records(records, query_ids=["x", "y"])
    together = BenchmarkTable.from_records(records)
    assert apart.quality.tolist() == [[1.0], [0.0]]
    assert together.quality.tolist() == [[0.5]]


def test_a_query_id_never_meets_a_text_of_the_same_letters():
    records = [RoutingRecord("a", "small", q, cost=0.1) for q in (1.0, 0.0)]
    assert len(BenchmarkTable.from_records(records, query_ids=["a", None])) == 2


def test_a_cost_that_was_not_recorded_is_tokens_times_price():
    records = [RoutingRecord("a", "small", 1.0, 1000, 500)]
    table = BenchmarkTable.from_records(records, candidates=[SMALL])
    assert table.cost[0, 0] == pytest.approx((1000 * 1 + 500 * 4) / 1e6)


def test_a_recorded_cost_is_kept():
    records = [RoutingRecord("a", "small", 1.0, 1000, 500, cost=7.0)]
    table = BenchmarkTable.from_records(records, candidates=[SMALL])
    assert table.cost.tolist() == [[7.0]]


def test_records_of_other_candidates_are_left_out():
    records = [RoutingRecord("a", n, 1.0, cost=0.1) for n in ("small", "other")]
    assert BenchmarkTable.from_records(records, candidates=[SMALL]).names == ("small",)


def test_only_complete_queries_remain():
    records = [
        RoutingRecord("a", "small", 1.0, cost=0.1),
        RoutingRecord("a", "large", 1.0, cost=0.1),
        RoutingRecord("b", "small", 1.0, cost=0.1),
    ]
    table = BenchmarkTable.from_records(records, candidates=[SMALL, LARGE])
    assert table.complete().queries == ("a",)
    with pytest.raises(ConfigurationError, match=r"'large': 0\.0"):
        table.select([1]).complete()


def test_a_candidate_that_is_not_there_cannot_be_kept(world):
    with pytest.raises(UnknownCandidateError, match="'nobody'"):
        world.only(["small", "nobody"])


def test_keeping_some_candidates_keeps_their_columns(world):
    kept = world.only(["poet", "small"])
    assert kept.names == ("small", "poet")
    assert np.array_equal(kept.quality, world.quality[:, [0, 2]])


def test_a_matrix_of_another_shape_is_refused(world):
    with pytest.raises(ConfigurationError, match="cost of table 'world'"):
        BenchmarkTable(
            *("world", world.queries, world.tags, world.candidates, world.quality),
            *(world.input_tokens, world.output_tokens, world.cost[:, :1]),
            world.latency_seconds,
        )


def test_no_record_is_an_error():
    with pytest.raises(ConfigurationError, match="holds no record"):
        BenchmarkTable.from_records([])


def test_a_table_and_its_records_are_the_same_thing(world):
    apart = world.select([i for i in range(len(world)) if i not in (60, 61, 62)])
    again = BenchmarkTable.from_records(apart.records(), candidates=world.candidates)
    assert again.queries == apart.queries
    assert again.tags == apart.tags
    assert np.array_equal(again.quality, apart.quality)
    assert np.allclose(again.cost, apart.cost)


def test_what_was_not_recorded_becomes_no_record():
    records = [RoutingRecord("a", "small", 1.0), RoutingRecord("b", "large", 0.5)]
    table = BenchmarkTable.from_records(records, candidates=[SMALL, LARGE])
    assert table.records() == records


@given(
    st.floats(0.01, 50.0),
    st.floats(0.01, 50.0),
    st.lists(
        st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=3, max_size=9
    ),
)
def test_prices_are_recovered_from_costs_they_made(price_in, price_out, lengths):
    tokens = np.array(lengths, dtype=float)
    assume(np.linalg.cond(tokens) < 1e3)
    records = [
        RoutingRecord("q", "m", 1.0, i, o, cost=(i * price_in + o * price_out) / 1e6)
        for i, o in lengths
    ]
    found = estimate_prices(records)[0]
    assert found.input_cost_per_million_tokens == pytest.approx(price_in, rel=1e-4)
    assert found.output_cost_per_million_tokens == pytest.approx(price_out, rel=1e-4)


def test_unrecorded_lengths_of_answers_count_as_the_assumed_ones():
    # Costs of 1000 + 200 and 3000 + 200 tokens at 0.5 and 2 USD a million.
    records = [
        RoutingRecord("a", "m", 1.0, 1000, cost=(500 + 400) / 1e6),
        RoutingRecord("b", "m", 1.0, 3000, cost=(1500 + 400) / 1e6),
    ]
    assert estimate_prices(records) == [Candidate("m", 0.5, 2.0)]
    halved = estimate_prices(records, assumed_output_tokens=100)
    assert halved == [Candidate("m", 0.5, 4.0)]


def test_no_price_is_estimated_below_zero():
    # The dearer answer has the shorter prompt.
    records = [
        RoutingRecord("a", "m", 1.0, 1000, 100, cost=0.001),
        RoutingRecord("b", "m", 1.0, 10, 110, cost=0.002),
    ]
    assert estimate_prices(records)[0].input_cost_per_million_tokens == 0.0


def test_a_known_price_is_taken_if_it_explains_the_costs():
    record = RoutingRecord("a", "small", 1.0, 1000, 500, cost=0.003)
    other = RoutingRecord("a", "small", 1.0, 1000, 500, cost=0.009)
    assert estimate_prices([record], known={"small": SMALL}) == [SMALL]
    assert estimate_prices([other], known={"small": SMALL}) != [SMALL]


def test_a_price_that_cannot_be_estimated_is_an_error():
    with pytest.raises(ConfigurationError, match="candidate 'm' cannot be estimated"):
        estimate_prices([RoutingRecord("a", "m", 1.0, 10, 10)])
