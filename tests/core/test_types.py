import inspect
import math
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mixllm_integrations
from mixllm_integrations.core.checks import (
    number_between,
    optional_number,
    required_name,
)
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import (
    Calibration,
    Candidate,
    Decision,
    Feedback,
    Outcome,
    Prediction,
    RoutingRecord,
)

NO_LABELS = [None, "1", "", [1], 1j, math.nan, np.float64("nan")]
NO_NUMBERS = [*NO_LABELS, True, False]
PRICES = ("input_cost_per_million_tokens", "output_cost_per_million_tokens")


# --- the literal interface ----------------------------------------------------


def parameters(of):
    return {
        name: (p.kind is p.KEYWORD_ONLY, p.default)
        for name, p in inspect.signature(of).parameters.items()
    }


def test_a_candidate_takes_exactly_what_the_design_says():
    none = inspect.Parameter.empty
    assert parameters(Candidate) == {
        "name": (False, none),
        "input_cost_per_million_tokens": (False, none),
        "output_cost_per_million_tokens": (False, none),
        "context_window": (True, None),
        "tools": (True, True),
        "vision": (True, None),
        "structured_output": (True, True),
        "prior_quality": (True, None),
        "time_to_first_token_seconds": (True, None),
        "seconds_per_output_token": (True, None),
        "max_concurrency": (True, None),
    }


def test_a_record_takes_exactly_what_the_design_says():
    record = RoutingRecord("q", "small", 0.5, 10, 20, 0.1, 1.5, ("law",))
    assert [f.name for f in fields(record)] == [
        "query",
        "candidate",
        "quality",
        "input_tokens",
        "output_tokens",
        "cost",
        "latency_seconds",
        "tags",
    ]
    assert RoutingRecord("q", "small", 0.5).tags == ()


def test_an_outcome_takes_exactly_what_the_design_says():
    outcome = Outcome(10, 20, 0.1, 1.5, 0.2, "RateLimitError")
    assert (outcome.input_tokens, outcome.output_tokens, outcome.cost) == (10, 20, 0.1)
    assert (outcome.latency_seconds, outcome.time_to_first_token_seconds) == (1.5, 0.2)
    assert outcome.error == "RateLimitError"
    assert Outcome(1, 2).error is None


def test_a_decision_has_what_the_design_says():
    assert {f.name for f in fields(Decision)} >= {
        "id",
        "candidate",
        "scores",
        "willingness_to_pay",
        "explored",
        "propensity",
        "excluded",
    }


@pytest.mark.parametrize("name", ["Candidate", "RoutingRecord", "Outcome", "Decision"])
def test_the_types_stand_at_the_top_of_the_package(name):
    assert getattr(mixllm_integrations, name).__name__ == name


@pytest.mark.parametrize(
    "value", [Candidate("a", 1, 2), RoutingRecord("q", "a", 1), Outcome(1, 2)]
)
def test_a_value_never_changes(value):
    with pytest.raises(FrozenInstanceError):
        setattr(value, fields(value)[0].name, "other")


# --- candidates ---------------------------------------------------------------


def test_a_price_of_0_is_legal():
    free = Candidate("local", 0, 0.0)
    assert free.input_cost_per_million_tokens == 0


@pytest.mark.parametrize("price", PRICES)
@pytest.mark.parametrize("value", [*NO_NUMBERS, -1, -1e-300, math.inf, -math.inf])
def test_a_price_that_cannot_be_used_is_named(price, value):
    prices = {**dict.fromkeys(PRICES, 1.0), price: value}
    with pytest.raises(ConfigurationError, match=f"{price} of candidate 'gpt'"):
        Candidate("gpt", **prices)


def test_an_unknown_price_says_what_to_pass():
    with pytest.raises(ConfigurationError, match="unknown: pass its list price"):
        Candidate("gpt", None, 1.0)


@pytest.mark.parametrize("name", ["", "  ", "\n", None, 7, b"gpt", ("gpt",)])
def test_a_candidate_needs_a_name(name):
    with pytest.raises(ConfigurationError, match=r"candidate's name must be .*not "):
        Candidate(name, 1.0, 1.0)


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("prior_quality", [-0.01, 1.01, math.nan, "good", True]),
        ("time_to_first_token_seconds", [-1, math.nan, math.inf, "1"]),
        ("seconds_per_output_token", [-1, math.nan, math.inf, "1"]),
        ("context_window", [0, -5, math.nan, math.inf, "8k"]),
        ("max_concurrency", [0, -5, math.nan, math.inf, "4"]),
    ],
)
def test_an_optional_number_of_a_candidate_is_checked_and_named(field, bad):
    for value in bad:
        with pytest.raises(ConfigurationError, match=f"{field} of candidate 'gpt'"):
            Candidate("gpt", 1.0, 1.0, **{field: value})
    for edge in (1, np.int64(1), np.float32(1.0)):
        assert getattr(Candidate("gpt", 1, 1, **{field: edge}), field) == 1


def test_options_of_a_candidate_are_passed_by_name():
    with pytest.raises(TypeError):
        Candidate("gpt", 1.0, 1.0, 8_000)


# --- records, outcomes, feedback ----------------------------------------------


@pytest.mark.parametrize("quality", [*NO_LABELS, -0.001, 1.001, math.inf, -math.inf])
def test_a_quality_outside_0_to_1_is_refused_without_the_query(quality):
    with pytest.raises(ConfigurationError, match="quality in a record of") as caught:
        RoutingRecord("my secret", "small", quality)
    assert "secret" not in str(caught.value)
    assert "[0, 1]" in str(caught.value)


@pytest.mark.parametrize("quality", [0, 1, 0.0, 1.0, np.float32(0.5), np.int64(1)])
def test_a_quality_from_0_to_1_is_taken(quality):
    assert RoutingRecord("q", "small", quality).quality == quality


@pytest.mark.parametrize("query", [None, 7, b"secret", ["secret"], math.nan])
def test_a_query_of_a_record_must_be_text(query):
    with pytest.raises(ConfigurationError, match="must be a string") as caught:
        RoutingRecord(query, "small", 0.5)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "field", ["input_tokens", "output_tokens", "cost", "latency_seconds"]
)
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "7", True])
def test_a_number_of_a_record_is_checked_and_named(field, value):
    with pytest.raises(ConfigurationError, match=f"{field} in a record of .*'small'"):
        RoutingRecord("q", "small", 0.5, **{field: value})


def test_one_string_is_no_list_of_tags():
    with pytest.raises(ConfigurationError, match="tags in a record"):
        RoutingRecord("q", "small", 0.5, tags="law")


@pytest.mark.parametrize("tags", [(1,), (None,), None, 5, ({},)])
def test_tags_must_be_strings(tags):
    with pytest.raises(ConfigurationError, match="tags in a record"):
        RoutingRecord("q", "small", 0.5, tags=tags)


@pytest.mark.parametrize("field", ["input_tokens", "output_tokens"])
@pytest.mark.parametrize("value", [*NO_NUMBERS, -1, math.inf])
def test_a_number_of_tokens_of_an_outcome_is_checked(field, value):
    tokens = {"input_tokens": 1, "output_tokens": 1, field: value}
    with pytest.raises(ConfigurationError, match=f"an outcome's {field}"):
        Outcome(**tokens)


@pytest.mark.parametrize(
    "field", ["cost", "latency_seconds", "time_to_first_token_seconds"]
)
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "7"])
def test_an_optional_number_of_an_outcome_is_checked(field, value):
    with pytest.raises(ConfigurationError, match=f"an outcome's {field}"):
        Outcome(1, 1, **{field: value})


def test_an_error_of_an_outcome_is_a_name_not_an_exception():
    with pytest.raises(ConfigurationError, match="an outcome's error") as caught:
        Outcome(1, 1, error=RuntimeError("my secret"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("reward", [*NO_LABELS, -0.1, 1.1, math.inf])
def test_a_reward_outside_0_to_1_is_refused(reward):
    with pytest.raises(ConfigurationError, match=r"a reward must be .*\[0, 1"):
        Feedback("id", reward)


def test_a_binary_reward_is_0_or_1():
    assert [Feedback("id", r, "binary").reward for r in (0, 1.0)] == [0, 1.0]
    with pytest.raises(ConfigurationError, match=r'0 or 1, not 0\.5; pass kind="ref'):
        Feedback("id", 0.5, "binary")


@pytest.mark.parametrize("kind", ["thumbs", "", None, 3])
def test_an_unknown_kind_of_feedback_lists_those_there_are(kind):
    with pytest.raises(ConfigurationError, match=r"use one of \('refined', 'binary'\)"):
        Feedback("id", 1.0, kind)


# --- numbers ------------------------------------------------------------------


@given(
    st.floats() | st.integers(),
    st.floats(-1e3, 1e3),
    st.floats(0, 1e3),
    st.booleans(),
    st.booleans(),
)
def test_a_number_comes_back_exactly_if_it_lies_between_the_bounds(
    value, low, width, low_allowed, high_allowed
):
    high = low + width
    inside = low < value < high
    inside |= low_allowed and value == low <= high
    inside |= high_allowed and value == high >= low
    inside &= (value > low or low_allowed) and (value < high or high_allowed)
    limits = {"low": low, "high": high}
    limits |= {"low_is_allowed": low_allowed, "high_is_allowed": high_allowed}
    if inside:
        assert number_between(value, "it", **limits) == value
    else:
        with pytest.raises(ConfigurationError, match="it must be a number in"):
            number_between(value, "it", **limits)


def test_a_whole_number_too_large_for_a_float_is_refused_like_infinity():
    with pytest.raises(ConfigurationError, match="it must be a number in"):
        number_between(10**400, "it", high_is_allowed=False)


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ConfigurationError):
        number_between(value, "it")


def test_brackets_show_which_bounds_are_allowed():
    with pytest.raises(ConfigurationError, match=r"in \(0, 1\], not 0"):
        number_between(0, "it", high=1.0, low_is_allowed=False)
    with pytest.raises(ConfigurationError, match=r"in \[0, inf\), not inf"):
        number_between(math.inf, "it", high_is_allowed=False)


def test_the_text_of_a_value_that_is_no_number_is_not_shown():
    with pytest.raises(ConfigurationError, match="not a str") as caught:
        number_between("my secret", "it")
    assert "secret" not in str(caught.value)


def test_an_optional_number_may_be_left_out_but_is_never_infinite():
    assert optional_number(None, "it") is None
    assert optional_number(0.0, "it") is None
    with pytest.raises(ConfigurationError):
        optional_number(math.inf, "it")


def test_a_name_may_have_any_script_but_not_be_blank():
    required_name("モデル 🤖", "a name")
    with pytest.raises(ConfigurationError, match="a name must be a non-empty string"):
        required_name("\t", "a name")


# --- decisions ----------------------------------------------------------------


def decided(chosen, scores, **more):
    return Decision("d1", chosen, scores, 0.02, **more)


def test_the_prediction_of_a_decision_is_that_of_the_chosen_one():
    scores = {"a": Prediction(0.5, 10, 0.1), "b": Prediction(0.6, 20, 0.2)}
    assert decided("b", scores).prediction is scores["b"]


def test_an_explanation_says_why_each_was_or_was_not_chosen():
    scores = {
        "cheap": Prediction(0.5, 100, 0.001, score=0.45),
        "mid": Prediction(0.7, 100, 0.002, score=0.60),
        "dear": Prediction(0.9, 100, 0.02, score=-0.10),
        "silly": Prediction(0.6, 100, 0.02, score=-0.40),
        "twin": Prediction(0.7, 100, 0.002, score=0.60),
        "blind": Prediction(0.9, 100, 0.01),
    }
    decision = decided(
        "mid", scores, excluded={"blind": "has no vision"}, input_tokens=12_345
    )
    lines = decision.explain().splitlines()
    why = {line.split()[0]: line for line in lines[2:]}
    start = "decision d1: mid; one right answer more is worth 0.02 USD"
    assert lines[0].startswith(start)
    assert "12,345 tokens" in lines[0]
    assert list(why) == ["mid", "twin", "cheap", "dear", "silly", "blind"]
    assert why["mid"].endswith("chosen: highest score")
    assert "same score: the cheaper one" in why["twin"]
    # 0.60 - 0.45, 0.60 + 0.10, 0.60 + 0.40
    assert why["cheap"].endswith("cheaper, but a worse answer is expected (-0.1500)")
    assert why["dear"].endswith("not worth its price (-0.7000)")
    assert why["silly"].endswith("neither better nor cheaper (-1.0000)")
    assert why["blind"].endswith("excluded: has no vision")


def test_an_explanation_lines_its_columns_up():
    scores = {
        "a": Prediction(0.5, 100, 0.001, score=0.45),
        "a-long-name": Prediction(0.25, 123_456, 12.5, 0.3, 4.0, 0.5, score=-625.0),
    }
    header, *rows = decided("a", scores, waiting_weight=0.1).explain().splitlines()[1:]
    ends = [header.index(word) + len(word) for word in ("quality", "cost USD", "score")]
    for row in rows:
        assert all(row[end - 1] != " " and row[end] == " " for end in ends)
    assert "-0.050" in rows[1]  # 0.1 · 0.5, charged


def test_an_explanation_says_that_it_explored():
    scores = {"a": Prediction(0.5, 100, 0.001, score=0.45)}
    assert "a (exploring)" in decided("a", scores, explored=True).explain()


def test_a_calibration_says_whether_its_target_was_reached():
    assert {f.name for f in fields(Calibration)} >= {
        "willingness_to_pay",
        "relative_quality",
        "relative_cost",
        "target_reached",
    }


@pytest.mark.parametrize("right", [True, False, np.True_, np.False_])
def test_right_or_wrong_is_a_quality_and_a_reward(right) -> None:
    assert RoutingRecord("2 + 2?", "a", right).quality == float(right)
    assert Feedback("d", right, "binary").reward == float(right)
