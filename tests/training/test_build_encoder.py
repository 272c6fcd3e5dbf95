import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.wordpieces import shipped_folder
from mixllm_integrations.training import build_encoder
from mixllm_integrations.training.build_encoder import (
    compare,
    distil,
    find_source,
    main,
    plain_tokenizer,
    quantise,
)

TEXTS = [
    "How do I sort a list in Python?",
    "What does the force majeure clause of this contract mean?",
    "Translate 'good morning' into Italian.",
    "A train leaves at 9:40 and travels 210 km at 84 km/h. When does it arrive?",
    "Which enzyme unwinds DNA during replication?",
    "Write a limerick about a cat that fears the vacuum cleaner.",
    "∫ x² dx",
    "Summarise the causes of the Thirty Years' War in two sentences.",
]

VECTORS = arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 8)),
    elements=st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3),
)


@given(VECTORS)
def test_rounding_errs_by_half_a_step_at_most(vectors) -> None:
    rows, scale = quantise(vectors)
    assert rows.dtype == np.int8
    error = np.abs(rows * scale[:, None] - vectors)
    assert (error <= 0.5001 * scale[:, None]).all()


def test_the_largest_number_of_a_row_becomes_127() -> None:
    # 5.08 / 127 = 0.04; -2.56 / 0.04 = -64
    rows, scale = quantise(np.array([[5.08, -2.56]], dtype=np.float32))
    assert rows.tolist() == [[127, -64]]
    np.testing.assert_allclose(scale, [0.04], rtol=1e-6)


def test_a_plain_tokenizer_keeps_only_how_to_cut() -> None:
    text = plain_tokenizer(
        json.dumps(
            {
                "truncation": {"max_length": 3},
                "padding": {"strategy": "BatchLongest"},
                "post_processor": {"type": "TemplateProcessing"},
                "added_tokens": [{"content": "[PAD]"}],
                "model": {"type": "WordPiece", "vocab": {"é": 0}},
            }
        )
    )
    assert json.loads(text) == {
        "truncation": None,
        "padding": None,
        "post_processor": None,
        "added_tokens": [],
        "model": {"type": "WordPiece", "vocab": {"é": 0}},
    }


def test_the_source_is_checked_by_its_hash(tmp_path: Path) -> None:
    source = find_source()
    shutil.copy(source / "tokenizer.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"another model")
    with pytest.raises(ConfigurationError, match=r"model\.safetensors .* has sha256"):
        find_source(tmp_path)


def test_a_missing_source_is_an_error_with_an_exit_code(tmp_path, capsys) -> None:
    assert main(["--source", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "there is no model.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_shipped_files_say_where_they_come_from() -> None:
    about = json.loads((shipped_folder() / "encoder.json").read_text("utf-8"))
    assert about["licence"] == "Apache-2.0"
    assert about["source"] == build_encoder._SOURCE
    assert about["sha256"]["encoder.safetensors"].startswith(about["revision"])
    notice = (shipped_folder().parent / "NOTICE.md").read_text("utf-8")
    for digest in build_encoder._SOURCE["sha256"].values():
        assert digest in notice
    assert "Apache License, Version 2.0" in notice


class TestComparing:
    @pytest.fixture
    def write(self, tmp_path: Path):
        text = (shipped_folder() / "tokenizer.json").read_text("utf-8")

        def write(name: str, vectors: np.ndarray, tokenizer: str = text) -> Path:
            return build_encoder.write_encoder(
                tmp_path / name, vectors, tokenizer, name=name
            )

        return write

    @pytest.fixture
    def vectors(self) -> np.ndarray:
        generator = np.random.default_rng(0)
        return generator.normal(size=(29_525, 8)).astype(np.float32)

    def test_an_encoder_equals_its_copy(self, write, vectors) -> None:
        same, words = compare(write("one", vectors), write("two", vectors))
        assert same
        assert "byte for byte" in words

    def test_other_rounding_is_no_difference(self, write, vectors) -> None:
        same, words = compare(write("one", vectors), write("two", vectors * 1.0001))
        assert same
        assert "up to rounding" in words

    def test_one_vector_that_points_elsewhere_is(self, write, vectors) -> None:
        turned = vectors.copy()
        turned[77] *= -1.0
        same, words = compare(write("one", vectors), write("two", turned))
        assert not same
        assert "-1.000000" in words

    def test_another_tokenizer_or_dimension_is(self, write, vectors) -> None:
        one = write("one", vectors)
        assert compare(one, write("two", vectors[:, :4])) == (
            False,
            "dimension 8 against 4",
        )
        assert compare(one, write("three", vectors, "{}")) == (
            False,
            "tokenizer.json differs",
        )


@pytest.fixture(scope="module")
def rebuilt() -> tuple[np.ndarray, str]:
    return distil(find_source(), 256)


def test_the_shipped_tokenizer_is_the_rebuilt_one(rebuilt) -> None:
    shipped = (shipped_folder() / "tokenizer.json").read_text("utf-8")
    assert rebuilt[1] == shipped


def test_the_shipped_int8_vectors_are_the_rebuilt_floats_to_one_percent(rebuilt):
    """Similarities are compared: another CPU may turn a component around."""
    encoder, vectors = StaticEncoder.load(), rebuilt[0]
    sums = np.array([vectors[ids].sum(axis=0) for ids in encoder.tokenizer.ids(TEXTS)])
    units = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    shipped = encoder.encode(TEXTS)
    np.testing.assert_allclose(shipped @ shipped.T, units @ units.T, atol=0.01)


def test_a_build_is_what_the_check_then_finds(rebuilt, tmp_path, monkeypatch, capsys):
    # The distillation itself, 15 s, is done once for this file.
    monkeypatch.setattr(build_encoder, "distil", lambda source, dimension: rebuilt)
    assert main(["--output", str(tmp_path)]) == 0
    assert (tmp_path / "NOTICE.md").is_file()
    assert main(["--output", str(tmp_path), "--check"]) == 0
    assert "byte for byte" in capsys.readouterr().out
    (tmp_path / "tokenizer.json").write_text("{}")
    assert main(["--output", str(tmp_path), "--check"]) == 1
    assert (
        StaticEncoder.load().id
        == json.loads((tmp_path / "encoder.json").read_text("utf-8"))["id"]
    )
