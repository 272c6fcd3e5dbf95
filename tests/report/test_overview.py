"""What a window came to, candidate by candidate."""

import pytest

from mixllm_integrations.report.overview import overview
from mixllm_integrations.report.traffic import read_traffic


def test_everything_adds_up_by_candidate_and_in_all(book):
    for name in ("a", "b", "c"):
        book.decide(name, "small", propensity=1.0)
    book.decide("d", "large", explored=True)
    book.answer("a", cost=0.002)
    book.answer("b", cost=0.004)
    book.answer("c", error="TimeoutError")
    book.answer("d", cost=0.01)
    book.judge("a", 1.0)
    book.judge("b", 0.0)
    book.write("drift", "large", {"candidate": "large"})
    found = overview(read_traffic(book))
    small, large = found.candidates
    assert (small.name, small.decisions, small.share) == ("small", 3, 0.75)
    assert (small.answers, small.errors, small.explored) == (2, 1, 0.0)
    assert small.cost == pytest.approx(0.006)
    assert small.mean_cost == pytest.approx(0.003)
    assert (small.reward, small.feedback) == (0.5, 2)
    assert (small.predicted_quality, small.predicted_on_feedback) == (0.5, 0.5)
    assert (large.explored, large.reward, large.feedback) == (1.0, None, 0)
    assert (large.drifts, found.total.drifts) == (1, 1)
    assert (found.total.decisions, found.total.share) == (4, 1.0)
    assert found.total.cost == pytest.approx(0.016)
    assert found.total.predicted_quality == pytest.approx((3 * 0.5 + 0.8) / 4)
    assert (found.randomised, found.replayable) == (0.25, 3)


def test_an_answer_out_of_a_cache_and_a_call_given_up_are_no_errors(book):
    for word in ("cached", "abandoned"):
        book.answer(book.decide(word), error=word)
    (small,) = overview(read_traffic(book)).candidates
    assert (small.answers, small.cached, small.abandoned) == (1, 1, 1)
    assert (small.errors, small.cost, small.mean_cost) == (0, 0.0, None)


def test_who_only_might_have_answered_is_left_out(book):
    book.decide("a", "small")
    assert [c.name for c in overview(read_traffic(book)).candidates] == ["small"]


def test_it_is_a_table_in_a_notebook_whose_names_are_text(book):
    book.decide("d0", "<b>", predicted_quality=None)
    book.decide("d1", "small")
    book.judge("d1", 1.0)
    page = overview(read_traffic(book))._repr_html_()
    assert "2 decisions 2026-07-01 00:00 to 2026-07-01 00:01" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "1.000 (1)" in page
    assert ">–<" in page
