import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.records import tabulate
from mixllm_integrations.core.types import RoutingRecord

NUMBERS = ("quality", "input_tokens", "output_tokens", "cost")


def record(query, candidate, quality, **more):
    return RoutingRecord(query, candidate, quality, **more)


def same(first, second):
    return np.array_equal(first, second, equal_nan=True)


def test_a_small_table_is_the_one_worked_out_by_hand():
    table = tabulate(
        [
            record("q2", "b", 1.0, input_tokens=10, output_tokens=5, cost=0.5),
            record("q1", "a", 0.25, tags=("law",)),
            record("q2", "a", 0.0, cost=0.0),
        ],
        ["a", "b"],
    )
    nan = math.nan
    assert table.queries == ("q1", "q2")  # by alphabet
    assert table.names == ("a", "b")  # by declaration
    assert table.tags == (("law",), ())
    assert same(table.quality, [[0.25, nan], [0.0, 1.0]])
    assert same(table.input_tokens, [[nan, nan], [nan, 10.0]])
    assert same(table.output_tokens, [[nan, nan], [nan, 5.0]])
    assert same(table.cost, [[nan, nan], [0.0, 0.5]])


def test_the_order_of_records_does_not_matter():
    records = [
        record(f"q{i}", name, i / 8, cost=float(i)) for i in range(8) for name in "ab"
    ]
    first, second = tabulate(records, "ab"), tabulate(records[::-1], "ab")
    assert first.queries == second.queries
    assert all(same(getattr(first, n), getattr(second, n)) for n in NUMBERS)


def test_several_records_of_one_query_and_candidate_are_averaged():
    table = tabulate(
        [
            record("q", "a", 1.0, output_tokens=10),
            record("q", "a", 0.0, output_tokens=30, cost=0.2),
            record("q", "a", 0.5),
        ],
        ["a"],
    )
    assert table.queries == ("q",)
    # Means over what is known: 1.5 / 3, 40 / 2, 0.2 / 1.
    assert table.quality.tolist() == [[0.5]]
    assert table.output_tokens.tolist() == [[20.0]]
    assert table.cost.tolist() == [[0.2]]
    assert np.isnan(table.input_tokens).all()


def test_tags_of_all_records_of_a_query_are_joined_in_order():
    table = tabulate(
        [
            record("q", "a", 1.0, tags=("law", "tax")),
            record("other", "a", 1.0),
            record("q", "b", 1.0, tags=("tax", "art")),
        ],
        ["a", "b"],
    )
    assert table.queries == ("other", "q")
    assert table.tags == ((), ("law", "tax", "art"))


def test_a_candidate_without_records_has_no_column():
    table = tabulate([record("q", "c", 1.0), record("q", "a", 0.0)], ["a", "b", "c"])
    assert table.names == ("a", "c")
    assert table.quality.tolist() == [[0.0, 1.0]]


def test_texts_that_differ_in_a_space_are_two_queries():
    table = tabulate([record("q", "a", 1.0), record("q ", "a", 0.0)], ["a"])
    assert table.queries == ("q", "q ")


def test_records_may_come_from_a_generator():
    table = tabulate((record(f"q{i}", "a", 0.5) for i in range(3)), ["a"])
    assert len(table.queries) == 3


def test_rows_gives_the_queries_asked_for_in_that_order():
    table = tabulate(
        [record(f"q{i}", "a", i / 4, tags=(f"t{i}",), cost=i) for i in range(4)], ["a"]
    )
    some = table.rows([3, 1])
    assert some.queries == ("q3", "q1")
    assert some.tags == (("t3",), ("t1",))
    assert some.names == ("a",)
    assert some.quality.tolist() == [[0.75], [0.25]]
    assert some.cost.tolist() == [[3.0], [1.0]]


def test_no_rows_are_an_empty_table():
    table = tabulate([record("q", "a", 1.0), record("q", "b", 1.0)], ["a", "b"])
    empty = table.rows([])
    assert empty.queries == ()
    assert all(getattr(empty, name).shape == (0, 2) for name in NUMBERS)


def test_an_unknown_candidate_is_named_with_those_that_are_known():
    with pytest.raises(UnknownCandidateError, match=r"'gpt'.*'a', 'b'") as caught:
        tabulate([record("a secret query", "gpt", 1.0)], ["a", "b"])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("records", [[], iter(())])
def test_no_records_are_an_error_that_says_so(records):
    with pytest.raises(ConfigurationError, match="pass at least one"):
        tabulate(records, ["a"])


@pytest.mark.parametrize("thing", [None, ("q", "a", 1.0), {"query": "secret"}])
def test_what_is_no_record_is_named_by_its_type_only(thing):
    with pytest.raises(ConfigurationError, match=type(thing).__name__) as caught:
        tabulate([thing], ["a"])
    assert "secret" not in str(caught.value)


RECORDS = st.lists(
    st.builds(
        RoutingRecord,
        st.sampled_from(["q1", "q2", "q3"]),
        st.sampled_from(["a", "b", "c"]),
        st.floats(0, 1),
        output_tokens=st.none() | st.integers(0, 1000),
        cost=st.none() | st.floats(0, 1),
    ),
    min_size=1,
    max_size=12,
)


@given(RECORDS)
def test_every_cell_is_the_mean_of_its_own_records(records):
    table = tabulate(records, ["a", "b", "c"])
    for row, query in enumerate(table.queries):
        for column, name in enumerate(table.names):
            own = [r for r in records if (r.query, r.candidate) == (query, name)]
            for what in NUMBERS:
                known = [getattr(r, what) for r in own if getattr(r, what) is not None]
                cell = getattr(table, what)[row, column]
                assert cell == pytest.approx(
                    np.mean(known) if known else math.nan, nan_ok=True
                )


@given(RECORDS, st.randoms(use_true_random=False))
def test_the_order_of_records_changes_only_the_order_of_rows(records, random):
    shuffled = list(records)
    random.shuffle(shuffled)
    one, other = (tabulate(r, ["a", "b", "c"]) for r in (records, shuffled))
    assert one.names == other.names
    assert set(one.queries) == set(other.queries)
    order = [other.queries.index(q) for q in one.queries]
    for what in NUMBERS:
        np.testing.assert_allclose(
            getattr(one, what), getattr(other, what)[order], rtol=1e-12
        )
