"""How long a provider asks to be left alone."""

import email.message
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import anthropic
import httpx
import httpx2
import openai
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.serving.errors import retry_after_seconds

NOW = datetime(2026, 11, 5, 12, 0, 0, tzinfo=UTC)


class BusyError(Exception):
    def __init__(self, **attributes):
        super().__init__("busy")
        self.__dict__.update(attributes)


def told(headers):
    return retry_after_seconds(BusyError(headers=headers))


def sdk_error(package, headers):
    """Return the real error of a provider's package."""
    request = httpx2.Request("POST", "http://127.0.0.1/v1")
    response = httpx2.Response(429, headers=headers, request=request)
    return package.RateLimitError("busy", response=response, body=None)


def requests_error(headers):
    response = requests.Response()
    response.headers.update(headers)
    return requests.HTTPError("busy", response=response)


def httpx_error(headers):
    request = httpx.Request("POST", "http://127.0.0.1/v1")
    response = httpx.Response(503, headers=headers, request=request)
    return httpx.HTTPStatusError("busy", request=request, response=response)


def message_error(headers):
    message = email.message.Message()  # as of urllib
    for name, value in headers.items():
        message[name] = value
    return BusyError(headers=message)


@pytest.mark.parametrize(
    "raised",
    [
        lambda headers: sdk_error(openai, headers),
        lambda headers: sdk_error(anthropic, headers),
        requests_error,
        httpx_error,
        message_error,
        lambda headers: BusyError(
            response={"ResponseMetadata": {"HTTPHeaders": headers}}
        ),
    ],
)
def test_it_is_found_where_each_package_puts_the_headers(raised):
    assert retry_after_seconds(raised({"Retry-After": "17"})) == 17.0
    assert retry_after_seconds(raised({"retry-after": "0.5"})) == 0.5
    assert retry_after_seconds(raised({"content-type": "text/html"})) is None


def test_it_is_found_on_the_error_that_was_wrapped():
    error = RuntimeError("wrapped")
    error.__cause__ = httpx_error({"Retry-After": "3"})
    assert retry_after_seconds(error) == 3.0


@pytest.mark.parametrize(
    "error", [TimeoutError(), BusyError(response=None), BusyError(headers=3)]
)
def test_an_error_without_headers_says_nothing(error):
    assert retry_after_seconds(error) is None


def test_a_date_counts_from_the_servers_own_clock():
    headers = {
        "Date": format_datetime(NOW, usegmt=True),
        "Retry-After": format_datetime(NOW + timedelta(seconds=90), usegmt=True),
    }
    assert told(headers) == 90.0


def test_without_the_servers_clock_a_date_counts_from_ours():
    then = datetime.now(UTC) + timedelta(seconds=60)
    assert 50.0 < told({"Retry-After": format_datetime(then, usegmt=True)}) <= 60.0


def test_a_date_that_has_passed_means_now():
    assert told({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0


def test_milliseconds_go_first_as_they_are_finer():
    assert told({"Retry-After": "2", "Retry-After-Ms": "1250"}) == 1.25
    assert told({"Retry-After": "2", "Retry-After-Ms": "soon"}) == 2.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("1s", 1.0), ("6m0s", 360.0), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("2m", 120.0)],
)
def test_an_allowance_that_is_used_up_tells_when_it_is_whole(value, seconds):
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": value,
    }
    assert told(headers) == pytest.approx(seconds)


def test_an_allowance_of_which_there_is_some_left_does_not_count():
    headers = {
        "x-ratelimit-remaining-requests": "12",
        "x-ratelimit-reset-requests": "8h0m0s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "7.66s",
    }
    assert told(headers) == 7.66


def test_of_two_allowances_that_are_used_up_the_later_one_counts():
    headers = {
        "date": format_datetime(NOW, usegmt=True),
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-11-05T12:00:20Z",
        "anthropic-ratelimit-output-tokens-remaining": "0",
        "anthropic-ratelimit-output-tokens-reset": "2026-11-05T12:00:50Z",
    }
    assert told(headers) == 50.0


def test_what_was_asked_for_goes_before_allowances():
    headers = {
        "retry-after": "4",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "60s",
    }
    assert told(headers) == 4.0


def test_google_tells_it_among_the_details():
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}
    help_ = {"@type": "type.googleapis.com/google.rpc.Help"}
    body = {"error": {"code": 429, "details": [help_, info]}}
    assert retry_after_seconds(BusyError(details=body)) == 34.07
    assert retry_after_seconds(BusyError(details=[help_])) is None
    assert retry_after_seconds(BusyError(details={"error": "no"})) is None


@pytest.mark.parametrize(
    "value", ["-1", "nan", "inf", "soon", "", "-5s", "m", "99999999999-01-01", None, []]
)
def test_what_makes_no_sense_is_ignored(value):
    assert told({"Retry-After": value}) is None
    assert told({"Retry-After": value, "retry-after-ms": "100"}) == 0.1


@given(
    st.dictionaries(
        st.sampled_from(
            ["retry-after", "retry-after-ms", "date", "x-ratelimit-reset-tokens"]
        ),
        st.text(max_size=40) | st.datetimes().map(str) | st.floats().map(str),
    )
)
def test_whatever_is_in_the_headers_the_result_can_be_waited_for(headers):
    headers["x-ratelimit-remaining-tokens"] = "0"
    seconds = told(headers)
    assert seconds is None or 0.0 <= seconds < float("inf")
