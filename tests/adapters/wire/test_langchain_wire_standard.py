"""Both standard suites over real clients on the wire, bare and routed.

What a bare client passes, a routed pool of such clients has to pass, and a mixed
pool what both kinds of clients pass: the last test compares which tests ran.
"""

import base64

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.testing.wire import LoopbackServer

ChatOpenAI = pytest.importorskip("langchain_openai").ChatOpenAI
ChatAnthropic = pytest.importorskip("langchain_anthropic").ChatAnthropic

pytestmark = [
    pytest.mark.network,
    # Each is raised by a client of itself, also without a router around it.
    pytest.mark.filterwarnings(
        "ignore:Pydantic serializer warnings:UserWarning",
        "ignore:Received a Pydantic BaseModel V1 schema:UserWarning",
        "ignore:Unrecognized structured output method 'json_mode':UserWarning",
        "ignore:OpenAI may require a filename for file uploads:UserWarning",
    ),
]

# One white pixel; the suite would load files from the network.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mP8/x8AAwMCAO+ip1sAAAAA"
    "SUVORK5CYII="
)


@pytest.fixture(scope="module")
def lenient_server():
    """One that overlooks cache_control at OpenAI's protocol, as OpenAI does."""
    with LoopbackServer(strict_keys=False) as running:
        yield running


@pytest.fixture(autouse=True)
def served(request, monkeypatch, lenient_server):
    monkeypatch.setenv("LANGCHAIN_TESTS_USER_AGENT", "mixllm-tests")
    monkeypatch.setattr(
        httpx, "get", lambda url, **kwargs: httpx.Response(200, content=PIXEL)
    )
    if request.cls is not None:
        request.cls.server = lenient_server


@pytest.fixture
def snapshot():
    pytest.skip("there is no recorded snapshot")


@pytest.fixture
def benchmark(benchmark):
    benchmark.disabled = True  # once is enough to see that it works
    return benchmark


class Everything:
    """What both providers can do."""

    server: LoopbackServer
    supports_image_inputs = True
    supports_image_urls = True
    supports_pdf_inputs = True
    supports_anthropic_inputs = True
    supports_model_override = True

    def gpt(self, name, **settings):
        return {
            "model": name,
            "base_url": self.server.openai_url,
            "api_key": "unused",
            "stream_usage": True,
            **settings,
        }

    def claude(self, name):
        return {
            "model": name,
            "base_url": self.server.anthropic_url,
            "api_key": "unused",
        }


class Routed(Everything):
    chat_model_class = MixLLMChatModel

    @property
    def chat_model_params(self):
        return {"candidates": self.candidates()}

    def candidates(self) -> list[BaseChatModel | CandidateModel]:
        raise NotImplementedError


class OfOpenAI:
    supports_json_mode = True
    model_override_value = "gpt-4.1"


class BareOpenAI(OfOpenAI, Everything):
    chat_model_class = ChatOpenAI

    @property
    def chat_model_params(self):
        return self.gpt("gpt-4o-mini")


class RoutedOpenAI(OfOpenAI, Routed):
    def candidates(self):
        return [ChatOpenAI(**self.gpt(name)) for name in ("gpt-4o-mini", "gpt-4.1")]


class OfResponses:
    """OpenAI's other protocol, where a tool may answer with an image."""

    supports_json_mode = True
    supports_image_tool_message = True
    supports_pdf_tool_message = True
    model_override_value = "gpt-4.1"


class BareResponses(OfResponses, Everything):
    chat_model_class = ChatOpenAI

    @property
    def chat_model_params(self):
        return self.gpt("gpt-4o-mini", use_responses_api=True)


class RoutedResponses(OfResponses, Routed):
    def candidates(self):
        return [
            ChatOpenAI(**self.gpt(name, use_responses_api=True))
            for name in ("gpt-4o-mini", "gpt-4.1")
        ]


class OfAnthropic:
    supports_image_tool_message = True
    supports_pdf_tool_message = True
    model_override_value = "claude-opus-4-6"


class BareAnthropic(OfAnthropic, Everything):
    chat_model_class = ChatAnthropic

    @property
    def chat_model_params(self):
        return self.claude("claude-haiku-4-5")


class RoutedAnthropic(OfAnthropic, Routed):
    def candidates(self):
        return [
            ChatAnthropic(**self.claude(name))
            for name in ("claude-haiku-4-5", "claude-opus-4-6")
        ]


class Mixed(Routed):
    """One of each, of which `best` answers unless another one is asked for."""

    best: str

    def candidates(self):
        models = [
            ChatOpenAI(**self.gpt("gpt-4.1")),
            ChatAnthropic(**self.claude("claude-opus-4-6")),
        ]
        return [
            CandidateModel(model=m, prior_quality=0.9 if m.model == self.best else 0.1)
            for m in models
        ]


class MixedOpenAIBest(Mixed):
    best = "gpt-4.1"
    model_override_value = "claude-opus-4-6"


class MixedAnthropicBest(Mixed):
    best = "claude-opus-4-6"
    model_override_value = "gpt-4.1"


class TestBareOpenAIUnit(BareOpenAI, ChatModelUnitTests):
    pass


class TestBareOpenAI(BareOpenAI, ChatModelIntegrationTests):
    pass


class TestRoutedOpenAIUnit(RoutedOpenAI, ChatModelUnitTests):
    pass


class TestRoutedOpenAI(RoutedOpenAI, ChatModelIntegrationTests):
    pass


class TestBareResponses(BareResponses, ChatModelIntegrationTests):
    pass


class TestRoutedResponses(RoutedResponses, ChatModelIntegrationTests):
    pass


class TestBareAnthropicUnit(BareAnthropic, ChatModelUnitTests):
    pass


class TestBareAnthropic(BareAnthropic, ChatModelIntegrationTests):
    pass


class TestRoutedAnthropicUnit(RoutedAnthropic, ChatModelUnitTests):
    pass


class TestRoutedAnthropic(RoutedAnthropic, ChatModelIntegrationTests):
    pass


class TestMixedUnit(MixedOpenAIBest, ChatModelUnitTests):
    pass


class TestMixedOpenAIBest(MixedOpenAIBest, ChatModelIntegrationTests):
    pass


class TestMixedAnthropicBest(MixedAnthropicBest, ChatModelIntegrationTests):
    pass


@pytest.fixture
def passed(request):
    """Names of the tests that passed, by suite; skips if not all of them ran."""
    outcomes = {}
    for item in request.session.items:
        if getattr(item, "module", None) is request.module and item.cls:
            found = outcomes.setdefault(item.cls.__name__, {})
            found[item.name] = getattr(item, "outcome", "did not run")
    if len(outcomes) < 13 or "did not run" in str(outcomes):
        pytest.skip("only a part of this file was selected")
    return {
        suite: {name for name, outcome in found.items() if outcome == "passed"}
        for suite, found in outcomes.items()
    }


@pytest.mark.parametrize(
    "suite", ["OpenAIUnit", "OpenAI", "Responses", "AnthropicUnit", "Anthropic"]
)
def test_a_routed_pool_passes_what_its_bare_client_passes(passed, suite):
    assert passed[f"TestRouted{suite}"] == passed[f"TestBare{suite}"]
    assert len(passed[f"TestBare{suite}"]) >= (8 if suite.endswith("Unit") else 40)


@pytest.mark.parametrize("suite", ["TestMixedOpenAIBest", "TestMixedAnthropicBest"])
def test_a_mixed_pool_passes_what_both_bare_clients_pass(passed, suite):
    both = passed["TestBareOpenAI"] & passed["TestBareAnthropic"]
    assert both - passed[suite] == set()
    unit = passed["TestBareOpenAIUnit"] & passed["TestBareAnthropicUnit"]
    assert unit - passed["TestMixedUnit"] == set()


def test_nothing_is_skipped_but_what_is_known(passed, request):
    skipped = {
        item.name
        for item in request.session.items
        if getattr(item, "module", None) is request.module
        and item.cls
        and item.outcome != "passed"
    }
    assert skipped == {
        "test_init_from_env",  # there is no variable to be made from
        "test_serdes",  # no recorded snapshot
        "test_stream_time",  # no recorded network
        "test_audio_inputs",  # none of these models hears
        "test_image_tool_message",  # not in Chat Completions
        "test_pdf_tool_message",
        "test_json_mode",  # not at Anthropic
    }
