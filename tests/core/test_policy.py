import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.errors import ConfigurationError, NoCandidateError
from mixllm_integrations.core.policy import MetaDecisionMaker, Scoreboard


def board(quality, cost, *, uncertainty=None, penalty=None, eligible=None, **more):
    k = len(quality)
    return Scoreboard(
        quality=np.array(quality, dtype=float),
        cost=np.array(cost, dtype=float),
        uncertainty=np.zeros(k) if uncertainty is None else np.array(uncertainty),
        waiting_penalty=np.zeros(k) if penalty is None else np.array(penalty),
        eligible=np.ones(k, bool) if eligible is None else np.array(eligible),
        **more,
    )


def maker(**changes):
    plain = {"willingness_to_pay": 0.01, "exploration": 0.0, "waiting_weight": 0.0}
    return MetaDecisionMaker(**{**plain, **changes})


numbers = st.floats(0.0, 1.0)
prices = st.floats(0.0, 10.0)
willing = st.floats(min_value=1e-300, max_value=1e300) | st.just(np.inf)


@st.composite
def boards(draw):
    k = draw(st.integers(1, 12))

    def column(values):
        return draw(st.lists(values, min_size=k, max_size=k))

    return board(
        column(numbers),
        column(prices),
        uncertainty=column(st.floats(0.0, 1e3)),
        penalty=column(st.floats(0.0, 500.0)),
        eligible=column(st.booleans()),
    )


# --- the score -----------------------------------------------------------------


def test_the_score_is_the_sum_worked_out_by_hand():
    # λ = 0.02, exploration 0.5, waiting 0.1:
    #   0: 0.6 - 0.001/0.02 + 0.5·0.2 - 0.1·1 = 0.60 - 0.05 + 0.10 - 0.10 = 0.55
    #   1: 0.9 - 0.011/0.02 + 0.5·0.4 - 0.1·0 = 0.90 - 0.55 + 0.20 - 0.00 = 0.55
    decision = maker(willingness_to_pay=0.02, exploration=0.5, waiting_weight=0.1)
    choice = decision.choose(
        board([0.6, 0.9], [0.001, 0.011], uncertainty=[0.2, 0.4], penalty=[1.0, 0.0])
    )
    np.testing.assert_allclose(choice.scores, [0.55, 0.55], rtol=1e-14)


def test_the_leverage_form_adds_the_square_of_the_width():
    # 0.5·0.4² = 0.08
    decision = maker(exploration=0.5, exploration_form="leverage")
    choice = decision.choose(board([0.5], [0.0], uncertainty=[0.4]))
    np.testing.assert_allclose(choice.scores, [0.58], rtol=1e-14)


def test_a_higher_willingness_to_pay_buys_the_better_answer():
    # The better one costs 0.01 USD more for 0.3 points: worth it from 1/30 USD on.
    pair = board([0.6, 0.9], [0.001, 0.011])
    assert maker(willingness_to_pay=0.033).choose(pair).index == 0
    assert maker(willingness_to_pay=0.034).choose(pair).index == 1


def test_a_queue_sends_the_query_elsewhere():
    pair = board([0.8, 0.7], [0.0, 0.0], penalty=[5.0, 0.0])
    assert maker(waiting_weight=0.0).choose(pair).index == 0
    assert maker(waiting_weight=0.1).choose(pair).index == 1


@settings(deadline=None)
@given(st.data())
def test_ties_go_to_the_cheaper_then_to_the_first_declared(data):
    # At infinite willingness to pay the cost is out of the score: all tie.
    costs = data.draw(st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=1))
    choice = maker(willingness_to_pay=np.inf).choose(board([0.5] * len(costs), costs))
    assert choice.index == costs.index(min(costs))


def test_an_ineligible_candidate_scores_minus_infinity_and_never_wins():
    choice = maker().choose(board([0.9, 0.1], [0, 0], eligible=[False, True]))
    assert choice.index == 1
    assert choice.scores.tolist() == [-np.inf, 0.1]


@pytest.mark.parametrize("k", [0, 3])
@pytest.mark.parametrize("exploration", [0.0, 0.1])
def test_nobody_eligible_is_a_typed_error(k, exploration):
    nobody = board([0.5] * k, [0.0] * k, eligible=np.zeros(k, bool))
    with pytest.raises(NoCandidateError):
        maker(exploration=exploration).choose(nobody)


def test_explored_says_whether_the_choice_differs_from_the_greedy_one():
    pair = board([0.6, 0.5], [0.0, 0.0], uncertainty=[0.1, 0.9])
    greedy, curious = maker().choose(pair), maker(exploration=0.5).choose(pair)
    assert (greedy.index, greedy.explored) == (0, False)
    assert (curious.index, curious.explored) == (1, True)
    assert (greedy.propensity, curious.propensity) == (1.0, 1.0)
    assert maker(exploration=0.01).choose(pair).explored is False


def test_equal_uncertainty_cannot_change_the_choice():
    rng = np.random.default_rng(0)
    for _ in range(200):
        q, c = rng.random(6), rng.random(6) * 0.01
        even = board(q, c, uncertainty=np.full(6, 0.25))
        assert maker(exploration=2.0).choose(even).index == maker().choose(even).index


# --- what exploring may do -------------------------------------------------------


def test_optimism_adds_to_the_score_but_not_to_the_choice_without_exploring():
    # 0.5 + 0.3 = 0.8 > 0.6; without exploring 0.6 > 0.5.
    pair = board([0.6, 0.5], [0.0, 0.0], optimism=np.array([0.0, 0.3]))
    choice = maker(exploration=1e-9).choose(pair)
    assert (choice.index, choice.greedy, choice.explored) == (1, 0, True)
    np.testing.assert_allclose(choice.scores, [0.6, 0.8], rtol=1e-12)


def test_without_exploration_there_is_no_optimism():
    pair = board([0.6, 0.5], [0.0, 0.0], optimism=np.array([0.0, 0.3]))
    choice = maker(exploration=0.0).choose(pair)
    assert (choice.index, choice.greedy) == (0, 0)
    assert choice.scores.tolist() == [0.6, 0.5]


@pytest.mark.parametrize(
    ("allowance", "chosen"),
    [(0.0, 0), (0.0019, 0), (0.002, 1), (np.inf, 1)],
)
def test_a_dearer_one_is_explored_only_within_the_allowance(allowance, chosen):
    # It costs 0.003 instead of 0.001 USD; 1 USD a point hardly counts.
    pair = board(
        [0.6, 0.5],
        [0.001, 0.003],
        uncertainty=[0.0, 0.8],
        optimism=np.array([0.0, 0.05]),
        exploration_allowance=allowance,
    )
    choice = maker(willingness_to_pay=1.0, exploration=0.5).choose(pair)
    assert (choice.index, choice.greedy) == (chosen, 0)
    # Who may not be explored shows the score that it has without: 0.5 - 0.003.
    theirs = 0.497 + (0.45 if chosen else 0.0)
    np.testing.assert_allclose(choice.scores, [0.599, theirs], rtol=1e-12)


@pytest.mark.parametrize("allowance", [-1.0, np.nan])
def test_the_choice_without_exploring_is_always_allowed(allowance):
    pair = board([0.6, 0.5], [0, 0], uncertainty=[0.0, 0.9])
    pair = pair._replace(exploration_allowance=allowance)
    for changes in ({"exploration": 0.5}, {"randomisation": 1.0}):
        choice = maker(**changes).choose(pair, rng=np.random.default_rng(0))
        assert (choice.index, choice.propensity) == (0, 1.0)


def test_exploring_what_is_cheaper_needs_no_allowance():
    pair = board(
        [0.6, 0.5], [0.003, 0.001], uncertainty=[0.0, 0.9], exploration_allowance=0.0
    )
    assert maker(willingness_to_pay=1.0, exploration=0.5).choose(pair).index == 1


def test_if_the_most_uncertain_one_is_too_dear_the_next_one_is_explored():
    three = board(
        [0.6, 0.5, 0.5],
        [0.001, 0.009, 0.002],
        uncertainty=[0.0, 0.9, 0.5],
        exploration_allowance=0.002,
    )
    choice = maker(willingness_to_pay=1.0, exploration=0.5).choose(three)
    assert choice.index == 2
    assert choice.scores.argmax() == 2


@pytest.mark.parametrize("exploration", [0.0, 0.5])
@pytest.mark.parametrize("form", ["width", "leverage"])
def test_a_form_without_chance_leaves_the_source_of_chance_alone(exploration, form):
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    decision = maker(exploration=exploration, exploration_form=form)
    assert decision.is_random is False
    decision.choose(board([0.6, 0.5], [0, 0], uncertainty=[0.1, 0.9]), rng=rng)
    assert rng.bit_generator.state == before


@settings(deadline=None, max_examples=100)
@given(boards(), st.floats(1e-6, 1e6), st.floats(0, 10), st.floats(0, 10))
def test_without_trials_and_allowance_the_score_has_the_same_bits_as_ever(
    shown, worth, exploration, waiting
):
    assume(shown.eligible.any())
    decision = maker(
        willingness_to_pay=worth, exploration=exploration, waiting_weight=waiting
    )
    plain = shown.quality - shown.cost / worth
    if waiting:
        plain -= waiting * shown.waiting_penalty
    scores = plain + exploration * shown.uncertainty
    scores[~shown.eligible] = -np.inf
    np.testing.assert_array_equal(decision.choose(shown).scores, scores)


@settings(deadline=None, max_examples=200)
@given(boards(), willing, st.floats(0.01, 10.0), st.floats(0.0, 5.0))
def test_exploring_never_costs_more_than_the_allowance(
    shown, worth, exploration, allowance
):
    assume(shown.eligible.any())
    capped = shown._replace(exploration_allowance=allowance)
    decision = maker(willingness_to_pay=worth, exploration=exploration)
    choice, free = decision.choose(capped), decision.choose(shown)
    assert (
        choice.greedy
        == free.greedy
        == maker(willingness_to_pay=worth).choose(shown).index
    )
    assert shown.eligible[choice.index]
    assert shown.cost[choice.index] <= shown.cost[choice.greedy] + allowance
    if shown.cost[free.index] <= shown.cost[free.greedy] + allowance:
        assert choice.index == free.index


# --- properties ----------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(boards(), willing, st.floats(0, 10), st.floats(0, 10), st.booleans())
def test_no_legal_input_gives_nan_or_an_ineligible_choice(
    shown, worth, exploration, waiting, squared
):
    assume(shown.eligible.any())
    decision = maker(
        willingness_to_pay=worth,
        exploration=exploration,
        waiting_weight=waiting,
        exploration_form="leverage" if squared else "width",
    )
    choice = decision.choose(shown)
    assert shown.eligible[choice.index]
    assert not np.isnan(choice.scores).any()
    assert (choice.scores[~shown.eligible] == -np.inf).all()
    assert choice.scores[choice.index] == choice.scores.max()


@settings(deadline=None, max_examples=200)
@given(boards(), willing, st.floats(0.0, 5.0), st.data())
def test_raising_a_cost_never_raises_that_candidates_score(shown, worth, more, data):
    assume(shown.eligible.any())
    index = data.draw(st.integers(0, len(shown.cost) - 1))
    dearer = shown.cost.copy()
    dearer[index] += more
    raised = Scoreboard(
        shown.quality, dearer, shown.uncertainty, shown.waiting_penalty, shown.eligible
    )
    decision = maker(willingness_to_pay=worth, exploration=0.1, waiting_weight=0.1)
    before, after = decision.choose(shown), decision.choose(raised)
    assert after.scores[index] <= before.scores[index]
    others = np.arange(len(dearer)) != index
    np.testing.assert_array_equal(after.scores[others], before.scores[others])
    if before.index != index:
        assert after.index != index


@settings(deadline=None, max_examples=200)
@given(boards(), st.floats(1e-6, 1e6))
def test_the_argmax_is_that_of_both_other_forms_of_the_trade(shown, worth):
    assume(shown.eligible.any())
    chosen = maker(willingness_to_pay=worth).choose(shown).index
    for quality_share, cost_share in (
        (worth, 1.0),
        (worth / (worth + 1.0), 1.0 / (worth + 1.0)),
    ):
        value = quality_share * shown.quality - cost_share * shown.cost
        best = value[shown.eligible].max()
        size = quality_share + cost_share * shown.cost.max()
        assert value[chosen] >= best - 1e-12 * size  # equal up to rounding


@pytest.mark.parametrize("worth", [5e-324, 1e-300, 1e-12])
def test_a_tiny_willingness_to_pay_takes_the_cheapest(worth):
    choice = maker(willingness_to_pay=worth).choose(
        board([0.9, 0.1, 0.5], [0.1, 0.001, 0.01])
    )
    assert choice.index == 1
    assert np.isfinite(choice.scores).all()  # -inf would say: not eligible
    free = maker(willingness_to_pay=worth).choose(board([0.1, 0.9], [0.0, 0.0]))
    assert free.index == 1


def test_an_infinite_willingness_to_pay_takes_the_best():
    choice = maker(willingness_to_pay=np.inf).choose(board([0.8, 0.9], [0.0, 1e9]))
    assert choice.index == 1


def test_a_candidate_without_a_number_loses_to_all_others():
    decision = maker(exploration=0.1, waiting_weight=0.1)
    for field in ("quality", "cost", "uncertainty", "waiting_penalty"):
        shown = board([0.9, 0.1], [0.0, 0.001])
        getattr(shown, field)[0] = np.nan
        choice = decision.choose(shown)
        assert choice.index == 1
        assert not np.isnan(choice.scores).any()


def test_a_candidate_without_a_number_is_still_the_last_resort():
    choice = maker().choose(board([np.nan, 0.5], [0, 0], eligible=[True, False]))
    assert choice.index == 0


# --- settings ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("willingness_to_pay", 0.0),
        ("willingness_to_pay", -1.0),
        ("willingness_to_pay", np.nan),
        ("willingness_to_pay", "0.01"),
        ("exploration", -0.1),
        ("exploration", np.inf),
        ("waiting_weight", np.nan),
        ("exploration_form", "root"),
        ("exploration_spread", -1.0),
        ("exploration_spread", np.inf),
        ("randomisation", 1.01),
        ("randomisation", np.nan),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_and_the_old_one_stays(name, value):
    decision = maker()
    before = getattr(decision, name)
    with pytest.raises(ConfigurationError, match=name):
        setattr(decision, name, value)
    assert getattr(decision, name) == before
    with pytest.raises(ConfigurationError, match=name):
        MetaDecisionMaker(**{name: value})


def test_settings_can_be_changed_between_decisions():
    decision = maker()
    decision.willingness_to_pay = 1
    assert decision.willingness_to_pay == 1.0
    assert decision.choose(board([0.6, 0.9], [0.001, 0.011])).index == 1
