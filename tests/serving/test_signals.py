"""What the traffic tells by itself reaches the router once, and costs no answer."""

import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.core.errors import (
    ConfigurationError,
    UnknownCandidateError,
    UnknownDecisionError,
)
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import IMPLICIT_SIGNALS, Candidate
from mixllm_integrations.serving import CallOptions, Dispatcher
from mixllm_integrations.serving.options import Asked
from mixllm_integrations.serving.signals import LastQuestions, question_of
from mixllm_integrations.testing import ManualClock

IN_SESSION = CallOptions(session="s")


class Told(list):
    """What a router was told, and whether its outcome was known by then."""

    def __init__(self, router):
        super().__init__()
        self._tell, self._ledger = router.record_signal, router._ledger
        router.record_signal = self.record_signal

    def record_signal(self, decision_id, signal):
        is_new = self._tell(decision_id, signal)
        outcome = self._ledger.get(decision_id).outcome
        self.append((decision_id, signal, outcome is not None, is_new))
        return is_new

    @property
    def new(self):
        return [(who, what) for who, what, _, is_new in self if is_new]


@pytest.fixture
def make(clock):
    """Make a dispatcher over two candidates, the first one the better."""

    def dispatcher(*wanted, store=None, **settings):
        router = Router(
            [
                Candidate("best", 1.0, 2.0, prior_quality=0.9),
                Candidate("other", 1.0, 2.0, prior_quality=0.5),
            ],
            exploration=0.0,
            implicit_signals=wanted,
            clock=clock,
            **settings,
        )
        return Dispatcher(router, clock=clock, store=store)

    return dispatcher


def answer(dispatcher, query="why?", options=IN_SESSION, *, signals=(), **asked):
    call = dispatcher.begin(query, options=options, **asked)
    call.succeed(input_tokens=5, output_tokens=7, signals=signals)
    return call.decision.id


class TestWhatIsToldWithAnAnswer:
    def test_it_reaches_the_router_before_the_outcome_does(self, make):
        dispatcher = make()
        told = Told(dispatcher.router)
        who = answer(dispatcher, signals=("truncated",))
        assert told == [(who, "truncated", False, True)]

    def test_the_length_of_an_answer_cut_short_is_not_learned(self, make):
        expected = []
        for signals in ((), ("truncated",)):
            dispatcher = make()
            before = dispatcher.router.predict(["why?"]).cost[0, 0]
            for _ in range(20):
                answer(dispatcher, signals=signals)
            after = dispatcher.router.predict(["why?"]).cost[0, 0]
            expected.append(after == before)
        assert expected == [False, True]

    def test_it_is_told_once_though_the_answer_is_reported_twice(self, make):
        dispatcher = make()
        told = Told(dispatcher.router)
        call = dispatcher.begin("why?")
        for _ in range(2):
            call.succeed(input_tokens=1, output_tokens=1, signals=("truncated",))
        assert len(told) == 1

    def test_an_answer_out_of_a_cache_is_cut_short_all_the_same(self, make):
        dispatcher = make()
        told = Told(dispatcher.router)
        call = dispatcher.begin("why?")
        call.succeed(
            input_tokens=1, output_tokens=1, cached=True, signals=("truncated",)
        )
        assert told.new == [(call.decision.id, "truncated")]

    def test_nothing_is_told_of_a_dry_run(self, make):
        dispatcher = make("regenerate")
        told = Told(dispatcher.router)
        first = answer(dispatcher)
        for _ in range(2):
            options = CallOptions(session="s", dry_run=True)
            answer(dispatcher, options=options, signals=("truncated",))
        assert not told
        answer(dispatcher)
        assert told.new == [(first, "regenerate")]

    def test_a_decision_that_was_crowded_out_costs_no_answer(self, make):
        dispatcher = make(decision_capacity=1)
        call = dispatcher.begin("why?")
        dispatcher.begin("another")  # takes the only place
        record = call.succeed(
            input_tokens=1, output_tokens=1, signals=("truncated", "parse_failure")
        )
        assert record["decision_id"] == call.decision.id

    @pytest.mark.parametrize("leave", ["remove", "rename"])
    def test_a_candidate_may_leave_while_it_answers(self, make, leave):
        dispatcher = make("truncated")
        call = dispatcher.begin("why?")
        if leave == "remove":
            dispatcher.router.remove_candidate("best")
        else:
            dispatcher.router.rename_candidate("best", "renamed")
        told = Told(dispatcher.router)
        call.succeed(input_tokens=1, output_tokens=1, signals=("truncated",))
        assert told.new == [(call.decision.id, "truncated")]


class TestSignalsOfAnApplication:
    @pytest.mark.parametrize("signal", IMPLICIT_SIGNALS)
    def test_each_counts_once(self, make, signal):
        dispatcher = make()
        who = answer(dispatcher)
        record = {"decision_id": who}
        assert dispatcher.record_signal(record, signal) is True
        assert dispatcher.record_signal(who, signal) is False

    def test_what_is_not_known_is_said(self, make):
        dispatcher = make()
        with pytest.raises(UnknownDecisionError):
            dispatcher.record_signal("nobody", "truncated")
        with pytest.raises(ConfigurationError, match="no decision"):
            dispatcher.record_signal(object(), "truncated")
        with pytest.raises(ConfigurationError, match="boredom"):
            dispatcher.record_signal(answer(dispatcher), "boredom")

    def test_told_by_the_way_an_unknown_decision_is_let_be(self, make):
        make().tell("nobody", "tool_error")


class TestTheSameQuestionAgain:
    def test_the_earlier_answer_is_blamed(self, make):
        dispatcher = make("regenerate")
        told = Told(dispatcher.router)
        first = answer(dispatcher)
        second = answer(dispatcher)
        answer(dispatcher)
        assert told.new == [(first, "regenerate"), (second, "regenerate")]

    def test_what_it_teaches_counts_in_the_decision_that_follows(self, make):
        dispatcher = make("regenerate")
        before = dispatcher.begin("why?", options=IN_SESSION)
        before.succeed(input_tokens=1, output_tokens=1)
        after = dispatcher.begin("why?", options=IN_SESSION)
        assert after.decision.prediction.quality < before.decision.prediction.quality

    @pytest.mark.parametrize(
        "changed",
        [
            {"query": "why not?"},
            {"options": CallOptions(session="another")},
            {"options": CallOptions()},
            {"input_tokens": 30},  # an answer was appended, or a tool's result
            {"requires": ["structured_output"]},
            {"form": "Sum"},
        ],
        ids=lambda changed: next(iter(changed)),
    )
    def test_another_question_blames_nobody(self, make, changed):
        dispatcher = make("regenerate")
        told = Told(dispatcher.router)
        answer(dispatcher)
        answer(dispatcher, **changed)
        assert not told

    def test_a_question_in_between_makes_it_another_one(self, make):
        dispatcher = make("regenerate")
        told = Told(dispatcher.router)
        for query in ("yes", "go on", "yes"):
            answer(dispatcher, query)
        assert not told

    @pytest.mark.parametrize(("minutes", "blamed"), [(10, 1), (11, 0)])
    def test_it_counts_for_ten_minutes(self, make, clock, minutes, blamed):
        dispatcher = make("regenerate")
        told = Told(dispatcher.router)
        answer(dispatcher)
        clock.advance(minutes * 60.0)
        answer(dispatcher)
        assert len(told) == blamed

    def test_the_last_answer_of_a_loop_of_tool_calls_is_blamed(self, make):
        dispatcher = make("regenerate")
        told = Told(dispatcher.router)
        answer(dispatcher)
        loop = CallOptions(session="s", prefer="best")
        answer(dispatcher, options=loop, input_tokens=40)
        last = answer(dispatcher, options=loop, input_tokens=60)
        answer(dispatcher)
        assert told.new == [(last, "regenerate")]

    def test_calls_under_way_at_once_blame_nobody(self, make):
        dispatcher = make("regenerate")
        told = Told(dispatcher.router)
        calls = [dispatcher.begin("why?", options=IN_SESSION) for _ in range(3)]
        for call in calls:
            call.succeed(input_tokens=1, output_tokens=1)
        assert not told

    def test_a_retry_of_a_call_that_failed_blames_nobody(self, make):
        dispatcher = make("regenerate")
        told = Told(dispatcher.router)
        call = dispatcher.begin("why?", options=IN_SESSION)
        call.break_off(TimeoutError())
        answer(dispatcher)
        assert not told

    def test_a_retry_of_what_could_not_be_parsed_is_no_second_blame(self, make):
        dispatcher = make("regenerate", "parse_failure")
        told = Told(dispatcher.router)
        who = answer(dispatcher, signals=("parse_failure",))
        answer(dispatcher)
        assert told.new == [(who, "parse_failure")]

    def test_after_a_failover_who_answered_is_blamed(self, make):
        dispatcher = make("regenerate")
        told = Told(dispatcher.router)
        call = dispatcher.begin("why?", options=IN_SESSION)
        assert call.fail(ConnectionError("down"))
        call.succeed(input_tokens=1, output_tokens=1)
        answer(dispatcher)
        assert told.new == [(call.decision.id, "regenerate")]

    def test_without_being_asked_for_nothing_is_remembered(self, make):
        dispatcher = make("truncated")
        told = Told(dispatcher.router)
        for _ in range(3):
            answer(dispatcher)
        assert not told
        assert dispatcher.last_questions is None

    def test_a_forgotten_decision_costs_no_answer(self, make):
        dispatcher = make("regenerate", decision_capacity=1)
        answer(dispatcher)
        dispatcher.begin("crowds it out")
        answer(dispatcher)


class TestLastQuestions:
    def test_only_the_latest_sessions_are_remembered(self):
        last = LastQuestions(clock=ManualClock(), capacity=2)
        for session in "abc":
            last.answered(session, b"q", session)
        assert len(last) == 2
        assert [last.take(session, b"q") for session in "abc"] == [None, "b", "c"]

    def test_a_loop_of_a_forgotten_question_is_not_remembered(self):
        last = LastQuestions(clock=ManualClock())
        last.answered("s", None, "d1")
        assert len(last) == 0

    def test_a_digest_is_short_and_holds_no_text(self):
        question = question_of(Asked("a secret", None, (), None))
        assert len(question) == 16
        assert b"secret" not in question

    @given(st.text(max_size=20), st.text(max_size=20))
    def test_digests_are_equal_just_if_the_texts_are(self, one, other):
        digests = [question_of(Asked(text, 1, (), None)) for text in (one, other)]
        assert (digests[0] == digests[1]) == (one == other)

    def test_many_threads_take_an_answer_once(self):
        last, taken = LastQuestions(clock=ManualClock()), []
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for n in range(50):
                last.answered("s", b"q", str(n))
                threads = [
                    threading.Thread(target=lambda: taken.append(last.take("s", b"q")))
                    for _ in range(4)
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        finally:
            sys.setswitchinterval(before)
        assert sorted(filter(None, taken), key=int) == [str(n) for n in range(50)]


@pytest.mark.parametrize("wanted", [(), IMPLICIT_SIGNALS])
def test_an_unknown_candidate_is_refused_as_before(make, wanted):
    with pytest.raises(UnknownCandidateError):
        make(*wanted).begin("why?", options=CallOptions(candidate="nobody"))


def test_without_opting_in_predictions_do_not_change(make):
    qualities = []
    for signals in ((), IMPLICIT_SIGNALS):
        dispatcher = make()
        for _ in range(20):
            who = answer(dispatcher)
            for signal in signals:
                dispatcher.record_signal(who, signal)
        qualities.append(dispatcher.router.predict(["why?"]).quality.tolist())
    assert qualities[0] == qualities[1]


def test_with_opting_in_they_do(make):
    dispatcher = make(*IMPLICIT_SIGNALS)
    before = dispatcher.router.predict(["why?"]).quality[0, 0]
    for signal in IMPLICIT_SIGNALS:
        dispatcher.record_signal(answer(dispatcher), signal)
    assert dispatcher.router.predict(["why?"]).quality[0, 0] < before
