"""The demo with real models: here a server on this machine plays them."""

import json
import re

import pytest

from mixllm_integrations.cli.demo import load_prompts, route_prompts
from mixllm_integrations.cli.live import LIVE_PROMPTS, failure_of, live_setup
from mixllm_integrations.core.errors import ConfigurationError

CHEAP, STRONG = "gpt-6-luna", "gpt-6.1-sol"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch) -> None:
    for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")  # nobody listens there


@pytest.fixture
def openai(monkeypatch, provider):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-a-test")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{provider.url}/v1")
    return provider


@pytest.fixture
def ollama(monkeypatch, provider):
    provider.ollama_models = ("nomic-embed-text", "llama3.2", "qwen3", "phi4")
    monkeypatch.setenv("OLLAMA_HOST", provider.url)
    return provider


def asked_models(provider) -> list[str]:
    return [body["model"] for _, body in provider.requests if "model" in body]


@pytest.mark.network
def test_without_anything_to_ask_it_says_what_is_missing(mixllm) -> None:
    run = mixllm("demo", "--live", OLLAMA_HOST="127.0.0.1:9")
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert "OPENAI_API_KEY is not set" in line
    assert "ANTHROPIC_API_KEY is not set" in line
    assert "no Ollama answers at http://127.0.0.1:9" in line
    assert "without --live" in line


@pytest.mark.network
def test_the_models_of_a_set_key_answer_and_are_paid_at_list_price(openai) -> None:
    prompts = load_prompts()
    setup = live_setup(prompts)
    steps = list(route_prompts(setup, prompts[:6]))
    assert [step.answer for step in steps] == ["from openai"] * 6
    assert asked_models(openai) == [step.candidate for step in steps]
    assert setup.strongest.name == STRONG
    prices = {
        c.name: (c.input_cost_per_million_tokens, c.output_cost_per_million_tokens)
        for c in setup.router.candidates
    }
    assert set(prices) == {CHEAP, STRONG}
    for step in steps:  # the server reports 20 and 5 tokens
        asked, answered = prices[step.candidate]
        assert step.cost == pytest.approx((20 * asked + 5 * answered) / 1e6)
        asked, answered = prices[STRONG]
        assert step.strongest_cost == pytest.approx((20 * asked + 5 * answered) / 1e6)


@pytest.mark.network
def test_the_prompt_arrives_as_it_was_written(openai) -> None:
    prompts = load_prompts()
    list(route_prompts(live_setup(prompts), prompts[:1]))
    ((path, body),) = openai.requests
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": prompts[0].prompt}]


@pytest.mark.network
def test_a_live_decision_depends_on_the_prompt(openai) -> None:
    prompts = load_prompts()
    setup = live_setup(prompts)
    quality = setup.router.predict([p.prompt for p in prompts]).quality
    assert (quality.max(axis=0) - quality.min(axis=0) > 0.1).all()


@pytest.mark.network
def test_what_is_not_asked_is_said(openai) -> None:
    about = " ".join(live_setup(load_prompts()).about)
    assert f"Real models answer: {CHEAP}, {STRONG}." in about
    assert "ANTHROPIC_API_KEY is not set" in about
    assert "no Ollama answers" in about


@pytest.mark.network
def test_an_ollama_answers_for_nothing_and_its_embedding_models_are_left(
    ollama,
) -> None:
    prompts = load_prompts()
    setup = live_setup(prompts)
    assert [c.name for c in setup.router.candidates] == ["llama3.2", "qwen3"]
    (step,) = route_prompts(setup, prompts[:1])
    assert (step.answer, step.cost) == ("from ollama", 0.0)


@pytest.mark.network
def test_an_ollama_without_models_says_how_to_get_one(ollama) -> None:
    ollama.ollama_models = ()
    with pytest.raises(ConfigurationError, match="ollama pull"):
        live_setup(load_prompts())


@pytest.mark.network
def test_one_model_by_name_has_nothing_to_choose_from(openai) -> None:
    setup = live_setup(load_prompts(), ["openai:gpt-6.1-sol"])
    assert [c.name for c in setup.router.candidates] == [STRONG]
    assert "nothing to choose" in " ".join(setup.about)


@pytest.mark.network
def test_a_key_without_its_package_names_the_extra(openai, monkeypatch) -> None:
    monkeypatch.setattr("mixllm_integrations.cli.live.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="langchain-openai is not installed"):
        live_setup(load_prompts(), [f"openai:{CHEAP}"])


@pytest.mark.network
def test_the_command_asks_a_few_prompts_and_prints_json(mixllm, openai) -> None:
    run = mixllm(
        *("demo", "--live", "--json"),
        OPENAI_API_KEY="sk-for-a-test",
        OPENAI_BASE_URL=f"{openai.url}/v1",
        OLLAMA_HOST="127.0.0.1:9",
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["totals"]["prompts"] == LIVE_PROMPTS == len(openai.requests)
    assert {p["answer"] for p in told["prompts"]} == {"from openai"}


@pytest.mark.network
def test_a_refused_key_is_one_line_without_the_key(mixllm, openai) -> None:
    openai.status = 401
    run = mixllm(
        *("demo", "--live"),
        OPENAI_API_KEY="sk-very-secret",
        OPENAI_BASE_URL=f"{openai.url}/v1",
        OLLAMA_HOST="127.0.0.1:9",
    )
    assert run.returncode == 2
    last = run.stderr.splitlines()[-1]
    assert re.match(r"error: no model answered: \w*AuthenticationError \(401\);", last)
    assert "Traceback" not in run.stderr
    assert "sk-very-secret" not in run.stdout + run.stderr


def test_a_group_of_failures_names_each_kind_once() -> None:
    group = ExceptionGroup("all", [TimeoutError("a"), OSError("b"), TimeoutError("c")])
    told = str(failure_of(group))
    assert told.startswith("no model answered: TimeoutError, OSError; check the keys")
