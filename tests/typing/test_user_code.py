"""The types that users see are the ones that mypy sees."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def mypy(*files: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *map(str, files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_code_of_users_is_well_typed() -> None:
    result = mypy(HERE / "user_code.py")
    assert result.returncode == 0, result.stdout + result.stderr


def test_wrong_code_of_users_is_found(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from mixllm_integrations import Candidate, Outcome\n"
        "Candidate('a', '1 USD', 2.0)\n"
        "Candidate('a', 1.0, 2.0, prior_qualty=0.5)\n"
        "Outcome(1)\n"
        "Candidate('a', 1.0, 2.0).name + 1\n"
    )
    result = mypy(wrong)
    assert result.returncode == 1
    found = {
        line.split(":")[1] for line in result.stdout.splitlines() if ": error" in line
    }
    assert found == {"2", "3", "4", "5"}


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "mixllm_integrations" / "py.typed").is_file()
