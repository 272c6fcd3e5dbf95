"""Keys and passwords are in nothing that is shown, logged, stored or traced."""

import json
import logging
import pickle
import traceback
from types import SimpleNamespace

import pytest
from langchain_core.load import dumpd, dumps
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr
from sqlalchemy.exc import OperationalError

from mixllm_integrations import ConfigurationError
from mixllm_integrations.cli import main
from mixllm_integrations.langchain import (
    CandidateModel,
    MixLLMCallbackHandler,
    MixLLMChatModel,
)
from mixllm_integrations.langchain.tracing import telemetry
from mixllm_integrations.langchain.tracing.instruments import Instruments
from mixllm_integrations.serving.spool import Spool
from mixllm_integrations.serving.spool_lines import line_of
from mixllm_integrations.store import NewEvent, open_store
from mixllm_integrations.store.live import open_shared_state
from mixllm_integrations.testing import ScriptedChatModel

KEY = "sk-sentinel-5f1d-plain"
HIDDEN = "sk-sentinel-5f1d-secret"
PASSWORD = "pw-sentinel-5f1d"
PROMPT = "prompt-sentinel-5f1d"
SECRETS = {"key": KEY, "hidden": HIDDEN, "password": PASSWORD, "prompt": PROMPT}


class Careless(ScriptedChatModel):
    """Holds its key as a plain string, as many classes do, and quotes it."""

    openai_api_key: str
    api_key: SecretStr | None = None


class RefusedError(Exception):
    """As providers say it: with the key, and with a part of the prompt."""

    status_code = 401


def refused():
    return RefusedError(f"Incorrect API key provided: {KEY}, asked: {PROMPT}")


def candidate(name, **settings):
    return CandidateModel(
        model=Careless(
            model=name, openai_api_key=KEY, api_key=SecretStr(HIDDEN), **settings
        ),
        name=name,
        input_cost_per_million_tokens=1,
        output_cost_per_million_tokens=1,
    )


def spans_of(exporter) -> str:
    spans = exporter.get_finished_spans()
    assert spans
    return json.dumps([json.loads(span.to_json()) for span in spans])


@pytest.fixture
def session(tmp_path, monkeypatch, caplog):
    """Everything that a session with failures leaves behind, by where it is."""
    monkeypatch.setenv("MIXLLM_SPOOL", str(tmp_path / "spool"))
    caplog.set_level(logging.DEBUG)
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader], shutdown_on_exit=False)
    instruments = Instruments.made_with(
        provider.get_tracer("mixllm"), meters.get_meter("mixllm")
    )
    watch = SimpleNamespace(look=lambda: instruments)
    monkeypatch.setattr(telemetry, "_WATCH", watch)

    url = f"sqlite:///{tmp_path}/log.db"
    handler, traces = MixLLMCallbackHandler(), RunCollectorCallbackHandler()
    model = MixLLMChatModel(
        candidates=[
            candidate("failing", errors=[refused()] * 100),
            candidate("sound", answers=["ok"]),
        ],
        store=url,
        api_key=KEY,
        callbacks=[handler, traces],
    )
    config = {"configurable": {"mixllm_session": "s1"}}
    for _ in range(4):
        answer = model.invoke(PROMPT, config)
        assert list(model.stream(PROMPT, config))
        model.record_feedback(answer, 0.5)
    alone = MixLLMChatModel(
        candidates=[
            candidate("a", errors=[refused()] * 9),
            candidate("b", errors=[refused()] * 9),
        ],
        callbacks=[handler],
    )
    with pytest.raises(ExceptionGroup) as failed:
        alone.invoke(PROMPT)
    assert model.dispatcher.journal.flush()
    told = {
        "repr": repr((model, model.candidates, model.seat("sound"), model.dispatcher)),
        "dump": json.dumps(dumpd(model)) + dumps(model) + model.model_dump_json(),
        "model_dump": repr((model.model_dump(), model.asdict())),
        "answer": repr(answer) + answer.model_dump_json(),
        "totals": repr((handler, handler.totals, handler.sessions, handler.calls)),
        "group": str(failed.value),
        "spans": spans_of(exporter),
        "metrics": reader.get_metrics_data().to_json(),
        "decision": model.router.route(PROMPT).explain(),
        "traces": repr([(run.serialized, run.extra) for run in traces.traced_runs]),
    }
    model.router.save(tmp_path / "router")
    told["pickled router"] = repr(pickle.dumps(model.router))
    with open_store(url) as store:
        events = list(store.events())
        told["events"] = repr(events)
    assert {e.kind for e in events} >= {"decision", "outcome", "feedback"}
    spool = Spool(tmp_path / "spool2", "0123abcd")
    spool.add([NewEvent(e.kind, e.decision_id, e.payload) for e in events])
    assert line_of(events[0]) is not None
    told["lines"] = repr([path.read_bytes() for path in spool.folder.iterdir()])
    spool.close()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            told[f"file {path.name}"] = repr(path.read_bytes())
    told["log"] = caplog.text + repr([r.__dict__ for r in caplog.records])
    return told


def test_a_session_with_failures_leaves_no_secret_and_no_prompt(session):
    found = {
        place: what
        for place, text in session.items()
        for what, secret in SECRETS.items()
        if secret in text
    }
    assert found == {}
    assert len([place for place in session if place.startswith("file ")]) >= 4


def test_the_sentinels_would_be_found():
    assert KEY in repr(candidate("a").model)
    assert KEY in str(refused())


BAD = [
    f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:1/prod?connect_timeout=2",
    f"postgresql+psycopg://me:{PASSWORD}@h@127.0.0.1:1/prod",
    f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:x/prod",
    f"mysql://me:{PASSWORD}@127.0.0.1/prod",
    f"postgresql+psycopg://127.0.0.1:1/prod?password={PASSWORD}&connect_timeout=2",
    f"{PASSWORD}",
]


@pytest.mark.network
@pytest.mark.parametrize("url", BAD, ids=range(len(BAD)))
def test_a_store_that_cannot_be_opened_tells_no_password(url, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConfigurationError) as caught:
        open_store(url)
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    # The line of this test that is quoted names no value.
    assert PASSWORD not in shown.replace(f"'{url}'", "") or url == PASSWORD
    assert PASSWORD not in str(caught.value)


@pytest.mark.network
@pytest.mark.parametrize(
    "url",
    [
        f"redis://me:{PASSWORD}@127.0.0.1:1/0",
        f"redis://127.0.0.1:1/0?password={PASSWORD}",
        f"redis://:{PASSWORD}@127.0.0.1:x/0",
        f"http://:{PASSWORD}@127.0.0.1/0",
        f"redis://:{PASSWORD}@127.0.0.1:1/0?namespace=%20",
        f"redis://:{PASSWORD}@127.0.0.1:1/0?socket_timeout=x",
    ],
    ids=range(6),
)
def test_a_shared_state_that_is_away_tells_no_password(url, caplog):
    caplog.set_level(logging.DEBUG)
    told = ""
    try:
        model = MixLLMChatModel(
            candidates=[candidate("sound", answers=["ok"])], shared_state=url
        )
        assert model.invoke("hello").content == "ok"
        model.dispatcher.live.look()
        told = repr(model) + repr(model.dispatcher) + dumps(model)
        told += repr(open_shared_state(url))
    except ConfigurationError as error:
        told = str(error)
    assert told
    assert PASSWORD not in told + caplog.text


@pytest.mark.parametrize("url", BAD[:1] + BAD[2:5], ids=range(4))
@pytest.mark.network
def test_the_command_line_tells_no_password(url, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["mixllm", "inspect", url])
    with pytest.raises(SystemExit):
        main()
    out, err = capsys.readouterr()
    assert err.startswith("error: ")
    assert PASSWORD not in out + err


class Away:
    """A store whose driver quotes its URL when it fails."""

    fingerprint = "0123abcd"

    def append(self, kind, decision_id, payload):
        url = f"postgresql://me:{PASSWORD}@db/prod"
        raise OperationalError(url, payload, Exception(url))

    def events(self, *, after=0, limit=None):
        return iter(())

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def test_a_store_that_fails_under_way_tells_no_password(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MIXLLM_SPOOL", str(tmp_path))
    model = MixLLMChatModel(
        candidates=[candidate("sound", answers=["ok"])], store=Away()
    )
    assert model.invoke(PROMPT).content == "ok"
    model.dispatcher.journal.flush(1.0)
    model.dispatcher.journal.close()
    assert "OperationalError" in caplog.text
    left = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    for secret in SECRETS.values():
        assert secret not in caplog.text
        assert secret.encode() not in left
