"""Names and prices that change while a router is at work, and who returns."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.core.errors import (
    ConfigurationError,
    UnknownCandidateError,
    UnknownDecisionError,
)
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, Outcome

ARRAYS = ("quality", "output_tokens", "cost", "uncertainty")
QUERY = "Explain contract about court for tenant case 7?"
QUERIES = ["", QUERY, "Explain integral of prime?", "recipe with butter", "東京 🤖"]
DONE = Outcome(9, 400, latency_seconds=2.0)


def same(one, two):
    return all(np.array_equal(getattr(one, a), getattr(two, a)) for a in ARRAYS)


def column(router, name, what="quality", queries=QUERIES):
    found = router.predict(list(queries))
    return getattr(found, what)[:, found.candidates.index(name)]


def live(router, few, n=12):
    """Let every candidate have outcomes and feedback of each kind, and signals."""
    for index, query in enumerate(few.queries[:n]):
        name = router.candidates[index % len(router.candidates)].name
        decision = router.route(query, among=[name])
        if index % 4 == 0:
            router.record_signal(decision.id, "regenerate")
        router.record_outcome(decision.id, DONE)
        kind = "binary" if index % 2 else "refined"
        router.record_feedback(decision.id, float(index % 3 > 0), kind=kind)
    return router


@pytest.fixture
def lively(few, fitted):
    return live(fitted(implicit_signals=["regenerate"]), few)


# --- another name -----------------------------------------------------------------


def test_a_name_is_all_that_changes_with_it(lively, few):
    before = lively.predict([*QUERIES, *few.queries])
    lively.rename_candidate("lawyer", "advocate")
    after = lively.predict([*QUERIES, *few.queries])
    assert after.candidates == ("calculator", "advocate", "all-round")
    assert same(before, after)
    assert lively.candidates[1] == replace(few.candidates[1], name="advocate")
    decision = lively.route(QUERY)
    assert set(decision.scores) == set(after.candidates)


def test_what_is_pending_teaches_the_new_name(lively):
    late = lively.route(QUERY, among=["lawyer"])
    lively.rename_candidate("lawyer", "advocate")
    before = lively.predict(QUERIES)
    assert lively.record_feedback(late.id, 0.0) is True
    lively.record_outcome(late.id, Outcome(9, 9_000))
    after = lively.predict(QUERIES)
    for what in ("quality", "output_tokens", "cost"):
        was, now = getattr(before, what), getattr(after, what)
        assert np.array_equal(was[:, [0, 2]], now[:, [0, 2]])
        assert (was[:, 1] != now[:, 1]).all()


def test_learning_goes_on_as_if_it_had_always_had_that_name(few, fitted):
    old, new = (live(fitted(), few) for _ in range(2))
    new.rename_candidate("lawyer", "advocate")
    for query in few.queries[12:40]:
        for router, name in ((old, "lawyer"), (new, "advocate")):
            decision = router.route(query, among=[name])
            router.record_outcome(decision.id, DONE)
            router.record_feedback(decision.id, 0.0, kind="binary")
    assert same(old.predict(few.queries), new.predict(few.queries))
    assert old.refit() is new.refit() is True
    assert same(old.predict(few.queries), new.predict(few.queries))


def test_its_calls_under_way_stay_its_load(few, clock):
    slow = Candidate("slow", 1.0, 1.0, seconds_per_output_token=0.1, max_concurrency=1)
    router = Router([slow, few.candidates[2]], clock=clock)
    decision = router.route(QUERY, among=["slow"])
    waits = router.route(QUERY, charge_load=False).scores["slow"].waiting_seconds
    assert waits > 1.0
    router.rename_candidate("slow", "still slow")
    assert router._waiting.in_flight("still slow") == 1
    now = router.route(QUERY, charge_load=False).scores["still slow"]
    assert now.waiting_seconds == waits
    router.record_outcome(decision.id, Outcome(9, 100, latency_seconds=1.0))
    assert router._waiting.in_flight("still slow") == 0
    with pytest.raises(UnknownCandidateError):
        router._waiting.in_flight("slow")


def test_it_keeps_its_name_and_all_else_through_a_restart(lively, few, tmp_path, clock):
    late = lively.route(QUERY, among=["lawyer"])
    lively.rename_candidate("lawyer", "advocate")
    lively.save(tmp_path / "r")
    loaded = Router.load(tmp_path / "r", clock=clock)
    for each in (lively, loaded):
        each.record_feedback(late.id, 0.0)
    assert lively.candidates == loaded.candidates
    assert same(lively.predict(few.queries), loaded.predict(few.queries))


def test_the_old_name_is_free_for_another_candidate(lively, few):
    lively.rename_candidate("lawyer", "advocate")
    before = column(lively, "advocate")
    lively.add_candidate(Candidate("lawyer", 1.0, 4.0, prior_quality=0.5))
    assert np.array_equal(before, column(lively, "advocate"))
    width = column(lively, "lawyer", "uncertainty")
    assert (width > column(lively, "advocate", "uncertainty")).all()
    lively.fit(few.records("lawyer"))
    assert np.array_equal(before, column(lively, "advocate"))


def test_whoever_had_the_new_name_is_forgotten(lively):
    pending = lively.route(QUERY, among=["calculator"])
    lively.remove_candidate("calculator")
    lively.rename_candidate("lawyer", "calculator")
    before = lively.predict(QUERIES)
    # That was about another one, though it has its name now.
    lively.record_outcome(pending.id, Outcome(9, 5_000))
    lively.record_feedback(pending.id, 0.0)
    assert same(before, lively.predict(QUERIES))


def test_names_may_be_swapped(lively, few):
    before = lively.predict(few.queries)
    lively.rename_candidate("lawyer", "x")
    lively.rename_candidate("calculator", "lawyer")
    lively.rename_candidate("x", "calculator")
    after = lively.predict(few.queries)
    assert after.candidates == ("lawyer", "calculator", "all-round")
    assert same(before, after)
    live(lively, few)


@pytest.mark.parametrize(
    ("old", "new", "error", "said"),
    [
        ("gpt", "x", UnknownCandidateError, "'gpt'"),
        ("lawyer", "calculator", ConfigurationError, "'calculator' already"),
        ("lawyer", "lawyer", ConfigurationError, "'lawyer' already"),
        ("lawyer", "", ConfigurationError, "name"),
        ("lawyer", 7, ConfigurationError, "name"),
        ("lawyer", None, ConfigurationError, "name"),
    ],
)
def test_a_name_that_cannot_be_is_refused_and_nothing_changes(
    lively, old, new, error, said
):
    before, candidates = lively.predict(QUERIES), lively.candidates
    with pytest.raises(error, match=said):
        lively.rename_candidate(old, new)
    assert lively.candidates == candidates
    assert same(before, lively.predict(QUERIES))


# --- another price ----------------------------------------------------------------


def repriced(router, name, factor):
    (old,) = (c for c in router.candidates if c.name == name)
    new = replace(
        old,
        input_cost_per_million_tokens=old.input_cost_per_million_tokens * factor,
        output_cost_per_million_tokens=old.output_cost_per_million_tokens * factor,
    )
    router.replace_candidate(new)


@pytest.mark.parametrize("factor", [4.0, 0.25, 1.7])
def test_the_predicted_cost_follows_the_list_price_at_once(lively, factor):
    before = lively.predict(QUERIES)
    repriced(lively, "lawyer", factor)
    after = lively.predict(QUERIES)
    assert after.cost[:, 1] == pytest.approx(before.cost[:, 1] * factor, rel=1e-12)
    for what in ("quality", "output_tokens", "uncertainty"):
        assert np.array_equal(getattr(before, what), getattr(after, what))
    assert np.array_equal(before.cost[:, [0, 2]], after.cost[:, [0, 2]])


def test_a_price_cut_draws_the_queries_that_it_is_worth(few, fitted):
    router = fitted(willingness_to_pay=0.001, exploration=0.0)
    law = [q for q, t in zip(few.queries, few.tags, strict=True) if t == ("law",)]

    def share():
        found = router.route_batch(law, charge_load=False)
        return np.mean([d.candidate == "lawyer" for d in found])

    repriced(router, "lawyer", 100.0)
    assert share() == 0.0
    repriced(router, "lawyer", 0.001)
    assert share() > 0.9


@pytest.mark.parametrize("how", ["replaced", "left and returned"])
@pytest.mark.parametrize("billed", [True, False])
def test_calls_made_at_the_old_price_teach_nothing_of_costs(few, fitted, how, billed):
    router = fitted()
    calls = [router.route(q, among=["lawyer"]) for q in few.queries]
    before = column(router, "lawyer", "cost")
    if how == "replaced":
        repriced(router, "lawyer", 10.0)
    else:
        router.remove_candidate("lawyer")
        router.add_candidate(Candidate("lawyer", 10.0, 40.0))
    for call in calls:
        said = call.prediction
        router.record_outcome(
            call.id,
            Outcome(
                call.input_tokens,
                round(said.output_tokens),
                cost=said.cost if billed else None,
            ),
        )
    after = column(router, "lawyer", "cost")
    # Lengths were as predicted, up to rounding: ten times the price, so the cost.
    assert after == pytest.approx(10 * before, rel=0.02)


def test_calls_made_at_the_new_price_teach_its_costs(few, fitted):
    router = fitted()
    repriced(router, "lawyer", 10.0)
    before = column(router, "lawyer", "cost")
    for query in few.queries:
        call = router.route(query, among=["lawyer"])
        used = round(call.prediction.output_tokens)
        twice = Outcome(call.input_tokens, used, cost=2 * call.prediction.cost)
        router.record_outcome(call.id, twice)
    assert (column(router, "lawyer", "cost") > 1.5 * before).all()


def test_a_call_at_the_old_price_still_teaches_length_and_quality(fitted):
    router = fitted()
    call = router.route(QUERY, among=["lawyer"])
    repriced(router, "lawyer", 10.0)
    before = router.predict(QUERIES)
    router.record_outcome(call.id, Outcome(9, 9_000))
    router.record_feedback(call.id, 0.0)
    after = router.predict(QUERIES)
    assert (after.output_tokens[:, 1] > before.output_tokens[:, 1]).all()
    assert after.quality[1, 1] < before.quality[1, 1]
    assert np.array_equal(after.cost, before.cost)


def test_an_old_price_stays_old_after_a_restart(few, fitted, tmp_path, clock):
    router = fitted()
    calls = [router.route(q, among=["lawyer"]) for q in few.queries[:10]]
    repriced(router, "lawyer", 10.0)
    router.save(tmp_path / "r")
    loaded = Router.load(tmp_path / "r", clock=clock)
    before = column(loaded, "lawyer", "cost")
    for call in calls:
        loaded.record_outcome(call.id, Outcome(9, 100, cost=call.prediction.cost))
    assert np.array_equal(column(loaded, "lawyer", "cost"), before)


@given(factors=st.lists(st.sampled_from([0.5, 2.0, 4.0]), min_size=1, max_size=5))
def test_prices_that_go_up_and_down_leave_no_trace(factors):
    router = Router([Candidate("a", 1.0, 4.0), Candidate("b", 1.0, 4.0)])
    before = column(router, "a", "cost")
    for factor in [*factors, 1.0 / float(np.prod(factors))]:
        repriced(router, "a", factor)
    assert np.array_equal(column(router, "a", "cost"), before)  # powers of 2


# --- who returns ------------------------------------------------------------------


def test_whoever_returns_brings_all_that_was_learned(lively, few):
    before = lively.predict(few.queries)
    lively.remove_candidate("all-round")  # the last one: the order stays
    live(lively, few)
    lively.add_candidate(few.candidates[2])
    after = lively.predict(few.queries)
    for what in ARRAYS:
        was, now = getattr(before, what), getattr(after, what)
        assert np.array_equal(was[:, 2], now[:, 2])
        assert not np.array_equal(was[:, 0], now[:, 0])


def test_whoever_returns_after_a_restart_brings_it_too(lively, few, tmp_path, clock):
    before = column(lively, "lawyer", queries=few.queries)
    lively.remove_candidate("lawyer")
    lively.save(tmp_path / "r")
    loaded = Router.load(tmp_path / "r", clock=clock)
    loaded.add_candidate(few.candidates[1])
    after = column(loaded, "lawyer", queries=few.queries)
    assert after == pytest.approx(before, rel=1e-12)


def test_feedback_on_whoever_is_away_is_heard_but_teaches_nothing(lively, few):
    late, later = (lively.route(QUERY, among=["all-round"]) for _ in range(2))
    before = lively.predict(QUERIES)
    lively.remove_candidate("all-round")
    assert lively.record_feedback(late.id, 0.0) is True
    assert lively.record_signal(late.id, "regenerate") is True
    lively.record_outcome(late.id, Outcome(9, 100, error="TimeoutError"))
    lively.add_candidate(few.candidates[2])
    assert same(before, lively.predict(QUERIES))
    assert lively.record_feedback(late.id, 0.0) is False  # heard already
    assert lively.record_feedback(later.id, 0.0) is True
    assert column(lively, "all-round")[1] < before.quality[1, 2]
    with pytest.raises(UnknownDecisionError):
        lively.record_feedback("never made", 1.0)
