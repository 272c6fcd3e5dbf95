"""A prompt of ten megabytes costs bounded time and memory, whatever it is made of."""

import ast
import re
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

import mixllm_integrations
from mixllm_integrations import Candidate, Router, RoutingRecord
from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.langchain.calls.texts import texts_in, whole_texts
from mixllm_integrations.serving import RoutingRule
from mixllm_integrations.serving.query import (
    conversation_tokens,
    routed_text,
    text_tokens,
)
from mixllm_integrations.testing import ScriptedChatModel
from mixllm_integrations.training.taggers import LLMTagger

N = 10_000_000
PROMPTS = {
    "one word": "x" * N,
    "lines": "\n" * N,
    "emoji": "😀" * N,
    "combining marks": "a" + "\u0301" * (N - 1),
    "digits": "7" * N,
    "nul": "\0" * N,
    "lone surrogates": "\ud800" * N,
    "a mixture": "a\u0301😀\ud800." * (N // 5),
    "a header of a file": "data:a/b" + ";x" * (N // 2 - 4),
    "thoughts": "<think>" * (N // 7),
    "brackets": "[{" * (N // 2),
    "written from right to left": "\u202e" * N,
    "ligatures": "\ufdfa" * N,
    "no spaces": "東" * N,
}
# A call takes milliseconds; the fake candidate reads each word of such a prompt.
SECONDS, MEGABYTES = 10.0, 150.0


class Brief(ScriptedChatModel):
    """Answers without a look at what is asked, so that the router alone is measured."""

    reports_usage: bool = False


@contextmanager
def soon():
    began = time.perf_counter()
    yield
    assert time.perf_counter() - began < SECONDS


@pytest.fixture(scope="module")
def router():
    router = Router([Candidate("small", 1, 1), Candidate("large", 9, 9)])
    router.route("warm")
    return router


@pytest.fixture(scope="module")
def model():
    candidate = CandidateModel(
        model=Brief(answers=["ok"]),
        name="small",
        input_cost_per_million_tokens=1,
        output_cost_per_million_tokens=1,
    )
    rule = RoutingRule(
        when=re.compile("personal data"), requires=["tools"], name="personal"
    )
    model = MixLLMChatModel(candidates=[candidate], rules=[rule])
    model.invoke("warm")
    return model


@pytest.mark.parametrize("kind", PROMPTS)
def test_the_core_decides_on_any_prompt_in_bounded_time_and_memory(
    router, within, kind
):
    prompt = PROMPTS[kind]
    with within(MEGABYTES), soon():
        decision = router.route(prompt)
        assert decision.candidate in {"small", "large"}
        assert router.record_feedback(decision.id, 0.5)
        assert router.predict([prompt]).quality.shape == (1, 2)
        assert len(router.route_batch([prompt] * 3)) == 3


@pytest.mark.parametrize("kind", PROMPTS)
def test_a_thread_of_forty_megabytes_is_counted_and_cut(within, kind):
    prompt = PROMPTS[kind]
    turns = [("system", prompt), ("human", prompt), ("ai", prompt), ("human", prompt)]
    with within(MEGABYTES), soon():
        assert len(routed_text(turns)) <= 9_300
        assert conversation_tokens(turns) > 0
        assert text_tokens(prompt) >= 0


@pytest.mark.parametrize("kind", PROMPTS)
def test_a_rule_reads_all_of_a_prompt_in_bounded_time_and_memory(within, kind):
    message = HumanMessage(PROMPTS[kind])
    with within(MEGABYTES), soon():
        assert whole_texts(message)[0] == PROMPTS[kind]
        assert list(texts_in(message)) == [PROMPTS[kind]]


@pytest.mark.parametrize("kind", ["one word", "lone surrogates", "a header of a file"])
def test_a_routed_model_answers_any_prompt_in_bounded_time_and_memory(
    model, within, kind
):
    prompt = PROMPTS[kind]
    thread = [SystemMessage(prompt), AIMessage(prompt), HumanMessage(prompt)]
    with within(MEGABYTES), soon():
        assert model.invoke(prompt).content == "ok"
        assert model.invoke(thread).content == "ok"
        assert "".join(chunk.content for chunk in model.stream(prompt)) == "ok"


def test_a_header_of_a_file_is_still_no_text():
    message = HumanMessage(["data:image/png;charset=x;base64,AAAA", "data: a word"])
    assert list(texts_in(message)) == ["data: a word"]


def test_a_router_learns_from_any_prompts():
    prompt = PROMPTS["one word"]
    pair = [Candidate("small", 1, 1), Candidate("large", 9, 9)]
    router = Router(pair, predictor="ridge")
    queries = [f"{n} {text[:9_000]}" for text in PROMPTS.values() for n in range(2)]
    router.fit(
        [
            RoutingRecord(query, name, (len(query) + n) % 2, 9, 9, 0.1)
            for query in queries
            for n, name in enumerate(("small", "large"))
        ]
    )
    assert router.route(prompt).candidate in {"small", "large"}


@pytest.mark.parametrize("kind", ["one word", "lone surrogates", "emoji"])
def test_a_tagger_asks_about_no_more_than_it_needs(within, kind):
    model = Brief(answers=['["law"]'])
    with within(MEGABYTES):
        assert LLMTagger(model).tag([PROMPTS[kind]]) == [("law",)]
    asked = sum(len(m.text) for call in model.calls for m in call.messages)
    assert asked < 20_000


PACKAGE = Path(mixllm_integrations.__file__).parent
ATTACKS = [
    *("a", " ", "1", "\n", "-", ",", ":", "<think>", "```", "[", "\u0301", "e.", "1h"),
    *("input token count ", "`inputs` ", "not supported by ", "exceeds the ", "data:"),
    *("data:a/b;", "tag:", '["', ", ", "msg_01", "lc_run--", "/a", "a=", "tags\n"),
]


def patterns() -> dict[str, re.Pattern[str]]:
    """Every pattern that the package compiles, by where it stands."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            is_call = isinstance(node, ast.Call) and isinstance(
                node.func, ast.Attribute
            )
            if not is_call or getattr(node.func.value, "id", "") != "re":
                continue
            if node.args and isinstance(node.args[0], ast.Constant):
                place = f"{path.relative_to(PACKAGE).as_posix()}:{node.lineno}"
                flags = {"IGNORECASE", "DOTALL"} & {
                    each.attr
                    for each in ast.walk(node)
                    if isinstance(each, ast.Attribute)
                }
                mode = sum(int(getattr(re, name)) for name in flags)
                found[place] = re.compile(node.args[0].value, mode)
    return found


def test_no_pattern_takes_time_that_grows_fast_with_a_text():
    assert len(patterns()) > 20
    slow = {}
    for place, pattern in patterns().items():
        for attack in ATTACKS:
            text = (attack * 3_000)[:3_000] + "!"
            began = time.perf_counter()
            for look in (pattern.match, pattern.fullmatch, pattern.search):
                look(text)
            # Squared, 3,000 characters take some 0.1 s; cubed, minutes.
            if time.perf_counter() - began > 2.0:
                slow[place] = attack
    assert slow == {}
