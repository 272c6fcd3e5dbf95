"""Streams of recorded outcomes: what is asked, said, and changed, and when."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations import ConfigurationError
from mixllm_integrations.benchmark.online.streams import (
    BINARY_STREAMS,
    EXTRA_STREAMS,
    MAIN_STREAMS,
    STREAMS,
    Ground,
    chosen_newcomer,
    make_stream,
)

SMALL, LARGE, POET = 0, 1, 2


@pytest.fixture(scope="module")
def ground(world):
    """120 queries; who learns nothing asks the large model three times in four."""
    usual = np.where(np.arange(120) % 4 == 0, SMALL, LARGE)
    asked, test = world.select(range(120)), world.select(range(120, 180))
    return Ground(asked, test, world.names, "poet", usual, seed=3)


@pytest.fixture(scope="module")
def long(ground):
    """The same 3,000 times over, of answers that are right half of the time."""
    rows = np.arange(3_000) % 120
    asked = ground.asked.select(rows)
    right = np.random.default_rng(0).random(asked.quality.shape) < 0.5
    asked = replace(asked, quality=right.astype(float))
    return replace(ground, asked=asked, usual=ground.usual[rows])


def test_the_streams_are_those_of_the_issue():
    assert len(STREAMS) == 12
    assert not set(EXTRA_STREAMS) & set(STREAMS)
    assert set(MAIN_STREAMS) <= {*STREAMS, *EXTRA_STREAMS}
    assert set(BINARY_STREAMS) == {n for n in STREAMS if n in BINARY_STREAMS}


@given(name=st.sampled_from((*STREAMS, *EXTRA_STREAMS)), seed=st.integers(0, 5))
def test_every_stream_is_whole(ground, name, seed):
    stream = make_stream(name, replace(ground, seed=seed))
    n = len(stream)
    assert n == 120
    assert stream.present().any(axis=1).all()
    assert (stream.due >= np.arange(n)).all()
    said = stream.said[np.isfinite(stream.said)]
    assert ((said >= 0) & (said <= 1)).all()
    assert (stream.kind == "binary") == (name in BINARY_STREAMS)
    if stream.kind == "binary":
        assert set(np.unique(said)) <= {0.0, 1.0}
    assert stream.focus in stream.names
    assert 0 < stream.turning <= n


@pytest.mark.parametrize("name", STREAMS)
def test_the_same_ground_gives_the_same_stream(ground, name):
    one, same = make_stream(name, ground), make_stream(name, ground)
    for matrix in ("quality", "cost", "said", "due", "test_quality", "test_cost"):
        np.testing.assert_array_equal(getattr(one, matrix), getattr(same, matrix))


def test_refined_feedback_is_the_recorded_quality_at_once(ground):
    stream = make_stream("refined-30/70", ground)
    np.testing.assert_array_equal(stream.said, ground.asked.quality)
    np.testing.assert_array_equal(stream.due, np.arange(120))
    assert stream.present().all()
    assert stream.focus == "large"


def test_right_and_wrong_stay_so_as_binary_and_half_right_is_drawn(long):
    stream = make_stream("binary-30/70", long)
    np.testing.assert_array_equal(stream.said, long.asked.quality)
    halves = replace(long.asked, quality=np.full_like(long.asked.quality, 0.5))
    said = make_stream("binary-30/70", replace(long, asked=halves)).said
    # 9,000 draws: three standard deviations are 0.016.
    assert said.mean() == pytest.approx(0.5, abs=0.016)


def test_noise_flips_a_fifth(long):
    stream = make_stream("noisy", long)
    flipped = stream.said != long.asked.quality
    assert flipped.mean() == pytest.approx(0.2, abs=0.013)
    np.testing.assert_array_equal(stream.quality, long.asked.quality)


def test_sparse_feedback_is_a_tenth_whoever_answers(long):
    silent = np.isnan(make_stream("sparse", long).said)
    assert (silent.all(axis=1) == silent.any(axis=1)).all()
    assert 1 - silent.mean() == pytest.approx(0.1, abs=0.02)


def test_delayed_feedback_comes_50_to_500_queries_later_and_out_of_order(long):
    delay = make_stream("delayed", long).due - np.arange(3_000)
    assert (delay.min(), delay.max()) == (50, 500)
    assert (np.diff(delay) < -1).any()


def test_the_unhappy_speak_five_times_as_often(long):
    spoke = np.isfinite(make_stream("mnar", long).said)
    right = long.asked.quality == 1
    assert spoke[~right].mean() == pytest.approx(0.5, abs=0.03)
    assert spoke[right].mean() == pytest.approx(0.1, abs=0.02)


def test_the_newcomer_competes_from_half_on(ground):
    stream = make_stream("newcomer", ground)
    present = stream.present()
    assert present[:, [SMALL, LARGE]].all()
    assert not present[:60, POET].any()
    assert present[60:, POET].all()
    assert (stream.focus, stream.turning) == ("poet", 60)


def test_the_most_used_leaves_at_half_and_is_back_at_three_quarters(ground):
    stream = make_stream("leaver", ground)
    away = ~stream.present()
    assert stream.focus == "large"
    assert np.flatnonzero(away[:, LARGE]).tolist() == list(range(60, 90))
    assert not away[:, [SMALL, POET]].any()


def test_only_the_favourite_degrades_from_a_third_on_and_half_of_the_time(long):
    stream = make_stream("degraded", long)
    before = long.asked.quality
    assert (stream.focus, stream.turning) == ("large", 1_000)
    np.testing.assert_array_equal(stream.quality[:1_000], before[:1_000])
    others = [SMALL, POET]
    np.testing.assert_array_equal(stream.quality[:, others], before[:, others])
    was_right = before[1_000:, LARGE] == 1
    still = stream.quality[1_000:, LARGE]
    assert (still[~was_right] == 0).all()
    assert still[was_right].mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(stream.said, stream.quality)
    assert (stream.test_quality <= long.test.quality).all()
    assert stream.test_quality[:, LARGE].sum() < long.test.quality[:, LARGE].sum()


def test_the_strong_dear_candidate_costs_a_fifth_from_half_on(ground):
    stream = make_stream("price-cut", ground)
    (change,) = stream.changes
    assert (change.step, change.kind, stream.focus) == (60, "price", "large")
    # Prices 5 and 15 USD before.
    assert change.candidate.input_cost_per_million_tokens == pytest.approx(1.0)
    assert change.candidate.output_cost_per_million_tokens == pytest.approx(3.0)
    cost = ground.asked.cost
    np.testing.assert_array_equal(stream.cost[:60], cost[:60])
    np.testing.assert_allclose(stream.cost[60:, LARGE], 0.2 * cost[60:, LARGE])
    np.testing.assert_array_equal(stream.cost[60:, SMALL], cost[60:, SMALL])
    np.testing.assert_allclose(
        stream.test_cost[:, LARGE], 0.2 * ground.test.cost[:, LARGE]
    )
    np.testing.assert_allclose(stream.price_factors()[[59, 60], LARGE], [1.0, 0.2])
    assert (stream.price_factors()[:, SMALL] == 1).all()


def test_a_shorter_ground_begins_alike(ground):
    short = ground.first(50)
    assert len(short.asked) == len(short.usual) == 50
    assert short.asked.queries == ground.asked.queries[:50]
    assert len(ground.first(10_000).asked) == 120


def test_the_newcomer_is_whoever_is_beside_the_pool_or_worth_most_in_it(world):
    # The large model is right most often, but costs ten times as much.
    assert chosen_newcomer(world, ["small", "poet"], 1e9) == "large"
    assert chosen_newcomer(world, world.names, 1e9) == "large"
    assert chosen_newcomer(world, world.names, 1e-9) == "small"


def test_unknown_names_and_too_few_queries_are_refused(ground):
    with pytest.raises(ConfigurationError, match=r"'tidal'.*refined-30/70"):
        make_stream("tidal", ground)
    with pytest.raises(ConfigurationError, match="at least 4 queries, not 3"):
        make_stream("noisy", ground.first(3))
