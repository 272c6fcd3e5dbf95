"""The parts of a saved state, each with a digest: damage is found where it is.

Beside `persistence`. The digest of a file says whether it was changed; those of
its parts, which are only looked at then, say what of it. What one can do without
is left out and named in a `Damage`; what one cannot do without is an error.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CHANGED",
    "Damage",
    "Place",
    "array_digests",
    "digest",
    "json_parts",
    "read_json",
    "sound_arrays",
    "sound_json",
]

Place: TypeAlias = tuple[str | int, ...]

_FLOAT = "$float"  # JSON has no word for infinity
_WRITTEN = ("inf", "-inf")
CHANGED = "was changed since it was saved"
_DIGITS = 16  # of a part's sha256: enough to find what was changed by accident
# Tables whose entries are parts of their own; all else is one part.
_TABLES: frozenset[Place] = frozenset(
    {(), ("knowledge",), ("experience",), ("pending",)}
    | {("experience", t) for t in ("lengths", "costs", "labels", "levels", "bases")}
    | {("experience", t) for t in ("drift", "reliability", "signals")}
    | {("experience", t) for t in ("trials", "looks")}
    | {("experience", t, "candidates") for t in ("drift", "signals")}
)
# What a router can do without, and what stands for it where there must be something.
_SPARE: tuple[Place, ...] = (
    *(("experience",), ("pending",)),
    *(("knowledge", "quality"), ("knowledge", "length")),
    *(("exploration",), ("spending",), ("drifts",), ("unlearned",), ("chance",)),
    *(("heard",), ("speeds",)),
)
_SPARE_ARRAYS = ("heads.", "costs.", "quality.", "length.", "online.", "pending.")
_INSTEAD: dict[Place, Callable[[], Any]] = {
    ("exploration",): dict,
    ("spending",): dict,
    ("drifts",): list,
    ("unlearned",): lambda: 10**15,  # a refit may see everything once more
    ("chance",): lambda: np.random.default_rng(0).bit_generator.state,
}
# Arrays with a row or a column for each candidate, arm or decision.
_BY_ROW = frozenset(
    {"pending.contexts"}
    | {f"online.feedback.{n}" for n in ("outer", "told")}
    | {
        f"online.{room}.{n}"
        for room in ("designs", "residuals")
        for n in ("arm_of", "base_of", "share", "moment", "count")
    }
)
_BY_COLUMN = frozenset(
    {"coefficients", "intercepts", "values", "output", "output_bias"}
    | {"labels", "labelled", "means"}
)


@dataclass(frozen=True, slots=True)
class Damage:
    """What of a saved state is not what was saved.

    Parameters
    ----------
    files
        Which files were changed.
    parts
        Places in the state: there is ``None`` there now, or a beginning.
    arrays
        Arrays by name, and which rows or columns of each; ``None``: all of it,
        and it was left out.
    """

    files: tuple[str, ...] = ()
    parts: frozenset[Place] = frozenset()
    arrays: Mapping[str, frozenset[int] | None] = field(default_factory=dict)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Damage":
        """Return what of a state is damaged, as it says itself.

        Parameters
        ----------
        state
            As `persistence` has read it.
        """
        found = state.get("damage")
        return found if isinstance(found, cls) else cls()

    def within(self, start: str) -> dict[str, frozenset[int] | None]:
        """Return those arrays whose names start so, by the rest of their names.

        Parameters
        ----------
        start
            Of a name, dot included.
        """
        return {
            name.removeprefix(start): which
            for name, which in self.arrays.items()
            if name.startswith(start)
        }

    @property
    def fatal(self) -> list[str]:
        """What is damaged that a router cannot do without."""
        parts = [p for p in self.parts if not any(p[: len(s)] == s for s in _SPARE)]
        arrays = [name for name in self.arrays if not name.startswith(_SPARE_ARRAYS)]
        return sorted([*map(_shown, parts), *arrays])


def json_parts(state: Mapping[str, Any]) -> tuple[str, list[list[Any]]]:
    """Return a state as JSON, and where its parts are in it.

    Parameters
    ----------
    state
        Anything that JSON can hold, infinities and numpy's numbers, too.

    Returns
    -------
    str
        ASCII, so that a place in it is one in its bytes.
    list
        Of each part its place, where it starts and ends, and its digest.
    """
    text = _Text()
    text.write((), _plain(state))
    return "".join(text.pieces), text.parts


class _Text:
    """JSON as it is written, piece by piece."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.parts: list[list[Any]] = []
        self._length = 0

    def write(self, place: Place, value: Any) -> None:  # noqa: ANN401
        if place in _TABLES and isinstance(value, dict) and value:
            self._write_rows(place, value.items(), "{}")
        elif place in _TABLES and isinstance(value, list) and value:
            self._write_rows(place, enumerate(value), "[]")
        else:
            start, text = self._length, json.dumps(value, allow_nan=False)
            self._put(text)
            found = digest(text.encode())
            self.parts.append([list(place), start, self._length, found])

    def _write_rows(
        self, place: Place, rows: Iterable[tuple[str | int, Any]], brackets: str
    ) -> None:
        for number, (key, value) in enumerate(rows):
            self._put(",\n" if number else f"{brackets[0]}\n")
            if isinstance(key, str):
                self._put(f"{json.dumps(key)}: ")
            self.write((*place, key), value)
        self._put(f"\n{brackets[1]}")

    def _put(self, text: str) -> None:
        self.pieces.append(text)
        self._length += len(text)


def read_json(data: bytes) -> Any:  # noqa: ANN401
    """Return what JSON holds that `json_parts` has written.

    Parameters
    ----------
    data
        The bytes.

    Raises
    ------
    ValueError
        If it is no JSON, or says what JSON has no word for: NaN.
    """
    try:
        return json.loads(data, object_hook=_unplain, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested more deeply than any state") from None


def sound_json(
    data: bytes, parts: Iterable[Any]
) -> tuple[dict[str, Any], frozenset[Place]]:
    """Return a state from those of its parts that are what was saved.

    Parameters
    ----------
    data
        All of it, changed somewhere.
    parts
        What `json_parts` said of it.

    Returns
    -------
    dict
        The state; ``None``, or a beginning, stands where a part is damaged.
    frozenset
        Where that is.

    Raises
    ------
    LookupError, TypeError, ValueError, AttributeError
        If `parts` is damaged as well.
    """
    state: dict[str, Any] = {}
    damaged = set()
    for where, start, stop, expected in parts:
        place, text = tuple(where), data[start:stop]
        if digest(text) == expected:
            _put_in(state, place, read_json(text))
            continue
        damaged.add(place)
        _put_in(state, place, _INSTEAD[place]() if place in _INSTEAD else None)
    if isinstance(state.get("pending"), dict):
        state["pending"] = list(state["pending"].values())
    return state, frozenset(damaged)


def _put_in(state: dict[Any, Any], place: Place, value: Any) -> None:  # noqa: ANN401
    for key in place[:-1]:
        state = state.setdefault(key, {})
    state[place[-1]] = value


def array_digests(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return a digest of each array, or of each of its rows or columns.

    Parameters
    ----------
    arrays
        By name.

    Returns
    -------
    dict
        By name, as JSON can hold it, for `sound_arrays`.
    """
    found: dict[str, Any] = {}
    for name, array in arrays.items():
        axis = _axis(name) if array.ndim else None
        digests = _digests(array, axis)
        found[name] = digests[0] if axis is None else {"axis": axis, "of": digests}
    return found


def sound_arrays(
    arrays: Mapping[str, NDArray[Any]], digests: Mapping[str, Any]
) -> tuple[dict[str, NDArray[Any]], dict[str, frozenset[int] | None]]:
    """Return those arrays that are what was saved, and what is damaged.

    Parameters
    ----------
    arrays
        As they were read, changed somewhere.
    digests
        What `array_digests` said of them.

    Returns
    -------
    dict
        The arrays; one of which some rows or columns are damaged is among them.
    dict
        For `Damage`.

    Raises
    ------
    LookupError, TypeError, ValueError, AttributeError
        If `digests` is damaged as well.
    """
    kept: dict[str, NDArray[Any]] = {}
    damaged: dict[str, frozenset[int] | None] = {}
    for name, expected in digests.items():
        array = arrays[name]
        axis = None if isinstance(expected, str) else int(expected["axis"])
        said = [expected] if axis is None else list(expected["of"])
        pairs = zip(_digests(array, axis), said, strict=True)
        bad = frozenset(i for i, (real, saved) in enumerate(pairs) if real != saved)
        if bad:
            damaged[name] = None if axis is None else bad
        if not bad or axis is not None:
            kept[name] = array
    return kept, damaged


def _axis(name: str) -> int | None:
    """Return along which axis of an array the candidates are; ``None``: nowhere."""
    room, _, rest = name.partition(".")
    if room in {"heads", "costs"} or name in _BY_ROW:
        return 0
    is_head = room in {"quality", "length"}
    return -1 if is_head and rest.rpartition(".")[2] in _BY_COLUMN else None


def _digests(array: NDArray[Any], axis: int | None) -> list[str]:
    slices = [array] if axis is None else np.moveaxis(array, axis, 0)
    return [digest(np.ascontiguousarray(each).tobytes()) for each in slices]


def digest(data: bytes) -> str:
    """Return a short digest of a part.

    Parameters
    ----------
    data
        Its bytes.
    """
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def _shown(place: Place) -> str:
    return ".".join(map(str, place)) or "all of it"


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


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _unplain(value: dict[str, Any]) -> Any:  # noqa: ANN401
    if set(value) != {_FLOAT}:
        return value
    written = value[_FLOAT]
    if written not in _WRITTEN:  # nothing else is ever written so
        raise ValueError(f"a {_FLOAT} that is no infinity")
    return float(written)
