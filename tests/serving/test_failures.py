"""Whose fault a failed call is, in the errors that providers really raise."""

import traceback
from types import SimpleNamespace

import anthropic
import httpx
import httpx2
import ollama
import openai
import pytest
import requests
from langchain_anthropic import chat_models as langchain_anthropic
from langchain_core import exceptions as langchain_exceptions
from langchain_openai.chat_models import base as langchain_openai
from pydantic import BaseModel, ValidationError

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.serving.errors import (
    all_failed,
    is_callers_mistake,
    is_context_overflow,
    is_rate_limit,
    is_unable,
    note_candidate,
    status_of,
)

OPENAI = openai.OpenAI(api_key="none")
ANTHROPIC = anthropic.Anthropic(api_key="none")
REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1")


class ProviderError(Exception):
    def __init__(self, message="provider", **attributes):
        super().__init__(message)
        self.__dict__.update(attributes)


def openai_error(status, message="no", **body):
    """Return what the client of OpenAI raises for a response."""
    told = {"error": {"message": message, "type": "invalid_request_error", **body}}
    response = httpx2.Response(status, json=told, request=REQUEST)
    return OPENAI._make_status_error_from_response(response)


def anthropic_error(status, message="no", kind="invalid_request_error"):
    """Return what the client of Anthropic raises for a response."""
    told = {"type": "error", "error": {"type": kind, "message": message}}
    response = httpx2.Response(status, json=told, request=REQUEST)
    return ANTHROPIC._make_status_error_from_response(response)


def langchain_error(error):
    """Return what LangChain's class makes of an error of its provider."""
    is_openai = isinstance(error, openai.OpenAIError)
    module = langchain_openai if is_openai else langchain_anthropic
    name = "openai" if is_openai else "anthropic"
    kind = "bad_request" if error.status_code == 400 else "api_error"
    try:
        try:
            raise error
        except type(error):
            getattr(module, f"_handle_{name}_{kind}")(error)
    except Exception as raised:  # noqa: BLE001 - whatever it is
        return raised
    return None


def httpx_error(status):
    response = httpx.Response(status, request=httpx.Request("POST", "http://x"))
    with pytest.raises(httpx.HTTPStatusError) as caught:
        response.raise_for_status()
    return caught.value


def requests_error(status):
    response = requests.Response()
    response.status_code = status
    with pytest.raises(requests.HTTPError) as caught:
        response.raise_for_status()
    return caught.value


def botocore_error(status, code="ValidationException", message="no"):
    said = f"An error occurred ({code}) when calling the Converse operation: {message}"
    response = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ProviderError(said, response=response)


BY_STATUS = [
    openai_error,
    anthropic_error,
    lambda status: langchain_error(openai_error(status)),
    lambda status: langchain_error(anthropic_error(status)),
    httpx_error,
    requests_error,
    botocore_error,
    lambda status: ollama.ResponseError("no", status),
    lambda status: ProviderError(http_status=status),
    lambda status: ProviderError(code=status),  # Google
    lambda status: ProviderError(status=status),  # aiohttp
    lambda status: ProviderError(response=SimpleNamespace(status_code=status)),
]


class TestStatus:
    @pytest.mark.parametrize("raised", BY_STATUS)
    @pytest.mark.parametrize("status", [400, 422, 405])
    def test_a_bad_request_is_the_callers_mistake(self, raised, status):
        error = raised(status)
        assert status_of(error) == status
        assert is_callers_mistake(error)
        assert not is_unable(error)

    @pytest.mark.parametrize("raised", BY_STATUS)
    @pytest.mark.parametrize(
        "status",
        [401, 402, 403, 404, 408, 409, 410, 413, 424, 425, 429, 499, 500, 503, 529],
    )
    def test_keys_missing_models_limits_and_outages_are_the_candidates(
        self, raised, status
    ):
        error = raised(status)
        assert status_of(error) == status
        assert not is_callers_mistake(error)
        assert is_rate_limit(error) == (status == 429)
        assert is_unable(error) == (status == 413)

    @pytest.mark.parametrize(
        "error",
        [
            TimeoutError(),
            ConnectionError(),
            ValueError(),
            TypeError(),
            NotImplementedError(),
            openai.APIConnectionError(request=REQUEST),
            openai.APITimeoutError(REQUEST),
            openai.APIError("broke off", REQUEST, body=None),
            anthropic.APIConnectionError(request=REQUEST),
            anthropic.APITimeoutError(REQUEST),
            httpx.ReadTimeout("late"),
            requests.ConnectionError(),
            ollama.ResponseError("broke off"),
            langchain_exceptions.ModelTimeoutError(),
            langchain_exceptions.ModelNotFoundError(),
        ],
        ids=lambda error: f"{type(error).__module__}.{type(error).__name__}",
    )
    def test_an_error_without_a_status_is_the_candidates(self, error):
        assert status_of(error) is None
        assert not is_callers_mistake(error)
        assert not is_unable(error)
        assert not is_rate_limit(error)

    @pytest.mark.parametrize(
        "code", ["invalid_request", True, 7, 200, 1011, None, lambda: 400, {}]
    )
    def test_what_is_no_status_is_not_taken_for_one(self, code):
        error = ProviderError(code=code)
        assert status_of(error) is None
        assert not is_callers_mistake(error)

    def test_an_answer_that_cannot_be_read_is_the_candidates_fault(self):
        response = httpx2.Response(200, request=REQUEST)
        error = openai.APIResponseValidationError(response, None)
        assert not is_callers_mistake(error)

    def test_the_status_of_a_wrapped_error_is_seen(self):
        error = ProviderError("wrapped")
        error.__cause__ = httpx_error(400)
        assert status_of(error) == 400
        assert is_callers_mistake(error)

    def test_an_endless_chain_of_causes_is_followed_for_a_while(self):
        error = ValueError()
        error.__cause__ = error
        assert status_of(error) is None


class TestCallersMistake:
    def test_a_validation_error_is_one(self):
        class Wants(BaseModel):
            number: int

        with pytest.raises(ValidationError) as caught:
            Wants(number="the model does not support this; the prompt is too long")
        assert is_callers_mistake(caught.value)
        assert not is_unable(caught.value)
        assert is_callers_mistake(ConfigurationError("a setting"))

    def test_a_refusal_that_langchain_classed_is_one(self):
        refused = langchain_exceptions.ModelInvalidRequestError("no")
        assert is_callers_mistake(refused)
        unable = langchain_exceptions.ModelInvalidRequestError(
            "gemma does not support tools"
        )
        assert not is_callers_mistake(unable)

    @pytest.mark.parametrize(
        "error",
        [
            anthropic_error(400, "Your credit balance is too low to access the API."),
            openai_error(400, "API key not valid. Please pass a valid API key."),
        ],
    )
    def test_an_empty_account_is_none_though_its_status_is_400(self, error):
        assert not is_callers_mistake(error)
        assert not is_unable(error)

    @pytest.mark.parametrize(
        "error",
        [
            ollama.ResponseError("library/gemma:2b does not support tools", 400),
            openai_error(
                400,
                "Unsupported value: 'temperature' does not support 0.2 with this model",
                code="unsupported_value",
            ),
            openai_error(
                400,
                "Unsupported parameter: 'max_tokens', use 'max_completion_tokens'.",
                code="unsupported_parameter",
            ),
            openai_error(
                400,
                "Invalid parameter: 'response_format' of type 'json_schema' is not "
                "supported with this model.",
            ),
            openai_error(400, "image_url is only supported by certain models."),
            ProviderError(
                "Function calling is not enabled for models/gemma-3-27b-it", code=400
            ),
        ],
    )
    def test_what_one_model_does_not_take_another_may(self, error):
        assert not is_callers_mistake(error)
        assert is_unable(error)
        assert not is_context_overflow(error)


OVERFLOWS = [
    openai_error(400, "Please shorten it.", code="context_length_exceeded"),
    openai_error(400, "This model's maximum context length is 8192 tokens. However"),
    openai_error(400, "Input tokens exceed the configured limit of 272000 tokens."),
    openai_error(400, "Your input exceeds the context window of this model."),
    openai_error(400, "This model's maximum prompt length is 131072 but the request"),
    openai_error(400, "Prompt contains 45217 tokens, too large for model with 32768 "
                 "maximum context length"),
    anthropic_error(400, "prompt is too long: 209353 tokens > 199999 maximum"),
    anthropic_error(
        400, "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200"
    ),
    langchain_error(openai_error(400, "no", code="context_length_exceeded")),
    langchain_error(anthropic_error(400, "prompt is too long: 2 tokens > 1 maximum")),
    langchain_exceptions.ContextOverflowError(),
    botocore_error(400, message="Input is too long for requested model."),
    ProviderError("The input token count (1200293) exceeds the maximum number of "
                  "tokens allowed (1048576).", code=400),
    ProviderError("Unable to submit request because the input token count is 40000 "
                  "but model only supports up to 32768.", code=400),
    ProviderError("too many tokens: 5000 of at most 4081", status_code=400),
    openai_error(400, "Please reduce the length of the messages or completion."),
    openai_error(422, "Input validation error: `inputs` tokens + `max_new_tokens` "
                 "must be <= 8193"),
    openai_error(500, "the request exceeds the available context size. try",
                 type="exceed_context_size_error"),
    ollama.ResponseError("prompt too long; exceeded max context length by 4", 400),
    ollama.ResponseError("the input length exceeds the context length", 500),
    ValueError("Requested tokens (2285) exceed context window of 2048"),
]  # fmt: skip


class TestOverflow:
    @pytest.mark.parametrize("error", OVERFLOWS, ids=lambda error: str(error)[:60])
    def test_a_prompt_too_long_for_one_may_fit_another(self, error):
        assert is_context_overflow(error)
        assert is_unable(error)
        assert not is_callers_mistake(error)

    @pytest.mark.parametrize(
        "error",
        [
            openai_error(429, "Request too large: maximum context length; Limit 10000"),
            botocore_error(429, "ThrottlingException", "Too many tokens, please wait"),
            ProviderError("Too many tokens, please wait before trying again."),
            openai_error(400, "Invalid value for 'role'."),
            openai_error(404, "prompt is too long"),
            TimeoutError("no answer within 5 s"),
        ],
        ids=lambda error: str(error)[:60],
    )
    def test_other_errors_are_none(self, error):
        assert not is_context_overflow(error)

    def test_only_the_beginning_of_a_message_is_read_since_it_may_quote_the_prompt(
        self,
    ):
        quoted = "bad: " + "x" * 1_000 + "prompt is too long"
        assert not is_context_overflow(ProviderError(quoted, status_code=400))


class TestRateLimit:
    @pytest.mark.parametrize(
        "error",
        [
            openai_error(429),
            anthropic_error(429),
            langchain_error(openai_error(429)),
            openai.APIError("slow down", REQUEST, body={"code": "rate_limit_exceeded"}),
            langchain_exceptions.ModelRateLimitError(),
            botocore_error(400, "ThrottlingException"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_it_is_told_by_status_type_or_code(self, error):
        assert is_rate_limit(error)
        assert not is_unable(error)

    def test_a_stream_that_began_well_may_end_with_one(self):
        told = {"type": "error", "error": {"type": "rate_limit_error", "message": "no"}}
        response = httpx2.Response(200, request=REQUEST)
        error = anthropic.APIStatusError("no", response=response, body=told)
        assert is_rate_limit(error)
        assert not is_callers_mistake(error)


class TestAllFailed:
    def test_the_group_never_repeats_what_an_error_said(self):
        group = all_failed([("a", ValueError("prompt text")), ("b", TimeoutError())])
        assert "prompt text" not in group.args[0]
        assert "'a': ValueError; 'b': TimeoutError" in group.args[0]

    def test_each_error_carries_its_candidates_name(self):
        group = all_failed([("a", ValueError()), ("b", openai_error(500))])
        assert [error.__notes__ for error in group.exceptions] == [
            ["candidate 'a'"],
            ["candidate 'b'"],
        ]
        told = "".join(traceback.format_exception(group))
        assert "candidate 'b'" in told

    def test_the_only_error_is_raised_as_it_is_but_for_the_name(self):
        error = TimeoutError()
        assert all_failed([("a", error)]) is error
        assert error.__notes__ == ["candidate 'a'"]

    def test_an_error_that_is_raised_twice_is_named_once(self):
        error = TimeoutError()
        for _ in range(3):
            note_candidate(error, "a")
        note_candidate(error, "b")
        assert error.__notes__ == ["candidate 'a'", "candidate 'b'"]
