"""A worker learns from the log what others have learned: once, and from all of it."""

import gc
import logging
import threading
import time
import weakref

import pytest
from sqlalchemy import delete, func, select

from mixllm_integrations import Candidate, Outcome, Router
from mixllm_integrations.serving.following import Follower
from mixllm_integrations.store import NewEvent
from mixllm_integrations.store.sql import SQLStore
from mixllm_integrations.store.tables import EVENTS, SNAPSHOTS

QUERY = "What is 3 plus 4?"


class Worker:
    """A router, its follower, and a journal that writes at once."""

    def __init__(self, name, url, **given):
        self.name, self.store = name, SQLStore(url)
        self.router = Router(
            [Candidate("small", 0.1, 0.4), Candidate("large", 5.0, 15.0)],
            implicit_signals=("regenerate",),
        )
        self.follow(**given)

    def follow(self, **given):
        self.follower = Follower(self.router, self.store, worker=self.name, **given)

    def write(self, kind, decision_id, /, **payload):
        event = NewEvent(kind, decision_id, {**payload, "worker": self.name})
        self.store.append_many([event])

    def route(self):
        decision = self.router.route(QUERY)
        handed_over = self.router.hand_over(decision.id)
        self.write("decision", decision.id, handed_over=handed_over)
        return decision.id

    def judge(self, decision_id, reward):
        if self.router.record_feedback(decision_id, reward):
            self.write("feedback", decision_id, reward=reward, kind="refined")

    def finish(self, decision_id, tokens):
        self.router.record_outcome(decision_id, Outcome(10, tokens))
        self.write("outcome", decision_id, input_tokens=10, output_tokens=tokens)

    def expected(self):
        found = self.router.predict([QUERY])
        return [*found.quality[0].tolist(), *found.output_tokens[0].tolist()]

    def close(self):
        self.follower.close()
        self.store.close()


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/log.db"


@pytest.fixture
def join(url):
    workers = []

    def made(name, **given):
        workers.append(Worker(name, url, **given))
        return workers[-1]

    yield made
    for worker in workers:
        worker.close()


def test_what_one_worker_was_told_another_learns_once(join):
    a, b = join("a"), join("b")
    decided = a.route()
    a.finish(decided, 700)
    a.judge(decided, 0.0)
    before = b.expected()
    assert b.follower.catch_up() == 3
    assert b.expected() == pytest.approx(a.expected(), abs=1e-6)
    assert b.expected() != pytest.approx(before, abs=1e-3)
    after = b.expected()
    assert b.follower.catch_up() == 0
    assert b.expected() == after


def test_a_worker_passes_over_what_it_has_written_itself(join):
    a = join("a")
    a.judge(a.route(), 0.0)
    before = a.expected()
    assert a.follower.catch_up() == 2
    assert a.expected() == before


def test_feedback_on_a_siblings_decision_is_learned_by_both(join):
    a, b = join("a"), join("b")
    decided = a.route()
    assert b.follower.find(decided)
    b.judge(decided, 0.0)
    a.follower.catch_up()
    b.follower.catch_up()
    assert a.expected() == pytest.approx(b.expected(), abs=1e-6)
    assert not a.router.record_feedback(decided, 0.0)


def test_a_decision_that_the_log_does_not_have_is_not_adopted(join):
    assert not join("a").follower.find("nobody-made-it")


def test_signals_are_heard(join):
    a, b = join("a"), join("b")
    decided = a.route()
    a.write("signal", decided, signal="regenerate")
    b.follower.catch_up()
    assert not b.router.record_signal(decided, "regenerate")


def test_speed_is_learned_from_others(join):
    a, b = join("a"), join("b")
    decided = a.route()
    chosen = a.router._ledger.get(decided).candidate
    told = {"latency_seconds": 3.0, "time_to_first_token_seconds": 1.0}
    a.write("outcome", decided, input_tokens=10, output_tokens=20, **told)
    b.follower.catch_up()
    assert b.router._waiting.speeds()[chosen] == (1.0, pytest.approx(0.1))


def test_a_restart_goes_on_where_it_had_listened(join, tmp_path):
    a, b = join("a"), join("b")
    a.judge(a.route(), 0.0)
    b.follower.catch_up()
    b.router.save(tmp_path / "b")
    a.judge(a.route(), 0.0)
    c = join("c")
    router = Router.load(tmp_path / "b")
    follower = Follower(router, c.store, worker="c")
    assert follower.catch_up() == 2
    assert router.predict([QUERY]).quality[0].tolist() == pytest.approx(
        a.expected()[:2], abs=1e-6
    )


def test_a_newcomer_hears_a_log_from_its_beginning(join):
    a = join("a")
    for reward in (0.0, 1.0, 0.0):
        a.judge(a.route(), reward)
    late = join("late")
    assert late.follower.catch_up() == 6
    assert late.expected() == pytest.approx(a.expected(), abs=1e-6)


def test_a_newcomer_goes_on_from_a_snapshot(join):
    a = join("a", snapshot_every=4)
    for reward in (0.0, 1.0):
        a.judge(a.route(), reward)
    assert a.follower.look()
    assert a.store.newest_snapshot().sequence == 4
    a.judge(a.route(), 0.0)
    late = join("late")
    assert late.follower.catch_up() == 2
    assert late.expected() == pytest.approx(a.expected(), abs=1e-6)


def test_feedback_after_a_snapshot_on_a_decision_before_it_is_learned_once(join):
    a = join("a", snapshot_every=1)
    b = join("b")
    decided = b.route()
    a.follower.look()
    b.finish(decided, 900)
    b.judge(decided, 0.0)
    late = join("late")
    late.follower.catch_up()
    assert late.expected() == pytest.approx(b.expected(), abs=1e-6)


def test_what_a_snapshot_knows_already_teaches_nothing_again(join):
    a, b = join("a", snapshot_every=1), join("b")
    decided = b.route()
    b.judge(decided, 0.0)
    a.follower.look()
    late = join("late")
    late.follower.catch_up()
    before = late.expected()
    assert late.follower.find(decided)
    assert not late.router.record_feedback(decided, 0.0)
    assert late.expected() == before


def test_a_snapshot_that_cannot_be_read_is_told_and_the_log_is_heard(join, caplog):
    a = join("a")
    a.judge(a.route(), 0.0)
    a.store.put_snapshot(2, b"no snapshot")
    late = join("late")
    with caplog.at_level(logging.WARNING):
        assert late.follower.catch_up() == 2
    assert "a snapshot is of no use here" in caplog.text
    assert late.expected() == pytest.approx(a.expected(), abs=1e-6)


def test_who_has_learned_elsewhere_hears_all_of_a_log_and_keeps_what_it_knew(join):
    a, b = join("a", snapshot_every=1), join("b")
    a.judge(a.route(), 0.0)
    a.follower.look()  # a snapshot, which would take away what `b` knows
    own = b.router.route(QUERY)
    b.router.record_feedback(own.id, 1.0)
    b.follow()
    before = b.expected()
    assert b.follower.catch_up() == 2
    assert b.expected() != pytest.approx(before, abs=1e-3)
    assert b.expected() != pytest.approx(a.expected(), abs=1e-3)


def test_a_log_that_is_an_older_copy_of_itself_is_not_heard_again(join):
    a, b = join("a"), join("b")
    a.judge(a.route(), 0.0)
    b.router.hear_from(b.store.identity, 7)
    before = b.expected()
    assert b.follower.catch_up() == 0
    assert b.expected() == before
    a.judge(a.route(), 0.0)
    assert b.follower.catch_up() == 2


def test_who_has_just_begun_hears_all_beside_what_it_has_learned_itself(join):
    a, b = join("a", snapshot_every=1), join("b")
    a.judge(a.route(), 0.0)
    a.follower.look()
    b.judge(b.route(), 0.0)
    b.follower.catch_up()
    a.follower.catch_up()
    assert b.expected() == pytest.approx(a.expected(), abs=1e-6)


def test_damaged_events_are_left_out_and_the_others_heard(join, caplog):
    a, b = join("a"), join("b")
    first = a.route()
    a.write("feedback", first, reward="much", kind="refined")
    a.write("decision", "broken", handed_over={"contexts": a.router.context_digest})
    second = a.route()
    a.judge(second, 0.0)
    with caplog.at_level(logging.WARNING):
        assert b.follower.catch_up() == 5
    assert "event 2 is left out" in caplog.text
    assert "a decision of another worker is left out" in caplog.text
    assert b.expected() == pytest.approx(a.expected(), abs=1e-6)


def test_what_could_not_be_looked_up_is_learned_from_the_log(join):
    a, b = join("a"), join("b")
    decided = a.route()
    b.follower.teach_later("feedback", decided, "refined")
    b.write("feedback", decided, reward=0.0, kind="refined")
    b.follower.catch_up()
    a.follower.catch_up()
    assert b.expected() == pytest.approx(a.expected(), abs=1e-6)
    assert not b.router.record_feedback(decided, 0.0)


def test_a_log_that_is_away_is_said_once_and_heard_when_it_is_back(
    join, caplog, monkeypatch
):
    a, b = join("a"), join("b")
    a.judge(a.route(), 0.0)

    def away(*_, **__):
        raise OSError

    with caplog.at_level(logging.WARNING), monkeypatch.context() as patch:
        patch.setattr(b.store, "tail", away)
        assert [b.follower.look() for _ in range(3)] == [False] * 3
        assert caplog.text.count("is not heard") == 1
        patch.undo()
        assert b.follower.look()
    assert "is heard again" in caplog.text
    assert b.expected() == pytest.approx(a.expected(), abs=1e-6)


def test_the_thread_follows_by_itself_and_ends_when_closed(join):
    a, b = join("a"), join("b", poll_seconds=0.02)
    b.follower.start()
    b.follower.start()
    names = [t.name for t in threading.enumerate()]
    assert names.count("mixllm-follower") == 1
    a.judge(a.route(), 0.0)
    until = time.monotonic() + 10
    while b.router.heard(b.store.identity) != 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert b.expected() == pytest.approx(a.expected(), abs=1e-6)
    b.follower.close()
    assert b.follower.is_closed
    assert "mixllm-follower" not in [t.name for t in threading.enumerate()]


def test_a_follower_that_nobody_holds_ends(join):
    a = join("a")
    follower = Follower(a.router, a.store, worker="x", poll_seconds=0.02)
    follower.start()
    (thread,) = [t for t in threading.enumerate() if t.name == "mixllm-follower"]
    gone = weakref.ref(follower)
    del follower
    thread.join(5)
    gc.collect()
    assert gone() is None
    assert not thread.is_alive()


def test_what_is_older_than_both_snapshots_may_be_deleted(join, url):
    a = join("a", snapshot_every=4)
    for reward in (0.0, 1.0, 0.0, 0.0, 1.0, 0.0):
        a.judge(a.route(), reward)
        a.follower.look()
    with a.store._engine.begin() as connection:
        oldest = select(func.min(SNAPSHOTS.c.sequence)).scalar_subquery()
        done = connection.execute(delete(EVENTS).where(EVENTS.c.sequence <= oldest))
        assert done.rowcount == 8
    b = join("b")
    b.follower.look()
    assert b.expected() == pytest.approx(a.expected(), abs=1e-6)
    a.judge(a.route(), 0.0)
    b.follower.look()
    assert b.expected() == pytest.approx(a.expected(), abs=1e-6)
