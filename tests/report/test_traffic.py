"""Events become decisions with what came of them, in one pass."""

import tracemalloc
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from mixllm_integrations import Candidate, Outcome, Router
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.report.traffic import STATES, read_traffic
from mixllm_integrations.serving.journal import Journal
from mixllm_integrations.store import open_store

START = datetime(2026, 7, 1, tzinfo=UTC)


def states(traffic):
    return [STATES[state] for state in traffic.state]


def test_a_decision_is_joined_with_its_outcome_and_its_feedback(book):
    for name in ("a", "b"):
        book.decide(name, "small" if name == "a" else "large", propensity=0.25)
    book.answer("b", cost=0.006)
    book.judge("b", 1.0)
    book.answer("a", cost=0.001)
    found = read_traffic(book)
    assert found.names == ("small", "large")
    assert found.chosen.tolist() == [0, 1]
    assert found.cost.tolist() == [0.001, 0.006]
    assert found.reward[1] == 1.0
    assert np.isnan(found.reward[0])
    assert found.propensity.tolist() == [0.25, 0.25]
    assert found.scores["quality"].tolist() == [[0.5, 0.8]] * 2
    assert found.scores["uncertainty"].tolist() == [[0.1, 0.2]] * 2
    assert found.eligible.all()
    assert (found.unmatched, found.unreadable) == (0, 0)


def test_what_a_journal_writes_is_read(tmp_path):
    router = Router([Candidate("small", 1.0, 2.0), Candidate("large", 5.0, 15.0)])
    with open_store(f"sqlite:///{tmp_path}/events.db") as store:
        journal = Journal(store)
        decision = router.route("What is 2 + 2?", among=["large"])
        journal.decision(decision)
        journal.outcome(decision.id, Outcome(10, 20, cost=0.25))
        journal.feedback(decision.id, 0.75, "refined", "judge")
        found = read_traffic(store)
    assert (found.names[found.chosen[0]], states(found)) == ("large", ["answered"])
    assert (found.cost[0], found.reward[0]) == (0.25, 0.75)
    assert found.eligible[0].tolist() == [n == "large" for n in found.names]
    small = found.names.index("small")
    expected = decision.scores["small"].quality
    assert found.scores["quality"][0, small] == pytest.approx(expected, rel=1e-5)
    assert found.replayable.tolist() == [True]


@pytest.mark.parametrize("order", [("binary", "refined"), ("refined", "binary")])
def test_refined_feedback_goes_before_binary(book, order):
    book.decide("a")
    for kind in order:
        book.judge("a", {"binary": 1.0, "refined": 0.25}[kind], kind)
    assert read_traffic(book).reward.tolist() == [0.25]


def test_feedback_of_another_kind_is_no_reward(book):
    book.decide("a")
    book.judge("a", 0.0, "regenerate")
    found = read_traffic(book)
    assert np.isnan(found.reward[0])
    assert found.unreadable == 0


def test_the_first_feedback_of_a_kind_stays(book):
    book.decide("a")
    book.judge("a", 1.0)
    book.judge("a", 0.0)
    assert read_traffic(book).reward.tolist() == [1.0]


def test_a_failed_call_has_no_reward_and_no_cost(book):
    ends = {"a": "TimeoutError", "b": "abandoned", "c": "cached", "d": None}
    for name, error in ends.items():
        book.decide(name)
        book.answer(name, cost=0.001, error=error)
        book.judge(name, 1.0)
    found = read_traffic(book)
    assert states(found) == ["failed", "abandoned", "cached", "answered"]
    assert np.isfinite(found.reward).tolist() == [False, False, True, True]
    assert np.isfinite(found.cost).tolist() == [False, False, False, True]
    assert found.replayable.tolist() == [False, False, False, True]


def test_the_window_is_that_of_the_decisions_not_of_their_feedback(book):
    for name in "abcd":
        book.decide(name)
    for name in "abcd":
        book.judge(name, 1.0)
    found = read_traffic(
        book,
        since=START + timedelta(minutes=1),
        until=START + timedelta(minutes=3),
    )
    assert found.reward.tolist() == [1.0, 1.0]
    assert (found.first.minute, found.last.minute) == (1, 2)
    assert found.unmatched == 2


def test_the_beginning_of_the_window_is_looked_up(book):
    for place in range(5_000):
        book.decide(f"d{place}")
    found = read_traffic(book, since=START + timedelta(minutes=4_900))
    assert len(found) == 100
    *looks, (after, limit) = book.asked
    assert limit is None
    # up to an hour before it, as the clocks of two writers may differ
    assert 4_800 < after <= 4_840
    assert len(looks) < 30


def test_what_comes_before_its_decision_is_kept_for_it(book):
    book.judge("a", 1.0)
    book.answer("a")
    book.decide("a")
    book.answer("never-made")
    found = read_traffic(book.events_written)
    assert (found.reward.tolist(), states(found)) == ([1.0], ["answered"])
    assert found.unmatched == 1


def test_a_log_from_before_scores_were_written_is_read_but_not_replayed(book):
    book.decide("old", scores=...)
    book.answer("old")
    book.decide("new")
    found = read_traffic(book)
    assert len(found) == 2
    assert found.replayable.tolist() == [False, True]
    assert found.predicted_quality.tolist() == [0.5, 0.5]


def test_who_was_excluded_is_not_eligible(book):
    book.decide("a", excluded={"large": "it is barred"})
    assert read_traffic(book).eligible.tolist() == [[True, False]]


def test_candidates_that_come_and_go_have_their_own_columns(book):
    book.decide("a")
    alone = {
        "candidates": ["new", "small"],
        "quality": [0.9, 0.4],
        "cost": [0.002, 0.001],
        "uncertainty": [0.0, 0.0],
        "waiting_penalty": [0.0, 0.0],
    }
    book.decide("b", "new", scores=alone)
    book.decide("c")
    found = read_traffic(book)
    assert found.names == ("small", "large", "new")
    quality = np.nan_to_num(found.scores["quality"], nan=-1.0)
    assert quality.tolist() == [[0.5, 0.8, -1.0], [0.4, -1.0, 0.9], [0.5, 0.8, -1.0]]
    assert found.eligible.tolist() == [
        [True, True, False],
        [True, False, True],
        [True, True, False],
    ]


def test_a_score_that_is_no_number_makes_its_candidate_not_eligible(book):
    book.decide("a")
    broken = dict(book.events_written[0].payload["scores"], cost=[0.001, None])
    book.decide("b", scores=broken)
    assert read_traffic(book).eligible.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("decision", {}),
        ("decision", {"candidate": "small", "scores": {"candidates": ["small"]}}),
        ("feedback", {"reward": "good", "kind": "binary"}),
        ("feedback", {"reward": 7.0, "kind": "refined"}),
        ("feedback", {"kind": "refined"}),
    ],
)
def test_what_cannot_be_read_is_counted_and_left_out(book, kind, payload):
    book.decide("sound")
    book.write(kind, "broken" if kind == "decision" else "sound", payload)
    found = read_traffic(book)
    assert (len(found), found.unreadable) == (1, 1)
    assert np.isnan(found.reward[0])


def test_drift_is_counted_by_candidate_and_what_is_unknown_is_ignored(book):
    book.decide("a")
    for _ in range(2):
        book.write("drift", "large", {"candidate": "large", "quantity": "quality"})
    book.write("refit", "whatever", {})
    found = read_traffic(book)
    assert (found.drifts, found.unreadable, found.unmatched) == ({"large": 2}, 0, 0)


def test_an_empty_log_is_no_error(book):
    found = read_traffic(book)
    assert (len(found), found.first, found.replayable.tolist()) == (0, None, [])


def test_events_without_decisions_take_no_place(book):
    for place in range(30_000):
        book.answer(f"elsewhere{place}")
    tracemalloc.start()
    try:
        found = read_traffic(iter(book.events_written))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.unmatched == 30_000
    assert peak < 5_000_000


@pytest.mark.parametrize(
    ("window", "told"),
    [
        ({"since": datetime(2026, 7, 1)}, "since must have a time zone"),
        ({"since": START, "until": START}, "before it begins"),
    ],
)
def test_a_window_that_is_none_is_refused(book, window, told):
    with pytest.raises(ConfigurationError, match=told):
        read_traffic(book, **window)
