"""LangChain's standard suites over chat models that answer by script.

``python -m mixllm_integrations.benchmark.conformance_probe FILE`` runs them with
pytest and writes the outcome of each test to FILE as JSON. What configures that
run is here and nowhere else. `mixllm_integrations.benchmark.conformance` starts it.
"""

import base64
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from mixllm_integrations.benchmark.call_figures import BARE, RIVAL
from mixllm_integrations.benchmark.chat_probe import without_tracing
from mixllm_integrations.benchmark.conformance import OURS
from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.testing import ScriptedChatModel

__all__ = [
    "Everything",
    "Outcomes",
    "TestBareIntegration",
    "TestBareUnit",
    "TestOursIntegration",
    "TestOursUnit",
    "main",
]

# One white pixel; the suites would load files from the network.
_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mP8/x8AAwMCAO+ip1sAAAAA"
    "SUVORK5CYII="
)
_PRICES = {"small": 0.1, "other": 1.0, "large": 9.0}
_CONFIGURATION = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
addopts =
    --import-mode=importlib --noconftest --disable-socket --allow-unix-socket
    --benchmark-disable -p no:cacheprovider
"""
_PYTEST_RAN = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)


class Everything:
    """Every optional test that works without a network."""

    supports_json_mode = True
    supports_anthropic_inputs = True
    supports_image_inputs = True
    supports_image_urls = True
    supports_image_tool_message = True
    supports_pdf_inputs = True
    supports_pdf_tool_message = True
    supports_audio_inputs = True
    supports_video_inputs = True
    supports_model_override = True
    model_override_value = "other"

    @pytest.fixture(autouse=True)
    def _files_without_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            httpx, "get", lambda _url, **_: httpx.Response(200, content=_PIXEL)
        )


class _Bare(Everything):
    who = BARE

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ScriptedChatModel


class _Ours(Everything):
    who = OURS

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return MixLLMChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "candidates": [
                CandidateModel(
                    model=ScriptedChatModel(model=name),
                    input_cost_per_million_tokens=price,
                    output_cost_per_million_tokens=price,
                )
                for name, price in _PRICES.items()
            ]
        }


class TestBareUnit(_Bare, ChatModelUnitTests):
    """The scripted model alone, which shows what can be passed."""

    suite = "unit"


class TestBareIntegration(_Bare, ChatModelIntegrationTests):
    """The same, called."""

    suite = "integration"


class TestOursUnit(_Ours, ChatModelUnitTests):
    """Scripted models behind our router."""

    suite = "unit"


class TestOursIntegration(_Ours, ChatModelIntegrationTests):
    """The same, called."""

    suite = "integration"


if find_spec("langchain_model_router") is not None:
    from langchain_model_router import ChatRouter

    class _Rival(Everything):
        who = RIVAL

        @property
        def chat_model_class(self) -> type[BaseChatModel]:
            return ChatRouter

        @property
        def chat_model_params(self) -> dict[str, Any]:
            return {
                "routes": {name: ScriptedChatModel(model=name) for name in _PRICES},
                "default_route": next(iter(_PRICES)),
                "strategy": lambda _request: next(iter(_PRICES)),
            }

    class TestRivalUnit(_Rival, ChatModelUnitTests):
        """Scripted models behind langchain-model-router."""

        suite = "unit"

    class TestRivalIntegration(_Rival, ChatModelIntegrationTests):
        """The same, called."""

        suite = "integration"

    __all__ += ["TestRivalIntegration", "TestRivalUnit"]


class Outcomes:
    """A plugin of pytest that notes how each test ended, and why.

    Attributes
    ----------
    found
        One dict for each test: ``who``, ``suite``, ``test``, ``outcome`` and
        ``reason``, the first line of what was said; empty if it passed.
    """

    def __init__(self) -> None:
        self.found: list[dict[str, str]] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Any:  # noqa: ANN401
        """Note a test's own report, or that of a fixture which kept it from one."""
        report = yield
        if report.when == "call" or not report.passed:
            kind: Any = getattr(item, "cls", None)
            self.found.append(
                {
                    "who": kind.who,
                    "suite": kind.suite,
                    "test": item.name,
                    "outcome": report.outcome,
                    "reason": _reason(report),
                }
            )
        return report


def _reason(report: pytest.TestReport) -> str:
    told = report.longrepr
    if isinstance(told, tuple):  # where, and why it was skipped
        text = told[2].removeprefix("Skipped: ")
    else:
        crash = getattr(told, "reprcrash", None)
        text = str(told or "") if crash is None else crash.message
    return text.partition("\n")[0]


def main() -> None:
    """Run the suites and write what came of them."""
    file = Path(sys.argv[1]).resolve()
    without_tracing()
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        os.environ.pop(name, None)
    os.environ["LANGCHAIN_TESTS_USER_AGENT"] = "mixllm-tests"
    outcomes = Outcomes()
    with TemporaryDirectory() as temporary:
        os.chdir(temporary)  # whatever a plugin writes goes away with it
        settings = Path(temporary, "pytest.ini")
        settings.write_text(_CONFIGURATION, encoding="utf-8")
        chosen = ["-c", str(settings), "--rootdir", temporary, __file__]
        ended = pytest.main(chosen, plugins=[outcomes])
        os.chdir(file.parent)  # some systems keep the folder that one is in
    if ended not in _PYTEST_RAN:
        sys.exit(f"pytest ended with {ended!r}")
    file.write_text(json.dumps(outcomes.found), encoding="utf-8")


if __name__ == "__main__":
    main()
