"""A routed LLM of LlamaIndex out of a file of candidates."""

import sys
from types import ModuleType

import pytest

from mixllm_integrations.core.errors import ConfigurationError

pytest.importorskip("llama_index.core")

from mixllm_integrations.llama_index import MixLLM
from mixllm_integrations.testing.llama_index import ScriptedLLM

ONE = '[[candidates]]\nmodel = "{}"\n'
PRICED = ONE + "input_cost_per_million_tokens = 1\noutput_cost_per_million_tokens = 2\n"


@pytest.fixture
def write(tmp_path):
    def written(text):
        file = tmp_path / "candidates.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return written


@pytest.fixture
def provider(monkeypatch):
    """Stand in for the packages of two providers; note what they are given."""
    given = []

    def home(module, kind):
        made = ModuleType(f"llama_index.llms.{module}")

        def make(*, model, **arguments):
            if "wrong" in arguments:
                raise ValueError("the key is sk-secret")
            given.append((kind, model, arguments))
            return ScriptedLLM(model=model, answers=[f"{model} says"])

        setattr(made, kind, make)
        monkeypatch.setitem(sys.modules, made.__name__, made)

    home("openai", "OpenAI")
    home("openai_like", "OpenAILike")
    return given


def test_a_file_makes_an_llm_of_the_providers_own_classes(write, provider, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    text = (
        ONE.format("openai:gpt-4o-mini")
        + 'name = "small"\napi_key_env = "MY_KEY"\n'
        + "arguments.temperature = 0.5\ntimeout_seconds = 60\n\n"
        + PRICED.format("openai:llama-3")
        + 'tools = false\narguments.base_url = "http://127.0.0.1:9/v1"\n\n'
        + "[router]\nwillingness_to_pay = 0.5\n"
    )
    llm = MixLLM.from_config(write(text))
    assert provider == [
        ("OpenAI", "gpt-4o-mini", {"temperature": 0.5, "api_key": "sk-secret"}),
        (
            "OpenAILike",
            "llama-3",
            {
                "is_chat_model": True,
                "is_function_calling_model": False,
                "api_base": "http://127.0.0.1:9/v1",
            },
        ),
    ]
    assert [c.name for c in llm.router.candidates] == ["small", "llama-3"]
    assert [c.timeout_seconds for c in llm.candidates] == [60.0, None]
    assert llm.router.willingness_to_pay == 0.5
    assert llm.complete("Hi").text in {"gpt-4o-mini says", "llama-3 says"}


def test_its_own_arguments_replace_those_for_langchain(write, provider, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    text = (
        ONE.format("openai:gpt-4o-mini")
        + 'api_key_env = "MY_KEY"\narguments.stream_usage = true\n'
        + "llama_index.additional_kwargs = { seed = 1 }\n"
    )
    MixLLM.from_config(write(text))
    assert provider[0][2] == {
        "additional_kwargs": {"seed": 1},
        "api_key": "sk-secret",
    }


def test_what_is_passed_goes_before_the_file(write):
    own = ScriptedLLM(model="gpt-4o-mini", answers=["mine"])
    llm = MixLLM.from_config(write(ONE.format("openai:gpt-4o")), candidates=[own])
    assert llm.complete("Hi").text == "mine"
    again = MixLLM.from_config(
        write(ONE.format("openai:gpt-4o")), candidates=[own], router=llm.router
    )
    assert again.router is llm.router


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            PRICED.format("groq:llama-3"),
            r"candidates\[0\].model .*pip install llama-index-llms-groq",
        ),
        (PRICED.format("nobody:x"), "names a provider whose LlamaIndex LLM"),
        (
            PRICED.format("openai:x").replace("model", "name"),
            r"model is missing: a LlamaIndex LLM needs",
        ),
        (
            PRICED.format("openai:gpt-4o") + "arguments.wrong = 1\n",
            r"ValueError.*given were \['wrong'\]",
        ),
    ],
)
def test_what_cannot_be_made_is_told_with_its_key(write, provider, text, told):
    with pytest.raises(ConfigurationError, match=told) as caught:
        MixLLM.from_config(write(text))
    assert "sk-secret" not in str(caught.value)
