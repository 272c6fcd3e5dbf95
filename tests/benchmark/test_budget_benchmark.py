"""Budgets on recorded answers: what is measured, shown and written."""

import io
import json

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mixllm_integrations.benchmark import budget as module
from mixllm_integrations.benchmark.budget import (
    BudgetResult,
    BudgetRun,
    print_budget,
    run_budget,
)
from mixllm_integrations.benchmark.commands import app
from mixllm_integrations.benchmark.peers import installed_peers
from mixllm_integrations.core.errors import ConfigurationError


@pytest.fixture(scope="module")
def result(world):
    return run_budget(
        world, shares=(0.3,), seeds=(0, 1), predictor="ridge", command="cmd"
    )


def run(**changes):
    given = {
        "method": "ours, even",
        "seed": 0,
        "share": 0.25,
        "demand": 2.0,
        "spent": 0.99,
        "quality": 0.9,
        "hindsight": 0.91,
        "refused": 0,
        "n_queries": 100,
    }
    return BudgetRun(**(given | changes))


def test_every_method_plays_every_split(result):
    ours = [(r.seed, r.method) for r in result.runs if r.method.startswith("ours")]
    assert ours == [
        (seed, f"ours, {kind}") for seed in (0, 1) for kind in ("even", "bursts")
    ]
    peers = {r.method for r in result.runs if not r.method.startswith("ours")}
    both = {"paretobandit, adaptive", "paretobandit, soft"}
    assert peers == (both if "paretobandit" in installed_peers() else set())


def test_ours_does_not_exceed_the_budget_by_more_than_one_answer(result, world):
    for seed in (0, 1):
        strongest = module._Split(world, seed, "ridge").strongest_cost
        mine = [r for r in result.runs if r.seed == seed and "ours" in r.method]
        for r in mine:
            assert r.overrun * r.share * strongest <= world.cost.max()


def test_a_refused_query_counts_nothing(world):
    split = module._Split(world, 0, "ridge")
    n = len(split.test)
    half = np.where(np.arange(n) % 2, -1, 0)
    found = split._run("m", 0.5, half)
    assert (found.refused, found.n_queries) == (n // 2, n)
    rows = np.arange(0, n, 2)
    assert found.spent * 0.5 * split.strongest_cost == pytest.approx(
        split.test.cost[rows, 0].sum()
    )
    wanted = split.test.quality[rows, 0].sum() / n / split.best_quality
    assert found.quality == pytest.approx(wanted)


def test_queries_come_within_the_period_in_order_and_bursts_are_crowded(world):
    split = module._Split(world, 0, "ridge")
    gaps = {}
    for kind in ("even", "bursts"):
        moments = np.array(split._moments(kind))
        assert len(moments) == len(split.test)
        assert (np.diff(moments) >= 0).all()
        assert 0.0 <= moments[0] <= moments[-1] < 86_400.0
        gaps[kind] = np.median(np.diff(moments))
    assert gaps["bursts"] < gaps["even"]


def test_the_overrun_is_what_is_above_the_budget():
    assert run(spent=1.25).overrun == 0.25
    assert run(spent=0.5).overrun == 0.0


def test_the_table_has_the_mean_and_the_worst():
    made = BudgetResult("d", "c", (0, 1), {}, (run(), run(seed=1, spent=1.03)))
    out = io.StringIO()
    print_budget(made, Console(file=out, width=120))
    row = next(line for line in out.getvalue().splitlines() if "ours, even" in line)
    for figure in ("25%", "2.00", "101.00%", "103.00%", "0.9000", "0.9100"):
        assert figure in row


def test_json_repeats_what_was_run(result):
    found = json.loads(json.dumps(result.to_json()))
    assert (found["data"], found["command"], found["seeds"]) == ("world", "cmd", [0, 1])
    assert len(found["runs"]) == len(result.runs)


@pytest.mark.parametrize("given", [{"seeds": ()}, {"shares": ()}])
def test_it_needs_a_seed_and_a_budget(world, given):
    with pytest.raises(ConfigurationError, match="at least one seed and one share"):
        run_budget(world, **given)


def test_the_command_writes_json(world, tmp_path):
    file = tmp_path / "world.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for number, record in enumerate(world.records()):
            row = {name: getattr(record, name) for name in record.__slots__}
            lines.write(json.dumps(row | {"query_id": number // 3}) + "\n")
    arguments = ["budget", "--data", str(file), "--pool", "all", "--seeds", "1"]
    arguments += ["--predictor", "ridge", "--json", str(tmp_path / "b.json")]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert {r["share"] for r in json.loads((tmp_path / "b.json").read_text())["runs"]}


def test_the_command_asks_for_data():
    with pytest.raises(ConfigurationError, match="--data"):
        CliRunner().invoke(app, ["budget"], catch_exceptions=False)
