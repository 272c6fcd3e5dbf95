"""Offline heads that are fitted again on all that was observed since."""

import logging
import threading

import numpy as np
import pytest

from mixllm_integrations.core import learning
from mixllm_integrations.core.errors import NoCandidateError
from mixllm_integrations.core.memory import Memory
from mixllm_integrations.core.reading import read
from mixllm_integrations.core.replay import Replay
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, Outcome

ARRAYS = ("quality", "output_tokens", "cost", "uncertainty")
QUERY = "Explain contract about court for tenant case 7?"
QUERIES = ["", QUERY, "Explain integral of prime?", "recipe with butter", "東京 🤖"]
NEWCOMER = Candidate("newcomer", 2.0, 6.0, prior_quality=0.5)
LONG = 30.0  # seconds until a test gives up


def same(one, two):
    return one.candidates == two.candidates and all(
        np.array_equal(getattr(one, a), getattr(two, a)) for a in ARRAYS
    )


def column(router, name, what="quality", queries=(QUERY,)):
    found = router.predict(list(queries))
    return getattr(found, what)[:, found.candidates.index(name)]


def teach(router, queries, name="lawyer", reward=1.0, tokens=None):
    for query in queries:
        decision = router.route(query, among=[name])
        if tokens is not None:
            router.record_outcome(decision.id, Outcome(9, tokens))
        router.record_feedback(decision.id, reward)


class Gate:
    """Stands before the end of a refit until it is opened."""

    def __init__(self, monkeypatch):
        self.reached, self.opened = threading.Event(), threading.Event()
        self.passed, real = 0, learning.refitted

        def held(*args, **kwargs):
            found = real(*args, **kwargs)
            self.reached.set()
            assert self.opened.wait(LONG)
            self.passed += 1
            return found

        monkeypatch.setattr(learning, "refitted", held)


@pytest.fixture
def gate(monkeypatch):
    return Gate(monkeypatch)


def during_a_refit(router, gate, act):
    """Do something while a refit has its new heads, but has not put them in."""
    refit = threading.Thread(target=router.refit)
    refit.start()
    try:
        assert gate.reached.wait(LONG)
        act()
    finally:
        gate.opened.set()
        refit.join(LONG)
    assert gate.passed == 1


def background():
    return [t for t in threading.enumerate() if t.name == "refit"]


def wait_for_background():
    for thread in background():
        thread.join(LONG)
        assert not thread.is_alive()


# --- what a refit learns --------------------------------------------------------


def test_a_router_that_was_never_fitted_has_nothing_to_refit(few, clock):
    router = Router(few.candidates, clock=clock)
    teach(router, few.queries[:5])
    before = router.predict(QUERIES)
    assert router.refit() is False
    assert same(before, router.predict(QUERIES))


def test_without_anything_new_nothing_is_refitted(few, fitted):
    router = fitted()
    before = router.predict(QUERIES)
    assert router.refit() is False
    decision = router.route(QUERY)
    router.record_outcome(decision.id, Outcome(9, 90))  # says nothing of quality
    assert router.refit() is False
    router.record_feedback(decision.id, 1.0)
    assert router.refit() is True
    assert router.refit() is False
    router.record_feedback(decision.id, 0.0, kind="binary")  # the first one counts
    assert router.refit() is False
    assert not same(before, router.predict(QUERIES))


def test_a_refit_hands_what_was_learned_to_the_heads(few, fitted):
    router, untaught = fitted(), fitted()
    teach(router, few.queries, "calculator", reward=0.9)
    taught = column(router, "calculator", queries=few.queries)
    assert router.refit() is True
    after = column(router, "calculator", queries=few.queries)
    before = column(untaught, "calculator", queries=few.queries)
    # Half of the labels are those of the world, half are 0.9.
    assert after.mean() - before.mean() > 0.1
    assert after == pytest.approx(taught, abs=0.35)
    # The residuals began anew: the heads alone say it now.
    nothing = router._experience.residuals._solutions
    assert list(nothing.values()) == [None, None, None]
    assert router._knowledge.revision == untaught._knowledge.revision + 1


def test_a_refit_changes_neither_lengths_nor_prices_of_those_who_had_heads(few, fitted):
    router = fitted()
    teach(router, few.queries[:20], tokens=333)
    before = router.predict(few.queries)
    router.refit()
    after = router.predict(few.queries)
    assert np.array_equal(before.output_tokens, after.output_tokens)
    assert np.array_equal(before.cost, after.cost)
    assert np.array_equal(before.uncertainty, after.uncertainty)


def test_evidence_against_the_old_heads_is_not_held_against_the_new_ones(few, fitted):
    router = fitted()
    teach(router, few.queries[:20], "lawyer", reward=0.0)
    watched = router._experience.drift._of("lawyer")
    assert watched.quality.falls.score > 0
    router.refit()
    watched = router._experience.drift._of("lawyer")
    assert watched.quality.falls.score == 0
    assert router.drifts == ()


def test_one_that_was_removed_keeps_its_old_head_and_returns_as_it_was(few, fitted):
    router = fitted()
    teach(router, few.queries[:10], "lawyer", reward=0.0)
    before = column(router, "lawyer", queries=few.queries)
    router.remove_candidate("lawyer")
    teach(router, few.queries[:10], "calculator", reward=0.0)
    assert router.refit() is True
    router.add_candidate(few.candidates[1])
    after = column(router, "lawyer", queries=few.queries)
    assert after == pytest.approx(before, abs=1e-9)


def test_where_nobody_who_was_fitted_competes_a_refit_fails_nothing(few, fitted):
    router = fitted()
    teach(router, few.queries[:3])
    for candidate in few.candidates:
        router.remove_candidate(candidate.name)
    router.refit()
    with pytest.raises(NoCandidateError):
        router.route(QUERY)
    router.add_candidate(NEWCOMER)
    teach(router, few.queries[:3], "newcomer")
    router.refit()
    assert np.isfinite(column(router, "newcomer")).all()
    router.add_candidate(few.candidates[1])
    assert np.isfinite(column(router, "lawyer")).all()


def test_what_was_observed_before_a_newcomer_was_fitted_is_refitted_all_the_same(
    few, fitted
):
    router = fitted("calculator", "lawyer")
    teach(router, few.queries[:20], "lawyer", reward=0.0)
    router.fit(few.records("all-round"))
    assert router.refit() is True


# --- pending decisions ----------------------------------------------------------


def test_a_decision_made_before_a_refit_teaches_against_the_new_heads(few, fitted):
    router = fitted()
    late, later = (router.route(QUERY, among=["calculator"]) for _ in range(2))
    teach(router, few.queries, "calculator", reward=1.0)
    router.refit()
    expected = column(router, "calculator")[0]
    old = late.prediction.quality
    assert expected > old + 0.1
    # As good as the new heads expect: no news.
    router.record_feedback(late.id, float(expected))
    assert column(router, "calculator")[0] == pytest.approx(expected, abs=1e-5)
    # As good as the old ones expected: worse than the new ones do.
    router.record_feedback(later.id, old)
    assert column(router, "calculator")[0] < expected - 1e-3


def test_a_decision_of_before_a_refit_teaches_the_same_after_a_restart(
    few, fitted, tmp_path, clock
):
    router = fitted()
    late = router.route(QUERY, among=["lawyer"])
    teach(router, few.queries[:30], "lawyer", reward=0.0)
    router.refit()
    router.save(tmp_path / "r")
    loaded = Router.load(tmp_path / "r", clock=clock)
    for each in (router, loaded):
        assert each.record_feedback(late.id, 1.0) is True
    assert same(router.predict(QUERIES), loaded.predict(QUERIES))


# --- while it goes on -----------------------------------------------------------


def test_decisions_and_feedback_go_on_during_a_refit_and_none_is_lost(
    few, fitted, gate
):
    router, other = fitted(), fitted()
    for each in (router, other):
        teach(each, few.queries[:30], "calculator", reward=1.0)
    before, seen = router.predict(QUERIES), []

    def act():
        assert same(before, router.predict(QUERIES))
        teach(router, few.queries[30:40], "calculator", reward=0.0)
        seen.append(column(router, "calculator")[0])

    during_a_refit(router, gate, act)
    assert seen[0] < before.quality[1, 0]  # learned at once, by the old heads
    # About the same as if that feedback had come after the refit.
    assert other.refit() is True
    lost = column(other, "calculator", queries=few.queries)
    teach(other, few.queries[30:40], "calculator", reward=0.0)
    found, wanted = (
        column(r, "calculator", queries=few.queries) for r in (router, other)
    )
    assert found == pytest.approx(wanted, abs=0.02)
    assert (lost - found).mean() > 0.1
    assert router.refit() is True  # and the next one has it


def test_a_decision_is_made_by_the_old_heads_or_the_new_ones_never_by_both(few, fitted):
    router = fitted()
    teach(router, few.queries, "calculator", reward=1.0)
    seen, refit = [router.predict(QUERIES)], threading.Thread(target=router.refit)
    refit.start()
    while refit.is_alive():
        seen.append(router.predict(QUERIES))
    refit.join()
    after = router.predict(QUERIES)
    assert not same(seen[0], after)
    is_new = [same(after, one) for one in seen]
    assert is_new == sorted(is_new)  # first the old ones, then the new ones
    assert all(same(seen[0], one) for one in seen if not same(after, one))


@pytest.mark.parametrize("stage", ["table", "quality_at", "frozen", "refitted"])
def test_no_stage_of_a_refit_that_takes_long_holds_up_a_decision(
    few, fitted, monkeypatch, stage
):
    router, seen = fitted(), []
    teach(router, few.queries[:20])

    def free(real):
        def watched(*args, **given):
            asked = threading.Thread(target=router.predict, args=(QUERIES,))
            asked.start()
            asked.join(LONG)
            seen.append(not asked.is_alive())
            return real(*args, **given)

        return watched

    if stage == "table":
        monkeypatch.setattr(Replay, "table", free(Replay.table))
    elif stage == "frozen":
        real = Memory.frozen_corrections
        monkeypatch.setattr(
            Memory, "frozen_corrections", lambda *args: free(real(*args))
        )
    elif stage == "refitted":
        monkeypatch.setattr(learning, "refitted", free(learning.refitted))
    else:
        decider = router._decider
        monkeypatch.setattr(decider, stage, free(decider.quality_at))
    assert router.refit() is True
    assert seen == [True]


def test_what_is_frozen_for_a_refit_is_what_was_known_then(few, clock):
    router = Router(few.candidates, clock=clock, binary_feedback="policy_gradient")
    router.fit(few.records())
    teach(router, few.queries[:20], "lawyer", reward=0.0)
    for query in few.queries[:20]:
        decision = router.route(query, among=["calculator"])
        router.record_feedback(decision.id, 1, kind="binary")
    learned, names = router._experience, ["lawyer", "calculator"]
    learned.levels["lawyer"] = -0.25
    contexts = router._knowledge.context.contexts(read(QUERIES, router.encoder))
    wanted = learned.corrections(contexts, names), learned.scores(contexts, names)
    frozen = learned.frozen_corrections(names)
    learned.levels["lawyer"] = 0.0
    teach(router, few.queries[20:40], "lawyer", reward=1.0)
    for found, then in zip(frozen(contexts), wanted, strict=True):
        np.testing.assert_allclose(found, then, rtol=1e-12)
    assert wanted[1].any()
    assert not np.allclose(learned.corrections(contexts, names), wanted[0])


def test_a_name_that_changes_during_a_refit_keeps_its_head(few, fitted, gate):
    router, other = fitted(), fitted()
    for each in (router, other):
        teach(each, few.queries[:30], "lawyer", reward=0.0)
    during_a_refit(router, gate, lambda: router.rename_candidate("lawyer", "advocate"))
    other.refit()
    other.rename_candidate("lawyer", "advocate")
    assert same(router.predict(few.queries), other.predict(few.queries))


def test_whoever_leaves_and_returns_during_a_refit_learns_nothing_twice(
    few, fitted, gate
):
    router, other = fitted(), fitted()
    for each in (router, other):
        teach(each, few.queries, "calculator", reward=1.0)
    during_a_refit(router, gate, lambda: router.remove_candidate("calculator"))
    other.refit()
    other.remove_candidate("calculator")
    for each in (router, other):
        each.add_candidate(few.candidates[0])
    found, wanted = (
        column(r, "calculator", "quality", QUERIES) for r in (router, other)
    )
    assert found == pytest.approx(wanted, abs=1e-5)


# --- in the background ----------------------------------------------------------


def test_a_refit_begins_in_the_background_after_so_many_observations(few, fitted, gate):
    router = fitted(refit_every=20)
    teach(router, few.queries[:19])
    assert not background()
    before = router.predict(QUERIES)
    teach(router, few.queries[19:20])
    assert gate.reached.wait(LONG)
    teach(router, few.queries[20:50])  # more than enough: but one is under way
    assert len(background()) == 1
    gate.opened.set()
    wait_for_background()
    assert gate.passed == 1
    assert not same(before, router.predict(QUERIES))
    assert router.refit() is True  # what came meanwhile


def test_without_that_setting_nothing_begins_by_itself(few, fitted, gate):
    teach(fitted(), few.queries)
    assert not background()
    assert not gate.reached.is_set()


def test_a_refit_that_fails_is_logged_and_the_router_goes_on(
    few, fitted, monkeypatch, caplog
):
    router, tried = fitted(refit_every=10), []

    def broken(*args, **kwargs):
        tried.append(1)
        raise MemoryError("too many")

    monkeypatch.setattr(learning, "refitted", broken)
    with caplog.at_level(logging.ERROR, logger="mixllm_integrations"):
        teach(router, few.queries[:10])
        wait_for_background()
    assert "a refit failed" in caplog.text
    assert QUERY not in caplog.text
    assert len(tried) == 1
    before = column(router, "lawyer")[0]
    teach(router, few.queries[10:19], reward=0.0)
    wait_for_background()
    assert column(router, "lawyer")[0] < before
    assert len(tried) == 1  # not at every answer from then on
    monkeypatch.undo()
    teach(router, few.queries[19:20])
    wait_for_background()
    assert router._knowledge.revision == 1
    monkeypatch.setattr(learning, "refitted", lambda *_, **__: 1 / 0)
    teach(router, few.queries[20:21])
    with pytest.raises(ZeroDivisionError):  # who calls it himself is told
        router.refit()
