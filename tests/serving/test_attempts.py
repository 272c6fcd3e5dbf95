"""When everybody has failed: who is asked once more, when, and until when."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.serving import CallOptions
from mixllm_integrations.serving.attempts import Attempts
from mixllm_integrations.serving.errors import is_lasting
from mixllm_integrations.testing import ManualClock


class RefusedError(Exception):
    def __init__(self, status, headers=None, **attributes):
        super().__init__("refused")
        self.status_code = status
        self.headers = headers or {}
        self.__dict__.update(attributes)


def busy(seconds):
    return RefusedError(429, {"Retry-After": str(seconds)})


@pytest.fixture(autouse=True)
def no_chance(monkeypatch):
    """Let nothing be taken off a wait."""
    monkeypatch.setattr(random, "random", lambda: 0.0)


@pytest.fixture
def attempts(clock):
    return Attempts(10.0, clock=clock)


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionError(),
        ValueError("no JSON"),
        AttributeError("a page instead of an answer"),
        *(
            RefusedError(status)
            for status in (408, 409, 425, 429, 500, 502, 503, 504, 529)
        ),
    ],
    ids=repr,
)
def test_what_may_be_over_in_a_moment_is_asked_once_more(error, attempts):
    attempts.failed("d1", "a", error)
    assert attempts.pause() == (0.5, ("a",))


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError(),
        ImportError(),
        *(
            RefusedError(status)
            for status in (400, 401, 402, 403, 404, 410, 413, 422, 501)
        ),
        RefusedError(429, code="insufficient_quota"),
        RefusedError(
            400, body={"error": {"message": "x", "code": "unsupported_value"}}
        ),
    ],
    ids=repr,
)
def test_what_lasts_is_not_asked_once_more(error, attempts):
    assert is_lasting(error)
    attempts.failed("d1", "a", error)
    assert attempts.pause() is None


def test_without_patience_nobody_is_asked_once_more(clock):
    attempts = Attempts(0.0, clock=clock)
    attempts.failed("d1", "a", TimeoutError())
    assert attempts.pause() is None


def test_the_wait_doubles_up_to_a_bound(clock):
    attempts = Attempts(1_000.0, clock=clock)
    waits = []
    for _ in range(7):
        attempts.failed("d", "a", TimeoutError())
        waits.append(attempts.pause().seconds)
        clock.advance(waits[-1])
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_up_to_half_of_a_wait_is_left_to_chance(monkeypatch, attempts):
    monkeypatch.setattr(random, "random", lambda: 1.0)
    attempts.failed("d", "a", TimeoutError())
    assert attempts.pause().seconds == 0.25


def test_not_all_come_back_at_the_very_time_that_was_named(monkeypatch, attempts):
    monkeypatch.setattr(random, "random", lambda: 1.0)
    attempts.failed("d", "a", busy(3))
    assert attempts.pause().seconds == 3.25


def test_the_last_attempt_is_made_when_time_is_up_and_none_after_it(attempts, clock):
    clock.advance(9.8)
    attempts.failed("d", "a", TimeoutError())
    assert attempts.pause().seconds == pytest.approx(0.2)
    clock.advance(0.2)
    attempts.failed("d", "a", TimeoutError())
    assert attempts.pause() is None


def test_nobody_is_asked_before_the_time_that_it_named(attempts):
    attempts.failed("d", "a", busy(3))
    assert attempts.pause() == (3.0, ("a",))


def test_a_time_named_counts_from_when_it_was_named(attempts, clock):
    attempts.failed("d1", "a", busy(3))
    clock.advance(1.0)
    attempts.failed("d2", "b", busy(4))
    assert attempts.pause() == (2.0, ("a",))
    clock.advance(2.0)
    attempts.failed("d3", "a", busy(9))
    assert attempts.pause() == (2.0, ("b",))


def test_who_names_no_time_is_asked_while_another_is_waited_for(attempts):
    attempts.failed("d1", "a", busy(3))
    attempts.failed("d2", "b", TimeoutError())
    assert attempts.pause() == (0.5, ("b",))


@pytest.mark.parametrize("seconds", [10.0, 11.0, 3600.0])
def test_a_time_that_is_too_late_is_not_waited_for(seconds, attempts):
    attempts.failed("d", "a", busy(seconds))
    assert attempts.pause() is None


def test_a_time_of_nothing_is_no_hurry(attempts):
    attempts.failed("d", "a", busy(0))
    assert attempts.pause() == (0.5, ("a",))


def test_a_clock_that_stands_still_ends_the_waiting_all_the_same(attempts):
    waits = []
    attempts.failed("d", "a", TimeoutError())
    while (pause := attempts.pause()) is not None:
        waits.append(pause.seconds)
        attempts.failed("d", "a", TimeoutError())
    assert sum(waits) == pytest.approx(10.0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.none() | st.floats(0.0, 20.0),  # what it asks for
            st.floats(0.0, 3.0),  # how long the attempt takes
        ),
        min_size=1,
        max_size=30,
    ),
    st.floats(0.1, 20.0),
)
def test_no_wait_ends_too_late_and_none_too_early(failures, give_up_after):
    clock = ManualClock()
    attempts = Attempts(give_up_after, clock=clock)
    not_before = {}
    for name, asked_for, seconds in failures:
        clock.advance(seconds)
        attempts.failed(
            "d", name, TimeoutError() if asked_for is None else busy(asked_for)
        )
        not_before[name] = clock() + (asked_for or 0.0)
        pause = attempts.pause()
        if pause is None:
            late = clock() >= give_up_after
            assert late or min(not_before.values()) >= give_up_after - 1e-9
            return
        assert pause.seconds > 0.0
        assert pause.names
        clock.advance(pause.seconds)
        assert clock() <= give_up_after + 1e-9
        assert all(not_before[name] <= clock() + 1e-9 for name in pause.names)


def test_of_each_candidate_the_last_error_is_raised(attempts):
    first, second, last = TimeoutError(), ConnectionError(), RefusedError(503)
    attempts.failed("d1", "a", first)
    attempts.failed("d2", "b", second)
    attempts.failed("d3", "a", last)
    assert attempts.failure().exceptions == (second, last)
    assert [told["candidate"] for told in attempts.told] == ["a", "b", "a"]
    assert attempts.failovers == 3


def test_one_that_failed_several_times_alone_is_no_group(attempts):
    attempts.failed("d1", "a", TimeoutError())
    last = ConnectionError()
    attempts.failed("d2", "a", last)
    assert attempts.failure() is last


QUICK = CallOptions(give_up_after_seconds=5.0)


def failed_by_all(dispatcher, error, options=QUICK):
    call = dispatcher.begin("q", options=options)
    while call.fail(error):
        pass
    return call


def test_a_call_goes_on_after_a_pause_among_those_who_may_be_well(dispatcher, clock):
    call = failed_by_all(dispatcher, TimeoutError())
    assert len(call.attempts) == 3
    seconds = call.pause()
    clock.advance(seconds)
    assert call.resume()
    record = call.succeed(input_tokens=1, output_tokens=1)
    assert len(record["attempts"]) == 3


def test_a_call_that_waits_counts_as_no_load(dispatcher):
    call = failed_by_all(dispatcher, TimeoutError())
    call.pause()
    names = dispatcher.names()
    waiting = dispatcher.router._waiting
    assert [waiting.in_flight(name) for name in names] == [0, 0, 0]
    call.resume()
    assert sum(waiting.in_flight(name) for name in names) == 1
    call.abandon()
    assert sum(waiting.in_flight(name) for name in names) == 0


def test_who_cannot_be_asked_stays_out(dispatcher, clock):
    call = dispatcher.begin("q", options=QUICK)
    call.decline(TypeError("no tools"))
    while call.fail(TimeoutError()):
        pass
    clock.advance(call.pause())
    assert call.resume()
    assert call.candidate != "best"
    assert call.fail(TimeoutError())
    assert call.candidate != "best"
    assert not call.fail(TimeoutError())


def test_a_mistake_of_the_caller_ends_the_call(dispatcher):
    call = dispatcher.begin("q", options=QUICK)
    assert not call.fail(RefusedError(400))
    assert call.pause() is None


def test_a_limit_of_failovers_counts_repetitions_too(dispatcher, clock):
    options = CallOptions(give_up_after_seconds=50.0, max_failovers=3)
    call = failed_by_all(dispatcher, TimeoutError(), options)
    clock.advance(call.pause())
    assert call.resume()
    assert not call.fail(TimeoutError())  # the fourth
    assert call.pause() is None


def test_a_forced_candidate_is_the_one_asked_once_more(dispatcher, clock):
    options = CallOptions(give_up_after_seconds=5.0, candidate="worst")
    call = failed_by_all(dispatcher, TimeoutError(), options)
    clock.advance(call.pause())
    assert call.resume()
    assert call.candidate == "worst"


def test_without_a_pause_there_is_nothing_to_resume(dispatcher):
    call = failed_by_all(dispatcher, TimeoutError(), CallOptions())
    assert call.pause() is None
    assert not call.resume()


def test_one_asked_too_often_rests_only_briefly_unless_it_says_more(dispatcher, clock):
    dispatcher.begin("q").fail(RefusedError(429))
    assert dispatcher.cooldown.due() == {"best": clock() + 5.0}
    clock.advance(5.0)
    dispatcher.begin("q").fail(RefusedError(429))
    assert dispatcher.cooldown.due()["best"] == clock() + 10.0  # doubled
    clock.advance(10.0)
    dispatcher.begin("q").fail(busy(50))
    assert dispatcher.cooldown.due()["best"] == clock() + 50.0


@pytest.mark.parametrize(
    "error",
    [RefusedError(429, code="insufficient_quota"), RefusedError(503), TimeoutError()],
)
def test_who_lacks_money_or_breaks_rests_as_long_as_ever(error, dispatcher, clock):
    dispatcher.begin("q").fail(error)
    assert dispatcher.cooldown.due() == {"best": clock() + 30.0}
