"""A routed chat model out of a file of candidates, over real clients."""

import pytest

from mixllm_integrations import (
    Candidate,
    CandidateModel,
    ConfigurationError,
    MixLLMChatModel,
    Router,
)
from mixllm_integrations.testing import ScriptedChatModel
from mixllm_integrations.testing.wire import Usage

pytestmark = pytest.mark.network

KEY = "sk-this-must-never-be-seen"
FILE = """
[[candidates]]
model = "openai:gpt-4o-mini"
name = "small"
api_key_env = "MY_OPENAI_KEY"
timeout_seconds = 20
[candidates.arguments]
base_url = "{openai}"
max_retries = 0

[[candidates]]
model = "anthropic:claude-haiku-4-5"
name = "large"
input_cost_per_million_tokens = 3
output_cost_per_million_tokens = 15
vision = true
[candidates.arguments]
base_url = "{anthropic}"
max_retries = 0
[candidates.arguments_env]
api_key = "MY_OPENAI_KEY"

[router]
willingness_to_pay = 0.000001
exploration = 0

[serving]
store = "{store}"
"""


@pytest.fixture
def file(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_OPENAI_KEY", KEY)
    server.model("gpt-4o-mini", answers=["small says"], usage=Usage(10, 2))
    server.model("claude-haiku-4-5", answers=["large says"], usage=Usage(10, 2))
    path = tmp_path / "candidates.toml"
    text = FILE.format(
        openai=server.openai_url,
        anthropic=server.anthropic_url,
        store=f"sqlite:///{tmp_path / 'log.db'}",
    )
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_makes_a_model_that_answers(file, server):
    model = MixLLMChatModel.from_config(file)
    answer = model.invoke("What is 2 + 2?")
    assert answer.content == "small says"
    (request,) = server.requests_to("gpt-4o-mini")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert model.invoke("What is 2 + 2?", candidate="large").content == "large says"
    small, large = model.router.candidates
    assert (small.input_cost_per_million_tokens, small.context_window) == (
        0.15,
        128_000,
    )
    assert (large.output_cost_per_million_tokens, large.vision) == (15.0, True)
    assert model.willingness_to_pay is None
    assert model.router.willingness_to_pay == 0.000001
    assert KEY not in repr(model)
    assert (file.parent / "log.db").is_file()


def test_what_is_passed_goes_before_the_file(file):
    other = CandidateModel(
        model=ScriptedChatModel(answers=["other says"]),
        name="other",
        input_cost_per_million_tokens=0,
        output_cost_per_million_tokens=0,
    )
    model = MixLLMChatModel.from_config(
        file, candidates=[other], store=None, cooldown_seconds=1.0
    )
    assert model.invoke("Hi").content == "other says"
    assert (model.store, model.cooldown_seconds) == (None, 1.0)
    assert [c.name for c in model.router.candidates] == ["other"]
    assert model.router.willingness_to_pay == 0.000001
    router = Router([Candidate("small", 1.0, 1.0)])
    assert MixLLMChatModel.from_config(file, router=router).router is router


def test_a_missing_key_is_told_with_the_line(file, monkeypatch):
    monkeypatch.delenv("MY_OPENAI_KEY")
    with pytest.raises(ConfigurationError, match=r"line 5: .*api_key_env.*MY_OPENAI"):
        MixLLMChatModel.from_config(file)
