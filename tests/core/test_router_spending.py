"""A router with a spending budget: what it may still choose, and what it counts."""

import copy
import logging
import math
import pickle
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixllm_integrations
from mixllm_integrations import (
    BudgetExceededError,
    Candidate,
    ConfigurationError,
    NoCandidateError,
    Outcome,
    Router,
)
from mixllm_integrations.core.purse import LocalPurse
from mixllm_integrations.testing import ManualClock

CANDIDATES = [
    Candidate("small", 0.5, 1.0, prior_quality=0.3, tools=False),
    Candidate("middle", 5.0, 10.0, prior_quality=0.6),
    Candidate("large", 50.0, 100.0, prior_quality=0.9),
]
DEMO = Path(mixllm_integrations.__file__).parent / "data" / "demo_router"


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def make(clock):
    def router(**given):
        plain = {"willingness_to_pay": math.inf, "exploration": 0.0, "clock": clock}
        return Router(CANDIDATES, **{**plain, **given})

    return router


@pytest.fixture
def costs(make):
    """What each candidate is expected to cost for the query "q"."""
    scores = make().route("q").scores
    return {name: float(scores[name].cost) for name in scores}


def told(router, decision, cost=None):
    """Record that a call has cost this, or what was predicted."""
    predicted = float(decision.prediction.cost)
    cost = predicted if cost is None else cost
    router.record_outcome(decision.id, Outcome(10, 20, cost=cost))
    return cost


def test_without_a_budget_nothing_is_counted(make):
    router = make()
    told(router, router.route("q"))
    found = router.spending
    assert (found.budget, found.spent, found.reserved, found.calls) == (None, 0, 0, 0)
    assert found.left == math.inf
    assert found.willingness_to_pay_now == math.inf


def test_what_is_predicted_is_reserved_until_the_bill_is_there(make):
    router = make(spending_budget=10.0)
    decision = router.route("q")
    predicted = float(decision.prediction.cost)
    assert router.spending.reserved == pytest.approx(predicted)
    assert router.spending.spent == 0.0
    told(router, decision, 0.125)
    found = router.spending
    assert (found.spent, found.reserved, found.left) == (0.125, 0.0, 9.875)
    assert (found.calls, found.period_seconds) == (1, 86_400.0)


def test_a_second_outcome_is_not_paid_again(make):
    router = make(spending_budget=10.0)
    decision = router.route("q")
    told(router, decision, 0.125)
    told(router, decision, 0.5)
    assert router.spending.spent == 0.125


def test_a_bill_in_tokens_is_at_list_prices(make):
    router = make(spending_budget=10.0)
    decision = router.route("q", among=("large",))
    router.record_outcome(decision.id, Outcome(100, 200))
    assert router.spending.spent == pytest.approx(100 * 50e-6 + 200 * 100e-6)


def test_a_call_that_failed_has_cost_what_was_billed_mostly_nothing(make):
    router = make(spending_budget=10.0)
    first, second = router.route("q"), router.route("q")
    router.record_outcome(first.id, Outcome(0, 0, error="TimeoutError"))
    assert router.spending.spent == 0.0
    router.record_outcome(second.id, Outcome(9, 9, cost=0.25, error="ValueError"))
    assert (router.spending.spent, router.spending.reserved) == (0.25, 0.0)


def test_an_answer_without_a_bill_has_cost_what_was_predicted(make):
    router = make(spending_budget=10.0)
    decision = router.route("q")
    router.record_outcome(decision.id, Outcome(10, 0))
    assert router.spending.spent == pytest.approx(float(decision.prediction.cost))
    assert router.spending.reserved == 0.0


def test_a_decision_that_is_not_followed_reserves_nothing(make):
    router = make(spending_budget=10.0)
    router.route("q", charge_load=False, remember=False)
    router.route_batch(["q", "r"], charge_load=False)
    assert (router.spending.reserved, router.spending.calls) == (0.0, 0)


def test_who_costs_more_than_is_left_may_not_compete(make, costs):
    router = make(spending_budget=(costs["middle"] + costs["large"]) / 2)
    decision = router.route("q")
    assert decision.candidate != "large"
    assert set(decision.excluded) == {"large"}
    reason = decision.excluded["large"]
    assert reason.startswith("over the spending budget: would cost about ")
    assert reason in decision.explain()


def test_when_all_is_spent_the_cheapest_goes_on_and_the_log_says_so_once(
    make, costs, caplog
):
    router = make(spending_budget=costs["small"] / 2)
    with caplog.at_level(logging.WARNING, "mixllm_integrations"):
        names = {router.route("q").candidate for _ in range(5)}
    assert names == {"small"}
    assert router.spending.overrun == pytest.approx(4.5 * costs["small"])
    (said,) = [r.getMessage() for r in caplog.records if "used up" in r.getMessage()]
    assert said == (
        f"the spending budget of {costs['small'] / 2:g} USD is used up: until the "
        "period ends in 86400 s, queries go to the cheapest candidate, 'small' now"
    )


def test_each_period_that_is_overspent_is_told_of(make, costs, clock, caplog):
    router = make(spending_budget=costs["small"] / 2)
    for _ in range(3):
        router.route("q")
        router.route("q")
        clock.advance(86_400.0)
    assert sum("used up" in r.getMessage() for r in caplog.records) == 3


def test_the_cheapest_that_goes_on_is_one_that_is_able(clock):
    router = Router(CANDIDATES[::-1], spending_budget=1e-9, clock=clock)
    decision = router.route("q", requires=("tools",))
    assert decision.candidate == "middle"
    assert decision.excluded["small"] == "has no tools"
    assert decision.excluded["large"].startswith("over the spending budget")


def test_when_all_is_spent_stop_refuses_and_says_what_to_do(make, clock):
    router = make(
        spending_budget=1e-9, spending_period_seconds=3_600.0, when_spent="stop"
    )
    clock.advance(600.0)
    with pytest.raises(BudgetExceededError) as caught:
        router.route("q")
    error = caught.value
    assert isinstance(error, NoCandidateError)
    assert set(error.excluded) == {"small", "middle", "large"}
    assert (error.budget, error.ends_in_seconds) == (1e-9, 3_000.0)
    for word in ("begins in 3,000 s", "`spending_budget`", "`when_spent`", "1e-09 USD"):
        assert word in str(error)
    assert router.spending.calls == 0


def test_other_limits_come_first(make):
    router = make(spending_budget=1e-9, when_spent="stop", max_cost_per_query=0.0)
    with pytest.raises(NoCandidateError) as caught:
        router.route("q")
    assert type(caught.value) is NoCandidateError


def test_a_new_period_has_a_new_budget(make, costs, clock):
    router = make(spending_budget=1.5 * costs["small"], when_spent="stop")
    assert router.route("q").candidate == "small"
    with pytest.raises(BudgetExceededError):
        router.route("q")
    clock.advance(86_400.0)
    assert router.route("q").candidate == "small"


def test_a_clock_that_jumps_backwards_brings_no_money(make, costs, clock):
    clock.advance(90_000.0)
    router = make(spending_budget=1.5 * costs["small"], when_spent="stop")
    router.route("q")
    clock.now = 0.0
    with pytest.raises(BudgetExceededError):
        router.route("q")


def test_the_budget_may_be_set_raised_and_taken_away_at_any_time(make, costs):
    router = make(when_spent="stop")
    router.spending_budget = 1.5 * costs["small"]
    router.route("q")
    with pytest.raises(BudgetExceededError):
        router.route("q")
    router.spending_budget = 3.0 * costs["small"]
    router.route("q")
    router.when_spent = "cheapest"
    assert router.route("q").candidate == "small"
    router.spending_budget = None
    assert router.route("q").candidate == "large"


def test_the_willingness_to_pay_is_lowered_to_make_the_budget_last(make, clock, costs):
    router = make(spending_budget=200 * costs["middle"], willingness_to_pay=1.0)
    spent, lowered = 0.0, 0
    for _ in range(200):
        decision = router.route("q")
        assert 0.0 < decision.willingness_to_pay <= 1.0
        lowered += decision.willingness_to_pay < 1.0
        spent += told(router, decision)
        clock.advance(86_400.0 / 201)
    assert lowered > 150
    assert 0.97 * 200 * costs["middle"] <= spent <= 200 * costs["middle"] * (1 + 1e-9)
    assert router.willingness_to_pay == 1.0
    assert router.spending.willingness_to_pay_now <= 1.0


def test_a_rich_budget_changes_no_decision(make):
    plain, rich = make(willingness_to_pay=0.02), make(willingness_to_pay=0.02)
    rich.spending_budget = 1e6
    for query in ("a", "b" * 400, "c?"):
        one, two = plain.route(query), rich.route(query)
        assert one.candidate == two.candidate
        assert two.willingness_to_pay == 0.02


def test_a_caller_with_a_value_of_its_own_keeps_it_and_is_counted(make, costs):
    router = make(spending_budget=20 * costs["small"], willingness_to_pay=1e-4)
    decision = router.route("q", willingness_to_pay=0.5, among=("small", "middle"))
    assert decision.willingness_to_pay == 0.5
    assert decision.candidate == "middle"
    assert router.spending.reserved == pytest.approx(costs["middle"])


def test_calls_that_the_pace_cannot_change_are_foreseen(make, costs, clock):
    router = make(spending_budget=15 * costs["middle"], willingness_to_pay=1.0)
    clock.advance(43_200.0)
    for _ in range(10):
        told(router, router.route("q", willingness_to_pay=1.0, among=("middle",)))
    assert router.spending.willingness_to_pay_now < 1e-6


def test_a_batch_that_cannot_be_paid_is_refused_whole(make, costs):
    router = make(spending_budget=2.5 * costs["small"], when_spent="stop")
    with pytest.raises(BudgetExceededError):
        router.route_batch(["q"] * 3)
    found = router.spending
    assert (found.reserved, found.calls) == (0.0, 0)
    assert not router._ledger._pending
    assert not router._waiting._calls


def test_a_batch_keeps_what_its_later_queries_need(make, costs):
    router = make(
        spending_budget=costs["middle"] + 1.5 * costs["small"],
        spending_period_seconds=math.inf,  # nothing is paced
        when_spent="stop",
    )
    assert [d.candidate for d in router.route_batch(["q"] * 3)] == ["small"] * 3
    assert router.spending.overrun == 0.0
    assert router.route("q").candidate == "small"


@settings(max_examples=40, deadline=None)
@given(
    budget=st.floats(0.0, 0.05),
    steps=st.lists(
        st.tuples(
            st.integers(1, 400),  # tokens of the prompt
            st.integers(0, 3),  # batch size; 0: one query
            st.floats(0.0, 20_000.0),  # seconds
            st.booleans(),  # whether outcomes come
        ),
        max_size=25,
    ),
)
def test_with_exact_predictions_stop_never_exceeds_the_budget(budget, steps):
    clock = ManualClock()
    router = Router(
        CANDIDATES,
        willingness_to_pay=math.inf,
        spending_budget=budget,
        when_spent="stop",
        clock=clock,
    )
    spent, period = 0.0, router.purse.balance().period
    for tokens, size, seconds, comes in steps:
        clock.advance(seconds)
        if router.purse.balance().period != period:
            spent, period = 0.0, router.purse.balance().period
        try:
            if size:
                made = router.route_batch(["q"] * size, input_tokens=[tokens] * size)
            else:
                made = [router.route("q", input_tokens=tokens)]
        except BudgetExceededError:
            continue
        for decision in made:
            if comes:
                spent += told(router, decision)
        found = router.spending
        assert found.spent + found.reserved <= budget * (1 + 1e-9)
        assert found.overrun <= 1e-9 * budget
        assert found.spent == pytest.approx(spent, abs=1e-12)


def test_threads_spend_to_the_cent_what_was_billed_and_no_more(make, costs):
    budget = 40 * costs["middle"]
    router, bills, errors = make(spending_budget=budget, when_spent="stop"), [], []

    def work():
        for _ in range(40):
            try:
                bills.append(told(router, router.route("q")))
            except BudgetExceededError:
                return
            except Exception as error:  # noqa: BLE001 - shown below
                errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    found = router.spending
    assert found.spent == pytest.approx(math.fsum(bills), rel=1e-9)
    assert found.reserved == 0.0
    assert found.calls == len(bills)
    assert found.spent <= budget * (1 + 1e-9)


def test_two_routers_may_share_a_purse(make, costs):
    one, two = make(when_spent="stop"), make(when_spent="stop")
    one.spending_budget = 1.5 * costs["small"]
    two.purse = one.purse
    told(one, one.route("q"))
    with pytest.raises(BudgetExceededError):
        two.route("q")
    assert two.spending_budget == one.spending_budget
    assert two.spending.spent == one.spending.spent


class Contended(LocalPurse):
    """Somebody else takes most of the money between a look and the reservation."""

    def reserve(self, call_id, amount, *, force=False):
        if not self._calls and not force:
            super().reserve("somebody", self.left - 5e-4)
            return False
        return super().reserve(call_id, amount, force=force)


def test_who_finds_the_money_gone_decides_again(make, costs):
    assert costs["small"] < 5e-4 < costs["middle"]
    router = make(when_spent="stop")
    router.purse = Contended(1.0)
    assert router.route("q").candidate == "small"
    assert router.spending.overrun == 0.0


class Emptied(LocalPurse):
    """Somebody else takes all that is left after the first reservation."""

    def reserve(self, call_id, amount, *, force=False):
        done = super().reserve(call_id, amount, force=force)
        if self._calls == 1:
            super().reserve("somebody", self.left)
        return done


def test_a_batch_that_was_begun_is_finished_with_the_cheapest(make, costs):
    router = make(when_spent="stop")
    router.purse = Emptied(1.0)
    decisions = router.route_batch(["q"] * 3)
    assert [d.candidate for d in decisions[1:]] == ["small"] * 2
    assert router.spending.overrun == pytest.approx(2 * costs["small"])


@pytest.mark.parametrize("value", [None, 5.0, object()])
def test_a_purse_that_is_none_is_refused(make, value):
    with pytest.raises(ConfigurationError, match="a purse needs"):
        make().purse = value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("spending_budget", -1.0),
        ("spending_budget", math.nan),
        ("spending_period_seconds", 0.0),
        ("when_spent", "degrade"),
    ],
)
def test_settings_that_cannot_be_used_are_named(make, name, value):
    with pytest.raises(ConfigurationError, match=name):
        make(**{name: value})
    router = make()
    before = getattr(router, name)
    with pytest.raises(ConfigurationError, match=name):
        setattr(router, name, value)
    assert getattr(router, name) == before


# What outlives the process.


@pytest.fixture
def spent(make, clock):
    router = make(
        spending_budget=1.0, spending_period_seconds=3_600.0, when_spent="stop"
    )
    told(router, router.route("q"), 0.25)
    clock.advance(600.0)
    return router, router.route("q")


def as_told(router):
    found = router.spending
    return (found.budget, found.spent, found.reserved, found.period_ends_in_seconds)


def test_a_saved_router_goes_on_in_its_period(spent, tmp_path):
    router, pending = spent
    router.save(tmp_path / "r")
    again = Router.load(tmp_path / "r", clock=ManualClock(77.0))
    assert as_told(again) == as_told(router)
    assert (again.when_spent, again.spending_period_seconds) == ("stop", 3_600.0)
    told(again, pending, 0.5)
    assert (again.spending.spent, again.spending.reserved) == (0.75, 0.0)


def test_copies_have_a_purse_of_their_own(spent):
    router, _ = spent
    other = copy.deepcopy(router)
    assert as_told(other) == as_told(router)
    told(other, other.route("q"), 0.25)
    assert router.spending.spent == 0.25


def test_a_pickle_carries_what_was_spent(spent):
    router, _ = spent
    assert as_told(pickle.loads(pickle.dumps(router))) == as_told(router)  # noqa: S301


@pytest.mark.parametrize("digit", ["7", "x"])  # readable or not
def test_damage_to_what_was_spent_begins_a_new_period(spent, tmp_path, digit):
    router, _ = spent
    router.save(tmp_path / "r")
    file = tmp_path / "r" / "state.json"
    text = file.read_text()
    assert text.count('"spent": 0.25, "calls"') == 1
    changed = text.replace('"spent": 0.25, "calls"', f'"spent": 0.2{digit}, "calls"')
    file.write_text(changed)
    with pytest.warns(RuntimeWarning) as said:
        again = Router.load(tmp_path / "r", clock=ManualClock())
    assert as_told(again) == (1.0, 0.0, 0.0, 3_600.0)
    assert any("what was spent of the budget" in str(w.message) for w in said)


def test_a_state_that_makes_no_sense_begins_a_new_period(make):
    router = make(spending_budget=1.0)
    with pytest.warns(RuntimeWarning, match="what was spent of the budget"):
        router._restore_spending({"purse": {"spent": -1.0}, "pacer": {}})
    assert as_told(router) == (1.0, 0.0, 0.0, 86_400.0)


def test_a_router_that_was_saved_before_there_were_budgets_has_none():
    router = Router.load(DEMO)
    assert router.spending_budget is None
    router.spending_budget = 5.0
    router.route("q")
    assert 0.0 < router.spending.reserved <= 5.0


def test_the_error_travels_between_processes():
    error = BudgetExceededError(
        {"a": "too dear"}, budget=1.0, left=0.5, ends_in_seconds=60.0
    )
    for copied in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301
        assert (type(copied), str(copied)) == (type(error), str(error))
        assert vars(copied) == vars(error)
    endless = BudgetExceededError({}, budget=1.0, left=0.0, ends_in_seconds=math.inf)
    assert "there is no next period" in str(endless)
    assert error.among({"b": "away"}).excluded == {"b": "away"}
