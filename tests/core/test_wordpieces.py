import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.core import chunks
from mixllm_integrations.core import wordpieces as module
from mixllm_integrations.core.errors import StateFormatError
from mixllm_integrations.core.wordpieces import (
    WordPieces,
    clip_text,
    read_verified,
    shipped_folder,
    shipped_tokenizer,
)

ANY_TEXT = st.one_of(
    st.text(),
    st.text(alphabet=st.characters(codec="ascii")),
    st.lists(
        st.one_of(
            st.sampled_from(["The", "naïve", "Ünïcode", "##ing", "[PAD]", "don’t"]),
            st.text(max_size=6),
        )
    ).map(" ".join),
)


def test_clipping_keeps_the_start_and_the_end() -> None:
    text = "a" * 6_000 + "cut" + "b" * 2_000
    assert clip_text(text) == "a" * 6_000 + "\n" + "b" * 2_000


@pytest.mark.parametrize("length", [0, 1, 8_000, 8_001])
def test_a_text_within_the_limit_is_left_whole(length: int) -> None:
    assert clip_text("x" * length) == "x" * length


@given(ANY_TEXT)
def test_clipping_a_second_time_changes_nothing(text: str) -> None:
    assert clip_text(clip_text(text)) == clip_text(text)


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    assert clip_text("a \ud800 b") == "a ? b"


ODD_TEXTS = [
    "It’s a naïve café – “really”? 東京へ行く",
    "tab\tnew\nline\r\x0bcontrol\x00char\x1cs\x85here\u200b\ufeff\u2028x\u00a0y",
    "x" * 101 + " " + "é" * 101,
    "a é b éé 10⁻³ c. “é” zqzq d",
    "İstanbul ΣΊΣΥΦΟΣ ß ﬁ ½ _under_score_ a_b C++ #tag @you",
    "\x00 \x00\x00 a\x00 \x00a ab\x00cd",  # no words, or joined over it
    "increasing internationalization counterrevolutionary",  # 10, 20, 20 letters
    "=\u0338 a\u0301 \u0301b ;\u037e co\u00adop",
    "",
    " \n\t",
    "?!...---***",
    "\ud800",
    "z" * 10_000,
]
TEXTS = st.one_of(ANY_TEXT, st.sampled_from(ODD_TEXTS))


def of_the_tokenizer(text):
    return shipped_tokenizer()._cuts.of_any(clip_text(text))


@pytest.mark.parametrize("worth_arrays", [0, 10**9], ids=["arrays", "one by one"])
@pytest.mark.parametrize("text", ODD_TEXTS)
def test_an_odd_text_has_the_pieces_that_the_tokenizer_gives(
    monkeypatch: pytest.MonkeyPatch, text: str, worth_arrays: int
) -> None:
    monkeypatch.setattr(module, "_WORTH_ARRAYS", worth_arrays)
    assert shipped_tokenizer().ids([text])[0].tolist() == of_the_tokenizer(text)


@given(ANY_TEXT)
def test_the_quick_way_gives_the_pieces_that_the_tokenizer_gives(text: str) -> None:
    ids = shipped_tokenizer()._ids(clip_text(text))
    assert ids.tolist() == of_the_tokenizer(text)


@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_arrays_give_the_pieces_that_the_tokenizer_gives(texts: list[str]) -> None:
    found = shipped_tokenizer()._ids_of_many([clip_text(text) for text in texts])
    assert [ids.tolist() for ids in found] == [of_the_tokenizer(t) for t in texts]
    assert {ids.dtype for ids in found} == {np.dtype(np.int32)}


def test_every_word_of_the_vocabulary_is_found_in_arrays() -> None:
    words = [w for w in shipped_tokenizer().vocabulary if w.isascii() and w.isalnum()]
    (ids,) = shipped_tokenizer()._ids_of_many([" ".join(words)])
    assert ids.tolist() == [shipped_tokenizer().vocabulary[word] for word in words]


@pytest.mark.parametrize("together", [1, 2, 5, 1000])
def test_where_a_batch_is_divided_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    monkeypatch.setattr(module, "_WORTH_ARRAYS", 0)
    monkeypatch.setattr(chunks, "_TOGETHER", together)
    found = shipped_tokenizer().ids(ODD_TEXTS)
    assert [ids.tolist() for ids in found] == [of_the_tokenizer(t) for t in ODD_TEXTS]


def test_no_texts_have_no_pieces() -> None:
    assert shipped_tokenizer().ids([]) == []


@pytest.mark.parametrize("worth_arrays", [0, 10**9], ids=["arrays", "one by one"])
def test_changing_the_pieces_of_one_text_changes_no_other(
    monkeypatch: pytest.MonkeyPatch, worth_arrays: int
) -> None:
    monkeypatch.setattr(module, "_WORTH_ARRAYS", worth_arrays)
    text = "Why not? " * 300
    first, second = shipped_tokenizer().ids([text, text])
    first[:] = 0
    assert second.tolist() == of_the_tokenizer(text)


def test_what_looks_like_a_special_token_is_just_text() -> None:
    (ids,) = shipped_tokenizer().ids(["[PAD]"])
    vocabulary = shipped_tokenizer()._vocabulary
    assert ids.tolist() == [vocabulary[piece] for piece in ("[", "pad", "]")]
    assert ids.dtype == np.int32


@pytest.mark.parametrize("worth_arrays", [0, 10**9], ids=["arrays", "one by one"])
def test_the_store_of_words_stays_bounded(
    monkeypatch: pytest.MonkeyPatch, worth_arrays: int
) -> None:
    monkeypatch.setattr(module, "_MAX_CACHED_WORDS", 10)
    monkeypatch.setattr(module, "_WORTH_ARRAYS", worth_arrays)
    pieces = WordPieces(shipped_tokenizer()._tokenizer)
    texts = [f"zq{n}zq zq{n}é" for n in range(100)]
    assert [ids.tolist() for ids in pieces.ids(texts)] == [
        of_the_tokenizer(text) for text in texts
    ]
    whole = pieces._cuts._whole
    assert whole.keys() <= pieces._cuts.keys()
    assert 0 < len(pieces._cuts) - len(whole) <= 10


def test_threads_that_share_a_small_store_find_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MAX_CACHED_WORDS", 10)
    monkeypatch.setattr(module, "_WORTH_ARRAYS", 0)
    pieces = WordPieces(shipped_tokenizer()._tokenizer)
    texts = [f"zq{n}zq é{n}" for n in range(200)]
    expected = [of_the_tokenizer(text) for text in texts]
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(pieces.ids, [texts] * 8):
            assert [ids.tolist() for ids in found] == expected


def test_tokens_are_counted() -> None:
    # hello , world ! -> 4; nothing -> 0; an unknown run of 80 letters is one
    # piece, but 80 / 8 = 10 tokens.
    counts = shipped_tokenizer().count(["Hello, world!", " ", "q" * 80])
    assert counts.tolist()[:2] == [4, 0]
    assert counts[2] >= 10
    assert counts.dtype == np.int64


def test_an_unknown_run_counts_a_token_for_each_eight_bytes() -> None:
    # 800 letters: longer than any word may be, so one [UNK]. 800 / 8 = 100.
    # 200 Thai letters of 3 bytes: 600 / 8 = 75.
    assert shipped_tokenizer().count(["q" * 800]).tolist() == [100]
    assert shipped_tokenizer().count(["ก" * 200]).tolist() == [75]


def test_what_is_clipped_is_counted_in_proportion() -> None:
    # 100,000 characters, of which 6,000 + 1 + 2,000 are read: 1,200 + 400 words.
    # 1,600 * 100,000 / 8,001 = 19,997.5
    (count,) = shipped_tokenizer().count(["word " * 20_000])
    assert abs(count - 19_997.5) <= 0.5


def test_counting_takes_the_ids_at_hand() -> None:
    tokenizer = shipped_tokenizer()
    texts = ["one two three", "", "x" * 20_000, "naïve"]
    np.testing.assert_array_equal(
        tokenizer.count(texts), tokenizer.count(texts, ids=tokenizer.ids(texts))
    )


def test_counting_refuses_ids_of_other_texts() -> None:
    tokenizer = shipped_tokenizer()
    with pytest.raises(ValueError, match="shorter"):
        tokenizer.count(["a", "b"], ids=tokenizer.ids(["a"]))


@given(st.text(max_size=50), st.text(max_size=50))
def test_a_longer_prompt_never_counts_less(start: str, more: str) -> None:
    one, both = shipped_tokenizer().count([start, f"{start} {more}"])
    assert one <= both


def test_the_tokenizer_is_loaded_once() -> None:
    assert shipped_tokenizer() is shipped_tokenizer()


def test_a_changed_file_is_refused(tmp_path) -> None:
    about = json.loads((shipped_folder() / "encoder.json").read_text("utf-8"))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(StateFormatError, match=r"tokenizer\.json .* damaged"):
        read_verified(tmp_path, "tokenizer.json", about)
