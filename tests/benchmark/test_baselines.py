"""Contract checks over every baseline, golden values of the simple ones."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mixllm_integrations import Candidate, NotFittedError, RoutingRecord
from mixllm_integrations.benchmark.baselines import (
    Baseline,
    DomainLookup,
    Embedded,
    SingleCandidate,
    default_baselines,
    hull_curve,
    hull_vertices,
)
from mixllm_integrations.benchmark.metrics import reference_point
from mixllm_integrations.benchmark.splits import stratified_split
from mixllm_integrations.benchmark.table import BenchmarkTable

NAMES = [b.name for b in default_baselines(seed=0)]


@pytest.fixture(scope="module")
def split(world):
    rng = np.random.default_rng(0)
    # An embedding that shows the domain, with noise.
    signs = np.array(
        [[d == t for t in ("sums", "law", "verse")] for d in world.domains]
    )
    embedding = signs + 0.3 * rng.normal(size=signs.shape)
    embedding = (embedding / np.linalg.norm(embedding, axis=1)[:, None]).astype("f4")
    rows, held_out = stratified_split(world, seed=0)
    return (
        Embedded(world.select(rows), embedding[rows]),
        Embedded(world.select(held_out), embedding[held_out]),
    )


def made(name, seed=0):
    found = [b for b in default_baselines(seed=seed) if b.name == name]
    return found[0] if found else SingleCandidate(name)


@pytest.mark.parametrize("name", [*NAMES, "poet"])
def test_every_baseline_predicts_usable_numbers_and_repeats_them(split, name):
    train, test = split
    baseline = made(name)
    assert isinstance(baseline, Baseline)
    assert baseline.fit(train) is baseline
    quality, cost = baseline.predict(test)
    assert quality.shape == cost.shape == test.table.quality.shape
    assert np.isfinite(quality).all()
    assert ((quality >= 0) & (quality <= 1)).all()
    assert (cost >= 0).all()
    again = made(name).fit(train).predict(test)
    assert np.array_equal(quality, again[0])
    assert np.array_equal(cost, again[1])


@pytest.mark.parametrize("name", ["kNN", "ridge", "random forest", "MLP"])
def test_every_regressor_learns_who_is_good_at_what(split, name):
    train, test = split
    quality, cost = made(name).fit(train).predict(test)
    is_sums = np.array(test.table.domains) == "sums"
    # "small" is right on 0.9 of the sums and on 0.2 to 0.3 of the rest.
    assert quality[is_sums, 0].mean() > quality[~is_sums, 0].mean() + 0.1
    assert cost.mean(axis=0) == pytest.approx(test.table.cost.mean(axis=0), rel=0.35)


@pytest.mark.parametrize("name", ["kNN", "true-domain lookup"])
def test_predicting_before_fitting_is_an_error(split, name):
    with pytest.raises(NotFittedError, match=name):
        made(name).predict(split[1])


def embedded(rows):
    records = [
        RoutingRecord(f"{i}", name, quality, cost=cost, tags=(domain,))
        for i, (domain, pairs) in enumerate(rows)
        for name, (quality, cost) in zip("ab", pairs, strict=True)
    ]
    table = BenchmarkTable.from_records(
        records, candidates=[Candidate("a", 1, 1), Candidate("b", 1, 1)]
    )
    return Embedded(table, np.zeros((len(table), 2), dtype="f4"))


TRAIN = embedded(
    [
        ("law", ((1.0, 0.25), (0.0, 2.0))),
        ("law", ((0.0, 0.75), (0.0, 4.0))),
        ("sums", ((1.0, 0.5), (1.0, 6.0))),
        ("sums", ((1.0, 0.5), (1.0, 8.0))),
    ]
)


def test_the_lookup_gives_the_means_of_the_domain():
    test = embedded([("law", ((0, 1), (0, 1))), ("verse", ((0, 1), (0, 1)))])
    quality, cost = DomainLookup().fit(TRAIN).predict(test)
    # law: (1 + 0) / 2 and 0; a domain never seen: the means of all four.
    assert quality.tolist() == [[0.5, 0.0], [0.75, 0.5]]
    assert cost.tolist() == [[0.5, 3.0], [0.5, 5.0]]


def test_the_mix_runs_straight_between_two_candidates():
    # On the training split b is no better and dearer, so the hull is a alone;
    # the other way round it joins both.
    test = embedded([("law", ((0.5, 1.0), (1.0, 4.0)))])
    reference = reference_point(test.table.quality, test.table.quality, test.table.cost)
    alone = hull_curve(TRAIN.table, test.table, reference)
    assert (alone.cost.tolist(), alone.quality.tolist()) == ([0.25], [0.5])
    both = hull_curve(test.table, test.table, reference, n_mixes=2)
    # From (1/4, 0.5) to (1, 1): half way at (0.625, 0.75).
    assert both.cost.tolist() == [0.25, 0.625, 1.0]
    assert both.quality.tolist() == [0.5, 0.75, 1.0]


numbers = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0.01, 10)), min_size=1, max_size=9
)


@given(numbers)
def test_nobody_lies_above_the_hull(pairs):
    quality, cost = (list(column) for column in zip(*pairs, strict=True))
    assume(len(set(cost)) == len(cost))
    hull = hull_vertices(quality, cost)
    assert cost[hull[0]] == min(cost)
    assert quality[hull[-1]] == max(quality)
    ordered = [cost[i] for i in hull]
    assert ordered == sorted(ordered)
    slopes = np.diff([quality[i] for i in hull]) / np.diff(ordered)
    assert (np.diff(slopes) <= 1e-9).all()
    for q, c in pairs:
        if c <= cost[hull[-1]]:
            bound = np.interp(c, ordered, [quality[i] for i in hull])
            assert q <= bound + 1e-9


def test_the_hull_of_one_candidate_is_that_one():
    assert hull_vertices([0.5], [math.pi]) == [0]
