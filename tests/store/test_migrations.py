"""Databases of every release are brought up to date when they are opened."""

import logging
import sqlite3
import subprocess
import sys
import threading

import pytest
import sqlalchemy as sa

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.store import NewEvent, schema
from mixllm_integrations.store.schema import SCHEMA_VERSIONS
from mixllm_integrations.store.sql import SQLStore

LONG = 60.0
# What the first releases made, without migrations.
FIRST = {
    "sqlite": """
        CREATE TABLE mixllm_events (
            sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
            kind VARCHAR(16) NOT NULL, decision_id VARCHAR NOT NULL,
            at DATETIME NOT NULL, payload JSON NOT NULL,
            CONSTRAINT mixllm_events_once UNIQUE (decision_id, kind))""",
    "postgresql": """
        CREATE TABLE mixllm_events (
            sequence BIGSERIAL NOT NULL PRIMARY KEY,
            kind VARCHAR(16) NOT NULL, decision_id VARCHAR NOT NULL,
            at TIMESTAMP WITH TIME ZONE NOT NULL, payload JSON NOT NULL,
            CONSTRAINT mixllm_events_once UNIQUE (decision_id, kind))""",
}
OLD = [
    ("decision", "a", '{"candidate":"best","kind":"binary"}'),
    ("outcome", "a", '{"output_tokens":2}'),
    (
        "feedback",
        "a",
        '{"reward":1.0,"kind":"binary","source":"\\u0000 \\ud800 \\\\u0000"}',
    ),
    ("feedback", "b", '{"reward":0.5,"kind":"refined","source":null}'),
    ("feedback", "c", '{"reward":0.5}'),
    ("feedback", "d", "[1, 2]"),
    ("feedback", "e", '{"reward":0.5,"kind":"' + "long" * 99 + '"}'),
    ("drift", "a", '{"quantity":"cost"}'),
    ("decision", "gone", "{}"),
]


@pytest.fixture
def execute(url):
    engine = sa.create_engine(url)

    def run(statement, **values):
        with engine.begin() as connection:
            found = connection.execute(sa.text(statement), values)
            return found.all() if found.returns_rows else None

    yield run
    engine.dispose()


@pytest.fixture
def old(url, execute):
    """A database of the first releases, whose newest event was deleted."""
    execute(FIRST[sa.make_url(url).get_backend_name()])
    for kind, decision_id, payload in OLD:
        execute(
            "INSERT INTO mixllm_events (kind, decision_id, at, payload) "
            "VALUES (:k, :d, '2026-01-02 03:04:05.678901', :p)",
            k=kind,
            d=decision_id,
            p=payload,
        )
    execute("DELETE FROM mixllm_events WHERE decision_id = 'gone'")
    return url


def rows(execute):
    return execute(
        "SELECT sequence, kind, decision_id, CAST(at AS TEXT) AS at, "
        "CAST(payload AS TEXT) AS payload FROM mixllm_events ORDER BY sequence"
    )


class TestOldDatabases:
    def test_nothing_is_lost_or_changed(self, old, execute):
        before = rows(execute)
        SQLStore(old).close()
        assert rows(execute) == before
        assert len(before) == len(OLD) - 1

    def test_feedback_is_known_by_its_kind(self, old, execute):
        with SQLStore(old) as store:
            assert not store.append("feedback", "a", {"kind": "binary"})
            assert store.append("feedback", "a", {"kind": "refined"})
            assert not store.append("feedback", "b", {"kind": "refined"})
            assert not store.append("feedback", "c", {})
            assert not store.append("decision", "a", {"kind": "refined"})
        details = execute("SELECT detail FROM mixllm_events ORDER BY sequence")
        told = ["", "", "binary", "refined", "", "", "", "", "refined"]
        assert [row.detail for row in details] == told

    def test_no_sequence_is_given_twice(self, old):
        with SQLStore(old) as store:
            store.append("decision", "new", {})
            assert store.last_sequence() > len(OLD)

    def test_an_empty_one_is_migrated_too(self, url, execute):
        execute(FIRST[sa.make_url(url).get_backend_name()])
        with SQLStore(url) as store:
            store.append("decision", "a", {})
            assert store.last_sequence() == 1

    @pytest.mark.skipif(sqlite3.sqlite_version_info < (3, 35), reason="old SQLite")
    def test_unreadable_rows_of_sqlite_are_kept(self, tmp_path):
        file = tmp_path / "log.db"
        connection = sqlite3.connect(file)
        connection.execute(FIRST["sqlite"])
        broken = ['{"kind": ', "[" * 200_000, b"\xff\xfe", "", "binary"]
        connection.executemany(
            "INSERT INTO mixllm_events (kind, decision_id, at, payload) "
            "VALUES ('feedback', ?, 'yesterday', ?)",
            [(str(n), payload) for n, payload in enumerate(broken)],
        )
        connection.commit()
        SQLStore(f"sqlite:///{file}").close()
        kept = connection.execute("SELECT payload FROM mixllm_events").fetchall()
        connection.close()
        assert [row[0] for row in kept] == broken

    def test_a_migration_that_fails_leaves_the_old_database(self, old, execute):
        before = rows(execute)
        execute("CREATE TABLE mixllm_snapshots (something INTEGER)")
        with pytest.raises(ConfigurationError, match="cannot open the store"):
            SQLStore(old)
        assert rows(execute) == before
        execute("DROP TABLE mixllm_snapshots")
        with SQLStore(old) as store:
            assert len(store.of("a")) == 4


class TestVersions:
    def test_the_steps_are_those_that_the_code_knows(self):
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        from mixllm_integrations.store import migrations

        config = Config()
        config.set_main_option("script_location", migrations.__path__[0])
        steps = ScriptDirectory.from_config(config).walk_revisions()
        assert tuple(step.revision for step in steps)[::-1] == SCHEMA_VERSIONS

    def test_a_new_database_has_the_newest(self, url, execute):
        SQLStore(url).close()
        (row,) = execute("SELECT version_num FROM mixllm_schema")
        assert row.version_num == SCHEMA_VERSIONS[-1]

    def test_that_of_a_newer_release_is_refused_and_left_alone(self, url, execute):
        SQLStore(url).close()
        execute("UPDATE mixllm_schema SET version_num = '9999'")
        with pytest.raises(ConfigurationError, match=r"'9999'.*newer release.*upgrade"):
            SQLStore(url)
        (row,) = execute("SELECT version_num FROM mixllm_schema")
        assert row.version_num == "9999"

    def test_a_version_table_without_a_row_is_filled(self, url, execute):
        SQLStore(url).close()
        for table in ("mixllm_events", "mixllm_snapshots", "mixllm_log"):
            execute(f"DROP TABLE {table}")
        execute("DELETE FROM mixllm_schema")
        with SQLStore(url) as store:
            assert store.append("decision", "a", {})

    def test_the_migrations_of_the_database_itself_are_left_alone(self, url, execute):
        execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        execute("INSERT INTO alembic_version VALUES ('theirs')")
        SQLStore(url).close()
        (row,) = execute("SELECT version_num FROM alembic_version")
        assert row.version_num == "theirs"


class TestAlembic:
    def test_without_it_a_new_database_is_an_error_that_names_it(
        self, url, monkeypatch
    ):
        monkeypatch.delitem(
            sys.modules, "mixllm_integrations.store.migrations", raising=False
        )
        monkeypatch.setitem(sys.modules, "alembic", None)
        with pytest.raises(ConfigurationError, match="pip install alembic"):
            SQLStore(url)

    def test_a_current_database_is_opened_without_it(self, url):
        SQLStore(url).close()
        code = (
            "import sys; from mixllm_integrations.store.sql import SQLStore\n"
            "SQLStore(sys.argv[1]).close(); sys.exit('alembic' in sys.modules)"
        )
        run = subprocess.run([sys.executable, "-c", code, url], check=False)
        assert run.returncode == 0

    def test_logging_stays_as_the_user_has_it(self, url):
        root = logging.getLogger()
        mine = logging.getLogger("mine")
        before = root.level, list(root.handlers), mine.disabled, mine.level
        SQLStore(url).close()
        assert (root.level, list(root.handlers), mine.disabled, mine.level) == before


class TestRaces:
    def test_processes_that_open_an_old_database_at_once_all_succeed(self, old):
        code = (
            "import sys; from mixllm_integrations.store.sql import SQLStore\n"
            "import mixllm_integrations.store.migrations\n"
            "print('ready', flush=True); sys.stdin.readline()\n"
            "with SQLStore(sys.argv[1]) as store:\n"
            "    store.append('decision', sys.argv[2], {})\n"
        )
        workers = [
            subprocess.Popen(
                [sys.executable, "-W", "error", "-c", code, old, f"w{n}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for n in range(4)
        ]
        for worker in workers:
            assert worker.stdout.readline() == b"ready\n"
        for worker in workers:
            worker.communicate(b"\n", timeout=LONG)
        assert [worker.returncode for worker in workers] == [0] * 4
        with SQLStore(old) as store:
            found = {event.decision_id for event in store.events()}
        assert found >= {"a", "w0", "w1", "w2", "w3"}

    def test_while_one_migrates_nobody_else_can(self, url, monkeypatch):
        from mixllm_integrations.store import migrations

        class StopError(Exception):
            pass

        found = []

        def look(connection, *, version_table):
            options = {"timeout": 0} if "sqlite" in url else {}
            engine = sa.create_engine(url, connect_args=options)
            with engine.connect() as other:
                try:
                    schema._lock(other)
                except sa.exc.OperationalError as error:
                    found.append(str(error.orig))
            engine.dispose()
            raise StopError

        monkeypatch.setattr(migrations, "upgrade", look)
        if "sqlite" not in url:
            lock = "pg_advisory_xact_lock(:space"
            hasty = schema._ADVISORY.replace(
                lock, f"set_config('lock_timeout', '50ms', true), {lock}"
            )
            take_first = schema._lock
            calls = []

            def take(connection):
                if calls:
                    monkeypatch.setattr(schema, "_ADVISORY", hasty)
                calls.append(connection)
                take_first(connection)

            monkeypatch.setattr(schema, "_lock", take)
        with pytest.raises(StopError):
            SQLStore(url)
        (told,) = found
        assert "lock" in told

    def test_threads_that_open_different_databases_do_not_mix_them_up(self, tmp_path):
        urls = [f"sqlite:///{tmp_path}/{n}.db" for n in range(4)]
        begin = threading.Barrier(len(urls))
        failed = []

        def open_one(url):
            begin.wait(LONG)
            try:
                with SQLStore(url) as store:
                    store.append_many([NewEvent("decision", url, {})])
            except Exception as error:  # noqa: BLE001
                failed.append(error)

        threads = [threading.Thread(target=open_one, args=(url,)) for url in urls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        assert failed == []
        for url in urls:
            with SQLStore(url) as store:
                assert [event.decision_id for event in store.events()] == [url]

    def test_who_waited_for_the_lock_does_not_migrate_again(self, url, monkeypatch):
        SQLStore(url).close()
        monkeypatch.setattr(schema, "_is_current", lambda engine, shown: False)
        ran = []
        from mixllm_integrations.store import migrations

        monkeypatch.setattr(migrations, "upgrade", lambda *a, **k: ran.append(a))
        SQLStore(url).close()
        assert ran == []
