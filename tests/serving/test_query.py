"""Which text of a conversation is routed."""

import time

from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.serving import conversation_tokens, routed_text, text_tokens

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
