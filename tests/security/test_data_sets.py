"""Whatever stands in a file of records or candidates: rows, or a typed error."""

import gzip
import json
import pickle
import struct
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from mixllm_integrations import ConfigurationError, RoutingRecord
from mixllm_integrations.benchmark import datasets, pickled_table
from mixllm_integrations.benchmark.datasets import load_candidates, load_records

FUZZ = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["\ud800", "\0", "1e999", "nan", "-1", "1" * 5_000, 10**400]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = (*datasets._FIELDS, *datasets._ALIASES, "other")


def rows_of(file, **options):
    """The records of a file, or its error if that is what it should be."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return load_records(file, **options)
        except ConfigurationError as error:
            return error


@FUZZ
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=8) | JSON, max_size=4
    )
)
def test_any_json_lines_are_records_or_an_error_that_names_the_line(tmp_path, rows):
    file = tmp_path / "any.jsonl"
    lines = ["", *(json.dumps(row) for row in rows)]
    file.write_text("\n".join(lines), encoding="utf-8")
    found = rows_of(file)
    if isinstance(found, ConfigurationError):
        assert "line " in str(found)
    passed = rows_of(file, skip_bad_rows=True)
    assert len(passed.records) + passed.skipped == len(rows)
    assert all(isinstance(record, RoutingRecord) for record in passed.records)


@FUZZ
@given(
    content=st.binary(max_size=200),
    ending=st.sampled_from([".jsonl", ".jsonl.gz", ".csv", ".parquet", ".pkl"]),
)
def test_any_bytes_are_records_or_a_typed_error(tmp_path, content, ending):
    file = tmp_path / f"any{ending}"
    file.write_bytes(content)
    found = rows_of(file)
    assert isinstance(found, ConfigurationError) or not found.records
    rows_of(file, skip_bad_rows=True)


@pytest.fixture(scope="module")
def whole(records, tmp_path_factory):
    """The same records in a file of each format."""
    folder = tmp_path_factory.mktemp("whole")
    fields = ("query", "candidate", "quality", "input_tokens", "output_tokens")
    rows = [{f: getattr(r, f) for f in fields} | {"cost": 0.1} for r in records]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (folder / "a.jsonl").write_text(text)
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    table = pd.DataFrame(rows)
    table.to_csv(folder / "a.csv", index=False)
    parquet.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    wide = pd.DataFrame(
        {
            "sample_id": ["a", "b"],
            "prompt": ["p", "['q', 'r']"],
            "eval_name": ["law", "law"],
            "small": [np.float64(0.5), 1.0],
        },
        dtype=object,
    )
    wide["small|total_cost"] = [0.1, 0.2]
    wide.columns = pd.Index(list(wide.columns), dtype=object)
    wide.to_pickle(folder / "a.pkl", compression=None)
    return {p.name[1:]: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".csv", ".parquet", ".pkl"])
@settings(FUZZ, max_examples=60)
@given(data=st.data())
def test_a_damaged_file_of_any_format_is_records_or_a_typed_error(
    whole, tmp_path, ending, data
):
    content = bytearray(whole[ending])
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[at : at + data.draw(st.integers(1, 50))]
    file = tmp_path / f"damaged{ending}"
    file.write_bytes(content)
    rows_of(file)
    rows_of(file, skip_bad_rows=True)


def test_a_line_that_unpacks_to_any_size_is_not_read_whole(
    tmp_path, monkeypatch, within
):
    monkeypatch.setattr(datasets, "_LONGEST_LINE", 1 << 20)
    file = tmp_path / "bomb.jsonl.gz"
    good = {"query": "q", "candidate": "a", "quality": 1}
    with gzip.open(file, "wb", compresslevel=1) as opened:
        opened.write(json.dumps(good).encode() + b"\n")
        for _ in range(200):
            opened.write(b" " * 1_000_000)
    assert file.stat().st_size < 2_000_000
    with within(60):
        assert "line 2: longer than" in str(rows_of(file))
        assert "line 2: longer than" in str(rows_of(file, skip_bad_rows=True))


def test_a_record_of_ten_million_characters_is_no_bomb(tmp_path):
    file = tmp_path / "long.jsonl"
    row = {"query": "x" * 10_000_000, "candidate": "a", "quality": 1}
    file.write_text(json.dumps(row))
    assert len(rows_of(file).records[0].query) == 10_000_000


def test_rows_of_a_small_file_that_are_large_are_read_a_few_at_a_time(tmp_path, within):
    file = tmp_path / "folded.parquet"
    query = pa.array(["x" * 100_000]).take(pa.array(np.zeros(4_000, dtype=np.int64)))
    columns = {
        "query": query.dictionary_encode(),
        "candidate": ["a"] * 4_000,
        "quality": [1.0] * 4_000,
    }
    parquet.write_table(pa.table(columns), file)
    assert file.stat().st_size < 300_000
    with within(120):
        assert len(rows_of(file).records) == 4_000


@pytest.mark.parametrize(
    "content",
    [
        b'query,candidate,quality\n"\0,a,1\n',
        b"query,candidate,quality\n\xff,a,1\n",
        b'query,candidate,quality\n"never closed',
        b"query,candidate,quality\na,b\n",
        b"query,query,quality\na,b,c\n",
        "query,candidate,quality\n".encode("utf-16"),
    ],
)
def test_a_csv_that_is_none_is_a_typed_error(tmp_path, content):
    file = tmp_path / "bad.csv"
    file.write_bytes(content)
    assert isinstance(rows_of(file), ConfigurationError)


@pytest.mark.parametrize("ending", [".toml", ".json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"a = " + b"[" * 100_000,
        b'{"candidates": [1, null, "x"]}',
        b'{"candidates": [{"name": "a"}]}',
        b'[{"name": {}, "input_cost_per_million_tokens": 1, "x": 1}]',
        b'[{"name":"a","input_cost_per_million_tokens":1e999}]',
        b"1" * 10_000,
        b"candidates = 1",
        b"[[candidates]]\nname = 1\n",
    ],
)
def test_a_file_of_candidates_that_is_none_is_a_typed_error(tmp_path, content, ending):
    file = tmp_path / f"candidates{ending}"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError):
        load_candidates(file)


class Calls:
    """A pickle that asks for something to be called."""

    def __init__(self, what, *args):
        self.call = what, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "made",
    [
        # Addresses of objects, made up: reading one ends the process.
        Calls(np.ndarray, (1,), "O", None),
        Calls(np.ndarray, (2**40,), "f8"),
        Calls(bytearray, 2**40),
        Calls(np.dtype, "O"),
        Calls(slice, 1),
        Calls(pd.DataFrame, {"a": [1]}),
    ],
)
def test_nothing_that_a_pickle_asks_for_is_called(tmp_path, made, within):
    file = tmp_path / "evil.pkl"
    file.write_bytes(pickle.dumps(made))
    with within(20):
        assert isinstance(rows_of(file), ConfigurationError)


def forged(name: bytes, block: bytes) -> bytes:
    """A pickle of a table with one block; `block` is what makes its values."""
    return (
        b"\x80\x02cpandas\nDataFrame\n)\x81}X\x04\x00\x00\x00_mgr"
        b"cpandas.core.internals.managers\nBlockManager\n("
        b"cpandas._libs.internals\n_unpickle_block\n(" + block + b"c__builtin__\n"
        b"slice\n(K\x00K\x01K\x01tRK\x02tR\x85]("
        b"cpandas.core.indexes.base\n_new_Index\n(cpandas\nIndex\n}X\x04\x00\x00\x00data"
        b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR("
        b"K\x01K\x01\x85cnumpy\ndtype\n(X\x02\x00\x00\x00O8tR\x89](" + name + b"etb"
        b"stRcpandas.core.indexes.base\n_new_Index\n(cpandas\nRangeIndex\n}tRetRsb."
    )


def array_of(dtype: bytes, shape: bytes, content: bytes) -> bytes:
    return (
        b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR("
        b"K\x01"
        + shape
        + b"cnumpy\ndtype\n(X"
        + struct.pack("<I", len(dtype))
        + dtype
        + b"tR\x89"
        + content
        + b"tb"
    )


NAME = b"X\x01\x00\x00\x00a"
EIGHT = b"C\x08AAAAAAAA"


def test_a_table_put_together_by_hand_is_read():
    content = forged(NAME, array_of(b"f8", b"K\x01K\x01\x86", b"C\x08" + bytes(8)))
    assert pickled_table.pickled_columns(content) == {"a": [0.0]}


@pytest.mark.parametrize(
    "block",
    [
        array_of(b"O8", b"K\x01K\x01\x86", EIGHT),  # bytes as addresses
        array_of(b"O8", b"K\x01K\x05\x86", b"](K\x01e"),  # fewer than it says
        array_of(b"f8", b"K\x01K\x05\x86", EIGHT),
        array_of(b"V8", b"K\x01K\x01\x86", EIGHT),
        array_of(b"f8,O8", b"K\x01K\x01\x86", EIGHT),
        array_of(b"O8", b"K\x01K\x01\x86", b"](cnumpy\nndarray\ne"),  # an odd cell
        b"K\x01",
    ],
    ids=range(7),
)
def test_a_forged_block_of_a_table_is_a_typed_error(tmp_path, block):
    file = tmp_path / "forged.pkl"
    file.write_bytes(forged(NAME, block))
    assert "not a pickled table" in str(rows_of(file))


def test_a_pickle_that_counts_far_takes_no_gigabytes(tmp_path, within):
    file = tmp_path / "far.pkl"
    file.write_bytes(b"\x80\x02Nr\xff\xff\xff\x7f.")
    with within(20):
        assert "not a pickled table" in str(rows_of(file))


def test_a_table_as_old_versions_of_pandas_wrote_it_is_read():
    array = pickled_table._Buffer(
        np.array([[0.5, 1.0]]).tobytes(),
        pickled_table._Dtype("f8"),
        (1, 2),
        "C",
    )
    names = pickled_table._Buffer(
        [pickled_table._Scalar(pickled_table._Dtype("i8"), (7).to_bytes(8, "little"))],
        pickled_table._Dtype("O8"),
        (1,),
        "C",
    )
    places = pickled_table._Buffer(bytes(8), pickled_table._Dtype("i8"), (1,), "C")
    manager = pickled_table._Manager()
    index = pickled_table._Index(None, {"data": names})
    block = {"values": array, "mgr_locs": places}
    manager.state = (None, None, None, {"0.14.1": {"axes": [index], "blocks": [block]}})
    blocks, axes = pickled_table._parts_of(manager)
    assert blocks == [(array, places)]
    assert pickled_table._index(axes[0]) == [7]
    assert pickled_table._array(array).tolist() == [[0.5, 1.0]]
    assert pickled_table._placed(places, 1) == [0]


@pytest.mark.parametrize("text", ["[" * 90_000 + "]", "[" + "1," * 900_000 + "1]"])
def test_turns_that_cannot_be_read_are_a_text(text, within):
    from mixllm_integrations.benchmark.routerbench import _joined

    with within(20):
        assert _joined(text) == text


@pytest.mark.parametrize("kind", ["missing", "folder", "loop"])
@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".csv", ".parquet", ".pkl"])
def test_a_path_that_is_no_file_is_a_typed_error(tmp_path, kind, ending):
    path = tmp_path / f"records{ending}"
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    assert isinstance(rows_of(path), ConfigurationError)
    assert [p.name for p in tmp_path.iterdir()] == (
        [] if kind == "missing" else [path.name]
    )
