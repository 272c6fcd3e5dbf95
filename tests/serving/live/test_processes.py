"""Workers in processes of their own, and a Redis that comes and goes."""

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid

import pytest

from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving import Dispatcher

pytestmark = pytest.mark.network
URL = os.environ.get("MIXLLM_TEST_REDIS")
SERVER = shutil.which("redis-server")
needs_redis = pytest.mark.skipif(
    not URL, reason="no Redis: set MIXLLM_TEST_REDIS, e.g. redis://127.0.0.1:6379/0"
)
needs_server = pytest.mark.skipif(SERVER is None, reason="no redis-server is installed")

CHILD = """
import sys
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving import Dispatcher

router = Router([Candidate("best", 1.0, 2.0, prior_quality=0.9),
                 Candidate("middle", 2.0, 4.0, prior_quality=0.5)], exploration=0.0)
worker = Dispatcher(router, shared_state=sys.argv[1])
calls = [worker.begin("a question") for _ in range(3)]
print("ready", flush=True)
for line in sys.stdin:
    worker.cooldown.start("best")
    print("told", flush=True)
"""


def made(url, **settings):
    router = Router(
        [
            Candidate("best", 1.0, 2.0, prior_quality=0.9),
            Candidate("middle", 2.0, 4.0, prior_quality=0.5),
        ],
        exploration=0.0,
        **settings,
    )
    return Dispatcher(router, shared_state=url)


def seconds_until(what, *, most):
    started = time.monotonic()
    while not what():
        if time.monotonic() - started > most:
            pytest.fail(f"not within {most} s")
        time.sleep(0.01)
    return time.monotonic() - started


def elsewhere(worker):
    return worker.router._waiting._queues["best"].calls_elsewhere


@pytest.fixture
def url():
    name = f"test-{uuid.uuid4().hex}"
    yield f"{URL}?namespace={name}"
    import redis

    with redis.Redis.from_url(URL) as client:
        for key in client.scan_iter(f"{{{name}}}*", count=1000):
            client.delete(key)


@pytest.fixture
def worker(url):
    started = made(url)
    started.begin("a question").abandon()
    yield started
    started.live.close()


@pytest.fixture
def child(url):
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


@needs_redis
class TestProcesses:
    def test_the_load_of_a_killed_worker_is_gone_soon(self, worker, child):
        seconds_until(lambda: elsewhere(worker) == 3, most=1.0)
        child.send_signal(signal.SIGKILL)
        seconds_until(lambda: elsewhere(worker) == 0, most=3.0)

    def test_a_sibling_process_acts_on_a_cooldown_within_a_second(self, worker, child):
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "told\n"
        seconds_until(lambda: "best" in worker.cooldown.due(), most=1.0)
        call = worker.begin("a question")
        assert call.candidate == "middle"
        call.abandon()

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_forked_child_is_a_worker_of_its_own(self, worker):
        ours = worker.live.worker
        call = worker.begin("a question")
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                no_thread = worker.live._thread is None
                worker.begin("a question")
                worker.cooldown.start("middle")
                seconds_until(lambda: elsewhere(worker) == 1, most=2.0)
                text = f"{no_thread} {worker.live.worker}"
                os.write(write, text.encode())
                time.sleep(0.1)
            finally:
                os._exit(0)
        os.close(write)
        seconds_until(lambda: "middle" in worker.cooldown.due(), most=2.0)
        told = os.read(read, 100).decode().split()
        os.close(read)
        os.waitpid(child, 0)
        assert told[0] == "True"
        assert told[1] != ours == worker.live.worker
        call.abandon()

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_children_may_be_forked_while_the_thread_is_at_work(self, worker):
        """None is born with a lock that nobody gives back."""
        for _ in range(10):
            worker.cooldown.start("best")
            child = os.fork()
            if not child:
                worker.live.look()
                worker.begin("a question").abandon()
                os._exit(7)
            gone = []
            reaper = threading.Thread(
                target=lambda c=child, g=gone: g.append(os.waitpid(c, 0)[1])
            )
            reaper.start()
            reaper.join(5.0)
            if not gone:
                os.kill(child, signal.SIGKILL)
                reaper.join()
                pytest.fail("a forked child hangs")
            assert os.waitstatus_to_exitcode(gone[0]) == 7

    def test_a_forked_childs_first_call_has_a_lease_of_its_own(self, url):
        parent = made(url, spending_budget=1.0, when_spent="stop")
        parent.begin("a question").abandon()
        child = os.fork()
        if not child:
            code = 1
            try:
                nothing = parent.router.purse.left == 0.0
                parent.begin("a question").abandon()
                code = 7 if nothing else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        parent.live.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class OwnServer:
    """A Redis for one test, which may be ended and begun."""

    def __init__(self, folder):
        self.port, self.folder, self.process = free_port(), folder, None

    @property
    def url(self):
        return f"redis://:geheim@127.0.0.1:{self.port}/0"

    def begin(self, word="geheim"):
        self.process = subprocess.Popen(
            [
                *(SERVER, "--port", str(self.port), "--save", "", "--bind"),
                *("127.0.0.1", "--requirepass", word, "--dir", str(self.folder)),
            ],
            stdout=subprocess.DEVNULL,
        )
        seconds_until(self.answers, most=5.0)

    def answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 0.2).close()
        except OSError:
            return False
        return True

    def end(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path):
    own = OwnServer(tmp_path)
    yield own
    own.end()


@needs_server
class TestRedisComesAndGoes:
    def test_a_worker_begins_without_it_and_is_in_touch_once_it_is_there(
        self, server, caplog
    ):
        with caplog.at_level(logging.WARNING, "mixllm_integrations.serving.live"):
            worker = made(server.url)
            call = worker.begin("a question")
            server.begin()
            seconds_until(lambda: len(caplog.records) == 2, most=4.0)
        assert "is away" in caplog.messages[0]
        assert "is back" in caplog.messages[1]
        assert "geheim" not in caplog.text
        call.abandon()
        worker.live.close()

    def test_one_that_is_restarted_empty_hears_all_again(self, server):
        server.begin()
        one, two = made(server.url), made(server.url)
        one.cooldown.start("best")
        assert one.live.look()
        server.end()
        assert not one.live.look()
        assert "best" not in two.cooldown.due()
        server.begin()
        assert one.live.look()
        assert two.live.look()
        assert "best" in two.cooldown.due()
        assert made(server.url).cooldown.due()

    def test_a_flush_is_made_good_at_the_next_look(self, server):
        import redis

        server.begin()
        one = made(server.url)
        one.cooldown.start("best")
        one.live.look()
        with redis.Redis.from_url(server.url) as client:
            client.flushall()
        one.live.look()
        assert "best" in made(server.url).cooldown.due()

    def test_a_wrong_password_stops_nothing_and_is_not_shown(self, server, caplog):
        server.begin(word="another")
        with caplog.at_level(logging.WARNING, "mixllm_integrations"):
            worker = made(server.url)
        assert "AuthenticationError" in caplog.text
        assert "geheim" not in caplog.text
        assert worker.begin("a question").candidate == "best"
        worker.live.close()


def test_something_that_is_no_redis_stops_nothing(caplog):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        with caplog.at_level(logging.WARNING, "mixllm_integrations"):
            started = time.monotonic()
            worker = made(f"redis://127.0.0.1:{port}/0")
            assert time.monotonic() - started < 2.0
        assert "TimeoutError" in caplog.text
        assert worker.begin("a question").candidate == "best"
        worker.live.close()
