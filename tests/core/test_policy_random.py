import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.errors import ConfigurationError, NoCandidateError
from mixllm_integrations.core.policy import MetaDecisionMaker, Scoreboard


def board(quality, cost=None, *, spread=None, eligible=None, **more):
    k = len(quality)
    return Scoreboard(
        quality=np.array(quality, dtype=float),
        cost=np.zeros(k) if cost is None else np.array(cost, dtype=float),
        uncertainty=np.zeros(k),
        waiting_penalty=np.zeros(k),
        eligible=np.ones(k, bool) if eligible is None else np.array(eligible),
        spread=None if spread is None else np.array(spread, dtype=float),
        **more,
    )


def maker(**changes):
    plain = {"willingness_to_pay": 1.0, "exploration": 0.01, "waiting_weight": 0.0}
    return MetaDecisionMaker(**{**plain, **changes})


def thompson(**changes):
    return maker(exploration_form="thompson", **changes)


def normal_below(z):
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def told(decision, shown, n=400, seed=0):
    """Return how often each was chosen, and which propensity was told of it."""
    rng = np.random.default_rng(seed)
    choices = [decision.choose(shown, rng=rng) for _ in range(n)]
    counts = np.bincount([c.index for c in choices], minlength=len(shown.quality))
    return counts, {c.index: c.propensity for c in choices}


@st.composite
def boards(draw):
    k = draw(st.integers(1, 8))

    def column(values):
        return np.array(draw(st.lists(values, min_size=k, max_size=k)))

    shown = board(
        column(st.floats(0.0, 1.0)),
        column(st.floats(0.0, 1.0)),
        spread=column(st.floats(0.0, 0.5)),
        eligible=column(st.booleans()),
        optimism=draw(st.none() | st.just(column(st.floats(0.0, 0.3)))),
        exploration_allowance=draw(st.floats(0.0, 1.0) | st.just(math.inf)),
    )
    assume(shown.eligible.any())
    return shown


policies = st.builds(
    maker,
    willingness_to_pay=st.floats(1e-3, 1e3),
    exploration=st.sampled_from([0.0, 0.5]),
    exploration_form=st.sampled_from(["width", "leverage", "thompson"]),
    exploration_spread=st.floats(0.0, 3.0),
    randomisation=st.sampled_from([0.0, 0.1, 1.0]),
)


# --- Thompson sampling, by hand ------------------------------------------------


def test_of_two_the_propensity_is_that_of_their_difference():
    # P(first) = Φ(0.1 / √(0.3² + 0.4²)) = Φ(0.2).
    pair = board([0.6, 0.5], spread=[0.3, 0.4])
    counts, propensities = told(thompson(), pair)
    first = normal_below(0.2)
    assert propensities == pytest.approx({0: first, 1: 1.0 - first}, abs=1e-6)
    assert abs(counts[0] - 400 * first) <= 4 * math.sqrt(400 * first * (1 - first))


def test_cost_waiting_and_head_start_shift_the_means():
    # 0.6 - 0.2/1 - 0.1·1 + 0.3 = 0.6 and 0.5: again Φ(0.1 / 0.5).
    pair = board([0.6, 0.5], [0.2, 0.0], spread=[0.3, 0.4])._replace(
        waiting_penalty=np.array([1.0, 0.0]), head_start=np.array([0.3, 0.0])
    )
    _, propensities = told(thompson(waiting_weight=0.1), pair)
    assert propensities[0] == pytest.approx(normal_below(0.2), abs=1e-6)


def test_optimism_shifts_the_mean_of_a_newcomer():
    # The newcomer is drawn around 0.5 + 0.2: P(first) = Φ(-0.1 / 0.5).
    pair = board([0.6, 0.5], spread=[0.3, 0.4], optimism=np.array([0.0, 0.2]))
    _, propensities = told(thompson(), pair)
    assert propensities[0] == pytest.approx(normal_below(-0.2), abs=1e-6)


def test_the_spread_is_multiplied_by_its_setting_and_not_by_exploration():
    # Twice the deviations: Φ(0.1 / 1.0).
    pair = board([0.6, 0.5], spread=[0.3, 0.4])
    for exploration in (1e-9, 0.01, 5.0):
        decision = thompson(exploration=exploration, exploration_spread=2.0)
        _, propensities = told(decision, pair)
        assert propensities[0] == pytest.approx(normal_below(0.1), abs=1e-6)


def test_without_exploration_nothing_is_drawn():
    decision = thompson(exploration=0.0)
    assert decision.is_random is False
    choice = decision.choose(board([0.6, 0.5], spread=[9.0, 9.0]))
    assert (choice.index, choice.propensity, choice.explored) == (0, 1.0, False)


def test_certain_ones_that_tie_go_to_the_cheaper_then_to_the_first():
    # Infinite willingness to pay leaves the cost to break ties. The newcomer wins
    # if it is drawn above 0.6: 1 - Φ(0.1 / 0.2).
    four = board([0.6, 0.6, 0.6, 0.5], [3, 1, 1, 9], spread=[0, 0, 0, 0.2])
    _, propensities = told(thompson(willingness_to_pay=math.inf), four)
    below = normal_below(0.5)
    assert propensities == pytest.approx({1: below, 3: 1 - below}, abs=1e-6)


def test_a_tiny_willingness_to_pay_does_not_drown_the_draws_of_equals():
    # Their charges are 1e297, next to which a draw of 0.1 would be lost.
    pair = board([0.5, 0.5, 0.9], [1, 1, 2], spread=[0.1, 0.1, 0.1])
    counts, propensities = told(thompson(willingness_to_pay=1e-297), pair)
    assert propensities == pytest.approx({0: 0.5, 1: 0.5}, abs=1e-6)
    assert counts[:2].min() > 150


def test_whose_spread_is_no_number_is_judged_by_its_prediction():
    # P(second) = Φ(-0.1 / 0.2); an infinite spread would win half of the time.
    pair = board([0.6, 0.5], spread=[math.nan, 0.2])
    _, propensities = told(thompson(), pair)
    assert propensities[1] == pytest.approx(normal_below(-0.5), abs=1e-6)


def test_whoever_has_no_number_as_its_score_is_not_drawn():
    shown = board([math.nan, 0.5, 0.5], spread=[1, 1, 1])
    for decision in (thompson(), maker(randomisation=1.0)):
        counts, propensities = told(decision, shown)
        assert counts[0] == 0
        assert propensities == pytest.approx({1: 0.5, 2: 0.5}, abs=1e-6)
        last = shown._replace(eligible=np.array([True, False, False]))
        choice = decision.choose(last, rng=np.random.default_rng(0))
        assert (choice.index, choice.propensity) == (0, 1.0)


def test_the_scores_are_those_that_were_drawn():
    three = board([0.6, 0.5, 0.4], spread=[0.1, 0.2, 0], eligible=[True, True, False])
    choice = thompson().choose(three, rng=np.random.default_rng(7))
    z = np.random.default_rng(7).standard_normal(3)
    expected = [0.6 + 0.1 * z[0], 0.5 + 0.2 * z[1], -np.inf]
    np.testing.assert_allclose(choice.scores, expected, rtol=1e-12)
    assert choice.index == np.argmax(expected)


def test_a_draw_that_is_next_to_impossible_has_a_propensity_above_zero():
    # Φ(-0.1 / 0.0014) is less than any float; estimates divide by it all the same.
    pair = board([0.6, 0.5], spread=[0.001, 0.001])
    rng = SimpleNamespace(standard_normal=lambda k: np.array([-99.0, 99.0]))
    choice = thompson().choose(pair, rng=rng)
    assert choice.index == 1
    assert 0.0 < choice.propensity < 1e-9


# --- lots, by hand -------------------------------------------------------------


def test_a_lot_gives_each_one_an_equal_part_of_the_share():
    # 0.3 / 3 = 0.1 for each that may be chosen, and the other 0.7 for the best.
    four = board([0.6, 0.5, 0.4, 0.9], eligible=[True, True, True, False])
    counts, propensities = told(maker(randomisation=0.3), four, n=2_000)
    assert propensities == pytest.approx({0: 0.8, 1: 0.1, 2: 0.1})
    assert np.abs(counts - [1600, 200, 200, 0]).max() <= 4 * math.sqrt(320)


def test_lots_are_drawn_without_exploration_too():
    _, propensities = told(
        maker(randomisation=0.5, exploration=0.0), board([0.6, 0.5]), n=100
    )
    assert propensities == pytest.approx({0: 0.75, 1: 0.25})


def test_lots_and_the_width_share_the_decisions():
    # 0.5 + 0.5·0.9 = 0.95 > 0.6: the second is the form's choice, 0.8 + 0.2/2.
    pair = board([0.6, 0.5])._replace(uncertainty=np.array([0.0, 0.9]))
    _, propensities = told(maker(exploration=0.5, randomisation=0.2), pair, n=100)
    assert propensities == pytest.approx({0: 0.1, 1: 0.9})


def test_lots_and_thompson_sampling_mix_by_the_share():
    # 0.8·Φ(0.2) + 0.2/2.
    pair = board([0.6, 0.5], spread=[0.3, 0.4])
    _, propensities = told(thompson(randomisation=0.2), pair)
    assert propensities[0] == pytest.approx(0.8 * normal_below(0.2) + 0.1, abs=1e-6)


def test_all_by_lot_gives_all_the_same_chance():
    counts, propensities = told(maker(randomisation=1.0), board([0.9, 0.1, 0.5, 0.3]))
    assert propensities == pytest.approx(dict.fromkeys(range(4), 0.25))
    assert counts.min() > 60


# --- what chance may not do ----------------------------------------------------


def test_whoever_is_beyond_the_allowance_is_left_out_of_the_chances():
    # Without the third one, at 0.009 > 0.001 + 0.005 USD, there are two.
    three = board(
        [0.6, 0.502, 0.9],
        [0.001, 0.003, 0.9],
        spread=[0.3, 0.4, 0.5],
        exploration_allowance=0.005,
    )
    gap = (0.6 - 0.001) - (0.502 - 0.003)  # = 0.1
    _, propensities = told(thompson(), three)
    first = normal_below(gap / 0.5)
    assert propensities == pytest.approx({0: first, 1: 1 - first}, abs=1e-6)
    _, propensities = told(maker(randomisation=1.0), three)
    assert propensities == pytest.approx({0: 0.5, 1: 0.5})


@pytest.mark.parametrize("decision", [thompson(), maker(randomisation=1.0)])
def test_without_allowance_and_with_dearer_others_the_choice_is_certain(decision):
    shown = board([0.6, 0.5], [0.001, 0.002], spread=[9, 9], exploration_allowance=0.0)
    counts, propensities = told(decision, shown, n=50)
    assert counts.tolist() == [50, 0]
    assert propensities == {0: 1.0}


@pytest.mark.parametrize("decision", [thompson(), maker(randomisation=0.1)])
def test_chance_without_a_source_is_refused(decision):
    assert decision.is_random is True
    with pytest.raises(ConfigurationError, match="pass `rng`"):
        decision.choose(board([0.6, 0.5], spread=[1, 1]))


def test_thompson_sampling_without_a_spread_is_refused():
    with pytest.raises(ConfigurationError, match="spread"):
        thompson().choose(board([0.6, 0.5]), rng=np.random.default_rng(0))


@pytest.mark.parametrize("decision", [thompson(), maker(randomisation=0.1)])
def test_nobody_eligible_is_a_typed_error(decision):
    nobody = board([0.5, 0.5], spread=[1, 1], eligible=[False, False])
    with pytest.raises(NoCandidateError):
        decision.choose(nobody, rng=np.random.default_rng(0))


def test_the_same_seed_makes_the_same_choices():
    decision = thompson(randomisation=0.2)
    shown = board([0.6, 0.5, 0.4], spread=[0.3, 0.4, 0.5])
    runs = []
    for _ in range(2):
        rng = np.random.default_rng(5)
        runs.append([decision.choose(shown, rng=rng).index for _ in range(50)])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 3


# --- properties ----------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(policies, boards(), st.integers(0, 99))
def test_no_chance_leads_to_whom_the_limits_or_the_allowance_forbid(
    decision, shown, seed
):
    choice = decision.choose(shown, rng=np.random.default_rng(seed))
    assert shown.eligible[choice.index]
    greedy = maker(
        willingness_to_pay=decision.willingness_to_pay, exploration=0.0
    ).choose(shown)
    assert choice.greedy == greedy.index
    most = shown.cost[greedy.index] + shown.exploration_allowance
    assert shown.cost[choice.index] <= most
    assert 0.0 < choice.propensity <= 1.0 + 1e-6
    assert choice.explored is (choice.index != greedy.index)
    if not decision.is_random:
        assert choice.propensity == 1.0


@settings(deadline=None, max_examples=40)
@given(policies, boards(), st.integers(0, 99))
def test_frequencies_agree_with_the_propensities_up_to_noise(decision, shown, seed):
    n = 300
    counts, propensities = told(decision, shown, n=n, seed=seed)
    assert sum(propensities.values()) <= 1.0 + 1e-6
    unseen = 1.0 - sum(propensities.values())
    assert unseen <= 25 / n + 1e-6  # what never came is improbable
    for index, p in propensities.items():
        sigma = math.sqrt(n * p * max(1 - p, 0.0))
        assert abs(counts[index] - n * p) <= 5 * sigma + 2  # 4 would fail now and then


@settings(deadline=None, max_examples=100)
@given(boards(), st.floats(-5.0, 5.0), st.integers(0, 99))
def test_a_head_start_for_all_changes_neither_choice_nor_propensity(shown, shift, seed):
    shown = shown._replace(
        quality=np.round(shown.quality, 3),
        cost=np.round(shown.cost, 3),
        spread=np.maximum(shown.spread, 1e-3),  # rounding would break a tie
    )
    moved = shown._replace(head_start=np.full(shown.quality.size, shift))
    best = np.sort((shown.quality - shown.cost)[shown.eligible])[::-1]
    assume(best.size == 1 or best[0] - best[1] > 1e-6)  # the same one is greedy
    one, two = (
        thompson().choose(s, rng=np.random.default_rng(seed)) for s in (shown, moved)
    )
    assert one.index == two.index
    assert one.propensity == pytest.approx(two.propensity, abs=1e-6)


def test_a_newcomer_too_dear_to_be_tried_does_not_stand_out_in_draws():
    shown = board(
        [0.6, 0.5, 0.5],
        [0.001, 0.002, 0.002],
        spread=[0.1, 0.3, 0.3],
        optimism=np.array([0.0, 0.2, 0.0]),
        optimism_allowance=0.0005,
    )
    policy = MetaDecisionMaker(exploration_form="thompson", willingness_to_pay=1.0)
    rng = np.random.default_rng(0)
    chosen = {policy.choose(shown, rng=rng).index for _ in range(300)}
    assert chosen == {0, 2}  # the last one is no newcomer: any price
    choice = policy.choose(shown, rng=rng)
    others = policy.choose(shown._replace(optimism=None), rng=rng)
    assert choice.is_a_trial(shown) == (choice.index == 1)
    assert not others.is_a_trial(shown._replace(optimism=None))
