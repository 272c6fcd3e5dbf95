"""Saved against a reference, and what other settings would have done: by hand."""

import math

import pytest

from mixllm_integrations import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.offpolicy import Interval
from mixllm_integrations.report.comparison import _kept, _saved, compare, reference_of
from mixllm_integrations.report.traffic import read_traffic


@pytest.fixture
def even(book):
    """Ten decisions for each, by a coin; costs are as predicted."""
    for place in range(20):
        name = ("small", "large")[place % 2]
        book.decide(f"d{place}", name)
        book.answer(f"d{place}", cost={"small": 0.001, "large": 0.005}[name])
        book.judge(f"d{place}", float(name == "large" or place % 4 == 0))
    return read_traffic(book)


def test_the_reference_is_of_whom_most_is_expected(even):
    assert reference_of(even) == "large"


def test_who_could_hardly_ever_answer_is_no_reference(book):
    for place in range(10):
        book.decide(f"d{place}", excluded={} if place == 0 else {"large": "too dear"})
    assert reference_of(read_traffic(book)) == "small"


def test_without_scores_there_is_no_reference(book):
    book.decide("d", scores=...)
    traffic = read_traffic(book)
    assert reference_of(traffic) is None
    with pytest.raises(ConfigurationError, match="no scores were logged"):
        compare(traffic)


def test_savings_by_hand(even):
    found = compare(even)
    # Logged 0.003 a decision, the reference 0.005: 40 % saved, 20 * 0.002 USD.
    assert found.reference == "large"
    assert found.saved.value == pytest.approx(0.4)
    assert found.saved_cost == pytest.approx(0.04)
    assert found.now.cost.value == pytest.approx(0.003)
    # Feedback 0.75 in all, of the reference's answers 1.
    assert found.now.quality.value == pytest.approx(0.75)
    assert found.quality_kept.value == pytest.approx(0.75)
    assert found.saved.low <= 0.4 <= found.saved.high
    assert (found.decisions, found.feedback, found.model_only) == (20, 20, False)
    assert found.willingness_to_pay == 0.01


def test_a_dear_log_has_saved_nothing(even):
    found = compare(even, reference="small")
    # 0.003 against 0.001.
    assert found.saved.value == pytest.approx(-2.0)
    assert found.saved_cost == pytest.approx(-0.04)


def test_alternatives_are_other_worths_then_always_one(even):
    found = compare(even)
    names = [way.name for way in found.alternatives]
    assert names == [
        *("λ × 1/16", "λ × 1/4", "λ × 1/2", "λ × 2", "λ × 4", "λ × 16"),
        *("large", "small"),
    ]
    by_name = {way.name: way for way in found.alternatives}
    # 0.5 - 0.1 < 0.8 - 0.5 turns where 0.3 = 0.004 / λ: at λ = 0.0133.
    assert by_name["λ × 2"].cost.value == pytest.approx(0.005)
    assert by_name["λ × 1/2"].cost.value == pytest.approx(0.001)
    assert by_name["λ × 2"].cost_change.value == pytest.approx(2 / 3)


def test_where_nothing_was_left_to_chance_it_says_so(book):
    for place in range(30):
        book.decide(f"d{place}", propensity=1.0)
    found = compare(read_traffic(book))
    assert found.model_only
    # What would have decided alike is known without chance.
    model_only = {way.name for way in found.alternatives if way.model_only}
    assert "large" in model_only
    assert "small" not in model_only
    assert any("randomised" in warning for warning in found.warnings)


def test_an_unknown_reference_is_told_with_those_that_are_known(even):
    with pytest.raises(UnknownCandidateError, match="'huge'"):
        compare(even, reference="huge")


def test_where_no_worth_was_logged_the_default_stands_in(book):
    for place in range(4):
        book.decide(f"d{place}", willingness_to_pay=None)
    assert compare(read_traffic(book)).willingness_to_pay == 0.01


def test_shares_of_nothing_are_without_bounds():
    assert _saved(Interval(1.0, 0.0, 3.0)) == Interval(0.5, 0.0, 0.75)
    assert _saved(Interval(-1.0, -1.5, 0.0)).value == -math.inf
    assert _kept(Interval(0.25, 0.0, 1.0)) == Interval(0.8, 0.5, 1.0)
    assert _kept(Interval(-1.0, -1.0, 0.0)).value == math.inf
