"""Routing without labels: priors, limits, ties, load, and who competes."""

import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.errors import (
    ConfigurationError,
    NoCandidateError,
    UnknownCandidateError,
    UnknownDecisionError,
)
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, Outcome

SMALL, LARGE = Candidate("small", 0.1, 0.4), Candidate("large", 5.0, 15.0)
QUERY = "Who may end a lease early?"
DONE = Outcome(10, 20)


@pytest.fixture
def make(clock):
    def build(*candidates, **changes) -> Router:
        plain = {"exploration": 0.0, "waiting_weight": 0.0, "clock": clock}
        return Router(candidates or (SMALL, LARGE), **{**plain, **changes})

    return build


def in_flight(router):
    return {c.name: router._waiting.in_flight(c.name) for c in router.candidates}


# --- the literal interface ----------------------------------------------------

LITERAL = {
    "__init__": "candidates * encoder predictor willingness_to_pay exploration "
    "waiting_weight waiting_tolerance_seconds max_cost_per_query seed",
    "fit": "records * progress",
    "predict": "queries * input_tokens",
    "route": "query * input_tokens requires among",
    "route_batch": "queries * input_tokens charge_load",
    "record_outcome": "decision_id outcome",
    "record_feedback": "decision_id reward * kind source",
    "add_candidate": "candidate",
    "remove_candidate": "name",
    "calibrate": "records * quality_target cost_target apply",
    "save": "folder",
    "load": "folder",
}


@pytest.mark.parametrize("method", LITERAL)
def test_a_method_takes_what_the_design_says(method):
    positional, _, named = LITERAL[method].partition(" * ")
    found = inspect.signature(getattr(Router, method)).parameters
    mine = [n for n, p in found.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [n for n in mine if n != "self"] == positional.split()
    for name in named.split():
        assert found[name].kind is inspect.Parameter.KEYWORD_ONLY


def test_defaults_are_those_of_the_design():
    found = inspect.signature(Router).parameters
    defaults = {n: found[n].default for n in ("encoder", "predictor", "seed")}
    assert defaults == {"encoder": None, "predictor": "auto", "seed": 0}
    assert found["willingness_to_pay"].default == 0.01
    assert found["max_cost_per_query"].default is None
    options = inspect.signature(Router.route_batch).parameters
    assert options["charge_load"].default is True


def test_vectors_of_the_encoder_have_length_1(make):
    rows = make().encoder.encode([QUERY, "", "x"])
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1.0] * 3, abs=1e-6)


# --- priors -------------------------------------------------------------------


def test_a_first_decision_is_the_sum_worked_out_by_hand(make):
    a = Candidate("a", 2.0, 10.0, prior_quality=0.6)
    b = Candidate("b", 0.0, 0.0, prior_quality=0.1)
    router = make(a, b, willingness_to_pay=0.02, exploration=0.1, l2=4.0, prior="none")
    decision = router.route(QUERY, input_tokens=1_000)
    # 256 tokens are assumed: (1000·2 + 256·10) / 10⁶ = 0.00456 USD; a context
    # before any fit is [embedding ‖ 1], so its squared length is 2 and the width
    # sqrt(2 / 4); 0.6 - 0.00456/0.02 + 0.1·sqrt(0.5)
    expected = decision.scores["a"]
    assert expected.output_tokens == 256
    assert expected.cost == pytest.approx(0.00456, rel=1e-12)
    assert expected.uncertainty == pytest.approx(math.sqrt(0.5), rel=1e-6)
    assert expected.score == pytest.approx(0.6 - 0.228 + 0.1 * math.sqrt(0.5))
    assert decision.scores["b"].score == pytest.approx(0.1 + 0.1 * math.sqrt(0.5))
    assert decision.candidate == "a"
    assert (decision.willingness_to_pay, decision.exploration) == (0.02, 0.1)
    assert (decision.input_tokens, decision.propensity) == (1_000, 1.0)
    assert decision.explored is False
    assert not router.is_fitted


def test_a_declared_prior_is_what_is_expected(make):
    declared = replace(SMALL, prior_quality=0.9), replace(LARGE, prior_quality=0.3)
    router = make(*declared, prior="none")
    for query in (QUERY, "", "2 + 2"):
        decision = router.route(query)
        assert decision.scores["small"].quality == 0.9
        assert decision.scores["large"].quality == 0.3
        assert decision.candidate == "small"


def test_without_a_prior_a_dearer_class_is_expected_to_be_better(make):
    pool = [Candidate(f"m{price}", price, price) for price in (0, 0.1, 1, 10, 1000)]
    quality = make(*pool).predict([QUERY]).quality[0]
    assert (np.diff(quality) >= 0).all()
    assert quality[3] - quality[1] > 0.2
    assert 0.0 < quality[0] < quality[-1] < 1.0


def test_much_willingness_to_pay_does_not_collapse_to_the_cheapest(make):
    router = make(willingness_to_pay=10.0)
    assert {d.candidate for d in router.route_batch([QUERY, "", "hi"])} == {"large"}
    router.willingness_to_pay = 1e-6
    assert {d.candidate for d in router.route_batch([QUERY, "", "hi"])} == {"small"}


def test_infinite_willingness_to_pay_looks_at_quality_alone(make):
    router = make(willingness_to_pay=math.inf)
    decision = router.route(QUERY)
    assert decision.candidate == "large"
    assert decision.scores["large"].score == decision.scores["large"].quality


def test_a_free_candidate_costs_nothing(make):
    router = make(Candidate("local", 0, 0), LARGE)
    assert router.route(QUERY).scores["local"].cost == 0.0


def test_the_number_of_input_tokens_is_counted_where_it_is_not_given(make):
    router = make(Candidate("a", 1e6, 0.0))  # one USD a token
    # what is 2 + 2 ?
    assert router.predict(["What is 2 + 2?"]).cost.tolist() == [[6.0]]
    both = router.predict(["What is 2 + 2?"] * 2, input_tokens=[50, None])
    assert both.cost.tolist() == [[50.0], [6.0]]
    assert [
        d.input_tokens
        for d in router.route_batch(["What is 2 + 2?"] * 2, input_tokens=[0, 9])
    ] == [0, 9]


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf, "7", True])
def test_a_number_of_input_tokens_is_checked(make, bad):
    router = make()
    with pytest.raises(ConfigurationError, match="input_tokens must be a number"):
        router.route(QUERY, input_tokens=bad)
    with pytest.raises(ConfigurationError, match="input_tokens must be a number"):
        router.predict([QUERY], input_tokens=[bad])


def test_there_is_one_number_of_input_tokens_per_query(make):
    with pytest.raises(ConfigurationError, match="1 values for 2 queries"):
        make().route_batch([QUERY, QUERY], input_tokens=[5])


def test_no_queries_give_no_decisions(make):
    router = make()
    assert router.route_batch([]) == []
    assert router.predict([]).quality.shape == (0, 2)


def test_predictions_are_in_the_order_in_which_candidates_were_declared(make):
    router = make(LARGE, SMALL)
    found = router.predict([QUERY, "hi", "yo"])
    assert found.candidates == ("large", "small")
    for array in (found.quality, found.output_tokens, found.cost, found.uncertainty):
        assert array.shape == (3, 2)
        assert array.dtype == np.float64
    assert (found.cost[:, 0] > found.cost[:, 1]).all()


def test_predicting_decides_nothing(make):
    router = make(replace(SMALL, seconds_per_output_token=1.0), LARGE)
    router.predict([QUERY] * 10)
    assert in_flight(router) == {"small": 0, "large": 0}
    assert len(router._ledger) == 0


def test_a_batch_decides_as_single_calls_do(make):
    router, other = make(exploration=0.5), make(exploration=0.5)
    queries = [QUERY, "", "def f(): pass", "2 + 2"]
    batch = router.route_batch(queries)
    singles = [other.route(q) for q in queries]
    assert [d.candidate for d in batch] == [d.candidate for d in singles]
    for one, two in zip(batch, singles, strict=True):
        for name, expected in one.scores.items():
            assert expected.score == pytest.approx(two.scores[name].score, abs=1e-9)
    assert len({d.id for d in (*batch, *singles)}) == 8


# --- ties ---------------------------------------------------------------------


def test_a_tie_goes_to_the_cheaper_one_then_to_the_first(make):
    dear = Candidate("dear", 1.0, 1.0, prior_quality=0.5)
    one = Candidate("one", 0.5, 0.5, prior_quality=0.5)
    two = Candidate("two", 0.5, 0.5, prior_quality=0.5)
    router = make(dear, one, two, willingness_to_pay=math.inf)
    decisions = router.route_batch([QUERY] * 5)
    assert {d.candidate for d in decisions} == {"one"}
    assert "same score: the cheaper one" in decisions[0].explain()
    other = make(dear, two, one, willingness_to_pay=math.inf)
    assert other.route("").candidate == "two"


# --- hard limits --------------------------------------------------------------


def test_a_cost_limit_takes_out_whom_it_must(make):
    router = make(willingness_to_pay=10.0)
    free = router.route(QUERY, input_tokens=1_000)
    # (1000·5 + 256·15) / 10⁶ = 0.00884
    assert free.candidate == "large"
    router.max_cost_per_query = 0.00884
    assert router.route(QUERY, input_tokens=1_000).candidate == "large"
    router.max_cost_per_query = 0.008839
    decision = router.route(QUERY, input_tokens=1_000)
    assert decision.candidate == "small"
    assert decision.excluded == {
        "large": "would cost about 0.008840 USD, max_cost_per_query is 0.008839"
    }
    assert decision.scores["large"].score == -math.inf
    router.max_cost_per_query = None
    assert router.route(QUERY, input_tokens=1_000).candidate == "large"


def test_a_cost_limit_of_0_leaves_what_is_free(make):
    router = make(SMALL, Candidate("local", 0, 0), max_cost_per_query=0)
    assert router.route(QUERY).candidate == "local"


def test_a_prompt_longer_than_a_context_window_goes_elsewhere(make):
    router = make(replace(SMALL, context_window=8_000), LARGE, willingness_to_pay=1e-6)
    assert router.route(QUERY, input_tokens=8_000).candidate == "small"
    decision = router.route(QUERY, input_tokens=8_001)
    assert decision.candidate == "large"
    assert decision.excluded["small"] == (
        "the prompt has 8,001 tokens, its context window 8,000"
    )


def test_our_own_count_of_tokens_never_excludes_everybody(make):
    router = make(replace(SMALL, context_window=10), replace(LARGE, context_window=20))
    decision = router.route("many words " * 1_000)
    assert decision.candidate == "large"
    assert "about" in decision.excluded["small"]
    with pytest.raises(NoCandidateError):
        router.route("many words " * 1_000, input_tokens=2_000)


@pytest.mark.parametrize("ability", ["tools", "vision", "structured_output"])
def test_a_required_ability_takes_out_who_lacks_it(make, ability):
    router = make(replace(SMALL, **{ability: False}), LARGE, willingness_to_pay=1e-6)
    assert router.route(QUERY).candidate == "small"
    decision = router.route(QUERY, requires=[ability])
    assert decision.candidate == "large"
    assert decision.excluded == {"small": f"has no {ability}"}


def test_unknown_vision_is_tried(make):
    router = make(SMALL, replace(LARGE, vision=True), willingness_to_pay=1e-6)
    assert SMALL.vision is None
    assert router.route(QUERY, requires={"vision"}).candidate == "small"


@pytest.mark.parametrize("bad", [["magic"], "tools", ["tools", "Vision"]])
def test_an_unknown_requirement_lists_those_there_are(make, bad):
    router = make()
    with pytest.raises(ConfigurationError, match=r"requires"):
        router.route(QUERY, requires=bad)
    assert len(router._ledger) == 0


def test_only_those_asked_for_compete(make):
    router = make(willingness_to_pay=1e-6)
    decision = router.route(QUERY, among=["large"])
    assert decision.candidate == "large"
    assert decision.excluded == {"small": "not among the candidates asked for"}
    assert router.route(QUERY, among={"large", "small"}).candidate == "small"
    with pytest.raises(UnknownCandidateError, match=r"'gpt'; the router has: 'small'"):
        router.route(QUERY, among=["gpt"])
    with pytest.raises(ConfigurationError, match="not the one string"):
        router.route(QUERY, among="large")
    with pytest.raises(NoCandidateError, match="not among"):
        router.route(QUERY, among=[])


def test_no_candidate_left_says_which_limit_removed_whom(make):
    router = make(
        replace(SMALL, tools=False),
        replace(LARGE, context_window=100),
        Candidate("dear", 900.0, 900.0),
        Candidate("other", 0.1, 0.1),
        max_cost_per_query=0.1,
    )
    asked = {"small", "large", "dear"}
    with pytest.raises(NoCandidateError) as caught:
        router.route(QUERY, input_tokens=101, requires=["tools"], among=asked)
    reasons = caught.value.excluded
    assert reasons["small"] == "has no tools"
    assert reasons["large"] == "the prompt has 101 tokens, its context window 100"
    assert "max_cost_per_query is 0.1" in reasons["dear"]
    assert reasons["other"] == "not among the candidates asked for"
    for name, why in reasons.items():
        assert f"{name!r}: {why}" in str(caught.value)


def test_a_decision_that_fails_leaves_nothing_behind(make):
    router = make(max_cost_per_query=0.005)
    with pytest.raises(NoCandidateError):
        router.route_batch([QUERY] * 3, input_tokens=[10, 20, 10**9])
    assert in_flight(router) == {"small": 0, "large": 0}
    assert len(router._ledger) == 0


def test_an_explanation_names_every_candidate_excluded_ones_too(make):
    router = make(
        SMALL, LARGE, Candidate("deaf", 1, 1, tools=False), willingness_to_pay=1e-6
    )
    decision = router.route(QUERY, requires=["tools"])
    lines = decision.explain().splitlines()
    assert decision.id in lines[0]
    assert "small" in lines[0]
    why = {line.split()[0]: line for line in lines[2:]}
    assert list(why) == ["small", "large", "deaf"]
    assert "chosen" in why["small"]
    assert "not worth its price" in why["large"]
    assert why["deaf"].endswith("excluded: has no tools")


# --- settings -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "bad"),
    [
        ("willingness_to_pay", [0, -1, math.nan, None, "1"]),
        ("exploration", [-1, math.nan, math.inf, None]),
        ("waiting_weight", [-1, math.nan, math.inf, None]),
        ("waiting_tolerance_seconds", [0, -1, math.nan, None]),
        ("max_cost_per_query", [-1, math.nan, "1"]),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_at_any_time(make, setting, bad):
    router = make()
    before = getattr(router, setting)
    for value in bad:
        with pytest.raises(ConfigurationError, match=setting):
            setattr(router, setting, value)
        with pytest.raises(ConfigurationError, match=setting):
            make(**{setting: value})
    assert getattr(router, setting) == before


@pytest.mark.parametrize(
    "bad",
    [
        {"predictor": "magic"},
        {"n_domains": -1},
        {"l2": 0},
        {"l2": math.nan},
        {"forgetting": 0},
        {"forgetting": 1.1},
        {"decision_capacity": 0},
        {"decision_max_age_seconds": 0},
        {"exploration_form": "magic"},
        {"seed": -1},
        {"seed": 1.5},
        {"seed": None},
    ],
)
def test_a_setting_at_the_start_is_checked_and_named(make, bad):
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        make(**bad)


def test_a_weight_that_is_set_later_counts_at_once(make):
    router = make(willingness_to_pay=10.0)
    first = router.route(QUERY)
    router.willingness_to_pay, router.exploration = 1e-6, 0.25
    second = router.route(QUERY)
    assert (first.candidate, second.candidate) == ("large", "small")
    assert (second.willingness_to_pay, second.exploration) == (1e-6, 0.25)
    assert first.willingness_to_pay == 10.0


# --- who competes -------------------------------------------------------------


def test_a_router_needs_a_candidate():
    with pytest.raises(NoCandidateError, match="pass at least one"):
        Router([])


def test_a_router_whose_last_candidate_was_removed_says_so(make):
    router = make(SMALL)
    router.remove_candidate("small")
    assert router.candidates == ()
    with pytest.raises(NoCandidateError, match="pass at least one"):
        router.route(QUERY)
    assert router.predict([QUERY]).quality.shape == (1, 0)
    router.add_candidate(LARGE)
    assert router.route(QUERY).candidate == "large"


def test_two_candidates_of_one_name_are_refused(make):
    with pytest.raises(ConfigurationError, match="two candidates named 'small'"):
        make(SMALL, LARGE, replace(SMALL, tools=False))
    router = make()
    with pytest.raises(ConfigurationError, match="two candidates named 'large'"):
        router.add_candidate(Candidate("large", 1, 1))
    assert router.candidates == (SMALL, LARGE)


@pytest.mark.parametrize("bad", ["small", None, {"name": "x"}, 7])
def test_what_is_no_candidate_is_refused(make, bad):
    with pytest.raises(ConfigurationError, match="must be a Candidate, not a"):
        make(SMALL, bad)
    router = make()
    with pytest.raises(ConfigurationError, match="must be a Candidate, not a"):
        router.add_candidate(bad)
    assert router.candidates == (SMALL, LARGE)


def test_removing_whom_the_router_does_not_have_names_those_it_has(make):
    with pytest.raises(UnknownCandidateError, match="'gpt'; the router has: 'small'"):
        make().remove_candidate("gpt")


def test_a_single_candidate_is_always_chosen(make):
    assert make(LARGE).route(QUERY).candidate == "large"


def test_a_new_price_takes_effect_at_once(make):
    router = make(willingness_to_pay=10.0)
    router.remove_candidate("large")
    router.add_candidate(Candidate("large", 50.0, 150.0))
    found = router.route(QUERY, input_tokens=1_000).scores["large"]
    assert found.cost == pytest.approx(0.0884)


@settings(max_examples=60)
@given(
    st.floats(0, 1e4),
    st.floats(0, 1e4),
    st.floats(0, 1e4),
    st.floats(0, 1e4),
    st.floats(1e-9, 1e9),
)
def test_raising_a_price_never_raises_the_score(given_in, given_out, more, most, worth):
    scores = []
    for price_in, price_out in (
        (given_in, given_out),
        (given_in + more, given_out),
        (given_in + more, given_out + most),
    ):
        candidate = Candidate("a", price_in, price_out, prior_quality=0.5)
        router = Router([candidate, SMALL], willingness_to_pay=worth)
        scores.append(router.route(QUERY, input_tokens=100).scores["a"].score)
    assert scores[0] >= scores[1] >= scores[2]


# --- load ---------------------------------------------------------------------

SLOW = Candidate(
    "slow",
    1.0,
    1.0,
    prior_quality=0.6,
    time_to_first_token_seconds=1.0,
    seconds_per_output_token=0.01,
    max_concurrency=1,
)
TWIN = replace(SLOW, name="twin")


def test_a_decision_counts_as_load_until_its_outcome(make):
    router = make()
    one, two = router.route(QUERY), router.route(QUERY)
    assert in_flight(router)[one.candidate] == 2
    router.record_outcome(one.id, DONE)
    router.record_outcome(one.id, DONE)
    assert in_flight(router)[one.candidate] == 1
    router.record_outcome(two.id, Outcome(0, 0, error="TimeoutError"))
    assert in_flight(router) == {"small": 0, "large": 0}


def test_the_penalty_for_waiting_is_the_one_worked_out_by_hand(make):
    router = make(SLOW, waiting_weight=0.1, waiting_tolerance_seconds=10.0)
    first, second = router.route_batch([QUERY] * 2, input_tokens=[0, 0])
    assert first.prediction.waiting_seconds == 0.0
    assert first.prediction.waiting_penalty == 0.0
    # One call of 1 + 256·0.01 s is ahead, and scatters by as much: of 7.12 s,
    # exp(-14)·(exp(20·7.12/10) - 1) = exp(0.24) - exp(-14).
    assert second.prediction.waiting_seconds == pytest.approx(3.56)
    penalty = math.exp(0.24) - math.exp(-14)
    assert second.prediction.waiting_penalty == pytest.approx(penalty)
    behind = first.prediction.score - second.prediction.score
    assert behind == pytest.approx(0.1 * penalty)
    assert f"{-0.1 * penalty:+.3f}" in second.explain()


def test_waiting_spreads_a_batch_that_is_charged(make):
    router = make(SLOW, TWIN, waiting_weight=0.1)
    decisions = router.route_batch([QUERY] * 6)
    assert [d.candidate for d in decisions] == ["slow", "twin"] * 3
    assert in_flight(router) == {"slow": 3, "twin": 3}


def test_a_batch_that_is_not_charged_is_no_load(make):
    router = make(SLOW, TWIN, waiting_weight=0.1)
    decisions = router.route_batch([QUERY] * 6, charge_load=False)
    assert {d.candidate for d in decisions} == {"slow"}
    assert in_flight(router) == {"slow": 0, "twin": 0}
    for decision in decisions:
        router.record_outcome(decision.id, DONE)
        assert router.record_feedback(decision.id, 1.0) is True


def test_without_a_speed_waiting_costs_exactly_nothing(make):
    router = make(waiting_weight=100.0)
    for decision in router.route_batch([QUERY] * 50):
        for expected in decision.scores.values():
            assert expected.waiting_seconds == 0.0
            assert expected.waiting_penalty == 0.0


def test_a_measured_speed_replaces_none(make):
    router = make(Candidate("a", 1, 1, max_concurrency=1), waiting_weight=0.1)
    told = Outcome(5, 100, latency_seconds=3.0, time_to_first_token_seconds=1.0)
    router.record_outcome(router.route(QUERY).id, told)
    router.route(QUERY)
    # one call ahead of 1 s + its predicted tokens · (3 - 1) / 100 s
    waiting = router.route(QUERY).prediction
    tokens = waiting.output_tokens
    assert waiting.waiting_seconds == pytest.approx(1.0 + 0.02 * tokens)


def test_a_failed_call_teaches_no_speed(make):
    router = make(Candidate("a", 1, 1, max_concurrency=1), waiting_weight=0.1)
    failed = Outcome(0, 100, latency_seconds=3.0, error="TimeoutError")
    router.record_outcome(router.route(QUERY).id, failed)
    router.route(QUERY)
    assert router.route(QUERY).prediction.waiting_seconds == 0.0


def test_a_decision_whose_outcome_never_comes_stops_counting(make, clock):
    router = make(SLOW, TWIN, waiting_weight=0.1)
    lost = router.route(QUERY)
    assert in_flight(router) == {"slow": 1, "twin": 0}
    clock.move(3_600)
    assert in_flight(router) == {"slow": 0, "twin": 0}
    assert router.route(QUERY).prediction.waiting_penalty == 0.0
    router.record_outcome(lost.id, DONE)  # late, and known still
    assert in_flight(router) == {"slow": 1, "twin": 0}


def test_a_tolerance_without_end_makes_waiting_free(make):
    router = make(SLOW, TWIN, waiting_weight=0.1)
    router.waiting_tolerance_seconds = math.inf
    assert {d.candidate for d in router.route_batch([QUERY] * 6)} == {"slow"}


def test_removing_a_candidate_releases_its_load(make):
    router = make(SLOW, TWIN)
    gone = router.route(QUERY)
    router.remove_candidate("slow")
    router.add_candidate(SLOW)
    assert in_flight(router) == {"twin": 0, "slow": 0}
    router.record_outcome(gone.id, DONE)
    assert in_flight(router) == {"twin": 0, "slow": 0}


# --- decisions that are not pending -------------------------------------------


def test_an_unknown_decision_is_named(make):
    router = make()
    with pytest.raises(UnknownDecisionError, match="'nobody'"):
        router.record_outcome("nobody", DONE)
    with pytest.raises(UnknownDecisionError, match="'nobody'"):
        router.record_feedback("nobody", 1.0)


def test_a_decision_that_is_too_old_is_unknown(make, clock):
    router = make(decision_max_age_seconds=60.0)
    old = router.route(QUERY)
    clock.move(59)
    young = router.route(QUERY)
    clock.move(2)
    with pytest.raises(UnknownDecisionError, match=old.id):
        router.record_feedback(old.id, 1.0)
    with pytest.raises(UnknownDecisionError, match=old.id):
        router.record_outcome(old.id, DONE)
    assert in_flight(router)[old.candidate] == 1  # the young one: the old is released
    assert router.record_feedback(young.id, 1.0) is True


def test_the_oldest_decision_makes_room(make):
    router = make(decision_capacity=2)
    first, *others = router.route_batch([QUERY] * 3)
    with pytest.raises(UnknownDecisionError):
        router.record_feedback(first.id, 1.0)
    assert [router.record_feedback(d.id, 1.0) for d in others] == [True, True]


def test_an_absurd_price_or_prompt_loses_but_fails_nothing(make):
    router = make(SMALL, Candidate("absurd", 1e308, 10**300, prior_quality=1.0))
    decision = router.route(QUERY, input_tokens=10**200)
    assert decision.candidate == "small"
    assert decision.scores["absurd"].cost == math.inf
    assert "absurd" in decision.explain()
    router.max_cost_per_query = 1e300
    assert "absurd" in router.route(QUERY).excluded


def test_a_willingness_to_pay_for_one_query_leaves_the_routers_own_alone() -> None:
    router = Router(
        [
            Candidate("small", 0.1, 0.4, prior_quality=0.5),
            Candidate("large", 5.0, 15.0, prior_quality=0.9),
        ],
        willingness_to_pay=1e-6,
    )
    generous = router.route("What is 2 + 2?", willingness_to_pay=100.0)
    assert (generous.candidate, generous.willingness_to_pay) == ("large", 100.0)
    assert router.route("What is 2 + 2?").candidate == "small"
    assert router.willingness_to_pay == 1e-6
    with pytest.raises(ConfigurationError, match="willingness_to_pay"):
        router.route("What is 2 + 2?", willingness_to_pay=0.0)
