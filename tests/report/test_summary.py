"""Totals of an event log, through a real store."""

import pytest

from mixllm_integrations import Candidate, Outcome, Router
from mixllm_integrations.report import summarise
from mixllm_integrations.serving.journal import Journal
from mixllm_integrations.store import open_store


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/events.db") as opened:
        yield opened


def decided(store, among):
    router = Router([Candidate("small", 1.0, 2.0), Candidate("large", 5.0, 15.0)])
    decision = router.route("What is 2 + 2?", among=[among])
    Journal(store).decision(decision)
    return decision


def test_cost_and_tokens_of_answers_add_up(store):
    journal = Journal(store)
    for cost in (0.25, 0.5):
        decision = decided(store, "small")
        journal.outcome(decision.id, Outcome(10, 20, cost=cost, latency_seconds=1.5))
    totals = summarise(store.events()).candidates["small"]
    assert (totals.answers, totals.cost) == (2, 0.75)
    assert (totals.input_tokens, totals.output_tokens) == (20, 40)
    assert totals.latencies_seconds == [1.5, 1.5]


def test_a_failed_call_is_an_error_and_costs_nothing(store):
    decision = decided(store, "large")
    Journal(store).outcome(decision.id, Outcome(10, 0, cost=9.0, error="Timeout"))
    totals = summarise(store.events()).candidates["large"]
    assert (totals.decisions, totals.answers, totals.errors) == (1, 0, 1)
    assert totals.cost == 0.0


def test_feedback_counts_for_the_candidate_that_answered(store):
    first, second = decided(store, "small"), decided(store, "large")
    Journal(store).feedback(first.id, 1.0, "binary", None)
    Journal(store).feedback(second.id, 0.25, "refined", "judge")
    found = summarise(store.events()).candidates
    assert found["small"].mean_reward == 1.0
    assert found["large"].mean_reward == 0.25


def test_an_outcome_without_its_decision_is_counted_apart(store):
    Journal(store).outcome("never-made", Outcome(1, 1, cost=1.0))
    summary = summarise(store.events())
    assert (summary.unmatched, summary.decisions, summary.cost) == (1, 0, 0.0)


def test_the_most_chosen_candidate_comes_first(store):
    for name in ("large", "small", "small"):
        decided(store, name)
    summary = summarise(store.events())
    assert list(summary.candidates) == ["small", "large"]
    expected = summary.candidates["large"].mean_predicted_quality
    assert 0.0 < expected < 1.0
    assert summary.candidates["small"].mean_reward is None


def test_a_cached_answer_and_a_call_given_up_are_no_errors(store):
    for word in ("cached", "abandoned"):
        decision = decided(store, "small")
        Journal(store).outcome(decision.id, Outcome(0, 0, error=word))
    totals = summarise(store.events()).candidates["small"]
    assert (totals.answers, totals.cached, totals.abandoned) == (1, 1, 1)
    assert (totals.errors, totals.cost) == (0, 0.0)


def test_a_summary_is_a_table_in_a_notebook_whose_names_are_text(book):
    for place in range(3):
        book.decide(f"d{place}", "<b>")
        book.answer(f"d{place}", cost=0.5)
    book.judge("d0", 1.0)
    page = summarise(book.events_written)._repr_html_()
    assert "3 decisions, 1.5 USD" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    book.decide("e", "silent")
    assert ">–<" in summarise(book.events_written)._repr_html_()
