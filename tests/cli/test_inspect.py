"""`mixllm inspect`: what a log says, on the screen and in a file."""

import io
import json
import re
from datetime import UTC, datetime
from types import MappingProxyType

import pytest

from mixllm_integrations.cli.inspect import moment
from mixllm_integrations.cli.inspect_router import inspect_router
from mixllm_integrations.cli.inspect_screen import show_overview
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, Decision, Outcome, Prediction
from mixllm_integrations.plots.console import PlainConsole
from mixllm_integrations.report.overview import overview
from mixllm_integrations.report.traffic import read_traffic
from mixllm_integrations.serving.journal import Journal
from mixllm_integrations.store import open_store

NOW = datetime(2026, 7, 8, 12, tzinfo=UTC)
EXPECTED = MappingProxyType(
    {
        "small": Prediction(0.5, 100.0, 0.001),
        "large": Prediction(0.8, 100.0, 0.005),
    }
)


def write_log(url, *, propensity=0.5, n=40):
    """Both candidates in turns; of ten answers the large one fails two."""
    with open_store(url) as store:
        journal = Journal(store)
        for place in range(n):
            name = ("small", "large")[place % 2]
            decision = Decision(
                id=f"d{place}",
                candidate=name,
                scores=EXPECTED,
                willingness_to_pay=0.01,
                explored=name == "large",
                propensity=propensity,
            )
            journal.decision(decision)
            failed = place % 10 == 9
            outcome = Outcome(
                10,
                100,
                cost=1.2 * EXPECTED[name].cost,
                error="TimeoutError" if failed else None,
            )
            journal.outcome(decision.id, outcome)
            if place % 4 < 2 and not failed:
                journal.feedback(decision.id, float(place % 8 < 5), "binary", None)


@pytest.fixture
def log(tmp_path):
    url = f"sqlite:///{tmp_path}/mixllm.db"
    write_log(url)
    return url


def rows(shown):
    """First cell and the others of every line of a table."""
    found = (re.split(r"\s{2,}", line.strip()) for line in shown.splitlines())
    return {c[0]: c[1:] for c in found if len(c) > 2 and not c[0].startswith("±")}


def test_help_lists_it(mixllm):
    assert re.search(r"^\W+inspect\b", mixllm("--help").stdout, re.MULTILINE)
    assert "--what-if" in mixllm("inspect", "--help").stdout


def test_without_a_question_it_shows_what_happened(mixllm, log):
    run = mixllm("inspect", log)
    assert run.returncode == 0, run.stderr
    shown = rows(run.stdout)
    # 20 decisions each; 4 of the large one's failed, 16 of them at 0.006 USD; of
    # its 8 answers that somebody judged (1, 5, 13, ... 37) four were good.
    assert shown["large"][:4] == ["20", "50.0%", "0.800", "0.500"]
    assert shown["large"][4:] == ["0.0960", "6", "100.0%", "4"]
    assert shown["small"][4:] == ["0.0240", "1.2", "0.0%", "0"]
    assert shown["all"][0] == "40"
    assert "drift" not in run.stdout


def test_what_if_shows_the_log_and_each_target(mixllm, log):
    run = mixllm(
        "inspect", log, "--what-if", "0.005", "--what-if", "9", "--always", "large"
    )
    assert run.returncode == 0, run.stderr
    assert "36 decisions are replayed, 18 of them have feedback" in run.stdout
    assert "left out: 4 failed" in run.stdout
    shown = rows(run.stdout.split("By inverse propensity")[0])
    assert list(shown)[-4:] == ["as logged", "λ = 0.005", "λ = 9", "always large"]
    assert shown["as logged"] == ["0.778", "3.33"]
    # 16 of 36 cost 4.8 more: deviation 4.8 * sqrt(16 * 20) / 36 = 2.385, error
    # 2.385 / sqrt(35) = 0.4032; t with 35 degrees 2.0301.
    assert "± 0.818" in run.stdout
    # The cheap one cost 1.2 times what was expected: 1 + 20 * 2 * 0.2 / 36 USD per
    # 1,000. Quality 0.5 + 20 * 2 * 0.5 / 36 = 1.0556; the gain at λ = 0.005 is
    # (1.0556 - 0.2444) - (0.7778 - 0.6667). 16 decisions go elsewhere.
    told = ["1.056", "+35.7%", "1.22", "-63.3%", "+0.700", "16", "10"]
    assert shown["λ = 0.005"] == told
    assert shown["always large"][:4] == shown["λ = 9"][:4]
    assert shown["always large"][5] == "20"


def test_all_figures_can_be_written_to_a_file(mixllm, log, tmp_path):
    file = tmp_path / "new" / "figures.json"
    run = mixllm("inspect", log, "--always", "large", "--json", str(file))
    assert run.returncode == 0, run.stderr
    found = json.loads(file.read_text("utf-8"))
    assert found["overview"]["total"]["decisions"] == 40
    (result,) = found["what_if"]
    assert (result["target"], result["n_decisions"]) == ("always large", 36)
    assert result["shares"] == {"small": 0.0, "large": 1.0}
    robust = result["doubly_robust"]["cost"]
    assert robust["low"] <= robust["value"] <= robust["high"]
    assert datetime.fromisoformat(found["overview"]["first"]).tzinfo is not None


def test_a_file_of_figures_without_a_question_has_the_overview_alone(
    mixllm, log, tmp_path
):
    file = tmp_path / "figures.json"
    mixllm("inspect", log, "--json", str(file))
    assert set(json.loads(file.read_text("utf-8"))) == {"overview"}


def test_a_log_without_chance_is_answered_by_the_model_and_says_so(mixllm, tmp_path):
    write_log(f"sqlite:///{tmp_path}/log.db", propensity=1.0)
    run = mixllm("inspect", f"sqlite:///{tmp_path}/log.db", "--always", "large")
    assert run.returncode == 0, run.stderr
    assert "(model only)" in run.stdout
    assert "no decision was randomised" in " ".join(run.stdout.split())


def test_the_path_of_a_sqlite_file_is_enough(mixllm, log):
    assert mixllm("inspect", log.removeprefix("sqlite:///")).returncode == 0


def test_the_window_bounds_what_is_read(mixllm, log):
    assert rows(mixllm("inspect", log, "--since", "1h").stdout)["all"][0] == "40"
    run = mixllm("inspect", log, "--until", "2020-01-01")
    assert run.returncode == 2
    assert run.stderr == "error: there is no decision in the log in this window\n"


def test_looking_for_a_log_does_not_make_one(mixllm, tmp_path):
    run = mixllm("inspect", f"sqlite:///{tmp_path}/none.db")
    assert run.returncode == 2
    assert "no such file" in run.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--since", "yesterday"], "--since must be an age such as 7d"),
        (["--until", "99999999999w"], "--until must be an age"),
        (["--since", "1h", "--until", "2h"], "before it begins"),
        (["--what-if", "0"], "willingness_to_pay must be a number in (0, inf]"),
        (["--always", "medium"], "unknown candidate 'medium'"),
    ],
)
def test_an_expected_error_is_one_line(mixllm, log, arguments, told):
    run = mixllm("inspect", log, *arguments)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: ")
    assert told in line


@pytest.mark.parametrize("url", ["mysql://host/db", "sqlite:///"])
def test_a_url_that_is_none_is_one_line(mixllm, url):
    run = mixllm("inspect", url)
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("30m", "2026-07-08T11:30:00+00:00"),
        ("1.5d", "2026-07-07T00:00:00+00:00"),
        ("2w", "2026-06-24T12:00:00+00:00"),
        ("2026-07-01", "2026-07-01T00:00:00+00:00"),
        ("2026-07-01T08:00Z", "2026-07-01T08:00:00+00:00"),
        ("2026-07-01T08:00+02:00", "2026-07-01T08:00:00+02:00"),
    ],
)
def test_a_moment_is_an_age_or_a_date(text, meant):
    assert moment(text, now=NOW, what="--since").isoformat() == meant


@pytest.mark.parametrize("text", ["", "7", "7y", "-7d", "soon", "2026-13-01"])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(ConfigurationError, match="--since must be"):
        moment(text, now=NOW, what="--since")


def narrow():
    """A terminal of the usual width, in memory."""
    return PlainConsole(file=io.StringIO(), width=80, highlight=False)


def test_what_happened_fits_the_usual_terminal(log):
    console = narrow()
    with open_store(log) as store:
        show_overview(console, overview(read_traffic(store)))
    shown = rows(console.file.getvalue())
    assert shown["large"][4:] == ["0.0960", "6", "100.0%", "4"]


def test_reasons_are_told_in_full_on_the_usual_terminal(tmp_path, monkeypatch):
    console = narrow()
    monkeypatch.setattr(f"{inspect_router.__module__}.console_of", lambda: console)
    names = ("a-model-with-a-long-name-2026-07-08", "large")
    Router([Candidate(names[0], 0.1, 0.5), Candidate(names[1], 90.0, 90.0)]).save(
        tmp_path / "router"
    )
    inspect_router("Hi.", tmp_path / "router", None, None, skip_bad_rows=False)
    shown = console.file.getvalue()
    assert f"{names[0]}  chosen: highest score" in shown
    assert re.search(r"uncertainty +waiting +score", shown)
    assert all(len(line) <= 80 for line in shown.splitlines())
