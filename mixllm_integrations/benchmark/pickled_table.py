"""Reads the columns of a pickled table of pandas without making one.

A pickle says by name what is to be called with what. Here every name stands for a
plain note of what it would be called with, so nothing is called: no code of
pandas, and none of numpy that trusts its arguments (``numpy.ndarray`` takes raw
bytes for the addresses of objects). The columns are read from the notes.
"""

import io
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from mixllm_integrations.core.errors import ConfigurationError

__all__ = ["pickled_columns"]

_PLAIN = re.compile(r"[fiub][1248]")  # kinds and widths of numbers
_ORDERS = {"<": "<", ">": ">", "=": "=", "|": ""}


class _Note:
    """What would have been called, and with what."""

    args: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *args: Any) -> None:  # noqa: ANN401
        self.args = args

    def __setstate__(self, state: Any) -> None:  # noqa: ANN401
        self.state = state


class _Frame(_Note):
    pass


class _Manager(_Note):
    pass


class _Block(_Note):
    pass


class _Index(_Note):
    pass


class _Kind(_Note):
    """A class that is only ever named."""


class _Array(_Note):
    pass


class _Buffer(_Note):
    pass


class _Scalar(_Note):
    pass


class _Dtype(_Note):
    pass


def _bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":  # how old protocols write bytes
        raise ValueError("bytes are written in an unknown way")
    return text.encode("latin1")


def _byte_array(content: bytes) -> bytes:
    return bytes(memoryview(content))  # never a number, which would be a length


_ADMITTED: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("builtins", "slice"): slice,
    ("builtins", "bytearray"): _byte_array,
    ("_codecs", "encode"): _bytes,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Kind,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "scalar"): _Scalar,
    ("numpy._core.numeric", "_frombuffer"): _Buffer,
    ("pandas", "DataFrame"): _Frame,
    ("pandas", "Index"): _Kind,
    ("pandas", "RangeIndex"): _Kind,
    ("pandas._libs.internals", "_unpickle_block"): _Block,
    ("pandas.core.indexes.base", "_new_Index"): _Index,
    ("pandas.core.internals.managers", "BlockManager"): _Manager,
}
# Where older versions of pandas kept the same parts.
_MOVED = {
    ("pandas.core.frame", "DataFrame"): ("pandas", "DataFrame"),
    ("pandas.core.indexes.base", "Index"): ("pandas", "Index"),
    ("pandas.core.indexes.range", "RangeIndex"): ("pandas", "RangeIndex"),
    ("pandas.core.indexes.numeric", "Int64Index"): ("pandas", "Index"),
    ("pandas.core.internals.blocks", "new_block"): (
        "pandas._libs.internals",
        "_unpickle_block",
    ),
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        if module == "__builtin__":  # its name in Python 2, and in old pickles
            module = "builtins"
        module = module.replace("numpy.core.", "numpy._core.", 1)
        module, name = _MOVED.get((module, name), (module, name))
        found = _ADMITTED.get((module, name))
        if found is None:
            raise ConfigurationError(
                f"the pickle asks for {module}.{name}, which is no part of a plain "
                "table of texts and numbers, so it is not read"
            )
        return found


def pickled_columns(content: bytes) -> dict[str, list[Any]]:
    """Return the columns of a pickled table, by name.

    Parameters
    ----------
    content
        Of the file.

    Returns
    -------
    dict of str to list
        Texts, numbers, ``None``; empty if it is a pickle of something else.

    Raises
    ------
    ConfigurationError
        If it asks for anything but the parts of a plain table.
    Exception
        Of almost any kind, if it is damaged.
    """
    _check_places(content)
    frame = _Reader(io.BytesIO(content)).load()
    if not isinstance(frame, _Frame):
        return {}
    manager = frame.state.get("_mgr", frame.state.get("_data"))
    blocks, axes = _parts_of(manager)
    names = [str(name) for name in _index(axes[0])]
    columns: dict[str, list[Any]] = {}
    for values, placement in blocks:
        rows = _array(values)
        for place, row in zip(_placed(placement, len(names)), rows, strict=True):
            columns[names[place]] = [_plain(value) for value in row.tolist()]
    return columns


def _check_places(content: bytes) -> None:
    """Refuse a pickle that would note something at a place of gigabytes."""
    for code, argument, _ in pickletools.genops(content):
        is_place = code.name in {"PUT", "BINPUT", "LONG_BINPUT"}
        if is_place and int(argument or 0) > len(content):
            raise ValueError("it counts further than it is long")


def _parts_of(manager: object) -> tuple[list[tuple[Any, Any]], Sequence[Any]]:
    """Return values and places of each block, and the axes, of any pandas."""
    if not isinstance(manager, _Manager):
        raise TypeError("a table without blocks")
    if manager.args:
        blocks, axes = manager.args
        return [_Block(*b.args[:2]).args for b in blocks], axes
    state = manager.state[3]["0.14.1"]
    return [(b["values"], b["mgr_locs"]) for b in state["blocks"]], state["axes"]


def _index(axis: object) -> list[Any]:
    if not isinstance(axis, _Index):
        raise TypeError("a table without names")
    return [_plain(name) for name in _array(axis.args[1]["data"]).tolist()]


def _placed(placement: object, n: int) -> list[int]:
    if isinstance(placement, slice):
        return list(range(n))[placement]
    return [range(n)[place] for place in _array(placement).tolist()]


def _array(note: object) -> Any:  # noqa: ANN401
    """Return an array of objects or numbers that holds what was written."""
    if isinstance(note, _Array):
        shape, dtype, is_turned, content = note.state[-4:]
    elif isinstance(note, _Buffer):
        content, dtype, shape, order = note.args[:4]
        is_turned = order == "F"
    else:
        raise TypeError("no array where there must be one")
    if isinstance(content, list):
        if len(content) != prod(shape):
            raise ValueError("an array of another length than it says")
        found = np.empty(len(content), dtype=object)
        found[:] = content
    else:
        found = np.frombuffer(content, dtype=_number_type(dtype))
    return found.reshape(shape, order="F" if is_turned else "C")


def _number_type(note: object) -> np.dtype[Any]:
    if not isinstance(note, _Dtype) or not _PLAIN.fullmatch(note.args[0]):
        raise TypeError("an array of what is no number")
    order = _ORDERS[note.state[1]] if note.state else ""
    return np.dtype(f"{order}{note.args[0]}")


def _plain(value: object) -> object:
    """Return one cell: a scalar of numpy as a number, anything odd not at all."""
    if isinstance(value, _Scalar):
        dtype, content = value.args
        return np.frombuffer(content, dtype=_number_type(dtype))[0].item()
    if value is None or isinstance(value, str | int | float | bool | list):
        return value
    raise TypeError("a cell that is neither text nor number")
