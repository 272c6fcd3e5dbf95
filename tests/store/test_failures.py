"""A database that is full, locked or gone: typed errors, and nothing is spoilt."""

import sqlite3
import subprocess
import sys

import pytest
import sqlalchemy as sa

from mixllm_integrations.store import NewEvent, urls
from mixllm_integrations.store.sql import SQLStore

BIG = {"text": "x" * 2_000}


def fill(store, name, count=1_000):
    for n in range(count):
        store.append("decision", f"{name}-{n}", BIG)


class TestSQLite:
    @pytest.fixture
    def store(self, tmp_path):
        with SQLStore(f"sqlite:///{tmp_path}/log.db") as opened:
            yield opened

    def test_a_full_database_is_an_operational_error_until_there_is_room(self, store):
        def limit(pages):
            with store._engine.connect() as connection:
                connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        limit(30)
        with pytest.raises(sa.exc.OperationalError, match="full"):
            fill(store, "a")
        before = len(list(store.events()))
        assert before > 0
        limit(100_000)
        assert store.append("decision", "later", BIG)
        assert len(list(store.events())) == before + 1

    def test_a_batch_that_does_not_fit_is_left_out_as_a_whole(self, store):
        with store._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 30")
        batch = [NewEvent("decision", f"d{n}", BIG) for n in range(100)]
        with pytest.raises(sa.exc.OperationalError, match="full"):
            store.append_many(batch)
        assert list(store.events()) == []

    def test_a_database_that_may_not_be_written_can_be_read(self, store):
        store.append("decision", "a", {})
        with store._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA query_only = ON")
        with pytest.raises(sa.exc.OperationalError, match="readonly"):
            store.append("decision", "b", {})
        with pytest.raises(sa.exc.OperationalError, match="readonly"):
            store.put_snapshot(1, b"")
        assert [event.decision_id for event in store.tail(0)[0]] == ["a"]

    def test_a_locked_database_is_an_operational_error_after_a_while(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("mixllm_integrations.store.database._BUSY_SECONDS", 0.05)
        with SQLStore(f"sqlite:///{tmp_path}/log.db") as store:
            blocker = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
            blocker.execute("BEGIN EXCLUSIVE")
            with pytest.raises(sa.exc.OperationalError, match="locked"):
                store.append("decision", "a", {})
            assert store.tail(0) == ([], 0)
            blocker.close()
            assert store.append("decision", "a", {})

    def test_a_file_that_may_not_grow_spoils_nothing(self, tmp_path):
        code = """
import resource, signal, sys
import sqlalchemy as sa
from mixllm_integrations.store.sql import SQLStore
store = SQLStore(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    for n in range(1000):
        store.append("decision", f"d{n}", {"text": "x" * 2000})
except sa.exc.OperationalError:
    print(n)
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    assert store.append("decision", "later", {})
"""
        url = f"sqlite:///{tmp_path}/log.db"
        run = subprocess.run(
            [sys.executable, "-c", code, url],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert run.returncode == 0, run.stderr
        with SQLStore(url) as store:
            assert len(list(store.events())) == int(run.stdout) + 1


@pytest.mark.network
class TestPostgreSQL:
    def terminate(self, url):
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.execute(
                sa.text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'mixllm_victim'"
                )
            )
        engine.dispose()

    def test_a_connection_that_was_ended_is_replaced(self, postgres_url):
        url = sa.make_url(postgres_url)
        named = url.update_query_dict({"application_name": "mixllm_victim"})
        with SQLStore(named.render_as_string(hide_password=False)) as store:
            assert store.append("decision", "a", {})
            self.terminate(postgres_url)
            assert store.append("decision", "b", {})
            self.terminate(postgres_url)
            assert [event.decision_id for event in store.tail(0)[0]] == ["a", "b"]

    def test_a_locked_table_is_an_operational_error_after_a_while(
        self, postgres_url, monkeypatch
    ):
        from mixllm_integrations.store import sql

        for name in ("_TAKE_TURNS", "_WAIT_A_WHILE"):
            hasty = str(getattr(sql, name)).replace("'10s'", "'100ms'")
            values = {"space": 1, "name": "mixllm_events"}
            used = {k: v for k, v in values.items() if f":{k}" in hasty}
            monkeypatch.setattr(sql, name, sa.text(hasty).bindparams(**used))
        with SQLStore(postgres_url) as store:
            blocker = sa.create_engine(postgres_url)
            with blocker.connect() as connection:
                lock = "LOCK TABLE mixllm_events, mixllm_snapshots"
                connection.execute(sa.text(lock))
                for use in (
                    lambda: store.append("decision", "a", {}),
                    lambda: store.tail(0),
                    lambda: store.of("a"),
                    store.last_sequence,
                    lambda: store.put_snapshot(1, b""),
                    store.newest_snapshot,
                ):
                    with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
                        use()
            blocker.dispose()
            assert store.append("decision", "a", {})

    def test_a_database_that_may_not_be_written_can_be_read(self, postgres_url):
        with SQLStore(postgres_url) as store:

            @sa.event.listens_for(store._engine, "begin")
            def only_read(connection):
                connection.exec_driver_sql("SET TRANSACTION READ ONLY")

            with pytest.raises(sa.exc.DBAPIError, match="read-only"):
                store.append("decision", "a", {})
            assert store.tail(0) == ([], 0)


class TestSecrets:
    URL = "postgresql+psycopg://user:hunter2@db:5432/prod?sslpassword=hunter3"

    def test_fingerprints_hold_and_depend_on_no_password(self):
        parsed = urls.parsed(self.URL)
        found = urls.fingerprint(parsed)
        assert len(found) == 24
        assert set(found) <= set("0123456789abcdef")
        other = self.URL.replace("hunter", "secret")
        assert urls.fingerprint(urls.parsed(other)) == found

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("user", "other"),
            ("@db", "@db2"),
            ("5432", "5433"),
            ("prod", "test"),
            ("?", "?options=-csearch_path%3Dmine&"),
        ],
    )
    def test_fingerprints_differ_for_other_places(self, old, new):
        found = urls.fingerprint(urls.parsed(self.URL))
        other = urls.parsed(self.URL.replace(old, new, 1))
        assert urls.fingerprint(other) != found

    def test_what_is_shown_has_no_password(self):
        shown = urls.shown(urls.parsed(self.URL))
        assert shown == "postgresql+psycopg://db:5432/prod"


def test_text_goes_to_the_database_as_a_value_only(tmp_path):
    odd = "'); DROP TABLE mixllm_events; --"
    with SQLStore(f"sqlite:///{tmp_path}/log.db") as store:
        store.append("feedback", odd, {"kind": odd})
        store.append("signal", odd, {"signal": odd})
        assert [event.kind for event in store.of(odd)] == ["feedback", "signal"]
