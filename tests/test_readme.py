"""What README shows is what happens: every Python block in it runs."""

import ast
import asyncio
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
COMMANDS = ["pip install -e . && mixllm demo", 'pip install -e ".[all,test]" && pytest']
FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>\S*)")
KEY = re.compile(r"_(?:API_KEY|TOKEN|SECRET)$")


@dataclass
class Section:
    """A heading's Python blocks; they share their names."""

    title: str
    blocks: list[tuple[int, str]] = field(default_factory=list)


def sections(text: str) -> list[Section]:
    """Split a README at headings of the second level."""
    found, lines = [Section("top")], text.splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if line.startswith("## "):
            found.append(Section(line.removeprefix("## ").strip()))
        if not (opening := FENCE.match(line)):
            continue
        first = number
        while lines[number].strip() != opening["fence"]:
            number += 1
        if opening["language"] == "python":
            found[-1].blocks.append((first, "\n".join(lines[first:number])))
        number += 1
    return found


def with_code() -> list[Section]:
    return [s for s in sections(README.read_text("utf-8")) if s.blocks]


def test_a_readme_is_split_into_sections_and_blocks() -> None:
    text = (
        "```python\na\n```\n## One\n```console\n$ ls\n```\n```python\nb\nc\n```\n## Two"
    )
    assert sections(text) == [
        Section("top", [(1, "a")]),
        Section("One", [(8, "b\nc")]),
        Section("Two"),
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_shows_the_command_word_for_word(command: str) -> None:
    assert command in README.read_text("utf-8").splitlines()


def test_readme_shows_code() -> None:
    assert with_code()


def imports(block: str) -> bool:
    """Tell whether a block brings what it needs: then a reader may start there."""
    return any(
        isinstance(statement, ast.Import | ast.ImportFrom)
        for statement in ast.parse(block).body
    )


def on_their_own() -> list[tuple[int, str]]:
    return [block for s in with_code() for block in s.blocks if imports(block[1])]


def run(first: int, block: str, names: dict[str, object]) -> None:
    # Empty lines before it, so that an error shows README's own line.
    code = compile("\n" * first + block, str(README), "exec")
    exec(code, names)  # noqa: S102


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Someone without a key, in an empty folder; what is set globally goes back."""
    from llama_index.core import Settings

    for variable in filter(KEY.search, list(os.environ)):
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    before = Settings._llm, Settings._embed_model
    # LlamaIndex's blocking engines would make a loop, and leave it open.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
    Settings._llm, Settings._embed_model = before


@pytest.mark.usefixtures("newcomer")
@pytest.mark.parametrize("section", with_code(), ids=lambda section: section.title)
def test_the_python_of_a_section_runs(section: Section) -> None:
    names: dict[str, object] = {"__name__": "readme"}
    for first, block in section.blocks:
        run(first, block, names)


def test_every_section_begins_with_a_block_that_needs_no_other() -> None:
    assert all(imports(section.blocks[0][1]) for section in with_code())


@pytest.mark.usefixtures("newcomer")
@pytest.mark.parametrize(
    ("first", "block"), on_their_own(), ids=[f"line {n}" for n, _ in on_their_own()]
)
def test_a_block_with_imports_of_its_own_runs_alone(first: int, block: str) -> None:
    run(first, block, {"__name__": "readme"})


@pytest.mark.parametrize("method", ["add_candidate", "remove_candidate"])
def test_candidates_join_and_leave_where_readme_says_so(method: str) -> None:
    from mixllm_integrations import MixLLMChatModel, Router
    from mixllm_integrations.llama_index import MixLLM

    assert f"`{method}`" in README.read_text("utf-8")
    assert hasattr(MixLLMChatModel, method)
    assert hasattr(Router, method)
    assert hasattr(MixLLM, method)


def test_every_control_of_a_call_is_in_readme() -> None:
    from mixllm_integrations.serving import CONTROLS

    (told,) = (
        line
        for line in README.read_text("utf-8").splitlines()
        if line.startswith("**Per call.**")
    )
    assert all(f"`{name}`" in told for name in CONTROLS)


def test_readme_names_the_errors_that_are_pythons_own() -> None:
    from mixllm_integrations import Candidate, MixLLMError, Router

    text = README.read_text("utf-8")
    assert "Every error that is raised on purpose is a `MixLLMError`" not in text
    with pytest.raises(TypeError) as caught:
        Router([Candidate("a", 1.0, 2.0)]).route(7)  # type: ignore[arg-type]
    assert not isinstance(caught.value, MixLLMError)
    assert "`TypeError`" in text


def said() -> str:
    """All that the package can say: its constant strings, blanks counting as one."""
    package = README.parent / "mixllm_integrations"
    texts = []
    for path in sorted(package.rglob("*.py")):
        texts += [
            " ".join(node.value.split())
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    return "\n".join(texts)


def test_what_the_table_of_troubles_quotes_is_what_the_package_says() -> None:
    text = README.read_text("utf-8")
    table = text[text.index("| it says | it means | do |") :].split("\n\n")[0]
    quoted = re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE)
    assert len(quoted) >= 8
    everything = said()
    parts = [part.strip() for quote in quoted for part in quote.split("…")]
    assert [part for part in parts if part not in everything] == []
