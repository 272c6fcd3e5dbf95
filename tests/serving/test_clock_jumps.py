"""A clock that is set back or forth: nothing leaks, nobody is locked out for good."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.core.errors import BudgetExceededError, UnknownDecisionError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving import CallOptions, Dispatcher
from mixllm_integrations.serving.steady import steady

HOURS = 3 * 3600.0
JUMPS = pytest.mark.parametrize(
    "jump", [-HOURS, HOURS, -1.0], ids=["back", "forth", "s"]
)


@pytest.fixture
def router(clock):
    clock.now = 10 * HOURS
    candidates = [
        Candidate("best", 1.0, 2.0, prior_quality=0.9),
        Candidate("other", 1.0, 2.0, prior_quality=0.5),
    ]
    return Router(candidates, exploration=0.0, clock=clock)


@pytest.fixture
def dispatcher(router, clock):
    return Dispatcher(router, cooldown_seconds=30.0, clock=clock)


@pytest.fixture
def set_clock(dispatcher, clock):
    """Set the clock by so much; somebody makes a call after that."""

    def move(seconds):
        clock.now += seconds
        other = dispatcher.begin("x", options=CallOptions(candidate="other"))
        other.succeed(input_tokens=1, output_tokens=1)

    return move


def load(dispatcher):
    waiting = dispatcher.router._waiting
    return [waiting.in_flight(name) for name in dispatcher.names()]


@JUMPS
def test_a_call_under_way_ends_as_it_would_have(jump, dispatcher, clock, set_clock):
    call = dispatcher.begin("q")
    call.first_chunk()
    set_clock(jump)
    call.succeed(input_tokens=1, output_tokens=1)
    assert load(dispatcher) == [0, 0]
    assert dispatcher.record_feedback(call.decision.id, 1.0)


@JUMPS
def test_a_call_that_fails_across_a_jump_hands_over(jump, dispatcher, clock, set_clock):
    call = dispatcher.begin("q", options=CallOptions(give_up_after_seconds=5.0))
    set_clock(jump)
    assert call.fail(TimeoutError())
    call.succeed(input_tokens=1, output_tokens=1)
    assert load(dispatcher) == [0, 0]


@JUMPS
def test_who_rests_is_asked_again_when_its_rest_is_over(
    jump, dispatcher, clock, set_clock
):
    call = dispatcher.begin("q")
    call.fail(TimeoutError())
    call.abandon()
    set_clock(jump)
    clock.advance(30.1)
    call = dispatcher.begin("q")
    assert call.candidate == "best"
    call.abandon()


@JUMPS
def test_a_probe_that_was_lost_in_a_jump_blocks_nobody_for_long(
    jump, dispatcher, clock, set_clock
):
    dispatcher.begin("q").fail(TimeoutError())
    clock.advance(30.1)
    dispatcher.begin("q")  # the probe, of which nothing is heard any more
    set_clock(jump)
    clock.advance(60.1)
    assert dispatcher.begin("q").candidate == "best"


@JUMPS
def test_a_call_of_which_nothing_is_heard_stops_counting_as_load(
    jump, dispatcher, clock, set_clock
):
    dispatcher.begin("q")
    set_clock(jump)
    clock.advance(600.1)
    assert load(dispatcher) == [0, 0]


@JUMPS
def test_waiting_for_who_may_be_well_ends(jump, dispatcher, clock, set_clock):
    call = dispatcher.begin("q", options=CallOptions(give_up_after_seconds=60.0))
    waited = 0.0
    while True:
        while call.fail(TimeoutError()):
            pass
        seconds = call.pause()
        if seconds is None:
            break
        waited += seconds
        set_clock(jump)
        assert call.resume()
    assert waited <= 60.0


@JUMPS
def test_a_session_goes_on(jump, dispatcher, clock, set_clock):
    options = CallOptions(session="s")
    dispatcher.begin("q", options=options).succeed(input_tokens=9, output_tokens=1)
    set_clock(jump)
    dispatcher.begin("q", options=options).succeed(input_tokens=9, output_tokens=1)
    assert load(dispatcher) == [0, 0]


@JUMPS
def test_a_decision_is_forgotten_after_its_time_however_the_clock_went(
    jump, dispatcher, clock, set_clock
):
    ledger = dispatcher.router._ledger
    for _ in range(20):
        dispatcher.begin("q").succeed(input_tokens=1, output_tokens=1)
        set_clock(jump)
    clock.advance(40 * HOURS + 60 * ledger._max_age)
    assert len(ledger) == 0


@JUMPS
def test_money_comes_back_with_the_next_period_and_no_sooner(jump, clock):
    clock.now = 10 * HOURS
    candidates = [Candidate("a", 1.0, 2.0), Candidate("b", 1.0, 2.0)]
    router = Router(
        candidates, clock=clock, when_spent="stop", spending_period_seconds=2 * HOURS
    )
    dispatcher = Dispatcher(router, clock=clock)
    call = dispatcher.begin("q")
    router.spending_budget = budget = 1.5 * call.decision.prediction.cost
    call.succeed(input_tokens=10, output_tokens=10, cost=budget)
    with pytest.raises(BudgetExceededError):
        dispatcher.begin("q")
    clock.now += jump
    with pytest.raises(BudgetExceededError):
        dispatcher.begin("q")
    clock.advance(2 * HOURS + 1.0)
    dispatcher.begin("q").abandon()


@JUMPS
def test_feedback_is_taken_until_its_time_is_up(jump, router, clock):
    """A clock that is set back gives that much more time, and no more than that."""
    dispatcher = Dispatcher(router, clock=clock)
    ids = []
    for _ in range(2):
        call = dispatcher.begin("q")
        call.succeed(input_tokens=1, output_tokens=1)
        ids.append(call.decision.id)
    clock.now += jump
    assert dispatcher.record_feedback(ids[0], 1.0)
    clock.advance(router._ledger._max_age + max(-jump, 0.0) + 1.0)
    with pytest.raises(UnknownDecisionError):
        dispatcher.record_feedback(ids[1], 1.0)


@given(st.lists(st.floats(-1e6, 1e6), max_size=30))
def test_a_steady_clock_passes_exactly_the_time_that_passed(jumps):
    times = [0.0]
    now = steady(lambda: times[0])
    shown = now()
    for jump in jumps:
        times[0] += jump
        later = now()
        assert later >= shown
        assert later - shown == pytest.approx(max(jump, 0.0), abs=1e-6)
        shown = later
