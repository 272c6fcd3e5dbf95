"""A server on this machine, and plain requests to it."""

import http.client
import json
from dataclasses import dataclass

import pytest

from mixllm_integrations.testing.wire import LoopbackServer

PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}


@dataclass
class Answered:
    """A response, read to its end."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self):
        return json.loads(self.raw)

    @property
    def events(self):
        """The data of a stream's events; ``[DONE]`` as it is."""
        lines = self.raw.decode().split("\n")
        data = [line[6:] for line in lines if line.startswith("data: ")]
        return [one if one == "[DONE]" else json.loads(one) for one in data]


@pytest.fixture
def server():
    with LoopbackServer() as running:
        yield running


@pytest.fixture
def ask(server):
    """Send a request in one of the protocols; keywords go into its body."""

    def send(protocol="chat", prompt="hello", *, raw=None, path=None, **body):
        body = {**asked(protocol, prompt), **body}
        connection = http.client.HTTPConnection(server.url[7:], timeout=10)
        try:
            content = json.dumps(body).encode() if raw is None else raw
            headers = {"Content-Type": "application/json", "X-Sent": "Yes"}
            connection.request("POST", path or PATHS[protocol], content, headers)
            response = connection.getresponse()
            head = {name.lower(): value for name, value in response.getheaders()}
            return Answered(response.status, head, response.read())
        finally:
            connection.close()

    return send


def asked(protocol, prompt):
    if protocol == "responses":
        return {"model": "m", "input": prompt}
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
    return {**body, "max_tokens": 50} if protocol == "messages" else body


@pytest.fixture
def text_in():
    """Return the text of an answer in any protocol."""

    def find(body):
        if "choices" in body:
            return body["choices"][0]["message"]["content"]
        if "output" in body:
            return body["output"][-1]["content"][0]["text"]
        return body["content"][-1]["text"]

    return find
