"""The house stays as it was drawn: who imports whom, what lies where."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mixllm_integrations"
TOP = {
    ".ci",
    ".github",
    ".gitignore",
    "LICENSE",
    "README.md",
    "examples",
    "mixllm_integrations",
    "pyproject.toml",
    "tests",
}
HEAVY = {
    "langchain_core",
    "llama_index",
    "matplotlib",
    "numpy",
    "pandas",
    "plotly",
    "pyarrow",
    "redis",
    "rich",
    "scipy",
    "sentence_transformers",
    "sklearn",
    "sqlalchemy",
    "tokenizers",
    "torch",
    "transformers",
    "typer",
}


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )


def project_files() -> list[Path]:
    """What is in git, or would be: everything that is not ignored."""
    listing = run(
        "git",
        *("-c", f"safe.directory={ROOT}"),
        *("ls-files", "--cached", "--others", "--exclude-standard", "-z"),
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout: what belongs to the project is unknown")
    paths = (ROOT / name for name in listing.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]


def test_rooms_import_only_from_those_below() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    result = run(str(linter), "--no-cache")
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", result.stdout)


def loaded_by(statement: str) -> set[str]:
    code = (
        f"import sys, json; before = set(sys.modules); {statement}; "
        "print(json.dumps([m.split('.')[0] for m in set(sys.modules) - before]))"
    )
    result = run(sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import mixllm_integrations") & HEAVY == set()


def test_importing_the_core_loads_no_framework() -> None:
    heavy = loaded_by(
        "from mixllm_integrations import Candidate, Router, StaticEncoder"
    )
    assert heavy & HEAVY <= {"numpy", "tokenizers"}


def test_importing_a_room_of_no_framework_loads_none() -> None:
    rooms = ("store", "serving", "report", "benchmark", "training", "plots")
    statement = ", ".join(f"mixllm_integrations.{room}" for room in rooms)
    frameworks = {"llama_index", "torch", "sentence_transformers", "matplotlib"}
    assert loaded_by(f"import {statement}") & frameworks == set()


def test_no_module_has_more_than_400_lines() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert lengths
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def test_the_top_of_the_project_holds_what_the_design_lists() -> None:
    found = {path.relative_to(ROOT).parts[0] for path in project_files()}
    assert found - TOP == set()
    assert TOP - found == set()


def test_the_dot_folders_hold_what_the_design_lists() -> None:
    found = {path.relative_to(ROOT).as_posix() for path in project_files()}
    assert {f for f in found if f.startswith(".ci/")} == {".ci/run"}
    github = {f.split("/")[1] for f in found if f.startswith(".github/")}
    assert github <= {"CONTRIBUTING.md", "CHANGELOG.md", "benchmarks"}


def test_no_test_folder_shadows_a_framework_or_is_a_package() -> None:
    inside = [path for path in (ROOT / "tests").rglob("*") if path.is_dir()]
    assert not {p.name for p in inside} & {"langchain", "llama_index", "tokenizers"}
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_no_file_names_a_place_on_the_machine_it_was_written_on() -> None:
    # Put together here, so that this file does not name one either.
    roots = "|".join(("home", "root", "Users", "work", "mnt", "workspace"))
    place = re.compile(rf"(?<![\w./~-])/(?:{roots})/[\w.-]+|[A-Z]:\\Users\\")
    assert place.search("open('/" + "home/someone/file')")
    found = {}
    for path in project_files():
        content = path.read_bytes()
        if b"\0" in content:
            continue
        if match := place.search(content.decode("utf-8")):
            found[str(path.relative_to(ROOT))] = match.group()
    assert found == {}


def test_no_recorded_answers_are_committed() -> None:
    names = [path.relative_to(ROOT).as_posix() for path in project_files()]
    assert [n for n in names if n.endswith((".parquet", ".pkl", ".joblib"))] == []
