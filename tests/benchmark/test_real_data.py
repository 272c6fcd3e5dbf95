"""The loaders and the measures on the recorded answers of real models."""

import os
from pathlib import Path

import numpy as np
import pytest

from mixllm_integrations.benchmark.baselines import Embedded, Oracle
from mixllm_integrations.benchmark.datasets import LIST_PRICES, load_table
from mixllm_integrations.benchmark.metrics import aiq, reference_point, sweep
from mixllm_integrations.benchmark.splits import stratified_split

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("MIXLLM_BENCH_DATA", ROOT.parent / "shared" / "data"))
FILES = {"mmlu_pro": "market-2024", "llmrouter_ulab": "all"}

pytestmark = pytest.mark.skipif(
    not all((DATA / f"{name}.parquet").exists() for name in FILES),
    reason="needs mmlu_pro.parquet and llmrouter_ulab.parquet in MIXLLM_BENCH_DATA "
    "or ../shared/data",
)


@pytest.fixture(scope="module")
def tables():
    return {
        name: load_table(DATA / f"{name}.parquet", pool=pool)
        for name, pool in FILES.items()
    }


def test_the_market_pool_has_the_documented_size_and_prices(tables):
    table = tables["mmlu_pro"]
    assert table.quality.shape == (11_950, 15)
    assert all(c == LIST_PRICES[c.name] for c in table.candidates)
    strongest = int(table.quality.mean(axis=0).argmax())
    assert table.names[strongest] == "gpt-4o-2024-05-13"
    assert table.quality[:, strongest].mean() == pytest.approx(0.721, abs=5e-4)


def test_list_prices_make_the_recorded_costs(tables):
    table = tables["mmlu_pro"]
    prices = np.array(
        [
            (c.input_cost_per_million_tokens, c.output_cost_per_million_tokens)
            for c in table.candidates
        ]
    )
    listed = table.input_tokens * prices[:, 0] + table.output_tokens * prices[:, 1]
    assert listed / 1e6 == pytest.approx(table.cost, rel=1e-6)


def test_prices_are_estimated_where_only_costs_are_recorded(tables):
    table = tables["llmrouter_ulab"]
    assert table.quality.shape == (5_989, 9)
    prices = {c.name: c.input_cost_per_million_tokens for c in table.candidates}
    assert prices["gemma-2-9b-it"] == pytest.approx(0.1, rel=1e-3)
    assert prices["llama-3.1-nemotron-51b-instruct"] == pytest.approx(0.9, rel=1e-3)
    for candidate in table.candidates:
        assert candidate.output_cost_per_million_tokens == pytest.approx(
            candidate.input_cost_per_million_tokens, rel=1e-3
        )


def test_copies_of_real_questions_stay_on_one_side(tables):
    table = tables["mmlu_pro"]
    assert len(table) - len(set(table.queries)) > 100
    rows, held_out = stratified_split(table, seed=0)
    assert len(held_out) == pytest.approx(len(table) / 5, abs=5)
    assert not {table.queries[i] for i in rows} & {table.queries[i] for i in held_out}


@pytest.mark.parametrize(("name", "expected"), [*zip(FILES, (1.29, 1.28), strict=True)])
def test_the_oracle_lies_where_others_found_it(tables, name, expected):
    table = tables[name]
    rows, held_out = stratified_split(table, seed=0)
    train, test = table.select(rows), table.select(held_out)
    reference = reference_point(train.quality, test.quality, test.cost)
    oracle = Oracle().predict(Embedded(test, np.zeros((len(test), 1), dtype="f4")))
    curve = sweep(
        *oracle, true_quality=test.quality, true_cost=test.cost, reference=reference
    )
    assert aiq(curve, reference) == pytest.approx(expected, abs=0.05)
