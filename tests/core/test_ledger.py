import json

import numpy as np
import pytest

from mixllm_integrations.core.errors import (
    ConfigurationError,
    StateFormatError,
    UnknownDecisionError,
)
from mixllm_integrations.core.ledger import DecisionLedger, PendingDecision
from mixllm_integrations.core.types import Feedback, Outcome

OUTCOME = Outcome(100, 20, cost=0.001, latency_seconds=2.0)


@pytest.fixture
def ledger(clock):
    return DecisionLedger(capacity=3, max_age_seconds=100.0, clock=clock)


def pending(decision_id, **changes):
    values = {
        "candidate": "small",
        "predicted_quality": 0.7,
        "predicted_output_tokens": 120.5,
        "input_tokens": 100,
        "token_cost": 0.0002,
        "context": np.arange(4, dtype=np.float32),
    }
    return PendingDecision(decision_id, **{**values, **changes})


def put(ledger, *ids):
    for decision_id in ids:
        ledger.put(pending(decision_id))


def test_a_decision_is_found_until_it_is_too_old(ledger, clock):
    put(ledger, "a")
    clock.move(100)
    assert ledger.get("a").candidate == "small"
    clock.move(0.1)
    with pytest.raises(UnknownDecisionError, match="'a'"):
        ledger.get("a")
    assert (len(ledger), ledger.expired, ledger.crowded_out) == (0, 1, 0)


def test_only_those_that_are_too_old_expire(ledger, clock):
    put(ledger, "a", "b")
    clock.move(60)
    put(ledger, "c")
    clock.move(60)
    assert [i in ledger for i in "abc"] == [False, False, True]
    assert ledger.expired == 2


def test_the_oldest_makes_room_when_the_ledger_is_full(ledger):
    put(ledger, "a", "b", "c", "d")
    assert [i in ledger for i in "abcd"] == [False, True, True, True]
    assert (len(ledger), ledger.crowded_out, ledger.expired) == (3, 1, 0)


def test_an_infinite_age_never_expires(clock):
    ledger = DecisionLedger(max_age_seconds=np.inf, clock=clock)
    put(ledger, "a")
    clock.move(1e12)
    assert "a" in ledger


def test_a_clock_that_jumps_backwards_loses_nothing(ledger, clock):
    put(ledger, "a")
    clock.move(-1e6)
    put(ledger, "b")
    assert len(ledger) == 2


def test_a_second_outcome_changes_nothing(ledger):
    put(ledger, "a")
    assert ledger.record_outcome("a", OUTCOME) is True
    assert ledger.record_outcome("a", Outcome(1, 1, error="TimeoutError")) is False
    assert ledger.get("a").outcome is OUTCOME


def test_a_second_feedback_of_one_kind_changes_nothing(ledger):
    put(ledger, "a", "b")
    first = Feedback("a", 0.8)
    assert ledger.record_feedback(first) is True
    assert ledger.record_feedback(Feedback("a", 0.1)) is False
    assert ledger.record_feedback(Feedback("a", 1.0, "binary")) is True
    assert ledger.record_feedback(Feedback("a", 0.0, "binary")) is False
    assert ledger.get("a").feedback["refined"] is first
    assert ledger.get("a").feedback["binary"].reward == 1.0
    assert ledger.get("b").feedback == {}


def test_feedback_may_come_before_the_outcome(ledger):
    put(ledger, "a")
    assert ledger.record_feedback(Feedback("a", 0.5))
    assert ledger.record_outcome("a", OUTCOME)


def test_what_belongs_to_no_decision_is_a_typed_error(ledger):
    for call in (
        lambda: ledger.get("x"),
        lambda: ledger.record_outcome("x", OUTCOME),
        lambda: ledger.record_feedback(Feedback("x", 0.5)),
    ):
        with pytest.raises(UnknownDecisionError, match="'x'"):
            call()


def test_two_decisions_of_one_id_are_refused(ledger):
    put(ledger, "a")
    with pytest.raises(ConfigurationError, match="'a'"):
        ledger.put(pending("a", candidate="large"))
    assert ledger.get("a").candidate == "small"


@pytest.mark.parametrize(("name", "value"), [("capacity", 0), ("max_age_seconds", 0.0)])
def test_settings_that_cannot_be_used_are_named(name, value):
    with pytest.raises(ConfigurationError, match=f"decision_{name}"):
        DecisionLedger(**{name: value})


# --- state ---------------------------------------------------------------------


def restart(ledger, clock, **settings):
    rows, contexts = ledger.state()
    return DecisionLedger.from_state(
        json.loads(json.dumps(rows)), contexts, clock=clock, **settings
    )


def test_a_restart_keeps_decisions_ages_outcomes_and_feedback(ledger, clock):
    ledger.put(pending("a", version=3))
    ledger.record_outcome("a", OUTCOME)
    ledger.record_feedback(Feedback("a", 1.0, "binary", source="thumbs"))
    clock.move(70)
    put(ledger, "b")
    rows, contexts = ledger.state()
    clock.move(-123_456)  # another process, whose clock started elsewhere
    back = DecisionLedger.from_state(
        json.loads(json.dumps(rows)), contexts, max_age_seconds=100.0, clock=clock
    )
    a = back.get("a")
    assert (a.outcome, back.get("b").outcome) == (OUTCOME, None)
    assert a.feedback == {"binary": Feedback("a", 1.0, "binary", source="thumbs")}
    assert (a.candidate, a.predicted_quality, a.predicted_output_tokens) == (
        "small",
        0.7,
        120.5,
    )
    assert (a.input_tokens, a.token_cost, a.version) == (100, 0.0002, 3)
    np.testing.assert_array_equal(a.context, np.arange(4, dtype=np.float32))
    assert a.context.dtype == np.float32
    clock.move(31)  # 70 + 31 s old by now
    assert [i in back for i in "ab"] == [False, True]


def test_feedback_that_came_before_a_restart_still_counts_once(ledger, clock):
    put(ledger, "a")
    ledger.record_feedback(Feedback("a", 0.3))
    back = restart(ledger, clock)
    assert back.record_feedback(Feedback("a", 0.9)) is False
    assert back.get("a").feedback["refined"].reward == 0.3


def test_a_smaller_ledger_takes_over_the_newest(ledger, clock):
    put(ledger, "a", "b", "c")
    back = restart(ledger, clock, capacity=2)
    assert [i in back for i in "abc"] == [False, True, True]


def test_an_empty_ledger_can_be_saved_and_read(ledger, clock):
    assert len(restart(ledger, clock)) == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda row: row.pop("candidate"),
        lambda row: row.update(predicted_quality=float("nan")),
        lambda row: row.update(age_seconds="old"),
        lambda row: row.update(outcome={"tokens": 3}),
        lambda row: row.update(outcome={"input_tokens": -1, "output_tokens": 1}),
        lambda row: row.update(feedback=[{"decision_id": "a", "reward": 7.0}]),
        lambda row: row.update(feedback=None),
    ],
)
def test_a_damaged_row_is_counted_and_the_others_are_read(ledger, clock, damage):
    put(ledger, "a", "b")
    rows, contexts = ledger.state()
    damage(rows[0])
    back = DecisionLedger.from_state(rows, contexts, clock=clock)
    assert ("a" in back, "b" in back, back.unreadable) == (False, True, 1)


def test_a_context_that_is_not_finite_is_a_damaged_row(ledger, clock):
    put(ledger, "a", "b")
    rows, contexts = ledger.state()
    contexts[1, 2] = np.nan
    back = DecisionLedger.from_state(rows, contexts, clock=clock)
    assert ("a" in back, "b" in back, back.unreadable) == (True, False, 1)


@pytest.mark.parametrize("contexts", [np.zeros((1, 4)), np.zeros(2), np.zeros((3, 4))])
def test_a_context_matrix_of_another_length_is_an_error(ledger, clock, contexts):
    put(ledger, "a", "b")
    rows, _ = ledger.state()
    with pytest.raises(StateFormatError, match="2 pending"):
        DecisionLedger.from_state(rows, contexts, clock=clock)


# --- decisions of other workers --------------------------------------------------


def test_an_adopted_decision_is_pending_but_not_among_the_own(ledger):
    put(ledger, "own")
    assert ledger.adopt(pending("other"))
    assert ("other" in ledger, ledger.get("other").candidate) == (True, "small")
    assert [ledger.has_adopted(i) for i in ("own", "other", "none")] == [0, 1, 0]
    assert [p.decision_id for p in ledger] == ["own", "other"]
    assert len(ledger) == 1
    assert [row["decision_id"] for row in ledger.state()[0]] == ["own"]


def test_what_is_pending_is_not_adopted_again(ledger):
    put(ledger, "own")
    ledger.adopt(pending("other"))
    ledger.record_outcome("other", OUTCOME)
    assert not ledger.adopt(pending("own"))
    assert not ledger.adopt(pending("other"))
    assert ledger.get("other").outcome is OUTCOME
    with pytest.raises(ConfigurationError, match="'other'"):
        put(ledger, "other")


def test_adopted_decisions_make_room_among_themselves(ledger):
    put(ledger, "a", "b", "c")
    for decision_id in "vwxyz":
        ledger.adopt(pending(decision_id))
    assert [i in ledger for i in "abcvwxyz"] == [1, 1, 1, 0, 0, 1, 1, 1]
    assert ledger.crowded_out == 0


def test_adopted_decisions_expire_uncounted(ledger, clock):
    ledger.adopt(pending("other"))
    clock.move(100.1)
    assert "other" not in ledger
    assert not ledger.has_adopted("other")
    assert ledger.expired == 0


def test_an_adopted_decision_is_told_once(ledger):
    ledger.adopt(pending("other"))
    assert [ledger.record_outcome("other", OUTCOME) for _ in "ab"] == [True, False]
    told = Feedback("other", 0.5)
    assert [ledger.record_feedback(told) for _ in "ab"] == [True, False]
    assert [ledger.record_signal("other", "truncated") for _ in "ab"] == [True, False]


def test_names_prices_and_fits_reach_adopted_decisions(ledger):
    ledger.adopt(pending("other"))
    ledger.rename("small", "tiny")
    ledger.reprice("tiny", lengths=True)
    ledger.outdate(["tiny"])
    found = ledger.get("other")
    assert (found.candidate, found.predicted_output_tokens) == ("tiny", 0.0)
    assert np.isnan(found.token_cost)
    assert found.version == -1


def test_a_ledger_is_taken_over_as_old_as_it_is(ledger, clock):
    put(ledger, "a", "b")
    clock.move(60)
    here = DecisionLedger(capacity=3, max_age_seconds=100.0, clock=clock)
    here.adopt(pending("before"))
    here.take_over(ledger)
    assert [i in here for i in ("a", "b", "before")] == [True, True, False]
    clock.move(50)
    assert "a" not in here


def test_what_was_heard_of_an_own_decision_is_taken_over(ledger, clock):
    here = DecisionLedger(clock=clock)
    put(here, "a")
    put(ledger, "a")
    ledger.record_outcome("a", OUTCOME)
    ledger.record_feedback(Feedback("a", 0.5))
    ledger.record_signal("a", "truncated")
    here.take_over(ledger)
    assert not here.has_adopted("a")
    assert not here.record_outcome("a", OUTCOME)
    assert not here.record_feedback(Feedback("a", 0.9))
    assert not here.record_signal("a", "truncated")


def test_no_more_is_taken_over_than_there_is_room_for(ledger, clock):
    here = DecisionLedger(capacity=2, clock=clock)
    put(ledger, "a", "b", "c")
    here.take_over(ledger)
    assert [i in here for i in "abc"] == [False, True, True]


# --- what a log lacks --------------------------------------------------------------


def ids(ledger, **given):
    return [row["decision_id"] for row in ledger.state(**given)[0]]


def test_what_no_log_has_is_kept_of_adopted_decisions_too(ledger):
    put(ledger, "mine", "quiet")
    for name in ("theirs", "silent"):
        ledger.adopt(pending(name))
    ledger.record_outcome("mine", OUTCOME)
    ledger.record_feedback(Feedback("theirs", 1.0))
    assert ids(ledger) == ["mine", "quiet", "theirs"]
    assert ids(ledger, unheard=True) == ["mine", "theirs"]


def test_what_a_log_has_is_left_out_once_all_of_it_is_heard(ledger):
    put(ledger, "mine")
    ledger.record_outcome("mine", OUTCOME)
    ledger.record_signal("mine", "regenerate")
    ledger.heard("mine", "outcome")
    assert ids(ledger, unheard=True) == ["mine"]
    ledger.heard("mine", "regenerate")
    ledger.heard("nobody", "outcome")
    ledger.heard("mine", "nothing that there is")
    assert ids(ledger, unheard=True) == []
    assert ids(ledger) == ["mine"]


def test_what_comes_out_of_a_log_is_heard_from_the_first(ledger):
    ledger.adopt(pending("theirs"))
    ledger.is_hearing = True
    ledger.record_outcome("theirs", OUTCOME)
    ledger.record_feedback(Feedback("theirs", 1.0))
    ledger.record_signal("theirs", "regenerate")
    assert ids(ledger) == ids(ledger, unheard=True) == []


def test_what_no_log_has_is_known_after_a_restart(ledger, clock):
    put(ledger, "mine", "heard")
    for name in ("mine", "heard"):
        ledger.record_outcome(name, OUTCOME)
    ledger.heard("heard", "outcome")
    rows, contexts = ledger.state()
    anew = DecisionLedger.from_state(
        json.loads(json.dumps(rows)), contexts, clock=clock
    )
    assert ids(anew, unheard=True) == ["mine"]
