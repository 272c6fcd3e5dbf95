"""Learners in streams: what they are told, and what is made of their choices."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mixllm_integrations import ConfigurationError
from mixllm_integrations.benchmark.online.learners import (
    HeldOut,
    RouterLearner,
    Spending,
    frozen_choices,
    held_out_by,
    play,
    refitted_over_time,
)
from mixllm_integrations.benchmark.online.results import IDLE
from mixllm_integrations.benchmark.online.run import (
    HINDSIGHT,
    INFORMED,
    LEARNERS,
    run_online,
)
from mixllm_integrations.benchmark.online.scores import own_until_half, queries_until
from mixllm_integrations.benchmark.online.streams import STREAMS, Ground, make_stream
from mixllm_integrations.benchmark.online.worlds import Expected, WorldSettings
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Decision, Prediction

SETTINGS = WorldSettings(
    predictor="ridge", refit_every=40, informed_every=50, n_steps=80
)
STREAMS_HERE = ("refined-30/70", "refined-70/30", "newcomer", "leaver", "degraded")


@pytest.fixture(scope="module")
def ground(world):
    usual = np.ones(120, dtype=int)
    asked, test = world.select(range(120)), world.select(range(120, 180))
    return Ground(asked, test, world.names, "poet", usual, seed=3)


@pytest.fixture(scope="module")
def result(world):
    seen = []
    found = run_online(
        world,
        seeds=[0],
        streams=(*STREAMS_HERE, "unseen-domains", "price-cut"),
        learners=["ours", INFORMED, HINDSIGHT],
        settings=SETTINGS,
        willingness_to_pay=0.01,
        on_run=seen.append,
    )
    assert len(seen) == len(found.runs)
    return found


class Scripted:
    """Chooses one column, and notes all that it is told."""

    def __init__(self, column=1):
        self.column, self.heard, self.told = column, [], []
        self.at = -1

    def choose(self, step):
        self.at = step
        return self.column

    def billed(self, step, column, cost):
        self.told.append(("billed", step, column, cost))

    def hear(self, step, column, reward):
        self.heard.append((step, column, reward, self.at))

    def change(self, change):
        self.told.append((change.kind, change.step, change.candidate.name))

    def pause(self, step):
        self.told.append(("pause", step))

    def held_out(self):
        return HeldOut(np.zeros(1, dtype=np.int64))

    def extra(self):
        return {}


def test_a_learner_hears_of_the_chosen_answers_alone(ground):
    stream = make_stream("refined-30/70", ground)
    learner = Scripted(column=2)
    played = play(stream, learner, pause_every=50)
    assert (played.chosen == 2).all()
    rewards = ground.asked.quality[:, 2]
    assert learner.heard == [(i, 2, rewards[i], i) for i in range(120)]
    assert [t for t in learner.told if t[0] == "pause"] == [
        ("pause", 50),
        ("pause", 100),
        ("pause", 120),
    ]
    billed = [t for t in learner.told if t[0] == "billed"]
    assert billed[7] == ("billed", 7, 2, ground.asked.cost[7, 2])


def test_late_feedback_comes_when_it_is_due_and_the_rest_at_the_end(ground):
    stream = make_stream("refined-30/70", ground)
    due = stream.due.copy()
    due[:4] = (3, 2, 500, 400)
    learner = Scripted()
    play(replace(stream, due=due), learner, pause_every=1_000)
    steps = [(step, at) for step, _, _, at in learner.heard]
    # Query 1 is heard of after query 2, query 0 after query 3; the last two after
    # the last query, in the order in which they are due.
    assert steps[:2] == [(1, 2), (0, 3)]
    assert steps[-2:] == [(3, 119), (2, 119)]
    assert len(steps) == 120


def test_silence_is_not_told(ground):
    stream = make_stream("sparse", ground)
    learner = Scripted()
    play(stream, learner, pause_every=1_000)
    spoken = np.flatnonzero(np.isfinite(stream.said[:, 1]))
    assert [step for step, *_ in learner.heard] == spoken.tolist()


def test_changes_are_told_before_the_query_that_they_concern(ground):
    learner = Scripted(column=0)
    play(make_stream("leaver", ground), learner, pause_every=1_000)
    kinds = [t for t in learner.told if t[0] in {"leave", "join"}]
    assert kinds == [("leave", 60, "large"), ("join", 90, "large")]
    at = learner.told.index(("leave", 60, "large"))
    assert learner.told[at - 1][:2] == ("billed", 59)


def test_a_router_that_hears_nothing_chooses_what_was_expected_at_first(ground, world):
    train = world.select(range(120, 180))
    router = Router(world.candidates, predictor="ridge", prior="none", exploration=0.0)
    router.fit(train.records())
    shown = router.predict(list(ground.asked.queries))
    held = router.predict(list(ground.test.queries))
    expected = Expected(shown.quality, shown.cost, held.quality, held.cost)
    stream = make_stream("refined-30/70", ground)
    silent = replace(stream, said=np.full_like(stream.said, np.nan))
    learner = RouterLearner(
        router, silent, ground.asked, ground.test, willingness_to_pay=0.01
    )
    learner.billed = lambda *_: None
    played = play(silent, learner, pause_every=1_000)
    np.testing.assert_array_equal(played.chosen, frozen_choices(expected, silent, 0.01))
    idle = held_out_by(expected, silent, 0.01)
    np.testing.assert_array_equal(played.held_out.chosen, idle.chosen)
    np.testing.assert_allclose(played.held_out.quality, idle.quality)


def test_the_latest_fit_before_a_query_is_asked():
    def said(value):
        return Expected(*(np.full((n, 1), value) for n in (6, 6, 2, 2)))

    stream = type("Five", (), {"__len__": lambda self: 5})()
    fits = [(2, said(2.0)), (4, said(4.0)), (6, said(6.0))]
    found = refitted_over_time(said(0.0), fits, stream)
    assert found.quality[:, 0].tolist() == [0, 0, 2, 2, 4]
    assert found.test_quality[0, 0] == 4.0  # the fit on six queries comes too late


def test_exploration_costs_what_the_greedy_choice_would_have_saved():
    scores = {
        # Worth 0.6 − 0.1, 0.9 − 0.3, and more, but excluded.
        "a": Prediction(0.6, 10, 0.001, score=0.5),
        "b": Prediction(0.9, 10, 0.003, score=0.6),
        "c": Prediction(1.0, 10, 0.000),
    }
    spending = Spending()
    chosen = Decision("1", "a", scores, 0.01, explored=True)
    spending.add(chosen)
    assert (spending.explored, spending.extra_cost) == (1, 0.0)  # it was cheaper
    dearer = {**scores, "a": Prediction(0.6, 10, 0.004, score=0.2)}
    spending.add(replace(chosen, scores=dearer))
    assert spending.extra_cost == pytest.approx(0.001)
    spending.add(replace(chosen, explored=False))
    assert spending.explored == 2


def test_a_share_is_reached_when_the_latest_queries_have_it():
    chosen = np.array([0, 1, 0, 1, 1, 1], dtype=bool)
    # Of the latest four: 2 after four queries, 3 after five, 3 after six.
    assert queries_until(chosen, 0.5, trailing=4) == 4.0
    assert queries_until(chosen, 0.75, trailing=4) == 5.0
    assert queries_until(chosen, 1.0, trailing=4) == math.inf
    assert math.isnan(queries_until(chosen, 0.0, trailing=4))


def test_own_queries_are_counted_until_half_of_the_traffic_is_gone():
    before = np.ones(4, dtype=bool)
    after = np.array([1, 1, 1, 0, 1, 0, 0, 0], dtype=bool)
    found = own_until_half(np.append(before, after), 4, before=4, trailing=4)
    # Of four: 3, 3, 2 after six queries; it got four of these.
    assert found == {"share_before": 1.0, "late_share": 0.25, "own_to_half": 4.0}
    never = own_until_half(np.ones(12, dtype=bool), 4, before=4, trailing=4)
    assert never["own_to_half"] == math.inf


def test_each_stream_has_a_run_of_each_learner(result):
    found = [(run.stream, run.learner) for run in result.runs]
    assert len(set(found)) == len(found) == 4 * len(result.streams)
    assert set(result.learners) == {"ours", IDLE, INFORMED, HINDSIGHT}
    assert list(result.streams) == [s for s in STREAMS if s in result.streams]


def test_whoever_learns_nothing_gains_nothing_on_itself(result):
    for stream in result.streams:
        (run,) = result.of(stream, IDLE)
        assert run.equal_cost == pytest.approx(0.0, abs=1e-12)
        assert result.spread(stream, IDLE, "gain") == (0.0, 0.0)
        assert run.test_aiq == 0.0
    for stream in ("refined-30/70", "refined-70/30"):
        (bound,) = result.of(stream, HINDSIGHT)
        assert bound.regret == pytest.approx(0.0, abs=1e-9)


def test_windows_shares_and_means_agree(result):
    for run in result.runs:
        sizes = [100] * (run.n_steps // 100) + [run.n_steps % 100]
        sizes = [size for size in sizes if size]
        total = sum(r * s for r, s in zip(run.rewards, sizes, strict=True))
        assert total == pytest.approx(run.n_steps * run.reward)
        mean = run.quality - run.cost / run.willingness_to_pay
        assert run.reward == pytest.approx(mean)
        assert sum(run.shares.values()) == pytest.approx(1.0)
        focus = sum(r * s for r, s in zip(run.focus_shares, sizes, strict=True))
        assert focus == pytest.approx(run.n_steps * run.shares.get(run.focus, 0.0))


def test_a_stream_is_as_long_as_was_asked_but_those_of_the_paper_are_whole(result):
    lengths = {run.stream: run.n_steps for run in result.runs}
    # 144 of 180 queries are left for training; 30 % of them are 43.
    assert lengths["refined-30/70"] == lengths["unseen-domains"] == 101
    assert lengths["refined-70/30"] == 43
    assert lengths["leaver"] == lengths["degraded"] == 80


def test_what_is_of_interest_in_a_stream_is_noted(result):
    def extra(stream):
        return result.of(stream, "ours")[0].extra

    assert {"informed_share", "queries_to_90"} <= set(extra("newcomer"))
    assert {"own_to_half", "share_before"} <= set(extra("degraded"))
    assert {"loss", "loss_before", "loss_levels"} <= set(extra("unseen-domains"))
    for stream in STREAMS_HERE:
        assert extra(stream)["explored_cost_share"] >= 0.0


def test_other_values_of_quality_are_tried_where_asked(world):
    found = run_online(
        world,
        seeds=[1],
        streams=["refined-70/30", "price-cut"],
        learners=[IDLE],
        settings=SETTINGS,
        willingness_to_pay=0.01,
        factors=[4.0],
    )
    assert [(r.stream, r.willingness_to_pay) for r in found.runs] == [
        ("refined-70/30", 0.01),
        ("refined-70/30", 0.04),
        ("price-cut", 0.01),
    ]
    assert len(found.of("refined-70/30", IDLE)) == 1


def test_the_value_of_quality_is_calibrated_offline(world):
    found = run_online(
        world,
        seeds=[0],
        streams=["refined-70/30"],
        learners=[IDLE],
        settings=SETTINGS,
    )
    assert found.willingness_to_pay > 0
    assert "25 %" in found.willingness_rule


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"streams": ["tidal"]}, "unknown stream 'tidal'"),
        ({"learners": ["me"]}, "unknown learner 'me'"),
        ({"seeds": []}, "at least one seed"),
        ({"streams": []}, "at least one stream"),
    ],
)
def test_nonsense_is_refused(world, given, message):
    with pytest.raises(ConfigurationError, match=message):
        run_online(world, **given)


def test_the_learners_are_ours_the_peers_and_the_bounds():
    assert LEARNERS[0] == "ours"
    assert {"mabwiser LinUCB", "paretobandit", IDLE} <= set(LEARNERS)
