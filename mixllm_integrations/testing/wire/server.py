"""The loopback server: starts, records, stops."""

import contextlib
import itertools
import socket
import socketserver
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, Self

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.testing.wire.handler import RequestHandler
from mixllm_integrations.testing.wire.models import ServedModel
from mixllm_integrations.testing.wire.parts import Body, Script, Usage

__all__ = ["LoopbackServer", "RecordedRequest"]

_CLOSING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request as it arrived.

    Parameters
    ----------
    path
        Such as ``"/v1/messages"``.
    headers
        Their names in small letters.
    body
        The JSON of it.
    """

    path: str
    headers: Mapping[str, str]
    body: Body

    @property
    def model(self) -> str:
        """Which model was asked."""
        return str(self.body.get("model"))


class LoopbackServer:
    """A server on this machine that speaks OpenAI's and Anthropic's protocols.

    It serves any model by any name, tells what it was asked, says what it is
    told to, refuses what the providers refuse, and misbehaves on command. Use
    it in a ``with`` statement, or call `start` and `close`.

    It speaks ``POST /v1/chat/completions`` and ``POST /v1/responses`` of OpenAI
    and ``POST /v1/messages`` of Anthropic: text, tools, structured output,
    reasoning, streams with usage, errors. Give `openai_url` or `anthropic_url`
    to a client as its base URL, and any key. Clients that wait between retries
    of their own (``max_retries`` of most) make tests slow: switch that off.

    Parameters
    ----------
    strict_keys
        Whether keys that the protocol does not know, such as Anthropic's
        ``cache_control`` at OpenAI's, are refused. Some providers of OpenAI's
        protocol refuse them, OpenAI itself overlooks some.
    max_requests
        How many requests are kept, the latest ones.

    Attributes
    ----------
    strict_keys
        As it was passed.
    closing
        Set as soon as the server is about to stop.

    Examples
    --------
    >>> server = LoopbackServer()
    >>> gpt = server.model("gpt-4o-mini", answers=["Hello."], usage=Usage(10, 2))
    >>> gpt.fail_with(429, headers={"Retry-After": "2"})

    Then, with the server started, the first request to ``gpt-4o-mini`` gets a
    429, each later one ``Hello.``::

        with server:
            model = ChatOpenAI(
                model="gpt-4o-mini",
                base_url=server.openai_url,
                api_key="unused",
                max_retries=0,
                stream_usage=True,
            )
    """

    def __init__(
        self, *, strict_keys: bool = True, max_requests: int = 100_000
    ) -> None:
        number_between(max_requests, "max_requests", low=1)
        self.strict_keys = strict_keys
        self.closing = threading.Event()
        self._changed = threading.Condition()
        self._models: dict[str, ServedModel] = {}
        self._requests: deque[RecordedRequest] = deque(maxlen=max_requests)
        self._received = 0
        self._numbers = itertools.count(1)
        self._http: _Listener | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Listen on a free port of this machine, on a thread.

        Returns
        -------
        LoopbackServer
            Itself.

        Raises
        ------
        ConfigurationError
            If it was started before.
        """
        if self._http is not None:
            raise ConfigurationError(
                "a loopback server starts once; make another one to start again"
            )
        self._listen(0)
        return self

    def close(self) -> None:
        """Stop, and drop every connection; whoever hangs is freed."""
        self.closing.set()
        http, thread = self._http, self._thread
        if http is None or thread is None or not thread.is_alive():
            return
        http.shutdown()
        http.server_close()
        http.drop_all()
        thread.join()

    def come_back(self) -> None:
        """Listen again where it did before `close`, which refuses connections.

        Raises
        ------
        ConfigurationError
            If it was never started, or is not closed.
        """
        if self._http is None or not self.closing.is_set():
            raise ConfigurationError(
                "only a server that was closed can come back: call close() first"
            )
        self.closing = threading.Event()
        self._listen(self._http.server_address[1])

    def _listen(self, port: int) -> None:
        handler = type("_Handler", (RequestHandler,), {"owner": self})
        self._http = _Listener(("127.0.0.1", port), handler)
        self._thread = threading.Thread(
            target=self._http.serve_forever,
            kwargs={"poll_interval": 0.02},
            name="mixllm-loopback",
            daemon=True,
        )
        self._thread.start()

    def __enter__(self) -> Self:
        """Start, unless that is done."""
        return self if self._http is not None else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    @property
    def url(self) -> str:
        """Where it listens, such as ``"http://127.0.0.1:49152"``."""
        if self._http is None:
            raise ConfigurationError(
                "the server listens nowhere yet: call start(), or use it in a with "
                "statement"
            )
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def openai_url(self) -> str:
        """The base URL for clients of OpenAI's protocols."""
        return f"{self.url}/v1"

    @property
    def anthropic_url(self) -> str:
        """The base URL for clients of Anthropic's protocol."""
        return self.url

    def model(
        self,
        name: str,
        *,
        answers: Script | None = None,
        usage: Usage | None = None,
        context_window: int | None = None,
        reported_as: str | None = None,
    ) -> ServedModel:
        """Return the model of a name, with the script that is passed.

        Parameters
        ----------
        name
            What requests call it.
        answers
            What it says: one after the other, from the start again after the
            last; or a function of the request's body. A text gives way to a
            call or to JSON where the request asks for that; a `Reply` is sent as
            it is. Without it the model repeats the last message, and calls a
            tool if there is one and the last message is not a tool's result.
        usage
            What it reports; without it words are counted.
        context_window
            Tokens of prompt that it takes.
        reported_as
            What its answers say who gave them, such as a dated name.

        Returns
        -------
        ServedModel
            The same one for the same name; what is ``None`` stays as it was.
        """
        with self._changed:
            model = self._models.setdefault(name, ServedModel(name))
        given = {
            "answers": answers,
            "usage": usage,
            "context_window": context_window,
            "reported_as": reported_as,
        }
        for attribute, value in given.items():
            if value is not None:
                setattr(model, attribute, value)
        return model

    @property
    def requests(self) -> list[RecordedRequest]:
        """All requests so far, oldest first."""
        with self._changed:
            return list(self._requests)

    def requests_to(self, model: str) -> list[RecordedRequest]:
        """Return the requests to one model, oldest first.

        Parameters
        ----------
        model
            Its name.

        Returns
        -------
        list of RecordedRequest
            As they arrived.
        """
        return [request for request in self.requests if request.model == model]

    def wait_for_requests(self, count: int, *, timeout_seconds: float = 5.0) -> None:
        """Wait until as many requests have arrived since the start or `reset`.

        Parameters
        ----------
        count
            How many.
        timeout_seconds
            How long at most.

        Raises
        ------
        TimeoutError
            If fewer have.
        """
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._received >= count, timeout_seconds
            ):
                raise TimeoutError(
                    f"{self._received} requests arrived within {timeout_seconds:g} s, "
                    f"not {count}"
                )

    def reset(self) -> None:
        """Forget all requests, scripts and faults."""
        with self._changed:
            self._requests.clear()
            self._received = 0
            models = list(self._models.values())
        for model in models:
            model.reset()

    def received(
        self, path: str, headers: Iterable[tuple[str, str]], body: dict[str, Any]
    ) -> ServedModel:
        """Note a request; for the handler.

        Parameters
        ----------
        path, headers, body
            What arrived.

        Returns
        -------
        ServedModel
            Who is to answer.
        """
        lower = MappingProxyType({name.lower(): value for name, value in headers})
        request = RecordedRequest(path, lower, body)
        with self._changed:
            self._requests.append(request)
            self._received += 1
            self._changed.notify_all()
        return self.model(request.model)

    def next_number(self) -> int:
        """Return a number that no other answer of this server has."""
        return next(self._numbers)


class _Listener(socketserver.ThreadingTCPServer):
    """Takes connections, each on a thread, and knows those that are open."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], handler: Any) -> None:  # noqa: ANN401
        self._idle = threading.Condition()
        self._open: set[socket.socket] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        with self._idle:
            self._open.add(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._idle:
                self._open.discard(request)
                self._idle.notify_all()

    def drop_all(self) -> None:
        """Cut all connections, and wait until nobody works at one."""
        with self._idle:
            for connection in self._open:
                with contextlib.suppress(OSError):  # it may be closed already
                    connection.shutdown(socket.SHUT_RDWR)
            self._idle.wait_for(lambda: not self._open, _CLOSING_SECONDS)
