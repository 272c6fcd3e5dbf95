import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.core import chunks
from mixllm_integrations.core import form as module
from mixllm_integrations.core.form import FORM_FEATURES, form_features
from mixllm_integrations.core.wordpieces import shipped_tokenizer

PIECES = shipped_tokenizer()
LENGTHS = FORM_FEATURES[-7:]
COUNTS = FORM_FEATURES[:-7]


def rows(texts):
    return form_features(
        PIECES.ids(texts),
        np.array([len(t) for t in texts]),
        np.array([t.count("\n") for t in texts]),
        tokenizer=PIECES,
    )


def form(text):
    return dict(zip(FORM_FEATURES, rows([text])[0].tolist(), strict=True))


def counted(text):
    """Return the counts of a text that are not 0."""
    found = form(text)
    return {n: round(np.expm1(found[n]), 3) for n in COUNTS if found[n] > 0}


def test_features_have_names_of_their_own():
    assert len(set(FORM_FEATURES)) == len(FORM_FEATURES)
    assert rows(["a", "b"]).shape == (2, len(FORM_FEATURES))


def test_an_empty_text_has_no_form():
    assert not rows([""]).any()


def test_no_texts_give_no_rows():
    assert rows([]).shape == (0, len(FORM_FEATURES))


def test_a_sum_has_the_form_worked_out_by_hand():
    # Pieces: what is 17 * 23 ? - six of them, 16 characters, on one line.
    assert counted("What is 17 * 23?") == {
        "operators": 1,
        "sentence_ends": 1,
        "question_words": 1,
        "numbers": 2,
    }
    found = form("What is 17 * 23?")
    assert found["log_pieces"] == pytest.approx(np.log(7))
    assert found["log_characters"] == pytest.approx(np.log(17))
    assert found["pieces_per_character"] == pytest.approx(6 / 16)
    assert found["log_lines"] == 0.0
    assert found["share_numbers"] == pytest.approx(2 / 6)
    assert found["share_operators"] == pytest.approx(1 / 6)
    assert found["share_word_parts"] == 0.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cats", {}),
        ("not never", {"negations": 2}),
        ("(a)", {"brackets": 2, "single_letters": 1}),
        ("yes, cats", {"commas": 1}),
        ('"cats"', {"quotes": 2}),
        ("two kg", {"units": 1}),
        ("total after", {"steps": 2}),
        ("lambda", {"code_words": 1}),
        ("{", {"brackets": 1, "code_words": 1}),
        ("ß", {"foreign": 1}),
        ("7", {"numbers": 1}),
    ],
)
def test_each_class_counts_its_own_pieces(text, expected):
    assert counted(text) == expected


def test_upper_case_changes_nothing():
    assert np.array_equal(rows(["WHY NOT KG"]), rows(["why not kg"]))


def test_a_rare_word_counts_by_its_parts():
    (pieces,) = PIECES.ids(["antidisestablishmentarianism"])
    assert counted("antidisestablishmentarianism")["word_parts"] == pieces.size - 1


def test_line_breaks_count_as_lines():
    assert form("cats\ncats\ncats")["log_lines"] == pytest.approx(np.log(3))


@given(
    parts=st.lists(
        st.sampled_from(["why", "17", "*", "kg", "not", "(", "cats", "{", "x"]),
        min_size=1,
        max_size=20,
    ),
    split=st.integers(0, 20),
)
def test_counts_of_two_halves_add_up_to_those_of_the_whole(parts, split):
    halves = " ".join(parts[:split]), " ".join(parts[split:])
    first, second, whole = rows([*halves, " ".join(parts)])
    n = len(COUNTS)
    np.testing.assert_allclose(
        np.expm1(first[:n]) + np.expm1(second[:n]), np.expm1(whole[:n]), atol=1e-9
    )


@given(st.text(max_size=60))
def test_every_text_has_a_finite_form_without_negative_entries(text):
    (found,) = rows([text])
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    shares = [found[FORM_FEATURES.index(n)] for n in LENGTHS if n.startswith("share")]
    assert max(shares) <= 1.0


@pytest.mark.parametrize("together", [1, 2, 1000])
def test_a_text_has_the_same_form_alone_and_among_others(monkeypatch, together):
    monkeypatch.setattr(chunks, "_TOGETHER", together)
    texts = ["", "Why?", "", "", "def f(x): return 2 * x", "ß\n7"]
    assert np.array_equal(rows(texts), np.vstack([rows([t]) for t in texts]))


def by_one_look_at_each_piece(text):
    """Count without a table: go through the pieces, ask of each what it is."""
    words = {piece: word for word, piece in PIECES.vocabulary.items()}
    found = dict.fromkeys(COUNTS, 0)
    (ids,) = PIECES.ids([text])
    for word in (words[int(i)] for i in ids):
        for name, members in module._WORDS.items():
            found[name] += word in members.split()
        found["numbers"] += word.removeprefix("##").isdigit()
        found["single_letters"] += len(word) == 1 and "a" <= word <= "z"
        found["word_parts"] += word.startswith("##") and word != "##"
        found["foreign"] += any(ord(c) > 127 for c in word)
    return found, ids.size


TOLD = st.text(
    alphabet="abz019 \n.?!,;:()[]{}=^+*/<>%°√∑\"'`_ßéλ中²−notwhyif", max_size=80
)


@given(TOLD)
def test_counts_by_groups_of_pieces_are_those_of_one_look_at_each(text):
    counts, n_pieces = by_one_look_at_each_piece(text)
    found = form(text)
    for name in COUNTS:
        assert found[name] == np.log1p(counts[name]), name
    for name in ("numbers", "operators", "word_parts"):
        assert found[f"share_{name}"] == counts[name] / max(n_pieces, 1)


def test_the_vocabulary_falls_into_few_groups_that_cover_it():
    group, members = module._classes(PIECES)
    assert group.shape == (max(PIECES.vocabulary.values()) + 1,)
    assert set(group.tolist()) == set(range(len(members)))
    assert members.shape[1] == len(FORM_FEATURES)
    assert len(members) < 64  # counting them is cheap
