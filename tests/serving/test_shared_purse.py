"""One budget for several workers: never more than it, and never waiting for it."""

import math
import os
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.purse import Purse
from mixllm_integrations.serving.shared_purse import SharedPurse
from mixllm_integrations.store.live import MemoryState, SharedStateError
from mixllm_integrations.store.live.redis import RedisState
from mixllm_integrations.testing import ManualClock

pytestmark = pytest.mark.network
URL = os.environ.get("MIXLLM_TEST_REDIS")
needs_redis = pytest.mark.skipif(
    not URL, reason="no Redis: set MIXLLM_TEST_REDIS, e.g. redis://127.0.0.1:6379/0"
)
BOTH = ["memory", pytest.param("redis", marks=needs_redis)]
START = 1_000_000.0


class Place:
    """A shared state, workers that meet there, and a clock for all."""

    def __init__(self, kind, spare_part=0.0):
        self.clock = ManualClock(START)
        self.namespace = f"test-{uuid.uuid4().hex}"
        if kind == "memory":
            self.state = MemoryState(clock=self.clock, spare_part=spare_part)
        else:
            url = f"{URL}?namespace={self.namespace}"
            self.state = RedisState(url, clock=self.clock, spare_part=spare_part)

    def purse(self, budget=1.0, *, period_seconds=100.0):
        return SharedPurse(budget, period_seconds=period_seconds, clock=self.clock)

    def lease(self, *purses):
        for purse in purses:
            asked_at, request = purse.now(), purse.request()
            purse.heard(self.state.lease(request), request, asked_at)

    def clear(self):
        if isinstance(self.state, MemoryState):
            self.state.clear()
            return
        import redis

        with redis.Redis.from_url(URL) as client:
            for key in client.scan_iter(f"{{{self.namespace}}}*", count=1000):
                client.delete(key)

    def close(self):
        self.clear()
        self.state.close()


@pytest.fixture(params=BOTH)
def place(request):
    made = Place(request.param)
    yield made
    made.close()


def settled(place, *purses):
    """Lease until nothing moves any more."""
    for _ in range(4):
        place.lease(*purses)


def test_it_is_a_purse(place):
    assert isinstance(place.purse(), Purse)


def test_without_a_lease_nothing_is_left(place):
    purse = place.purse()
    assert purse.left == 0.0
    assert not purse.reserve("a", 0.1)
    assert purse.reserve("b", 0.1, force=True)


def test_one_worker_alone_leases_all(place):
    purse = place.purse()
    place.lease(purse)
    assert purse.left == pytest.approx(1.0)


def test_workers_that_spend_nothing_lease_alike(place):
    purses = [place.purse() for _ in range(4)]
    settled(place, *purses)
    assert [purse.left for purse in purses] == [pytest.approx(0.25)] * 4


def test_who_spends_more_leases_more(place):
    busy, idle = place.purse(), place.purse()
    settled(place, busy, idle)
    assert busy.reserve("a", 0.4)
    settled(place, busy, idle)
    assert busy.left == pytest.approx(0.6 * 0.875)
    assert idle.left == pytest.approx(0.6 * 0.125)


def test_more_is_leased_as_soon_as_half_of_a_lease_is_used(place):
    purse, rung = place.purse(), []
    purse.ring = lambda: rung.append(purse.left)
    place.lease(purse)
    purse.reserve("a", 0.5)
    assert not rung
    for i in range(3):
        purse.reserve(str(i), 0.1)
    assert rung == [pytest.approx(0.4)]
    place.lease(purse)
    purse.reserve("b", 0.15)
    assert len(rung) == 2


def test_what_is_leased_elsewhere_cannot_be_reserved(place):
    one, two = place.purse(), place.purse()
    place.lease(one, two)
    assert one.left == pytest.approx(1.0)
    assert two.left == 0.0
    place.lease(one, two)
    assert (one.left, two.left) == (pytest.approx(0.5), 0.0)  # one gives back first
    place.lease(one, two)
    assert (one.left, two.left) == (pytest.approx(0.5), pytest.approx(0.5))


@pytest.mark.parametrize("kind", BOTH)
def test_a_new_worker_finds_some_money_at_once(kind):
    place = Place(kind, spare_part=0.05)
    old, new = place.purse(), place.purse()
    place.lease(old, new)
    assert (old.left, new.left) == (pytest.approx(0.95), pytest.approx(0.05))
    place.close()


def test_the_balance_is_that_of_all_workers(place):
    one, two = place.purse(), place.purse()
    settled(place, one, two)
    one.reserve("a", 0.2)
    two.reserve("b", 0.1)
    two.settle("b", 0.3)
    settled(place, one, two)
    for purse in (one, two):
        balance = purse.balance()
        assert balance[:4] == (*(1.0, pytest.approx(0.3), pytest.approx(0.2), 2),)


def test_a_bill_above_what_was_reserved_is_taken_from_all(place):
    one, two = place.purse(), place.purse()
    settled(place, one, two)
    one.reserve("a", 0.1)
    one.settle("a", 0.9)
    settled(place, one, two)
    assert one.left + two.left == pytest.approx(0.1)


def test_of_a_dead_worker_what_was_spent_stays_and_the_rest_comes_back(place):
    dead, alive = place.purse(), place.purse()
    settled(place, dead, alive)
    dead.reserve("a", 0.2)
    place.lease(dead)
    for _ in range(11):
        place.clock.advance(1.0)
        place.lease(alive)
    assert alive.left == pytest.approx(0.8)
    assert alive.balance().reserved == pytest.approx(0.2)


def test_a_worker_that_is_cut_off_stops_before_its_lease_is_given_to_others(place):
    cut_off, alive = place.purse(), place.purse()
    settled(place, cut_off, alive)
    place.clock.advance(7.9)
    place.lease(alive)
    assert cut_off.left > 0
    place.clock.advance(0.2)
    assert cut_off.left == 0.0
    place.lease(alive)
    assert alive.left == pytest.approx(0.5)  # not yet
    place.clock.advance(2.0)
    place.lease(alive)
    assert alive.left == pytest.approx(1.0)


def test_a_worker_that_slept_does_not_get_back_what_others_have_now(place):
    """Its own clock stood still meanwhile, so it takes its lease for a valid one."""
    slept, alive = place.purse(), place.purse()
    settled(place, slept, alive)
    request = slept.request()
    for _ in range(12):
        place.clock.advance(1.0)
        place.lease(alive)
    assert alive.left == pytest.approx(1.0)
    assert place.state.lease(request).limit == 0.0


def test_a_worker_that_was_cut_off_counts_as_it_stands_when_it_is_back(place):
    cut_off, alive = place.purse(), place.purse()
    settled(place, cut_off, alive)
    assert cut_off.reserve("a", 0.25)  # and nobody hears of it
    for _ in range(12):
        place.clock.advance(1.0)
        place.lease(alive)
    assert alive.reserve("b", 0.9)  # the overrun: no more than was not told
    settled(place, cut_off, alive)
    assert cut_off.left == alive.left == 0.0
    assert alive.balance().reserved == pytest.approx(1.15)


def test_a_new_period_begins_with_nothing_spent(place):
    one, two = place.purse(), place.purse()
    settled(place, one, two)
    one.reserve("a", 0.5)
    place.lease(one)
    number = one.balance().period
    place.clock.advance(100.0)
    settled(place, one, two)
    assert one.balance().period > number
    assert one.balance()[1:4] == (0.0, 0.0, 0)
    assert one.left + two.left == pytest.approx(1.0)
    assert one.settle("a", 0.9) == pytest.approx(0.5)
    place.lease(one)
    assert one.balance().spent == 0.0


def test_periods_begin_where_the_clock_of_the_place_is_a_multiple(place):
    purse = place.purse(period_seconds=300.0)
    place.lease(purse)
    assert purse.balance().ends_in_seconds == pytest.approx(300.0 - START % 300.0)


def test_a_clock_that_is_put_back_begins_no_period(place):
    purse = place.purse()
    place.lease(purse)
    purse.reserve("a", 0.5)
    number = purse.balance().period
    place.clock.now -= 1_000.0
    settled(place, purse)
    assert purse.balance().period == number
    assert purse.left == pytest.approx(0.5)


def test_a_period_may_last_for_ever(place):
    purse = place.purse(period_seconds=math.inf)
    place.lease(purse)
    assert purse.balance().ends_in_seconds == math.inf
    assert purse.left == pytest.approx(1.0)


def test_between_two_periods_calls_belong_to_the_old_one(place):
    purse = place.purse()
    place.lease(purse)
    place.clock.advance(99.9)
    place.lease(purse)
    place.clock.advance(0.2)
    assert purse.reserve("a", 0.3)
    place.lease(purse)
    assert purse.left == pytest.approx(1.0)


def test_purses_of_other_periods_do_not_mix(place):
    days, hours = place.purse(), place.purse(period_seconds=50.0)
    place.lease(days, hours)
    assert days.left == hours.left == pytest.approx(1.0)


def test_another_length_is_another_purse(place):
    purse = place.purse()
    place.lease(purse)
    purse.reserve("a", 0.5)
    purse.period_seconds = 50.0
    assert purse.left == 0.0
    place.lease(purse)
    assert purse.left == pytest.approx(1.0)
    assert purse.balance().spent == 0.0


def test_a_budget_that_is_cut_holds_at_once(place):
    one, two = place.purse(), place.purse()
    settled(place, one, two)
    one.budget = two.budget = 0.2
    assert one.left == pytest.approx(0.2)
    settled(place, one, two)
    assert one.left + two.left == pytest.approx(0.2)


def test_a_place_that_lost_all_knows_again_what_was_spent(place):
    one, two = place.purse(), place.purse()
    settled(place, one, two)
    one.reserve("a", 0.3)
    two.reserve("b", 0.3)
    settled(place, one, two)
    place.clear()
    place.lease(one)
    assert one.left <= 0.4 + 1e-9
    settled(place, one, two)
    assert one.left + two.left == pytest.approx(0.4)


def test_a_worker_whose_lease_is_over_does_not_claim_it_where_all_is_lost(place):
    cut_off, alive = place.purse(), place.purse()
    settled(place, cut_off, alive)
    for _ in range(12):
        place.clock.advance(1.0)
        place.lease(alive)
    place.clear()
    place.lease(alive, cut_off)
    assert (alive.left, cut_off.left) == (pytest.approx(1.0), 0.0)


def test_a_worker_that_died_is_counted_an_hour_later_too(place):
    dead, alive = (place.purse(period_seconds=1e6) for _ in range(2))
    settled(place, dead, alive)
    dead.reserve("a", 0.2)
    place.lease(dead)
    for _ in range(3):
        place.clock.advance(3_000.0)
        place.lease(alive)
    assert alive.left == pytest.approx(0.8)
    assert alive.balance().reserved == pytest.approx(0.2)
    new = place.purse(period_seconds=1e6)
    place.lease(new)
    assert new.left == 0.0


def test_a_request_that_a_later_one_overtook_changes_nothing(place):
    purse = place.purse()
    early = purse.request()
    place.lease(purse)
    with pytest.raises(SharedStateError, match="overtaken"):
        place.state.lease(early)


def test_an_answer_to_what_it_was_before_is_ignored(place):
    purse = place.purse()
    request = purse.request()
    answer = place.state.lease(request)
    purse.after_fork()
    purse.heard(answer, request, purse.now())
    assert purse.left == 0.0


def test_without_a_budget_all_is_left_and_nothing_leased(place):
    purse = place.purse(None)
    assert purse.left == math.inf
    assert purse.request() is None
    assert purse.balance().budget == math.inf


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "1", True])
def test_a_budget_that_is_none_is_refused_by_name(value):
    with pytest.raises(ConfigurationError, match="spending_budget"):
        SharedPurse(value)


def test_it_saves_nothing_since_the_money_is_elsewhere(place):
    purse = place.purse()
    place.lease(purse)
    purse.reserve("a", 0.5)
    assert purse.state() == {}


STEPS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(["lease", "reserve", "reserve", "settle", "wait", "die"]),
        st.integers(1, 100),
    ),
    max_size=60,
)


class Budgeted:
    """Four workers, and what they may have out by what each has told."""

    def __init__(self, kind):
        self.place = Place(kind, spare_part=0.05)
        self.purses = [self.new() for _ in range(4)]
        self.out, self.told = [0.0] * 4, [0.0] * 4
        self.leased_at, self.calls = [START] * 4, [[] for _ in range(4)]
        self.of_dead = self.untold = 0.0

    def new(self):
        return self.place.purse(period_seconds=1e9)

    def lease(self, who):
        self.place.lease(self.purses[who])
        self.told[who], self.leased_at[who] = self.out[who], self.place.clock()

    def reserve(self, who, call, amount):
        if self.purses[who].reserve(call, amount):
            self.out[who] += amount
            self.calls[who].append((call, amount))

    def settle(self, who, part):
        if self.calls[who]:
            call, amount = self.calls[who].pop()
            self.purses[who].settle(call, amount * part)
            self.out[who] -= amount * (1.0 - part)

    def wait(self, seconds):
        self.place.clock.advance(seconds)
        for who in range(4):
            if self.place.clock() - self.leased_at[who] >= 10.0:
                self.untold += max(self.out[who] - self.told[who], 0.0)
                self.leased_at[who] = math.inf

    def die(self, who):
        self.untold += max(self.out[who] - self.told[who], 0.0)
        self.of_dead += self.out[who]
        self.purses[who], self.calls[who] = self.new(), []
        self.out[who] = self.told[who] = 0.0
        self.leased_at[who] = self.place.clock()


@pytest.mark.parametrize("kind", BOTH)
@settings(max_examples=100)
@given(steps=STEPS)
def test_no_more_is_out_than_the_budget_and_what_lost_workers_did_not_tell(kind, steps):
    workers = Budgeted(kind)
    try:
        for step, (who, what, amount) in enumerate(steps):
            if what == "lease":
                workers.lease(who)
            elif what == "reserve":
                workers.reserve(who, str(step), amount / 200)
            elif what == "settle":
                workers.settle(who, amount / 100)
            elif what == "wait":
                workers.wait(amount / 10)
            else:
                workers.die(who)
            out = sum(workers.out) + workers.of_dead
            assert out <= 1.0 + workers.untold + 1e-9
    finally:
        workers.place.close()
