"""What goes from one worker to another: a decision as a record, a router as bytes.

Beside `sharing`. A record is JSON for the log of events; a router is a zip of the
files that `persistence` writes. Neither is ever unpickled.
"""

import base64
import hashlib
import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core import persistence, snapshot
from mixllm_integrations.core.encoder import Encoder, encoder_spec
from mixllm_integrations.core.errors import StateFormatError
from mixllm_integrations.core.forecast import Knowledge
from mixllm_integrations.core.parts import Damage
from mixllm_integrations.core.pending import PendingDecision
from mixllm_integrations.core.types import Candidate, number_between

__all__ = [
    "HandedOver",
    "digest_of",
    "encoder_name",
    "knowledge_digests",
    "prices_of",
    "record_of",
    "taken_over",
    "unzipped",
    "zipped",
]

_DIGITS = 16
_MOST_BYTES = 1 << 30  # of a snapshot, unzipped
_MOST_FOLDED, _FEW_BYTES = 100, 1 << 26  # a bomb is folded a thousand times
_CONTEXT = np.dtype("<f4")
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(LookupError, ValueError, RuntimeError, OverflowError),
)
_State = tuple[dict[str, Any], dict[str, NDArray[Any]]]
# What tells encoders apart, and what of a state belongs to heads, not contexts.
_NAMED = ("kind", "id", "revision", "dimension")
_OF_HEADS = ("quality", "length", "names", "version", "revision")
_ARRAYS_OF_HEADS = ("heads.", "costs.", "quality.", "length.")


@dataclass(frozen=True, slots=True, eq=False)
class HandedOver:
    """What a record of another worker says of a decision.

    Parameters
    ----------
    pending
        The decision, of no version yet.
    prices
        Of its candidate there, as `prices_of` has them.
    heads
        Digest of what it was foreseen by; empty: of nothing that is known now.
    """

    pending: PendingDecision
    prices: list[float]
    heads: str


def record_of(
    pending: PendingDecision, candidate: Candidate, *, contexts: str, heads: str
) -> dict[str, Any]:
    """Return a decision as a record that JSON can hold, without the prompt.

    Parameters
    ----------
    pending
        The decision.
    candidate
        Whom it chose, at the prices of now.
    contexts, heads
        Digests of what its context means, and of what it was foreseen by.
    """
    context = np.asarray(pending.context, dtype=_CONTEXT)
    return {
        "candidate": candidate.name,
        "context": base64.b64encode(context.tobytes()).decode(),
        "contexts": contexts,
        "heads": heads,
        "prices": prices_of(candidate),
        "predicted_quality": float(pending.predicted_quality),
        "predicted_output_tokens": float(pending.predicted_output_tokens),
        "input_tokens": int(pending.input_tokens),
        "token_cost": _finite(pending.token_cost),
    }


def taken_over(
    decision_id: str, record: Mapping[str, Any], *, contexts: str, dimension: int
) -> HandedOver | None:
    """Return the decision of a record, checked.

    Parameters
    ----------
    decision_id
        Its id.
    record
        What `record_of` gave.
    contexts, dimension
        Digest of what contexts mean here, and their length.

    Returns
    -------
    HandedOver or None
        ``None`` if its context means something else there.

    Raises
    ------
    StateFormatError
        If it is damaged.
    """
    try:
        if _text(record["contexts"]) != contexts:
            return None
        return _read(decision_id, record, dimension)
    except (LookupError, TypeError, ValueError) as error:
        raise StateFormatError(
            f"decision {decision_id!r} of another worker cannot be read "
            f"({type(error).__name__}: {error}): nothing is learned from it; the "
            "others can be read all the same"
        ) from error


def _read(decision_id: str, record: Mapping[str, Any], dimension: int) -> HandedOver:
    packed = base64.b64decode(_text(record["context"]), validate=True)
    context = np.frombuffer(packed, dtype=_CONTEXT).astype(np.float32)
    if context.shape != (dimension,) or not np.isfinite(context).all():
        raise ValueError(f"its context is not {dimension} finite numbers")
    cost, prices = record["token_cost"], record["prices"]
    if not isinstance(prices, list) or len(prices) != 2:
        raise ValueError("its prices are not two numbers")
    pending = PendingDecision(
        decision_id=decision_id,
        candidate=_text(record["candidate"]),
        predicted_quality=number_between(
            record["predicted_quality"], "predicted_quality", high=1.0
        ),
        predicted_output_tokens=_number(record, "predicted_output_tokens"),
        input_tokens=int(_number(record, "input_tokens")),
        token_cost=math.nan if cost is None else _number(record, "token_cost"),
        context=context,
    )
    listed = [number_between(p, "a price", high_is_allowed=False) for p in prices]
    return HandedOver(pending, listed, _text(record["heads"]))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} where there must be text")
    return value


def _number(record: Mapping[str, Any], name: str) -> float:
    return number_between(record[name], name, high_is_allowed=False)


def prices_of(candidate: Candidate) -> list[float]:
    """Return what a candidate costs, input and output, USD per million tokens.

    Parameters
    ----------
    candidate
        Whose prices.
    """
    return [
        float(candidate.input_cost_per_million_tokens),
        float(candidate.output_cost_per_million_tokens),
    ]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def encoder_name(encoder: Encoder) -> dict[str, Any]:
    """Return what tells an encoder from others, wherever its files are.

    Parameters
    ----------
    encoder
        Which.
    """
    spec = encoder_spec(encoder)
    return {key: spec[key] for key in _NAMED}


def knowledge_digests(knowledge: Knowledge, encoder: Encoder) -> tuple[str, str]:
    """Return digests of what contexts mean, and of the heads on them.

    Parameters
    ----------
    knowledge
        What was learned offline.
    encoder
        Below it.
    """
    state, arrays = snapshot.knowledge_state(knowledge)
    about = {k: v for k, v in state.items() if k not in _OF_HEADS}
    kinds = [state[of]["kinds"] for of in ("quality", "length") if of in state]
    rooms: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for name, array in arrays.items():
        rooms[name.startswith(_ARRAYS_OF_HEADS)][name] = array
    return (
        digest_of({"encoder": encoder_name(encoder), **about}, rooms[0]),
        digest_of({"names": state["names"], "kinds": kinds}, rooms[1]),
    )


def digest_of(about: object, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return a digest of what was learned: equal for a router and its copy.

    Parameters
    ----------
    about
        What JSON can hold.
    arrays
        By name.
    """
    told = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        told.update(f"{name} {array.dtype} {array.shape} ".encode())
        told.update(array.tobytes())
    return told.hexdigest()[:_DIGITS]


def zipped(state: _State) -> bytes:
    """Return a router's state as one zip file.

    Parameters
    ----------
    state
        JSON and arrays.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, data in persistence.packed(*state).items():
            file.writestr(name, data)
    return content.getvalue()


def unzipped(content: bytes) -> _State:
    """Return the state that `zipped` was given.

    Parameters
    ----------
    content
        Its bytes.

    Raises
    ------
    StateFormatError
        If it is damaged, or larger than any router. There is nothing that could
        be left out: the log has it all.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            size = sum(info.file_size for info in file.infolist())
            if size > min(_MOST_BYTES, max(_FEW_BYTES, _MOST_FOLDED * len(content))):
                raise ValueError(f"{size} bytes are more than any router has")
            files = {info.filename: _member(file, info) for info in file.infolist()}
    except _UNREADABLE as error:
        raise StateFormatError(
            f"a snapshot cannot be read ({type(error).__name__}: {error}): hear the "
            "log from its beginning instead"
        ) from error
    state, arrays = persistence.unpacked(files, source="a snapshot")
    if Damage.of(state).files:
        raise StateFormatError("a snapshot was changed: take another one")
    return state, arrays


def _member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return a file of a zip, unpacking no more than its header says there is.

    `ZipFile.read` unpacks all that is there, and only then looks.
    """
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError("a file in it is folded in a way that knows no limit")
    with file.open(info) as opened:
        data = opened.read(info.file_size) if info.file_size else b""
        if len(data) != info.file_size or opened.read(1):
            raise ValueError("a file in it is not as long as it says")
        return data
