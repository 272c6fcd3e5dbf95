"""`mixllm benchmark`, as a user types it."""

import json

import pytest
from typer.testing import CliRunner

from mixllm_integrations import ConfigurationError
from mixllm_integrations.benchmark.commands import app


@pytest.fixture
def data(world, tmp_path):
    file = tmp_path / "world.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for number, record in enumerate(world.records()):
            row = {name: getattr(record, name) for name in record.__slots__}
            lines.write(json.dumps(row | {"query_id": number // 3}) + "\n")
    return file


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def test_help_offers_the_benchmarks_and_no_completion_of_the_shell():
    done = run("--help")
    assert done.exit_code == 0
    assert "offline" in done.output
    assert "completion" not in done.output


def test_offline_prints_tables_and_writes_json_and_figures(data, tmp_path):
    done = run(
        *("offline", "--data", data, "--pool", "small,large", "--seeds", 1),
        *("--predictor", "ridge", "--json", tmp_path / "out" / "result.json"),
        *("--plot", tmp_path / "curves.png"),
    )
    assert done.exit_code == 0, done.output
    assert "MixLLM (ridge)" in done.output
    found = json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))
    assert found["data"] == "world"
    assert found["candidates"] == ["small", "large"]
    assert (tmp_path / "curves.png").exists()


def test_candidates_can_be_given_with_their_prices(data, tmp_path):
    file = tmp_path / "candidates.json"
    entry = dict.fromkeys(
        ("input_cost_per_million_tokens", "output_cost_per_million_tokens"), 1.0
    )
    names = ("small", "poet")
    file.write_text(json.dumps([entry | {"name": name} for name in names]), "utf-8")
    done = run(
        *("offline", "--data", data, "--candidates", file, "--seeds", 1),
        *("--predictor", "ridge", "--json", tmp_path / "result.json"),
    )
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "result.json").read_text("utf-8"))
    assert found["candidates"] == ["small", "poet"]


@pytest.mark.parametrize("extra", [(), ("--data", "x.csv", "--hub", "a/b")])
def test_exactly_one_source_of_data_must_be_named(extra):
    with pytest.raises(ConfigurationError, match="either --data FILE or --hub ID"):
        run("offline", *extra)


def test_overhead_asks_for_data():
    with pytest.raises(ConfigurationError, match="--data"):
        run("overhead")
