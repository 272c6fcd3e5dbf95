"""Finding a sentence-transformers model: a folder, this machine's cache, the hub.

Kept apart from the encoders: a router with the shipped encoder needs none of it.
"""

import hashlib
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from mixllm_integrations.core.errors import ConfigurationError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["find_model", "folder_digest", "load_model"]

_SECONDS_TO_REACH = 4.0
_OFFLINE_SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_SWITCHED_ON = {"1", "true", "yes", "on"}
_LOOKS_LIKE_FOLDER = re.compile(r"^[./~\\]|^[A-Za-z]:|/.*/|\\")
_NOT_FOR_TORCH = ["*.h5", "*.msgpack", "*.onnx", "*.ot", "onnx/*", "openvino/*"]
_MODEL_SUFFIXES = {".json", ".txt", ".safetensors", ".bin", ".model"}
_WHOLE_BYTES, _BLOCK_BYTES, _N_BLOCKS = 8_000_000, 65_536, 64


def find_model(
    name: str, *, revision: str | None = None, local_files_only: bool | None = None
) -> Path:
    """Return the folder of a model, downloading it if it must be.

    Parameters
    ----------
    name
        A folder, or a hub id; one without an organisation is taken to be of
        ``sentence-transformers``.
    revision
        Branch, tag or commit on the hub.
    local_files_only
        True: never ask the hub. False: ask it for the newest files. ``None``:
        ask it only if the model is not on this machine.

    Raises
    ------
    ConfigurationError
        If it cannot be had. A hub that does not answer costs a few seconds,
        not the minutes of retries that its own client takes.
    """
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    if not name or _LOOKS_LIKE_FOLDER.search(name):
        raise ConfigurationError(
            f"there is no model folder {name!r}; pass a folder or a hub id such as "
            "'sentence-transformers/all-MiniLM-L6-v2'"
        )
    missing: Exception | None = None
    if local_files_only is not False:
        try:
            return _snapshot(name, revision, local_files_only=True)
        except Exception as error:  # noqa: BLE001 - a bad id, an empty cache, ...
            missing = error
    if local_files_only:
        raise _unobtainable(name, "it is not on this machine") from missing
    if obstacle := _obstacle_to_hub():
        raise _unobtainable(name, obstacle) from missing
    try:
        return _snapshot(name, revision, local_files_only=False)
    except Exception as error:
        why = f"the hub says {type(error).__name__}"
        raise _unobtainable(name, why) from error


def load_model(folder: Path, *, device: str = "cpu") -> "SentenceTransformer":
    """Load a model from its folder; this never asks the hub.

    Raises
    ------
    ConfigurationError
        If sentence-transformers is not installed, or finds no model there.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ConfigurationError(
            "SentenceTransformerEncoder needs sentence-transformers: run "
            '`pip install "mixllm-integrations[train]"` (without a GPU add '
            '"torch==2.13.0", or several GB of CUDA come along)'
        ) from error
    try:
        return SentenceTransformer(str(folder), device=device, local_files_only=True)
    except Exception as error:
        raise ConfigurationError(
            f"{str(folder)!r} holds no sentence-transformers model that can be loaded "
            f"on {device!r} ({type(error).__name__}: {error})"
        ) from error


def folder_digest(folder: Path) -> str:
    """Return a short sha256 of a model's files: configuration and weights.

    A file over 8 MB counts with its size and 64 blocks spread over it, which
    any training changes, so that a model of gigabytes takes no seconds.
    """
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix not in _MODEL_SUFFIXES or not path.is_file():
            continue
        size = path.stat().st_size
        total.update(f"{path.relative_to(folder).as_posix()}:{size};".encode())
        with path.open("rb") as file:
            if size <= _WHOLE_BYTES:
                total.update(file.read())
                continue
            for block in range(_N_BLOCKS):
                file.seek((size - _BLOCK_BYTES) * block // (_N_BLOCKS - 1))
                total.update(file.read(_BLOCK_BYTES))
    return total.hexdigest()[:12]


def _snapshot(name: str, revision: str | None, *, local_files_only: bool) -> Path:
    # The id is resolved here since SentenceTransformer, given one, asks the hub
    # for optional files even when told to use local files only.
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            name if "/" in name else f"sentence-transformers/{name}",
            revision=revision,
            cache_dir=os.environ.get("SENTENCE_TRANSFORMERS_HOME"),
            local_files_only=local_files_only,
            ignore_patterns=_NOT_FOR_TORCH,
        )
    )


def _unobtainable(name: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the encoder model {name!r} cannot be had: {why}. Download it where there is "
        f"a network (`hf download {name} --local-dir FOLDER`) and pass that folder, or "
        "leave `encoder` out to use the shipped one"
    )


def _obstacle_to_hub() -> str | None:
    for switch in _OFFLINE_SWITCHES:
        if os.environ.get(switch, "").lower() in _SWITCHED_ON:
            return f"it is not on this machine, and {switch} is set"
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if not endpoint.startswith(("https://", "http://")):
        return f"HF_ENDPOINT is {endpoint!r}, no http address"
    if not _answers(endpoint):
        return f"it is not on this machine, and {endpoint} does not answer"
    return None


def _answers(address: str) -> bool:
    """Ask once, bounded in time: looking up a name knows no timeout of its own."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    answered = threading.Event()

    def ask() -> None:
        request = Request(address, method="HEAD")  # noqa: S310
        try:
            with urlopen(request, timeout=_SECONDS_TO_REACH):  # noqa: S310
                answered.set()
        except HTTPError:
            answered.set()  # a refusal is an answer
        except Exception:  # noqa: BLE001 - whatever it was: no answer
            return

    asking = threading.Thread(target=ask, daemon=True, name="mixllm-hub-check")
    asking.start()
    asking.join(_SECONDS_TO_REACH)
    return answered.is_set()
