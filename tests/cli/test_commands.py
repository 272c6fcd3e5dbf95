"""The frame of the command line: what it lists, what it loads, how it fails."""

import json
import re
import subprocess
import sys

import pytest

from mixllm_integrations import ConfigurationError, __version__
from mixllm_integrations.cli import app, main

ESCAPE = re.compile(r"\x1b\[")


def modules_after(arguments: list[str]) -> set[str]:
    code = (
        "import sys, json\n"
        "from mixllm_integrations.cli import app\n"
        f"try: app({arguments!r})\n"
        "except SystemExit: pass\n"
        "print('\\n' + json.dumps(sorted(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_version_is_printed_without_loading_anything_heavy() -> None:
    loaded = modules_after(["--version"])
    assert not loaded & {"langchain_core", "numpy", "sklearn", "sqlalchemy"}


def test_version_is_that_of_the_package(mixllm) -> None:
    run = mixllm("--version")
    assert (run.returncode, run.stdout) == (0, f"mixllm-integrations {__version__}\n")


def test_help_lists_every_command(mixllm) -> None:
    run = mixllm("--help")
    assert run.returncode == 0
    assert re.findall(r"^\W+(demo|benchmark)\b", run.stdout, re.MULTILINE) == [
        "demo",
        "benchmark",
    ]


def test_without_a_command_help_is_shown(mixllm) -> None:
    run = mixllm()
    assert run.returncode == 2
    assert "benchmark" in run.stdout + run.stderr


def test_the_demo_does_not_load_the_benchmark_nor_what_only_fitting_needs() -> None:
    loaded = modules_after(["demo", "--prompts", "1", "--json"])
    assert "mixllm_integrations.cli.demo" in loaded
    unwanted = {"mixllm_integrations.benchmark.commands", "sklearn", "torch", "pandas"}
    assert not loaded & unwanted


def test_the_benchmark_is_mounted(mixllm) -> None:
    run = mixllm("benchmark", "--help")
    assert run.returncode == 0
    assert "offline" in run.stdout


def test_an_unknown_command_is_told_by_its_name(mixllm) -> None:
    run = mixllm("dmo")
    assert run.returncode == 2
    assert "dmo" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["demo", "--willingness-to-pay", "-3"], "willingness_to_pay"),
        (["demo", "--willingness-to-pay", "nan"], "nan"),
        (["demo", "--model", "openai:gpt-6-luna"], "--live"),
        (["demo", "--live", "--model", "acme:rocket"], "'acme:rocket'"),
        (["demo", "--live", "--model", "openai:"], "provider:name"),
        (["demo", "--live", "--model", "openai:x"], "OPENAI_API_KEY is not set"),
    ],
)
def test_an_expected_error_is_one_line_with_its_remedy(mixllm, arguments, told) -> None:
    run = mixllm(*arguments)
    assert run.returncode == 2
    lines = run.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert told in lines[0]
    assert "Traceback" not in run.stdout + run.stderr


def test_an_unexpected_error_is_not_hidden(monkeypatch) -> None:
    monkeypatch.setattr("mixllm_integrations.cli.app", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main()


def test_a_file_that_cannot_be_used_is_one_line(monkeypatch, capsys) -> None:
    def fail() -> None:
        raise PermissionError(13, "Permission denied", "/etc/report.html")

    monkeypatch.setattr("mixllm_integrations.cli.app", fail)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    told = "error: /etc/report.html: Permission denied; pass another path\n"
    assert capsys.readouterr().err == told


def test_another_failure_of_the_system_is_not_hidden(monkeypatch) -> None:
    def fail() -> None:
        raise ConnectionResetError(104, "reset")

    monkeypatch.setattr("mixllm_integrations.cli.app", fail)
    with pytest.raises(ConnectionResetError):
        main()


def test_help_of_the_demo_has_examples(mixllm) -> None:
    shown = mixllm("demo", "--help").stdout
    assert "mixllm demo -w 0.001 -n 5" in shown
    assert "Exit codes: 0" in shown


@pytest.mark.parametrize(
    "command", ["collect", "fit", "evaluate", "calibrate", "report", "inspect"]
)
def test_options_are_called_alike_in_all_commands(mixllm, command) -> None:
    shown = mixllm(command, "--help", COLUMNS="120").stdout
    short = {"--output": "-o", "--candidates": "-c", "--router": "-r", "--help": "-h"}
    lines = [re.split(r"[ ,]+", line.strip(" │*")) for line in shown.splitlines()]
    options = {words[0]: words for words in lines if words[0].startswith("--")}
    assert {"--json", "--skip-bad-rows", "--help"} <= options.keys()
    for name in short.keys() & options.keys():
        assert short[name] in options[name], name
    assert len(short.keys() & options.keys()) >= 2


@pytest.mark.parametrize("command", [(), ("demo",), ("fit",), ("benchmark", "offline")])
def test_flags_do_not_look_as_if_they_took_a_value(mixllm, command) -> None:
    shown = mixllm(*command, "--help", COLUMNS="120").stdout
    assert "--help" in shown
    assert "<bool>" not in shown


def test_an_error_is_red_on_a_terminal(monkeypatch, capsys) -> None:
    def fail() -> None:
        raise ConfigurationError("price of [bold]x[/bold] is unknown: pass it")

    monkeypatch.setattr("mixllm_integrations.cli.app", fail)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with pytest.raises(SystemExit) as left:
        main()
    told = capsys.readouterr().err
    assert left.value.code == 2
    assert told.startswith("\x1b[31merror: price of [bold]x[/bold] is unknown")


def test_output_without_a_terminal_has_no_escape_codes(mixllm) -> None:
    run = mixllm("demo", "--prompts", "2")
    assert run.returncode == 0
    assert not ESCAPE.search(run.stdout)


def test_a_narrow_character_set_does_not_stop_the_demo(mixllm_process) -> None:
    run = mixllm_process("demo", PYTHONIOENCODING="ascii")
    assert run.returncode == 0, run.stderr
    assert "?????" in run.stdout  # the Chinese and the Japanese prompt


def test_the_app_can_be_run_by_its_commands() -> None:
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, ["demo", "--json", "--prompts", "1"])
    assert result.exit_code == 0
    assert json.loads(result.output)["totals"]["prompts"] == 1
