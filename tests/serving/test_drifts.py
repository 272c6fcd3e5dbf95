"""Alarms of candidates that are not what they were stand in the log of events."""

import pytest

from mixllm_integrations.core.drift import DriftEvent
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving import CallOptions, Dispatcher
from mixllm_integrations.store import EVENT_KINDS
from mixllm_integrations.store.sql import SQLStore


@pytest.fixture
def make(clock):
    """Make a dispatcher over two candidates."""

    def dispatcher(*, store=None):
        best = Candidate("best", 1, 2, prior_quality=0.9)
        router = Router([best, Candidate("other", 1, 2)], clock=clock)
        return Dispatcher(router, clock=clock, store=store)

    return dispatcher


def answer(dispatcher, *, tokens=7):
    call = dispatcher.begin("why?", options=CallOptions(candidate="best"))
    call.succeed(input_tokens=5, output_tokens=tokens)
    return call.decision.id


def alarm(candidate):
    return DriftEvent(candidate, "quality", -0.3, 40, 400)


def events_of(store):
    return [event for event in store.events() if event.kind == "drift"]


def test_an_alarm_is_logged_once_with_the_decision_that_raised_it(
    make, tmp_path, caplog
):
    with SQLStore(f"sqlite:///{tmp_path}/log.db") as store:
        dispatcher = make(store=store)
        raised_by = []
        for reward in [1.0] * 200 + [0.0] * 100:
            who = answer(dispatcher)
            before = dispatcher.router.drifts
            dispatcher.record_feedback(who, reward)
            if dispatcher.router.drifts != before:
                raised_by.append(who)
        drifts = dispatcher.router.drifts
        assert drifts, "answers that are bad of a sudden raise an alarm"
        events = events_of(store)
    assert [event.decision_id for event in events] == raised_by
    assert [dict(event.payload) for event in events] == [
        {
            "candidate": drift.candidate,
            "quantity": drift.quantity,
            "change": pytest.approx(drift.change),
            "n_observations": drift.n_observations,
            "worker": dispatcher.journal.worker,
        }
        for drift in drifts
    ]
    assert "'best'" in caplog.text


def test_an_outcome_raises_one_too(make, tmp_path):
    with SQLStore(f"sqlite:///{tmp_path}/log.db") as store:
        dispatcher = make(store=store)
        for tokens in [50] * 100 + [5_000] * 60:
            answer(dispatcher, tokens=tokens)
        events = events_of(store)
        assert [e.payload["quantity"] for e in events] == ["output_tokens"]


def test_old_alarms_are_not_logged_again(make, tmp_path):
    router = make().router
    router._drifts.append(alarm("best"))
    with SQLStore(f"sqlite:///{tmp_path}/log.db") as store:
        dispatcher = Dispatcher(router, store=store)
        answer(dispatcher)
        assert not events_of(store)
        router._drifts.append(alarm("other"))
        answer(dispatcher)
        (event,) = events_of(store)
        assert event.payload["candidate"] == "other"
        assert "also" not in event.payload


def test_of_several_at_once_none_is_lost(make, tmp_path):
    with SQLStore(f"sqlite:///{tmp_path}/log.db") as store:
        dispatcher = make(store=store)
        dispatcher.router._drifts.extend([alarm("best"), alarm("other")])
        who = answer(dispatcher)
        answer(dispatcher)
        (event,) = events_of(store)
    assert event.decision_id == who
    assert event.payload["candidate"] == "best"
    assert [one["candidate"] for one in event.payload["also"]] == ["other"]


def test_those_that_follow_are_logged_though_old_ones_are_dropped(make, tmp_path):
    with SQLStore(f"sqlite:///{tmp_path}/log.db") as store:
        dispatcher = make(store=store)
        dispatcher.router._drifts.extend([alarm("best")] * 100)
        answer(dispatcher)
        newest = [alarm("other") for _ in range(100)]  # as many as are kept
        dispatcher.router._drifts.extend(newest)
        answer(dispatcher)
        events = events_of(store)
    assert [event.payload["candidate"] for event in events] == ["best", "other"]
    assert len(events[1].payload["also"]) == 99


def test_without_a_store_nobody_looks(make):
    dispatcher = make()
    dispatcher.router._drifts.append(alarm("best"))
    dispatcher.record_feedback(answer(dispatcher), 1.0)


def test_a_drift_is_a_kind_of_event():
    assert "drift" in EVENT_KINDS
