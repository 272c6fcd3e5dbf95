"""What labels, outcomes and feedback change, and what they leave alone."""

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations.core.errors import (
    ConfigurationError,
    NotFittedError,
    UnknownCandidateError,
)
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, Outcome, RoutingRecord

KINDS = ("ridge", "forest", "knn", "mlp", "ensemble")
QUERY = "Explain contract about court for tenant case 7?"
QUERIES = ["", QUERY, "Explain integral of prime?", "recipe with butter", "東京 🤖"]
ARRAYS = ("quality", "output_tokens", "cost", "uncertainty")
NEWCOMER = Candidate("newcomer", 2.0, 6.0)


def same(one, two, names=None):
    """Whether two predictions are equal bit for bit, for some candidates."""
    names = names or one.candidates
    left = [one.candidates.index(n) for n in names]
    right = [two.candidates.index(n) for n in names]
    return all(
        np.array_equal(getattr(one, a)[:, left], getattr(two, a)[:, right])
        for a in ARRAYS
    )


def quality_of(router, name, query=QUERY):
    found = router.predict([query])
    return float(found.quality[0, found.candidates.index(name)])


def pair(clock, **changes):
    plain = {"exploration": 0.0, "waiting_weight": 0.0, "clock": clock}
    plain["prior"] = "none"  # so that sums can be worked out by hand
    return Router(
        [
            Candidate("a", 1.0, 1.0, prior_quality=0.5),
            Candidate("b", 1.0, 1.0, prior_quality=0.4),
        ],
        **{**plain, **changes},
    )


# --- fit ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, "auto"])
def test_a_fitted_router_knows_who_is_good_at_what(world, clock, kind):
    train, test = world.sample(240, seed=0), world.sample(100, seed=1)
    router = Router(world.candidates, predictor=kind, clock=clock)
    assert router.fit(train.records()) is router
    assert router.is_fitted
    found = router.predict(test.queries)
    # The best constant for each candidate misses the truth by 0.30 on average.
    constant = np.abs(test.expected_quality - train.quality.mean(axis=0)).mean()
    missed = np.abs(test.expected_quality - found.quality).mean()
    assert missed < 0.7 * constant
    assert ((found.quality >= 0) & (found.quality <= 1)).all()
    assert (found.output_tokens >= 0).all()
    cost = found.cost.mean(axis=0) / test.cost.mean(axis=0)
    assert cost == pytest.approx(np.ones(3), abs=0.35)


def test_routing_beats_every_single_candidate(world, clock):
    test = world.sample(200, seed=1)
    router = Router(world.candidates, predictor="ridge", clock=clock)
    router.fit(world.sample(240, seed=0).records())
    router.willingness_to_pay = 1.0
    names = [c.name for c in world.candidates]
    chosen = [
        names.index(d.candidate)
        for d in router.route_batch(test.queries, charge_load=False)
    ]
    reached = test.expected_quality[np.arange(200), chosen].mean()
    assert reached > test.expected_quality.mean(axis=0).max() + 0.05


@pytest.mark.parametrize(
    ("kind", "n"),
    [
        *((kind, n) for kind in (*KINDS, "auto") for n in (1, 9)),
        *(("ridge", n) for n in (2, 7, 8, 20)),
        *((kind, 20) for kind in ("mlp", "auto")),
    ],
)
def test_few_queries_are_enough_to_fit(world, clock, kind, n):
    sample = world.sample(n, seed=3)
    router = Router(world.candidates, predictor=kind, clock=clock)
    router.fit(sample.records())
    found = router.predict(QUERIES)
    for name in ARRAYS:
        assert np.isfinite(getattr(found, name)).all()
    assert router.route(QUERY).candidate in found.candidates


@pytest.mark.parametrize("kind", KINDS)
def test_constant_quality_is_learned_as_it_is(clock, kind):
    router = Router([NEWCOMER], predictor=kind, clock=clock)
    queries = [f"question {i} about tea" for i in range(24)]
    router.fit(RoutingRecord(q, "newcomer", 0.75) for q in queries)
    found = router.predict([*queries[:5], "something else"])
    assert found.quality == pytest.approx(0.75, abs=0.02)
    assert np.isfinite(found.cost).all()


def test_records_without_text_do_not_break_a_fit(clock):
    router = Router([NEWCOMER], predictor="ridge", clock=clock)
    queries = ["", "  ", "\n\t", "\x00", "\ud800", "🤖" * 50, "a" * 100_000]
    queries += [f"question {i}" for i in range(20)]
    router.fit(RoutingRecord(q, "newcomer", i % 2) for i, q in enumerate(queries))
    assert np.isfinite(router.predict(queries).quality).all()


def test_a_blank_query_gets_the_means_of_the_labels(few, fitted):
    router = fitted()
    found = router.predict(["", " \n\t "])
    for row in range(2):
        assert found.quality[row] == pytest.approx(few.quality.mean(axis=0), abs=0.03)
        assert found.output_tokens[row] == pytest.approx(few.output_tokens.mean(axis=0))


def test_several_records_of_one_query_and_candidate_are_averaged(few, clock):
    def fit(records):
        return Router(few.candidates, predictor="ridge", clock=clock).fit(records)

    twice = [
        replace(r, quality=q)
        for r in few.records()
        for q in (r.quality, 1.0 - r.quality, 0.2)
    ]
    once = [replace(r, quality=1.2 / 3) for r in few.records()]
    one, two = fit(twice).predict(QUERIES), fit(once).predict(QUERIES)
    assert one.quality == pytest.approx(two.quality, abs=1e-9)
    assert one.uncertainty == pytest.approx(two.uncertainty, abs=1e-9)


@pytest.mark.parametrize("kind", ["ridge", "mlp", "auto"])
def test_labels_may_be_partial(few, clock, kind):
    records = [r for i, r in enumerate(few.records()) if i % 3 != i // 3 % 3]
    router = Router(few.candidates, predictor=kind, clock=clock).fit(records)
    found = router.predict(few.queries)
    assert np.isfinite(found.quality).all()
    assert found.quality[:, 1].std() > 0.02
    assert found.uncertainty.std(axis=1).max() > 1e-6  # they saw different queries


def test_a_candidate_with_one_label_among_thousands_can_be_fitted(clock):
    queries = [f"question {i} about {i % 7} apples" for i in range(3_100)]
    records = [RoutingRecord(q, "small", i % 2) for i, q in enumerate(queries)]
    rare = [RoutingRecord(q, "rare", 0.9) for q in queries]
    for place in (0, 1_500):
        router = Router(
            [Candidate("small", 0.1, 0.1), Candidate("rare", 1, 1)],
            predictor="ridge",
            clock=clock,
        ).fit([*records, rare[place]])
        # One label of 0.9 beside a prior of 0.53 that is worth several.
        assert 0.5 < quality_of(router, "rare") < 0.77


def test_a_candidate_without_a_record_is_routed_by_its_prior(few, fitted):
    router = fitted("calculator", "lawyer")
    alone = quality_of(router, "all-round", "")
    means = few.quality.mean(axis=0)
    assert min(means[:2]) - 0.2 < alone < 0.9
    declared = Router(
        [*few.candidates[:2], replace(few.candidates[2], prior_quality=0.77)],
        predictor="ridge",
    ).fit(few.records("calculator", "lawyer"))
    assert quality_of(declared, "all-round", "") == 0.77
    found = declared.predict(few.queries).quality
    assert found[:, 2].mean() == pytest.approx(0.77, abs=0.05)
    # Query by query it follows those who are known.
    ease = found[:, :2].mean(axis=1)
    assert np.corrcoef(found[:, 2], ease)[0, 1] > 0.7


def test_a_recorded_cost_counts_more_than_tokens_times_price(few, clock):
    records = [replace(r, cost=r.cost * 3.0) for r in few.records()]
    router = Router(few.candidates, predictor="ridge", clock=clock).fit(records)
    plain = Router(few.candidates, predictor="ridge", clock=clock).fit(few.records())
    ratio = router.predict(few.queries).cost / plain.predict(few.queries).cost
    assert ratio == pytest.approx(3.0)


def test_what_was_known_of_a_free_model_with_a_bill_is_its_bill(clock):
    router = Router([Candidate("flat", 0, 0)], predictor="ridge", clock=clock)
    router.fit(RoutingRecord(f"q {i}", "flat", 1.0, cost=0.25) for i in range(20))
    assert router.predict(["hello"]).cost.tolist() == [[0.25]]


@pytest.mark.parametrize("kind", ["mlp", "auto"])
def test_one_seed_gives_one_router(few, clock, kind):
    def fit(seed):
        router = Router(few.candidates, predictor=kind, seed=seed, clock=clock)
        return router.fit(few.records()).predict([*QUERIES, *few.queries])

    assert same(fit(3), fit(3))


def test_records_may_come_in_any_order(few, clock):
    def fit(records):
        return Router(few.candidates, predictor="ridge", clock=clock).fit(records)

    by_candidate = [r for c in few.candidates for r in few.records(c.name)]
    assert same(
        fit(few.records()).predict(QUERIES), fit(iter(by_candidate)).predict(QUERIES)
    )


def test_progress_is_logged_only_if_asked_for(few, clock, caplog):
    router = Router(few.candidates, predictor="ridge", clock=clock)
    with caplog.at_level(logging.INFO, logger="mixllm_integrations"):
        router.fit(few.records())
        assert caplog.text == ""
        router.fit(few.records(), progress=True)
    assert "60 queries of 3 candidates" in caplog.text


# --- a fit that fails ---------------------------------------------------------


def test_a_record_of_an_unknown_candidate_is_named_and_nothing_is_lost(few, fitted):
    router = fitted()
    before = router.predict(QUERIES)
    secret = RoutingRecord("my secret", "gpt", 1.0)
    with pytest.raises(UnknownCandidateError, match="'gpt'; the router has") as caught:
        router.fit([*few.records(), secret])
    assert "secret" not in str(caught.value)
    assert same(before, router.predict(QUERIES))


def test_no_records_are_an_error(fitted):
    router = fitted()
    before = router.predict(QUERIES)
    with pytest.raises(ConfigurationError, match="no records"):
        router.fit([])
    assert same(before, router.predict(QUERIES))


@pytest.mark.parametrize("bad", [("q", "lawyer", 1.0), None, {"query": "q"}, "q"])
def test_what_is_no_record_is_refused_by_its_type(fitted, bad):
    with pytest.raises(ConfigurationError, match="records must be RoutingRecord, not"):
        fitted().fit([bad])


def test_records_that_break_off_leave_the_router_as_it_was(few, fitted):
    router = fitted()
    before = router.predict(QUERIES)

    def broken():
        yield from few.records()[:10]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        router.fit(broken())
    assert same(before, router.predict(QUERIES))
    assert router.record_feedback(router.route(QUERY).id, 1.0) is True


def test_an_encoder_that_fails_leaves_the_router_as_it_was(few, letter_encoder, clock):
    encoder = letter_encoder()
    router = Router(few.candidates, encoder=encoder, predictor="ridge", clock=clock)
    router.fit(few.records())
    before = router.predict(QUERIES)
    whole = encoder.encode
    encoder.encode = lambda texts: 1 / 0
    with pytest.raises(ZeroDivisionError):
        router.fit(few.records())
    encoder.encode = whole
    assert same(before, router.predict(QUERIES))


# --- newcomers, and those who leave -------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_adding_then_removing_a_candidate_changes_nothing(few, clock, kind):
    router = Router(few.candidates, predictor=kind, clock=clock).fit(few.records())
    for name in ("lawyer", "calculator"):
        router.record_feedback(router.route(QUERY, among=[name]).id, 0.3)
    before, decided = router.predict(QUERIES), router.route(QUERY)
    router.add_candidate(NEWCOMER)
    assert same(before, router.predict(QUERIES), before.candidates)
    router.record_feedback(router.route(QUERY, among=["newcomer"]).id, 1.0)
    router.remove_candidate("newcomer")
    assert same(before, router.predict(QUERIES))
    assert router.route(QUERY).prediction == replace(
        decided.prediction, waiting_seconds=0.0
    )
    assert [c.name for c in router.candidates] == [c.name for c in few.candidates]


def test_adding_then_removing_before_any_fit_changes_nothing(clock):
    router = pair(clock)
    router.record_feedback(router.route(QUERY).id, 1.0)
    before = router.predict(QUERIES)
    router.add_candidate(NEWCOMER)
    router.remove_candidate("newcomer")
    assert same(before, router.predict(QUERIES))


@pytest.mark.parametrize("kind", KINDS)
def test_a_newcomer_is_fitted_alone_and_leaves_the_others_alone(few, clock, kind):
    known = few.candidates[:2]
    router = Router(known, predictor=kind, clock=clock)
    router.fit(few.records("calculator", "lawyer"))
    for name in ("lawyer", "calculator"):
        router.record_feedback(router.route(QUERY, among=[name]).id, 0.3)
    before = router.predict([*QUERIES, *few.queries])
    router.add_candidate(few.candidates[2])
    unseen = router.predict([*QUERIES, *few.queries])
    router.fit(few.records("all-round"))
    after = router.predict([*QUERIES, *few.queries])
    assert same(before, unseen, ["calculator", "lawyer"])
    assert same(before, after, ["calculator", "lawyer"])
    assert unseen.quality[:, 2].std() > 0.02  # it follows the others
    assert after.quality[:, 2].std() > 0.02
    assert (after.uncertainty[:, 2] < unseen.uncertainty[:, 2]).all()


def test_a_removed_candidate_that_returns_goes_on_where_it_was(few, fitted):
    router = fitted()
    for _ in range(5):
        router.record_feedback(router.route(QUERY, among=["lawyer"]).id, 0.0)
        router.record_outcome(router.route(QUERY, among=["lawyer"]).id, Outcome(9, 900))
    before = router.predict(QUERIES)
    router.remove_candidate("lawyer")
    assert "lawyer" not in router.predict(QUERIES).candidates
    router.add_candidate(few.candidates[1])
    after = router.predict(QUERIES)
    assert after.candidates == ("calculator", "all-round", "lawyer")
    for name in ARRAYS:
        column = getattr(after, name)[:, 2]
        assert column == pytest.approx(getattr(before, name)[:, 1], rel=1e-12)


def test_a_candidate_returns_at_its_new_price_with_what_was_learned(few, fitted):
    router = fitted()
    before = router.predict(QUERIES)
    router.remove_candidate("all-round")
    router.add_candidate(Candidate("all-round", 10.0, 30.0))  # twice as dear
    after = router.predict(QUERIES)
    assert after.quality[:, 2] == pytest.approx(before.quality[:, 2], rel=1e-12)
    assert after.cost[:, 2] == pytest.approx(2 * before.cost[:, 2], rel=1e-9)


def test_removing_a_candidate_leaves_the_others_as_they_are(few, fitted):
    router = fitted()
    before = router.predict(QUERIES)
    router.remove_candidate("calculator")
    after = router.predict(QUERIES)
    for name in ARRAYS:
        assert getattr(after, name) == pytest.approx(
            getattr(before, name)[:, 1:], rel=1e-9
        )


def test_raising_a_price_never_raises_the_score_of_a_fitted_candidate(few, clock):
    router = Router(few.candidates, predictor="ridge", clock=clock).fit(few.records())

    @settings(max_examples=50)
    @given(
        st.floats(0, 1e3), st.floats(0, 1e3), st.floats(0, 1e3), st.floats(1e-6, 1e6)
    )
    def never_raises(price_in, price_out, more, worth):
        router.willingness_to_pay = worth
        scores = []
        for prices in (
            (price_in, price_out),
            (price_in + more, price_out),
            (price_in + more, price_out + more),
        ):
            router.remove_candidate("lawyer")
            router.add_candidate(Candidate("lawyer", *prices))
            scores.append(router.route(QUERY).scores["lawyer"].score)
        assert scores[0] >= scores[1] >= scores[2]

    never_raises()


def test_a_full_refit_learns_everything_anew(few, fitted):
    router, other = fitted(), fitted()
    for _ in range(3):
        router.record_feedback(router.route(QUERY).id, 0.0)
        router.record_outcome(router.route(QUERY).id, Outcome(5, 5_000))
    assert not same(router.predict(QUERIES), other.predict(QUERIES))
    router.fit(few.records())
    assert same(router.predict(QUERIES), other.predict(QUERIES))


def test_new_records_of_one_candidate_refit_that_one_alone(few, fitted):
    router = fitted()
    router.record_feedback(router.route(QUERY, among=["calculator"]).id, 0.0)
    before = router.predict(QUERIES)
    router.fit([replace(r, quality=0.25) for r in few.records("lawyer")])
    after = router.predict(QUERIES)
    assert same(before, after, ["calculator", "all-round"])
    assert quality_of(router, "lawyer") == pytest.approx(0.25, abs=0.02)


# --- feedback -----------------------------------------------------------------


def test_one_feedback_changes_the_prediction_as_worked_out_by_hand(clock):
    router = pair(clock, l2=4.0)
    decision = router.route(QUERY)
    assert router.record_feedback(decision.id, 1.0) is True
    found = router.predict([QUERY])
    # Before a fit |x|² = 2. Residual head: A = 10·I + xxᵀ, b = (1 - 0.5)·x, so
    # xᵀA⁻¹b = 0.5 · 2 / (10 + 2). Design matrix: 4·I + xxᵀ, width sqrt(2 / 6).
    assert found.quality[0] == pytest.approx([0.5 + 1 / 12, 0.4], abs=1e-6)
    width = [math.sqrt(2 / 6), math.sqrt(2 / 4)]
    assert found.uncertainty[0] == pytest.approx(width, abs=1e-6)


def test_the_residual_is_that_of_the_offline_head_not_of_the_sum(clock):
    router = pair(clock)
    for _ in range(2):
        router.record_feedback(router.route(QUERY).id, 1.0)
    # A = 10·I + 2·xxᵀ, b = 2 · 0.5·x: 2 / (10 + 4)
    assert quality_of(router, "a") == pytest.approx(0.5 + 2 / 14, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0, 1))
def test_feedback_moves_a_prediction_towards_it(rewards, prior):
    router = Router([Candidate("a", 1, 1, prior_quality=prior)], prior="none")
    for reward in rewards:
        before = quality_of(router, "a")
        decision = router.route(QUERY)
        router.record_feedback(decision.id, reward)
        after = quality_of(router, "a")
        mean_of_rewards = np.clip(
            [min(prior, *rewards) - 1e-9, max(prior, *rewards) + 1e-9], 0, 1
        )
        assert mean_of_rewards[0] <= after <= mean_of_rewards[1]
        if reward > max(prior, before):
            assert after >= before
        if reward < min(prior, before):
            assert after <= before


@pytest.mark.parametrize("kind", KINDS)
def test_feedback_moves_a_fitted_router_the_right_way(few, clock, kind):
    router = Router(few.candidates, predictor=kind, clock=clock).fit(few.records())
    names = [c.name for c in few.candidates]
    before = {n: quality_of(router, n) for n in names}
    for reward, name in ((0.0, "lawyer"), (1.0, "calculator")):
        for _ in range(6):
            router.record_feedback(router.route(QUERY, among=[name]).id, reward)
    after = {n: quality_of(router, n) for n in names}
    assert after["lawyer"] < before["lawyer"] - 0.05
    assert after["calculator"] > before["calculator"] + 0.05
    assert after["all-round"] == before["all-round"]


def test_enough_feedback_turns_the_choice(fitted):
    router = fitted(willingness_to_pay=10.0, exploration=0.0)
    assert router.route(QUERY).candidate == "lawyer"
    for _ in range(200):
        if router.route(QUERY).candidate != "lawyer":
            break
        router.record_feedback(router.route(QUERY, among=["lawyer"]).id, 0.0)
    assert router.route(QUERY).candidate != "lawyer"


def test_feedback_is_learned_where_it_was_given(fitted):
    router = fitted()
    other = "recipe oven butter soup"
    before = quality_of(router, "lawyer"), quality_of(router, "lawyer", other)
    for _ in range(5):
        router.record_feedback(router.route(QUERY, among=["lawyer"]).id, 0.0)
    here = before[0] - quality_of(router, "lawyer")
    there = before[1] - quality_of(router, "lawyer", other)
    assert here > 2 * abs(there)


def test_feedback_shrinks_the_uncertainty_of_the_chosen_one_alone(fitted):
    router = fitted()
    before = router.predict([QUERY]).uncertainty[0]
    router.record_feedback(router.route(QUERY, among=["lawyer"]).id, 0.5)
    after = router.predict([QUERY]).uncertainty[0]
    assert after[1] < before[1]
    assert after[[0, 2]].tolist() == before[[0, 2]].tolist()


def test_the_same_feedback_twice_counts_once(clock):
    router = pair(clock)
    decision = router.route(QUERY)
    assert router.record_feedback(decision.id, 1.0) is True
    before = router.predict(QUERIES)
    for reward in (1.0, 0.0, 0.5):
        assert router.record_feedback(decision.id, reward) is False
    assert same(before, router.predict(QUERIES))


def test_of_two_kinds_of_feedback_the_first_one_teaches(clock):
    router = pair(clock)
    decision = router.route(QUERY)
    assert router.record_feedback(decision.id, 1, kind="binary") is True
    before = router.predict(QUERIES)
    assert router.record_feedback(decision.id, 0.2, kind="refined") is True
    assert same(before, router.predict(QUERIES))


@pytest.mark.parametrize("reward", [0, 1])
def test_binary_feedback_moves_quality_less_than_a_grade_does(clock, reward):
    # At 0.5 a 0 or 1 scatters by 0.25, a grade by 0.2: it counts 0.8 times.
    one, two = pair(clock), pair(clock)
    one.record_feedback(one.route(QUERY).id, reward, kind="binary", source="thumbs")
    two.record_feedback(two.route(QUERY).id, float(reward))
    sign = 1 if reward else -1
    assert 0 < sign * (quality_of(one, "a") - 0.5) < sign * (quality_of(two, "a") - 0.5)


@pytest.mark.parametrize(
    ("reward", "kind"),
    [(1.5, "refined"), (-1, "refined"), (math.nan, "refined"), (0.5, "binary")],
)
def test_feedback_out_of_range_may_be_sent_again_corrected(clock, reward, kind):
    router = pair(clock)
    decision = router.route(QUERY)
    before = router.predict(QUERIES)
    with pytest.raises(ConfigurationError):
        router.record_feedback(decision.id, reward, kind=kind)
    assert same(before, router.predict(QUERIES))
    assert router.record_feedback(decision.id, 1, kind=kind) is True


def test_a_late_feedback_after_a_refit_changes_nothing_and_is_no_error(few, fitted):
    router = fitted()
    late = router.route(QUERY)
    router.fit(few.records())
    before = router.predict(QUERIES)
    assert router.record_feedback(late.id, 0.0) is True
    router.record_outcome(late.id, Outcome(5, 50_000))
    assert same(before, router.predict(QUERIES))


def test_a_decision_from_before_the_first_fit_teaches_nothing_after_it(few, clock):
    router = Router(few.candidates, predictor="ridge", clock=clock)
    late = router.route(QUERY)
    router.fit(few.records())
    before = router.predict(QUERIES)
    assert router.record_feedback(late.id, 0.0) is True
    assert same(before, router.predict(QUERIES))


def test_a_decision_on_a_newcomers_prior_teaches_nothing_after_its_fit(few, fitted):
    # Its residual is against the prior, not against the head that it has now.
    router = fitted("calculator", "lawyer")
    late = router.route(QUERY, among=["all-round"])
    other = router.route(QUERY, among=["lawyer"])
    router.fit(few.records("all-round"))
    before = router.predict(QUERIES)
    assert router.record_feedback(late.id, 0.0) is True
    router.record_outcome(late.id, Outcome(5, 50_000))
    assert same(before, router.predict(QUERIES))
    router.record_feedback(other.id, 0.0)
    assert quality_of(router, "lawyer") < before.quality[1, 1]


def test_feedback_for_a_removed_candidate_is_no_error(few, fitted):
    router = fitted()
    gone = router.route(QUERY, among=["lawyer"])
    router.remove_candidate("lawyer")
    before = router.predict(QUERIES)
    assert router.record_feedback(gone.id, 0.0) is True
    router.record_outcome(gone.id, Outcome(5, 10))
    assert same(before, router.predict(QUERIES))
    router.add_candidate(few.candidates[1])
    assert router.record_feedback(gone.id, 0.0) is False


def test_forgetting_makes_new_feedback_count_more(clock):
    def after(forgetting):
        router = pair(clock, forgetting=forgetting)
        for reward in [1.0] * 20 + [0.0] * 20:
            router.record_feedback(router.route(QUERY, among=["a"]).id, reward)
        return quality_of(router, "a")

    assert after(0.8) < after(1.0) - 0.1


# --- outcomes -----------------------------------------------------------------


def test_an_outcome_teaches_length_as_worked_out_by_hand(clock):
    router = pair(clock)
    router.record_outcome(router.route(QUERY).id, Outcome(10, 512))
    # 20 outcomes' worth of the predicted 256: 256·(512 + 20·256)/(256 + 20·256)
    assert router.predict([QUERY]).output_tokens[0] == pytest.approx(
        [256 * 5632 / 5376, 256]
    )


def test_lengths_settle_where_outcomes_are(fitted):
    router = fitted()
    first = router.predict([QUERY])
    for _ in range(600):
        decision = router.route(QUERY, among=["lawyer"])
        router.record_outcome(decision.id, Outcome(10, 1_000))
    found = router.predict([QUERY])
    assert found.output_tokens[0, 1] == pytest.approx(1_000, rel=0.05)
    assert found.output_tokens[0, [0, 2]].tolist() == (
        first.output_tokens[0, [0, 2]].tolist()
    )
    assert found.cost[0, 1] > first.cost[0, 1]


def test_an_outcome_teaches_cost_as_worked_out_by_hand(clock):
    router = pair(clock)
    decision = router.route(QUERY)
    said = decision.prediction.cost
    router.record_outcome(decision.id, Outcome(10, 256, cost=4 * said))
    # 20 outcomes' worth of what was predicted: (4 + 20)/(1 + 20)
    place = router.predict([QUERY]).candidates.index(decision.candidate)
    assert router.predict([QUERY]).cost[0, place] == pytest.approx(said * 24 / 21)


def test_bills_that_agree_with_the_forecast_leave_it_alone(clock):
    # Only bills were recorded: the lengths that they imply are not the real ones.
    names = ("a", "b")
    records = [
        RoutingRecord(f"question {i}", n, i % 2, cost=0.01)
        for i in range(40)
        for n in names
    ]
    router = Router([Candidate(n, 1.0, 2.0) for n in names], clock=clock).fit(records)
    for _ in range(100):
        decision = router.route(QUERY, among=["a"])
        router.record_outcome(decision.id, Outcome(20, 100, cost=0.01))
    np.testing.assert_allclose(router.predict([QUERY]).cost, 0.01, rtol=0.02)


@pytest.mark.parametrize(
    "outcome", [Outcome(10, 5_000, error="TimeoutError"), Outcome(10, 0)]
)
def test_a_call_that_failed_or_said_nothing_teaches_no_length(clock, outcome):
    router = pair(clock)
    before = router.predict(QUERIES)
    router.record_outcome(router.route(QUERY).id, outcome)
    assert same(before, router.predict(QUERIES))


def test_a_second_outcome_changes_nothing(clock):
    router = pair(clock)
    decision = router.route(QUERY)
    router.record_outcome(decision.id, Outcome(10, 512))
    before = router.predict(QUERIES)
    router.record_outcome(decision.id, Outcome(10, 10_000))
    assert same(before, router.predict(QUERIES))


def test_an_outcome_says_nothing_of_quality(clock):
    router = pair(clock)
    before = router.predict(QUERIES)
    router.record_outcome(router.route(QUERY).id, Outcome(1, 1, error="RateLimitError"))
    router.record_outcome(router.route(QUERY).id, Outcome(1, 900, latency_seconds=60.0))
    after = router.predict(QUERIES)
    assert np.array_equal(before.quality, after.quality)
    assert np.array_equal(before.uncertainty, after.uncertainty)


# --- exploration --------------------------------------------------------------


def test_full_labels_leave_nothing_to_explore(few, clock):
    router = Router(few.candidates, predictor="ridge", exploration=5.0, clock=clock)
    router.fit(few.records())
    for decision in router.route_batch(few.queries):
        assert decision.explored is False
        widths = {p.uncertainty for p in decision.scores.values()}
        assert len(widths) == 1


def test_a_newcomer_is_explored_until_it_is_known(few, fitted):
    router = fitted(exploration=1.0, willingness_to_pay=10.0)
    router.add_candidate(Candidate("weak", 1.0, 1.0, prior_quality=0.3))
    explored = 0
    for _ in range(60):
        decision = router.route(QUERY)
        if decision.candidate == "weak":
            assert decision.explored
            assert "(exploring)" in decision.explain()
            explored += 1
            router.record_feedback(decision.id, 0.0)
    assert 1 <= explored < 30
    assert router.route(QUERY).candidate != "weak"


def test_leverage_is_the_square_of_the_width(clock):
    def score(form):
        router = pair(clock, exploration=1.0, exploration_form=form, l2=8.0)
        return router.route(QUERY).scores["a"]

    width, leverage = score("width"), score("leverage")
    # xᵀx / l2 = 2 / 8
    cost = width.cost / 0.01
    assert width.score == pytest.approx(0.5 - cost + 0.5, abs=1e-6)
    assert leverage.score == pytest.approx(0.5 - cost + 0.25, abs=1e-6)


# --- load ---------------------------------------------------------------------


def test_feedback_says_that_the_answer_has_come(few, clock):
    router = Router(few.candidates, clock=clock)
    decision = router.route(QUERY)
    assert router._waiting.in_flight(decision.candidate) == 1
    router.record_feedback(decision.id, 1.0)
    assert router._waiting.in_flight(decision.candidate) == 0


def test_a_query_that_one_only_asks_about_is_no_load(few, clock):
    router = Router(few.candidates, clock=clock)
    decision = router.route(QUERY, charge_load=False)
    assert router._waiting.in_flight(decision.candidate) == 0


# --- calibration --------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated(world):
    sample = world.sample(300, seed=5)
    router = Router(world.candidates, predictor="ridge", exploration=0.0)
    return router.fit(sample.records()), sample


def test_calibrating_needs_a_fit(few, clock):
    with pytest.raises(NotFittedError, match="call fit first"):
        Router(few.candidates, clock=clock).calibrate(few.records(), quality_target=0.9)


@pytest.mark.parametrize(
    "targets",
    [
        {},
        {"quality_target": 0.9, "cost_target": 0.5},
        {"quality_target": 0},
        {"quality_target": math.nan},
        {"cost_target": -1},
        {"cost_target": "0.5"},
    ],
)
def test_exactly_one_target_in_range_is_needed(calibrated, targets):
    router, sample = calibrated
    with pytest.raises(ConfigurationError, match=r"quality_target|cost_target"):
        router.calibrate(sample.records(), **targets)


def test_too_few_queries_cannot_be_calibrated(calibrated):
    router, sample = calibrated
    records = [r for r in sample.records() if r.query in sample.queries[:19]]
    with pytest.raises(ConfigurationError, match="only 19 labelled queries"):
        router.calibrate(records, quality_target=0.9)


def test_labels_may_be_partial_in_a_calibration_too(calibrated):
    router, sample = calibrated
    records = [r for i, r in enumerate(sample.records()) if i % 4 != i // 4 % 4]
    found = router.calibrate(records, quality_target=0.9, apply=False)
    assert found.target_reached
    assert found.relative_cost < 1.0


def test_a_quality_target_is_reached_on_new_queries_for_less(calibrated, world):
    router, sample = calibrated
    found = router.calibrate(sample.records(), quality_target=0.95)
    assert found.target_reached
    assert found.strongest == "all-round"
    assert found.n_queries == len(set(sample.queries))
    assert found.relative_quality >= 0.95
    assert found.relative_cost < 0.5
    low, high = found.relative_quality_interval
    assert low < found.relative_quality < high
    assert router.willingness_to_pay == found.willingness_to_pay
    fresh = world.sample(400, seed=77)
    names = [c.name for c in world.candidates]
    decisions = router.route_batch(fresh.queries, charge_load=False)
    chosen = [names.index(d.candidate) for d in decisions]
    rows = np.arange(400)
    quality = fresh.expected_quality[rows, chosen].mean()
    cost = fresh.cost[rows, chosen].mean()
    assert quality >= 0.92 * fresh.expected_quality[:, 2].mean()
    assert cost < 0.6 * fresh.cost[:, 2].mean()


def test_a_cost_target_is_kept(calibrated):
    router, sample = calibrated
    found = router.calibrate(sample.records(), cost_target=0.3)
    assert found.target_reached
    assert found.relative_cost <= 0.3
    tight = router.calibrate(sample.records(), cost_target=0.1)
    assert tight.relative_quality <= found.relative_quality
    assert tight.willingness_to_pay <= found.willingness_to_pay


def test_queries_that_the_router_has_not_seen_are_judged_by_the_router_itself(
    calibrated, world
):
    router, _ = calibrated
    fresh = world.sample(120, seed=78)
    found = router.calibrate(fresh.records(), quality_target=0.95, apply=False)
    said = router.predict(fresh.queries)
    chosen = (said.quality - said.cost / found.willingness_to_pay).argmax(axis=1)
    rows = np.arange(len(fresh.queries))
    assert found.n_queries == len(rows)
    assert found.quality == pytest.approx(fresh.quality[rows, chosen].mean())
    assert found.cost == pytest.approx(fresh.cost[rows, chosen].mean())


def test_who_was_fitted_must_have_records_to_calibrate_on(calibrated):
    router, sample = calibrated
    records = [r for r in sample.records() if r.candidate != "all-round"]
    with pytest.raises(ConfigurationError, match=r"'all-round'.*every fitted"):
        router.calibrate(records, quality_target=0.9)


def test_a_target_out_of_reach_is_said_to_be(calibrated):
    router, sample = calibrated
    found = router.calibrate(sample.records(), quality_target=2.0, apply=False)
    assert not found.target_reached
    assert found.relative_quality < 2.0


def test_calibrating_without_applying_changes_nothing(calibrated):
    router, sample = calibrated
    router.willingness_to_pay = 0.123
    before = router.predict(QUERIES)
    one = router.calibrate(sample.records(), quality_target=0.9, apply=False)
    two = router.calibrate(sample.records(), quality_target=0.9, apply=False)
    assert one == two
    assert router.willingness_to_pay == 0.123
    assert same(before, router.predict(QUERIES))


def test_a_newcomer_and_a_price_leave_a_head_of_few_labels_alone(clock) -> None:
    def records(name, n, quality):
        return [RoutingRecord(f"question {i}", name, quality) for i in range(n)]

    candidates = [Candidate("known", 1.0, 1.0), Candidate("rare", 1.0, 1.0)]
    router = Router(candidates, predictor="ridge", clock=clock)
    router.fit([*records("known", 60, 0.5), *records("rare", 10, 0.9)])
    before = quality_of(router, "rare")
    assert 0.6 < before < 0.9
    router.add_candidate(Candidate("new", 1.0, 1.0))
    router.fit(records("new", 60, 0.1))
    assert quality_of(router, "rare") == before
    router.remove_candidate("rare")
    router.add_candidate(Candidate("rare", 100.0, 100.0))
    assert quality_of(router, "rare") == before
