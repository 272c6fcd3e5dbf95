"""The benchmark of the start without labels, on two small worlds."""

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mixllm_integrations import ConfigurationError
from mixllm_integrations.benchmark.coldstart import (
    chosen_newcomers,
    prior_without,
    run_coldstart,
)
from mixllm_integrations.benchmark.coldstart_results import (
    FULL,
    ColdResult,
    ColdRun,
    print_coldstart,
)
from mixllm_integrations.benchmark.commands import app
from mixllm_integrations.core.encoder import StaticEncoder


@pytest.fixture(scope="module")
def tables(world):
    return world, replace(world.select(np.arange(0, 180, 2)), name="half")


@pytest.fixture(scope="module")
def result(tables):
    seen = []
    found = run_coldstart(
        tables, seeds=[0], predictor="ridge", n_newcomers=1, on_run=seen.append
    )
    assert len(seen) == len(found.runs) + len(found.newcomers)
    return found


def test_every_number_of_labels_is_there_that_the_split_has(result):
    of_world = [r for r in result.runs if r.data == "world"]
    assert [(r.knowledge, r.prior, r.n_labels) for r in of_world] == [
        ("price", "none", 0),
        ("price", "others", 0),
        ("price", "others", 50),
        ("prior_quality", "none", 0),
        ("prior_quality", "others", 0),
        ("prior_quality", "others", 50),
        ("price", "others", FULL),
    ]
    assert len({r.mix_aiq for r in of_world}) == 1


def test_a_prior_is_learned_without_the_data_it_is_judged_on(tables):
    encoder = StaticEncoder.load()
    world, half = tables
    other = replace(half, quality=1.0 - half.quality)
    one = prior_without(world, (world, half), encoder)
    same = prior_without(world, (half, world), encoder)
    changed = prior_without(world, (world, other), encoder)
    assert one.revision == same.revision != changed.revision


def test_a_newcomer_is_measured_from_no_label_to_all(result):
    joined = [r for r in result.newcomers if r.data == "world"]
    assert [(r.knowledge, r.n_labels) for r in joined] == [
        ("price", 0),
        ("prior_quality", 0),
        ("price", 50),
        ("price", 200),
        ("price", FULL),
    ]
    assert {r.newcomer for r in joined} == {"large"}
    assert joined[-1].mse < joined[0].mse


def test_newcomers_are_spread_from_the_best_to_the_worst(world):
    means = dict(zip(world.names, world.quality.mean(axis=0), strict=True))
    order = sorted(means, key=lambda name: -means[name])
    assert chosen_newcomers(world, 1) == (order[0],)
    assert chosen_newcomers(world, 2) == (order[0], order[-1])
    assert chosen_newcomers(world, 9) == tuple(order)
    assert chosen_newcomers(world, 0) == ()


def test_a_share_is_that_of_the_gain_of_all_labels_over_the_mix():
    def run(n_labels, aiq, seed):
        return ColdRun("d", seed, "price", "others", n_labels, aiq, 0.2, 0.9)

    runs = [run(0, 0.92, 0), run(0, 0.96, 1), run(FULL, 0.98, 0), run(FULL, 1.0, 1)]
    found = ColdResult(("d",), (0, 1), ("r",), ((0.1, 1.0),), "", {}, tuple(runs), ())
    cold, full = found.summary()
    # Means 0.94 and 0.99 over a mix of 0.9: 0.04 of 0.09.
    assert cold["share"] == pytest.approx(0.04 / 0.09)
    assert cold["gain_spread"] == pytest.approx(0.02)
    assert full["share"] == pytest.approx(1.0)


def test_tables_and_json_say_the_same(result):
    console = Console(width=160, record=True, file=None, quiet=False)
    with console.capture() as shown:
        print_coldstart(result, console)
    text = shown.get()
    found = json.loads(json.dumps(result.to_json()))
    for row in found["summary"]:
        assert f"{row['aiq']:.3f}" in text
    assert "A newcomer" in text
    assert found["revisions"] == list(result.revisions)


def test_one_data_set_or_no_seed_is_refused(world, tables):
    for given, seeds in (((world,), (0,)), (tables, ())):
        with pytest.raises(ConfigurationError, match="at least two data sets"):
            run_coldstart(given, seeds=seeds)


def test_the_command_takes_several_files(tables, tmp_path):
    arguments = ["coldstart", "--pool", "small,large", "--seeds", "1"]
    for table in tables:
        file = tmp_path / f"{table.name}.jsonl"
        with file.open("w", encoding="utf-8") as lines:
            for number, record in enumerate(table.records()):
                row = {name: getattr(record, name) for name in record.__slots__}
                lines.write(json.dumps(row | {"query_id": number // 3}) + "\n")
        arguments += ["--data", str(file)]
    arguments += ["--predictor", "ridge", "--newcomers", "0"]
    out = tmp_path / "result.json"
    done = CliRunner().invoke(app, [*arguments, "--json", str(out)])
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text("utf-8"))["data"] == ["world", "half"]
