"""The loopback server does what it is told, whatever the protocol."""

import http.client
import math
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.testing.wire import (
    Fault,
    LoopbackServer,
    Reply,
    ToolCall,
    Usage,
)

PROTOCOLS = ["chat", "responses", "messages"]
every = pytest.mark.parametrize("protocol", PROTOCOLS)
network = pytest.mark.network


@network
@every
def test_a_model_without_a_script_repeats_what_it_is_asked(protocol, ask, text_in):
    answer = ask(protocol, "What is up?")
    assert answer.status == 200
    assert answer.body["model"] == "m"
    assert text_in(answer.body) == "You said: What is up?"


@network
@every
def test_a_script_is_said_line_by_line_and_from_the_start_again(
    protocol, server, ask, text_in
):
    server.model("m", answers=["one", "two"])
    said = [text_in(ask(protocol).body) for _ in range(3)]
    assert said == ["one", "two", "one"]


@network
def test_a_script_may_be_a_function_of_the_request(server, ask, text_in):
    server.model("m", answers=lambda body: f"at {body['temperature']}")
    assert text_in(ask(temperature=0.5).body) == "at 0.5"


@network
def test_each_model_has_its_own_script(server, ask, text_in):
    server.model("a", answers=["from a"])
    server.model("b", answers=["from b"])
    assert text_in(ask(model="b").body) == "from b"
    assert text_in(ask(model="a").body) == "from a"


@network
def test_a_request_is_recorded_as_it_came(server, ask):
    ask("messages", "hello", model="claude", temperature=0.5)
    ask("chat", "you", model="gpt")
    first, second = server.requests
    assert (first.path, second.path) == ("/v1/messages", "/v1/chat/completions")
    assert first.headers["x-sent"] == "Yes"
    assert first.body["temperature"] == 0.5
    assert [request.model for request in server.requests] == ["claude", "gpt"]
    assert server.requests_to("gpt") == [second]


@network
def test_a_request_that_fails_is_recorded_too(server, ask):
    server.model("m").fail_with(500)
    assert ask().status == 500
    assert len(server.requests) == 1


@network
def test_only_the_latest_requests_are_kept():
    with LoopbackServer(max_requests=2) as server:
        for name in "abc":
            server.received("/", [], {"model": name})
        assert [request.model for request in server.requests] == ["b", "c"]


SHAPES = {
    "chat": {
        "message": "Slow down.",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    },
    "messages": {"type": "rate_limit_error", "message": "Slow down."},
}
SHAPES["responses"] = SHAPES["chat"]


@network
@every
def test_an_error_has_the_shape_of_the_provider(protocol, server, ask):
    server.model("m").fail_with(429, headers={"Retry-After": "2"}, message="Slow down.")
    answer = ask(protocol)
    assert (answer.status, answer.headers["retry-after"]) == (429, "2")
    assert answer.body["error"] == SHAPES[protocol]
    assert ask(protocol).status == 200


@network
@every
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 418, 500, 503, 529])
def test_an_error_of_any_status_says_something(protocol, status, server, ask):
    server.model("m").fail_with(status)
    answer = ask(protocol)
    assert answer.status == status
    assert answer.body["error"]["message"]
    assert answer.body["error"]["type"]


@network
def test_an_error_may_have_a_code(server, ask):
    server.model("m").fail_with(429, code="insufficient_quota")
    assert ask().body["error"]["code"] == "insufficient_quota"


@network
def test_faults_wait_in_line(server, ask, text_in):
    model = server.model("m", answers=["one", "two"])
    model.fail_with(500, times=2)
    model.fail_with(503)
    assert [ask().status for _ in range(4)] == [500, 500, 503, 200]
    assert text_in(ask().body) == "two"  # what failed has said nothing


@network
def test_a_fault_without_end_ends_when_the_model_behaves(server, ask):
    model = server.model("m")
    model.fail_with(500, times=None)
    model.fail_with(503)
    assert [ask().status for _ in range(3)] == [503, 500, 500]
    model.behave()
    assert ask().status == 200


@network
def test_a_fault_may_depend_on_the_number_of_the_request(server, ask):
    server.model("m").misbehave(lambda n: Fault(status=500) if n % 2 else None)
    assert [ask().status for _ in range(4)] == [200, 500, 200, 500]


@network
def test_a_model_that_hangs_answers_later(server, ask):
    server.model("m").misbehave(Fault(hang_seconds=0.2))
    began = time.monotonic()
    assert ask().status == 200
    assert time.monotonic() - began >= 0.2


@network
def test_closing_the_server_frees_who_hangs():
    with LoopbackServer() as server, ThreadPoolExecutor(1) as pool:
        server.model("m").misbehave(Fault(hang_seconds=math.inf))
        hanging = pool.submit(_post, server, b'{"model": "m"}')
        server.wait_for_requests(1)
        began = time.monotonic()
        server.close()
        with pytest.raises(ConnectionError):
            hanging.result(timeout=5)
        assert time.monotonic() - began < 2.0


def _post(server, content):
    connection = http.client.HTTPConnection(server.url[7:], timeout=10)
    try:
        connection.request("POST", PATH, content)
        return connection.getresponse().read()
    finally:
        connection.close()


@network
def test_closing_the_server_drops_a_client_that_says_nothing():
    with LoopbackServer() as server:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        with socket.create_connection(address, timeout=5) as silent:
            while not server._http._open:
                time.sleep(0.001)
            server.close()
            assert silent.recv(1) == b""


@network
def test_a_closed_server_leaves_no_thread(server, ask):
    ask()
    server.close()
    server.close()
    names = {thread.name for thread in threading.enumerate()}
    assert "mixllm-loopback" not in names
    with pytest.raises(ConnectionError):
        ask()


@network
def test_slow_tokens_take_their_time(server, ask):
    server.model("m", answers=["one two"]).misbehave(Fault(seconds_per_event=0.03))
    began = time.monotonic()
    events = ask(stream=True).events
    assert time.monotonic() - began >= 0.03 * len(events)


@network
@every
def test_a_stream_that_is_cut_is_known_to_be(protocol, server, ask):
    server.model("m").misbehave(Fault(after_events=2))
    with pytest.raises(http.client.IncompleteRead) as cut:
        ask(protocol, stream=True)
    assert cut.value.partial.count(b"data: ") == 2


@network
@every
def test_a_stream_may_end_in_an_error(protocol, server, ask):
    fault = Fault(after_events=2, status=529, message="Too much.")
    server.model("m").misbehave(fault)
    *first, last = ask(protocol, stream=True).events
    assert len(first) == 2
    assert "Too much." in str(last)
    assert (last.get("error") or last)["type"]


@network
def test_a_stream_may_hang_where_it_breaks_off(server):
    server.model("m").misbehave(Fault(after_events=1, hang_seconds=0.2))
    content = b'{"model": "m", "stream": true, "messages": [{"role": "user", '
    connection = http.client.HTTPConnection(server.url[7:], timeout=10)
    began = time.monotonic()
    connection.request("POST", PATH, content + b'"content": "hello"}]}')
    response = connection.getresponse()
    assert response.readline().startswith(b"data: ")
    assert time.monotonic() - began < 0.2
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()
    assert time.monotonic() - began >= 0.2


PATH = "/v1/chat/completions"


@network
@every
def test_a_whole_answer_is_cut_in_its_middle(protocol, server, ask):
    server.model("m").misbehave(Fault(after_events=1))
    with pytest.raises(http.client.IncompleteRead) as cut:
        ask(protocol)
    assert cut.value.partial


@network
@every
def test_a_status_with_a_cut_is_a_plain_error_of_a_whole_answer(protocol, server, ask):
    server.model("m").misbehave(Fault(after_events=1, status=529))
    assert ask(protocol).status == 529


@network
@pytest.mark.parametrize("stream", [False, True])
def test_something_else_may_come_instead_of_an_answer(stream, server, ask):
    page = Fault(body=b"<html>", content_type="text/html")
    server.model("m").misbehave(page)
    answer = ask(stream=stream)
    assert (answer.status, answer.raw) == (200, b"<html>")
    assert answer.headers["content-type"] == "text/html"


@network
def test_an_answer_may_be_mislabelled(server, ask):
    server.model("m").misbehave(Fault(content_type="text/html"), times=2)
    assert ask().headers["content-type"] == "text/html"
    assert ask(stream=True).headers["content-type"] == "text/html"


# How each protocol says that an answer ended early, and at a stop word.
ENDS = {
    "chat": lambda body: body["choices"][0]["finish_reason"],
    "responses": lambda body: (body["incomplete_details"] or {}).get("reason", "stop"),
    "messages": lambda body: body["stop_reason"],
}


@network
@pytest.mark.parametrize(
    ("protocol", "limit", "ended"),
    [
        ("chat", {"max_tokens": 2}, "length"),
        ("chat", {"max_completion_tokens": 2}, "length"),
        ("responses", {"max_output_tokens": 2}, "max_output_tokens"),
        ("messages", {"max_tokens": 2}, "max_tokens"),
    ],
)
def test_an_answer_ends_at_its_length(protocol, limit, ended, server, ask, text_in):
    server.model("m", answers=["one two three"])
    body = ask(protocol, **limit).body
    assert text_in(body) == "one two"
    assert ENDS[protocol](body) == ended
    assert ENDS[protocol](ask(protocol, **dict.fromkeys(limit, 9)).body) != ended


@network
@pytest.mark.parametrize(
    ("protocol", "stop", "ended"),
    [
        ("chat", {"stop": "two"}, "stop"),
        ("chat", {"stop": ["three", "two"]}, "stop"),
        ("messages", {"stop_sequences": ["three", "two"]}, "stop_sequence"),
    ],
)
def test_an_answer_ends_at_a_stop_word(protocol, stop, ended, server, ask, text_in):
    server.model("m", answers=["one two three"])
    body = ask(protocol, **stop).body
    assert text_in(body) == "one "
    assert ENDS[protocol](body) == ended
    if protocol == "messages":
        assert body["stop_sequence"] == "two"


@network
@every
def test_words_are_counted_unless_a_usage_is_given(protocol, server, ask):
    thought = Reply("one two three", reasoning="so so")
    server.model("m", answers=[thought])
    usage = ask(protocol, "four words are here").body["usage"]
    assert _tokens(usage) == (4, 5)
    server.model("m", usage=Usage(10, 2, cached_tokens=4))
    assert _tokens(ask(protocol).body["usage"]) == (10, 2)


def _tokens(usage):
    """All tokens of the prompt, and those of the answer."""
    asked = usage.get("prompt_tokens", usage.get("input_tokens"))
    asked += usage.get("cache_read_input_tokens", 0)
    return asked, usage.get("completion_tokens", usage.get("output_tokens"))


@network
@every
def test_a_prompt_longer_than_the_window_is_refused(protocol, server, ask):
    server.model("m", context_window=3)
    assert ask(protocol, "three short words").status == 200
    answer = ask(protocol, "these are four words")
    assert answer.status == 400
    told = answer.body["error"]
    assert "4 tokens" in told["message"]
    assert "3" in told["message"]
    if protocol != "messages":
        assert told["code"] == "context_length_exceeded"


@network
@every
def test_an_answer_may_name_a_dated_model(protocol, server, ask):
    server.model("m", reported_as="m-2024-07-18")
    assert ask(protocol).body["model"] == "m-2024-07-18"


@network
@every
@pytest.mark.parametrize("script", [lambda _: 1 / 0, lambda _: 7])
def test_a_script_that_fails_is_an_error_of_the_server(protocol, script, server, ask):
    server.model("m", answers=script)
    answer = ask(protocol)
    assert answer.status == 500
    assert "script" in answer.body["error"]["message"]


@network
@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff"])
def test_what_is_no_json_object_is_refused(raw, ask):
    answer = ask(raw=raw)
    assert answer.status == 400
    assert answer.body["error"]["type"] == "invalid_request_error"


@network
def test_an_unknown_path_is_not_found(server, ask):
    assert ask(path="/v1/nothing").status == 404
    assert server.requests == []


@network
def test_a_path_may_have_a_query(ask):
    assert ask(path="/v1/chat/completions?api-version=1").status == 200


@network
def test_waiting_for_requests_that_do_not_come_ends(server, ask):
    ask()
    server.wait_for_requests(1)
    with pytest.raises(TimeoutError, match="1 requests arrived"):
        server.wait_for_requests(2, timeout_seconds=0.01)


@network
def test_after_a_reset_the_server_is_as_new(server, ask, text_in):
    model = server.model("m", answers=["one"], usage=Usage(1, 1), context_window=1)
    model.fail_with(500, times=None)
    ask()
    server.reset()
    assert server.requests == []
    answer = ask(prompt="two words").body
    assert text_in(answer) == "You said: two words"
    assert server.model("m") is model
    server.wait_for_requests(1)


@network
def test_many_clients_at_once_are_all_answered(server, ask, text_in):
    server.model("m", answers=lambda body: body["user"])
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda n: text_in(ask(user=str(n)).body), range(64))
    assert list(answers) == [str(n) for n in range(64)]
    ids = {request.body["user"] for request in server.requests}
    assert len(ids) == 64


@network
def test_a_scripted_id_of_a_call_is_kept(server, ask):
    calls = [ToolCall("f", {}, id="functions.f:0"), ToolCall("f", {"a": 1})]
    server.model("m", answers=[Reply(tool_calls=calls)])
    first, second = ask().body["choices"][0]["message"]["tool_calls"]
    assert first["id"] == "functions.f:0"
    assert second["id"].startswith("call_")
    assert len(second["id"]) <= 40


@network
def test_each_kind_of_client_has_its_base_url(server):
    assert server.url.startswith("http://127.0.0.1:")
    assert server.anthropic_url == server.url  # its clients add /v1/messages
    assert server.openai_url == f"{server.url}/v1"


@network
def test_a_server_starts_once():
    with LoopbackServer() as server, pytest.raises(ConfigurationError, match="once"):
        server.start()


def test_a_server_that_was_not_started_has_no_address():
    server = LoopbackServer()
    with pytest.raises(ConfigurationError, match="start"):
        _ = server.url
    server.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": 200},
        {"hang_seconds": -1},
        {"seconds_per_event": -1},
        {"after_events": -1},
    ],
)
def test_a_fault_that_is_none_is_an_error(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Fault(**wrong)


def test_a_fault_happens_at_least_once():
    with pytest.raises(ConfigurationError, match="times"):
        LoopbackServer().model("m").fail_with(500, times=0)
