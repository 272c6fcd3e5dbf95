"""A process may be forked while its threads are at work: the child goes on, too."""

import os
import subprocess
import sys
import threading
from weakref import WeakKeyDictionary, WeakSet

import pytest

from mixllm_integrations import Candidate, Router
from mixllm_integrations.core import forking
from mixllm_integrations.store.gate import Gate
from mixllm_integrations.store.sql import SQLStore

LONG = 120.0
MOMENT = 0.05
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

# Children of a process whose threads route, learn, and write all the while.
BUSY = """
import os, signal, sys, threading, warnings

warnings.simplefilter("ignore", DeprecationWarning)
from mixllm_integrations import CandidateModel, MixLLMChatModel
from mixllm_integrations.testing import ScriptedChatModel

prices = {"input_cost_per_million_tokens": 1.0, "output_cost_per_million_tokens": 4.0}
model = MixLLMChatModel(
    candidates=[
        CandidateModel(model=ScriptedChatModel(), name=name, **prices)
        for name in ("one", "other")
    ],
    store=sys.argv[1],
    shared_state=sys.argv[2] if len(sys.argv) > 2 else None,
)
over = threading.Event()

def work():
    while not over.is_set():
        model.record_feedback(model.invoke("Is 221 a prime number?"), 0.5)

model.invoke("warm up")  # Python's own locks on modules being imported are held, too
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
hung = 0
for _ in range(15):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        model.record_feedback(model.invoke("I am new here"), 1.0, source="child")
        os._exit(0)
    hung += os.waitpid(child, 0)[1] != 0
over.set()
for thread in threads:
    thread.join()
print(hung, "hung")
"""

# As `gunicorn --preload` does: built and warmed up once, then forked.
PRELOADED = """
import os, signal, sys

from mixllm_integrations import CandidateModel, MixLLMChatModel
from mixllm_integrations.testing import ScriptedChatModel

prices = {"input_cost_per_million_tokens": 1.0, "output_cost_per_million_tokens": 4.0}
model = MixLLMChatModel(
    candidates=[CandidateModel(model=ScriptedChatModel(), name="one", **prices)],
    store=sys.argv[1],
)
first = model.invoke("warm up")
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        for n in range(5):
            model.record_feedback(model.invoke(f"question {n}"), 0.5)
        model.record_feedback(first, 1.0, source="all of them")
        sys.exit(0)  # what is to be written is written at exit
    children.append(child)
ended = [os.waitpid(child, 0)[1] for child in children]
assert ended == [0] * 3, ended
"""


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=LONG,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def url(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXLLM_SPOOL", str(tmp_path / "spool"))
    return f"sqlite:///{tmp_path}/log.db"


@pytest.fixture
def alone(monkeypatch):
    """Forget whom other tests have put under watch."""
    monkeypatch.setattr(forking, "_WATCHED", WeakKeyDictionary())
    monkeypatch.setattr(forking, "_LOCKS", WeakSet())
    monkeypatch.setattr(forking, "_FORKING", [])


class Watched:
    def __init__(self, told):
        self.told = told

    def before_fork(self):
        self.told.append((self, "before"))

    def after_fork(self, *, in_child):
        self.told.append((self, in_child))


def on_a_thread(work):
    done = threading.Event()

    def do():
        work()
        done.set()

    threading.Thread(target=do, daemon=True).start()
    return done


def test_children_of_a_process_at_work_answer_and_learn(url):
    assert run(BUSY, url) == "0 hung\n"
    with SQLStore(url) as store:
        told = [e for e in store.events() if e.payload.get("source") == "child"]
    assert len(told) == 15


@pytest.mark.network
@pytest.mark.skipif(
    not os.environ.get("MIXLLM_TEST_REDIS"), reason="MIXLLM_TEST_REDIS names no server"
)
def test_so_do_they_with_a_shared_state(url):
    redis = os.environ["MIXLLM_TEST_REDIS"] + f"?namespace=forks-{os.getpid()}"
    assert run(BUSY, url, redis) == "0 hung\n"


def test_workers_forked_from_a_preloaded_model_log_all_and_each_thing_once(url):
    run(PRELOADED, url)
    with SQLStore(url) as store:
        events = list(store.events())
    kinds = [e.kind for e in events]
    assert (kinds.count("decision"), kinds.count("outcome")) == (16, 16)
    assert kinds.count("feedback") == 16
    assert len({e.payload["worker"] for e in events if e.kind == "decision"}) == 4


def test_the_first_are_told_first_and_go_on_last(alone):
    told = []
    routers, databases, threads = (Watched(told) for _ in range(3))
    forking.survive_forks(routers, order=forking.ROUTERS)
    forking.survive_forks(databases, order=forking.DATABASES)
    forking.survive_forks(threads)
    forking._before()
    forking._after(in_child=False)
    assert told == [
        *((one, "before") for one in (databases, threads, routers)),
        *((one, False) for one in (routers, threads, databases)),
    ]


def test_a_lock_that_somebody_else_held_is_free_in_a_child(alone):
    lock = forking.forkable_lock()
    assert on_a_thread(lock.acquire).wait(LONG)
    assert not lock.acquire(blocking=False)
    forking._after(in_child=True)
    assert lock.acquire(blocking=False)


def test_a_fork_waits_until_a_decision_is_made(alone):
    router = Router([Candidate("one", 1.0, 4.0)])
    router._lock.acquire()
    waited = on_a_thread(forking._before)
    assert not waited.wait(MOMENT)
    router._lock.release()
    assert waited.wait(LONG)


def test_a_child_has_no_calls_and_no_refit_of_its_parent_under_way(alone):
    router = Router([Candidate("one", 1.0, 4.0)])
    router.route("What is 3 plus 4?")
    router._refit_is_running = True
    fitting = router._fitting
    forking._before()
    forking._after(in_child=False)
    assert router.load_here()["one"][0] == 1
    assert router._refit_is_running
    forking._before()
    forking._after(in_child=True)
    assert router.load_here() == {}
    assert not router._refit_is_running
    assert router._fitting is not fitting
    assert on_a_thread(lambda: router.route("What is 5 plus 6?")).wait(LONG)


class TestGate:
    @pytest.fixture
    def gate(self, alone):
        return Gate(most_seconds=LONG)

    @staticmethod
    def enter(gate):
        with gate.inside():
            pass

    def test_a_fork_waits_until_all_have_left(self, gate):
        with gate.inside():
            waited = on_a_thread(forking._before)
            assert not waited.wait(MOMENT)
        assert waited.wait(LONG)

    def test_nobody_comes_in_until_the_process_has_forked(self, gate):
        forking._before()
        entered = on_a_thread(lambda: self.enter(gate))
        assert not entered.wait(MOMENT)
        forking._after(in_child=False)
        assert entered.wait(LONG)

    def test_who_forks_may_come_in_all_the_while(self, gate):
        forking._before()
        self.enter(gate)
        forking._after(in_child=False)

    def test_nobody_is_inside_in_a_child(self, gate):
        inside = gate.inside()
        inside.__enter__()
        gate.after_fork(in_child=True)
        gate.before_fork()
        gate.after_fork(in_child=False)
        self.enter(gate)

    def test_a_fork_waits_no_longer_than_that(self, alone):
        gate = Gate(most_seconds=MOMENT)
        with gate.inside():
            forking._before()
            forking._after(in_child=False)
