"""Whose fault a failed call is."""

from types import SimpleNamespace

import pytest
from pydantic import BaseModel, ValidationError

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.serving.errors import (
    all_failed,
    is_callers_mistake,
    status_of,
)


class ProviderError(Exception):
    def __init__(self, **attributes):
        super().__init__("provider")
        self.__dict__.update(attributes)


PLACES = [
    lambda status: {"status_code": status},
    lambda status: {"http_status": status},
    lambda status: {"code": status},
    lambda status: {"response": SimpleNamespace(status_code=status)},
    lambda status: {"response": {"ResponseMetadata": {"HTTPStatusCode": status}}},
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("status", [400, 422, 405])
def test_a_bad_request_is_the_callers_mistake(place, status):
    error = ProviderError(**place(status))
    assert status_of(error) == status
    assert is_callers_mistake(error)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("status", [401, 403, 404, 408, 409, 429, 500, 503, 529])
def test_keys_missing_models_limits_and_outages_are_the_candidates(place, status):
    assert not is_callers_mistake(ProviderError(**place(status)))


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionError(),
        ValueError(),
        TypeError(),
        NotImplementedError(),
    ],
)
def test_an_error_without_a_status_is_the_candidates(error):
    assert status_of(error) is None
    assert not is_callers_mistake(error)


def test_a_validation_error_is_the_callers_mistake():
    class Wants(BaseModel):
        number: int

    with pytest.raises(ValidationError) as caught:
        Wants(number="none")
    assert is_callers_mistake(caught.value)
    assert is_callers_mistake(ConfigurationError("a setting"))


def test_a_prompt_too_long_for_one_may_fit_another():
    class ContextOverflowError(ProviderError):
        pass

    assert not is_callers_mistake(ContextOverflowError(status_code=400))


@pytest.mark.parametrize("code", ["invalid_request", True, 7, None, lambda: 400])
def test_what_is_no_status_is_not_taken_for_one(code):
    assert status_of(ProviderError(code=code)) is None


def test_the_group_never_repeats_what_an_error_said():
    group = all_failed([("a", ValueError("prompt text")), ("b", TimeoutError())])
    assert "prompt text" not in group.args[0]
    assert "'a': ValueError; 'b': TimeoutError" in group.args[0]
