"""The public RouterBench files, on small ones of the same form."""

import os
import pickle

import pandas as pd
import pytest

from mixllm_integrations import ConfigurationError, RoutingRecord
from mixllm_integrations.benchmark.datasets import load_records, load_table
from mixllm_integrations.benchmark.routerbench import download

MODELS = ("gpt-4-1106-preview", "mistralai/mistral-7b-chat")


def frame():
    """Two prompts, two models; texts are lists of turns written as one string."""
    columns = {
        "sample_id": ["mmlu.val.1", "mbpp.dev.2"],
        "prompt": ["['Answer with a letter.', \"What's law?\"]", "Write a function."],
        "eval_name": ["mmlu-law", "mbpp"],
        MODELS[0]: [1.0, 0.75],
        MODELS[1]: [0.0, 1.0],
    }
    for model, answers in zip(
        MODELS, (["['B']", "x" * 9], ["['A']", "y"]), strict=True
    ):
        columns[f"{model}|model_response"] = answers
    for model, costs in zip(MODELS, ([0.01, 0.02], [0.001, 0.002]), strict=True):
        columns[f"{model}|total_cost"] = costs
    columns["oracle_model_to_route_to"] = [MODELS[0], "no_model_correct"]
    table = pd.DataFrame(columns, dtype=object)
    for model in MODELS:
        table[f"{model}|total_cost"] = table[f"{model}|total_cost"].astype(float)
    table.columns = pd.Index(list(columns), dtype=object)
    return table


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_file_of_any_pickle_protocol_is_read(tmp_path, protocol):
    file = tmp_path / "routerbench_0shot.pkl"
    frame().to_pickle(file, compression=None, protocol=protocol)
    found = load_records(file)
    first = "Answer with a letter.\nWhat's law?"
    assert found.records == (
        RoutingRecord(first, MODELS[0], 1.0, None, 1, 0.01, tags=("mmlu-law",)),
        RoutingRecord(first, MODELS[1], 0.0, None, 1, 0.001, tags=("mmlu-law",)),
        RoutingRecord(
            "Write a function.", MODELS[0], 0.75, None, 3, 0.02, tags=("mbpp",)
        ),
        RoutingRecord(
            "Write a function.", MODELS[1], 1.0, None, 1, 0.002, tags=("mbpp",)
        ),
    )
    assert found.query_ids == ("mmlu.val.1", "mmlu.val.1", "mbpp.dev.2", "mbpp.dev.2")


def test_it_becomes_a_table_with_estimated_prices(tmp_path):
    file = tmp_path / "routerbench_0shot.pkl"
    frame().to_pickle(file, compression=None)
    table = load_table(file)
    assert table.names == MODELS
    assert table.cost.tolist() == [[0.01, 0.001], [0.02, 0.002]]
    assert table.candidates[0].input_cost_per_million_tokens > 0


def test_a_name_of_an_older_pandas_is_understood(tmp_path):
    file = tmp_path / "old.pkl"
    frame().to_pickle(file, compression=None, protocol=2)
    moved = file.read_bytes()
    for new, old in (
        (b"cpandas\nDataFrame\n", b"cpandas.core.frame\nDataFrame\n"),
        (b"cpandas\nIndex\n", b"cpandas.core.indexes.base\nIndex\n"),
        (b"cpandas\nRangeIndex\n", b"cpandas.core.indexes.range\nRangeIndex\n"),
        (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"),
    ):
        assert new in moved
        moved = moved.replace(new, old)
    file.write_bytes(moved)
    assert len(load_records(file).records) == 4


class Shell:
    def __reduce__(self):
        return os.mkdir, ("broken-in",)


def test_a_pickle_that_would_run_something_is_refused_and_not_run(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "evil.pkl"
    file.write_bytes(pickle.dumps(Shell()))
    with pytest.raises(ConfigurationError, match=r"asks for posix\.mkdir"):
        load_records(file)
    assert not (tmp_path / "broken-in").exists()


@pytest.mark.parametrize("value", [eval, getattr, pickle.loads, pd.read_csv, Shell])
def test_nothing_but_parts_of_a_table_is_admitted(tmp_path, value):
    file = tmp_path / "evil.pkl"
    file.write_bytes(pickle.dumps(value))
    with pytest.raises(ConfigurationError, match="so it is not read"):
        load_records(file)


def test_another_table_is_refused_with_what_it_lacks(tmp_path):
    file = tmp_path / "other.pkl"
    frame().drop(columns=["eval_name", MODELS[0]]).to_pickle(file, compression=None)
    with pytest.raises(ConfigurationError, match=r"eval_name.*gpt-4-1106-preview"):
        load_records(file)
    file.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ConfigurationError, match="not a table of RouterBench"):
        load_records(file)


def test_a_score_that_is_no_number_is_an_error_with_its_row(tmp_path):
    table = frame()
    table.loc[1, MODELS[1]] = None
    file = tmp_path / "gap.pkl"
    table.to_pickle(file, compression=None)
    with pytest.raises(ConfigurationError, match="row 2: quality not given"):
        load_records(file)
    assert load_records(file, skip_bad_rows=True).skipped == 1


def test_a_file_in_the_hub_cache_is_found_without_a_network(monkeypatch, tmp_path):
    import huggingface_hub

    asked = []

    def cached(repo_id, filename, *, repo_type, local_files_only):
        asked.append((repo_id, filename, repo_type, local_files_only))
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", cached)
    assert download() == tmp_path / "routerbench_0shot.pkl"
    assert asked == [
        ("withmartian/routerbench", "routerbench_0shot.pkl", "dataset", True)
    ]


def test_without_a_network_the_error_says_how_to_get_the_file(monkeypatch):
    import huggingface_hub

    def absent(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", absent)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", absent)
    with pytest.raises(ConfigurationError, match=r"hf download some/one a\.pkl"):
        download("some/one", "a.pkl")
