"""The command that rebuilds the demo's router."""

import numpy as np
import pytest

from mixllm_integrations.cli.demo import load_prompts, shipped_router
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.router import Router
from mixllm_integrations.training.build_demo import (
    CANDIDATES,
    build_demo_router,
    main,
    read_records,
)

NAMES = [c.name for c in CANDIDATES]


def rows(n_queries: int = 40) -> list[dict[str, object]]:
    return [
        {
            "query": f"How much is {n} plus {n * n}?\nOptions:\nA. {n}\nB. {n + 1}",
            "domain": "math" if n % 2 else "law",
            "model": name,
            "quality": float((n + place) % 3 > 0),
            "input_tokens": 12 + n,
            "output_tokens": 30 * (place + 1),
            "cost_usd": 1e-5 * (place + 1),
        }
        for n in range(n_queries)
        for place, name in enumerate(NAMES)
    ]


@pytest.fixture
def data(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    def write(records: list[dict[str, object]]):
        path = tmp_path / "answers.parquet"
        pq.write_table(pa.Table.from_pylist(records), path)
        return path

    return write


def test_records_are_read_with_their_labels(data) -> None:
    records = read_records(data(rows()), candidates=NAMES)
    assert len(records) == 40 * len(NAMES)
    third = records[2 * len(NAMES) + 1]
    assert third.query == rows()[2 * len(NAMES)]["query"]
    assert third.candidate == NAMES[1]
    assert (third.quality, third.tags) == (0.0, ("law",))  # (2 + 1) % 3 is 0
    assert (third.input_tokens, third.output_tokens, third.cost) == (14, 60, 2e-5)


def test_every_second_question_stands_without_its_options(data) -> None:
    records = read_records(data(rows()), candidates=NAMES)
    shown = ["Options" in record.query for record in records[:: len(NAMES)]]
    assert shown == [True, False] * 20


def test_a_question_that_one_model_has_not_answered_is_left_out(data) -> None:
    incomplete = rows()
    del incomplete[5]  # the second question
    records = read_records(data(incomplete), candidates=NAMES)
    assert len(records) == 39 * len(NAMES)
    assert all("1 plus 1?" not in record.query for record in records)


def test_fewer_questions_are_spread_evenly(data) -> None:
    records = read_records(data(rows()), candidates=NAMES, max_queries=4)
    numbers = [record.query.split()[3] for record in records[:: len(NAMES)]]
    assert numbers == ["0", "10", "20", "30"]


@pytest.mark.parametrize(
    ("spoil", "lacking"),
    [
        (lambda row: {**row, "model": row["model"].replace("gpt-4o", "x")}, "gpt-4o"),
        (lambda row: {k: v for k, v in row.items() if k != "domain"}, "domain"),
    ],
)
def test_a_file_that_lacks_something_is_told(data, spoil, lacking) -> None:
    path = data([spoil(row) for row in rows()])
    with pytest.raises(ConfigurationError, match=lacking):
        read_records(path, candidates=NAMES)


def test_a_file_that_is_no_parquet_is_told(tmp_path, capsys) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "answers.parquet"
    path.write_text("no parquet")
    assert main(["--data", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "answers.parquet cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_told(tmp_path, capsys) -> None:
    assert main(["--data", str(tmp_path / "nowhere.parquet")]) == 2
    assert "pass --data" in capsys.readouterr().err


def test_two_builds_give_the_same_files(data, tmp_path, capsys) -> None:
    path = data(rows())
    for name in ("one", "two"):
        assert main(["--data", str(path), "--out", str(tmp_path / name)]) == 0
    assert "160 records" in capsys.readouterr().out
    one, two = (
        {f.name: f.read_bytes() for f in (tmp_path / name).iterdir()}
        for name in ("one", "two")
    )
    assert one == two
    loaded = Router.load(tmp_path / "one")
    assert [c.name for c in loaded.candidates] == NAMES


def test_the_shipped_router_is_small(project_root) -> None:
    folder = project_root / "mixllm_integrations" / "data" / "demo_router"
    assert 0 < sum(file.stat().st_size for file in folder.iterdir()) < 2_000_000


def test_no_question_is_in_the_shipped_router(project_root, bench_data) -> None:
    folder = project_root / "mixllm_integrations" / "data" / "demo_router"
    content = b"".join(file.read_bytes() for file in folder.iterdir())
    for record in read_records(
        bench_data / "mmlu_pro.parquet", candidates=NAMES[:1], max_queries=500
    ):
        assert record.query[:60].encode() not in content


def test_the_shipped_router_is_what_the_command_builds(bench_data, tmp_path) -> None:
    file, out = bench_data / "mmlu_pro.parquet", tmp_path / "router"
    assert main(["--data", str(file), "--out", str(out)]) == 0
    texts = [prompt.prompt for prompt in load_prompts()]
    rebuilt, shipped = Router.load(out).predict(texts), shipped_router().predict(texts)
    hint = "run python -m mixllm_integrations.training.build_demo again"
    np.testing.assert_allclose(
        rebuilt.quality, shipped.quality, atol=1e-3, err_msg=hint
    )
    np.testing.assert_allclose(rebuilt.cost, shipped.cost, rtol=1e-2, err_msg=hint)


def test_the_router_of_the_demo_does_not_explore(data) -> None:
    router = build_demo_router(read_records(data(rows()), candidates=NAMES))
    assert router.exploration == 0.0
    assert not router.route("How much is 3 plus 4?").explored
