"""What a `Decider` keeps at hand changes nothing of what it decides."""

import numpy as np
import pytest

from mixllm_integrations.core.policy import hard_limits
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
    limits = {"requires": requires, "among": among, "max_cost_per_query": most}
    wanted = hard_limits(
        CANDIDATES,
        cost=cost,
        input_tokens=tokens,
        input_tokens_are_estimated=not is_given,
        **limits,
    )
    assert decider._excluded(cost, tokens, is_given=is_given, **limits) == wanted


def test_an_unknown_cost_is_above_any_limit():
    decider = Router(CANDIDATES)._decider
    cost = np.array([np.nan, 0.0, 0.0])
    excluded = decider._excluded(
        cost, 1, is_given=True, requires=(), among=None, max_cost_per_query=1.0
    )
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
