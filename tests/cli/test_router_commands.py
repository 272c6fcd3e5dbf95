"""fit, evaluate, calibrate, and a router's mind: on a small world, as a user does."""

import io
import json
import re

import pytest

from mixllm_integrations import Calibration, Router
from mixllm_integrations.cli.evaluate_screen import show_calibration
from mixllm_integrations.cli.screen import console_of

COMMANDS = ("fit", "evaluate", "calibrate", "report", "inspect")


@pytest.fixture(scope="module")
def files(small_world, tmp_path_factory):
    """Records and a fitted router on disk, and a log that it wrote."""
    folder = tmp_path_factory.mktemp("files")
    small_world.write_records(folder / "train.jsonl", small_world.train)
    small_world.write_records(folder / "held_out.jsonl", small_world.held_out)
    small_world.write_log(f"sqlite:///{folder}/log.db", n=120, folder=folder / "router")
    lines = ["[router]", 'predictor = "ridge"', "willingness_to_pay = 0.02", "seed = 4"]
    for one in small_world.candidates:
        lines += [
            "[[candidates]]",
            f'model = "openai:{one.name}"',
            f'name = "{one.name}"',
            f"input_cost_per_million_tokens = {one.input_cost_per_million_tokens}",
            f"output_cost_per_million_tokens = {one.output_cost_per_million_tokens}",
        ]
    (folder / "candidates.toml").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def router(small_world, tmp_path):
    return small_world.save_router(tmp_path / "router", willingness_to_pay=0.01)


def told(run):
    return json.loads(run.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_exit_codes(mixllm, command):
    run = mixllm(command, "--help")
    assert run.returncode == 0
    assert f"mixllm {command} " in run.stdout
    assert "Exit codes: 0" in run.stdout
    assert "--json" in run.stdout
    assert re.search(rf"^\W+{command}\b", mixllm("--help").stdout, re.MULTILINE)


def test_prices_are_estimated_where_none_are_given(mixllm, files, tmp_path):
    run = mixllm(
        "fit", f"{files}/train.jsonl", "-o", f"{tmp_path}/out", "--predictor", "ridge"
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""  # no bar where there is no terminal
    assert "The prices are estimated" in run.stdout
    assert re.search(r"large +5 / 20", run.stdout)
    assert "fitted on 720 records" in run.stdout
    assert Router.load(tmp_path / "out").is_fitted


def test_candidates_of_a_file_have_its_prices_and_its_settings(mixllm, files, tmp_path):
    run = mixllm(
        *("fit", f"{files}/train.jsonl", "-o", f"{tmp_path}/out"),
        *("--candidates", f"{files}/candidates.toml", "--json"),
    )
    assert run.returncode == 0, run.stderr
    found = told(run)
    assert found["prices_estimated"] is False
    assert found["willingness_to_pay"] == 0.02
    assert [c["name"] for c in found["candidates"]] == ["small", "medium", "large"]
    assert found["calibration"] is None
    assert (found["records"], found["skipped_rows"]) == (720, 0)


def test_fit_calibrates_to_a_target(mixllm, files, tmp_path):
    run = mixllm(
        *("fit", f"{files}/train.jsonl", "-o", f"{tmp_path}/out", "--predictor"),
        *("ridge", "--seed", "3", "--cost-target", "0.9"),
    )
    assert run.returncode == 0, run.stderr
    assert "target 0.9 of the cost of" in run.stdout
    assert "reached by a willingness to pay of " in run.stdout
    shown = re.search(r"\(willingness to pay: ([\d.e-]+) USD\)", run.stdout)[1]
    loaded = Router.load(tmp_path / "out").willingness_to_pay
    assert float(shown) == pytest.approx(loaded, rel=1e-3)


def test_a_calibrated_value_is_not_lost_without_a_word(mixllm, files, router):
    tuned = Router.load(router)
    tuned.willingness_to_pay = 0.0042
    tuned.save(router)
    fit = ("fit", f"{files}/train.jsonl", "-o", str(router), "--predictor", "ridge")
    run = mixllm(*fit, "-c", f"{files}/candidates.toml")
    assert run.returncode == 0, run.stderr
    assert "had a willingness to pay of 0.0042 USD, this one has 0.02" in run.stderr
    assert mixllm(*fit, "-w", "0.3").stderr == ""  # that was chosen
    (router / "manifest.json").write_text("{}")
    assert mixllm(*fit).returncode == 2  # it is not known whose that is


def test_on_a_terminal_the_next_step_is_told(mixllm, files, tmp_path):
    fit = ("fit", f"{files}/train.jsonl", "-o", f"{tmp_path}/x", "--predictor", "ridge")
    assert "next:" not in mixllm(*fit).stderr
    run = mixllm(*fit, FORCE_COLOR="1", TERM="xterm")
    step = f"next: mixllm calibrate {files}/train.jsonl -r {tmp_path}/x "
    assert step in run.stderr
    assert "next:" not in run.stdout


def test_a_prompt_that_is_taken_for_a_log_leaves_no_file(mixllm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = mixllm("inspect", "What is 17 * 23?")
    assert run.returncode == 2
    assert "17" not in run.stderr  # no error shows a prompt
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_is_missed_is_exit_code_1_and_saved_nearest(
    mixllm, files, tmp_path
):
    run = mixllm(
        *("fit", f"{files}/train.jsonl", "-o", f"{tmp_path}/out", "--predictor"),
        *("ridge", "--quality-target", "1.9", "--json"),
    )
    assert run.returncode == 1
    assert told(run)["calibration"]["target_reached"] is False
    assert "the target is not reached" in run.stderr
    assert (tmp_path / "out").is_dir()


def test_a_newcomer_is_fitted_into_a_router(
    mixllm, files, small_world, router, tmp_path
):
    newcomer = [r for r in small_world.train if r.candidate == "small"][:60]
    records = [
        type(r)(r.query, "new", r.quality, r.input_tokens, r.output_tokens, r.cost)
        for r in newcomer
    ]
    file = small_world.write_records(tmp_path / "new.jsonl", records)
    text = (files / "candidates.toml").read_text().replace("small", "new")
    (tmp_path / "new.toml").write_text(text)
    run = mixllm(
        *("fit", str(file), "--router", str(router), "-o", f"{tmp_path}/out"),
        *("--candidates", f"{tmp_path}/new.toml", "-w", "0.03"),
    )
    assert run.returncode == 0, run.stderr
    found = Router.load(tmp_path / "out")
    assert [c.name for c in found.candidates] == ["small", "medium", "large", "new"]
    assert found.willingness_to_pay == 0.03


def test_records_of_others_are_left_out_and_told(mixllm, files, router, tmp_path):
    bare = Router.load(router)
    bare.remove_candidate("medium")
    bare.save(router)
    run = mixllm(
        "fit", f"{files}/train.jsonl", "-r", str(router), "-o", f"{tmp_path}/out"
    )
    assert run.returncode == 0, run.stderr
    assert "records of medium are left out" in run.stderr
    assert "fitted on 480 records" in run.stdout


def test_a_log_teaches_the_router_that_decided(mixllm, files, router, tmp_path):
    run = mixllm(
        *("fit", f"sqlite:///{files}/log.db", "--router", str(router)),
        *("-o", f"{tmp_path}/out", "-w", "0.05"),
    )
    assert run.returncode == 0, run.stderr
    assert re.search(r"learned from \d+ events, and its heads were fitted", run.stdout)
    learned = Router.load(tmp_path / "out")
    assert learned.has_learned_online
    assert not Router.load(router).has_learned_online
    assert learned.willingness_to_pay == 0.05
    again = mixllm(
        *("fit", f"{files}/log.db", "--router", f"{tmp_path}/out"),
        *("-o", f"{tmp_path}/out2", "--json"),
    )
    assert again.returncode == 2
    assert "nothing new in the log: the router has heard it" in again.stderr


def test_a_log_of_another_router_teaches_nothing_and_says_so(mixllm, files, tmp_path):
    run = mixllm(
        *("fit", f"{files}/log.db", "--candidates", f"{files}/candidates.toml"),
        *("-o", f"{tmp_path}/out"),
    )
    assert run.returncode == 2
    assert "nothing could be learned from the" in run.stderr
    assert "--router" in run.stderr
    assert not (tmp_path / "out").exists()


def test_evaluate_shows_everybody(mixllm, files, router):
    run = mixllm("evaluate", f"{files}/held_out.jsonl", "-r", str(router))
    assert run.returncode == 0, run.stderr
    for who in ("router", "small", "medium", "large", "by lot", "oracle"):
        assert re.search(rf"^ *{who} +\d", run.stdout, re.MULTILINE), who
    assert "seconds" in run.stdout  # the records have latencies
    for figure in ("AIQ", "Brier score", "0.9725:", "best random mix"):
        assert figure in run.stdout


def test_evaluating_on_what_was_fitted_on_is_told(mixllm, files, router):
    run = mixllm("evaluate", f"{files}/train.jsonl", "-r", str(router), "--json")
    assert run.returncode == 0
    assert "its figures are too good" in run.stderr
    found = told(run)
    assert found["seen"] == found["queries"]
    assert set(found["cost_at"]) == {"0.95", "0.9725", "0.99", "1"}
    assert found["missed"] == []


def test_bounds_that_are_missed_are_exit_code_1(mixllm, files, router):
    run = mixllm(
        *("evaluate", f"{files}/held_out.jsonl", "-r", str(router)),
        *("--at-least-quality", "3", "--at-most-cost", "0.0001"),
    )
    assert run.returncode == 1
    assert "is below 300.00%" in run.stderr
    assert "is above 0.01%" in run.stderr
    run = mixllm(
        *("evaluate", f"{files}/held_out.jsonl", "-r", str(router)),
        *("--at-least-quality", "0.1", "--at-most-cost", "1.1"),
    )
    assert run.returncode == 0


def test_what_is_not_on_record_is_told(mixllm, small_world, files, router, tmp_path):
    records = [r for r in small_world.held_out if r.candidate != "medium"][1:]
    file = small_world.write_records(tmp_path / "some.jsonl", records)
    run = mixllm("evaluate", str(file), "-r", str(router))
    assert run.returncode == 0, run.stderr
    assert "1 queries were left out" in run.stderr
    assert "no records of medium: left out" in run.stderr


def test_calibrate_says_what_to_expect_and_changes_nothing(mixllm, files, router):
    run = mixllm(
        *("calibrate", f"{files}/held_out.jsonl", "-r", str(router)),
        *("--quality-target", "0.8"),
    )
    assert run.returncode == 0, run.stderr
    assert "nothing is saved; add --apply" in run.stdout
    assert "of the strongest's (" in run.stdout
    assert Router.load(router).willingness_to_pay == 0.01


@pytest.mark.parametrize("elsewhere", [True, False])
def test_calibrate_writes_the_value_into_the_router(
    mixllm, files, router, tmp_path, elsewhere
):
    where = ("-o", f"{tmp_path}/tuned") if elsewhere else ("--apply",)
    run = mixllm(
        *("calibrate", f"{files}/held_out.jsonl", "-r", str(router)),
        *("--cost-target", "0.5", *where),
    )
    assert run.returncode == 0, run.stderr
    assert "saved with that value" in run.stdout
    changed = Router.load(tmp_path / "tuned" if elsewhere else router)
    assert changed.willingness_to_pay != 0.01
    assert (Router.load(router).willingness_to_pay == 0.01) is elsewhere


def test_a_target_that_no_value_meets_is_exit_code_1_and_saves_nothing(
    mixllm, files, router, tmp_path
):
    run = mixllm(
        *("calibrate", f"{files}/held_out.jsonl", "-r", str(router)),
        *("--quality-target", "1.9", "-o", f"{tmp_path}/tuned", "--json"),
    )
    assert run.returncode == 1
    assert told(run)["saved"] is None
    assert "nothing is saved" in run.stderr
    assert not (tmp_path / "tuned").exists()


@pytest.mark.parametrize(
    ("share", "reached", "is_told"),
    [(1.0, True, True), (0.6, True, False), (1.0, False, False)],
)
def test_a_target_that_saves_nothing_is_told_so(share, reached, is_told):
    found = Calibration(
        willingness_to_pay=0.01,
        quality=0.9,
        cost=0.001,
        relative_quality=1.0,
        relative_cost=share,
        relative_quality_interval=(0.9, 1.0),
        relative_cost_interval=(share, share),
        strongest="large",
        n_queries=60,
        target_reached=reached,
    )
    console = console_of(io.StringIO())
    show_calibration(console, found, "0.97 of the quality")
    shown = console.file.getvalue()
    assert ("no cheaper than always asking large" in shown) is is_told


def test_calibrate_leaves_records_of_others_out(mixllm, files, router):
    bare = Router.load(router)
    bare.remove_candidate("medium")
    bare.save(router)
    run = mixllm(
        *("calibrate", f"{files}/held_out.jsonl", "-r", str(router)),
        *("--cost-target", "0.5", "--json"),
    )
    assert run.returncode == 0, run.stderr
    assert "records of medium are left out" in run.stderr
    assert told(run)["n_queries"] <= 90


def test_a_prompt_is_explained(mixllm, router):
    run = mixllm("inspect", "add the numbers 4711 and 1234", "--router", str(router))
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("goes to ")
    assert "chosen: highest score" in run.stdout
    assert "it seems to be about: sums (" in run.stdout


def test_a_prompt_may_come_from_standard_input(mixllm, router, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("may a tenant of 9 years leave"))
    run = mixllm("inspect", "-", "--router", str(router), "--json", "-")
    assert run.returncode == 0, run.stderr
    found = told(run)
    assert next(iter(found["domains"])) == "law"
    assert set(found["decision"]["scores"]) == {"small", "medium", "large"}
    assert "tenant" not in run.stdout


def test_a_router_without_domains_explains_without_them(mixllm, tmp_path, small_world):
    Router(small_world.candidates).save(tmp_path / "bare")
    run = mixllm("inspect", "hello", "--router", f"{tmp_path}/bare")
    assert run.returncode == 0, run.stderr
    assert "it seems to be about" not in run.stdout


def test_a_candidates_strengths_are_shown(mixllm, router, files, tmp_path):
    run = mixllm("inspect", "--candidate", "small", "--router", str(router))
    assert run.returncode == 0, run.stderr
    by_domain, by_form = run.stdout.split("by form")
    assert by_domain.index("sums") < by_domain.index("law")
    assert "shortest third" in by_form
    file = tmp_path / "strengths.json"
    run = mixllm(
        *("inspect", f"{files}/held_out.jsonl", "--candidate", "large"),
        *("--router", str(router), "--json", str(file)),
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(file.read_text("utf-8"))
    assert found["candidate"] == "large"
    assert found["overall"]["queries"] <= 90


def test_who_is_alone_has_no_rival(mixllm, tmp_path, small_world):
    alone = Router(small_world.candidates[:1], predictor="ridge")
    alone.fit([r for r in small_world.train if r.candidate == "small"])
    alone.save(tmp_path / "alone")
    run = mixllm("inspect", "--candidate", "small", "--router", f"{tmp_path}/alone")
    assert run.returncode == 0, run.stderr
    assert re.search(r"sums +\d+ +[\d.]+ +\+0.000 +- ", run.stdout)


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["fit", "{}/none.jsonl", "-o", "{}/x"], "no such file"),
        (["fit", "{}/none.db", "-o", "{}/x", "-r", "{}/router"], "no such file"),
        (["fit", "{}/log.db", "-o", "{}/x"], "by --router, or --candidates"),
        (
            ["fit", "{}/log.db", "-r", "{}/router", "-o", "{}/x", "--cost-target", "1"],
            "calibrate on records by mixllm calibrate",
        ),
        (
            ["fit", "{}/train.jsonl", "-o", "{}/x", "-w", "1", "--cost-target", "1"],
            "pass one of",
        ),
        (["fit", "{}/bad.jsonl", "-o", "{}/x"], "--skip-bad-rows"),
        (["fit", "{}/bad.jsonl", "-o", "{}/x", "--skip-bad-rows"], "holds no record"),
        (["fit", "{}/others.jsonl", "-o", "{}/x", "-r", "{}/router"], "['nobody']"),
        (["evaluate", "{}/held_out.jsonl", "-r", "{}/none"], "mixllm fit RECORDS"),
        (["evaluate", "{}/others.jsonl", "-r", "{}/router"], "none of the router's"),
        (["calibrate", "{}/held_out.jsonl", "-r", "{}/router"], "--quality-target"),
        (
            ["calibrate", "{}/train.jsonl", "-r", "{}/router", "--apply", "-o", "{}/x"],
            "not both",
        ),
        (["inspect"], "pass an event log"),
        (["inspect", "What is 17 * 23?"], "mixllm inspect PROMPT --router FOLDER"),
        (["inspect", "{}/none.db"], "none.db': no such file"),
        (["inspect", "--router", "{}/router"], "pass the prompt"),
        (["inspect", "--candidate", "small"], "pass --router FOLDER"),
        (["inspect", "--candidate", "huge", "-r", "{}/router"], "'huge'"),
        (
            ["inspect", "hello", "-r", "{}/router", "--since", "7d"],
            "--since is of a log",
        ),
    ],
)
def test_an_error_is_one_line_with_its_remedy_and_exit_code_2(
    mixllm, files, arguments, remedy
):
    (files / "bad.jsonl").write_text('{"query": "x"}\n')
    other = {"query": "x", "candidate": "nobody", "quality": 1, "cost": 0.1}
    (files / "others.jsonl").write_text(json.dumps(other) + "\n")
    run = mixllm(*(a.format(files) for a in arguments))
    assert run.returncode == 2, run.stdout
    error = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert remedy in error[0]
    assert "Traceback" not in run.stderr
    assert not (files / "x").exists()


def test_a_terminal_obeys_no_name_of_a_file(mixllm, files, router, tmp_path, capsys):
    evil = {"query": "x", "candidate": "\x1b[2J[red]evil", "quality": 1}
    file = tmp_path / "evil.jsonl"
    file.write_text((files / "held_out.jsonl").read_text() + json.dumps(evil) + "\n")
    told = ("-r", str(router), "--cost-target", "0.5")
    run = mixllm("calibrate", str(file), *told)
    assert run.returncode == 0, run.stderr
    assert "\x1b" not in run.stdout + run.stderr
    assert "[2J[red]evil are left out" in run.stderr


@pytest.mark.parametrize("command", ["fit", "calibrate"])
def test_what_is_no_router_is_not_written_over_nor_worked_for(
    mixllm, files, router, tmp_path, command
):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all my work")
    target = ("--cost-target", "0.5", "-r", str(router))
    for place in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        run = mixllm(command, f"{files}/none.jsonl", *target, "-o", str(place))
        assert run.returncode == 2
        assert "is there and is no router" in run.stderr
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all my work"


def test_bad_rows_may_be_left_out(mixllm, files, tmp_path, router):
    file = tmp_path / "some.jsonl"
    file.write_text((files / "held_out.jsonl").read_text() + "no json\n")
    run = mixllm("evaluate", str(file), "-r", str(router), "--skip-bad-rows", "--json")
    assert run.returncode == 0
    assert "1 bad rows were left out" in run.stderr
    assert told(run)["skipped_rows"] == 1
