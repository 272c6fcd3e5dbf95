"""Places where workers meet: in memory, and in a real Redis."""

import os
import uuid

import pytest

from mixllm_integrations.store.live import (
    MemoryState,
    Told,
)
from mixllm_integrations.store.live.redis import RedisState
from mixllm_integrations.testing import ManualClock

URL = os.environ.get("MIXLLM_TEST_REDIS")
REASON = "no Redis: set MIXLLM_TEST_REDIS, e.g. redis://127.0.0.1:6379/0"
needs_redis = pytest.mark.skipif(not URL, reason=REASON)


def lose(state, namespace):
    if isinstance(state, MemoryState):
        state.clear()
        return
    import redis

    with redis.Redis.from_url(URL) as client:
        for key in client.scan_iter(f"{{{namespace}}}*", count=1000):
            client.delete(key)


@pytest.fixture
def clock():
    return ManualClock(1_000_000.0)


@pytest.fixture
def namespace():
    name = f"test-{uuid.uuid4().hex}"
    yield name
    if URL:
        lose(None, name)


@pytest.fixture(params=["memory", pytest.param("redis", marks=needs_redis)])
def state(request, clock, namespace):
    if request.param == "memory":
        yield MemoryState(clock=clock)
        return
    with_clock = RedisState(f"{URL}?namespace={namespace}", clock=clock)
    yield with_clock
    with_clock.close()


class Worker:
    """Tells and hears, one message after the other."""

    def __init__(self, state, name):
        self.state, self.name, self.number, self.cursor = state, name, 0, ""

    def tell(self, *rests, load=None, sessions=()):
        self.number += 1
        told = Told(*(self.name, self.number, load or {}, rests, sessions, self.cursor))
        heard = self.state.exchange(told)
        self.cursor = heard.cursor
        return heard


@pytest.fixture
def first(state):
    return Worker(state, "first")


@pytest.fixture
def second(state):
    return Worker(state, "second")


@pytest.fixture(scope="session")
def worker_of():
    """Make a worker over a state, by its name."""
    return Worker


@pytest.fixture(scope="session")
def lost():
    """Make a state, or a namespace, lose all that it has."""
    return lose
