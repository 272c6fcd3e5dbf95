"""Real clients of OpenAI and Anthropic at a server on this machine."""

import pytest

from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.testing.wire import LoopbackServer

KEY = "sk-this-must-never-be-seen"


@pytest.fixture(scope="module")
def shared_server():
    with LoopbackServer() as running:
        yield running


@pytest.fixture
def server(shared_server):
    """The server of the module, without scripts of tests before."""
    shared_server.reset()
    return shared_server


@pytest.fixture
def gpt(server):
    """Make a ChatOpenAI at the server; keywords are its own."""
    openai = pytest.importorskip("langchain_openai")

    def make(model="gpt-4o-mini", **settings):
        settings = {"max_retries": 0, "stream_usage": True, **settings}
        return openai.ChatOpenAI(
            model=model, base_url=server.openai_url, api_key=KEY, **settings
        )

    return make


@pytest.fixture
def claude(server):
    """Make a ChatAnthropic at the server; keywords are its own."""
    anthropic = pytest.importorskip("langchain_anthropic")

    def make(model="claude-haiku-4-5", **settings):
        settings = {"max_retries": 0, **settings}
        return anthropic.ChatAnthropic(
            model=model, base_url=server.anthropic_url, api_key=KEY, **settings
        )

    return make


@pytest.fixture
def ranked():
    """Route over models, the best first, all at the same price."""

    def make(*models, facts=None, **settings):
        candidates = [
            CandidateModel(
                model=model,
                input_cost_per_million_tokens=1.0,
                output_cost_per_million_tokens=2.0,
                prior_quality=0.9 - 0.3 * rank,
                **(facts or {}),
            )
            for rank, model in enumerate(models)
        ]
        routed = MixLLMChatModel(candidates=candidates, **settings)
        routed.router.exploration = 0.0
        return routed

    return make
