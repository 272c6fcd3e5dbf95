"""Facts about a candidate, from all who know something of it."""

import pytest

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving import ListPrice
from mixllm_integrations.serving.facts import candidate_from

KNOWN = Candidate(
    "a",
    3.0,
    6.0,
    context_window=7_000,
    tools=False,
    vision=False,
    structured_output=False,
    prior_quality=0.25,
    time_to_first_token_seconds=0.5,
    seconds_per_output_token=0.01,
    max_concurrency=3,
)
ALL_OFFERED = {"tools": True, "structured_output": True}
LISTED = ListPrice(1.0, 2.0, 50_000)


def never():
    raise AssertionError("no list is asked")


def facts(*, known=None, listed=lambda: LISTED, declared=None, told=None, **offered):
    return candidate_from(
        "a",
        declared=declared or {},
        told=told or {},
        offered={**ALL_OFFERED, **offered},
        known=known,
        listed=listed,
    )


def test_what_nobody_else_says_is_what_the_router_knew():
    assert facts(known=KNOWN, listed=never) == KNOWN


def test_without_a_router_prices_and_window_come_from_the_list():
    assert facts() == Candidate("a", 1.0, 2.0, context_window=50_000)


def test_one_price_declared_leaves_the_other_to_the_list():
    found = facts(declared={"input_cost_per_million_tokens": 0.0})
    assert found.input_cost_per_million_tokens == 0.0
    assert found.output_cost_per_million_tokens == 2.0


def test_what_is_declared_wins_over_all():
    declared = {
        "input_cost_per_million_tokens": 0.0,
        "output_cost_per_million_tokens": 0.0,
        "context_window": 9_000,
        "tools": True,
        "vision": True,
        "structured_output": True,
        "prior_quality": 0.0,
        "time_to_first_token_seconds": 0.25,
        "seconds_per_output_token": 0.5,
        "max_concurrency": 1,
    }
    told = {
        "context_window": 1_000,
        "tools": False,
        "vision": False,
        "structured_output": False,
    }
    found = facts(known=KNOWN, listed=never, declared=declared, told=told)
    assert found == Candidate("a", **declared)


@pytest.mark.parametrize("ability", ["tools", "vision", "structured_output"])
def test_what_the_model_tells_wins_over_the_router(ability):
    assert getattr(facts(known=KNOWN, told={ability: True}), ability) is True


@pytest.mark.parametrize(("told", "window"), [(5_000, 5_000), (9_000, 7_000)])
def test_the_smaller_window_counts(told, window):
    found = facts(known=KNOWN, told={"context_window": told})
    assert found.context_window == window


@pytest.mark.parametrize("ability", ["tools", "structured_output"])
def test_what_its_class_does_not_offer_it_cannot_do(ability):
    able = Candidate("a", 3.0, 6.0)
    assert getattr(facts(known=able), ability) is True
    assert getattr(facts(known=able, **{ability: False}), ability) is False


def test_a_price_that_cannot_be_used_is_an_error():
    with pytest.raises(ConfigurationError, match="-1"):
        facts(declared={"output_cost_per_million_tokens": -1.0})
