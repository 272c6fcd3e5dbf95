"""What routing adds in LlamaIndex is measured, and tokens are compared."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from mixllm_integrations import ConfigurationError
from mixllm_integrations.benchmark import llama_calls
from mixllm_integrations.benchmark.call_figures import BARE, FITTED, PRIORS
from mixllm_integrations.benchmark.commands import app
from mixllm_integrations.benchmark.llama_calls import (
    COUNTED,
    MODES,
    measure_llama_index,
    print_llama_index,
)


@pytest.fixture(scope="module")
def found(world):
    steps = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(llama_calls, "_THINKS_SECONDS", 0.01)
        measured = measure_llama_index(
            world, n_calls=11, n_at_once=20, command="a test", on_step=steps.append
        )
    assert len(steps) == 4
    return measured


def test_each_mode_is_timed_for_everybody(found):
    assert tuple(found.calls) == MODES
    for figures in found.calls.values():
        assert list(figures.seconds) == [BARE, PRIORS, FITTED]
        assert {timing.n for timing in figures.seconds.values()} == {11}
        assert figures.seconds[BARE].p50 > 0


def test_calls_at_once_are_all_answered_and_none_stays_under_way(found):
    once = found.at_once
    assert (once.n, once.answered, once.under_way) == (20, 20, 0)
    assert once.seconds[FITTED] >= 0.01


def test_tokens_are_counted_once_in_every_mode(found):
    assert tuple(found.tokens) == COUNTED
    assert set(map(tuple, (c[PRIORS] for c in found.tokens.values()))) == {(1, 10, 3)}
    assert found.counts_agree
    wrong = {**found.tokens, "chat": {BARE: (1, 10, 3), PRIORS: (2, 20, 6)}}
    assert not replace(found, tokens=wrong).counts_agree


def test_it_is_written_and_shown(found):
    written = json.loads(json.dumps(found.to_json()))
    assert (written["command"], written["counts_agree"]) == ("a test", True)
    text = io.StringIO()
    print_llama_index(found, Console(file=text, width=200))
    assert "20 answered; 0 still under way" in text.getvalue()
    assert "token counts equal in 22 of 22 modes" in text.getvalue()


def test_the_command_writes_json(world, tmp_path, monkeypatch):
    monkeypatch.setattr(llama_calls, "_THINKS_SECONDS", 0.0)
    file = tmp_path / "world.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for number, record in enumerate(world.records()):
            row = {name: getattr(record, name) for name in record.__slots__}
            lines.write(json.dumps(row | {"query_id": number // 3}) + "\n")
    out = tmp_path / "out.json"
    arguments = ["--data", file, "--pool", "small,large", "--calls", 10]
    arguments += ["--at-once", 2, "--json", out]
    done = CliRunner().invoke(app, ["llama-index", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text("utf-8"))["n_candidates"] == 2


def test_without_data_it_says_what_is_missing():
    with pytest.raises(ConfigurationError, match="--data"):
        CliRunner().invoke(app, ["llama-index"], catch_exceptions=False)
