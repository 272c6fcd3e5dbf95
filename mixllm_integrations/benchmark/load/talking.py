"""A process of its own that is told things, one line of JSON each way."""

import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from mixllm_integrations.core.errors import MixLLMError

__all__ = ["Talking", "hushed", "quiet", "serve"]

_ENDING_SECONDS = 20.0
_LOGGER = logging.getLogger("mixllm_integrations")


class Talking:
    """A process that answers; use it in a ``with`` statement.

    Parameters
    ----------
    module
        What it runs: a module that calls `serve`.
    first
        What it is told first, on its input, where no other process sees it.
    environment
        Variables that it has beside those of this process.

    Raises
    ------
    MixLLMError
        If it ends before it has said that it is ready.
    """

    def __init__(
        self,
        module: str,
        first: Mapping[str, Any],
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - a module of this package
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.tell(first)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def tell(self, what: Mapping[str, Any]) -> None:
        """Send one line.

        Parameters
        ----------
        what
            Anything that JSON can hold.
        """
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(BrokenPipeError):  # `heard` says so
            print(json.dumps(what), file=self._process.stdin, flush=True)

    def heard(self) -> Any:  # noqa: ANN401 - JSON
        """Wait for one line.

        Raises
        ------
        MixLLMError
            If the process has ended.
        """
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise MixLLMError(
                "a process that was to be measured has ended: "
                f"{self._process.wait(_ENDING_SECONDS)}"
            )
        return json.loads(line)

    def ask(self, what: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """Send one line and wait for one.

        Parameters
        ----------
        what
            Anything that JSON can hold.
        """
        self.tell(what)
        return self.heard()

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
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_ENDING_SECONDS)
            process.kill()


def quiet() -> None:
    """Tell no failures that are meant to happen, nor what is learned from them."""
    _LOGGER.setLevel(logging.ERROR)


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Be `quiet`, but only for a while."""
    level = _LOGGER.level
    quiet()
    try:
        yield
    finally:
        _LOGGER.setLevel(level)


def serve(made: Callable[[dict[str, Any]], Callable[[dict[str, Any]], Any]]) -> None:
    """Answer each line of the input, until it ends.

    Parameters
    ----------
    made
        Makes of the first line what answers the others; ``"ready"`` is said then.
    """
    answer = made(json.loads(sys.stdin.readline()))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
