"""A blocking call is given up on when it is late."""

import contextvars
import threading

import pytest

from mixllm_integrations.serving import run_within


def test_without_a_limit_the_call_stays_on_this_thread():
    assert run_within(None, threading.get_ident) == threading.get_ident()


def test_a_call_in_time_gives_its_result_and_its_error():
    assert run_within(5.0, max, 1, 2, key=lambda x: -x) == 1
    with pytest.raises(ZeroDivisionError):
        run_within(5.0, lambda: 1 / 0)


def test_a_late_call_is_given_up_on():
    never = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        run_within(0.05, never.wait)
    never.set()


def test_context_variables_are_seen_on_the_other_thread():
    var = contextvars.ContextVar("var", default="unset")
    var.set("set")
    assert run_within(5.0, var.get) == "set"
