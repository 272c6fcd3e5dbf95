"""Load: rates, memory and faults measured by processes of their own, in a tiny form."""

import io
import json
import logging
import os

import pytest
from typer.testing import CliRunner

from mixllm_integrations import ConfigurationError
from mixllm_integrations.benchmark.call_figures import (
    BARE,
)
from mixllm_integrations.benchmark.commands import app
from mixllm_integrations.benchmark.load import full_speed, run, soak
from mixllm_integrations.benchmark.load.full_speed import AT_ONCE, MODES, Worker
from mixllm_integrations.benchmark.load.goals import goals
from mixllm_integrations.benchmark.load.places import (
    BOTH,
    NONE,
    POSTGRES,
    REDIS,
    SQLITE,
    Databases,
    place,
)
from mixllm_integrations.benchmark.load.rates import RatePlan
from mixllm_integrations.benchmark.load.results import LoadResult
from mixllm_integrations.benchmark.load.soak import Soaking
from mixllm_integrations.benchmark.load.talking import Talking, serve
from mixllm_integrations.benchmark.load.together import (
    measure_siblings,
    on_one_thread,
)
from mixllm_integrations.core.errors import MixLLMError
from mixllm_integrations.store import open_store

POSTGRES_URL = os.environ.get("MIXLLM_TEST_POSTGRES")
REDIS_URL = os.environ.get("MIXLLM_TEST_REDIS")
TINY = run.LoadPlan(
    form="short",
    rates=RatePlan(calls=16, turn=AT_ONCE, workers=2),
    workers=2,
    repeats=1,
    events=300,
    kills=1,
    soak_calls=60,
    chaos={"calls": 40, "callers": 8, "timeout_seconds": 2.0},
)


def unreached(result):
    return [goal.what for goal in goals(result) if not goal.reached]


class TestCommand:
    @pytest.mark.network
    def test_all_parts_are_measured_shown_written_and_drawn(
        self, tmp_path, monkeypatch, caplog
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
        assert "answers instead" not in done.output + caplog.text
        found = LoadResult.from_json(json.loads(file.read_text("utf-8")))
        # How soon depends on the machine; nothing else does.
        assert [what for what in unreached(found) if "until all" not in what] == []
        self.check_rates(found)
        self.check_soak(found)
        assert found.log == SQLITE
        assert (found.siblings.workers, found.killing.kills) == (2, 1)
        assert found.siblings.cooldown_seconds == ()
        assert "heed a cooldown (no Redis" in done.output
        assert found.recovery.events == 300
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
            assert one.feedback == 15
            assert [each.calls for each in one.memory.samples] == [30, 60]

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
        assert found["feedback"] == 50
        assert found["failed"] > 0
        assert (found["in_flight"], found["lost"]) == (0, 0)
        assert [one["calls"] for one in found["memory"]][-1] == 200

    def test_there_is_no_end_of_errors(self):
        from mixllm_integrations.benchmark.load.soak import _NowAndThen

        errors = _NowAndThen()
        assert [n for n in range(200) if errors[n] is not None] == [96, 193]
        with pytest.raises(TypeError, match="no end"):
            errors[:3]


class TestThreads:
    def test_processes_compute_on_one_thread_and_only_meanwhile(self, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
        with on_one_thread():
            assert os.environ["OMP_NUM_THREADS"] == "1"
            assert os.environ["MKL_NUM_THREADS"] == "1"
        assert os.environ["OMP_NUM_THREADS"] == "3"
        assert "MKL_NUM_THREADS" not in os.environ

    @pytest.mark.network
    def test_with_redis_siblings_are_told_of_cooldowns(self, tmp_path):
        if not REDIS_URL:
            pytest.skip("MIXLLM_TEST_REDIS names no Redis server")
        found = measure_siblings(Databases(redis=REDIS_URL), workers=2, repeats=1)
        assert len(found.cooldown_seconds) == 3
        assert len(found.feedback_seconds) == 1
