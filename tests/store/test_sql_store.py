import json
import logging
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import sqlalchemy as sa

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.store import Event, EventStore, open_store
from mixllm_integrations.store.database import _switch_to_wal
from mixllm_integrations.store.sql import SQLStore


def execute(url, statement, **values):
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(statement), values)
    engine.dispose()


class TestContractOfEveryDatabase:
    def test_what_is_appended_is_read_back_in_order_and_in_utc(self, store):
        before = datetime.now(UTC)
        assert store.append("decision", "d1", {"candidate": "small", "cost": 0.5})
        assert store.append("outcome", "d1", {"output_tokens": 7})
        assert store.append("feedback", "d1", {"reward": 1.0})
        events = list(store.events())
        assert [(e.kind, e.decision_id, dict(e.payload)) for e in events] == [
            ("decision", "d1", {"candidate": "small", "cost": 0.5}),
            ("outcome", "d1", {"output_tokens": 7}),
            ("feedback", "d1", {"reward": 1.0}),
        ]
        sequences = [e.sequence for e in events]
        assert sequences == sorted(set(sequences))
        for e in events:
            assert isinstance(e, Event)
            assert e.at.utcoffset() == timedelta(0)
            assert before <= e.at <= datetime.now(UTC)

    def test_appending_the_same_decision_and_kind_twice_keeps_the_first(self, store):
        assert store.append("feedback", "d1", {"reward": 1.0})
        assert not store.append("feedback", "d1", {"reward": 0.0})
        assert store.append("feedback", "d2", {"reward": 0.25})
        assert store.append("outcome", "d1", {"output_tokens": 3})
        rewards = [e.payload["reward"] for e in store.events() if e.kind == "feedback"]
        assert rewards == [1.0, 0.25]

    def test_reading_goes_on_after_a_sequence_and_stops_at_a_limit(self, store):
        for n in range(5):
            store.append("decision", f"d{n}", {"n": n})
        everything = list(store.events())
        third = everything[2].sequence
        assert [e.payload["n"] for e in store.events(after=third)] == [3, 4]
        assert [e.payload["n"] for e in store.events(limit=2)] == [0, 1]
        assert list(store.events(limit=0)) == []
        assert [e.payload["n"] for e in store.events(after=third, limit=1)] == [3]

    def test_reading_runs_over_many_pages(self, store, monkeypatch):
        monkeypatch.setattr("mixllm_integrations.store.sql._PAGE", 3)
        for n in range(10):
            store.append("decision", f"d{n}", {"n": n})
        assert [e.payload["n"] for e in store.events()] == list(range(10))
        assert [e.payload["n"] for e in store.events(limit=7)] == list(range(7))

    def test_a_reader_that_stops_half_way_does_not_block_writers(self, store):
        for n in range(3):
            store.append("decision", f"d{n}", {})
        reader = store.events()
        next(reader)
        assert store.append("decision", "later", {})
        ids = [e.decision_id for e in reader]  # of its page, then of the next
        assert ids == ["d1", "d2", "later"]

    def test_an_event_outlives_the_store_that_wrote_it(self, url):
        with SQLStore(url) as first:
            first.append("decision", "d1", {"candidate": "small"})
        with SQLStore(url) as second:
            assert not second.append("decision", "d1", {"candidate": "large"})
            (event,) = second.events()
        assert event.payload == {"candidate": "small"}

    def test_eight_threads_lose_and_double_nothing(self, store):
        def write(worker):
            return [store.append("outcome", f"d{n}", {"n": n}) for n in range(25)]

        with ThreadPoolExecutor(8) as pool:
            added = list(pool.map(write, range(8)))
        assert sum(map(sum, added)) == 25  # each decision once, whoever came first
        assert sorted(e.payload["n"] for e in store.events()) == list(range(25))

    def test_arrays_become_lists_and_infinities_become_null(self, store):
        payload = {
            "context": np.array([0.5, -1.0], dtype=np.float32),
            "score": float("-inf"),
            "nested": [{"nan": float("nan")}, (1, True, None)],
            "count": np.int64(3),
        }
        store.append("decision", "d1", payload)
        (event,) = store.events()
        assert event.payload == {
            "context": [0.5, -1.0],
            "score": None,
            "nested": [{"nan": None}, [1, True, None]],
            "count": 3,
        }

    def test_odd_text_survives(self, store):
        payload = {"text": "'; DROP TABLE mixllm_events; -- \x00 \ud800 €"}
        store.append("decision", 'it\'s "odd"', payload)
        (event,) = store.events()
        assert event.payload == payload
        assert event.decision_id == 'it\'s "odd"'

    def test_malformed_rows_are_skipped_and_counted(self, url, store, caplog):
        store.append("decision", "good-1", {"n": 1})
        for kind, text in (("decision", "[1, 2]"), ("nonsense", "{}")):
            execute(
                url,
                "INSERT INTO mixllm_events (kind, decision_id, at, payload) "
                "VALUES (:kind, 'bad', '2026-01-01 00:00:00', :payload)",
                kind=kind,
                payload=text,
            )
        store.append("decision", "good-2", {"n": 2})
        with caplog.at_level(logging.WARNING):
            assert [e.payload["n"] for e in store.events(limit=2)] == [1, 2]
        assert store.malformed_rows == 2
        assert len(caplog.records) == 2

    @pytest.mark.parametrize(
        ("kind", "decision_id", "payload", "named"),
        [
            ("verdict", "d1", {}, "'verdict'"),
            ("outcome", "", {}, "non-empty"),
            ("outcome", "d1", [1], "list"),
            ("outcome", "d1", {"model": object()}, "object"),
        ],
    )
    def test_what_cannot_be_stored_is_named_and_not_stored(
        self, store, kind, decision_id, payload, named
    ):
        with pytest.raises(ConfigurationError, match=named):
            store.append(kind, decision_id, payload)
        assert list(store.events()) == []

    def test_a_closed_store_says_so(self, url):
        store = SQLStore(url)
        store.close()
        store.close()
        with pytest.raises(ConfigurationError, match="closed"):
            store.append("decision", "d1", {})
        with pytest.raises(ConfigurationError, match="closed"):
            next(store.events())

    def test_opening_from_several_threads_at_once_creates_one_table(self, url):
        def open_and_append(n):
            with SQLStore(url) as store:
                return store.append("decision", f"d{n}", {})

        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(open_and_append, range(6)))
        with SQLStore(url) as store:
            assert len(list(store.events())) == 6


class TestSQLite:
    def test_it_runs_in_wal_mode(self, tmp_path):
        with SQLStore(f"sqlite:///{tmp_path}/log.db") as store:
            store.append("decision", "d1", {})
            connection = sqlite3.connect(tmp_path / "log.db")
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            connection.close()

    def test_unreadable_json_and_dates_are_skipped(self, tmp_path):
        with SQLStore(f"sqlite:///{tmp_path}/log.db") as store:
            store.append("decision", "good", {"n": 1})
            connection = sqlite3.connect(tmp_path / "log.db")
            connection.executemany(
                "INSERT INTO mixllm_events (kind, decision_id, at, payload) "
                "VALUES ('decision', ?, ?, ?)",
                [
                    ("cut", "2026-01-01 00:00:00", '{"n": '),
                    ("undated", "yesterday", "{}"),
                    ("deep", "2026-01-01 00:00:00", "[" * 200_000),
                    ("binary", "2026-01-01 00:00:00", b"\xff\xfe"),
                ],
            )
            connection.commit()
            connection.close()
            store.append("decision", "good too", {"n": 2})
            assert [e.payload["n"] for e in store.events()] == [1, 2]
            assert store.malformed_rows == 4

    def test_a_writer_waits_for_another_process_that_holds_the_file(self, tmp_path):
        with SQLStore(f"sqlite:///{tmp_path}/log.db") as store:
            blocker = sqlite3.connect(tmp_path / "log.db", check_same_thread=False)
            blocker.isolation_level = None
            blocker.execute("BEGIN IMMEDIATE")
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(store.append, "decision", "d1", {})
                with pytest.raises(TimeoutError):
                    waiting.result(timeout=0.2)
                blocker.execute("COMMIT")
                assert waiting.result(timeout=10)
            blocker.close()

    def test_the_switch_to_wal_is_tried_again_where_sqlite_does_not_wait(
        self, tmp_path
    ):
        blocker = sqlite3.connect(tmp_path / "log.db", check_same_thread=False)
        blocker.isolation_level = None
        blocker.execute("BEGIN EXCLUSIVE")
        impatient = sqlite3.connect(
            tmp_path / "log.db", timeout=0, check_same_thread=False
        )
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(_switch_to_wal, impatient)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.2)
            blocker.execute("COMMIT")
            waiting.result(timeout=10)
        assert impatient.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        impatient.close()
        blocker.close()

    def test_four_processes_write_one_file(self, tmp_path):
        url = f"sqlite:///{tmp_path}/log.db"
        code = (
            "import sys; from mixllm_integrations.store.sql import SQLStore\n"
            "store = SQLStore(sys.argv[1])\n"
            "for n in range(20):\n"
            "    store.append('outcome', f'd{n}', {})\n"
            "    store.append('decision', f'{sys.argv[2]}-{n}', {})\n"
        )
        workers = [
            subprocess.Popen([sys.executable, "-c", code, url, str(n)])
            for n in range(4)
        ]
        assert [worker.wait(timeout=60) for worker in workers] == [0] * 4
        with SQLStore(url) as store:
            kinds = [e.kind for e in store.events()]
        assert (kinds.count("outcome"), kinds.count("decision")) == (20, 80)

    def test_a_file_that_is_no_database_is_refused_and_left_alone(self, tmp_path):
        file = tmp_path / "notes.txt"
        file.write_text("these are my notes, " * 100)
        with pytest.raises(ConfigurationError, match=r"notes\.txt"):
            SQLStore(f"sqlite:///{file}")
        assert file.read_text().startswith("these are my notes")

    def test_a_missing_folder_is_named(self, tmp_path):
        with pytest.raises(ConfigurationError, match="nowhere"):
            SQLStore(f"sqlite:///{tmp_path}/nowhere/log.db")

    @pytest.mark.parametrize(
        "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory"]
    )
    def test_a_database_in_memory_is_refused(self, url):
        with pytest.raises(ConfigurationError, match="in-memory"):
            SQLStore(url)


class TestErrorsNeverShowSecrets:
    @pytest.mark.parametrize(
        "url",
        [
            "postgresql+psycopg//user:hunter2@db/prod",
            "mysql://user:hunter2@db/prod",
            "postgresql+nodriver://user:hunter2@db/prod",
            "postgresql://user:hunter2@db:port/prod",
        ],
    )
    def test_of_an_unusable_url(self, url):
        with pytest.raises(ConfigurationError) as caught:
            SQLStore(url)
        assert "hunter2" not in str(caught.value)
        assert "postgresql+psycopg" in str(caught.value)
        assert caught.value.__cause__ is None

    @pytest.mark.network
    @pytest.mark.parametrize(
        "url",
        [
            "postgresql+psycopg://user:hunter2@127.0.0.1:1/prod",
            "postgresql+psycopg://127.0.0.1:1/prod?password=hunter2",
            "postgresql+psycopg://user:pa@hunter2@127.0.0.1:1/prod",
        ],
    )
    def test_of_a_server_that_cannot_be_reached(self, url):
        with pytest.raises(ConfigurationError) as caught:
            SQLStore(url)
        assert "hunter2" not in str(caught.value)
        assert "cannot open the store" in str(caught.value)

    def test_of_a_driver_that_quotes_it(self, monkeypatch):
        psycopg = pytest.importorskip("psycopg")

        def connect(*args, **kwargs):
            raise psycopg.OperationalError(f"cannot log in with {kwargs['password']}")

        monkeypatch.setattr(psycopg, "connect", connect)
        with pytest.raises(ConfigurationError, match=r"cannot log in with \*\*\*$"):
            SQLStore("postgresql+psycopg://user:hunter2@db/prod")

    def test_of_a_missing_driver_which_names_the_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "psycopg", None)
        with pytest.raises(ConfigurationError) as caught:
            SQLStore("postgresql+psycopg://user:hunter2@db/prod")
        assert "mixllm-integrations[postgres]" in str(caught.value)
        assert "hunter2" not in str(caught.value)

    def test_the_repr_shows_the_place_only(self, tmp_path):
        with SQLStore(f"sqlite:///{tmp_path}/log.db") as store:
            assert repr(store) == f"SQLStore('sqlite:///{tmp_path}/log.db')"

    def test_a_failing_statement_does_not_show_the_payload(self, tmp_path):
        url = f"sqlite:///{tmp_path}/log.db"
        with SQLStore(url) as store:
            execute(url, "DROP TABLE mixllm_events")
            with pytest.raises(sa.exc.DBAPIError) as caught:
                store.append("decision", "d1", {"prompt": "my diagnosis"})
        assert "my diagnosis" not in str(caught.value)


class TestOpenStore:
    def test_a_url_becomes_a_store_of_its_own(self, tmp_path):
        with open_store(f"sqlite:///{tmp_path}/log.db") as store:
            assert isinstance(store, SQLStore)
            assert isinstance(store, EventStore)

    def test_a_store_stays_itself_and_none_stays_none(self, tmp_path):
        with SQLStore(f"sqlite:///{tmp_path}/log.db") as store:
            assert open_store(store) is store
        assert open_store(None) is None

    def test_anything_else_is_a_typed_error(self):
        with pytest.raises(ConfigurationError, match="int"):
            open_store(42)

    def test_the_room_imports_no_database_by_itself(self):
        code = (
            "import sys, mixllm_integrations.store as room; room.open_store(None); "
            "sys.exit('sqlalchemy' in sys.modules)"
        )
        run = subprocess.run([sys.executable, "-c", code], check=False)
        assert run.returncode == 0


def test_payloads_are_stored_as_compact_json(tmp_path):
    with SQLStore(f"sqlite:///{tmp_path}/log.db") as store:
        store.append("decision", "d1", {"a": [1, 2]})
        connection = sqlite3.connect(tmp_path / "log.db")
        (text,) = connection.execute("SELECT payload FROM mixllm_events").fetchone()
        connection.close()
    assert text == '{"a":[1,2]}'
    assert json.loads(text) == {"a": [1, 2]}
