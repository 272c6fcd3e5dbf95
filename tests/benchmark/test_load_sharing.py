"""Worker processes share a log: what is measured of them, and what is promised."""

import json
import multiprocessing
import os
import threading
import time
import uuid
from dataclasses import asdict

import pytest
import sqlalchemy as sa

from mixllm_integrations.benchmark.load import siblings
from mixllm_integrations.benchmark.load.killing import _wait_for, _work, killing
from mixllm_integrations.benchmark.load.recovery import recovery
from mixllm_integrations.benchmark.load.siblings import sibling_delays
from mixllm_integrations.benchmark.load.workers import WorkerSetting, _serve
from mixllm_integrations.store.sql import SQLStore

POSTGRES = os.environ.get("MIXLLM_TEST_POSTGRES")
REDIS = os.environ.get("MIXLLM_TEST_REDIS")


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.network)]
)
def url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/log.db"
        return
    if not POSTGRES:
        pytest.skip("MIXLLM_TEST_POSTGRES names no PostgreSQL server")
    schema = f"mixllm_{uuid.uuid4().hex}"
    engine = sa.create_engine(POSTGRES)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    options = {"options": f"-csearch_path={schema}"}
    yield (
        sa.make_url(POSTGRES)
        .update_query_dict(options)
        .render_as_string(hide_password=False)
    )
    with engine.begin() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()


def test_killed_workers_lose_no_feedback_and_count_none_twice(url, tmp_path):
    found = killing(
        url,
        tmp_path,
        workers=3,
        kills=2,
        snapshot_every=60,
        pause_seconds=(0.3, 0.8),
    )
    assert found.is_exact
    assert found.feedback > 0
    assert found.acknowledged > 0
    assert sum(found.learned.values()) == found.feedback
    assert found.largest_difference < 0.02  # of feedback before its outcome
    with SQLStore(url) as log:
        assert sum(e.kind == "feedback" for e in log.events()) == found.feedback
    assert json.loads(json.dumps(asdict(found)))["lost"] == 0


def test_a_new_worker_knows_what_the_old_one_knew(url):
    found = recovery(url, events=900, tail_events=300)
    assert found.largest_difference < 1e-9
    assert found.snapshot_bytes > 0
    assert found.ready_seconds >= found.restore_seconds > 0
    with SQLStore(url) as log:
        assert log.last_sequence() == 900
        assert log.newest_snapshot().sequence == 600
    assert json.loads(json.dumps(asdict(found)))["tail_events"] == 300


@pytest.mark.network
def test_siblings_hear_of_feedback_and_cooldowns(url, tmp_path):
    where = None
    if REDIS:
        where = f"{REDIS}?namespace=mixllm-{uuid.uuid4().hex}"
    found = sibling_delays(
        url, shared_state=where, spool=str(tmp_path / "spool"), workers=2, repeats=1
    )
    assert len(found.feedback_seconds) == 1
    assert len(found.cooldown_seconds) == (3 if REDIS else 0)
    assert all(0 < s < 60 for s in found.feedback_seconds + found.cooldown_seconds)
    assert json.loads(json.dumps(asdict(found)))["workers"] == 2


def test_a_worker_does_what_it_is_told(tmp_path):
    here, there = multiprocessing.Pipe()
    setting = WorkerSetting(
        store=f"sqlite:///{tmp_path}/log.db",
        spool=str(tmp_path / "spool"),
        snapshot_every=5,
    )
    thread = threading.Thread(target=_serve, args=(there, setting))
    thread.start()

    def ask(do, *about):
        here.send((do, about))
        assert here.poll(60)
        return here.recv()

    decided, before = ask("decide", "large"), ask("expected")
    assert ask("judge", decided, 0.0)
    assert not ask("judge", decided, 0.0)
    assert ask("expected") != before
    ask("fail", "small")
    assert ask("resting") == ["small"]
    assert ask("pid") == os.getpid()
    here.send(("end", ()))
    thread.join(60)
    assert not thread.is_alive()


def test_a_worker_decides_and_tells_until_it_is_to_stop(tmp_path):
    setting = WorkerSetting(
        store=f"sqlite:///{tmp_path}/log.db", spool=str(tmp_path / "spool")
    )
    (tmp_path / "made").write_text("f" * 32 + "\n")  # of a worker that was killed
    thread = threading.Thread(target=_work, args=(setting, tmp_path, 0))
    thread.start()
    until = time.monotonic() + 60
    while not (tmp_path / "told").exists() and time.monotonic() < until:
        time.sleep(0.01)
    (tmp_path / "stop").touch()
    thread.join(60)
    assert not thread.is_alive()
    made, told = ((tmp_path / name).read_text().split() for name in ("made", "told"))
    assert set(told) <= set(made)
    assert "f" * 32 not in told


def test_siblings_that_never_know_are_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(siblings, "_LONGEST_SECONDS", 0.0)
    with pytest.raises(TimeoutError, match="siblings did not know"):
        siblings._until(lambda: False, time.perf_counter())


def test_workers_that_do_not_begin_are_not_waited_for(tmp_path):
    with pytest.raises(TimeoutError, match="no worker has begun"):
        _wait_for(tmp_path / "made", [])
