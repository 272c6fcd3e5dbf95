"""A live page: made anew when there is news, for this machine alone, and gone after."""

import http.client
import logging
import threading
import time

import pytest

from mixllm_integrations.report import live
from mixllm_integrations.report.full import make_report
from mixllm_integrations.report.live import LivePage, serve
from mixllm_integrations.report.traffic import read_traffic
from mixllm_integrations.testing import ManualClock

pytestmark = pytest.mark.network


class Served:
    """A page that is served on a thread; Ctrl-C is raised where the server waits."""

    def __init__(self, monkeypatch, page):
        self.stop, self.addresses = threading.Event(), []
        usual = live._Server.service_actions

        def look(server):
            if self.stop.is_set():
                raise KeyboardInterrupt
            usual(server)

        monkeypatch.setattr(live._Server, "service_actions", look)
        ready = threading.Event()

        def run():
            serve(
                page, port=0, ready=lambda at: (self.addresses.append(at), ready.set())
            )

        self.thread = threading.Thread(target=run)
        self.thread.start()
        assert ready.wait(30)
        self.port = int(self.addresses[0].rstrip("/").rsplit(":", 1)[1])

    def ask(self, path="/", method="GET", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers={**told, "Connection": "close"})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer, body

    def end(self):
        self.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def made():
    return {"news": 1, "count": 0, "fails": False}


@pytest.fixture
def served(monkeypatch, made):
    def make():
        if made["fails"]:
            raise RuntimeError("the log is away")
        made["count"] += 1
        return f"<p>page {made['count']}</p>"

    before = set(threading.enumerate())
    opened = Served(monkeypatch, LivePage(make, lambda: made["news"]))
    yield opened
    opened.end()
    deadline = time.monotonic() + 30
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(threading.enumerate()) - before == set()


def test_the_page_is_made_once_while_there_is_no_news(served, made):
    first, page = served.ask()
    assert (first.status, page) == (200, b"<p>page 1</p>")
    again, nothing = served.ask(If_None_Match=first.headers["ETag"])
    assert (again.status, nothing) == (304, b"")
    assert made["count"] == 1
    made["news"] = 2
    other, page = served.ask(If_None_Match=first.headers["ETag"])
    assert (other.status, page) == (200, b"<p>page 2</p>")
    assert other.headers["ETag"] != first.headers["ETag"]


def test_a_page_that_takes_long_is_not_made_at_once_again():
    clock = ManualClock()
    news, made = [1], []

    def make():
        made.append(news[0])
        clock.advance(2.0)
        return "page"

    page = LivePage(make, lambda: news[0], clock=clock)
    page.current()
    news[0] = 2
    clock.advance(7.9)  # of four times two seconds
    page.current()
    assert made == [1]
    clock.advance(0.2)
    page.current()
    assert made == [1, 2]


def test_a_head_has_no_page(served):
    answer, page = served.ask(method="HEAD")
    assert (answer.status, page) == (200, b"")
    assert int(answer.headers["Content-Length"]) == len("<p>page 1</p>")


def test_other_paths_and_other_names_are_refused(served, made):
    assert served.ask("/etc/passwd")[0].status == 404
    assert served.ask(Host="evil.example")[0].status == 421
    assert made["count"] == 0
    assert served.ask(Host=f"localhost:{served.port}")[0].status == 200


def test_it_listens_to_this_machine_alone(served):
    assert served.addresses == [f"http://127.0.0.1:{served.port}/"]


def test_a_page_that_cannot_be_made_is_made_later(served, made, caplog):
    made["fails"] = True
    with caplog.at_level(logging.ERROR, "mixllm_integrations"):
        assert served.ask()[0].status == 503
    assert "the report could not be made" in caplog.text
    made["fails"] = False
    assert served.ask()[0].status == 200


def test_a_browser_that_goes_away_is_nothing_to_see(served, caplog, capfd):
    import socket
    import struct

    with caplog.at_level(logging.DEBUG, "mixllm_integrations"):
        gone = socket.create_connection(("127.0.0.1", served.port))
        now = struct.pack("ii", 1, 0)  # reset instead of an end
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        gone.send(b"GE")
        gone.close()
        deadline = time.monotonic() + 30
        while "has broken" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "a connection has broken" in caplog.text
    assert capfd.readouterr().err == ""


def test_a_port_that_is_taken_is_an_error(served):
    with pytest.raises(OSError, match="in use"):
        serve(LivePage(str, int), port=served.port, ready=print)


def test_a_browser_shows_news_by_itself(monkeypatch, browser, book):
    book.decide("d0")
    page = LivePage(
        lambda: make_report(read_traffic(book)).to_html(live=True),
        lambda: len(book.events_written),
    )
    opened = Served(monkeypatch, page)
    try:
        browser.show(opened.addresses[0])
        cards = "document.querySelector('.cards').textContent"
        assert "decisions1" in browser.value(cards)
        assert browser.complaints == []
        # Its next look is some seconds away: it is asked for now.
        browser.value("new Promise(done => setTimeout(done, 300))")
        book.decide("d1")
        browser.events.clear()
        browser.value("void look()")
        browser.wait_for("Page.loadEventFired")
        assert "decisions2" in browser.value(cards)
        assert browser.complaints == []
    finally:
        browser.show("about:blank")
        opened.end()
