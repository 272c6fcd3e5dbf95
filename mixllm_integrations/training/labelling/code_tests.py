"""Runs tests against code that a model wrote. Read this before you allow it.

The code runs as you, on this machine: in a process of its own, in an empty
folder, without your environment variables, with limits on time, memory and the
size of files. That stops endless loops and accidents. **It is no sandbox**: the
code can read your files and use your network. Run it in a container, or do not
allow it, if your prompts or the models are not to be trusted.
"""

import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["code_in", "passes"]

_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_READ_BYTES = 4_096
_MOST_FILE_BYTES = 1_000_000

# The token is printed after the tests only, so code that ends early fails; who sets
# out to cheat can still find it.
_HARNESS = """
import sys
token = sys.stdin.readline()
try:
    import resource
    for what, most in (("AS", {memory}), ("CPU", {seconds}), ("FSIZE", {size})):
        try:
            resource.setrlimit(getattr(resource, "RLIMIT_" + what), (most, most))
        except (ValueError, OSError):
            pass
except ImportError:
    pass
scope = {{"__name__": "answer"}}
for name in ("answer.py", "tests.py"):
    with open(name, encoding="utf-8") as file:
        exec(compile(file.read(), name, "exec"), scope)
sys.stdout.flush()
sys.__stdout__.write("\\n" + token)
"""


def code_in(answer: str) -> str:
    """Return the code in an answer.

    Parameters
    ----------
    answer
        Text of a model.

    Returns
    -------
    str
        All fenced blocks, one after the other; the whole text if there is none.

    Examples
    --------
    >>> print(code_in("Here: " + "`" * 3 + "python" + chr(10) + "x = 1" + chr(10)
    ...               + "`" * 3 + " Good luck."))
    x = 1
    <BLANKLINE>
    """
    blocks = _FENCED.findall(answer)
    return "\n".join(blocks) if blocks else answer


def passes(
    answer: str,
    tests: str,
    *,
    timeout_seconds: float = 10.0,
    memory_bytes: int = 1_000_000_000,
) -> bool:
    """Tell whether the code in an answer passes tests.

    Parameters
    ----------
    answer
        Text of a model.
    tests
        Python that runs after the answer's code, in its scope, and raises if
        that is wrong, mostly by ``assert``.
    timeout_seconds
        Of time on the clock, and of the processor.
    memory_bytes
        How much it may use, where the system can limit that.

    Returns
    -------
    bool
        False also if it runs too long, uses too much or ends before its tests.
    """
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="mixllm-code-") as folder:
        place = Path(folder)
        (place / "answer.py").write_text(code_in(answer), encoding="utf-8")
        (place / "tests.py").write_text(tests, encoding="utf-8")
        harness = _HARNESS.format(
            memory=memory_bytes,
            seconds=max(int(timeout_seconds), 1),
            size=_MOST_FILE_BYTES,
        )
        said = place / "said"
        with said.open("wb") as out:
            process = subprocess.Popen(  # noqa: S603 - what the module is for
                [sys.executable, "-I", "-c", harness],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                start_new_session=True,
            )
            try:
                process.communicate(token.encode(), timeout=timeout_seconds)
            except subprocess.TimeoutExpired:
                return False
            finally:
                _end(process)
        if process.returncode != 0:
            return False
        with said.open("rb") as read:
            read.seek(0, os.SEEK_END)
            read.seek(max(read.tell() - _READ_BYTES, 0))
            return read.read().endswith(b"\n" + token.encode())


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and all that it started."""
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:  # pragma: no cover - Windows
            process.kill()
    process.wait()
