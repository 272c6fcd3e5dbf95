"""A provider on this machine, and a run of the command as a user starts it."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest

from mixllm_integrations.cli import main

COMMAND = "from mixllm_integrations.cli import main; main()"
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST")


@dataclass
class Provider:
    """Speaks the chat protocols of OpenAI and Ollama, and notes what was asked."""

    url: str
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    status: int = 200
    ollama_models: tuple[str, ...] = ()

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.requests.append((path, body))
        if self.status != 200:
            error = {"message": "no, said the provider", "type": "refused"}
            return self.status, {"error": error}
        if path == "/api/tags":
            return 200, {"models": [{"name": name} for name in self.ollama_models]}
        if path == "/api/chat":
            return 200, {
                "model": body["model"],
                "created_at": "2026-01-01T00:00:00Z",
                "message": {"role": "assistant", "content": "from ollama"},
                "done": True,
                "done_reason": "stop",
                "prompt_eval_count": 11,
                "eval_count": 3,
            }
        assert path == "/v1/chat/completions", path
        return 200, {
            "id": "chat-1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": "from openai"},
                }
            ],
            "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25},
        }


@pytest.fixture
def provider() -> Iterator[Provider]:
    """A provider that is served on the loopback for the length of a test."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            self._answer(json.loads(self.rfile.read(length)))

        def _answer(self, body: dict[str, Any]) -> None:
            status, told = served.reply(self.path, body)
            content = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Provider(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


class Finished(NamedTuple):
    """What a run of the command left behind."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def mixllm(monkeypatch, capsys):
    """Run `mixllm` in this process."""
    for key in KEYS:
        monkeypatch.delenv(key, raising=False)

    def run(*arguments: str, **environment: str) -> Finished:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["mixllm", *arguments])
        code: object = 0
        try:
            main()
        except SystemExit as left:
            code = left.code or 0
        assert isinstance(code, int)
        return Finished(code, *capsys.readouterr())

    return run


@pytest.fixture
def mixllm_process():
    """Run `mixllm` in a process of its own, as a user does, without keys."""

    def run(*arguments: str, **environment: str) -> Finished:
        inherited = {k: v for k, v in os.environ.items() if k not in KEYS}
        finished = subprocess.run(
            [sys.executable, "-c", COMMAND, *arguments],
            env={**inherited, "PYTHONIOENCODING": "utf-8", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=120,
        )
        return Finished(finished.returncode, finished.stdout, finished.stderr)

    return run
