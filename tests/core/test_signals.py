import json
import math

import numpy as np
import pytest

from mixllm_integrations.core.errors import ConfigurationError, StateFormatError
from mixllm_integrations.core.signals import ImplicitSignals
from mixllm_integrations.core.types import IMPLICIT_SIGNALS


def level(pieces):
    pieces = [p for p in pieces if p is not None]
    weights = [p.weight for p in pieces]
    return float(np.average([p.residual for p in pieces], weights=weights))


def score(pieces):
    return sum(p.weight * p.residual for p in pieces if p is not None)


def traffic(signals, rates, n, *, shares=None, seed=0, signal="truncated"):
    """Answers of several candidates, each with its own rate of one signal."""
    rng, found = np.random.default_rng(seed), {name: [] for name in rates}
    for name in rng.choice(list(rates), size=n, p=shares):
        found[name].append(signals.answered(name))
        if rng.random() < rates[name]:
            found[name].append(signals.signalled(signal, name))
    return found


def grades(signals, n, *, effects, rates=None, seed=0, quality=0.7):
    """Grade answers that each signal makes so much worse."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        came = {s for s in effects if rng.random() < (rates or {}).get(s, 0.3)}
        p = np.clip(quality - sum(effects[s] for s in came), 0, 1)
        signals.graded(came, predicted=quality, reward=float(rng.random() < p))


# --- what is wanted --------------------------------------------------------------


def test_nothing_is_wanted_unless_it_is_asked_for():
    signals = ImplicitSignals()
    assert signals.answered("a") is None
    signals.graded({"truncated"}, predicted=0.5, reward=0)
    for signal in IMPLICIT_SIGNALS:
        assert signals.signalled(signal, "a") is None
        assert signals.reliability(signal) == 0.0
    assert signals.state()["candidates"] == {}


def test_a_signal_that_is_not_wanted_says_nothing():
    signals = ImplicitSignals({"truncated"})
    assert signals.signalled("regenerate", "a") is None
    assert signals.signalled("truncated", "a") is not None


@pytest.mark.parametrize("wrong", [{"shouting"}, "truncated", (None,)])
def test_an_unknown_signal_is_an_error_that_names_what_there_is(wrong):
    with pytest.raises(ConfigurationError, match="tool_error"):
        ImplicitSignals(wrong)
    signals = ImplicitSignals({"truncated"})
    with pytest.raises(ConfigurationError, match="tool_error"):
        signals.signalled("shouting", "a")
    with pytest.raises(ConfigurationError, match="tool_error"):
        signals.graded({"shouting"}, predicted=0.5, reward=1)
    with pytest.raises(ConfigurationError, match="tool_error"):
        signals.reliability("shouting")


@pytest.mark.parametrize("wrong", [{"reward": 2}, {"predicted": math.nan}])
def test_a_grade_out_of_bounds_is_refused(wrong):
    signals = ImplicitSignals({"truncated"})
    with pytest.raises(ConfigurationError, match="must be a number in"):
        signals.graded((), **{"predicted": 0.5, "reward": 1, **wrong})
    assert signals.reliability("truncated") == pytest.approx(0.3)


# --- evidence --------------------------------------------------------------------


def test_the_first_pieces_are_those_worked_out_by_hand():
    # Nothing is known: rate 0.05, effect 0.3 of each. Two signals are wanted:
    # the first answer hopes for 2 · 0.05 · 0.3 = 0.03 and counts 0.3 of a grade.
    signals = ImplicitSignals({"truncated", "regenerate"})
    good = signals.answered("a")
    assert (good.residual, good.weight) == (pytest.approx(0.03), pytest.approx(0.3))
    # One answer so far: what comes counts 0.3 / (1 + 0.06).
    bad = signals.signalled("truncated", "a")
    assert bad.residual == pytest.approx(-0.3)
    assert bad.weight == pytest.approx(0.3 / 1.06)
    # Of 1 answer truncated, "a" counts 1 / (1 + 1/50) = 50/51 beside a mass of 5:
    # rate (0.25 + 50/51) / (5 + 50/51), that of the other 0.25 / (5 + 50/51).
    own = 50 / 51
    hoped = 0.3 * (0.25 + own + 0.25) / (5 + own)
    assert signals.answered("b").residual == pytest.approx(hoped)


@pytest.mark.parametrize("rate", [0.02, 0.2])
@pytest.mark.parametrize("shares", [[0.25] * 4, [0.91, 0.03, 0.03, 0.03]])
def test_the_usual_rate_of_trouble_nets_nothing_whatever_the_traffic(rate, shares):
    signals = ImplicitSignals({"truncated"})
    found = traffic(signals, dict.fromkeys("abcd", rate), 6_000, shares=shares)
    levels = [level(pieces) for pieces in found.values()]
    assert np.abs(levels).max() < 0.02


@pytest.mark.parametrize("shares", [[0.25] * 4, [0.91, 0.03, 0.03, 0.03]])
def test_three_times_the_usual_rate_of_trouble_tells_against_a_candidate(shares):
    # Rates 0.3 and 0.1 thrice, on average 0.15: -0.15 · 0.3 = -0.045 an answer,
    # spread over 1.3 pieces: -0.035. The others gain 0.015 / 1.1.
    signals = ImplicitSignals({"truncated"})
    rates = {"a": 0.3, "b": 0.1, "c": 0.1, "d": 0.1}
    found = traffic(signals, rates, 6_000, shares=shares)
    levels = {name: level(pieces) for name, pieces in found.items()}
    assert levels["a"] == pytest.approx(-0.035, abs=0.012)
    assert all(levels[name] > levels["a"] + 0.025 for name in "bcd")


def test_a_sole_candidate_is_not_pushed_down_for_its_usual_trouble():
    signals = ImplicitSignals({"truncated"})
    found = traffic(signals, {"a": 0.2}, 3_000)
    assert abs(level(found["a"])) < 0.01


def test_however_many_answers_they_never_outweigh_grades():
    # The weights of n answers sum up to about 5·ln(1 + 0.06 n): 5·ln(601) = 32.
    signals = ImplicitSignals({"truncated"})
    weights = [signals.answered("a").weight for _ in range(10_000)]
    assert sum(weights) == pytest.approx(5 * math.log(601), rel=0.01)
    assert (np.diff(weights) < 0).all()


# --- how much a signal says --------------------------------------------------------


def test_an_effect_is_the_shrunk_difference_worked_out_by_hand():
    # 20 graded answers with the signal, each 0.3 worse than predicted, 20 without
    # it, each 0.1 better: a difference of 0.4 that counts 20·20/40 = 10 beside a
    # mass of 20 at 0.3: (10·0.4 + 20·0.3) / 30 = 1/3.
    signals = ImplicitSignals({"truncated"})
    for _ in range(20):
        signals.graded({"truncated"}, predicted=0.8, reward=0.5)
        signals.graded((), predicted=0.8, reward=0.9)
    assert signals.reliability("truncated") == pytest.approx(1 / 3)


def test_a_signal_that_says_nothing_loses_its_effect_and_its_weight():
    signals = ImplicitSignals({"regenerate"})
    before = signals.signalled("regenerate", "a")
    grades(signals, 4_000, effects={"regenerate": 0.0})
    assert signals.reliability("regenerate") < 0.05
    after = signals.signalled("regenerate", "a")
    assert after is None or score([after]) > 0.05 * score([before])


def test_a_signal_of_better_answers_says_nothing_at_all():
    signals = ImplicitSignals({"regenerate"})
    for _ in range(50):
        signals.graded({"regenerate"}, predicted=0.5, reward=1)
        signals.graded((), predicted=0.5, reward=0)
    assert signals.reliability("regenerate") == 0.0
    assert signals.answered("a") is None
    assert signals.signalled("regenerate", "a") is None


def test_a_signal_that_says_all_keeps_its_effect():
    signals = ImplicitSignals({"parse_failure"})
    grades(signals, 2_000, effects={"parse_failure": 0.7})
    assert signals.reliability("parse_failure") == pytest.approx(0.7, abs=0.05)
    piece = signals.signalled("parse_failure", "a")
    assert (piece.residual, piece.weight) == (pytest.approx(-0.7, abs=0.05), 0.3)


def test_grades_without_any_signal_leave_the_prior_effect():
    signals = ImplicitSignals({"parse_failure"})
    for reward in (0, 1, 1, 0, 1):
        signals.graded((), predicted=0.5, reward=reward)
    assert signals.reliability("parse_failure") == pytest.approx(0.3)


def test_two_signals_that_come_together_share_what_they_say():
    # Each answer has both or none; with both it is worse by 0.4. Each says g, with
    # 250·(0.4 - 2g)² + 2·20·(g - 0.3)² least: g = 424/2080 = 0.204, not 0.4.
    signals = ImplicitSignals({"truncated", "parse_failure"})
    for _ in range(500):
        both = ("truncated", "parse_failure")
        signals.graded(both, predicted=0.8, reward=0.4)
        signals.graded((), predicted=0.8, reward=0.8)
    effects = [signals.reliability(s) for s in ("truncated", "parse_failure")]
    assert effects == pytest.approx([424 / 2080] * 2)


# --- names and state ---------------------------------------------------------------


WANTED = {"truncated", "tool_error"}


def taught():
    signals = ImplicitSignals(WANTED)
    traffic(signals, {"a": 0.3, "b": 0.1}, 200)
    grades(signals, 100, effects={"truncated": 0.3, "tool_error": 0.1})
    return signals


def test_a_restored_state_says_and_learns_the_same():
    signals = taught()
    again = ImplicitSignals.from_state(
        json.loads(json.dumps(signals.state())), wanted=tuple(WANTED)
    )
    assert again.bad == {}
    for one in (signals, again):
        traffic(one, {"a": 0.1, "new": 0.2}, 20, seed=4)
        one.graded({"truncated"}, predicted=0.5, reward=0)
    assert again.state() == signals.state()
    assert again.reliability("truncated") == signals.reliability("truncated")


def test_other_wishes_begin_anew():
    for wanted in ({"truncated"}, {*WANTED, "regenerate"}, ()):
        again = ImplicitSignals.from_state(taught().state(), wanted=wanted)
        assert (again.bad, again.state()["candidates"]) == ({}, {})


def test_a_renamed_candidate_keeps_its_counts():
    signals = taught()
    rows = signals.state()["candidates"]
    signals.rename("a", "b")
    signals.rename("nobody", "b")
    signals.rename("b", "b")
    assert signals.state()["candidates"] == {"b": rows["a"]}
    signals.answered("c")  # without any trouble
    signals.rename("c", "b")
    assert signals.state()["candidates"] == {"b": [1, 0.0, 0.0]}
    signals.discard("b")
    signals.discard("nobody")
    assert signals.state()["candidates"] == {}


@pytest.mark.parametrize(
    "row", [None, [], [3], [3, 1], [3, 1, -1], [math.nan, 0, 0], ["3", 1, 1]]
)
def test_damaged_counts_are_dropped_and_the_others_stay(row):
    state = taught().state()
    state["candidates"]["a"] = row
    again = ImplicitSignals.from_state(state, wanted=WANTED)
    assert list(again.bad) == ["a"]
    assert again.state()["candidates"] == {"b": taught().state()["candidates"]["b"]}
    assert again.reliability("truncated") == taught().reliability("truncated")


@pytest.mark.parametrize(
    "damage",
    [
        {"gram": [[1.0]]},
        {"gram": [[1.0, 5.0, 0.0], [5.0, 1.0, 0.0], [0.0, 0.0, 1.0]]},
        {"gram": [[math.nan] * 3] * 3},
        {"moment": [0.0, math.inf, 0.0]},
        {"moment": None},
    ],
)
def test_damaged_effects_begin_anew_and_the_counts_stay(damage):
    again = ImplicitSignals.from_state(taught().state() | damage, wanted=WANTED)
    assert list(again.bad) == ["effects"]
    assert again.reliability("truncated") == pytest.approx(0.3)
    assert again.state()["candidates"] == taught().state()["candidates"]


@pytest.mark.parametrize("state", [None, [], {}, {"candidates": []}])
def test_what_is_no_such_state_is_told(state):
    with pytest.raises(StateFormatError, match="by candidate"):
        ImplicitSignals.from_state(state, wanted=WANTED)
