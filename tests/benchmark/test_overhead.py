"""The measurements of speed and memory run and hold together."""

import gc
import io
import json
import os
import sys
from contextlib import redirect_stdout
from importlib import import_module
from threading import Lock

import pytest
from rich.console import Console

from mixllm_integrations import Candidate, MixLLMCallbackHandler, MixLLMError, Router
from mixllm_integrations.benchmark import overhead, serving_probe
from mixllm_integrations.benchmark.call_figures import (
    BARE,
    FITTED,
    HEARD,
    PRIORS,
    RIVAL,
    BatchFigures,
    CallFigures,
    MemoryFigures,
    Timing,
)
from mixllm_integrations.benchmark.chat_probe import (
    KINDS,
    batch_seconds,
    call_seconds,
    without_tracing,
)
from mixllm_integrations.benchmark.contestants import contestants, routed, scripted
from mixllm_integrations.benchmark.memory_probe import memory_samples, remembered
from mixllm_integrations.benchmark.overhead import measure_overhead
from mixllm_integrations.benchmark.overhead_results import print_overhead
from mixllm_integrations.testing import ScriptedChatModel

CANDIDATES = [Candidate("small", 0.1, 0.4), Candidate("large", 5.0, 15.0)]


def test_percentiles_are_those_of_the_sample():
    found = Timing.of([i / 100 for i in range(101)])
    assert (found.p50, found.p99, found.n) == (0.5, 0.99, 101)
    assert found.mean == pytest.approx(0.5)


def test_what_is_added_is_the_difference_within_each_turn():
    # The machine was slow in the third turn, for all: medians of 1 and 2 either way.
    found = CallFigures.of(
        {BARE: [1, 1, 9], FITTED: [3, 4, 10], PRIORS: [2, 2, 10], RIVAL: [2, 3, 11]}
    )
    assert found.seconds[FITTED].p50 == 4
    added = {who: timing.p50 for who, timing in found.added.items()}
    assert added == {FITTED: 2, PRIORS: 1, RIVAL: 2}
    assert found.added[FITTED].mean == 2
    assert found.to_rival == {FITTED: 1.0, PRIORS: 0.5}


@pytest.mark.parametrize("rival", [{}, {RIVAL: [1.0]}])
def test_without_a_rival_that_adds_something_there_is_no_ratio(rival):
    found = CallFigures.of({BARE: [1.0], FITTED: [2.0], **rival})
    assert found.to_rival == {}
    assert found.added[FITTED].p50 == 1


def test_of_several_rounds_of_a_batch_the_median_counts():
    found = BatchFigures.of({BARE: [3.0, 1.0, 2.0]}, n_prompts=5, n_threads=8)
    assert found.seconds == {BARE: 2.0}


def samples_of(*held, calls=10):
    return [
        {"calls": calls * n, "resident_bytes": size, "remembered": {}}
        for n, size in enumerate(held, start=1)
    ]


def test_growth_is_that_of_the_second_half():
    # It fills for 20 calls, then each ten calls hold 50 bytes more.
    found = MemoryFigures.of(samples_of(9000, 10_000, 10_050, 10_100))
    assert found.bytes_per_call == pytest.approx(5.0)


def test_memory_that_goes_up_and_down_does_not_grow():
    found = MemoryFigures.of(samples_of(0, 0, 100, 101, 101, 100))
    assert found.bytes_per_call == pytest.approx(0.0)


@pytest.mark.parametrize("held", [(None,) * 4, (7,)])
def test_memory_that_cannot_be_read_twice_has_no_growth(held):
    assert MemoryFigures.of(samples_of(*held)).bytes_per_call is None


def test_samples_are_found_by_their_share_of_all_calls():
    found = MemoryFigures.of(samples_of(*range(20), calls=5000))
    assert [s.calls for s in found.at(0.1, 0.5, 1.0)] == [10_000, 50_000, 100_000]


def test_a_measured_process_that_fails_says_why():
    with pytest.raises(MixLLMError, match=r"failed: ModuleNotFoundError: .*'nowhere'"):
        overhead.run_python("-c", "import nowhere")


def test_each_decision_is_timed_once_after_the_warm_up():
    assert len(serving_probe.route_seconds(Router(CANDIDATES), ["a", "b"])) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_each_call_is_timed_once_after_the_warm_up(kind):
    models = {who: ScriptedChatModel(answers=["o k"]) for who in ("one", "other")}
    seconds = call_seconds(kind, models, ["a", "b"])
    assert [len(seconds[who]) for who in models] == [2, 2]
    assert min(seconds["one"]) > 0
    assert [len(model.calls) for model in models.values()] == [32, 32]  # 30 before


def test_models_take_turns_and_each_begins_as_often():
    heard = []

    def saying(who):
        return ScriptedChatModel(answers=lambda _: heard.append(who) or "ok")

    call_seconds("invoke", {"a": saying("a"), "b": saying("b")}, ["x", "y"])
    assert heard == ["a", "b", "b", "a"] * 16


def test_a_batch_asks_each_model_all_prompts_in_each_round():
    models = {who: ScriptedChatModel(answers=["ok"]) for who in ("one", "other")}
    seconds = batch_seconds(models, ["a", "b", "c"], n_threads=2)
    assert [len(spent) for spent in seconds.values()] == [3, 3]
    assert [len(model.calls) for model in models.values()] == [9, 9]


def test_everybody_takes_part_over_the_same_candidates():
    models = contestants(Router(CANDIDATES))
    assert list(models) == [BARE, PRIORS, FITTED, HEARD, RIVAL]
    assert models[FITTED].router is models[HEARD].router
    assert models[PRIORS].router is not models[FITTED].router
    assert [c.name for c in models[PRIORS].router.candidates] == ["small", "large"]
    for model in models.values():
        assert model.invoke("Hello").content == "ok"
    (listening,) = models[HEARD].callbacks
    assert listening.totals.calls == 1


def test_a_rival_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "langchain_model_router", None)
    assert RIVAL not in contestants(Router(CANDIDATES))


def test_a_contestant_keeps_no_note_of_what_it_was_asked():
    model = scripted("small")
    model.invoke("Hello")
    assert model.calls == []


def test_tracing_of_whoever_measures_is_switched_off(monkeypatch):
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    monkeypatch.setenv("LANGCHAIN_TRACING_V2", "true")
    monkeypatch.setenv("LANGUAGE", "en")
    without_tracing()
    left = [name for name in os.environ if name.startswith("LANG")]
    assert "LANGUAGE" in left
    assert not [name for name in left if name.startswith(("LANGS", "LANGC"))]


def test_what_is_kept_of_calls_is_counted():
    router = Router(CANDIDATES, decision_capacity=15)
    first, last = memory_samples(router, 20, heard=True, n_samples=2)
    assert (first["calls"], last["calls"]) == (10, 20)
    # A call has three runs: its own, the one around it and the model's. The first
    # of ten calls is a stream that is given up: of its runs one is known, and no
    # session has read its answer.
    assert first["remembered"] == {
        "pending decisions": 10,
        "calls under way": 0,
        "run ids": 9 * 3 + 1,
        "sessions": 9,
        "reports": 10,
        "open reports": 0,
    }
    assert last["remembered"]["pending decisions"] == 15
    assert last["remembered"]["sessions"] == 18


def test_without_a_handler_no_reports_are_counted():
    model = routed(CANDIDATES)
    assert "reports" not in remembered(model, None)
    assert "reports" in remembered(model, MixLLMCallbackHandler())


def run_here(probe, *arguments):
    """Run a probe without a process of its own, which takes seconds to start."""
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(io.StringIO()) as out:
        patched.setattr(sys, "argv", [probe, *map(str, arguments)])
        patched.setattr(os, "environ", dict(os.environ))
        patched.setattr(gc, "collect", lambda: 0)  # of all that pytest holds
        import_module(f"mixllm_integrations.benchmark.{probe}").main()
    return json.loads(out.getvalue())


@pytest.fixture(scope="module")
def found(world):
    started, steps = [], []
    begin, lock = overhead._printed, Lock()

    def printed(probe, *arguments):
        started.append((probe, arguments[1:]))
        if probe == "serving_probe":
            return begin(probe, *arguments)
        with lock:
            return run_here(probe, *arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(overhead, "_printed", printed)
        measured = measure_overhead(
            world,
            n_calls=12,
            n_kept=40,
            n_imports=1,
            command="a test",
            on_step=steps.append,
        )
    assert [probe for probe, _ in started[:2]] == ["serving_probe", "chat_probe"]
    assert sorted(started[2:]) == [
        ("memory_probe", (40,)),
        ("memory_probe", (40, "heard")),
    ]
    assert len(steps) == 5
    return measured


def test_everything_is_measured(found):
    assert (found.n_routed, found.n_fitted, found.n_fit_queries) == (3, 3, 144)
    assert found.route.n == 12
    assert found.resident_bytes is None or found.resident_bytes > 2**24
    assert json.loads(json.dumps(found.to_json()))["command"] == "a test"
    assert found.versions["langchain-model-router"] == "0.1.0"


def test_every_kind_of_call_is_measured_for_everybody(found):
    everybody = [BARE, PRIORS, FITTED, HEARD, RIVAL]
    assert tuple(found.calls) == KINDS
    for figures in found.calls.values():
        assert list(figures.seconds) == everybody
        assert list(figures.added) == everybody[1:]
        assert {timing.n for timing in figures.added.values()} == {12}
        assert figures.added[FITTED].p50 > 0
    assert list(found.batch.seconds) == everybody
    assert (found.batch.n_prompts, found.batch.n_threads) == (12, 8)


def test_what_is_kept_is_measured_with_and_without_a_handler(found):
    assert list(found.memory) == [FITTED, HEARD]
    for figures in found.memory.values():
        assert figures.samples[-1].calls == 40
    assert "reports" in found.memory[HEARD].samples[-1].remembered


def test_everything_is_shown(found):
    out = io.StringIO()
    print_overhead(found, Console(file=out, width=80))
    for shown in (
        *("Router.route", "memory", "144 x 3", "adds p99", "ratio"),
        *("astream langchain-model-router", f"invoke {HEARD}", "12 prompts on 8"),
        *("20 calls", "pending decisions", "bytes per call", "open reports"),
    ):
        assert shown in out.getvalue()
    assert "…" not in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80


def test_importing_loads_no_framework_and_serving_no_training_module(found):
    assert found.imported == ()
    assert found.served_with == ()
