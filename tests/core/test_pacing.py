"""A stream under a budget: what is spent, and how good it is."""

import math

import numpy as np
import pytest

from mixllm_integrations.core.errors import NoCandidateError, StateFormatError
from mixllm_integrations.core.pacing import DemandForecast, Pacer, spending_on
from mixllm_integrations.core.policy import MetaDecisionMaker, Scoreboard
from mixllm_integrations.core.purse import Balance, LocalPurse
from mixllm_integrations.core.spending import SpendingControl, SpendingRound
from mixllm_integrations.testing import ManualClock

DAY = 86_400.0
NAMES = tuple("abcdef")


class Stream:
    """Queries whose quality and cost are predicted well, and what becomes of them."""

    def __init__(self, seed, n, *, arrivals="even", bias=1.0, noise=0.0, jump=False):
        rng = np.random.default_rng(seed)
        k = len(NAMES)
        hardness = rng.normal(0.0, 0.25, (n, 1)) * np.linspace(1.0, 0.3, k)
        skill = np.linspace(0.35, 0.85, k) + rng.normal(0.0, 0.1, (n, k))
        self.quality = np.clip(skill + hardness, 0.0, 1.0)
        length = rng.lognormal(0.0, 0.7, (n, 1)) * rng.lognormal(0.0, 0.2, (n, k))
        self.cost = np.geomspace(1e-4, 3e-2, k) * length
        if jump:
            self.cost[n // 2 :, 3:] *= 3.0
        spread = rng.lognormal(-(noise**2) / 2, noise, self.cost.shape)
        self.bill = self.cost * bias * spread
        self.moments = DAY * np.sort(self.arrivals(rng, n, arrivals))
        self.strongest = float(self.bill[:, -1].sum())

    @staticmethod
    def arrivals(rng, n, kind):
        if kind == "noon":
            return np.clip(rng.normal(0.6, 0.12, n), 0.0, 1.0 - 1e-9)
        found = rng.random(n)
        if kind == "bursts":
            burst = rng.random(20)[rng.integers(0, 20, n)] + rng.normal(0.0, 0.0025, n)
            found = np.where(rng.random(n) < 0.3, burst, found)
        return np.clip(found, 0.0, 1.0 - 1e-9)

    def best_fixed(self, budget):
        """Return the quality of the best fixed willingness to pay in hindsight."""
        rows, best = np.arange(len(self.cost)), 0.0
        for value in np.geomspace(1e-6, 10.0, 300):
            chosen = (self.quality - self.cost / value).argmax(axis=1)
            if self.bill[rows, chosen].sum() <= budget:
                best = max(best, float(self.quality[rows, chosen].mean()))
        return best


class Played:
    """What became of a stream."""

    def __init__(self, stream, control, clock, *, began=0.0, most=math.inf, flight=0):
        policy = MetaDecisionMaker(
            willingness_to_pay=most, exploration=0.0, waiting_weight=0.0
        )
        self.spent = self.earned = self.worst = 0.0
        self.refused, under_way = 0, []
        zeros = np.zeros(len(NAMES))
        for row, moment in enumerate(stream.moments):
            clock.now = began + moment
            try:
                rounds = SpendingRound(
                    control, NAMES, stream.cost[row : row + 1], [{}], is_fixed=False
                )
                excluded = rounds.excluded(0)
            except NoCandidateError:
                self.refused += 1
                continue
            board = Scoreboard(
                stream.quality[row],
                stream.cost[row],
                zeros,
                zeros,
                np.array([name not in excluded for name in NAMES]),
            )
            paced = rounds.paced(policy, board, 0)
            assert paced.willingness_to_pay <= most
            choice = paced.choose(board)
            call = f"{began}-{row}"
            assert rounds.reserve(call, board, choice, 0)
            self.spent += stream.bill[row, choice.index]
            self.earned += stream.quality[row, choice.index]
            under_way.append((call, float(stream.bill[row, choice.index])))
            if len(under_way) > flight:
                control.settle(*under_way.pop(0), failed=False)
        for call, bill in under_way:
            control.settle(call, bill, failed=False)
        self.quality = self.earned / len(stream.moments)


def play(stream, share, *, when_spent="stop", **given):
    clock = ManualClock()
    budget = share * stream.strongest
    purse = LocalPurse(budget, period_seconds=DAY, clock=clock)
    control = SpendingControl(purse, when_spent=when_spent)
    return Played(stream, control, clock, **given), budget


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("arrivals", ["even", "bursts"])
@pytest.mark.parametrize("share", [0.05, 0.15, 0.25])
def test_the_budget_is_spent_to_0_4_percent_and_not_exceeded(seed, arrivals, share):
    played, budget = play(Stream(seed, 2_000, arrivals=arrivals), share)
    assert 0.996 * budget <= played.spent <= budget * (1 + 1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "world", [{"bias": 1.4, "noise": 0.5}, {"bias": 0.7, "noise": 0.5}, {"jump": True}]
)
def test_predictions_that_are_wrong_and_prices_that_change_are_made_up_for(seed, world):
    stream = Stream(seed, 2_000, **world)
    played, budget = play(stream, 0.25)
    dearest = float(stream.bill.max())
    assert 0.996 * budget <= played.spent <= min(1.004 * budget, budget + dearest)
    assert played.quality >= stream.best_fixed(played.spent) - 0.01


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_quality_is_that_of_the_best_fixed_price_in_hindsight(seed, share):
    stream = Stream(seed, 2_000)
    played, budget = play(stream, share)
    assert played.quality >= stream.best_fixed(budget) - 0.005


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_never_over_by_more_than_the_calls_in_flight_cost_unforeseen(seed):
    stream = Stream(seed, 1_000, bias=1.5, noise=0.8)
    played, budget = play(stream, 0.25, flight=20)
    unforeseen = np.maximum(stream.bill - stream.cost, 0.0).max(axis=1)
    assert played.spent <= budget + float(np.sort(unforeseen)[-21:].sum())


def test_from_the_second_day_on_the_course_of_the_day_is_known():
    clock = ManualClock()
    days = [Stream(seed, 1_500, arrivals="noon") for seed in (0, 1)]
    budget = 0.25 * days[0].strongest
    purse = LocalPurse(budget, period_seconds=DAY, clock=clock)
    control = SpendingControl(purse, when_spent="stop")
    first, second = (
        Played(day, control, clock, began=DAY * n) for n, day in enumerate(days)
    )
    lost = [
        d.best_fixed(budget) - p.quality
        for d, p in zip(days, (first, second), strict=True)
    ]
    assert lost[0] > 0.02 > 0.005 > lost[1]
    assert 0.996 * budget <= second.spent <= budget * (1 + 1e-9)


def test_where_demand_is_below_the_budget_the_users_own_value_holds():
    stream = Stream(0, 1_000)
    played, budget = play(stream, 0.9, most=0.02)
    rows = np.arange(len(stream.cost))
    chosen = (stream.quality - stream.cost / 0.02).argmax(axis=1)
    assert played.spent == pytest.approx(stream.bill[rows, chosen].sum())
    assert played.spent < 0.2 * budget


def test_a_budget_below_the_cheapest_goes_on_with_the_cheapest(caplog):
    stream = Stream(0, 500)
    played, budget = play(stream, 0.001, when_spent="cheapest")
    assert played.refused == 0
    assert played.spent == pytest.approx(stream.bill[:, 0].sum(), rel=0.02)
    assert played.spent > budget
    said = [r for r in caplog.records if "used up" in r.getMessage()]
    assert len(said) == 1


def test_a_budget_below_the_cheapest_stops():
    stream = Stream(0, 500)
    played, budget = play(stream, 0.001)
    assert played.refused > 0
    assert played.spent <= budget


# The parts.


def test_spending_is_what_the_best_choice_costs_at_each_value():
    quality, cost = np.array([0.2, 0.9]), np.array([0.001, 0.008])
    row = spending_on(quality, cost)  # they are worth the same at 0.01
    assert (np.diff(row) >= 0).all()
    assert row[0] == 0.001
    assert row[-1] == 0.008
    from mixllm_integrations.core.pacing import _GRID

    assert (row == np.where(_GRID > 0.01, 0.008, 0.001)).all()


def balance(*, left, ends_in=50.0, calls=0, period=1):
    return Balance(left, 0.0, 0.0, calls, ends_in, period)


def test_a_period_without_an_end_is_not_paced():
    row = np.full(145, 5.0)
    endless = balance(left=1e-9, ends_in=math.inf)
    assert Pacer().price(endless, math.inf, most=0.5, row=row) == 0.5


def test_the_price_falls_with_what_is_left():
    pacer = Pacer()
    row = spending_on(np.array([0.2, 0.5, 0.9]), np.array([0.001, 0.004, 0.02]))
    prices = [
        pacer.price(balance(left=left, calls=100), 100.0, most=1.0, row=row)
        for left in (0.0, 0.2, 1.0, 1e9)
    ]
    assert prices == sorted(prices)
    assert prices[0] < prices[1] < prices[2] < prices[3] == 1.0


def test_the_bias_is_what_bills_make_of_predictions():
    pacer = Pacer()
    assert pacer.bias == 1.0
    for _ in range(2_000):
        pacer.settled(0.01, 0.02)
    assert pacer.bias == pytest.approx(2.0, rel=0.01)


def test_free_answers_have_no_bias():
    pacer = Pacer()
    pacer.settled(0.0, 0.0)
    assert pacer.bias == 1.0


def test_the_first_day_is_taken_to_go_on_evenly():
    demand = DemandForecast()
    demand.saw(1, calls=300, elapsed=0.25)
    assert demand.to_come(elapsed=0.25) == pytest.approx(900, rel=0.05)


def test_where_calls_come_in_bursts_fewer_are_reckoned_with():
    even, bursts = DemandForecast(), DemandForecast()
    for slot in range(12):
        even.saw(1, calls=100 * (slot + 1), elapsed=(slot + 0.5) / 24)
        bursts.saw(1, calls=600 * (slot // 6 + 1), elapsed=(slot + 0.5) / 24)
    told = [demand.to_come(elapsed=0.5) for demand in (even, bursts)]
    assert told[0] == pytest.approx(1_200, rel=0.03)
    assert told[1] == pytest.approx(told[0] - 0.5 * math.sqrt(1_200), rel=0.01)


def test_later_days_are_taken_to_be_like_those_before_scaled_to_today():
    demand = DemandForecast()
    demand.saw(1, calls=100, elapsed=0.1)
    demand.saw(1, calls=1_000, elapsed=0.6)
    demand.saw(2, calls=0, elapsed=0.0)
    assert demand.to_come(elapsed=0.5) < 1_000
    demand.saw(2, calls=200, elapsed=0.2)
    assert demand.to_come(elapsed=0.2) == pytest.approx(1_500 - 0.5 * math.sqrt(1_500))
    assert demand.to_come(elapsed=0.7) == 0.0


def test_a_state_goes_on_where_it_was():
    stream = Stream(0, 200)
    clock = ManualClock()
    control = SpendingControl(LocalPurse(1.0, period_seconds=DAY, clock=clock))
    Played(stream, control, clock)
    clock.now = DAY
    control.status(1.0)
    again = Pacer()
    again.restore(control.pacer.state())
    at = balance(left=0.5, ends_in=DAY / 2, calls=100, period=7)
    assert again.price(at, DAY, most=9.0) == control.pacer.price(at, DAY, most=9.0)


@pytest.mark.parametrize(
    "damage",
    [
        {"spending": [1.0]},
        {"spending": [math.nan] * 145},
        {"seen": -1.0},
        {"demand": {"usual": None, "slots": [1.0]}},
        {"demand": {"usual": [0.0] * 24, "slots": [1.0] * 24}},
        {"demand": {"usual": None, "slots": [-1.0] * 24}},
    ],
)
def test_a_damaged_state_is_refused(damage):
    with pytest.raises(StateFormatError):
        Pacer().restore({**Pacer().state(), **damage})
