import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer

from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.reading import digests, read
from mixllm_integrations.core.shape import shape_counts
from mixllm_integrations.core.wordpieces import WordPieces

ENCODER = StaticEncoder.load()


class OwnEncoder:
    """Gives what a test wants it to give."""

    id, revision, dimension = "own", "1", 3

    def __init__(self, found=None):
        self.found = found

    def encode(self, texts):
        if self.found is None:
            return np.tile([1.0, 0.0, 0.0], (len(texts), 1))
        return np.asarray(self.found)


def test_a_reading_is_the_one_worked_out_by_hand():
    reading = read(["Why?", "", "a\nb\n", " \t\n"], ENCODER)
    assert [ids.size for ids in reading.ids] == [2, 0, 2, 0]
    assert reading.characters.tolist() == [4, 0, 4, 3]
    assert reading.lines.tolist() == [0, 0, 2, 1]
    assert reading.tokens.tolist() == [2, 0, 2, 0]
    assert reading.blank.tolist() == [False, True, False, True]
    # Bytes that follow one another: 3, none, 3, 2.
    assert reading.shape.sum(axis=1).tolist() == [3, 0, 3, 2]
    np.testing.assert_allclose(np.linalg.norm(reading.embeddings, axis=1), 1, rtol=1e-5)


def test_a_reading_carries_the_shape_of_each_text():
    texts = ["Why (1)?", "ß"]
    assert np.array_equal(read(texts, ENCODER).shape, shape_counts(texts))


def test_the_short_cut_over_pieces_gives_what_the_encoder_gives():
    texts = ["Why is the sky blue?", "", "x" * 20_000]
    assert np.array_equal(read(texts, ENCODER).embeddings, ENCODER.encode(texts))


def test_a_static_encoder_with_pieces_of_its_own_cuts_up_the_texts_itself():
    words = {"[UNK]": 0, "[PAD]": 1, "why": 2, "not": 3}
    tokenizer = Tokenizer(WordPiece(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = BertPreTokenizer()
    own = StaticEncoder(
        np.eye(4, dtype=np.float32), WordPieces(tokenizer), id="own", revision="1"
    )
    reading = read(["why", "not"], own)
    assert reading.embeddings.argmax(axis=1).tolist() == [2, 3]
    assert reading.ids[0].tolist() != [2]  # these are the shipped pieces


def test_an_encoder_of_ones_own_is_asked_for_the_embeddings():
    found = read(["a", "b"], OwnEncoder()).embeddings
    assert found.tolist() == [[1.0, 0.0, 0.0]] * 2
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    "found",
    [
        [[1.0, 0.0]],
        [[1.0, 0.0, 0.0]] * 2,
        [1.0, 0.0, 0.0],
        [[1.0, np.nan, 0.0]],
        [[np.inf, 0.0, 0.0]],
    ],
    ids=["narrow", "too many", "flat", "nan", "infinite"],
)
def test_an_encoder_that_breaks_its_promise_is_named(found):
    with pytest.raises(
        ConfigurationError, match=r"'own' must return finite .*\(1, 3\)"
    ):
        read(["a"], OwnEncoder(found))


def test_what_is_no_text_is_a_type_error():
    with pytest.raises(TypeError, match="text 1 must be a str, not a int"):
        read(["fine", 3], ENCODER)


def test_one_text_is_no_sequence_of_texts():
    with pytest.raises(TypeError, match="not one str"):
        read("Why?", ENCODER)


def test_texts_may_come_from_a_generator():
    found = read((text for text in ["Why?", "How?"]), ENCODER)
    assert found.characters.tolist() == [4, 4]


def test_no_texts_are_an_empty_reading():
    reading = read([], ENCODER)
    assert reading.ids == []
    assert reading.embeddings.shape == (0, ENCODER.dimension)
    assert reading.shape.shape == (0, 144)
    assert reading.blank.size == reading.tokens.size == digests(reading).size == 0


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_a_text_is_read_alone_as_among_others(texts):
    together = read(texts, ENCODER)
    for row, text in enumerate(texts):
        alone = read([text], ENCODER)
        assert np.array_equal(alone.ids[0], together.ids[row])
        for name in ("characters", "lines", "tokens", "blank", "shape"):
            assert np.array_equal(getattr(alone, name)[0], getattr(together, name)[row])
        np.testing.assert_allclose(
            alone.embeddings[0], together.embeddings[row], atol=1e-6
        )


# --- digests -------------------------------------------------------------------


def test_digests_tell_texts_apart_by_their_pieces():
    found = digests(read(["Why not?", "not why?", "WHY  NOT ?", "", " "], ENCODER))
    assert found.dtype == np.int64
    assert found[0] == found[2]  # the same pieces
    assert found[3] == found[4]  # none at all
    assert len(set(found.tolist())) == 3


def test_a_digest_is_the_same_in_every_process():
    # The first 8 bytes of BLAKE2b of nothing, e4a6a0577479b2b4, low byte first.
    assert digests(read([""], ENCODER)).tolist() == [
        int.from_bytes(bytes.fromhex("e4a6a0577479b2b4"), "little", signed=True)
    ]
