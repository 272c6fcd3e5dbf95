import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mixllm_integrations.testing import ScriptedChatModel
from mixllm_integrations.training import LLMTagger
from mixllm_integrations.training.tag_answers import (
    normalise_tag,
    read_numbered,
    read_tags,
    tidy_tags,
)

TWO = ("linear algebra", "proof writing")


@pytest.mark.parametrize(
    "answer",
    [
        '[{"tag": "Linear algebra", "explanation": "x"}, {"tag": "proof-writing"}]',
        '["linear algebra", "proof writing"]',
        '```json\n["linear algebra", "proof writing"]\n```',
        'Sure! Here they are:\n\n["linear algebra", "proof writing"]\nAnything else?',
        '["linear algebra", "proof writing", ]',
        '[{"tag": "linear algebra",}, {"tag": "proof writing",},]',
        '[{"Tag": "Linear_Algebra"}, {"name": "proof  writing"}]',
        '{"tags": ["linear algebra", "proof writing"]}',
        '{"tags": "linear algebra, proof writing"}',
        '{"result": {"tags": [{"label": "linear algebra"}, "proof writing"]}}',
        '{"linear algebra": "matrices occur", "proof writing": "asks for one"}',
        '{"tag": "linear algebra"}\n{"tag": "proof writing"}',
        "['linear algebra', 'proof writing']",
        "[{'tag': 'linear algebra'}, {'tag': 'proof writing'}]",
        '[{"tag": "linear algebra"}, {"tag": "proof writing", "explanation": "cut o',
        '["linear algebra", 3, null, {"x": 1}, true, ["proof writing"], "", "—"]',
        '["linear algebra", "LINEAR ALGEBRA", "proof writing", "linear-algebra."]',
        "linear algebra, proof writing",
        "Tags: linear algebra; proof writing",
        "- Linear algebra\n- **Proof writing**",
        "1. linear algebra: needs matrices\n2) proof writing (a short one)",
        "Here you are:\n#linear_algebra\n#proof-writing",
        '<think>maybe ["poetry"]?</think>["linear algebra", "proof writing"]',
    ],
)
def test_tags_are_found_in_many_forms(answer):
    assert read_tags(answer) == TWO


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "   ",
        "I'm sorry, I can't help with that.",
        "What do you mean?",
        "[1, 2, 3]",
        '["", "???", 7]',
        '{"error": "the model is overloaded"}',
        "<think>I should say poetry, or",
        "[" * 5_000,
        '{"a":' * 5_000,
        "This text is about linear algebra, I think.",
    ],
)
def test_what_says_no_tags_is_told_from_an_empty_list(answer):
    assert read_tags(answer) is None


@pytest.mark.parametrize("answer", ["[]", '{"tags": []}', "```json\n[]\n```", "{}"])
def test_an_empty_list_is_an_answer(answer):
    assert read_tags(answer) == ()


def test_far_too_many_tags_are_cut():
    answer = json.dumps([f"tag number {n}" for n in range(5_000)])
    assert len(read_tags(answer)) == 32


def test_nesting_does_not_matter_up_to_a_depth():
    assert read_tags('[[[["poetry"]]]]') == ("poetry",)
    assert read_tags("[" * 30 + '"poetry"' + "]" * 30) in (None, ("poetry",))


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("C++", "c++"),
        ("#C#", "c#"),
        ("Node.js.", "node.js"),
        ("TCP/IP", "tcp/ip"),
        ("“Smart” quotes", "smart quotes"),
        ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("线性代数", "线性代数"),
        ("हिन्दी व्याकरण", "हिन्दी व्याकरण"),
        ("a\x00b\ud800c", "a b c"),
        ("N/A", ""),
        ("42", ""),
        ("one two three four five six seven", ""),
        ("x" * 61, ""),
        ("--", ""),
    ],
)
def test_a_tag_has_one_form(text, tag):
    assert normalise_tag(text) == tag


def is_normalised(tags) -> bool:
    return len(tags) == len(set(tags)) and all(
        tag and normalise_tag(tag) == tag and len(tag) <= 60 and "\n" not in tag
        for tag in tags
    )


@given(st.text())
@example("#.a")
@example("'+#'c")
@example("İ 𝐀")
def test_normalising_twice_changes_nothing(text):
    once = normalise_tag(text)
    assert normalise_tag(once) == once


JUNK = st.one_of(
    st.text(),
    st.text("[]{}\",:'`tag \\\n1-"),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["tag", "tags", "1", "id"]) | st.text(), inner
            )
        ),
    ).map(json.dumps),
)


@given(JUNK)
def test_no_answer_is_an_error_and_tags_are_always_normalised(answer):
    assert is_normalised(read_tags(answer) or ())
    rows = read_numbered(answer, 2)
    assert len(rows) == 2
    assert all(is_normalised(row or ()) for row in rows)


@given(st.lists(JUNK, min_size=1, max_size=4), st.integers(1, 3))
def test_a_tagger_takes_any_answer(answers, queries_per_request):
    tagger = LLMTagger(
        ScriptedChatModel(answers=answers),
        queries_per_request=queries_per_request,
        max_attempts=2,
        max_concurrency=1,
        wait_seconds=0,
        max_tags=3,
    )
    rows = tagger.tag(["one", "two", "three"])
    assert len(rows) == 3
    assert all(is_normalised(row) and len(row) <= 3 for row in rows)


@pytest.mark.parametrize(
    "answer",
    [
        '{"1": ["law"], "2": ["sums", "algebra"]}',
        '{"text 1": "law", "Text 2": "sums, algebra"}',
        '{"texts": {"1": {"tags": ["law"]}, "2": [{"tag": "sums"}, "algebra"]}}',
        '[{"number": 2, "tags": ["sums", "algebra"]}, {"id": "1", "tag": "law"}]',
        '{"a": [{"text": 1, "tags": ["law"]}, {"text": 2, "tags": "sums,algebra"}]}',
        '[["law"], ["sums", "algebra"]]',
        'Here:\n```json\n{"1": ["law"],\n"2": ["sums", "algebra",],}\n```',
        '{"1": ["law"]}\n{"2": ["sums", "algebra"]}',
    ],
)
def test_an_answer_about_several_texts_is_taken_apart(answer):
    assert read_numbered(answer, 2) == [("law",), ("sums", "algebra")]


def test_numbers_that_were_not_asked_for_are_left_out():
    answer = '{"0": ["a b"], "2": [], "3": ["c d"], "1": ["law"]}'
    assert read_numbered(answer, 2) == [("law",), ()]
    assert read_numbered('["law", "sums"]', 2) == [None, None]
    assert read_numbered("law, sums", 2) == [None, None]


def test_rare_tags_are_counted_over_queries_after_merging():
    rows = [("sums", "sum"), ("sum",), ("gas", "glass"), ("time series",)]
    rows += [("timeseries",)]
    assert tidy_tags(rows) == [
        ("sum",),
        ("sum",),
        ("gas", "glass"),
        ("time series",),
        ("time series",),
    ]
    assert (
        tidy_tags(rows, min_count=2)
        == [("sum",), ("sum",), ()] + [("time series",)] * 2
    )


TAG_ROWS = st.lists(
    st.lists(st.sampled_from(["sum", "sums", "law", "laws", "a b", "ab"])).map(tuple)
)


@given(TAG_ROWS, st.integers(1, 4))
def test_tidying_adds_nothing_and_keeps_only_frequent_tags(rows, min_count):
    tidy = tidy_tags(rows, min_count=min_count)
    assert len(tidy) == len(rows)
    known = {tag for row in rows for tag in row}
    for tag in {tag for row in tidy for tag in row}:
        assert tag in known
        assert sum(tag in row for row in tidy) >= min_count
