"""The main job on real input: 500 real questions, 8 models as recorded.

It is the job of `examples/06_replay_recorded_models.py`, which fits a router on
other questions and sends these one by one through `prompt | model | parser`.
"""

import importlib.util
import sys

import pytest


@pytest.fixture(scope="module")
def done(bench_data, project_root):
    path = project_root / "examples" / "06_replay_recorded_models.py"
    spec = importlib.util.spec_from_file_location("replay_recorded_models", path)
    example = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = example  # its dataclasses look themselves up there
    spec.loader.exec_module(example)
    job = example.run_main_job(bench_data / "mmlu_pro.parquet")
    yield job, example
    del sys.modules[spec.name]


@pytest.fixture
def job(done):
    return done[0]


def test_the_example_prints_what_was_saved(done, bench_data, monkeypatch, capsys):
    job, example = done
    asked = []
    monkeypatch.setenv("MIXLLM_BENCH_DATA", str(bench_data))
    monkeypatch.setattr(example, "run_main_job", lambda file: asked.append(file) or job)
    example.main()
    printed = capsys.readouterr().out
    assert asked == [bench_data / "mmlu_pro.parquet"]
    quality, _ = job.routed()
    assert f"{quality:>8.1%}" in printed
    assert "always the strongest: gpt-4o-2024-05-13" in printed


def test_every_question_is_answered_once(job) -> None:
    questions = [answer.question for answer in job.answers]
    assert len(questions) == len(set(questions)) == 500


def test_every_answer_carries_its_decision(job) -> None:
    ids = {answer.decision["decision_id"] for answer in job.answers}
    assert len(ids) == 500
    models = set(job.train_quality)
    assert len(models) == 8
    for answer in job.answers:
        assert answer.decision["candidate"] in models
        assert 0.0 <= answer.decision["predicted_quality"] <= 1.0
        assert answer.decision["predicted_cost"] > 0.0
        assert answer.decision["attempts"] == []


def test_the_grade_is_the_one_on_record_of_who_answered(job) -> None:
    for answer in job.answers:
        record = job.recorded[answer.question, answer.decision["candidate"]]
        assert answer.quality == record.quality


def test_the_costs_on_the_messages_sum_to_the_recorded_cost(job) -> None:
    recorded = sum(
        job.recorded[answer.question, answer.decision["candidate"]].cost
        for answer in job.answers
    )
    _, cost = job.routed()
    assert cost == pytest.approx(recorded, rel=1e-6)


def test_the_predicted_costs_are_near_the_real_ones(job) -> None:
    _, cost = job.routed()
    predicted = sum(answer.decision["predicted_cost"] for answer in job.answers)
    assert predicted == pytest.approx(cost, rel=0.35)


def test_routing_beats_the_cheapest_and_costs_far_less_than_the_strongest(job) -> None:
    assert job.strongest == "gpt-4o-2024-05-13"
    quality, cost = job.routed()
    cheapest_quality, _ = job.always(job.cheapest)
    strongest_quality, strongest_cost = job.always(job.strongest)
    assert quality > cheapest_quality + 0.15
    assert quality > 0.93 * strongest_quality
    assert cost < 0.25 * strongest_cost


def test_more_than_one_model_was_needed(job) -> None:
    names = [answer.decision["candidate"] for answer in job.answers]
    assert len(set(names)) >= 3
    assert max(map(names.count, set(names))) < 0.95 * len(names)
