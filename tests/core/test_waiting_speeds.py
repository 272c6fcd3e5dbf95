"""Speeds that come from elsewhere: other workers, and the time before a restart."""

import pytest

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import Candidate, Outcome
from mixllm_integrations.core.waiting import WaitingModel

FAST = Candidate(
    "fast",
    1,
    1,
    time_to_first_token_seconds=1.0,
    seconds_per_output_token=0.01,
    max_concurrency=1,
)
UNKNOWN = Candidate("unknown", 1, 1, max_concurrency=1)
ANSWER = Outcome(10, 100, latency_seconds=13.0, time_to_first_token_seconds=6.0)


@pytest.fixture
def waiting(clock):
    model = WaitingModel(clock=clock, smoothing=0.2)
    model.add(FAST)
    model.add(UNKNOWN)
    return model


def wait(model, name):
    return float(model.expected_seconds([name])[0])


def test_speeds_are_declared_or_not_known(waiting):
    assert waiting.speeds() == {"fast": (1.0, 0.01), "unknown": (None, None)}


def test_a_call_made_elsewhere_teaches_speed_and_is_no_load(waiting):
    waiting.learn("unknown", ANSWER)
    waiting.learn("fast", ANSWER)
    # first: 1 + 0.2·(6 - 1) = 2; per token: 0.01 + 0.2·(0.07 - 0.01) = 0.022.
    assert waiting.speeds()["unknown"] == pytest.approx((6.0, 0.07))
    assert waiting.speeds()["fast"] == pytest.approx((2.0, 0.022))
    assert waiting.in_flight("fast") == 0


@pytest.mark.parametrize("teach", ["learn", "set"])
def test_a_speed_from_elsewhere_counts_for_the_calls_under_way(waiting, teach):
    waiting.start("unknown", "d", output_tokens=100)
    assert wait(waiting, "unknown") == 0.0
    if teach == "learn":
        waiting.learn("unknown", ANSWER)
    else:
        waiting.set_speed("unknown", 6.0, 0.07)
    assert wait(waiting, "unknown") == pytest.approx(13.0)


def test_an_error_elsewhere_teaches_no_speed(waiting):
    waiting.learn("fast", Outcome(1, 100, latency_seconds=9.0, error="TimeoutError"))
    assert waiting.speeds()["fast"] == (1.0, 0.01)


def test_who_is_not_watched_teaches_no_speed(waiting):
    before = waiting.speeds()
    waiting.learn("nobody", ANSWER)
    waiting.set_speed("nobody", 1.0, 1.0)
    assert waiting.speeds() == before


def test_a_part_of_a_speed_that_is_not_known_stays_as_it_is(waiting):
    waiting.set_speed("fast", None, 0.5)
    waiting.set_speed("unknown", 3.0, None)
    assert waiting.speeds() == {"fast": (1.0, 0.5), "unknown": (3.0, None)}


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), "3", True])
def test_a_speed_that_is_none_is_refused_whole(waiting, bad):
    for given in ((bad, 2.0), (2.0, bad)):
        with pytest.raises(ConfigurationError, match=r"first_token|per_token"):
            waiting.set_speed("fast", *given)
    assert waiting.speeds()["fast"] == (1.0, 0.01)


def test_speeds_go_from_one_model_to_another(waiting, clock):
    waiting.learn("unknown", ANSWER)
    other = WaitingModel(clock=clock)
    other.add(UNKNOWN)
    for name, speed in waiting.speeds().items():
        other.set_speed(name, *speed)
    assert other.speeds() == {"unknown": waiting.speeds()["unknown"]}
