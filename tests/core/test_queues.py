"""What calls that stood in a queue teach: speed without their wait, concurrency."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.fixture
def waiting(clock):
    model = WaitingModel(clock=clock)
    model.add(FAST)
    return model


def start(model, name, n, *, tokens=100, tag=""):
    ids = [f"{name}-{tag}{i}" for i in range(n)]
    for decision_id in ids:
        model.start(name, decision_id, output_tokens=tokens)
    return ids


def wait(model, name="fast"):
    return float(model.expected_seconds([name])[0])


def answer(tokens, latency, first):
    return Outcome(
        10, tokens, latency_seconds=latency, time_to_first_token_seconds=first
    )


# --- a wait is no part of the speed --------------------------------------------


def answered(model, name, *, ahead, tokens=100, wait=0.0, streamed=True):
    """Let one call come behind so many others, and be answered."""
    others = start(model, name, ahead, tokens=tokens, tag="ahead")
    (mine,) = start(model, name, 1, tokens=tokens, tag="mine")
    first = 1.0 + wait
    latency = first + tokens * 0.01
    model.finish(mine, answer(tokens, latency, first if streamed else None))
    for decision_id in others:
        model.finish(decision_id)


@pytest.mark.parametrize("streamed", [True, False])
def test_what_a_call_waited_for_its_turn_teaches_no_speed(waiting, streamed):
    # Two are served at once: behind five others it waits 4/2 · 2 s, as it does.
    for _ in range(20):
        answered(waiting, "fast", ahead=5, wait=4.0, streamed=streamed)
    assert waiting.speeds()["fast"] == pytest.approx((1.0, 0.01))


def test_a_call_that_was_to_be_served_at_once_teaches_all_it_took(waiting):
    answered(waiting, "fast", ahead=1, wait=5.0)
    assert waiting.speeds()["fast"][0] == pytest.approx(1.0 + 0.2 * 5.0)


def test_an_answer_faster_than_known_teaches_speed_even_from_a_queue(waiting):
    start(waiting, "fast", 5, tag="ahead")
    (mine,) = start(waiting, "fast", 1, tag="mine")
    waiting.finish(mine, answer(100, latency=1.5, first=0.5))
    assert waiting.speeds()["fast"] == pytest.approx((0.9, 0.01))


def test_tokens_that_come_slower_are_learned_even_from_a_queue(waiting):
    start(waiting, "fast", 5, tag="ahead")
    (mine,) = start(waiting, "fast", 1, tag="mine")
    waiting.finish(mine, answer(100, latency=5.0 + 3.0, first=5.0))
    assert waiting.speeds()["fast"] == pytest.approx((1.0, 0.01 + 0.2 * 0.02))


def test_a_call_that_was_counted_elsewhere_teaches_all_it_took(waiting):
    start(waiting, "fast", 9)
    waiting.learn("fast", answer(100, latency=7.0, first=6.0))
    assert waiting.speeds()["fast"] == pytest.approx((2.0, 0.01))


# --- how many are served at once, where nobody says ----------------------------

SILENT = Candidate(
    "silent", 1, 1, time_to_first_token_seconds=1.0, seconds_per_output_token=0.01
)


@pytest.fixture
def silent(clock):
    model = WaitingModel(clock=clock)  # four at once are assumed
    model.add(SILENT)
    return model


def test_calls_that_do_not_wait_raise_the_concurrency_to_their_number(silent):
    answered(silent, "silent", ahead=9, wait=0.0)
    # The tenth was served at once: 4 + 0.2 · (10 - 4) = 5.2; 2 s each.
    start(silent, "silent", 6)
    assert wait(silent, "silent") == pytest.approx((7 - 5.2) / 5.2 * 2.0)


def test_calls_that_wait_longer_lower_the_concurrency(silent):
    # The sixth waited 10 s where each takes 2 s: 6 · 2 / (10 + 2) = 1 at once.
    answered(silent, "silent", ahead=5, wait=10.0)
    start(silent, "silent", 6)
    assert wait(silent, "silent") == pytest.approx((7 - 3.4) / 3.4 * 2.0)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("served", [1, 2, 8, 30])
def test_the_concurrency_is_found_from_waits(silent, served, streamed):
    for ahead in 60 * [10, 20, 40]:
        real = max(ahead + 1 - served, 0) / served * 2.0
        answered(silent, "silent", ahead=ahead, wait=real, streamed=streamed)
    start(silent, "silent", 50)
    assert wait(silent, "silent") == pytest.approx(
        (51 - served) / served * 2.0, rel=0.1
    )


def test_a_host_without_any_queue_costs_nothing_in_the_end(silent):
    for _ in range(60):
        answered(silent, "silent", ahead=40, wait=0.0)
    start(silent, "silent", 39)
    assert wait(silent, "silent") == pytest.approx(0.0, abs=0.01)


def test_nobody_is_taken_to_serve_fewer_than_one_at_a_time(silent):
    for _ in range(60):
        answered(silent, "silent", ahead=5, wait=1e6)
    start(silent, "silent", 2)
    assert wait(silent, "silent") == pytest.approx(4.0, rel=0.01)


def test_a_declared_concurrency_is_never_learned_over(waiting):
    for _ in range(20):
        answered(waiting, "fast", ahead=9, wait=0.0)
    start(waiting, "fast", 5)
    assert wait(waiting) == pytest.approx(4.0)


def test_a_learned_concurrency_outlives_a_new_price(silent):
    answered(silent, "silent", ahead=9, wait=0.0)
    start(silent, "silent", 6)
    before = wait(silent, "silent")
    silent.replace(SILENT, replace(SILENT, input_cost_per_million_tokens=9.0))
    assert wait(silent, "silent") == pytest.approx(before)
    silent.replace(SILENT, replace(SILENT, max_concurrency=2))
    assert wait(silent, "silent") == pytest.approx(5 / 2 * 2.0)


def test_what_is_declared_at_last_is_learned_no_more(silent):
    silent.replace(SILENT, replace(SILENT, max_concurrency=2))
    for _ in range(20):
        answered(silent, "silent", ahead=9, wait=0.0)
    start(silent, "silent", 5)
    assert wait(silent, "silent") == pytest.approx(4.0)


def test_a_host_of_one_at_a_time_is_found_out_by_a_few_calls_at_once(silent):
    # Three at once are fewer than the assumed four; the third takes 2 + 4 s.
    for _ in range(20):
        answered(silent, "silent", ahead=2, wait=4.0)
    assert silent.speeds()["silent"] == pytest.approx((1.0, 0.01))
    start(silent, "silent", 2)
    assert wait(silent, "silent") == pytest.approx(4.0, rel=0.1)


def test_a_call_that_is_alone_is_slow_and_waits_for_nobody(silent):
    for _ in range(40):
        answered(silent, "silent", ahead=0, wait=4.0)
    assert silent.speeds()["silent"][0] == pytest.approx(5.0, rel=0.01)
    start(silent, "silent", 3)
    assert wait(silent, "silent") == 0.0


def test_a_host_without_any_queue_that_is_now_fast_now_slow_costs_little(silent):
    rng = np.random.default_rng(0)
    waits = []
    for ahead in rng.integers(0, 12, 400).tolist():
        others = start(silent, "silent", ahead, tag="ahead")
        waits.append(wait(silent, "silent"))
        (mine,) = start(silent, "silent", 1, tag="mine")
        pace = float(rng.lognormal(0.0, 0.5))
        silent.finish(mine, answer(100, 2.0 * pace, pace))
        for decision_id in others:
            silent.finish(decision_id)
    assert np.mean(waits[50:]) < 0.5  # where each takes 2 s


def test_an_answer_of_which_no_time_is_known_tells_nothing(silent):
    start(silent, "silent", 9, tag="ahead")
    (mine,) = start(silent, "silent", 1, tag="mine")
    silent.finish(mine, answer(100, None, None))
    assert wait(silent, "silent") == pytest.approx((10 - 4) / 4 * 2.0)
    assert silent.speeds()["silent"] == (1.0, 0.01)


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.floats(0, 1e6), st.booleans()), max_size=40
    )
)
def test_whatever_calls_take_the_wait_stays_finite_and_not_negative(calls):
    model = WaitingModel(clock=lambda: 0.0)
    model.add(SILENT)
    for ahead, seconds, streamed in calls:
        answered(model, "silent", ahead=ahead, wait=seconds, streamed=streamed)
        start(model, "silent", 20, tag="now")
        assert 0.0 <= wait(model, "silent") < np.inf
        for number in range(20):
            model.finish(f"silent-now{number}")
