"""The measurements of speed against size run and hold together."""

import io
import json

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mixllm_integrations import ConfigurationError
from mixllm_integrations.benchmark.commands import app
from mixllm_integrations.benchmark.fit_probe import (
    peak_bytes,
    read_table,
    write_table,
)
from mixllm_integrations.benchmark.speed import (
    QUICK_SIZES,
    encoder_of,
    measure_speed,
    widened,
)
from mixllm_integrations.benchmark.speed_results import plot_speed, print_speed
from mixllm_integrations.plots.growth import plot_growth


def test_too_few_candidates_are_filled_up_with_copies(world):
    wide = widened(world, 7, seed=0)
    assert wide.names[:3] == world.names
    assert len(set(wide.names)) == 7
    np.testing.assert_array_equal(wide.quality[:, :3], world.quality)
    copied = wide.quality[:, 3:] == world.quality[:, [0, 1, 2, 0]]
    assert 0.85 < copied.mean() < 1.0


def test_the_costs_of_a_copy_fit_its_prices(world):
    wide = widened(world, 5, seed=0)
    for own, copy in ((0, 3), (1, 4)):
        prices = [
            wide.candidates[i].output_cost_per_million_tokens for i in (own, copy)
        ]
        factor = prices[1] / prices[0]
        assert 0.5 <= factor <= 2.0
        np.testing.assert_allclose(wide.cost[:, copy], factor * wide.cost[:, own])


def test_more_candidates_than_wanted_are_left_out(world):
    assert widened(world, 2, seed=0).names == world.names[:2]


def test_the_same_seed_makes_the_same_copies(world):
    first, second, other = (widened(world, 9, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.quality, second.quality)
    assert first.candidates == second.candidates != other.candidates


def test_an_encoder_of_any_dimension_is_to_be_had():
    assert encoder_of(64, seed=0).encode(["a text"]).shape == (1, 64)
    assert encoder_of(256, seed=0) is encoder_of(256, seed=1)  # the shipped one


def test_a_table_comes_back_from_its_file(world, tmp_path):
    table = world.select(range(5))
    write_table(table, ["one", "two"], tmp_path / "table.json")
    back, prompts = read_table(tmp_path / "table.json")
    assert prompts == ["one", "two"]
    assert back.records() == table.records()
    assert back.candidates == table.candidates


def test_the_peak_of_memory_is_in_bytes():
    peak = peak_bytes()
    assert peak is None or 2**25 < peak < 2**40


@pytest.fixture(scope="module")
def found(world):
    steps = []
    measured = measure_speed(
        world,
        sizes=QUICK_SIZES,
        n_prompts=12,
        seed=3,
        command="a test",
        on_step=steps.append,
    )
    assert len(steps) == 6
    return measured


def test_every_size_is_measured_on_different_prompts(found):
    assert [(p.grown, p.size) for p in found.points] == [
        *(("candidates", 2), ("candidates", 5)),
        *(("embedding", 64), ("domains", 0), ("queries", 100)),
    ]
    assert all(p.route.n == 12 and p.predict > 0 for p in found.points)
    assert (found.fit.n_queries, found.fit.n_candidates) == (100, 3)
    assert found.fit.seconds > 0
    assert found.fit.route.n == 12


def test_seed_and_versions_are_in_the_json(found):
    told = json.loads(json.dumps(found.to_json()))
    assert told["seed"] == 3
    assert {"numpy", "scikit-learn", "python", "tokenizers"} <= set(told["versions"])
    assert told["n_recorded"] == 3


def test_everything_is_shown(found):
    out = io.StringIO()
    print_speed(found, Console(file=out, width=80))
    for shown in ("route p99", "copies stand in", "training queries", "peak"):
        assert shown in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80


def test_a_figure_has_a_panel_for_each_size(found, tmp_path):
    (file,) = plot_speed(found, tmp_path / "speed.svg")
    text = file.read_text("utf-8")
    for label in ("candidates", "dimension of the embedding", "training queries"):
        assert f">{label}<" in text
    first = file.read_bytes()
    plot_speed(found, file)
    assert file.read_bytes() == first  # no date in it


def test_a_figure_without_a_panel_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="no panel"):
        plot_growth([], [tmp_path / "x.png"])


def test_the_command_prints_and_writes(world, tmp_path):
    data = tmp_path / "world.jsonl"
    rows = [
        {name: getattr(record, name) for name in record.__slots__}
        for record in world.records()
    ]
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    arguments = ["speed", "--data", data, "--pool", "all", "--quick", "--prompts", 10]
    arguments += ["--json", tmp_path / "speed.json", "--plot", tmp_path / "speed.png"]
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0
    assert "route p50" in done.output
    assert json.loads((tmp_path / "speed.json").read_text("utf-8"))["n_prompts"] == 10
    assert (tmp_path / "speed.png").exists()
