"""Stage 1 of a query's life: text to a vector of length 1.

`StaticEncoder` is the shipped default: one int8 vector for each word piece,
averaged; numpy and tokenizers are all it needs. `SentenceTransformerEncoder`
runs any sentence-transformers model instead. Both read the first and the last
few thousand characters of a text (`clip_text`), so that a query of 10 MB costs
no more than one of 8 kB.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_safetensors
from tokenizers import Tokenizer

from mixllm_integrations.core.errors import ConfigurationError, StateFormatError
from mixllm_integrations.core.hub import find_model, folder_digest, load_model
from mixllm_integrations.core.wordpieces import (
    WordPieces,
    checked_texts,
    clip_text,
    read_verified,
    shipped_folder,
    shipped_tokenizer,
)

__all__ = [
    "Encoder",
    "SentenceTransformerEncoder",
    "StaticEncoder",
    "WordPieces",
    "check_encoder",
    "clip_text",
    "encoder_spec",
    "load_encoder",
    "shipped_tokenizer",
]

_LOADING = threading.Lock()


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into vectors of length 1; any object of this form will do."""

    @property
    def id(self) -> str:
        """Name of the model."""
        ...

    @property
    def revision(self) -> str:
        """Which weights of it: changes whenever the vectors do."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of length 1 per text, shape ``(n_texts, dimension)``."""
        ...


class StaticEncoder:
    """Mean of one stored vector per word piece: tens of microseconds a query.

    Use `StaticEncoder.load`.

    Parameters
    ----------
    weights
        One row per piece, shape ``(n_pieces, dimension)``.
    tokenizer
        Whose ids are the rows of `weights`.
    id, revision
        What to call the model and these weights of it.
    folder
        Where it was read from; ``None``: shipped with the package.

    Notes
    -----
    Our choice; the paper fine-tunes a transformer. Measured for routing, a
    transformer was no better at 400 times the time.
    """

    def __init__(
        self,
        weights: NDArray[np.float32],
        tokenizer: WordPieces,
        *,
        id: str,  # noqa: A002
        revision: str,
        folder: Path | None = None,
    ) -> None:
        if weights.ndim != 2 or len(weights) < tokenizer.size:
            raise StateFormatError(
                f"encoder weights of shape {weights.shape} do not fit a tokenizer of "
                f"{tokenizer.size} pieces"
            )
        self._weights = weights
        self._weights.setflags(write=False)
        self.tokenizer = tokenizer
        self.folder = folder
        self._id, self._revision = id, revision
        unknown = weights[tokenizer.unknown_id]
        length = float(np.linalg.norm(unknown))
        if not length > 0.0 or not np.isfinite(length):
            raise StateFormatError(
                "the encoder's vector for unknown words is no vector"
            )
        self._fallback = unknown / np.float32(length)

    @property
    def id(self) -> str:
        """Name of the model."""
        return self._id

    @property
    def revision(self) -> str:
        """First digits of the weights' sha256."""
        return self._revision

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._weights.shape[1])

    @classmethod
    def load(cls, folder: str | Path | None = None) -> Self:
        """Read the shipped encoder (once per process) or one from a folder.

        Parameters
        ----------
        folder
            With ``encoder.json``, ``encoder.safetensors``, ``tokenizer.json``,
            as `mixllm_integrations.training.build_encoder` writes them.

        Raises
        ------
        ConfigurationError
            If there is no such folder.
        StateFormatError
            If a file is missing, damaged, or not the one that
            ``encoder.json`` was written for.

        Examples
        --------
        >>> encoder = StaticEncoder.load()
        >>> encoder.encode(["What is the capital of France?"]).shape
        (1, 256)
        """
        if folder is not None:
            return cls._read(Path(folder))
        with _LOADING:
            return cls._shipped()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of length 1 per text, shape ``(n_texts, dimension)``.

        A text without pieces (empty, or only spaces) gets the vector of an
        unknown word.
        """
        return self.encode_ids(self.tokenizer.ids(texts))

    def encode_ids(self, ids: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Do the same from what `tokenizer.ids` returned for the texts."""
        rows = np.empty((len(ids), self.dimension), dtype=np.float32)
        for row, pieces in zip(rows, ids, strict=True):
            np.add.reduce(self._weights.take(pieces, axis=0), axis=0, out=row)
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        usable = lengths > 0.0
        if np.count_nonzero(usable) < usable.size:
            rows[~usable] = self._fallback
            lengths[~usable] = 1.0
        rows /= lengths[:, None]
        return rows

    @classmethod
    @cache
    def _shipped(cls) -> Self:
        encoder = cls._read(shipped_folder(), shipped_tokenizer())
        encoder.folder = None
        return encoder

    @classmethod
    def _read(cls, folder: Path, tokenizer: WordPieces | None = None) -> Self:
        if not folder.is_dir():
            raise ConfigurationError(
                f"there is no encoder folder {str(folder)!r}; build one with "
                "`python -m mixllm_integrations.training.build_encoder --output FOLDER`"
            )
        try:
            about = json.loads((folder / "encoder.json").read_text("utf-8"))
            content = read_verified(folder, "encoder.safetensors", about)
            if tokenizer is None:
                text = read_verified(folder, "tokenizer.json", about).decode("utf-8")
                tokenizer = WordPieces(Tokenizer.from_str(text))
            tensors = load_safetensors(content)
            # The sum over a text's rows points where their mean does.
            table = tensors["weights"] * tensors["scale"].astype(np.float32)[:, None]
            name, revision = str(about["id"]), str(about["revision"])
        except StateFormatError:
            raise
        except Exception as error:  # tokenizers raises no narrower one
            raise StateFormatError(
                f"the encoder in {str(folder)!r} cannot be read "
                f"({type(error).__name__}: {error}); reinstall the package, or rebuild "
                "the encoder"
            ) from error
        return cls(table, tokenizer, id=name, revision=revision, folder=folder)


class SentenceTransformerEncoder:
    """Any sentence-transformers model: a folder, or an id on the Hugging Face hub.

    Looks on this machine first, and on the hub only if nothing is there and
    the hub can be reached. Safe to share between threads.

    Parameters
    ----------
    model_name_or_path
        A folder, or a hub id such as ``"sentence-transformers/all-MiniLM-L6-v2"``.
    revision
        Branch, tag or commit on the hub.
    device
        Where torch runs it, for example ``"cuda"``.
    local_files_only
        True: never ask the hub. False: ask it for the newest files. ``None``:
        only if the model is not on this machine.
    batch_size
        How many texts go through the model together.

    Raises
    ------
    ConfigurationError
        If sentence-transformers is not installed, or the model cannot be had;
        the message says what to do.
    """

    def __init__(
        self,
        model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        device: str = "cpu",
        local_files_only: bool | None = None,
        batch_size: int = 32,
    ) -> None:
        self.source = name = str(model_name_or_path)
        self.batch_size = batch_size
        folder = find_model(name, revision=revision, local_files_only=local_files_only)
        self._model = load_model(folder, device=device)
        if Path(name).expanduser().is_dir():
            self._id, self._revision = folder.resolve().name, folder_digest(folder)
        else:
            self._id, self._revision = name, folder.name
        # The first call also sets how the tokenizer truncates and pads; done here,
        # threads only ever read it.
        self._dimension = len(self._embed(["[UNK]"])[0])

    @property
    def id(self) -> str:
        """The hub id, or the name of the folder."""
        return self._id

    @property
    def revision(self) -> str:
        """The hub's commit, or a digest of the folder's files."""
        return self._revision

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._dimension

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of length 1 per text, shape ``(n_texts, dimension)``.

        The model cuts what is longer than its own limit. Where it has no
        vector for a text, the first unit vector stands in.
        """
        clipped = [clip_text(text) for text in checked_texts(texts)]
        if not clipped:
            return np.empty((0, self.dimension), dtype=np.float32)
        rows = self._embed(clipped)
        lengths = np.linalg.norm(rows, axis=1)
        lost = ~(np.isfinite(lengths) & (lengths > 0.0))
        rows[lost] = np.eye(1, self.dimension, dtype=np.float32)
        lengths[lost] = 1.0
        unit: NDArray[np.float32] = rows / lengths[:, None]
        return unit

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        found = self._model.encode(
            texts,
            batch_size=self.batch_size,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.array(found, dtype=np.float32)


def encoder_spec(encoder: Encoder) -> dict[str, Any]:
    """Describe an encoder so that `load_encoder` finds it again.

    Returns
    -------
    dict[str, Any]
        JSON-able: ``kind`` (``"static"``, ``"sentence-transformers"`` or
        ``"custom"``), ``id``, ``revision``, ``dimension``, and ``source``:
        the folder or hub id, ``None`` for the shipped encoder.
    """
    kind, source = "custom", None
    if isinstance(encoder, StaticEncoder):
        kind, source = "static", encoder.folder and str(encoder.folder)
    elif isinstance(encoder, SentenceTransformerEncoder):
        kind, source = "sentence-transformers", encoder.source
    return {
        "kind": kind,
        "id": encoder.id,
        "revision": encoder.revision,
        "dimension": encoder.dimension,
        "source": source,
    }


def load_encoder(spec: Mapping[str, Any]) -> Encoder:
    """Return the encoder that `encoder_spec` described.

    Raises
    ------
    ConfigurationError
        If it is not to be had here: pass it to `Router.load` instead.
    StateFormatError
        If what is found now makes other vectors, or the description is broken.
    """
    kind, source = spec.get("kind"), spec.get("source")
    encoder: Encoder
    if kind == "static":
        encoder = StaticEncoder.load(source)
    elif kind == "sentence-transformers" and isinstance(source, str):
        pinned = None if Path(source).is_dir() else spec.get("revision")
        encoder = SentenceTransformerEncoder(source, revision=pinned)
    elif kind == "custom":
        raise ConfigurationError(
            f"the encoder {spec.get('id')!r} is your own class: pass it as "
            "`Router.load(folder, encoder=...)`"
        )
    else:
        raise StateFormatError(f"unknown kind of encoder {kind!r} from {source!r}")
    check_encoder(spec, encoder)
    return encoder


def check_encoder(spec: Mapping[str, Any], encoder: Encoder) -> None:
    """Make sure that an encoder is the one that a saved state was learned with.

    Raises
    ------
    StateFormatError
        If id, revision or dimension differ: each encoder has a space of its
        own, so what was learned in one says nothing in another.
    """
    for name in ("id", "revision", "dimension"):
        saved, given = spec.get(name), getattr(encoder, name)
        if saved != given:
            raise StateFormatError(
                f"the state was learned with encoder {spec.get('id')!r} of {name} "
                f"{saved!r}, but the encoder here ({encoder.id!r}) has {given!r}; pass "
                "the same encoder, or fit a new router with this one"
            )
