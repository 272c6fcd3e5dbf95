"""State to a folder or to bytes and back: atomic, checked, and never by pickle.

A folder holds ``state.json``, ``arrays.safetensors`` and a ``manifest.json``
with the format's version and the sha256 of both. It is written beside the
target, synced, and renamed into place, so a reader sees the old state or the
new one, never half of either. Should the process die between the renames, the
old state is found under the name that it was set aside under. The same three
files may also stay in memory, where nothing else has to be done.
"""

import hashlib
import json
import math
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from mixllm_integrations.core.errors import ConfigurationError, StateFormatError

__all__ = ["FORMAT_VERSION", "packed", "read_folder", "unpacked", "write_folder"]

FORMAT_VERSION = 1
_MANIFEST, _STATE, _ARRAYS = "manifest.json", "state.json", "arrays.safetensors"
_FLOAT = "$float"  # JSON has no word for infinity
_PATIENCE = (0.002, 0.01, 0.04, 0.1, 0.2)  # seconds, while somebody is saving
_SWAPPING = threading.Lock()


def write_folder(
    folder: str | Path, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write a state so that it is there whole or not at all.

    Parameters
    ----------
    folder
        Where to; an earlier state there is replaced.
    state
        Anything that JSON can hold, infinities and numpy's numbers, too.
    arrays
        By name.

    Raises
    ------
    ConfigurationError
        If `folder` is a file, or a folder that holds something else.
    OSError
        If it cannot be written; an earlier state is then still there, if not
        the new one.
    """
    target = Path(folder).resolve()
    with _SWAPPING:  # not between somebody's renames
        _check_free(target)
    content = packed(state, arrays)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.parent / f".{target.name}.{uuid.uuid4().hex}.new"
    try:
        fresh.mkdir()
        for name, data in content.items():
            _write_synced(fresh / name, data)
        _sync_folder(fresh)
        _swap(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def packed(
    state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> dict[str, bytes]:
    """Return the files of a state's folder, by name.

    Parameters
    ----------
    state
        Anything that JSON can hold, infinities and numpy's numbers, too.
    arrays
        By name.
    """
    content = {
        _STATE: json.dumps(_plain(state), indent=1, allow_nan=False).encode(),
        _ARRAYS: save_safetensors(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        ),
    }
    manifest = {
        "format_version": FORMAT_VERSION,
        "sha256": {n: hashlib.sha256(c).hexdigest() for n, c in content.items()},
    }
    content[_MANIFEST] = json.dumps(manifest, indent=1).encode()
    return content


def unpacked(
    files: Mapping[str, bytes], *, source: str
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return what `packed` was given.

    Parameters
    ----------
    files
        What it returned.
    source
        What errors call it.

    Raises
    ------
    StateFormatError
        If a file is missing or damaged, or they are of a newer version.
    """

    def bytes_of(name: str) -> bytes:
        if name not in files:
            raise StateFormatError(f"{source!r} lacks {name!r}")
        return files[name]

    return _parsed(bytes_of, source)


def read_folder(
    folder: str | Path,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read what `write_folder` wrote.

    Parameters
    ----------
    folder
        Where from.

    Raises
    ------
    ConfigurationError
        If there is no such folder.
    StateFormatError
        If it is no saved state, is damaged, or is of a newer version.
    """
    source = Path(folder).resolve()
    for patience in _PATIENCE:
        seen = _stamp(source)
        try:
            return _read(source)
        except (ConfigurationError, StateFormatError):
            is_still = seen == _stamp(source)
            if is_still and (seen is not None or not _set_aside(source)):
                raise
        time.sleep(patience)
    rest = [] if source.exists() else _set_aside(source)
    return _read(rest[-1] if rest else source)


def _read(source: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    if not source.is_dir():
        raise ConfigurationError(f"there is no folder {str(source)!r} to load from")
    return _parsed(lambda name: _bytes(source / name), str(source))


def _parsed(
    bytes_of: Callable[[str], bytes], source: str
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return what three files hold; the version decides first what is expected."""
    manifest = _json(bytes_of(_MANIFEST), _within(source, _MANIFEST))
    version = manifest.get("format_version")
    if type(version) is not int or version < 1:
        raise StateFormatError(f"{source!r} has no valid format_version")
    if version > FORMAT_VERSION:
        raise StateFormatError(
            f"{source!r} was saved in format {version}, this version of the "
            f"package reads up to {FORMAT_VERSION}: upgrade mixllm-integrations"
        )
    digests = manifest.get("sha256")
    content = {}
    for name in (_STATE, _ARRAYS):
        content[name] = bytes_of(name)
        found = hashlib.sha256(content[name]).hexdigest()
        if not isinstance(digests, dict) or digests.get(name) != found:
            raise StateFormatError(
                f"{_within(source, name)!r} is truncated or was changed (its sha256 is "
                f"not the one in {_MANIFEST}): restore it from a copy, or fit again"
            )
    try:
        arrays = load_safetensors(content[_ARRAYS])
    except SafetensorError as error:
        raise StateFormatError(f"{_within(source, _ARRAYS)!r}: {error}") from error
    return _json(content[_STATE], _within(source, _STATE)), arrays


def _within(source: str, name: str) -> str:
    return str(Path(source) / name)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise StateFormatError(
            f"{str(path)!r} is missing: {str(path.parent)!r} is no saved router, or "
            "not a whole one"
        ) from None


def _json(data: bytes, path: str) -> dict[str, Any]:
    try:
        found = json.loads(data, object_hook=_unplain)
    except ValueError as error:
        raise StateFormatError(f"{path!r} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise StateFormatError(f"{path!r} holds no object")
    return found


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _check_free(target: Path) -> None:
    """Make sure that nothing is lost if a folder is replaced."""
    if target.is_dir():
        names = {path.name for path in target.iterdir()}
        if not names:
            return
        if _MANIFEST in names and names <= {_MANIFEST, _STATE, _ARRAYS}:
            try:
                if "format_version" in _json(_bytes(target / _MANIFEST), str(target)):
                    return
            except StateFormatError:
                pass
    elif not target.exists():
        return
    raise ConfigurationError(
        f"{str(target)!r} holds something that is not a saved router, or more than "
        "that; pass a new folder"
    )


def _swap(fresh: Path, target: Path) -> None:
    """Put a new folder in the place of an old one, or put the old one back."""
    with _SWAPPING:
        old = target.parent / f".{target.name}.{uuid.uuid4().hex}.old"
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
        for rest in _set_aside(target):
            shutil.rmtree(rest, ignore_errors=True)
    _sync_folder(target.parent)


def _set_aside(target: Path) -> list[Path]:
    """Return what stood in the place of a folder before, the newest last."""
    start = f".{target.name}."
    if not target.parent.is_dir():
        return []
    return sorted(
        (
            path
            for path in target.parent.iterdir()
            if path.name.startswith(start) and path.name.endswith(".old")
        ),
        key=lambda path: _stamp(path) or (0, 0),
    )


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what changes when a folder is replaced by another one."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ctime_ns, found.st_ino


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Return a value as JSON can hold it."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {name: _plain(below) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(below) for below in value]
    if isinstance(value, float) and math.isinf(value):
        return {_FLOAT: repr(value)}
    return value


def _unplain(value: dict[str, Any]) -> Any:  # noqa: ANN401
    return float(value[_FLOAT]) if set(value) == {_FLOAT} else value
