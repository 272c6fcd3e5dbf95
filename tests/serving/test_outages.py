"""While the store is away, events wait on disk; when it is back, none is missing."""

import errno
import logging
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from mixllm_integrations.core.types import Outcome
from mixllm_integrations.serving.background import BackgroundWriter
from mixllm_integrations.serving.delivery import BATCH
from mixllm_integrations.serving.journal import Journal
from mixllm_integrations.serving.spool import Spool
from mixllm_integrations.serving.spool_file import SpoolFile
from mixllm_integrations.serving.writer import DirectWriter
from mixllm_integrations.store import NewEvent, open_store

LONG = 20.0  # seconds that no test should need
OWNER = "0123abcd"


class Shared:
    """A store that takes batches and each event once; it may be away, or hang."""

    fingerprint = OWNER

    def __init__(self):
        self.taken = []
        self.batches = []
        self.error = None
        self.refused = ()
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.closed = 0

    def append(self, kind, decision_id, payload):
        raise AssertionError("batches are taken, too")

    def append_many(self, events):
        self.entered.set()
        assert self.open.wait(LONG)
        if self.error is not None:
            raise self.error
        if bad := [e for e in events if e.decision_id in self.refused]:
            raise ValueError(f"{bad} cannot be stored")
        self.batches.append(len(events))
        self.taken += [e for e in events if key(e) not in set(map(key, self.taken))]

    def events(self, *, after=0, limit=None):
        return iter(())

    def close(self):
        self.closed += 1

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def wait_for(self, writer):
        pass

    @property
    def ids(self):
        return [event.decision_id for event in self.taken]


def key(event):
    return event.kind, event.decision_id


def event(name, kind="decision"):
    return NewEvent(kind, str(name), {})


def numbers(count):
    return [str(n) for n in range(count)]


def until(condition):
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)


@pytest.fixture
def store():
    made = Shared()
    yield made
    made.open.set()


@pytest.fixture
def writer_to(store, spool_folder):
    made = []

    def make(*, spool=True, **settings):
        settings.setdefault("closing_seconds", LONG)
        settings.setdefault("retry_seconds", 0.01)
        kept = Spool(spool_folder, OWNER) if spool is True else spool
        made.append(
            BackgroundWriter(
                store.append,
                append_many=store.append_many,
                spool=kept or None,
                at_end=store.close,
                **settings,
            )
        )
        return made[-1]

    yield make
    store.open.set()
    store.error = None
    for writer in made:
        writer.close()


def waiting(folder):
    """What is in the files, as whoever comes next finds it."""
    found = []
    for path in SpoolFile.left_behind(folder, OWNER):
        copy = path.with_suffix(".copy")
        copy.write_bytes(path.read_bytes())
        file = SpoolFile(copy, os.open(copy, os.O_RDONLY), inherited=True)
        found += [each.decision_id for each in file.read(10_000)]
        file.remove()
    return found


class TestBatches:
    def test_what_came_meanwhile_is_one_transaction(self, store, writer_to):
        writer = writer_to()
        store.open.clear()
        writer.put(event("first"))
        assert store.entered.wait(LONG)
        for n in range(2 * BATCH + 5):
            writer.put(event(n))
        store.open.set()
        assert writer.flush(LONG)
        assert store.ids == ["first", *numbers(2 * BATCH + 5)]
        assert store.batches == [1, BATCH, BATCH, 5]

    def test_a_bad_event_does_not_spoil_its_batch(self, store, writer_to, caplog):
        writer = writer_to()
        store.refused = ("3",)
        store.open.clear()
        for n in range(6):
            writer.put(event(n))
        store.open.set()
        assert writer.flush(LONG)
        assert store.ids == ["0", "1", "2", "4", "5"]
        assert writer.lost == 1
        assert caplog.text.count("the store failed with ValueError") == 1
        assert "cannot be stored" not in caplog.text
        assert "kept in" not in caplog.text  # it is not

    def test_a_store_that_goes_away_amid_single_events_gets_the_rest_later(
        self, store, writer_to
    ):
        writer = writer_to(retry_seconds=LONG)
        store.refused = ("bad",)
        append_many = store.append_many

        def fail_at_2(events):
            if [e.decision_id for e in events] == ["2"]:
                store.error = ConnectionResetError()
            append_many(events)

        writer._delivery._append_many = fail_at_2
        store.open.clear()
        for name in (0, "bad", 1, 2, 3):
            writer.put(event(name))
        store.open.set()
        assert not writer.flush(LONG)
        assert store.ids == ["0", "1"]
        writer._delivery._append_many = append_many
        store.error = None
        assert writer.flush(LONG)
        assert store.ids == numbers(4)
        assert writer.lost == 1

    def test_an_event_that_cannot_be_prepared_is_lost_alone(self, store, writer_to):
        def prepare(each):
            if each.decision_id == "1":
                raise KeyError("scores")
            return each

        writer = writer_to(prepare=prepare)
        for n in range(3):
            writer.put(event(n))
        assert writer.flush(LONG)
        assert store.ids == ["0", "2"]
        assert writer.lost == 1

    def test_a_direct_writer_gives_the_time_to_a_store_that_takes_it(self, store):
        told = NewEvent("outcome", "a", {})
        DirectWriter(store.append, append_many=store.append_many).put(told)
        assert store.taken == [told]


class TestAway:
    def test_events_wait_on_disk_and_come_in_their_order(
        self, store, writer_to, spool_folder, caplog
    ):
        writer = writer_to()
        store.error = ConnectionRefusedError("password in here")
        for n in range(5):
            writer.put(event(n))
        assert not writer.flush(LONG)
        writer.put(event(5))
        until(lambda: waiting(spool_folder) == numbers(6))
        assert writer.waiting == 0
        store.error = None
        assert writer.flush(LONG)
        assert store.ids == numbers(6)
        until(lambda: not list(spool_folder.iterdir()))
        assert writer.lost == 0
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == 2
        assert f"not logged but kept in {spool_folder}" in told[0]
        assert "ConnectionRefusedError" in told[0]
        assert "logged again; lost so far: 0" in told[1]
        assert "password" not in caplog.text

    def test_they_are_delivered_without_a_new_event(
        self, store, writer_to, spool_folder, caplog
    ):
        writer = writer_to()
        store.error = TimeoutError()
        writer.put(event("late"))
        assert not writer.flush(LONG)
        store.error = None
        until(lambda: store.ids == ["late"])
        until(lambda: "events are logged again" in caplog.text)
        until(lambda: not list(spool_folder.iterdir()))

    def test_a_store_that_is_away_is_left_alone_for_a_while(self, store, writer_to):
        writer = writer_to(retry_seconds=LONG)
        store.error = OSError()
        tries = []
        append_many = writer._delivery._append_many
        writer._delivery._append_many = lambda e: tries.append(e) or append_many(e)
        for n in range(50):
            writer.put_safely(event(n, "feedback"), LONG)
        assert len(tries) == 1

    def test_feedback_is_on_disk_when_it_returns(self, store, writer_to, spool_folder):
        writer = writer_to(retry_seconds=LONG)
        store.error = OSError()
        for n in range(3):
            writer.put(event(n))
            writer.put_safely(event(n, "feedback"), LONG)
            both = [name for name in numbers(n + 1) for _ in range(2)]
            assert waiting(spool_folder) == both

    def test_feedback_is_copied_to_disk_if_the_store_does_not_answer(
        self, store, writer_to, spool_folder
    ):
        writer = writer_to()
        store.open.clear()
        writer.put(event("a"))
        assert store.entered.wait(LONG)
        writer.put_safely(event("a", "feedback"), 0.01)
        assert waiting(spool_folder) == ["a"]
        store.open.set()
        assert writer.flush(LONG)
        assert [each.kind for each in store.taken] == ["decision", "feedback"]
        until(lambda: not list(spool_folder.iterdir()))

    def test_an_outcome_that_comes_while_the_disk_is_read_stays_behind(
        self, store, writer_to
    ):
        writer = writer_to(retry_seconds=LONG)
        store.error = OSError()
        for n in range(3):
            writer.put(event(n))
        assert not writer.flush(LONG)
        store.error = None
        store.entered.clear()
        store.open.clear()
        asking = threading.Thread(target=writer.flush, args=(LONG,))
        asking.start()
        assert store.entered.wait(LONG)
        for n in range(3):
            writer.put(event(n, "outcome"))
        store.open.set()
        asking.join(LONG)
        assert writer.flush(LONG)
        assert store.ids == numbers(3) * 2
        assert [e.kind for e in store.taken] == ["decision"] * 3 + ["outcome"] * 3

    def test_if_the_disk_is_full_too_events_wait_in_memory(
        self, store, writer_to, monkeypatch, caplog
    ):
        def full(self, lines, *, sync):
            raise OSError(errno.ENOSPC, "No space left")

        monkeypatch.setattr(SpoolFile, "add", full)
        writer = writer_to()
        store.error = OSError()
        for n in range(4):
            writer.put(event(n))
            writer.put_safely(event(n, "feedback"), LONG)
        assert writer.waiting == 8
        assert caplog.text.count("events cannot be kept in") == 1
        store.error = None
        assert writer.flush(LONG)
        assert store.ids == [name for name in numbers(4) for _ in range(2)]
        assert writer.lost == 0

    def test_a_disk_that_cannot_be_read_does_not_end_the_thread(
        self, store, writer_to, monkeypatch
    ):
        def broken(self, limit):
            raise OSError(errno.EIO, "input/output error")

        monkeypatch.setattr(Spool, "next", broken)
        writer = writer_to()
        writer.put(event("a"))
        assert writer.flush(LONG)
        assert store.ids == ["a"]

    def test_events_go_to_disk_if_memory_is_full(self, store, writer_to, spool_folder):
        writer = writer_to(capacity=1, patience_seconds=0.0)
        store.open.clear()
        writer.put(event(0))
        assert store.entered.wait(LONG)
        writer.put(event(1), keep=True)
        writer.put(event("kept", "feedback"), keep=True)
        writer.put(event("late"))
        assert waiting(spool_folder) == ["kept", "late"]
        assert writer.lost == 0
        store.open.set()
        assert writer.flush(LONG)
        writer.put(event("next"))
        assert writer.flush(LONG)
        assert sorted(store.ids) == ["0", "1", "kept", "late", "next"]

    def test_what_went_to_disk_is_made_ready_before(
        self, store, writer_to, spool_folder
    ):
        def prepare(given):
            if given.decision_id == "bad":
                raise ValueError
            return replace(given, payload={"ready": True})

        writer = writer_to(capacity=1, patience_seconds=0.0, prepare=prepare)
        store.open.clear()
        writer.put(event(0))
        assert store.entered.wait(LONG)
        writer.put(event(1))
        writer.put(event(2))
        writer.put(event("bad"))
        assert waiting(spool_folder) == ["1", "2"]
        assert writer.lost == 1
        store.open.set()
        assert writer.flush(LONG)
        assert sorted(store.ids) == ["0", "1", "2"]


class TestEnd:
    def test_closing_while_the_store_is_away_leaves_all_to_the_next(
        self, store, writer_to, spool_folder
    ):
        writer = writer_to(retry_seconds=LONG)
        store.error = OSError()
        for n in range(4):
            writer.put(event(n))
        writer.close()
        assert writer.lost == 0
        assert waiting(spool_folder) == numbers(4)
        store.error = None
        heir = writer_to()
        assert heir.flush(LONG)
        assert store.ids == numbers(4)
        assert not list(spool_folder.iterdir())

    def test_closing_while_the_store_hangs_keeps_all_on_disk(
        self, store, writer_to, spool_folder, caplog
    ):
        writer = writer_to(closing_seconds=0.05)
        store.open.clear()
        for n in range(4):
            writer.put(event(n))
        assert store.entered.wait(LONG)
        writer.close()
        assert waiting(spool_folder) == numbers(4)
        assert f"4 events are kept in {spool_folder}" in caplog.text
        store.open.set()
        until(lambda: writer._thread is None)
        assert sorted(set(store.ids)) == numbers(4)

    def test_without_files_a_writer_starts_no_thread(self, writer_to):
        assert writer_to()._thread is None

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_repeats_nothing_that_waits_on_disk(self, tmp_path):
        code = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from pathlib import Path
from mixllm_integrations.serving.background import BackgroundWriter
from mixllm_integrations.serving.spool import Spool
from mixllm_integrations.store import NewEvent
parent = os.getpid()
away = True
def append_many(events):
    if away:
        raise OSError
    with open(sys.argv[2], "a") as file:
        for event in events:
            file.write(f"{event.decision_id} {os.getpid() == parent}\\n")
writer = BackgroundWriter(
    None, append_many=append_many, spool=Spool(Path(sys.argv[1]), "owner")
)
writer.put(NewEvent("decision", "parent", {}))
assert not writer.flush(20)
child = os.fork()
away = False
if child == 0:
    writer.put(NewEvent("decision", "child", {}))
    assert writer.flush(20)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert writer.flush(20)
"""
        log = tmp_path / "log"
        run = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "waits"), str(log)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert run.returncode == 0, run.stderr
        assert sorted(log.read_text().splitlines()) == ["child False", "parent True"]


class TestJournal:
    def test_a_store_of_a_url_has_a_spool_and_others_have_none(
        self, tmp_path, spool_folder
    ):
        with open_store(f"sqlite:///{tmp_path}/log.db") as opened:
            kept = Journal(opened)._writer._delivery.spool
            assert kept.folder == spool_folder
            elsewhere = Journal(opened, spool=tmp_path / "other")
            assert elsewhere._writer._delivery.spool.folder == tmp_path / "other"

        class Plain(Shared):
            fingerprint = None

        assert Journal(Plain())._writer._delivery.spool is None

    def test_it_can_be_turned_off(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MIXLLM_SPOOL", "off")
        assert Journal(Shared())._writer._delivery.spool is None

    def test_every_event_says_who_wrote_it(self, store, ranked_router):
        journal = Journal(store, worker="me")
        decision = ranked_router.route("q")
        journal.decision(decision)
        journal.outcome(decision.id, Outcome(1, 1))
        journal.feedback(decision.id, 1.0, "binary", None)
        journal.signal(decision.id, "regenerate")
        journal.drift(decision.id, {"quantity": "cost"})
        assert journal.flush(LONG)
        kinds = [each.kind for each in store.taken]
        assert kinds == ["decision", "outcome", "feedback", "signal", "drift"]
        assert {each.payload["worker"] for each in store.taken} == {"me"}

    def test_a_worker_without_a_name_gets_one_of_its_own(self, store):
        names = {Journal(store).worker for _ in range(3)}
        assert {len(name) for name in names} == {16}
        assert len(names) == 3

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_is_another_worker(self):
        code = (
            "import os, sys; from mixllm_integrations.serving.journal import Journal\n"
            "class Store:\n"
            "    append = close = print\n"
            "journal = Journal(Store(), worker='parent')\n"
            "child = os.fork()\n"
            "if child == 0: os._exit(journal.worker == 'parent')\n"
            "assert os.waitpid(child, 0)[1] == 0 and journal.worker == 'parent'\n"
        )
        run = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
        assert run.returncode == 0

    def test_events_carry_the_time_at_which_they_happened(self, store):
        journal = Journal(store)
        store.open.clear()
        journal.outcome("a", Outcome(1, 1))
        assert store.entered.wait(LONG)
        time.sleep(0.02)
        journal.outcome("b", Outcome(1, 1))
        time.sleep(0.02)
        store.open.set()
        assert journal.flush(LONG)
        first, second = (each.at for each in store.taken)
        assert (second - first).total_seconds() >= 0.02

    def test_a_signal_is_kept_and_not_waited_for(self, store):
        journal = Journal(store)
        store.open.clear()
        journal.signal("a", "truncated")
        assert store.taken == []
        store.open.set()
        assert journal.flush(LONG)
        assert store.taken[0].payload["signal"] == "truncated"

    def test_what_is_handed_over_is_made_by_the_writers_thread(
        self, store, ranked_router
    ):
        journal = Journal(store)
        threads = []

        def make():
            threads.append(threading.current_thread().name)
            return {"context": "AAAA"}

        store.error = OSError()
        journal.decision(ranked_router.route("q"), handed_over=make)
        assert not journal.flush(LONG)
        store.error = None
        assert journal.flush(LONG)
        assert threads == ["mixllm-journal"]  # once, though it was tried twice
        assert store.taken[0].payload["handed_over"] == {"context": "AAAA"}

    def test_what_is_handed_over_does_not_change_afterwards(self, store, ranked_router):
        journal = Journal(store)
        given = {"context": "AAAA"}
        journal.decision(ranked_router.route("q"), handed_over=given)
        given["context"] = "BBBB"
        assert journal.flush(LONG)
        assert store.taken[0].payload["handed_over"] == {"context": "AAAA"}

    def test_a_decision_is_logged_even_if_nothing_can_be_handed_over(
        self, store, ranked_router, caplog
    ):
        def fail():
            raise RuntimeError("secret")

        journal = Journal(store)
        decision = ranked_router.route("q")
        journal.decision(decision, handed_over=fail)
        assert journal.flush(LONG)
        assert "handed_over" not in store.taken[0].payload
        assert f"decision {decision.id} is logged without" in caplog.text
        assert "secret" not in caplog.text

    def test_putting_an_event_takes_microseconds(self, store, ranked_router):
        journal = Journal(store)
        decision = ranked_router.route("q")
        store.open.clear()
        decisions = [replace(decision, id=str(n)) for n in range(500)]
        best = min(self.seconds(journal, decisions) for _ in range(5))
        store.open.set()
        assert best / len(decisions) < 100e-6  # 10 on an idle machine

    @staticmethod
    def seconds(journal, decisions):
        began = time.perf_counter()
        for decision in decisions:
            journal.decision(decision)
        return time.perf_counter() - began


class TestRealDatabase:
    def test_if_it_is_full_events_are_kept_until_there_is_room(
        self, tmp_path, spool_folder, caplog
    ):
        def allow(pages):
            with store._engine.connect() as connection:
                connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        with open_store(f"sqlite:///{tmp_path}/log.db") as store:
            journal = Journal(store)
            allow(30)
            for n in range(200):
                journal.feedback(f"d{n}", 1.0, "refined", "x" * 1_000)
            assert list(spool_folder.iterdir())
            allow(10_000)
            assert journal.flush(LONG)
            assert [e.decision_id for e in store.events()] == [
                f"d{n}" for n in range(200)
            ]
            journal.close()
        assert not list(spool_folder.iterdir())
        assert caplog.text.count("the store failed with OperationalError") == 1

    def test_events_are_kept_and_written_when_the_lock_is_gone(
        self, tmp_path, monkeypatch, caplog, spool_folder
    ):
        import sqlite3

        monkeypatch.setattr("mixllm_integrations.store.database._BUSY_SECONDS", 0.05)
        url = f"sqlite:///{tmp_path}/log.db"
        journal = Journal.open(url)
        journal.outcome("a", Outcome(1, 1))
        assert journal.flush(LONG)
        blocker = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        with caplog.at_level(logging.WARNING):
            for name in ("b", "c"):
                journal.outcome(name, Outcome(1, 1))
                journal.feedback(name, 1.0, "binary", None)
            (file,) = spool_folder.iterdir()
            assert file.read_bytes().count(b"feedback") == 2
            blocker.close()
            assert journal.flush(LONG)
        journal.close()
        assert caplog.text.count("OperationalError") == 1
        assert caplog.text.count("events are logged again") == 1
        with open_store(url) as opened:
            found = [(e.decision_id, e.kind) for e in opened.events()]
        assert found == [
            ("a", "outcome"),
            *(("b", "outcome"), ("b", "feedback")),
            *(("c", "outcome"), ("c", "feedback")),
        ]
