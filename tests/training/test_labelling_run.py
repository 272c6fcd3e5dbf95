"""`collect` over scripted models: what is asked, graded, written, and gone on with."""

import asyncio
import json
from dataclasses import replace

import pytest

from mixllm_integrations import (
    Candidate,
    CandidateModel,
    ConfigurationError,
    StateFormatError,
    UnknownCandidateError,
)
from mixllm_integrations.benchmark.datasets import load_records
from mixllm_integrations.testing import ScriptedChatModel
from mixllm_integrations.training import (
    Adaptive,
    Labelling,
    Patience,
    acollect,
    collect,
    read_prompts,
)
from mixllm_integrations.training.labelling.adaptive import half_width
from mixllm_integrations.training.labelling.asking import Asked, bounded

SOON = Patience(first_wait_seconds=0.001)
SUMS = [{"prompt": f"{n} + {n}?", "reference": str(2 * n)} for n in range(6)]


class RefusedError(Exception):
    def __init__(self, status_code):
        super().__init__("the prompt was: secret")
        self.status_code = status_code


def right(messages):
    text = messages[-1].text
    return str(2 * int(text.split()[0]))


def model(name, usd=1.0, **settings):
    settings = {"usage": (100, 10), "answers": right, **settings}
    return CandidateModel(
        model=ScriptedChatModel(model=name, **settings),
        input_cost_per_million_tokens=usd,
        output_cost_per_million_tokens=10 * usd,
    )


def calls(candidate):
    return len(candidate.model.calls)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "records.jsonl"


def test_all_candidates_answer_and_are_graded(out):
    small, large = model("small", answers=["0"]), model("large", 4.0)
    found = collect(SUMS, [small, large], out)
    # 100 tokens at 1 USD and 10 at 10 USD per million
    assert found.records[0].cost == pytest.approx(200e-6)
    assert found.spent == found.spent_in_all == pytest.approx(6 * (200e-6 + 800e-6))
    assert found.candidates["small"].quality == pytest.approx(1 / 6)
    assert found.candidates["large"].quality == 1.0
    assert (found.written, found.not_asked, found.failures) == (12, 0, ())
    assert found.is_complete
    again = load_records(out)
    assert sorted(again.records, key=repr) == sorted(found.records, key=repr)
    assert len(set(again.query_ids)) == 6
    assert json.loads(json.dumps(found.as_json()))["records"] == 12


def test_a_second_run_asks_nothing_and_a_longer_one_only_what_is_new(out):
    small = model("small")
    collect(SUMS[:4], [small], out)
    found = collect(SUMS[:4], [small], out)
    assert (found.written, found.spent, calls(small)) == (0, 0.0, 4)
    assert len(found.records) == 4
    assert collect(SUMS, [small], out).written == 2
    assert calls(small) == 6


def test_other_grades_need_another_file_but_no_other_answers(out, tmp_path):
    small = model("small")
    collect(SUMS, [small], out)
    with pytest.raises(ConfigurationError, match="graded in another way"):
        collect(SUMS, [small], out, scorer=lambda item, answer: 0.5)
    no_reference = [{"prompt": prompt["prompt"]} for prompt in SUMS]
    found = collect(
        no_reference,
        [small],
        tmp_path / "other.jsonl",
        scorer=lambda item, answer: 0.5,
        state=out.with_name("records.jsonl.work"),
    )
    assert {r.quality for r in found.records} == {0.5}
    assert calls(small) == 6


def test_failures_are_listed_without_the_prompt_and_tried_again(out):
    small = model("small", errors=[None, RefusedError(400)])
    found = collect(SUMS[:3], [small], out, concurrency=1, patience=SOON)
    assert [(f.candidate, f.reason) for f in found.failures] == [
        ("small", "RefusedError (400)")
    ]
    assert "secret" not in json.dumps(found.as_json())
    assert (found.written, found.is_complete) == (2, False)
    assert found.spent == pytest.approx(2 * 200e-6)  # a refusal costs nothing
    number = found.failures[0].prompt
    assert collect(SUMS[:3], [small], out).written == 1
    asked = [call.messages[-1].text for call in small.model.calls]
    assert asked[-1] == SUMS[number - 1]["prompt"]


def test_passing_troubles_are_waited_out(out):
    small = model(
        "small", errors=[RefusedError(503), TimeoutError(), RefusedError(429)]
    )
    found = collect(SUMS[:1], [small], out, patience=SOON)
    assert found.is_complete
    assert calls(small) == 4
    three = model("three", errors=[RefusedError(503)] * 3)
    patience = Patience(attempts=3, first_wait_seconds=0.001)
    found = collect(SUMS[:1], [three], out, patience=patience)
    assert [f.reason for f in found.failures] == ["RefusedError (503)"]


def test_a_candidate_whose_key_is_refused_is_not_asked_any_more(out):
    small = model("small", errors=[RefusedError(401)] * 99)
    found = collect(SUMS, [small], out, concurrency=1, patience=SOON)
    assert calls(small) == 1
    assert [f.reason for f in found.failures].count(
        "not asked any more after RefusedError (401)"
    ) == 5


def test_a_call_that_hangs_is_given_up(out):
    slow = model("slow", delay_seconds=30.0)
    patience = Patience(attempts=1, timeout_seconds=0.05)
    found = collect(SUMS[:1], [slow], out, patience=patience)
    assert [f.reason for f in found.failures] == ["TimeoutError"]
    assert found.spent > 0  # it may have been billed
    own = replace(model("own", delay_seconds=30.0), timeout_seconds=0.05)
    found = collect(SUMS[:1], [own], out, patience=Patience(attempts=1))
    assert [f.reason for f in found.failures] == ["TimeoutError"]


@pytest.mark.parametrize("concurrency", [1, 5])
def test_the_spending_limit_is_never_passed_over_any_number_of_runs(out, concurrency):
    # Upper bound of a call: 22 bytes of prompt and 100 tokens of answer; real: less.
    settings = {"concurrency": concurrency, "max_output_tokens": 100}
    small = model("small", 10.0)
    limit = 4 * 2_000e-6 + 0.011
    first = collect(SUMS, [small], out, max_cost=limit, **settings)
    assert first.limit_reached
    assert 0 < first.spent <= limit
    assert first.not_asked == 6 - first.written > 0
    asked = calls(small)
    second = collect(SUMS, [small], out, max_cost=limit, **settings)
    assert second.limit_reached
    assert second.spent_in_all <= limit
    assert calls(small) - asked == second.written
    assert collect(SUMS, [small], out, **settings).is_complete
    assert calls(small) == 6


def test_without_money_nobody_is_asked(out):
    small = model("small")
    found = collect(SUMS, [small], out, max_cost=0.0)
    assert (found.spent, calls(small), found.limit_reached) == (0.0, 0, True)
    free = model("free", 0.0)
    assert collect(SUMS, [free], out, max_cost=0.0).is_complete


def test_the_length_of_answers_is_bounded_as_the_limit_assumes(out):
    small = model("small", answers=["one two three"])
    prompts = [{"prompt": "What?", "reference": "one two"}]
    assert collect(prompts, [small], out, max_output_tokens=2).records[0].quality == 1.0
    assert small.model.max_tokens is None  # its own object is left alone


def test_a_longest_answer_goes_where_a_class_keeps_it_or_with_each_call():
    from langchain_core.language_models import FakeListChatModel
    from langchain_ollama import ChatOllama
    from langchain_openai import ChatOpenAI

    openai = ChatOpenAI(model="gpt-4o-mini", api_key="unused")
    shorter = ChatOpenAI(model="gpt-4o-mini", api_key="unused", max_tokens=5)
    assert bounded(openai, 9)[0].max_tokens == 9
    assert bounded(shorter, 9)[0].max_tokens == 5
    ollama, rest = bounded(ChatOllama(model="llama3.2", num_predict=-1), 9)
    assert (ollama.num_predict, rest) == (9, {})
    assert bounded(FakeListChatModel(responses=["a"]), 9)[1] == {"max_tokens": 9}


def test_what_a_client_tries_on_its_own_is_paid_for_in_advance():
    from langchain_openai import ChatOpenAI

    patient = ChatOpenAI(model="gpt-4o-mini", api_key="unused", max_retries=2)
    asked = Asked(Candidate("a", 1.0, 10.0), patient, 100)
    assert asked.bound(50) == pytest.approx(3 * (50 + 1000) / 1e6)


def test_the_estimate_says_what_is_left_and_what_it_will_cost(out):
    small, large = model("small"), model("large", 4.0)
    with Labelling(SUMS, [small, large], out) as labelling:
        before = labelling.estimate()
        assert before.answers == {"small": 6, "large": 6}
        # 300 tokens of answer at 10 USD per million, and a short prompt
        assert before.costs["small"] == pytest.approx(6 * 300e-5, rel=0.02)
        assert before.costs["large"] == pytest.approx(4 * before.costs["small"])
        assert (before.grades, before.spent) == (0, 0.0)
    collect(SUMS[:3], [small], out)
    with Labelling(SUMS, [small, large], out) as labelling:
        after = labelling.estimate()
        assert after.answers == {"small": 3, "large": 6}
        # The small one's answers were 10 tokens long, not 300.
        assert after.costs["small"] == pytest.approx(3 * 10e-5, rel=0.2)
        assert after.spent == pytest.approx(3 * 200e-6)
        assert after.cost == pytest.approx(sum(after.costs.values()))


def test_a_sample_is_drawn_by_lot(out):
    small = model("small")
    first = collect(SUMS, [small], out, sample=2, seed=5)
    assert len(first.records) == 2
    more = collect(SUMS, [small], out, sample=4, seed=5)
    assert more.written == 2


def test_what_a_log_knows_is_not_asked_again(out, tmp_path):
    log = tmp_path / "log.jsonl"
    rows = [
        {"prompt": "1 + 1?", "reference": "2", "model": "small", "score": 0.25},
        {"prompt": "2 + 2?", "reference": "4", "model": "stranger", "score": 1.0},
        {"prompt": "2 + 2?", "model": "small"},
    ]
    log.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    small = model("small")
    with Labelling(log, [small], out) as labelling:
        assert labelling.imported == 1
        found = labelling.collect()
    assert sorted(r.quality for r in found.records) == [0.25, 1.0]
    assert [c.messages[-1].text for c in small.model.calls] == ["2 + 2?"]
    with Labelling(log, [small], out) as labelling:
        assert labelling.imported == 0
    assert len(read_prompts(log).records) == 2


def test_what_cannot_be_graded_is_told_before_anything_is_asked(out):
    small = model("small")
    for prompts, told in [
        (["What?"], "prompt 1 has no reference, so a judge"),
        ([{"prompt": "a", "scorer": "code", "reference": "x"}], "--allow-code"),
        ([{"prompt": "a", "scorer": "regex"}], "'regex' and has no reference"),
    ]:
        with pytest.raises(ConfigurationError, match=told):
            collect(prompts, [small], out)
    assert calls(small) == 0
    assert not out.exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"scorer": "vibes"}, "unknown scorer 'vibes'"),
        ({"by_judge": "vibes"}, "'judge' or 'pairwise'"),
        ({"max_cost": -1.0}, "max_cost"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 1.5}, "whole number"),
        ({"sample": 0}, "sample"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_settings_that_cannot_be_used_are_told_of(out, settings, told):
    with pytest.raises(ConfigurationError, match=told):
        collect(SUMS, [model("small")], out, **settings)


def test_a_judge_is_looked_for_only_where_one_is_needed(out):
    small = model("small")
    assert collect(SUMS, [small], out, judge="nobody").is_complete
    with pytest.raises(ConfigurationError, match="unknown judge 'nobody'"):
        collect(["Why?"], [small], out, judge="nobody")


def test_candidates_must_be_several_of_different_names(out):
    with pytest.raises(ConfigurationError, match="different names"):
        collect(SUMS, [], out)
    with pytest.raises(ConfigurationError, match="different names"):
        collect(SUMS, [model("small"), model("small")], out)
    with pytest.raises(ConfigurationError, match="must be a CandidateModel"):
        collect(SUMS, [ScriptedChatModel()], out)
    with pytest.raises(UnknownCandidateError, match="nobody"):
        collect(SUMS, [model("small")], out, reference_candidate="nobody")


def test_a_bad_reference_or_function_fails_its_answers_alone(out):
    def fussy(item, answer):
        if answer == "2":
            raise RuntimeError("secret")
        return 1.0

    found = collect(SUMS[:3], [model("small")], out, scorer=None)
    assert found.is_complete
    prompts = [{"prompt": prompt["prompt"]} for prompt in SUMS[:3]]
    found = collect(prompts, [model("own")], out, scorer=fussy)
    assert [f.reason for f in found.failures] == ["RuntimeError"]
    bad = [{"prompt": "9 + 9?", "reference": "(", "scorer": "regex"}]
    found = collect(bad, [model("small")], out)
    assert [f.prompt for f in found.failures] == [1]
    assert found.failures[0].reason.startswith("the reference is no pattern")


def test_code_is_graded_by_its_tests(out):
    prompts = [{"prompt": "1 double?", "scorer": "code", "reference": "assert f(2)==4"}]
    good = model("good", answers=["def f(n): return 2 * n"])
    bad = model("bad", answers=["def f(n): return n"])
    found = collect(prompts, [good, bad], out, allow_code=True)
    assert {r.candidate: r.quality for r in found.records} == {"good": 1.0, "bad": 0.0}


async def test_it_runs_on_a_loop_and_beside_one(out, tmp_path):
    found = await acollect(SUMS[:2], [model("small")], out)
    assert found.written == 2
    # As in a notebook, where a loop is running already.
    assert collect(SUMS[:2], [model("small")], tmp_path / "b.jsonl").written == 2
    with pytest.raises(ConfigurationError, match="no prompts"):
        collect([], [model("small")], tmp_path / "c.jsonl")


def test_calls_are_made_at_once_but_no_more_than_allowed(out):
    under_way = most = 0

    class Counting(ScriptedChatModel):
        async def _agenerate(self, *args, **kwargs):
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.005)
            under_way -= 1
            return await super()._agenerate(*args, **kwargs)

    def counting(name, **facts):
        return CandidateModel(
            model=Counting(model=name, answers=right),
            input_cost_per_million_tokens=0,
            output_cost_per_million_tokens=0,
            **facts,
        )

    collect(SUMS, [counting("a"), counting("b")], out, concurrency=3)
    assert most == 3
    most = 0
    collect(SUMS, [counting("c", max_concurrency=1)], out, concurrency=3)
    assert most == 1


def test_conversations_are_asked_whole_and_recorded_as_they_would_be_routed(out):
    messages = [("system", "Add."), ("user", "1 + 1?")]
    small = model("small")
    found = collect([{"messages": messages, "reference": "2"}], [small], out)
    assert [m.text for m in small.model.calls[0].messages] == ["Add.", "1 + 1?"]
    (record,) = found.records
    assert (record.query, record.quality) == ("1 + 1?\n\nA", 1.0)
    assert (record.input_tokens, record.output_tokens) == (100, 10)
    assert record.latency_seconds > 0.0


def many(count):
    return [{"prompt": f"{n} plus {n}?", "reference": str(2 * n)} for n in range(count)]


def test_adaptive_labelling_stops_when_the_means_are_known(out):
    small, large = model("small", answers=["0"]), model("large")
    rule = Adaptive(half_width=0.12, first=25, step=10)
    found = collect(many(150), [small, large], out, adaptive=rule)
    assert found.is_complete
    assert 25 <= calls(small) < 120
    assert found.not_asked == 300 - found.written > 0
    # `small` is right for 0 + 0 alone, so both means are nearly certain. Of the
    # traffic at large less is known than of the sample.
    assert all(0.0 < c.half_width <= 0.15 for c in found.candidates.values())


def test_adaptive_labelling_asks_on_where_grades_are_mixed(out):
    def moody(messages):
        n = int(messages[-1].text.split()[0])
        return str(2 * n) if n % 2 else "no"

    mixed, sure = model("mixed", answers=moody), model("sure")
    rule = Adaptive(half_width=0.12, first=20, step=10)
    collect(many(120), [mixed, sure], out, adaptive=rule)
    assert calls(mixed) > 1.2 * calls(sure)


def test_adaptive_labelling_ends_with_failures_and_with_the_money(out, tmp_path):
    broken = model("broken", errors=[RefusedError(400)] * 999)
    rule = Adaptive(half_width=0.01, first=5, step=4)
    found = collect(many(12), [broken], out, adaptive=rule, patience=SOON)
    assert len(found.failures) == 12
    other = tmp_path / "b.jsonl"
    limits = {"max_cost": 0.005, "max_output_tokens": 100}
    found = collect(many(60), [model("a")], other, adaptive=rule, **limits)
    assert found.limit_reached
    assert 0.0 < found.spent <= 0.005


def test_the_interval_is_that_of_a_finite_sample():
    # three grades of 1 with one 0 and one 1 added: mean 0.8, variance 0.16
    wanted = 1.959964 * (0.16 / 5 * 7 / 9) ** 0.5
    assert half_width([1.0, 1.0, 1.0], 10) == pytest.approx(wanted)
    assert half_width([0.3] * 10, 10) == 0.0
    assert half_width([1.0] * 3) == pytest.approx(1.959964 * (0.16 / 5) ** 0.5)


@pytest.mark.parametrize(
    "wrong", [{"half_width": 0.0}, {"first": 0}, {"step": 1}, {"half_width": 2.0}]
)
def test_a_rule_that_cannot_be_used_is_told_of(wrong):
    with pytest.raises(ConfigurationError):
        Adaptive(**wrong)


def test_a_workbook_that_breaks_ends_the_run(out):
    small = model("small")
    with Labelling(SUMS, [small], out) as labelling:
        labelling._workbook._database.execute("DROP TABLE paid")
        with pytest.raises(StateFormatError, match="no such table"):
            labelling.collect()


def test_a_disk_that_is_full_ends_the_run_without_asking_again(out, tmp_path):
    small, other = model("small"), model("other")
    with Labelling(SUMS, [small], out, concurrency=1, patience=SOON) as labelling:
        labelling._workbook._database.execute(
            "CREATE TEMP TRIGGER full BEFORE INSERT ON main.paid BEGIN "
            "SELECT RAISE(ABORT, 'disk full'); END"
        )
        with pytest.raises(StateFormatError):
            labelling.collect()
    assert calls(small) == 1

    class Full:
        def write(self, _):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    with Labelling(SUMS, [other], tmp_path / "b.jsonl", concurrency=1) as labelling:
        labelling._file.close()
        labelling._file._opened = Full()
        with pytest.raises(ConfigurationError, match="No space left"):
            labelling.collect()
    assert calls(other) == 1
    assert collect(SUMS, [other], tmp_path / "b.jsonl").is_complete
    assert calls(other) == 6  # what was paid for was kept


def test_records_of_something_else_let_go_of_the_workbook(out):
    out.write_text("{}\n", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="was not written"):
            Labelling(SUMS, [model("small")], out)


def test_the_bar_shows_what_was_spent(out, capsys):
    collect(SUMS, [model("small")], out, progress=True)
    assert "USD" in capsys.readouterr().err
