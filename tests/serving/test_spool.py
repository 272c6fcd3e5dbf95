"""Events that wait on disk: all there, in order, bounded, and found again."""

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.serving import spool_file
from mixllm_integrations.serving.spool import Spool, spool_folder
from mixllm_integrations.serving.spool_file import SpoolFile
from mixllm_integrations.serving.spool_lines import line_of
from mixllm_integrations.store import EVENT_KINDS, NewEvent

OWNER = "0123abcd"
AT = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)


def event(name, kind="decision", **payload):
    return NewEvent(kind, str(name), payload, AT)


def events(count, kind="decision", **payload):
    return [event(n, kind, **payload) for n in range(count)]


def ids(found):
    return [each.decision_id for each in found]


def rest(spool, batch=100):
    found = []
    while batch_found := spool.next(batch):
        found += batch_found
        spool.delivered()
    return found


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "there" / "spool"


@pytest.fixture
def spool_of(folder):
    made = []

    def make(owner=OWNER, **settings):
        made.append(Spool(folder, owner, **settings))
        return made[-1]

    yield make
    for spool in made:
        spool.close()


def files(folder):
    return sorted(folder.iterdir()) if folder.exists() else []


class TestOwnEvents:
    def test_they_come_back_as_they_were(self, spool_of):
        spool = spool_of()
        told = [
            NewEvent(
                "decision", "a", {"scores": [0.1, None], "odd": "\ud800\x00\n"}, AT
            ),
            NewEvent("feedback", "a\n", {"reward": 1.0}, None),
        ]
        spool.add(told)
        assert rest(spool) == told

    def test_they_come_in_batches_again_and_again_until_delivered(self, spool_of):
        spool = spool_of()
        spool.add(events(3))
        spool.add([event("last")])
        assert ids(spool.next(2)) == ["0", "1"]
        assert ids(spool.next(2)) == ["0", "1"]
        spool.delivered()
        assert ids(spool.next(9)) == ["2", "last"]
        spool.delivered()
        assert spool.next(9) == []

    def test_what_comes_while_others_are_delivered_comes_after_them(self, spool_of):
        spool = spool_of()
        spool.add(events(2))
        spool.next(1)
        spool.delivered()
        spool.add([event("new")])
        assert ids(rest(spool)) == ["1", "new"]

    def test_without_events_there_is_no_file_and_no_folder(self, spool_of, folder):
        spool = spool_of()
        spool.adopt()
        spool.add([])
        assert not spool.holds
        assert not spool.has_files
        assert spool.next(9) == []
        assert not folder.exists()

    def test_the_file_goes_when_all_is_delivered_and_nothing_is_in_memory(
        self, spool_of, folder
    ):
        spool = spool_of()
        spool.add(events(2))
        spool.settle(lambda: True)
        assert len(files(folder)) == 1
        rest(spool)
        spool.settle(lambda: False)
        assert len(files(folder)) == 1
        spool.settle(lambda: True)
        assert files(folder) == []
        spool.add([event("next outage")])
        assert ids(rest(spool)) == ["next outage"]

    def test_arrays_and_infinities_are_written_as_the_store_would(self, spool_of):
        spool = spool_of()
        spool.add([event("a", cost=float("inf"), tags=("x",))])
        assert rest(spool)[0].payload == {"cost": None, "tags": ["x"]}

    def test_what_no_store_could_take_is_counted_as_lost(self, spool_of):
        spool = spool_of()
        spool.add([event("a", model=object()), event("b")])
        assert ids(rest(spool)) == ["b"]
        assert spool.lost == 1

    def test_copies_are_not_delivered_by_who_has_the_events_in_memory(self, spool_of):
        spool = spool_of()
        spool.add([event("copy", "feedback")], copies=True)
        assert not spool.holds
        assert spool.next(9) == []
        spool.add([event("waits")])
        assert spool.holds
        assert ids(rest(spool)) == ["waits"]

    def test_only_feedback_and_signals_wait_for_the_disk(self, spool_of, monkeypatch):
        synced = []
        monkeypatch.setattr(spool_file.os, "fsync", synced.append)
        spool = spool_of()
        for kind in EVENT_KINDS:
            before = len(synced)
            spool.add([event("a", kind)])
            assert len(synced) - before == (kind in ("feedback", "signal"))

    def test_nobody_else_can_read_them_and_no_name_tells_anything(
        self, spool_of, folder
    ):
        spool_of().add(events(1))
        (file,) = files(folder)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert file.name.startswith(f"{OWNER}-{os.getpid()}-")

    def test_a_folder_that_anybody_may_write_to_is_not_used(self, spool_of, folder):
        folder.mkdir(parents=True)
        folder.chmod(0o777)
        with pytest.raises(PermissionError, match="everybody"):
            spool_of().add(events(1))

    def test_threads_lose_nothing(self, spool_of):
        spool = spool_of()

        def add(thread):
            for n in range(50):
                spool.add([event(f"{thread}-{n}")])

        threads = [threading.Thread(target=add, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = ids(rest(spool))
        assert len(found) == len(set(found)) == 200

    @given(
        st.lists(
            st.tuples(st.sampled_from(EVENT_KINDS), st.text(), st.booleans()),
            max_size=30,
        ),
        st.integers(1, 7),
    )
    def test_whatever_is_added_comes_back_once_and_in_order(
        self, tmp_path_factory, added, batch
    ):
        spool = Spool(tmp_path_factory.mktemp("spool"), OWNER)
        wanted = []
        for kind, text, is_read in added:
            wanted.append(NewEvent(kind, text, {"text": text}, AT))
            spool.add(wanted[-1:])
            if is_read:
                assert spool.next(batch) == wanted[:batch]
        assert rest(spool, batch) == wanted
        spool.close()


class TestFullDisks:
    def test_a_write_that_fails_half_way_leaves_nothing(self, spool_of, monkeypatch):
        spool = spool_of()
        spool.add([event("before")])
        write = os.write
        calls = []

        def fill_up(descriptor, content):
            calls.append(len(content))
            if len(calls) > 1:
                raise OSError(errno.ENOSPC, "disk full")
            return write(descriptor, bytes(content)[:10])

        with monkeypatch.context() as patched:
            patched.setattr(spool_file.os, "write", fill_up)
            with pytest.raises(OSError, match="disk full"):
                spool.add([event("lost")])
        spool.add([event("after")])
        assert ids(rest(spool)) == ["before", "after"]
        assert spool.lost == 0

    def test_decisions_go_first_and_feedback_last(self, spool_of):
        spool = spool_of(limit_bytes=20_000)
        text = "x" * 100
        for n in range(40):
            for kind in ("decision", "outcome", "feedback"):
                spool.add([NewEvent(kind, f"{kind}-{n}", {"text": text}, AT)])
        found = rest(spool)
        kept = {k: [e for e in found if e.kind == k] for k in EVENT_KINDS}
        assert len(kept["feedback"]) == 40
        assert len(kept["decision"]) < len(kept["outcome"]) <= 40
        assert kept["decision"][-1].decision_id == "decision-39"
        assert spool.lost == 120 - len(found)

    def test_of_one_kind_the_oldest_go_first(self, spool_of, folder, caplog):
        spool = spool_of(limit_bytes=10_000)
        for n in range(200):
            spool.add([event(n, "feedback", text="x" * 100)])
            assert sum(file.stat().st_size for file in files(folder)) <= 10_000
        found = ids(rest(spool))
        assert found == [str(n) for n in range(200 - len(found), 200)]
        assert 30 < len(found) < 70
        assert spool.lost == 200 - len(found)
        assert caplog.text.count("is full") == 1

    def test_making_room_forgets_what_is_delivered_but_no_copies(self, spool_of):
        spool = spool_of(limit_bytes=3_000)
        spool.add([event("copy", "feedback")], copies=True)
        spool.add(events(10, text="x" * 100))
        rest(spool)
        spool.add([event(f"new-{n}", text="x" * 100) for n in range(8)])
        assert spool.lost == 0
        spool.close()
        heir = spool_of()
        heir.adopt()
        assert ids(rest(heir)) == [*(f"new-{n}" for n in range(8)), "copy"]

    def test_after_making_room_delivery_goes_on_where_it_was(self, spool_of):
        spool = spool_of(limit_bytes=3_000)
        spool.add(events(10, text="x" * 110))
        spool.next(6)
        spool.delivered()
        spool.add([event(n, text="x" * 110) for n in range(10, 17)])
        assert spool.lost == 0
        assert ids(rest(spool)) == [str(n) for n in range(6, 17)]

    def test_without_room_for_a_smaller_file_the_large_one_stays(
        self, spool_of, monkeypatch
    ):
        spool = spool_of(limit_bytes=100)

        def refuse(self, limit):
            raise OSError(errno.ENOSPC, "disk full")

        monkeypatch.setattr(SpoolFile, "shrink", refuse)
        spool.add(events(5))
        assert len(rest(spool)) == 5


class TestEndedProcesses:
    def test_their_events_are_delivered_before_ones_own(self, spool_of, folder):
        first = spool_of()
        first.add(events(3))
        first.close()
        second = spool_of()
        second.add([event("own")])
        second.adopt()
        assert second.holds
        assert ids(rest(second)) == ["0", "1", "2", "own"]
        second.settle(lambda: True)
        assert files(folder) == []

    def test_copies_of_theirs_are_delivered_after_the_rest(self, spool_of):
        first = spool_of()
        first.add([event("a", "feedback")], copies=True)
        first.add([event("a", "decision"), event("b", "decision")])
        first.close()
        second = spool_of()
        second.adopt()
        found = [(e.kind, e.decision_id) for e in rest(second, 1)]
        assert found == [("decision", "a"), ("decision", "b"), ("feedback", "a")]

    def test_those_of_living_ones_are_theirs(self, spool_of):
        first, second = spool_of(), spool_of()
        first.add(events(1))
        second.adopt()
        assert second.has_files
        assert not second.holds
        assert ids(rest(first)) == ["0"]

    def test_those_of_another_database_stay(self, spool_of, folder):
        first = spool_of("another")
        first.add(events(1))
        first.close()
        second = spool_of()
        second.adopt()
        assert not second.has_files
        assert not second.holds
        assert len(files(folder)) == 1

    def test_two_heirs_do_not_deliver_the_same(self, spool_of):
        first = spool_of()
        first.add(events(1))
        first.close()
        heirs = [spool_of(), spool_of()]
        for heir in heirs:
            heir.adopt()
        assert [heir.holds for heir in heirs] == [True, False]

    def test_an_heir_that_ends_leaves_them_to_the_next(self, spool_of):
        first = spool_of()
        first.add(events(3))
        first.close()
        second = spool_of()
        second.adopt()
        second.next(2)
        second.close()
        third = spool_of()
        third.adopt()
        assert ids(rest(third)) == ["0", "1", "2"]

    def test_a_file_that_was_removed_meanwhile_is_not_taken_over(
        self, spool_of, folder, monkeypatch
    ):
        first = spool_of()
        first.add(events(1))
        first.close()
        (path,) = files(folder)
        lock = spool_file._lock

        def too_late(descriptor):
            path.unlink()
            lock(descriptor)

        monkeypatch.setattr(spool_file, "_lock", too_late)
        assert SpoolFile.take_over(path) is None
        assert SpoolFile.take_over(path) is None  # not there at all

    @pytest.mark.parametrize("cut", [1, 5, 30])
    def test_a_torn_last_line_is_left_out_and_counted(
        self, spool_of, folder, cut, caplog
    ):
        first = spool_of()
        first.add([*events(3), event("torn", text="x" * 50)])
        first.close()
        (path,) = files(folder)
        os.truncate(path, path.stat().st_size - cut)
        second = spool_of()
        second.adopt()
        assert ids(rest(second)) == ["0", "1", "2"]
        assert second.lost == 1
        assert "1 damaged lines" in caplog.text

    def test_damaged_lines_are_left_out_wherever_they_are(self, spool_of, folder):
        first = spool_of()
        first.add(events(5))
        first.close()
        (path,) = files(folder)
        lines = path.read_bytes().split(b"\n")
        lines[0] = lines[0].replace(b"decision", b"decisiom")
        lines[2] = b"\xff\x00"
        lines[4] = b"00000000 " + json.dumps([1, 2]).encode()
        path.write_bytes(b"\n".join(lines))
        second = spool_of()
        second.adopt()
        assert ids(second.next(9)) == ids(second.next(9)) == ["1", "3"]
        assert ids(rest(second)) == ["1", "3"]
        assert second.lost == 3

    def test_a_line_longer_than_what_is_read_at_once_is_whole(self, spool_of):
        spool = spool_of()
        long = "x" * (3 * spool_file._CHUNK)
        spool.add([event("a", text=long), event("b")])
        found = rest(spool)
        assert ids(found) == ["a", "b"]
        assert found[0].payload["text"] == long

    def test_what_another_user_has_put_there_is_not_taken(
        self, spool_of, folder, monkeypatch
    ):
        first = spool_of()
        first.add(events(1))
        first.close()
        user = os.getuid()
        monkeypatch.setattr(spool_file.os, "getuid", lambda: user + 1)
        second = spool_of()
        second.adopt()
        assert not second.holds

    def test_a_link_is_not_followed(self, spool_of, folder):
        first = spool_of()
        first.add(events(1))
        first.close()
        (path,) = files(folder)
        path.rename(folder / "elsewhere")
        path.symlink_to(folder / "elsewhere")
        assert SpoolFile.take_over(path) is None

    def test_what_nobody_finishes_is_deleted_after_an_hour(self, spool_of, folder):
        folder.mkdir(parents=True)
        old, new = folder / f".{OWNER}-1.spool.a", folder / f".{OWNER}-2.spool.b"
        for path in (old, new):
            path.touch()
        os.utime(old, (0, 0))
        spool_of().adopt()
        assert files(folder) == [new]

    def test_a_process_that_was_killed_has_let_go(self, spool_of, folder):
        code = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from mixllm_integrations.serving.spool import Spool\n"
            "from mixllm_integrations.store import NewEvent\n"
            f"spool = Spool(Path(sys.argv[1]), {OWNER!r})\n"
            "spool.add([NewEvent('feedback', 'a', {})])\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
        heir = spool_of()
        heir.adopt()
        assert ids(rest(heir)) == ["a"]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_does_not_keep_its_parents_file(self, folder):
        code = """
import os, signal, sys, time
from pathlib import Path
from mixllm_integrations.serving.background import BackgroundWriter
from mixllm_integrations.serving.spool import Spool
from mixllm_integrations.store import NewEvent
spool = Spool(Path(sys.argv[1]), sys.argv[2])
writer = BackgroundWriter(print, spool=spool)
spool.add([NewEvent("feedback", "parent", {})])
if os.fork() == 0:
    parent = os.getppid()
    os.kill(parent, signal.SIGKILL)
    while os.getppid() == parent:
        time.sleep(0.001)
    spool.adopt()
    print([e.decision_id for e in spool.next(9)], flush=True)
    os._exit(0)
time.sleep(60)
"""
        run = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, str(folder), OWNER],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert run.stdout.readline() == "['parent']\n"
        run.stdout.close()
        run.wait(20)


class TestFolders:
    def test_the_variable_names_it_or_turns_it_off(self, monkeypatch):
        monkeypatch.setenv("MIXLLM_SPOOL", "/some/where")
        assert spool_folder() == Path("/some/where")
        monkeypatch.setenv("MIXLLM_SPOOL", "off")
        assert spool_folder() is None

    def test_else_it_is_in_the_users_folder_for_state(self, monkeypatch, tmp_path):
        monkeypatch.delenv("MIXLLM_SPOOL")
        monkeypatch.delenv("LOCALAPPDATA", raising=False)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        assert spool_folder() == tmp_path / "mixllm" / "spool"
        monkeypatch.delenv("XDG_STATE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert spool_folder() == tmp_path / ".local" / "state" / "mixllm" / "spool"

    def test_without_a_home_it_is_with_the_temporary_files(self, monkeypatch, tmp_path):
        for name in ("MIXLLM_SPOOL", "LOCALAPPDATA", "XDG_STATE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        found = spool_folder()
        assert found.is_relative_to(tmp_path)
        assert str(os.getuid()) in found.parent.name


def test_a_line_that_cannot_be_written_is_none():
    assert line_of(event("a", model=object())) is None
