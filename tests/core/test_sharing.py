"""Two routers and a log: what one decides, the other learns from, once."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest

from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, Feedback, Outcome

QUERIES = ("Explain contract about court?", "Explain sum 1 + 1", "")
DONE = Outcome(40, 300, cost=0.004, latency_seconds=2.0)
ARRAYS = ("quality", "output_tokens", "cost", "uncertainty")


@pytest.fixture(scope="module")
def folder(few, tmp_path_factory):
    """Return a folder of a router that was fitted on few records."""
    path = tmp_path_factory.mktemp("saved") / "router"
    Router(few.candidates, predictor="ridge").fit(few.records()).save(path)
    return path


@pytest.fixture(params=["unfitted", "fitted"])
def pair(request, few, folder):
    """Return two workers that were started alike."""
    if request.param == "fitted":
        return Router.load(folder), Router.load(folder)
    return Router(few.candidates), Router(few.candidates)


@pytest.fixture
def unfitted(few):
    return Router(few.candidates), Router(few.candidates)


def view(router):
    found = router.predict(QUERIES)
    return np.stack([getattr(found, name) for name in ARRAYS])


def same(one, other):
    np.testing.assert_allclose(view(one), view(other), rtol=1e-6, atol=1e-9)


def differ(before, router):
    return not np.array_equal(before, view(router))


def decided(router, query=QUERIES[0], **terms):
    """Return an id, and the record of it as the log gives it back."""
    decision_id = router.route(query, **terms).id
    return decision_id, json.loads(json.dumps(router.hand_over(decision_id)))


def teach(router, decision_id):
    router.record_outcome(decision_id, DONE)
    router.record_feedback(decision_id, 0.1)


# --- equal starts ----------------------------------------------------------------


def test_who_adopts_predicts_the_same_after_feedback(pair):
    a, b = pair
    decision_id, record = decided(a)
    before = view(b)
    assert b.adopt(decision_id, record)
    assert not differ(before, b)  # a decision alone teaches nothing
    for router in pair:
        assert router.record_feedback(decision_id, 0.1)
    same(a, b)
    assert differ(before, b)


def test_who_adopts_predicts_the_same_after_an_outcome(pair):
    a, b = pair
    decision_id, record = decided(a)
    before = view(b)
    b.adopt(decision_id, record)
    for router in pair:
        router.record_outcome(decision_id, DONE)
    same(a, b)
    changed = view(b) != before
    assert [bool(c.any()) for c in changed] == [False, True, True, False]


def test_who_adopts_predicts_the_same_after_a_signal(few):
    pair = [Router(few.candidates, implicit_signals=("regenerate",)) for _ in "ab"]
    a, b = pair
    for _ in range(15):  # what a signal says is learned beside grades
        decision_id, record = decided(a)
        b.adopt(decision_id, record)
        for router in pair:
            router.record_signal(decision_id, "regenerate")
            router.record_outcome(decision_id, DONE)
            router.record_feedback(decision_id, 0.0)
    decision_id, record = decided(a)
    b.adopt(decision_id, record)
    before = view(b)
    for router in pair:
        assert router.record_signal(decision_id, "regenerate")
    same(a, b)
    assert differ(before, b)


def test_binary_feedback_teaches_who_adopts_the_same(few):
    pair = [Router(few.candidates, binary_feedback="policy_gradient") for _ in "ab"]
    decision_id, record = decided(pair[0])
    pair[1].adopt(decision_id, record)
    for router in pair:
        router.record_feedback(decision_id, 1.0, kind="binary", source="thumbs")
    same(*pair)
    assert pair[1].has_learned_online


def test_a_record_holds_no_prompt_and_is_small(pair):
    _, record = decided(pair[0], "a secret that nobody else may read")
    text = json.dumps(record)
    assert "secret" not in text
    assert len(text) < 2_000


def test_adopting_and_telling_twice_changes_nothing(pair):
    a, b = pair
    decision_id, record = decided(a)
    assert b.adopt(decision_id, record)
    teach(b, decision_id)
    before = view(b)
    assert not b.adopt(decision_id, record)
    b.record_outcome(decision_id, DONE)
    assert not b.record_feedback(decision_id, 0.9)
    assert not differ(before, b)


def test_an_own_decision_is_not_adopted(pair):
    decision_id, record = decided(pair[0])
    assert not pair[0].adopt(decision_id, record)


def test_what_is_known_of_a_decision_teaches_nothing_again(pair):
    a, b = pair
    decision_id, record = decided(a)
    before = view(b)
    told = Feedback(decision_id, 0.0)
    assert b.adopt(
        decision_id, record, outcome=DONE, feedback=[told], signals=["truncated"]
    )
    b.record_outcome(decision_id, DONE)
    assert not b.record_feedback(decision_id, 1.0)
    assert not b.record_signal(decision_id, "truncated")
    assert not differ(before, b)
    assert not b.has_learned_online


def test_an_outcome_that_is_known_teaches_nothing_again(pair):
    a, b = pair
    decision_id, record = decided(a)
    before = view(b)
    b.adopt(decision_id, record, outcome=DONE)
    b.record_outcome(decision_id, DONE)
    assert not differ(before, b)


def test_a_signal_that_is_known_guards_the_lengths(pair):
    a, b = pair
    decision_id, record = decided(a)
    b.adopt(decision_id, record, signals=["truncated"])
    before = view(b)
    b.record_outcome(decision_id, DONE)
    assert not differ(before, b)


def test_what_is_adopted_is_awaited(pair):
    a, b = pair
    decision_id, record = decided(a)
    assert not b.awaits(decision_id)
    b.adopt(decision_id, record)
    assert b.awaits(decision_id)


def test_the_speed_of_an_adopted_call_is_learned_and_no_load_counted(unfitted):
    a, b = unfitted
    decision_id, record = decided(a)
    name = record["candidate"]
    b.learn_speed(decision_id, DONE)  # not adopted yet
    assert b._waiting.speeds()[name] == (None, None)
    b.adopt(decision_id, record)
    b.record_outcome(decision_id, DONE)
    b.learn_speed(decision_id, DONE)
    a.record_outcome(decision_id, DONE)
    assert b._waiting.speeds() == a._waiting.speeds()
    assert b._waiting.speeds()[name] != (None, None)
    assert b._waiting.in_flight(name) == 0
    a.learn_speed(decision_id, replace(DONE, latency_seconds=90.0))  # an own one
    assert b._waiting.speeds() == a._waiting.speeds()


# --- other starts ----------------------------------------------------------------


def test_only_what_is_pending_is_handed_over(pair):
    assert pair[0].hand_over("never made") is None


def test_what_was_decided_before_a_fit_is_not_handed_over(unfitted, few):
    a, _ = unfitted
    decision_id, _ = decided(a)
    a.fit(few.records())
    assert a.hand_over(decision_id) is None


def test_other_contexts_teach_nothing(few, folder, world, letter_encoder):
    other = world.sample(60, seed=9)
    strangers = [
        Router(few.candidates, predictor="ridge").fit(other.records()),
        Router(few.candidates),
        Router(few.candidates, encoder=letter_encoder()),
    ]
    decision_id, record = decided(Router.load(folder))
    for stranger in strangers:
        before = view(stranger)
        assert not stranger.adopt(decision_id, record)
        assert not stranger.awaits(decision_id)
        assert not differ(before, stranger)


def test_encoders_that_differ_in_revision_alone_share_nothing(few, letter_encoder):
    a, b = (
        Router(few.candidates, encoder=letter_encoder(revision=r)) for r in ("1", "2")
    )
    assert a.context_digest != b.context_digest
    assert not b.adopt(*decided(a))


def test_other_heads_judge_the_answer_themselves_and_leave_lengths(folder):
    a, b = Router.load(folder), Router.load(folder)
    for query in QUERIES * 4:
        b.record_feedback(b.route(query).id, 0.3)
    assert b.refit()
    decision_id, record = decided(a)
    record["predicted_quality"] = 1.0  # by heads that are not of here
    name, before = record["candidate"], b._experience.lengths
    before = {n: (r.real, r.count) for n, r in before.items()}
    assert b.adopt(decision_id, record)
    (expected,) = b._expected(name, b._ledger.get(decision_id).context[None])
    foreseen = b._experience._judged(b._ledger.get(decision_id), b._expected)
    assert foreseen.predicted == pytest.approx(expected)
    b.record_outcome(decision_id, DONE)
    after = {n: (r.real, r.count) for n, r in b._experience.lengths.items()}
    assert after == before
    assert not any(r.count for r in b._experience.costs.values())
    assert b.record_feedback(decision_id, 0.0)


def test_who_expects_something_else_of_a_newcomer_judges_it_himself(few):
    a = Router([Candidate("x", 1, 1, prior_quality=0.9)])
    b = Router([Candidate("x", 1, 1, prior_quality=0.2)])
    decision_id, record = decided(a)
    assert b.adopt(decision_id, record)
    pending = b._ledger.get(decision_id)
    judged = b._experience._judged(pending, b._expected)
    assert judged.predicted == pytest.approx(0.2)


def test_another_price_teaches_lengths_and_no_costs(unfitted, few):
    a, _ = unfitted
    dearer = [replace(c, output_cost_per_million_tokens=99.0) for c in few.candidates]
    # A declared quality, as a price would move what is expected.
    a, b = (
        Router([replace(c, prior_quality=0.5) for c in of])
        for of in (few.candidates, dearer)
    )
    decision_id, record = decided(a)
    assert b.adopt(decision_id, record)
    b.record_outcome(decision_id, DONE)
    name = record["candidate"]
    assert b._experience.lengths[name].count == 1
    assert b._experience.costs[name].count == 0


def test_a_candidate_that_is_not_here_teaches_nothing(few):
    a, b = Router(few.candidates), Router(few.candidates[1:])
    decision_id, record = decided(a, among=[few.candidates[0].name])
    assert not b.adopt(decision_id, record)
    assert not b.awaits(decision_id)


# --- the ledger ------------------------------------------------------------------


def test_adopted_decisions_crowd_out_no_own_ones_and_are_bounded(few):
    a = Router(few.candidates)
    b = Router(few.candidates, decision_capacity=3)
    own = [b.route(q).id for q in QUERIES]
    handed = [decided(a) for _ in range(5)]
    assert all(b.adopt(*each) for each in handed)
    assert all(map(b.awaits, own))
    assert [b.awaits(i) for i, _ in handed] == [False, False, True, True, True]


def test_own_decisions_are_saved_and_adopted_ones_are_not(unfitted):
    a, b = unfitted
    decision_id, record = decided(a)
    b.adopt(decision_id, record)
    own = b.route(QUERIES[0]).id
    again = copy.deepcopy(b)
    assert again.awaits(own)
    assert not again.awaits(decision_id)
    assert again.adopt(decision_id, record)


def test_a_new_name_reaches_what_was_adopted(unfitted):
    a, b = unfitted
    decision_id, record = decided(a)
    b.adopt(decision_id, record)
    b.rename_candidate(record["candidate"], "renamed")
    teach(b, decision_id)
    assert b._experience.lengths["renamed"].count == 1
    assert b._experience.replay.labels("renamed") == 1


def test_a_new_price_reaches_what_was_adopted(unfitted, few):
    a, b = unfitted
    decision_id, record = decided(a)
    b.adopt(decision_id, record)
    name = record["candidate"]
    (candidate,) = [c for c in few.candidates if c.name == name]
    b.replace_candidate(replace(candidate, output_cost_per_million_tokens=70.0))
    b.record_outcome(decision_id, DONE)
    assert b._experience.lengths[name].count == 1
    assert b._experience.costs[name].count == 0


def test_a_fit_reaches_what_was_adopted(folder, few):
    a, b = Router.load(folder), Router.load(folder)
    name = few.candidates[0].name
    decision_id, record = decided(a, among=[name])
    b.adopt(decision_id, record)
    b.fit(few.records(name))
    before = view(b)
    teach(b, decision_id)
    assert not differ(before, b)


def test_what_was_told_here_goes_with_a_snapshot_until_the_log_has_it(unfitted, few):
    a, b = unfitted
    decision_id, record = decided(a)
    b.adopt(decision_id, record)
    b.record_feedback(decision_id, 0.1)
    late = Router(few.candidates)
    assert late.resume(b.snapshot("log")[1])
    assert not late.record_feedback(decision_id, 0.1)
    same(b, late)
    with b.hearing("log", 1) as is_new:
        assert is_new
        b.heard_own(decision_id, "refined")
    later = Router(few.candidates)
    assert later.resume(b.snapshot("log")[1])
    assert not later.awaits(decision_id)


def test_only_what_is_told_while_hearing_counts_as_heard(unfitted):
    a, b = unfitted
    decision_id, record = decided(a)
    b.adopt(decision_id, record)
    with b.hearing("log", 1):
        b.record_feedback(decision_id, 0.1)
    assert b._ledger.get(decision_id).unheard == 0
    b.record_outcome(decision_id, DONE)
    assert b._ledger.get(decision_id).unheard > 0
