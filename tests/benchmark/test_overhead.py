"""The measurements of speed and memory run and hold together."""

import io
import json

import pytest
from rich.console import Console

from mixllm_integrations import Candidate, MixLLMError, Router
from mixllm_integrations.benchmark import overhead, serving_probe
from mixllm_integrations.benchmark.overhead import (
    Timing,
    measure_overhead,
    print_overhead,
)
from mixllm_integrations.testing import ScriptedChatModel


def test_percentiles_are_those_of_the_sample():
    found = Timing.of([i / 100 for i in range(101)])
    assert (found.p50, found.p99, found.n) == (0.5, 0.99, 101)
    assert found.mean == pytest.approx(0.5)


def test_a_measured_process_that_fails_says_why():
    with pytest.raises(MixLLMError, match=r"failed: ModuleNotFoundError: .*'nowhere'"):
        overhead.run_python("-c", "import nowhere")


def test_each_prompt_is_timed_once_after_the_warm_up():
    router = Router([Candidate("small", 0.1, 0.4), Candidate("large", 5.0, 15.0)])
    assert len(serving_probe.route_seconds(router, ["a", "b"])) == 2
    model = ScriptedChatModel(answers=["ok"])
    seconds = serving_probe.invoke_seconds({"x": model}, ["a", "b"])
    assert len(seconds["x"]) == 2
    assert min(seconds["x"]) > 0
    assert len(model.calls) == 32  # thirty to warm up


@pytest.fixture(scope="module")
def found(world):
    steps = []
    measured = measure_overhead(
        world, n_calls=12, n_imports=1, command="a test", on_step=steps.append
    )
    assert len(steps) == 3
    return measured


def test_everything_is_measured(found):
    assert (found.n_routed, found.n_fitted, found.n_fit_queries) == (3, 3, 144)
    assert found.route.n == 12
    assert set(found.invoke) == {
        *("bare model", "MixLLMChatModel", "langchain-model-router"),
    }
    assert set(found.added_p50) == set(found.invoke) - {"bare model"}
    assert found.added_p50["MixLLMChatModel"] > 0
    assert found.resident_bytes is None or found.resident_bytes > 2**24
    assert json.loads(json.dumps(found.to_json()))["command"] == "a test"


def test_everything_is_shown(found):
    out = io.StringIO()
    print_overhead(found, Console(file=out, width=80))
    for shown in (
        "Router.route",
        "memory",
        "langchain-model-router",
        "adds",
        "144 x 3",
    ):
        assert shown in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80


def test_importing_loads_no_framework_and_serving_no_training_module(found):
    assert found.imported == ()
    assert found.served_with == ()
