"""Faults at random, for a time, and below HTTP."""

import contextlib
import http.client
import json
import time

import pytest

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.testing.wire import (
    FAULTS,
    Fault,
    LoopbackServer,
    at_random,
    either,
    while_between,
)

network = pytest.mark.network
BROKEN = Fault(status=500)


def faults_of(rule, count=2_000):
    return [rule(number) for number in range(count)]


def test_the_same_seed_gives_the_same_faults_at_the_same_requests():
    assert faults_of(at_random(0.3, seed=1)) == faults_of(at_random(0.3, seed=1))
    assert faults_of(at_random(0.3, seed=1)) != faults_of(at_random(0.3, seed=2))


def test_the_order_in_which_requests_are_asked_about_makes_no_difference():
    rule = at_random(0.5, seed=3)
    backwards = [rule(number) for number in reversed(range(100))]
    assert backwards[::-1] == faults_of(rule, 100)


def test_the_share_is_kept_and_every_kind_comes_about_equally_often():
    found = [fault for fault in faults_of(at_random(0.5), 13_000) if fault is not None]
    assert len(found) == pytest.approx(6_500, rel=0.05)
    for fault in FAULTS.values():
        assert found.count(fault) == pytest.approx(500, rel=0.2)


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (1.0, 100)])
def test_none_or_all_may_go_wrong(share, count):
    rule = at_random(share, kinds={"broken": BROKEN})
    assert sum(fault is BROKEN for fault in faults_of(rule, 100)) == count


def test_the_first_rule_that_has_something_to_say_is_obeyed():
    rule = either(while_between(1, 3, BROKEN), while_between(2, 4, Fault(status=503)))
    told = [fault and fault.status for fault in faults_of(rule, 5)]
    assert told == [None, 500, 500, 503, None]


@pytest.mark.parametrize(("share", "kinds"), [(1.1, FAULTS), (-0.1, FAULTS), (0.5, {})])
def test_a_share_that_is_none_or_no_kinds_are_refused(share, kinds):
    with pytest.raises(ConfigurationError, match=r"share|kinds"):
        at_random(share, kinds=kinds)


@network
def test_a_connection_may_be_dropped_without_a_word(server, ask):
    server.model("m").misbehave(FAULTS["dropped"])
    with pytest.raises(http.client.RemoteDisconnected):
        ask()
    assert ask().status == 200


@network
@pytest.mark.parametrize("stream", [False, True])
def test_bytes_that_are_no_http_may_come(stream, server, ask):
    server.model("m").misbehave(FAULTS["no_http"])
    with pytest.raises(http.client.BadStatusLine, match="not HTTP"):
        ask(stream=stream)


@network
def test_a_client_may_be_sent_round_in_circles(server, ask):
    server.model("m").misbehave(FAULTS["redirects"])
    answer = ask()
    assert answer.status == 307
    next_answer = ask(path=answer.headers["location"])
    assert next_answer.status == 307
    assert next_answer.headers["location"] == answer.headers["location"]
    assert len(server.requests) == 1


@network
@pytest.mark.parametrize("name", sorted(FAULTS))
@pytest.mark.parametrize("stream", [False, True])
def test_after_every_kind_of_fault_the_next_request_is_answered(
    name, stream, server, ask
):
    quick = Fault(hang_seconds=0.05) if name == "hang" else FAULTS[name]
    server.model("m").misbehave(quick)
    with contextlib.suppress(OSError, http.client.HTTPException):
        ask(stream=stream)
    assert ask().status == 200


@network
def test_a_closed_server_refuses_connections_until_it_comes_back(server, ask):
    ask()
    url = server.url
    server.close()
    with pytest.raises(ConnectionRefusedError):
        ask()
    server.come_back()
    assert server.url == url
    assert ask().status == 200
    assert len(server.requests) == 2


@network
def test_who_hangs_is_cut_when_the_server_goes_and_not_when_it_is_back(server, ask):
    server.close()
    server.come_back()
    server.model("m").misbehave(Fault(hang_seconds=0.1))
    began = time.monotonic()
    assert ask().status == 200
    assert time.monotonic() - began >= 0.1


@network
def test_only_a_server_that_was_closed_comes_back():
    with pytest.raises(ConfigurationError, match="closed"):
        LoopbackServer().come_back()
    with LoopbackServer() as server, pytest.raises(ConfigurationError, match="closed"):
        server.come_back()


@network
def test_a_model_keeps_its_script_while_its_server_is_away(server, ask, text_in):
    server.model("m", answers=["one", "two"])
    assert text_in(ask().body) == "one"
    server.close()
    server.come_back()
    assert text_in(ask().body) == "two"


@network
def test_a_dropped_connection_is_one_request(server, ask):
    server.model("m").misbehave(FAULTS["dropped"])
    with pytest.raises(http.client.RemoteDisconnected):
        ask(prompt="lost")
    (request,) = server.requests
    assert "lost" in json.dumps(dict(request.body))
