"""Whatever stands in a saved folder: a router that works, or a typed error."""

import contextlib
import copy
import io
import json
import os
import struct
import time
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from mixllm_integrations import Outcome, Router
from mixllm_integrations.core import persistence
from mixllm_integrations.core.errors import (
    ConfigurationError,
    MixLLMError,
    NoCandidateError,
    StateFormatError,
)
from mixllm_integrations.core.handing_over import unzipped, zipped

pytestmark = pytest.mark.usefixtures("quiet")
FILES = "manifest.json", "state.json", "arrays.safetensors"
# One folder is read in some ten milliseconds; a fixture is the same each time.
FUZZ = settings(
    max_examples=60,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


def restored(files) -> Router | None:
    """The router of these files; ``None`` if they were refused as they should be."""
    try:
        state, arrays = persistence.unpacked(files, source="a fuzzed folder")
        return Router._of_state(
            state,
            arrays,
            source="a fuzzed folder",
            encoder=None,
            prior="shipped",
            clock=time.monotonic,
        )
    except MixLLMError:
        return None


def works(router) -> bool:
    """Tell whether a router predicts, decides, learns, and can be saved again."""
    try:
        assert np.isfinite(router.predict(["tax court", ""]).quality).all()
        decision = router.route("tax court")
        router.record_outcome(decision.id, Outcome(9, 99, latency_seconds=1.0))
        assert router.record_feedback(decision.id, 0.4)
        decision = router.route("a matrix")
        router.record_feedback(decision.id, 1.0, kind="binary", source="thumbs")
        router.record_signal(router.route("verse").id, "regenerate")
    except NoCandidateError:  # a limit of the folder's: that is what limits do
        pass
    again = restored(persistence.packed(*router._state()))
    return again is not None and again.candidates == router.candidates


def changed(state, place, value):
    """The state with another value at a place; ``...``: with none."""
    if not place:
        return None if value is ... else value
    state = copy.deepcopy(state)
    within = state
    for key in place[:-1]:
        within = within[key]
    if value is ...:
        del within[place[-1]]
    else:
        within[place[-1]] = value
    return state


def test_the_unchanged_files_give_a_router_that_works(saved, saved_with_gradient):
    for each in (saved, saved_with_gradient):
        assert works(restored(each.files))


@FUZZ
@given(data=st.data())
def test_any_value_in_the_place_of_any_other_is_survived(
    saved, saved_with_gradient, nasty, data
):
    own = data.draw(st.sampled_from([saved, saved_with_gradient]))
    place = data.draw(st.sampled_from(own.places))
    kind = data.draw(st.sampled_from(["nasty", "nasty", "nasty", "swap", "drop"]))
    value = ...
    if kind == "nasty":
        value = data.draw(st.sampled_from([*nasty, float("nan"), float("inf")]))
    elif kind == "swap":
        value = own.state
        for key in data.draw(st.sampled_from(own.places)):
            value = value[key]
    router = restored(own.with_state(changed(own.state, place, value)))
    assert router is None or works(router)


FOUND = [
    (("experience", "drift", "candidates"), {"$float": [1]}),
    (("pending", 2, "version"), {"$float": "inf"}),
    (("chance", "state", "inc"), -1e308),
    (("spending", "pacer", "billed"), 10**400),
    (("candidates", 2, "tools"), float("nan")),
    (("candidates", 2, "vision"), "yes"),
    (("knowledge", "length", "errors"), {"ridge": float("nan")}),
    (("settings", "clock"), "tick"),
    (("settings", "encoder"), {"kind": "static"}),
    (("policy", "max_cost_per_query"), [1]),
]


@pytest.mark.parametrize(("place", "value"), FOUND, ids=range(len(FOUND)))
def test_what_fuzzing_once_found_in_a_state_stays_mended(saved, place, value):
    router = restored(saved.with_state(changed(saved.state, place, value)))
    assert router is None or works(router)


@pytest.mark.parametrize("name", ["clock", "encoder", "prior", "candidates"])
def test_a_folder_cannot_say_what_belongs_to_the_caller(saved, name):
    state = changed(saved.state, ("settings", name), "mine")
    with pytest.raises(StateFormatError, match=name):
        Router._of_state(
            *persistence.unpacked(saved.with_state(state), source="a folder"),
            source="a folder",
            encoder=None,
            prior="shipped",
            clock=time.monotonic,
        )


def edited(array, how, rng):
    """An array of which something is wrong."""
    array = np.array(array)
    if how == "cast":
        return array.astype(rng.choice(["f2", "f8", "i8", "i1", "?", "u8"]))
    if how == "flat":
        return array.reshape(-1) if array.ndim > 1 else array[None]
    if how == "empty":
        shapes = [(0,), (0, 0), (0, 5), (), (0, 2**40)]
        return np.zeros(shapes[rng.integers(len(shapes))], array.dtype)
    if how == "zero":
        return np.zeros_like(array)
    if how == "resize":
        more = [max(n + int(rng.choice([-1, 1])), 1) for n in array.shape]
        return np.resize(array, more)
    if array.size:
        is_float = array.dtype.kind == "f"
        most = (np.finfo if is_float else np.iinfo)(array.dtype).max
        values = {"huge": most, "small": -1, "one": 1}
        values |= {"nan": np.nan if is_float else most}
        array.reshape(-1)[rng.integers(array.size)] = values[how]
    return array


HOWS = ("cast", "flat", "empty", "zero", "resize", "huge", "small", "one", "nan")


@FUZZ
@given(data=st.data())
def test_any_array_of_any_form_is_survived(saved, saved_with_gradient, data):
    own = data.draw(st.sampled_from([saved, saved_with_gradient]))
    name = data.draw(st.sampled_from(sorted(own.arrays)))
    how = data.draw(st.sampled_from([*HOWS, "drop", "swap"]))
    arrays = dict(own.arrays)
    if how == "drop":
        del arrays[name]
    elif how == "swap":
        arrays[name] = arrays[data.draw(st.sampled_from(sorted(arrays)))]
    else:
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
        arrays[name] = edited(arrays[name], how, rng)
    router = restored(own.with_arrays(arrays))
    assert router is None or works(router)


def test_a_scale_beyond_every_fit_is_refused(saved):
    arrays = dict(saved.arrays)
    arrays["context.trait_scale"] = arrays["context.trait_scale"] + 1e308
    assert restored(saved.with_arrays(arrays)) is None


def test_contexts_of_another_length_than_the_arms_are_dropped(saved):
    arrays = dict(saved.arrays)
    arrays["pending.contexts"] = arrays["pending.contexts"][:, :-1]
    router = restored(saved.with_arrays(arrays))
    assert router is not None
    assert works(router)
    assert router._ledger.unreadable == len(saved.state["pending"])


def test_a_feature_named_twice_cannot_make_contexts_of_gigabytes(saved, within):
    arrays = dict(saved.arrays)
    arrays["shape.chosen"] = np.zeros(200_000, dtype=np.int64)
    with within(300):
        assert restored(saved.with_arrays(arrays)) is None


def test_contexts_longer_than_any_fit_makes_are_refused(saved, within):
    arrays = dict(saved.arrays)
    rows = len(arrays["context.axes"])
    arrays["context.axes"] = np.zeros((rows, 20_000), dtype=np.float32)
    with within(300):
        assert restored(saved.with_arrays(arrays)) is None


def header(about) -> bytes:
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    return struct.pack("<Q", len(text)) + text


def one(dtype, shape, offsets):
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


HEADERS = [
    *(b"", b"\0" * 7, b"\xff" * 64, struct.pack("<Q", 2**63), header(b"{" * 5_000)),
    *(header(b'{"a":' * 100_000), header([]), header({}), header({"x": None})),
    header(one("F64", [2**31, 2**31], [0, 2**65])),
    header(one("F64", [10**9], [0, 8 * 10**9])) + bytes(8),
    header(one("F64", [0, 10**18, 10**18], [0, 0])),
    header(one("F64", [0, 2**62], [0, 0])),
    *(header(one(kind, [2], [0, 4])) + bytes(4) for kind in ("BF16", "F16", "X")),
    *(header(one(k, [2], [0, 2])) + bytes(2) for k in ("F8_E4M3", "F8_E5M2", "U8")),
    header({**one("U8", [4], [0, 4]), "y": one("U8", [4], [2, 6])["x"]}) + bytes(6),
    header({"__metadata__": {"a": 1}, **one("U8", [1], [0, 1])}) + bytes(1),
]


@pytest.mark.parametrize("content", HEADERS, ids=range(len(HEADERS)))
def test_no_header_of_arrays_is_believed_what_it_says(saved, within, content):
    with within(100):
        assert restored(saved.with_bytes(content)) is None


JSONS = [
    *(b"", b"\xff\xfe", b"[" * 200_000, b'{"a":' * 200_000, b"null", b"[]", b"{}"),
    *(b"1" * 10_000, b"-1e999999", b"NaN", b'"' + b"a" * 1_000_000, b"\0" * 1_000),
    *('"\u0000"'.encode("utf-16"), b'{"candidates": []}', b'{"a": 1, "a": 2}'),
]


@pytest.mark.parametrize("content", JSONS, ids=range(len(JSONS)))
@pytest.mark.parametrize("name", ["manifest.json", "state.json"])
def test_any_text_in_the_place_of_json_is_a_state_format_error(
    saved, seal, tmp_path, content, name
):
    files = seal(content, saved.files["arrays.safetensors"])
    if name == "manifest.json":
        files = {**saved.files, name: content}
    for each, data in files.items():
        (tmp_path / each).write_bytes(data)
    with pytest.raises(StateFormatError):
        Router.load(tmp_path)


def test_keys_given_twice_count_once(saved):
    text = saved.files["state.json"].decode().rstrip()
    text = '{"candidates": [], ' + text[1:]
    router = restored(saved.with_state(saved.state) | {"state.json": text.encode()})
    assert router is None  # its digest is not the one of the manifest


@settings(FUZZ, max_examples=40)
@given(data=st.data())
def test_flipped_cut_or_added_bytes_are_survived(saved, data):
    name = data.draw(st.sampled_from(FILES))
    content = bytearray(saved.files[name])
    at = data.draw(st.integers(0, len(content) - 1))
    how = data.draw(st.sampled_from(["flip", "flip", "cut", "add", "repeat"]))
    if how == "flip":
        content[at] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        del content[at:]
    elif how == "add":
        content[at:at] = data.draw(st.binary(min_size=1, max_size=20))
    else:
        content[at:at] = content[at : at + 100]
    router = restored({**saved.files, name: bytes(content)})
    assert router is None or works(router)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["missing", "folder", "loop", "elsewhere", "swapped"])
def test_a_folder_whose_files_are_no_files_is_a_typed_error(saved, tmp_path, name, how):
    folder = tmp_path / "state"
    folder.mkdir()
    for each, data in saved.files.items():
        (folder / each).write_bytes(data)
    path = folder / name
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "loop":
        path.symlink_to(path)
    elif how == "elsewhere":
        path.symlink_to(tmp_path / ".." / ".." / "nothing")
    elif how == "swapped":
        path.write_bytes(saved.files[next(n for n in FILES if n != name)])
    with pytest.raises(StateFormatError, match=r"state('|/)"):
        Router.load(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_a_folder_does_not_hang_the_loader(saved, tmp_path):
    for each, data in saved.files.items():
        (tmp_path / each).write_bytes(data)
    (tmp_path / "state.json").unlink()
    os.mkfifo(tmp_path / "state.json")
    with pytest.raises(StateFormatError, match=r"state\.json"):
        Router.load(tmp_path)


def test_saving_over_a_link_leaves_what_it_points_to(saved, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "own")
    router = restored(saved.files)
    with pytest.raises(ConfigurationError, match="something that is not a saved"):
        router.save(tmp_path / "link")
    assert (tmp_path / "own" / "notes.txt").read_text() == "mine"


@pytest.fixture(scope="module")
def snapshot(saved) -> bytes:
    return zipped(persistence.unpacked(saved.files, source="a folder"))


def bomb(size: int, method: int) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as file:
        for name in FILES:
            file.writestr(name, bytes(size // len(FILES)))
    return content.getvalue()


@pytest.mark.parametrize("said", [None, 0, 10, 50_000_000])
def test_a_bomb_is_not_unpacked_whatever_its_header_says(within, said):
    size = 300_000_000
    content = bomb(size, zipfile.ZIP_DEFLATED)
    if said is not None:
        real, lie = (struct.pack("<L", n) for n in (size // len(FILES), said))
        content = content.replace(real, lie)
    with within(120), pytest.raises(StateFormatError):
        unzipped(content)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_can_only_be_unpacked_whole_is_refused(method, within):
    content = bomb(60_000_000, method)
    with within(30), pytest.raises(StateFormatError, match="knows no limit"):
        unzipped(content)


@settings(FUZZ, max_examples=40)
@given(data=st.data())
def test_any_change_of_a_snapshot_is_a_state_format_error_and_changes_nothing(
    saved, snapshot, data
):
    router, content = restored(saved.files), bytearray(snapshot)
    before = router.predict(["tax court"]).quality
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    try:
        taken = router.resume(bytes(content))
    except StateFormatError:
        taken = False
    # A byte that says when a file was made changes nothing of it.
    assert taken or np.array_equal(before, router.predict(["tax court"]).quality)
    assert works(router)


@settings(FUZZ, max_examples=40)
@given(data=st.data())
def test_a_forged_snapshot_is_taken_over_whole_or_not_at_all(saved, nasty, data):
    router = restored(saved.files)
    place = data.draw(st.sampled_from(saved.places))
    value = data.draw(st.sampled_from([*nasty, ...]))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        forged = saved.with_state(changed(saved.state, place, value))
        for name, each in forged.items():
            file.writestr(name, each)
    with contextlib.suppress(StateFormatError):
        router.resume(content.getvalue())
    assert works(router)


@pytest.fixture(scope="module")
def handed_over(saved):
    router = restored(saved.files)
    decision = router.route("tax court law")
    return decision.id, router.hand_over(decision.id)


@settings(FUZZ, max_examples=60)
@given(data=st.data())
def test_a_record_of_another_worker_is_adopted_or_a_state_format_error(
    saved, nasty, handed_over, data
):
    _, record = handed_over
    record = dict(record)
    key = data.draw(st.sampled_from(sorted(record)))
    values = [*nasty, float("nan"), float("inf"), "=" * 100, "AAAA", ["1", "2"]]
    value = data.draw(st.sampled_from([..., *values]))
    record[key] = value
    if value is ...:
        del record[key]
    router = shared_router(saved)
    try:
        adopted = router.adopt("theirs", record)
    except StateFormatError:
        adopted = False
    if adopted:
        router.record_outcome("theirs", Outcome(9, 99, latency_seconds=1.0))
        router.record_feedback("theirs", 1.0)
    assert np.isfinite(router.predict(["tax court"]).quality).all()


def shared_router(saved) -> Router:
    return restored(saved.files)


@pytest.mark.parametrize("record", [None, [], "x", 1, {}, {"contexts": 1}])
def test_what_is_no_record_is_a_state_format_error(saved, record):
    with pytest.raises(StateFormatError):
        restored(saved.files).adopt("theirs", record)


def test_a_name_never_becomes_a_path(saved, tmp_path):
    state = copy.deepcopy(saved.state)
    renamed = json.loads(
        json.dumps(state).replace('"lawyer"', '"../../../lawyer/\\u0000"')
    )
    router = restored(saved.with_state(renamed))
    assert router is not None
    folder = tmp_path / "within" / "state"
    router.save(folder)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == sorted(FILES)
    assert Router.load(folder).candidates == router.candidates


def test_arrays_of_one_byte_too_few_are_refused(saved):
    whole = save({n: np.ascontiguousarray(a) for n, a in saved.arrays.items()})
    assert restored(saved.with_bytes(whole[:-1])) is None
