"""A candidate that joins a router at work: tried, found or dropped, at little cost."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest

from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, Decision

NEWCOMER = Candidate("newcomer", 1.0, 4.0, prior_quality=0.5)
MOST = 0.02  # of the predicted spending, that trying newcomers may add
PLAIN = {"waiting_weight": 0.0, "seed": 0}


@pytest.fixture(scope="module")
def settled(world):
    """A router that knows three candidates by 150 queries; tests copy it."""
    sample = world.sample(150, seed=2)
    router = Router(sample.candidates, predictor="ridge", **PLAIN)
    return router.fit(sample.records())


@pytest.fixture(scope="module")
def live(world):
    return world.sample(900, seed=7)


@dataclass
class Traffic:
    """What a stream of queries came to."""

    decisions: list[Decision]

    @property
    def is_new(self):
        return np.array([d.candidate == "newcomer" for d in self.decisions])

    @property
    def tried(self):
        """How often the newcomer was chosen only to get to know it."""
        return sum(d.explored and d.candidate == "newcomer" for d in self.decisions)

    def share(self, first, last):
        return float(self.is_new[first:last].mean())

    def most_extra(self):
        """Return the highest share of the spending so far that exploring added."""
        spent, extra, worst = 0.0, 0.0, 0.0
        for decision in self.decisions:
            said = decision.scores
            plain = {
                name: p.quality - p.cost / decision.willingness_to_pay
                for name, p in said.items()
            }
            usual = max(plain, key=plain.__getitem__)
            cost = said[decision.candidate].cost
            spent += cost
            extra += max(cost - said[usual].cost, 0.0)
            worst = max(worst, extra / spent)
        return worst


def run(router, live, quality, n=600, *, answered=1.0, seed=0, first=0):
    """Route queries of the world; the newcomer is equally good at all of them."""
    rng = np.random.default_rng(seed)
    names = [c.name for c in live.candidates]
    decisions = []
    for row in range(first, first + n):
        decision = router.route(live.queries[row], charge_load=False)
        good = quality
        if decision.candidate != "newcomer":
            good = live.expected_quality[row, names.index(decision.candidate)]
        reward, speaks = float(rng.random() < good), rng.random() < answered
        if speaks:
            router.record_feedback(decision.id, reward)
        decisions.append(decision)
    return Traffic(decisions)


def joined(settled, candidate=NEWCOMER):
    router = copy.deepcopy(settled)
    router.add_candidate(candidate)
    return router


def on_trial(router):
    return router._experience.trials.active


# --- found, or dropped --------------------------------------------------------------


@pytest.mark.parametrize("prior", [0.3, 0.5])
def test_one_that_is_better_than_its_prior_is_found_within_the_budget(
    settled, live, prior
):
    traffic = run(joined(settled, replace(NEWCOMER, prior_quality=prior)), live, 0.95)
    assert traffic.tried > 0
    assert traffic.share(300, 600) > 0.9
    assert traffic.most_extra() <= MOST + 1e-9


def test_without_a_trial_it_would_not_have_been(settled, live):
    router = joined(settled, replace(NEWCOMER, prior_quality=0.2))
    router.exploration = 0.0
    traffic = run(router, live, 0.95)
    assert traffic.tried == 0
    assert not any(d.explored for d in traffic.decisions)
    assert traffic.share(0, 600) < 0.01


def test_it_is_found_where_one_user_in_ten_answers(settled, live):
    traffic = run(joined(settled), live, 0.95, n=900, answered=0.1)
    assert traffic.share(500, 900) > 0.5
    assert traffic.most_extra() <= MOST + 1e-9


@pytest.mark.parametrize("prior", [0.5, 0.9])
def test_one_that_is_worse_than_its_prior_is_dropped(settled, live, prior):
    traffic = run(joined(settled, replace(NEWCOMER, prior_quality=prior)), live, 0.05)
    assert traffic.share(0, 200) > 0.02
    assert traffic.share(400, 600) < 0.06
    assert traffic.most_extra() <= MOST + 1e-9


def test_without_any_feedback_its_trial_stops(settled, live):
    router = joined(settled, replace(NEWCOMER, prior_quality=0.2))
    traffic = run(router, live, 0.95, answered=0.0)
    assert 0 < traffic.tried <= 60
    assert traffic.share(400, 600) < 0.02


def test_a_dear_newcomer_is_tried_no_more_than_the_budget_pays_for(settled, live):
    dear = Candidate("newcomer", 20.0, 60.0, prior_quality=0.9)
    router = joined(settled, dear)
    router.willingness_to_pay = 0.2
    traffic = run(router, live, 0.05, n=400)
    assert traffic.most_extra() <= MOST + 1e-9


@pytest.mark.parametrize("share", [0.0, 0.005])
def test_a_budget_of_ones_own_holds_trial_or_not(world, live, share):
    sample = world.sample(150, seed=2)
    router = Router(
        sample.candidates, predictor="ridge", exploration_budget=share, **PLAIN
    ).fit(sample.records())
    router.add_candidate(NEWCOMER)
    router.exploration = 0.3  # width, too, would have others tried
    traffic = run(router, live, 0.4, n=300)
    assert any(d.explored for d in traffic.decisions)
    assert traffic.most_extra() <= share + 1e-9


def test_in_every_period_the_budget_begins_anew(world, live, clock):
    sample = world.sample(150, seed=2)
    router = Router(
        sample.candidates,
        predictor="ridge",
        exploration_budget=0.02,
        exploration_period_seconds=100.0,
        clock=clock,
        **PLAIN,
    ).fit(sample.records())
    router.add_candidate(NEWCOMER)
    for period in range(5):
        traffic = run(router, live, 0.5, n=100, first=100 * period)
        assert traffic.most_extra() <= MOST + 1e-9
        clock.move(100.0)
    assert router._exploration.spent == 0.0


def test_thumbs_count_for_a_trial_in_the_papers_way_too(world, live):
    sample = world.sample(150, seed=2)
    router = Router(
        sample.candidates,
        predictor="ridge",
        binary_feedback="policy_gradient",
        **PLAIN,
    ).fit(sample.records())
    router.add_candidate(NEWCOMER)
    decision = router.route(live.queries[0], among=["newcomer"])
    assert router._experience.trials.state()["newcomer"]["waiting"] == 1
    router.record_feedback(decision.id, 1.0, kind="binary")
    tally = router._experience.trials.state()["newcomer"]
    assert (tally["taught"], tally["waiting"]) == (1, 0)


# --- who is a newcomer ----------------------------------------------------------------


def test_those_of_the_constructor_are_no_newcomers(world, settled):
    assert on_trial(settled) == ()
    assert on_trial(Router(world.candidates, **PLAIN)) == ()
    sample = world.sample(150, seed=2)
    router = Router([*sample.candidates, NEWCOMER], predictor="ridge", **PLAIN)
    router.fit(sample.records())  # of the others alone
    assert on_trial(router) == ()


def test_where_nobody_is_known_there_is_nobody_to_compare_a_newcomer_with(world):
    router = Router(world.candidates, **PLAIN)
    router.add_candidate(NEWCOMER)
    assert on_trial(router) == ()
    assert not router.route("What is a contract?").explored


def test_a_router_that_knows_its_candidates_by_feedback_alone_tries_one_too(
    world, live
):
    router = Router(world.candidates, **PLAIN)
    run(router, live, 0.5, n=320)
    router.add_candidate(NEWCOMER)
    assert on_trial(router) == ("newcomer",)


def test_a_newcomer_that_is_fitted_is_none_any_more(settled, world):
    router = joined(settled)
    assert on_trial(router) == ("newcomer",)
    sample = world.sample(30, seed=3)
    router.fit(
        replace(record, candidate="newcomer") for record in sample.records("lawyer")
    )
    assert on_trial(router) == ()


def test_whoever_was_known_before_it_left_returns_without_a_trial(settled, world):
    router = copy.deepcopy(settled)
    router.remove_candidate("lawyer")
    router.add_candidate(world.candidates[1])
    assert on_trial(router) == ()


def test_a_newcomer_that_left_half_way_goes_on_with_its_trial(settled, live):
    router = joined(settled)
    run(router, live, 0.5, n=50)
    before = router._experience.trials.state()["newcomer"]
    assert before["taught"] > 0
    router.remove_candidate("newcomer")
    assert on_trial(router) == ()
    router.add_candidate(NEWCOMER)
    assert on_trial(router) == ("newcomer",)
    assert router._experience.trials.state()["newcomer"]["taught"] == before["taught"]


def test_a_newcomer_under_another_name_goes_on_with_its_trial(settled, live):
    router = joined(settled, replace(NEWCOMER, name="beta"))
    before = router.route(live.queries[0], charge_load=False)
    router.rename_candidate("beta", "newcomer")
    assert on_trial(router) == ("newcomer",)
    after = router.route(live.queries[0], charge_load=False)
    assert after.scores["newcomer"].score == before.scores["beta"].score


# --- a restart ------------------------------------------------------------------------


def test_a_restart_neither_ends_a_trial_nor_begins_it_anew(settled, live, tmp_path):
    whole, cut = joined(settled), joined(settled)
    first = [run(router, live, 0.6, n=150) for router in (whole, cut)]
    assert np.array_equal(first[0].is_new, first[1].is_new)
    cut.save(tmp_path / "r")
    cut = Router.load(tmp_path / "r")
    assert cut._exploration.allowance() == whole._exploration.allowance()
    assert cut._experience.trials.state() == whole._experience.trials.state()
    second = [run(r, live, 0.6, n=150, first=150, seed=1) for r in (whole, cut)]
    assert np.array_equal(second[0].is_new, second[1].is_new)


def test_a_decision_that_only_asks_why_uses_up_nothing(settled, live):
    router = joined(settled)
    run(router, live, 0.5, n=30)
    state = router._experience.trials.state(), router._exploration.state()["extra"]
    for query in live.queries[30:60]:
        router.route(query, remember=False, charge_load=False)
    assert state == (
        router._experience.trials.state(),
        router._exploration.state()["extra"],
    )


def test_a_restart_changes_no_choice_where_a_newcomer_was_taught(
    settled, live, tmp_path
):
    whole, cut = joined(settled), joined(settled)
    for n, first in enumerate(range(0, 300, 60)):
        cut.save(tmp_path / str(n))
        cut = Router.load(tmp_path / str(n))
        found = [run(r, live, 0.9, n=60, first=first, seed=n) for r in (whole, cut)]
        chosen = [[d.candidate for d in t.decisions] for t in found]
        assert chosen[0] == chosen[1]
    assert found[0].share(0, 60) > 0.5


# --- whom the budget does not pay for -------------------------------------------------


def test_whoever_cannot_be_paid_for_bars_nobody_from_lots(settled, live):
    lots = [copy.deepcopy(settled) for _ in range(2)]
    lots[1].add_candidate(Candidate("newcomer", 2_000.0, 8_000.0, prior_quality=0.5))
    shares = []
    for router in lots:
        router._policy.randomisation = 0.5
        found = run(router, live, 0.0, n=300).decisions
        shares.append(np.mean([d.propensity < 1.0 for d in found]))
        dearest = np.mean([d.candidate == "all-round" for d in found])
        assert dearest > 0.05
    assert shares == [1.0, 1.0]


def test_where_answers_are_free_a_newcomer_that_is_not_is_tried_all_the_same(world):
    sample = world.sample(300, seed=2)
    free = [replace(c, input_cost_per_million_tokens=0.0) for c in sample.candidates]
    free = [replace(c, output_cost_per_million_tokens=0.0) for c in free]
    records = [replace(r, cost=0.0) for r in sample.records()]
    router = Router(free, predictor="ridge", **PLAIN).fit(records)
    router.add_candidate(Candidate("newcomer", 0.01, 0.04, prior_quality=0.5))
    assert run(router, world.sample(600, seed=7), 0.98).share(-100, None) > 0.9
