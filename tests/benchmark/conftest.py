"""Fixtures of the benchmark's tests."""

import numpy as np
import pytest
from hypothesis import settings

from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.core.types import Candidate, RoutingRecord

# A machine under load is slow, not wrong.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

_TOPICS = {
    "sums": ("What is {} plus {}?", "Add {} to {} and tell me the sum."),
    "law": ("Is contract {} void under statute {}?", "May tenant {} sue owner {}?"),
    "verse": ("Write a poem of {} lines about {} birds.", "Rhyme {} words in {} ways."),
}
# How often each candidate is right in each domain.
_SKILL = {
    "sums": (0.9, 0.9, 0.3),
    "law": (0.2, 0.8, 0.3),
    "verse": (0.3, 0.7, 0.9),
}
_PRICES = (("small", 0.1, 0.4), ("large", 5.0, 15.0), ("poet", 1.0, 3.0))


@pytest.fixture(scope="session")
def world() -> BenchmarkTable:
    """180 queries of three domains, three candidates, three texts twice."""
    rng = np.random.default_rng(7)
    candidates = [Candidate(*row) for row in _PRICES]
    records, ids = [], []
    for number in range(180):
        domain = list(_TOPICS)[number % 3]
        text = _TOPICS[domain][number % 2].format(number, number + 3)
        if number in (60, 61, 62):  # a copy of an earlier text, labelled anew
            earlier = number - 60
            text = _TOPICS[domain][earlier % 2].format(earlier, earlier + 3)
        for column, candidate in enumerate(candidates):
            length = int(rng.integers(20, 60)) * (1 + column)
            cost = 10 * candidate.input_cost_per_million_tokens
            cost += length * candidate.output_cost_per_million_tokens
            good = float(rng.random() < _SKILL[domain][column])
            records.append(
                RoutingRecord(
                    text, candidate.name, good, 10, length, cost / 1e6, tags=(domain,)
                )
            )
            ids.append(str(number))
    return BenchmarkTable.from_records(
        records, name="world", query_ids=ids, candidates=candidates
    )
