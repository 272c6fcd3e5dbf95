import io
import json

import pytest
from rich.console import Console

from mixllm_integrations.benchmark.calibration import (
    CalibrationRun,
    print_calibration,
    run_calibration,
)
from mixllm_integrations.core.errors import ConfigurationError


@pytest.fixture(scope="module")
def result(world):
    return run_calibration([world], seeds=(0, 1), predictor="ridge", command="cmd")


def run(**changes):
    given = {
        "data": "d",
        "seed": 0,
        "kind": "quality",
        "target": 0.97,
        "expected": 0.97,
        "low": 0.94,
        "high": 1.0,
        "reached": 0.98,
        "reached_low": 0.94,
        "reached_high": 1.02,
        "other": 0.2,
        "willingness_to_pay": 0.01,
    }
    return CalibrationRun(**(given | changes))


def test_there_is_a_run_per_target_and_split(result):
    kinds = [(r.seed, r.kind, r.target) for r in result.runs]
    assert kinds == [
        (0, "quality", 0.97),
        (0, "cost", 0.25),
        (1, "quality", 0.97),
        (1, "cost", 0.25),
    ]


def test_what_is_expected_and_reached_lies_in_its_interval(result):
    for r in result.runs:
        assert r.low <= r.expected <= r.high
        assert r.reached_low <= r.reached <= r.reached_high


def test_a_promise_of_cost_is_kept_within_the_noise_of_the_samples(result):
    assert all(r.is_as_expected for r in result.runs if r.kind == "cost")


def test_both_samples_widen_what_counts_as_expected():
    # Half widths 0.03 and 0.04: together 0.05.
    assert run(reached=1.0199).is_as_expected
    assert not run(reached=1.0201).is_as_expected


def test_a_miss_is_signed():
    assert run(reached=0.95).miss == pytest.approx(-0.02)


def test_json_holds_every_run_and_how_to_repeat_it(result):
    written = json.loads(json.dumps(result.to_json()))
    assert written["command"] == "cmd"
    assert len(written["runs"]) == 4
    assert "numpy" in written["versions"]


def test_the_table_names_data_and_targets(result):
    out = io.StringIO()
    print_calibration(result, Console(file=out, width=120))
    assert "quality 97.0%" in out.getvalue()
    assert "cost 25.0%" in out.getvalue()
    assert result.runs[0].data in out.getvalue()


@pytest.mark.parametrize("seeds", [(), None])
def test_without_data_or_seeds_there_is_nothing_to_measure(world, seeds):
    tables = [world] if seeds == () else []
    with pytest.raises(ConfigurationError, match="at least one"):
        run_calibration(tables, seeds=seeds or ())
