"""A report that is made anew when the log has news, for a browser on this machine."""

import hashlib
import logging
import math
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["LivePage", "serve"]

_log = logging.getLogger(__name__)
_HOST = "127.0.0.1"
_REST = 4.0  # times as long as the last page took, none is made (our choice)
_IDLE_SECONDS = 2.0  # a connection that says nothing is given up


class LivePage:
    """The newest page, made when somebody asks and there is news.

    Parameters
    ----------
    make
        Returns the page.
    news
        Returns what changes when there is news, such as the last event's place.
    clock
        Seconds; a page that took long to make is not made anew at once.
    """

    def __init__(
        self,
        make: Callable[[], str],
        news: Callable[[], object],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make, self._news, self._clock = make, news, clock
        self._not_before = -math.inf
        self._lock = threading.Lock()
        self._seen: object = object()
        self._page, self._tag = b"", ""

    def current(self) -> tuple[bytes, str]:
        """Return the page, and a tag that is another one for another page."""
        with self._lock:
            now, began = self._news(), self._clock()
            if now != self._seen and began >= self._not_before:
                self._page = self._make().encode("utf-8", "replace")
                done = self._clock()
                self._not_before = done + _REST * (done - began)
                self._tag = f'"{hashlib.sha256(repr(now).encode()).hexdigest()[:20]}"'
                self._seen = now
            return self._page, self._tag


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS

    def do_GET(self) -> None:
        """Answer with the page, or that it is still the same."""
        port = self.server.server_address[1]
        if self.headers.get("Host") not in (f"{_HOST}:{port}", f"localhost:{port}"):
            self._answer(HTTPStatus.MISDIRECTED_REQUEST)  # a name bound to us
        elif self.path.split("?", 1)[0] != "/":
            self._answer(HTTPStatus.NOT_FOUND)
        else:
            self._page()

    def do_HEAD(self) -> None:
        """Answer as `do_GET` would, without the page."""
        self.do_GET()

    def _page(self) -> None:
        try:
            page, tag = self.server.page.current()
        except Exception:  # noqa: BLE001 - the next one may be made again
            _log.exception("the report could not be made")
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        if self.headers.get("If-None-Match") == tag:
            self._answer(HTTPStatus.NOT_MODIFIED, tag=tag)
        else:
            self._answer(HTTPStatus.OK, page, tag=tag)

    def _answer(self, status: HTTPStatus, page: bytes = b"", *, tag: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if tag:
            self.send_header("ETag", tag)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)

    def log_message(self, form: str, *values: object) -> None:
        """Say it to the log, not to the terminal."""
        _log.debug(form, *values)


class _Server(ThreadingHTTPServer):
    # Threads are waited for at the end; idle ones end by themselves.
    daemon_threads = False

    def __init__(self, page: LivePage, port: int) -> None:
        self.page = page
        super().__init__((_HOST, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say it to the log: a browser that goes away is nothing to see."""
        del request, client_address
        _log.debug("a connection has broken", exc_info=True)


def serve(page: LivePage, *, port: int, ready: Callable[[str], None]) -> None:
    """Serve a page to this machine until Ctrl-C.

    Parameters
    ----------
    page
        What is served.
    port
        Where; 0: any that is free.
    ready
        Called with the address once it can be asked.

    Raises
    ------
    OSError
        If the port is taken.
    """
    with _Server(page, port) as server:
        try:
            ready(f"http://{_HOST}:{server.server_address[1]}/")
            server.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            _log.info("asked to stop")
