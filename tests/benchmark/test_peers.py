"""The bandits from PyPI that stand beside the router, and how they are trained."""

import numpy as np
import pytest
from typer.testing import CliRunner

from mixllm_integrations import Candidate, NotFittedError, RoutingRecord
from mixllm_integrations.benchmark import commands, offline, peers, render
from mixllm_integrations.benchmark.baselines import (
    Baseline,
    CurveBaseline,
    Embedded,
    RandomChoice,
)
from mixllm_integrations.benchmark.metrics import aiq, reference_point, sweep
from mixllm_integrations.benchmark.offline import run_offline
from mixllm_integrations.benchmark.peers import (
    PEER_PACKAGES,
    MabWiser,
    ParetoBandit,
    ParetoBanditByItsOwnRule,
    installed_peers,
    missing_peers,
    peer_baselines,
)
from mixllm_integrations.benchmark.splits import stratified_split
from mixllm_integrations.benchmark.table import BenchmarkTable

MISSING = missing_peers()
needs_mabwiser = pytest.mark.skipif(
    "mabwiser" in MISSING, reason="mabwiser is not installed"
)
needs_paretobandit = pytest.mark.skipif(
    "paretobandit" in MISSING, reason="paretobandit is not installed"
)
every_peer = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(MabWiser, marks=needs_mabwiser),
        pytest.param(ParetoBandit, marks=needs_paretobandit),
        pytest.param(ParetoBanditByItsOwnRule, marks=needs_paretobandit),
    ],
)


@pytest.fixture(scope="module")
def split(world):
    rng = np.random.default_rng(0)
    # An embedding that shows the domain, with noise, in 6 dimensions.
    signs = np.array(
        [[d == t for t in ("sums", "law", "verse")] * 2 for d in world.domains]
    )
    embedding = (signs + 0.3 * rng.normal(size=signs.shape)).astype("f4")
    rows, held_out = stratified_split(world, seed=0)
    return (
        Embedded(world.select(rows), embedding[rows]),
        Embedded(world.select(held_out), embedding[held_out]),
    )


@pytest.fixture(scope="module")
def reference(split):
    train, test = (part.table for part in split)
    return reference_point(train.quality, test.quality, test.cost)


def first(part, n):
    return Embedded(part.table.select(np.arange(n)), part.embedding[:n])


@every_peer
def test_every_peer_predicts_usable_numbers_and_repeats_them(split, kind):
    train, test = split
    peer = kind(seed=3)
    assert isinstance(peer, Baseline)
    assert peer.fit(train) is peer
    quality, cost = peer.predict(test)
    assert quality.shape == cost.shape == test.table.quality.shape
    assert ((quality >= 0) & (quality <= 1)).all()
    again = kind(seed=3).fit(train).predict(test)
    assert np.array_equal(quality, again[0])
    assert np.array_equal(cost, again[1])


@every_peer
def test_every_peer_learns_who_is_good_at_what(split, kind):
    train, test = split
    quality, _ = kind().fit(train).predict(test)
    is_sums = np.array(test.table.domains) == "sums"
    # "small" is right on 0.9 of the sums and on 0.2 to 0.3 of the rest.
    assert quality[is_sums, 0].mean() > quality[~is_sums, 0].mean() + 0.1


@every_peer
def test_the_cost_of_a_candidate_is_its_mean_on_the_training_split(split, kind):
    train, test = split
    _, cost = kind().fit(train).predict(test)
    expected = np.tile(train.table.cost.mean(axis=0), (len(test.table), 1))
    assert cost == pytest.approx(expected)


@every_peer
def test_every_peer_is_far_better_than_chance(split, reference, kind):
    train, test = split

    def area(baseline):
        baseline.fit(train)
        if isinstance(baseline, CurveBaseline):
            return aiq(baseline.curve(test, reference), reference)
        curve = sweep(
            *baseline.predict(test),
            true_quality=test.table.quality,
            true_cost=test.table.cost,
            reference=reference,
        )
        return aiq(curve, reference)

    assert area(kind()) > area(RandomChoice()) + 0.1


@every_peer
def test_a_single_query_can_be_asked(split, kind):
    train, test = split
    peer = kind().fit(train)
    one, several = peer.predict(first(test, 1)), peer.predict(test)
    assert one[0] == pytest.approx(several[0][:1])
    assert one[1] == pytest.approx(several[1][:1])


@every_peer
def test_predicting_before_fitting_is_an_error(split, kind):
    with pytest.raises(NotFittedError, match="needs fit first"):
        kind().predict(split[1])


def ridge(split, l2, *, whiten):
    """Expected qualities of all candidates from one batch solution."""
    train, test = split
    mean = train.embedding.mean(axis=0, dtype=float)
    values, axes = np.linalg.eigh(np.cov(train.embedding.T.astype(float)))
    axes = axes / np.sqrt(values) if whiten else axes

    def context(part):
        found = (part.embedding - mean) @ axes
        return np.hstack([found, np.ones((len(found), 1))])

    x = context(train)
    gram = x.T @ x + l2 * np.eye(x.shape[1])
    return context(test) @ np.linalg.solve(gram, x.T @ train.table.quality)


@needs_mabwiser
def test_mabwiser_learns_from_every_row_and_adds_no_bonus(split):
    found, _ = MabWiser(l2=4.0).fit(split[0]).predict(split[1])
    expected = np.clip(ridge(split, 4.0, whiten=False), 0, 1)
    assert found == pytest.approx(expected, abs=1e-5)


@needs_paretobandit
def test_paretobandit_learns_from_every_row_and_forgets_none(split):
    found, _ = ParetoBandit().fit(split[0]).predict(split[1])
    expected = np.clip(ridge(split, 1.0, whiten=True), 0, 1)
    assert found == pytest.approx(expected, abs=1e-5)


@needs_paretobandit
def test_its_own_rule_chooses_as_its_own_router_does(split):
    train, test = split
    peer = ParetoBanditByItsOwnRule().fit(train)
    router, context = peer._router, peer._context.of(test.embedding)
    for penalty in (0.0, *np.geomspace(0.01, 3.0, 25).tolist()):
        router.cost_penalty = penalty
        with router.exploit():
            routed = [router.route(x)[0] for x in context]
        chosen = peer.choices(test, penalty)
        assert [test.table.names[column] for column in chosen] == routed


@needs_paretobandit
def test_its_own_curve_runs_from_the_best_predicted_to_the_cheapest(split, reference):
    train, test = split
    peer = ParetoBanditByItsOwnRule().fit(train)
    curve = peer.curve(test, reference)
    rows, best = np.arange(len(test.table)), peer.choices(test, 0.0)
    assert curve.quality[0] * reference.quality == pytest.approx(
        test.table.quality[rows, best].mean()
    )
    assert curve.cost[-1] * reference.cost == pytest.approx(reference.cheapest_cost)


@needs_paretobandit
@pytest.mark.parametrize("costs", [(0.0, 0.01), (0.0, 0.0), (0.01, 0.01)])
def test_free_and_equally_dear_candidates_are_no_obstacle(costs):
    records = [
        RoutingRecord(f"{i}", name, float(i % 2), cost=cost)
        for i in range(8)
        for name, cost in zip("ab", costs, strict=True)
    ]
    table = BenchmarkTable.from_records(
        records, candidates=[Candidate("a", 0, 0), Candidate("b", 1, 1)]
    )
    part = Embedded(table, np.random.default_rng(0).normal(size=(8, 2)).astype("f4"))
    peer = ParetoBanditByItsOwnRule().fit(part)
    assert np.isfinite(peer.predict(part)[0]).all()
    # Both are as good as each other: at a high penalty the cheaper one has all.
    assert peer.choices(part, 100.0).tolist() == [0] * 8


@pytest.mark.parametrize("gone", [(), ("mabwiser",), ("paretobandit",), PEER_PACKAGES])
def test_what_is_not_installed_is_left_out(gone, monkeypatch):
    absent = {"pareto_bandit" if name == "paretobandit" else name for name in gone}
    monkeypatch.setattr(
        peers, "find_spec", lambda module: None if module in absent else object()
    )
    assert missing_peers() == gone
    assert set(installed_peers()) == set(PEER_PACKAGES) - set(gone)
    names = [baseline.name for baseline in peer_baselines(seed=0)]
    for package in PEER_PACKAGES:
        assert any(package in name for name in names) is (package not in gone)


def test_a_run_notes_which_versions_of_the_peers_it_used(world):
    found = run_offline(world, seeds=(0,), predictor="ridge", baselines=False)
    noted = [name for name in PEER_PACKAGES if name in found.versions]
    assert noted == list(installed_peers())


@pytest.mark.parametrize("gone", [(), ("mabwiser",)])
def test_the_command_says_in_one_line_who_was_left_out(gone, monkeypatch, tmp_path):
    monkeypatch.setattr(peers, "missing_peers", lambda: gone)
    monkeypatch.setattr(commands, "_table", lambda *_, **__: ())
    monkeypatch.setattr(offline, "run_offline", lambda *_, **__: None)
    monkeypatch.setattr(render, "print_result", lambda *_: None)
    done = CliRunner().invoke(commands.app, ["offline"], catch_exceptions=False)
    lines = [line for line in done.output.splitlines() if "left out" in line]
    assert len(lines) == len(gone)
    assert all("mabwiser" in line and "[peers]" in line for line in lines)
