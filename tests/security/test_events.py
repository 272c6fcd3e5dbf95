"""Whatever stands in a log or a spool: it is learned from, or left out by itself."""

import contextlib
import json
import os
import time
import zlib
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixllm_integrations import Candidate, Router
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.report.overview import overview
from mixllm_integrations.report.traffic import read_traffic
from mixllm_integrations.serving.following import Follower
from mixllm_integrations.serving.spool_file import SpoolFile
from mixllm_integrations.serving.spool_lines import line_of, parsed, too_much
from mixllm_integrations.store import NewEvent, open_store
from mixllm_integrations.store.payloads import plain
from mixllm_integrations.store.rows import event_of, rows_of

FUZZ = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
VALUE = st.sampled_from(
    [
        *(None, True, -1, 0, 1, 0.5, 2**70, 10**400, 1e308, "", "x", "\ud800", "\0"),
        *([], {}, [[]], [1], {"a": 1}, ["a"], "../../x", "\x1b[2J", "a" * 5_000),
    ]
)
NAMES = ("small", "large")


def payloads(record):
    """Payloads of each kind of event of which anything may be anything."""

    def some(usual):
        own = {name: VALUE | st.just(value) for name, value in usual.items()}
        return st.fixed_dictionaries({}, optional=own) | st.fixed_dictionaries(own)

    decision = {
        "worker": "w",
        "candidate": "small",
        "willingness_to_pay": 0.01,
        "propensity": 1.0,
        "explored": False,
        "scores": {"small": {"quality": 0.5, "output_tokens": 9, "cost": 0.1}},
    }
    outcome = {"input_tokens": 9, "output_tokens": 9, "cost": 0.1, "error": None}
    outcome |= {"latency_seconds": 1.0, "time_to_first_token_seconds": 0.1}
    drift = {"candidate": "small", "quantity": "quality", "change": 0.1}
    handed_over = some(record) | st.just(record) | VALUE
    return st.one_of(
        st.tuples(
            st.just("decision"),
            some(decision).flatmap(
                lambda made: handed_over.map(lambda told: made | {"handed_over": told})
            ),
        ),
        st.tuples(st.just("outcome"), some(outcome)),
        st.tuples(
            st.just("feedback"), some({"reward": 1.0, "kind": "binary", "source": "t"})
        ),
        st.tuples(st.just("signal"), some({"signal": "regenerate"})),
        st.tuples(st.just("drift"), some(drift)),
    )


def fresh_router() -> Router:
    return Router([Candidate(name, 1, 1) for name in NAMES])


def record_of_another() -> dict:
    other = fresh_router()
    return other.hand_over(other.route("hello").id)


RECORD = record_of_another()


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    with open_store(f"sqlite:///{tmp_path_factory.mktemp('logs')}/log.db") as store:
        yield store


@FUZZ
@given(
    events=st.lists(
        st.tuples(st.sampled_from(["d1", "d2", "\ud800", "x" * 500]), payloads(RECORD)),
        max_size=6,
    )
)
def test_any_log_is_followed_to_its_end_and_can_be_inspected(log, events):
    router, mine = fresh_router(), os.urandom(8).hex()
    router.hear_from(log.identity, log.last_sequence())
    follower = Follower(router, log, worker="me")
    for decision_id, (kind, payload) in events:
        with contextlib.suppress(ConfigurationError):
            log.append(kind, f"{mine}-{decision_id}", payload)
    follower.catch_up()
    assert router.heard(log.identity) == log.last_sequence()
    follower.close()
    traffic = read_traffic(log)
    if len(traffic):
        overview(traffic)
    decision = router.route("hello")
    assert router.record_feedback(decision.id, 1.0)
    assert np.isfinite(router.predict(["hello"]).quality).all()


@pytest.mark.parametrize("name", ["\ud800", "a\0b"])
def test_a_name_that_no_database_takes_is_a_configuration_error(log, name):
    with pytest.raises(ConfigurationError, match="half a character"):
        log.append("feedback", name, {"kind": "binary"})
    with pytest.raises(ConfigurationError, match="half a character"):
        log.append("signal", "d", {"signal": name})


class Row:
    """A row as a driver gives it."""

    def __init__(self, **columns):
        self.__dict__.update(columns)


@FUZZ
@given(kind=VALUE | st.just("decision"), decision_id=VALUE, at=VALUE, payload=VALUE)
def test_any_row_is_an_event_or_none(kind, decision_id, at, payload):
    row = Row(sequence=1, kind=kind, decision_id=decision_id, at=at, payload=payload)
    found = event_of(row)
    assert found is None or isinstance(found.payload, dict)


@pytest.mark.parametrize("text", ["[" * 200_000, "1" * 9_000, '{"a":' * 9_000, "[]"])
def test_a_row_of_json_that_is_none_is_no_event(text):
    now = datetime.now(UTC)
    row = Row(sequence=1, kind="outcome", decision_id="d", at=now, payload=text)
    assert event_of(row) is None


def test_a_payload_that_holds_itself_is_a_configuration_error():
    payload: dict = {}
    payload["a"] = payload
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        plain(payload, "outcome")


def signed(body: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(body), body)


@FUZZ
@given(
    parts=st.lists(VALUE, max_size=7)
    | st.tuples(VALUE, VALUE, VALUE, VALUE, VALUE).map(list)
    | VALUE
)
def test_any_line_of_a_spool_is_an_event_that_a_store_reads_or_none(parts):
    line = signed(json.dumps(parts).encode())
    is_copy, event = parsed(line)
    assert isinstance(is_copy, bool)
    if event is not None:
        with contextlib.suppress(ConfigurationError):
            rows_of([event])
    assert too_much([line] * 3, 0) <= {0, 1, 2}


DEEP = b"[" * 200_000
LINES = [
    *(b"", b"\n", b"x", b" \n", b"\xff\xfe\n", signed(b""), signed(DEEP)),
    signed(b'[0,"feedback","d",null,[]]'),
    signed(b'[0,[],"d",null,{}]'),
    signed(b'[0,"feedback",{},null,{}]'),
    signed(b'[0,"feedback","d","0001-01-01T00:00:00+14:00",{}]'),
    signed(b'[0,"feedback","d",5,{}]'),
    b"-1 " + b"[]\n",
    b"1_0 []\n",
    b"9" * 9_000 + b" x\n",
]


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_a_forged_line_is_counted_as_damaged(line):
    assert parsed(line)[1] is None


def test_a_line_that_was_written_is_read_as_it_was():
    at = datetime(2026, 7, 1, tzinfo=UTC)
    event = NewEvent("feedback", "d", {"reward": 1.0}, at)
    assert parsed(line_of(event)) == (False, event)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no owners here")
def test_a_file_full_of_zeros_as_a_crash_leaves_is_read_in_time(tmp_path, within):
    path = tmp_path / "0123abcd-1-a.spool"
    whole = line_of(NewEvent("feedback", "d", {"reward": 1.0}))
    path.write_bytes(whole + bytes(50_000_000) + b"\n" + whole)
    spool = SpoolFile.take_over(path)
    began = time.perf_counter()
    with within(250):
        found = spool.read(10)
        assert not spool.at_end
        spool.advance()
    assert [event.decision_id for event in found] == ["d", "d"]
    assert spool.damaged == 1
    assert time.perf_counter() - began < 10.0
    spool.close()
