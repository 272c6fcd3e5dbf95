"""Which text of a conversation is routed."""

import json
import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mixllm_integrations
from mixllm_integrations.core.encoder import shipped_tokenizer
from mixllm_integrations.core.wordpieces import clip_text
from mixllm_integrations.serving import (
    conversation_tokens,
    query,
    routed_text,
    text_tokens,
)

ROLES = st.sampled_from(["human", "user", "ai", "assistant", "system", "tool"])


@given(st.text())
def test_a_single_message_is_routed_by_exactly_its_text(text):
    assert routed_text([("human", text)]) == text
    assert conversation_tokens([("human", text)]) is None


@given(st.lists(st.tuples(ROLES, st.text(max_size=3_000)), max_size=8))
def test_the_text_is_bounded_whatever_the_conversation(turns):
    if len(turns) != 1:
        assert len(routed_text(turns)) <= 9_300


def test_the_last_question_comes_first_and_whole():
    text = routed_text(
        [
            ("system", "You are terse."),
            ("human", "Who wrote Faust?"),
            ("ai", "Goethe."),
            ("human", "When was he born, and where did he die?"),
        ]
    )
    assert text.startswith("When was he born, and where did he die?\n\n")
    assert "Who wrote Faust?\nGoethe." in text


def test_what_surrounds_the_question_weighs_less_than_it():
    question = "Explain in some detail how a suspension bridge carries its load. " * 8
    text = routed_text(
        [
            ("system", "S" * 5_000),
            ("human", "H" * 5_000),
            ("ai", "A" * 5_000),
            ("human", question),
        ]
    )
    assert text.count("S") < len(question) / 3
    assert text.count("H") + text.count("A") < len(question)


def test_a_short_follow_up_still_says_what_it_follows():
    text = routed_text(
        [
            ("human", "What is the capital of Mongolia?"),
            ("ai", "Ulaanbaatar."),
            ("human", "And why?"),
        ]
    )
    assert text == "And why?\n\nWhat is the capital of Mongolia?\nUlaanbaatar."


def test_tool_results_after_the_question_do_not_replace_it():
    text = routed_text([("human", "Weather?"), ("ai", ""), ("tool", "sunny " * 99)])
    assert text == "Weather?"


def test_without_a_human_message_the_last_text_is_routed():
    assert routed_text([("system", "Say hello."), ("ai", " ")]) == "Say hello."
    assert routed_text([]) == ""


def test_a_long_question_keeps_both_its_ends():
    text = routed_text([("system", ""), ("human", "a" * 50_000 + "Z" * 50_000)])
    assert text.startswith("aaa")
    assert text.endswith("ZZZ")


def test_the_whole_thread_counts_for_its_length():
    short = conversation_tokens([("human", "hello"), ("ai", "hello")])
    long = conversation_tokens([("human", "hello " * 500), ("ai", "hello")])
    assert short >= 2
    assert long >= 500


def test_ten_megabytes_are_counted_in_bounded_time():
    started = time.perf_counter()
    counted = text_tokens("many words " * 1_000_000)
    assert time.perf_counter() - started < 1.0
    # "many words" is two pieces, eleven characters with both spaces.
    assert 1_800_000 < counted < 2_200_000


def test_no_text_has_no_tokens():
    assert text_tokens("") == 0


class Reading:
    """The shipped tokenizer, and how much it has read."""

    def __init__(self):
        self.characters = 0

    def count(self, texts):
        self.characters += sum(len(clip_text(text)) for text in texts)
        return shipped_tokenizer().count(texts)


@pytest.fixture
def reading(monkeypatch):
    made = Reading()
    monkeypatch.setattr(query, "shipped_tokenizer", lambda: made)
    return made


def random_numbers(seed):
    return random.Random(seed)  # noqa: S311 - no secret


def prose(rng, size):
    """Words of ordinary lengths."""
    said = "the of a river system question about which writes and answers people"
    return " ".join(rng.choices(said.split(), k=size // 5))[:size]


def rows(rng, size):
    """What a tool returns."""
    keys = ("id", "latitude", "elapsed")
    made = [{key: rng.randint(0, 9999) for key in keys} for _ in range(size // 40)]
    return json.dumps(made, indent=1)[:size]


def source(rng, size):
    """Program text."""
    text = Path(mixllm_integrations.__file__).with_name("core").joinpath("router.py")
    start = rng.randrange(3_000)
    return (text.read_text("utf-8") * (size // 5_000 + 2))[start : start + size]


def exactly(texts):
    """The sum over all parts of all texts."""
    size = 8_000
    parts = [text[n : n + size] for text in texts for n in range(0, len(text), size)]
    return int(shipped_tokenizer().count(parts).sum()) + 4 * len(texts)


@pytest.mark.parametrize(
    ("count", "size"), [(2, 2_000_000), (100, 20_000), (5_000, 200), (20_000, 7)]
)
def test_no_conversation_is_read_longer_than_two_long_questions(count, size, reading):
    texts = [prose(random_numbers(n), size) for n in range(min(count, 5))]
    turns = [("tool", texts[n % len(texts)]) for n in range(count)]
    assert conversation_tokens(turns) > 0
    assert 0 < reading.characters <= 16_002  # a line break where a text is clipped


@pytest.mark.parametrize("size", [300, 3_000, 30_000])
@pytest.mark.parametrize("kinds", [(prose,), (rows,), (source,), (prose, rows, source)])
def test_a_long_conversation_is_counted_within_a_few_per_cent(kinds, size):
    rng = random_numbers(size)
    texts = [kinds[n % len(kinds)](rng, size) for n in range(120)]
    counted = conversation_tokens([("tool", text) for text in texts])
    assert counted == pytest.approx(exactly(texts), rel=0.05)


def test_one_long_text_among_many_short_ones_is_not_overlooked():
    rng = random_numbers(0)
    texts = ["And now?"] * 3_000
    texts[1_234] = rows(rng, 200_000)
    counted = conversation_tokens([("human", text) for text in texts])
    assert counted == pytest.approx(exactly(texts), rel=0.05)


def test_a_short_conversation_is_counted_whole(reading):
    texts = [prose(random_numbers(n), 300) for n in range(50)]
    counted = conversation_tokens([("human", text) for text in texts])
    assert reading.characters == 15_000
    assert counted == exactly(texts)


def test_a_long_conversation_without_a_single_space_is_counted():
    counted = conversation_tokens([("human", "x" * 9_000)] * 9)
    assert counted >= 81_000 // 8
