import numpy as np
import pytest

from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.limits import Terms, hard_limits
from mixllm_integrations.core.types import Candidate

SMALL = Candidate("small", 0.1, 0.4, context_window=8_000, tools=False, vision=False)
MIDDLE = Candidate("middle", 0.5, 1.5, context_window=32_000, structured_output=False)
LARGE = Candidate("large", 3.0, 15.0, context_window=128_000, vision=True)
ALL = (SMALL, MIDDLE, LARGE)
COSTS = np.array([0.001, 0.005, 0.03])


def limits(candidates=ALL, *, cost=COSTS, tokens=100, estimated=False, **more):
    return hard_limits(
        candidates,
        cost=cost,
        input_tokens=tokens,
        input_tokens_are_estimated=estimated,
        terms=Terms(**more),
    )


def test_without_a_limit_nobody_is_excluded():
    assert limits() == {}


def test_each_limit_says_what_it_is_and_the_number():
    assert limits(tokens=9_500) == {
        "small": "the prompt has 9,500 tokens, its context window 8,000"
    }
    assert limits(max_cost_per_query=0.01) == {
        "large": "would cost about 0.030000 USD, max_cost_per_query is 0.01"
    }
    assert limits(requires=["tools"]) == {"small": "has no tools"}
    assert limits(requires={"structured_output"}) == {
        "middle": "has no structured_output"
    }
    assert limits(among=["large"]) == {
        "small": "not among the candidates asked for",
        "middle": "not among the candidates asked for",
    }


def test_who_is_barred_is_out_for_the_reason_given():
    assert limits(barred={"large": "it rests"}) == {"large": "it rests"}


def test_the_reason_given_is_told_even_of_one_that_was_not_asked_for():
    found = limits(among=["small"], barred={"large": "it rests"})
    assert found["large"] == "it rests"


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_cost_per_query": -1.0},
        {"waiting_tolerance_seconds": 0.0},
        {"discounts": {"small": -0.1}},
        {"discounts": {"small": float("inf")}},
        {"head_start": {"small": 1.5}},
    ],
)
def test_terms_that_cannot_be_used_are_refused(wrong):
    with pytest.raises(ConfigurationError, match="must be"):
        Terms(**wrong)


def test_unknown_vision_is_tried_and_missing_vision_is_not():
    assert limits(requires=("vision",)) == {"small": "has no vision"}


def test_a_candidate_that_lacks_several_abilities_lists_them():
    assert limits(requires=["vision", "tools"])["small"] == "has no tools, vision"


def test_a_prompt_that_just_fits_is_not_excluded():
    assert limits(tokens=8_000) == {}
    assert set(limits(tokens=8_001)) == {"small"}


def test_a_counted_prompt_that_fits_nobody_excludes_everybody():
    assert set(limits(tokens=200_000)) == {"small", "middle", "large"}


def test_an_estimated_length_alone_never_excludes_everybody():
    left = limits(tokens=200_000, estimated=True)
    assert set(left) == {"small", "middle"}
    assert left["small"].startswith("the prompt has about 200,000 tokens")
    # The widest *otherwise eligible* one stays: "large" is too dear here.
    left = limits(tokens=200_000, estimated=True, max_cost_per_query=0.01)
    assert set(left) == {"small", "large"}
    # Someone fits: then an estimate excludes like a count.
    assert set(limits(tokens=50_000, estimated=True)) == {"small", "middle"}


def test_all_of_the_widest_windows_stay():
    twins = (SMALL, LARGE, Candidate("twin", 1, 1, context_window=128_000))
    assert set(limits(twins, tokens=10**7, estimated=True)) == {"small"}


def test_no_context_window_means_no_limit():
    assert limits([Candidate("free", 0, 0)], cost=np.zeros(1), tokens=10**9) == {}


def test_a_cost_that_is_no_number_is_over_any_limit():
    assert "large" in limits(cost=np.array([0, 0, np.nan]), max_cost_per_query=1.0)


def test_among_nobody_excludes_everybody():
    assert set(limits(among=())) == {"small", "middle", "large"}


def test_words_that_nobody_knows_are_errors_that_list_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"'audio'.*structured_output"):
        limits(requires=["audio"])
    with pytest.raises(UnknownCandidateError, match=r"'huge'.*'small'"):
        limits(among=["small", "huge"])


def test_one_string_instead_of_a_collection_is_refused():
    with pytest.raises(ConfigurationError, match="requires"):
        limits(requires="tools")
    with pytest.raises(ConfigurationError, match="among"):
        limits(among="small")
