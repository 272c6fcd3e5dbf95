import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core import waiting as module
from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.types import Candidate, Outcome
from mixllm_integrations.core.waiting import WaitingModel

FAST = Candidate(
    "fast",
    1,
    1,
    time_to_first_token_seconds=1.0,
    seconds_per_output_token=0.01,
    max_concurrency=2,
)
UNKNOWN = Candidate("unknown", 1, 1, max_concurrency=1)


@pytest.fixture
def waiting(clock):
    model = WaitingModel(clock=clock, max_age_seconds=60.0)
    model.add(FAST)
    model.add(UNKNOWN)
    return model


def start(model, name, n, *, tokens=100, tag=""):
    ids = [f"{name}-{tag}{i}" for i in range(n)]
    for decision_id in ids:
        model.start(name, decision_id, output_tokens=tokens)
    return ids


def wait(model, name="fast"):
    return float(model.expected_seconds([name])[0])


def answer(tokens=0, latency=None, first=None, error=None):
    return Outcome(
        10,
        tokens,
        latency_seconds=latency,
        time_to_first_token_seconds=first,
        error=error,
    )


def speed(model, name):
    """Service time at 0 and at 100 tokens, seen through the wait of one call."""
    found = []
    for tokens in (0, 100):
        busy = start(model, name, 1, tokens=tokens, tag=f"probe{tokens}")
        found.append(wait(model, name))
        for decision_id in busy:
            model.finish(decision_id)
    return found


# --- expected wait -------------------------------------------------------------


def test_the_wait_is_the_queue_worked_out_by_hand(waiting):
    # Service: 1 s + 100 tokens · 0.01 s = 2 s; two are served at once.
    # With n under way a new call is the (n+1 - 2)th in the queue: n = 1 -> none,
    # 2 -> 1/2 · 2 s = 1 s, 5 -> 4/2 · 2 s = 4 s.
    expected = {1: 0.0, 2: 1.0, 5: 4.0}
    for n in range(1, 6):
        start(waiting, "fast", 1, tag=f"{n}-")
        if n in expected:
            assert wait(waiting) == pytest.approx(expected[n])


def test_longer_answers_under_way_mean_a_longer_wait(waiting):
    # Mean of 100 and 500 tokens: 1 + 300·0.01 = 4 s, one queued of two: 2 s.
    start(waiting, "fast", 1, tokens=100, tag="a")
    start(waiting, "fast", 1, tokens=500, tag="b")
    assert wait(waiting) == pytest.approx(2.0)


def test_at_no_load_nobody_waits(waiting):
    assert waiting.expected_seconds(["fast", "unknown"]).tolist() == [0.0, 0.0]
    for decision_id in start(waiting, "fast", 9):
        waiting.finish(decision_id)
    assert wait(waiting) == 0.0


def test_without_any_speed_the_wait_is_exactly_zero_under_any_load(waiting):
    start(waiting, "unknown", 1_000)
    waits = waiting.expected_seconds(["unknown", "fast"])
    assert waits.tolist() == [0.0, 0.0]
    assert waiting.penalties(waits).tolist() == [0.0, 0.0]


def test_without_a_declared_concurrency_the_assumed_one_holds(clock):
    # Four at once are assumed, 2 s each: 4 under way -> 1/4 · 2 s.
    model = WaitingModel(clock=clock)
    model.add(Candidate("c", 1, 1, time_to_first_token_seconds=2.0))
    start(model, "c", 3)
    assert wait(model, "c") == 0.0
    start(model, "c", 1, tag="x")
    assert wait(model, "c") == pytest.approx(0.5)


def test_waits_come_in_the_order_of_the_names_asked_for(waiting):
    start(waiting, "fast", 5)
    assert waiting.expected_seconds(["unknown", "fast"]).tolist() == [0.0, 4.0]


# --- counting ------------------------------------------------------------------


def test_the_same_decision_counts_once_and_is_released_once(waiting):
    for _ in range(3):
        waiting.start("fast", "d", output_tokens=10)
    start(waiting, "fast", 1)
    assert waiting.in_flight("fast") == 2
    for _ in range(3):
        waiting.finish("d", answer(10, 1.0))
    assert waiting.in_flight("fast") == 1


def test_an_unknown_decision_is_released_harmlessly(waiting):
    waiting.finish("never made", answer(10, 1.0))
    assert waiting.in_flight("fast") == 0


def test_a_call_whose_outcome_never_comes_stops_counting(waiting, clock):
    start(waiting, "fast", 3)
    clock.move(40)
    start(waiting, "fast", 2, tag="later")
    clock.move(20)
    assert waiting.in_flight("fast") == 5  # exactly 60 s old: still alive
    clock.move(1)
    assert waiting.in_flight("fast") == 2
    assert wait(waiting) == pytest.approx(1.0)
    clock.move(1_000)
    assert wait(waiting) == 0.0


def test_an_outcome_after_the_age_limit_is_not_counted_twice(waiting, clock):
    (old,) = start(waiting, "fast", 1)
    clock.move(61)
    start(waiting, "fast", 1, tag="new")
    waiting.finish(old, answer(10, 99.0))
    assert waiting.in_flight("fast") == 1


def test_a_clock_that_jumps_backwards_breaks_nothing(waiting, clock):
    start(waiting, "fast", 1)
    clock.move(-1e6)
    start(waiting, "fast", 1, tag="after")
    assert waiting.in_flight("fast") == 2
    clock.move(61)
    assert waiting.in_flight("fast") == 0


def test_removing_a_candidate_releases_its_calls(waiting):
    mine, others = start(waiting, "fast", 5), start(waiting, "unknown", 2)
    waiting.remove("fast")
    for decision_id in mine:
        waiting.finish(decision_id, answer(10, 1.0))
    assert waiting.in_flight("unknown") == len(others)
    with pytest.raises(UnknownCandidateError, match="'fast'"):
        waiting.in_flight("fast")
    waiting.add(FAST)
    assert waiting.in_flight("fast") == 0


def test_names_that_are_not_watched_are_refused(waiting):
    with pytest.raises(UnknownCandidateError, match="'who'"):
        waiting.start("who", "d", output_tokens=1)
    with pytest.raises(UnknownCandidateError, match="'who'"):
        waiting.remove("who")
    with pytest.raises(ConfigurationError, match="'fast'"):
        waiting.add(FAST)


def test_sixteen_threads_leave_nothing_in_flight():
    model = WaitingModel(clock=time.monotonic)
    model.add(FAST)
    model.add(UNKNOWN)
    failures = []
    together = threading.Barrier(16)

    def work(thread):
        try:
            together.wait()
            for i in range(200):
                name = ("fast", "unknown")[i % 2]
                model.start(name, f"{thread}-{i}", output_tokens=50)
                model.start(name, f"{thread}-{i}", output_tokens=50)
                assert model.in_flight(name) >= 1
                model.expected_seconds(["fast", "unknown"])
                model.finish(f"{thread}-{i}", answer(50, 0.1))
                model.finish(f"{thread}-{i}")
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (model.in_flight("fast"), model.in_flight("unknown")) == (0, 0)
    assert model.expected_seconds(["fast", "unknown"]).tolist() == [0.0, 0.0]


# --- measured speed ------------------------------------------------------------


def test_a_first_measurement_is_taken_whole(waiting):
    (d,) = start(waiting, "unknown", 1)
    waiting.finish(d, answer(100, latency=3.0, first=1.0))
    # first token 1 s, (3 - 1)/100 = 0.02 s per token.
    assert speed(waiting, "unknown") == pytest.approx([1.0, 3.0])


def test_later_measurements_move_the_means_by_the_smoothing(waiting):
    waiting.start("fast", "d", output_tokens=100)
    start(waiting, "fast", 2, tag="busy")  # two under way: wait = service / 2
    waiting.finish("d", answer(100, latency=13.0, first=6.0))
    # first: 1 + 0.2·(6 - 1) = 2; per token: 0.01 + 0.2·(0.07 - 0.01) = 0.022;
    # service of 100 tokens: 2 + 2.2 = 4.2 s, halved.
    assert wait(waiting) == pytest.approx(2.1)


def test_a_latency_alone_keeps_the_proportions_of_a_known_speed(clock):
    # Known: 1 s + 100·0.01 s = 2 s; measured 4 s, so both parts count double.
    model = WaitingModel(clock=clock, smoothing=1.0)
    model.add(FAST)
    model.start("fast", "d", output_tokens=100)
    model.finish("d", answer(100, latency=4.0))
    start(model, "fast", 2, tokens=0, tag="a")
    assert wait(model) == pytest.approx(2.0 / 2)
    start(model, "fast", 2, tokens=200, tag="b")
    # mean of 0, 0, 200, 200 is 100 tokens: 2 + 2 = 4 s; (4 + 1 - 2)/2 · 4 = 6 s.
    assert wait(model) == pytest.approx(6.0)


def test_a_latency_alone_counts_an_unknown_first_token_as_thirty(waiting):
    # 10 s for 70 tokens and a first one that takes as long as 30: 0.1 s each.
    (d,) = start(waiting, "unknown", 1)
    waiting.finish(d, answer(70, latency=10.0))
    assert speed(waiting, "unknown") == pytest.approx([3.0, 13.0])


@pytest.mark.parametrize("latency", [None, 0.0, 2.0])
@pytest.mark.parametrize("first", [None, 0.0, 1.0, 5.0])
@pytest.mark.parametrize("tokens", [0, 1])
def test_odd_measurements_leave_a_finite_wait(waiting, latency, first, tokens):
    for name in ("fast", "unknown"):
        for i in range(3):
            waiting.start(name, f"{name}{i}", output_tokens=0)
            waiting.finish(f"{name}{i}", answer(tokens, latency, first))
        start(waiting, name, 7)
        assert 0 <= wait(waiting, name) < np.inf


def test_an_answer_without_tokens_teaches_the_time_to_first_token(waiting):
    (d,) = start(waiting, "unknown", 1)
    waiting.finish(d, answer(0, latency=2.0))
    assert speed(waiting, "unknown") == pytest.approx([2.0, 2.0])


def test_errors_and_abandoned_calls_release_without_teaching(waiting):
    a, b = start(waiting, "unknown", 2)
    waiting.finish(a, answer(5, latency=50.0, error="TimeoutError"))
    waiting.finish(b, None)
    assert waiting.in_flight("unknown") == 0
    assert speed(waiting, "unknown") == [0.0, 0.0]


# --- penalty -------------------------------------------------------------------


def test_the_penalty_is_the_formula_worked_out_by_hand():
    # sharpness 20, margin 0.7, τ = 30: at w = τ it is e^6 - e^-14 = 403.4288.
    model = WaitingModel(tolerance_seconds=30.0)
    at_tolerance = model.penalties(np.array([30.0]))[0]
    assert at_tolerance == pytest.approx(np.exp(6) - np.exp(-14), rel=1e-12)
    assert at_tolerance == pytest.approx(403.4288, abs=1e-4)
    # At half of τ, where nobody is late, e^-4 - e^-14: at weight 0.1 two thousandths.
    assert model.penalties(np.array([15.0]))[0] == pytest.approx(0.0183148, abs=1e-7)


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1e9), min_size=2, max_size=20),
    st.floats(1e-3, 1e6) | st.just(np.inf),
)
def test_the_penalty_is_zero_at_rest_finite_and_never_falls(waits, tolerance):
    model = WaitingModel(tolerance_seconds=tolerance)
    ordered = np.array([0.0, *sorted(waits)])
    penalties = model.penalties(ordered)
    assert penalties[0] == 0.0
    assert (np.diff(penalties) >= 0).all()
    assert np.isfinite(penalties).all()


def test_a_wait_scatters_by_the_root_of_the_turns_that_make_it_up():
    clock_now = [0.0]
    model = WaitingModel(clock=lambda: clock_now[0])
    for name, first_token, served in (("slow", 4.0, 1), ("fast", 4.0, 4)):
        model.add(
            Candidate(
                name,
                1.0,
                1.0,
                time_to_first_token_seconds=first_token,
                seconds_per_output_token=0.0,
                max_concurrency=served,
            )
        )
    model.add(Candidate("idle", 1.0, 1.0))
    # Turns of 4 s and of 4 / 4 = 1 s; 4 and 19 calls under way: waits of 4 turns
    # and of 16, the own one included.
    for i in range(4):
        model.start("slow", f"s{i}", output_tokens=10)
    for i in range(19):
        model.start("fast", f"f{i}", output_tokens=10)
    names = ["slow", "fast", "idle"]
    waits = model.expected_seconds(names)
    assert waits.tolist() == [16.0, 16.0, 0.0]
    assert model.scatter_seconds(names, waits).tolist() == [8.0, 4.0, 0.0]
    slow, fast, idle = model.penalties(waits + model.scatter_seconds(names, waits))
    assert slow > fast > idle == 0.0
    at_rest = np.zeros(2)
    assert model.scatter_seconds(["slow", "unknown"], at_rest).tolist() == [0.0, 0.0]


def test_of_two_overloaded_candidates_the_shorter_queue_is_charged_less():
    model = WaitingModel(tolerance_seconds=10.0, sharpness=5.0, margin=0.5)
    long, longer = model.penalties(np.array([50.0, 51.0]))
    # Beyond the clip, 8.5 in units of the exponent, it is a line of slope e^6·5/τ.
    assert longer - long == pytest.approx(np.exp(6.0) * 0.5, rel=1e-9)


def test_an_endless_wait_outweighs_any_quality():
    # At the default weight 0.1 the clipped penalty e^6 is worth 40 points.
    model = WaitingModel(tolerance_seconds=1.0)
    assert 0.1 * model.penalties(np.array([1e12]))[0] >= 1.0


def test_with_infinite_tolerance_waiting_costs_nothing():
    model = WaitingModel()
    model.tolerance_seconds = np.inf
    assert model.penalties(np.array([0.0, 1e9])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, "30"])
def test_a_tolerance_that_cannot_be_used_is_refused_and_the_old_one_stays(value):
    model = WaitingModel(tolerance_seconds=7.0)
    with pytest.raises(ConfigurationError, match="waiting_tolerance_seconds"):
        model.tolerance_seconds = value
    assert model.tolerance_seconds == 7.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sharpness", 0.0),
        ("margin", 1.5),
        ("exponent_cap", -1.0),
        ("smoothing", 0.0),
        ("assumed_concurrency", 0),
        ("max_age_seconds", 0.0),
    ],
)
def test_settings_that_cannot_be_used_are_named(name, value):
    with pytest.raises(ConfigurationError, match=name):
        WaitingModel(**{name: value})


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["start", "finish", "fail", "later"]),
            st.sampled_from(["fast", "unknown"]),
            st.integers(0, 5),
        ),
        max_size=30,
    )
)
def test_the_waits_at_hand_are_those_of_the_queues(steps):
    time_is = [0.0]
    model = WaitingModel(clock=lambda: time_is[0], max_age_seconds=60.0)
    model.add(FAST)
    model.add(UNKNOWN)
    for what, name, number in steps:
        call = f"{name}{number}"
        if what == "start":
            model.start(name, call, output_tokens=100 * number)
        elif what == "later":
            time_is[0] += 20.0
        else:
            error = "TimeoutError" if what == "fail" else None
            model.finish(call, answer(50, latency=2.0, error=error))
        expected = model.expected_seconds(["fast", "unknown"]).tolist()
        assert expected == [q.wait() for q in model._queues.values()]


def test_the_oldest_call_is_released_for_one_too_many(monkeypatch, clock):
    monkeypatch.setattr(module, "_MOST_CALLS", 3)
    model = WaitingModel(clock=clock)
    for name in "ab":
        model.add(Candidate(name, 1.0, 1.0))
    for number, name in enumerate("abbb"):
        model.start(name, f"d{number}", output_tokens=10.0)
    assert (model.in_flight("a"), model.in_flight("b")) == (0, 3)
    model.finish("d0")  # released already
    model.finish("d1")
    assert (model.in_flight("a"), model.in_flight("b")) == (0, 2)


# --- a candidate that declares something new -----------------------------------


def test_a_replaced_candidate_keeps_its_calls(waiting):
    mine = start(waiting, "fast", 5)
    waiting.replace(FAST, replace(FAST, input_cost_per_million_tokens=9.0))
    assert waiting.in_flight("fast") == 5
    assert wait(waiting) == pytest.approx(4.0)
    for decision_id in mine:
        waiting.finish(decision_id)
    assert waiting.in_flight("fast") == 0


@pytest.mark.parametrize("candidate", [FAST, UNKNOWN], ids=lambda c: c.name)
def test_a_replaced_candidate_keeps_the_speed_that_was_measured(clock, candidate):
    model = WaitingModel(clock=clock, smoothing=1.0)
    candidate = replace(candidate, max_concurrency=1)
    model.add(candidate)
    (call,) = start(model, candidate.name, 1)
    model.finish(call, answer(100, latency=7.0, first=4.0))
    model.replace(candidate, replace(candidate, tools=False))
    assert speed(model, candidate.name) == pytest.approx([4.0, 7.0])


def test_a_speed_that_is_declared_no_more_stays_known(waiting):
    slim = Candidate("fast", 1, 1, max_concurrency=1)
    waiting.replace(FAST, slim)
    assert speed(waiting, "fast") == pytest.approx([1.0, 2.0])


def test_a_speed_and_a_concurrency_that_are_new_take_effect_at_once(waiting):
    start(waiting, "fast", 5)
    waiting.replace(FAST, replace(FAST, time_to_first_token_seconds=3.0))
    assert wait(waiting) == pytest.approx(8.0)  # (3 + 100·0.01) · 4 / 2
    slow = replace(FAST, time_to_first_token_seconds=3.0, seconds_per_output_token=0.02)
    waiting.replace(replace(slow, seconds_per_output_token=0.01), slow)
    assert wait(waiting) == pytest.approx(10.0)
    waiting.replace(slow, replace(slow, max_concurrency=1))
    assert wait(waiting) == pytest.approx(25.0)
    waiting.replace(slow, replace(slow, max_concurrency=None))
    assert wait(waiting) == pytest.approx(2.5)  # 4 at once are assumed


def test_one_that_is_not_watched_cannot_be_replaced(waiting):
    who = Candidate("who", 1, 1)
    with pytest.raises(UnknownCandidateError, match="'who'"):
        waiting.replace(who, who)
