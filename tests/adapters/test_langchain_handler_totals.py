"""Sums, means, savings, sessions, shadow and dry runs, from runs driven by hand."""

import json
import logging
from contextlib import contextmanager

import pytest
from langchain_core.callbacks import CallbackManager
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.langchain import MixLLMCallbackHandler
from mixllm_integrations.langchain.callbacks import CallReport, SessionTotals
from mixllm_integrations.testing import ManualClock


def said(asked, answered, **usage):
    usage |= {"input_tokens": asked, "output_tokens": answered}
    usage["total_tokens"] = asked + answered
    message = AIMessage("", usage_metadata=usage)
    return LLMResult(generations=[[ChatGeneration(message=message)]])


UNSAID = LLMResult(generations=[[ChatGeneration(message=AIMessage(""))]])


class Driver:
    """Plays what a routed model tells its handlers, at the pace of a clock."""

    def __init__(self, **options):
        self.clock = ManualClock()
        self.books = MixLLMCallbackHandler(clock=self.clock, **options)
        self.numbers = iter(range(1_000_000))

    @contextmanager
    def run(self, **record):
        """Open a routed call; what is yielded stands in its metadata."""
        manager = CallbackManager.configure([self.books])
        record = {
            "decision_id": f"d{next(self.numbers)}",
            "candidate": "small",
            "attempts": [],
        } | record
        manager.add_metadata({"mixllm": record}, inherit=False)
        self.chain = manager.on_chain_start(None, {})
        yield record

    def llm(self):
        (run,) = self.chain.get_child().on_chat_model_start({}, [[]])
        return run

    def call(self, cost=0.5, *, seconds=1.0, first=None, result=None, **record):
        """One answered call; `first` seconds pass before its first chunk."""
        with self.run(**record) as kept:
            llm = self.llm()
            if first is not None:
                self.clock.advance(first)
                llm.on_llm_new_token("a")
            self.clock.advance(seconds - (first or 0.0))
            llm.on_llm_end(said(10, 4) if result is None else result)
            kept["cost"] = cost
            self.chain.on_chain_end({"output": None})
        return kept["decision_id"]

    @property
    def totals(self):
        return self.books.totals


@pytest.fixture
def driver():
    return Driver()


def compared(**record):
    driver = Driver(reference="large")
    driver.call(**record)
    return driver.totals


def test_the_mean_latency_is_that_of_answered_calls(driver):
    driver.call(seconds=1.0)
    driver.call(seconds=3.0)
    with driver.run():
        driver.clock.advance(100.0)
        driver.chain.on_chain_error(TimeoutError())
    assert driver.totals.mean_latency_seconds == 2.0
    assert driver.totals.answered == 2


def test_the_mean_time_to_the_first_token_is_over_calls_that_had_one(driver):
    driver.call(first=0.25)
    driver.call(first=0.75)
    driver.call(seconds=9.0)
    assert driver.totals.mean_time_to_first_token_seconds == 0.5


def test_a_first_token_of_an_attempt_that_failed_is_none(driver):
    with driver.run(cost=0.5):
        failing = driver.llm()
        failing.on_llm_new_token("a")
        failing.on_llm_error(TimeoutError(), response=UNSAID)
        driver.clock.advance(2.0)
        driver.llm().on_llm_end(said(10, 4))
        driver.chain.on_chain_end({})
    assert driver.books.calls[0].time_to_first_token_seconds is None


def test_the_first_token_counts_from_the_start_of_the_routed_call(driver):
    with driver.run(cost=0.5):
        driver.clock.advance(2.0)
        driver.llm().on_llm_error(TimeoutError())
        answering = driver.llm()
        driver.clock.advance(0.5)
        for _ in range(3):
            answering.on_llm_new_token("a")
            driver.clock.advance(1.0)
        answering.on_llm_end(said(10, 4))
        driver.chain.on_chain_end({})
    assert driver.books.calls[0].time_to_first_token_seconds == 2.5


def test_speed_is_output_tokens_over_the_time_of_their_llm_runs(driver):
    with driver.run(cost=0.5):
        driver.clock.advance(50.0)  # an attempt that hung, then another one
        answering = driver.llm()
        driver.clock.advance(1.0)
        answering.on_llm_new_token("a")
        driver.clock.advance(1.0)
        answering.on_llm_end(said(10, 100))
        driver.chain.on_chain_end({})
    assert driver.books.calls[0].tokens_per_second == 50.0
    driver.call(seconds=3.0, result=said(10, 50))
    assert driver.totals.tokens_per_second == 30.0


def test_what_was_not_generated_or_not_counted_has_no_speed(driver):
    driver.call(seconds=1.0, result=said(10, 400, total_cost=0), cost=0.0)
    driver.call(seconds=1.0, result=UNSAID)
    assert driver.totals.tokens_per_second is None
    assert driver.books.calls[0].tokens_per_second is None
    driver.call(seconds=1.0, result=said(10, 4))
    assert driver.totals.tokens_per_second == 4.0


def test_tokens_of_an_attempt_that_broke_off_are_counted(driver):
    with driver.run():
        llm = driver.llm()
        driver.clock.advance(1.0)
        llm.on_llm_error(TimeoutError(), response=said(10, 3))
        driver.chain.on_chain_error(TimeoutError())
    totals = driver.totals
    assert (totals.input_tokens, totals.output_tokens) == (10, 3)
    assert totals.tokens_per_second == 3.0


def test_an_answer_that_was_paid_for_and_refused_by_its_parser_costs(driver):
    with driver.run() as record:
        driver.llm().on_llm_end(said(10, 4))
        record["cost"] = 0.25
        driver.chain.on_chain_error(ValueError())
    assert (driver.totals.cost, driver.totals.errors) == (0.25, 1)
    assert driver.totals.cost_by_candidate == {}


def test_a_handler_that_never_heard_a_call_has_no_means():
    totals = SessionTotals()
    assert totals.mean_latency_seconds is None
    assert totals.mean_time_to_first_token_seconds is None
    assert totals.tokens_per_second is None
    assert totals.mean_feedback is None
    assert totals.savings is None
    assert totals.savings_share is None
    assert totals.shadow_savings is None


# Savings.


def test_a_candidate_as_reference_is_taken_at_its_predicted_cost():
    totals = compared(cost=0.5, predicted_costs={"small": 9.0, "large": 2.0})
    assert totals.savings == 1.5
    assert totals.savings_share == 0.75
    assert (totals.compared, totals.unpriced) == (1, 0)


def test_an_answer_of_the_reference_itself_saves_nothing():
    totals = compared(cost=0.5, candidate="large", predicted_costs={"large": 2.0})
    assert totals.savings == 0.0
    assert totals.compared == 1


def test_a_reference_that_is_no_candidate_is_taken_at_its_list_price():
    driver = Driver(reference="gpt-4o-mini")  # 0.15 and 0.60 USD per million
    driver.call(
        cost=0.25, result=said(1_000_000, 1_000_000), predicted_costs={"large": 9.0}
    )
    assert driver.books.calls[0].reference_cost == pytest.approx(0.75)
    assert driver.books.calls[0].savings == pytest.approx(0.5)
    assert driver.totals.savings == pytest.approx(0.5)


def test_tokens_that_no_one_reported_are_those_of_the_record():
    driver = Driver(reference="gpt-4o-mini")
    driver.call(cost=0.25, result=UNSAID, input_tokens=1_000_000, output_tokens=0)
    assert driver.books.calls[0].reference_cost == pytest.approx(0.15)
    driver.call(cost=0.25, result=UNSAID)
    assert driver.books.calls[1].reference_cost is None
    assert driver.totals.unpriced == 1


def test_a_reference_of_unknown_price_is_told_once_and_counted(caplog):
    driver = Driver(reference="no-such-model")
    with caplog.at_level(logging.WARNING):
        driver.call()
        driver.call()
    assert [r.getMessage() for r in caplog.records if "no-such-model" in r.getMessage()]
    assert len(caplog.records) == 1
    assert driver.totals.savings is None
    assert driver.totals.unpriced == 2
    assert "2 calls without a price" in str(driver.totals)


def test_a_price_is_looked_up_only_if_it_is_needed(monkeypatch):
    def never(name):
        raise AssertionError(name)

    home = "mixllm_integrations.langchain.callbacks.reference"
    monkeypatch.setattr(f"{home}.list_price", never)
    assert compared(predicted_costs={"large": 2.0}).compared == 1


@pytest.mark.parametrize("reason", ["failed", "cached", "abandoned", "no cost"])
def test_what_cannot_be_compared_counts_as_no_savings(reason):
    driver = Driver(reference="large")
    record = {"predicted_costs": {"large": 2.0}, "shadow": {"predicted_cost": 1.0}}
    if reason == "cached":
        driver.call(0.0, result=said(10, 4, total_cost=0), **record)
        assert driver.totals.cached == 1
    elif reason == "no cost":
        driver.call(None, **record)
    else:
        error = TimeoutError() if reason == "failed" else GeneratorExit()
        with driver.run(cost=0.5, **record):
            driver.chain.on_chain_error(error)
    totals = driver.totals
    assert totals.savings is None
    assert totals.shadow_savings is None
    assert (totals.calls, totals.unpriced) == (1, 0)
    assert driver.books.calls[0].reference_cost is None
    assert driver.books.calls[0].savings is None


def test_a_dearer_answer_than_the_references_saves_less_than_nothing():
    assert compared(cost=3.0, predicted_costs={"large": 2.0}).savings == -1.0


def test_without_a_reference_nothing_is_compared(driver):
    driver.call(predicted_costs={"large": 2.0})
    assert driver.totals.savings is None
    assert driver.totals.unpriced == 0
    assert "savings" not in str(driver.totals)


# Sessions.


def test_each_session_has_totals_of_its_own(driver):
    driver.call(0.5, session="ann")
    driver.call(0.25, session="ben")
    driver.call(0.25, session="ben")
    driver.call(1.0)
    sessions = driver.books.sessions
    assert {name: sums.cost for name, sums in sessions.items()} == {
        "ann": 0.5,
        "ben": 0.5,
    }
    assert sessions["ben"].calls == 2
    assert (driver.totals.calls, driver.totals.cost) == (4, 2.0)
    assert driver.books.calls[0].session == "ann"


def test_the_session_used_least_recently_is_forgotten_first():
    driver = Driver(max_sessions=2)
    for session in ("ann", "ben", "ann", "cleo"):
        driver.call(session=session)
    assert list(driver.books.sessions) == ["ann", "cleo"]
    assert driver.books.sessions["ann"].calls == 2
    assert driver.totals.calls == 4


def test_savings_and_feedback_are_kept_per_session():
    driver = Driver(reference="large")
    decision = driver.call(0.5, session="ann", predicted_costs={"large": 2.0})
    driver.call(0.5, session="ben", predicted_costs={"large": 1.0})
    driver.books.on_feedback(decision, 0.5)
    ann, ben = driver.books.sessions.values()
    assert (ann.savings, ann.mean_feedback) == (1.5, 0.5)
    assert (ben.savings, ben.mean_feedback) == (0.5, None)
    assert driver.totals.savings == 2.0


def test_sessions_that_are_returned_are_copies(driver):
    driver.call(session="ann")
    driver.books.sessions["ann"].calls_by_candidate.clear()
    assert driver.books.sessions["ann"].calls_by_candidate == {"small": 1}


# Feedback.


def test_feedback_on_a_call_that_has_not_ended_is_kept_for_its_end(driver):
    with driver.run(cost=0.5, decision_id="d", session="ann"):
        driver.books.on_feedback("d", 0.75)
        driver.books.on_feedback("of another", 0.25)
        assert driver.totals.feedback_count == 0
        driver.chain.on_chain_end({})
    assert driver.books.calls[0].feedback == [0.75]
    assert driver.totals.mean_feedback == 0.75
    assert driver.books.sessions["ann"].feedback_count == 1


def test_feedback_on_a_call_that_is_out_of_the_books_is_not_counted():
    driver = Driver(max_calls=1)
    first = driver.call()
    second = driver.call()
    driver.books.on_feedback(first, 1.0)
    assert driver.totals.feedback_count == 0
    driver.books.on_feedback(second, 1.0)
    assert driver.totals.feedback_count == 1


def test_feedback_of_a_forgotten_session_counts_in_all(driver):
    driver = Driver(max_sessions=1)
    decision = driver.call(session="ann")
    driver.call(session="ben")
    driver.books.on_feedback(decision, 1.0)
    assert driver.totals.feedback_count == 1
    assert list(driver.books.sessions) == ["ben"]


# Shadow mode and dry runs.


def test_shadow_mode_tells_what_the_routers_choice_would_have_saved(driver):
    shadow = {"candidate": "tiny", "predicted_quality": 0.5, "predicted_cost": 0.25}
    driver.call(1.0, shadow=shadow)
    driver.call(1.0, shadow=shadow)
    driver.call(7.0)
    totals = driver.totals
    assert (totals.shadow_calls, totals.shadow_cost) == (2, 0.5)
    assert totals.shadow_savings == 1.5
    report = driver.books.calls[0]
    assert (report.shadow_candidate, report.shadow_cost) == ("tiny", 0.25)
    assert driver.books.calls[2].shadow_candidate is None
    assert "would have saved 1.50 USD in 2 calls" in str(totals)


@pytest.mark.parametrize("how", ["ok", "failed"])
def test_a_dry_run_counts_as_such_and_in_nothing_else(driver, how):
    with driver.run(dry_run=True, session="ann", cost=1.0):
        driver.clock.advance(1.0)
        if how == "ok":
            driver.chain.on_chain_end({})
        else:
            driver.chain.on_chain_error(ValueError())
    assert driver.totals == SessionTotals(dry_runs=1)
    assert driver.books.sessions == {"ann": SessionTotals(dry_runs=1)}
    assert driver.books.calls == []
    assert str(driver.totals).splitlines()[:2] == ["calls     0", "dry runs  1"]


# What is told.


def test_the_summary_can_be_written_as_json():
    driver = Driver(reference="large")
    decision = driver.call(
        0.5, first=0.5, session="ann", predicted_costs={"large": 2.0}
    )
    driver.books.on_feedback(decision, 1.0)
    summary = json.loads(json.dumps(driver.totals.summary()))
    assert summary == {
        "reference": "large",
        "calls": 1,
        "answered": 1,
        "errors": 0,
        "abandoned": 0,
        "cached": 0,
        "dry_runs": 0,
        "failed_attempts": 0,
        "cost": 0.5,
        "input_tokens": 10,
        "output_tokens": 4,
        "mean_latency_seconds": 1.0,
        "mean_time_to_first_token_seconds": 0.5,
        "tokens_per_second": 4.0,
        "savings": 1.5,
        "savings_share": 0.75,
        "unpriced": 0,
        "shadow_calls": 0,
        "shadow_cost": 0.0,
        "shadow_savings": None,
        "feedback_count": 1,
        "mean_feedback": 1.0,
        "calls_by_candidate": {"small": 1},
        "cost_by_candidate": {"small": 0.5},
    }
    assert json.dumps(SessionTotals().summary())


def test_totals_are_told_in_one_line_per_figure():
    driver = Driver(reference="large")
    attempt = {"decision_id": "d", "candidate": "mid", "error": "TimeoutError"}
    costs = {"large": 2.0}
    decision = driver.call(0.25, first=0.5, predicted_costs=costs, attempts=[attempt])
    driver.call(1.0, candidate="large", predicted_costs=costs)
    driver.call(0.25, predicted_costs=costs)
    driver.books.on_feedback(decision, 0.75)
    with driver.run():
        driver.chain.on_chain_error(TimeoutError())
    assert str(driver.totals) == "\n".join(
        [
            "calls            4 (1 failed)",
            "candidates       small 2, large 1",
            "failed attempts  1",
            "cost             1.50 USD",
            "tokens           30 in, 12 out",
            "latency          1.000 s",
            "first token      0.500 s",
            "speed            4.0 tokens/s",
            "savings          3.50 USD (70.0%) against large",
            "feedback         0.75 mean of 1",
        ]
    )


def test_reports_under_one_candidate_can_be_summed_by_hand():
    totals = SessionTotals()
    for cost in (0.25, 0.5):
        totals.add(CallReport(candidate="small", cost=cost, latency_seconds=1.0))
    assert totals.cost_by_candidate == {"small": 0.75}


@pytest.mark.parametrize(
    "options",
    [
        {"reference": " "},
        {"reference": 7},
        {"max_calls": 0},
        {"max_calls": 1.5},
        {"max_sessions": 0},
        {"max_sessions": float("inf")},
    ],
)
def test_an_option_that_cannot_be_used_is_named(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        MixLLMCallbackHandler(**options)
