"""Events are logged without what was asked, and never in the way."""

import gc
import logging

import pytest

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.serving import Dispatcher
from mixllm_integrations.store import open_store


class Broken:
    def append(self, kind, decision_id, payload):
        raise OSError("disk full")

    def events(self, *, after=0, limit=None):
        return iter(())

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/events.db") as opened:
        yield opened


def test_a_call_and_its_feedback_leave_three_events(ranked_router, clock, store):
    dispatcher = Dispatcher(ranked_router, clock=clock, store=store)
    call = dispatcher.begin("a very secret question")
    record = call.succeed(input_tokens=10, output_tokens=2)
    dispatcher.record_feedback(record, 1.0, kind="binary", source="thumbs")
    dispatcher.record_feedback(record, 1.0, kind="binary")  # not new: not logged
    events = list(store.events())
    assert [event.kind for event in events] == ["decision", "outcome", "feedback"]
    assert {event.decision_id for event in events} == {record["decision_id"]}
    assert events[0].payload["candidate"] == "best"
    assert events[1].payload["output_tokens"] == 2
    assert events[2].payload == {"reward": 1.0, "kind": "binary", "source": "thumbs"}
    assert "secret" not in repr(events)


def test_every_attempt_is_logged(ranked_router, clock, store):
    call = Dispatcher(ranked_router, clock=clock, store=store).begin("q")
    call.fail(TimeoutError())
    call.succeed(input_tokens=1, output_tokens=1)
    told = [
        (e.kind, e.payload.get("candidate"), e.payload.get("error"))
        for e in store.events()
    ]
    assert told == [
        ("decision", "best", None),
        ("outcome", None, "TimeoutError"),
        ("decision", "middle", None),
        ("outcome", None, None),
    ]


def test_a_broken_store_stops_no_answer_and_is_reported_once(
    ranked_router, clock, caplog
):
    dispatcher = Dispatcher(ranked_router, clock=clock, store=Broken())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            call = dispatcher.begin("q")
            call.succeed(input_tokens=1, output_tokens=1)
    assert caplog.text.count("events are not logged") == 1
    assert "OSError" in caplog.text


def test_a_store_that_cannot_be_opened_is_an_error_at_once(ranked_router):
    with pytest.raises(ConfigurationError):
        Dispatcher(ranked_router, store="no such thing")


def test_a_store_that_was_opened_here_is_closed_here(ranked_router, clock, tmp_path):
    url = f"sqlite:///{tmp_path}/events.db"
    dispatcher = Dispatcher(ranked_router, clock=clock, store=url)
    dispatcher.begin("q").abandon()
    del dispatcher
    gc.collect()  # an open connection would be a ResourceWarning, so an error
    with open_store(url) as opened:
        assert [event.kind for event in opened.events()] == ["decision", "outcome"]
