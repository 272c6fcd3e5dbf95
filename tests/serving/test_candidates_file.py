"""What a file of candidates may say, and what is told of one that is wrong."""

import json
import pickle

import pytest

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving import chat_models
from mixllm_integrations.serving.candidates_file import (
    CandidatesFileError,
    read_candidates_file,
)
from mixllm_integrations.serving.chat_models import (
    arguments_of,
    chat_model,
    configured_router,
    serving_settings,
)

WHOLE = """
[[candidates]]
model = "openai:gpt-4o-mini"

[[candidates]]
model = "openai:local-llama"
name = "local"
input_cost_per_million_tokens = 0
output_cost_per_million_tokens = 0.5
context_window = 8192
vision = false
timeout_seconds = 30
api_key_env = "MY_KEY"
[candidates.arguments]
base_url = "http://127.0.0.1:9/v1"
[candidates.arguments_env]
organization = "MY_ORGANISATION"

[judge]
model = "openai:gpt-4o"

[router]
willingness_to_pay = 0.02
seed = 3

[serving]
cooldown_seconds = 5
"""


@pytest.fixture
def write(tmp_path):
    def written(text, name="candidates.toml"):
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return file

    return written


def test_a_whole_file_is_read(write):
    file = read_candidates_file(write(WHOLE))
    first, second = file.facts()
    assert first == Candidate("gpt-4o-mini", 0.15, 0.6)  # the list price
    assert second == Candidate("local", 0.0, 0.5, context_window=8192, vision=False)
    assert file.judge.model_name == "gpt-4o"
    assert serving_settings(file) == {"cooldown_seconds": 5.0}
    router = configured_router(file, file.facts())
    assert router.willingness_to_pay == 0.02
    assert [c.name for c in router.candidates] == ["gpt-4o-mini", "local"]


def test_json_is_read_like_toml_and_may_be_a_bare_list(write):
    entry = {"model": "openai:gpt-4o-mini", "name": "a", "timeout_seconds": 3}
    bare = read_candidates_file(write(json.dumps([entry]), "a.json"))
    named = read_candidates_file(write(json.dumps({"candidates": [entry]}), "b.json"))
    assert bare.candidates == named.candidates
    with pytest.raises(CandidatesFileError, match=r"^c.json, line 2: cannot be read"):
        read_candidates_file(write('[\n"', "c.json"))


def test_a_model_on_this_machine_costs_nothing_unless_the_file_says_so(write):
    text = '[[candidates]]\nmodel = "ollama:llama3.2"\n'
    assert read_candidates_file(write(text)).facts() == (Candidate("llama3.2", 0, 0),)
    priced = text + "output_cost_per_million_tokens = 2\n"
    assert read_candidates_file(write(priced)).facts() == (Candidate("llama3.2", 0, 2),)


def test_one_declared_price_leaves_the_other_to_the_list(write):
    text = (
        '[[candidates]]\nmodel = "openai:gpt-4o-mini"\n'
        "input_cost_per_million_tokens = 9\n"
    )
    (fact,) = read_candidates_file(write(text)).facts()
    assert (
        fact.input_cost_per_million_tokens,
        fact.output_cost_per_million_tokens,
    ) == (9.0, 0.6)


FIRST = '[[candidates]]\nmodel = "openai:gpt-4o-mini"\n'


@pytest.mark.parametrize(
    ("text", "key_path", "line", "told"),
    [
        ("[[candidates]\n", "", 1, "cannot be read as TOML"),
        ("a = 1\na = 2\n", "", 2, "cannot be read as TOML"),
        ("candidates = 3", "", None, "no list named 'candidates'"),
        ("candidates = []", "candidates", 1, "at least 1 item"),
        ("[[candidates]]\n", "candidates[0]", 1, "needs a model"),
        ('[[candidates]]\nname = "a"\n', "candidates[0]", 1, "input_cost_per_million"),
        (FIRST + 'nmae = "a"\n', "candidates[0].nmae", 3, "did you mean 'name'"),
        (FIRST + "zzz = 1\n", "candidates[0].zzz", 3, "known are"),
        (
            FIRST + "base_url = 'http://127.0.0.1/v1'\n",
            "candidates[0].base_url",
            3,
            "such as arguments = { base_url = ... }; known are",
        ),
        (
            '[[candidates]]\nmodel = "gpt-4o"\n',
            "candidates[0].model",
            2,
            "match pattern",
        ),
        (
            FIRST + "\n" + FIRST + "context_window = 0",
            "candidates[1].context_window",
            6,
            "greater than or equal to 1, not 0",
        ),
        (FIRST + FIRST, "candidates[1].name", 3, "the name of two candidates"),
        (
            FIRST + "input_cost_per_million_tokens = '0.1'",
            "candidates[0].input_cost_per_million_tokens",
            3,
            "valid number",
        ),
        (
            FIRST + "output_cost_per_million_tokens = nan",
            "candidates[0].output_cost_per_million_tokens",
            3,
            "finite",
        ),
        (FIRST + "[routr]\nseed = 1", "routr", 3, "did you mean 'router'"),
        (FIRST + "[router]\nseeed = 1", "router.seeed", 4, "did you mean 'seed'"),
        (FIRST + "[serving]\nstore = 1", "serving.store", 4, "valid string"),
        (FIRST + "[judge]\nmodel = 3", "judge.model", 4, "valid string"),
        (
            FIRST + "[candidates.arguments]\napi_key = 'sk-1'",
            "candidates[0].arguments.api_key",
            4,
            "api_key_env",
        ),
        (
            FIRST + "[judge]\nmodel = 'a:b'\n"
            "[judge.arguments.default_headers]\nAuthorization = 'Bearer sk-1'",
            "judge.arguments.default_headers.Authorization",
            6,
            "looks like a secret",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_key_and_its_line(
    write, text, key_path, line, told
):
    with pytest.raises(CandidatesFileError, match=told) as caught:
        read_candidates_file(write(text))
    error = caught.value
    assert (error.key_path, error.line) == (key_path, line)
    assert "sk-1" not in str(error)
    assert str(error).startswith("candidates.toml")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(again), again.line) == (str(error), line)


def test_an_error_counts_what_else_is_wrong(write):
    with pytest.raises(CandidatesFileError, match=r"\(and 1 more\)"):
        read_candidates_file(write(FIRST + "tools = 3\nvision = 'x'\n"))


def test_a_file_that_is_not_there_is_told_of(tmp_path):
    with pytest.raises(CandidatesFileError, match="No such file"):
        read_candidates_file(tmp_path / "candidates.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(CandidatesFileError, match=r"cannot be read as TOML$"):
        read_candidates_file(tmp_path / "bad.toml")


def test_an_unknown_price_names_the_model_and_the_remedy(write):
    file = read_candidates_file(write('[[candidates]]\nmodel = "openai:nobody-9"\n'))
    with pytest.raises(CandidatesFileError, match="input_cost_per_million") as caught:
        file.facts()
    assert (caught.value.key_path, caught.value.line) == ("candidates[0].model", 2)


def test_keys_come_from_the_environment_and_never_out_of_it(write, monkeypatch):
    file = read_candidates_file(write(WHOLE))
    entry = file.candidates[1]
    monkeypatch.setenv("MY_KEY", "sk-secret")
    monkeypatch.delenv("MY_ORGANISATION", raising=False)
    with pytest.raises(CandidatesFileError, match="MY_ORGANISATION") as caught:
        arguments_of(file, entry, "candidates", 1)
    assert caught.value.key_path == "candidates[1].arguments_env.organization"
    monkeypatch.setenv("MY_ORGANISATION", "mine")
    assert arguments_of(file, entry, "candidates", 1) == {
        "base_url": "http://127.0.0.1:9/v1",
        "api_key": "sk-secret",
        "organization": "mine",
    }
    assert "sk-secret" not in repr(file)
    monkeypatch.setenv("MY_KEY", " ")
    with pytest.raises(CandidatesFileError, match=r"MY_KEY.*not set") as caught:
        arguments_of(file, entry, "candidates", 1)
    assert (caught.value.key_path, caught.value.line) == (
        "candidates[1].api_key_env",
        13,
    )


@pytest.mark.parametrize("with_langchain", [True, False])
def test_a_chat_model_is_made_with_its_arguments(write, monkeypatch, with_langchain):
    from langchain_openai import ChatOpenAI

    if not with_langchain:
        monkeypatch.setattr(chat_models, "find_spec", lambda _: None)
    monkeypatch.setenv("MY_KEY", "sk-secret")
    monkeypatch.setenv("MY_ORGANISATION", "mine")
    file = read_candidates_file(write(WHOLE))
    made = chat_model(file, file.candidates[1], "candidates", 1, max_retries=0)
    assert isinstance(made, ChatOpenAI)
    assert (made.model_name, made.openai_api_base, made.max_retries) == (
        "local-llama",
        "http://127.0.0.1:9/v1",
        0,
    )


@pytest.mark.parametrize(
    ("model", "package"),
    [
        ("groq:llama", "langchain-groq"),
        ("cohere:command", "langchain .with the provider"),
    ],
)
@pytest.mark.parametrize("with_langchain", [True, False])
def test_a_missing_package_is_named(write, monkeypatch, model, package, with_langchain):
    if not with_langchain:
        monkeypatch.setattr(chat_models, "find_spec", lambda _: None)
    file = read_candidates_file(write(f'[[candidates]]\nmodel = "{model}"\n'))
    with pytest.raises(CandidatesFileError, match=f"pip install {package}"):
        chat_model(file, file.candidates[0], "candidates", 0)


def test_arguments_that_a_class_refuses_are_named_but_not_shown(write):
    file = read_candidates_file(
        write(FIRST + "[candidates.arguments]\ntemperature = 'secret-thing'\n")
    )
    with pytest.raises(CandidatesFileError, match=r"\['temperature'\]") as caught:
        chat_model(file, file.candidates[0], "candidates", 0)
    assert "secret-thing" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_entry_that_only_tells_prices_cannot_be_asked(write):
    file = read_candidates_file(
        write(
            '[[candidates]]\nname = "a"\ninput_cost_per_million_tokens = 1\n'
            "output_cost_per_million_tokens = 2\n"
        )
    )
    assert file.facts() == (Candidate("a", 1, 2),)
    with pytest.raises(CandidatesFileError, match="is missing") as caught:
        chat_model(file, file.candidates[0], "candidates", 0)
    assert caught.value.key_path == "candidates[0].model"


def test_a_saved_router_is_found_beside_the_file_and_set_up(write, tmp_path):
    saved = Router([Candidate("gpt-4o-mini", 0.15, 0.6)], willingness_to_pay=0.3)
    saved.save(tmp_path / "state")
    text = FIRST + '[router]\nstate = "state"\nexploration = 0.5\nseed = 8\n'
    file = read_candidates_file(write(text))
    router = configured_router(file, file.facts())
    assert (router.willingness_to_pay, router.exploration) == (0.3, 0.5)


def test_a_router_that_cannot_be_made_is_told_with_the_key(write):
    missing = read_candidates_file(write(FIRST + '[router]\nstate = "nowhere"\n'))
    with pytest.raises(CandidatesFileError, match="mixllm fit") as caught:
        configured_router(missing, missing.facts())
    assert (caught.value.key_path, caught.value.line) == ("router.state", 4)
    wrong = read_candidates_file(write(FIRST + '[router]\npredictor = "oracle"\n'))
    with pytest.raises(ConfigurationError, match="oracle") as caught:
        configured_router(wrong, wrong.facts())
    assert caught.value.key_path == "router.predictor"
