"""No name in a file, a log or an argument can do more to a terminal than be read."""

import io
import json
import sys
import types

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mixllm_integrations.benchmark.options import say
from mixllm_integrations.cli import main
from mixllm_integrations.cli.screen import console_of
from mixllm_integrations.core.types import Decision, Outcome, Prediction
from mixllm_integrations.plots.console import PlainConsole, printable
from mixllm_integrations.serving.journal import Journal
from mixllm_integrations.store import open_store

NAMES = [
    "[red]x",
    "[/red]x",
    "[link=file:///etc]x",
    ":bomb:x",
    "\x1b[2J\x1b[31mx",
    "\x1b]0;title\x07x",
    "\x9b2Jx",
    "a\rb\b\bc",
    "\u202eevil",
    "\ud800",
    "\0",
]


def shown(console_type, name):
    out = io.StringIO()
    # Without colours, so that every escape sequence is somebody else's.
    console = console_type(file=out, color_system=None, width=100)
    table = Table()
    table.add_column("candidate")
    table.add_row(name)
    table.add_row(Text(name))
    console.print(table)
    console.print(f"the best is {name}")
    console.print(Text(name, "red"))
    return out.getvalue()


def is_harmless(text: str) -> bool:
    """Tell whether nothing is left that a terminal would obey."""
    return printable(text) == text


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name_is_shown_as_it_is_written_and_obeyed_by_nobody(name):
    text = shown(PlainConsole, name)
    assert is_harmless(text)
    # Rich leaves some control characters out of a `Text`.
    assert text.count(printable(name)) >= 2


def test_rich_alone_would_obey():
    assert "[red]" not in shown(Console, "[red]x").split("the best")[0].split("x")[0]
    assert not is_harmless(shown(Console, "\x1b[2Jx"))


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_log_with_such_candidates_can_be_inspected(
    tmp_path, monkeypatch, capsys, name
):
    url = f"sqlite:///{tmp_path}/log.db"
    with open_store(url) as store:
        journal = Journal(store)
        for place in range(6):
            scores = types.MappingProxyType({name: Prediction(0.5, 100.0, 0.001)})
            decision = Decision(
                id=f"d{place}",
                candidate=name,
                scores=scores,
                willingness_to_pay=0.01,
                explored=False,
                propensity=1.0,
            )
            journal.decision(decision)
            journal.outcome(decision.id, Outcome(10, 100, cost=0.01))
            journal.feedback(decision.id, 1.0, "binary", None)
    for arguments in ([], ["--what-if", "0.1"], ["--always", name]):
        monkeypatch.setattr(sys, "argv", ["mixllm", "inspect", url, *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code in (0, None), capsys.readouterr().err
        out = capsys.readouterr().out
        assert is_harmless(out)
    assert printable(name) in out


@pytest.mark.parametrize("name", ["[/red]x", "\x1b[2Jx", "\u202ex"])
def test_an_error_that_quotes_a_name_is_one_harmless_line(
    tmp_path, monkeypatch, capsys, name
):
    file = tmp_path / "records.jsonl"
    file.write_text(json.dumps({"query": "q", "candidate": name, "quality": 5}))
    arguments = ["benchmark", "offline", "--data", str(file), "--pool", name]
    monkeypatch.setattr(sys, "argv", ["mixllm", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    told = capsys.readouterr().err
    assert left.value.code == 2
    assert told.startswith("error: ")
    assert is_harmless(told)


def test_a_step_of_a_benchmark_is_said_harmlessly(capsys):
    say("[red]\x1b[2J")
    assert capsys.readouterr().err == "[red]\ufffd[2J …\n"


def test_the_console_of_the_demo_is_such_a_console():
    assert isinstance(console_of(io.StringIO()), PlainConsole)
