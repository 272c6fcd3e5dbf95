"""State to a folder or to bytes and back: atomic, checked, and never by pickle.

A folder holds ``state.json``, ``arrays.safetensors`` and a ``manifest.json``
with the format's version, the sha256 of both, and digests of their parts. It is
written beside the target, synced, and renamed into place, so a reader sees the
old state or the new one, never half of either. Should the process die between
the renames, the old state is found under the name that it was set aside under.
The same three files may also stay in memory, where nothing else has to be done.

Where a file was changed, its parts are looked at: what a router can do without is
left out, with a warning and a `Damage` at ``state["damage"]``.
"""

import hashlib
import json
import os
import shutil
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from mixllm_integrations.core.errors import ConfigurationError, StateFormatError
from mixllm_integrations.core.parts import (
    CHANGED,
    Damage,
    Place,
    array_digests,
    digest,
    json_parts,
    read_json,
    sound_arrays,
    sound_json,
)

__all__ = ["FORMAT_VERSION", "packed", "read_folder", "unpacked", "write_folder"]

FORMAT_VERSION = 1
_MANIFEST, _STATE, _ARRAYS = "manifest.json", "state.json", "arrays.safetensors"
_REMEDY = "restore it from a copy, or fit again"
_PATIENCE = (0.002, 0.01, 0.04, 0.1, 0.2)  # seconds, while somebody is saving
_UNREADABLE = (SafetensorError, LookupError, TypeError, ValueError, ArithmeticError)
_SWAPPING = threading.Lock()
_State: TypeAlias = tuple[dict[str, Any], dict[str, NDArray[Any]]]


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
        If it cannot be written, such as on a full disk, with the folder's name; an
        earlier state is then still there, if not the new one.
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
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error
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
    text, places = json_parts(state)
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    content = {_STATE: text.encode(), _ARRAYS: save_safetensors(whole)}
    manifest = {
        "format_version": FORMAT_VERSION,
        "sha256": {n: hashlib.sha256(c).hexdigest() for n, c in content.items()},
        "bytes": {n: len(c) for n, c in content.items()},
        "header": digest(_header(content[_ARRAYS])),
        "parts": {_STATE: places, _ARRAYS: array_digests(whole)},
    }
    content[_MANIFEST] = json.dumps(manifest).encode()
    return content


def unpacked(files: Mapping[str, bytes], *, source: str) -> _State:
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
        If a file is missing, or so damaged that there is no router without it, or
        they are of a newer version.
    """

    def bytes_of(name: str) -> bytes:
        if name not in files:
            raise StateFormatError(f"{source!r} lacks {name!r}")
        return files[name]

    state, arrays = _parsed(bytes_of, source)
    _warn(state, source)
    return state, arrays


def read_folder(folder: str | Path) -> _State:
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
        If it is no saved state, is so damaged that there is no router without it,
        or is of a newer version.
    """
    source = Path(folder).resolve()
    state, arrays = _read_still(source)
    _warn(state, str(source))
    return state, arrays


def _read_still(source: Path) -> _State:
    """Read a folder again as long as somebody replaces it meanwhile."""
    for patience in _PATIENCE:
        seen = _stamp(source)
        try:
            found = _read(source)
            if not Damage.of(found[0]).files or seen == _stamp(source):
                return found
        except (ConfigurationError, StateFormatError):
            is_still = seen == _stamp(source)
            if is_still and (seen is not None or not _set_aside(source)):
                raise
        time.sleep(patience)
    rest = [] if source.exists() else _set_aside(source)
    return _read(rest[-1] if rest else source)


def _read(source: Path) -> _State:
    if not source.is_dir():
        raise ConfigurationError(f"there is no folder {str(source)!r} to load from")
    return _parsed(lambda name: _bytes(source / name), str(source))


def _parsed(bytes_of: Callable[[str], bytes], source: str) -> _State:
    """Return what three files hold; the version decides first what is expected."""
    manifest = _json(bytes_of(_MANIFEST), _within(source, _MANIFEST))
    version = manifest.get("format_version")
    if type(version) is not int or version < 1:
        raise StateFormatError(f"{source!r} has no valid format_version; {_REMEDY}")
    if version > FORMAT_VERSION:
        raise StateFormatError(
            f"{source!r} was saved in format {version}, this version of the "
            f"package reads up to {FORMAT_VERSION}: upgrade mixllm-integrations"
        )
    digests, content, changed = manifest.get("sha256"), {}, []
    for name in (_STATE, _ARRAYS):
        content[name] = bytes_of(name)
        found = hashlib.sha256(content[name]).hexdigest()
        said = digests.get(name) if isinstance(digests, dict) else None
        if said != found:
            _check_readable(manifest, name, content[name], source)
            changed.append(name)
    try:
        arrays = load_safetensors(content[_ARRAYS])
    except _UNREADABLE as error:
        raise StateFormatError(
            f"{_within(source, _ARRAYS)!r}: {error}; {_REMEDY}"
        ) from error
    if changed:
        return _mended(manifest, content, arrays, changed, source)
    return _json(content[_STATE], _within(source, _STATE)), arrays


def _check_readable(
    manifest: Mapping[str, Any], name: str, data: bytes, source: str
) -> None:
    """Make sure that the parts of a file that was changed are where they were."""
    digests, sizes = manifest.get("sha256"), manifest.get("bytes")
    is_known = isinstance(digests, dict) and isinstance(digests.get(name), str)
    is_whole = isinstance(sizes, dict) and sizes.get(name) == len(data)
    if name == _ARRAYS:
        is_whole = is_whole and manifest.get("header") == digest(_header(data))
    if not (is_known and is_whole):
        raise _refusal(source, name)


def _mended(
    manifest: Mapping[str, Any],
    content: Mapping[str, bytes],
    arrays: dict[str, NDArray[Any]],
    changed: Sequence[str],
    source: str,
) -> _State:
    """Return what is sound of files that were changed, and what is not."""
    places: frozenset[Place] = frozenset()
    damaged: dict[str, frozenset[int] | None] = {}
    state = {}
    if _STATE not in changed:
        state = _json(content[_STATE], _within(source, _STATE))
    try:
        parts = manifest["parts"]
        if _STATE in changed:
            state, places = sound_json(content[_STATE], parts[_STATE])
        if _ARRAYS in changed:
            arrays, damaged = sound_arrays(arrays, parts[_ARRAYS])
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _refusal(source, changed[0]) from error
    damage = Damage(tuple(changed), places, damaged)
    if damage.fatal:
        raise _refusal(source, changed[0], f"{', '.join(damage.fatal)}: ")
    return {**state, "damage": damage}, arrays


def _refusal(source: str, name: str, what: str = "") -> StateFormatError:
    return StateFormatError(
        f"{_within(source, name)!r} is truncated or was changed ({what}its sha256 is "
        f"not the one in {_MANIFEST}): {_REMEDY}"
    )


def _warn(state: Mapping[str, Any], source: str) -> None:
    damage = Damage.of(state)
    hit = "what is damaged is left out"
    if not (damage.parts or damage.arrays):
        hit = "nothing that was learned is damaged"
    for name in damage.files:
        warnings.warn(
            f"{_within(source, name)!r} {CHANGED} (its sha256 is not the one in "
            f"{_MANIFEST}): {hit}; restore it from a copy, or save the router anew",
            RuntimeWarning,
            stacklevel=4,
        )


def _header(data: bytes) -> bytes:
    """Return what of a safetensors file says which array is where."""
    return data[: 8 + int.from_bytes(data[:8], "little")]


def _within(source: str, name: str) -> str:
    return str(Path(source) / name)


def _bytes(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise OSError("it is no file")
        return path.read_bytes()
    except FileNotFoundError:
        raise StateFormatError(
            f"{str(path)!r} is missing: {str(path.parent)!r} is no saved router, or "
            "not a whole one"
        ) from None
    except (OSError, ValueError) as error:  # a folder, a loop of links, no rights
        raise StateFormatError(
            f"{str(path)!r} cannot be read ({type(error).__name__}); {_REMEDY}"
        ) from error


def _json(data: bytes, path: str) -> dict[str, Any]:
    try:
        found = read_json(data)
    except ValueError as error:
        raise StateFormatError(f"{path!r} is no JSON: {error}; {_REMEDY}") from error
    if not isinstance(found, dict):
        raise StateFormatError(f"{path!r} holds no object; {_REMEDY}")
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
