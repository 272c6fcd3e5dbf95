import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.reading import read
from mixllm_integrations.training import finetune, separation
from mixllm_integrations.training.finetune import (
    finetune_encoder,
    main,
    read_tagged_queries,
    save_encoder,
)
from mixllm_integrations.training.separation import domain_loss, separability

# Most words are common to all domains, so the plain encoder hardly tells them apart.
_OWN = {
    "garden": ("tulip", "spade", "compost", "hedge", "blossom", "root", "lawn"),
    "court": ("judge", "verdict", "appeal", "clerk", "oath", "bench", "bail"),
    "kitchen": ("oven", "whisk", "dough", "spice", "ladle", "broth", "simmer"),
}
_COMMON = (
    *("when", "should", "the", "old", "one", "be", "moved", "before", "it"),
    *("is", "late", "again", "today"),
)


def lesson(n: int = 240, seed: int = 0) -> tuple[list[str], list[tuple[str, ...]]]:
    """Queries of twelve common words and two of their domain's own."""
    rng = np.random.default_rng(seed)
    queries, tags = [], []
    for number in range(n):
        domain = list(_OWN)[number % 3]
        words = [*rng.choice(_COMMON, 12), *rng.choice(_OWN[domain], 2)]
        queries.append(" ".join(rng.permutation(words)))
        tags.append((domain,))
    return queries, tags


def told_apart(encoder: StaticEncoder, queries, tags) -> float:
    """Separability by centroids of other queries of the same domains."""
    names = list(_OWN)
    learned, own = lesson(seed=0)
    embeddings = encoder.encode(learned)
    centroids = np.stack(
        [embeddings[[t == (n,) for t in own]].mean(axis=0) for n in names]
    )
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    shares = np.eye(3)[[names.index(t[0]) for t in tags]]
    return separability(encoder.encode(queries), shares, centroids)


@pytest.fixture(scope="module", params=["paper", "batch_all_triplet"])
def tuned(request) -> StaticEncoder:
    return finetune_encoder(*lesson(), loss=request.param, epochs=6)


class TestTheEncoder:
    def test_new_queries_lie_nearer_to_their_domain(self, tuned) -> None:
        unseen = lesson(90, seed=1)
        assert told_apart(tuned, *unseen) > told_apart(StaticEncoder.load(), *unseen)

    def test_vectors_of_pieces_that_did_not_occur_point_where_they_did(self, tuned):
        texts = ["photon", "carburettor", "∫", "soliloquy"]
        cosines = (tuned.encode(texts) * StaticEncoder.load().encode(texts)).sum(axis=1)
        assert cosines.min() > 0.9999

    def test_the_start_is_left_as_it_was(self, tuned) -> None:
        plain = StaticEncoder.load()
        assert tuned.revision != plain.revision
        assert tuned.id.startswith(plain.id + "+")
        assert tuned.tokenizer is plain.tokenizer
        assert (tuned.encode(["judge"]) != plain.encode(["judge"])).any()

    def test_it_is_read_again_as_it_was_written(self, tuned, tmp_path) -> None:
        saved = save_encoder(tuned, tmp_path / "new")
        loaded = StaticEncoder.load(tmp_path / "new")
        texts = lesson(30, seed=2)[0]
        for one in (saved, loaded):
            assert (one.id, one.revision) == (tuned.id, tuned.revision)
            assert one.folder == tmp_path / "new"
            np.testing.assert_array_equal(one.encode(texts), tuned.encode(texts))

    def test_a_reading_of_it_is_the_one_of_its_texts(self, tuned) -> None:
        texts = lesson(5, seed=3)[0]
        np.testing.assert_array_equal(
            read(texts, tuned).embeddings, tuned.encode(texts)
        )


def test_the_same_seed_gives_the_same_encoder_and_another_another() -> None:
    revisions = [
        finetune_encoder(*lesson(60), epochs=1, seed=seed).revision
        for seed in (3, 3, 4)
    ]
    assert revisions[0] == revisions[1] != revisions[2]


def test_a_piece_in_too_few_texts_stays_where_it_is() -> None:
    queries, tags = lesson(60)
    queries[0] += " zebra"
    queries[3] += " zebra"
    found = finetune_encoder(queries, tags, epochs=2)
    same = found.encode(["zebra"]) @ StaticEncoder.load().encode(["zebra"]).T
    assert same[0, 0] > 0.9999


def test_a_full_pull_leaves_the_encoder_where_it_started() -> None:
    found = finetune_encoder(*lesson(60), epochs=2, pull=1.0)
    texts = lesson(20, seed=5)[0]
    np.testing.assert_allclose(
        found.encode(texts), StaticEncoder.load().encode(texts), atol=2e-3
    )


def test_the_best_pass_is_kept_and_the_training_ends_soon_after() -> None:
    seen = []
    settings = {"learning_rate": 0.5, "pull": 0.3}
    found = finetune_encoder(*lesson(60), epochs=30, on_epoch=seen.append, **settings)
    assert [e.number for e in seen] == list(range(len(seen)))
    assert np.isnan(seen[0].loss)
    best = max(seen, key=lambda e: e.separability).number
    assert 0 < best < 30 - separation._PATIENCE
    assert len(seen) - 1 == best + separation._PATIENCE
    until_then = finetune_encoder(*lesson(60), epochs=best, **settings)
    assert until_then.revision == found.revision


def test_copies_of_a_query_and_queries_without_tags_teach_nothing() -> None:
    queries, tags = lesson(60)
    first = finetune_encoder(queries, tags, epochs=1)
    again = finetune_encoder(
        [*queries, queries[0], "and one without"], [*tags, tags[1], ()], epochs=1
    )
    assert first.revision == again.revision


@pytest.mark.parametrize(
    ("queries", "tags", "options", "message"),
    [
        (["a"] * 2, [("x",)], {}, "2 queries but tags of 1"),
        (*lesson(60), {"loss": "cosine"}, "not 'cosine'"),
        (*lesson(60), {"epochs": 0}, "must be positive"),
        (*lesson(60), {"learning_rate": 0.0}, "must be positive"),
        (*lesson(60), {"pull": 1.5}, r"\[0, 1\], not 1.5"),
        (*lesson(60), {"n_domains": 1}, "two domains at least, not 1"),
        (lesson(60)[0], [("x",)] * 60, {}, "two domains at least, not 0"),
        (lesson(60)[0], [()] * 60, {}, "two domains at least, not 0"),
        (*lesson(12), {}, "needs 20 different queries with tags, not 12"),
    ],
)
def test_what_cannot_be_learned_from_is_said(queries, tags, options, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        finetune_encoder(queries, tags, **options)


@pytest.mark.parametrize(
    ("loss", "missing"),
    [("paper", "torch"), ("batch_all_triplet", "sentence_transformers")],
)
def test_a_missing_extra_is_named(loss, missing, monkeypatch) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == missing]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=r"mixllm-integrations\[train\]"):
        finetune_encoder(*lesson(60), loss=loss, epochs=1)


class TestTheLoss:
    def test_it_is_the_way_to_the_own_centroid_and_the_nearness_of_others(self):
        import torch

        # Domain A: (1, 0) and (0, 1), centroid (1, 1)/√2; each query's cosine to
        # it is 1/√2. Domain B: (0, 1), its own centroid, cosine 1.
        # L_intra = (2·(1 − 0.7071) + 0) / 3 = 0.19526; L_inter = cos(A, B) = 0.70711.
        embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        shares = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        assert float(domain_loss(embeddings, shares)) == pytest.approx(
            0.90237, abs=1e-5
        )

    def test_centroids_that_point_apart_are_not_pushed_further(self) -> None:
        import torch

        embeddings = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        assert float(domain_loss(embeddings, torch.eye(2))) == pytest.approx(0.0)

    def test_a_domain_that_is_not_in_the_batch_does_not_count(self) -> None:
        import torch

        embeddings = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
        absent = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        both = domain_loss(embeddings, torch.eye(2))
        assert float(domain_loss(embeddings, absent)) == pytest.approx(float(both))


@given(st.integers(0, 2**31), st.integers(2, 5))
def test_separability_lies_between_minus_two_and_two(seed, n_domains) -> None:
    rng = np.random.default_rng(seed)
    rows, centroids = (rng.normal(size=(n, 4)).astype("f4") for n in (7, n_domains))
    for matrix in (rows, centroids):
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    found = separability(rows, rng.random((7, n_domains)), centroids)
    assert -2.0001 <= found <= 2.0001


class TestTheCommand:
    @pytest.fixture
    def records(self, tmp_path: Path) -> Path:
        file = tmp_path / "records.jsonl"
        rows = [
            json.dumps({"query": query, "tags": list(own), "quality": 1.0})
            for query, own in zip(*lesson(60), strict=True)
        ]
        file.write_text("\n".join([*rows, "", rows[0]]), encoding="utf-8")
        return file

    def test_it_writes_a_folder_that_can_be_loaded(self, records, tmp_path, capsys):
        folder = tmp_path / "encoder"
        assert main([str(records), "-o", str(folder), "--epochs", "1"]) == 0
        shown = capsys.readouterr()
        loaded = StaticEncoder.load(folder)
        assert loaded.revision in shown.out
        assert "pass 1: loss" in shown.err
        assert _COMMON[0] not in (folder / "encoder.json").read_text("utf-8")

    def test_it_can_start_from_another_encoder(self, records, tmp_path, capsys):
        ends = [tmp_path / "one", tmp_path / "two"]
        quick = ["--epochs", "1", "--learning-rate", "0.1"]
        assert main([str(records), "-o", str(ends[0]), *quick]) == 0
        again = [str(records), "-o", str(ends[1]), "--encoder", str(ends[0]), *quick]
        assert main(again) == 0
        assert StaticEncoder.load(ends[1]).id.endswith("+paper+paper")

    def test_a_bad_row_is_an_error_that_shows_no_text(self, tmp_path, capsys) -> None:
        file = tmp_path / "bad.jsonl"
        file.write_text('{"query": "secret", "tags": 3}\n', encoding="utf-8")
        assert main([str(file), "-o", str(tmp_path / "out")]) == 2
        shown = capsys.readouterr().err
        assert "bad.jsonl, row 1 has no query with tags" in shown
        assert "secret" not in shown

    def test_the_line_of_broken_json_is_named(self, tmp_path, capsys) -> None:
        file = tmp_path / "bad.jsonl"
        file.write_text('{"query": "a", "tags": []}\n\n{"query": "sec', "utf-8")
        assert main([str(file), "-o", str(tmp_path / "out")]) == 2
        shown = capsys.readouterr().err
        assert "bad.jsonl, row 3 is no JSON" in shown
        assert "sec" not in shown

    def test_a_file_that_is_not_there_is_an_error(self, tmp_path, capsys) -> None:
        missing = tmp_path / "missing.jsonl"
        assert main([str(missing), "-o", str(tmp_path / "out")]) == 2
        assert "cannot be read" in capsys.readouterr().err

    def test_tags_of_all_rows_of_a_query_are_gathered(self, tmp_path) -> None:
        file = tmp_path / "records.jsonl"
        rows = [
            {"query": "q", "tags": ["a", "b"]},
            {"query": "r", "domain": "c"},
            {"query": "q", "tags": ["b", "d"]},
            {"query": "s", "tags": None},
        ]
        file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        assert read_tagged_queries(file) == (
            ["q", "r", "s"],
            [("a", "b", "d"), ("c",), ()],
        )

    def test_parquet_is_read_alike(self, tmp_path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        file = tmp_path / "records.parquet"
        columns = {"query": ["q", "q"], "domain": ["c", "d"], "quality": [1.0, 0.0]}
        parquet.write_table(pyarrow.table(columns), file)
        assert read_tagged_queries(file) == (["q"], [("c", "d")])


def test_a_scale_that_is_taken_again_is_the_same() -> None:
    vectors = np.random.default_rng(0).normal(size=(5_000, 16)).astype(np.float32)
    settled, revision = finetune._settled(vectors)
    again, same = finetune._settled(settled)
    np.testing.assert_array_equal(again, settled)
    assert revision == same
