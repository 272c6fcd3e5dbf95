"""List prices come from the data that genai-prices ships."""

import pytest

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.serving import list_price


def test_a_well_known_model_has_its_list_price():
    # OpenAI's price list: 0.15 and 0.60 USD per million tokens, 128,000 tokens.
    price = list_price("gpt-4o-mini", provider="openai")
    assert price.input_cost_per_million_tokens == pytest.approx(0.15)
    assert price.output_cost_per_million_tokens == pytest.approx(0.60)
    assert price.context_window == 128_000


def test_the_provider_can_be_guessed_from_the_model():
    assert list_price("gpt-4o-mini") == list_price("gpt-4o-mini", provider="openai")


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("claude-3-5-sonnet-20241022", "anthropic"),
        ("gemini-2.0-flash", "google_genai"),
        ("gemini-2.0-flash", "google_vertexai"),
        ("mistral-large-latest", "mistralai"),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", "amazon_bedrock"),
        ("gpt-4o", "azure"),
    ],
)
def test_providers_are_known_by_the_names_that_langchain_gives_them(model, provider):
    assert list_price(model, provider=provider).output_cost_per_million_tokens > 0


@pytest.mark.parametrize("provider", ["ollama", "openai", None])
def test_an_unknown_price_is_an_error_that_says_what_to_pass(provider):
    with pytest.raises(ConfigurationError) as caught:
        list_price("my-own-llama", provider=provider)
    message = str(caught.value)
    assert "my-own-llama" in message
    assert "input_cost_per_million_tokens and output_cost_per_million_tokens" in message
    assert "CandidateModel" in message
    assert "CandidateLLM" in message
