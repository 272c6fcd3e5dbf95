"""What was acknowledged is in the log exactly once, whoever was killed or cut off."""

import contextlib
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter

import pytest
import sqlalchemy as sa

from mixllm_integrations.core.types import Outcome
from mixllm_integrations.serving.journal import Journal
from mixllm_integrations.store import open_store

POSTGRES = os.environ.get("MIXLLM_TEST_POSTGRES")
LONG = 60.0
ORDER = {"outcome": 0, "feedback": 1}


class Proxy:
    """Passes connections on to a server, until it is cut."""

    def __init__(self, host, port):
        self._target = (host, port)
        self._pairs = []
        self._is_cut = False
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                inner, _ = self._listener.accept()
                with self._lock:
                    if self._is_cut:
                        inner.close()
                        continue
                    outer = socket.create_connection(self._target)
                    self._pairs += [inner, outer]
                for ends in ((inner, outer), (outer, inner)):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    @staticmethod
    def _pass(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self):
        with self._lock:
            self._is_cut = True
            for end in self._pairs:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def restore(self):
        with self._lock:
            self._is_cut = False

    def close(self):
        self.cut()
        self._listener.close()
        for end in self._pairs:
            end.close()


class Database:
    """A database that can be taken away from those who use it."""

    def __init__(self, url, take_away, give_back):
        self.url = url
        self.take_away = take_away
        self.give_back = give_back


@pytest.fixture
def sqlite_database(tmp_path):
    path = tmp_path / "log.db"
    open_store(f"sqlite:///{path}").close()
    blocker = sqlite3.connect(path, isolation_level=None, timeout=LONG)
    yield Database(
        f"sqlite:///{path}",
        lambda: blocker.execute("BEGIN EXCLUSIVE"),
        lambda: blocker.execute("COMMIT"),
    )
    blocker.close()


@pytest.fixture
def postgres_schema():
    if not POSTGRES:
        pytest.skip("MIXLLM_TEST_POSTGRES names no PostgreSQL server")
    schema = f"mixllm_{uuid.uuid4().hex}"
    engine = sa.create_engine(POSTGRES)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    yield schema
    with engine.begin() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()


@pytest.fixture
def postgresql_database(postgres_schema):
    real = sa.make_url(POSTGRES)
    proxy = Proxy(real.host, real.port or 5432)
    options = {
        "options": f"-csearch_path={postgres_schema}",
        "application_name": f"{postgres_schema[:20]}_victim",
    }
    url = real.set(host="127.0.0.1", port=proxy.port).update_query_dict(options)
    yield Database(url.render_as_string(hide_password=False), proxy.cut, proxy.restore)
    proxy.close()


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.network)]
)
def database(request):
    return request.getfixturevalue(f"{request.param}_database")


WORKER = """
import os, sys
from itertools import count
from mixllm_integrations.store import database
database._BUSY_SECONDS = 0.05
from mixllm_integrations.core.types import Outcome
from mixllm_integrations.serving.journal import Journal

url, name, acknowledged = sys.argv[1:]
journal = Journal.open(url)
told = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for n in count():
    journal.outcome(f"{name}-{n}", Outcome(1, 1))
    journal.feedback(f"{name}-{n}", 1.0, "binary", None)
    os.write(told, f"{name}-{n}\\n".encode())
"""


class Worker:
    """A process that logs feedback, and notes what it was told is safe."""

    def __init__(self, url, name, folder):
        self._file = folder / f"{name}.acknowledged"
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, url, name, str(self._file)],
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def acknowledged(self):
        return self._file.read_text().split() if self._file.exists() else []

    def until(self, count):
        deadline = time.monotonic() + LONG
        while len(self.acknowledged) < count:
            assert self._process.poll() is None, self._process.stderr.read()
            assert time.monotonic() < deadline, "it stands still"
            time.sleep(0.005)

    def kill(self):
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(LONG)
        self._process.stderr.close()


def deliver_what_is_left(url):
    """Do what the next process does that opens the log; nothing is asked of it."""
    journal = Journal.open(url)
    assert journal.flush(LONG)
    journal.close()


def logged(url):
    with open_store(url) as store:
        return [(event.decision_id, event.kind) for event in store.events()]


def test_four_workers_that_are_killed_lose_and_double_nothing(
    database, tmp_path, spool_folder
):
    workers = [Worker(database.url, f"w{n}", tmp_path) for n in range(4)]
    try:
        for worker in workers:
            worker.until(60)
        workers[0].kill()  # while all is well
        database.take_away()
        for worker in workers[1:]:
            worker.until(len(worker.acknowledged) + 100)
        workers[1].kill()  # while the database is away
        # One each; the first one may have left its own, if the file was busy for long.
        assert 3 <= len(list(spool_folder.glob("*.spool"))) <= 4
        database.give_back()
        workers[2].kill()  # while it comes back, or a moment before
        workers[3].until(len(workers[3].acknowledged) + 100)
    finally:
        for worker in workers:
            worker.kill()
    deliver_what_is_left(database.url)
    found = logged(database.url)
    assert set(Counter(found).values()) == {1}
    for worker in workers:
        acknowledged = worker.acknowledged
        assert len(acknowledged) >= 60
        assert {(name, "feedback") for name in acknowledged} <= set(found)
        assert {(name, "outcome") for name in acknowledged} <= set(found)
    for name in {name for name, _ in found}:
        kinds = [ORDER[kind] for each, kind in found if each == name]
        assert kinds == sorted(kinds)
    assert not list(spool_folder.glob("*.spool"))


def use(journal, names):
    for name in names:
        journal.outcome(name, Outcome(1, 1))
        journal.feedback(name, 1.0, "binary", None)


@pytest.mark.network
class TestPostgreSQLAway:
    def test_a_cut_network_is_told_once_and_loses_nothing(
        self, postgresql_database, caplog, spool_folder
    ):
        database = postgresql_database
        journal = Journal.open(database.url)
        names = [f"d{n}" for n in range(30)]
        with caplog.at_level(logging.WARNING):
            use(journal, names[:10])
            database.take_away()
            use(journal, names[10:20])
            assert list(spool_folder.iterdir())
            database.give_back()
            assert journal.flush(LONG)
            use(journal, names[20:])
        journal.close()
        told = [r.getMessage() for r in caplog.records if r.name.startswith("mixllm")]
        assert [message[:23] for message in told] == [
            "events are not logged b",
            "events are logged again",
        ]
        found = logged(database.url)
        assert found == [(n, kind) for n in names for kind in ("outcome", "feedback")]
        assert not list(spool_folder.iterdir())

    def test_connections_that_are_ended_lose_and_double_nothing(
        self, postgresql_database, postgres_schema
    ):
        database = postgresql_database
        journal = Journal.open(database.url)
        done = threading.Event()

        def end_connections():
            engine = sa.create_engine(POSTGRES)
            end = sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = :name"
            )
            with engine.connect() as connection:
                while not done.wait(0.01):
                    connection.execute(end, {"name": f"{postgres_schema[:20]}_victim"})
                    connection.commit()
            engine.dispose()

        thread = threading.Thread(target=end_connections)
        thread.start()
        names = [f"d{n}" for n in range(150)]
        try:
            use(journal, names)
        finally:
            done.set()
            thread.join(LONG)
        assert journal.flush(LONG)
        journal.close()
        assert logged(database.url) == [
            (name, kind) for name in names for kind in ("outcome", "feedback")
        ]


def test_no_password_is_in_a_spool_or_in_the_log(
    tmp_path, spool_folder, monkeypatch, caplog
):
    psycopg = pytest.importorskip("psycopg")
    from mixllm_integrations.store import sql

    def connect(*args, **kwargs):
        raise psycopg.OperationalError(f"cannot log in with {kwargs['password']}")

    # Opened while all was well: away from the first event on.
    monkeypatch.setattr(sql, "bring_up_to_date", lambda engine, shown: None)
    monkeypatch.setattr(sql.SQLStore, "_read_identity", lambda self: "name")
    monkeypatch.setattr(psycopg, "connect", connect)
    with caplog.at_level(logging.DEBUG):
        journal = Journal.open("postgresql+psycopg://user:hunter2@db/prod")
        journal.feedback("d", 1.0, "binary", None)
        journal.close()
    (file,) = spool_folder.iterdir()
    assert b"hunter2" not in file.read_bytes()
    for shown in (file.name, caplog.text, repr(journal), repr(journal.store)):
        assert "hunter2" not in shown
        assert "prod" not in file.name
