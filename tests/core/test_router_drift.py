"""A candidate that silently changes: noticed, told, and routed by at once."""

import copy
import logging
from dataclasses import replace

import numpy as np
import pytest

from mixllm_integrations.core import learning
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, Outcome, RoutingRecord

STAR, PLAIN, POOR = (Candidate(name, 1.0, 4.0) for name in ("star", "plain", "poor"))
EVERYONE = (STAR, PLAIN, POOR)
USUAL = (0.8, 0.65, 0.4)  # how good their answers were when labels were made
OWN_QUERIES = 300  # within which half of the favourite's traffic must be gone


@pytest.fixture(scope="module")
def live(world):
    return world.sample(900, seed=7).queries


def made(world, **given):
    """Return a router that knows by 300 queries who is the best."""
    rng = np.random.default_rng(0)
    records = [
        RoutingRecord(query, c.name, float(rng.random() < good), output_tokens=100)
        for query in world.sample(300, seed=2).queries
        for c, good in zip(EVERYONE, USUAL, strict=True)
    ]
    return Router(EVERYONE, predictor="ridge", waiting_weight=0.0, **given).fit(records)


@pytest.fixture(scope="module")
def settled(world):
    """One of them; tests copy it."""
    return made(world)


@pytest.fixture
def router(settled):
    return copy.deepcopy(settled)


def stream(router, queries, quality, *, seed=0, kind="refined"):
    """Route and answer queries; return who answered."""
    rng = np.random.default_rng(seed)
    good = dict(zip(("star", "plain", "poor"), quality, strict=True))
    chosen = []
    for query in queries:
        decision = router.route(query, charge_load=False)
        chosen.append(decision.candidate)
        reward = float(rng.random() < good[decision.candidate])
        router.record_feedback(decision.id, reward, kind=kind)
    return chosen


def worsen(router, queries, *, seed=0):
    """Let the favourite, asked by itself, answer badly."""
    rng = np.random.default_rng(seed)
    for query in queries:
        decision = router.route(query, among=["star"], charge_load=False)
        router.record_feedback(decision.id, float(rng.random() < 0.1))


def share(chosen, name="star"):
    return chosen.count(name) / len(chosen)


def answer(router, queries, tokens, *, seconds_per_token=0.01, seed=0, name="star"):
    """Let one candidate answer at a length and a speed that scatter."""
    rng = np.random.default_rng(seed)
    for query in queries:
        decision = router.route(query, among=[name], charge_load=False)
        length = max(int(tokens * rng.lognormal(-0.08, 0.4)), 1)
        latency = (30 + length) * seconds_per_token * rng.lognormal(0.0, 0.3)
        router.record_outcome(decision.id, Outcome(20, length, latency_seconds=latency))


def alarmed(router, queries, *args, **given):
    """Let it answer until there is an alarm; return how many answers it took."""
    n_before = len(router.drifts)
    for n, query in enumerate(queries, start=1):
        answer(router, [query], *args, **{"seed": n, **given})
        if len(router.drifts) > n_before:
            return n
    raise AssertionError(f"no alarm in {len(queries)} answers")


def expected(router, queries, what="quality"):
    return getattr(router.predict(list(queries)), what).mean(axis=0)


# --- quality --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["refined", "binary"])
@pytest.mark.parametrize("worse", [0.1, 0.3, 0.45])
def test_a_favourite_that_gets_worse_loses_its_traffic(router, live, worse, kind):
    assert share(stream(router, live[:300], USUAL, kind=kind)) > 0.9
    assert router.drifts == ()
    # Before it is looked at again: see `test_second_looks`.
    after = stream(router, live[300:780], (worse, *USUAL[1:]), seed=1, kind=kind)
    own = np.flatnonzero(np.array(after) == "star")
    # By its 300th query since then, or before it had so many, half is gone.
    last = own[OWN_QUERIES] if own.size > OWN_QUERIES else len(after) // 2
    assert share(after[last:]) < 0.5
    assert share(after[-100:]) < 0.1
    assert [(e.candidate, e.quantity) for e in router.drifts] == [("star", "quality")]
    assert -0.7 < router.drifts[0].change < -0.15
    assert expected(router, live)[0] == pytest.approx(worse, abs=0.15)


def test_thumbs_raise_alarms_where_they_move_a_score_as_well(world, live):
    router = made(world, binary_feedback="policy_gradient")
    stream(router, live[:600], USUAL, kind="binary")
    assert router.drifts == ()
    stream(router, live[600:], (0.1, *USUAL[1:]), kind="binary")
    assert [(e.candidate, e.quantity) for e in router.drifts] == [("star", "quality")]


def test_an_alarm_is_told_once_in_the_log_and_names_no_prompt(router, live, caplog):
    with caplog.at_level(logging.WARNING, logger="mixllm_integrations"):
        worsen(router, live[:100])
    (event,), (record,) = router.drifts, caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == str(event)
    assert "candidate 'star': quality fell by about" in record.getMessage()
    assert not any(query in caplog.text for query in live)


def test_without_a_change_there_is_no_alarm(router, live):
    stream(router, live, USUAL)
    assert router.drifts == ()


def test_one_that_gets_better_is_noticed_as_well(router, live):
    for query in live[:300]:
        decision = router.route(query, among=["poor"])
        router.record_feedback(decision.id, 1.0)
    assert [(e.candidate, e.quantity) for e in router.drifts] == [("poor", "quality")]
    assert router.drifts[0].change > 0.2
    assert share(stream(router, live[300:400], (0.8, 0.65, 1.0)), "poor") > 0.9


def test_calls_that_fail_are_no_change_of_quality(router, live):
    for query in live[:300]:
        decision = router.route(query, among=["star"])
        router.record_outcome(decision.id, Outcome(9, 0, error="TimeoutError"))
        router.record_feedback(decision.id, 0.0)
    assert router.drifts == ()
    assert share(stream(router, live[300:400], USUAL)) > 0.9


def test_a_refit_after_an_alarm_does_not_bring_the_old_labels_back(router, live):
    worsen(router, live[:100])
    assert len(router.drifts) == 1
    before = expected(router, live)[0]
    assert before < 0.3
    assert router.refit() is True
    assert expected(router, live)[0] == pytest.approx(before, abs=0.1)
    assert share(stream(router, live[300:400], (0.1, *USUAL[1:]))) < 0.1


@pytest.mark.parametrize("is_renamed", [False, True])
def test_an_alarm_during_a_refit_is_not_undone_by_its_heads(
    router, live, monkeypatch, is_renamed
):
    real = learning.refitted

    def meanwhile(*args, **given):
        found = real(*args, **given)
        worsen(router, live[50:85])
        if is_renamed:
            router.rename_candidate("star", "sun")
        return found

    stream(router, live[:50], USUAL)
    monkeypatch.setattr(learning, "refitted", meanwhile)
    assert router.refit() is True
    assert [(e.candidate, e.quantity) for e in router.drifts] == [("star", "quality")]
    assert expected(router, live)[0] == pytest.approx(0.1, abs=0.1)
    monkeypatch.undo()
    assert router.refit() is True  # these know of it themselves
    assert expected(router, live)[0] == pytest.approx(0.1, abs=0.15)


def test_the_last_hundred_alarms_are_kept(router, live, caplog):
    caplog.set_level(logging.CRITICAL, logger="mixllm_integrations")
    worsen(router, live[:100])
    (event,) = router.drifts
    router._note(*(replace(event, at_observation=i) for i in range(150)))
    assert [e.at_observation for e in router.drifts] == list(range(50, 150))


# --- a restart ------------------------------------------------------------------------


def test_a_watch_goes_on_after_a_restart(router, live, tmp_path):
    whole, cut = router, copy.deepcopy(router)
    half = 25  # in the middle of the evidence
    for each in (whole, cut):
        worsen(each, live[:half])
        assert each.drifts == ()
    cut.save(tmp_path / "r")
    cut = Router.load(tmp_path / "r")
    for each in (whole, cut):
        worsen(each, live[half:150], seed=1)
    assert len(whole.drifts) == 1
    assert cut.drifts == whole.drifts  # the very same one
    assert cut.drifts[0].n_observations > 25
    assert np.array_equal(expected(whole, live), expected(cut, live))


def test_an_alarm_outlives_its_process(router, live, tmp_path):
    worsen(router, live[:100])
    before = expected(router, live)
    router.save(tmp_path / "r")
    loaded = Router.load(tmp_path / "r")
    assert loaded.drifts == router.drifts != ()
    assert np.array_equal(before, expected(loaded, live))
    worsen(loaded, live[100:200], seed=1)
    assert loaded.drifts == router.drifts  # it is not told of again


def test_the_watch_goes_on_under_another_name(router, live):
    twin = copy.deepcopy(router)
    for query in live[:200]:
        for each in (router, twin):
            name = each.candidates[0].name
            decision = each.route(query, among=[name], charge_load=False)
            each.record_feedback(decision.id, 0.0)
        if query == live[9]:
            twin.rename_candidate("star", "sun")
    assert len(router.drifts) == 1
    assert twin.drifts == (replace(router.drifts[0], candidate="sun"),)


# --- length and latency ---------------------------------------------------------------


def test_answers_that_get_longer_are_noticed_and_priced_at_once(router, live):
    answer(router, live[:100], 100)
    assert router.drifts == ()
    lengths, costs = (expected(router, live, w) for w in ("output_tokens", "cost"))
    assert alarmed(router, live[100:200], 300) < 40
    (event,) = router.drifts
    assert (event.candidate, event.quantity) == ("star", "output_tokens")
    assert event.change == pytest.approx(3.0, rel=0.4)
    for what, before in (("output_tokens", lengths), ("cost", costs)):
        now = expected(router, live, what)
        assert now[0] == pytest.approx(3.0 * before[0], rel=0.4)
        assert now[1:].tolist() == before[1:].tolist()
    answer(router, live[200:300], 300)
    now = expected(router, live, "output_tokens")
    assert now[0] == pytest.approx(300.0, rel=0.1)
    assert len(router.drifts) == 1


def test_one_that_becomes_wordy_loses_the_queries_it_is_too_dear_for(router, live):
    router.willingness_to_pay = 0.002  # 0.2 more quality is worth 0.0004 USD
    answer(router, live[:100], 100)
    assert share(stream(router, live[:100], USUAL)) > 0.5
    alarmed(router, live[100:200], 500)
    assert share(stream(router, live[200:300], USUAL, seed=1)) < 0.2


def test_answers_that_get_slower_are_noticed(router, live):
    answer(router, live[:100], 100)
    before = router.predict(live)
    assert alarmed(router, live[100:200], 100, seconds_per_token=0.03) < 40
    (event,) = router.drifts
    assert (event.candidate, event.quantity) == ("star", "latency")
    assert event.change == pytest.approx(3.0, rel=0.4)
    after = router.predict(live)
    assert np.array_equal(before.quality, after.quality)


def test_answers_that_are_cut_short_or_fail_are_no_change_of_length(router, live):
    answer(router, live[:60], 100)
    for query in live[60:160]:
        for signal, error in (("truncated", None), (None, "TimeoutError")):
            decision = router.route(query, among=["star"], charge_load=False)
            if signal:
                router.record_signal(decision.id, signal)
            router.record_outcome(decision.id, Outcome(20, 3, error=error))
    assert router.drifts == ()
