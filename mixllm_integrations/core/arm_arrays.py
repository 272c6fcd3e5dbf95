"""Arms as plain arrays, and back: what they share is stored and made once."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixllm_integrations.core.errors import StateFormatError
from mixllm_integrations.core.gram import Base, Gram
from mixllm_integrations.core.ridge import RidgeArm
from mixllm_integrations.core.types import FloatArray

__all__ = ["Arrays", "arms_from_arrays", "arms_to_arrays"]

Arrays: TypeAlias = Mapping[str, NDArray[np.generic]]


def arms_to_arrays(arms: Sequence[RidgeArm]) -> dict[str, NDArray[np.generic]]:
    """Return arms as plain arrays; what they share is stored once.

    Parameters
    ----------
    arms
        In the order in which `arms_from_arrays` gives them back.

    Returns
    -------
    dict of str to array
        ``arm_of`` (place -> different arm), ``base_of`` (arm -> triangle, -1: no
        data), ``share``, ``moment``, ``count`` of the triangles, and where there
        are any ``gram/<triangle>``, ``tail/<arm>``, ``weights/<arm>``.
    """
    different = list({id(arm): arm for arm in arms}.values())
    place = {id(arm): index for index, arm in enumerate(different)}
    grams = {id(gram): gram for arm in different if (gram := arm.base.gram) is not None}
    number = {key: index for index, key in enumerate(grams)}
    dimension = arms[0].base.dimension if arms else 0
    bases = [number.get(id(arm.base.gram), -1) for arm in different]
    arrays: dict[str, NDArray[np.generic]] = {
        "arm_of": np.array([place[id(arm)] for arm in arms], dtype=np.int64),
        "base_of": np.array(bases, dtype=np.int64),
        "share": np.array([arm.base.share for arm in different], dtype=np.float64),
        "moment": np.reshape(
            [a.moment for a in different], (len(different), dimension)
        ),
        "count": np.array([gram.count for gram in grams.values()], dtype=np.float64),
    }
    for index, gram in enumerate(grams.values()):
        arrays[f"gram/{index}"] = gram.packed
    for index, arm in enumerate(different):
        if len(arm.tail):
            arrays[f"tail/{index}"] = arm.tail
            arrays[f"weights/{index}"] = arm.weights
    return arrays


def arms_from_arrays(
    arrays: Arrays, count: int, *, dimension: int, l2: float
) -> list["RidgeArm | str"]:
    """Return the arms that `arms_to_arrays` stored, or why one is unreadable.

    Parameters
    ----------
    arrays
        What `arms_to_arrays` returned.
    count
        How many arms there must be.
    dimension, l2
        Of the arms.

    Returns
    -------
    list of RidgeArm or str
        In the order that was stored; a text says what is wrong with the arm.

    Raises
    ------
    StateFormatError
        If it cannot be told which arm is which.
    """
    try:
        arm_of = np.asarray(arrays["arm_of"]).astype(np.int64, casting="safe")
        np.asarray(arrays["base_of"]).astype(np.int64, casting="safe")
    except (KeyError, TypeError) as error:
        raise StateFormatError(f"the list of arms is damaged: {error}") from error
    if arm_of.shape != (count,) or (arm_of < 0).any():
        raise StateFormatError(
            f"statistics of {count} arms are needed, the state has {arm_of.shape}"
        )
    reader = _Reader(arrays, dimension, l2)
    arms: dict[int, RidgeArm | str] = {}
    for index in dict.fromkeys(arm_of.tolist()):
        try:
            arms[index] = reader.arm(index)
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            arms[index] = f"{type(error).__name__}: {error}"
    return [arms[index] for index in arm_of.tolist()]


class _Reader:
    """Reads arms one by one; what they share is made once."""

    def __init__(self, arrays: Arrays, dimension: int, l2: float) -> None:
        self._arrays, self._dimension, self._l2 = arrays, dimension, l2
        self._grams: dict[int, Gram | None] = {-1: None}
        self._bases: dict[tuple[int, float], Base] = {}

    def arm(self, index: int) -> RidgeArm:
        arrays, dimension = self._arrays, self._dimension
        share = float(_finite(arrays["share"][index], "share"))
        moment = _finite(arrays["moment"][index], "moment")
        if not 0.0 <= share <= 1.0 or moment.shape != (dimension,):
            raise StateFormatError(
                f"share {share:g} or moment {moment.shape} is damaged"
            )
        base = self._base(int(arrays["base_of"][index]), share)
        arm = RidgeArm.start(base, moment=moment)
        if f"tail/{index}" not in arrays:
            return arm
        tail = _finite(arrays[f"tail/{index}"], "tail")
        weights = _finite(arrays[f"weights/{index}"], "weights")
        if tail.shape != (len(weights), dimension) or not (weights > 0).all():
            raise StateFormatError(
                f"its tail is damaged: {tail.shape}, {weights.shape}"
            )
        for row, weight in zip(tail, weights.tolist(), strict=True):
            arm = arm.observe(row, target=0.0, weight=weight, step=len(tail) + 1)
        return arm

    def _base(self, index: int, share: float) -> Base:
        if (index, share) not in self._bases:
            self._bases[index, share] = Base.of(
                self._gram(index), self._dimension, l2=self._l2, share=share
            )
        return self._bases[index, share]

    def _gram(self, index: int) -> Gram | None:
        if index not in self._grams:
            packed = np.array(self._arrays[f"gram/{index}"], dtype=np.float64)
            count = float(_finite(self._arrays["count"][index], "count"))
            gram = Gram(packed, count)
            gram.check(self._dimension)
            self._grams[index] = gram
        return self._grams[index]


def _finite(array: ArrayLike, what: str) -> FloatArray:
    values = np.array(array, dtype=np.float64)
    if not np.isfinite(values).all():
        raise StateFormatError(f"its {what} is not finite")
    return values
