"""LangChain's standard suites: what a bare model passes, and what routers pass.

Run ``mixllm benchmark conformance``. A scripted chat model goes through the
unit and the integration tests of langchain-tests, alone, behind our router, and
behind langchain-model-router's where that is installed, with every optional
test that works without a network. Whatever the bare model passes, one around it
could pass.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from mixllm_integrations.benchmark.call_figures import BARE
from mixllm_integrations.benchmark.overhead import run_python
from mixllm_integrations.benchmark.versions import package_versions
from mixllm_integrations.core.errors import ConfigurationError

__all__ = [
    "OURS",
    "Conformance",
    "Shortfall",
    "Standing",
    "compare_outcomes",
    "print_conformance",
    "run_conformance",
]

OURS = "MixLLMChatModel"

_PROBE = "mixllm_integrations.benchmark.conformance_probe"
_NEEDED = {"pytest": "pytest", "langchain-tests": "langchain_tests"}
_COMPARED = ("langchain-core", "langchain-tests", "langchain-model-router")
_DID_NOT_RUN: Mapping[str, str] = {"outcome": "did not run", "reason": ""}


@dataclass(frozen=True, slots=True)
class Standing:
    """How many tests a chat model passed.

    Parameters
    ----------
    who
        Which one.
    passed, skipped, failed
        Numbers of tests of both suites.
    """

    who: str
    passed: int
    skipped: int
    failed: int


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A test that the bare model passes and another one does not.

    Parameters
    ----------
    who
        Which one.
    suite, test
        ``"unit"`` or ``"integration"``, and the test's name.
    outcome
        ``"failed"``, ``"skipped"`` or ``"did not run"``.
    reason
        First line of what the test said.
    """

    who: str
    suite: str
    test: str
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class Conformance:
    """What came of the standard suites.

    Parameters
    ----------
    command, versions
        How and with what they were run.
    standings
        One for each chat model, the bare one first.
    shortfalls
        What the others lack of what it passes.
    """

    command: str
    versions: dict[str, str]
    standings: tuple[Standing, ...]
    shortfalls: tuple[Shortfall, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain lists, numbers and strings."""
        return asdict(self)


def run_conformance(*, command: str = "") -> Conformance:
    """Run the standard suites in a process of its own.

    Parameters
    ----------
    command
        Noted in the result.

    Returns
    -------
    Conformance
        Without the rival where it is not installed.

    Raises
    ------
    ConfigurationError
        If pytest or langchain-tests is not installed.
    MixLLMError
        If the suites could not be run.
    """
    missing = [name for name, module in _NEEDED.items() if find_spec(module) is None]
    if missing:
        raise ConfigurationError(
            f"the standard suites need {' and '.join(missing)}: "
            "pip install 'mixllm-integrations[test]'"
        )
    with TemporaryDirectory() as temporary:
        file = Path(temporary, "outcomes.json")
        run_python("-m", _PROBE, str(file))
        outcomes = json.loads(file.read_text(encoding="utf-8"))
    standings, shortfalls = compare_outcomes(outcomes)
    return Conformance(command, package_versions(_COMPARED), standings, shortfalls)


def compare_outcomes(
    outcomes: Sequence[Mapping[str, str]],
) -> tuple[tuple[Standing, ...], tuple[Shortfall, ...]]:
    """Return how each chat model stands, and what it lacks.

    Parameters
    ----------
    outcomes
        One for each test: ``who``, ``suite``, ``test``, ``outcome``, ``reason``.
        One test may have several, as when it fails and its end does too: the
        last one counts.

    Examples
    --------
    >>> test = {"suite": "unit", "test": "test_init", "reason": ""}
    >>> bare = {"who": "bare model", "outcome": "passed"} | test
    >>> other = {"who": "other", "outcome": "skipped"} | test
    >>> standings, (lacking,) = compare_outcomes([bare, other])
    >>> standings[1]
    Standing(who='other', passed=0, skipped=1, failed=0)
    >>> lacking.who, lacking.test, lacking.outcome
    ('other', 'test_init', 'skipped')
    """
    by_who: dict[str, dict[tuple[str, str], Mapping[str, str]]] = {}
    for found in outcomes:
        by_who.setdefault(found["who"], {})[found["suite"], found["test"]] = found
    standings, shortfalls = [], []
    passed = [
        key for key, found in by_who[BARE].items() if found["outcome"] == "passed"
    ]
    for who, ended in by_who.items():
        count = Counter(found["outcome"] for found in ended.values())
        numbers = (count[outcome] for outcome in ("passed", "skipped", "failed"))
        standings.append(Standing(who, *numbers))
        for suite, test in passed:
            found = ended.get((suite, test), _DID_NOT_RUN)
            if found["outcome"] != "passed":
                shortfalls.append(
                    Shortfall(who, suite, test, found["outcome"], found["reason"])
                )
    standings.sort(key=lambda standing: standing.who != BARE)
    return tuple(standings), tuple(shortfalls)


def print_conformance(found: Conformance, console: Console) -> None:
    """Print how each chat model stands.

    Parameters
    ----------
    found
        What came of the suites.
    console
        Where to.
    """
    versions = (f"{name} {found.versions[name]}" for name in _COMPARED)
    table = Table(
        title="Standard suites of LangChain",
        caption=", ".join(versions),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("who", no_wrap=True)
    heads = ("passed", "skipped", "failed")
    for head in heads:
        table.add_column(head, justify="right")
    for standing in found.standings:
        numbers = (str(getattr(standing, head)) for head in heads)
        table.add_row(standing.who, *numbers)
    console.print(table)
    for lacking in found.shortfalls:
        console.print(
            f"{lacking.who} {lacking.outcome} {lacking.test} ({lacking.suite}): "
            f"{lacking.reason}",
            markup=False,
        )
    if not found.shortfalls:
        console.print(f"All pass what the {BARE} passes.")
