"""Servers that misbehave, in a process of their own.

The callers' process then does nothing but call. Run as a module it is that
process: it prints the addresses as one line of JSON, obeys one command a line
(``close NAME``, ``come_back NAME``), says ``done``, and ends with its input.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from mixllm_integrations.testing.wire import FAULTS, Fault, LoopbackServer, at_random

__all__ = ["Servers"]

_ENDING_SECONDS = 10.0


class Servers:
    """One server for each of several models; use it in a ``with`` statement.

    Parameters
    ----------
    names
        The models.
    fault_share
        Share of requests that go wrong at each, in [0, 1].
    seed
        Which ones, and how.
    hang_seconds
        For how long those hang that do.

    Attributes
    ----------
    urls
        By name, the base URL for clients of OpenAI's protocol.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        fault_share: float,
        seed: int,
        hang_seconds: float,
    ) -> None:
        told = json.dumps([list(names), fault_share, seed, hang_seconds])
        self._process = subprocess.Popen(  # noqa: S603 - this very module
            [sys.executable, "-m", __name__, told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.urls: dict[str, str] = json.loads(self._heard())

    def close(self, name: str) -> None:
        """Let a server refuse connections from now on.

        Parameters
        ----------
        name
            Its model.
        """
        self._say(f"close {name}")

    def come_back(self, name: str) -> None:
        """Let a closed server listen again.

        Parameters
        ----------
        name
            Its model.
        """
        self._say(f"come_back {name}")

    def __enter__(self) -> Self:
        """Return itself: it runs already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        with self._process as process:
            if process.stdin is not None:
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_ENDING_SECONDS)
            process.kill()

    def _say(self, command: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        print(command, file=self._process.stdin, flush=True)
        self._heard()

    def _heard(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process of the servers has ended")
        return line


def _serve(told: str) -> None:
    names, fault_share, seed, hang_seconds = json.loads(told)
    kinds = {**FAULTS, "hang": Fault(hang_seconds=hang_seconds)}
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(LoopbackServer()) for name in names}
        for place, (name, server) in enumerate(servers.items()):
            rule = at_random(fault_share, seed=len(names) * seed + place, kinds=kinds)
            server.model(name).misbehave(rule)
        urls = {name: server.openai_url for name, server in servers.items()}
        print(json.dumps(urls), flush=True)
        for line in sys.stdin:
            command, name = line.split()
            getattr(servers[name], command)()
            print("done", flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
