"""Events are logged without what was asked, and never in the way."""

import gc
import logging
import threading
import weakref
from dataclasses import replace

import pytest

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import Outcome
from mixllm_integrations.serving import Dispatcher
from mixllm_integrations.serving.journal import Journal
from mixllm_integrations.store import open_store

ANSWERED = Outcome(10, 2)
LONG = 20.0  # seconds that no test should need


class Listed:
    """A store in memory, which may fail or be held up."""

    def __init__(self):
        self.kinds = []
        self.threads = set()
        self.error = None
        self.open = threading.Event()
        self.open.set()
        self.closed = 0

    def append(self, kind, decision_id, payload):
        assert self.open.wait(LONG)
        self.threads.add(threading.current_thread().name)
        if self.error is not None:
            raise self.error
        self.kinds.append(kind)
        return True

    def events(self, *, after=0, limit=None):
        return iter(())

    def close(self):
        self.closed += 1

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


class Settled(Listed):
    """One that has its writers write before it is read or closed."""

    def __init__(self):
        super().__init__()
        self.writers = weakref.WeakSet()

    def wait_for(self, writer):
        self.writers.add(writer)

    def settle(self):
        return all(writer.flush(LONG) for writer in self.writers)


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
    told = {"reward": 1.0, "kind": "binary", "source": "thumbs"}
    assert events[2].payload == told | {"worker": dispatcher.journal.worker}
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
    broken = Listed()
    broken.error = OSError("disk full")
    dispatcher = Dispatcher(ranked_router, clock=clock, store=broken)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            call = dispatcher.begin("q")
            call.succeed(input_tokens=1, output_tokens=1)
    assert caplog.text.count("events are not logged") == 1
    assert "OSError" in caplog.text
    assert "disk full" not in caplog.text


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


def test_a_store_of_its_own_is_written_to_in_the_background(
    ranked_router, clock, tmp_path
):
    url = f"sqlite:///{tmp_path}/events.db"
    dispatcher = Dispatcher(ranked_router, clock=clock, store=url)
    journal = dispatcher.journal
    threads = set()
    append_many = journal._writer._delivery._append_many

    def watched(events):
        threads.add(threading.current_thread().name)
        return append_many(events)

    journal._writer._delivery._append_many = watched
    dispatcher.begin("q").succeed(input_tokens=1, output_tokens=1)
    assert journal.flush(LONG)
    assert threads == {"mixllm-journal"}
    with open_store(url) as opened:
        assert [event.kind for event in opened.events()] == ["decision", "outcome"]


def test_a_store_that_others_may_read_is_written_to_at_once():
    store = Listed()
    journal = Journal(store)
    journal.outcome("d", ANSWERED)
    assert store.kinds == ["outcome"]
    assert store.threads == {threading.current_thread().name}
    journal.close()
    assert store.closed == 0


def test_a_store_that_waits_for_its_writers_need_not_be_waited_for():
    store = Settled()
    journal = Journal(store)
    store.open.clear()
    journal.outcome("d", ANSWERED)
    assert store.kinds == []
    store.open.set()
    assert store.settle()
    assert store.kinds == ["outcome"]
    assert store.threads == {"mixllm-journal"}


def test_feedback_is_written_when_it_returns_and_so_is_all_before_it():
    store = Settled()
    journal = Journal(store)
    for n in range(50):
        journal.outcome(f"d{n}", ANSWERED)
    journal.feedback("d", 1.0, "binary", None)
    assert store.kinds == ["outcome"] * 50 + ["feedback"]


def test_feedback_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr("mixllm_integrations.serving.journal._FEEDBACK_SECONDS", 0.01)
    store = Settled()
    journal = Journal(store)
    store.open.clear()
    journal.feedback("d", 1.0, "binary", None)
    assert store.kinds == []
    store.open.set()
    assert journal.flush(LONG)
    assert store.kinds == ["feedback"]


def test_what_is_logged_does_not_change_with_what_it_was_made_from(ranked_router):
    store = Settled()
    payloads = []
    store.append = lambda kind, decision_id, payload: payloads.append(payload)
    journal = Journal(store)
    decision = ranked_router.route("q", requires=["tools"])
    shadow = {"candidate": "best"}
    journal.decision(decision, shadow=shadow)
    shadow["candidate"] = "changed"
    assert journal.flush(LONG)
    assert payloads[0]["shadow"] == {"candidate": "best"}
    assert payloads[0]["excluded"] is not decision.excluded


def test_a_journal_that_nobody_uses_writes_what_is_left():
    store = Settled()
    journal = Journal(store)
    for n in range(20):
        journal.outcome(f"d{n}", ANSWERED)
    del journal
    assert len(store.kinds) == 20


def test_closing_twice_closes_its_store_once():
    store = Settled()
    journal = Journal(store, owned=True)
    journal.outcome("d", ANSWERED)
    journal.close()
    journal.close()
    assert store.kinds == ["outcome"]
    assert store.closed == 1


def test_what_was_expected_of_every_candidate_is_logged(ranked_router, clock, store):
    call = Dispatcher(ranked_router, clock=clock, store=store).begin(
        "q", among=["best", "middle"]
    )
    decision = call.decision
    call.abandon()
    payload = next(iter(store.events())).payload
    scores = payload["scores"]
    assert scores["candidates"] == list(decision.scores)
    assert set(payload["excluded"]) == set(decision.scores) - {"best", "middle"}
    for name in ("quality", "cost", "uncertainty", "waiting_penalty"):
        expected = [getattr(one, name) for one in decision.scores.values()]
        assert scores[name] == pytest.approx(expected, rel=1e-5)
        assert all(
            len(f"{value:.15g}") <= len(f"{value:.6g}") for value in scores[name]
        )


class Watched(dict):
    """Scores that note who reads all of them."""

    def __init__(self, scores):
        super().__init__(scores)
        self.readers = set()

    def values(self):
        self.readers.add(threading.current_thread().name)
        return super().values()


def test_the_caller_does_not_wait_until_scores_are_written_out(ranked_router):
    journal = Journal(Settled())
    decision = ranked_router.route("q")
    watched = Watched(decision.scores)
    journal.decision(replace(decision, scores=watched))
    assert journal.flush(LONG)
    assert watched.readers == {"mixllm-journal"}
