"""What must hold of every split."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mixllm_integrations import Candidate, ConfigurationError, RoutingRecord
from mixllm_integrations.benchmark.splits import stratified_split
from mixllm_integrations.benchmark.table import BenchmarkTable


def table_of(texts, domains):
    records = [
        RoutingRecord(text, "m", 1.0, cost=0.1, tags=(domain,))
        for text, domain in zip(texts, domains, strict=True)
    ]
    ids = [str(i) for i in range(len(texts))]
    return BenchmarkTable.from_records(
        records, query_ids=ids, candidates=[Candidate("m", 1, 1)]
    )


def test_a_fifth_of_every_domain_is_held_out(world):
    _, held_out = stratified_split(world, seed=1)
    counts = Counter(world.domains[i] for i in held_out)
    assert len(held_out) == 36
    assert all(11 <= n <= 13 for n in counts.values())


@given(st.lists(st.integers(0, 30), min_size=20, max_size=80), st.integers(0, 99))
def test_copies_of_one_text_stay_on_one_side(numbers, seed):
    texts = [f"text {n}" for n in numbers]
    table = table_of(texts, [f"domain {n % 3}" for n in numbers])
    assume(len(set(numbers)) >= 10)
    rows, held_out = stratified_split(table, seed=seed)
    assert not {texts[i] for i in rows} & {texts[i] for i in held_out}
    assert sorted([*rows, *held_out]) == list(range(len(texts)))


def test_a_seed_gives_the_same_split_again_and_another_one_does_not(world):
    first, again, other = (stratified_split(world, seed=s)[1] for s in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_small_domains_share_what_is_held_out():
    # Twenty domains of two queries: a fifth of each is less than one query.
    domains = [f"domain {i // 2}" for i in range(40)]
    table = table_of([f"text {i}" for i in range(40)], domains)
    assert len(stratified_split(table, seed=0)[1]) == 8


def test_one_text_cannot_be_split():
    table = table_of(["same"] * 10, ["law"] * 10)
    with pytest.raises(ConfigurationError, match="too few to split"):
        stratified_split(table, seed=0)
