"""`mixllm report`: a file, one JSON object, or a page that keeps itself up to date."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from mixllm_integrations.cli.report import _finding, _shown
from mixllm_integrations.store.sql import SQLStore


@pytest.fixture(scope="module")
def files(small_world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    url = f"sqlite:///{folder}/log.db"
    small_world.write_log(url, n=100, folder=folder / "router")
    small_world.write_records(folder / "held_out.jsonl", small_world.held_out)
    return folder


def sections(file):
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: (
        found.append(dict(attrs)["id"]) if tag == "section" else None
    )
    parser.feed(file.read_text("utf-8"))
    return found


def test_a_page_is_written(mixllm, files, tmp_path):
    file = tmp_path / "new" / "report.html"
    run = mixllm("report", f"{files}/log.db", "-o", str(file))
    assert run.returncode == 0, run.stderr
    found, wrote = run.stdout.splitlines()
    assert re.fullmatch(
        r"100 decisions cost 0\.\d+ USD, \d+% less than always asking large", found
    )
    assert wrote.startswith(f"wrote {file} (")
    assert run.stderr == ""
    assert sections(file)[:3] == ["glance", "curve", "shares"]
    assert "domains" in sections(file)


@pytest.mark.parametrize(
    ("saved", "model_only", "told"),
    [
        (0.34, False, ", 34% less than always asking large"),
        (-0.1, False, ", 10% more than always asking large"),
        (0.5, True, ", by the router's own predictions 50% less than always asking"),
        (math.nan, False, ""),
    ],
)
def test_the_first_finding_is_told(saved, model_only, told):
    found = SimpleNamespace(
        saved=SimpleNamespace(value=saved), model_only=model_only, reference="large"
    )
    total = SimpleNamespace(decisions=1_200, cost=0.5)
    shown = _finding(found, total)
    assert shown.startswith(f"1,200 decisions cost 0.5000 USD{told}")
    assert told or shown.endswith("USD")


def test_a_curve_on_records_is_added(mixllm, files, tmp_path):
    file = tmp_path / "report.html"
    run = mixllm(
        *("report", f"sqlite:///{files}/log.db", "-o", str(file)),
        *("--records", f"{files}/held_out.jsonl", "--router", f"{files}/router"),
    )
    assert run.returncode == 0, run.stderr
    assert "recorded" in sections(file)
    assert "held_out.jsonl" in file.read_text("utf-8")


def test_figures_may_be_had_as_json(mixllm, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = mixllm("report", f"{files}/log.db", "--json", "--reference", "medium")
    found = json.loads(run.stdout)
    assert found["comparison"]["reference"] == "medium"
    assert found["domains"]
    assert list(tmp_path.iterdir()) == []


def test_a_window_without_a_decision_makes_an_empty_page(mixllm, files, tmp_path):
    file = tmp_path / "report.html"
    run = mixllm(
        *("report", f"{files}/log.db", "-o", str(file), "--until", "2020-01-01")
    )
    assert run.returncode == 0, run.stderr
    assert "there is no decision in the log" in file.read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["{}/none.db"], "no such file"),
        (["{}/log.db", "--reference", "huge"], "'huge'"),
        (["{}/log.db", "--since", "soon"], "--since must be an age"),
        (["{}/log.db", "--until", "soon", "--serve"], "--until must be an age"),
        (["{}/log.db", "--records", "{}/held_out.jsonl"], "go together"),
    ],
)
def test_an_error_is_one_line_with_its_remedy(mixllm, files, arguments, remedy):
    run = mixllm("report", *(a.format(files) for a in arguments))
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: ")
    assert remedy in line


def test_a_password_is_not_on_the_page():
    shown = _shown("postgresql+psycopg://me:secret@host/db")
    assert "secret" not in shown
    assert "host/db" in shown


@pytest.mark.network
def test_a_port_that_is_taken_is_told_with_its_remedy(mixllm, files, provider):
    port = provider.url.rsplit(":", 1)[1]
    run = mixllm("report", f"{files}/log.db", "--serve", "--port", port)
    assert run.returncode == 2
    assert f"port {port} cannot be used" in run.stderr
    assert "pass another --port" in run.stderr


def test_the_live_page_is_made_from_the_newest_events(mixllm, files, monkeypatch):
    seen = []

    def serve(page, *, port, ready):
        ready(f"http://127.0.0.1:{port}/")
        seen.append(page.current()[0].decode())

    monkeypatch.setattr("mixllm_integrations.report.live.serve", serve)
    run = mixllm("report", f"{files}/log.db", "--serve", "--port", "4711")
    assert run.returncode == 0, run.stderr
    assert run.stderr == ("the report is at http://127.0.0.1:4711/ (Ctrl-C ends it)\n")
    assert "script-src" in seen[0]


@pytest.mark.network
@pytest.mark.skipif(sys.platform == "win32", reason="there Ctrl-C is another thing")
def test_it_is_served_with_news_until_ctrl_c(small_world, files, tmp_path):
    url = f"sqlite:///{tmp_path}/log.db"
    small_world.write_log(url, n=12, folder=tmp_path / "router")
    # Whoever runs the tests in the background may have had Ctrl-C ignored.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from mixllm_integrations.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "report", url, "--serve", "--port", "0"]
    with subprocess.Popen(
        command,
        env=dict(os.environ),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            told = process.stderr.readline()
            assert "(Ctrl-C ends it)" in told
            address = told.split()[4]
            assert address.startswith("http://127.0.0.1:")
            first = read(address)
            with SQLStore(url) as store:
                drift = {"candidate": "small", "quantity": "quality", "change": 0.2}
                store.append("drift", "d", {**drift, "n_observations": 7})
            second, deadline = first, time.monotonic() + 60
            while second == first and time.monotonic() < deadline:
                time.sleep(0.05)  # a page that has just been made is left alone
                second = read(address)
        finally:
            process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
        assert process.returncode == 0
    assert rest == ""
    assert "over its last 7 answers" not in first
    assert "over its last 7 answers" in second
    assert "script-src" in second


def read(address):
    with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310
        return answer.read().decode()
