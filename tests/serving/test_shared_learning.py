"""Dispatchers over one log learn from each other, and feedback may go to any."""

import gc
import logging
import threading
import weakref

import pytest

from mixllm_integrations import Candidate, Outcome, Router
from mixllm_integrations.core import forking
from mixllm_integrations.core.errors import ConfigurationError, UnknownDecisionError
from mixllm_integrations.serving import CallOptions, Dispatcher
from mixllm_integrations.serving.journal import Journal
from mixllm_integrations.serving.naming import renames_of
from mixllm_integrations.store.sql import SQLStore

QUERY = "What is 3 plus 4?"


def new_router(**given):
    return Router(
        [Candidate("small", 0.1, 0.4), Candidate("large", 5.0, 15.0)],
        implicit_signals=("regenerate", "tool_error"),
        **given,
    )


def answered(dispatcher, candidate="small"):
    call = dispatcher.begin(QUERY, options=CallOptions(candidate=candidate))
    call.succeed(input_tokens=10, output_tokens=300)
    dispatcher.journal.flush()
    return call.decision.id


def expected(dispatcher):
    found = dispatcher.router.predict([QUERY])
    return [*found.quality[0].tolist(), *found.output_tokens[0].tolist()]


def hear(*dispatchers):
    for dispatcher in dispatchers:
        dispatcher.journal.flush()
    for dispatcher in dispatchers:
        dispatcher.follower.catch_up()


def logged(url, kind=None):
    with SQLStore(url) as log:
        return [e for e in log.events() if kind in (None, e.kind)]


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/log.db"


@pytest.fixture
def join(url, monkeypatch):
    """Return dispatchers that are workers of their own, whose threads stand still."""
    monkeypatch.setattr(
        "mixllm_integrations.serving.following.Follower.start", lambda self: None
    )
    made = []

    def worker(router=None, **given):
        made.append(Dispatcher(router or new_router(), **{"store": url, **given}))
        return made[-1]

    yield worker
    for dispatcher in made:
        if dispatcher.journal is not None:
            dispatcher.journal.close()


def away(*_, **__):
    raise OSError


def test_workers_learn_from_each_others_answers_and_feedback(join):
    a, b = join(), join()
    before = expected(b)
    a.record_feedback(answered(a), 0.0)
    hear(a, b)
    assert expected(b) == pytest.approx(expected(a), abs=1e-6)
    assert expected(b) != pytest.approx(before, abs=1e-3)
    known = expected(b)
    hear(a, b)
    assert expected(b) == known


def test_feedback_may_go_to_another_worker_and_counts_once_everywhere(join, url):
    a, b = join(), join()
    decided = answered(a)
    assert b.record_feedback(decided, 0.0)
    assert not b.record_feedback(decided, 0.0)
    hear(a, b)
    assert not a.record_feedback(decided, 0.0)
    assert expected(a) == pytest.approx(expected(b), abs=1e-6)
    assert len(logged(url, "feedback")) == 1


def test_the_same_feedback_to_two_workers_at_once_counts_once(join, url):
    a, b = join(), join()
    decided = answered(a)
    hear(b)
    a.record_feedback(decided, 0.0)
    b.record_feedback(decided, 0.0)
    hear(a, b)
    late = join()
    hear(late)
    assert len(logged(url, "feedback")) == 1
    for one in (b, late):
        assert expected(one) == pytest.approx(expected(a), abs=1e-6)


def test_feedback_that_another_worker_was_given_is_not_taken_twice(join, url):
    a, b = join(), join()
    decided = answered(a)
    assert a.record_feedback(decided, 0.0)
    assert not b.record_feedback(decided, 0.0)  # it has not heard of either
    assert len(logged(url, "feedback")) == 1


def test_a_process_that_begins_anew_goes_on_with_what_the_file_says(join):
    first = join()
    first.record_feedback(answered(first), 0.0)
    known = expected(first)
    first.journal.close()
    second = join()
    hear(second)
    assert expected(second) == pytest.approx(known, abs=1e-6)


def test_a_snapshot_is_taken_over_before_the_first_call(join):
    a = join()
    a.follower.snapshot_every = 1
    a.record_feedback(answered(a), 0.0)
    assert a.follower.look()
    late = join()
    assert expected(late) == pytest.approx(expected(a), abs=1e-6)


def test_a_snapshot_that_could_not_be_read_at_first_is_taken_over_later(
    join, monkeypatch
):
    a = join()
    a.follower.snapshot_every = 1
    a.record_feedback(answered(a), 0.0)
    a.follower.look()
    with monkeypatch.context() as patch:
        patch.setattr(SQLStore, "newest_snapshot", away)
        late = join()
    assert late.router.heard(late.follower.log) is None
    assert late.follower.begin()
    assert late.router.heard(late.follower.log) == 3
    assert expected(late) == pytest.approx(expected(a), abs=1e-6)


def test_what_was_told_but_not_heard_yet_is_in_a_snapshot_once(join):
    a, b = join(), join()
    decided = answered(a)
    hear(a, b)
    b.follower.snapshot_every = 1
    assert b.record_feedback(decided, 0.0)  # in the log, behind the snapshot
    b.follower._put_snapshot_if_due()
    late = join()
    assert late.router.awaits(decided)
    hear(a, b, late)
    for one in (b, late):
        assert expected(one) == pytest.approx(expected(a), abs=1e-6)
    assert late.router._experience.replay.labels("small") == 1


def test_a_snapshot_leaves_out_decisions_that_the_log_has(join):
    a = join()
    for _ in range(3):
        a.record_feedback(answered(a), 0.5)
    hear(a)
    late = new_router()
    assert late.resume(a.router.snapshot(a.follower.log)[1])
    assert list(late._ledger) == []
    assert late._experience.replay.labels("small") == 3


def test_without_learning_the_store_is_only_a_log(join, url):
    a, b = join(), join(learn_from_store=False)
    assert b.follower is None
    a.record_feedback(answered(a), 0.0)
    answered(b)
    given = [e.payload.get("handed_over") for e in logged(url, "decision")]
    assert [one is None for one in given] == [False, True]


@pytest.mark.parametrize("store", [None, "a list"])
def test_nobody_follows_what_is_no_shared_log(store):
    class Listing:
        def append(self, kind, decision_id, payload):
            return True

        def events(self, *, after=0, limit=None):
            return iter(())

        def close(self):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    dispatcher = Dispatcher(new_router(), store=store and Listing())
    assert dispatcher.follower is None
    with pytest.raises(UnknownDecisionError):
        dispatcher.record_feedback("d" * 32, 1.0)


def test_feedback_is_kept_and_learned_later_if_it_cannot_be_looked_up(
    join, url, monkeypatch
):
    a, b = join(), join()
    decided = answered(a)
    with monkeypatch.context() as patch:
        patch.setattr(b.journal.store, "tail", away)
        assert b.record_feedback(decided, 0.0)
        assert not b.record_feedback(decided, 0.0)
        assert b.record_feedback(decided, 1.0, kind="binary")
        assert b.record_signal(decided, "regenerate")
    hear(a, b)
    assert expected(b) == pytest.approx(expected(a), abs=1e-6)
    assert not b.router.record_feedback(decided, 0.0)
    assert not b.router.record_feedback(decided, 0.0, kind="binary")
    assert not b.router.record_signal(decided, "regenerate")
    assert len(logged(url, "feedback")) == 2


def test_nothing_is_looked_up_while_the_log_is_known_to_be_away(join, monkeypatch):
    a, b = join(), join()
    decided = answered(a)
    with monkeypatch.context() as patch:
        patch.setattr(b.journal.store, "tail", away)
        b.follower.look()
    monkeypatch.setattr(b.follower._store, "of", None)  # would be a TypeError
    assert b.record_feedback(decided, 0.0)
    assert b.follower.look()
    assert not b.record_feedback(decided, 0.0)


def test_feedback_that_nobody_could_look_up_teaches_the_next_process(
    join, url, monkeypatch, spool_folder
):
    a, b = join(), join()
    decided = answered(a)
    monkeypatch.setattr(b.journal.store, "tail", away)
    monkeypatch.setattr(b.journal.store, "append_many", away)
    b.journal._writer._delivery._append_many = away
    assert b.record_feedback(decided, 0.0)
    assert len(list(spool_folder.iterdir())) > 0
    b.journal.close()
    c = join()
    hear(a, c)
    assert len(logged(url, "feedback")) == 1
    assert not c.router.record_feedback(decided, 0.0)
    assert expected(c) == pytest.approx(expected(a), abs=1e-6)


@pytest.mark.parametrize("decision_id", ["d" * 32, "", "d" * 501, "d\x00", "\ud800"])
def test_what_nobody_has_decided_is_unknown(join, url, decision_id):
    a = join()
    with pytest.raises(UnknownDecisionError):
        a.record_feedback(decision_id, 1.0)
    with pytest.raises(UnknownDecisionError):
        a.record_signal(decision_id, "regenerate")
    a.tell(decision_id[:0], "regenerate")
    assert logged(url) == []
    assert not a.follower.is_failing  # what no log can hold is no outage


def test_an_illegal_reward_is_refused_before_anything_is_looked_up(join):
    with pytest.raises(ConfigurationError):
        join().record_feedback("d" * 32, 1.5)


async def test_nothing_is_waited_for_on_an_event_loop(join, monkeypatch):
    a, slept = join(), []
    monkeypatch.setattr("time.sleep", slept.append)
    with pytest.raises(UnknownDecisionError):
        a.record_feedback("d" * 32, 1.0)
    assert slept == [0.0]


def test_a_closed_store_knows_no_decision(join):
    a, b = join(), join()
    decided = answered(a)
    b.journal.close()
    with pytest.raises(UnknownDecisionError):
        b.record_feedback(decided, 1.0)


def test_feedback_on_what_can_only_be_logged_is_logged_once(join, url):
    a, b = join(learn_from_store=False), join()
    decided = answered(a)
    before = expected(b)
    assert b.record_feedback(decided, 0.0)
    assert not b.record_feedback(decided, 0.0)
    assert expected(b) == before
    assert len(logged(url, "feedback")) == 1


def test_signals_are_logged_and_may_go_to_another_worker(join, url):
    a, b = join(), join()
    decided = answered(a)
    assert b.record_signal(decided, "regenerate")
    assert not b.record_signal(decided, "regenerate")
    hear(a, b)
    assert not a.record_signal(decided, "regenerate")
    assert [e.payload["signal"] for e in logged(url, "signal")] == ["regenerate"]
    assert expected(a) == pytest.approx(expected(b), abs=1e-6)


def test_a_signal_that_may_not_wait_is_learned_when_it_is_heard(join, url):
    a, b = join(), join()
    decided = answered(a)
    for _ in range(2):
        b.tell(decided, "tool_error")
        b.tell(decided, "truncated")  # of which this router learns nothing
    hear(a, b)
    assert [e.payload["signal"] for e in logged(url, "signal")] == ["tool_error"]
    assert not b.router.record_signal(decided, "tool_error")
    assert expected(a) == pytest.approx(expected(b), abs=1e-6)


def test_feedback_that_is_delivered_before_its_decision_is_learned(join, url):
    a, b, c = join(), join(), join()
    decision = a.router.route(QUERY, among=["small"])
    handed_over = a.router.hand_over(decision.id)
    b.journal.feedback(decision.id, 0.0, "refined", None)
    hear(c)
    assert c.follower._listener.is_waiting
    c.follower.snapshot_every = 1
    assert c.follower.look()
    assert c.journal.store.newest_snapshot() is None  # it would lack something
    a.journal.decision(decision, handed_over=handed_over)
    hear(a, c)
    assert not c.router.record_feedback(decision.id, 0.0)
    assert c.router._experience.replay.labels("small") == 1
    assert not c.follower._listener.is_waiting


def test_feedback_that_came_early_is_learned_also_if_its_decision_is_looked_up(join):
    a, b, c = join(), join(), join()
    decision = a.router.route(QUERY, among=["small"])
    b.journal.feedback(decision.id, 0.0, "refined", None)
    hear(c)
    a.journal.decision(decision, handed_over=a.router.hand_over(decision.id))
    a.journal.flush()
    assert c.record_feedback(decision.id, 1.0, kind="binary")
    assert not c.router.record_feedback(decision.id, 0.0)
    hear(c)
    assert c.router._experience.replay.labels("small") == 1


def test_a_candidate_that_is_renamed_here_goes_on_learning_from_others(join):
    a, b = join(), join()
    renames_of(a.router).rename("small", "small-2026")
    b.record_feedback(answered(b), 0.0)
    hear(b, a)
    assert a.router._experience.replay.labels("small-2026") == 1
    assert expected(a) == pytest.approx(expected(b), abs=1e-6)


def test_what_a_renamed_candidate_does_elsewhere_is_nobodys_here(join):
    a, b = join(), join()
    renames_of(a.router).rename("small", "small-2026")
    before = expected(b)
    decided = answered(a, "small-2026")
    assert b.record_feedback(decided, 0.0)
    hear(a, b)
    assert expected(b) == before
    assert a.router._experience.replay.labels("small-2026") == 1


def test_alarms_are_logged_by_the_worker_that_was_told(join, url):
    a, b = join(), join()
    for reward in [1.0] * 40 + [0.0] * 40:
        a.record_feedback(answered(a), reward)
    raised = len(a.router.drifts)
    assert raised > 0
    hear(a, b)
    assert len(b.router.drifts) == raised
    answered(b, "large")
    assert len(logged(url, "drift")) == raised


def test_dispatchers_on_one_router_and_log_share_who_follows(join, url):
    router = new_router()
    one, other = join(router), join(router)
    assert one.follower is other.follower
    assert one.journal is not other.journal
    before = len(logged(url))
    one.record_feedback(answered(one), 0.0)
    other.record_feedback(answered(other), 0.0)
    known = expected(one)
    hear(one, other)
    assert expected(one) == known  # both are passed over
    one.journal.close()
    assert not other.follower.is_closed
    assert other.follower.catch_up() == 0
    assert len(logged(url)) == before + 6
    other.journal.close()
    assert other.follower.is_closed
    assert join(router).follower is not other.follower


def test_a_follower_goes_with_its_dispatcher(url):
    dispatcher = Dispatcher(new_router(), store=url)
    dispatcher.begin(QUERY).abandon()
    thread = dispatcher.follower._thread
    assert thread.name == "mixllm-follower"
    gone = weakref.ref(dispatcher.follower)
    dispatcher.follower._wake.set()
    thread.join(10)
    del dispatcher
    gc.collect()
    assert gone() is None


def test_it_begins_with_the_first_call_or_feedback_and_not_before(url):
    dispatcher = Dispatcher(new_router(), store=url)
    assert dispatcher.follower._thread is None
    with pytest.raises(UnknownDecisionError):
        dispatcher.record_feedback("d" * 32, 1.0)
    assert dispatcher.follower._thread is not None
    dispatcher.follower.close()


def test_a_log_that_is_away_at_first_stops_nothing_and_is_heard_later(
    join, caplog, monkeypatch
):
    a = join()
    a.record_feedback(answered(a), 0.0)
    with caplog.at_level(logging.WARNING), monkeypatch.context() as patch:
        patch.setattr(SQLStore, "last_sequence", away)
        b = join()
        assert answered(b)
        assert not b.follower.look()
        assert caplog.text.count("is not heard") == 1
        assert b.follower.is_failing
    assert b.follower.look()
    assert "is heard again" in caplog.text
    assert b.router._experience.replay.labels("small") == 1


def test_nobody_waits_for_who_waits_for_a_log_that_does_not_answer(join, monkeypatch):
    """Feedback on siblings' decisions stands in no line; it is learned later."""
    monkeypatch.setattr("mixllm_integrations.serving.following._PATIENCE_SECONDS", 0.01)
    a, b = join(), join()
    decided = answered(a)
    with b.follower._lock:  # its thread asks the database, and gets no answer
        assert b.record_feedback(decided, 0.0)
        assert not b.record_feedback(decided, 0.0)
    assert not b.follower.is_failing
    a.record_feedback(decided, 0.0)
    hear(a, b)
    assert b.router._experience.replay.labels("small") == 1


def test_a_log_that_could_not_be_asked_is_left_alone_until_it_is_back(
    join, monkeypatch, caplog
):
    a, b = join(), join()
    decided, asked = [answered(a) for _ in range(3)], []

    def refuse(*_, **__):
        asked.append(None)
        raise OSError

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        for name in ("tail", "of"):
            patched.setattr(SQLStore, name, refuse)
        assert all(b.record_feedback(one, 0.0) for one in decided)
        with pytest.raises(Exception, match=r"^$"):
            b.follower.find(decided[0])  # who came before it was known to be away
        assert len(asked) == 1
        assert caplog.text.count("is not heard") == 1
    b.follower.look()
    hear(a, b)
    assert b.router._experience.replay.labels("small") == 3


def test_a_forked_child_is_a_worker_of_its_own(join):
    a = join()
    mine = a.journal.worker
    decided = answered(a)
    hear(a)
    assert mine in a.follower._own()
    a.follower.before_fork()
    assert a.follower._listener.lock.locked()
    a.journal.worker = "the child"  # as its own hook does
    a.follower.after_fork(in_child=True)
    assert a.follower._own() == {"the child"}
    assert a.follower._thread is None
    assert not a.follower._listener.lock.locked()
    assert a.record_feedback(decided, 0.0)


def test_who_does_not_fork_goes_on(join):
    a = join()
    names = a.follower._own()
    forking._before()
    forking._after(in_child=False)
    assert a.follower._own() == names
    assert not a.follower._listener.lock.locked()


def test_a_journal_of_another_dispatcher_may_be_shared(join, url):
    journal = Journal.open(url)
    a = join(store=journal)
    b = join(a.router, store=journal)
    assert a.follower is b.follower
    journal.close()


def test_only_so_much_is_remembered_of_what_comes_early(join, monkeypatch):
    monkeypatch.setattr("mixllm_integrations.serving.hearing._EARLY", 2)
    monkeypatch.setattr("mixllm_integrations.serving.hearing._UNTAUGHT", 2)
    a, b = join(), join()
    for n in range(4):
        b.journal.feedback(f"d{n}", 0.0, "refined", None)
        a.follower.teach_later("feedback", f"d{n}", "refined")
    hear(a)
    assert list(a.follower._listener._early) == ["d2", "d3"]
    assert len(a.follower._listener._untaught) <= 2


def test_the_thread_of_a_worker_hears_others_while_it_answers(url):
    a, b = Dispatcher(new_router(), store=url), Dispatcher(new_router(), store=url)
    b.begin(QUERY).abandon()
    heard = threading.Event()
    record = b.router.record_feedback

    def noted(*given, **more):
        heard.set()
        return record(*given, **more)

    b.router.record_feedback = noted
    a.record_feedback(answered(a), 0.0)
    assert heard.wait(20)
    for one in (a, b):
        one.follower.close()
        one.journal.close()


def test_outcomes_told_to_the_router_alone_stay_in_a_snapshot(join):
    a = join()
    decision = a.router.route(QUERY, among=["small"])
    a.router.record_outcome(decision.id, Outcome(10, 20))
    late = new_router()
    assert late.resume(a.router.snapshot(a.follower.log)[1])
    assert late.awaits(decision.id)
