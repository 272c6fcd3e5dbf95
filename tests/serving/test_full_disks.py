"""Disks that are full and tables that are locked: calls go on, nothing is lost."""

import errno
import logging
import os
import subprocess
import sys
import uuid
from contextlib import suppress

import pytest
import sqlalchemy as sa

from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving import Dispatcher
from mixllm_integrations.store import open_store
from mixllm_integrations.store.urls import parsed

POSTGRES = os.environ.get("MIXLLM_TEST_POSTGRES")
LONG = 60.0
KINDS = ("decision", "outcome", "feedback")


def new_router():
    candidates = [Candidate(name, 1.0, 2.0, prior_quality=0.5) for name in ("a", "b")]
    return Router(candidates, prior="none")


class Disk:
    """A small file system of its own."""

    def __init__(self, folder):
        self.folder = folder

    def resize(self, kilobytes):
        done = subprocess.run(
            ["mount", "-o", f"remount,size={kilobytes}k", str(self.folder)],  # noqa: S607
            check=False,
        )
        assert done.returncode == 0

    def fill(self):
        with (self.folder / "ballast").open("wb", buffering=0) as file:
            for size in (4_096, 1):
                with suppress(OSError):
                    while file.write(bytes(size)):
                        pass
        assert os.statvfs(self.folder).f_bavail == 0

    def empty(self):
        (self.folder / "ballast").unlink()


@pytest.fixture
def disk(tmp_path):
    """A file system in memory; who may not mount one has other tests."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1000k", "mixllm-test", str(folder)]
    try:
        made = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    except OSError:
        made = False
    if not made:
        pytest.skip("no file system may be mounted here")
    yield Disk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607


def use(dispatcher, count, *, feedback=True):
    """Make calls to their end, and return their decisions in order.

    Feedback waits until it is safe, or a retry later where nothing can make it so.
    """
    ids = []
    for _ in range(count):
        call = dispatcher.begin("q")
        call.succeed(input_tokens=10, output_tokens=20)
        if feedback:
            assert dispatcher.record_feedback(call.decision.id, 1.0)
        ids.append(call.decision.id)
    return ids


def logged(url):
    with open_store(url) as store:
        return [(event.decision_id, event.kind) for event in store.events()]


def all_of(ids):
    return [(name, kind) for name in ids for kind in KINDS]


class TestSaving:
    def test_a_full_disk_leaves_the_old_router_and_is_named(self, disk):
        target = disk.folder / "router"
        router = new_router()
        router.save(target)
        router.record_feedback(router.route("q").id, 1.0)
        disk.fill()
        with pytest.raises(OSError, match="No space left") as failure:
            router.save(target)
        assert failure.value.errno == errno.ENOSPC
        assert failure.value.filename == str(target)
        assert Router.load(target).predict(["q"]).quality.tolist() == [[0.5, 0.5]]
        disk.empty()
        assert [path.name for path in disk.folder.iterdir()] == ["router"]
        router.save(target)
        loaded = Router.load(target).predict(["q"]).quality.tolist()
        assert loaded == router.predict(["q"]).quality.tolist() != [[0.5, 0.5]]

    def test_a_first_save_on_a_full_disk_leaves_nothing(self, disk):
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            new_router().save(disk.folder / "router")
        disk.empty()
        assert list(disk.folder.iterdir()) == []

    @pytest.mark.skipif(os.name != "posix", reason="limits of a process are POSIX's")
    def test_files_that_may_not_grow_leave_the_old_router(self, tmp_path):
        code = """
import resource, signal, sys
from mixllm_integrations.core.router import Router
router = Router.load(sys.argv[1])
router.record_feedback(router.route("q").id, 1.0)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, resource.RLIM_INFINITY))
try:
    router.save(sys.argv[1])
except OSError as error:
    print(error.filename)
"""
        target = tmp_path / "router"
        new_router().save(target)
        done = subprocess.run(
            [sys.executable, "-c", code, str(target)],
            capture_output=True,
            text=True,
            check=False,
            timeout=LONG,
        )
        assert done.stdout.strip() == str(target), done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["router"]
        assert Router.load(target).predict(["q"]).quality.tolist() == [[0.5, 0.5]]

    def test_an_error_that_names_its_file_already_is_left_as_it_is(
        self, tmp_path, monkeypatch
    ):
        def refused(path, flags):
            raise PermissionError(errno.EACCES, "Permission denied", "elsewhere")

        monkeypatch.setattr(os, "open", refused)
        with pytest.raises(PermissionError) as failure:
            new_router().save(tmp_path / "router")
        assert failure.value.filename == "elsewhere"


class TestLogging:
    def test_a_full_disk_under_log_and_spool_stops_no_call_and_loses_nothing(
        self, disk, monkeypatch, caplog
    ):
        monkeypatch.setenv("MIXLLM_SPOOL", str(disk.folder / "spool"))
        url = f"sqlite:///{disk.folder}/log.db"
        dispatcher = Dispatcher(new_router(), store=url)
        with caplog.at_level(logging.WARNING):
            ids = use(dispatcher, 3)
            disk.fill()
            ids += use(dispatcher, 2)
            ids += (without := use(dispatcher, 50, feedback=False))
            assert not dispatcher.journal.flush(0.2)
            disk.empty()
            assert dispatcher.journal.flush(LONG)
            ids += use(dispatcher, 3)
        dispatcher.journal.close()
        unheard = {(name, "feedback") for name in without}
        assert logged(url) == [each for each in all_of(ids) if each not in unheard]
        assert "events are not logged" in caplog.text
        assert "events are logged again" in caplog.text

    def test_a_full_disk_under_the_spool_alone_loses_nothing(
        self, disk, tmp_path, monkeypatch
    ):
        import sqlite3

        monkeypatch.setenv("MIXLLM_SPOOL", str(disk.folder / "spool"))
        monkeypatch.setattr("mixllm_integrations.store.database._BUSY_SECONDS", 0.05)
        url = f"sqlite:///{tmp_path}/log.db"
        dispatcher = Dispatcher(new_router(), store=url)
        ids = use(dispatcher, 3)
        blocker = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        ids += use(dispatcher, 3)
        disk.fill()
        ids += use(dispatcher, 2)
        blocker.close()
        disk.empty()
        assert dispatcher.journal.flush(LONG)
        dispatcher.journal.close()
        assert logged(url) == all_of(ids)


@pytest.fixture
def schema_url():
    if not POSTGRES:
        pytest.skip("MIXLLM_TEST_POSTGRES names no PostgreSQL server")
    schema = f"mixllm_{uuid.uuid4().hex}"
    engine = sa.create_engine(POSTGRES)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    inner = parsed(POSTGRES).update_query_dict({"options": f"-csearch_path={schema}"})
    yield inner.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()


@pytest.mark.network
def test_a_table_that_another_session_has_locked_stops_no_call_and_loses_nothing(
    schema_url, monkeypatch, caplog
):
    from mixllm_integrations.store import sql

    hasty = str(sql._TAKE_TURNS).replace("'10s'", "'100ms'")
    assert hasty != str(sql._TAKE_TURNS)
    values = sql._TAKE_TURNS.compile().params
    monkeypatch.setattr(sql, "_TAKE_TURNS", sa.text(hasty).bindparams(**values))
    dispatcher = Dispatcher(new_router(), store=schema_url)
    engine = sa.create_engine(schema_url)
    with caplog.at_level(logging.WARNING):
        ids = use(dispatcher, 2)
        with engine.connect() as connection:
            lock = "LOCK TABLE mixllm_events IN ACCESS EXCLUSIVE MODE"
            connection.execute(sa.text(lock))
            ids += use(dispatcher, 10)
            assert not dispatcher.journal.flush(0.3)
        assert dispatcher.journal.flush(LONG)
        ids += use(dispatcher, 2)
    dispatcher.journal.close()
    engine.dispose()
    assert logged(schema_url) == all_of(ids)
    assert caplog.text.count("events are not logged") == 1
    assert caplog.text.count("events are logged again") == 1
