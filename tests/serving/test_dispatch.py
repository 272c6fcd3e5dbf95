"""A routed call from decision to outcome, with failover and cooldown."""

import copy
import logging

import pytest

from mixllm_integrations.core.errors import (
    ConfigurationError,
    NoCandidateError,
    UnknownCandidateError,
    UnknownDecisionError,
)
from mixllm_integrations.serving import CallOptions, Dispatcher

RECORD_KEYS = {
    "decision_id",
    "candidate",
    "predicted_quality",
    "predicted_cost",
    "cost",
    "willingness_to_pay",
    "attempts",
}


class StatusError(Exception):
    def __init__(self, status_code):
        super().__init__(f"status {status_code}")
        self.status_code = status_code


def test_a_success_returns_exactly_the_documented_record(dispatcher):
    call = dispatcher.begin("a question")
    record = call.succeed(input_tokens=1_000, output_tokens=500)
    assert set(record) == RECORD_KEYS
    assert record["decision_id"] == call.decision.id
    assert record["candidate"] == "best"
    assert record["attempts"] == []
    # best costs 1 and 2 USD per million: 1000 * 1e-6 + 500 * 2e-6 = 0.002.
    assert record["cost"] == pytest.approx(0.002)
    assert record["willingness_to_pay"] == pytest.approx(0.01)


def test_a_cost_that_the_provider_told_wins_over_list_prices(dispatcher):
    record = dispatcher.begin("q").succeed(input_tokens=10, output_tokens=1, cost=0.5)
    assert record["cost"] == 0.5


def test_the_outcome_carries_latency_and_time_to_first_chunk(
    watched, watched_dispatcher, clock
):
    call = watched_dispatcher().begin("q")
    clock.advance(0.25)
    call.first_chunk()
    clock.advance(1.0)
    call.first_chunk()  # only the first one counts
    call.succeed(input_tokens=3, output_tokens=4)
    outcome = watched.outcomes[call.decision.id]
    assert outcome.time_to_first_token_seconds == 0.25
    assert outcome.latency_seconds == 1.25
    assert (outcome.input_tokens, outcome.output_tokens) == (3, 4)
    assert outcome.error is None


def test_an_answer_that_came_whole_has_no_time_to_first_chunk(
    watched, watched_dispatcher, clock
):
    call = watched_dispatcher().begin("q")
    clock.advance(2.0)
    call.succeed(input_tokens=1, output_tokens=1)
    assert watched.outcomes[call.decision.id].time_to_first_token_seconds is None


def test_a_cached_answer_costs_nothing_and_teaches_nothing(watched, watched_dispatcher):
    call = watched_dispatcher().begin("q")
    record = call.succeed(input_tokens=1_000, output_tokens=900, cached=True)
    assert record["cost"] == 0.0
    outcome = watched.outcomes[call.decision.id]
    assert outcome.error is not None  # the router learns from successes only
    assert outcome.latency_seconds is None


def test_the_load_is_released_once_whatever_comes_later(watched, watched_dispatcher):
    call = watched_dispatcher().begin("q")
    call.succeed(input_tokens=1, output_tokens=1)
    call.succeed(input_tokens=1, output_tokens=1)
    call.abandon()
    call.break_off(TimeoutError())
    assert len(watched.outcomes) == 1


def test_an_abandoned_call_is_released_without_blame(watched, watched_dispatcher):
    dispatcher = watched_dispatcher()
    call = dispatcher.begin("q")
    call.abandon()
    call.abandon()
    assert watched.outcomes[call.decision.id].error == "abandoned"
    assert dispatcher.begin("q").candidate == "best"


def test_the_next_best_takes_over_and_the_record_lists_who_failed(dispatcher, caplog):
    call = dispatcher.begin("q")
    first_id = call.decision.id
    with caplog.at_level(logging.WARNING):
        assert call.fail(TimeoutError("the prompt says: secret"))
    assert call.candidate == "middle"
    assert call.decision.id != first_id
    record = call.succeed(input_tokens=1, output_tokens=1)
    assert record["attempts"] == [
        {"decision_id": first_id, "candidate": "best", "error": "TimeoutError"}
    ]
    assert record["candidate"] == "middle"
    assert "'best' failed with TimeoutError; 'middle' answers" in caplog.text
    assert "secret" not in caplog.text


def test_a_failure_is_told_to_the_router_as_an_error(watched, watched_dispatcher):
    call = watched_dispatcher().begin("q")
    first_id = call.decision.id
    call.fail(StatusError(503))
    assert watched.outcomes[first_id].error == "StatusError"
    assert call.decision.id not in watched.outcomes


def test_when_all_failed_one_group_names_each(dispatcher):
    call = dispatcher.begin("q")
    errors = [TimeoutError("a"), ConnectionError("b"), StatusError(429)]
    assert [call.fail(error) for error in errors] == [True, True, False]
    failure = call.failure()
    assert isinstance(failure, ExceptionGroup)
    assert list(failure.exceptions) == errors
    assert "'best': TimeoutError; 'middle': ConnectionError; 'worst'" in str(failure)


def test_a_single_candidates_error_is_raised_as_it_is(dispatcher):
    call = dispatcher.begin("q", among=["middle"])
    error = TimeoutError()
    assert not call.fail(error)
    assert call.failure() is error


def test_a_mistake_of_the_caller_is_not_repeated_elsewhere(dispatcher):
    call = dispatcher.begin("q")
    error = StatusError(400)
    assert not call.fail(error)
    assert call.failure() is error
    assert dispatcher.begin("q").candidate == "best"  # nobody cools down for it


def test_a_failed_candidate_is_left_alone_until_its_cooldown_is_over(dispatcher, clock):
    dispatcher.begin("q").fail(TimeoutError())
    clock.advance(29.9)
    assert dispatcher.begin("q").candidate == "middle"
    clock.advance(0.2)
    assert dispatcher.begin("q").candidate == "best"


def test_if_all_are_cooling_the_one_due_soonest_is_tried(dispatcher, clock):
    call = dispatcher.begin("q")
    for _ in range(3):
        call.fail(TimeoutError())
        clock.advance(1.0)
    # best failed first, so it is due first; without it, middle.
    again = dispatcher.begin("q")
    assert again.candidate == "best"
    assert again.fail(TimeoutError())
    assert again.candidate == "middle"


def test_only_a_cooling_one_is_able_so_it_is_tried(dispatcher, clock):
    dispatcher.begin("q", among=["best"]).fail(TimeoutError())
    clock.advance(1.0)
    dispatcher.begin("q", among=["worst"]).fail(TimeoutError())
    # middle is ready but has no tools; of the others best is due first.
    assert dispatcher.begin("q", requires=["tools"]).candidate == "best"


def test_an_answer_ends_the_cooldown(dispatcher):
    dispatcher.begin("q", among=["best"]).fail(TimeoutError())
    forced = dispatcher.begin("q", options=CallOptions(candidate="best"))
    forced.succeed(input_tokens=1, output_tokens=1)
    assert dispatcher.begin("q").candidate == "best"


def test_no_cooldown_can_be_asked_for(ranked_router, clock):
    dispatcher = Dispatcher(ranked_router, cooldown_seconds=0.0, clock=clock)
    dispatcher.begin("q").fail(TimeoutError())
    assert dispatcher.begin("q").candidate == "best"


def test_an_answer_that_broke_off_cools_down_but_is_not_begun_anew(
    watched, watched_dispatcher
):
    dispatcher = watched_dispatcher()
    call = dispatcher.begin("q")
    call.break_off(ConnectionError())
    assert call.candidate == "best"
    assert watched.outcomes[call.decision.id].error == "ConnectionError"
    assert dispatcher.begin("q").candidate == "middle"


def test_a_forced_candidate_answers_or_nobody_does(dispatcher):
    call = dispatcher.begin("q", options=CallOptions(candidate="worst"))
    assert call.candidate == "worst"
    assert not call.fail(TimeoutError())


def test_forcing_an_unknown_candidate_names_the_known_ones(dispatcher):
    with pytest.raises(UnknownCandidateError, match=r"'nobody'.*'worst', 'best'"):
        dispatcher.begin("q", options=CallOptions(candidate="nobody"))


def test_a_preferred_candidate_comes_first_and_the_others_after_it(dispatcher):
    call = dispatcher.begin("q", options=CallOptions(prefer="worst"))
    assert call.candidate == "worst"
    assert call.fail(TimeoutError())
    assert call.candidate == "best"
    # It cools down now, so it is not preferred.
    again = dispatcher.begin("q", options=CallOptions(prefer="worst"))
    assert again.candidate == "best"


def test_a_preferred_candidate_that_is_not_able_is_passed_over(dispatcher):
    call = dispatcher.begin(
        "q", requires=["tools"], options=CallOptions(prefer="middle")
    )
    assert call.candidate == "best"


def test_a_preferred_candidate_that_is_gone_is_passed_over(dispatcher):
    call = dispatcher.begin("q", options=CallOptions(prefer="removed long ago"))
    assert call.candidate == "best"


def test_failovers_can_be_limited(dispatcher):
    call = dispatcher.begin("q", options=CallOptions(max_failovers=1))
    assert call.fail(TimeoutError())
    assert not call.fail(TimeoutError())
    assert isinstance(call.failure(), ExceptionGroup)


def test_nobody_able_is_an_error_that_says_why(dispatcher):
    with pytest.raises(NoCandidateError, match="middle"):
        dispatcher.begin("q", requires=["tools"], among=["middle"])


def test_feedback_reaches_the_router_once(dispatcher):
    call = dispatcher.begin("q")
    record = call.succeed(input_tokens=1, output_tokens=1)
    assert dispatcher.record_feedback(record, 1.0)
    assert not dispatcher.record_feedback(record["decision_id"], 1.0)


def test_feedback_on_a_cached_answer_still_teaches_quality(dispatcher):
    call = dispatcher.begin("q")
    record = call.succeed(input_tokens=1, output_tokens=1, cached=True)
    assert dispatcher.record_feedback(record, 1.0)


def test_feedback_on_a_strange_decision_is_an_error(dispatcher):
    with pytest.raises(UnknownDecisionError):
        dispatcher.record_feedback("never made", 1.0)


def test_a_decision_that_was_crowded_out_does_not_spoil_the_answer(clock):
    from mixllm_integrations.core.router import Router
    from mixllm_integrations.core.types import Candidate

    router = Router([Candidate("a", 1, 1)], decision_capacity=1, clock=clock)
    dispatcher = Dispatcher(router, clock=clock)
    first = dispatcher.begin("q")
    dispatcher.begin("q")
    assert first.succeed(input_tokens=1, output_tokens=1)["candidate"] == "a"


def test_copies_share_what_is_learned(dispatcher):
    assert copy.deepcopy(dispatcher) is dispatcher


def test_a_negative_cooldown_is_refused(ranked_router):
    with pytest.raises(ConfigurationError, match="cooldown_seconds"):
        Dispatcher(ranked_router, cooldown_seconds=-1.0)


def test_a_willingness_to_pay_holds_for_one_call_and_its_failovers(dispatcher):
    call = dispatcher.begin("q", options=CallOptions(willingness_to_pay=7.0))
    assert call.decision.willingness_to_pay == 7.0
    assert call.fail(TimeoutError())
    assert call.decision.willingness_to_pay == 7.0
    assert dispatcher.begin("q").decision.willingness_to_pay == 0.01


def test_a_candidate_that_declines_neither_cools_down_nor_counts_as_a_failover(
    dispatcher, ranked_router
):
    call = dispatcher.begin("q", options=CallOptions(max_failovers=0))
    assert call.candidate == "best"
    assert call.decline(TypeError("no such tool"))
    assert call.candidate == "middle"
    assert not dispatcher.cooldown.due()
    assert [attempt["error"] for attempt in call.attempts] == ["TypeError"]
    assert not call.fail(TimeoutError())
    assert len(ranked_router._waiting._calls) == 0


def test_if_none_can_be_asked_the_first_error_is_raised_as_it_is(dispatcher):
    errors = [TypeError(str(n)) for n in range(3)]
    call = dispatcher.begin("q")
    assert [call.decline(error) for error in errors] == [True, True, False]
    assert call.failure() is errors[0]
