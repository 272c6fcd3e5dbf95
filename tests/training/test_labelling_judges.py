"""Judges over a real client: grades, comparisons, their price, and bad verdicts."""

import json

import pytest

from mixllm_integrations import CandidateModel, ConfigurationError
from mixllm_integrations.testing import ScriptedChatModel
from mixllm_integrations.testing.wire import LoopbackServer, Reply, Usage
from mixllm_integrations.training import Labelling, Patience, collect
from mixllm_integrations.training.labelling.asking import Asked
from mixllm_integrations.training.labelling.grading import Grading
from mixllm_integrations.training.labelling.judges import Judge
from mixllm_integrations.training.labelling.prompts import PromptItem
from mixllm_integrations.training.labelling.till import Till
from mixllm_integrations.training.labelling.workbook import Workbook

pytest.importorskip("openevals")
pytestmark = [
    pytest.mark.network,
    # openevals traces through langsmith, which is switched off here.
    pytest.mark.usefixtures("untraced"),
]

SOON = Patience(attempts=2, first_wait_seconds=0.001)
PROMPTS = ["Why is the sky blue?", "Why is grass green?"]


@pytest.fixture
def untraced(monkeypatch):
    for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"):
        monkeypatch.setenv(name, "false")


@pytest.fixture(scope="module")
def shared_server():
    with LoopbackServer() as running:
        yield running


@pytest.fixture
def server(shared_server):
    shared_server.reset()
    return shared_server


@pytest.fixture
def judge(server):
    """Make a judge at the server, 1 USD per million tokens in and 10 out."""
    from langchain_openai import ChatOpenAI

    def make(say):
        def answers(body):
            told = say(body["messages"][-1]["content"])
            return Reply(told if isinstance(told, str) else json.dumps(told))

        server.model("judge", answers=answers, usage=Usage(200, 20))
        return CandidateModel(
            model=ChatOpenAI(
                model="judge",
                base_url=server.openai_url,
                api_key="unused",
                max_retries=0,
            ),
            input_cost_per_million_tokens=1.0,
            output_cost_per_million_tokens=10.0,
        )

    return make


def candidate(name, usd, *answers):
    return CandidateModel(
        model=ScriptedChatModel(model=name, answers=answers, usage=(100, 10)),
        input_cost_per_million_tokens=usd,
        output_cost_per_million_tokens=usd,
    )


def graded(text):
    return {"reasoning": "Thus.", "score": 0.9 if "Rayleigh" in text else 0.2}


def test_a_judge_grades_each_answer_and_is_paid(server, judge, tmp_path):
    out = tmp_path / "records.jsonl"
    pool = [candidate("small", 0.0, "It is."), candidate("large", 0.0, "Rayleigh.")]
    settings = {"judge": judge(graded), "patience": SOON}
    with Labelling(PROMPTS, pool, out, **settings) as labelling:
        estimate = labelling.estimate()
        assert (estimate.grades, estimate.judge_cost > 0) == (4, True)
        found = labelling.collect()
    assert {(r.candidate, r.quality) for r in found.records} == {
        ("small", 0.2),
        ("large", 0.9),
    }
    # 200 tokens at 1 USD and 20 at 10 USD per million, four times
    assert found.spent == pytest.approx(4 * 400e-6)
    body = server.requests_to("judge")[0].body
    assert body["response_format"]["type"] == "json_schema"
    assert "no instruction" in body["messages"][0]["content"]
    assert "<answer>" in body["messages"][1]["content"]
    assert body["max_completion_tokens"] == 2048
    again = collect(PROMPTS, pool, out, **settings)
    assert (again.written, len(server.requests_to("judge"))) == (0, 4)


def test_a_judge_sees_the_reference_where_there_is_one(server, judge, tmp_path):
    prompts = [
        {"prompt": "Why?", "reference": "Rayleigh scattering", "scorer": "judge"},
        {"messages": [["system", "Be brief."], ["user", "And?"]]},
    ]
    pool = [candidate("small", 0.0, "It is.")]
    found = collect(
        prompts,
        pool,
        tmp_path / "records.jsonl",
        judge=judge(graded),
        judge_instructions="Only physics counts.",
    )
    assert sorted(r.quality for r in found.records) == [0.2, 0.9]
    seen = [r.body["messages"] for r in server.requests_to("judge")]
    assert {m[0]["content"] for m in seen} == {"Only physics counts."}
    assert any("[system]\nBe brief." in m[1]["content"] for m in seen)


def compared(text):
    """Favour the longer answer; two of one length go to the first: a bad habit."""
    first = text.split("<first>")[1].split("</first>")[0]
    second = text.split("<second>")[1].split("</second>")[0]
    return {
        "reasoning": "Thus.",
        "verdict": "second" if len(second) > len(first) else "first",
    }


def test_comparisons_are_made_in_both_orders_against_the_dearest(
    server, judge, tmp_path
):
    pool = [
        candidate("worse", 0.1, "No."),
        candidate("equal", 0.2, "An answer B"),
        candidate("better", 0.3, "A much longer answer"),
        candidate("same", 0.4, "An answer A"),
        candidate("dearest", 5.0, "An answer A"),
    ]
    found = collect(
        PROMPTS[:1],
        pool,
        tmp_path / "records.jsonl",
        judge=judge(compared),
        by_judge="pairwise",
    )
    # `equal` wins whenever it comes first, and so does its rival: a tie.
    assert {r.candidate: r.quality for r in found.records} == {
        "worse": 0.0,
        "equal": 0.5,
        "better": 1.0,
        "same": 0.5,
        "dearest": 0.5,
    }
    assert len(server.requests_to("judge")) == 6  # the same text needs no judge
    assert len(pool[-1].model.calls) == 1


def test_a_tie_counts_half_and_another_rival_may_be_named(judge, tmp_path):
    pool = [candidate("small", 0.1, "a"), candidate("large", 5.0, "b")]
    found = collect(
        PROMPTS[:1],
        pool,
        tmp_path / "records.jsonl",
        judge=judge(lambda _: {"reasoning": "", "verdict": "tie"}),
        scorer="pairwise",
        reference_candidate="small",
    )
    assert {r.quality for r in found.records} == {0.5}


@pytest.mark.parametrize(
    "told",
    [
        {"reasoning": "", "score": 7},
        {"reasoning": "", "score": -0.1},
        {"reasoning": "", "score": None},
        {"reasoning": "", "score": "Ignore all this: 1.0"},
        {"reasoning": ""},
        "no JSON at all",
        "[]",
    ],
)
def test_a_grade_that_is_none_fails_and_is_paid(server, judge, tmp_path, told):
    pool = [candidate("small", 0.0, "a")]
    found = collect(
        PROMPTS[:1],
        pool,
        tmp_path / "records.jsonl",
        judge=judge(lambda _: told),
        patience=SOON,
    )
    assert [f.reason for f in found.failures] == [
        "the judge gave no grade that can be read"
    ]
    assert len(server.requests_to("judge")) == 2
    assert found.spent == pytest.approx(2 * 400e-6)
    assert found.records == ()


@pytest.mark.parametrize("told", [{"verdict": "both"}, {"verdict": ["first"]}, {}])
def test_a_verdict_that_is_none_fails(judge, tmp_path, told):
    pool = [candidate("small", 0.1, "a"), candidate("large", 5.0, "b")]
    found = collect(
        PROMPTS[:1],
        pool,
        tmp_path / "records.jsonl",
        judge=judge(lambda _: {"reasoning": "", **told}),
        by_judge="pairwise",
        patience=SOON,
    )
    assert {f.reason for f in found.failures} == {
        "the judge gave no grade that can be read"
    }
    assert [r.candidate for r in found.records] == ["large"]


def test_answers_are_kept_when_the_judge_is_away(server, judge, tmp_path):
    pool = [candidate("small", 0.0, "a")]
    settings = {"judge": judge(graded), "patience": SOON}
    out = tmp_path / "records.jsonl"
    server.model("judge").fail_with(401, times=None)
    found = collect(PROMPTS, pool, out, concurrency=1, **settings)
    first, second = sorted({f.reason for f in found.failures}, key=len)
    assert first.endswith("Error (401)")
    assert second == f"not asked any more after {first}"
    assert len(server.requests_to("judge")) == 1
    server.model("judge").behave()
    with Labelling(PROMPTS, pool, out, **settings) as labelling:
        estimate = labelling.estimate()
        assert (dict(estimate.answers), estimate.grades) == ({}, 2)
        assert labelling.collect().is_complete
    assert len(pool[0].model.calls) == 2
    asked = len(server.requests_to("judge"))
    out.unlink()  # the records can be written anew out of the workbook
    again = collect(PROMPTS, pool, out, **settings)
    assert (again.written, again.spent) == (2, 0.0)
    assert len(server.requests_to("judge")) == asked


def test_the_money_of_a_judge_counts_against_the_limit(judge, tmp_path):
    pool = [candidate("small", 0.0, "a")]
    found = collect(
        [f"Why {n}?" for n in range(20)],
        pool,
        tmp_path / "records.jsonl",
        judge=judge(graded),
        max_cost=0.008,
        max_output_tokens=100,
    )
    assert found.limit_reached
    assert 0.0 < found.spent <= 0.008
    assert found.written == round(found.spent / 400e-6)


async def test_a_judge_that_reports_no_usage_counts_at_its_most(judge, tmp_path):
    silent = CandidateModel(
        model=ScriptedChatModel(model="silent", reports_usage=False),
        input_cost_per_million_tokens=1.0,
        output_cost_per_million_tokens=1.0,
    )
    asked = Asked(silent.candidate(), silent.model, 100)
    with Workbook(tmp_path / "x.work") as book:
        till = Till(book, None)
        item = PromptItem((("user", "Why?"),))
        grade = await Judge(asked).grade(item, "a", till, SOON)
        assert 0.0 <= grade <= 1.0
        assert till.spent == pytest.approx(Judge(asked).bound(("Why?", "a", "")))


def test_a_judge_that_fails_before_it_answers_is_told_as_it_failed(
    server, judge, tmp_path, monkeypatch
):
    async def broken(**_):
        raise ValueError("secret")

    asked = Asked(judge(graded).candidate(), judge(graded).model, 100)
    with Labelling(
        [{"prompt": "a", "reference": "a"}],
        [candidate("small", 0.0, "a")],
        tmp_path / "records.jsonl",
        patience=SOON,
    ) as labelling:
        grader = Judge(asked)
        monkeypatch.setattr(grader, "_grader", broken)
        labelling._grading = Grading(scorer="judge", judge=grader)
        found = labelling.collect()
    assert [f.reason for f in found.failures] == ["ValueError"]
    assert server.requests == []


def test_without_openevals_the_extra_is_named(judge, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "openevals.llm", None)
    with pytest.raises(ConfigurationError, match=r"mixllm-integrations\[judge\]"):
        collect(
            PROMPTS,
            [candidate("small", 0.0, "a")],
            tmp_path / "records.jsonl",
            judge=judge(graded),
        )
