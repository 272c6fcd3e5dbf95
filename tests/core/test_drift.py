import copy
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.drift import DriftEvent, DriftWatch
from mixllm_integrations.core.errors import (
    ConfigurationError,
    StateFormatError,
    UnknownCandidateError,
)

FLOOR = 0.01  # of a variance, as a caller may add it
ANY = st.floats() | st.integers(-(10**400), 10**400)
SURPRISES = st.lists(st.floats(-1, 1), max_size=200)


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


def time_all(watch, seconds, tokens=100, name="a"):
    found = (
        (place, watch.observe_latency(name, latency_seconds=s, output_tokens=tokens))
        for place, s in enumerate(seconds)
    )
    return [(place, event) for place, event in found if event]


# --- by hand -------------------------------------------------------------------


def test_a_candidate_that_always_fails_is_found_when_worked_out_by_hand():
    # Each adds 1 - 0.03 - 0.35·0.2 = 0.9: 13 make 11.7, and 14 more than 12.
    watch = watching()
    found = [watch.observe_quality("a", surprise=-1, variance=0.2) for _ in range(14)]
    assert found[:13] == [None] * 13
    event = found[13]
    assert (event.candidate, event.quantity) == ("a", "quality")
    assert (event.n_observations, event.at_observation) == (14, 14)
    assert event.change == pytest.approx(-1.0, abs=0.02)


def test_a_latency_that_jumps_is_found_when_worked_out_by_hand():
    # After 30 even ones the scatter is the least, 0.25: e times as long is an
    # outlier of 2.5. The first adds 2.5 - 0.4 - 1/√30 = 1.92; 1.92 is calm, so it
    # moves the level by 0.25·2.5/31 = 0.02. The others add 2.5 - 0.4 - 1/√31 =
    # 1.92 and are held back: 6 make 11.52, 7 make 13.44, more than 13.
    watch = watching()
    assert time_all(watch, [2.0] * 30) == []
    ((place, event),) = time_all(watch, [2.0 * math.e] * 7)
    assert (place, event.n_observations, event.at_observation) == (6, 7, 37)
    assert event.change == pytest.approx(math.exp((1 + 6 * 0.98) / 7), rel=1e-3)


@pytest.mark.parametrize(("said", "counts"), [(0.0, 0.02), (1e300, 0.25)])
def test_a_variance_that_no_reward_has_counts_as_the_nearest_one(said, counts):
    watch = watching("a", "b")
    for surprise in (-0.6, -0.2, -0.5):
        watch.observe_quality("a", surprise=surprise, variance=said)
        watch.observe_quality("b", surprise=surprise, variance=counts)
    rows = watch.state()["candidates"]
    assert rows["a"] == rows["b"]
    assert rows["a"]["quality"]["falls"]["score"] > 0


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (("quality", -0.314), "quality fell by about 0.31"),
        (("quality", 0.2), "quality rose by about 0.20"),
        (("output_tokens", 2.0), "length rose to about 2.00 times what it was"),
        (("latency", 0.5), "latency fell to about 0.50 times what it was"),
    ],
)
def test_an_event_is_one_line_for_the_log(event, line):
    shown = str(DriftEvent("a\nb", *event, 42, 900))
    assert shown == f"candidate 'a\\nb': {line} over its last 42 answers"


@given(st.floats(1e-300, 1e300), st.floats(0, 1e300))
def test_no_single_answer_alarms(seconds, tokens):
    watch = watching()
    time_all(watch, [1.0, 1.2, 0.9] * 20)
    assert time_all(watch, [seconds], tokens) == []
    assert len(time_all(watch, [1.0, 1.2, 0.9] * 20)) == 0


# --- candidates and state ------------------------------------------------------


@settings(max_examples=50)
@given(SURPRISES)
def test_falls_and_rises_are_mirror_images(surprises):
    watch = watching("a", "b", sensitivity=5.0)
    for surprise in surprises:
        down = watch.observe_quality("a", surprise=surprise, variance=0.1)
        up = watch.observe_quality("b", surprise=-surprise, variance=0.1)
        assert (down is None) == (up is None)
        if down:
            assert down.change == -up.change


def feed(watch, name, n, *, start=0):
    """Return what is reported of answers that become bad, long and slow."""
    found = []
    for i in range(start, start + n):
        rng = np.random.default_rng([10, i])
        scale = 3.0 if i >= 120 else 1.0
        size = scale * math.exp(0.5 * rng.normal())
        found += [
            judged(watch, float(rng.random() < 0.8 / scale), 0.8, name),
            watch.observe_length(name, real_tokens=200 * size, expected_tokens=200),
            watch.observe_latency(name, latency_seconds=size, output_tokens=99),
        ]
    return found


@pytest.mark.parametrize("when", [0, 10, 100, 135, 160])
def test_renamed_saved_and_read_it_goes_on_as_before(when):
    watch, other = watching(sensitivity=1.2), watching("a", "c", sensitivity=1.2)
    assert feed(watch, "a", when) == feed(other, "a", when)
    other.rename("a", "b")
    other.add("b")  # changes nothing
    feed(other, "c", 50)
    other = DriftWatch.from_state(json.loads(json.dumps(other.state())))
    assert (other.names, other.bad) == (("c", "b"), {})
    other.rename("b", "a")
    expected = feed(watch, "a", 250 - when, start=when)
    assert any(expected)
    assert feed(other, "a", 250 - when, start=when) == expected
    assert other.state()["candidates"]["a"] == watch.state()["candidates"]["a"]


def test_what_is_reset_begins_anew_and_the_rest_goes_on():
    watch, new = watching(), watching()
    feed(watch, "a", 130)
    before = copy.deepcopy(watch.state()["candidates"]["a"])
    watch.reset("a", "latency")
    after = watch.state()["candidates"]["a"]
    assert after["quality"] == before["quality"] != {}
    assert after["latency"] == new.state()["candidates"]["a"]["latency"]
    watch.reset("a")
    assert watch.state() == new.state()
    with pytest.raises(ConfigurationError, match="unknown quantity 'cost'"):
        watch.reset("a", "cost")


def test_names_are_known_or_refused():
    watch = watching("a", "b")
    watch.discard("b")
    watch.discard("b")
    for call in (watch.reset, lambda n: watch.rename(n, "c")):
        with pytest.raises(UnknownCandidateError, match="'b'"):
            call("b")
    with pytest.raises(UnknownCandidateError, match="'b'"):
        watch.observe_quality("b", surprise=0.0, variance=0.1)
    watch.add("b")
    with pytest.raises(ConfigurationError, match="'b' already"):
        watch.rename("a", "b")
    watch.rename("a", "a")
    assert set(watch.names) == {"a", "b"}


BAD = [None, "x", math.nan, math.inf, -1, True, [], {}, 1e300]


@pytest.mark.parametrize("quantity", ["quality", "output_tokens", "latency"])
def test_a_damaged_detector_begins_anew_and_the_others_go_on(quantity):
    watch = watching("a", "b")
    feed(watch, "a", 125)
    feed(watch, "b", 125)
    state = watch.state()
    state["candidates"]["b"][quantity]["falls"]["score"] = math.nan
    read = DriftWatch.from_state(state)
    assert read.bad == {"b": quantity}
    expected = feed(watch, "a", 60, start=125)
    assert feed(read, "a", 60, start=125) == expected
    assert read.state()["candidates"]["b"][quantity]["seen"] == 0


@pytest.mark.parametrize("bad", BAD)
def test_whatever_is_damaged_in_a_candidate_it_is_read_and_goes_on(bad):
    watch = watching()
    feed(watch, "a", 40)
    sound = watch.state()
    state = copy.deepcopy(sound)
    state["candidates"]["a"] = bad
    assert DriftWatch.from_state(state).bad == {"a": "quality, output_tokens, latency"}
    for quantity, row in sound["candidates"]["a"].items():
        for key in row:
            state = copy.deepcopy(sound)
            state["candidates"]["a"][quantity][key] = bad
            feed(DriftWatch.from_state(state), "a", 40)  # never raises


@pytest.mark.parametrize("bad", [None, [], {}, {"sensitivity": -1}])
def test_what_is_no_state_is_told_so(bad):
    with pytest.raises(StateFormatError, match="drift"):
        DriftWatch.from_state(bad)


@given(st.lists(st.tuples(ANY, ANY), max_size=60))
def test_whatever_is_observed_nothing_raises_and_the_state_can_be_saved(pairs):
    watch = watching(sensitivity=10.0)
    for one, two in pairs:
        watch.observe_quality("a", surprise=one, variance=two)
        watch.observe_length("a", real_tokens=one, expected_tokens=two)
        watch.observe_latency("a", latency_seconds=one, output_tokens=two)
    state = json.loads(json.dumps(watch.state(), allow_nan=False))
    read = DriftWatch.from_state(state)
    assert (read.bad, read.state()) == ({}, watch.state())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 10**400])
def test_a_number_that_cannot_be_used_is_ignored_and_counted(bad):
    watch = watching()
    before = watch.state()["candidates"]
    watch.observe_quality("a", surprise=bad, variance=0.1)
    watch.observe_quality("a", surprise=0.1, variance=bad)
    watch.observe_length("a", real_tokens=bad, expected_tokens=1)
    watch.observe_latency("a", latency_seconds=bad, output_tokens=1)
    assert watch.state()["candidates"] == before
    assert watch.ignored == 4


@pytest.mark.parametrize("sensitivity", [0.0, 11.0, math.nan, "high"])
def test_a_sensitivity_out_of_bounds_is_named(sensitivity):
    with pytest.raises(ConfigurationError, match=r"sensitivity must .*\[0.1, 10\]"):
        DriftWatch(sensitivity=sensitivity)
