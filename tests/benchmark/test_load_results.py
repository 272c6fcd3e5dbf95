"""What is made of the figures of load: goals, JSON, tables, a figure."""

import json
from dataclasses import replace

import pytest

from mixllm_integrations import ConfigurationError
from mixllm_integrations.benchmark.call_figures import (
    MemoryFigures,
    MemorySample,
    Timing,
)
from mixllm_integrations.benchmark.load.books import Books
from mixllm_integrations.benchmark.load.figures import ChaosFigures
from mixllm_integrations.benchmark.load.goals import FLAT_BYTES, goals
from mixllm_integrations.benchmark.load.killing import KillingFigures
from mixllm_integrations.benchmark.load.places import (
    NONE,
    POSTGRES,
    REDIS,
    SQLITE,
)
from mixllm_integrations.benchmark.load.rates import RateFigures
from mixllm_integrations.benchmark.load.recovery import RecoveryFigures
from mixllm_integrations.benchmark.load.results import LoadResult
from mixllm_integrations.benchmark.load.siblings import SiblingFigures
from mixllm_integrations.benchmark.load.soak import SoakFigures
from mixllm_integrations.benchmark.load.tables import plot_result
from mixllm_integrations.plots.load import plot_load

TIMING = Timing(0.001, 0.002, 0.0015, 100)
BOOKS = Books(12, 12, 0, 0, 0, 3, 0.25)
RATE = RateFigures(NONE, "calls", 1, 1, 100, 900.0, 900.0, 5e3, TIMING, TIMING, 0)
DECIDED = replace(RATE, mode="Router.route", bare_per_second=None, added=None)
CHAOS = ChaosFigures(
    callers=4,
    calls=10,
    fault_share=0.3,
    seed=0,
    wall_seconds=1.0,
    answered=9,
    broken_streams=1,
    lost={},
    failovers=2,
    latency_seconds=(0.1, 0.2, 0.3, 0.4),
    answers_by_candidate={"small": 9},
    asked_while_down=1,
    down_seconds=0.5,
    answered_again_after_seconds=0.1,
    books=BOOKS,
    unlogged=0,
    answers_cost=0.25,
    records_cost=0.25,
    in_flight={"small": 0},
    threads_left=0,
    tasks_left=0,
)


def memory(*held, calls=200_000):
    steps = len(held)
    return MemoryFigures.of(
        [
            {
                "calls": calls * (n + 1) // steps,
                "resident_bytes": each,
                "remembered": {"pending decisions": 9},
            }
            for n, each in enumerate(held)
        ]
    )


SIBLINGS = SiblingFigures(
    workers=4, feedback_seconds=(0.5, 1.5), cooldown_seconds=(0.25, 0.75)
)
RECOVERY = RecoveryFigures(
    events=1_000_000,
    tail_events=9_000,
    build_seconds=200.0,
    snapshot_seconds=0.5,
    snapshot_bytes=4_000_000,
    open_seconds=0.1,
    restore_seconds=0.3,
    tail_seconds=2.0,
    ready_seconds=2.4,
    processor_seconds=2.2,
    largest_difference=0.0,
)
KILLING = KillingFigures(
    workers=4,
    kills=12,
    seed=0,
    seconds=30.0,
    decisions=900,
    feedback=500,
    acknowledged=500,
    lost=0,
    twice=0,
    logged={"small": 500},
    learned={"small": 500},
    outcomes_logged={"small": 900},
    outcomes_learned={"small": 900},
    largest_difference=0.0,
)
SOAK = SoakFigures(
    NONE, 200_000, 20_000, 99, 500, 60.0, memory(10**6, 10**6, 10**6, 10**6), 0, 0
)
RESULT = LoadResult(
    form="long",
    machine="a machine",
    cores=2,
    versions={"python": "3"},
    command="mixllm",
    seed=0,
    seconds={"rates": 1.0},
    skipped={REDIS: "no Redis"},
    rates=(DECIDED, RATE, replace(RATE, place=SQLITE)),
    soak=(SOAK,),
    log=POSTGRES,
    siblings=SIBLINGS,
    recovery=RECOVERY,
    killing=KILLING,
    chaos=CHAOS,
)


def unreached(result):
    return [goal.what for goal in goals(result) if not goal.reached]


class TestGoals:
    def test_a_clean_run_reaches_all(self):
        assert unreached(RESULT) == []
        assert len(goals(RESULT)) == 17

    def test_only_what_was_measured_has_goals(self):
        nothing = replace(
            RESULT,
            **dict.fromkeys(("siblings", "recovery", "killing", "chaos")),
            **dict.fromkeys(("rates", "soak"), ()),
        )
        assert goals(nothing) == []

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"lost": {"TimeoutError": 1}}, ["lost though", "neither answered"]),
            ({"answered": 8}, ["neither answered"]),
            ({"in_flight": {"small": 2}}, ["count as load"]),
            ({"books": replace(BOOKS, with_several=1)}, ["not logged once"]),
            ({"unlogged": 1}, ["not logged once"]),
            ({"records_cost": 0.26}, ["apart"]),
            ({"books": replace(BOOKS, cost=0.2)}, ["apart"]),
            ({"tasks_left": 1}, ["threads and tasks"]),
        ],
    )
    def test_faults_that_do_harm_are_named(self, change, named):
        found = unreached(replace(RESULT, chaos=replace(CHAOS, **change)))
        assert len(found) == len(named)
        for what, word in zip(found, named, strict=True):
            assert word in what

    @pytest.mark.parametrize(
        ("part", "named"),
        [
            (replace(SIBLINGS, cooldown_seconds=(0.1, 1.1)), ["a cooldown"]),
            (replace(SIBLINGS, feedback_seconds=(2.1,)), ["feedback"]),
            (replace(RECOVERY, ready_seconds=10.5), ["ready"]),
            (replace(RECOVERY, largest_difference=0.01), ["predicts as"]),
            (replace(KILLING, lost=1), ["lost", "learned each"]),
            (replace(KILLING, twice=1), ["twice", "learned each"]),
            (replace(KILLING, learned={"small": 501}), ["learned each"]),
        ],
    )
    def test_what_workers_lose_or_learn_late_is_named(self, part, named):
        where = {
            SiblingFigures: "siblings",
            RecoveryFigures: "recovery",
            KillingFigures: "killing",
        }
        found = unreached(replace(RESULT, **{where[type(part)]: part}))
        assert len(found) == len(named)
        for what, word in zip(found, named, strict=True):
            assert word in what

    def test_without_redis_cooldowns_have_no_goal(self):
        alone = replace(RESULT, siblings=replace(SIBLINGS, cooldown_seconds=()))
        assert len(goals(alone)) == len(goals(RESULT)) - 1

    @pytest.mark.parametrize(("slope", "missed"), [(99.0, 0), (101.0, 1)])
    def test_memory_that_grows_is_named(self, slope, missed):
        # Samples at 50,000, 100,000, 150,000 and 200,000 calls, on one line.
        held = [round(10**9 + slope * n * 50_000) for n in range(4)]
        grown = replace(SOAK, memory=memory(*held))
        assert grown.memory.bytes_per_call == pytest.approx(slope, abs=1e-4)
        assert FLAT_BYTES == 100.0
        assert len(unreached(replace(RESULT, soak=(grown,)))) == missed

    def test_what_still_fills_is_not_judged(self):
        few = replace(SOAK, calls=4_000, memory=memory(1, 10**9, calls=4_000))
        assert unreached(replace(RESULT, soak=(few,))) == []

    def test_events_that_were_given_up_are_named(self):
        rate, kept = replace(RATE, lost=2), replace(SOAK, lost=1, in_flight=1)
        found = unreached(replace(RESULT, rates=(rate,), soak=(kept,)))
        assert [what.rpartition(": ")[2] for what in found] == [
            "events given up",
            "calls that count as load at the end",
            "events given up",
        ]


class TestResult:
    def test_what_is_written_is_read_again(self):
        text = json.dumps(RESULT.to_json(), allow_nan=False)
        assert LoadResult.from_json(json.loads(text)) == RESULT

    def test_a_run_without_an_answer_is_written_too(self):
        chaos = replace(CHAOS, latency_seconds=None, answered_again_after_seconds=None)
        result = replace(RESULT, chaos=chaos)
        text = json.dumps(result.to_json(), allow_nan=False)
        assert LoadResult.from_json(json.loads(text)) == result

    def test_memory_that_cannot_be_read_is_shown_as_such(self, capsys):
        from rich.console import Console

        from mixllm_integrations.benchmark.load.tables import print_load

        samples = (MemorySample(100_000, None, {}), MemorySample(200_000, None, {}))
        unread = replace(SOAK, memory=MemoryFigures(samples, None))
        chaos = replace(CHAOS, latency_seconds=None, answered_again_after_seconds=None)
        print_load(replace(RESULT, soak=(unread,), chaos=chaos), Console(width=200))
        shown = capsys.readouterr().out
        assert "never" in shown
        assert "memory kept" not in shown

    def test_without_rates_nothing_is_drawn(self, tmp_path):
        assert plot_result(replace(RESULT, rates=()), tmp_path / "load") == []
        with pytest.raises(ConfigurationError, match="no bar"):
            plot_load([], [tmp_path / "load.svg"], title="")

    def test_without_an_ending_both_formats_are_drawn(self, tmp_path):
        files = plot_result(RESULT, tmp_path / "load")
        assert [file.name for file in files] == ["load.png", "load.svg"]
        only = replace(RESULT, rates=(DECIDED,))
        assert plot_result(only, tmp_path / "decided.svg")[0].exists()
