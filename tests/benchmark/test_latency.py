"""Time passes as it should: queues, arrivals, who chooses, who is late."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations import Candidate, ConfigurationError, Router
from mixllm_integrations.benchmark.latency.contestants import (
    Always,
    LeastBusy,
    Live,
    Random,
    RefreshedRouter,
    RoundRobin,
)
from mixllm_integrations.benchmark.latency.results import Judge, Point
from mixllm_integrations.benchmark.latency.run import Sweep, run_latency
from mixllm_integrations.benchmark.latency.simulation import (
    Choice,
    Traffic,
    arrivals,
    simulate,
)
from mixllm_integrations.benchmark.latency.speeds import (
    service_seconds,
    speed_of,
    undeclared,
    with_speeds,
)
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.testing.clock import ManualClock


def table_of(n, *, tokens=100.0, servers=(1, 1)):
    """Two candidates of 1 s + 100 tokens · 0.01 s = 2 s; the second is right."""
    candidates = tuple(
        Candidate(
            name,
            1.0,
            1.0,
            time_to_first_token_seconds=1.0,
            seconds_per_output_token=0.01,
            max_concurrency=c,
        )
        for name, c in zip(("wrong", "right"), servers, strict=True)
    )
    shape = (n, 2)
    return BenchmarkTable(
        "two",
        tuple(f"question {i}" for i in range(n)),
        (("any",),) * n,
        candidates,
        quality=np.tile([0.0, 1.0], (n, 1)),
        input_tokens=np.full(shape, 10.0),
        output_tokens=np.full(shape, tokens),
        cost=np.tile([0.001, 0.01], (n, 1)),
        latency_seconds=np.full(shape, np.nan),
    )


def at(*times):
    return Traffic(np.array(times, float), np.arange(len(times)))


class Noting(Always):
    """Asks one candidate, and notes when it hears of what."""

    def __init__(self, column, clock):
        super().__init__(column)
        self.clock, self.heard = clock, []

    def finish(self, number, outcome):
        self.heard.append((self.clock.now, number, outcome))


# --- queues --------------------------------------------------------------------


def test_a_queue_is_first_come_first_served_worked_out_by_hand():
    # One server, 2 s each: at 0, 1, 1 and 9 they start at 0, 2, 4 and 9.
    played = simulate(table_of(4), at(0, 1, 1, 9), Always(1), ManualClock())
    assert played.queued.tolist() == [0.0, 1.0, 3.0, 0.0]
    assert played.started.tolist() == [1.0, 2.0, 4.0, 1.0]
    assert played.ended.tolist() == [2.0, 3.0, 5.0, 2.0]


def test_two_servers_serve_two_at_once():
    table = table_of(3, servers=(1, 2))
    played = simulate(table, at(0, 0, 0), Always(1), ManualClock())
    assert played.queued.tolist() == [0.0, 0.0, 2.0]


def test_queues_of_two_candidates_do_not_disturb_each_other():
    played = simulate(table_of(4), at(0, 0, 0, 0), RoundRobin(2), ManualClock())
    assert played.column.tolist() == [0, 1, 0, 1]
    assert played.queued.tolist() == [0.0, 0.0, 2.0, 2.0]


def test_an_outcome_is_heard_when_the_answer_ends_with_its_wait_in_it():
    clock = ManualClock(100.0)
    noting = Noting(1, clock)
    simulate(table_of(3), at(0, 1, 50), noting, clock)
    (first, one, _), (second, two, waited) = noting.heard
    assert (first, one, second, two) == (102.0, 0, 104.0, 1)
    assert waited.latency_seconds == 3.0
    assert waited.time_to_first_token_seconds == 2.0
    assert waited.output_tokens == 100
    assert waited.cost == 0.01
    assert clock.now == 150.0


@given(
    st.lists(st.floats(0.0, 5.0), min_size=1, max_size=40),
    st.integers(1, 4),
)
def test_nobody_is_served_early_nor_by_more_than_all_servers(gaps, servers):
    table = table_of(len(gaps), servers=(1, servers))
    traffic = at(*np.cumsum(gaps))
    played = simulate(table, traffic, Always(1), ManualClock())
    starts = traffic.at + played.queued
    assert (played.queued >= 0.0).all()
    assert (np.diff(starts) >= -1e-9).all()  # first come, first served
    for start in starts:
        assert ((starts <= start) & (starts + 2.0 > start + 1e-9)).sum() <= servers


# --- arrivals ------------------------------------------------------------------


def test_queries_come_at_the_rate_that_is_asked_for():
    traffic = arrivals(5_000, rate=10.0, seconds=1.0, seed=0)
    assert traffic.at[-1] == pytest.approx(500.0, rel=0.05)
    assert (np.diff(traffic.at) > 0).all()
    assert sorted(traffic.rows) == list(range(5_000))


def test_all_queries_come_again_until_the_time_is_over():
    traffic = arrivals(10, rate=2.0, seconds=20.0, seed=0)
    assert len(traffic) == 40
    assert np.bincount(traffic.rows).tolist() == [4] * 10
    assert traffic.rows[:10].tolist() != traffic.rows[10:20].tolist()


def test_the_same_seed_brings_the_same_traffic():
    one, two, other = (
        arrivals(50, rate=1.0, seconds=1.0, seed=seed) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one.rows, two.rows)
    np.testing.assert_array_equal(one.at, two.at)
    assert one.rows.tolist() != other.rows.tolist()


# --- speeds --------------------------------------------------------------------


def test_a_speed_goes_by_name_or_else_by_price():
    assert speed_of(Candidate("gemini-1.5-flash-002", 0.1, 0.3)) == (0.4, 150.0)
    by_price = [speed_of(Candidate("?", 1.0, price)) for price in (0.2, 0.9, 15.0)]
    assert [s.tokens_per_second for s in by_price] == [110.0, 55.0, 70.0]


def test_a_declared_speed_and_concurrency_stay():
    table = with_speeds(table_of(1), concurrency=8)
    assert table.candidates == table_of(1).candidates
    silent = replace(table, candidates=tuple(map(undeclared, table.candidates)))
    told = with_speeds(silent, concurrency=8).candidates[0]
    assert told.max_concurrency == 8
    assert told.time_to_first_token_seconds == 0.5
    assert told.seconds_per_output_token == pytest.approx(1 / 55)


def test_an_answer_without_a_recorded_length_counts_as_two_hundred_tokens():
    start_up, service = service_seconds(table_of(1, tokens=np.nan))
    assert start_up.tolist() == [1.0, 1.0]
    assert service.tolist() == [[3.0, 3.0]]


# --- who chooses ---------------------------------------------------------------


def test_the_least_busy_is_whoever_has_the_fewest_under_way():
    least = LeastBusy(3, seed=0)
    first = {least.choose(n, 0).column for n in range(3)}
    assert first == {0, 1, 2}
    least.finish(1, None)
    freed = least._asked.copy()
    chosen = least.choose(3, 0).column
    assert chosen not in freed.values()


def test_random_asks_everybody_about_as_often():
    random = Random(4, seed=0)
    counts = np.bincount([random.choose(n, 0).column for n in range(4_000)])
    assert (np.abs(counts - 1_000) < 120).all()


def router_of(table, clock, kind=Router, **options):
    return kind(
        [replace(c, prior_quality=0.5) for c in table.candidates],
        prior="none",
        clock=clock,
        **options,
    )


def test_the_live_router_counts_a_call_from_the_decision_to_its_end():
    clock, table = ManualClock(), table_of(6)
    live = Live(router_of(table, clock), table.queries)
    played = simulate(table, at(0, 0, 0, 0, 0, 100), live, clock)
    assert np.bincount(played.column, minlength=2).min() >= 2  # both are used
    assert played.expected[0] == 0.0
    assert (played.expected[2:5] > 0.0).all()
    assert played.expected[5] == 0.0  # all have ended


def test_the_paper_s_router_sees_new_waits_only_every_ten_seconds():
    clock, table = ManualClock(), table_of(23)
    live = Live(router_of(table, clock, RefreshedRouter), table.queries)
    times = [0.0] * 20 + [10.1, 10.2, 19.9]
    played = simulate(table, at(*times), live, clock)
    assert len(set(played.column[:20])) == 1
    assert set(played.column[20:]) == {1 - played.column[0]}
    assert (played.expected == 0.0).all()  # of whom it chose, at the last look


def test_a_router_from_a_folder_is_refreshed_as_well(tmp_path):
    clock, table = ManualClock(), table_of(2)
    router_of(table, clock).save(tmp_path / "router")
    loaded = RefreshedRouter.load(tmp_path / "router", clock=clock)
    waits = [loaded.route("q").prediction.waiting_seconds for _ in range(5)]
    assert waits == [0.0] * 5
    assert len({loaded.route("q").candidate for _ in range(3)}) == 1


# --- who is late ---------------------------------------------------------------


def test_an_answer_that_starts_later_than_tolerated_counts_nothing_and_is_paid():
    table = table_of(4)
    traffic = at(0, 0, 0, 0)
    played = simulate(table, traffic, Always(1), ManualClock())  # starts 1, 3, 5, 7 s
    run = Judge(table, strongest=1, seed=0).run("x", Point(1, 5.0, 1), traffic, played)
    assert run.quality == pytest.approx(0.75)
    assert run.late == pytest.approx(0.25)
    assert run.cost == pytest.approx(1.0)
    assert run.unhurried_quality == pytest.approx(1.0)
    assert run.whole_quality == pytest.approx(0.5)  # whole at 2, 4, 6, 8 s
    assert run.whole_late == pytest.approx(0.5)
    assert run.wait_p50 == pytest.approx(4.0)
    hurried = Judge(table, 1, 0).run("x", Point(1, 4.5, 1), traffic, played)
    assert hurried.late == pytest.approx(0.5)  # the start-up counts: 5 s, not 4
    assert run.shares == {"wrong": 0.0, "right": 1.0}
    assert np.isnan(run.expected_wait)


def test_foreseen_waits_stand_beside_the_real_ones():
    class Foreseeing(Always):
        def choose(self, number, row):
            return Choice(1, 2.0 * number)

    table, traffic = table_of(3), at(0, 0, 1)
    played = simulate(table, traffic, Foreseeing(1), ManualClock())
    run = Judge(table, strongest=1, seed=0).run("x", Point(1, 5.0, 1), traffic, played)
    # Real waits 0, 2 and 3 s, foreseen 0, 2 and 4 s.
    assert run.expected_wait == pytest.approx(2.0)
    assert run.real_wait == pytest.approx(5 / 3)
    assert run.wait_error == pytest.approx(1 / 3)
    assert run.foreseen == ((2.0, 2.0, 1), (4.0, 3.0, 1))


# --- sweeps --------------------------------------------------------------------


def test_every_point_is_measured_once():
    sweep = Sweep(rates=(10.0, 20.0), tolerances=(5.0, 30.0), factors=(1.0,))
    assert sweep.points == (
        Point(10.0, 30.0, 1.0),
        Point(20.0, 30.0, 1.0),
        Point(10.0, 5.0, 1.0),
    )


@pytest.mark.parametrize("what", ["rates", "tolerances", "factors"])
def test_a_condition_that_is_not_positive_is_named(what):
    with pytest.raises(ConfigurationError, match=f"{what} must be above 0"):
        Sweep(**{what: (1.0, 0.0)})


def test_without_a_seed_or_with_a_stranger_nothing_is_simulated(world):
    with pytest.raises(ConfigurationError, match="at least one seed"):
        run_latency(world, seeds=())
    with pytest.raises(ConfigurationError, match="unknown contestant 'me'"):
        run_latency(world, contestants=("me",))
