"""What a log says of another policy: by hand, by enumeration, by simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.logged import LoggedDecisions
from mixllm_integrations.core.offpolicy import Interval, evaluate

NAN = float("nan")
WORTH = 0.01


def log_of(chosen, propensity, reward, cost, **changes):
    """A log of two candidates: quality 0.6 and 0.8, cost 0.001 and 0.005 expected."""
    n = len(chosen)
    columns = {
        "predicted_reward": np.tile([0.6, 0.8], (n, 1)),
        "predicted_cost": np.tile([0.001, 0.005], (n, 1)),
        "eligible": np.ones((n, 2), dtype=bool),
        **changes,
    }
    arrays = (np.array(column, dtype=float) for column in (propensity, reward, cost))
    return LoggedDecisions(np.array(chosen), *arrays, **columns)


def always(column, n):
    target = np.zeros((n, 2))
    target[:, column] = 1.0
    return target


# Four decisions, all with feedback. Under "always the second" the weights are
# 0, 1/0.5 = 2, 0 and 1/0.2 = 5; their sum is 7.
FOUR = log_of(
    chosen=[0, 1, 0, 1],
    propensity=[0.5, 0.5, 0.8, 0.2],
    reward=[1.0, 0.0, 0.5, 1.0],
    cost=[0.001, 0.004, 0.001, 0.004],
)
SECOND = evaluate(FOUR, always(1, 4), willingness_to_pay=WORTH)


def test_ips_by_hand():
    # Of the rewards 2 * 0 + 5 * 1 over four, of the costs 7 * 0.004 over four.
    assert SECOND.ips.reward.value == pytest.approx(1.25)
    assert SECOND.ips.cost.value == pytest.approx(0.007)
    assert SECOND.ips.net.value == pytest.approx(1.25 - 0.7)


def test_self_normalised_ips_by_hand():
    # the same sums, 5 and 0.028, over 7 instead of 4
    assert SECOND.snips.reward.value == pytest.approx(5 / 7)
    assert SECOND.snips.cost.value == pytest.approx(0.004)
    assert SECOND.snips.net.value == pytest.approx(5 / 7 - 0.4)


def test_doubly_robust_by_hand():
    # reward 0.8 + (2 * (0 - 0.8) + 5 * (1 - 0.8)) / 4 = 0.8 - 0.15
    # cost 0.005 + (2 + 5) * (0.004 - 0.005) / 4 = 0.005 - 0.00175
    assert SECOND.doubly_robust.reward.value == pytest.approx(0.65)
    assert SECOND.doubly_robust.cost.value == pytest.approx(0.00325)
    assert SECOND.doubly_robust.net.value == pytest.approx(0.65 - 0.325)
    assert SECOND.best is SECOND.doubly_robust


def test_the_direct_estimate_is_what_the_model_says():
    assert SECOND.direct.reward.value == pytest.approx(0.8)
    assert SECOND.direct.cost.value == pytest.approx(0.005)
    # it says 0.6, 0.8, 0.6 and 0.8 of what was chosen: 0.8 / 0.7 - 1
    assert SECOND.direct.reward_change.value == pytest.approx(1 / 7)


def test_changes_are_from_what_was_logged():
    # logged: reward 2.5 / 4 = 0.625, cost 0.01 / 4 = 0.0025, net 0.375
    assert SECOND.logged.reward.value == pytest.approx(0.625)
    assert SECOND.logged.cost.value == pytest.approx(0.0025)
    assert SECOND.doubly_robust.reward_change.value == pytest.approx(0.04)
    assert SECOND.doubly_robust.cost_change.value == pytest.approx(0.3)
    assert SECOND.doubly_robust.net_gain.value == pytest.approx(0.325 - 0.375)


def test_the_weights_are_told():
    # (2 + 5)^2 / (4 + 25); half of the decisions go elsewhere
    assert SECOND.effective_sample_size == pytest.approx(49 / 29)
    assert (SECOND.largest_weight, SECOND.mean_weight) == (5.0, 7 / 4)
    assert (SECOND.elsewhere, SECOND.n_unsupported) == (0.5, 0)
    assert SECOND.warnings[0].startswith("the effective sample size is only 1.7")


def test_an_interval_of_few_terms_by_hand():
    # Terms 0.8, 0.8 - 1.6, 0.8, 0.8 + 1 about 0.65: squares sum to 3.47, so the
    # standard error is sqrt(3.47 / 3 / 4) = 0.537742. The kurtosis of 2.05 would
    # leave 7.6 degrees, four terms have 3: t = 3.182446, half 1.711335.
    found = SECOND.doubly_robust.reward
    assert found.low == pytest.approx(0.65 - 1.711335, abs=1e-6)
    assert found.high == pytest.approx(0.65 + 1.711335, abs=1e-6)


def test_an_interval_of_skewed_terms_by_hand():
    # 24 terms, four of which are 1 / 0.5 = 2: mean 1/3, a sixth p of them is not 0.
    # kurtosis - 1 = (1 - 2p)^2 / (p (1 - p)) = 3.2, degrees 2 * 24 / 3.2 = 15,
    # t = 2.131450; variance 4 p (1 - p) = 5/9, error sqrt(5/9 / 23) = 0.155417.
    reward = [1.0] * 4 + [0.0] * 20
    log = log_of([1] * 24, [0.5] * 24, reward, [0.004] * 24)
    found = evaluate(log, always(1, 24), willingness_to_pay=WORTH).ips.reward
    half = 2.131450 * 0.155417
    assert found.value == pytest.approx(1 / 3)
    assert found.high - found.value == pytest.approx(half, abs=1e-5)
    assert found.value - found.low == pytest.approx(half, abs=1e-5)


def test_a_self_normalised_interval_by_hand():
    # Weights 4, 1, 1; rewards 1, 0, 0: ratio 4/6. Departures w (r - 2/3) over
    # 1 - leverage and over the mean weight of 2: 4/3 / (1/3) / 2 = 2 and twice
    # -2/3 / (5/6) / 2 = -0.4; less their mean 0.4: 1.6, -0.8, -0.8.
    # Error sqrt(3.84 / 2 / 3) = 0.8; t with 2 degrees 4.302653.
    log = log_of([1, 1, 1], [0.25, 0.999, 0.999], [1.0, 0.0, 0.0], [0.004] * 3)
    target = np.array([[0.0, 1.0], [0.001, 0.999], [0.001, 0.999]])
    found = evaluate(log, target, willingness_to_pay=WORTH).snips.reward
    assert found.value == pytest.approx(2 / 3)
    assert found.high - found.value == pytest.approx(0.8 * 4.302653, abs=1e-5)


# The second candidate has feedback on two of its four decisions, the first on
# both of its own: each heard reward of the second stands for two.
MISSING = log_of(
    chosen=[0, 1, 1, 0, 1, 1],
    propensity=[0.5] * 6,
    reward=[0.5, 1.0, 0.5, 0.0, NAN, NAN],
    cost=[0.001, 0.004, NAN, 0.001, 0.004, 0.004],
)


def test_heard_decisions_stand_for_those_of_the_same_candidate():
    found = evaluate(MISSING, always(1, 6), willingness_to_pay=WORTH)
    # IPS: 2 * (2 * 1 + 2 * 0.5) / 6 = 1; of the weights 2 * (2 + 2) / 6 = 4/3
    assert found.ips.reward.value == pytest.approx(1.0)
    assert found.snips.reward.value == pytest.approx(0.75)
    # Corrected: 0.8, and 2 * (2 * 0.2 - 2 * 0.3) over six.
    assert found.doubly_robust.reward.value == pytest.approx(0.8 - 0.4 / 6)
    # logged: the second's 0.75 four times, the first's 0.5 and 0
    assert found.logged.reward.value == pytest.approx(3.5 / 6)
    assert (found.n_decisions, found.n_feedback) == (6, 4)


def test_an_unknown_cost_is_taken_as_predicted():
    found = evaluate(MISSING, always(1, 6), willingness_to_pay=WORTH)
    # Three costs of 0.004 and one of 0.005, each twice, over six decisions.
    assert found.ips.cost.value == pytest.approx(2 * 0.017 / 6)
    assert found.n_predicted_costs == 1


def test_without_feedback_rewards_are_the_models_and_costs_are_known():
    log = log_of([0, 1], [0.5, 0.5], [NAN, NAN], [0.001, 0.004])
    found = evaluate(log, always(1, 2), willingness_to_pay=WORTH)
    assert np.isnan(found.ips.reward.value)
    assert np.isnan(found.snips.reward.value)
    assert found.doubly_robust.reward.value == pytest.approx(0.8)
    assert found.snips.cost.value == pytest.approx(0.004)
    assert found.warnings == (
        "no decision has feedback: rewards are the model's own predictions",
    )


def test_where_nothing_was_random_only_the_model_can_speak():
    log = log_of([0, 1], [1.0, 1.0], [1.0, 0.0], [0.001, 0.004])
    found = evaluate(log, always(1, 2), willingness_to_pay=WORTH)
    assert (found.ips, found.snips, found.doubly_robust) == (None, None, None)
    assert found.best is found.direct
    assert found.direct.reward.value == pytest.approx(0.8)
    assert "no decision was randomised" in found.warnings[0]


def test_a_policy_that_changes_nothing_needs_no_chance():
    log = log_of([0, 1], [1.0, 1.0], [1.0, 0.0], [0.001, 0.004])
    found = evaluate(log, np.eye(2), willingness_to_pay=WORTH)
    for estimate in (found.ips, found.snips, found.doubly_robust, found.logged):
        assert estimate.reward.value == pytest.approx(0.5)
        assert estimate.net_gain.value == pytest.approx(0.0)
    assert found.elsewhere == 0.0


def test_weights_leave_out_what_was_not_random_and_would_go_elsewhere():
    log = log_of([1, 0, 0], [0.5, 0.5, 1.0], [1.0, 1.0, 1.0], [0.004, 0.001, 0.001])
    found = evaluate(log, always(1, 3), willingness_to_pay=WORTH)
    # two decisions are left: (2 * 1 + 0) / 2; DR has 0.8 + 2 * 0.2, 0.8 and 0.8
    assert found.ips.reward.value == pytest.approx(1.0)
    assert found.doubly_robust.reward.value == pytest.approx(2.8 / 3)
    assert found.n_unsupported == 1
    assert found.warnings[0].startswith("1 of 3 decisions were not randomised")


def test_choices_that_the_log_does_not_hold_are_noticed():
    # The propensities claim an even coin; the second was hardly ever chosen.
    chosen = [1] * 30 + [0] * 170
    log = log_of(chosen, [0.5] * 200, [0.5] * 200, [0.001] * 200)
    found = evaluate(log, always(1, 200), willingness_to_pay=WORTH)
    assert found.warnings[0].startswith("the weights average 0.30 instead of 1")
    honest = log_of([0, 1] * 100, [0.5] * 200, [0.5] * 200, [0.001] * 200)
    assert not evaluate(honest, always(1, 200), willingness_to_pay=WORTH).warnings


def test_one_decision_has_no_interval():
    log = log_of([1], [0.5], [1.0], [0.004])
    found = evaluate(log, always(1, 1), willingness_to_pay=WORTH).ips.reward
    assert found.value == 2.0
    assert np.isnan([found.low, found.high]).all()


def test_an_infinite_willingness_to_pay_forgets_the_cost():
    found = evaluate(FOUR, always(1, 4), willingness_to_pay=float("inf"))
    assert found.ips.net == found.ips.reward


def test_predictions_of_those_who_may_not_compete_are_not_looked_at():
    eligible = np.array([[True, False], [True, True]])
    quality = np.array([[0.6, NAN], [0.6, 0.8]])
    log = log_of(
        [0, 1],
        [1.0, 0.5],
        [1.0, 1.0],
        [0.001, 0.004],
        eligible=eligible,
        predicted_reward=quality,
    )
    found = evaluate(log, np.eye(2), willingness_to_pay=WORTH)
    assert found.doubly_robust.reward.value == pytest.approx((1.0 + 0.8 + 2 * 0.2) / 2)


@settings(max_examples=50)
@given(
    quality=st.lists(st.floats(0, 1), min_size=6, max_size=6),
    said=st.lists(st.floats(0, 1), min_size=6, max_size=6),
    share=st.lists(st.floats(0.05, 0.95), min_size=3, max_size=3),
    wanted=st.lists(st.floats(0, 1), min_size=3, max_size=3),
)
def test_weighting_is_right_on_average_over_all_that_might_have_been_logged(
    quality, said, share, wanted
):
    true = np.reshape(quality, (3, 2))
    behaviour = np.column_stack([np.array(share), 1.0 - np.array(share)])
    target = np.column_stack([np.array(wanted), 1.0 - np.array(wanted)])
    rows = np.arange(3)
    ips = robust = 0.0
    for chosen in itertools.product((0, 1), repeat=3):
        propensity = behaviour[rows, chosen]
        log = log_of(
            chosen,
            propensity,
            true[rows, chosen],
            [0.001] * 3,
            predicted_reward=np.reshape(said, (3, 2)),
        )
        found = evaluate(log, target, willingness_to_pay=WORTH)
        chance = propensity.prod()
        robust += chance * found.doubly_robust.reward.value
        if target[rows, chosen].any():  # else it is said to be unknown, not 0
            ips += chance * found.ips.reward.value
    assert ips == pytest.approx((target * true).sum(axis=1).mean())
    assert robust == pytest.approx((target * true).sum(axis=1).mean())


@given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 1)), min_size=2, max_size=9))
def test_a_perfect_model_leaves_nothing_to_correct(decisions):
    chosen, propensity = zip(*decisions, strict=True)
    columns = np.array(chosen, dtype=int)
    log = log_of(
        columns,
        [0.5 * p for p in propensity],
        np.where(columns, 0.8, 0.6),
        np.where(columns, 0.005, 0.001),
    )
    found = evaluate(log, always(1, len(columns)), willingness_to_pay=WORTH)
    assert found.doubly_robust.reward == Interval(*[pytest.approx(0.8)] * 3)
    assert found.doubly_robust.cost == Interval(*[pytest.approx(0.005)] * 3)


def simulated(rng, *, share, heard, n=400, k=4):
    """One log, its target policy; the true value depends on the context drawn."""
    x = rng.normal(size=n)
    slope = np.array([0.02, -0.05, 0.1, 0.08])
    quality = np.clip(np.linspace(0.4, 0.85, k) + slope * x[:, None], 0.02, 0.98)
    cost = np.geomspace(1e-4, 1e-2, k) * np.exp(0.3 * x)[:, None]
    behaviour = np.full((n, k), share / k)
    rows = np.arange(n)
    behaviour[rows, (quality - cost / 0.1).argmax(axis=1)] += 1.0 - share
    target = np.zeros((n, k))
    target[rows, (quality - cost / 0.012).argmax(axis=1)] = 1.0
    chosen = (behaviour.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    reward = (rng.random(n) < quality[rows, chosen]).astype(float)
    reward[rng.random(n) >= heard * (1.0 - 0.1 * chosen)] = NAN
    log = LoggedDecisions(
        chosen,
        behaviour[rows, chosen],
        reward,
        cost[rows, chosen] * rng.lognormal(-0.32, 0.8, n),
        np.clip(quality + 0.1 * np.linspace(-1, 1, k), 0, 1),  # a biased model
        1.1 * cost,
        np.ones((n, k), dtype=bool),
    )
    return log, target, ((target * quality).sum(axis=1), (target * cost).sum(axis=1))


@pytest.mark.parametrize(("share", "heard"), [(0.5, 1.0), (0.25, 1.0), (0.5, 0.7)])
def test_intervals_hold_what_they_promise_under_skewed_weights(share, heard):
    many = simulated(np.random.default_rng(9), share=share, heard=heard, n=100_000)
    true_reward, true_cost = (float(values.mean()) for values in many[2])
    rng = np.random.default_rng(2025)
    covered = {}
    for _ in range(400):
        log, target, _ = simulated(rng, share=share, heard=heard)
        found = evaluate(log, target, willingness_to_pay=0.05)
        for name in ("ips", "snips", "doubly_robust"):
            estimate = getattr(found, name)
            net = true_reward - true_cost / 0.05
            for what, true in (("reward", true_reward), ("net", net)):
                span = getattr(estimate, what)
                inside = span.low <= true <= span.high
                covered.setdefault((name, what), []).append(inside)
        span = found.doubly_robust.cost
        covered.setdefault("cost", []).append(span.low <= true_cost <= span.high)
    rates = {name: np.mean(inside) for name, inside in covered.items()}
    assert min(rates.values()) >= 0.91, rates
    assert max(rates.values()) <= 0.98, rates


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"propensity": [0.0, 0.5]}, "propensity must be in"),
        ({"propensity": [NAN, 0.5]}, "propensity must be in"),
        ({"propensity": [0.5]}, "propensity must have shape"),
        ({"chosen": [0, 2]}, "one of the 2 columns"),
        ({"chosen": [-1, 0]}, "one of the 2 columns"),
        ({"eligible": np.array([[False, True]] * 2)}, "not eligible"),
        ({"predicted_cost": np.array([[NAN, 0.1]] * 2)}, "predicted_cost of an"),
        ({"predicted_reward": np.ones((2, 3))}, "predicted_reward must have shape"),
    ],
)
def test_a_log_that_does_not_fit_together_is_refused(changes, told):
    sound = {
        "chosen": [0, 0],
        "propensity": [0.5, 0.5],
        "reward": [1.0, 1.0],
        "cost": [0.1, 0.1],
    }
    with pytest.raises(ConfigurationError, match=told):
        log_of(**{**sound, **changes})


def test_an_empty_log_is_refused():
    with pytest.raises(ConfigurationError, match="no decision"):
        log_of([], [], [], [])


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ([[0.5, 0.4]] * 2, "probability"),
        ([[1.5, -0.5]] * 2, "probability"),
        ([[NAN, 1.0]] * 2, "probability"),
        ([[1.0, 0.0]], "target must have shape"),
        ([[0.0, 1.0]] * 2, "not eligible"),
    ],
)
def test_a_target_that_is_no_policy_is_refused(target, told):
    eligible = np.array([[True, False], [True, True]])
    log = log_of([0, 1], [0.5] * 2, [1.0] * 2, [0.1] * 2, eligible=eligible)
    with pytest.raises(ConfigurationError, match=told):
        evaluate(log, np.array(target), willingness_to_pay=WORTH)


def test_what_overflows_is_unknown():
    found = evaluate(FOUR, always(1, 4), willingness_to_pay=1e-320)
    assert np.isnan(found.ips.net.value)
    assert found.ips.reward.value == pytest.approx(1.25)


def test_a_willingness_to_pay_of_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="willingness_to_pay"):
        evaluate(FOUR, always(1, 4), willingness_to_pay=0.0)
