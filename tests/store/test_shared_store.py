"""Workers share one log: in batches, by its tail, with snapshots."""

import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.store import NewEvent, SharedStore, open_store
from mixllm_integrations.store.sql import SQLStore
from mixllm_integrations.store.tables import EVENTS, METADATA, SNAPSHOTS

LONG = 60.0


def decisions(*names):
    return [NewEvent("decision", name, {}) for name in names]


def ids(events):
    return [event.decision_id for event in events]


@pytest.fixture
def execute(url):
    engine = sa.create_engine(url)

    def run(statement, **values):
        with engine.begin() as connection:
            found = connection.execute(sa.text(statement), values)
            return found.all() if found.returns_rows else None

    yield run
    engine.dispose()


class TestOnce:
    def test_feedback_is_taken_once_of_each_kind(self, store):
        assert store.append("feedback", "d", {"kind": "binary", "reward": 1.0})
        assert store.append("feedback", "d", {"kind": "refined", "reward": 0.5})
        assert not store.append("feedback", "d", {"kind": "binary", "reward": 0.0})
        rewards = [event.payload["reward"] for event in store.events()]
        assert rewards == [1.0, 0.5]

    def test_each_signal_is_taken_once(self, store):
        assert store.append("signal", "d", {"signal": "regenerate"})
        assert store.append("signal", "d", {"signal": "truncated"})
        assert not store.append("signal", "d", {"signal": "regenerate", "worker": "b"})
        told = [event.payload["signal"] for event in store.events()]
        assert told == ["regenerate", "truncated"]

    @pytest.mark.parametrize("kind", ["decision", "outcome", "drift"])
    def test_of_everything_else_a_decision_has_one(self, store, kind):
        assert store.append(kind, "d", {"kind": "binary", "signal": "a"})
        assert not store.append(kind, "d", {"kind": "refined", "signal": "b"})

    @pytest.mark.parametrize(
        ("event", "named"),
        [
            (NewEvent("feedback", "d", {"kind": "x" * 65}), "64 characters, not 65"),
            (NewEvent("decision", "d" * 501, {}), "500 characters, not 501"),
        ],
    )
    def test_names_that_no_index_holds_are_refused(self, store, event, named):
        with pytest.raises(ConfigurationError, match=named):
            store.append_many([event])

    def test_the_longest_names_are_held_whatever_their_letters(self, store):
        payload = {"kind": "\U0001f600" * 64}
        assert store.append("feedback", "\U0001f600" * 500, payload)
        assert not store.append("feedback", "\U0001f600" * 500, payload)


class TestBatches:
    def test_a_batch_keeps_its_order_and_counts_what_is_new(self, store):
        assert store.append_many(decisions("a", "b")) == 2
        assert store.append_many(decisions("c", "a", "d", "c")) == 2
        assert ids(store.events()) == ["a", "b", "c", "d"]

    def test_an_empty_batch_is_nothing(self, store):
        assert store.append_many([]) == 0

    def test_one_event_that_is_refused_keeps_out_its_batch(self, store):
        batch = [*decisions("a"), NewEvent("outcome", "b", {"model": object()})]
        with pytest.raises(ConfigurationError):
            store.append_many(batch)
        assert list(store.events()) == []

    def test_what_the_database_refuses_keeps_out_its_batch(self, store, execute):
        # No rule of ours: one that the database alone knows of.
        if store._engine.dialect.name == "sqlite":
            execute(
                "CREATE TRIGGER never BEFORE INSERT ON mixllm_events "
                "WHEN NEW.decision_id = 'no' BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        else:
            execute("ALTER TABLE mixllm_events ADD CHECK (decision_id <> 'no')")
        with pytest.raises(sa.exc.IntegrityError):
            store.append_many(decisions("a", "no", "b"))
        assert list(store.events()) == []

    def test_the_time_is_that_of_the_event_whatever_its_zone(self, store):
        at = datetime(1999, 1, 2, 3, 4, 5, 678_000, timezone(timedelta(hours=5)))
        store.append_many([NewEvent("decision", "a", {}, at)])
        (event,) = store.events()
        assert event.at == at
        assert event.at.utcoffset() == timedelta(0)

    def test_a_clock_that_jumps_changes_no_order(self, store):
        for year in (2030, 1980, 2015):
            at = datetime(year, 1, 1, tzinfo=UTC)
            store.append_many([NewEvent("decision", f"d{year}", {}, at)])
        assert ids(store.tail(0)[0]) == ["d2030", "d1980", "d2015"]


class TestTail:
    def test_it_is_a_shared_store(self, store):
        assert isinstance(store, SharedStore)
        assert open_store(store) is store

    def test_going_on_from_the_cursor_shows_everything_once(self, store):
        store.append_many(decisions(*"abcde"))
        seen, cursor = [], 0
        for _ in range(4):
            found, cursor = store.tail(cursor, limit=2)
            seen += ids(found)
        assert seen == list("abcde")
        assert store.tail(cursor) == ([], cursor)
        store.append_many(decisions("f"))
        found, last = store.tail(cursor)
        assert ids(found) == ["f"]
        assert last == found[0].sequence == store.last_sequence()

    def test_a_page_of_rows_that_cannot_be_read_is_passed(self, store, execute):
        store.append_many(decisions("a", "b", "c"))
        execute("UPDATE mixllm_events SET payload = '[]' WHERE decision_id <> 'c'")
        first, cursor = store.tail(0, limit=2)
        assert first == []
        assert ids(store.tail(cursor, limit=2)[0]) == ["c"]
        assert store.malformed_rows == 2

    def test_an_empty_log_has_no_last_sequence(self, store):
        assert store.last_sequence() == 0
        assert store.tail(0) == ([], 0)

    def test_a_decision_is_found_with_all_that_came_of_it(self, store):
        for name in ("a", "b"):
            store.append("decision", name, {})
            store.append("outcome", name, {})
        store.append("feedback", "a", {"kind": "binary"})
        assert [e.kind for e in store.of("a")] == ["decision", "outcome", "feedback"]
        assert store.of("unknown") == []

    def test_reading_does_not_wait_for_writers_of_its_process(self, store):
        class Stuck:
            def flush(self, timeout_seconds=None):
                raise AssertionError("nobody may wait here")

        stuck = Stuck()
        store.wait_for(stuck)
        assert store.tail(0) == ([], 0)
        assert store.of("a") == []
        store._writers.discard(stuck)

    def test_a_reader_sees_each_event_once_while_eight_write(self, url):
        with SQLStore(url) as store:
            wanted = {f"{w}-{n}" for w in range(8) for n in range(24)}
            done = threading.Event()
            seen = []

            def read():
                cursor = 0
                while True:
                    is_last = done.is_set()
                    found, cursor = store.tail(cursor, limit=7)
                    seen.extend(ids(found))
                    if is_last and not found:
                        return

            def write(worker):
                with SQLStore(url) as mine:
                    for n in range(0, 24, 3):
                        batch = [f"{worker}-{n + k}" for k in range(3)]
                        mine.append_many(decisions(*batch))

            with ThreadPoolExecutor(9) as pool:
                reader = pool.submit(read)
                list(pool.map(write, range(8)))
                done.set()
                reader.result(LONG)
        assert len(seen) == len(wanted)
        assert set(seen) == wanted

    @pytest.mark.network
    def test_on_postgresql_the_order_of_sequences_is_that_of_commits(
        self, postgres_url
    ):
        with SQLStore(postgres_url) as store:
            begun, go_on = threading.Event(), threading.Event()

            @sa.event.listens_for(store._engine, "commit")
            def hold(_connection):
                if not begun.is_set():
                    begun.set()
                    assert go_on.wait(LONG)

            with ThreadPoolExecutor(2) as pool:
                slow = pool.submit(store.append_many, decisions("slow"))
                assert begun.wait(LONG)  # has its sequence, is not visible yet
                fast = pool.submit(store.append_many, decisions("fast"))
                with pytest.raises(TimeoutError):
                    fast.result(timeout=0.2)
                assert store.tail(0) == ([], 0)
                go_on.set()
                slow.result(LONG)
                fast.result(LONG)
            assert ids(store.tail(0)[0]) == ["slow", "fast"]

    @pytest.mark.network
    def test_a_writer_that_stands_still_is_not_waited_for_for_ever(
        self, postgres_url, monkeypatch
    ):
        from mixllm_integrations.store import sql

        hasty = str(sql._TAKE_TURNS).replace("'10s'", "'100ms'")
        values = {"space": 0x6D69786C, "name": EVENTS.name}
        with SQLStore(postgres_url) as store, store._engine.begin() as connection:
            connection.execute(sql._TAKE_TURNS)
            limit = sa.text("SHOW idle_in_transaction_session_timeout")
            assert connection.scalar(limit) == "30s"
            monkeypatch.setattr(sql, "_TAKE_TURNS", sa.text(hasty).bindparams(**values))
            with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
                store.append_many(decisions("a"))

    def test_a_million_events_are_searched_by_indexes(self, store, execute):
        if store._engine.dialect.name == "sqlite":
            plan = "EXPLAIN QUERY PLAN "
            indexes = ("SEARCH mixllm_events USING", "SEARCH mixllm_events USING")
        else:
            execute("SET enable_seqscan = off")  # for the pool's one connection
            plan = "EXPLAIN "
            indexes = ("mixllm_events_pkey", "mixllm_events_once")
        wheres = ("sequence > 7 ORDER BY sequence LIMIT 9", "decision_id = 'a'")
        for where, index in zip(wheres, indexes, strict=True):
            query = f"{plan} SELECT * FROM mixllm_events WHERE {where}"  # noqa: S608
            rows = execute(query)
            assert index in "\n".join(str(row) for row in rows)


class TestSnapshots:
    def test_there_is_none_at_first(self, store):
        assert store.newest_snapshot() is None

    def test_the_one_with_the_greatest_sequence_is_the_newest(self, store):
        before = datetime.now(UTC)
        store.put_snapshot(7, b"\x00seven\xff")
        store.put_snapshot(3, b"three")
        found = store.newest_snapshot()
        assert (found.sequence, found.content) == (7, b"\x00seven\xff")
        assert before <= found.at <= datetime.now(UTC)
        assert found.at.utcoffset() == timedelta(0)

    def test_two_are_kept(self, store, execute):
        for n in (1, 5, 2, 9, 4):
            store.put_snapshot(n, bytes([n]))
        kept = execute("SELECT sequence FROM mixllm_snapshots ORDER BY sequence")
        assert [row.sequence for row in kept] == [5, 9]

    def test_of_two_at_the_same_event_the_later_one_counts(self, store):
        store.put_snapshot(5, b"first")
        store.put_snapshot(5, b"second")
        assert store.newest_snapshot().content == b"second"

    def test_a_damaged_one_is_left_out_with_a_warning(self, store, execute, caplog):
        store.put_snapshot(1, b"sound")
        store.put_snapshot(2, b"broken")
        execute("UPDATE mixllm_snapshots SET content = :c WHERE sequence = 2", c=b"bro")
        with caplog.at_level(logging.WARNING):
            assert store.newest_snapshot().content == b"sound"
        assert "the snapshot at event 2" in caplog.text
        assert "is damaged" in caplog.text

    def test_if_all_are_damaged_there_is_none(self, store, execute):
        store.put_snapshot(1, b"broken")
        execute("UPDATE mixllm_snapshots SET sha256 = ''")
        assert store.newest_snapshot() is None

    @pytest.mark.parametrize(
        ("sequence", "content", "named"),
        [(-1, b"", "-1"), (True, b"", "True"), (1.5, b"", "1.5"), (1, "text", "str")],
    )
    def test_what_is_no_snapshot_is_refused(self, store, sequence, content, named):
        with pytest.raises(ConfigurationError, match=named):
            store.put_snapshot(sequence, content)

    def test_threads_that_put_at_once_leave_two(self, store, execute):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: store.put_snapshot(n, bytes(n)), range(12)))
        # Of those that were put at the same moment each may miss the other's.
        store.put_snapshot(12, b"last")
        assert len(execute("SELECT id FROM mixllm_snapshots")) == 2
        assert store.newest_snapshot().sequence == 12


class TestNames:
    def test_a_log_keeps_its_identity(self, url):
        with SQLStore(url) as first, SQLStore(url) as second:
            assert first.identity == second.identity
            assert len(first.identity) == 32

    def test_a_log_that_is_made_anew_is_another_one(self, url):
        with SQLStore(url) as store:
            before, place = store.identity, store.fingerprint
        engine = sa.create_engine(url)
        METADATA.drop_all(engine)
        with engine.begin() as connection:
            connection.execute(sa.text("DROP TABLE mixllm_schema"))
        engine.dispose()
        with SQLStore(url) as store:
            assert store.identity != before
            assert store.fingerprint == place

    def test_a_fingerprint_is_that_of_the_place(self, tmp_path, monkeypatch):
        with SQLStore(f"sqlite:///{tmp_path}/log.db") as absolute:
            monkeypatch.chdir(tmp_path)
            with SQLStore("sqlite:///log.db") as relative:
                assert relative.fingerprint == absolute.fingerprint
            with SQLStore("sqlite:///other.db") as other:
                assert other.fingerprint != absolute.fingerprint


class TestForks:
    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_and_its_parent_go_on_with_one_store(self, url):
        code = """
import gc, os, sys, warnings
warnings.simplefilter("error")
from mixllm_integrations.store.sql import SQLStore
store = SQLStore(sys.argv[1])
store.append("decision", "before", {})
children = []
for n in range(3):
    child = os.fork()
    if child == 0:
        store.append("decision", f"child-{n}", {})
        gc.collect()
        store.close()
        os._exit(0)
    children.append(child)
store.append("decision", "meanwhile", {})
ended = [os.waitpid(child, 0)[1] for child in children]
assert ended == [0] * 3, ended
store.append("decision", "after", {})
store.close()
"""
        run = subprocess.run(
            [sys.executable, "-c", code, url],
            capture_output=True,
            text=True,
            check=False,
            timeout=LONG,
        )
        assert (run.returncode, run.stderr) == (0, "")
        with SQLStore(url) as store:
            found = ids(store.events())
        assert found[0] == "before"
        assert found[-1] == "after"
        assert sorted(found[1:-1]) == ["child-0", "child-1", "child-2", "meanwhile"]


def test_tables_are_described_as_the_migrations_make_them(url):
    with SQLStore(url) as store:
        inspector = sa.inspect(store._engine)
        for table in METADATA.sorted_tables:
            made = {c["name"]: c for c in inspector.get_columns(table.name)}
            assert set(made) == set(table.columns.keys())
            for column in table.columns:
                assert made[column.name]["nullable"] == column.nullable
        (once,) = inspector.get_unique_constraints(EVENTS.name)
        assert once["name"] == "mixllm_events_once"
        assert once["column_names"] == ["decision_id", "kind", "detail"]
        indexes = [i["column_names"] for i in inspector.get_indexes(SNAPSHOTS.name)]
        assert indexes == [["sequence"]]


@pytest.mark.parametrize("url", ["redis://host/0", "rediss://:secret@host", "unix://x"])
def test_redis_is_no_log(url):
    with pytest.raises(ConfigurationError, match="shared_state=") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)
