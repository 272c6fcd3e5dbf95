"""Figures of learning online: summaries, goals, tables, JSON, plots, the command."""

import json
import math

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from mixllm_integrations import ConfigurationError
from mixllm_integrations.benchmark.online.command import online
from mixllm_integrations.benchmark.online.goals import goals
from mixllm_integrations.benchmark.online.load import measure_load
from mixllm_integrations.benchmark.online.results import (
    LoadFigures,
    OnlineResult,
    OnlineRun,
)
from mixllm_integrations.benchmark.online.tables import plot_online, print_online
from mixllm_integrations.benchmark.online.worlds import WorldSettings
from mixllm_integrations.plots.learning import (
    LearningLine,
    LearningPanel,
    plot_learning,
)


def run(stream, learner, seed=0, reward=0.5, value=0.01, **figures):
    given = {
        "n_steps": 200,
        "quality": 0.6,
        "cost": 0.001,
        "regret": 1.0,
        "equal_cost": 0.0,
        "test_reward": 0.5,
        "test_equal_cost": math.nan,
        "test_levels": math.nan,
        "test_aiq": math.nan,
        "shares": {"a": 1.0},
        "focus": "a",
        "turning": 100,
        "focus_shares": (1.0, 0.5),
        "rewards": (reward, reward),
        "seconds": 0.1,
        "extra": {},
    }
    return OnlineRun(
        "data", seed, stream, learner, value, reward=reward, **(given | figures)
    )


def result(*runs, load=None):
    names = list(dict.fromkeys(r.stream for r in runs))
    learners = list(dict.fromkeys(r.learner for r in runs))
    seeds = tuple(sorted({r.seed for r in runs}))
    return OnlineResult(
        *("data", ("a", "b"), "c", 300, seeds, tuple(names), tuple(learners)),
        *(0.01, "given", {"predictor": "ridge"}, "mixllm", {}, runs, load),
    )


def goal(found, words):
    (one,) = [g for g in goals(found) if words in g.what]
    return one


def test_a_gain_is_the_sum_of_rewards_beyond_no_online_of_the_same_seed():
    found = result(
        run("noisy", "no-online", 0, 0.50),
        run("noisy", "no-online", 1, 0.40),
        run("noisy", "ours", 0, 0.52),
        run("noisy", "ours", 1, 0.43),
        run("noisy", "ours", 1, 0.99, value=0.04),  # another value of quality
    )
    # 200 · 0.02 = 4 and 200 · 0.03 = 6.
    assert found.spread("noisy", "ours", "gain") == pytest.approx((5.0, 1.0))
    assert found.spread("noisy", "ours", "test_aiq") is None
    assert found.spread("delayed", "ours", "gain") is None


@pytest.mark.parametrize(
    ("gain", "reached"), [(0.0222, True), (0.02, False), (0.03, True)]
)
def test_a_refined_gain_is_held_against_2_22_percent(gain, reached):
    runs = [
        run("refined-30/70", "ours", test_equal_cost=gain),
        run("refined-30/70", "full information", test_equal_cost=0.05),
    ]
    found = goal(result(*runs), "refined-30/70")
    assert found.reached is reached
    assert f"{gain:+.2%}" in found.measured
    assert "all labels: +5.00%" in found.measured


def test_a_newcomer_that_never_arrives_on_one_seed_is_no_success():
    def arrived(seed, queries):
        extra = {"queries_to_90": queries, "explored_cost_share": 0.01}
        extra |= {"late_share": 0.3, "informed_share": 0.25}
        return run("newcomer", "ours", seed, extra=extra)

    found = result(arrived(0, 500.0), arrived(1, 700.0))
    assert goal(found, "until 90 %").reached
    assert "600 ± 100" in goal(found, "until 90 %").measured
    assert "at the end 30%, deserved 25%" in goal(found, "until 90 %").measured
    assert goal(found, "exploration").reached
    found = result(arrived(0, 500.0), arrived(1, math.inf))
    assert not goal(found, "until 90 %").reached
    assert "never in 1 of 2 seeds" in goal(found, "until 90 %").measured


def test_ours_must_earn_more_than_the_best_peer():
    runs = [
        run("sparse", "no-online", reward=0.50),
        run("sparse", "ours", reward=0.52),
        run("sparse", "mabwiser LinUCB", reward=0.51),
        run("sparse", "paretobandit", reward=0.53),
    ]
    found = goal(result(*runs), "sparse")
    assert not found.reached
    assert found.target == "> +6.0 (paretobandit)"
    assert goal(result(*runs[:3]), "sparse").reached


def test_time_memory_and_size_are_held_against_their_goals():
    load = LoadFigures(
        1_000, 20, 277, 1e-4, 3e-4, 0.15, 10**8, 10**8 + 10**7, 19 * 10**6
    )
    found = result(run("noisy", "ours"), load=load)
    assert goal(found, "one update").reached
    assert "150 s" in goal(found, "1 million").measured
    assert goal(found, "memory").reached
    assert goal(found, "bandit state").reached
    slow = LoadFigures(1_000, 20, 277, 3e-4, 3e-4, 0.4, 10**8, 2 * 10**8, 21 * 10**6)
    found = result(run("noisy", "ours"), load=slow)
    wanted = ("one update", "1 million", "memory", "bandit state")
    assert not any(goal(found, words).reached for words in wanted)


def test_tables_show_every_learner_and_goal_and_json_says_the_same():
    extra = {"loss": 0.02, "loss_before": 0.04, "alarm_after": math.nan}
    found = result(
        run("unseen-domains", "ours", reward=0.52, extra=extra),
        run("unseen-domains", "no-online"),
        run("unseen-domains", "in hindsight", reward=0.6),
    )
    console = Console(width=150)
    with console.capture() as shown:
        print_online(found, console)
    text = shown.get()
    assert "+4.0 ± 0.0" in text
    assert "2.00% ± 0.00% (before: 4.00%)" in text
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["summary"][0]["gain"] == pytest.approx(4.0)
    assert plain["summary"][0]["test_aiq"] is None
    assert plain["runs"][0]["extra"]["alarm_after"] is None
    assert plain["goals"][0]["reached"] is True
    assert (plain["willingness_to_pay"], plain["seeds"]) == (0.01, [0])


def test_figures_name_every_learner_and_mark_what_happens(tmp_path):
    found = result(
        run("newcomer", "ours", reward=0.52, focus="c"),
        run("newcomer", "no-online", focus="c"),
        run("newcomer", "in hindsight", reward=0.6, focus="c"),
    )
    written = plot_online(found, tmp_path / "out.svg")
    assert [f.name for f in written] == [
        f"out-{what}.svg" for what in ("reward", "regret", "share")
    ]
    reward, regret, share = (f.read_text("utf-8") for f in written)
    assert "ours" in reward
    assert "no-online" in regret
    assert "share of c" in share


def test_the_same_panels_give_the_same_file(tmp_path):
    lines = [
        LearningLine("ours", [0, 100], [0.0, 1.0], "ours", [0.0, 0.1]),
        LearningLine("ours, else", [0, 100], [0.0, 0.5], "ours"),
        LearningLine("peer", [0, 100], [0.0, -1.0]),
        LearningLine("bound", [0, 100], [0.0, 2.0], "bound"),
    ]
    panels = [LearningPanel(f"stream {i}", "points", lines, 50) for i in range(4)]
    panels.append(LearningPanel("stream 4", "points", lines, zero=True))
    files = [tmp_path / name for name in ("a.svg", "b.svg")]
    for file in files:
        plot_learning(panels, [file], title="a title")
    assert files[0].read_bytes() == files[1].read_bytes()
    text = files[0].read_text("utf-8")
    for label in ("a title", "stream 4", *(line.label for line in lines)):
        assert label in text


def test_no_panel_is_an_error(tmp_path):
    with pytest.raises(ConfigurationError, match="no panel"):
        plot_learning([], [tmp_path / "x.png"])


def test_load_is_measured_with_copies_of_candidates_that_all_learn(world):
    settings = WorldSettings(predictor="ridge")
    found = measure_load(world, n_feedbacks=40, n_candidates=5, settings=settings)
    assert (found.n_feedbacks, found.n_candidates) == (40, 5)
    assert 0 < found.update_p50_seconds <= found.update_p99_seconds
    assert found.seconds_per_million == pytest.approx(1e6 * found.seconds / 40)
    # At least one triangle of a matrix.
    assert found.state_bytes >= 8 * found.dimension * (found.dimension + 1) / 2
    assert found.replay_bytes >= 0


@pytest.fixture
def data(world, tmp_path):
    file = tmp_path / "world.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for number, record in enumerate(world.records()):
            row = {name: getattr(record, name) for name in record.__slots__}
            lines.write(json.dumps(row | {"query_id": number // 3}) + "\n")
    return file


def test_the_command_prints_tables_and_writes_json_and_figures(data, tmp_path):
    app = typer.Typer()
    app.command()(online)
    out = tmp_path / "out" / "online.json"
    asked = ["--data", str(data), "--pool", "small,large,poet", "--quick"]
    asked += ["--streams", "refined-70/30, newcomer", "--learners", "ours"]
    asked += ["--willingness-to-pay", "0.01", "--json", str(out)]
    done = CliRunner().invoke(app, [*asked, "--plot", str(tmp_path / "online.png")])
    assert done.exit_code == 0, done.output
    assert "Goals" in done.output
    found = json.loads(out.read_text("utf-8"))
    assert found["streams"] == ["refined-70/30", "newcomer"]
    assert found["settings"]["predictor"] == "ridge"
    assert (tmp_path / "online-reward.png").stat().st_size > 1_000
    assert (tmp_path / "online-share.png").exists()


def test_the_command_asks_for_data():
    app = typer.Typer()
    app.command()(online)
    with pytest.raises(ConfigurationError, match="--data FILE"):
        CliRunner().invoke(app, [], catch_exceptions=False)
