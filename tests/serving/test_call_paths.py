"""Whatever becomes of calls, each decision has one outcome and no load is left."""

import asyncio
from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving import CallOptions, Dispatcher
from mixllm_integrations.store import Event
from mixllm_integrations.testing import ManualClock

NAMES = ("a", "b", "c")
PRICES = {"a": (1.0, 2.0), "b": (3.0, 5.0), "c": (0.0, 0.7)}


class Listed:
    """A log in memory."""

    def __init__(self):
        self.lines = []

    def append(self, kind, decision_id, payload):
        at = datetime.now(UTC)
        self.lines.append(Event(len(self.lines), kind, decision_id, at, payload))
        return True

    def events(self, *, after=0, limit=None):
        return iter(self.lines[after:limit])

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


class RefusedError(Exception):
    def __init__(self, status, seconds=None):
        super().__init__("refused")
        self.status_code = status
        self.headers = {} if seconds is None else {"Retry-After": str(seconds)}


errors = st.sampled_from(
    [
        TimeoutError(),
        ConnectionError(),
        ValueError("no JSON"),
        RefusedError(429),
        RefusedError(429, 2),
        RefusedError(500),
        RefusedError(401),
        RefusedError(400),
        asyncio.CancelledError(),
    ]
)
steps = st.one_of(
    st.tuples(st.just("fail"), errors),
    st.tuples(st.just("decline"), st.just(TypeError("no tools"))),
    st.tuples(st.just("first chunk"), st.none()),
    st.tuples(st.just("break off"), errors),
    st.tuples(st.just("succeed"), st.tuples(st.integers(0, 99), st.integers(0, 99))),
    st.tuples(st.just("abandon"), st.none()),
    st.tuples(st.just("clock"), st.floats(-9_000.0, 9_000.0)),
)


class Driven:
    """One call, driven as the adapters do, one step at a time."""

    def __init__(self, dispatcher, clock, options):
        self.call = dispatcher.begin("q", options=options)
        self.clock = clock
        self.goes_on = True
        self.said = False
        self.earned = 0.0

    def step(self, what, given):
        if what == "clock":
            self.clock.now += given
        elif not self.goes_on:
            self.call.abandon()
        elif what == "first chunk":
            self.call.first_chunk()
            self.said = True
        elif what == "succeed":
            asked, said = given
            price = PRICES[self.call.candidate]
            self.earned = (asked * price[0] + said * price[1]) / 1e6
            record = self.call.succeed(input_tokens=asked, output_tokens=said)
            assert record["cost"] == pytest.approx(self.earned, abs=1e-12)
            self.goes_on = False
        elif what == "abandon" or isinstance(given, asyncio.CancelledError):
            self.call.abandon()
            self.goes_on = False
        elif what == "break off" or self.said:
            self.call.break_off(given)
            self.goes_on = False
        else:
            self.fail(what, given)

    def fail(self, what, error):
        report = self.call.decline if what == "decline" else self.call.fail
        if report(error):
            return
        seconds = self.call.pause()
        if seconds is None:
            assert self.call.failure()
            self.goes_on = False
        else:
            self.clock.now += seconds
            self.goes_on = self.call.resume()


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 3), steps), max_size=40),
    st.sampled_from([0.0, 4.0, 100.0]),
    st.sampled_from([None, 0, 2]),
)
def test_each_decision_has_one_outcome_and_no_load_is_left(
    happened, patience, max_failovers
):
    clock = ManualClock(1e5)
    router = Router(
        [Candidate(name, *PRICES[name]) for name in NAMES], clock=clock, seed=0
    )
    log = Listed()
    dispatcher = Dispatcher(router, cooldown_seconds=1.0, clock=clock, store=log)
    options = CallOptions(
        give_up_after_seconds=patience, max_failovers=max_failovers, session="s"
    )
    calls = [Driven(dispatcher, clock, options) for _ in range(4)]
    for number, (what, given_) in happened:
        calls[number].step(what, given_)
    for driven in calls:
        driven.call.abandon()
    assert [router._waiting.in_flight(name) for name in NAMES] == [0, 0, 0]
    decided = Counter(e.decision_id for e in log.lines if e.kind == "decision")
    ended = Counter(e.decision_id for e in log.lines if e.kind == "outcome")
    assert decided == ended
    assert set(ended.values()) == {1}
    cost = sum(e.payload["cost"] or 0.0 for e in log.lines if e.kind == "outcome")
    assert cost == pytest.approx(sum(driven.earned for driven in calls), abs=1e-12)


def test_a_cooldown_never_leaves_everybody_unasked():
    """However many failed, somebody is chosen: the rest is soft."""
    clock = ManualClock()
    router = Router([Candidate(name, 1.0, 1.0) for name in NAMES], clock=clock)
    dispatcher = Dispatcher(router, clock=clock)
    for error in (RefusedError(429, 3_600), RefusedError(500), TimeoutError()) * 20:
        call = dispatcher.begin("q")
        while call.fail(error):
            pass
    assert set(dispatcher.cooldown.due()) == set(NAMES)
    call = dispatcher.begin("q")
    assert call.candidate in NAMES
    call.succeed(input_tokens=1, output_tokens=1)
    assert set(dispatcher.cooldown.due()) == set(NAMES) - {call.candidate}
