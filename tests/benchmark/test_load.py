"""Load: rates, memory and faults measured by processes of their own, in a tiny form."""

import io
import json
import logging
import os
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from mixllm_integrations import ConfigurationError
from mixllm_integrations.benchmark.call_figures import (
    BARE,
    MemoryFigures,
    MemorySample,
    Timing,
)
from mixllm_integrations.benchmark.commands import app
from mixllm_integrations.benchmark.load import full_speed, run, soak
from mixllm_integrations.benchmark.load.books import Books
from mixllm_integrations.benchmark.load.figures import ChaosFigures
from mixllm_integrations.benchmark.load.full_speed import AT_ONCE, MODES, Worker
from mixllm_integrations.benchmark.load.goals import FLAT_BYTES, goals
from mixllm_integrations.benchmark.load.places import (
    BOTH,
    NONE,
    POSTGRES,
    REDIS,
    SQLITE,
    Databases,
    place,
)
from mixllm_integrations.benchmark.load.rates import RateFigures, RatePlan
from mixllm_integrations.benchmark.load.results import LoadResult
from mixllm_integrations.benchmark.load.soak import SoakFigures, Soaking
from mixllm_integrations.benchmark.load.tables import plot_result
from mixllm_integrations.benchmark.load.talking import Talking, serve
from mixllm_integrations.core.errors import MixLLMError
from mixllm_integrations.plots.load import plot_load
from mixllm_integrations.store import open_store

POSTGRES_URL = os.environ.get("MIXLLM_TEST_POSTGRES")
REDIS_URL = os.environ.get("MIXLLM_TEST_REDIS")
TINY = run.LoadPlan(
    form="short",
    rates=RatePlan(calls=16, turn=AT_ONCE, workers=2),
    soak_calls=60,
    chaos={"calls": 40, "callers": 8, "timeout_seconds": 2.0},
)
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
    chaos=CHAOS,
)


def unreached(result):
    return [goal.what for goal in goals(result) if not goal.reached]


class TestCommand:
    @pytest.mark.network
    def test_all_parts_are_measured_shown_written_and_drawn(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(run, "SHORT", TINY)
        for name in ("MIXLLM_TEST_POSTGRES", "MIXLLM_TEST_REDIS"):
            monkeypatch.delenv(name, raising=False)
        file, figure = tmp_path / "load.json", tmp_path / "load.svg"
        done = CliRunner().invoke(
            app,
            ["load", "--short", "--json", str(file), "--plot", str(figure)],
            catch_exceptions=False,
        )
        assert done.exit_code == 0, done.output
        assert "no PostgreSQL: pass --postgres URL" in done.output
        assert "Short form: few calls." in done.output
        found = LoadResult.from_json(json.loads(file.read_text("utf-8")))
        assert unreached(found) == []
        self.check_rates(found)
        self.check_soak(found)
        assert found.chaos.answered + found.chaos.broken_streams == 40
        assert set(found.seconds) == set(run.PARTS)
        text = figure.read_text("utf-8")
        assert "calls per second" in text
        assert NONE in text

    def check_rates(self, found):
        modes = [one.mode for one in found.rates if one.place == NONE]
        assert modes == [*MODES, "calls, 2 processes"]
        assert {one.place for one in found.rates} == {NONE, SQLITE}
        for one in found.rates:
            assert one.calls == 16 * one.workers
            assert one.per_second >= one.logged_per_second > 0
            assert one.seconds.n == one.calls
            assert (one.added is None) == one.mode.startswith("Router")
            if one.added is not None:
                assert one.added.p50 < one.seconds.p50

    def check_soak(self, found):
        assert [one.place for one in found.soak] == [NONE, SQLITE]
        for one in found.soak:
            assert (one.calls, one.abandoned) == (60, 6)
            assert one.feedback == 12
            assert len(one.memory.samples) == 20

    def test_urls_are_not_noted(self, tmp_path, monkeypatch):
        secret = "redis://:hunter2@127.0.0.1:1/0"
        arguments = ["load", "--parts", "", "--redis", secret]
        monkeypatch.setattr("sys.argv", ["mixllm", "benchmark", *arguments])
        file = tmp_path / "load.json"
        done = CliRunner().invoke(app, [*arguments, "--json", str(file)])
        assert done.exit_code == 0, done.output
        assert "hunter2" not in file.read_text("utf-8") + done.output
        assert "--redis URL" in json.loads(file.read_text("utf-8"))["command"]

    def test_a_part_that_is_none_is_refused(self):
        with pytest.raises(ConfigurationError, match="no part 'speed'"):
            run.run_load(Databases(), parts=["rates", "speed"])


class TestPlaces:
    def test_what_needs_a_server_is_skipped_by_name(self):
        assert Databases().names == (NONE, SQLITE)
        assert set(Databases().skipped) == {POSTGRES, REDIS, BOTH}
        assert Databases("p").names == (NONE, SQLITE, POSTGRES)
        assert Databases("p", "r").names == (NONE, SQLITE, POSTGRES, REDIS, BOTH)
        assert Databases("p", "r").skipped == {}

    def test_no_url_is_shown(self, tmp_path):
        assert "hunter2" not in repr(Databases("hunter2", "hunter2"))
        with place(SQLITE, Databases(), tmp_path) as found:
            assert str(tmp_path) not in repr(found)

    def test_a_place_that_there_is_not_is_refused(self, tmp_path):
        with (
            pytest.raises(ConfigurationError, match="Redis: no Redis"),
            place(REDIS, Databases(), tmp_path),
        ):
            pass

    @pytest.mark.network
    def test_nothing_is_left_in_a_real_database(self, tmp_path):
        import sqlalchemy as sa

        if not POSTGRES_URL:
            pytest.skip("MIXLLM_TEST_POSTGRES names no PostgreSQL server")
        schemas = sa.text(
            "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'mixllm_load_%'"
        )
        engine = sa.create_engine(POSTGRES_URL)
        with place(POSTGRES, Databases(POSTGRES_URL), tmp_path) as found:
            with open_store(found.store) as store:
                assert store.append("decision", "a", {})
            with engine.connect() as connection:
                during = connection.execute(schemas).scalar()
        with engine.connect() as connection:
            after = connection.execute(schemas).scalar()
        engine.dispose()
        assert during >= 1
        assert after < during

    @pytest.mark.network
    def test_nothing_is_left_in_a_real_redis(self, tmp_path):
        if not REDIS_URL:
            pytest.skip("MIXLLM_TEST_REDIS names no Redis server")
        import redis

        with (
            redis.Redis.from_url(REDIS_URL) as client,
            place(REDIS, Databases(redis=REDIS_URL), tmp_path) as found,
        ):
            made = Worker(shared_state=found.shared_state)
            dispatcher = made.model.dispatcher
            call = dispatcher.begin("q")
            namespace = found.shared_state.rpartition("=")[2]
            dispatcher.cooldown.start(call.candidate)
            dispatcher.live.close()
            made.close()
        with redis.Redis.from_url(REDIS_URL) as client:
            assert list(client.scan_iter(f"{{{namespace}}}*")) == []


class TestWorker:
    @pytest.fixture
    def calling(self, tmp_path):
        made = Worker(store=f"sqlite:///{tmp_path}/log.db")
        yield made
        made.close()

    def test_every_way_makes_all_its_calls_and_each_is_logged(self, calling):
        for mode in MODES:
            told = {"mode": mode, "who": "ours", "calls": 2 * AT_ONCE}
            found = calling.obey(told)
            assert len(found["seconds"]) == 2 * AT_ONCE
            assert found["ended"] > found["began"]
        assert calling.obey({"flush": True})["lost"] == 0
        store = calling.model.dispatcher.journal.store
        kinds = [event.kind for event in store.events()]
        calls = 2 * AT_ONCE * 3  # bare decisions are not logged
        assert (kinds.count("decision"), kinds.count("outcome")) == (calls, calls)

    def test_the_bare_model_logs_nothing(self, calling):
        calling.called("calls", BARE, 3)
        assert list(calling.model.dispatcher.journal.store.events()) == []

    def test_answers_are_as_long_as_expected(self, calling, caplog):
        calling.called("calls", "ours", 60)
        assert "length" not in caplog.text

    def test_a_process_that_ends_is_told(self):
        with (
            Talking(
                "mixllm_integrations.benchmark.load.full_speed", {"odd": 1}
            ) as process,
            pytest.raises(MixLLMError, match="has ended: 1"),
        ):
            process.heard()


class TestTalking:
    def test_each_line_of_the_input_is_answered(self, monkeypatch, capsys):
        lines = io.StringIO('{"factor": 2}\n{"n": 3}\n{"n": 4}\n')
        monkeypatch.setattr("sys.stdin", lines)
        serve(lambda first: lambda told: first["factor"] * told["n"])
        assert capsys.readouterr().out.split() == ['"ready"', "6", "8"]

    @pytest.mark.parametrize("module", [full_speed, soak])
    def test_what_answers_is_made_of_the_first_line(self, module, monkeypatch):
        logger = logging.getLogger("mixllm_integrations")
        monkeypatch.setattr(logger, "level", logger.level)
        assert callable(module._made({"store": None}))
        assert logger.level == logging.ERROR

    def test_it_is_asked_and_answers(self):
        module = "mixllm_integrations.benchmark.load.full_speed"
        with Talking(module, {"number": 1}) as process:
            assert process.pid != os.getpid()
            assert process.heard() == "ready"
            told = {"mode": "calls", "who": "ours", "calls": 2}
            assert len(process.ask(told)["seconds"]) == 2


class TestSoak:
    def test_failures_feedback_and_streams_given_up_are_all_there(self):
        soaking = Soaking()
        found = soaking.called({"calls": 200})
        soaking.close()
        assert found["abandoned"] == 20
        assert found["feedback"] == 40
        assert found["failed"] > 0
        assert (found["in_flight"], found["lost"]) == (0, 0)
        assert [one["calls"] for one in found["memory"]][-1] == 200

    def test_there_is_no_end_of_errors(self):
        from mixllm_integrations.benchmark.load.soak import _NowAndThen

        errors = _NowAndThen()
        assert [n for n in range(200) if errors[n] is not None] == [96, 193]
        with pytest.raises(TypeError, match="no end"):
            errors[:3]


class TestGoals:
    def test_a_clean_run_reaches_all(self):
        assert unreached(RESULT) == []
        assert len(goals(RESULT)) == 10

    def test_only_what_was_measured_has_goals(self):
        nothing = replace(RESULT, rates=(), soak=(), chaos=None)
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
