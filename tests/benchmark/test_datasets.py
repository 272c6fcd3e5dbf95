"""Files in every format say the same; bad rows are named by their line."""

import builtins
import csv
import gzip
import json

import pytest

from mixllm_integrations import Candidate, ConfigurationError, RoutingRecord
from mixllm_integrations.benchmark.datasets import (
    LIST_PRICES,
    load_candidates,
    load_records,
    load_table,
    pool_names,
)

ROWS = [
    {
        "query": "What is 2 + 2?",
        "candidate": "small",
        "quality": 1.0,
        "input_tokens": 9,
        "output_tokens": 2,
        "cost": 0.001,
        "latency_seconds": 0.5,
        "tags": ["sums", "easy"],
    },
    {"query": "", "candidate": "small", "quality": 0.25},
]
RECORDS = (
    RoutingRecord("What is 2 + 2?", "small", 1.0, 9, 2, 0.001, 0.5, ("sums", "easy")),
    RoutingRecord("", "small", 0.25),
)


def as_jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def written(folder, ending, rows=ROWS):
    file = folder / f"records{ending}"
    if ending == ".jsonl":
        file.write_text(as_jsonl(rows), encoding="utf-8")
    elif ending == ".jsonl.gz":
        file.write_bytes(gzip.compress(as_jsonl(rows).encode()))
    elif ending == ".csv":
        with file.open("w", encoding="utf-8", newline="") as lines:
            writer = csv.DictWriter(lines, list(rows[0]))
            writer.writeheader()
            writer.writerows(
                {k: ";".join(v) if k == "tags" else v for k, v in row.items()}
                for row in rows
            )
    else:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(rows), file)
    return file


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".csv", ".parquet"])
def test_every_format_gives_the_same_records(tmp_path, ending):
    found = load_records(written(tmp_path, ending))
    assert found.records == RECORDS
    assert found.skipped == 0


def test_the_columns_of_recorded_benchmarks_are_taken(tmp_path):
    row = {
        "source": "elsewhere",
        "query_id": "q1",
        "query": "Hello",
        "domain": "talk",
        "subdomain": None,
        "model": "small",
        "quality": 1,
        "input_tokens": 3.0,
        "output_tokens": None,
        "cost_usd": 0.002,
        "latency_s": float("nan"),
    }
    found = load_records(written(tmp_path, ".parquet", [row]))
    assert found.records == (
        RoutingRecord("Hello", "small", 1.0, 3, None, 0.002, tags=("talk",)),
    )
    assert found.query_ids == ("q1",)


def test_a_field_goes_before_the_other_name_for_it(tmp_path):
    row = {"query": "a", "candidate": "x", "model": "y", "quality": 1.0}
    assert load_records(written(tmp_path, ".jsonl", [row])).records == (
        RoutingRecord("a", "x", 1.0),
    )


def test_a_field_of_a_megabyte_is_read_from_csv(tmp_path):
    rows = [{"query": "x" * 1_000_000, "candidate": "small", "quality": 1.0}]
    found = load_records(written(tmp_path, ".csv", rows))
    assert len(found.records[0].query) == 1_000_000
    assert csv.field_size_limit() == 131_072


GOOD = '{"query": "secret", "candidate": "small", "quality": 1.0}'
BAD_LINES = {
    "no json": ("{nonsense", "not a complete row"),
    "no object": ("[1, 2]", "not a complete row"),
    "no quality": ('{"query": "secret", "candidate": "small"}', "quality not given"),
    "no text": ('{"query": 7, "candidate": "s", "quality": 1}', "query must be a str"),
    "quality beyond 1": (GOOD.replace("1.0", "1.5"), r"\[0, 1\], not 1.5"),
    "quality not finite": (GOOD.replace("1.0", "NaN"), r"\[0, 1\], not nan"),
    "quality a text": (GOOD.replace("1.0", '"good"'), "quality is not a number"),
    "quality true": (GOOD.replace("1.0", "true"), "quality is not a number"),
    "cost below 0": (GOOD.replace("}", ', "cost": -1}'), "cost .* not -1.0"),
    "endless tokens": (
        GOOD.replace("}", ', "input_tokens": Infinity}'),
        "input_tokens is not a number",
    ),
    "tags a number": (GOOD.replace("}", ', "tags": 3}'), "tags are not a list"),
    "tags of numbers": (GOOD.replace("}", ', "tags": [3]}'), "tags are not a list"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_an_error_with_its_number_and_without_its_query(tmp_path, name):
    line, message = BAD_LINES[name]
    file = tmp_path / "records.jsonl"
    file.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=f"line 3: .*{message}") as caught:
        load_records(file)
    assert "secret" not in str(caught.value)


def test_a_bad_row_names_both_ways_to_go_on(tmp_path):
    file = tmp_path / "records.jsonl"
    file.write_text("{nonsense\n", encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_records(file)
    for way in ("skip_bad_rows=True", "--skip-bad-rows"):
        assert way in str(caught.value)


def test_bad_rows_can_be_skipped_and_are_counted(tmp_path):
    file = tmp_path / "records.jsonl"
    lines = [GOOD, *(line for line, _ in BAD_LINES.values()), GOOD]
    file.write_text("\n".join(lines), encoding="utf-8")
    found = load_records(file, skip_bad_rows=True)
    assert len(found.records) == 2
    assert found.skipped == len(BAD_LINES)


def test_a_csv_row_with_too_few_fields_is_bad(tmp_path):
    file = tmp_path / "records.csv"
    file.write_text("query,candidate,quality\na,small,1\nb,small\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="line 3: not a complete row"):
        load_records(file)


def test_a_truncated_archive_is_an_error(tmp_path):
    file = written(tmp_path, ".jsonl.gz")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ConfigurationError, match="cannot be read: EOFError"):
        load_records(file)


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".csv", ".parquet", ".pkl"])
def test_a_file_that_is_not_there_is_named(tmp_path, ending):
    with pytest.raises(ConfigurationError, match=r"nowhere.* cannot be read: FileNot"):
        load_records(tmp_path / f"nowhere{ending}")


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".csv", ".parquet", ".pkl"])
def test_noise_is_no_data_set(tmp_path, ending):
    file = tmp_path / f"noise{ending}"
    file.write_bytes(bytes(range(255, 0, -1)) * 20)
    with pytest.raises(ConfigurationError, match="noise"):
        load_records(file)


def test_an_unknown_format_is_an_error_that_names_the_known_ones(tmp_path):
    with pytest.raises(ConfigurationError, match=r"\.csv.*\.jsonl.*\.parquet"):
        load_records(tmp_path / "records.xml")


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without_arrow(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    file = written(tmp_path, ".parquet")
    monkeypatch.setattr(builtins, "__import__", without_arrow)
    with pytest.raises(ConfigurationError, match=r"mixllm-integrations\[data\]"):
        load_records(file)


def test_a_table_takes_list_prices_where_they_explain_the_costs(tmp_path):
    name = "phi-3-mini-4k-instruct"  # 0.1 USD for a million tokens
    row = {"query": "a", "candidate": name, "quality": 1.0}
    row |= {"input_tokens": 1000, "output_tokens": 500, "cost": 0.00015}
    table = load_table(written(tmp_path, ".jsonl", [row]))
    assert table.candidates == (LIST_PRICES[name],)


def test_a_table_holds_complete_queries_of_the_pool(tmp_path):
    rows = [
        {"query": q, "candidate": c, "quality": 1.0, "cost": 0.1}
        for q, c in (("a", "x"), ("a", "y"), ("b", "x"))
    ]
    file = written(tmp_path, ".jsonl", rows)
    assert load_table(file).queries == ("a",)
    assert load_table(file, pool="x").queries == ("a", "b")


def test_a_pool_is_a_name_or_a_list_of_candidates():
    known = ["gpt-4o-2024-05-13", "gemini-3.1-pro", "deepseek-coder-v2"]
    assert pool_names("market-2024", known) == ("gpt-4o-2024-05-13",)
    assert pool_names("all", known) == tuple(known)
    assert pool_names("gemini-3.1-pro, gpt-4o-2024-05-13", known) == (
        "gemini-3.1-pro",
        "gpt-4o-2024-05-13",
    )
    with pytest.raises(ConfigurationError, match=r"\['nobody'\].*market-2024"):
        pool_names("nobody", known)


def test_candidates_are_read_from_toml_and_json(tmp_path):
    toml, plain = tmp_path / "candidates.toml", tmp_path / "candidates.json"
    entry = {
        "name": "small",
        "input_cost_per_million_tokens": 0.1,
        "output_cost_per_million_tokens": 0.4,
        "context_window": 8192,
    }
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in entry.items())
    toml.write_text(f"[[candidates]]\n{lines}\n", encoding="utf-8")
    plain.write_text(json.dumps([entry]), encoding="utf-8")
    wanted = (Candidate("small", 0.1, 0.4, context_window=8192),)
    assert load_candidates(toml) == load_candidates(plain) == wanted


NEGATIVE = """
[[candidates]]
name = "a"
input_cost_per_million_tokens = -1
output_cost_per_million_tokens = 1
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("candidates = 3", "no list named 'candidates'"),
        ("[[candidates]]\nname = 'a'", r"line 1: candidates\[0\] .*input_cost"),
        ("[[candidates]\n", "line 1: cannot be read as TOML"),
        (NEGATIVE, r"line 4: candidates\[0\].input_cost\S+ .*not -1"),
    ],
)
def test_a_bad_file_of_candidates_is_an_error(tmp_path, text, message):
    file = tmp_path / "candidates.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message):
        load_candidates(file)
