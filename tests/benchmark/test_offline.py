"""The whole offline benchmark on a small world, with the real router."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from mixllm_integrations import ConfigurationError, Router
from mixllm_integrations.benchmark import offline, render
from mixllm_integrations.benchmark.baselines import default_baselines
from mixllm_integrations.benchmark.metrics import reference_point
from mixllm_integrations.benchmark.offline import run_offline, score_predictions
from mixllm_integrations.benchmark.peers import peer_baselines
from mixllm_integrations.benchmark.render import plot_result, print_result
from mixllm_integrations.benchmark.results import OfflineResult

PEERS = [b.name for b in peer_baselines(seed=0)]
BASELINES = [*(b.name for b in default_baselines(seed=0)), *PEERS]


@pytest.fixture(scope="module")
def result(world):
    seen = []
    found = run_offline(
        world, seeds=(0, 1), predictor="ridge", command="a test", on_run=seen.append
    )
    assert seen == list(found.runs)
    return found


def test_every_method_runs_on_every_split(result, world):
    assert set(result.methods) == {
        *("MixLLM (ridge)", "convex mix of singles"),
        *BASELINES,
        *world.names,
    }
    for method in result.methods:
        assert [run.seed for run in result.of(method)] == [0, 1]


def test_the_result_says_how_it_came_about(result):
    assert (result.n_queries, result.n_train, result.n_test) == (180, 144, 36)
    assert result.strongest == ("large", "large")
    assert result.command == "a test"
    assert result.versions["mixllm-integrations"]
    assert result.of("MixLLM (ridge)")[0].fit_seconds > 0


def test_the_strongest_candidate_is_one_and_the_oracle_the_best(result):
    strongest = result.summary("large")
    assert strongest.mean["best_quality"] == pytest.approx(1.0)
    assert strongest.mean["relative_cost"] == pytest.approx(1.0)
    best = max(run.aiq for run in result.runs if run.role != "bound" and run.seed == 0)
    assert result.of("oracle")[0].aiq > best


def test_the_router_is_better_than_chance_and_than_a_mix_of_two(result):
    ours, mix, random = (
        result.summary(m).mean["aiq"]
        for m in ("MixLLM (ridge)", "convex mix of singles", "random")
    )
    assert ours > mix + 0.1
    assert ours > random + 0.1


def test_predictions_are_judged_where_there_are_any(result):
    for run in result.runs:
        has_predictions = run.role == "router" or run.method in {
            *("true-domain lookup", "kNN", "ridge", "random forest", "MLP", "oracle"),
            *PEERS,
        }
        assert math.isfinite(run.mse) is has_predictions
        assert bool(run.reliability) is has_predictions
    assert result.of("oracle")[0].mse == 0.0


def test_a_result_survives_json(result):
    text = json.dumps(result.to_json(), allow_nan=False)
    again = OfflineResult.from_json(json.loads(text))
    assert again.methods == result.methods
    for method in result.methods:
        first, second = (r.summary(method).mean for r in (result, again))
        assert second == pytest.approx(first, abs=1e-5, nan_ok=True)


def test_curves_can_be_left_out_of_json(result):
    short = result.to_json(curves=False)
    assert "curve" not in short["runs"][0]
    assert OfflineResult.from_json(short).runs[0].curve == ()


def test_something_else_is_no_result():
    with pytest.raises(ConfigurationError, match="not a result"):
        OfflineResult.from_json({"runs": [{"method": "x"}]})


def test_a_level_that_one_split_misses_has_no_mean(result):
    # Nobody but a router that never errs has 1.0 at 5 % of the cost.
    assert math.isnan(result.summary("random").mean["cost at 100.00%"])


def test_an_advantage_is_taken_split_by_split(result):
    mean, spread = result.advantage("oracle", "large")
    gaps = [
        one.aiq - other.aiq
        for one, other in zip(result.of("oracle"), result.of("large"), strict=True)
    ]
    assert mean == pytest.approx(sum(gaps) / 2)
    assert spread == pytest.approx(abs(gaps[0] - gaps[1]) / 2)


def test_the_tables_name_every_method_and_fit_a_terminal(result):
    out = io.StringIO()
    print_result(result, Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for method in result.methods:
        assert any(method in line for line in lines)


def test_figures_are_written_in_both_formats(result, tmp_path):
    files = plot_result(result, tmp_path / "figure", with_bound=True)
    assert sorted(f.name for f in files) == [
        *("figure-reliability.png", "figure-reliability.svg"),
        *("figure.png", "figure.svg"),
    ]
    svg = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    for label in ("MixLLM (ridge)", "oracle", "poet"):
        assert label in svg
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_lines_are_routers_and_baselines_and_points_are_single_candidates(
    result, world, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(
        render,
        "plot_curves",
        lambda curves, points, *_, **__: drawn.extend((curves, points)),
    )
    plot_result(result, tmp_path / "figure.png")
    lines, points = drawn
    assert [line.label for line in lines] == [
        *("MixLLM (ridge)", "convex mix of singles"),
        *PEERS,
        *("true-domain lookup", "kNN", "ridge", "random forest", "MLP"),
    ]
    assert [line.role for line in lines[:3]] == ["ours", "mix", "baseline"]
    assert [point.label for point in points] == list(world.names)
    assert (points[1].cost, points[1].quality) == pytest.approx((1.0, 1.0))


def test_one_ending_gives_one_format(result, tmp_path):
    files = plot_result(result, tmp_path / "figure.svg")
    assert {f.suffix for f in files} == {".svg"}
    assert "oracle" not in files[0].read_text(encoding="utf-8")


def test_perfect_predictions_score_like_the_oracle(world):
    reference = reference_point(world.quality, world.quality, world.cost)
    run = score_predictions(
        world.quality, world.cost, test=world, reference=reference, method="x"
    )
    assert (run.mse, run.brier, run.calibration_error) == (0.0, 0.0, 0.0)
    assert run.cost_ratio == pytest.approx(1.0)
    best = world.quality.max(axis=1).mean() / reference.quality
    assert run.best_quality == pytest.approx(best)
    assert np.diff(np.array(run.curve)[:, 0]).min() >= 0


def test_the_router_gets_the_seed_of_its_split_and_the_given_options(
    world, monkeypatch
):
    made = []

    class Spy(Router):
        def __init__(self, *args, **options):
            made.append(options)
            super().__init__(*args, **options)

    monkeypatch.setattr(offline, "Router", Spy)
    run_offline(world, seeds=(3, 5), predictor="ridge", baselines=False, n_domains=4)
    assert [(o["seed"], o["predictor"], o["n_domains"]) for o in made] == [
        (3, "ridge", 4),
        (5, "ridge", 4),
    ]


def test_a_benchmark_needs_a_seed(world):
    with pytest.raises(ConfigurationError, match="at least one seed"):
        run_offline(world, seeds=())


def test_all_kinds_are_run_beside_the_chosen_one(world):
    found = run_offline(
        world, seeds=(0,), predictor="knn", all_kinds=True, baselines=False
    )
    kinds = ("knn", "auto", "ridge", "forest", "mlp", "ensemble")
    assert found.methods == tuple(f"MixLLM ({kind})" for kind in kinds)
