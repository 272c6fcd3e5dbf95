"""A log that is written line by line, and a store in memory that holds it.

And a browser that is spoken to through pipes, so that no test needs a network.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mixllm_integrations.store import Event

START = datetime(2026, 7, 1, tzinfo=UTC)


class LogBook:
    """Events in the order in which they are written, a minute apart."""

    def __init__(self):
        self.events_written = []
        self.asked = []

    def write(self, kind, decision_id, payload, *, at=None):
        place = len(self.events_written)
        at = START + timedelta(minutes=place) if at is None else at
        self.events_written.append(Event(place + 1, kind, decision_id, at, payload))
        return decision_id

    def decide(self, decision_id, candidate="small", *, at=None, **changes):
        """Quality 0.5 and 0.8, cost 0.001 and 0.005 are expected of two."""
        payload = {
            "candidate": candidate,
            "predicted_quality": {"small": 0.5, "large": 0.8}.get(candidate, 0.1),
            "predicted_cost": {"small": 0.001, "large": 0.005}.get(candidate, 0.1),
            "willingness_to_pay": 0.01,
            "exploration": 0.0,
            "waiting_weight": 0.0,
            "explored": False,
            "propensity": 0.5,
            "excluded": {},
            "scores": {
                "candidates": ["small", "large"],
                "quality": [0.5, 0.8],
                "cost": [0.001, 0.005],
                "uncertainty": [0.1, 0.2],
                "waiting_penalty": [0.0, 0.0],
            },
            **changes,
        }
        payload = {key: value for key, value in payload.items() if value is not ...}
        return self.write("decision", decision_id, payload, at=at)

    def answer(self, decision_id, cost=0.002, error=None):
        return self.write("outcome", decision_id, {"cost": cost, "error": error})

    def judge(self, decision_id, reward, kind="binary"):
        payload = {"reward": reward, "kind": kind, "source": None}
        return self.write("feedback", decision_id, payload)

    # The rest makes it an event store.
    def append(self, kind, decision_id, payload):
        self.write(kind, decision_id, payload)
        return True

    def events(self, *, after=0, limit=None):
        self.asked.append((after, limit))
        return iter(self.events_written[after:][:limit])

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.fixture
def book():
    return LogBook()


AT_3_AND_4 = (
    "import os, sys; ends = map(int, sys.argv[1:3]); "
    "[os.dup2(end, place) for place, end in enumerate(ends, 3)]; "
    "os.execv(sys.argv[3], sys.argv[3:])"
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE_SECONDS = 60.0


class Browser:
    """Chromium without a window; its protocol goes through two pipes."""

    def __init__(self, program, folder):
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        # Out of the way of 3 and 4, where the browser looks for them.
        ends = [
            fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser)
        ]
        shim = [sys.executable, "-c", AT_3_AND_4, *map(str, ends)]
        self._process = subprocess.Popen(
            [
                *shim,
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--hide-scrollbars",
                f"--user-data-dir={folder}",
                "--remote-debugging-pipe",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=ends,
        )
        for end in ends:
            os.close(end)
        os.close(to_browser)
        os.close(from_browser)
        self._rest, self._number, self.events = b"", 0, []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **given):
        return self._ask(method, session=self._session, **given)

    def _ask(self, method, *, session=None, **given):
        self._number += 1
        said = {"id": self._number, "method": method, "params": given}
        if session:
            said["sessionId"] = session
        os.write(self._out, json.dumps(said).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._number:
                assert "error" not in told, (method, told)
                return told["result"]
            self.events.append(told)

    def _next(self, patience=PATIENCE_SECONDS):
        end = time.monotonic() + patience
        while b"\0" not in self._rest:
            ready, _, _ = select.select(
                [self._in], [], [], max(end - time.monotonic(), 0)
            )
            assert ready, "the browser says nothing"
            read = os.read(self._in, 1 << 16)
            assert read, "the browser has ended"
            self._rest += read
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def wait_for(self, method):
        while not any(e.get("method") == method for e in self.events):
            self.events.append(self._next())

    def show(self, url, *, width=1280, scheme="light"):
        """Open a page; what it complained about is in `complaints`."""
        height = 1600
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.ask("Emulation.setEmulatedMedia", features=[feature])
        self.events.clear()
        self.ask("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")

    @property
    def complaints(self):
        found = []
        for event in self.events:
            told = event.get("params", {})
            if event.get("method") == "Runtime.consoleAPICalled":
                found.append((told["type"], str(told["args"])))
            elif event.get("method") == "Runtime.exceptionThrown":
                found.append(("exception", str(told["exceptionDetails"])))
            elif event.get("method") == "Log.entryAdded":
                found.append((told["entry"]["level"], told["entry"]["text"]))
        return found

    @property
    def requests(self):
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def value(self, expression):
        result = self.ask(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def picture(self, file):
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        Path(file).write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        os.close(self._out)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)


@pytest.fixture(scope="session")
def browser():
    """A browser; must be there in CI."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        reason = f"no browser to look at pages with: install one of {BROWSERS}"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        opened = Browser(program, folder)
        yield opened
        opened.close()
