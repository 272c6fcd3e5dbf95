"""A record of a decision that was damaged on its way changes nothing."""

import base64
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.errors import StateFormatError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Outcome

QUERIES = ("Explain contract about court?", "Explain sum 1 + 1", "")
DONE = Outcome(40, 300, cost=0.004, latency_seconds=2.0)


@pytest.fixture
def unfitted(few):
    return Router(few.candidates), Router(few.candidates)


def view(router):
    found = router.predict(QUERIES)
    return np.stack([found.quality, found.output_tokens, found.cost, found.uncertainty])


def differ(before, router):
    return not np.array_equal(before, view(router))


def decided(router):
    decision_id = router.route(QUERIES[0]).id
    return decision_id, json.loads(json.dumps(router.hand_over(decision_id)))


def teach(router, decision_id):
    router.record_outcome(decision_id, DONE)
    router.record_feedback(decision_id, 0.1)


NAN = base64.b64encode(np.array([np.nan] * 4, "<f4").tobytes()).decode()
DAMAGE = {
    "context": ["%%%", "AAAA", "AAAAAA==", NAN, 7, None, "é"],
    "contexts": [None, 3, ["a"]],
    "heads": [None, 3.0, {}],
    "candidate": [None, 3, ["calculator"]],
    "predicted_quality": [math.nan, math.inf, -0.1, 1.5, "0.5", None, True, 10**400],
    "predicted_output_tokens": [math.nan, math.inf, -1.0, "9", None, [], 10**400],
    "input_tokens": [math.nan, math.inf, -1, "9", None, {}, True],
    "token_cost": [math.nan, math.inf, -1.0, "0.1", [], False],
    "prices": [None, 3, "ab", [1.0], [1.0, "2"], [1.0, math.nan], [1, 2, 3], [-1, 1]],
}


@pytest.mark.parametrize("key", DAMAGE)
def test_a_damaged_record_is_refused_and_changes_nothing(unfitted, key):
    a, b = unfitted
    decision_id, record = decided(a)
    before = view(b)
    lacking = {k: v for k, v in record.items() if k != key}
    for bad in (lacking, *({**record, key: value} for value in DAMAGE[key])):
        with pytest.raises(StateFormatError, match=decision_id):
            b.adopt(decision_id, bad)
    assert not b.awaits(decision_id)
    assert not differ(before, b)
    assert b.adopt(decision_id, record)  # it can be sent again, whole


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_context_that_is_not_finite_is_refused(unfitted, bad):
    a, b = unfitted
    decision_id, record = decided(a)
    context = np.frombuffer(base64.b64decode(record["context"]), "<f4").copy()
    context[-1] = bad
    packed = base64.b64encode(context.tobytes()).decode()
    with pytest.raises(StateFormatError, match="finite"):
        b.adopt(decision_id, {**record, "context": packed})
    assert not b.awaits(decision_id)


@pytest.mark.parametrize("bad", [None, [], "record", 3, {}])
def test_what_is_no_record_is_refused(unfitted, bad):
    with pytest.raises(StateFormatError, match="'d'"):
        unfitted[1].adopt("d", bad)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.dictionaries(st.sampled_from(sorted(DAMAGE)), json_values, min_size=1))
def test_whatever_a_record_says_the_router_goes_on(unfitted, changes):
    a, b = unfitted
    decision_id, record = decided(a)
    try:
        b.adopt(decision_id, {**record, **changes})
    except StateFormatError:
        assert not b.awaits(decision_id)
        return
    if b.awaits(decision_id):
        teach(b, decision_id)
    assert np.isfinite(view(b)).all()
