"""What the commands show while they work: bars on a terminal, logs if asked for."""

import json
import logging
import sys

import pytest

from mixllm_integrations.benchmark.options import on_screen
from mixllm_integrations.cli import app
from mixllm_integrations.cli.logs import JsonLines, log_to_stderr, unlog
from mixllm_integrations.cli.options import at_work

LOG = logging.getLogger("mixllm_integrations")


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("TERM", raising=False)


def test_a_terminal_shows_what_is_done_and_what_the_library_says(terminal, capsys):
    with at_work("fitting") as progress:
        LOG.info("fitting on %d queries", 7)
        LOG.warning("not this")
        progress.refresh()
    shown = capsys.readouterr()
    assert "fitting: fitting on 7 queries" in shown.err
    assert shown.out == ""
    assert LOG.level == logging.NOTSET
    assert LOG.handlers == []


def test_elsewhere_nothing_is_shown(capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with at_work("fitting") as progress:
        LOG.info("fitting on %d queries", 7)
        progress.refresh()
    with on_screen() as progress:
        progress.add_task("benchmark")
        progress.refresh()
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")


def test_logs_take_the_place_of_bars(terminal, capsys):
    handler = log_to_stderr(1, as_json=False)
    try:
        with at_work("fitting") as progress:
            LOG.info("fitting on %d queries", 7)
            progress.refresh()
    finally:
        unlog(handler)
    told = capsys.readouterr().err
    assert told == "INFO mixllm_integrations: fitting on 7 queries\n"


@pytest.mark.parametrize(("verbosity", "lines"), [(0, 1), (1, 2), (2, 3), (5, 3)])
def test_verbosity_says_how_much(capsys, verbosity, lines):
    handler = log_to_stderr(verbosity, as_json=True)
    try:
        LOG.warning("a")
        LOG.info("b")
        LOG.debug("c")
    finally:
        unlog(handler)
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [one["message"] for one in found] == ["a", "b", "c"][:lines]


def test_a_line_of_json_names_the_event_and_its_values():
    record = LOG.makeRecord(
        LOG.name,
        logging.INFO,
        "f",
        1,
        "%d queries of %s",
        (7, "a"),
        None,
        extra={"x": 2},
    )
    told = json.loads(JsonLines().format(record))
    at = told.pop("at")
    assert at.endswith("+00:00")
    assert told == {
        "level": "info",
        "logger": "mixllm_integrations",
        "event": "%d queries of %s",
        "values": [7, "a"],
        "message": "7 queries of a",
        "x": 2,
    }


def test_a_line_of_json_holds_an_exception():
    try:
        raise RuntimeError("no")
    except RuntimeError:
        raised = sys.exc_info()
    named = ({"n": 3},)
    record = LOG.makeRecord(LOG.name, logging.ERROR, "f", 1, "%(n)d", named, raised)
    told = json.loads(JsonLines().format(record))
    assert told["exception"] == "RuntimeError"
    assert "Traceback" in told["trace"]
    assert (told["message"], told["values"]) == ("3", [{"n": 3}])


def test_a_command_logs_what_is_asked_for_and_stops_after(
    mixllm, small_world, tmp_path
):
    file = small_world.write_records(tmp_path / "r.jsonl", small_world.train)
    run = mixllm(
        *("-v", "--log-json", "fit", str(file), "-o", f"{tmp_path}/out"),
        *("--predictor", "ridge", "--json"),
    )
    assert run.returncode == 0
    json.loads(run.stdout)
    events = [json.loads(line)["event"] for line in run.stderr.splitlines()]
    assert "fitting on %d queries of %d candidates" in events
    assert LOG.handlers == []


def test_completion_names_commands_and_loads_nothing_heavy(monkeypatch, capsys):
    monkeypatch.setenv("_MIXLLM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "mixllm ")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit):
        app(prog_name="mixllm")
    names = set(capsys.readouterr().out.split())
    assert {"demo", "fit", "evaluate", "calibrate", "report", "inspect"} <= names
    assert {"collect", "benchmark"} <= names


def test_completion_knows_the_options_of_a_lazy_command(monkeypatch, capsys):
    monkeypatch.setenv("_MIXLLM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "mixllm report --ref")
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit):
        app(prog_name="mixllm")
    assert capsys.readouterr().out.split() == ["--reference"]


def test_a_script_for_the_shell_can_be_had(mixllm):
    known = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    run = mixllm("--show-completion", "bash", **known)
    assert run.returncode == 0, run.stderr
    assert "COMPLETE=complete_bash" in run.stdout
