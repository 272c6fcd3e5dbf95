"""Newcomers that get heads by a refit, and refits before and after a restart."""

import copy
import threading

import numpy as np
import pytest

from mixllm_integrations.core.refitting import ENOUGH_FOR_A_HEAD
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, Outcome

ARRAYS = ("quality", "output_tokens", "cost", "uncertainty")
QUERY = "Explain contract about court for tenant case 7?"
QUERIES = ["", QUERY, "Explain integral of prime?", "recipe with butter", "東京 🤖"]
NEWCOMER = Candidate("newcomer", 2.0, 6.0, prior_quality=0.5)


def same(one, two):
    return one.candidates == two.candidates and all(
        np.array_equal(getattr(one, a), getattr(two, a)) for a in ARRAYS
    )


def column(router, name, what="quality", queries=(QUERY,)):
    found = router.predict(list(queries))
    return getattr(found, what)[:, found.candidates.index(name)]


def missed(router, sample):
    """Return how far predicted quality is from what could be known, on average."""
    return np.abs(
        router.predict(sample.queries).quality - sample.expected_quality
    ).mean()


def answer(router, query, name, reward, *, outcome=None, signal=None):
    decision = router.route(query, among=[name])
    if signal is not None:
        router.record_signal(decision.id, signal)
    if outcome is not None:
        router.record_outcome(decision.id, outcome)
    router.record_feedback(decision.id, reward)


@pytest.fixture(scope="module")
def enough(world):
    """Queries for a newcomer, other than those that the others were fitted on."""
    return world.sample(100, seed=5)


@pytest.fixture
def joined(fitted):
    """A fitted router that a newcomer has joined."""
    router = fitted()
    router.add_candidate(NEWCOMER)
    return router


def tell(router, queries, reward=0.9, **given):
    for query in queries:
        answer(router, query, "newcomer", reward, **given)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "router"


# --- a head for a newcomer --------------------------------------------------------


def test_a_newcomer_gets_heads_of_its_own_with_enough_feedback(joined, enough):
    tell(joined, enough.queries[: ENOUGH_FOR_A_HEAD - 1])
    joined.refit()
    assert "newcomer" not in joined._knowledge.names
    tell(joined, enough.queries[ENOUGH_FOR_A_HEAD - 1 : ENOUGH_FOR_A_HEAD])
    before = joined.predict(QUERIES)
    assert joined.refit() is True
    assert joined._knowledge.names[-1] == "newcomer"
    after = column(joined, "newcomer", queries=enough.queries)
    assert after == pytest.approx(0.9, abs=0.08)  # 50 labels of 0.9, a prior of 0.5
    assert joined.predict(QUERIES).candidates == before.candidates


def test_a_newcomers_own_head_knows_what_it_is_good_at(joined, world, enough):
    law = [t == ("law",) for t in enough.tags]
    for query, is_law in zip(enough.queries, law, strict=True):
        answer(joined, query, "newcomer", float(is_law))
    joined.refit()
    test = world.sample(60, seed=6)
    found = column(joined, "newcomer", queries=test.queries)
    is_law = np.array([t == ("law",) for t in test.tags])
    assert found[is_law].min() > found[~is_law].max() - 0.1
    assert found[is_law].mean() - found[~is_law].mean() > 0.5


def test_what_a_refit_learns_of_a_newcomer_leaves_its_bill_as_it_was(joined, enough):
    # A thousand tokens each time, where its prior said some hundreds: by the end
    # that is known, and it is not known twice once it has a head for lengths.
    tell(joined, enough.queries, outcome=Outcome(10, 1_000))
    lengths = column(joined, "newcomer", "output_tokens")[0]
    cost = column(joined, "newcomer", "cost")[0]
    assert 700 < lengths < 1_100
    joined.refit()
    assert column(joined, "newcomer", "output_tokens")[0] == pytest.approx(
        1_000, rel=0.2
    )
    assert column(joined, "newcomer", "cost")[0] == pytest.approx(cost, rel=0.3)


def test_lengths_foreseen_without_a_head_are_not_held_against_a_new_one(joined, enough):
    late = [joined.route(q, among=["newcomer"]) for q in enough.queries[60:]]
    tell(joined, enough.queries[:60], outcome=Outcome(10, 1_000))
    joined.refit()
    for decision in late:  # foreseen as some hundreds of tokens
        joined.record_outcome(decision.id, Outcome(10, 1_000))
    length = column(joined, "newcomer", "output_tokens")[0]
    assert length == pytest.approx(1_000, rel=0.2)


def test_answers_that_were_cut_short_teach_no_length_by_a_refit_either(joined, enough):
    before = column(joined, "newcomer", "output_tokens")[0]
    cut = {"outcome": Outcome(10, 5), "signal": "truncated"}
    tell(joined, enough.queries[:60], **cut)
    assert column(joined, "newcomer", "output_tokens")[0] == before
    joined.refit()
    assert column(joined, "newcomer", "output_tokens")[0] > 50.0


def test_a_newcomer_of_which_no_length_is_known_gets_a_head_all_the_same(
    joined, enough
):
    tell(joined, enough.queries[:60])
    assert joined.refit() is True
    assert "newcomer" in joined._knowledge.names
    for what in ARRAYS:
        assert np.isfinite(column(joined, "newcomer", what, QUERIES)).all()


@pytest.mark.parametrize("kind", ["forest", "knn", "mlp"])
def test_every_kind_of_head_can_be_refitted(few, fitted, enough, kind):
    router = fitted(predictor=kind)
    router.add_candidate(NEWCOMER)
    tell(router, enough.queries[:60], 0.8)
    assert router.refit() is True
    assert set(router._knowledge.heads.quality.kinds) == {kind}
    assert column(router, "newcomer")[0] == pytest.approx(0.8, abs=0.1)
    assert np.isfinite(router.predict(QUERIES).quality).all()


# --- a restart --------------------------------------------------------------------


def test_before_a_refit_and_after_it_a_restart_changes_nothing(
    joined, enough, folder, clock
):
    tell(joined, enough.queries[:60], outcome=Outcome(10, 70))
    for _ in range(2):
        joined.save(folder)
        loaded = Router.load(folder, clock=clock)
        assert same(joined.predict(enough.queries), loaded.predict(enough.queries))
        assert loaded._refit_mark == joined._refit_mark
        joined.refit()
    assert joined.refit() is False


def test_a_refit_after_a_restart_learns_what_one_before_it_would(
    joined, enough, folder, clock
):
    tell(joined, enough.queries[:60], outcome=Outcome(10, 70))
    joined.save(folder)
    loaded = Router.load(folder, clock=clock)
    for each in (joined, loaded):
        assert each.refit() is True
    one, two = joined.predict(enough.queries), loaded.predict(enough.queries)
    # Contexts are kept in half precision: about three digits.
    assert one.quality == pytest.approx(two.quality, abs=0.01)
    assert one.output_tokens == pytest.approx(two.output_tokens, rel=0.02)
    loaded.save(folder)
    assert same(two, Router.load(folder, clock=clock).predict(enough.queries))


def test_a_copy_goes_on_alone_after_a_refit(joined, enough):
    tell(joined, enough.queries[:60])
    joined.refit()
    twin = copy.deepcopy(joined)
    assert same(joined.predict(QUERIES), twin.predict(QUERIES))
    tell(twin, enough.queries[60:], 0.0)
    twin.refit()
    assert joined.refit() is False
    assert not same(joined.predict(QUERIES), twin.predict(QUERIES))


# --- saved without what only a refit needs ----------------------------------------


@pytest.fixture
def compact(world, folder, clock):
    """A router that knows 120 queries, saved without them and loaded."""
    sample = world.sample(120, seed=4)
    router = Router(sample.candidates, predictor="ridge", clock=clock)
    router.fit(sample.records())
    for query in sample.queries[:20]:
        answer(router, query, "lawyer", 0.5)
    router.save(folder, compact=True)
    loaded = Router.load(folder, clock=clock)
    assert same(router.predict(QUERIES), loaded.predict(QUERIES))
    return loaded


def test_a_compact_folder_is_smaller_and_has_neither_labels_nor_their_contexts(
    fitted, tmp_path
):
    router = fitted()
    router.save(tmp_path / "whole")
    router.save(tmp_path / "compact", compact=True)
    whole, small = (
        (tmp_path / name / "arrays.safetensors").read_bytes()
        for name in ("whole", "compact")
    )
    assert len(small) < len(whole)
    assert b"online.replay" in whole
    assert b"online.replay" not in small


def test_without_the_labels_a_refit_leaves_the_heads_that_they_gave(compact, world):
    test = world.sample(100, seed=8)
    for query in test.queries[:60]:
        answer(compact, query, "lawyer", 0.3)
    before = compact.predict(test.queries)
    assert compact.refit() is False
    assert same(before, compact.predict(test.queries))


@pytest.mark.parametrize("how", ["saved whole", "copied"])
def test_labels_that_were_left_out_do_not_come_back_by_another_save(
    compact, world, folder, clock, how
):
    test = world.sample(100, seed=8)
    if how == "copied":
        again = copy.deepcopy(compact)
    else:
        compact.save(folder)
        again = Router.load(folder, clock=clock)
    before = missed(again, test)
    for query in test.queries[:3]:
        answer(again, query, "lawyer", 0.9)
    again.refit()
    assert missed(again, test) < before + 0.02


def test_new_records_make_a_compact_router_whole(compact, few):
    compact.fit(few.records())
    answer(compact, QUERY, "lawyer", 1.0)
    assert compact.refit() is True


def test_a_refit_that_cannot_be_is_not_tried_at_every_answer(
    fitted, few, folder, clock, monkeypatch
):
    fitted(refit_every=5).save(folder, compact=True)
    loaded, tried = Router.load(folder, clock=clock), []
    real = loaded.refit
    monkeypatch.setattr(loaded, "refit", lambda: (tried.append(1), real()))
    for query in few.queries[:20]:
        answer(loaded, query, "lawyer", 1.0)
        for thread in threading.enumerate():
            if thread.name == "refit":
                thread.join()
    assert len(tried) <= 4  # 20 / 5


def test_a_newcomer_to_a_router_without_the_labels_gets_its_trial(compact):
    compact.add_candidate(NEWCOMER)
    assert compact._experience.trials.active == ("newcomer",)
