"""Figures under time constraint: spreads, goals, tables, JSON, plots, the command."""

import json
import math

import pytest
from rich.console import Console
from typer.testing import CliRunner

from mixllm_integrations import ConfigurationError
from mixllm_integrations.benchmark.commands import app
from mixllm_integrations.benchmark.latency.goals import goals
from mixllm_integrations.benchmark.latency.results import (
    BLIND,
    CONTESTANTS,
    MEASURED,
    OURS,
    REFRESHED,
    LatencyResult,
    LatencyRun,
    Point,
)
from mixllm_integrations.benchmark.latency.run import Sweep, run_latency
from mixllm_integrations.benchmark.latency.tables import plot_result, print_latency
from mixllm_integrations.plots.latency import LatencyLine, LatencyPanel, plot_latency

USUAL = Point(10.0, 30.0, 1.0)
FAST = Point(40.0, 30.0, 1.0)


def run(contestant, quality, seed=0, point=USUAL, cost=0.2, **figures):
    given = {
        "late": 0.0,
        "unhurried_quality": quality,
        "whole_quality": quality,
        "whole_late": 0.0,
        "wait_p50": 1.0,
        "wait_p95": 2.0,
        "expected_wait": math.nan,
        "real_wait": math.nan,
        "wait_error": math.nan,
        "foreseen": (),
        "shares": {"a": 1.0},
    }
    return LatencyRun(
        *(seed, contestant, *point, 100, quality, cost), **(given | figures)
    )


def result(*runs):
    present = {r.contestant for r in runs}
    return LatencyResult(
        *("data", ("a", "b"), 300, tuple(sorted({r.seed for r in runs}))),
        tuple(name for name in CONTESTANTS if name in present),
        *(("a",), USUAL, 0.01, "given", {}, "mixllm", {}, runs),
    )


def reached(found):
    return [goal.reached for goal in goals(found)]


def test_a_spread_is_over_the_seeds_of_one_point():
    found = result(run(OURS, 0.9), run(OURS, 1.0, seed=1), run(OURS, 0.1, point=FAST))
    assert found.spread(OURS, USUAL, "quality") == pytest.approx((0.95, 0.05))
    assert found.spread(BLIND, USUAL, "quality") is None


def test_being_ahead_is_judged_seed_by_seed():
    found = result(
        *(run(OURS, 0.9), run(OURS, 0.7, seed=1)),
        *(run(BLIND, 0.8), run(BLIND, 0.6, seed=1)),
    )
    assert found.ahead(OURS, BLIND, USUAL) == pytest.approx((0.1, 0.0))


def test_a_sweep_is_of_the_points_where_all_else_is_usual():
    late = Point(10.0, 5.0, 1.0)
    found = result(run(OURS, 1, point=late), run(OURS, 1, point=FAST), run(OURS, 1))
    assert found.along("rate") == (USUAL, FAST)
    assert found.along("tolerance_seconds") == (late, USUAL)
    assert found.along("factor") == (USUAL,)


@pytest.mark.parametrize(
    ("quality", "cost", "expected"),
    [
        (0.9725, 0.2418, [True, True]),
        (0.9724, 0.2418, [False, True]),
        (0.9725, 0.2419, [True, False]),
    ],
)
def test_the_headline_is_reached_at_its_very_figures(quality, cost, expected):
    assert reached(result(run(OURS, quality, cost=cost))) == expected


def test_a_point_is_below_only_beyond_the_spread_over_the_seeds():
    noise = result(
        *(run(OURS, 0.99), run(OURS, 0.99, seed=1)),
        *(run(BLIND, 1.01), run(BLIND, 0.98, seed=1)),
    )
    assert reached(noise)[-1] is True
    below = result(
        *(run(OURS, 0.99), run(OURS, 0.99, seed=1)),
        *(run(BLIND, 1.01), run(BLIND, 1.0, seed=1)),
    )
    assert reached(below)[-1] is False
    assert "1; the worst is -1.50 ± 0.50 points at 10/s" in goals(below)[-1].measured


@pytest.fixture(scope="module")
def found(world):
    sweep = Sweep(
        rates=(0.2, 1.2),
        tolerances=(3.0, 10.0),
        factors=(1.0, 3.0),
        usual=Point(1.2, 10.0, 1.0),
        concurrency=1,
        seconds=200.0,
    )
    steps, runs = [], []
    measured = run_latency(
        world,
        seeds=(0,),
        sweep=sweep,
        predictor="ridge",
        on_step=steps.append,
        on_run=runs.append,
    )
    assert any("fitting" in step for step in steps)
    assert tuple(runs) == measured.runs
    return measured


def test_everybody_is_at_every_point(found):
    assert found.contestants == CONTESTANTS
    assert len(found.points) == 4
    for point in found.points:
        for name in CONTESTANTS:
            assert len(found.of(name, point)) == 1
    assert found.willingness_to_pay > 0
    assert found.strongest == ("large",)


def test_under_load_the_penalty_serves_more_in_time(found):
    for name in (OURS, MEASURED):
        ours, blind = (found.of(who, found.usual)[0] for who in (name, BLIND))
        assert ours.late < blind.late
        assert ours.quality > blind.quality


def test_what_is_foreseen_is_near_what_is_waited(found):
    ours = found.of(OURS, found.usual)[0]
    assert ours.real_wait > 0.5
    assert ours.expected_wait == pytest.approx(ours.real_wait, rel=0.4)


def test_without_any_word_the_wait_is_foreseen_in_its_order(found):
    # One at a time is as far from the assumed four as it can be.
    measured = found.of(MEASURED, found.usual)[0]
    assert 0.3 < measured.expected_wait / measured.real_wait < 2.0


def test_waits_of_ten_seconds_ago_are_a_worse_forecast(found):
    live, paper = (found.of(who, found.usual)[0] for who in (OURS, REFRESHED))
    assert live.wait_error < paper.wait_error


def test_the_strongest_without_load_is_what_all_is_relative_to(found):
    easy = Point(0.2, 10.0, 1.0)
    for run_ in found.of("strongest", easy):
        assert run_.cost == pytest.approx(1.0)
        assert run_.unhurried_quality == pytest.approx(1.0)


def test_the_router_without_the_penalty_does_not_heed_the_tolerance(found):
    hurried = found.usual._replace(tolerance_seconds=3.0)
    one, other = (found.of(BLIND, point)[0] for point in (found.usual, hurried))
    assert one.shares == other.shares
    assert one.late <= other.late


def test_the_same_seed_gives_the_same_figures(world, found):
    sweep = Sweep(
        rates=(),
        tolerances=(),
        factors=(),
        usual=found.usual,
        concurrency=1,
        seconds=200.0,
    )
    again = run_latency(
        world,
        seeds=(0,),
        sweep=sweep,
        predictor="ridge",
        willingness_to_pay=found.willingness_to_pay,
        contestants=(OURS, REFRESHED),
    )
    for run_ in again.runs:
        (before,) = found.of(run_.contestant, run_.point)
        assert run_.quality == before.quality
        assert run_.shares == before.shares


def test_the_result_is_plain_json_with_nan_as_null(found):
    back = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert back["usual"] == {"rate": 1.2, "tolerance_seconds": 10.0, "factor": 1.0}
    assert len(back["runs"]) == len(found.runs)
    assert {
        row["expected_wait"] for row in back["summary"] if row["contestant"] == "random"
    } == {None}
    assert [goal["reached"] for goal in back["goals"]] == reached(found)
    assert back["settings"]["concurrency"]["large"] == 1


def test_tables_name_everybody_and_the_goals(found):
    console = Console(width=200, record=True)
    print_latency(found, console)
    text = console.export_text()
    for shown in (*CONTESTANTS, "1.2 queries per second, τ = 10 s", "≥ 97.25%"):
        assert shown in text
    assert text.count("quality (cost) by") == 3


def test_plots_are_written_and_not_empty(found, tmp_path):
    written = plot_result(found, tmp_path / "latency")
    names = [
        f"latency{what}{end}" for what in ("", "-waits") for end in (".png", ".svg")
    ]
    assert [file.name for file in written] == names
    text = (tmp_path / "latency.svg").read_text(encoding="utf-8")
    for shown in (OURS, "queries per second", "quality, relative", "goal"):
        assert shown in text
    assert all(file.stat().st_size > 5_000 for file in written)


def test_a_label_looks_the_same_in_every_panel_and_unlike_others(tmp_path):
    lines = [
        LatencyLine("a", [1, 2], [0.1, 0.2], "ours", [0.01, 0.01]),
        LatencyLine("b", [1, 2], [0.3, 0.2], "blind"),
        *(LatencyLine(name, [1, 2], [0.3, 0.1]) for name in "cdefgh"),
    ]
    panel = LatencyPanel("x", "y", lines, goal=0.2)
    plot_latency([[panel, panel]], [tmp_path / "x.svg"])
    text = (tmp_path / "x.svg").read_text(encoding="utf-8")
    for colour in ("#d55e00", "#222222", "#cc79a7", "#56b4e9"):
        assert text.count(colour) >= 2


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(ConfigurationError, match="no panel"):
        plot_latency([], [tmp_path / "x.png"])


# --- the command ---------------------------------------------------------------


@pytest.fixture
def data(world, tmp_path):
    file = tmp_path / "answers.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for record in world.records():
            row = {
                "query": record.query,
                "candidate": record.candidate,
                "quality": record.quality,
                "input_tokens": record.input_tokens,
                "output_tokens": record.output_tokens,
                "cost": record.cost,
                "tags": list(record.tags),
            }
            lines.write(json.dumps(row) + "\n")
    return file


def test_the_command_prints_and_writes(data, tmp_path):
    told = ["latency", "--data", str(data), "--pool", "all", "--quick"]
    told += ["--json", str(tmp_path / "x.json"), "--plot", str(tmp_path / "x.png")]
    done = CliRunner().invoke(app, told)
    assert done.exit_code == 0, done.output
    assert "10 queries per second, τ = 30 s" in done.output
    found = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert found["seeds"] == [0]
    assert {run["rate"] for run in found["runs"]} == {10.0, 40.0}
    assert (tmp_path / "x.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("told", "named"),
    [
        (["latency"], "pass --data FILE"),
        (["latency", "--rates", "5;10"], "--rates takes numbers with commas"),
        (["latency", "--tolerances", "0"], "tolerances must be above 0"),
    ],
)
def test_what_cannot_be_used_is_said(data, told, named):
    if len(told) > 1:
        told = [*told, "--data", str(data), "--pool", "all"]
    done = CliRunner().invoke(app, told)
    assert isinstance(done.exception, ConfigurationError)
    assert named in str(done.exception)
