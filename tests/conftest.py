"""What holds for every test: no network, few threads, real data if it is there."""

import os
from pathlib import Path

# Before anything imports numpy or a tokenizer.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["MIXLLM_SPOOL"] = "off"  # tests of it have folders of their own

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
IN_CI = os.environ.get("CI", "").lower() == "true"
LOOPBACK = ["127.0.0.1", "::1"]

# Shared machines stall now and then; CI must judge the same examples each time.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if IN_CI else "here")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Block sockets, as `--disable-socket --allow-unix-socket` would."""
    config.option.disable_socket = True
    config.option.allow_unix_socket = True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests marked `network` reach this machine, and no other."""
    for item in items:
        if item.get_closest_marker("network"):
            item.add_marker(pytest.mark.allow_hosts(LOOPBACK))


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The folder of pyproject.toml."""
    return ROOT


@pytest.fixture(scope="session")
def bench_data() -> Path:
    """The folder of recorded answers; must be there in CI."""
    given = os.environ.get("MIXLLM_BENCH_DATA")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    if (folder / "mmlu_pro.parquet").is_file():
        return folder
    reason = "no recorded answers: set MIXLLM_BENCH_DATA to the folder of the data sets"
    if IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)
