"""What the detectors miss and what they raise in vain, simulated."""

import math

import numpy as np
import pytest

from mixllm_integrations.core.drift import DriftWatch

FLOOR = 0.01  # of a variance, as a caller may add it


def watching(*names, **options):
    watch = DriftWatch(**options)
    for name in names or ("a",):
        watch.add(name)
    return watch


def judged(watch, reward, expected, name="a"):
    variance = expected * (1 - expected) + FLOOR
    return watch.observe_quality(name, surprise=reward - expected, variance=variance)


def judge_all(watch, rewards, expected):
    """Return the events with the places at which they came."""
    each = zip(rewards.tolist(), expected.tolist(), strict=True)
    found = ((place, judged(watch, r, e)) for place, (r, e) in enumerate(each))
    return [(place, event) for place, event in found if event]


def alarms(seed, truth, expected):
    """Return the events of one run of rewards of 0 and 1."""
    rewards = np.random.default_rng(seed).random(len(truth)) < truth
    return judge_all(watching(), rewards.astype(np.float64), expected)


def alarms_of(n_runs, n, truth, expected):
    """Return the events of several runs at constant levels, each run's own."""
    levels = np.full(n, truth), np.full(n, expected)
    return [alarms([1, seed], *levels) for seed in range(n_runs)]


def delays(n_runs, before, after, *, history=300, most=800, over=1, expected=None):
    """Return after how many answers each run found a change, and its event."""
    fallen = np.clip((np.arange(history + most) - history + 1) / over, 0.0, 1.0)
    truth = before + (after - before) * fallen
    promised = np.full(len(truth), before if expected is None else expected)
    found = []
    for seed in range(n_runs):
        events = alarms([2, seed], truth, promised)
        late = [(place + 1 - history, e) for place, e in events if place >= history]
        found.append(late[0] if late else (math.inf, None))
    return np.array([n for n, _ in found]), [event for _, event in found]


def time_all(watch, seconds, tokens=100, name="a"):
    found = (
        (place, watch.observe_latency(name, latency_seconds=s, output_tokens=tokens))
        for place, s in enumerate(seconds)
    )
    return [(place, event) for place, event in found if event]


def scattered(seed, n, scatter=1.0):
    return np.exp(scatter * np.random.default_rng([3, seed]).normal(size=n))


# --- quality: quiet where nothing happens --------------------------------------


def test_false_alarms_are_rarer_than_one_in_a_hundred_thousand_answers():
    runs = alarms_of(15, 20_000, 0.72, 0.72)
    assert sum(len(run) for run in runs) <= 3


@pytest.mark.parametrize("offset", [-0.05, 0.05])
def test_a_small_constant_bias_is_quiet_for_ten_thousand_answers(offset):
    runs = alarms_of(20, 10_000, 0.72 + offset, 0.72)
    assert sum(bool(run) for run in runs) <= 2


def test_it_is_quiet_where_every_query_has_another_probability():
    rng = np.random.default_rng(5)
    for seed in range(10):
        expected = rng.beta(2.0, 0.8, 20_000)
        assert alarms([4, seed], expected, expected) == []


def test_it_is_quiet_where_grades_scatter_less_than_was_said():
    grades = np.clip(np.random.default_rng(6).normal(0.65, 0.15, 100_000), 0.0, 1.0)
    assert judge_all(watching(), grades, np.full(100_000, 0.7)) == []


# --- quality: found where something does ---------------------------------------


def test_a_model_that_halves_its_quality_is_found_within_a_hundred_answers():
    n, events = delays(150, 0.72, 0.36)
    assert np.median(n) <= 50
    assert np.mean(n <= 100) >= 0.95
    assert np.median([e.change for e in events]) == pytest.approx(-0.36, abs=0.04)


def test_the_change_point_is_found_too():
    n, events = delays(100, 0.72, 0.36)
    too_early = [e.n_observations - k for k, e in zip(n, events, strict=True)]
    assert abs(np.median(too_early)) <= 5
    assert np.quantile(np.abs(too_early), 0.9) <= 30


def test_a_rise_is_found_as_fast_as_a_fall():
    n, events = delays(60, 0.36, 0.72)
    assert np.median(n) <= 50
    assert all(event.change > 0 for event in events)


@pytest.mark.parametrize(("history", "share"), [(100, 0.8), (1000, 0.9)])
def test_a_fall_by_0_15_is_found_in_a_few_hundred_answers(history, share):
    n, _ = delays(100, 0.72, 0.57, history=history)
    assert np.median(n) <= 250
    assert np.mean(n < math.inf) >= share


def test_a_slow_fall_is_found_before_it_is_over():
    n, _ = delays(40, 0.72, 0.42, history=500, over=500)
    assert max(n) <= 520


@pytest.mark.parametrize("expected", [0.67, 0.77])
def test_a_biased_head_does_not_hide_a_fall(expected):
    n, _ = delays(60, 0.72, 0.36, history=1000, expected=expected)
    assert np.median(n) <= 55
    assert np.mean(n <= 100) >= 0.95


@pytest.mark.parametrize(("history", "share"), [(100, 0.7), (300, 0.93)])
def test_a_fall_is_found_while_the_head_already_learns_it(history, share):
    found = []
    for seed in range(80):
        watch, level = watching(), 0.72
        draws = np.random.default_rng([7, seed]).random(history + 200).tolist()
        for n, draw in enumerate(draws):
            reward = float(draw < (0.72 if n < history else 0.36))
            event = judged(watch, reward, level)
            level += (reward - level) / (20 + n)
            if event and n >= history:
                found.append(n - history + 1)
                break
    assert np.median(found) <= 60
    assert sum(n <= 100 for n in found) / 80 >= share


# --- quality: after an alarm ---------------------------------------------------


def after_alarm(seed, relearns):
    """Return where, after the first alarm, others came in 1,000 answers."""
    watch, level, found = watching(), 0.72, []
    draws = np.random.default_rng([8, seed]).random(1500).tolist()
    for n, draw in enumerate(draws):
        reward = float(draw < (0.72 if n < 200 else 0.36))
        if judged(watch, reward, level) and n >= 200:
            found.append(n)
            level = 0.36 if relearns else level
    return found[1:]


def test_there_is_one_alarm_if_the_caller_relearns():
    assert sum(len(after_alarm(seed, relearns=True)) for seed in range(40)) <= 1


def test_a_caller_that_does_not_relearn_is_told_again_but_seldom():
    more = [len(after_alarm(seed, relearns=False)) for seed in range(20)]
    assert min(more) >= 2  # or it were forgotten
    assert max(more) <= 15  # one in 44 answers would be 29


# --- length and latency --------------------------------------------------------


def test_heavy_tailed_latencies_are_quiet_for_ten_thousand_answers():
    runs = [time_all(watching(), scattered(i, 10_000).tolist()) for i in range(20)]
    assert sum(bool(run) for run in runs) <= 1


def test_latencies_that_resemble_the_one_before_are_quiet():
    noise = np.random.default_rng(9).normal(size=40_000)
    waves = [0.0]
    for value in noise:  # correlation 0.4: without its correction 20 false alarms
        waves.append(0.4 * waves[-1] + value)
    assert len(time_all(watching(), np.exp(waves).tolist())) <= 2


def test_three_times_the_latency_is_found_within_forty_answers():
    found = []
    for seed in range(60):
        seconds = scattered(seed, 400)
        seconds[300:] *= 3.0
        late = [(n - 299, e) for n, e in time_all(watching(), seconds) if n >= 300]
        found.append(late[0])
    assert np.mean([n <= 40 for n, _ in found]) >= 0.9
    assert np.median([e.change for _, e in found]) == pytest.approx(3.0, rel=0.25)
    assert {e.quantity for _, e in found} == {"latency"}


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_twice_or_half_the_length_is_found_within_forty_answers(factor):
    for seed in range(30):
        watch, found = watching(), None
        # The prediction is wrong by a constant factor: that is no drift.
        for n, ratio in enumerate(scattered(seed, 360, 0.5)):
            real = 300.0 * 1.7 * ratio * (factor if n >= 300 else 1.0)
            event = watch.observe_length("a", real_tokens=real, expected_tokens=300.0)
            assert event is None or n >= 300
            found = found or event
        assert found.at_observation <= 340
        assert found.quantity == "output_tokens"
        assert 0.6 * factor < found.change < 1.5 * factor


def test_longer_answers_that_take_longer_are_no_drift_of_the_latency():
    watch = watching()
    for n, ratio in enumerate(scattered(1, 600, 0.5)):
        tokens = 300 if n < 300 else 900
        seconds = 0.01 * (tokens + 30) * ratio
        assert time_all(watch, [seconds], tokens) == []


def test_a_change_by_a_twentieth_is_none_however_even_a_candidate_is():
    assert time_all(watching(), [1.0] * 100 + [1.05] * 2000) == []


def test_after_an_alarm_the_new_level_is_the_normal_one():
    seconds = np.concatenate([scattered(1, 300, 0.5), 3.0 * scattered(2, 3000, 0.5)])
    assert len(time_all(watching(), seconds.tolist())) == 1
