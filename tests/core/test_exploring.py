import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.exploring import ExplorationBudget, Trials
from mixllm_integrations.core.policy import MetaDecisionMaker, Scoreboard


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


def budget(clock=None, **settings):
    return ExplorationBudget(clock=clock or Clock(), **settings)


# --- the budget, by hand -----------------------------------------------------------


def test_the_allowance_is_the_share_of_the_spending_less_what_was_explored():
    # 0.02·(1.0 + 0.5) - 0.01 = 0.02 USD.
    it = budget()
    assert it.allowance() == 0.0
    it.book(1.0, 0.0)
    it.book(0.5, 0.01)
    assert it.allowance() == pytest.approx(0.02)
    assert (it.spent, it.extra) == (1.5, 0.01)


def test_exploring_what_is_cheaper_is_free_but_earns_nothing():
    it = budget()
    it.book(1.0, -0.5)
    assert it.allowance() == pytest.approx(0.02)
    assert it.extra == 0.0


def test_what_was_explored_without_a_bound_leaves_no_debt_below_zero():
    it = budget()
    it.book(1.0, 0.9)
    assert it.allowance() == 0.0


@pytest.mark.parametrize("share", [None, math.inf])
def test_without_a_share_there_is_no_bound(share):
    it = budget(share=share)
    assert it.allowance() == math.inf
    it.book(1.0, 1.0)
    assert it.allowance() == math.inf


def test_a_share_of_zero_allows_only_what_is_free():
    it = budget(share=0.0)
    it.book(100.0, 0.0)
    assert it.allowance() == 0.0


def test_a_new_period_begins_with_nothing_to_spend():
    clock = Clock()
    it = budget(clock, period_seconds=100.0)
    it.book(1.0, 0.0)
    clock.now += 99.0
    assert it.allowance() == pytest.approx(0.02)
    clock.now += 1.0
    assert (it.allowance(), it.spent) == (0.0, 0.0)
    # The third period ends at 300, however late its first decision comes.
    clock.now += 150.0
    it.book(1.0, 0.0)
    clock.now += 49.0
    assert it.allowance() == pytest.approx(0.02)
    clock.now += 1.0
    assert it.allowance() == 0.0


def test_a_clock_that_jumps_backwards_ends_no_period():
    clock = Clock()
    it = budget(clock, period_seconds=100.0)
    it.book(1.0, 0.0)
    clock.now -= 500.0
    assert it.allowance() == pytest.approx(0.02)
    again = ExplorationBudget.from_state(it.state(), clock=clock)
    assert again.allowance() == pytest.approx(0.02)


@pytest.mark.parametrize("number", [math.nan, math.inf, -1.0])
def test_a_number_that_is_no_cost_is_not_counted(number):
    it = budget()
    it.book(1.0, 0.005)
    it.book(number, number)
    assert (it.spent, it.extra) == (1.0, 0.005)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"share": -0.1}, "exploration_budget"),
        ({"share": math.nan}, "exploration_budget"),
        ({"period_seconds": 0.0}, "exploration_period_seconds"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(setting, named):
    with pytest.raises(ConfigurationError, match=named):
        budget(**setting)


def test_a_budget_goes_on_after_a_restart_where_it_was():
    clock, other = Clock(), Clock()
    it = budget(clock, period_seconds=100.0)
    it.book(1.0, 0.005)
    clock.now += 60.0
    state = json.loads(json.dumps(it.state()))
    other.now = -7.0
    again = ExplorationBudget.from_state(state, period_seconds=100.0, clock=other)
    assert again.allowance() == pytest.approx(0.015)
    assert again.state() == pytest.approx(state)
    other.now += 40.0
    assert again.spent == 0.0


@pytest.mark.parametrize(
    "state",
    [{}, {"spent": 1.0, "extra": 0.0}, {"spent": -1, "extra": 0, "age_seconds": 0}],
)
def test_a_damaged_budget_begins_anew(state):
    again = ExplorationBudget.from_state(state, clock=Clock())
    assert (again.spent, again.extra, again.allowance()) == (0.0, 0.0, 0.0)


# --- the budget, always -------------------------------------------------------------

steps = st.tuples(
    st.floats(0.0, 1.0),  # cost of the choice without exploring
    st.floats(-0.5, 1.0),  # what the explored one costs more
    st.floats(0.0, 60.0),  # seconds until then
)


@settings(deadline=None, max_examples=200)
@given(st.lists(steps, max_size=60), st.floats(0.0, 1.0), st.booleans())
def test_exploring_never_adds_more_than_its_share_in_any_period_nor_in_all(
    stream, share, greedily
):
    clock = Clock()
    it = budget(clock, share=share, period_seconds=100.0)
    began, totals = clock.now, {}
    for cost, wanted, wait in stream:
        clock.now += wait
        allowance = it.allowance()
        assert allowance >= 0.0
        extra = allowance if greedily else wanted  # to the last cent
        extra = extra if extra <= allowance else 0.0
        it.book(max(cost + extra, 0.0), extra)
        total = totals.setdefault((clock.now - began) // 100.0, [0.0, 0.0])
        total[0] += max(cost + extra, 0.0)
        total[1] += max(extra, 0.0)
        for spent, added in [*totals.values(), np.sum([*totals.values()], axis=0)]:
            assert added <= share * spent + 1e-9


# --- trials, by hand -----------------------------------------------------------------


def trial(assigned=0, taught=0):
    it = Trials()
    it.begin("new")
    for _ in range(assigned):
        it.assigned("new")
    for _ in range(taught):
        it.taught("new")
    return it


def bonus(it, name="new"):
    found = it.optimism([name])
    return 0.0 if found is None else float(found[0])


def test_the_bonus_is_two_deviations_of_what_is_not_known_yet():
    # 2·0.15 = 0.3 before anything is known.
    np.testing.assert_allclose(bonus(trial()), 0.3, rtol=1e-12)
    # One reward, and no decision since: 2/√(1/0.0225 + 1/0.2).
    np.testing.assert_allclose(bonus(trial(3, 1)), 2 / math.sqrt(400 / 9 + 5))
    # Ten decisions that wait count as five rewards: 2/√(400/9 + 25).
    np.testing.assert_allclose(bonus(trial(10)), 2 / math.sqrt(400 / 9 + 25))


def test_without_anybody_on_trial_there_is_no_optimism():
    assert Trials().optimism(["a", "b"]) is None
    assert trial().optimism(["a", "b"]) is None
    it = trial()
    it.end("new")
    assert it.optimism(["new"]) is None


def test_optimism_stands_in_the_order_of_the_names():
    it = trial(10)
    it.begin("newest")
    found = it.optimism(["newest", "old", "new"])
    assert found is not None
    np.testing.assert_allclose(found, [0.3, 0.0, bonus(it)], rtol=1e-12)
    assert it.active == ("new", "newest")


def test_after_sixty_decisions_without_a_reward_it_waits_for_one():
    assert bonus(trial(59)) > 0.1
    it = trial(60)
    assert (bonus(it), it.active) == (0.0, ("new",))
    it.taught("new")
    np.testing.assert_allclose(bonus(it), 2 / math.sqrt(400 / 9 + 5))


def test_where_rewards_come_it_waits_after_a_hundred_and_twenty_decisions():
    it = trial(60, 1)
    for _ in range(119):
        it.assigned("new")
    assert bonus(it) > 0.1  # n = 1 + 59.5
    it.assigned("new")
    assert (bonus(it), it.active) == (0.0, ("new",))


def test_a_trial_ends_after_two_hundred_rewards():
    it = trial(0, 199)
    assert it.active == ("new",)
    assert it.taught("new") is True
    assert it.active == ()
    assert it.taught("new") is False


def test_a_trial_ends_after_a_thousand_decisions():
    it = trial(999)
    assert it.assigned("new") is True
    assert it.active == ()
    assert it.assigned("new") is False


def test_a_trial_that_has_run_its_course_does_not_begin_again_unless_forgotten():
    it = trial(0, 200)
    it.begin("new")
    assert it.active == ()
    it.discard("new")
    it.begin("new")
    assert bonus(it) == pytest.approx(0.3)


def test_a_candidate_that_returns_goes_on_with_its_trial():
    # What still waited when it left is not waited for: n = 5 rewards.
    it = trial(80, 5)
    it.end("new")
    it.begin("new")
    np.testing.assert_allclose(bonus(it), 2 / math.sqrt(400 / 9 + 25))
    it.begin("new")  # twice makes no difference
    it.assigned("new")
    it.begin("new")
    np.testing.assert_allclose(bonus(it), 2 / math.sqrt(400 / 9 + 27.5))


def test_who_is_not_on_trial_changes_nothing():
    it = trial()
    before = it.state()
    assert it.assigned("old") is False
    assert it.taught("old") is False
    it.end("old")
    it.discard("old")
    it.rename("old", "older")
    it.rename("new", "new")
    assert it.state() == before


def test_a_trial_goes_on_under_another_name():
    it = trial(10)
    it.begin("newer")
    before = bonus(it)
    it.rename("new", "newer")
    assert it.active == ("newer",)
    assert bonus(it, "newer") == before
    it.end("newer")
    it.rename("newer", "newest")
    assert it.active == ()
    it.begin("newest")
    assert it.state()["newest"]["assigned"] == 10


def test_trials_go_on_after_a_restart():
    it = trial(30, 1)
    it.begin("ended")
    it.end("ended")
    again = Trials.from_state(json.loads(json.dumps(it.state())))
    assert again.state() == it.state()
    assert again.active == ("new",)
    assert bonus(again) == bonus(it)
    assert again.bad == {}


@pytest.mark.parametrize(
    "row",
    [None, {}, {"assigned": -1, "taught": 0, "waiting": 0, "active": True}, "x"],
)
def test_a_damaged_trial_is_left_out_and_the_others_stay(row):
    again = Trials.from_state({"broken": row, **trial(3).state()})
    assert again.active == ("new",)
    assert list(again.bad) == ["broken"]


# --- trials, always ------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(st.lists(st.booleans(), max_size=300))
def test_the_bonus_is_never_more_than_at_first_nor_beyond_the_cap(rewards):
    it = trial()
    waits, most = 0, 60
    for is_reward in rewards:
        if is_reward:
            it.taught("new")
            waits, most = 0, 120
        elif bonus(it):
            it.assigned("new")
            waits += 1
        assert 0.0 <= bonus(it) <= 0.3
        assert waits <= most


# --- with the policy, in a world that is known ---------------------------------------

OLD, NEW = 0, 1
COSTS = np.array([0.001, 0.0015])


def world(*, really, answered=1.0, delay=20, queries=6_000, seed=0):
    """Let a newcomer compete: prior 0.6, dearer by half, old one known to be 0.6.

    A point of quality is worth 0.01 USD, so the newcomer's cost is 0.05 points more:
    it should win if its quality is above 0.65.
    """
    rng = np.random.default_rng(seed)
    policy, spending, trials = MetaDecisionMaker(), budget(), Trials()
    spending.book(5.0, 0.0)  # what came before
    trials.begin("new")
    sums, chosen, late, extra = [0, 0.0], [], [], 0.0
    for _ in range(queries):
        level = (0.6 / 0.0225 + sums[1] / 0.2) / (1 / 0.0225 + sums[0] / 0.2)
        optimism = trials.optimism(["old", "new"])
        shown = Scoreboard(
            np.array([0.6, level]),
            COSTS,
            np.zeros(2),
            np.zeros(2),
            np.ones(2, bool),
            optimism=optimism,
            exploration_allowance=spending.allowance(),
        )
        choice = policy.choose(shown)
        more = float(COSTS[choice.index] - COSTS[choice.greedy])
        spending.book(float(COSTS[choice.index]), more)
        extra += more
        chosen.append(choice.index)
        late.append(None)
        if choice.index == NEW:
            trials.assigned("new")
            if rng.random() < answered:
                late[-1] = float(rng.random() < really)
        if len(late) > delay and late[-delay] is not None:
            sums[0] += 1
            sums[1] += late[-delay]
            trials.taught("new")
    assert extra <= 0.02 * spending.spent + 1e-12
    return np.array(chosen), trials


@pytest.mark.parametrize("seed", range(3))
def test_a_newcomer_better_than_its_prior_by_15_points_is_found(seed):
    chosen, _ = world(really=0.75, seed=seed)
    assert chosen[-2_000:].mean() > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_it_is_found_where_one_user_in_ten_answers(seed):
    chosen, _ = world(really=0.8, answered=0.1, seed=seed, queries=9_000)
    assert chosen[-2_000:].mean() > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_a_newcomer_that_is_worse_stops_being_tried(seed):
    chosen, _ = world(really=0.4, seed=seed)
    assert 5 <= chosen.sum() <= 150
    assert not chosen[-3_000:].any()


def test_a_newcomer_without_any_feedback_is_tried_sixty_times():
    chosen, trials = world(really=0.75, answered=0.0)
    assert chosen.sum() == 60
    assert trials.active == ("new",)
