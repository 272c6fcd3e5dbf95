"""How far a log was heard: each event is learned from once."""

import copy
import json
import pickle
import queue
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Outcome

QUERIES = ("Explain contract about court?", "Explain sum 1 + 1", "")
DONE = Outcome(40, 300, cost=0.004, latency_seconds=2.0)


@pytest.fixture(scope="module")
def folder(few, tmp_path_factory):
    """Return a folder of a router that was fitted on few records."""
    path = tmp_path_factory.mktemp("saved") / "router"
    Router(few.candidates, predictor="ridge").fit(few.records()).save(path)
    return path


@pytest.fixture(params=["unfitted", "fitted"])
def pair(request, few, folder):
    """Return two workers that were started alike."""
    if request.param == "fitted":
        return Router.load(folder), Router.load(folder)
    return Router(few.candidates), Router(few.candidates)


def view(router):
    found = router.predict(QUERIES)
    return np.stack([found.quality, found.output_tokens, found.cost, found.uncertainty])


def same(one, other):
    # A state keeps what heads are fitted from in half precision, all else whole.
    np.testing.assert_allclose(view(one), view(other), rtol=1e-6, atol=1e-9)


def work(router, n=6, reward=0.1):
    """Let a router decide and learn; return the ids."""
    names = [c.name for c in router.candidates]
    ids = [
        router.route(QUERIES[i % 3], among=[names[i % len(names)]]).id for i in range(n)
    ]
    for decision_id in ids:
        router.record_outcome(decision_id, DONE)
        router.record_feedback(decision_id, reward)
    return ids


def decided(router, query=QUERIES[0], **terms):
    """Return an id, and the record of it as the log gives it back."""
    decision_id = router.route(query, **terms).id
    return decision_id, json.loads(json.dumps(router.hand_over(decision_id)))


# --- how far a log was heard -----------------------------------------------------


def test_an_event_is_new_once(few):
    router = Router(few.candidates)
    assert router.heard("log") is None
    found = []
    for sequence in (1, 1, 3, 2, 3, 4):
        with router.hearing("log", sequence) as is_new:
            found.append(is_new)
    assert found == [True, False, True, False, False, True]
    assert (router.heard("log"), router.heard("another")) == (4, None)


def test_an_event_is_heard_even_if_learning_from_it_fails(few):
    router = Router(few.candidates)
    with pytest.raises(LookupError), router.hearing("log", 7):
        raise LookupError
    assert router.heard("log") == 7
    router.route(QUERIES[0])  # the lock is free again


def test_one_can_begin_to_hear_a_log_anywhere(few):
    router = Router(few.candidates)
    router.hear_from("log", 5)
    with router.hearing("log", 5) as is_new:
        assert not is_new
    with router.hearing("log", 6) as is_new:
        assert is_new


@pytest.mark.parametrize("bad", [-1, 1.5, "3", None, True, float("nan")])
def test_a_sequence_is_a_whole_number(few, bad):
    router = Router(few.candidates)
    with pytest.raises(ConfigurationError, match="sequence"):
        router.hear_from("log", bad)
    with (
        pytest.raises(ConfigurationError, match="sequence"),
        router.hearing("log", bad),
    ):
        pytest.fail("it must not be learned from")
    assert router.heard("log") is None


def test_what_was_heard_survives_every_way_to_go_on(few, tmp_path):
    router = Router(few.candidates)
    router.hear_from("log", 2**60 + 1)  # more than a float can tell
    router.save(tmp_path / "saved")
    again = Router.load(tmp_path / "saved"), copy.deepcopy(router)
    unpickled = pickle.loads(pickle.dumps(router))  # noqa: S301 - its own
    for other in (*again, unpickled):
        assert other.heard("log") == 2**60 + 1


def test_a_state_of_an_earlier_release_has_heard_nothing(few, tmp_path, rewrite):
    router = Router(few.candidates)
    work(router)
    router.save(tmp_path / "saved")
    rewrite(
        tmp_path / "saved", lambda state, _: (state.pop("heard"), state.pop("speeds"))
    )
    again = Router.load(tmp_path / "saved")
    assert again.heard("log") is None
    same(router, again)


@pytest.mark.parametrize(
    ("key", "bad", "what"),
    [
        ("heard", {"log": -3}, "how far"),
        ("heard", ["log"], "how far"),
        ("speeds", {"lawyer": [-1.0, None]}, "how fast"),
        ("speeds", {"lawyer": 3}, "how fast"),
    ],
)
def test_what_cannot_be_read_of_it_is_dropped(few, tmp_path, rewrite, key, bad, what):
    Router(few.candidates).save(tmp_path / "saved")
    rewrite(tmp_path / "saved", lambda state, _: state.update({key: bad}))
    with pytest.warns(RuntimeWarning, match=what):
        again = Router.load(tmp_path / "saved")
    assert again.heard("log") is None
    again.route(QUERIES[0])


def test_a_measured_speed_survives_a_restart(few, tmp_path):
    router = Router(few.candidates)
    work(router)
    router.save(tmp_path / "saved")
    assert Router.load(tmp_path / "saved")._waiting.speeds() == router._waiting.speeds()
    assert router._waiting.speeds()["lawyer"] != (None, None)


def test_a_snapshot_has_both_what_was_learned_and_that_it_was_heard(few):
    router = Router(few.candidates)
    (decision_id,) = [router.route(QUERIES[0]).id]
    learned, go_on, taken = threading.Event(), threading.Event(), []

    def hear():
        with router.hearing("log", 9):
            router.record_feedback(decision_id, 0.0)
            learned.set()
            go_on.wait(10)

    def take():
        taken.append(router.snapshot("log"))

    threads = [threading.Thread(target=job) for job in (hear, take)]
    threads[0].start()
    assert learned.wait(10)
    threads[1].start()
    threads[1].join(0.1)
    assert not taken  # it waits for the event to be heard
    go_on.set()
    for thread in threads:
        thread.join(10)
    ((sequence, content),) = taken
    late = Router(few.candidates)
    assert late.resume(content)
    assert (sequence, late.heard("log")) == (9, 9)
    same(late, router)


def at_once(*jobs):
    """Run jobs on a thread each; return what went wrong in them."""
    errors = []

    def watched(job):
        try:
            job()
        except Exception as error:  # noqa: BLE001 - returned
            errors.append(error)

    threads = [threading.Thread(target=watched, args=(j,), daemon=True) for j in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return errors


def test_handing_over_adopting_and_routing_at_once_do_not_block_each_other(few):
    a, b = Router(few.candidates), Router(few.candidates)
    log = queue.Queue()

    def decide():
        for i in range(60):
            log.put(decided(a, QUERIES[i % 3]))

    def follow():
        for sequence in range(1, 61):
            handed_over = log.get(timeout=30)
            with b.hearing("log", sequence) as is_new:
                assert is_new
                assert b.adopt(*handed_over)
                b.record_feedback(handed_over[0], 0.5)

    def route():
        for i in range(60):
            b.record_outcome(b.route(QUERIES[i % 3]).id, DONE)
            if i % 20 == 0:
                b.snapshot("log")

    assert at_once(decide, follow, route) == []
    assert b._experience.replay.mark == 60


# --- any order -------------------------------------------------------------------


class Fleet:
    """Two workers, the log that they share, and one that sees everything at the end."""

    def __init__(self, pair):
        self.routers = dict(zip("ab", map(copy.deepcopy, pair), strict=True))
        self.one = copy.deepcopy(pair[0])
        self.log, self.told = [], set()

    def decide(self, who, query, place):
        router = self.routers[who]
        among = [router.candidates[place].name]
        self.log.append((who, "decision", *decided(router, query, among=among)))

    def tell(self, who, reward):
        for _, kind, decision_id, _ in list(self.log):
            is_open = kind == "decision" and decision_id not in self.told
            if is_open and self.routers[who].awaits(decision_id):
                self.told.add(decision_id)
                hear(self.routers[who], "told", decision_id, reward)
                self.log.append((who, "told", decision_id, reward))
                return

    def tail(self, who):
        for sequence, (by, *event) in enumerate(self.log, start=1):
            with self.routers[who].hearing("log", sequence) as is_new:
                if is_new and by != who:
                    hear(self.routers[who], *event)


def hear(router, kind, decision_id, what):
    if kind == "decision":
        assert router.adopt(decision_id, what)
    else:
        router.record_outcome(decision_id, DONE)
        assert router.record_feedback(decision_id, what)


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.sampled_from(["decide", "tell", "tail"]),
            st.sampled_from([0.2, 0.5, 0.9]),
        ),
        min_size=4,
        max_size=14,
    )
)
def test_workers_that_hear_each_other_know_what_one_would(pair, steps):
    fleet = Fleet(pair)
    for i, (who, step, reward) in enumerate(steps):
        if step == "decide":
            fleet.decide(who, QUERIES[i % 3], i % 3)
        elif step == "tell":
            fleet.tell(who, reward)
        else:
            fleet.tail(who)
    for _, *event in fleet.log:
        hear(fleet.one, *event)
    for who, router in fleet.routers.items():
        fleet.tail(who)
        np.testing.assert_allclose(view(router), view(fleet.one), rtol=1e-6, atol=1e-6)
        assert router.heard("log") == (len(fleet.log) or None)
