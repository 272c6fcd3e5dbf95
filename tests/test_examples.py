"""Every example runs as a newcomer would run it: without a key."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))
KEY = re.compile(r"_(?:API_KEY|TOKEN|SECRET)$")


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_without_a_key_and_shows_something(path, tmp_path) -> None:
    environment = {n: v for n, v in os.environ.items() if not KEY.search(n)}
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "error"}
    # With recorded answers, the one that replays them runs in test_main_job.
    environment["MIXLLM_BENCH_DATA"] = str(tmp_path)
    run = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-4_000:]
    assert run.stdout.strip()
