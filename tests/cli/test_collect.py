"""`mixllm collect` as a user types it, over real clients to this machine."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from mixllm_integrations.benchmark.datasets import load_records
from mixllm_integrations.testing.wire import LoopbackServer, Reply, Usage

pytestmark = pytest.mark.network

COMMAND = "from mixllm_integrations.cli import main; main()"
KEY = "sk-this-must-never-be-seen"
FILE = """
[[candidates]]
model = "openai:small"
input_cost_per_million_tokens = 1
output_cost_per_million_tokens = 10
api_key_env = "MY_KEY"
arguments.base_url = "{url}"

[[candidates]]
model = "openai:gpt-large"
name = "large"
input_cost_per_million_tokens = 4
output_cost_per_million_tokens = 40
api_key_env = "MY_KEY"
arguments.base_url = "{url}"

[judge]
model = "openai:judge"
input_cost_per_million_tokens = 1
output_cost_per_million_tokens = 1
api_key_env = "MY_KEY"
arguments.base_url = "{url}"
"""


def asked(body):
    return body["messages"][-1]["content"]


@pytest.fixture(scope="module")
def shared_server():
    with LoopbackServer() as running:
        yield running


@pytest.fixture
def server(shared_server):
    shared_server.reset()
    usage = Usage(100, 10)
    shared_server.model("small", answers=["2"], usage=usage)
    shared_server.model("gpt-large", answers=lambda b: asked(b)[0], usage=usage)
    verdict = Reply(json.dumps({"reasoning": "Thus.", "score": 0.5}))
    shared_server.model("judge", answers=[verdict], usage=usage)
    return shared_server


@pytest.fixture
def folder(server, tmp_path, monkeypatch):
    """A folder with prompts and a file of candidates, entered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    text = FILE.format(url=server.openai_url)
    (tmp_path / "candidates.toml").write_text(text, encoding="utf-8")
    rows = [{"prompt": f"{n} times 1?", "reference": str(n)} for n in range(10)]
    (tmp_path / "prompts.jsonl").write_text(
        "\n".join(map(json.dumps, rows)), encoding="utf-8"
    )
    return tmp_path


ARGUMENTS = ("collect", "prompts.jsonl", "-c", "candidates.toml", "--yes")


def test_prompts_become_records(mixllm, folder, server):
    done = mixllm(*ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert "20 records written to records.jsonl" in done.stdout
    assert "small" in done.stdout
    assert "together about" in done.stderr
    records = load_records("records.jsonl").records
    # `small` always says 2, which is right once.
    assert Counter((r.candidate, r.quality) for r in records) == {
        ("small", 0.0): 9,
        ("small", 1.0): 1,
        ("large", 1.0): 10,
    }
    assert {r.cost for r in records} == {200e-6, 800e-6}
    assert KEY not in done.stdout + done.stderr
    assert "\r" not in done.stderr  # no bar where nobody watches


def test_a_summary_may_be_json(mixllm, folder):
    done = mixllm(*ARGUMENTS, "--json", "--out", "deep/r.jsonl", "--sample", "3")
    told = json.loads(done.stdout)
    assert (done.returncode, told["written"], told["failures"]) == (0, 6, [])
    assert told["spent_usd"] == pytest.approx(3 * (200e-6 + 800e-6))
    assert (folder / "deep" / "r.jsonl.work").is_file()


def test_nothing_is_spent_unless_somebody_says_yes(mixllm, folder, server):
    done = mixllm(*ARGUMENTS[:-1])
    assert done.returncode == 2
    assert "--yes" in done.stderr
    told = json.loads(mixllm(*ARGUMENTS[:-1], "--estimate", "--json").stdout)
    assert told["answers"] == {"small": 10, "large": 10}
    assert told["cost_usd"] > 0
    assert server.requests == []
    shown = mixllm(*ARGUMENTS[:-1], "--estimate", "--max-cost", "1")
    assert (shown.returncode, "limit: 1.0000 USD" in shown.stderr) == (0, True)


def test_on_a_terminal_it_asks(mixllm, folder, server, monkeypatch):
    class Terminal:
        def isatty(self):
            return True

        def readline(self):
            return "n\n"

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("typer.confirm", refuse := Recorder())
    done = mixllm(*ARGUMENTS[:-1])
    assert refuse.asked == ["Begin?"]
    assert (done.returncode, len(server.requests)) == (0, 20)


class Recorder:
    def __init__(self):
        self.asked = []

    def __call__(self, text, **settings):
        assert settings == {"abort": True, "err": True}
        self.asked.append(text)
        return True


def test_what_fails_is_listed_with_an_exit_code_of_its_own(mixllm, folder, server):
    server.model("gpt-large").fail_with(400, times=1)
    done = mixllm(*ARGUMENTS, "--concurrency", "1")
    assert done.returncode == 3
    assert "missing records: 1;" in done.stderr
    assert re.search(r"large: \w+Error \(400\) \(prompt \d+\)\n", done.stderr)
    assert "times 1" not in done.stderr
    again = mixllm(*ARGUMENTS, "--json")
    assert (again.returncode, json.loads(again.stdout)["written"]) == (0, 1)
    assert len(server.requests_to("gpt-large")) == 11


def test_a_grade_that_cannot_be_read_is_told_in_words(
    mixllm, folder, server, monkeypatch
):
    asking = "mixllm_integrations.training.labelling.asking"
    monkeypatch.setattr(f"{asking}._LONGEST_WAIT_SECONDS", 0.01)
    server.model("judge", answers=[Reply("Well done.")])
    rows = [{"prompt": "1?", "reference": "1"}, {"prompt": "Write to Ann."}]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    estimate = mixllm(*ARGUMENTS[:-1], "--estimate")
    assert "judge: 2 verdicts" in estimate.stderr
    assert "if answers have 300 tokens; none is known" in estimate.stderr
    done = mixllm(*ARGUMENTS)
    assert done.returncode == 3
    told = "the judge gave no grade that can be read (prompt 2)"
    assert f"  small: {told}\n" in done.stderr
    assert "Write to Ann" not in done.stderr


def test_a_prompt_without_a_reference_is_named_by_its_place_in_the_file(mixllm, folder):
    file = folder / "candidates.toml"
    file.write_text(file.read_text().partition("[judge]")[0])
    rows = [{"prompt": f"{n}?", "reference": "1"} for n in range(9)]
    (folder / "prompts.jsonl").write_text(
        "\n".join(map(json.dumps, [*rows, {"prompt": "Write."}, *rows]))
    )
    done = mixllm(*ARGUMENTS)
    assert done.returncode == 2
    assert "prompt 10 has no reference" in done.stderr
    assert "a table [judge] in the file" in done.stderr


def test_help_shows_the_files_that_are_needed(mixllm):
    shown = mixllm("collect", "--help").stdout
    assert '{"prompt": "What is 17 * 23?", "reference": "391"}' in shown
    assert "[[candidates]]" in shown
    assert "[judge]" in shown
    assert "\\" not in shown
    assert "Exit codes: 0" in shown


def test_long_lists_of_failures_are_cut(mixllm, folder, server):
    for name in ("small", "gpt-large"):
        server.model(name).fail_with(400, times=None)
    rows = [{"prompt": f"{n}?", "reference": "1"} for n in range(24)]
    (folder / "prompts.jsonl").write_text(
        "\n".join(map(json.dumps, rows)), encoding="utf-8"
    )
    done = mixllm(*ARGUMENTS)
    assert done.returncode == 3
    assert "missing records: 48;" in done.stderr
    assert "and 4 more" in done.stderr


def test_the_limit_ends_it_with_an_exit_code_of_its_own(mixllm, folder, server):
    arguments = (*ARGUMENTS, "--max-cost", "0.004", "--max-output-tokens", "20")
    done = mixllm(*arguments, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 4
    assert told["limit_reached"]
    assert 0 < told["spent_in_all_usd"] <= 0.004
    assert "raise --max-cost" in done.stderr
    again = mixllm(*arguments, "--json")
    assert again.returncode == 4
    assert json.loads(again.stdout)["spent_in_all_usd"] <= 0.004


def test_the_judge_of_the_file_grades(mixllm, folder, server):
    pytest.importorskip("openevals")
    (folder / "prompts.jsonl").write_text('{"prompt": "Why?"}', encoding="utf-8")
    done = mixllm(*ARGUMENTS)
    assert (done.returncode, "2 verdicts" in done.stderr) == (0, True)
    assert [r.quality for r in load_records("records.jsonl").records] == [0.5, 0.5]
    other = mixllm(*ARGUMENTS, "-o", "b.jsonl", "--judge", "openai:judge")
    assert other.returncode == 0
    server.model("gpt-large", answers=server.model("judge").answers)
    by_name = mixllm(*ARGUMENTS, "-o", "c.jsonl", "--judge", "large")
    assert by_name.returncode == 0
    assert len(server.requests_to("judge")) == 4


def test_a_judge_outside_the_file_needs_a_known_price(mixllm, folder):
    (folder / "prompts.jsonl").write_text('{"prompt": "Why?"}', encoding="utf-8")
    done = mixllm(*ARGUMENTS, "--judge", "openai:no-such-model")
    assert (done.returncode, "no list price" in done.stderr) == (2, True)


def test_a_key_that_is_missing_is_named(mixllm, folder, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (folder / "prompts.jsonl").write_text('{"prompt": "Write."}')
    done = mixllm(*ARGUMENTS, "--judge", "openai:gpt-4o")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --judge: model cannot be made of these")
    told = "OPENAI_API_KEY is not set: set it, or name another variable by api_key_env"
    assert told in done.stderr


def test_a_row_without_a_prompt_is_told_where_it_belongs(mixllm, folder):
    (folder / "prompts.jsonl").write_text('{"text": "Write."}')
    done = mixllm(*ARGUMENTS)
    assert done.returncode == 2
    assert "line 1: there is no prompt: write it under the name prompt," in done.stderr


def test_adaptive_asks_less(mixllm, folder):
    rows = [{"prompt": f"{n} times 1?", "reference": "2"} for n in range(60)]
    (folder / "prompts.jsonl").write_text(
        "\n".join(map(json.dumps, rows)), encoding="utf-8"
    )
    done = mixllm(*ARGUMENTS, "--adaptive", "0.25")
    assert (done.returncode, "were not needed" in done.stderr) == (0, True)


def test_graded_answers_of_a_log_need_no_models(mixllm, folder):
    log = folder / "log.jsonl"
    row = {"prompt": "Why?", "model": "gpt-4o", "score": 0.5}
    log.write_text(json.dumps(row), encoding="utf-8")
    done = mixllm("collect", "log.jsonl")
    assert (done.returncode, "1 graded answers" in done.stdout) == (0, True)
    told = json.loads(mixllm("collect", "log.jsonl", "--json").stdout)
    assert (told["written"], told["records"]) == (0, 1)
    assert load_records("records.jsonl").records[0].candidate == "gpt-4o"
    bare = mixllm("collect", "prompts.jsonl")
    assert (bare.returncode, "pass --candidates" in bare.stderr) == (2, True)
    (folder / "candidates.toml").write_text(
        (folder / "candidates.toml").read_text().replace("gpt-large", "gpt-4o")
    )
    (folder / "log.jsonl").write_text(json.dumps({**row, "reference": "2"}))
    arguments = ("collect", "log.jsonl", *ARGUMENTS[2:], "--out", "b.jsonl")
    both = mixllm(*arguments)
    assert "1 graded answers were in the log" in both.stderr
    assert both.returncode == 0


def test_errors_are_one_line(mixllm, folder):
    (folder / "candidates.toml").write_text("[[candidates]]\nmodle = 'a:b'\n")
    done = mixllm(*ARGUMENTS)
    assert done.returncode == 2
    assert "candidates.toml, line 2: candidates[0].modle" in done.stderr
    assert "did you mean 'model'" in done.stderr


def test_an_interruption_says_how_to_go_on(mixllm, folder, monkeypatch):
    from mixllm_integrations.training.labelling.run import Labelling

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Labelling, "collect", interrupted)
    done = mixllm(*ARGUMENTS)
    assert (done.returncode, "the same command goes on" in done.stderr) == (130, True)


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")
def test_a_killed_run_loses_what_was_under_way_and_pays_for_nothing_twice(
    mixllm, folder, server
):
    rows = [{"prompt": f"{n} times 1?", "reference": "2"} for n in range(60)]
    (folder / "prompts.jsonl").write_text(
        "\n".join(map(json.dumps, rows)), encoding="utf-8"
    )

    def slowly(body):
        time.sleep(0.02)
        return "2"

    for name in ("small", "gpt-large"):
        server.model(name, answers=slowly)
    concurrency = 4
    arguments = (*ARGUMENTS, "--concurrency", str(concurrency))
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        server.wait_for_requests(40, timeout_seconds=120)
    finally:
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    before = Counter((r.model, asked(r.body)) for r in server.requests)
    lines = (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
    written = {(r["candidate"], r["query"]) for r in map(json.loads, lines[:-1])}
    assert 40 - concurrency <= len(written) + 1 < 120
    assert set(before.values()) == {1}

    done = mixllm(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["records"] == 120
    after = Counter((r.model, asked(r.body)) for r in server.requests)
    assert len(after) == 120
    twice = {key for key, times in after.items() if times > 1}
    assert len(twice) <= concurrency  # were under way
    names = {"small": "small", "gpt-large": "large"}
    assert not {(names[model], text) for model, text in twice} & written
    # What was under way counts at its most, so the books are never too low.
    cost = {"small": 200e-6, "gpt-large": 800e-6}
    real = sum(cost[model] * times for (model, _), times in after.items())
    assert told["spent_in_all_usd"] >= real - 1e-9
