"""On which line of a TOML file a key stands: the parser does not keep it."""

import re
from collections.abc import Sequence
from typing import TypeAlias

__all__ = ["KeyPath", "line_of", "shown_path"]

#: Such as ``("candidates", 0, "name")``.
KeyPath: TypeAlias = tuple[str | int, ...]

_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=")
_LONG_STRING = re.compile(r'"""|\'\'\'')


def line_of(text: str, path: Sequence[str | int]) -> int | None:
    """Return the line on which a key, or the innermost table around it, begins.

    Parameters
    ----------
    text
        A TOML document.
    path
        Keys and places in arrays of tables, from 0.

    Returns
    -------
    int or None
        From 1; ``None`` if not even the first key is found. Keys of inline
        tables count as that of the table.

    Examples
    --------
    >>> text = "# mine" + chr(10) + "[router]" + chr(10) + "seed = 1"
    >>> line_of(text, ["router", "seed"])
    3
    """
    wanted, best, found = tuple(path), 0, None
    for number, here in _keys(text):
        if len(here) > best and here == wanted[: len(here)]:
            best, found = len(here), number
    return found


def shown_path(path: Sequence[str | int]) -> str:
    """Return a path as people write it.

    Parameters
    ----------
    path
        Keys and places in arrays of tables, from 0.

    Examples
    --------
    >>> shown_path(["candidates", 0, "name"])
    'candidates[0].name'
    """
    shown = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)
    return shown.removeprefix(".")


def _keys(text: str) -> list[tuple[int, KeyPath]]:
    """Return every header and key with the number of its line."""
    found: list[tuple[int, KeyPath]] = []
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    inside = False  # a string of several lines may hold what looks like a key
    for number, line in enumerate(text.splitlines(), start=1):
        odd = len(_LONG_STRING.findall(line)) % 2 == 1
        if not inside and (header := _HEADER.match(line)):
            table = _placed(_parts(header[2]), counts)
            if header[1] == "[[":
                bare = table[:-1] if isinstance(table[-1], int) else table
                counts[bare] = counts.get(bare, -1) + 1
                found.append((number, bare))
                table = (*bare, counts[bare])
            found.append((number, table))
        elif not inside and (key := _KEY.match(line)):
            parts = _parts(key[1])
            found += [(number, (*table, *parts[:n])) for n in range(1, len(parts) + 1)]
        inside ^= odd
    return found


def _placed(parts: Sequence[str], counts: dict[KeyPath, int]) -> KeyPath:
    """Return the path of a header: the latest of each array of tables is meant."""
    path: KeyPath = ()
    for part in parts:
        path = (*path, part)
        if path in counts:
            path = (*path, counts[path])
    return path


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in re.findall(_PART, dotted)]
