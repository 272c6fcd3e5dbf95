"""The state in Redis, and how one is opened."""

import json
import os
import sys
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.store.live import (
    Load,
    MemoryState,
    RestNote,
    SessionNote,
    SharedState,
    SharedStateError,
    Told,
    open_shared_state,
)
from mixllm_integrations.store.live.redis import RedisState
from mixllm_integrations.testing import ManualClock

pytestmark = pytest.mark.network
DOWN = RestNote("small", 0, 0.0, 0.0, 30.0, 30.0, False, False, False, False, 600.0)  # noqa: FBT003
URL = os.environ.get("MIXLLM_TEST_REDIS")
needs_redis = pytest.mark.skipif(
    not URL, reason="no Redis: set MIXLLM_TEST_REDIS, e.g. redis://127.0.0.1:6379/0"
)


def rest_of(heard, name="small"):
    return next((r for r in heard.rests if r.candidate == name), None)


def changed(note=DOWN, **what):
    return note._replace(**what)


UP = changed(well=True, remaining=0.0, seconds=0.0)


@needs_redis
class TestRedis:
    def test_all_keys_are_under_the_namespace_and_expire(self, namespace, worker_of):
        import redis

        state = RedisState(f"{URL}?namespace={namespace}")
        worker_of(state, "w").tell(
            DOWN, sessions=[SessionNote("s", "small", 5_000, 1.0)]
        )
        with redis.Redis.from_url(URL) as client:
            found = {
                key.decode().partition(":")[2]: client.pttl(key)
                for key in client.scan_iter(f"*{namespace}*", count=1000)
            }
        assert set(found) == {"workers", "loads", "rests", "sessions"}
        assert all(0 < left <= 7_200_000 for left in found.values())
        state.close()

    def test_two_namespaces_do_not_mix(self, namespace, worker_of, lost):
        states = [RedisState(f"{URL}?namespace={namespace}{i}") for i in "ab"]
        worker_of(states[0], "w").tell(DOWN, load={"a": Load(1, 1.0)})
        heard = worker_of(states[1], "v").tell()
        assert (heard.loads, heard.rests) == ({}, [])
        for state, i in zip(states, "ab", strict=True):
            state.close()
            lost(state, f"{namespace}{i}")

    def test_entries_that_cannot_be_read_are_left_out(self, namespace, worker_of):
        import redis

        state = RedisState(f"{URL}?namespace={namespace}")
        worker = worker_of(state, "w")
        worker.tell(load={"a": Load(1, 1.0)})
        prefix = f"{{{namespace}}}:"
        with redis.Redis.from_url(URL) as client:
            for i, text in enumerate(("nonsense", "1 [1]", '1 {"a": 3}', "")):
                client.hset(f"{prefix}loads", f"x{i}", text)
                client.zadd(f"{prefix}workers", {f"x{i}": 2e15})
                now = client.time()
                client.zadd(f"{prefix}workers", {f"x{i}": now[0] * 1e6 + now[1]})
            client.hset(f"{prefix}rests", json.dumps("b"), "1 2 x")
            client.hset(f"{prefix}rests", "no json", "1 1 1 9e15 1 1 0 0 9e15 -")
            client.xadd(f"{prefix}sessions", {"n": "[", "at": 1})
            client.xadd(f"{prefix}sessions", {"other": "x"})
        heard = worker_of(state, "v").tell(DOWN)
        assert heard.loads == {"a": Load(1, 1.0)}
        assert [rest.candidate for rest in heard.rests] == ["small"]
        assert not heard.sessions
        state.close()

    def test_its_own_clock_is_used_where_none_is_given(self, namespace, worker_of):
        states = [RedisState(f"{URL}?namespace={namespace}") for _ in range(2)]
        worker_of(states[0], "w").tell(changed(age=1.0, since=1.0, remaining=29.0))
        rest = rest_of(worker_of(states[1], "v").tell())
        assert rest.remaining == pytest.approx(29.0, abs=0.5)
        assert rest.since == pytest.approx(1.0, abs=0.5)
        for state in states:
            state.close()

    def test_what_comes_out_of_a_pickle_meets_the_same_workers(
        self, namespace, worker_of
    ):
        import pickle

        state = RedisState(f"{URL}?namespace={namespace}")
        worker_of(state, "w").tell(DOWN)
        other = pickle.loads(pickle.dumps(state))  # noqa: S301
        assert rest_of(worker_of(other, "v").tell()) is not None
        state.close()
        other.close()


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["first", "second", "third"]),
            st.sampled_from(["down", "told", "up", "open", "probe"]),
            st.integers(0, 40),
            st.integers(0, 40),
            st.booleans(),
        ),
        max_size=12,
    )
)
@needs_redis
def test_redis_and_memory_agree_on_every_history(steps, worker_of, lost):
    clock = ManualClock(1_000_000.0)
    name = f"test-{uuid.uuid4().hex}"
    states = [
        RedisState(f"{URL}?namespace={name}", clock=clock),
        MemoryState(clock=clock),
    ]
    workers = [
        {w: worker_of(s, w) for w in ("first", "second", "third")} for s in states
    ]
    seen = [{}, {}]
    try:
        for who, what, wait, age, knows in steps:
            clock.advance(wait / 8)
            heard = []
            for i in range(2):
                base = seen[i].get(who, 0) if knows else 0
                note = changed(
                    *(),
                    base=base,
                    age=age / 4,
                    since=age / 4 + wait / 8,
                    remaining={"told": 100.0, "up": 0.0, "probe": -1.0}.get(what, 30.0),
                    told=what == "told",
                    well=what == "up",
                    reopened=what == "open",
                    probing=what == "probe",
                )
                answer = workers[i][who].tell(note)
                rest = rest_of(answer)
                seen[i][who] = rest.version
                heard.append((answer.versions[0] > 0, rest._replace(version=0)))
            assert heard[0] == heard[1]
    finally:
        lost(states[0], name)
        states[0].close()


class TestOpening:
    def test_a_state_of_ones_own_is_taken_as_it_is(self):
        state = MemoryState()
        assert open_shared_state(state) is state
        assert isinstance(state, SharedState)

    def test_nothing_stays_nothing(self):
        assert open_shared_state(None) is None

    @pytest.mark.parametrize(
        "url",
        ["redsi://host", "host:6379", "redis://host:port/0", "", "http://:geheim@host"],
    )
    def test_a_url_that_cannot_be_read_is_refused_without_showing_it(self, url):
        with pytest.raises(ConfigurationError, match="redis://user") as caught:
            open_shared_state(url)
        assert "geheim" not in str(caught.value)

    @pytest.mark.parametrize("name", ["", "a b", "{a}", "a" * 65, "ü", "a*"])
    def test_a_namespace_that_cannot_be_used_is_refused(self, name):
        with pytest.raises(ConfigurationError, match="namespace"):
            open_shared_state(f"redis://host/0?namespace={name}")

    def test_an_unknown_option_is_refused_at_once(self):
        with pytest.raises(ConfigurationError, match="nonsense"):
            open_shared_state("redis://:geheim@host/0?nonsense=1")

    @pytest.mark.parametrize("given_", [7, object(), b"redis://host"])
    def test_anything_else_is_refused(self, given_):
        with pytest.raises(ConfigurationError, match="shared_state must be"):
            open_shared_state(given_)

    def test_a_password_is_shown_nowhere(self):
        state = open_shared_state("redis://me:geheim@127.0.0.1:1/0?namespace=n")
        assert repr(state) == "RedisState('redis://127.0.0.1:1/0', namespace='n')"
        with pytest.raises(SharedStateError) as caught:
            state.exchange(Told("w", 1, {}))
        assert "geheim" not in str(caught.value)
        assert caught.value.__cause__ is None
        state.close()

    def test_a_server_that_is_not_there_is_no_error_until_it_is_used(self):
        state = open_shared_state("redis://127.0.0.1:1/0")
        with pytest.raises(SharedStateError, match="ConnectionError"):
            state.exchange(Told("w", 1, {}))
        state.close()

    def test_without_the_package_it_is_said_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "redis", None)
        with pytest.raises(ConfigurationError, match=r"mixllm-integrations\[redis\]"):
            open_shared_state("redis://host/0")
