"""What a caller may ask of one call, and what is refused."""

import uuid

import pytest

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.serving import CONTROLS, checked_controls


def test_what_is_asked_is_kept_and_what_belongs_to_others_is_not():
    given = {"candidate": "small", "max_cost_per_query": 0, "thread_id": "7"}
    assert checked_controls(given) == {"candidate": "small", "max_cost_per_query": 0}


def test_nothing_asked_is_nothing():
    assert checked_controls({"candidate": None, "session_id": "", "shadow": None}) == {}


def test_a_session_may_be_named_by_anything_that_has_a_text():
    name = uuid.uuid4()
    assert checked_controls({"session_id": name}) == {"session_id": str(name)}
    assert checked_controls({"session_id": 12}) == {"session_id": "12"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("candidate", 3),
        ("shadow", ["small"]),
        ("dry_run", "yes"),
        ("willingness_to_pay", 0),
        ("willingness_to_pay", "much"),
        ("waiting_tolerance_seconds", 0.0),
        ("max_cost_per_query", -0.1),
        ("max_cost_per_query", float("nan")),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=name):
        checked_controls({name: value})


def test_every_control_says_what_it_is():
    for control in CONTROLS.values():
        assert control.title
        assert control.description.endswith(".")
