"""One request of the loopback server, from its first byte to its last."""

import contextlib
import json
import logging
import math
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from mixllm_integrations.testing.wire.anthropic import AnthropicMessages
from mixllm_integrations.testing.wire.openai_chat import OpenAIChat, OpenAIErrors
from mixllm_integrations.testing.wire.openai_responses import OpenAIResponses
from mixllm_integrations.testing.wire.parts import Answer, Body, Fault, Refusal
from mixllm_integrations.testing.wire.protocol import Event, WireProtocol

if TYPE_CHECKING:
    from mixllm_integrations.testing.wire.models import ServedModel
    from mixllm_integrations.testing.wire.server import LoopbackServer

__all__ = ["RequestHandler"]

_log = logging.getLogger(__name__)

_PROTOCOLS: dict[str, WireProtocol] = {
    "/v1/chat/completions": OpenAIChat(),
    "/v1/responses": OpenAIResponses(),
    "/v1/messages": AnthropicMessages(),
}
_LOOP = "/v1/moved"
_JSON = "application/json"
_EVENTS = "text/event-stream; charset=utf-8"


class _CutError(Exception):
    """The connection is to be dropped, without a word."""


class RequestHandler(BaseHTTPRequestHandler):
    """Answers one request; `LoopbackServer` makes one for each.

    Each connection is closed after its answer, so none outlives the server or
    the event loop in which it was opened.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    #: Set on a subclass per server.
    owner: "LoopbackServer"

    def handle(self) -> None:
        """Answer; a client that has gone is no error."""
        with contextlib.suppress(ConnectionError, _CutError):
            super().handle()

    def do_POST(self) -> None:
        """Answer a request for an answer."""
        if self.path == _LOOP:
            self._send_on()
            return
        number = self.owner.next_number()
        protocol = _PROTOCOLS.get(self.path.partition("?")[0])
        try:
            body = self._body()
            if protocol is None:
                raise Refusal(f"Unknown path: {self.path}", status=404)
            model = self.owner.received(self.path, self.headers.items(), body)
            self._answer(protocol, model, body, number)
        except Refusal as refusal:
            shape = OpenAIErrors() if protocol is None else protocol
            told = shape.refused(refusal, number)
            self._send(json.dumps(told).encode(), refusal.status, refusal.headers)
        except (ConnectionError, _CutError):
            raise
        except Exception:  # noqa: BLE001 - a script is anybody's code
            _log.exception("the loopback server could not answer %s", self.path)
            broken = Refusal("The script of the loopback server failed.", status=500)
            told = (protocol or OpenAIErrors()).refused(broken, number)
            self._send(json.dumps(told).encode(), 500)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def _body(self) -> dict[str, Any]:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise Refusal("We could not parse the JSON body of your request.")
        return body

    def _answer(
        self, protocol: WireProtocol, model: "ServedModel", body: Body, number: int
    ) -> None:
        fault = model.next_fault()
        breaks_off = fault.after_events is not None
        if not (breaks_off and body.get("stream")):
            self._pause(fault.hang_seconds)
            if fault.raw is not None:
                self.wfile.write(fault.raw)
                raise _CutError
            if fault.redirects:
                self._send_on()
                return
            if fault.status is not None:
                raise _refusal(fault)
        ask = protocol.read(body, strict_keys=self.owner.strict_keys)
        window = model.context_window
        if window is not None and ask.words > window:
            raise protocol.too_long(ask.words, window)
        answer = model.answer(ask, body, number)
        if body.get("stream") and fault.body is None:
            self._stream(protocol, answer, fault)
            return
        whole = json.dumps(protocol.whole(answer), ensure_ascii=False).encode()
        self._send(
            whole if fault.body is None else fault.body,
            content_type=fault.content_type or _JSON,
            cut=breaks_off,
        )

    def _send_on(self) -> None:
        """Send the client to an address that does the same."""
        self._send(b"", 307, {"Location": _LOOP})

    def _send(
        self,
        content: bytes,
        status: int = 200,
        headers: Any = None,  # noqa: ANN401
        *,
        content_type: str = _JSON,
        cut: bool = False,
    ) -> None:
        self._head(status, content_type, headers or {})
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if cut:
            self.wfile.write(content[: len(content) // 2])
            raise _CutError
        self.wfile.write(content)

    def _head(self, status: int, content_type: str, headers: Any) -> None:  # noqa: ANN401
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Connection", "close")
        for name, value in dict(headers).items():
            self.send_header(name, value)

    def _stream(self, protocol: WireProtocol, answer: Answer, fault: Fault) -> None:
        self._head(200, fault.content_type or _EVENTS, {})
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in self._faulty(protocol, answer, fault):
            self._pause(fault.seconds_per_event)
            self._write_chunk(_written(event))
        self._write_chunk(b"")

    def _faulty(
        self, protocol: WireProtocol, answer: Answer, fault: Fault
    ) -> Iterable[Event]:
        """Yield the events up to where the stream breaks off."""
        left = math.inf if fault.after_events is None else fault.after_events
        for event in protocol.events(answer):
            if left <= 0:
                self._pause(fault.hang_seconds)
                if fault.status is None:
                    raise _CutError
                yield protocol.broken(_refusal(fault), answer.number)
                return
            left -= 1
            yield event

    def _write_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _pause(self, seconds: float) -> None:
        """Wait, but not beyond the end of the server."""
        if seconds and self.owner.closing.wait(
            None if math.isinf(seconds) else seconds
        ):
            raise _CutError


def _refusal(fault: Fault) -> Refusal:
    return Refusal(
        fault.message,
        status=fault.status or 500,
        code=fault.code,
        headers=fault.headers,
    )


def _written(event: Event) -> bytes:
    name, data = event
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {text}\n\n".encode()
