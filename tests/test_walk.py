"""The walk of a newcomer: from an empty folder to a report, all by the command.

The providers are scripted and on this machine. One model can only add; the other,
at fifty times its price, knows powers as well and writes better letters.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from mixllm_integrations.testing.wire import LoopbackServer, Reply, Usage

pytestmark = pytest.mark.network

COMMAND = "from mixllm_integrations.cli import main; main()"
KEY = "sk-walk-must-never-be-seen"
LIMIT = 2.0  # USD
LETTER = "Dear customer, thank you for your patience."

MODELS = """
[[candidates]]
name = "small"
model = "openai:small-1"
api_key_env = "WALK_KEY"
arguments = {{ base_url = "{url}" }}
input_cost_per_million_tokens = 0.1
output_cost_per_million_tokens = 0.4

[[candidates]]
name = "large"
model = "openai:large-1"
api_key_env = "WALK_KEY"
arguments = {{ base_url = "{url}" }}
input_cost_per_million_tokens = 5
output_cost_per_million_tokens = 20

[judge]
model = "openai:judge-1"
api_key_env = "WALK_KEY"
arguments = {{ base_url = "{url}" }}
input_cost_per_million_tokens = 1
output_cost_per_million_tokens = 4
"""

APP = """
import json
import sys

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from mixllm_integrations import MixLLMChatModel

model = MixLLMChatModel.from_config("candidates.toml")
prompt = ChatPromptTemplate.from_template("{question}")
chain = prompt | model | StrOutputParser()
told = []
for line in open("questions.jsonl", encoding="utf-8"):
    asked = json.loads(line)
    message = (prompt | model).invoke({"question": asked["prompt"]})
    is_right = message.text == asked["reference"]
    model.record_feedback(message, float(is_right), kind="binary", source="thumbs")
    candidate = message.response_metadata["mixllm"]["candidate"]
    told.append([asked["kind"], candidate, is_right])
told.append(["chain", "", chain.invoke({"question": "What is 40 + 2?"})])
told.append(["worth", "", model.router.willingness_to_pay])
json.dump(told, sys.stdout)
"""


def addition(n):
    return f"What is {n + 11} + {2 * n + 7}?", str(3 * n + 18)


def power(n):
    text = f"What is the remainder of {n + 3}^{n + 50} divided by {n + 101}? A number."
    return text, str(pow(n + 3, n + 50, n + 101))


def answers_of(*, is_large):
    """What a model says, by what it is asked."""

    def answer(body):
        asked = body["messages"][-1]["content"]
        numbers = [int(found) for found in re.findall(r"\d+", asked)]
        if "+" in asked:
            return str(sum(numbers))
        if "^" in asked:
            return str(pow(*numbers)) if is_large else "1"
        return LETTER if is_large else "Pay."

    return answer


def verdict(body):
    grade = 0.9 if LETTER in json.dumps(body["messages"]) else 0.2
    return Reply(json.dumps({"reasoning": "Thus.", "score": grade}))


@pytest.fixture(scope="module")
def server():
    with LoopbackServer() as running:
        usage = Usage(40, 20)
        running.model("small-1", answers=answers_of(is_large=False), usage=usage)
        running.model("large-1", answers=answers_of(is_large=True), usage=usage)
        running.model("judge-1", answers=verdict, usage=Usage(300, 20))
        yield running


# A process that reaches for another machine is refused, and leaves its name.
GUARD = """
import pathlib
import socket

def only_here(host):
    if host not in ("127.0.0.1", "::1", "localhost"):
        attempts = pathlib.Path(__file__).with_name("attempts")
        with attempts.open("a") as opened:
            opened.write(f"{host}\\n")
        raise OSError("no other machine is to be reached")

class Guarded(socket.socket):
    def connect(self, address):
        if isinstance(address, tuple):
            only_here(address[0])
        return super().connect(address)

    def connect_ex(self, address):
        if isinstance(address, tuple):
            only_here(address[0])
        return super().connect_ex(address)

_named = socket.getaddrinfo

def getaddrinfo(host, *args, **options):
    if host is not None:
        only_here(host)
    return _named(host, *args, **options)

socket.socket = Guarded
socket.getaddrinfo = getaddrinfo
"""


@pytest.fixture(scope="module")
def walked(server, tmp_path_factory, project_root):
    """All of the walk, once: what each step printed, and the folder it left."""
    folder, guard = tmp_path_factory.mktemp("walk"), tmp_path_factory.mktemp("guard")
    (guard / "sitecustomize.py").write_text(GUARD)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LANG", "OPENAI", "ANTHROPIC"))
        and not name.upper().endswith("_PROXY")
        and name not in {"FORCE_COLOR", "COLUMNS", "PYTHONWARNINGS"}
    }
    environment = {
        **inherited,
        "PYTHONPATH": os.pathsep.join([str(guard), str(project_root)]),
        "PYTHONIOENCODING": "utf-8",
        "WALK_KEY": KEY,
    }

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def mixllm(*arguments):
        return run("-c", COMMAND, *arguments)

    def written(name, rows):
        lines = "\n".join(map(json.dumps, rows)) + "\n"
        (folder / name).write_text(lines, encoding="utf-8")

    def at_once(**commands):
        """Run commands that do not touch each other's files, two at a time."""
        with ThreadPoolExecutor(2) as pool:
            runs = {name: pool.submit(mixllm, *c) for name, c in commands.items()}
        for name, started in runs.items():
            setattr(steps, name, started.result())

    steps = SimpleNamespace(folder=folder, attempts=guard / "attempts")
    call = "import socket; socket.create_connection(('192.0.2.1', 9))"
    refused = subprocess.run(
        [sys.executable, "-c", call], env=environment, capture_output=True, check=False
    )
    assert b"no other machine" in refused.stderr  # the guard is in force
    assert steps.attempts.read_text() == "192.0.2.1\n"
    steps.attempts.unlink()

    both = [make(n) for n in range(26) for make in (addition, power)]
    rows = [{"prompt": text, "reference": answer} for text, answer in both]
    rows += [{"prompt": f"Write to {who}, who is late."} for who in "ABCDEFGH"]
    written("prompts.jsonl", rows)
    file = folder / "candidates.toml"
    file.write_text(MODELS.format(url=server.openai_url), encoding="utf-8")

    collect = ("collect", "prompts.jsonl", "-c", "candidates.toml")
    collect += ("--max-cost", str(LIMIT))
    at_once(demo=("demo", "--json"), collected=(*collect, "--yes", "--json"))
    steps.asked = Counter(request.model for request in server.requests)

    records = "records.jsonl"
    at_once(
        fitted=("fit", records, "-o", "router", "-c", "candidates.toml", "--json"),
        again=(*collect, "--yes", "--json"),
    )
    steps.asked_again = len(server.requests) - steps.asked.total()
    target = ("--quality-target", "0.97", "--apply", "--json")
    steps.calibrated = mixllm("calibrate", records, "-r", "router", *target)

    with file.open("a", encoding="utf-8") as opened:
        opened.write('[router]\nstate = "router"\n')
        opened.write('[serving]\nstore = "sqlite:///mixllm.db"\n')
    kinds = {"addition": addition, "power": power}
    questions = [
        (kind, *make(n)) for n in range(30, 45) for kind, make in kinds.items()
    ]
    names = ("kind", "prompt", "reference")
    written("questions.jsonl", [dict(zip(names, q, strict=True)) for q in questions])
    (folder / "app.py").write_text(APP, encoding="utf-8")
    steps.app = run("app.py")

    hard = power(50)[0]
    router, log = ("-r", "router"), "sqlite:///mixllm.db"
    at_once(
        learned=("fit", log, *router, "-o", "router2", "--json"),
        evaluated=("evaluate", records, *router, "--json"),
        explained=("inspect", hard, *router),
        strengths=("inspect", "--candidate", "small", *router, "--json", "-"),
        log=("inspect", log, "--json", "-"),
        reported=("report", log, "-o", "report.html"),
    )
    return steps


def told(done):
    """The one JSON object on standard output, of a step that went well."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_demo_needs_nothing(walked):
    totals = told(walked.demo)["totals"]
    assert totals["prompts"] == 42
    assert totals["cost"] < totals["strongest_cost"]
    assert walked.demo.stderr == ""


def test_every_prompt_has_a_record_of_every_candidate(walked):
    found = told(walked.collected)
    lines = (walked.folder / "records.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    asked = (walked.folder / "prompts.jsonl").read_text("utf-8").splitlines()
    prompts = {json.loads(line)["prompt"] for line in asked}
    pairs = {(row["query"], row["candidate"]) for row in rows}
    assert pairs == {(p, c) for p in prompts for c in ("small", "large")}
    assert found["records"] == found["written"] == len(rows) == 120
    assert found["failures"] == []
    # 26 sums are right; 8 letters have 0.2 and 0.9: (26 + 1.6) / 60, (52 + 7.2) / 60.
    qualities = {name: c["quality"] for name, c in found["candidates"].items()}
    assert qualities == pytest.approx({"small": 0.46, "large": 59.2 / 60})


def test_what_was_spent_is_what_was_asked_for_and_within_the_limit(walked):
    found = told(walked.collected)
    assert walked.asked == {"small-1": 60, "large-1": 60, "judge-1": 16}
    # 40 tokens read and 20 written each; a verdict 300 and 20.
    spent = 60 * (12e-6 + 600e-6) + 16 * 380e-6
    assert found["spent_in_all_usd"] == pytest.approx(spent)
    assert spent < LIMIT


def test_what_there_is_is_not_paid_for_twice(walked):
    found = told(walked.again)
    assert found["written"] == 0
    assert found["spent_usd"] == 0
    assert walked.asked_again == 0


def test_the_router_is_fitted_on_the_records_at_the_prices_of_the_file(walked):
    found = told(walked.fitted)
    assert (found["records"], found["queries"]) == (120, 60)
    assert found["prices_estimated"] is False
    prices = {
        c["name"]: (
            c["input_cost_per_million_tokens"],
            c["output_cost_per_million_tokens"],
        )
        for c in found["candidates"]
    }
    assert prices == {"small": (0.1, 0.4), "large": (5.0, 20.0)}


def test_the_router_is_judged_beside_each_candidate(walked):
    found = told(walked.evaluated)
    assert found["strongest"] == "large"
    assert {way["name"] for way in found["singles"]} == {"small", "large"}
    assert "too good" in walked.evaluated.stderr  # it was fitted on them


def test_97_percent_is_reached_for_less_and_applied(walked):
    found = told(walked.calibrated)
    assert found["target_reached"] is True
    assert found["strongest"] == "large"
    assert found["relative_quality"] >= 0.97
    assert found["relative_cost"] < 0.9
    assert found["saved"] == "router"


def test_the_app_answers_as_the_calibrated_router_says(walked):
    *answers, chain, worth = told(walked.app)
    assert worth[2] == told(walked.calibrated)["willingness_to_pay"]
    assert chain[2] == "42"
    assert {candidate for _, candidate, _ in answers} == {"small", "large"}
    by_kind = Counter((kind, candidate) for kind, candidate, _ in answers)
    assert by_kind["addition", "small"] >= 12  # of 15: cheap, and right
    assert by_kind["power", "large"] >= 12
    assert sum(is_right for _, _, is_right in answers) >= 24  # of 30
    assert walked.app.stderr == ""


def test_a_decision_and_a_candidate_are_explained(walked):
    assert walked.explained.returncode == 0, walked.explained.stderr
    assert walked.explained.stdout.startswith("goes to large;")
    assert told(walked.strengths)["candidate"] == "small"


def test_decisions_and_feedback_are_in_the_log(walked):
    *answers, _, _ = told(walked.app)
    seen = told(walked.log)["overview"]
    assert seen["total"]["decisions"] == seen["total"]["answers"] == 31
    assert seen["total"]["feedback"] == 30
    right = sum(is_right for _, _, is_right in answers)
    assert seen["total"]["reward"] == pytest.approx(right / 30)


def test_the_log_holds_no_prompt_and_no_key(walked):
    kept = (walked.folder / "mixllm.db").read_bytes()
    assert b"remainder" not in kept
    assert b"What is" not in kept
    files = [file for file in walked.folder.rglob("*") if file.is_file()]
    assert len(files) > 10
    assert all(KEY.encode() not in file.read_bytes() for file in files)


def test_the_feedback_of_the_log_is_learned(walked):
    found = told(walked.learned)
    # A decision, an outcome and, but for the chain's, feedback.
    assert found["events"] >= 31 + 31 + 30
    assert found["refitted"] is True
    assert found["router"] == "router2"
    worth = told(walked.calibrated)["willingness_to_pay"]
    assert found["willingness_to_pay"] == worth
    assert (walked.folder / "router2" / "manifest.json").is_file()


def test_the_report_names_both_candidates_and_what_was_saved(walked):
    assert walked.reported.returncode == 0, walked.reported.stderr
    finding, wrote = walked.reported.stdout.splitlines()
    found = re.fullmatch(
        r"31 decisions cost 0\.\d+ USD, by the router's own predictions (\d+)% less "
        "than always asking large",
        finding,
    )
    assert found
    assert 20 < int(found[1]) < 100
    assert wrote.startswith("wrote report.html (")
    page = (walked.folder / "report.html").read_text("utf-8")
    shown = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert f"saved {found[1]}%" in shown
    for name in ("small", "large"):
        assert re.search(rf"\b{name} 1\d \d+\.\d%", shown), name  # answers, share


def test_only_what_is_meant_to_be_said_is_said_on_standard_error(walked):
    quiet = ("fitted", "calibrated", "explained", "strengths", "log", "learned")
    for name in ("demo", *quiet, "reported"):
        assert getattr(walked, name).stderr == "", name
    for name in ("collected", "again"):
        head = getattr(walked, name).stderr.splitlines()[0]
        assert re.fullmatch(r"\d+ of 60 prompts are to be asked", head), name
    (note,) = walked.evaluated.stderr.splitlines()
    assert note.startswith("note: the router was fitted on 60 of these 60 queries")


def test_no_step_reached_for_another_machine(walked):
    assert not walked.attempts.exists(), walked.attempts.read_text()


def test_no_step_shows_the_key_or_a_control_character(walked):
    for name, step in vars(walked).items():
        if isinstance(step, subprocess.CompletedProcess):
            shown = step.stdout + step.stderr
            assert KEY not in shown, name
            assert not re.search(r"[\x00-\x08\x0b-\x1f]", shown), name
