"""What other workers have under way counts as load, and as nothing else."""

import pytest

from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, Outcome
from mixllm_integrations.core.waiting import WaitingModel
from mixllm_integrations.testing import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def model(clock):
    model = WaitingModel(clock=clock)
    for name in ("small", "large"):
        model.add(
            Candidate(
                *(name, 1.0, 1.0),
                max_concurrency=2,
                time_to_first_token_seconds=1.0,
                seconds_per_output_token=0.01,
            )
        )
    return model


def waits(model):
    return model.expected_seconds(["small", "large"]).tolist()


def test_without_a_call_here_one_waits_for_those_elsewhere(model):
    model.set_load_elsewhere({"small": (3, 300.0)})
    # Two calls ahead of it too many, two at a time, 1 s + 100 tokens of 0.01 s each.
    assert waits(model) == [pytest.approx(2.0), 0.0]


def test_calls_here_and_elsewhere_are_one_queue(model):
    model.set_load_elsewhere({"small": (1, 100.0)})
    assert waits(model) == [0.0, 0.0]
    model.start("small", "a", output_tokens=100.0)
    assert waits(model) == [pytest.approx(1.0), 0.0]
    model.finish("a")
    assert waits(model) == [0.0, 0.0]


def test_what_is_set_takes_the_place_of_what_was(model):
    model.set_load_elsewhere({"small": (3, 300.0)})
    model.set_load_elsewhere({"large": (3, 300.0)})
    assert waits(model) == [0.0, pytest.approx(2.0)]
    model.set_load_elsewhere({})
    assert waits(model) == [0.0, 0.0]


def test_calls_elsewhere_are_not_told_as_ones_own(model):
    model.set_load_elsewhere({"small": (3, 300.0)})
    model.start("large", "a", output_tokens=50.0)
    assert model.load() == {"large": (1, 50.0)}
    assert model.in_flight("small") == 0


def test_a_name_that_is_not_watched_is_left_out(model):
    model.set_load_elsewhere({"unknown": (3, 300.0)})
    assert waits(model) == [0.0, 0.0]


def test_a_call_that_is_too_old_is_told_no_longer(model, clock):
    model.start("small", "a", output_tokens=50.0)
    assert model.load()
    clock.advance(601.0)
    assert model.load() == {}


def test_a_rename_keeps_what_is_under_way_elsewhere(model):
    model.set_load_elsewhere({"small": (3, 300.0)})
    model.rename("small", "tiny")
    assert model.expected_seconds(["tiny"]).tolist() == [pytest.approx(2.0)]


def test_how_many_are_served_at_once_is_learned_from_all_that_are_under_way():
    """Alone it would be the eighth of eight, and nobody waits: eight fit."""
    learned = []
    for elsewhere in (0, 3):
        model = WaitingModel(smoothing=1.0, assumed_concurrency=4, clock=ManualClock())
        candidate = Candidate(
            *("small", 1.0, 1.0),
            time_to_first_token_seconds=1.0,
            seconds_per_output_token=0.01,
        )
        model.add(candidate)
        model.set_load_elsewhere({"small": (elsewhere, 100.0 * elsewhere)})
        for i in range(5):
            model.start("small", str(i), output_tokens=100.0)
        quick = Outcome(10, 100, latency_seconds=2.0, time_to_first_token_seconds=1.0)
        model.finish("4", quick)
        learned.append(model._queues["small"].concurrency)
    assert learned == [pytest.approx(5.0), pytest.approx(8.0)]


def test_a_router_tells_its_load_and_takes_that_of_others():
    router = Router([Candidate("small", 1.0, 1.0), Candidate("large", 2.0, 2.0)])
    decision = router.route("a question")
    assert list(router.load_here()) == [decision.candidate]
    assert router.load_here()[decision.candidate][0] == 1
    router.record_outcome(decision.id, Outcome(1, 1))
    assert router.load_here() == {}
    router.set_load_elsewhere({"small": (9, 9.0)})
    assert router.load_here() == {}
