"""The standard suites run by themselves, and their outcomes are compared."""

import io
import json
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from mixllm_integrations import ConfigurationError, MixLLMError
from mixllm_integrations.benchmark import conformance, conformance_probe
from mixllm_integrations.benchmark.call_figures import BARE, RIVAL
from mixllm_integrations.benchmark.commands import app
from mixllm_integrations.benchmark.conformance import (
    OURS,
    Conformance,
    Standing,
    compare_outcomes,
    print_conformance,
    run_conformance,
)


def ended(who, test, outcome, suite="unit", reason=""):
    return {
        "who": who,
        "suite": suite,
        "test": test,
        "outcome": outcome,
        "reason": reason,
    }


def test_outcomes_of_both_suites_are_counted_the_bare_model_first():
    standings, _ = compare_outcomes(
        [
            ended(OURS, "test_init", "passed"),
            ended(OURS, "test_init", "failed", "integration"),
            ended(BARE, "test_init", "passed"),
            ended(BARE, "test_init", "skipped", "integration"),
            ended(BARE, "test_stream", "passed", "integration"),
        ]
    )
    assert standings == (Standing(BARE, 2, 1, 0), Standing(OURS, 1, 0, 1))


def test_only_what_the_bare_model_passes_can_be_lacking():
    _, lacking = compare_outcomes(
        [
            ended(BARE, "test_a", "passed"),
            ended(BARE, "test_b", "failed"),
            ended(BARE, "test_c", "skipped"),
            ended(OURS, "test_a", "passed"),
            ended(OURS, "test_b", "failed"),
            ended(OURS, "test_c", "failed"),
        ]
    )
    assert lacking == ()


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
def test_what_is_lacking_is_named_with_its_reason(outcome):
    (bare, other) = (
        ended(BARE, "test_a", "passed"),
        ended(RIVAL, "test_a", outcome, reason="No."),
    )
    _, (lacking,) = compare_outcomes([bare, other])
    assert (lacking.who, lacking.suite, lacking.test) == (RIVAL, "unit", "test_a")
    assert (lacking.outcome, lacking.reason) == (outcome, "No.")


def test_a_test_that_did_not_run_is_lacking():
    both = [ended(BARE, "test_a", "passed"), ended(OURS, "test_b", "passed")]
    _, (lacking,) = compare_outcomes(both)
    assert (lacking.test, lacking.outcome) == ("test_a", "did not run")


def test_a_test_whose_end_fails_has_failed():
    twice = [ended(BARE, "test_a", outcome) for outcome in ("passed", "failed")]
    standings, _ = compare_outcomes(twice)
    assert standings == (Standing(BARE, 0, 0, 1),)


@pytest.mark.parametrize("name", ["pytest", "langchain_tests"])
def test_what_is_not_installed_is_named_with_the_remedy(name, monkeypatch):
    monkeypatch.setattr(
        conformance, "find_spec", lambda module: None if module == name else object()
    )
    package = name.replace("_", "-")
    with pytest.raises(ConfigurationError, match=rf"need {package}: .*\[test\]"):
        run_conformance()


def test_a_run_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(conformance, "_PROBE", "mixllm_integrations.nowhere")
    with pytest.raises(MixLLMError, match=r"No module named mixllm_integrations\.nowh"):
        run_conformance()


def noted(when, outcome, longrepr=None):
    """What the plugin notes of one report."""
    plugin = conformance_probe.Outcomes()
    kind = SimpleNamespace(who=OURS, suite="unit")
    report = pytest.TestReport("::X::test_a", ("", 0, ""), {}, outcome, longrepr, when)
    making = plugin.pytest_runtest_makereport(
        SimpleNamespace(cls=kind, name="test_a[x]")
    )
    next(making)
    with pytest.raises(StopIteration) as made:
        making.send(report)
    assert made.value.value is report
    return plugin.found


def test_a_test_is_noted_once_if_all_goes_well():
    assert noted("setup", "passed") == []
    assert noted("teardown", "passed") == []
    assert noted("call", "passed") == [ended(OURS, "test_a[x]", "passed")]


def test_a_reason_to_skip_is_noted_without_its_place():
    told = ("/somewhere/x.py", 7, "Skipped: VCR not set up.")
    (found,) = noted("setup", "skipped", told)
    assert found == ended(OURS, "test_a[x]", "skipped", reason="VCR not set up.")


@pytest.mark.parametrize("when", ["setup", "call", "teardown"])
def test_the_first_line_of_a_failure_is_noted(when):
    crash = SimpleNamespace(reprcrash=SimpleNamespace(message="ValueError: x\nand y"))
    (found,) = noted(when, "failed", crash)
    assert found == ended(OURS, "test_a[x]", "failed", reason="ValueError: x")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    file = tmp_path_factory.mktemp("out") / "conformance.json"
    with pytest.MonkeyPatch.context() as patched:
        # What configures this run must not reach that one.
        patched.setenv("PYTEST_ADDOPTS", "--no-such-option")
        arguments = ["conformance", "--json", str(file)]
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert f"{OURS} " in done.output
    return json.loads(file.read_text("utf-8"))


def test_the_routed_model_passes_whatever_the_bare_one_passes(found):
    lacking = [entry for entry in found["shortfalls"] if entry["who"] == OURS]
    assert lacking == []
    bare, ours, _ = found["standings"]
    assert (bare["who"], ours["who"]) == (BARE, OURS)
    assert bare["passed"] >= 57
    assert bare["failed"] == ours["failed"] == 0
    assert bare["skipped"] == ours["skipped"] == 3


def test_the_rival_fails_the_two_tests_of_streams_of_events(found):
    assert found["versions"]["langchain-model-router"] == "0.1.0"
    assert found["versions"]["langchain-tests"] == "1.1.9"
    rivals = [entry for entry in found["shortfalls"] if entry["who"] == RIVAL]
    assert {entry["test"] for entry in rivals} == {
        "test_stream_events_v3",
        "test_astream_events_v3",
    }
    assert all("does not support" in entry["reason"] for entry in rivals)


def shown(*outcomes):
    versions = dict.fromkeys(conformance._COMPARED, "7.0")
    out = io.StringIO()
    print_conformance(
        Conformance("", versions, *compare_outcomes(outcomes)),
        Console(file=out, width=80),
    )
    return out.getvalue()


def test_what_is_lacking_is_shown():
    text = shown(
        ended(BARE, "test_a[x]", "passed"), ended(RIVAL, "test_a[x]", "failed")
    )
    assert f"{RIVAL} failed test_a[x] (unit)" in text
    assert "langchain-tests 7.0" in text
    assert "All pass" not in text


def test_that_nothing_is_lacking_is_said():
    text = shown(ended(BARE, "test_a", "passed"))
    assert f"All pass what the {BARE} passes." in text
