"""One event as one line of a file: a checksum and a JSON list."""

import json
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime

from mixllm_integrations.core.errors import MixLLMError
from mixllm_integrations.store import NewEvent
from mixllm_integrations.store.payloads import plain, to_json

__all__ = ["line_of", "parsed", "too_much"]

# What goes first if there is no room: our choice.
_GIVEN_UP = ("decision", "outcome", "drift", "signal", "feedback")


def line_of(event: NewEvent, *, copy: bool = False) -> bytes | None:
    r"""Return an event as one line of a file.

    Parameters
    ----------
    event
        What waits.
    copy
        Whether its writer has it in memory as well.

    Returns
    -------
    bytes or None
        ``None`` if it holds what no store could take either.

    Examples
    --------
    >>> line_of(NewEvent("feedback", "d1", {"reward": 1.0}))
    b'2fb78dfb [0,"feedback","d1",null,{"reward":1.0}]\n'
    """
    at = None if event.at is None else event.at.isoformat()
    try:
        parts = [int(copy), event.kind, event.decision_id, at]
        body = to_json([*parts, plain(event.payload, event.kind)]).encode("ascii")
    except (MixLLMError, RecursionError, TypeError, ValueError):
        return None
    return b"%08x %s\n" % (zlib.crc32(body), body)


def parsed(line: bytes) -> tuple[bool, NewEvent | None]:
    """Return whether a line is a copy, and its event if it is undamaged.

    Parameters
    ----------
    line
        With its end; without it, it is torn.

    Returns
    -------
    tuple of bool and NewEvent or None
        ``None`` if it is damaged.
    """
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    try:
        if not line.endswith(b"\n") or int(checksum, 16) != zlib.crc32(body):
            return False, None
        copy, kind, decision_id, at, payload = json.loads(body)
        found = None if at is None else datetime.fromisoformat(at).astimezone(UTC)
    except (OverflowError, RecursionError, TypeError, ValueError):
        return False, None
    is_sound = isinstance(kind, str) and isinstance(payload, dict)
    if not (is_sound and isinstance(decision_id, str)):
        return False, None
    return bool(copy), NewEvent(kind, decision_id, payload, found)


def too_much(lines: Sequence[bytes], limit: int) -> set[int]:
    """Return which lines have to go, so that the others are within a limit.

    Parameters
    ----------
    lines
        In their order.
    limit
        Bytes that may stay.

    Returns
    -------
    set of int
        Their places: decisions first, feedback last, and of each kind the oldest.
    """
    left = sum(map(len, lines))
    of_kind: dict[str, list[int]] = {kind: [] for kind in _GIVEN_UP}
    for place, line in enumerate(lines):
        kind = line.split(b'"', 2)[1].decode("ascii", "replace") if b'"' in line else ""
        of_kind.setdefault(kind, []).append(place)
    dropped: set[int] = set()
    for kind in _GIVEN_UP:
        for place in of_kind[kind]:
            if left <= limit:
                return dropped
            dropped.add(place)
            left -= len(lines[place])
    return dropped
