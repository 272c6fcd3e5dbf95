"""What every purse promises; an implementation is added to `PURSES`."""

import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.purse import Balance, LocalPurse, Purse
from mixllm_integrations.serving.shared_purse import SharedPurse
from mixllm_integrations.store.live import MemoryState
from mixllm_integrations.testing import ManualClock


def local(budget, *, period_seconds=100.0, clock=None):
    return LocalPurse(
        budget, period_seconds=period_seconds, clock=clock or ManualClock()
    )


class LeasingPurse(SharedPurse):
    """Leases before it is asked anything, as the thread does four times a second."""

    def __init__(self, place, budget, **settings):
        self._place = place
        super().__init__(budget, **settings)

    def _lease(self):
        asked_at, request = self.now(), self.request()
        if request is not None:
            self.heard(self._place.lease(request), request, asked_at)

    @property
    def left(self):
        with self._lock:
            self._lease()
            return super().left

    def balance(self):
        with self._lock:
            self._lease()
            return super().balance()

    def reserve(self, call_id, amount, *, force=False):
        with self._lock:
            self._lease()
            return super().reserve(call_id, amount, force=force)

    def settle(self, call_id, amount):
        with self._lock:
            self._lease()
            return super().settle(call_id, amount)


def shared(budget, *, period_seconds=100.0, clock=None):
    clock = clock or ManualClock()
    place = MemoryState(clock=clock, spare_part=0.0)
    return LeasingPurse(place, budget, period_seconds=period_seconds, clock=clock)


PURSES = [pytest.param(local, id="local"), pytest.param(shared, id="shared")]


@pytest.fixture(params=PURSES)
def make(request):
    """Make a purse from a budget, a period and a clock."""
    return request.param


def test_it_is_a_purse(make):
    assert isinstance(make(1.0), Purse)


def test_what_is_reserved_is_not_left(make):
    purse = make(1.0)
    assert purse.reserve("a", 0.75)
    assert purse.left == pytest.approx(0.25)
    assert purse.balance()[:4] == (1.0, 0.0, 0.75, 1)


def test_more_than_is_left_cannot_be_reserved(make):
    purse = make(1.0)
    assert purse.reserve("a", 0.75)
    assert not purse.reserve("b", 0.5)
    assert purse.left == pytest.approx(0.25)
    assert purse.balance().calls == 1


def test_all_that_is_left_can_be_reserved(make):
    purse = make(1.0)
    assert purse.reserve("a", 0.75)
    assert purse.reserve("b", 0.25)
    assert purse.left == 0.0


def test_force_reserves_over_the_budget(make):
    purse = make(1.0)
    assert purse.reserve("a", 1.5, force=True)
    assert purse.left == 0.0
    assert purse.balance().reserved == pytest.approx(1.5)


@pytest.mark.parametrize("billed", [0.0, 0.25, 0.75, 2.0])
def test_the_bill_takes_the_place_of_what_was_reserved(make, billed):
    purse = make(1.0)
    purse.reserve("a", 0.75)
    assert purse.settle("a", billed) == 0.75
    assert purse.balance()[1:3] == pytest.approx((billed, 0.0))
    assert purse.left == pytest.approx(max(1.0 - billed, 0.0))


def test_an_unknown_bill_is_what_was_reserved(make):
    purse = make(1.0)
    purse.reserve("a", 0.75)
    assert purse.settle("a", None) == 0.75
    assert purse.balance()[1:3] == pytest.approx((0.75, 0.0))


def test_what_was_never_reserved_counts_as_spent(make):
    purse = make(1.0)
    assert purse.settle("a", 0.5) is None
    assert purse.settle("b", None) is None
    assert purse.balance()[1:4] == (0.5, 0.0, 0)


def test_what_is_never_settled_stays_reserved_until_the_period_ends(make):
    clock = ManualClock()
    purse = make(1.0, clock=clock)
    purse.reserve("a", 0.75)
    clock.advance(99.0)
    assert purse.left == pytest.approx(0.25)
    clock.advance(1.0)
    assert purse.left == 1.0


def test_a_call_belongs_to_the_period_in_which_it_was_reserved(make):
    clock = ManualClock()
    purse = make(1.0, clock=clock)
    purse.reserve("a", 0.75)
    clock.advance(100.0)
    assert purse.settle("a", 0.5) == 0.75
    assert purse.balance()[1:4] == (0.0, 0.0, 0)


def test_periods_follow_each_other_at_the_clocks_own_pace(make):
    clock = ManualClock()
    purse = make(1.0, clock=clock)
    first = purse.balance()
    assert first.ends_in_seconds == 100.0
    clock.advance(250.0)
    later = purse.balance()
    assert later.ends_in_seconds == 50.0
    assert later.period != first.period


def test_a_clock_that_jumps_backwards_changes_nothing(make):
    clock = ManualClock(1_000.0)
    purse = make(1.0, clock=clock)
    clock.advance(60.0)
    purse.reserve("a", 0.75)
    clock.now = 5.0
    assert purse.left == pytest.approx(0.25)
    assert purse.balance().ends_in_seconds == pytest.approx(40.0)
    clock.advance(41.0)
    assert purse.left == 1.0


def test_another_budget_leaves_what_was_spent(make):
    purse = make(1.0)
    purse.settle("a", 0.75)
    purse.budget = 2.0
    assert purse.left == pytest.approx(1.25)
    purse.budget = 0.5
    assert purse.left == 0.0


def test_another_length_begins_a_new_period(make):
    clock = ManualClock()
    purse = make(1.0, clock=clock)
    clock.advance(60.0)
    purse.reserve("a", 0.75)
    purse.period_seconds = 10.0
    assert purse.left == 1.0
    assert purse.balance().ends_in_seconds == 10.0


@settings(max_examples=60, deadline=None)
@given(
    amounts=st.lists(st.floats(0.0, 0.4), max_size=40),
    settled=st.sets(st.integers(0, 39)),
)
@pytest.mark.parametrize("build", PURSES)
def test_without_force_no_more_than_the_budget_is_ever_out(build, amounts, settled):
    purse = build(1.0)
    granted = {}
    for number, amount in enumerate(amounts):
        left = purse.left
        if purse.reserve(str(number), amount):
            granted[number] = amount
            assert amount <= left
        else:
            assert amount > left
        if number in settled and number in granted:
            purse.settle(str(number), amount)  # exactly as was predicted
        balance = purse.balance()
        assert balance.spent + balance.reserved <= 1.0 + 1e-9
    assert balance_of(purse) == pytest.approx(math.fsum(granted.values()))


def balance_of(purse: Purse) -> float:
    balance: Balance = purse.balance()
    return balance.spent + balance.reserved


@pytest.mark.parametrize("build", PURSES)
def test_threads_together_reserve_the_budget_and_no_more(build):
    purse, granted = build(1.0), []

    def work(thread):
        for number in range(50):
            call = f"{thread}-{number}"
            if purse.reserve(call, 1 / 128):
                granted.append(call)
                if number % 2:
                    purse.settle(call, 1 / 128)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 128
    assert balance_of(purse) == pytest.approx(1.0)


# Of the local one alone.


def test_the_first_budget_begins_a_period():
    clock = ManualClock()
    purse = local(None, clock=clock)
    clock.advance(60.0)
    purse.budget = 1.0
    assert purse.balance().ends_in_seconds == 100.0


def test_without_a_budget_everything_is_left():
    purse = local(None)
    assert purse.left == math.inf
    assert purse.balance().left == math.inf


def test_a_period_may_last_for_ever():
    clock = ManualClock()
    purse = local(1.0, period_seconds=math.inf, clock=clock)
    purse.settle("a", 1.0)
    clock.advance(1e12)
    assert purse.left == 0.0


def test_a_state_goes_on_in_its_period_by_another_clock():
    clock, other = ManualClock(), ManualClock(7_777.0)
    purse = local(1.0, clock=clock)
    purse.reserve("a", 0.25)
    purse.settle("b", 0.5)
    clock.advance(60.0)
    again = local(1.0, clock=other)
    again.restore(purse.state())
    assert again.balance()[:5] == (1.0, 0.5, 0.25, 1, 40.0)
    assert again.settle("a", 0.125) == 0.25
    assert again.left == pytest.approx(0.375)


@pytest.mark.parametrize(
    "damage",
    [
        {"spent": -1.0},
        {"calls": "many"},
        {"age_seconds": math.inf},
        {"under_way": {"a": math.nan}},
        {"under_way": None},
    ],
)
def test_a_damaged_state_changes_nothing(damage):
    purse = local(1.0)
    purse.settle("a", 0.5)
    with pytest.raises((TypeError, ValueError, AttributeError)):
        purse.restore({**purse.state(), **damage})
    assert purse.left == 0.5


def test_many_calls_without_an_outcome_count_as_spent(monkeypatch):
    monkeypatch.setattr("mixllm_integrations.core.purse._MOST_RESERVED", 2)
    purse = local(1.0)
    for name in "abc":
        purse.reserve(name, 0.25)
    assert purse.balance()[1:3] == (0.25, 0.5)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "5", True])
def test_a_budget_that_is_none_is_refused_by_name(value):
    purse = local(1.0)
    with pytest.raises(ConfigurationError, match="spending_budget"):
        purse.budget = value
    assert purse.budget == 1.0


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, "day"])
def test_a_period_that_is_none_is_refused_by_name(value):
    with pytest.raises(ConfigurationError, match="spending_period_seconds"):
        local(1.0, period_seconds=value)
