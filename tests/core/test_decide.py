"""What a `Decider` keeps at hand changes nothing of what it decides."""

import numpy as np
import pytest

from mixllm_integrations.core.limits import Terms, hard_limits
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, Outcome

CANDIDATES = [
    Candidate("tiny", 0.1, 0.2, context_window=50),
    Candidate("blind", 1.0, 2.0, vision=False),
    Candidate("large", 5.0, 15.0, context_window=4_000),
]


@pytest.mark.parametrize("requires", [(), [], ("vision",)])
@pytest.mark.parametrize("among", [None, ("tiny", "large")])
@pytest.mark.parametrize("most", [None, 0.0, 1e-4, 1.0, np.inf])
@pytest.mark.parametrize("tokens", [0, 50, 51, 5_000])
@pytest.mark.parametrize("is_given", [True, False])
def test_the_short_way_excludes_whom_the_hard_limits_exclude(
    requires, among, most, tokens, is_given
):
    decider = Router(CANDIDATES)._decider
    cost = np.array([1e-5, 1e-4, 1e-3])
    terms = Terms(requires=requires, among=among, max_cost_per_query=most)
    wanted = hard_limits(
        CANDIDATES,
        cost=cost,
        input_tokens=tokens,
        input_tokens_are_estimated=not is_given,
        terms=terms,
    )
    assert decider._excluded(cost, tokens, is_given=is_given, terms=terms) == wanted


def test_an_unknown_cost_is_above_any_limit():
    decider = Router(CANDIDATES)._decider
    cost = np.array([np.nan, 0.0, 0.0])
    terms = Terms(max_cost_per_query=1.0)
    excluded = decider._excluded(cost, 1, is_given=True, terms=terms)
    assert set(excluded) == {"tiny"}


def test_the_short_way_refuses_a_word_instead_of_words():
    with pytest.raises(ValueError, match="requires must be a collection"):
        Router(CANDIDATES).route("a prompt", requires="")


def test_every_decision_has_an_id_of_its_own():
    router = Router(CANDIDATES)
    ids = {decision.id for decision in router.route_batch(["same"] * 200)}
    assert len(ids) == 200
    assert {len(name) for name in ids} == {32}


def test_the_scores_are_those_that_were_compared():
    decision = Router(CANDIDATES).route("What is 2 + 2?", among=("blind", "large"))
    assert list(decision.scores) == ["tiny", "blind", "large"]
    assert decision.scores["tiny"].score == -np.inf
    best = max(decision.scores, key=lambda name: decision.scores[name].score)
    assert best == decision.candidate
    assert decision.prediction.quality == decision.scores[best].quality


def test_the_factors_at_hand_are_those_of_the_outcomes_so_far():
    router = Router(CANDIDATES)
    for number in range(12):
        decision = router.route("a prompt", among=[CANDIDATES[number % 3].name])
        router.record_outcome(decision.id, Outcome(20, 10 * number + 5))
        if number == 6:
            router.remove_candidate("blind")
            router.add_candidate(CANDIDATES[1])
        experience, names = router._experience, router._decider._names
        lengths, costs = experience.factors(names)
        assert lengths.tolist() == [experience.lengths[n].value for n in names]
        assert costs.tolist() == [experience.costs[n].value for n in names]
    assert len(set(lengths)) == 3


def test_a_discount_is_taken_off_the_cost_and_can_decide():
    pair = [Candidate("known", 1.0, 0.0), Candidate("other", 0.9, 0.0)]
    router = Router(pair, exploration=0.0, prior="none")
    plain = router.route("a prompt", input_tokens=10_000)
    assert plain.candidate == "other"
    cut = router.route("a prompt", input_tokens=10_000, discounts={"known": 0.004})
    assert cut.candidate == "known"
    before, after = plain.scores["known"].cost, cut.scores["known"].cost
    assert after == pytest.approx(before - 0.004)
    assert cut.scores["other"].cost == plain.scores["other"].cost


def test_a_discount_never_makes_a_cost_negative():
    router = Router([Candidate("known", 1.0, 0.0)])
    decision = router.route("a prompt", discounts={"known": 5.0})
    assert decision.prediction.cost == 0.0


def test_a_discount_that_was_foreseen_teaches_no_lower_price():
    router = Router([Candidate("known", 1.0, 0.0)])
    for _ in range(20):
        decision = router.route(
            "a prompt", input_tokens=10_000, discounts={"known": 0.004}
        )
        outcome = Outcome(10_000, 5, cost=0.006)
        router.record_outcome(decision.id, outcome)
    later = router.route("a prompt", input_tokens=10_000)
    assert later.prediction.cost == pytest.approx(0.01)


def test_the_highest_cost_of_one_query_goes_before_that_of_the_router():
    router = Router(CANDIDATES, max_cost_per_query=1e-9)
    decision = router.route("a prompt", max_cost_per_query=1.0)
    assert not decision.excluded


def test_the_tolerance_of_one_query_changes_its_penalty_alone():
    slow = Candidate("slow", 1.0, 1.0, seconds_per_output_token=0.1, max_concurrency=1)
    router = Router([slow], waiting_tolerance_seconds=1_000.0)
    router.route("a prompt")
    patient = router.route("a prompt", charge_load=False).prediction
    hurried = router.route(
        "a prompt", waiting_tolerance_seconds=10.0, charge_load=False
    ).prediction
    assert patient.waiting_seconds == hurried.waiting_seconds > 0
    assert hurried.waiting_penalty > patient.waiting_penalty > 0


def test_a_head_start_is_worth_as_much_quality_and_no_more():
    pair = [
        Candidate("known", 1.0, 1.0, prior_quality=0.50),
        Candidate("better", 1.0, 1.0, prior_quality=0.55),
    ]
    router = Router(pair, exploration=0.0, prior="none")
    assert router.route("q", head_start={"known": 0.06}).candidate == "known"
    assert router.route("q", head_start={"known": 0.04}).candidate == "better"
    told = router.route("q", head_start={"known": 0.06}).scores
    assert told["known"].quality == pytest.approx(0.50)
