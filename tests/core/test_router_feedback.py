"""Feedback counts once, whenever it comes; what is not said is not held against."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.errors import ConfigurationError, UnknownDecisionError
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import (
    IMPLICIT_SIGNALS,
    Candidate,
    Outcome,
    RoutingRecord,
)

ARRAYS = ("quality", "output_tokens", "cost", "uncertainty")
QUERY = "Explain contract about court for tenant case 7?"
QUERIES = ["", QUERY, "Explain integral of prime?", "recipe with butter", "東京 🤖"]
BETTER, WORSE = Candidate("better", 1.0, 4.0), Candidate("worse", 1.0, 4.0)


def same(one, two):
    return one.candidates == two.candidates and all(
        np.array_equal(getattr(one, a), getattr(two, a)) for a in ARRAYS
    )


def quality(router, name, queries=QUERIES):
    found = router.predict(list(queries))
    return found.quality[:, found.candidates.index(name)]


@pytest.fixture(scope="module")
def live(world):
    return world.sample(1_000, seed=7).queries


@pytest.fixture(scope="module")
def two(world):
    """A router that knows two candidates, good for 0.8 and 0.65; tests copy it."""
    rng = np.random.default_rng(1)
    records = [
        RoutingRecord(query, c.name, float(rng.random() < good))
        for query in world.sample(250, seed=2).queries
        for c, good in ((BETTER, 0.8), (WORSE, 0.65))
    ]
    return Router([BETTER, WORSE], predictor="ridge", waiting_weight=0.0).fit(records)


# --- exactly once ---------------------------------------------------------------


def test_only_the_first_feedback_of_a_decision_teaches(fitted):
    router = fitted()
    decision = router.route(QUERY)
    assert router.record_feedback(decision.id, 0.9) is True
    before = router.predict(QUERIES)
    for reward in (0.9, 0.0, 1.0):
        assert router.record_feedback(decision.id, reward) is False
    assert router.record_feedback(decision.id, 0.0, kind="binary") is True
    assert router.record_feedback(decision.id, 0.0, kind="binary") is False
    assert same(before, router.predict(QUERIES))


def test_feedback_that_is_days_late_teaches_as_if_it_had_come_at_once(
    few, fitted, clock
):
    prompt, late = fitted(), fitted()
    for router in (prompt, late):
        decisions = [router.route(q, among=["lawyer"]) for q in few.queries[:20]]
        if router is late:
            clock.move(6 * 86_400.0)
        for decision in decisions:
            router.record_feedback(decision.id, 0.0)
    assert same(prompt.predict(few.queries), late.predict(few.queries))


def test_feedback_teaches_the_same_in_any_order_and_before_its_outcome_too(few, fitted):
    def told(order, *, outcome_first):
        router = fitted()
        decisions = [
            router.route(q, among=[few.candidates[i % 3].name])
            for i, q in enumerate(few.queries)
        ]
        for index in order:
            decision = decisions[index]
            steps = [
                lambda d=decision: router.record_outcome(d.id, Outcome(9, 100)),
                lambda d=decision, i=index: router.record_feedback(d.id, i % 5 / 4),
            ]
            for step in steps if outcome_first else reversed(steps):
                step()
        return router.predict(few.queries)

    n = len(few.queries)
    one, two = (
        told(range(n), outcome_first=True),
        told(np.random.default_rng(0).permutation(n), outcome_first=False),
    )
    for what in ARRAYS:
        assert getattr(one, what) == pytest.approx(getattr(two, what), abs=1e-9)


@pytest.mark.parametrize("act", ["feedback", "outcome", "signal"])
def test_of_a_decision_that_is_unknown_or_too_old_nothing_is_learned(
    fitted, clock, act
):
    router = fitted(implicit_signals=IMPLICIT_SIGNALS, decision_max_age_seconds=60.0)
    old = router.route(QUERY).id
    before = router.predict(QUERIES)
    clock.move(61.0)
    tell = {
        "feedback": lambda which: router.record_feedback(which, 0.0),
        "outcome": lambda which: router.record_outcome(which, Outcome(9, 9_000)),
        "signal": lambda which: router.record_signal(which, "regenerate"),
    }[act]
    for which in (old, "never made"):
        with pytest.raises(UnknownDecisionError, match="unknown decision"):
            tell(which)
    assert same(before, router.predict(QUERIES))


@pytest.mark.parametrize(
    ("reward", "kind", "said"),
    [
        (-0.01, "refined", "reward"),
        (1.01, "refined", "reward"),
        (float("nan"), "refined", "reward"),
        ("1", "refined", "reward"),
        (0.5, "binary", "binary reward must be 0 or 1"),
        (1.0, "stars", "unknown kind of feedback 'stars'"),
    ],
)
def test_feedback_out_of_range_teaches_nothing_and_may_be_corrected(
    fitted, reward, kind, said
):
    router = fitted()
    decision = router.route(QUERY)
    before = router.predict(QUERIES)
    with pytest.raises(ConfigurationError, match=said):
        router.record_feedback(decision.id, reward, kind=kind)
    assert same(before, router.predict(QUERIES))
    assert router.record_feedback(decision.id, 0.0) is True
    assert not same(before, router.predict(QUERIES))


def test_a_call_that_gave_no_answer_teaches_no_quality_but_one_that_broke_off_does(
    fitted,
):
    router = fitted()
    before = router.predict(QUERIES)
    for error, teaches in (("TimeoutError", False), ("abandoned by the reader", True)):
        decision = router.route(QUERY)
        router.record_outcome(decision.id, Outcome(9, 0, error=error))
        assert router.record_feedback(decision.id, 0.0) is True
        assert same(before, router.predict(QUERIES)) is not teaches


# --- what is not said -----------------------------------------------------------


@pytest.mark.parametrize("form", ["bayes", "policy_gradient"])
def test_missing_feedback_changes_no_quality(few, fitted, form):
    router = fitted(binary_feedback=form)
    before = router.predict(few.queries)
    for query in few.queries * 3:
        decision = router.route(query)
        router.record_outcome(decision.id, Outcome(9, 100, latency_seconds=1.0))
    after = router.predict(few.queries)
    assert np.array_equal(before.quality, after.quality)
    assert np.array_equal(before.uncertainty, after.uncertainty)
    assert router.drifts == ()


# Shares of answers whose thumb is wrong, and that get one if good or bad.
@pytest.mark.parametrize(
    ("flipped", "good", "bad"), [(0.2, 1.0, 1.0), (0.0, 0.15, 0.6), (0.2, 0.15, 0.6)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_noisy_and_unhappy_users_do_not_turn_the_ranking(
    two, live, flipped, good, bad, seed
):
    router, rng = copy.deepcopy(two), np.random.default_rng(seed)
    for query in live:
        decision = router.route(query, among=["better"], charge_load=False)
        is_good = rng.random() < 0.8
        says = is_good != (rng.random() < flipped)
        if rng.random() < (good if says else bad):
            router.record_feedback(
                decision.id, float(says), kind="binary", source="thumbs"
            )
    assert router.drifts == ()
    above = quality(router, "better", live[:300]) - quality(router, "worse", live[:300])
    assert above.mean() > 0.03
    chosen = [d.candidate for d in router.route_batch(live[:300], charge_load=False)]
    assert chosen.count("better") > 200


def test_thumbs_still_find_one_that_really_gets_worse(two, live):
    router, rng = copy.deepcopy(two), np.random.default_rng(0)
    for index, query in enumerate(live):
        decision = router.route(query, charge_load=False)
        good = 0.65
        if decision.candidate == "better":
            good = 0.8 if index < 300 else 0.3
        says = (rng.random() < good) != (rng.random() < 0.2)
        router.record_feedback(decision.id, float(says), kind="binary")
    chosen = [d.candidate for d in router.route_batch(live[:300], charge_load=False)]
    assert chosen.count("worse") > 250


# --- the paper's way ------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_policy_gradient_learns_to_prefer_the_better_candidate(live, seed):
    rng = np.random.default_rng(seed)
    router = Router(
        [WORSE, BETTER],
        binary_feedback="policy_gradient",
        prior="none",
        waiting_weight=0.0,
        exploration=0.05,
    )
    chosen = []
    for query in live[:600]:
        decision = router.route(query, charge_load=False)
        chosen.append(decision.candidate)
        good = {"better": 0.8, "worse": 0.3}[decision.candidate]
        router.record_feedback(decision.id, float(rng.random() < good), kind="binary")
    assert chosen[0] == "worse"  # of equals the first
    assert chosen[-200:].count("better") > 180
    above = quality(router, "better", live) - quality(router, "worse", live)
    assert above.mean() > 0.02


def graded_and_thumbed(few, fitted):
    """A router of policy gradient whose lawyer is graded 0.6, and liked by all."""
    router = fitted(binary_feedback="policy_gradient")
    for query in few.queries * 5:
        for name, reward in (("lawyer", 1.0), ("calculator", 0.0)):
            decision = router.route(query, among=[name])
            router.record_feedback(decision.id, reward, kind="binary")
        decision = router.route(query, among=["lawyer"])
        router.record_feedback(decision.id, 0.6)
    return router


def test_after_a_refit_a_measured_quality_holds_whatever_thumbs_have_added(few, fitted):
    # Before it, the residuals run after a score that goes on growing.
    router = graded_and_thumbed(few, fitted)
    assert router.refit() is True
    assert quality(router, "lawyer", few.queries).mean() == pytest.approx(0.6, abs=0.1)


@pytest.mark.parametrize("how", ["bayes", "policy_gradient"])
def test_thumbs_tell_what_signals_are_worth_however_they_are_learned_from(
    few, fitted, how
):
    router = fitted(binary_feedback=how, implicit_signals=["regenerate"])
    before = router._experience.signals.state()
    decision = router.route(few.queries[0])
    router.record_outcome(decision.id, Outcome(9, 9))
    router.record_signal(decision.id, "regenerate")
    router.record_feedback(decision.id, 1.0, kind="binary")
    other = fitted(binary_feedback=how, implicit_signals=["regenerate"])
    decision = other.route(few.queries[0])
    other.record_outcome(decision.id, Outcome(9, 9))
    other.record_signal(decision.id, "regenerate")
    assert router._experience.signals.state() != other._experience.signals.state()
    assert before != other._experience.signals.state()


# --- signals --------------------------------------------------------------------


def test_a_signal_counts_once_and_only_where_it_was_asked_for(few, fitted):
    wanted, other = (
        fitted(implicit_signals=asked) for asked in (["regenerate"], ["tool_error"])
    )
    for router in (wanted, other):
        decision = router.route(QUERY, among=["lawyer"])
        before = quality(router, "lawyer")[1]
        assert router.record_signal(decision.id, "regenerate") is True
        after = router.predict(QUERIES)
        assert bool(after.quality[1, 1] < before) is (router is wanted)
        assert router.record_signal(decision.id, "regenerate") is False
        assert same(after, router.predict(QUERIES))


def test_a_signal_weighs_less_than_a_grade(few, fitted):
    by_signal, by_grade = (fitted(implicit_signals=["regenerate"]) for _ in range(2))
    before = quality(by_signal, "lawyer")[1]
    first, second = (r.route(QUERY, among=["lawyer"]) for r in (by_signal, by_grade))
    by_signal.record_signal(first.id, "regenerate")
    by_grade.record_feedback(second.id, 0.0)
    moved = [before - quality(r, "lawyer")[1] for r in (by_signal, by_grade)]
    assert 0.0 < moved[0] < 0.5 * moved[1]


def test_an_answer_that_nobody_complained_of_is_a_little_better(fitted):
    router = fitted(implicit_signals=["regenerate"])
    before = quality(router, "lawyer")[1]
    decision = router.route(QUERY, among=["lawyer"])
    router.record_outcome(decision.id, Outcome(9, 100))
    assert before < quality(router, "lawyer")[1] < before + 0.01


@pytest.mark.parametrize("wrong", ["angry", "", None, 7])
def test_an_unknown_signal_is_an_error_that_names_those_there_are(fitted, wrong):
    router = fitted(implicit_signals=IMPLICIT_SIGNALS)
    decision = router.route(QUERY)
    with pytest.raises(ConfigurationError, match=r"unknown signal .*'truncated'"):
        router.record_signal(decision.id, wrong)
    with pytest.raises(ConfigurationError, match="implicit_signals must be some of"):
        Router([BETTER], implicit_signals=[wrong])


def test_a_signal_of_a_call_that_failed_teaches_nothing(fitted):
    router = fitted(implicit_signals=IMPLICIT_SIGNALS)
    decision = router.route(QUERY)
    router.record_outcome(decision.id, Outcome(9, 0, error="TimeoutError"))
    before = router.predict(QUERIES)
    assert router.record_signal(decision.id, "tool_error") is True
    assert same(before, router.predict(QUERIES))


@pytest.mark.parametrize("wanted", [(), ("truncated",)])
def test_an_answer_that_was_cut_short_teaches_neither_length_nor_cost(fitted, wanted):
    router = fitted(implicit_signals=wanted)
    before = router.predict(QUERIES)
    for _ in range(30):
        decision = router.route(QUERY, among=["lawyer"])
        router.record_signal(decision.id, "truncated")
        router.record_outcome(decision.id, Outcome(9, 3, latency_seconds=0.1))
    after = router.predict(QUERIES)
    assert np.array_equal(before.output_tokens, after.output_tokens)
    assert np.array_equal(before.cost, after.cost)
    assert bool(after.quality[1, 1] < before.quality[1, 1]) is bool(wanted)


# --- a restart in the middle ----------------------------------------------------

STEP = st.tuples(
    st.sampled_from(["outcome", "refined", "binary", "regenerate", "failed"]),
    st.integers(0, 2),  # whom
    st.integers(0, 7),  # which of the last decisions
    st.sampled_from([0.0, 1.0]),
)


def tell(router, decision_id, how, reward):
    if how == "outcome":
        router.record_outcome(decision_id, Outcome(9, 200, latency_seconds=2.0))
    elif how == "failed":
        router.record_outcome(decision_id, Outcome(9, 0, error="TimeoutError"))
    elif how == "regenerate":
        router.record_signal(decision_id, "regenerate")
    else:
        router.record_feedback(decision_id, reward, kind=how, source="thumbs")


@pytest.mark.parametrize("form", ["bayes", "policy_gradient"])
def test_a_stream_that_is_cut_by_restarts_learns_bit_for_bit_the_same(
    few, fitted, tmp_path, clock, form
):
    base = fitted(binary_feedback=form, implicit_signals=["regenerate"])

    @settings(max_examples=12)
    @given(
        steps=st.lists(STEP, min_size=4, max_size=24), cuts=st.sets(st.integers(0, 24))
    )
    def holds(steps, cuts):
        whole, cut = copy.deepcopy(base), copy.deepcopy(base)
        made = []
        for index, (how, whom, which, reward) in enumerate(steps):
            query, name = few.queries[index], few.candidates[whom].name
            made.append([r.route(query, among=[name]).id for r in (whole, cut)])
            for router, decision_id in zip(
                (whole, cut), made[max(len(made) - 1 - which, 0)], strict=True
            ):
                tell(router, decision_id, how, reward)
            if index in cuts:
                cut.save(tmp_path / "r")
                cut = Router.load(tmp_path / "r", clock=clock)
        assert same(whole.predict(few.queries), cut.predict(few.queries))
        assert whole.drifts == cut.drifts

    holds()
