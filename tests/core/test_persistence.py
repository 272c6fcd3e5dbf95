"""A state is in its folder whole or not at all."""

import hashlib
import json
import math
import os
import re
import shutil
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core import persistence
from mixllm_integrations.core.errors import ConfigurationError, StateFormatError
from mixllm_integrations.core.persistence import (
    FORMAT_VERSION,
    read_folder,
    write_folder,
)
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate

FILES = ["arrays.safetensors", "manifest.json", "state.json"]
OLD = {"name": "old", "numbers": [1, 2.5, None, True]}
NEW = {"name": "new"}
ARRAYS = {"a": np.arange(6.0).reshape(2, 3), "b/c": np.array([True, False])}


@pytest.fixture
def target(tmp_path):
    return tmp_path / "state"


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# --- there and back -----------------------------------------------------------


def test_a_state_comes_back_as_it_was(target):
    write_folder(target, OLD, ARRAYS)
    state, arrays = read_folder(target)
    assert state == OLD
    assert sorted(arrays) == sorted(ARRAYS)
    for name, array in ARRAYS.items():
        assert np.array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
    assert names_in(target) == FILES
    assert names_in(target.parent) == ["state"]


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    max_leaves=20,
)


@settings(max_examples=50)
@given(st.dictionaries(st.text(), plain))
def test_any_json_comes_back_as_it_was(tmp_path_factory, state):
    folder = tmp_path_factory.mktemp("any") / "state"
    write_folder(folder, state, {})
    assert read_folder(folder)[0] == state


def test_infinities_and_numbers_of_numpy_are_written_as_strict_json(target):
    state = {
        "inf": [math.inf, -math.inf],
        "of": {"numpy": (np.float32(0.5), np.int64(7), np.bool_(True))},  # noqa: FBT003
    }
    write_folder(target, state, {})

    def refuse(constant):
        raise AssertionError(constant)

    json.loads((target / "state.json").read_text(), parse_constant=refuse)
    assert read_folder(target)[0] == {
        "inf": [math.inf, -math.inf],
        "of": {"numpy": [0.5, 7, True]},
    }


@pytest.mark.parametrize("bad", [math.nan, object(), {1, 2}, b"bytes"])
def test_what_json_cannot_hold_leaves_the_earlier_state(target, bad):
    write_folder(target, OLD, ARRAYS)
    with pytest.raises((TypeError, ValueError)):
        write_folder(target, {"bad": bad}, {})
    assert read_folder(target)[0] == OLD
    assert names_in(target.parent) == ["state"]


def test_arrays_that_are_views_are_written_whole(target):
    whole = np.arange(20.0).reshape(4, 5)
    write_folder(target, {}, {"t": whole.T, "s": whole[::2, 1]})
    arrays = read_folder(target)[1]
    assert np.array_equal(arrays["t"], whole.T)
    assert np.array_equal(arrays["s"], whole[::2, 1])


def test_folders_above_are_made(tmp_path):
    deep = tmp_path / "a" / "b" / "state"
    write_folder(str(deep), OLD, {})
    assert read_folder(str(deep))[0] == OLD


def test_an_empty_folder_may_be_filled(target):
    target.mkdir()
    write_folder(target, OLD, {})
    assert read_folder(target)[0] == OLD


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_a_link_stays_a_link(tmp_path):
    write_folder(tmp_path / "v1", OLD, {})
    (tmp_path / "current").symlink_to(tmp_path / "v1")
    write_folder(tmp_path / "current", NEW, {})
    assert (tmp_path / "current").is_symlink()
    assert read_folder(tmp_path / "v1")[0] == NEW
    assert names_in(tmp_path) == ["current", "v1"]


def test_the_manifest_holds_version_and_digests(target):
    write_folder(target, OLD, ARRAYS)
    manifest = json.loads((target / "manifest.json").read_text())
    assert manifest["format_version"] == FORMAT_VERSION == 1
    for name in ("state.json", "arrays.safetensors"):
        digest = hashlib.sha256((target / name).read_bytes()).hexdigest()
        assert manifest["sha256"][name] == digest


# --- foreign folders ----------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [
        {"notes.txt": "mine"},
        {"manifest.json": '{"name": "a web page", "icons": []}'},
        {"manifest.json": "no json"},
        {"manifest.json": "[]"},
        {"state.json": "{}"},
        {"manifest.json": '{"format_version": 1}', "notes.txt": "mine"},
        {"manifest.json": '{"format_version": 1}', ".git": "mine"},
    ],
)
def test_a_folder_with_something_else_is_never_overwritten(target, files):
    target.mkdir()
    for name, text in files.items():
        (target / name).write_text(text)
    with pytest.raises(ConfigurationError, match="pass a new folder") as caught:
        write_folder(target, NEW, {})
    assert str(target) in str(caught.value)
    assert {p.name: p.read_text() for p in target.iterdir()} == files
    assert names_in(target.parent) == ["state"]


def test_a_file_of_ones_own_beside_the_state_is_never_lost(target):
    write_folder(target, OLD, {})
    (target / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="more than that"):
        write_folder(target, NEW, {})
    assert (target / "notes.txt").read_text() == "mine"
    assert read_folder(target)[0] == OLD


def test_a_file_is_never_overwritten(target):
    target.write_text("mine")
    with pytest.raises(ConfigurationError, match="pass a new folder"):
        write_folder(target, NEW, {})
    assert target.read_text() == "mine"
    with pytest.raises(ConfigurationError, match="there is no folder"):
        read_folder(target)


def test_a_damaged_state_may_be_replaced(target):
    write_folder(target, OLD, ARRAYS)
    (target / "state.json").write_bytes(b"")
    (target / "arrays.safetensors").unlink()
    write_folder(target, NEW, {})
    assert read_folder(target)[0] == NEW


# --- failures while writing ---------------------------------------------------


def fail_at(monkeypatch, where, name, at):
    """Let the call number `at` of a function fail; return how often it ran."""
    real, calls = getattr(where, name), []

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) == at:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    monkeypatch.setattr(where, name, failing)
    return calls


@pytest.mark.parametrize("at", range(1, 7))
def test_a_disk_that_fails_while_syncing_leaves_a_whole_state(target, monkeypatch, at):
    write_folder(target, OLD, ARRAYS)
    with monkeypatch.context() as patch:
        calls = fail_at(patch, os, "fsync", at)
        if at <= 5:  # three files, their folder, the folder above
            with pytest.raises(OSError, match="No space left"):
                write_folder(target, NEW, ARRAYS)
        else:
            write_folder(target, NEW, ARRAYS)
    assert len(calls) == min(at, 5)
    assert read_folder(target)[0] == (OLD if at <= 4 else NEW)
    assert names_in(target.parent) == ["state"]
    write_folder(target, NEW, ARRAYS)
    assert read_folder(target)[0] == NEW


@pytest.mark.parametrize("at", [1, 2])
def test_a_rename_that_fails_leaves_the_old_state(target, monkeypatch, at):
    write_folder(target, OLD, ARRAYS)
    with monkeypatch.context() as patch:
        fail_at(patch, Path, "rename", at)
        with pytest.raises(OSError, match="No space left"):
            write_folder(target, NEW, ARRAYS)
    assert read_folder(target)[0] == OLD
    assert names_in(target.parent) == ["state"]


def test_a_first_save_that_fails_leaves_nothing(target, monkeypatch):
    with monkeypatch.context() as patch:
        fail_at(patch, Path, "rename", 1)
        with pytest.raises(OSError, match="No space left"):
            write_folder(target, NEW, ARRAYS)
    assert names_in(target.parent) == []


def test_a_write_that_breaks_off_leaves_the_old_state(target, monkeypatch):
    write_folder(target, OLD, ARRAYS)
    with monkeypatch.context() as patch:
        fail_at(patch, Path, "open", 2)
        with pytest.raises(OSError, match="No space left"):
            write_folder(target, NEW, ARRAYS)
    assert read_folder(target)[0] == OLD
    assert names_in(target.parent) == ["state"]


def test_an_interrupt_between_the_renames_puts_the_old_state_back(target, monkeypatch):
    write_folder(target, OLD, ARRAYS)
    real, calls = Path.rename, []

    def interrupted(path, to):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(path, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_folder(target, NEW, ARRAYS)
    assert read_folder(target)[0] == OLD
    assert names_in(target.parent) == ["state"]


def test_a_process_that_died_between_the_renames_has_lost_nothing(target):
    write_folder(target, OLD, ARRAYS)
    target.rename(target.parent / ".state.0123.old")  # as far as it came
    shutil.copytree(target.parent / ".state.0123.old", target.parent / ".state.9.new")
    assert read_folder(target)[0] == OLD
    write_folder(target, NEW, {})
    assert read_folder(target)[0] == NEW
    shutil.rmtree(target)
    with pytest.raises(ConfigurationError, match="there is no folder"):
        read_folder(target)  # what was set aside is not raised from the dead


def test_what_was_set_aside_for_another_folder_is_left_alone(target):
    write_folder(target.parent / ".other.1.old", OLD, {})
    with pytest.raises(ConfigurationError, match="there is no folder"):
        read_folder(target)
    write_folder(target, NEW, {})
    assert (target.parent / ".other.1.old").is_dir()


def test_a_reader_never_sees_half_of_a_state(target):
    def write(n):  # of what a damaged state could do without
        state, arrays = {"experience": {"n": n}}, {"online.n": np.full(2_000, float(n))}
        write_folder(target, state, arrays)

    write(0)
    stop = threading.Event()
    errors = []

    def save():
        n = 0
        while not stop.is_set():
            n += 1
            try:
                write(n)
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

    writers = [threading.Thread(target=save) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(300):
            state, arrays = read_folder(target)
            assert set(arrays["online.n"].tolist()) == {float(state["experience"]["n"])}
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert errors == []
    assert names_in(target.parent) == ["state"]


# --- damage -------------------------------------------------------------------


@pytest.fixture
def written(target):
    write_folder(target, OLD, ARRAYS)
    return target


def test_a_folder_that_is_not_there_is_named(target):
    with pytest.raises(ConfigurationError, match="there is no folder") as caught:
        read_folder(target)
    assert str(target) in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(written, name):
    (written / name).unlink()
    with pytest.raises(StateFormatError, match=f"{name}.*is missing") as caught:
        read_folder(written)
    assert "no saved router, or not a whole one" in str(caught.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0, 1, 0.5, -1])
def test_a_truncated_file_is_named(written, name, kept):
    data = (written / name).read_bytes()
    length = int(len(data) * kept) if kept == 0.5 else kept
    (written / name).write_bytes(data[:length])
    with pytest.raises(StateFormatError, match=name):
        read_folder(written)


@settings(max_examples=60)
@given(data=st.data())
def test_no_flipped_bit_goes_unseen(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("bits") / "state"
    write_folder(folder, OLD, ARRAYS)
    name = data.draw(st.sampled_from(["state.json", "arrays.safetensors"]))
    content = bytearray((folder / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    (folder / name).write_bytes(content)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            state, arrays = read_folder(folder)
        except StateFormatError as error:
            said, state, arrays = [error], OLD, ARRAYS
    assert re.search(f"{name}.* was changed .*restore it", str(said[0]))
    assert {**state, **OLD} == state  # the bit was between the parts
    assert all(np.array_equal(arrays[k], v) for k, v in ARRAYS.items())


def test_files_of_two_states_do_not_mix(written, tmp_path):
    write_folder(tmp_path / "other", NEW, ARRAYS)
    shutil.copy(tmp_path / "other" / "state.json", written / "state.json")
    with pytest.raises(StateFormatError, match=r"state.json.* was changed"):
        read_folder(written)


def with_manifest(folder, **changes):
    path = folder / "manifest.json"
    manifest = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in manifest.items() if v != "gone"}))


def test_a_folder_of_a_newer_version_says_to_upgrade(written):
    with_manifest(written, format_version=FORMAT_VERSION + 1)
    with pytest.raises(StateFormatError, match="upgrade mixllm-integrations") as caught:
        read_folder(written)
    assert "in format 2" in str(caught.value)
    assert "up to 1" in str(caught.value)


@pytest.mark.parametrize("version", ["gone", None, "1", 1.0, 0, -1, [], True])
def test_a_version_that_is_none_is_refused(written, version):
    with_manifest(written, format_version=version)
    with pytest.raises(StateFormatError, match="no valid format_version"):
        read_folder(written)


@pytest.mark.parametrize("digests", ["gone", None, [], {}, {"state.json": 7}])
def test_digests_that_are_missing_are_refused(written, digests):
    with_manifest(written, sha256=digests)
    with pytest.raises(StateFormatError, match="sha256"):
        read_folder(written)


@pytest.mark.parametrize("text", [b"", b"[1]", b"{", b'"x"', b"\xff\xfe", b"null"])
def test_a_manifest_that_is_no_object_is_refused(written, text):
    (written / "manifest.json").write_bytes(text)
    with pytest.raises(StateFormatError, match=r"manifest\.json"):
        read_folder(written)


@pytest.mark.parametrize("text", [b"[1]", b"{", b"\xff", b"7"])
def test_a_state_that_is_no_object_is_refused_though_its_digest_holds(written, text):
    (written / "state.json").write_bytes(text)
    digests = json.loads((written / "manifest.json").read_text())["sha256"]
    digests["state.json"] = hashlib.sha256(text).hexdigest()
    with_manifest(written, sha256=digests)
    with pytest.raises(StateFormatError, match=r"state\.json"):
        read_folder(written)


@pytest.mark.parametrize("data", [b"", b"x", b"\xff" * 100, b"\x80\x04K\x01."])
def test_arrays_that_are_none_are_refused_though_their_digest_holds(written, data):
    (written / "arrays.safetensors").write_bytes(data)
    digests = json.loads((written / "manifest.json").read_text())["sha256"]
    digests["arrays.safetensors"] = hashlib.sha256(data).hexdigest()
    with_manifest(written, sha256=digests)
    with pytest.raises(StateFormatError, match=r"arrays\.safetensors"):
        read_folder(written)


def test_nothing_is_ever_unpickled():
    source = Path(persistence.__file__).parent
    for file in source.rglob("*.py"):
        text = file.read_text("utf-8")
        for word in ("import pickle", "joblib.load", "allow_pickle=True", "eval("):
            assert word not in text, (file.name, word)


def flipped(folder, name, place):
    content = bytearray((folder / name).read_bytes())
    content[place] ^= 1
    (folder / name).write_bytes(content)


def test_a_part_that_one_can_do_without_is_left_out_and_named(target):
    rows = {"mid": 1.5, "large": 2.5}
    state = {**OLD, "experience": {"labels": rows, "names": ["mid"]}, "pending": [3, 4]}
    write_folder(target, state, ARRAYS)
    text = (target / "state.json").read_bytes()
    for part in (b"2.5\n}", b'["mid"]', b"\n4"):
        flipped(target, "state.json", text.index(part) + 1)
    with pytest.warns(RuntimeWarning, match="what is damaged is left out"):
        found, arrays = read_folder(target)
    damage = found.pop("damage")
    experience = {"labels": {"mid": 1.5, "large": None}, "names": None}
    assert found == {**OLD, "experience": experience, "pending": [3, None]}
    assert damage.files == ("state.json",)
    places = {("experience", "labels", "large"), ("experience", "names")}
    assert damage.parts == places | {("pending", 1)}
    assert all(np.array_equal(arrays[k], v) for k, v in ARRAYS.items())


def test_a_row_or_a_column_of_an_array_is_damaged_by_itself(target):
    arrays = {
        "a": np.zeros(3),
        "heads.level": np.arange(3.0),
        "online.replay.who": np.arange(5),
        "quality.0.coefficients": np.arange(12.0).reshape(4, 3),
    }
    write_folder(target, OLD, arrays)
    data = (target / "arrays.safetensors").read_bytes()
    for name, place in (
        ("heads.level", 0),
        ("online.replay.who", 3),
        ("quality.0.coefficients", 7),
    ):
        flipped(
            target, "arrays.safetensors", data.index(arrays[name].tobytes()) + 8 * place
        )
    with pytest.warns(RuntimeWarning, match="what is damaged is left out"):
        found, read = read_folder(target)
    assert found.pop("damage").arrays == {
        "heads.level": {0},
        "online.replay.who": None,
        "quality.0.coefficients": {1},
    }
    assert found == OLD
    assert sorted(read) == ["a", "heads.level", "quality.0.coefficients"]


@pytest.mark.parametrize("parts", ["gone", None, [], {"state.json": [["x"]]}, {}])
def test_without_digests_of_parts_a_changed_file_is_refused(target, parts):
    write_folder(target, {**OLD, "pending": [1]}, ARRAYS)
    place = (target / "state.json").read_bytes().index(b"\n1\n")
    flipped(target, "state.json", place + 1)
    with_manifest(target, parts=parts)
    with pytest.raises(
        StateFormatError, match=r"state\.json.* was changed .*restore it"
    ):
        read_folder(target)


def test_a_manifest_of_an_earlier_release_reads_as_ever(target):
    write_folder(target, OLD, ARRAYS)
    with_manifest(target, parts="gone", bytes="gone", header="gone")
    state, arrays = read_folder(target)
    assert state == OLD
    assert sorted(arrays) == sorted(ARRAYS)


# --- the same through the router ----------------------------------------------


def test_a_router_that_cannot_be_saved_goes_on_and_its_folder_too(target, monkeypatch):
    router = Router([Candidate("a", 1, 1, prior_quality=0.5)], prior="none")
    router.save(target)
    router.record_feedback(router.route("q").id, 1.0)
    with monkeypatch.context() as patch:
        fail_at(patch, os, "fsync", 2)
        with pytest.raises(OSError, match="No space left"):
            router.save(target)
    assert Router.load(target).predict(["q"]).quality.tolist() == [[0.5]]
    router.save(target)
    loaded = Router.load(target).predict(["q"]).quality
    assert loaded.tolist() == router.predict(["q"]).quality.tolist() != [[0.5]]


def test_a_router_is_not_saved_over_something_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="pass a new folder"):
        Router([Candidate("a", 1, 1)]).save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("name", FILES)
def test_a_router_with_a_damaged_file_is_refused(target, name):
    Router([Candidate("a", 1, 1)]).save(target)
    data = (target / name).read_bytes()
    (target / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(StateFormatError, match=name):
        Router.load(target)


def test_a_router_of_a_newer_version_is_refused(target):
    Router([Candidate("a", 1, 1)]).save(target)
    with_manifest(target, format_version=99)
    with pytest.raises(StateFormatError, match="upgrade"):
        Router.load(target)


def test_a_router_that_is_not_there_is_named(target):
    with pytest.raises(ConfigurationError, match="there is no folder"):
        Router.load(target)
